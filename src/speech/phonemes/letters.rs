//! Words that no list has: letters to phonemes by a small log-linear model.
//!
//! Each letter is read as a chunk of no, one or two phonemes (a stress mark counts with its
//! vowel). The score of a chunk is the sum of the weights of hashed features: the letters
//! around it, and the chunks and stresses chosen to its left. A beam finds the reading of
//! the whole word. One table of bytes holds all weights; features that fall on the same
//! place share it, which training knows.
//!
//! # Section
//!
//! ```text
//! 0    4   bits: the table has 1 << bits weights, 8..=24
//! 4    4   chunks
//! 8    n   26 letters, a to z: count u8, then that many chunk numbers u16
//!      n   chunks in order: length u8 in bytes, UTF-8 text
//!      w   weights, i8
//! ```

use super::format::Reader;
use crate::Result;

/// Longest word that is read as one; longer ones are cut.
pub const MAX_LETTERS: usize = 40;
/// Readings kept at each letter.
const BEAM: usize = 6;
/// Number of features that only the letters decide.
pub const STATIC: usize = 25;
/// Number of features that the chunks to the left decide.
pub const HISTORY: usize = 12;

/// Letters to the left and to the right of the letter that is read.
const WINDOWS: [(usize, usize); 22] = [
    (0, 1),
    (1, 0),
    (1, 1),
    (0, 2),
    (2, 0),
    (1, 2),
    (2, 1),
    (2, 2),
    (0, 3),
    (3, 0),
    (1, 3),
    (3, 1),
    (2, 3),
    (3, 2),
    (3, 3),
    (0, 4),
    (4, 0),
    (1, 4),
    (2, 4),
    (4, 4),
    (0, 5),
    (5, 0),
];

/// No chunk yet.
const START: u16 = u16::MAX;

fn hash(template: u32, key: u64) -> u32 {
    let mixed = (key ^ u64::from(template).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xA076_1D64_78BD_642F) >> 32) as u32
}

/// The place of the weight of `feature` for `chunk` in a table of `1 << bits` weights.
#[inline]
pub fn slot(feature: u32, chunk: u16, bits: u32) -> usize {
    let mixed = (feature ^ u32::from(chunk).wrapping_mul(0x9E37_79B1)).wrapping_mul(0x85EB_CA6B);
    ((mixed ^ (mixed >> 15)).wrapping_mul(0x2C1B_3C6D) >> (32 - bits)) as usize
}

fn is_vowel(letter: u8) -> bool {
    matches!(letter, 1 | 5 | 9 | 15 | 21 | 25)
}

/// A word as the features see it.
pub struct Letters {
    /// 1 to 26; 0 stands for what lies outside.
    letters: Vec<u8>,
    /// Groups of vowel letters to the left of each letter, itself excluded.
    left: Vec<u8>,
    /// Groups of vowel letters to the right of each letter, its own excluded.
    right: Vec<u8>,
}

impl Letters {
    /// The letters of `word`; `None` unless it is made of `a` to `z` alone, at most
    /// [`MAX_LETTERS`] of them.
    pub fn new(word: &str) -> Option<Self> {
        if word.is_empty()
            || word.len() > MAX_LETTERS
            || !word.bytes().all(|b| b.is_ascii_lowercase())
        {
            return None;
        }
        let letters: Vec<u8> = word.bytes().map(|b| b - b'a' + 1).collect();
        let n = letters.len();
        let starts = |i: usize| is_vowel(letters[i]) && (i == 0 || !is_vowel(letters[i - 1]));
        let mut left = vec![0u8; n];
        let mut right = vec![0u8; n];
        for i in 1..n {
            left[i] = left[i - 1] + u8::from(starts(i - 1));
        }
        for i in (0..n - 1).rev() {
            right[i] = right[i + 1] + u8::from(starts(i + 1));
        }
        Some(Self { letters, left, right })
    }

    /// Number of letters.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// The letter at `i`, 1 to 26.
    pub fn letter(&self, i: usize) -> u8 {
        self.letters[i]
    }

    fn at(&self, i: isize) -> u64 {
        usize::try_from(i).ok().and_then(|i| self.letters.get(i)).map_or(0, |&l| u64::from(l))
    }

    /// Letters `from..=to`, five bits each.
    fn packed(&self, from: isize, to: isize) -> u64 {
        (from..=to).fold(0, |key, i| (key << 5) | self.at(i))
    }

    /// The features of letter `i` that only the letters decide.
    pub fn features(&self, i: usize) -> [u32; STATIC] {
        let mut out = [0; STATIC];
        let at = i as isize;
        for (k, &(before, after)) in WINDOWS.iter().enumerate() {
            out[k] = hash(k as u32, self.packed(at - before as isize, at + after as isize));
        }
        let n = self.len();
        let end = (n as isize - 1).min(at + 8);
        out[22] = hash(22, self.packed(at, end) << 5 | (n - i).min(9) as u64);
        let start = (at - 7).max(0);
        out[23] = hash(23, self.packed(start, at + 1) << 5 | (i.min(8)) as u64);
        let last = n as isize - 1;
        out[24] = hash(
            24,
            (self.packed(last - 2, last) << 20)
                | (self.packed(at, at + 1) << 8)
                | (n - i).min(12) as u64,
        );
        out
    }

    /// The features of letter `i` that what was read before decides.
    pub fn history(&self, i: usize, past: &Past) -> [u32; HISTORY] {
        let at = i as isize;
        let here = self.packed(at, at + 1);
        let [y1, y2, y3] = past.chunks.map(u64::from);
        let right = u64::from(self.right[i].min(6));
        let left = u64::from(self.left[i].min(4));
        let stress = u64::from(past.stress);
        let vowel = u64::from(is_vowel(self.letters[i]));
        let last = self.len() as isize - 1;
        [
            hash(40, y1),
            hash(41, (y1 << 16) | y2),
            hash(42, (y1 << 16) | here),
            hash(43, (y1 << 32) | (y2 << 16) | here),
            hash(44, (y1 << 32) | (y2 << 16) | y3),
            hash(45, (y1 << 20) | self.packed(at - 1, at + 2)),
            hash(46, (stress << 16) | (right << 8) | self.at(at)),
            hash(47, (stress << 16) | (right << 8) | (left << 4) | vowel),
            hash(48, (self.packed(last - 2, last) << 16) | (stress << 8) | (right << 4) | vowel),
            hash(49, (self.packed(last - 4, last) << 16) | (stress << 8) | (right << 4) | vowel),
            hash(50, (u64::from(past.sounded) << 16) | here),
            hash(51, (u64::from(past.vowel) << 32) | (right << 16) | here),
        ]
    }
}

/// What was read to the left of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// The three chunks before, nearest first.
    chunks: [u16; 3],
    /// The last chunk that was not silent.
    sounded: u16,
    /// The last chunk with a vowel.
    vowel: u16,
    /// 1: primary stress was there; 2: secondary.
    stress: u8,
}

impl Default for Past {
    fn default() -> Self {
        Self { chunks: [START; 3], sounded: START, vowel: START, stress: 0 }
    }
}

impl Past {
    /// What is past after `chunk`, which reads `text`.
    pub fn then(mut self, chunk: u16, text: &str) -> Self {
        self.chunks = [chunk, self.chunks[0], self.chunks[1]];
        if !text.is_empty() {
            self.sounded = chunk;
        }
        if text.contains(super::symbols::is_vowel) {
            self.vowel = chunk;
        }
        if text.contains('ˈ') {
            self.stress |= 1;
        }
        if text.contains('ˌ') {
            self.stress |= 2;
        }
        self
    }

    /// Whether a primary stress was there.
    pub fn stressed(&self) -> bool {
        self.stress & 1 != 0
    }
}

/// Where a section's parts are: checked once, then only read.
#[derive(Debug, Clone)]
pub struct LetterModel {
    bits: u32,
    /// For each letter its chunks.
    readings: Vec<Vec<u16>>,
    chunks: Vec<String>,
    /// Where the weights start in the section.
    weights: usize,
}

impl LetterModel {
    /// Reads the tables of a section; the weights stay where they are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if a part is missing or refers to
    /// something that is not there.
    pub fn parse(section: &[u8], name: &str) -> Result<Self> {
        let mut r = Reader::new(section, name);
        let bits = r.u32()?;
        let count = r.u32()? as usize;
        if !(8..=24).contains(&bits) || count == 0 || count >= usize::from(START) {
            return Err(r.damaged("the letter model's sizes"));
        }
        let mut readings = Vec::with_capacity(26);
        for _ in 0..26 {
            let n = r.u8()?;
            let list = (0..n).map(|_| r.u16()).collect::<Result<Vec<u16>>>()?;
            if list.is_empty() || list.iter().any(|&c| usize::from(c) >= count) {
                return Err(r.damaged("the letter model's readings"));
            }
            readings.push(list);
        }
        let mut chunks = Vec::with_capacity(count.min(section.len()));
        for _ in 0..count {
            let n = usize::from(r.u8()?);
            let text = std::str::from_utf8(r.bytes(n)?);
            match text {
                Ok(t) if t.chars().all(super::symbols::is_phoneme) => chunks.push(t.to_string()),
                _ => return Err(r.damaged("the letter model's chunks")),
            }
        }
        let weights = r.position();
        if section.len() - weights != 1 << bits {
            return Err(r.damaged("the length of the letter model's weights"));
        }
        Ok(Self { bits, readings, chunks, weights })
    }

    /// The phonemes of `word`, or `None` if it has other letters than `a` to `z`, none, or
    /// more than [`MAX_LETTERS`]. `section` is what was parsed.
    pub fn read(&self, section: &[u8], word: &str) -> Option<String> {
        let weights = section.get(self.weights..)?;
        search(
            word,
            |letter| &self.readings[usize::from(letter) - 1],
            |chunk| &self.chunks[usize::from(chunk)],
            |feature, chunk| {
                i32::from(weights.get(slot(feature, chunk, self.bits)).map_or(0, |&b| b as i8))
            },
        )
    }
}

struct Reading {
    score: i32,
    past: Past,
    /// Chunk of each letter so far.
    chunks: Vec<u16>,
}

/// Beam search; also what training measures with, so the tables come as functions.
pub fn search<'a>(
    word: &str,
    readings: impl Fn(u8) -> &'a [u16],
    text: impl Fn(u16) -> &'a str,
    weight: impl Fn(u32, u16) -> i32,
) -> Option<String> {
    let letters = Letters::new(word)?;
    let mut beam =
        vec![Reading { score: 0, past: Past::default(), chunks: Vec::with_capacity(word.len()) }];
    let mut next: Vec<(i32, usize, u16)> = Vec::new();
    let mut fixed: Vec<i32> = Vec::new();
    for i in 0..letters.len() {
        let candidates = readings(letters.letter(i));
        let features = letters.features(i);
        fixed.clear();
        fixed.extend(
            candidates.iter().map(|&c| features.iter().map(|&f| weight(f, c)).sum::<i32>()),
        );
        next.clear();
        for (from, reading) in beam.iter().enumerate() {
            let history = letters.history(i, &reading.past);
            for (&chunk, &base) in candidates.iter().zip(&fixed) {
                // One primary stress in a word.
                if reading.past.stressed() && text(chunk).contains('ˈ') {
                    continue;
                }
                let score = history.iter().map(|&f| weight(f, chunk)).sum::<i32>();
                next.push((reading.score + base + score, from, chunk));
            }
        }
        if next.is_empty() {
            return None;
        }
        // Best first; ties by place, so that the result does not depend on the sort.
        next.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        next.truncate(BEAM);
        beam = next
            .iter()
            .map(|&(score, from, chunk)| {
                let mut chunks = beam[from].chunks.clone();
                chunks.push(chunk);
                Reading { score, past: beam[from].past.then(chunk, text(chunk)), chunks }
            })
            .collect();
    }
    let best = beam.iter().find(|r| r.past.stressed()).or(beam.first())?;
    Some(best.chunks.iter().map(|&c| text(c)).collect())
}
