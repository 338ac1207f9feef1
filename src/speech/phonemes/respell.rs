//! Regular spellings for voices that read letters.

use super::symbols::is_vowel;

/// Phonemes as letters that a reader of ordinary English spelling says right: `kˈɜɹnᵊl` is
/// `kurnul`. Only `a` to `z`; stress is not written. For voices that read letters, where a
/// word's own spelling misleads them.
///
/// Long vowels are written so that they do not depend on the next letter (`ay`, `ee`, `oh`);
/// a short vowel before a single consonant and another vowel doubles the consonant.
pub fn respell(phonemes: &str) -> String {
    let sounds: Vec<char> = phonemes
        .chars()
        .filter(|c| !"ˈˌː".contains(*c) && super::symbols::is_phoneme(*c))
        .collect();
    let mut out = String::with_capacity(2 * sounds.len());
    for (i, &c) in sounds.iter().enumerate() {
        let next = sounds.get(i + 1).copied();
        let last = next.is_none();
        let after_short = i > 0 && "æɛɪɑʌɒ".contains(sounds[i - 1]) && next.is_some_and(is_vowel);
        let letters = match c {
            'A' => "ay",
            'I' if last => "y",
            'I' => "eye",
            'O' | 'Q' if last => "oh",
            'O' | 'Q' => "oa",
            'W' if last => "ow",
            'W' => "ou",
            'Y' => "oy",
            'i' if last => "ee",
            'i' => "ee",
            'u' => "oo",
            'æ' | 'a' => "a",
            'ɑ' | 'ɒ' if next == Some('ɹ') => "a",
            'ɑ' | 'ɒ' => "o",
            'ɔ' if next == Some('ɹ') => "o",
            'ɔ' => "aw",
            'ə' | 'ɐ' if last => "uh",
            'ə' | 'ɜ' if next == Some('ɹ') => "e",
            'ə' | 'ɐ' | 'ᵊ' => "u",
            'ɛ' => "e",
            'ɜ' => "er",
            'ɪ' | 'ᵻ' => "i",
            'ʊ' => "oo",
            'ʌ' => "u",
            'ð' | 'θ' => "th",
            'ŋ' if matches!(next, Some('k' | 'ɡ')) => "n",
            'ŋ' => "ng",
            'ɡ' if after_short => "gg",
            'ɡ' if matches!(next, Some('i' | 'ɪ' | 'ɛ' | 'I' | 'ᵻ')) => "gh",
            'ɡ' => "g",
            'ɹ' if after_short => "rr",
            'ɹ' => "r",
            'ʃ' => "sh",
            'ʒ' => "zh",
            'ʤ' => "j",
            'ʧ' => "ch",
            'j' => "y",
            'k' if after_short => "ck",
            's' if last => "ss",
            'T' if after_short => "tt",
            'T' => "t",
            'p' if after_short => "pp",
            'b' if after_short => "bb",
            't' if after_short => "tt",
            'd' if after_short => "dd",
            'f' if after_short => "ff",
            'l' if after_short => "ll",
            'm' if after_short => "mm",
            'n' if after_short => "nn",
            's' if after_short => "ss",
            'z' if after_short => "zz",
            'b' => "b",
            'd' => "d",
            'f' => "f",
            'h' => "h",
            'k' => "k",
            'l' => "l",
            'm' => "m",
            'n' => "n",
            'p' => "p",
            's' => "s",
            't' => "t",
            'v' => "v",
            'w' => "w",
            'z' => "z",
            _ => "",
        };
        out.push_str(letters);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::respell;

    #[test]
    fn irregular_words() {
        for (phonemes, letters) in [
            ("kˈɜɹnᵊl", "kernul"),
            ("jˈɑt", "yot"),
            ("kwˈI", "kwy"),
            ("sˈubməɹˌin", "soobmereen"),
            ("ˈɡɪtɑɹ", "ghittar"),
            ("", ""),
        ] {
            assert_eq!(respell(phonemes), letters, "{phonemes}");
        }
    }
}
