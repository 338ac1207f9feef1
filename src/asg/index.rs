//! Reading an index: members, owners and weights, without allocation.

use super::bits::BitReader;
use super::format::{Extent, FormatError, Header, MAX_DEPTH, Section, crc32, entry_width};
use crate::core::accept::{GroupId, Groups};

/// How a token's mass is split over the groups that contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Weights {
    /// `w(g|t) = 1 / N(t)`: the paper's.
    #[default]
    EqualSplit,
    /// `w(g|t)` proportional to a power of the similarity of `t` and `g`.
    Similarity,
}

/// The index holds no similarities, so it cannot weigh by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSimilarities;

impl ::core::fmt::Display for NoSimilarities {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.write_str(
            "the index holds no similarities: build one with similarity weights, or use equal split",
        )
    }
}

impl ::core::error::Error for NoSimilarities {}

/// A group index over the bytes of a file: a map, a vector, or a static in flash.
///
/// Implements [`Groups`] with the weights that [`set_weights`](Self::set_weights) chose.
#[derive(Clone, Debug)]
pub struct Index<D> {
    data: D,
    header: Header,
    weights: Weights,
    /// `(s / 255)^power`, where there are similarities.
    powers: [f32; 256],
}

/// Where a family of lists lies: the members, or the owners.
#[derive(Clone, Copy)]
struct Lists {
    counts: Section,
    offsets: Section,
    stream: Section,
    starts: Section,
    similarities: Section,
}

const MEMBERS: Lists = Lists {
    counts: Section::Counts,
    offsets: Section::Offsets,
    stream: Section::Stream,
    starts: Section::Starts,
    similarities: Section::Similarities,
};

const OWNERS: Lists = Lists {
    counts: Section::OwnerCounts,
    offsets: Section::OwnerOffsets,
    stream: Section::OwnerStream,
    starts: Section::OwnerStarts,
    similarities: Section::OwnerSimilarities,
};

fn bytes_of(data: &[u8], extent: Extent) -> &[u8] {
    data.get(extent.start..extent.start + extent.len).unwrap_or_default()
}

/// Entry `i` of a table of u16 or u32; 0 outside.
#[inline]
fn entry(table: &[u8], width: usize, i: u32) -> u32 {
    let i = i as usize * width;
    if width == 2 {
        table.get(i..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b).into())
    } else {
        table.get(i..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
    }
}

impl<D: AsRef<[u8]>> Index<D> {
    /// Checks the header and the bounds of every section. Reads a few hundred bytes,
    /// whatever the size; see [`verify`](Self::verify) for the rest.
    pub fn open(data: D) -> Result<Self, FormatError> {
        let header = Header::parse(data.as_ref())?;
        let mut powers = [0f32; 256];
        if let Some(power) = header.power {
            for (s, p) in powers.iter_mut().enumerate() {
                *p = libm::powf(s as f32 / 255.0, power);
            }
        }
        Ok(Self { data, header, weights: Weights::EqualSplit, powers })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Chooses the weights for [`Groups`]; equal split until then.
    pub fn set_weights(&mut self, weights: Weights) -> Result<(), NoSimilarities> {
        if weights == Weights::Similarity && self.header.power.is_none() {
            return Err(NoSimilarities);
        }
        self.weights = weights;
        Ok(())
    }

    /// The weights in use.
    pub fn weights(&self) -> Weights {
        self.weights
    }

    /// The members of the group that `group` seeds, in the file's order: the seed first.
    /// Nothing for an id outside the codebook.
    pub fn members(&self, group: GroupId) -> Members<'_> {
        self.list(MEMBERS, group)
    }

    /// The groups that contain `token`, its own first. For a symmetric index the members.
    pub fn owners(&self, token: u32) -> Members<'_> {
        self.list(self.owner_lists(), token)
    }

    /// How many members `group` has.
    pub fn member_count(&self, group: GroupId) -> u32 {
        self.count(MEMBERS, group)
    }

    /// `w(group|token)` under the weights in use; 0 where `token` is not a member. Walks
    /// the owners of `token`: meant for inspection, not for the loop.
    pub fn weight(&self, group: GroupId, token: u32) -> f32 {
        let mut found = 0.0;
        self.for_each_owner(token, |g, w| {
            if g == group {
                found = w;
            }
        });
        found
    }

    fn owner_lists(&self) -> Lists {
        if self.header.symmetric { MEMBERS } else { OWNERS }
    }

    fn section(&self, section: Section) -> &[u8] {
        bytes_of(self.data.as_ref(), self.header.sections[section as usize])
    }

    #[inline]
    fn count(&self, lists: Lists, of: u32) -> u32 {
        if of >= self.header.codebook {
            return 0;
        }
        entry(self.section(lists.counts), entry_width(self.header.codebook), of).saturating_add(1)
    }

    fn list(&self, lists: Lists, of: u32) -> Members<'_> {
        let inside = of < self.header.codebook;
        let width = entry_width(self.header.codebook);
        let rank =
            if self.header.ordered { entry(self.section(Section::Ranks), width, of) } else { of };
        let offset = entry(self.section(lists.offsets), 4, of);
        Members::new(
            self.section(Section::Tables),
            BitReader::new(self.section(lists.stream), offset as usize),
            if self.header.ordered { Some(self.section(Section::Order)) } else { None },
            &self.header,
            rank,
            inside,
        )
    }

    /// The similarities of a list, in its order.
    fn similarities(&self, lists: Lists, of: u32) -> &[u8] {
        let start = entry(self.section(lists.starts), 4, of) as usize;
        self.section(lists.similarities).get(start..).unwrap_or_default()
    }

    #[inline]
    fn norm(&self, token: u32) -> f32 {
        f32::from_bits(entry(self.section(Section::Norms), 4, token))
    }

    /// Checks everything that [`open`](Self::open) does not: the checksum of every
    /// section, every list (in range, with its seed, as long as it says), that members and
    /// owners agree in every pair, and that weights sum to one. Takes a second or so at
    /// 18 million entries; an index from a trusted place needs it once, after copying.
    pub fn verify(&self) -> Result<(), FormatError> {
        for section in Section::ALL {
            let extent = self.header.sections[section as usize];
            if crc32(self.section(section)) != extent.crc && extent != Extent::default() {
                return Err(FormatError::SectionChecksum(section));
            }
        }
        let n = self.header.codebook;
        let width = entry_width(n);
        if self.header.ordered {
            let (order, ranks) = (self.section(Section::Order), self.section(Section::Ranks));
            for token in 0..n {
                let rank = entry(ranks, width, token);
                if rank >= n || entry(order, width, rank) != token {
                    return Err(FormatError::Order { token });
                }
            }
        }
        self.verify_lists(MEMBERS)?;
        if !self.header.symmetric {
            self.verify_lists(OWNERS)?;
        }
        // Every pair is counted from both sides with a hash of the pair: the sums agree
        // only if the sets of pairs do (but for one chance in 2^64).
        let owners = self.owner_lists();
        let (mut forward, mut backward) = (0u64, 0u64);
        for g in 0..n {
            self.list(MEMBERS, g).for_each(|t| forward = forward.wrapping_add(pair(g, t)));
            self.list(owners, g).for_each(|o| backward = backward.wrapping_add(pair(o, g)));
        }
        if forward != backward {
            return Err(self.find_asymmetry(owners));
        }
        if self.header.power.is_some() {
            for token in 0..n {
                let (mut sum, norm) = (0f32, self.norm(token));
                let s = self.similarities(owners, token);
                for &s in s.iter().take(self.count(owners, token) as usize) {
                    sum += self.powers[usize::from(s)];
                }
                if !(norm > 0.0 && (sum - norm).abs() <= 1e-4 * norm) {
                    return Err(FormatError::Norm { token });
                }
            }
        }
        Ok(())
    }

    fn verify_lists(&self, lists: Lists) -> Result<(), FormatError> {
        let n = self.header.codebook;
        let bits = self.section(lists.stream).len() as u64 * 8;
        let (mut entries, mut largest) = (0u64, 0u32);
        for group in 0..n {
            if u64::from(entry(self.section(lists.offsets), 4, group)) >= bits {
                return Err(FormatError::GroupOffset { group });
            }
            if self.header.power.is_some()
                && u64::from(entry(self.section(lists.starts), 4, group)) != entries
            {
                return Err(FormatError::GroupOffset { group });
            }
            let (mut found, mut seed, mut outside) = (0u32, false, false);
            self.list(lists, group).walk_all(|token| {
                found += 1;
                seed |= token == Some(group);
                outside |= token.is_none();
            });
            if outside {
                return Err(FormatError::MemberOutOfRange { group });
            }
            if !seed {
                return Err(FormatError::SeedMissing { group });
            }
            let said = self.count(lists, group);
            if said != found {
                return Err(FormatError::GroupCount { group, said, found });
            }
            entries += u64::from(found);
            largest = largest.max(found);
        }
        let members = ::core::ptr::eq(self.section(lists.stream), self.section(Section::Stream));
        if entries != self.header.entries || (members && largest != self.header.max_members) {
            return Err(FormatError::Totals);
        }
        Ok(())
    }

    /// Only for the message: which pair it was.
    fn find_asymmetry(&self, owners: Lists) -> FormatError {
        for group in 0..self.header.codebook {
            for token in self.list(MEMBERS, group) {
                if !self.list(owners, token).any(|g| g == group) {
                    return FormatError::Asymmetric { group, token };
                }
            }
        }
        FormatError::Totals
    }
}

fn pair(group: u32, token: u32) -> u64 {
    let mut z = (u64::from(group) << 32 | u64::from(token)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<D: AsRef<[u8]>> Groups for Index<D> {
    fn codebook(&self) -> u32 {
        self.header.codebook
    }

    #[inline]
    fn owner_count(&self, token: u32) -> u32 {
        self.count(self.owner_lists(), token).max(1)
    }

    fn draw_owner(&self, token: u32, u: f32) -> GroupId {
        let lists = self.owner_lists();
        match self.weights {
            Weights::EqualSplit => {
                let n = self.count(lists, token);
                let nth = ((f64::from(u) * f64::from(n)) as u32).min(n.saturating_sub(1));
                self.list(lists, token).at(nth).unwrap_or(token)
            }
            Weights::Similarity => {
                let goal = f64::from(u) * f64::from(self.norm(token));
                let (mut sum, mut last) = (0f64, token);
                for (g, &s) in self.list(lists, token).zip(self.similarities(lists, token)) {
                    let w = self.powers[usize::from(s)];
                    if w > 0.0 {
                        sum += f64::from(w);
                        last = g;
                        if goal < sum {
                            break;
                        }
                    }
                }
                last
            }
        }
    }

    fn for_each_owner<F: FnMut(GroupId, f32)>(&self, token: u32, mut visit: F) {
        let lists = self.owner_lists();
        match self.weights {
            Weights::EqualSplit => {
                let w = 1.0 / self.count(lists, token).max(1) as f32;
                self.list(lists, token).for_each(|g| visit(g, w));
            }
            Weights::Similarity => {
                let norm = self.norm(token);
                let mut s = self.similarities(lists, token).iter();
                self.list(lists, token).for_each(|g| {
                    let s = s.next().copied().unwrap_or(0);
                    visit(g, self.powers[usize::from(s)] / norm);
                });
            }
        }
    }

    #[inline]
    fn for_each_member<F: FnMut(u32, f32)>(&self, group: GroupId, mut visit: F) {
        match self.weights {
            Weights::EqualSplit => {
                let counts = self.section(self.owner_lists().counts);
                let width = entry_width(self.header.codebook);
                self.members(group).for_each(|t| {
                    visit(t, 1.0 / (entry(counts, width, t) as f32 + 1.0));
                });
            }
            Weights::Similarity => {
                let mut s = self.similarities(MEMBERS, group).iter();
                let norms = self.section(Section::Norms);
                self.members(group).for_each(|t| {
                    let s = s.next().copied().unwrap_or(0);
                    visit(t, self.powers[usize::from(s)] / f32::from_bits(entry(norms, 4, t)));
                });
            }
        }
    }

    fn mean_members(&self) -> f32 {
        self.header.entries as f32 / self.header.codebook as f32
    }

    fn is_symmetric(&self) -> bool {
        self.header.symmetric
    }

    #[inline]
    fn for_each_neighbour<F: FnMut(u32)>(&self, token: u32, visit: F) {
        self.members(token).for_each(visit);
    }
}

/// The tokens of one list. Internal iteration (`for_each`, `fold`) is the fast way.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    /// `mask u16, length, kind` an entry.
    tables: &'a [[u8; 4]],
    bits: BitReader<'a>,
    order: Option<&'a [u8]>,
    codebook: u32,
    width: usize,
    code_bits: u32,
    contexts: u32,
    /// The seed's rank.
    rank: u32,
    depth: usize,
    /// Masks of the nodes on the path, not yet visited children only, lowest level first.
    masks: [u32; MAX_DEPTH],
    /// Prefix of the current node at each level, relative to the seed's.
    prefix: [u32; MAX_DEPTH],
    level: usize,
    started: bool,
    done: bool,
}

impl<'a> Members<'a> {
    fn new(
        tables: &'a [u8],
        bits: BitReader<'a>,
        order: Option<&'a [u8]>,
        header: &Header,
        rank: u32,
        inside: bool,
    ) -> Self {
        Self {
            tables: tables.as_chunks().0,
            bits,
            order,
            codebook: header.codebook,
            width: entry_width(header.codebook),
            code_bits: header.code_bits,
            contexts: 2 * header.depth as u32 - 1,
            rank,
            depth: header.depth,
            masks: [0; MAX_DEPTH],
            prefix: [0; MAX_DEPTH],
            level: header.depth - 1,
            started: false,
            done: !inside,
        }
    }

    /// The mask of a node at `level` whose prefix has `differing` base-4 digits that are
    /// not 0.
    #[inline(always)]
    fn node(&self, bits: &mut BitReader<'_>, level: usize, differing: u32) -> u32 {
        let table = level as u32 * self.contexts + differing;
        let coming = bits.peek();
        let code = coming as u32 & ((1 << self.code_bits) - 1);
        let at = (table << self.code_bits | code) as usize;
        let Some(&[low, high, length, kind]) = self.tables.get(at) else {
            return 0;
        };
        bits.skip(length.into());
        if kind == 0 {
            u16::from_le_bytes([low, high]).into()
        } else {
            bits.skip(16);
            (coming >> (length & 31)) as u32 & 0xffff
        }
    }

    /// The token at a relative rank, or `None` outside the codebook.
    #[inline(always)]
    fn token(&self, relative: u32) -> Option<u32> {
        let rank = relative ^ self.rank;
        match self.order {
            None if rank < self.codebook => Some(rank),
            Some(order) if rank < self.codebook => {
                let token = entry(order, self.width, rank);
                (token < self.codebook).then_some(token)
            }
            _ => None,
        }
    }

    /// Visits everything that is left, `None` for ranks outside the codebook.
    #[inline]
    fn walk_all<F: FnMut(Option<u32>)>(mut self, mut visit: F) {
        if !self.started && !self.done {
            let mut bits = self.bits.clone();
            return self.below(&mut bits, self.depth - 1, 0, 0, &mut visit);
        }
        loop {
            match self.step() {
                Step::Token(token) => visit(token),
                Step::Node => {}
                Step::End => return,
            }
        }
    }

    /// Decodes and visits the subtree at `level`, pre-order.
    fn below<F: FnMut(Option<u32>)>(
        &self,
        bits: &mut BitReader<'a>,
        level: usize,
        prefix: u32,
        differing: u32,
        visit: &mut F,
    ) {
        let mut mask = self.node(bits, level, differing);
        if level > 1 {
            while mask != 0 {
                let child = mask.trailing_zeros();
                mask &= mask - 1;
                let differing = differing + differing_in_digit(child);
                self.below(bits, level - 1, prefix << 4 | child, differing, visit);
            }
            return;
        }
        // The position stays in a register: this loop is where listing spends its time.
        let mut local = bits.clone();
        while mask != 0 {
            let child = mask.trailing_zeros();
            mask &= mask - 1;
            let mut leaves = self.node(&mut local, 0, differing + differing_in_digit(child));
            let base = prefix << 8 | child << 4;
            while leaves != 0 {
                let relative = base | leaves.trailing_zeros();
                leaves &= leaves - 1;
                visit(self.token(relative));
            }
        }
        *bits = local;
    }

    /// Item `n` of a sound list: as `nth`, but skips whole leaves by their bit counts.
    fn at(mut self, mut n: u32) -> Option<u32> {
        loop {
            if self.level == 0 {
                let here = self.masks[0].count_ones();
                if n >= here {
                    n -= here;
                    self.masks[0] = 0;
                }
            }
            match self.step() {
                Step::Token(token) if n == 0 => return token,
                Step::Token(_) => n -= 1,
                Step::Node => {}
                Step::End => return None,
            }
        }
    }

    /// One step of external iteration.
    #[inline]
    fn step(&mut self) -> Step {
        if self.done {
            return Step::End;
        }
        let mut bits = self.bits.clone();
        let level = self.level;
        if !self.started {
            self.started = true;
            self.masks[level] = self.node(&mut bits, level, 0);
            self.bits = bits;
            return Step::Node;
        }
        let mask = self.masks[level];
        if mask == 0 {
            self.done = level == self.depth - 1;
            self.level += 1;
            return if self.done { Step::End } else { Step::Node };
        }
        let child = self.prefix[level] << 4 | mask.trailing_zeros();
        self.masks[level] = mask & (mask - 1);
        if level == 0 {
            return Step::Token(self.token(child));
        }
        self.level = level - 1;
        self.prefix[level - 1] = child;
        self.masks[level - 1] = self.node(&mut bits, level - 1, differing_digits(child));
        self.bits = bits;
        Step::Node
    }
}

/// How many base-4 digits of `prefix` are not 0.
#[inline(always)]
fn differing_digits(prefix: u32) -> u32 {
    ((prefix | prefix >> 1) & 0x5555_5555).count_ones()
}

/// The same for one hexadecimal digit, where counting bits would cost more.
#[inline(always)]
fn differing_in_digit(digit: u32) -> u32 {
    u32::from(digit & 3 != 0) + u32::from(digit >> 2 != 0)
}

enum Step {
    /// A member, `None` for a rank outside the codebook.
    Token(Option<u32>),
    /// Went up or down.
    Node,
    End,
}

impl Iterator for Members<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            match self.step() {
                Step::Token(Some(token)) => return Some(token),
                Step::Token(None) | Step::Node => {}
                Step::End => return None,
            }
        }
    }

    #[inline]
    fn fold<B, F: FnMut(B, u32) -> B>(self, init: B, mut f: F) -> B {
        // The value moves through `f`, so it is put aside in an option meanwhile.
        let mut value = Some(init);
        self.walk_all(|token| {
            if let Some(token) = token {
                value = value.take().map(|v| f(v, token));
            }
        });
        value.expect("f returns a value for every one it takes")
    }
}

impl ::core::iter::FusedIterator for Members<'_> {}
