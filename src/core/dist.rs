//! Probability rows, draws from them and the sampling transforms.
//!
//! A [`Row`] is `V` probabilities and the `ceil(V / SUM_BLOCK)` sums of their blocks. The
//! sums make a draw cheap: it walks the block sums, then one block, instead of all 65,537
//! tokens.
//!
//! The transforms run in the order top-k, top-p, min-p (temperature belongs on the
//! logits and comes before all of them), each on what the one before left over. None of
//! them sorts: the cut is found by histograms over the bits of the floats, whose order
//! is the order of non-negative floats. Ties at a cut are resolved for the lowest ids,
//! so exactly `k` tokens survive top-k.

use ::core::fmt;

/// Tokens in a block: `block_sums[i]` covers the tokens `SUM_BLOCK * i .. SUM_BLOCK * (i + 1)`.
pub const SUM_BLOCK: usize = 256;

const LANES: usize = 16;

/// How many block sums a row over `vocabulary` tokens has.
pub const fn block_count(vocabulary: usize) -> usize {
    vocabulary.div_ceil(SUM_BLOCK)
}

/// Why a row cannot be used.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum DistError {
    /// The row has no token at all.
    Empty,
    /// The number of block sums does not fit the number of tokens.
    BlockSums {
        /// `block_count(vocabulary)`.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A probability is NaN or infinite, or a row that is to be normalised sums to
    /// infinity.
    NotFinite,
    /// A probability is below zero.
    Negative,
    /// Nothing has any probability.
    ZeroMass,
    /// The probabilities do not sum to one (within 1e-3).
    NotNormalised {
        /// What they sum to.
        total: f32,
    },
}

impl fmt::Display for DistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a probability row is empty: give it one entry a token"),
            Self::BlockSums { expected, found } => write!(
                f,
                "a probability row needs {expected} block sums but has {found}: size them with block_count"
            ),
            Self::NotFinite => {
                f.write_str("a probability is NaN or infinite: check the model's logits")
            }
            Self::Negative => {
                f.write_str("a probability is negative: pass probabilities, not logits")
            }
            Self::ZeroMass => f.write_str(
                "no token has any probability: check the logits and the sampling transforms",
            ),
            Self::NotNormalised { total } => write!(
                f,
                "probabilities sum to {total}, not 1: call RowMut::normalise or transform first"
            ),
        }
    }
}

impl ::core::error::Error for DistError {}

/// The sum of one block in the order that this crate fixes: lane `j` of 16 adds the
/// tokens `j, j + 16, ...` in turn, then the upper half of the lanes is added to the
/// lower until one is left.
#[inline]
pub fn block_sum(block: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, p) in lanes.iter_mut().zip(chunk) {
            *lane += p;
        }
    }
    for (lane, p) in lanes.iter_mut().zip(tail) {
        *lane += p;
    }
    fold(lanes, |a, b| a + b)
}

#[inline]
fn fold(mut lanes: [f32; LANES], op: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = op(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// A probability row that is only read.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    probs: &'a [f32],
    block_sums: &'a [f32],
}

impl<'a> Row<'a> {
    /// `probs`: `[V]`, each at least 0, summing to 1. `block_sums`: `[block_count(V)]`, as
    /// [`RowMut::normalise`] or [`block_sum`] writes them. Only the lengths are checked.
    pub fn new(probs: &'a [f32], block_sums: &'a [f32]) -> Result<Self, DistError> {
        check_lengths(probs.len(), block_sums.len())?;
        Ok(Self { probs, block_sums })
    }

    /// The probabilities, `[V]`.
    pub fn probs(&self) -> &'a [f32] {
        self.probs
    }

    /// The block sums, `[block_count(V)]`.
    pub fn block_sums(&self) -> &'a [f32] {
        self.block_sums
    }

    /// `V`.
    pub fn vocabulary(&self) -> usize {
        self.probs.len()
    }

    /// The probability of `token`, or 0 outside the vocabulary.
    #[inline]
    pub fn prob(&self, token: u32) -> f32 {
        self.probs.get(token as usize).copied().unwrap_or(0.0)
    }

    /// The sum of the block sums, in order.
    pub fn total(&self) -> f64 {
        self.block_sums.iter().map(|&s| f64::from(s)).sum()
    }

    /// Fails unless the row sums to one within 1e-3 (by its block sums, so it is cheap).
    pub fn check_normalised(&self) -> Result<(), DistError> {
        let total = self.total();
        if !total.is_finite() {
            Err(DistError::NotFinite)
        } else if (total - 1.0).abs() <= 1e-3 {
            Ok(())
        } else if total == 0.0 {
            Err(DistError::ZeroMass)
        } else {
            Err(DistError::NotNormalised { total: total as f32 })
        }
    }

    /// The token at `u` of the cumulative distribution, `u` in `[0, 1)`.
    ///
    /// The row's own total stands for 1, so rounding loses nothing at the end. A token
    /// of probability 0 is never returned, also where the block sums and the tokens
    /// disagree by rounding: then the last possible token of the block is. With 24-bit
    /// uniforms a token's frequency is off by at most 2^-24. Cost: the block sums and
    /// one block.
    pub fn draw(&self, u: f32) -> Result<u32, DistError> {
        let total = self.total();
        if !total.is_finite() {
            return Err(DistError::NotFinite);
        }
        let target = f64::from(u) * total;
        let mut before = 0f64;
        let mut last = None;
        for (i, (block, &sum)) in self.probs.chunks(SUM_BLOCK).zip(self.block_sums).enumerate() {
            let after = before + f64::from(sum);
            if sum > 0.0 {
                if target < after {
                    if let Some(at) = draw_in(block, target - before) {
                        return Ok((i * SUM_BLOCK + at) as u32);
                    }
                } else {
                    last = Some(i);
                }
            }
            before = after;
        }
        // u so close to 1 that no block is left: the last token of the last block.
        last.and_then(|i| {
            let block = &self.probs[i * SUM_BLOCK..self.probs.len().min((i + 1) * SUM_BLOCK)];
            Some((i * SUM_BLOCK + draw_in(block, f64::INFINITY)?) as u32)
        })
        .ok_or(DistError::ZeroMass)
    }
}

/// The first token whose running sum exceeds `target`, else the last one above 0.
fn draw_in(block: &[f32], target: f64) -> Option<usize> {
    let mut sum = 0f64;
    let mut last = None;
    for (i, &p) in block.iter().enumerate() {
        if p > 0.0 {
            sum += f64::from(p);
            last = Some(i);
            if target < sum {
                break;
            }
        }
    }
    last
}

fn check_lengths(vocabulary: usize, block_sums: usize) -> Result<(), DistError> {
    if vocabulary == 0 {
        return Err(DistError::Empty);
    }
    let expected = block_count(vocabulary);
    if expected != block_sums {
        return Err(DistError::BlockSums { expected, found: block_sums });
    }
    Ok(())
}

/// Which tokens may be sampled. The default keeps all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingTransforms {
    /// Keep the `top_k` most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Of those, keep the smallest set of most probable tokens that holds at least this
    /// share of their mass; 1 (or more) keeps all. At least one token is kept.
    pub top_p: f32,
    /// Of those, keep the tokens with at least this share of the largest probability;
    /// 0 keeps all.
    pub min_p: f32,
}

impl Default for SamplingTransforms {
    fn default() -> Self {
        Self { top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

const BINS: usize = 2048;

/// The histograms of one selection (24 KiB); make one a session and reuse it.
#[derive(Clone, Debug)]
pub struct TransformScratch {
    counts: [u32; BINS],
    masses: [f64; BINS],
}

impl TransformScratch {
    /// Empty scratch.
    pub const fn new() -> Self {
        Self { counts: [0; BINS], masses: [0.0; BINS] }
    }
}

impl Default for TransformScratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a selection stops: every token above `bits` stays, and of those equal to it
/// the first `ties` (of `equal` there are).
struct Cut {
    bits: u32,
    ties: u32,
    equal: u32,
}

enum Goal {
    Count(u32),
    Mass(f64),
}

/// A probability row being made. `normalise` and `transform` leave it summing to one
/// with its block sums rebuilt; until then the block sums mean nothing.
#[derive(Debug)]
pub struct RowMut<'a> {
    probs: &'a mut [f32],
    block_sums: &'a mut [f32],
}

impl<'a> RowMut<'a> {
    /// `probs`: `[V]`, at least 0 and of any positive sum (a softmax need not divide).
    /// `block_sums`: `[block_count(V)]`, overwritten.
    pub fn new(probs: &'a mut [f32], block_sums: &'a mut [f32]) -> Result<Self, DistError> {
        check_lengths(probs.len(), block_sums.len())?;
        Ok(Self { probs, block_sums })
    }

    /// The row as it stands.
    pub fn as_row(&self) -> Row<'_> {
        Row { probs: self.probs, block_sums: self.block_sums }
    }

    /// Ends the mutable use and keeps the row for reading.
    pub fn into_row(self) -> Row<'a> {
        Row { probs: self.probs, block_sums: self.block_sums }
    }

    /// Divides by the sum and rebuilds the block sums.
    pub fn normalise(&mut self) -> Result<(), DistError> {
        let (total, _) = self.survey()?;
        self.finish(total);
        Ok(())
    }

    /// Applies the transforms in their order, then normalises. On an error the row is
    /// left in an unspecified state.
    pub fn transform(
        &mut self,
        transforms: &SamplingTransforms,
        scratch: &mut TransformScratch,
    ) -> Result<(), DistError> {
        let SamplingTransforms { top_k, top_p, min_p } = *transforms;
        if top_p.is_nan() || min_p.is_nan() {
            return Err(DistError::NotFinite);
        }
        let (mut total, max) = self.survey()?;
        let mut cut_made = false;
        if top_k != 0 && (top_k as usize) < self.probs.len() {
            let floor = self.kth_block_max(top_k, scratch);
            if let Some(cut) = self.select(Goal::Count(top_k), floor, scratch) {
                self.cut(&cut);
                cut_made = true;
            }
        }
        if top_p < 1.0 {
            if cut_made {
                total = self.masses();
            }
            // Tokens below this bound hold less than 1 - top_p of the mass together, so
            // none of them can be needed to reach top_p.
            let top_p = f64::from(top_p.max(0.0));
            let bound = (1.0 - top_p) * total / self.probs.len() as f64 * 0.999;
            if let Some(cut) = self.select(Goal::Mass(top_p * total), bound as f32, scratch) {
                self.cut(&cut);
                cut_made = true;
            }
        }
        if min_p > 0.0 {
            // At most the maximum itself: min_p above 1 keeps the best tokens.
            let floor = (min_p * max).min(max);
            for p in self.probs.iter_mut() {
                *p = if *p < floor { 0.0 } else { *p };
            }
            cut_made = true;
        }
        if cut_made {
            total = self.masses();
        }
        self.finish(total);
        Ok(())
    }

    /// Total and maximum; block maxima go to `block_sums`. Refuses what is no row.
    fn survey(&mut self) -> Result<(f64, f32), DistError> {
        let mut total = 0f64;
        let mut max = 0f32;
        let mut negative = false;
        for (block, out) in self.probs.chunks(SUM_BLOCK).zip(self.block_sums.iter_mut()) {
            let (sum, high, low) = block_survey(block);
            negative |= low < 0.0;
            total += f64::from(sum);
            *out = high;
            max = if high > max { high } else { max };
        }
        // A NaN or an infinity anywhere is in the total as well.
        if !total.is_finite() {
            Err(DistError::NotFinite)
        } else if negative {
            Err(DistError::Negative)
        } else if total <= 0.0 {
            Err(DistError::ZeroMass)
        } else {
            Ok((total, max))
        }
    }

    fn masses(&self) -> f64 {
        self.probs.chunks(SUM_BLOCK).map(|b| f64::from(block_sum(b))).sum()
    }

    fn finish(&mut self, total: f64) {
        // 1 / total can overflow for subnormal rows; a division cannot exceed 1.
        let scale = (1.0 / total) as f32;
        let multiply = scale.is_finite() && scale > f32::MIN_POSITIVE;
        for (block, sum) in self.probs.chunks_mut(SUM_BLOCK).zip(self.block_sums.iter_mut()) {
            if multiply {
                block.iter_mut().for_each(|p| *p *= scale);
            } else {
                block.iter_mut().for_each(|p| *p = (f64::from(*p) / total) as f32);
            }
            *sum = block_sum(block);
        }
    }

    /// A lower bound of the k-th largest probability: the k-th largest block maximum,
    /// if there are so many blocks. (Each of those blocks has a token that large.)
    fn kth_block_max(&self, k: u32, scratch: &mut TransformScratch) -> f32 {
        if (k as usize) > self.block_sums.len() {
            return 0.0;
        }
        scratch.counts.fill(0);
        for max in self.block_sums.iter() {
            scratch.counts[(max.to_bits() >> 20) as usize & (BINS - 1)] += 1;
        }
        let mut seen = 0;
        for bin in (0..BINS).rev() {
            seen += scratch.counts[bin];
            if seen >= k {
                return f32::from_bits((bin as u32) << 20);
            }
        }
        0.0
    }

    /// Finds the cut that keeps the goal's count or mass of the largest tokens, looking
    /// only at tokens of at least `floor`, which the caller knows to be enough. `None`:
    /// everything stays. Needs the block maxima in `block_sums`.
    fn select(&self, goal: Goal, floor: f32, scratch: &mut TransformScratch) -> Option<Cut> {
        // Three digits of the 31 bits of a non-negative float, the highest first.
        const DIGITS: [(u32, u32); 3] = [(20, 11), (9, 11), (0, 9)];
        let floor_bits = floor.max(f32::from_bits(1)).to_bits();
        let (mut count_left, mut mass_left) = match goal {
            Goal::Count(k) => (k, f64::INFINITY),
            Goal::Mass(m) => (u32::MAX, m),
        };
        let mut low = floor_bits; // The tokens that the current digit splits are in
        let mut high = f32::INFINITY.to_bits(); // low ..= high.
        let mut prefix = 0u32;
        for (shift, width) in DIGITS {
            let bins = 1usize << width;
            scratch.counts[..bins].fill(0);
            scratch.masses[..bins].fill(0.0);
            for (block, max) in self.probs.chunks(SUM_BLOCK).zip(self.block_sums.iter()) {
                if max.to_bits() < low {
                    continue;
                }
                for part in block.chunks(LANES) {
                    // One comparison for 16 tokens: most of them are far below.
                    let any = part.iter().fold(false, |any, p| any | (p.to_bits() >= low));
                    if !any {
                        continue;
                    }
                    for p in part {
                        let bits = p.to_bits();
                        if bits >= low && bits <= high {
                            let bin = (bits >> shift) as usize & (bins - 1);
                            scratch.counts[bin] += 1;
                            scratch.masses[bin] += f64::from(*p);
                        }
                    }
                }
            }
            let mut found = None;
            for bin in (0..bins).rev() {
                let (n, mass) = (scratch.counts[bin], scratch.masses[bin]);
                if n == 0 {
                    continue;
                }
                if n >= count_left || mass >= mass_left {
                    found = Some(bin);
                    break;
                }
                count_left -= n;
                mass_left -= mass;
            }
            let bin = match found {
                Some(bin) => bin,
                // Not even all of them reach the goal. For a whole row that means that
                // everything stays; inside a bin it is rounding of the mass, and the
                // lowest token of the bin is the last one needed.
                None if shift == 20 => return None,
                None => (0..bins).find(|&b| scratch.counts[b] > 0)?,
            };
            prefix |= (bin as u32) << shift;
            low = prefix.max(floor_bits);
            high = prefix | ((1u32 << shift) - 1);
            if shift == 0 {
                let equal = scratch.counts[bin];
                let value = f64::from(f32::from_bits(prefix));
                // At least one: the goal was not reached before this bin.
                let by_mass = libm::ceil(mass_left / value).max(1.0);
                let ties = equal.min(count_left).min(by_mass.min(f64::from(u32::MAX)) as u32);
                return Some(Cut { bits: prefix, ties: ties.max(1), equal });
            }
        }
        None
    }

    /// Zeroes what lies below the cut. Keeps the block maxima valid as upper bounds.
    fn cut(&mut self, cut: &Cut) {
        let floor = f32::from_bits(cut.bits);
        for p in self.probs.iter_mut() {
            *p = if *p < floor { 0.0 } else { *p };
        }
        if cut.ties < cut.equal {
            let mut kept = 0;
            for p in self.probs.iter_mut().filter(|p| p.to_bits() == cut.bits) {
                if kept == cut.ties {
                    *p = 0.0;
                } else {
                    kept += 1;
                }
            }
        }
    }
}

#[inline]
fn block_survey(block: &[f32]) -> (f32, f32, f32) {
    let mut sums = [0f32; LANES];
    let mut highs = [0f32; LANES];
    let mut lows = [0f32; LANES];
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let p = chunk[i];
            sums[i] += p;
            highs[i] = if p > highs[i] { p } else { highs[i] };
            lows[i] = if p < lows[i] { p } else { lows[i] };
        }
    }
    for (i, &p) in tail.iter().enumerate() {
        sums[i] += p;
        highs[i] = if p > highs[i] { p } else { highs[i] };
        lows[i] = if p < lows[i] { p } else { lows[i] };
    }
    let max = |a: f32, b: f32| if b > a { b } else { a };
    let min = |a: f32, b: f32| if b < a { b } else { a };
    (fold(sums, |a, b| a + b), fold(highs, max), fold(lows, min))
}
