//! Target-aware splits `w(g|t)`: how a token's mass is divided over its groups when `p` and
//! `q` are known. They may depend on both laws, never on the drafted token, so the group law stays
//! exact. Acceptance `sum_g min(P(g), Q(g))` is concave in the split, so climbing works.
//!
//! - `common`: `w(g|t)` proportional to `min(P(g), Q(g))` under equal split: a token prefers
//!   groups that both laws reach.
//! - `step`: equal split times `exp(ETA G)`, one step along the gradient of a smooth
//!   acceptance: what the draft has too much of goes to groups that the target fills, and
//!   the other way round.
//! - `climbed`: many such steps with a gradient that sharpens: about the best that one split
//!   for both laws can do (a lower bound of the best; the shared flow is an upper one).

use super::flow::Support;
use super::lists::Lists;
use super::walk::Law;

const ETA: f64 = 4.0;
pub const CLIMB: usize = 48;

#[derive(Clone, Copy, Debug)]
pub struct Acceptance {
    pub equal: f64,
    pub common: f64,
    pub step: f64,
    pub climbed: f64,
}

/// The tokens of the support may move, the rest keep the equal split. Symmetric lists only.
struct Split<'a> {
    lists: &'a Lists,
    /// `(token, p, q, start of its entries)`
    tokens: Vec<(u32, f64, f64)>,
    starts: Vec<usize>,
    /// `[P, Q]` of each group by the tokens outside.
    fixed: Vec<[f64; 2]>,
    /// `min(p, q)` of ids beyond the codebook.
    alone: f64,
}

impl<'a> Split<'a> {
    fn new(lists: &'a Lists, support: &Support, target: &Law, draft: &Law) -> Self {
        let n = lists.len();
        let law = |t: usize| (f64::from(target.probs[t]), f64::from(draft.probs[t]));
        let mut split = Self {
            lists,
            tokens: Vec::new(),
            starts: vec![0],
            fixed: vec![[0.0; 2]; n],
            alone: 0.0,
        };
        for t in 0..n {
            let (p, q) = law(t);
            let owners = lists.members(t);
            if support.inside[t] && p.max(q) > 0.0 {
                split.tokens.push((t as u32, p, q));
                split.starts.push(split.starts[split.starts.len() - 1] + owners.len());
            } else if p > 0.0 || q > 0.0 {
                let share = f64::from(lists.shares[t]);
                for &g in owners {
                    split.fixed[g as usize][0] += share * p;
                    split.fixed[g as usize][1] += share * q;
                }
            }
        }
        split.alone = (n..target.probs.len()).map(|t| law(t).0.min(law(t).1)).sum();
        split
    }

    fn equal(&self) -> Vec<f64> {
        let mut w = Vec::new();
        for &(t, ..) in &self.tokens {
            let n = self.lists.members(t as usize).len();
            w.extend(std::iter::repeat_n(1.0 / n as f64, n));
        }
        w
    }

    fn coarse(&self, w: &[f64]) -> Vec<[f64; 2]> {
        let mut sums = self.fixed.clone();
        for (i, &(t, p, q)) in self.tokens.iter().enumerate() {
            for (&g, w) in self.lists.members(t as usize).iter().zip(&w[self.starts[i]..]) {
                let sum = &mut sums[g as usize];
                sum[0] += w * p;
                sum[1] += w * q;
            }
        }
        sums
    }

    fn acceptance(&self, coarse: &[[f64; 2]]) -> f64 {
        self.alone + coarse.iter().map(|c| c[0].min(c[1])).sum::<f64>()
    }

    /// `w(g|t) f(t, g)`, normalised over the groups of each token.
    fn scaled(&self, w: &[f64], f: impl Fn(f64, f64, usize) -> f64) -> Vec<f64> {
        let mut out = Vec::with_capacity(w.len());
        for (i, &(t, p, q)) in self.tokens.iter().enumerate() {
            let (owners, start) = (self.lists.members(t as usize), out.len());
            for (&g, w) in owners.iter().zip(&w[self.starts[i]..]) {
                out.push(w * f(p, q, g as usize));
            }
            let sum: f64 = out[start..].iter().sum();
            if sum > 0.0 && sum.is_finite() {
                out[start..].iter_mut().for_each(|w| *w /= sum);
            } else {
                out[start..].fill(1.0 / owners.len() as f64);
            }
        }
        out
    }

    /// A step of size `eta` along the gradient of a smooth minimum, sharper with `power`.
    fn step(&self, w: &[f64], coarse: &[[f64; 2]], eta: f64, power: f64) -> Vec<f64> {
        // How surely P(g) is the smaller of the two.
        let target_lacks: Vec<f64> = coarse
            .iter()
            .map(|&[p, q]| {
                if p + q <= 0.0 {
                    return 0.5;
                }
                1.0 / (1.0 + (p / q.max(f64::MIN_POSITIVE)).powf(power))
            })
            .collect();
        self.scaled(w, |p, q, g| {
            let gain = (p * target_lacks[g] + q * (1.0 - target_lacks[g])) / p.max(q);
            (eta * gain).exp()
        })
    }
}

pub fn acceptance(lists: &Lists, support: &Support, target: &Law, draft: &Law) -> Acceptance {
    let split = Split::new(lists, support, target, draft);
    let equal = split.equal();
    let coarse = split.coarse(&equal);
    let of = |w: &[f64]| split.acceptance(&split.coarse(w));
    let common = split.scaled(&equal, |_, _, g| coarse[g][0].min(coarse[g][1]));
    let step = split.step(&equal, &coarse, ETA, 2.0);
    let mut climbed = of(&step).max(of(&common));
    let mut w = equal;
    let mut here = coarse.clone();
    for i in 0..CLIMB {
        let done = i as f64 / CLIMB as f64;
        w = split.step(&w, &here, ETA / (1.0 + 4.0 * done), 2.0 + 14.0 * done);
        here = split.coarse(&w);
        climbed = climbed.max(split.acceptance(&here));
    }
    Acceptance {
        equal: split.acceptance(&coarse),
        common: of(&common),
        step: of(&step),
        climbed: climbed.max(split.acceptance(&coarse)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow;
    use super::*;

    #[test]
    fn splits_lie_between_equal_split_and_the_flow() {
        // Two tokens in one another's groups and a third one apart.
        let lists = Lists::from_members(&[vec![0, 1], vec![0, 1, 2], vec![1, 2], vec![3]]);
        let law = |p: &[f32]| Law { probs: p.to_vec(), sums: Vec::new() };
        let (p, q) = (law(&[0.1, 0.2, 0.3, 0.3, 0.1]), law(&[0.5, 0.1, 0.1, 0.1, 0.2]));
        let support = Support::new(&p, &q, 1.0);
        let a = acceptance(&lists, &support, &p, &q);
        let most = flow::shared(&lists, &support, &p, &q);
        // By hand: P = (.05+.2/3, .05+.2/3+.15, .2/3+.15, .3), Q = (.25+.1/3, .25+.1/3+.05, .1/3+.05, .1).
        let [p0, p1, p2, p3] = [0.05 + 0.2 / 3.0, 0.2 + 0.2 / 3.0, 0.15 + 0.2 / 3.0, 0.3];
        let [q0, q1, q2, q3] = [0.25 + 0.1 / 3.0, 0.3 + 0.1 / 3.0, 0.05 + 0.1 / 3.0, 0.1];
        let want = f64::min(p0, q0) + f64::min(p1, q1) + f64::min(p2, q2) + f64::min(p3, q3) + 0.1;
        assert!((a.equal - want).abs() < 1e-6, "{a:?}, not {want}");
        for better in [a.common, a.step, a.climbed] {
            assert!(better <= most.upper + 1e-9 && better >= a.equal - 1e-9, "{a:?} {most:?}");
        }
        // Groups of the first three may carry all of them, so the best is .6 + .1 + .1.
        assert!((most.lower - 0.8).abs() < 1e-6 && a.climbed > 0.78, "{a:?} {most:?}");
    }
}
