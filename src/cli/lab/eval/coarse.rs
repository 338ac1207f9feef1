//! Exact acceptance at many positions at once: sums over every group of a whole codebook.

use super::lists::Lists;
use super::walk::Law;

/// Positions that are summed together: the members of a group are read once for all of them.
pub const WIDE: usize = 8;

/// Eight positions side by side, `[p of each, q of each]` a token.
type Both = [f32; 2 * WIDE];

/// Laws of up to [`WIDE`] positions.
pub struct Batch {
    /// Sentence and depth of each.
    pub origin: Vec<(usize, usize)>,
    both: Vec<Both>,
}

impl Batch {
    pub fn new(vocabulary: usize) -> Self {
        Self { origin: Vec::new(), both: vec![[0.0; 2 * WIDE]; vocabulary] }
    }

    pub fn push(&mut self, sentence: usize, depth: usize, target: &Law, draft: &Law) {
        let at = self.origin.len();
        for ((both, p), q) in self.both.iter_mut().zip(&target.probs).zip(&draft.probs) {
            both[at] = *p;
            both[WIDE + at] = *q;
        }
        self.origin.push((sentence, depth));
    }

    pub fn is_full(&self) -> bool {
        self.origin.len() == WIDE
    }

    pub fn clear(&mut self) {
        self.origin.clear();
        self.both.iter_mut().for_each(|b| *b = [0.0; 2 * WIDE]);
    }

    /// Acceptance by token, `sum_t min(q, p + beta q)`; `beta` 0 is plain.
    pub fn by_token(&self, beta: f32) -> [f64; WIDE] {
        let mut sums = [0f64; WIDE];
        for both in &self.both {
            for i in 0..WIDE {
                let (p, q) = (both[i], both[WIDE + i]);
                sums[i] += f64::from(q.min(p + beta * q));
            }
        }
        sums
    }

    /// Acceptance with tolerance `beta`, and how far the emitted token's law is from `p`: what
    /// is accepted, and for the rest a draw from `(p - q)+`, normalised.
    pub fn by_tolerance(&self, beta: f32) -> ([f64; WIDE], [f64; WIDE]) {
        let accepted = self.by_token(beta);
        let token = self.by_token(0.0);
        let mut shift = [0f64; WIDE];
        for both in &self.both {
            for i in 0..WIDE {
                let (p, q) = (f64::from(both[i]), f64::from(both[WIDE + i]));
                let missing = (1.0 - token[i]).max(f64::MIN_POSITIVE);
                let drawn = (1.0 - accepted[i]) * (p - q).max(0.0) / missing;
                let emitted = q.min(p + f64::from(beta) * q) + drawn;
                shift[i] += 0.5 * (emitted - p).abs();
            }
        }
        (accepted, shift)
    }

    /// `sum_g min(P(g), Q(g))`.
    pub fn by_group(&self, lists: &Lists, threads: usize) -> [f64; WIDE] {
        let n = lists.len();
        let coarse = self.coarse(lists, threads);
        let mut sums = parallel(n, threads, |g| {
            std::array::from_fn(|i| coarse[g][i].min(coarse[g][WIDE + i]))
        });
        self.alone(n, &mut sums);
        sums
    }

    /// The same, and how far the law of the emitted token is from the target's in total
    /// variation: with `A = min(1, P/Q)` and `B = max(0, P - Q)/P` of each group, the token
    /// follows `m(x) = sum_g w(g|x) (q(x) A(g) + p(x) B(g))`. Equal split over symmetric
    /// lists only.
    pub fn by_group_with_shift(&self, lists: &Lists, threads: usize) -> ([f64; WIDE], [f64; WIDE]) {
        let n = lists.len();
        let mut coarse = self.coarse(lists, threads);
        let mut sums = parallel(n, threads, |g| {
            std::array::from_fn(|i| coarse[g][i].min(coarse[g][WIDE + i]))
        });
        self.alone(n, &mut sums);
        for c in &mut coarse {
            for i in 0..WIDE {
                let (p, q) = (c[i], c[WIDE + i]);
                c[i] = if q > p { p / q } else { 1.0 };
                c[WIDE + i] = if p > q { (p - q) / p } else { 0.0 };
            }
        }
        let shift = parallel(n, threads, |x| {
            let mut acc = [0f32; 2 * WIDE];
            for &g in lists.members(x) {
                let row = &coarse[g as usize];
                for i in 0..2 * WIDE {
                    acc[i] += row[i];
                }
            }
            let (both, share) = (&self.both[x], lists.shares[x]);
            std::array::from_fn(|i| {
                let (p, q) = (both[i], both[WIDE + i]);
                (share * (q * acc[i] + p * acc[WIDE + i]) - p).abs()
            })
        });
        (sums, shift.map(|x| 0.5 * x))
    }

    /// `[P of each, Q of each]` of every group.
    fn coarse(&self, lists: &Lists, threads: usize) -> Vec<Both> {
        let n = lists.len();
        let scaled: Vec<Both> = self.both[..n]
            .iter()
            .zip(&lists.shares)
            .map(|(both, &share)| both.map(|x| x * share))
            .collect();
        map(n, threads, |g| {
            let mut acc = [0f32; 2 * WIDE];
            match lists.weights(g) {
                None => {
                    for &t in lists.members(g) {
                        let row = &scaled[t as usize];
                        for i in 0..2 * WIDE {
                            acc[i] += row[i];
                        }
                    }
                }
                Some(weights) => {
                    for (&t, &w) in lists.members(g).iter().zip(weights) {
                        let row = &self.both[t as usize];
                        for i in 0..2 * WIDE {
                            acc[i] += w * row[i];
                        }
                    }
                }
            }
            acc
        })
    }

    /// What the tokens beyond the codebook add, each of them a group.
    fn alone(&self, codebook: usize, sums: &mut [f64; WIDE]) {
        for both in &self.both[codebook..] {
            for i in 0..WIDE {
                sums[i] += f64::from(both[i].min(both[WIDE + i]));
            }
        }
    }

    /// Acceptance of the rule that passes what the draft has too much of, `s = (q - p)+`, on
    /// to neighbours that lack it, `r = (p - q)+`: `1 - TV + sum_xy f(x, y)` with
    /// `f(x, y) = s(x) r(y) / max(R(x), S(y))`, `R(x)` and `S(y)` the sums of `r` and `s` over
    /// neighbours. Symmetric lists only.
    pub fn by_transport(&self, lists: &Lists, threads: usize) -> [f64; WIDE] {
        let n = lists.len();
        let excess = |both: &Both| -> Both {
            std::array::from_fn(|i| {
                let (p, q) = (both[i % WIDE], both[i % WIDE + WIDE]);
                if i < WIDE { (q - p).max(0.0) } else { (p - q).max(0.0) }
            })
        };
        let own: Vec<Both> = self.both[..n].iter().map(excess).collect();
        // [S, R] of each token.
        let near: Vec<Both> = map(n, threads, |x| {
            let mut acc = [0f32; 2 * WIDE];
            for &y in lists.members(x) {
                let row = &own[y as usize];
                for i in 0..2 * WIDE {
                    acc[i] += row[i];
                }
            }
            acc
        });
        // r(y) / max(R(x), S(y)) is the smaller of two quotients, one of them y's alone.
        let takes: Vec<Both> = map(n, threads, |y| {
            std::array::from_fn(|i| {
                let (s, r) = (near[y][i % WIDE], own[y][i % WIDE + WIDE]);
                if i < WIDE || s <= 0.0 { r } else { r / s }
            })
        });
        let mut sums = parallel(n, threads, |x| {
            let mut flow = [0f32; WIDE];
            if own[x][..WIDE].iter().any(|&s| s > 0.0) {
                let sends: [f32; WIDE] = std::array::from_fn(|i| {
                    let r = near[x][WIDE + i];
                    if r > 0.0 { 1.0 / r } else { 0.0 }
                });
                for &y in lists.members(x) {
                    let row = &takes[y as usize];
                    for i in 0..WIDE {
                        flow[i] += (row[i] * sends[i]).min(row[WIDE + i]);
                    }
                }
            }
            std::array::from_fn(|i| flow[i] * own[x][i])
        });
        let stayed = self.by_token(0.0);
        for i in 0..WIDE {
            sums[i] += stayed[i];
        }
        sums
    }
}

/// Sums of `f` over `0..n`, in f64 by blocks, whatever the threads.
fn parallel(n: usize, threads: usize, f: impl Fn(usize) -> [f32; WIDE] + Sync) -> [f64; WIDE] {
    const PART: usize = 1024;
    let parts = map(n.div_ceil(PART), threads, |part| {
        let mut sums = [0f64; WIDE];
        for x in part * PART..n.min((part + 1) * PART) {
            let values = f(x);
            for i in 0..WIDE {
                sums[i] += f64::from(values[i]);
            }
        }
        sums
    });
    parts.iter().fold([0.0; WIDE], |mut all, part| {
        for i in 0..WIDE {
            all[i] += part[i];
        }
        all
    })
}

/// `f` of `0..n`, in order, on some threads.
pub fn map<T: Send>(n: usize, threads: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = threads.clamp(1, n.max(1));
    // Interleaved in runs, since neighbouring groups cost alike.
    let size = n.div_ceil(threads * 8).max(1);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut parts: Vec<(usize, Vec<T>)> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) * size;
                if at >= n {
                    return mine;
                }
                mine.push((at, (at..n.min(at + size)).map(&f).collect()));
            }
        };
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for thread in others {
            match thread.join() {
                Ok(part) => all.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    parts.sort_unstable_by_key(|p| p.0);
    parts.into_iter().flat_map(|p| p.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxgrain::core::rng::{SeededRng, Uniform};

    #[test]
    fn sums_are_those_of_brute_force() {
        let n = 40usize;
        let mut rng = SeededRng::new(4);
        let mut near = vec![vec![false; n]; n];
        for a in 0..n {
            for b in 0..=a {
                let is = a == b || rng.uniform() < 0.1;
                (near[a][b], near[b][a]) = (is, is);
            }
        }
        let members: Vec<Vec<u32>> =
            near.iter().map(|row| (0..n as u32).filter(|&t| row[t as usize]).collect()).collect();
        let lists = Lists::from_members(&members);
        assert!(lists.symmetric && lists.len() == n);
        let mut batch = Batch::new(n + 1);
        let mut laws = Vec::new();
        for i in 0..5 {
            let mut law = || {
                let raw: Vec<f32> = (0..=n).map(|_| rng.uniform().powi(4)).collect();
                let sum: f32 = raw.iter().sum();
                Law { probs: raw.iter().map(|x| x / sum).collect(), sums: Vec::new() }
            };
            let (p, q) = (law(), law());
            batch.push(i, 1, &p, &q);
            laws.push((p, q));
        }
        assert!(!batch.is_full());
        let by_token = batch.by_token(0.0);
        let relaxed = batch.by_token(0.4);
        let by_group = batch.by_group(&lists, 2);
        let (again, shift) = batch.by_group_with_shift(&lists, 2);
        assert_eq!(by_group, again);
        assert_eq!(batch.by_tolerance(0.0).0, by_token);
        assert!(batch.by_tolerance(0.0).1.iter().take(5).all(|x| x.abs() < 1e-5));
        let by_transport = batch.by_transport(&lists, 2);
        for (i, (p, q)) in laws.iter().enumerate() {
            let (p, q) = (&p.probs, &q.probs);
            let sum = |f: &dyn Fn(usize) -> f32| (0..=n).map(|t| f64::from(f(t))).sum::<f64>();
            let token = sum(&|t| p[t].min(q[t]));
            let coarse = |law: &[f32], g: usize| -> f32 {
                members[g].iter().map(|&t| law[t as usize] / members[t as usize].len() as f32).sum()
            };
            let groups: f64 = (0..n).map(|g| f64::from(coarse(p, g).min(coarse(q, g)))).sum();
            let groups = groups + f64::from(p[n].min(q[n]));
            let (s, r) = (|t: usize| (q[t] - p[t]).max(0.0), |t: usize| (p[t] - q[t]).max(0.0));
            let mut moved = 0.0;
            for x in 0..n {
                for y in (0..n).filter(|&y| near[x][y]) {
                    let to: f32 = (0..n).filter(|&z| near[x][z]).map(r).sum();
                    let from: f32 = (0..n).filter(|&z| near[z][y]).map(s).sum();
                    if s(x) * r(y) > 0.0 {
                        moved += f64::from(s(x) * r(y) / to.max(from));
                    }
                }
            }
            let owners = |t: usize| &members[t];
            let emitted = |t: usize| -> f32 {
                let share = 1.0 / owners(t).len() as f32;
                owners(t)
                    .iter()
                    .map(|&g| {
                        let (cp, cq) = (coarse(p, g as usize), coarse(q, g as usize));
                        share * (q[t] * (cp / cq).min(1.0) + p[t] * (cp - cq).max(0.0) / cp)
                    })
                    .sum()
            };
            let far: f64 = (0..n).map(|t| 0.5 * f64::from((emitted(t) - p[t]).abs())).sum();
            assert!((shift[i] - far).abs() < 1e-5, "{}, not {far}", shift[i]);
            for (found, want) in [
                (by_token[i], token),
                (relaxed[i], sum(&|t| q[t].min(p[t] + 0.4 * q[t]))),
                (by_group[i], groups),
                (by_transport[i], token + moved),
            ] {
                assert!((found - want).abs() < 1e-5, "{found}, not {want}");
            }
            assert!(by_transport[i] > token && by_group[i] > token);
        }
        batch.clear();
        assert_eq!(batch.by_token(0.0), [0.0; WIDE]);
    }
}
