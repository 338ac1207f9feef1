//! The source lexicons in one list.

use std::collections::{BTreeMap, HashSet};

use misaki_rs::lexicon::PhonemeEntry;

/// Pronunciations by part of speech; `DEFAULT` is always there. `None`: spelt letter by letter.
pub type Variants = BTreeMap<String, Option<String>>;

pub struct Entry {
    pub gold: bool,
    pub variants: Variants,
}

impl Entry {
    pub fn default(&self) -> Option<&str> {
        self.variants.get("DEFAULT").and_then(|v| v.as_deref())
    }
}

/// ɾ and ʔ are written T and t, as the front end does in the end.
pub fn legacy(phonemes: &str) -> String {
    phonemes.replace('ɾ', "T").replace('ʔ', "t")
}

pub fn load(british: bool) -> BTreeMap<String, Entry> {
    let (gold, silver) = if british {
        (misaki_rs::data::load_gb_gold(), misaki_rs::data::load_gb_silver())
    } else {
        (misaki_rs::data::load_us_gold(), misaki_rs::data::load_us_silver())
    };
    let mut all = BTreeMap::new();
    for (source, is_gold) in [(silver, false), (gold, true)] {
        for (word, entry) in source {
            let variants = match entry {
                PhonemeEntry::Simple(p) => BTreeMap::from([("DEFAULT".to_string(), Some(p))]),
                PhonemeEntry::Tagged(map) => map.into_iter().collect(),
            };
            all.insert(word, Entry { gold: is_gold, variants });
        }
    }
    all
}

/// Words for the letter model: lower case, a to z alone, one reading each.
pub fn spelled(all: &BTreeMap<String, Entry>) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for (word, entry) in all {
        let capitals = word.chars().filter(|c| c.is_uppercase()).count();
        let lower = word.to_lowercase();
        if capitals > 1
            || lower.len() < 3
            || !lower.bytes().all(|b| b.is_ascii_lowercase())
            || !seen.insert(lower.clone())
        {
            continue;
        }
        if let Some(p) = entry.default() {
            out.push((lower, legacy(p)));
        }
    }
    out
}
