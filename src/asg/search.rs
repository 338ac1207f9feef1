//! Neighbour search over rows: who is in whose group, and how similar.
//!
//! Exhaustive and exact, because a group index is built once a model: every pair of rows
//! is compared, in tiles, on as many threads as are given. The result does not depend on
//! tiles or threads: a pair's inner product is one f32 sum over the columns in order,
//! without fused multiplication, so it is the same wherever it is computed and the same
//! for `(a, b)` and `(b, a)`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::BuildError;

/// Rows and columns of the register block: 4 x 8 sums are eight 128-bit registers.
const MR: usize = 4;
const NR: usize = 8;
/// Rows of a tile. Packed, 256 x 512 f32 are 512 KiB: a tile stays in L2.
const TILE: usize = 256;
/// `[row of a][row of b]` of two tiles.
type Scores = [[f32; TILE]; TILE];

/// A neighbour and its score; higher is nearer (cosine, or minus the squared distance).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbour {
    pub id: u32,
    pub score: f32,
}

impl Neighbour {
    /// Nearest first, ties by lowest id.
    pub(super) fn nearest_first(&self, other: &Self) -> std::cmp::Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

/// How scores follow from inner products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Score {
    /// Rows scaled to length one: the product itself.
    Cosine,
    /// `-(|a|^2 + |b|^2 - 2 a.b)`, at most 0.
    Euclidean,
}

/// Rows packed for the kernel; only the tokens in `ids` take part.
pub(super) struct Packed {
    /// Row `i` is token `ids[i]`.
    ids: Vec<u32>,
    /// `[panels of NR rows][hidden][NR]`, padded with zeros to a multiple of `TILE` rows.
    panels: Vec<f32>,
    /// `|row|^2`, summed like a product.
    norms: Vec<f32>,
    hidden: usize,
    score: Score,
}

impl Packed {
    /// `rows`: `[V, hidden]`. Leaves out masked tokens, and for cosine rows of length 0.
    pub(super) fn new(
        rows: &[f32],
        hidden: usize,
        keep: impl Fn(u32) -> bool,
        score: Score,
    ) -> Result<Self, BuildError> {
        let mut ids = Vec::new();
        let mut scales = Vec::new();
        for (t, row) in rows.chunks_exact(hidden).enumerate() {
            let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            if !square.is_finite() {
                return Err(BuildError::NotFinite { token: t as u32 });
            }
            if !keep(t as u32) || (score == Score::Cosine && square == 0.0) {
                continue;
            }
            ids.push(t as u32);
            scales.push(if score == Score::Cosine { 1.0 / square.sqrt() } else { 1.0 });
        }
        let padded = ids.len().next_multiple_of(TILE);
        let mut panels = vec![0f32; padded * hidden];
        let mut norms = vec![0f32; padded];
        for (i, (&t, &scale)) in ids.iter().zip(&scales).enumerate() {
            let row = &rows[t as usize * hidden..][..hidden];
            let panel = &mut panels[i / NR * NR * hidden..][..NR * hidden];
            for (k, &x) in row.iter().enumerate() {
                let x = (f64::from(x) * scale) as f32;
                panel[k * NR + i % NR] = x;
                norms[i] += x * x;
            }
        }
        Ok(Self { ids, panels, norms, hidden, score })
    }

    fn tiles(&self) -> usize {
        self.norms.len() / TILE
    }

    fn panel(&self, i: usize) -> &[[f32; NR]] {
        self.panels[i * NR * self.hidden..(i + 1) * NR * self.hidden].as_chunks().0
    }

    /// Scores of tile `a` against tile `b`, into `out[row of a][row of b]`.
    fn tile(&self, a: usize, b: usize, out: &mut Scores) {
        const PANELS: usize = TILE / NR;
        for j in 0..PANELS {
            let right = self.panel(b * PANELS + j);
            for i in 0..PANELS {
                let left = self.panel(a * PANELS + i);
                for half in 0..NR / MR {
                    let sums = kernel(left, right, half * MR);
                    for (r, row) in sums.iter().enumerate() {
                        let y = i * NR + half * MR + r;
                        out[y][j * NR..(j + 1) * NR].copy_from_slice(row);
                    }
                }
            }
        }
        if self.score == Score::Euclidean {
            for (y, row) in out.iter_mut().enumerate() {
                let na = self.norms[a * TILE + y];
                for (x, s) in row.iter_mut().enumerate() {
                    let d = na + self.norms[b * TILE + x] - 2.0 * *s;
                    *s = -(if d > 0.0 { d } else { 0.0 });
                }
            }
        }
    }
}

/// `sums[r][c] = sum_k left[k][from + r] * right[k][c]`, each in the order of `k`.
#[inline]
fn kernel(left: &[[f32; NR]], right: &[[f32; NR]], from: usize) -> [[f32; NR]; MR] {
    let mut sums = [[0f32; NR]; MR];
    if from == 0 {
        kernel_half::<0>(left, right, &mut sums)
    } else {
        kernel_half::<MR>(left, right, &mut sums)
    }
    sums
}

#[inline]
fn kernel_half<const FROM: usize>(
    left: &[[f32; NR]],
    right: &[[f32; NR]],
    sums: &mut [[f32; NR]; MR],
) {
    let mut acc = [[0f32; NR]; MR];
    for (l, r) in left.iter().zip(right) {
        for i in 0..MR {
            for j in 0..NR {
                acc[i][j] += l[FROM + i] * r[j];
            }
        }
    }
    *sums = acc;
}

type Progress<'a> = &'a (dyn Fn(f32) + Sync);

/// What one thread of [`for_each_row_tile`] compares with.
struct Comparison<'a> {
    rows: &'a Packed,
    scores: Vec<[f32; TILE]>,
    /// Pairs of tiles compared by all threads, and how many there are.
    done: &'a AtomicUsize,
    pairs: usize,
    progress: Progress<'a>,
}

impl Comparison<'_> {
    fn scores(&mut self, a: usize, b: usize) -> &Scores {
        let scores: &mut Scores = self.scores.as_mut_slice().try_into().expect("TILE rows");
        self.rows.tile(a, b, scores);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(64) || done == self.pairs {
            (self.progress)(done as f32 / self.pairs as f32);
        }
        scores
    }
}

/// Gives every tile of rows to `search` on one of `threads` threads, and what it found back in
/// the order of the tiles. `pairs`: how many pairs of tiles it compares in all. A thread that
/// gets `None` takes no further tile.
fn for_each_row_tile<T: Send>(
    rows: &Packed,
    pairs: usize,
    threads: usize,
    progress: Progress<'_>,
    search: impl Fn(usize, &mut Comparison<'_>) -> Option<T> + Sync,
) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let scores = vec![[0f32; TILE]; TILE];
                let mut with = Comparison { rows, scores, done: &done, pairs, progress };
                loop {
                    let a = next.fetch_add(1, Ordering::Relaxed);
                    if a >= rows.tiles() {
                        return;
                    }
                    let Some(here) = search(a, &mut with) else { return };
                    found.lock().expect("no thread panics").push((a, here));
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no thread panics");
    found.sort_unstable_by_key(|(a, _)| *a);
    found.into_iter().map(|(_, here)| here).collect()
}

/// All pairs of distinct tokens whose score exceeds `threshold`, each pair once, as
/// `(a, b, score)` with `a < b`, sorted. Stops with an error at more than `max_pairs`.
pub(super) fn pairs_above(
    rows: &Packed,
    threshold: f32,
    threads: usize,
    max_pairs: usize,
    progress: Progress<'_>,
) -> Result<Vec<(u32, u32, f32)>, BuildError> {
    let tiles = rows.tiles();
    let found_pairs = AtomicUsize::new(0);
    let found = for_each_row_tile(rows, tiles * (tiles + 1) / 2, threads, progress, |a, with| {
        if found_pairs.load(Ordering::Relaxed) > max_pairs {
            return None;
        }
        let mut mine = Vec::new();
        for b in a..tiles {
            for (y, row) in with.scores(a, b).iter().enumerate() {
                let y = a * TILE + y;
                // One look at 16 scores: most tiles hold few neighbours.
                for (c, chunk) in row.as_chunks::<16>().0.iter().enumerate() {
                    if !chunk.iter().fold(false, |any, s| any | (*s > threshold)) {
                        continue;
                    }
                    for (i, &s) in chunk.iter().enumerate() {
                        let x = b * TILE + c * 16 + i;
                        if s > threshold && x > y && x < rows.ids.len() {
                            mine.push((rows.ids[y], rows.ids[x], s));
                        }
                    }
                }
            }
        }
        found_pairs.fetch_add(mine.len(), Ordering::Relaxed);
        Some(mine)
    });
    if found_pairs.into_inner() > max_pairs {
        return Err(BuildError::TooManyPairs { limit: max_pairs });
    }
    let mut all: Vec<(u32, u32, f32)> = found.into_iter().flatten().collect();
    all.sort_unstable_by_key(|&(a, b, _)| (a, b));
    Ok(all)
}

/// The `k` nearest other tokens of every token, nearest first, ties by lowest id.
pub(super) fn nearest(
    rows: &Packed,
    k: usize,
    threads: usize,
    progress: Progress<'_>,
) -> Vec<(u32, Vec<Neighbour>)> {
    if k == 0 {
        return Vec::new();
    }
    let tiles = rows.tiles();
    let found = for_each_row_tile(rows, tiles * tiles, threads, progress, |a, with| {
        let mut best: Vec<Vec<Neighbour>> = vec![Vec::new(); TILE];
        let mut floor = [f32::NEG_INFINITY; TILE];
        for b in 0..tiles {
            for (y, row) in with.scores(a, b).iter().enumerate() {
                let list = &mut best[y];
                for (x, &score) in row.iter().enumerate() {
                    let x = b * TILE + x;
                    let itself = x == a * TILE + y;
                    if score < floor[y] || itself || x >= rows.ids.len() {
                        continue;
                    }
                    list.push(Neighbour { id: rows.ids[x], score });
                    if list.len() >= 2 * k + 64 {
                        shrink(list, k);
                        floor[y] = list[k - 1].score;
                    }
                }
            }
        }
        let mut finished = Vec::new();
        for (y, mut list) in best.into_iter().enumerate() {
            if let Some(&id) = rows.ids.get(a * TILE + y) {
                list.sort_unstable_by(Neighbour::nearest_first);
                list.truncate(k);
                finished.push((id, list));
            }
        }
        Some(finished)
    });
    // Rows are packed by ascending id.
    found.into_iter().flatten().collect()
}

fn shrink(list: &mut Vec<Neighbour>, k: usize) {
    list.select_nth_unstable_by(k - 1, Neighbour::nearest_first);
    list.truncate(k);
}
