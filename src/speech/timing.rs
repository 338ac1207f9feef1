//! When the words of an utterance are said, estimated: models that make speech token by token do
//! not tell.
//!
//! Each symbol of the phonemes has a length of its own, by what it is, what follows, and whether it
//! stands in the last syllable before a mark; together they are stretched to the true length of the
//! sound. The lengths are hibari's, by least squares over 700 sentences
//! (`tools/scripts/word_times.py`); on others of its sentences half of the words' begins and ends
//! are within 46 ms of the true ones (`tests/timing.rs` holds it to 60).

use super::phonemes::Spoken;
use std::ops::Range;

/// A symbol, its length, what the last syllable before a mark adds, and what it adds to the symbol
/// before it; in frames of 25 ms.
const LENGTHS: [(char, f32, f32, f32); 58] = [
    (' ', 1.38, 0.00, 0.54),
    (';', 1.06, 1.06, 5.12),
    (':', 1.06, 1.06, 5.12),
    (',', 1.06, 1.06, 5.12),
    ('.', 2.71, 2.71, 10.63),
    ('!', 1.92, 1.92, 5.45),
    ('?', 2.69, 2.69, 9.40),
    ('—', 1.06, 1.06, 5.12),
    ('…', 1.06, 1.06, 5.12),
    ('ˈ', 1.45, 0.00, 0.44),
    ('ˌ', 0.94, 0.00, 0.33),
    ('A', 1.83, 1.32, 1.77),
    ('I', 1.84, 1.09, 2.07),
    ('O', 1.88, 1.34, 1.66),
    ('Q', 1.88, 1.34, 1.66),
    ('T', 1.50, 0.00, 0.54),
    ('W', 1.62, 1.32, 1.97),
    ('Y', 1.88, 0.99, 1.99),
    ('a', 0.98, 2.01, 1.56),
    ('b', 1.21, 0.13, 0.70),
    ('d', 1.13, 0.29, 0.43),
    ('f', 1.10, 2.16, 1.21),
    ('h', 0.80, 0.00, 0.52),
    ('i', 2.00, 2.14, 1.18),
    ('j', 0.93, 0.00, 0.84),
    ('k', 1.46, 0.63, 0.84),
    ('l', 1.38, 0.78, 0.85),
    ('m', 1.38, 1.48, 0.75),
    ('n', 1.35, 1.19, 0.49),
    ('p', 1.50, -0.15, 0.82),
    ('s', 1.78, 1.42, 1.18),
    ('t', 1.18, 0.85, 0.59),
    ('u', 1.65, 1.75, 0.85),
    ('v', 1.09, -0.18, 0.67),
    ('w', 0.87, 0.00, 0.59),
    ('z', 1.89, 0.71, 1.30),
    ('æ', 0.98, 2.01, 1.56),
    ('ð', 0.64, 0.48, 0.15),
    ('ŋ', 1.39, 1.20, 0.87),
    ('ɐ', 1.00, 0.00, -0.08),
    ('ɑ', 1.38, 1.34, 1.39),
    ('ɒ', 1.38, 1.34, 1.39),
    ('ɔ', 1.28, 1.37, 1.08),
    ('ə', 1.34, 1.18, 0.57),
    ('ɛ', 1.15, 1.16, 0.71),
    ('ɜ', 1.23, 1.07, 0.24),
    ('ɡ', 1.44, 0.03, 0.85),
    ('ɪ', 1.14, 1.45, 0.54),
    ('ɹ', 1.33, 1.34, 0.61),
    ('ʃ', 1.97, 0.04, 1.59),
    ('ʊ', 1.36, 1.03, 0.42),
    ('ʌ', 0.77, 1.76, 0.28),
    ('ʒ', 1.74, 0.00, 1.24),
    ('ʤ', 1.72, 0.82, 1.37),
    ('ʧ', 1.78, 1.07, 1.40),
    ('θ', 1.35, 0.97, 1.35),
    ('ᵊ', 1.31, 0.89, 0.76),
    ('ᵻ', 1.85, 1.20, 0.96),
];

const MARKS: &str = ";:,.!?\u{2014}\u{2026}\u{201c}\u{201d}()";
const VOWELS: &str = "AIOQTWYaiu\u{e6}\u{251}\u{252}\u{254}\u{259}\u{25b}\u{25c}\u{26a}\u{28a}\u{28c}\u{1d4a}\u{1d7b}\u{250}";

fn length_of(symbol: char) -> (f32, f32, f32) {
    let known = LENGTHS.iter().find(|row| row.0 == symbol);
    // Brackets and quotes are not heard; signs of length are part of what they lengthen.
    known.map_or((0.0, 0.0, 0.0), |&(_, own, last, next)| (own, last, next))
}

/// How long each character of `phonemes` is said at the natural pace, in seconds. Only the
/// proportions are to be trusted.
pub fn lengths(phonemes: &str) -> Vec<f32> {
    let symbols: Vec<char> = phonemes.chars().collect();
    let mut last = vec![false; symbols.len()];
    let mut begin = 0;
    while begin < symbols.len() {
        let length = symbols[begin..].iter().position(|&c| c == ' ');
        let end = length.map_or(symbols.len(), |n| begin + n);
        let word = &symbols[begin..end];
        if end == symbols.len() || word.iter().any(|&c| MARKS.contains(c)) {
            let vowel = word.iter().rposition(|&c| VOWELS.contains(c)).unwrap_or(0);
            last[begin + vowel..end].fill(true);
        }
        begin = end + 1;
    }
    let frames = symbols.iter().enumerate().map(|(i, &symbol)| {
        let (own, more, _) = length_of(symbol);
        let next = length_of(symbols.get(i + 1).copied().unwrap_or(' ')).2;
        (own + if last[i] { more } else { 0.0 } + next).max(0.3)
    });
    frames.map(|n| 0.025 * n).collect()
}

/// When each of the words is said, if the first begins where `sound` does and the last ends with it.
/// Words that are not said take no time.
pub fn words(said: &[Spoken], sound: Range<f64>) -> Vec<Range<f64>> {
    // The string that the voice reads, and each word's place in it without the marks around.
    let mut all = String::new();
    let mut places = Vec::with_capacity(said.len());
    for spoken in said {
        if !spoken.phonemes.is_empty() {
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&spoken.before);
        }
        let begin = all.chars().count();
        all.push_str(&spoken.phonemes);
        places.push(begin..all.chars().count());
        if !spoken.phonemes.is_empty() {
            all.push_str(&spoken.after);
        }
    }
    let mut ends = vec![0.0];
    for length in lengths(&all) {
        ends.push(ends[ends.len() - 1] + f64::from(length));
    }
    // What stands behind the last word is silence, which is not in the sound.
    let first = places.first().map_or(0.0, |p| ends[p.start]);
    let last = places.last().map_or(0.0, |p| ends[p.end]);
    let scale = if last > first { (sound.end - sound.start) / (last - first) } else { 0.0 };
    let at = |place: usize| sound.start + scale * (ends[place] - first);
    places.into_iter().map(|p| at(p.start)..at(p.end)).collect()
}
