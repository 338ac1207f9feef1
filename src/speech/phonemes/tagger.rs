//! Parts of speech, as far as pronunciation asks for them.
//!
//! A greedy left-to-right tagger: the tag with the largest sum of hashed feature weights.
//! The features are the word, its ending and its case, the two words on either side, and
//! the two tags before.
//!
//! # Section
//!
//! ```text
//! 0   4   bits: the table has 1 << bits weights, 8..=24
//! 4   w   weights, i8
//! ```

use super::format::Reader;
use crate::Result;

/// Part of speech, after the Penn Treebank where it has the distinction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tag {
    /// Common noun.
    Noun,
    /// Name.
    Name,
    /// Base form or infinitive.
    Verb,
    /// Past tense.
    Past,
    /// -ing form.
    Gerund,
    /// Past participle.
    Participle,
    /// Present, other than third person singular.
    Present,
    /// Third person singular.
    Third,
    /// Adjective.
    Adjective,
    /// Adverb.
    Adverb,
    /// Article or demonstrative.
    Determiner,
    /// Preposition or conjunction that subordinates; `to`.
    Preposition,
    /// Particle of a verb: *come in*.
    Particle,
    /// Personal pronoun.
    Pronoun,
    /// Number in words.
    Number,
    /// Modal verb.
    Modal,
    /// `and`, `or`, ...
    Conjunction,
    /// Question word.
    Question,
    /// A mark.
    Mark,
    /// Anything else.
    Other,
}

impl Tag {
    /// All tags in the order of their numbers.
    pub const ALL: [Tag; 20] = [
        Tag::Noun,
        Tag::Name,
        Tag::Verb,
        Tag::Past,
        Tag::Gerund,
        Tag::Participle,
        Tag::Present,
        Tag::Third,
        Tag::Adjective,
        Tag::Adverb,
        Tag::Determiner,
        Tag::Preposition,
        Tag::Particle,
        Tag::Pronoun,
        Tag::Number,
        Tag::Modal,
        Tag::Conjunction,
        Tag::Question,
        Tag::Mark,
        Tag::Other,
    ];

    /// From a Penn Treebank tag.
    pub fn from_penn(tag: &str) -> Self {
        match tag {
            "NN" | "NNS" => Self::Noun,
            "NNP" | "NNPS" => Self::Name,
            "VB" => Self::Verb,
            "VBD" => Self::Past,
            "VBG" => Self::Gerund,
            "VBN" => Self::Participle,
            "VBP" => Self::Present,
            "VBZ" => Self::Third,
            "JJ" | "JJR" | "JJS" => Self::Adjective,
            "RB" | "RBR" | "RBS" => Self::Adverb,
            "DT" => Self::Determiner,
            "IN" | "TO" => Self::Preposition,
            "RP" => Self::Particle,
            "PRP" | "PRP$" => Self::Pronoun,
            "CD" => Self::Number,
            "MD" => Self::Modal,
            "CC" => Self::Conjunction,
            "WDT" | "WP" | "WP$" | "WRB" => Self::Question,
            "." | "," | ":" | "-LRB-" | "-RRB-" | "``" | "''" | "\"\"" | "NFP" | "HYPH" => {
                Self::Mark
            }
            _ => Self::Other,
        }
    }

    /// Whether it is a form of a verb.
    pub fn is_verb(self) -> bool {
        matches!(
            self,
            Self::Verb | Self::Past | Self::Gerund | Self::Participle | Self::Present | Self::Third
        )
    }

    /// Whether it is a noun or a name.
    pub fn is_noun(self) -> bool {
        matches!(self, Self::Noun | Self::Name)
    }
}

/// Number of features of a word.
pub const FEATURES: usize = 18;

fn hash(template: u32, parts: [u32; 2]) -> u32 {
    let key = (u64::from(parts[0]) << 32) | u64::from(parts[1]);
    let mixed = (key ^ u64::from(template).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed ^ (mixed >> 31)).wrapping_mul(0xA076_1D64_78BD_642F) >> 32) as u32
}

/// The place of the weight of `feature` for `tag` in a table of `1 << bits` weights.
#[inline]
pub fn slot(feature: u32, tag: usize, bits: u32) -> usize {
    let mixed = (feature ^ (tag as u32).wrapping_mul(0x9E37_79B1)).wrapping_mul(0x85EB_CA6B);
    ((mixed ^ (mixed >> 15)).wrapping_mul(0x2C1B_3C6D) >> (32 - bits)) as usize
}

fn text_hash(text: impl Iterator<Item = u8>) -> u32 {
    text.fold(0x811C_9DC5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// What the features need of a word or mark, once.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    word: u32,
    ending: u32,
    ending2: u32,
    case: u32,
    mark: bool,
}

impl Shape {
    /// Of a word, or of a mark (a text without letters or digits).
    pub fn new(text: &str) -> Self {
        let lower = || text.bytes().map(|b| b.to_ascii_lowercase());
        let n = text.len();
        let upper = text.bytes().filter(u8::is_ascii_uppercase).count();
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
        let case = match (first, upper) {
            (_, 0) => 0,
            (true, 1) if n == 1 => 1,
            (true, 1) => 2,
            (_, u) if u * 2 > n => 3,
            _ => 4,
        };
        Self {
            word: text_hash(lower()),
            ending: text_hash(lower().skip(n.saturating_sub(3))),
            ending2: text_hash(lower().skip(n.saturating_sub(2))),
            case: case + if text.contains('-') { 8 } else { 0 },
            mark: !text.bytes().any(|b| b.is_ascii_alphanumeric() || b >= 0x80),
        }
    }

    /// Whether it is a mark.
    pub fn is_mark(&self) -> bool {
        self.mark
    }
}

/// Outside the sentence.
const OUTSIDE: Shape = Shape { word: 1, ending: 1, ending2: 1, case: 15, mark: true };

/// The features of word `i`; `before` are the tags one and two to the left.
pub fn features(shapes: &[Shape], i: usize, before: [Tag; 2]) -> [u32; FEATURES] {
    let at = |k: isize| {
        usize::try_from(i as isize + k).ok().and_then(|j| shapes.get(j)).unwrap_or(&OUTSIDE)
    };
    let (w, p, pp, n, nn) = (at(0), at(-1), at(-2), at(1), at(2));
    let [t1, t2] = before.map(|t| t as u32);
    [
        hash(0, [0, 0]),
        hash(1, [w.word, 0]),
        hash(2, [w.ending, 0]),
        hash(3, [w.ending2, w.case]),
        hash(4, [w.case, u32::from(i == 0)]),
        hash(5, [t1, 0]),
        hash(6, [t1, t2]),
        hash(7, [t1, w.word]),
        hash(8, [p.word, 0]),
        hash(9, [pp.word, 0]),
        hash(10, [n.word, 0]),
        hash(11, [nn.word, 0]),
        hash(12, [n.ending, w.ending2]),
        hash(13, [p.word, w.word]),
        hash(14, [n.word, w.word]),
        hash(15, [t1 << 8 | t2, w.ending]),
        hash(16, [t1, n.ending]),
        hash(17, [t1, n.word]),
    ]
}

/// A checked section's layout.
#[derive(Debug, Clone, Copy)]
pub struct Tagger {
    bits: u32,
}

impl Tagger {
    /// Checks a section.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if its length is not what its
    /// first bytes say.
    pub fn parse(section: &[u8], name: &str) -> Result<Self> {
        let mut r = Reader::new(section, name);
        let bits = r.u32()?;
        if !(8..=24).contains(&bits) || section.len() - 4 != 1 << bits {
            return Err(r.damaged("the size of the tagger"));
        }
        Ok(Self { bits })
    }

    /// A tag for each text; `section` is what was parsed.
    pub fn tag(&self, section: &[u8], texts: &[Shape]) -> Vec<Tag> {
        let weights = section.get(4..).unwrap_or_default();
        search(texts, |feature, tag| {
            i32::from(weights.get(slot(feature, tag, self.bits)).map_or(0, |&b| b as i8))
        })
    }
}

/// Tags one after the other; also what training measures with.
pub fn search(texts: &[Shape], weight: impl Fn(u32, usize) -> i32) -> Vec<Tag> {
    let mut tags = Vec::with_capacity(texts.len());
    let mut before = [Tag::Mark; 2];
    for (i, shape) in texts.iter().enumerate() {
        let tag = if shape.mark {
            Tag::Mark
        } else {
            let features = features(texts, i, before);
            let mut best = (i32::MIN, Tag::Noun);
            for tag in Tag::ALL {
                if tag == Tag::Mark {
                    continue;
                }
                let score = features.iter().map(|&f| weight(f, tag as usize)).sum();
                if score > best.0 {
                    best = (score, tag);
                }
            }
            best.1
        };
        before = [tag, before[0]];
        tags.push(tag);
    }
    tags
}
