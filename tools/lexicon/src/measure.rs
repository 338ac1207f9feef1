//! How far the front end agrees with the oracle.

use std::collections::BTreeMap;

use voxgrain::speech::phonemes::Phonemizer;

/// A line of the oracle: text, phonemes, tokens (text, tag, phonemes).
pub struct Line {
    pub text: String,
    pub phonemes: String,
    pub tokens: Vec<(String, String)>,
}

pub fn read(path: &str, limit: usize) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .take(limit)
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let text = fields.next()?.to_string();
            let phonemes = fields.next()?.to_string();
            let tokens = fields
                .filter_map(|t| {
                    let mut p = t.split('\u{1}');
                    Some((p.next()?.to_string(), p.next()?.to_string()))
                })
                .collect();
            Some(Line { text, phonemes, tokens })
        })
        .collect()
}

/// The words of a phoneme string, without marks.
fn words(phonemes: &str) -> Vec<String> {
    phonemes
        .split([' ', '—'])
        .map(|w| w.chars().filter(|c| !";:,.!?…“”()\"".contains(*c)).collect::<String>())
        .filter(|w| !w.is_empty())
        .collect()
}

pub fn agreement(open: &Phonemizer, lines: &[Line], show: usize) -> f64 {
    let (mut same, mut all, mut unknown, mut skipped) = (0usize, 0usize, 0usize, 0usize);
    let mut wrong: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut sentences = 0;
    for line in lines {
        let want = words(&line.phonemes);
        let text = &line.text;
        let got = words(&open.phonemize(text).unwrap());
        if got.len() != want.len() {
            // All of its words count as different.
            skipped += 1;
            all += want.len();
            wrong.entry(format!("{} words, oracle {}", got.len(), want.len())).or_default().0 += 1;
            wrong.entry(format!("{} words, oracle {}", got.len(), want.len())).or_default().1 =
                text.clone();
            continue;
        }
        let mut whole = true;
        let spelt: Vec<&str> = text.split_whitespace().collect();
        for (k, (g, w)) in got.iter().zip(&want).enumerate() {
            if w.contains('❓') {
                unknown += 1;
                continue;
            }
            all += 1;
            if g == w {
                same += 1;
            } else {
                whole = false;
                let word = if spelt.len() == got.len() { spelt[k] } else { "?" };
                let e = wrong.entry(format!("{word} {g} (oracle {w})")).or_default();
                e.0 += 1;
                e.1 = text.clone();
            }
        }
        sentences += usize::from(whole);
    }
    let mut list: Vec<_> = wrong.into_iter().collect();
    list.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
    for (what, (n, text)) in list.iter().take(show) {
        println!("{n:4}  {what:50}  {text}");
    }
    println!(
        "{} sentences, {} with all words alike, {skipped} of other length; {all} words, {same} alike: {:.3} %; {unknown} unknown to the oracle left out",
        lines.len(),
        sentences,
        100.0 * same as f64 / all as f64
    );
    same as f64 / all as f64
}
