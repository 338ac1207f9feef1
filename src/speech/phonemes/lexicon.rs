//! The lexicon file: words with their pronunciations, and the two small models.
//!
//! # File
//!
//! Little-endian; offsets count from the start of the file.
//!
//! ```text
//!   0     8  magic "voxglex\n"
//!   8     4  version, 1
//!  12     4  header length H = 40 + 24 * S, the header checksum included
//!  16     8  file length
//!  24     4  accent: 0 American, 1 British
//!  28     4  entries N
//!  32     4  sections S
//!  36  24*S  section table: kind u32, CRC-32 u32, offset u64, length u64
//! H-4     4  CRC-32 of all header bytes before it
//! ```
//!
//! | kind | section | content |
//! |---|---|---|
//! | 1 | words | `fst` map (version 3) from word to entry number, 0 to N-1 in the order of the words |
//! | 2 | codes | pronunciations of all entries, one behind the other |
//! | 3 | lengths | four bits an entry, the low half first: its number of codes; 15: its first code is the number of those that follow |
//! | 4 | blocks | u32 for every 64th entry: where its codes begin |
//! | 5 | parts | 240 strings of phonemes, each a length u8 and UTF-8: what codes 16 to 255 stand for |
//! | 6 | first | one bit an entry: it comes from the first choice of lists, which wins over case |
//! | 7 | letters | [`letters`](super::letters) |
//! | 8 | tags | [`tagger`](super::tagger) |
//!
//! An entry is the pronunciation used by default, then any number of variants, each begun
//! by its code: 1 noun, 2 verb, 3 adjective, 4 adverb, 5 past or participle, 6 determiner,
//! 7 at the end of a phrase, 8 past before *to*. A variant without a pronunciation is spelt letter
//! by letter.
//!
//! # What is checked
//!
//! On opening: the header, every checksum, that sections lie within the file and apart from
//! each other, and what the small tables refer to. On each access: every place. The checksums
//! find damage, which is what a file meets on its way; who builds a file with right checksums
//! around a wrong `fst` is not kept from making a lookup panic, so take lexicons from where
//! you take programs.

use fst::Map as Words;
use fst::raw::Fst;

use super::format::{Reader, damaged};
use super::letters::LetterModel;
use super::tagger::{Shape, Tag, Tagger};
use crate::asg::format::crc32;
use crate::map::{Map, MappedSlice};
use crate::{Error, ErrorKind, Result};

/// First bytes of a lexicon.
pub const MAGIC: [u8; 8] = *b"voxglex\n";
/// The version that this code writes and reads.
pub const VERSION: u32 = 1;
/// Entries between two recorded places.
pub const BLOCK: usize = 64;
/// Codes below this are no phonemes.
pub const FIRST_PART: u8 = 16;

/// The parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Section {
    Words = 1,
    Codes = 2,
    Lengths = 3,
    Blocks = 4,
    Parts = 5,
    First = 6,
    Letters = 7,
    Tags = 8,
}

impl Section {
    /// All, in the order of the file.
    pub const ALL: [Section; 8] = [
        Section::Words,
        Section::Codes,
        Section::Lengths,
        Section::Blocks,
        Section::Parts,
        Section::First,
        Section::Letters,
        Section::Tags,
    ];
}

/// When a variant is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Variant {
    /// As a noun.
    Noun = 1,
    /// As a verb.
    Verb = 2,
    /// As an adjective.
    Adjective = 3,
    /// As an adverb.
    Adverb = 4,
    /// As past tense, participle or present (which taggers confuse in *read*).
    Past = 5,
    /// As a determiner.
    Determiner = 6,
    /// Before a mark or at the end.
    Final = 7,
    /// As past tense before *to*.
    PlainPast = 8,
}

/// The words of which a file is made; used by the tools that build one.
pub struct Parts {
    /// British rather than American.
    pub british: bool,
    /// Number of entries.
    pub entries: u32,
    /// The sections in the order of [`Section::ALL`].
    pub sections: [Vec<u8>; 8],
}

impl Parts {
    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = 40 + 24 * self.sections.len();
        let mut places = Vec::new();
        let mut end = header.next_multiple_of(8);
        for s in &self.sections {
            places.push(end);
            end = (end + s.len()).next_multiple_of(8);
        }
        let mut file = Vec::with_capacity(end);
        file.extend(MAGIC);
        file.extend(VERSION.to_le_bytes());
        file.extend((header as u32).to_le_bytes());
        file.extend((end as u64).to_le_bytes());
        file.extend(u32::from(self.british).to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend((self.sections.len() as u32).to_le_bytes());
        for ((kind, s), place) in Section::ALL.iter().zip(&self.sections).zip(&places) {
            file.extend((*kind as u32).to_le_bytes());
            file.extend(crc32(s).to_le_bytes());
            file.extend((*place as u64).to_le_bytes());
            file.extend((s.len() as u64).to_le_bytes());
        }
        let crc = crc32(&file);
        file.extend(crc.to_le_bytes());
        for (s, place) in self.sections.iter().zip(&places) {
            file.resize(*place, 0);
            file.extend(s);
        }
        file.resize(end, 0);
        file
    }
}

/// A pronunciation with its variants, still in codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    codes: &'a [u8],
    /// From the first choice of lists.
    pub(super) first: bool,
}

/// An open lexicon: nothing copied but the small tables.
#[derive(Clone)]
pub(super) struct Lexicon {
    words: Words<MappedSlice>,
    codes: MappedSlice,
    lengths: MappedSlice,
    blocks: MappedSlice,
    first: MappedSlice,
    letter_section: MappedSlice,
    tag_section: MappedSlice,
    parts: Vec<String>,
    letters: LetterModel,
    tagger: Tagger,
    entries: usize,
    british: bool,
    bytes: usize,
}

impl Lexicon {
    pub(super) fn open(map: &Map) -> Result<Self> {
        let name = map.name();
        let mut r = Reader::new(map, name);
        let magic = r.bytes(8).map_err(|_| damaged(name, "its length"))?;
        if magic != MAGIC {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!("{name} is not a pronunciation lexicon; give a .lexicon file of voxgrain"),
            ));
        }
        let version = r.u32()?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{name} is a lexicon of version {version}, this program reads version {VERSION}; update the older of the two"
                ),
            ));
        }
        let header = r.u32()? as usize;
        let low = r.u32()?;
        let length = u64::from(low) | u64::from(r.u32()?) << 32;
        let accent = r.u32()?;
        let entries = r.u32()? as usize;
        let count = r.u32()? as usize;
        if length != map.len() as u64 {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!(
                    "{name} has {} bytes and says that it has {length}; the copy was cut short or added to, fetch it again",
                    map.len()
                ),
            ));
        }
        if count != Section::ALL.len() || header != 40 + 24 * count || accent > 1 {
            return Err(damaged(name, "the header"));
        }
        let covered = map.get(..header - 4).ok_or_else(|| damaged(name, "its length"))?;
        let table: Vec<(u32, u32, u64, u64)> = (0..count)
            .map(|_| {
                let (kind, crc) = (r.u32()?, r.u32()?);
                let mut wide =
                    || -> Result<u64> { Ok(u64::from(r.u32()?) | u64::from(r.u32()?) << 32) };
                Ok((kind, crc, wide()?, wide()?))
            })
            .collect::<Result<_>>()?;
        if crc32(covered) != r.u32()? {
            return Err(damaged(name, "the header's checksum"));
        }
        let mut slices = Vec::with_capacity(count);
        let mut end = header as u64;
        for (section, &(kind, crc, offset, length)) in Section::ALL.iter().zip(&table) {
            let stop = offset.checked_add(length).filter(|&s| s <= map.len() as u64);
            let Some(stop) = stop else {
                return Err(damaged(name, &format!("the place of section {section:?}")));
            };
            if kind != *section as u32 || offset < end {
                return Err(damaged(name, &format!("the place of section {section:?}")));
            }
            end = stop;
            let slice = map.slice(offset as usize..stop as usize)?;
            if crc32(&slice) != crc {
                return Err(damaged(name, &format!("the checksum of section {section:?}")));
            }
            slices.push(slice);
        }
        let [words, codes, lengths, blocks, parts, first, letter_section, tag_section] =
            <[MappedSlice; 8]>::try_from(slices).map_err(|_| damaged(name, "the sections"))?;
        if lengths.len() != entries.div_ceil(2)
            || first.len() != entries.div_ceil(8)
            || blocks.len() != 4 * entries.div_ceil(BLOCK)
        {
            return Err(damaged(name, "the number of entries"));
        }
        // The crate trusts its bytes; its own checksum is over what it will read.
        let fst = Fst::new(words).and_then(|fst| fst.verify().map(|()| fst)).map_err(|e| {
            Error::with_source(
                ErrorKind::Malformed,
                format!("the words of {name} are damaged; fetch the file again"),
                e,
            )
        })?;
        if fst.len() != entries {
            return Err(damaged(name, "the number of words"));
        }
        let mut reader = Reader::new(&parts, name);
        let mut strings = vec![String::new(); usize::from(FIRST_PART)];
        for _ in FIRST_PART..=u8::MAX {
            let n = usize::from(reader.u8()?);
            match std::str::from_utf8(reader.bytes(n)?) {
                Ok(t) if t.chars().all(super::symbols::is_phoneme) => strings.push(t.to_string()),
                _ => return Err(damaged(name, "the parts of pronunciations")),
            }
        }
        Ok(Self {
            letters: LetterModel::parse(&letter_section, name)?,
            tagger: Tagger::parse(&tag_section, name)?,
            words: Words::from(fst),
            codes,
            lengths,
            blocks,
            first,
            letter_section,
            tag_section,
            parts: strings,
            entries,
            british: accent == 1,
            bytes: map.len(),
        })
    }

    pub(super) fn british(&self) -> bool {
        self.british
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry of exactly this spelling.
    pub(super) fn exact(&self, word: &str) -> Option<Entry<'_>> {
        let number = usize::try_from(self.words.get(word)?).ok()?;
        if number >= self.entries {
            return None;
        }
        let block = number / BLOCK;
        let place = self.blocks.get(4 * block..4 * block + 4)?;
        let mut at = u32::from_le_bytes(place.try_into().ok()?) as usize;
        for k in block * BLOCK..=number {
            let nibble = (self.lengths.get(k / 2)? >> (4 * (k % 2))) & 15;
            let mut n = usize::from(nibble);
            if n == 15 {
                n = usize::from(*self.codes.get(at)?);
                at += 1;
            }
            if k == number {
                let codes = self.codes.get(at..at.checked_add(n)?)?;
                let first = self.first.get(number / 8)? >> (number % 8) & 1 == 1;
                return Some(Entry { codes, first });
            }
            at += n;
        }
        None
    }

    /// The entry of a word in its own case, or else in lower case for a capitalised word and
    /// capitalised for a word in lower case; the first choice of lists wins.
    pub(super) fn entry(&self, word: &str) -> Option<Entry<'_>> {
        let own = self.exact(word);
        if own.is_some_and(|e| e.first) {
            return own;
        }
        let other = other_case(word).and_then(|w| self.exact(&w));
        match (own, other) {
            (_, Some(e)) if e.first => Some(e),
            (Some(e), _) => Some(e),
            (None, e) => e,
        }
    }

    /// The default pronunciation of an entry.
    pub(super) fn default_of(&self, entry: Entry<'_>) -> String {
        let end = entry.codes.iter().position(|&c| c < FIRST_PART).unwrap_or(entry.codes.len());
        self.text(&entry.codes[..end])
    }

    /// The pronunciation of a variant: `None` if the entry has no such variant,
    /// `Some(None)` if it is spelt letter by letter.
    pub(super) fn variant_of(&self, entry: Entry<'_>, variant: Variant) -> Option<Option<String>> {
        let start = entry.codes.iter().position(|&c| c == variant as u8)? + 1;
        let rest = &entry.codes[start..];
        let end = rest.iter().position(|&c| c < FIRST_PART).unwrap_or(rest.len());
        Some((end > 0).then(|| self.text(&rest[..end])))
    }

    fn text(&self, codes: &[u8]) -> String {
        codes.iter().map(|&c| self.parts[usize::from(c)].as_str()).collect()
    }

    /// The letter model's reading of `a` to `z`.
    pub(super) fn by_letters(&self, word: &str) -> Option<String> {
        self.letters.read(&self.letter_section, word)
    }

    pub(super) fn tags(&self, shapes: &[Shape]) -> Vec<Tag> {
        self.tagger.tag(&self.tag_section, shapes)
    }
}

/// `word` capitalised, or in lower case if it is capitalised.
fn other_case(word: &str) -> Option<String> {
    let mut chars = word.chars();
    let first = chars.next()?;
    let rest = chars.as_str();
    if rest.is_empty() || rest.chars().any(char::is_uppercase) {
        return None;
    }
    if first.is_lowercase() {
        Some(first.to_uppercase().chain(rest.chars()).collect())
    } else if first.is_uppercase() {
        Some(first.to_lowercase().chain(rest.chars()).collect())
    } else {
        None
    }
}
