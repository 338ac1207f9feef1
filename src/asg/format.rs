//! The group index file, `*.asg`, version 1.
//!
//! It stores, for every token of a codebook, the members of the group that the token
//! seeds, so that a group lists in a microsecond or two from a mapped file. All numbers
//! are little-endian; nothing is aligned, so the bytes can lie anywhere.
//!
//! ```text
//! offset  size
//!      0     8  magic "VXGNASG\n"
//!      8     4  version, 1
//!     12     4  header length H = 160 + 24 * sections, the header checksum included
//!     16     8  total length of the file
//!     24     4  codebook: tokens 0 .. codebook are grouped, 1 ..= 2^24
//!     28     1  family: 1 threshold, 2 top-K, 3 top-K symmetrised, 4 explicit
//!     29     1  metric: 1 cosine, 2 Euclidean, 3 FSQ L1, 4 FSQ Hamming, 0 explicit
//!     30     1  source of the rows: 1 input embedding, 2 output head, 3 FSQ digits, 0 unknown
//!     31     1  flags: bit 0 symmetric, bit 1 similarities, bit 2 an own order
//!     32     4  f32 parameter: theta of a threshold, K of a top-K
//!     36     4  cap on the members of a group that the builder applied, 0 none
//!     40     4  members of the largest group
//!     44     4  f32 power of the similarity weights, 0 without similarities
//!     48     8  entries: the sum of all groups' members
//!     56     1  depth D of the trees, 2 ..= 6; 16^D >= codebook
//!     57     1  bits L that a code table is looked up with, 1 ..= 12
//!     58     2  sections S, 4 ..= 16
//!     60     4  zero
//!     64    32  SHA-256 of the weights file that the rows came from; zeros if unknown
//!     96    60  zero, for later versions
//!    156  24*S  section table: kind u32, CRC-32 u32, offset u64, length u64
//!    H-4     4  CRC-32 of all header bytes before it
//!      H        sections, in the order of the table, without gaps
//!    end-8   8  total length again: a truncated file ends with something else
//! ```
//!
//! | kind | section | contents |
//! |------|---------|----------|
//! | 1 | tables  | per level and context (see below) `2^L` entries of 4 bytes |
//! | 2 | order   | rank -> token, `codebook` entries; only with flag bit 2 |
//! | 3 | ranks   | token -> rank, its inverse; only with flag bit 2 |
//! | 4 | counts  | members of each group less one, `codebook` entries |
//! | 5 | offsets | first bit of each group in the stream, `codebook` u32 |
//! | 6 | stream  | the trees, then 8 bytes of zeros |
//! | 7 | starts  | entries before each group, `codebook` u32; only with similarities |
//! | 8 | similarities | one byte an entry, 255 = the same; only with similarities |
//! | 9 | norms   | f32 a token: the sum over its owners of (s / 255)^power; only with similarities |
//! | 20 .. 24 | | 4 .. 8 for the owners of each token; only where not symmetric |
//!
//! Entries of 2, 3 and 4 (20) are u16 if the codebook is at most 65,536, else u32.
//!
//! # Trees
//! A group is the set of `rank(t) XOR rank(g)` over its members `t`: 0, the seed itself,
//! is always one of them. In FSQ codebooks neighbours differ from the seed in few digits,
//! whatever the seed, so these sets look alike, and that is what compresses.
//!
//! The set is a tree of 16-way nodes over the hexadecimal digits, highest first, in
//! pre-order. A node is a mask of its children that are not empty; at the lowest level
//! they are members. The mask of a node at level `l` (D-1 is the root) is written with
//! the code table of `(l, m)`, `m` the number of base-4 digits of its prefix that are
//! not 0. Table number: `l * (2 * D - 1) + m`. A table entry is `mask u16, length u8, kind
//! u8`: the code occupies `length` bits; kind 1 is an escape, followed by the mask itself
//! in 16 bits. A similarity per entry, where there is one, is in the order of the tree.
//!
//! # Reading bytes that cannot be trusted
//! [`Header::parse`] checks everything that is needed so that listing stays in bounds and
//! ends: section lengths follow from the header's numbers, and a tree has at most
//! `16^D` leaves whatever its bits say. What listing yields is meaningful only for a file
//! that passed [`Index::verify`](super::Index::verify).

use ::core::fmt;

use byteorder::{ByteOrder, LE};

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"VXGNASG\n";
/// The version that this crate writes and reads.
pub const VERSION: u32 = 1;
/// The largest codebook.
pub const MAX_CODEBOOK: u32 = 1 << 24;

pub(super) const MAX_DEPTH: usize = 6;
const MAX_SECTIONS: usize = 16;

/// Bytes before the section table, of a row of it, and behind it.
const FIXED: usize = 156;
const TABLE_ROW: usize = 24;
const CHECKSUM: usize = 4;
/// Bytes behind the sections.
const TRAILER: usize = 8;

const FLAG_SYMMETRIC: u8 = 1;
const FLAG_SIMILARITY: u8 = 2;
const FLAG_ORDER: u8 = 4;

/// Offsets of the first table above, for reading and for writing.
mod at {
    use ::core::ops::Range;

    pub const VERSION: usize = 8;
    pub const HEADER_LEN: usize = 12;
    pub const TOTAL: usize = 16;
    pub const CODEBOOK: usize = 24;
    pub const FAMILY: usize = 28;
    pub const METRIC: usize = 29;
    pub const SOURCE: usize = 30;
    pub const FLAGS: usize = 31;
    pub const PARAMETER: usize = 32;
    pub const CAP: usize = 36;
    pub const MAX_MEMBERS: usize = 40;
    pub const POWER: usize = 44;
    pub const ENTRIES: usize = 48;
    pub const DEPTH: usize = 56;
    pub const CODE_BITS: usize = 57;
    pub const SECTIONS: usize = 58;
    pub const ZERO: [Range<usize>; 2] = [60..64, 96..156];
    pub const WEIGHTS_SHA256: Range<usize> = 64..96;

    /// In a row of the section table.
    pub const KIND: usize = 0;
    pub const CRC: usize = 4;
    pub const OFFSET: usize = 8;
    pub const LENGTH: usize = 16;
}

/// How groups were chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// Everything more similar than `theta` (or nearer than it, for distances).
    Threshold {
        /// The threshold.
        theta: f32,
    },
    /// The seed and its `k` nearest; a token's owners differ from its members.
    TopK {
        /// Neighbours beside the seed.
        k: u32,
    },
    /// As `TopK`, with `t` in `G_g` also where `g` is among the nearest of `t`.
    TopKSymmetrised {
        /// Neighbours beside the seed before symmetrising.
        k: u32,
    },
    /// Lists that the builder was given.
    Explicit,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Unknown: the lists were given.
    Given,
    /// Cosine of rows.
    Cosine,
    /// Euclidean distance of rows.
    Euclidean,
    /// Sum of the absolute differences of FSQ digits.
    FsqL1,
    /// Number of FSQ digits that differ.
    FsqHamming,
}

/// Whose rows were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSource {
    /// Not said.
    Unknown,
    /// The target's input embedding (the paper's).
    InputEmbedding,
    /// The target's output head.
    OutputHead,
    /// The digits of the codec's code.
    FsqDigits,
}

/// What one section holds; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Section {
    Tables,
    Order,
    Ranks,
    Counts,
    Offsets,
    Stream,
    Starts,
    Similarities,
    Norms,
    OwnerCounts,
    OwnerOffsets,
    OwnerStream,
    OwnerStarts,
    OwnerSimilarities,
}

impl Family {
    /// The bytes that stand for it: the family and its parameter.
    #[cfg(feature = "std")]
    fn code(self) -> (u8, f32) {
        match self {
            Self::Threshold { theta } => (1, theta),
            Self::TopK { k } => (2, k as f32),
            Self::TopKSymmetrised { k } => (3, k as f32),
            Self::Explicit => (4, 0.0),
        }
    }

    fn from_code(code: u8, parameter: f32) -> Result<Self, FormatError> {
        let k = parameter as u32;
        let whole = k as f32 == parameter;
        match code {
            1 if parameter.is_finite() => Ok(Self::Threshold { theta: parameter }),
            2 if whole => Ok(Self::TopK { k }),
            3 if whole => Ok(Self::TopKSymmetrised { k }),
            4 => Ok(Self::Explicit),
            1..=3 => Err(FormatError::Parameter),
            other => Err(FormatError::Family(other)),
        }
    }

    /// Whether its groups are symmetric whatever the rows are.
    pub(super) fn is_symmetric(self) -> bool {
        matches!(self, Self::Threshold { .. } | Self::TopKSymmetrised { .. })
    }
}

impl Metric {
    const ALL: [Self; 5] =
        [Self::Given, Self::Cosine, Self::Euclidean, Self::FsqL1, Self::FsqHamming];

    fn code(self) -> u8 {
        match self {
            Self::Given => 0,
            Self::Cosine => 1,
            Self::Euclidean => 2,
            Self::FsqL1 => 3,
            Self::FsqHamming => 4,
        }
    }

    fn from_code(code: u8) -> Result<Self, FormatError> {
        let found = Self::ALL.into_iter().find(|m| m.code() == code);
        found.ok_or(FormatError::Metric(code))
    }
}

impl RowSource {
    const ALL: [Self; 4] = [Self::Unknown, Self::InputEmbedding, Self::OutputHead, Self::FsqDigits];

    fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::InputEmbedding => 1,
            Self::OutputHead => 2,
            Self::FsqDigits => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, FormatError> {
        let found = Self::ALL.into_iter().find(|s| s.code() == code);
        found.ok_or(FormatError::Source(code))
    }
}

impl Section {
    pub(super) const ALL: [Self; 14] = [
        Self::Tables,
        Self::Order,
        Self::Ranks,
        Self::Counts,
        Self::Offsets,
        Self::Stream,
        Self::Starts,
        Self::Similarities,
        Self::Norms,
        Self::OwnerCounts,
        Self::OwnerOffsets,
        Self::OwnerStream,
        Self::OwnerStarts,
        Self::OwnerSimilarities,
    ];

    fn kind(self) -> u32 {
        match self {
            Self::Tables => 1,
            Self::Order => 2,
            Self::Ranks => 3,
            Self::Counts => 4,
            Self::Offsets => 5,
            Self::Stream => 6,
            Self::Starts => 7,
            Self::Similarities => 8,
            Self::Norms => 9,
            Self::OwnerCounts => 20,
            Self::OwnerOffsets => 21,
            Self::OwnerStream => 22,
            Self::OwnerStarts => 23,
            Self::OwnerSimilarities => 24,
        }
    }

    fn of_kind(kind: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.kind() == kind)
    }
}

/// Why a file is not an index, or not a sound one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum FormatError {
    /// The file ends inside the header.
    Truncated { needed: usize, found: usize },
    /// The first bytes are not the magic.
    Magic,
    /// Another version.
    Version(u32),
    /// The header's checksum does not fit.
    HeaderChecksum,
    /// The header length does not follow from the number of sections.
    HeaderLength(u32),
    /// The file is shorter or longer than it says.
    Length { said: u64, found: u64 },
    /// The last eight bytes do not repeat the length.
    Trailer,
    /// The codebook is empty or larger than 2^24.
    Codebook(u32),
    /// An unknown family.
    Family(u8),
    /// A family's parameter is impossible.
    Parameter,
    /// An unknown metric.
    Metric(u8),
    /// An unknown source of rows.
    Source(u8),
    /// Unknown flags.
    Flags(u8),
    /// Bytes that this version leaves zero are not.
    Reserved,
    /// The power is missing, or there though similarities are not.
    Power,
    /// The depth does not hold the codebook.
    Depth(u8),
    /// The code tables' width is out of range.
    CodeBits(u8),
    /// Too few or too many sections.
    SectionCount(u16),
    /// A section of an unknown kind.
    UnknownSection(u32),
    /// A section occurs twice.
    DuplicateSection(Section),
    /// A section that the flags ask for is missing.
    MissingSection(Section),
    /// A section that the flags do not allow is there.
    UnexpectedSection(Section),
    /// A section does not start where the one before ends.
    SectionOffset(Section),
    /// A section's length does not follow from the header.
    SectionLength { section: Section, expected: u64, found: u64 },
    /// A section reaches over the end of the file.
    SectionBounds(Section),
    /// `verify`: a section's checksum does not fit.
    SectionChecksum(Section),
    /// `verify`: rank and order are not inverse permutations.
    Order { token: u32 },
    /// `verify`: a group's first bit is outside the stream.
    GroupOffset { group: u32 },
    /// `verify`: a group's members are not as many as its count says.
    GroupCount { group: u32, said: u32, found: u32 },
    /// `verify`: a group lacks its own seed.
    SeedMissing { group: u32 },
    /// `verify`: a group lists a token outside the codebook.
    MemberOutOfRange { group: u32 },
    /// `verify`: the totals of the header do not fit the groups.
    Totals,
    /// `verify`: members and owners contradict each other.
    Asymmetric { group: u32, token: u32 },
    /// `verify`: a token's similarity weights do not sum to one.
    Norm { token: u32 },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REBUILD: &str = "the index is damaged: build it again with `voxgrain asg build`";
        match *self {
            Self::Truncated { needed, found } => write!(
                f,
                "the index ends after {found} of at least {needed} bytes: copy it again, completely"
            ),
            Self::Magic => f.write_str("not a group index (*.asg): check the path"),
            Self::Version(v) => write!(
                f,
                "the index has version {v}, this build reads {VERSION}: build it again with this voxgrain"
            ),
            Self::Length { said, found } => write!(
                f,
                "the index is {found} bytes long but says {said}: copy it again, completely"
            ),
            Self::Trailer => {
                f.write_str("the end of the index is missing: copy it again, completely")
            }
            Self::HeaderChecksum => write!(f, "wrong header checksum; {REBUILD}"),
            Self::SectionChecksum(s) => write!(f, "wrong checksum of section {s:?}; {REBUILD}"),
            other => write!(f, "{other:?}; {REBUILD}"),
        }
    }
}

impl ::core::error::Error for FormatError {}

/// Bytes that [`crc32`] takes a step. Eight are several times as fast, which a lexicon needs, as it
/// is checked whole whenever a program starts; bare metal has better use for 7 KB of tables.
const CRC_STEP: usize = if cfg!(feature = "std") { 8 } else { 1 };

/// CRC-32 (IEEE 802.3, as in zip and PNG).
pub fn crc32(bytes: &[u8]) -> u32 {
    /// `TABLES[k][b]`: the remainder of byte `b` with `k` zero bytes behind it.
    static TABLES: [[u32; 256]; CRC_STEP] = {
        let mut tables = [[0u32; 256]; CRC_STEP];
        let mut b = 0;
        while b < 256 {
            let mut c = b as u32;
            let mut bit = 0;
            while bit < 8 {
                c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
                bit += 1;
            }
            tables[0][b] = c;
            b += 1;
        }
        let mut k = 1;
        while k < CRC_STEP {
            let mut b = 0;
            while b < 256 {
                let c = tables[k - 1][b];
                tables[k][b] = (c >> 8) ^ tables[0][(c & 255) as usize];
                b += 1;
            }
            k += 1;
        }
        tables
    };
    let by_byte = |c: u32, b: &u8| TABLES[0][((c ^ u32::from(*b)) & 255) as usize] ^ (c >> 8);
    let (steps, rest) = bytes.as_chunks::<CRC_STEP>();
    let mut crc = !0u32;
    for step in steps {
        if CRC_STEP < 8 {
            crc = step.iter().fold(crc, by_byte);
            continue;
        }
        // The remainder so far is a part of the first four bytes.
        let old = crc.to_le_bytes();
        crc = 0;
        for (k, byte) in step.iter().enumerate() {
            let byte = byte ^ old.get(k).unwrap_or(&0);
            crc ^= TABLES[CRC_STEP - 1 - k][usize::from(byte)];
        }
    }
    !rest.iter().fold(crc, by_byte)
}

/// Makes an index that names the weights file `old` name `new`, for the same rows in another
/// file. An index of other weights, or of none, is left as it is.
pub fn retarget(file: &mut [u8], old: &[u8; 32], new: &[u8; 32]) -> Result<(), FormatError> {
    let header = Header::parse(file)?;
    if header.weights_sha256 != *old {
        return Ok(());
    }
    file[at::WEIGHTS_SHA256].copy_from_slice(new);
    let end = LE::read_u32(&file[at::HEADER_LEN..]) as usize - CHECKSUM;
    let crc = crc32(&file[..end]);
    LE::write_u32(&mut file[end..], crc);
    Ok(())
}

/// A section's place in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub start: usize,
    pub len: usize,
    pub crc: u32,
}

/// Everything that the header says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Tokens `0 .. codebook` are grouped.
    pub codebook: u32,
    /// How groups were chosen.
    pub family: Family,
    /// What was compared.
    pub metric: Metric,
    /// Whose rows were compared.
    pub source: RowSource,
    /// Whether the groups that contain `t` are the members of `G_t`.
    pub symmetric: bool,
    /// The power of the similarity weights, if the file holds similarities.
    pub power: Option<f32>,
    /// Cap on members that the builder applied, 0 none.
    pub cap: u32,
    /// Members of the largest group.
    pub max_members: u32,
    /// The sum of all groups' members.
    pub entries: u64,
    /// SHA-256 of the weights file that the rows came from; zeros if unknown.
    pub weights_sha256: [u8; 32],
    pub(super) depth: usize,
    pub(super) code_bits: u32,
    pub(super) ordered: bool,
    pub(super) sections: [Extent; Section::ALL.len()],
}

/// Bytes of an entry of the order, the ranks and the counts.
pub(super) fn entry_width(codebook: u32) -> usize {
    if codebook <= 1 << 16 { 2 } else { 4 }
}

/// Code tables of a tree of this depth.
pub(super) fn table_count(depth: usize) -> usize {
    depth * (2 * depth - 1)
}

impl Header {
    /// Reads and checks the header of a whole file. Touches the header and the last
    /// eight bytes only.
    pub fn parse(file: &[u8]) -> Result<Self, FormatError> {
        let truncated = |needed| FormatError::Truncated { needed, found: file.len() };
        if file.first_chunk().is_some_and(|magic| *magic != MAGIC) {
            return Err(FormatError::Magic);
        }
        let fixed: &[u8; FIXED] = file.first_chunk().ok_or(truncated(FIXED))?;
        let version = LE::read_u32(&fixed[at::VERSION..]);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let section_count = LE::read_u16(&fixed[at::SECTIONS..]);
        if !(4..=MAX_SECTIONS).contains(&usize::from(section_count)) {
            return Err(FormatError::SectionCount(section_count));
        }
        let table_end = FIXED + TABLE_ROW * usize::from(section_count);
        let header_len = LE::read_u32(&fixed[at::HEADER_LEN..]);
        if header_len as usize != table_end + CHECKSUM {
            return Err(FormatError::HeaderLength(header_len));
        }
        let whole = file.get(..table_end + CHECKSUM).ok_or(truncated(table_end + CHECKSUM))?;
        let (covered, crc) = whole.split_at(table_end);
        if crc32(covered) != LE::read_u32(crc) {
            return Err(FormatError::HeaderChecksum);
        }
        let total = LE::read_u64(&fixed[at::TOTAL..]);
        if total != file.len() as u64 {
            return Err(FormatError::Length { said: total, found: file.len() as u64 });
        }
        // Room for the trailer was not checked yet: a header-only file is too short.
        let trailer = file.len() - TRAILER;
        if trailer < whole.len() || LE::read_u64(&file[trailer..]) != total {
            return Err(FormatError::Trailer);
        }

        let codebook = LE::read_u32(&fixed[at::CODEBOOK..]);
        if codebook == 0 || codebook > MAX_CODEBOOK {
            return Err(FormatError::Codebook(codebook));
        }
        let flags = fixed[at::FLAGS];
        if flags & !(FLAG_SYMMETRIC | FLAG_SIMILARITY | FLAG_ORDER) != 0 {
            return Err(FormatError::Flags(flags));
        }
        let parameter = LE::read_f32(&fixed[at::PARAMETER..]);
        let family = Family::from_code(fixed[at::FAMILY], parameter)?;
        let symmetric = flags & FLAG_SYMMETRIC != 0;
        if !symmetric && family.is_symmetric() {
            return Err(FormatError::Flags(flags));
        }
        let metric = Metric::from_code(fixed[at::METRIC])?;
        let source = RowSource::from_code(fixed[at::SOURCE])?;
        let power = LE::read_f32(&fixed[at::POWER..]);
        let similar = flags & FLAG_SIMILARITY != 0;
        if !power.is_finite() || power < 0.0 || similar != (power > 0.0) {
            return Err(FormatError::Power);
        }
        let (depth, code_bits) = (fixed[at::DEPTH], fixed[at::CODE_BITS]);
        if !(2..=MAX_DEPTH).contains(&usize::from(depth)) || u64::from(codebook) > 1 << (4 * depth)
        {
            return Err(FormatError::Depth(depth));
        }
        if !(1..=12).contains(&code_bits) {
            return Err(FormatError::CodeBits(code_bits));
        }
        if at::ZERO.into_iter().any(|zero| fixed[zero].iter().any(|&b| b != 0)) {
            return Err(FormatError::Reserved);
        }
        let mut weights_sha256 = [0; 32];
        weights_sha256.copy_from_slice(&fixed[at::WEIGHTS_SHA256]);
        let mut header = Self {
            codebook,
            family,
            metric,
            source,
            symmetric,
            power: similar.then_some(power),
            cap: LE::read_u32(&fixed[at::CAP..]),
            max_members: LE::read_u32(&fixed[at::MAX_MEMBERS..]),
            entries: LE::read_u64(&fixed[at::ENTRIES..]),
            weights_sha256,
            depth: depth.into(),
            code_bits: code_bits.into(),
            ordered: flags & FLAG_ORDER != 0,
            sections: Default::default(),
        };
        header.read_table(&covered[FIXED..], whole.len(), trailer)?;
        Ok(header)
    }

    /// The whole file: this header with the places of `sections`, the sections in this order,
    /// the length. Reads nothing of `self.sections`.
    #[cfg(feature = "std")]
    pub(super) fn write(&self, sections: &[(Section, Vec<u8>)]) -> Vec<u8> {
        let table_end = FIXED + TABLE_ROW * sections.len();
        let first = table_end + CHECKSUM;
        let total = first + sections.iter().map(|(_, b)| b.len()).sum::<usize>() + TRAILER;
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let (family, parameter) = self.family.code();

        let mut file = Vec::with_capacity(total);
        file.resize(first, 0);
        file[..MAGIC.len()].copy_from_slice(&MAGIC);
        LE::write_u32(&mut file[at::VERSION..], VERSION);
        LE::write_u32(&mut file[at::HEADER_LEN..], first as u32);
        LE::write_u64(&mut file[at::TOTAL..], total as u64);
        LE::write_u32(&mut file[at::CODEBOOK..], self.codebook);
        file[at::FAMILY] = family;
        file[at::METRIC] = self.metric.code();
        file[at::SOURCE] = self.source.code();
        file[at::FLAGS] = flag(self.symmetric, FLAG_SYMMETRIC)
            | flag(self.power.is_some(), FLAG_SIMILARITY)
            | flag(self.ordered, FLAG_ORDER);
        LE::write_f32(&mut file[at::PARAMETER..], parameter);
        LE::write_u32(&mut file[at::CAP..], self.cap);
        LE::write_u32(&mut file[at::MAX_MEMBERS..], self.max_members);
        LE::write_f32(&mut file[at::POWER..], self.power.unwrap_or(0.0));
        LE::write_u64(&mut file[at::ENTRIES..], self.entries);
        file[at::DEPTH] = self.depth as u8;
        file[at::CODE_BITS] = self.code_bits as u8;
        LE::write_u16(&mut file[at::SECTIONS..], sections.len() as u16);
        file[at::WEIGHTS_SHA256].copy_from_slice(&self.weights_sha256);
        let mut offset = first as u64;
        let rows = file[FIXED..].chunks_exact_mut(TABLE_ROW);
        for (row, (section, bytes)) in rows.zip(sections) {
            LE::write_u32(&mut row[at::KIND..], section.kind());
            LE::write_u32(&mut row[at::CRC..], crc32(bytes));
            LE::write_u64(&mut row[at::OFFSET..], offset);
            LE::write_u64(&mut row[at::LENGTH..], bytes.len() as u64);
            offset += bytes.len() as u64;
        }
        let crc = crc32(&file[..table_end]);
        LE::write_u32(&mut file[table_end..], crc);
        for (_, bytes) in sections {
            file.extend_from_slice(bytes);
        }
        file.extend((total as u64).to_le_bytes());
        file
    }

    /// `rows`: the section table. The sections lie in `first .. end` of the file.
    fn read_table(&mut self, rows: &[u8], first: usize, end: usize) -> Result<(), FormatError> {
        let mut seen = [false; Section::ALL.len()];
        let mut next = first as u64;
        for row in rows.chunks_exact(TABLE_ROW) {
            let kind = LE::read_u32(&row[at::KIND..]);
            let section = Section::of_kind(kind).ok_or(FormatError::UnknownSection(kind))?;
            let (offset, len) =
                (LE::read_u64(&row[at::OFFSET..]), LE::read_u64(&row[at::LENGTH..]));
            if ::core::mem::replace(&mut seen[section as usize], true) {
                return Err(FormatError::DuplicateSection(section));
            }
            if offset != next {
                return Err(FormatError::SectionOffset(section));
            }
            next = match next.checked_add(len) {
                Some(after) if after <= end as u64 => after,
                _ => return Err(FormatError::SectionBounds(section)),
            };
            let crc = LE::read_u32(&row[at::CRC..]);
            self.sections[section as usize] =
                Extent { start: offset as usize, len: len as usize, crc };
        }
        if next != end as u64 {
            let (said, found) = (next + TRAILER as u64, (end + TRAILER) as u64);
            return Err(FormatError::Length { said, found });
        }
        for section in Section::ALL {
            let expected = self.expected(section);
            let there = seen[section as usize];
            match (expected, there) {
                (Expected::Absent, true) => return Err(FormatError::UnexpectedSection(section)),
                (Expected::Absent, false) => {}
                (_, false) => return Err(FormatError::MissingSection(section)),
                (Expected::Exactly(expected), true) => {
                    let found = self.sections[section as usize].len as u64;
                    if expected != found {
                        return Err(FormatError::SectionLength { section, expected, found });
                    }
                }
                (Expected::AtLeast(expected), true) => {
                    let found = self.sections[section as usize].len as u64;
                    if found < expected {
                        return Err(FormatError::SectionLength { section, expected, found });
                    }
                }
            }
        }
        Ok(())
    }

    fn expected(&self, section: Section) -> Expected {
        let n = u64::from(self.codebook);
        let narrow = n * entry_width(self.codebook) as u64;
        let similar = self.power.is_some();
        let when = |there: bool, bytes: u64| {
            if there { Expected::Exactly(bytes) } else { Expected::Absent }
        };
        match section {
            Section::Tables => {
                Expected::Exactly((table_count(self.depth) as u64 * 4) << self.code_bits)
            }
            Section::Order | Section::Ranks => when(self.ordered, narrow),
            Section::Counts => Expected::Exactly(narrow),
            Section::Offsets => Expected::Exactly(n * 4),
            Section::Stream => Expected::AtLeast(super::bits::STREAM_PADDING as u64),
            Section::Starts | Section::Norms => when(similar, n * 4),
            Section::Similarities => when(similar, self.entries),
            Section::OwnerCounts => when(!self.symmetric, narrow),
            Section::OwnerOffsets => when(!self.symmetric, n * 4),
            Section::OwnerStream if self.symmetric => Expected::Absent,
            Section::OwnerStream => Expected::AtLeast(super::bits::STREAM_PADDING as u64),
            Section::OwnerStarts => when(!self.symmetric && similar, n * 4),
            Section::OwnerSimilarities => when(!self.symmetric && similar, self.entries),
        }
    }
}

enum Expected {
    Absent,
    Exactly(u64),
    AtLeast(u64),
}

#[cfg(test)]
mod tests {
    #[test]
    fn checksums_are_those_of_one_bit_after_the_other() {
        let naive = |bytes: &[u8]| {
            !bytes.iter().fold(!0u32, |c, b| {
                (0..8).fold(c ^ u32::from(*b), |c, _| {
                    (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg())
                })
            })
        };
        let bytes: [u8; 1000] = core::array::from_fn(|i| ((i * i) >> 3) as u8);
        for n in [0, 1, 7, 8, 9, 63, 64, 999, 1000] {
            assert_eq!(super::crc32(&bytes[..n]), naive(&bytes[..n]), "{n}");
        }
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
