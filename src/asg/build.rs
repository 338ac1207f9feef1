//! Building an index: neighbours, weights, an order that compresses, the file.
//!
//! Ties and odd rows. A threshold is strict (`cos > theta`, `distance < theta`), except
//! for FSQ distances, which are whole numbers and taken `<= theta`. Equal scores are
//! ranked by lowest id. A row of length zero has no direction, so under cosine it is a
//! singleton, and so is every token that the mask excludes; a NaN or infinite row is an
//! error. The output depends on the input alone, not on the number of threads.

mod code;
mod write;

use super::error::BuildError;
use super::format::{Family, MAX_CODEBOOK, Metric, RowSource};
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
#[non_exhaustive]
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
