//! The symbol set, and IPA written by people brought into it.

use crate::{Error, ErrorKind, Result};

/// Every character of a phoneme string, the space first. A voice numbers them in this order.
///
/// It is the part of Kokoro's vocabulary that English needs: capitals are diphthongs
/// (`A` eɪ, `I` aɪ, `O` oʊ, `Q` əʊ, `W` aʊ, `Y` ɔɪ), `T` is the flap of *water*, `ᵊ` a
/// vowel that may fall away, `ᵻ` the vowel of *roses*.
pub const SYMBOLS: &str = " ;:,.!?—…“”()ˈˌːAIOQTWYabdfhijklmnpstuvwzæðŋɐɑɒɔəɛɜɡɪɹʃʊʌʒʤʧθᵊᵻ";

/// The marks among [`SYMBOLS`].
pub const MARKS: &str = ";:,.!?—…“”()";

/// Whether `c` is part of a word's pronunciation: a sound, a stress or the length mark.
pub fn is_phoneme(c: char) -> bool {
    c != ' ' && !MARKS.contains(c) && SYMBOLS.contains(c)
}

/// Whether `c` is a vowel or a diphthong.
pub fn is_vowel(c: char) -> bool {
    "AIOQWYaiuæɐɑɒɔəɛɜɪʊʌᵊᵻ".contains(c)
}

/// What IPA writes and the set writes differently, longest first.
const FROM_IPA: &[(&str, &str)] = &[
    // Tied and untied affricates.
    ("t͡ʃ", "ʧ"),
    ("d͡ʒ", "ʤ"),
    ("t͜ʃ", "ʧ"),
    ("d͜ʒ", "ʤ"),
    ("tʃ", "ʧ"),
    ("dʒ", "ʤ"),
    // Vowels with r.
    ("ɜːɹ", "ɜɹ"),
    ("ɜːr", "ɜɹ"),
    ("ɝː", "ɜɹ"),
    ("ɝ", "ɜɹ"),
    ("ɚ", "əɹ"),
    // Diphthongs, in the usual spellings.
    ("eɪ", "A"),
    ("ei", "A"),
    ("e͡ɪ", "A"),
    ("aɪ", "I"),
    ("ai", "I"),
    ("a͡ɪ", "I"),
    ("aʊ", "W"),
    ("au", "W"),
    ("a͡ʊ", "W"),
    ("ɔɪ", "Y"),
    ("ɔi", "Y"),
    ("oɪ", "Y"),
    ("ɔ͡ɪ", "Y"),
    ("oʊ", "O"),
    ("ou", "O"),
    ("o͡ʊ", "O"),
    ("əʊ", "Q"),
    ("əu", "Q"),
    ("ə͡ʊ", "Q"),
    // Syllabic consonants.
    ("l̩", "ᵊl"),
    ("n̩", "ᵊn"),
    ("m̩", "ᵊm"),
    ("ɹ̩", "əɹ"),
    ("r̩", "əɹ"),
    // Single letters.
    ("e", "ɛ"),
    ("o", "O"),
    ("ʋ", "v"),
    ("r", "ɹ"),
    ("ɾ", "T"),
    ("ɻ", "ɹ"),
    ("ʁ", "ɹ"),
    ("g", "ɡ"),
    ("ʔ", "t"),
    ("x", "k"),
    ("ç", "h"),
    ("χ", "k"),
    ("ɫ", "l"),
    ("ʍ", "w"),
    ("ɱ", "m"),
    ("ɲ", "nj"),
    ("y", "u"),
    ("ʉ", "u"),
    ("ɯ", "u"),
    ("ø", "ɜ"),
    ("œ", "ɜ"),
    ("ɵ", "ʊ"),
    ("ɨ", "ᵻ"),
    ("ɘ", "ə"),
    ("ɞ", "ɜ"),
    ("ɤ", "ʌ"),
    ("ʏ", "ʊ"),
    ("c", "k"),
    ("q", "k"),
    ("ɕ", "ʃ"),
    ("ʂ", "ʃ"),
    ("ʑ", "ʒ"),
    ("ʐ", "ʒ"),
    ("β", "v"),
    ("ɣ", "ɡ"),
    ("'", "ˈ"),
    ("’", "ˈ"),
    (":", "ː"),
];

/// What IPA may hold that says nothing here: syllable and word boundaries, links, ties,
/// aspiration, dental, unreleased, voiceless and nasal marks.
const SILENT: &str = " .-‿|‖/[]ʰʲʷ\u{32a}\u{31a}\u{325}\u{303}\u{329}\u{32f}\u{361}\u{35c}";

/// IPA, in American or British style, as the symbols of [`SYMBOLS`].
///
/// Stress marks may stand in front of a syllable, as IPA has them: they move to its vowel.
/// The symbols of the set itself are taken too, capitals for diphthongs included. Length
/// marks stay only where `british` voices know them.
///
/// # Errors
///
/// [`ErrorKind::InvalidText`] if a symbol is unknown (all of them are named) or nothing is
/// left to say.
pub fn from_ipa(ipa: &str, british: bool) -> Result<String> {
    let mut out = String::with_capacity(ipa.len());
    let mut unknown = String::new();
    let mut rest = ipa.trim();
    'symbols: while let Some(c) = rest.chars().next() {
        for (from, to) in FROM_IPA {
            if let Some(tail) = rest.strip_prefix(from) {
                // A syllable boundary keeps two vowels apart: what stands here is one.
                out.push_str(to);
                rest = tail;
                continue 'symbols;
            }
        }
        if is_phoneme(c) {
            out.push(c);
        } else if !SILENT.contains(c) && !unknown.contains(c) {
            unknown.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    if !unknown.is_empty() {
        let list: Vec<String> =
            unknown.chars().map(|c| format!("{c:?} (U+{:04X})", c as u32)).collect();
        return Err(Error::new(
            ErrorKind::InvalidText,
            format!(
                "{} in the pronunciation {ipa:?} {} no sound of English in IPA; the voice knows {}",
                list.join(", "),
                if list.len() == 1 { "is" } else { "are" },
                SYMBOLS.chars().filter(|&c| is_phoneme(c)).collect::<String>()
            ),
        ));
    }
    if !british {
        // American voices were trained without length, and with one vowel in "lot", "goat".
        out = out.replace('ː', "").replace('Q', "O").replace('ɒ', "ɑ");
        out = out.chars().map(|c| if c == 'a' { 'ɑ' } else { c }).collect();
    }
    if !out.contains(|c| is_phoneme(c) && !"ˈˌː".contains(c)) {
        return Err(Error::new(
            ErrorKind::InvalidText,
            format!("the pronunciation {ipa:?} has no sound in it; write it in IPA, as həˈloʊ"),
        ));
    }
    Ok(stress_to_vowels(&out))
}

/// Moves each stress mark to the next vowel; marks without one fall away.
pub fn stress_to_vowels(phonemes: &str) -> String {
    let mut out = String::with_capacity(phonemes.len());
    let mut pending = None;
    for c in phonemes.chars() {
        match c {
            'ˈ' | 'ˌ' => pending = Some(c),
            _ => {
                if is_vowel(c)
                    && let Some(mark) = pending.take()
                {
                    out.push(mark);
                }
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_has_no_symbol_twice() {
        let mut seen = String::new();
        for c in SYMBOLS.chars() {
            assert!(!seen.contains(c), "{c}");
            seen.push(c);
        }
        assert_eq!(seen.chars().count(), 63);
        assert!(MARKS.chars().all(|c| SYMBOLS.contains(c)));
    }

    #[test]
    fn what_ipa_becomes_is_in_the_set() {
        for (from, to) in FROM_IPA {
            assert!(to.chars().all(is_phoneme), "{from} {to}");
        }
    }
}
