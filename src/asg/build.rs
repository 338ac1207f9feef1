//! Building an index: neighbours, weights, an order that compresses, the file.
//!
//! Ties and odd rows. A threshold is strict (`cos > theta`, `distance < theta`), except
//! for FSQ distances, which are whole numbers and taken `<= theta`. Equal scores are
//! ranked by lowest id. A row of length zero has no direction, so under cosine it is a
//! singleton, and so is every token that the mask excludes; a NaN or infinite row is an
//! error. The output depends on the input alone, not on the number of threads.

use std::io::{self, Write};

use super::bits::BitWriter;
use super::error::BuildError;
use super::format::{
    Family, Header, MAX_CODEBOOK, Metric, RowSource, Section, entry_width, table_count,
};
use super::search::{Neighbour, Packed, Score, nearest, pairs_above};

/// How tokens are numbered inside the file; listing does not depend on it, size does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Order {
    /// By id: right for FSQ codebooks, whose ids are digits.
    #[default]
    Ids,
    /// So that similar rows lie together: halves split along the direction in which
    /// they differ most, again and again. Only for rows.
    Clustered,
    /// `order[rank] = token`.
    Given(Vec<u32>),
}

/// What to build beside the groups themselves.
#[derive(Clone)]
pub struct BuildOptions<'a> {
    /// Threads of the neighbour search.
    pub threads: usize,
    /// At most so many members a group, the seed included, the most similar ones. In
    /// symmetric families a pair stays only if both of its groups keep it.
    pub cap: Option<u32>,
    /// Similarity weights with this power, stored beside the groups.
    pub power: Option<f32>,
    /// `used[t]`: tokens that are not become singletons.
    pub used: Option<&'a [bool]>,
    /// Numbering inside the file.
    pub order: Order,
    /// Recorded in the file.
    pub source: RowSource,
    /// SHA-256 of the weights file, recorded in the file.
    pub weights_sha256: [u8; 32],
    /// Called with the fraction of the search that is done, from any thread.
    pub progress: &'a (dyn Fn(f32) + Sync),
}

impl Default for BuildOptions<'_> {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            cap: None,
            power: None,
            used: None,
            order: Order::Ids,
            source: RowSource::Unknown,
            weights_sha256: [0; 32],
            progress: &|_| {},
        }
    }
}

/// Most pairs that a threshold may let in: 2^28, 3 GiB of them.
const MAX_PAIRS: usize = 1 << 28;
/// Codes of at most this many bits: 28 tables of 2^11 entries are 224 KiB.
const CODE_BITS: u32 = 11;

/// The groups, ready to be written.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    codebook: u32,
    family: Family,
    metric: Metric,
    symmetric: bool,
    /// Of each group, by ascending id, with quantised similarities.
    members: Vec<Vec<(u32, u8)>>,
    /// Of each token, if they differ.
    owners: Vec<Vec<(u32, u8)>>,
    power: Option<f32>,
    cap: u32,
    order: Option<Vec<u32>>,
    source: RowSource,
    weights_sha256: [u8; 32],
}

/// The `k` nearest other tokens of every token by rows `[codebook, hidden]`, nearest first,
/// ties by lowest id, each with its cosine or its Euclidean distance. What several families
/// of groups have in common: one search serves every top-K up to `k`, and every threshold
/// that no token has more than `k` neighbours within.
///
/// # Errors
/// As [`IndexBuilder::from_rows`].
pub fn nearest_neighbours(
    rows: &[f32],
    hidden: usize,
    metric: Metric,
    k: usize,
    options: &BuildOptions<'_>,
) -> Result<Vec<Vec<(u32, f32)>>, BuildError> {
    let (packed, score) = pack_rows(rows, hidden, metric, options)?;
    let mut lists = vec![Vec::new(); rows.len() / hidden];
    for (t, list) in nearest(&packed, k, options.threads, options.progress) {
        lists[t as usize] = list
            .into_iter()
            .map(|n| match score {
                Score::Cosine => (n.id, n.score),
                Score::Euclidean => (n.id, (-n.score).max(0.0).sqrt()),
            })
            .collect();
    }
    Ok(lists)
}

/// Checks the shape and packs the rows that take part.
fn pack_rows(
    rows: &[f32],
    hidden: usize,
    metric: Metric,
    options: &BuildOptions<'_>,
) -> Result<(Packed, Score), BuildError> {
    let n = rows.len().checked_div(hidden).unwrap_or(0);
    if n == 0 || n * hidden != rows.len() || n > MAX_CODEBOOK as usize {
        return Err(BuildError::Shape { values: rows.len(), hidden });
    }
    let used = mask(options, n)?;
    let score = match metric {
        Metric::Cosine => Score::Cosine,
        Metric::Euclidean => Score::Euclidean,
        _ => return Err(BuildError::Unsupported),
    };
    Ok((Packed::new(rows, hidden, used, score)?, score))
}

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// The sum of all groups' members.
    pub entries: u64,
    /// Of the largest group.
    pub max_members: u32,
}

impl IndexBuilder {
    /// Groups from rows `[codebook, hidden]`: cosine or Euclidean; threshold, top-K or
    /// symmetrised top-K.
    pub fn from_rows(
        rows: &[f32],
        hidden: usize,
        metric: Metric,
        family: Family,
        options: &BuildOptions<'_>,
    ) -> Result<Self, BuildError> {
        let (packed, score) = pack_rows(rows, hidden, metric, options)?;
        let mut lists = vec![Vec::new(); rows.len() / hidden];
        match family {
            Family::Threshold { theta } => {
                let threshold = match score {
                    Score::Cosine => theta,
                    Score::Euclidean if theta > 0.0 => -theta * theta,
                    Score::Euclidean => f32::INFINITY,
                };
                let pairs =
                    pairs_above(&packed, threshold, options.threads, MAX_PAIRS, options.progress)?;
                for (a, b, score) in pairs {
                    lists[a as usize].push(Neighbour { id: b, score });
                    lists[b as usize].push(Neighbour { id: a, score });
                }
            }
            Family::TopK { k } | Family::TopKSymmetrised { k } => {
                for (t, list) in nearest(&packed, k as usize, options.threads, options.progress) {
                    lists[t as usize] = list;
                }
            }
            Family::Explicit => return Err(BuildError::Unsupported),
        }
        drop(packed);
        let similarity = |score: f32| match score_kind(metric) {
            Score::Cosine => score,
            Score::Euclidean => 1.0 / (1.0 + (-score).max(0.0).sqrt()),
        };
        let order = match &options.order {
            Order::Clustered => Some(super::order::clustered(rows, hidden)),
            Order::Given(order) => Some(order.clone()),
            Order::Ids => None,
        };
        Self::assemble(lists, family, metric, similarity, order, options)
    }

    /// Groups from the digits of an FSQ code: token `= sum_i digit_i * prod_(j<i) levels_j`.
    /// L1 or Hamming.
    pub fn from_fsq(
        levels: &[u8],
        metric: Metric,
        family: Family,
        options: &BuildOptions<'_>,
    ) -> Result<Self, BuildError> {
        let shape = BuildError::Shape { values: levels.len(), hidden: levels.len() };
        let n = levels
            .iter()
            .try_fold(1usize, |n, &l| n.checked_mul(l.into()))
            .filter(|n| (1..=MAX_CODEBOOK as usize).contains(n))
            .ok_or(shape)?;
        if !matches!(metric, Metric::FsqL1 | Metric::FsqHamming) {
            return Err(BuildError::Unsupported);
        }
        let used = mask(options, n)?;
        let most: u32 = match metric {
            Metric::FsqL1 => levels.iter().map(|&l| u32::from(l) - 1).sum(),
            _ => levels.len() as u32,
        };
        let others = n.saturating_sub(1);
        let mut lists = vec![Vec::new(); n];
        for (t, list) in lists.iter_mut().enumerate() {
            let t = t as u32;
            if !used(t) {
                continue;
            }
            let mut within = |radius: u32| {
                list.clear();
                fsq_ball(levels, t, metric == Metric::FsqL1, radius, &mut |id, distance| {
                    if id != t && used(id) {
                        list.push(Neighbour { id, score: -(distance as f32) });
                    }
                });
                list.len()
            };
            match family {
                Family::Threshold { theta } if theta >= 0.0 => {
                    within((theta as u32).min(most));
                }
                Family::Threshold { .. } => {}
                Family::TopK { k } | Family::TopKSymmetrised { k } => {
                    let k = (k as usize).min(others);
                    for radius in 0..=most {
                        if within(radius) >= k {
                            break;
                        }
                    }
                    list.sort_unstable_by(Neighbour::nearest_first);
                    list.truncate(k);
                }
                Family::Explicit => return Err(BuildError::Unsupported),
            }
            if t.is_multiple_of(4096) {
                (options.progress)(t as f32 / n as f32);
            }
        }
        let order = match &options.order {
            Order::Given(order) => Some(order.clone()),
            Order::Ids => None,
            Order::Clustered => return Err(BuildError::Unsupported),
        };
        Self::assemble(lists, family, metric, |score| 1.0 / (1.0 - score), order, options)
    }

    /// Groups as given: `lists[g]` the members of group `g` with similarities in `[0, 1]`.
    /// The seed is added, duplicates are dropped. Symmetric if they happen to be.
    pub fn from_lists(
        lists: &[Vec<(u32, f32)>],
        options: &BuildOptions<'_>,
    ) -> Result<Self, BuildError> {
        let n = lists.len();
        if n == 0 || n > MAX_CODEBOOK as usize {
            return Err(BuildError::Shape { values: n, hidden: 1 });
        }
        let used = mask(options, n)?;
        let mut all = vec![Vec::new(); n];
        for (g, list) in lists.iter().enumerate() {
            for &(token, score) in list {
                if token as usize >= n {
                    return Err(BuildError::TokenOutOfRange { group: g as u32, token });
                }
                if !score.is_finite() {
                    return Err(BuildError::NotFinite { token });
                }
                if token as usize != g && used(token) && used(g as u32) {
                    all[g].push(Neighbour { id: token, score });
                }
            }
        }
        let order = match &options.order {
            Order::Given(order) => Some(order.clone()),
            Order::Ids => None,
            Order::Clustered => return Err(BuildError::Unsupported),
        };
        Self::assemble(all, Family::Explicit, Metric::Given, |score| score, order, options)
    }

    fn assemble(
        mut lists: Vec<Vec<Neighbour>>,
        family: Family,
        metric: Metric,
        similarity: impl Fn(f32) -> f32,
        order: Option<Vec<u32>>,
        options: &BuildOptions<'_>,
    ) -> Result<Self, BuildError> {
        let n = lists.len();
        if options.power.is_some_and(|p| !(p > 0.0 && p.is_finite())) {
            return Err(BuildError::Power);
        }
        if matches!(family, Family::Threshold { theta } if !theta.is_finite()) {
            return Err(BuildError::Theta);
        }
        if let Some(order) = &order {
            let mut seen = vec![false; n];
            let fresh =
                |&t: &u32| seen.get_mut(t as usize).is_some_and(|s| !std::mem::replace(s, true));
            if order.len() != n || !order.iter().all(fresh) {
                return Err(BuildError::Order);
            }
        }
        for list in &mut lists {
            list.sort_unstable_by_key(|m| m.id);
            list.dedup_by_key(|m| m.id);
        }
        if let Family::TopKSymmetrised { .. } = family {
            let mut more: Vec<Vec<Neighbour>> = vec![Vec::new(); n];
            for (g, list) in lists.iter().enumerate() {
                for m in list {
                    more[m.id as usize].push(Neighbour { id: g as u32, score: m.score });
                }
            }
            for (list, more) in lists.iter_mut().zip(more) {
                list.extend(more);
                list.sort_unstable_by_key(|m| m.id);
                list.dedup_by_key(|m| m.id);
            }
        }
        let named_symmetric = family.is_symmetric();
        let contains = |lists: &[Vec<Neighbour>], g: usize, t: u32| {
            lists[g].binary_search_by_key(&t, |m| m.id).is_ok()
        };
        if let Some(cap) = options.cap {
            let keep = cap.max(1) as usize - 1;
            for list in lists.iter_mut().filter(|l| l.len() > keep) {
                list.sort_unstable_by(Neighbour::nearest_first);
                list.truncate(keep);
                list.sort_unstable_by_key(|m| m.id);
            }
            if named_symmetric {
                let cut = lists.clone();
                for (g, list) in lists.iter_mut().enumerate() {
                    list.retain(|m| contains(&cut, m.id as usize, g as u32));
                }
            }
        }
        let mut owners: Vec<Vec<Neighbour>> = vec![Vec::new(); n];
        if !named_symmetric {
            for (g, list) in lists.iter().enumerate() {
                for m in list {
                    owners[m.id as usize].push(Neighbour { id: g as u32, score: m.score });
                }
            }
        }
        let symmetric = named_symmetric || lists == owners;
        let quantise = |g: usize, list: Vec<Neighbour>| -> Vec<(u32, u8)> {
            let mut out: Vec<(u32, u8)> = list
                .into_iter()
                .map(|m| (m.id, (similarity(m.score) * 255.0).round().clamp(1.0, 255.0) as u8))
                .collect();
            let at = out.partition_point(|m| m.0 < g as u32);
            out.insert(at, (g as u32, 255));
            out
        };
        let finish = |lists: Vec<Vec<Neighbour>>| {
            lists.into_iter().enumerate().map(|(g, l)| quantise(g, l)).collect()
        };
        Ok(Self {
            codebook: n as u32,
            family,
            metric,
            symmetric,
            members: finish(lists),
            owners: if symmetric { Vec::new() } else { finish(owners) },
            power: options.power,
            cap: options.cap.unwrap_or(0),
            order,
            source: options.source,
            weights_sha256: options.weights_sha256,
        })
    }

    /// Tokens.
    pub fn codebook(&self) -> u32 {
        self.codebook
    }

    /// The members of a group, by ascending id.
    pub fn members(&self, group: u32) -> impl Iterator<Item = u32> + '_ {
        self.members[group as usize].iter().map(|m| m.0)
    }

    /// The sum of all groups' members.
    pub fn entries(&self) -> u64 {
        self.members.iter().map(|l| l.len() as u64).sum()
    }

    /// Writes the file. A [`BuildError`] arrives inside the `io::Error`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<Written> {
        let (bytes, written) = self.to_bytes().map_err(io::Error::other)?;
        out.write_all(&bytes)?;
        out.flush()?;
        Ok(written)
    }

    /// The file in memory.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Written), BuildError> {
        let n = self.codebook;
        let mut depth = 2;
        while 1u64 << (4 * depth) < u64::from(n) {
            depth += 1;
        }
        let ranks: Option<Vec<u32>> = self.order.as_ref().map(|order| {
            let mut ranks = vec![0; order.len()];
            order.iter().enumerate().for_each(|(rank, &t)| ranks[t as usize] = rank as u32);
            ranks
        });
        let rank = |t: u32| ranks.as_ref().map_or(t, |r| r[t as usize]);

        let mut frequencies = vec![vec![0u64; 1 << 16]; table_count(depth)];
        for lists in [&self.members, &self.owners] {
            for (g, list) in lists.iter().enumerate() {
                each_node(&relative(list, rank(g as u32), rank), depth, &mut |table, mask| {
                    frequencies[table][usize::from(mask)] += 1;
                });
            }
        }
        let codes: Vec<Code> = frequencies.iter().map(|f| Code::new(f)).collect();
        drop(frequencies);

        let mut sections: Vec<(Section, Vec<u8>)> = Vec::new();
        sections.push((Section::Tables, codes.iter().flat_map(Code::table).collect()));
        if let (Some(order), Some(ranks)) = (&self.order, &ranks) {
            sections.push((Section::Order, narrow(n, order.iter().copied())));
            sections.push((Section::Ranks, narrow(n, ranks.iter().copied())));
        }
        self.push_lists(
            &self.members,
            &[
                Section::Counts,
                Section::Offsets,
                Section::Stream,
                Section::Starts,
                Section::Similarities,
            ],
            (depth, &codes),
            &rank,
            &mut sections,
        )?;
        if let Some(power) = self.power {
            let owners = if self.symmetric { &self.members } else { &self.owners };
            // As the reader sums them: in the order of the tree, in f32.
            let norms = owners.iter().enumerate().flat_map(|(t, list)| {
                let mut sum = 0f32;
                for (_, s) in relative(list, rank(t as u32), rank) {
                    sum += libm::powf(f32::from(s) / 255.0, power);
                }
                sum.to_le_bytes()
            });
            sections.push((Section::Norms, norms.collect()));
        }
        if !self.symmetric {
            self.push_lists(
                &self.owners,
                &[
                    Section::OwnerCounts,
                    Section::OwnerOffsets,
                    Section::OwnerStream,
                    Section::OwnerStarts,
                    Section::OwnerSimilarities,
                ],
                (depth, &codes),
                &rank,
                &mut sections,
            )?;
        }
        let header = Header {
            codebook: n,
            family: self.family,
            metric: self.metric,
            source: self.source,
            symmetric: self.symmetric,
            power: self.power,
            cap: self.cap,
            max_members: self.members.iter().map(Vec::len).max().unwrap_or(0) as u32,
            entries: self.entries(),
            weights_sha256: self.weights_sha256,
            depth,
            code_bits: CODE_BITS,
            ordered: self.order.is_some(),
            sections: Default::default(),
        };
        let file = header.write(&sections);
        let Header { entries, max_members, .. } = header;
        let written = Written { bytes: file.len() as u64, entries, max_members };
        Ok((file, written))
    }

    fn push_lists(
        &self,
        lists: &[Vec<(u32, u8)>],
        names: &[Section; 5],
        (depth, codes): (usize, &[Code]),
        rank: &impl Fn(u32) -> u32,
        sections: &mut Vec<(Section, Vec<u8>)>,
    ) -> Result<(), BuildError> {
        let mut stream = BitWriter::default();
        let (mut offsets, mut starts, mut similarities) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0u64;
        for (g, list) in lists.iter().enumerate() {
            let offset = u32::try_from(stream.len()).map_err(|_| BuildError::TooLarge)?;
            offsets.extend(offset.to_le_bytes());
            let set = relative(list, rank(g as u32), rank);
            each_node(&set, depth, &mut |table, mask| codes[table].write(mask, &mut stream));
            if self.power.is_some() {
                let start = u32::try_from(before).map_err(|_| BuildError::TooLarge)?;
                starts.extend(start.to_le_bytes());
                similarities.extend(set.iter().map(|m| m.1));
            }
            before += list.len() as u64;
        }
        let counts = lists.iter().map(|l| l.len() as u32 - 1);
        sections.push((names[0], narrow(self.codebook, counts)));
        sections.push((names[1], offsets));
        sections.push((names[2], stream.finish()));
        if self.power.is_some() {
            sections.push((names[3], starts));
            sections.push((names[4], similarities));
        }
        Ok(())
    }
}

fn score_kind(metric: Metric) -> Score {
    if metric == Metric::Cosine { Score::Cosine } else { Score::Euclidean }
}

fn mask<'a>(
    options: &BuildOptions<'a>,
    n: usize,
) -> Result<impl Fn(u32) -> bool + use<'a>, BuildError> {
    let used = options.used;
    if let Some(used) = used
        && used.len() != n
    {
        return Err(BuildError::Mask { expected: n, found: used.len() });
    }
    Ok(move |t: u32| used.is_none_or(|u| u[t as usize]))
}

/// Every token within `radius` of `token`, itself included.
fn fsq_ball(levels: &[u8], token: u32, l1: bool, radius: u32, visit: &mut impl FnMut(u32, u32)) {
    fn digit(
        levels: &[u8],
        rest: u32,
        (base, scale): (u32, u32),
        l1: bool,
        (left, spent): (u32, u32),
        visit: &mut impl FnMut(u32, u32),
    ) {
        let Some((&level, levels)) = levels.split_first() else {
            return visit(base, spent);
        };
        let level = u32::from(level);
        let own = rest % level;
        for d in 0..level {
            let cost = if l1 { own.abs_diff(d) } else { u32::from(own != d) };
            if cost <= left {
                let at = (base + d * scale, scale * level);
                digit(levels, rest / level, at, l1, (left - cost, spent + cost), visit);
            }
        }
    }
    digit(levels, token, (0, 1), l1, (radius, 0), visit)
}

/// The set of a group relative to its seed, sorted: the order of the tree.
fn relative(list: &[(u32, u8)], seed: u32, rank: impl Fn(u32) -> u32) -> Vec<(u32, u8)> {
    let mut set: Vec<(u32, u8)> = list.iter().map(|&(t, s)| (rank(t) ^ seed, s)).collect();
    set.sort_unstable();
    set
}

/// Calls `visit(table, mask)` for the nodes of a tree in pre-order.
fn each_node(set: &[(u32, u8)], depth: usize, visit: &mut impl FnMut(usize, u16)) {
    fn node(
        set: &[(u32, u8)],
        level: usize,
        prefix: u32,
        contexts: usize,
        visit: &mut impl FnMut(usize, u16),
    ) {
        let child = |m: &(u32, u8)| m.0 >> (4 * level) & 15;
        let mask = set.iter().fold(0u16, |mask, m| mask | 1 << child(m));
        let differing = ((prefix | prefix >> 1) & 0x5555_5555).count_ones() as usize;
        visit(level * contexts + differing, mask);
        if level > 0 {
            for part in set.chunk_by(|a, b| child(a) == child(b)) {
                node(part, level - 1, prefix << 4 | child(&part[0]), contexts, visit);
            }
        }
    }
    node(set, depth - 1, 0, 2 * depth - 1, visit)
}

fn narrow(codebook: u32, values: impl Iterator<Item = u32>) -> Vec<u8> {
    let width = entry_width(codebook);
    values.flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect()
}

/// A prefix code for the masks of one context: the frequent ones, and an escape.
struct Code {
    /// `(symbol, length, bits)`, bits to be written lowest first; `None` is the escape.
    words: Vec<(Option<u16>, u32, u32)>,
    by_mask: Vec<u32>,
}

const ESCAPED: u32 = u32::MAX;

impl Code {
    fn new(frequencies: &[u64]) -> Self {
        let mut by_mask = vec![ESCAPED; 1 << 16];
        let total: u64 = frequencies.iter().sum();
        let mut symbols: Vec<(Option<u16>, u64)> = (0..=u16::MAX)
            .map(|m| (Some(m), frequencies[usize::from(m)]))
            .filter(|s| s.1 > 0)
            .collect();
        symbols.sort_by_key(|s| (std::cmp::Reverse(s.1), s.0));
        // A mask rarer than the longest code is cheaper escaped; leave a slot for it.
        let worth = symbols.iter().take_while(|s| s.1 << (CODE_BITS + 1) >= total).count();
        let kept = worth.min((1 << CODE_BITS) - 1);
        let rest: u64 = symbols[kept..].iter().map(|s| s.1).sum();
        symbols.truncate(kept);
        if rest > 0 {
            symbols.push((None, rest));
        }
        let lengths = code_lengths(&symbols.iter().map(|s| s.1).collect::<Vec<_>>());
        let mut order: Vec<usize> = (0..symbols.len()).collect();
        order.sort_by_key(|&i| (lengths[i], i));
        let (mut next, mut last) = (0u32, 0u32);
        let mut words = Vec::new();
        for i in order {
            let length = lengths[i];
            next <<= length - last;
            last = length;
            let bits = if length == 0 { 0 } else { next.reverse_bits() >> (32 - length) };
            if let Some(mask) = symbols[i].0 {
                by_mask[usize::from(mask)] = words.len() as u32;
            }
            words.push((symbols[i].0, length, bits));
            next += 1;
        }
        Self { words, by_mask }
    }

    fn write(&self, mask: u16, out: &mut BitWriter) {
        match self.by_mask[usize::from(mask)] {
            ESCAPED => {
                let escape = self.words.iter().find(|w| w.0.is_none());
                let (_, length, bits) = escape.expect("a rare mask has made room for the escape");
                out.push(*bits, *length);
                out.push(mask.into(), 16);
            }
            at => {
                let (_, length, bits) = self.words[at as usize];
                out.push(bits, length);
            }
        }
    }

    fn table(&self) -> Vec<u8> {
        let mut table = vec![0u8; 4 << CODE_BITS];
        for &(symbol, length, bits) in &self.words {
            let [low, high] = symbol.unwrap_or(0).to_le_bytes();
            let row = [low, high, length as u8, u8::from(symbol.is_none())];
            for upper in 0..1usize << (CODE_BITS - length) {
                let at = (upper << length | bits as usize) * 4;
                table[at..at + 4].copy_from_slice(&row);
            }
        }
        table
    }
}

/// Lengths of a prefix code of at most `CODE_BITS` bits; a lone symbol takes none.
fn code_lengths(weights: &[u64]) -> Vec<u32> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    let n = weights.len();
    if n < 2 {
        return vec![0; n];
    }
    // Huffman: merge the two lightest until one is left; ties by age, so it is stable.
    let mut heap: BinaryHeap<Reverse<(u64, usize)>> =
        weights.iter().enumerate().map(|(i, &w)| Reverse((w, i))).collect();
    let mut parent = vec![usize::MAX; 2 * n - 1];
    for new in n..2 * n - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if let Some(Reverse((w, i))) = heap.pop() {
                weight += w;
                parent[i] = new;
            }
        }
        heap.push(Reverse((weight, new)));
    }
    let mut depth = vec![0u32; 2 * n - 1];
    for i in (0..2 * n - 2).rev() {
        depth[i] = depth[parent[i]] + 1;
    }
    let mut lengths: Vec<u32> = depth[..n].iter().map(|d| (*d).min(CODE_BITS)).collect();
    // Clamping overfills the code space; lengthen the rarest codes that can be.
    let space = |lengths: &[u32]| lengths.iter().map(|l| 1u64 << (CODE_BITS - l)).sum::<u64>();
    let mut rarest: Vec<usize> = (0..n).collect();
    rarest.sort_by_key(|&i| (weights[i], Reverse(i)));
    while space(&lengths) > 1 << CODE_BITS {
        match rarest.iter().copied().filter(|&i| lengths[i] < CODE_BITS).max_by_key(|&i| lengths[i])
        {
            Some(i) => lengths[i] += 1,
            None => break,
        }
    }
    lengths
}
