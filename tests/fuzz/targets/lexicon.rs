use std::sync::LazyLock;

use voxgrain::asg::format::crc32;
use voxgrain::map::Map;
use voxgrain::speech::phonemes::{Phonemizer, SYMBOLS, UserLexicon, from_ipa};

/// The lexicon of this repository.
static SOUND: LazyLock<Vec<u8>> =
    LazyLock::new(|| std::fs::read(super::root().join("models/lexicon/en-us.lexicon")).unwrap());
static ENGLISH: LazyLock<Phonemizer> =
    LazyLock::new(|| Phonemizer::open(&Map::copy_of(&SOUND, "sound")).unwrap());

// The first byte chooses: 0 a damaged lexicon, 1 text, 2 a user's list, 3 IPA. Damage is four bytes
// each (place, value); all checksums but the fst's own are made right, because they would stop
// nearly everything.
pub fn run(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let text = || std::str::from_utf8(rest).ok();
    let in_set = |s: &str| assert!(s.chars().all(|c| SYMBOLS.contains(c)));
    match which % 4 {
        0 => {
            let mut file = SOUND.clone();
            for p in rest.chunks_exact(4) {
                let at = (usize::from(p[0]) | usize::from(p[1]) << 8 | usize::from(p[2]) << 16)
                    % file.len();
                file[at] = p[3];
            }
            for row in 1..8 {
                let at = 36 + 24 * row;
                let field = |k: usize| {
                    u64::from_le_bytes(file[at + k..at + k + 8].try_into().unwrap()) as usize
                };
                let (start, len) = (field(8), field(16));
                if let Some(section) = start.checked_add(len).and_then(|end| file.get(start..end)) {
                    let crc = crc32(section).to_le_bytes();
                    file[at + 4..at + 8].copy_from_slice(&crc);
                }
            }
            let crc = crc32(&file[..228]).to_le_bytes();
            file[228..232].copy_from_slice(&crc);
            if let Ok(p) = Phonemizer::open(&Map::copy_of(&file, "damaged")) {
                if let Ok(said) =
                    p.phonemize("The wind was a blorptastic record, aardvarks and zebras.")
                {
                    in_set(&said);
                }
            }
        }
        1 => {
            if let Some(Ok(said)) = text().map(|t| ENGLISH.phonemize(t)) {
                in_set(&said);
            }
        }
        2 => {
            if let Some(Ok(list)) = text().map(|t| UserLexicon::parse(t, "list")) {
                let mut p = ENGLISH.clone();
                if p.add(&list).is_ok() {
                    in_set(&p.phonemize("a word").unwrap());
                }
            }
        }
        _ => {
            if let Some(Ok(said)) = text().map(|t| from_ipa(t, t.len() % 2 == 0)) {
                in_set(&said);
            }
        }
    }
}
