//! Packs entries into a lexicon file.

use std::collections::{BTreeMap, HashMap};

use voxgrain::map::Map;
use voxgrain::speech::phonemes::Phonemizer;
use voxgrain::speech::phonemes::lexicon::{BLOCK, FIRST_PART, Parts, Variant};
use voxgrain::speech::phonemes::symbols::is_phoneme;

use crate::entries::{Entry, legacy};

/// An entry as the file has it.
#[derive(Clone)]
pub struct Packed {
    pub first: bool,
    pub default: String,
    pub variants: Vec<(Variant, Option<String>)>,
}

/// None if there is nothing to say by default.
pub fn pack(entry: &Entry) -> Option<Packed> {
    let default = legacy(entry.default()?);
    let mut variants = Vec::new();
    let has = |k: &str| entry.variants.contains_key(k);
    for (key, value) in &entry.variants {
        let variant = match key.as_str() {
            "NOUN" => Variant::Noun,
            "VERB" => Variant::Verb,
            "ADJ" => Variant::Adjective,
            "ADV" => Variant::Adverb,
            "VBD" if has("VBN") => Variant::Past,
            "VBD" => Variant::PlainPast,
            "VBN" | "VBP" | "DEFAULT" => continue,
            "DT" => Variant::Determiner,
            "None" => Variant::Final,
            other => panic!("variant {other}"),
        };
        let value = value.as_deref().map(legacy);
        if value.as_ref() != Some(&default) {
            variants.push((variant, value));
        }
    }
    variants.sort();
    assert!(default.chars().all(is_phoneme), "{default}");
    Some(Packed { first: entry.gold, default, variants })
}

/// Byte pair encoding of phoneme strings: parts for codes 16 to 255.
fn parts(strings: &[String]) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for s in strings {
        *counts.entry(s.clone()).or_default() += 1;
    }
    let mut rows: Vec<(Vec<u16>, usize)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut single: BTreeMap<char, u16> = BTreeMap::new();
    let mut sorted: Vec<(&String, &usize)> = counts.iter().collect();
    sorted.sort();
    for (s, n) in sorted {
        let row = s
            .chars()
            .map(|c| {
                *single.entry(c).or_insert_with(|| {
                    names.push(c.to_string());
                    names.len() as u16 - 1
                })
            })
            .collect();
        rows.push((row, *n));
    }
    let want = 256 - usize::from(FIRST_PART);
    while names.len() < want {
        let mut pairs: HashMap<(u16, u16), usize> = HashMap::new();
        for (row, n) in &rows {
            for p in row.windows(2) {
                *pairs.entry((p[0], p[1])).or_default() += n;
            }
        }
        let Some((&(a, b), _)) = pairs.iter().max_by_key(|(p, n)| (**n, std::cmp::Reverse(**p)))
        else {
            break;
        };
        let new = names.len() as u16;
        names.push(format!("{}{}", names[usize::from(a)], names[usize::from(b)]));
        for (row, _) in &mut rows {
            let mut out = Vec::with_capacity(row.len());
            let mut i = 0;
            while i < row.len() {
                if i + 1 < row.len() && row[i] == a && row[i + 1] == b {
                    out.push(new);
                    i += 2;
                } else {
                    out.push(row[i]);
                    i += 1;
                }
            }
            *row = out;
        }
    }
    names.resize(want, String::new());
    names
}

/// Fewest codes for a string.
fn encode(s: &str, codes: &HashMap<String, u8>) -> Vec<u8> {
    let chars: Vec<char> = s.chars().collect();
    let n = chars.len();
    let mut best: Vec<(usize, usize)> = vec![(usize::MAX, 0); n + 1];
    best[0] = (0, 0);
    for i in 0..n {
        if best[i].0 == usize::MAX {
            continue;
        }
        let mut part = String::new();
        for (j, c) in chars.iter().enumerate().skip(i).take(16) {
            part.push(*c);
            if codes.contains_key(&part) && best[i].0 + 1 < best[j + 1].0 {
                best[j + 1] = (best[i].0 + 1, i);
            }
        }
    }
    let mut out = Vec::new();
    let mut j = n;
    while j > 0 {
        let i = best[j].1;
        out.push(codes[&chars[i..j].iter().collect::<String>()]);
        j = i;
    }
    out.reverse();
    out
}

pub fn file(
    words: &BTreeMap<String, Packed>,
    british: bool,
    letters: Vec<u8>,
    tags: Vec<u8>,
) -> Vec<u8> {
    let strings: Vec<String> = words
        .values()
        .flat_map(|p| {
            std::iter::once(p.default.clone()).chain(p.variants.iter().filter_map(|v| v.1.clone()))
        })
        .collect();
    let names = parts(&strings);
    let table: HashMap<String, u8> = names
        .iter()
        .enumerate()
        .filter(|(_, n)| !n.is_empty())
        .map(|(i, n)| (n.clone(), i as u8 + FIRST_PART))
        .collect();
    let mut codes = Vec::new();
    let mut lengths = vec![0u8; words.len().div_ceil(2)];
    let mut first = vec![0u8; words.len().div_ceil(8)];
    let mut blocks = Vec::new();
    let mut builder = fst::MapBuilder::memory();
    for (k, (word, packed)) in words.iter().enumerate() {
        builder.insert(word, k as u64).unwrap();
        if k % BLOCK == 0 {
            blocks.extend((codes.len() as u32).to_le_bytes());
        }
        let mut entry = encode(&packed.default, &table);
        for (variant, said) in &packed.variants {
            entry.push(*variant as u8);
            entry.extend(said.iter().flat_map(|s| encode(s, &table)));
        }
        if entry.len() < 15 {
            lengths[k / 2] |= (entry.len() as u8) << (4 * (k % 2));
        } else {
            lengths[k / 2] |= 15 << (4 * (k % 2));
            codes.push(u8::try_from(entry.len()).unwrap());
        }
        codes.extend(entry);
        if packed.first {
            first[k / 8] |= 1 << (k % 8);
        }
    }
    let mut strings = Vec::new();
    for n in &names {
        strings.push(n.len() as u8);
        strings.extend(n.as_bytes());
    }
    let fst = builder.into_inner().unwrap();
    eprintln!(
        "{} entries: words {}, codes {}, lengths {}, blocks {}, first {}, letters {}, tags {}",
        words.len(),
        fst.len(),
        codes.len(),
        lengths.len(),
        blocks.len(),
        first.len(),
        letters.len(),
        tags.len()
    );
    Parts {
        british,
        entries: words.len() as u32,
        sections: [fst, codes, lengths, blocks, strings, first, letters, tags],
    }
    .to_bytes()
}

/// Leaves out what the endings -s, -ed and -ing give by themselves.
pub fn prune(
    words: &BTreeMap<String, Packed>,
    british: bool,
    letters: &[u8],
    tags: &[u8],
) -> BTreeMap<String, Packed> {
    // Stems first; an entry goes only if its stem stays.
    let plain = |p: &Packed| p.variants.is_empty();
    let mut kept = words.clone();
    let mut gone = 0;
    for (word, packed) in words {
        let stems = stems(word);
        if stems.is_empty()
            || !plain(packed)
            || word.chars().any(|c| !c.is_ascii_lowercase() && c != '\'')
        {
            continue;
        }
        // The first stem that the front end would find decides.
        let Some(stem) = stems.iter().find(|s| words.contains_key(*s)) else { continue };
        let Some(entry) = words.get(stem).filter(|e| plain(e)) else { continue };
        if !self_standing(stem, words) {
            continue;
        }
        let _ = entry;
        kept.remove(word);
        gone += 1;
    }
    // What is then said wrongly comes back.
    let bytes = file(&kept, british, letters.to_vec(), tags.to_vec());
    let open = Phonemizer::open(&Map::from_vec(bytes)).unwrap();
    let mut back = 0;
    for (word, packed) in words {
        if kept.contains_key(word) {
            continue;
        }
        // A mark behind makes no difference to entries without variants; a word before it
        // keeps it from being the first.
        let said = open.phonemize(word).unwrap();
        if said.trim_end_matches('.') != packed.default {
            kept.insert(word.clone(), packed.clone());
            back += 1;
        }
    }
    eprintln!("pruned {gone}, of which {back} came back");
    kept
}

/// A stem that does not go itself.
fn self_standing(stem: &str, words: &BTreeMap<String, Packed>) -> bool {
    !stems(stem).iter().any(|s| words.contains_key(s))
}

/// What the front end would take for the stem, in its order.
fn stems(word: &str) -> Vec<String> {
    let mut out = Vec::new();
    if word.len() >= 3 && word.ends_with('s') {
        if !word.ends_with("ss") {
            out.push(word[..word.len() - 1].to_string());
        }
        if word.ends_with("'s") || word.len() > 4 && word.ends_with("es") && !word.ends_with("ies")
        {
            out.push(word[..word.len() - 2].to_string());
        }
        if word.len() > 4 && word.ends_with("ies") {
            out.push(format!("{}y", &word[..word.len() - 3]));
        }
    }
    if word.len() >= 4 && word.ends_with('d') && !word.ends_with("dd") {
        out.push(word[..word.len() - 1].to_string());
        if word.len() > 4 && word.ends_with("ed") && !word.ends_with("eed") {
            out.push(word[..word.len() - 2].to_string());
        }
    }
    if word.len() >= 5
        && let Some(short) = word.strip_suffix("ing")
    {
        if word.len() > 5 {
            out.push(short.to_string());
        }
        out.push(format!("{short}e"));
        if word.len() > 5 {
            out.push(short[..short.len() - 1].to_string());
        }
    }
    out
}
