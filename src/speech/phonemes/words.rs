//! One word: the list, its endings, its letters, its context.

use super::lexicon::{Entry, Lexicon, Variant};
use super::morphology::{Stress, balance, spelt, stressed, with_ed, with_ing, with_s};
use super::tagger::Tag;
use super::{Origin, symbols};

/// What follows a word.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Following {
    /// Whether the next sound is a vowel; `None` before a mark and at the end.
    pub(super) vowel: Option<bool>,
    /// The next word is `to`.
    pub(super) to: bool,
}

impl Following {
    /// What follows the word in front of one that is said `phonemes`.
    pub(super) fn before(self, phonemes: &str, word: &str) -> Self {
        // The weak vowels decide nothing: "to a house" is said as "to house".
        let vowel = phonemes
            .chars()
            .find(|&c| !"ˈˌːɐᵊ ".contains(c))
            .map_or(self.vowel, |c| Some(symbols::is_vowel(c)));
        Self { vowel, to: word.eq_ignore_ascii_case("to") }
    }
}

/// Parts of compounds have at least this many letters.
const SHORTEST_PART: usize = 4;
/// What looks like the second word of a compound and is an ending, or is said like one.
const ENDINGS: &[&str] = &[
    "able", "ably", "ally", "less", "ness", "ling", "like", "wise", "ship", "town", "land", "berg",
    "burg", "ford", "ston", "ville", "rate", "tide", "pest", "mute", "cate", "tion", "sion",
];
/// What looks like the first word of a compound and is a prefix, with a stress of its own.
const PREFIXES: &[&str] = &[
    "over", "under", "counter", "inter", "hyper", "super", "after", "fore", "type", "pent",
    "cross", "circum", "trans", "post", "self", "here", "there", "where",
];

/// Reads words of one lexicon.
pub(super) struct Words<'a> {
    pub(super) lexicon: &'a Lexicon,
}

fn is_upper(word: &str) -> bool {
    !word.chars().any(char::is_lowercase)
}

impl Words<'_> {
    /// The pronunciation of a word that may have apostrophes, hyphens or capitals within.
    pub(super) fn read(&self, word: &str, tag: Tag, after: Following) -> (String, Origin) {
        if let Some(found) = self.whole(word, tag, after) {
            return (found, Origin::Lexicon);
        }
        let parts = split(word);
        if parts.len() == 1 {
            return self.unknown(word);
        }
        // The longest known runs of parts, from the right: "'s" before "mother-in-law".
        let mut said: Vec<Option<String>> = vec![None; parts.len()];
        let mut origin = Origin::Lexicon;
        let mut right = parts.len();
        let mut following = after;
        while right > 0 {
            let end = parts[right - 1].1;
            let found = (0..right).find_map(|left| {
                let text = &word[parts[left].0..end];
                if left + 1 == right && is_silent(text) {
                    return Some((left, String::new()));
                }
                self.whole(text, tag, following).map(|p| (left, p))
            });
            let (left, phonemes) = found.unwrap_or_else(|| {
                let (p, o) = self.unknown(&word[parts[right - 1].0..end]);
                origin = o;
                (right - 1, p)
            });
            if !phonemes.is_empty() {
                following = following.before(&phonemes, &word[parts[left].0..end]);
            }
            said[left] = Some(phonemes);
            right = left;
        }
        let mut phonemes: Vec<String> = said.into_iter().flatten().collect();
        let kinds = |f: fn(char) -> bool| word.chars().any(f);
        if word.contains('/') || (kinds(char::is_alphabetic) && kinds(|c| c.is_ascii_digit())) {
            phonemes.retain(|p| !p.is_empty());
            return (phonemes.join(" "), origin);
        }
        let single = parts[0].1 - parts[0].0 == 1;
        balance(&mut phonemes, single);
        (phonemes.concat(), origin)
    }

    /// A word as one piece, by the list and its endings.
    fn whole(&self, word: &str, tag: Tag, after: Following) -> Option<String> {
        if let Some(special) = self.special(word, tag, after) {
            return Some(special);
        }
        let lower = word.to_lowercase();
        let stress = if word == lower {
            Stress::AsIs
        } else if is_upper(word) {
            Stress::Strong
        } else {
            Stress::AtLeastWeak
        };
        let mut word = word;
        let letters = word.chars().all(|c| c.is_alphabetic() || c == '\'');
        let rest_lower = !word.chars().skip(1).any(char::is_uppercase);
        if word.len() > 1
            && letters
            && word != lower
            && (tag != Tag::Name || word.chars().count() > 7)
            && self.lexicon.entry(word).is_none()
            && (is_upper(word) || rest_lower)
            && (self.lexicon.entry(&lower).is_some()
                || self.by_ending(&lower, tag, stress, after).is_some())
        {
            word = &lower;
        }
        if self.known(word) {
            return self.look_up(word, tag, stress, after);
        }
        if let Some(owner) = word.strip_suffix('\'') {
            if let Some(stem) = owner.strip_suffix('s') {
                let single = format!("{stem}'s");
                if self.known(&single) {
                    return self.look_up(&single, tag, stress, after);
                }
            }
            if self.known(owner) {
                return self.look_up(owner, tag, stress, after);
            }
        }
        self.by_ending(word, tag, stress, after)
    }

    /// Words whose form depends on what surrounds them.
    fn special(&self, word: &str, tag: Tag, after: Following) -> Option<String> {
        let text = match word {
            "a" | "A" => {
                if tag == Tag::Determiner {
                    "ɐ"
                } else {
                    "ˈA"
                }
            }
            "an" | "An" => "ɐn",
            "am" if after.vowel.is_some() => "ɐm",
            "I" if tag == Tag::Pronoun => "ˌI",
            "by" | "By" | "BY" if tag == Tag::Adverb => "bˈI",
            "to" | "To" | "TO" => match after.vowel {
                None => "tu",
                Some(false) => "tə",
                Some(true) => "tʊ",
            },
            "in" | "In" => {
                if after.vowel.is_none() || tag != Tag::Preposition {
                    "ˈɪn"
                } else {
                    "ɪn"
                }
            }
            "the" | "The" | "THE" => {
                if after.vowel == Some(true) {
                    "ði"
                } else {
                    "ðə"
                }
            }
            "used" | "Used" | "USED" => {
                let entry = self.lexicon.entry("used")?;
                let accustomed = after.to && matches!(tag, Tag::Past | Tag::Adjective);
                return match self.lexicon.variant_of(entry, Variant::PlainPast) {
                    Some(found) if accustomed => found,
                    _ => Some(self.lexicon.default_of(entry)),
                };
            }
            _ => return None,
        };
        Some(text.to_string())
    }

    /// Whether the list has the word, or it is letters to be named.
    fn known(&self, word: &str) -> bool {
        if self.lexicon.entry(word).is_some() {
            return true;
        }
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphabetic()) {
            return false;
        }
        word.len() == 1
            || is_upper(word) && self.lexicon.entry(&word.to_lowercase()).is_some_and(|e| e.first)
            || is_upper(&word[1..])
    }

    fn look_up(&self, word: &str, tag: Tag, stress: Stress, after: Following) -> Option<String> {
        let mut name = false;
        let lower;
        let mut key = word;
        if is_upper(word) && !self.lexicon.entry(word).is_some_and(|e| e.first) {
            lower = word.to_lowercase();
            key = &lower;
            name = tag == Tag::Name;
        }
        let entry = self.lexicon.entry(key).filter(|e| e.first || !name);
        let phonemes = entry.and_then(|e| self.choose(e, tag, after));
        match phonemes {
            Some(p) if !name || p.contains('ˈ') => Some(stressed(&p, stress)),
            other => self.letter_names(key).or_else(|| other.map(|p| stressed(&p, stress))),
        }
    }

    /// The variant for a part of speech.
    fn choose(&self, entry: Entry<'_>, tag: Tag, after: Following) -> Option<String> {
        let lexicon = self.lexicon;
        let get = |v| lexicon.variant_of(entry, v);
        if after.vowel.is_none()
            && let Some(found) = get(Variant::Final)
        {
            return found;
        }
        let by_tag = match tag {
            Tag::Past | Tag::Participle | Tag::Present => {
                get(Variant::Past).or_else(|| get(Variant::Verb))
            }
            t if t.is_verb() => get(Variant::Verb),
            t if t.is_noun() => get(Variant::Noun),
            Tag::Adjective => get(Variant::Adjective),
            Tag::Adverb => get(Variant::Adverb),
            Tag::Determiner => get(Variant::Determiner),
            _ => None,
        };
        by_tag.unwrap_or_else(|| Some(lexicon.default_of(entry)))
    }

    /// `usa` as the names of its letters; `None` if it has anything but letters.
    pub(super) fn letter_names(&self, word: &str) -> Option<String> {
        let mut names = String::new();
        for c in word.chars().filter(|c| c.is_alphabetic()) {
            let name = c.to_uppercase().to_string();
            names.push_str(&self.lexicon.default_of(self.lexicon.exact(&name)?));
        }
        (!names.is_empty()).then(|| spelt(&names))
    }

    fn by_ending(&self, word: &str, tag: Tag, stress: Stress, after: Following) -> Option<String> {
        self.ending_s(word, tag, stress, after)
            .or_else(|| self.ending_ed(word, stress, after))
            .or_else(|| self.ending_ing(word, stress, after))
    }

    fn ending_s(&self, word: &str, tag: Tag, stress: Stress, after: Following) -> Option<String> {
        let short = word.strip_suffix('s').filter(|_| word.len() >= 3)?;
        let stem = if !word.ends_with("ss") && self.known(short) {
            short.to_string()
        } else if let Some(stem) = word
            .strip_suffix("'s")
            .or_else(|| {
                word.strip_suffix("es").filter(|_| word.len() > 4 && !word.ends_with("ies"))
            })
            .filter(|s| self.known(s))
        {
            stem.to_string()
        } else {
            let stem = format!("{}y", word.strip_suffix("ies").filter(|_| word.len() > 4)?);
            if !self.known(&stem) {
                return None;
            }
            stem
        };
        let p = self.look_up(&stem, tag, stress, after)?;
        Some(with_s(&p, self.lexicon.british()))
    }

    /// Such a stem is a verb, whatever the whole word is: *a situated agent*.
    fn ending_ed(&self, word: &str, stress: Stress, after: Following) -> Option<String> {
        let short = word.strip_suffix('d').filter(|_| word.len() >= 4)?;
        let stem = if !word.ends_with("dd") && self.known(short) {
            short
        } else {
            word.strip_suffix("ed")
                .filter(|s| word.len() > 4 && !word.ends_with("eed") && self.known(s))?
        };
        let p = self.look_up(stem, Tag::Verb, stress, after)?;
        Some(with_ed(&p, self.lexicon.british()))
    }

    fn ending_ing(&self, word: &str, stress: Stress, after: Following) -> Option<String> {
        let short = word.strip_suffix("ing").filter(|_| word.len() >= 5)?;
        let with_e = || format!("{short}e");
        let stem = if word.len() > 5 && self.known(short) {
            short.to_string()
        } else if self.known(&with_e()) {
            with_e()
        } else {
            // Doubled: "zipping" from "zip"; also "picnicking".
            let mut back = short.bytes().rev();
            let (last, before) = (back.next()?, back.next()?);
            let doubled = last == before && b"bcdgklmnprstvxz".contains(&last);
            let stem = &short[..short.len() - 1];
            if word.len() <= 5 || !(doubled || short.ends_with("ck")) || !self.known(stem) {
                return None;
            }
            stem.to_string()
        };
        let stress = if stress == Stress::AsIs { Stress::AtLeastWeak } else { stress };
        let p = self.look_up(&stem, Tag::Verb, stress, after)?;
        with_ing(&p, self.lexicon.british())
    }

    /// A word that no list has: two known words in one, or the letter model.
    fn unknown(&self, word: &str) -> (String, Origin) {
        if let Some(owner) = word.strip_suffix("'s").filter(|w| !w.is_empty()) {
            let (p, origin) = self.unknown(owner);
            return (with_s(&p, self.lexicon.british()), origin);
        }
        let mut plain = String::with_capacity(word.len());
        for c in word.chars() {
            plain.extend(c.to_lowercase());
        }
        let plain: String = plain.chars().filter(|c| c.is_ascii_lowercase()).collect();
        if plain.is_empty() {
            return (self.digits(word), Origin::Spelt);
        }
        if !plain.bytes().any(|b| b"aeiouy".contains(&b)) {
            // Nobody can say "xkcd".
            if let Some(names) = self.letter_names(&plain) {
                return (names, Origin::Spelt);
            }
        }
        for (suffix, ending) in [("s", with_s as fn(&str, bool) -> String), ("ed", with_ed)] {
            // "googles": the stem is read, then its ending.
            if let Some(stem) = plain.strip_suffix(suffix)
                && !plain.ends_with("ss")
                && let Some(p) = self.compound(stem)
            {
                return (ending(&p, self.lexicon.british()), Origin::Compound);
            }
        }
        if let Some(p) = self.compound(&plain) {
            return (p, Origin::Compound);
        }
        let mut said = String::new();
        let mut rest = plain.as_str();
        while !rest.is_empty() {
            let cut = rest.len().min(super::letters::MAX_LETTERS);
            said.push_str(&self.lexicon.by_letters(&rest[..cut]).unwrap_or_default());
            rest = &rest[cut..];
        }
        (said, Origin::Letters)
    }

    /// Digits one by one; nothing for anything else.
    fn digits(&self, word: &str) -> String {
        const NAMES: [&str; 10] =
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        let names: Vec<String> = word
            .chars()
            .filter_map(|c| c.to_digit(10))
            .filter_map(|d| self.lexicon.entry(NAMES[d as usize]))
            .map(|e| self.lexicon.default_of(e))
            .collect();
        names.join(" ")
    }

    /// Two known words written as one.
    fn compound(&self, word: &str) -> Option<String> {
        if !word.is_ascii() || word.len() < 2 * SHORTEST_PART {
            return None;
        }
        // The longest second part that is known, so that "-house" wins over "-use".
        (SHORTEST_PART..=word.len() - SHORTEST_PART).find_map(|at| {
            let (left, right) = word.split_at(at);
            // "micro", "poly": the parts of learned words carry other stresses.
            if left.ends_with(['a', 'i', 'o'])
                || PREFIXES.contains(&left)
                || ENDINGS.contains(&right)
            {
                return None;
            }
            let (a, b) = (self.plain(left)?, self.plain(right)?);
            let mut parts = [a, stressed(&b, Stress::Lowered)];
            if !parts[0].contains('ˈ') {
                parts[0] = stressed(&parts[0], Stress::Strong);
            }
            Some(parts.concat())
        })
    }

    /// The default of a first-choice entry with a stress of its own.
    fn plain(&self, word: &str) -> Option<String> {
        let entry = self.lexicon.exact(word).filter(|e| e.first)?;
        let p = self.lexicon.default_of(entry);
        p.contains('ˈ').then_some(p)
    }
}

/// Hyphens, apostrophes and the like say nothing alone.
fn is_silent(text: &str) -> bool {
    text.chars().all(|c| "',-._/".contains(c))
}

/// Ranges of letters, digits and joints, cut where the case says that a new word begins:
/// `iPhone`, `JSONLine`.
fn split(word: &str) -> Vec<(usize, usize)> {
    let chars: Vec<(usize, char)> = word.char_indices().collect();
    let kind = |c: char| {
        if c.is_alphabetic() {
            0
        } else if c.is_ascii_digit() {
            1
        } else {
            2
        }
    };
    let mut out = Vec::new();
    let mut start = 0;
    for i in 1..=chars.len() {
        let cut = i == chars.len() || {
            let (b, c) = (chars[i - 1].1, chars[i].1);
            let letters_around = |k: usize| {
                k > 0
                    && chars[k].1 == '\''
                    && chars[k - 1].1.is_alphabetic()
                    && chars.get(k + 1).is_some_and(|n| n.1.is_alphabetic())
            };
            if letters_around(i) || (i > 1 && letters_around(i - 1)) {
                false
            } else if kind(b) != kind(c) {
                true
            } else {
                b.is_lowercase() && c.is_uppercase()
                    || b.is_uppercase()
                        && c.is_uppercase()
                        && chars.get(i + 1).is_some_and(|n| n.1.is_lowercase())
            }
        };
        if cut {
            let end = chars.get(i).map_or(word.len(), |c| c.0);
            out.push((start, end));
            start = end;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn parts_of_words() {
        let parts = |w: &str| -> Vec<String> {
            split(w).into_iter().map(|(a, b)| w[a..b].to_string()).collect()
        };
        assert_eq!(parts("iPhone"), ["i", "Phone"]);
        assert_eq!(parts("twenty-one"), ["twenty", "-", "one"]);
        assert_eq!(parts("JSONLine"), ["JSON", "Line"]);
        assert_eq!(parts("don't"), ["don't"]);
        assert_eq!(parts("dogs'"), ["dogs", "'"]);
        assert_eq!(parts("b2b"), ["b", "2", "b"]);
    }
}
