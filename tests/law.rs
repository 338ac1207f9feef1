//! The acceptance laws against closed forms, the transforms against a naive sort.
//!
//! The closed forms are written here from the definitions, in f64 over dense matrices,
//! and share nothing with the implementation. Seeds are fixed, so a correct rule always
//! passes; the wrong rules at the end show that the same test rejects them by a wide
//! margin.

// The closed forms are sums over indices, as on paper.
#![allow(clippy::needless_range_loop)]

use std::cell::Cell;

use voxgrain::core::accept::{self, residual};
use voxgrain::core::dist::block_sum;
use voxgrain::core::{
    AcceptError, Context, DistError, Emission, Groups, LazyRows, Origin, Outcome, Penalties, Row,
    RowBuffer, RowMut, Rule, SUM_BLOCK, SamplingTransforms, Scripted, SeededRng, Singletons,
    TransformScratch, Uniform, Verdict, block_count, sample, transport, verify_lazily,
    verify_position, verify_round,
};

const DRAWS: usize = 1_000_000;

// ---------------------------------------------------------------- rows and groups

#[derive(Clone)]
struct Buf {
    probs: Vec<f32>,
    sums: Vec<f32>,
}

impl Buf {
    fn new(mass: &[f64]) -> Self {
        let total: f64 = mass.iter().sum();
        let probs: Vec<f32> = mass.iter().map(|m| (m / total) as f32).collect();
        let sums = probs.chunks(SUM_BLOCK).map(block_sum).collect();
        Self { probs, sums }
    }
    fn row(&self) -> Row<'_> {
        Row::new(&self.probs, &self.sums).unwrap()
    }
    fn f64(&self) -> Vec<f64> {
        let total: f64 = self.probs.iter().map(|&p| f64::from(p)).sum();
        self.probs.iter().map(|&p| f64::from(p) / total).collect()
    }
}

/// A random row with some tokens at zero.
fn random_row(v: usize, zeros: f32, rng: &mut SeededRng) -> Buf {
    loop {
        let mass: Vec<f64> =
            (0..v)
                .map(|_| {
                    if rng.uniform() < zeros {
                        0.0
                    } else {
                        f64::from(rng.uniform()).powi(3) + 1e-3
                    }
                })
                .collect();
        if mass.iter().sum::<f64>() > 0.0 {
            return Buf::new(&mass);
        }
    }
}

/// The kernel as a dense table `w[t][g]`, remembering the group it drew last.
#[derive(Clone)]
struct Dense {
    w: Vec<Vec<f64>>,
    drawn: Cell<Option<u32>>,
    mean_members: f32,
    symmetric: bool,
}

impl Dense {
    /// `member[g][t]` and a positive affinity; weights are normalised over the owners.
    fn new(member: &[Vec<bool>], affinity: impl Fn(usize, usize) -> f64) -> Self {
        let n = member.len();
        let mut w = vec![vec![0.0; n]; n];
        for t in 0..n {
            let owners: Vec<usize> = (0..n).filter(|&g| member[g][t]).collect();
            let total: f64 = owners.iter().map(|&g| affinity(t, g)).sum();
            for g in owners {
                w[t][g] = affinity(t, g) / total;
            }
        }
        let symmetric = (0..n).all(|g| (0..n).all(|t| member[g][t] == member[t][g]));
        Self { w, drawn: Cell::new(None), mean_members: 4.0, symmetric }
    }

    /// The group that the last position used, if `token` came out of it.
    fn label(&self, token: u32) -> u32 {
        let drawn = self.drawn.take().unwrap_or(token);
        if token < self.codebook() { drawn } else { token }
    }
}

impl Groups for Dense {
    fn codebook(&self) -> u32 {
        self.w.len() as u32
    }
    fn owner_count(&self, t: u32) -> u32 {
        let n = self.w[t as usize].iter().filter(|w| **w > 0.0).count() as u32;
        if n == 1 {
            self.drawn.set(Some(t));
        }
        n
    }
    fn draw_owner(&self, t: u32, u: f32) -> u32 {
        let mut sum = 0.0;
        let mut last = t;
        for (g, &w) in self.w[t as usize].iter().enumerate().filter(|(_, w)| **w > 0.0) {
            sum += w;
            last = g as u32;
            if f64::from(u) < sum {
                break;
            }
        }
        self.drawn.set(Some(last));
        last
    }
    fn for_each_owner<F: FnMut(u32, f32)>(&self, t: u32, mut visit: F) {
        for (g, &w) in self.w[t as usize].iter().enumerate() {
            if w > 0.0 {
                visit(g as u32, w as f32);
            }
        }
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, g: u32, mut visit: F) {
        for (t, w) in self.w.iter().enumerate() {
            if w[g as usize] > 0.0 {
                visit(t as u32, w[g as usize] as f32);
            }
        }
    }
    fn mean_members(&self) -> f32 {
        self.mean_members
    }
    fn is_symmetric(&self) -> bool {
        self.symmetric
    }
}

/// As a threshold makes them: `t` in `G_g` iff `g` in `G_t`.
fn symmetric(n: usize, share: f32, rng: &mut SeededRng) -> Vec<Vec<bool>> {
    let mut member = vec![vec![false; n]; n];
    for g in 0..n {
        member[g][g] = true;
        for t in 0..g {
            let inside = rng.uniform() < share;
            member[g][t] = inside;
            member[t][g] = inside;
        }
    }
    member
}

/// As top-K makes them: `K` members beside the seed, not symmetric.
fn top_k_groups(n: usize, k: usize, rng: &mut SeededRng) -> Vec<Vec<bool>> {
    let mut member = vec![vec![false; n]; n];
    for (g, row) in member.iter_mut().enumerate() {
        row[g] = true;
        while row.iter().filter(|m| **m).count() < k + 1 {
            row[(rng.uniform() * n as f32) as usize] = true;
        }
    }
    member
}

// ---------------------------------------------------------------- closed forms

/// Everything about one position with codebook `n` and vocabulary `v >= n`.
struct Closed {
    p: Vec<f64>,
    q: Vec<f64>,
    /// `w[t][g]` over the vocabulary, singletons included.
    w: Vec<Vec<f64>>,
    cp: Vec<f64>,
    cq: Vec<f64>,
}

impl Closed {
    fn new(p: &Buf, q: &Buf, groups: &Dense) -> Self {
        let (p, q) = (p.f64(), q.f64());
        let v = p.len();
        let mut w = vec![vec![0.0; v]; v];
        for (t, row) in w.iter_mut().enumerate() {
            match groups.w.get(t) {
                Some(known) => row[..known.len()].copy_from_slice(known),
                None => row[t] = 1.0,
            }
        }
        let coarse = |x: &[f64]| (0..v).map(|g| (0..v).map(|t| w[t][g] * x[t]).sum()).collect();
        let (cp, cq) = (coarse(&p), coarse(&q));
        Self { p, q, w, cp, cq }
    }
    fn alpha(&self) -> f64 {
        self.cp.iter().zip(&self.cq).map(|(a, b)| a.min(*b)).sum()
    }
    fn residual_groups(&self) -> Vec<f64> {
        self.cp.iter().zip(&self.cq).map(|(a, b)| (a - b).max(0.0) / (1.0 - self.alpha())).collect()
    }
    fn residual_tokens(&self) -> Vec<f64> {
        let r = self.residual_groups();
        (0..self.p.len())
            .map(|t| {
                (0..r.len())
                    .filter(|&g| self.cp[g] > 0.0)
                    .map(|g| r[g] * self.w[t][g] * self.p[t] / self.cp[g])
                    .sum()
            })
            .collect()
    }
    fn stand_in(&self) -> Vec<f64> {
        let r = self.residual_tokens();
        (0..self.p.len())
            .map(|x| {
                let kept: f64 = (0..self.cp.len())
                    .filter(|&g| self.cq[g] > 0.0)
                    .map(|g| self.w[x][g] * self.q[x] * (self.cp[g] / self.cq[g]).min(1.0))
                    .sum();
                kept + (1.0 - self.alpha()) * r[x]
            })
            .collect()
    }
}

// ---------------------------------------------------------------- the test

/// Pearson's statistic and its degrees of freedom; anything in an empty cell is infinite.
fn chi_square(counts: &[u64], law: &[f64]) -> (f64, f64) {
    let n: u64 = counts.iter().sum();
    let (mut stat, mut cells) = (0.0, 0.0);
    for (&c, &m) in counts.iter().zip(law) {
        let expected = m * n as f64;
        if expected < 1e-6 {
            if c > 0 {
                return (f64::INFINITY, 1.0);
            }
            continue;
        }
        cells += 1.0;
        stat += (c as f64 - expected).powi(2) / expected;
    }
    (stat, cells - 1.0)
}

/// About one in 10^6 for the sizes used here.
fn limit(df: f64) -> f64 {
    df + 5.0 * (2.0 * df.max(1.0)).sqrt() + 12.0
}

#[track_caller]
fn follows(counts: &[u64], law: &[f64], what: &str) {
    assert!((law.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{what}: the closed form is no law");
    let (stat, df) = chi_square(counts, law);
    assert!(stat < limit(df), "{what}: chi-square {stat:.1} at {df} degrees of freedom");
}

#[track_caller]
fn fails_hugely(counts: &[u64], law: &[f64], what: &str) {
    let (stat, df) = chi_square(counts, law);
    assert!(stat > 20.0 * limit(df), "{what}: chi-square {stat:.1} at {df} does not show it");
}

/// Counts of emitted tokens, of labels and of accepted positions.
fn simulate<G: Groups>(
    p: &Buf,
    q: &Buf,
    rule: &Rule<'_, G>,
    label: impl Fn(u32) -> u32,
    seed: u64,
) -> (Vec<u64>, Vec<u64>, u64) {
    let v = p.probs.len();
    let (mut tokens, mut labels, mut accepted) = (vec![0; v], vec![0; v], 0);
    let mut drafter = SeededRng::with_stream(seed, 1);
    let mut verifier = SeededRng::with_stream(seed, 2);
    for _ in 0..DRAWS {
        let x = sample(q.row(), &mut drafter).unwrap();
        let token = match verify_position(p.row(), q.row(), x, rule, &mut verifier).unwrap() {
            Outcome::Accepted => {
                accepted += 1;
                x
            }
            Outcome::Ended { next, .. } => next,
        };
        tokens[token as usize] += 1;
        labels[label(token) as usize] += 1;
    }
    (tokens, labels, accepted)
}

/// Codebook 11 of a vocabulary of 13: two singletons behind it.
fn cases() -> Vec<(&'static str, Buf, Buf, Dense)> {
    let mut rng = SeededRng::new(20_251_113);
    let n = 11;
    let mut out = Vec::new();
    for zeros in [0.0, 0.3] {
        let rows =
            |rng: &mut SeededRng| (random_row(n + 2, zeros, rng), random_row(n + 2, zeros, rng));
        let m = symmetric(n, 0.3, &mut rng);
        let (p, q) = rows(&mut rng);
        out.push(("symmetric, equal split", p, q, Dense::new(&m, |_, _| 1.0)));
        let (p, q) = rows(&mut rng);
        let similar = |t: usize, g: usize| if t == g { 1.0 } else { 0.3 + 0.05 * (t + g) as f64 };
        out.push(("symmetric, similarity", p, q, Dense::new(&m, similar)));
        let m = top_k_groups(n, 3, &mut rng);
        let (p, q) = rows(&mut rng);
        out.push(("top-K, equal split", p, q, Dense::new(&m, |_, _| 1.0)));
        let (p, q) = rows(&mut rng);
        out.push(("top-K, similarity", p, q, Dense::new(&m, |t, g| similar(t, g).powi(4))));
    }
    out
}

#[test]
fn stand_in_gives_the_group_law_and_its_own_token_law() {
    for (i, (name, p, q, groups)) in cases().into_iter().enumerate() {
        let closed = Closed::new(&p, &q, &groups);
        let rule = Rule::Groups { groups: &groups, emission: Emission::StandIn };
        let (tokens, labels, accepted) = simulate(&p, &q, &rule, |t| groups.label(t), i as u64);
        follows(&labels, &closed.cp, &format!("{name}: group law"));
        follows(&tokens, &closed.stand_in(), &format!("{name}: token law"));
        let alpha = closed.alpha();
        follows(
            &[accepted, DRAWS as u64 - accepted],
            &[alpha, 1.0 - alpha],
            &format!("{name}: acceptance"),
        );
        // The honest statement: the token law is not the target's.
        fails_hugely(&tokens, &closed.p, name);
    }
}

#[test]
fn resampling_gives_the_targets_law() {
    for (i, (name, p, q, groups)) in cases().into_iter().enumerate() {
        let rule = Rule::Groups { groups: &groups, emission: Emission::Resample };
        let (tokens, labels, _) = simulate(&p, &q, &rule, |t| groups.label(t), 100 + i as u64);
        let closed = Closed::new(&p, &q, &groups);
        follows(&tokens, &closed.p, name);
        follows(&labels, &closed.cp, name);
    }
}

#[test]
fn the_residual_follows_its_law_whichever_way_it_is_drawn() {
    for (i, (name, p, q, mut groups)) in cases().into_iter().enumerate() {
        let closed = Closed::new(&p, &q, &groups);
        let law = closed.residual_tokens();
        // Thinning, one try then exact, exact by token, exact by group.
        for (tries, mean) in [(1024, 4.0), (1, 4.0), (0, 0.0), (0, 1e9)] {
            groups.mean_members = mean;
            let mut rng = SeededRng::with_stream(i as u64, 7);
            let mut counts = vec![0; law.len()];
            for _ in 0..DRAWS {
                let r = residual(p.row(), q.row(), &groups, tries, &mut rng).unwrap();
                assert!(!(r.exhausted && tries > 1));
                counts[r.token as usize] += 1;
            }
            follows(&counts, &law, &format!("{name}: residual, {tries} tries, {mean}"));
        }
    }
}

#[test]
fn by_token_the_law_is_the_targets_and_a_tolerance_bends_it() {
    let mut rng = SeededRng::new(5);
    let (p, q) = (random_row(17, 0.3, &mut rng), random_row(17, 0.2, &mut rng));
    let rule: Rule<'_, Singletons> = Rule::TokenLevel;
    let (tokens, _, _) = simulate(&p, &q, &rule, |t| t, 1);
    follows(&tokens, &p.f64(), "token level");
    let rule: Rule<'_, Singletons> = Rule::Tolerance { beta: 0.0 };
    assert_eq!(simulate(&p, &q, &rule, |t| t, 1).0, tokens, "beta 0 is token level");

    let beta = 0.4f32;
    let rule: Rule<'_, Singletons> = Rule::Tolerance { beta };
    let (tokens, _, _) = simulate(&p, &q, &rule, |t| t, 2);
    let (fp, fq) = (p.f64(), q.f64());
    let kept: Vec<f64> = (0..17)
        .map(|x| if fq[x] > 0.0 { fq[x] * (fp[x] / fq[x] + f64::from(beta)).min(1.0) } else { 0.0 })
        .collect();
    let excess: Vec<f64> = (0..17).map(|x| (fp[x] - fq[x]).max(0.0)).collect();
    let rejected = 1.0 - kept.iter().sum::<f64>();
    let mass: f64 = excess.iter().sum();
    let law: Vec<f64> = (0..17).map(|x| kept[x] + rejected * excess[x] / mass).collect();
    follows(&tokens, &law, "tolerance");
    fails_hugely(&tokens, &fp, "tolerance against the target");
}

#[test]
fn singleton_groups_repeat_token_level_decision_for_decision() {
    let mut rng = SeededRng::new(11);
    let identity: Vec<Vec<bool>> = (0..20).map(|g| (0..20).map(|t| t == g).collect()).collect();
    let dense = Dense::new(&identity, |_, _| 1.0);
    for seed in 0..20_000 {
        let rows: Vec<Buf> = (0..9).map(|_| random_row(21, 0.2, &mut rng)).collect();
        let target: Vec<Row<'_>> = rows[..5].iter().map(Buf::row).collect();
        let draft: Vec<Row<'_>> = rows[5..].iter().map(Buf::row).collect();
        let drafted: Vec<u32> = draft.iter().map(|r| sample(*r, &mut rng).unwrap()).collect();
        let mut verdicts = Vec::new();
        for emission in [Emission::StandIn, Emission::Resample] {
            let mut u = SeededRng::new(seed);
            let rule = Rule::Groups { groups: &Singletons, emission };
            let v = verify_round(&target[..], &draft[..], &drafted, &rule, &mut u).unwrap();
            let mut u2 = SeededRng::new(seed);
            let rule = Rule::Groups { groups: &dense, emission };
            let v2 = verify_round(&target[..], &draft[..], &drafted, &rule, &mut u2).unwrap();
            // (A table of one-token groups also takes a uniform to resample with.)
            if emission == Emission::StandIn {
                verdicts.push((v, u.uniform()));
                assert_eq!(verdicts[0], (v2, u2.uniform()));
            }
            assert!(v.origin != Origin::Resampled && v2.origin != Origin::Resampled);
        }
        for groups in [None, Some(&dense)] {
            let mut u = SeededRng::new(seed);
            let v = match groups {
                None => {
                    let rule = Rule::Transport { groups: &Singletons };
                    verify_round(&target[..], &draft[..], &drafted, &rule, &mut u)
                }
                Some(groups) => {
                    let rule = Rule::Transport { groups };
                    verify_round(&target[..], &draft[..], &drafted, &rule, &mut u)
                }
            };
            verdicts.push((v.unwrap(), u.uniform()));
        }
        let mut u = SeededRng::new(seed);
        let rule: Rule<'_, Singletons> = Rule::TokenLevel;
        let v = verify_round(&target[..], &draft[..], &drafted, &rule, &mut u).unwrap();
        assert_eq!(verdicts, [(v, u.uniform()); 3], "same decisions from the same uniforms");
    }
}

#[test]
fn an_equal_draft_is_always_accepted() {
    for (name, p, _, groups) in cases() {
        let rule = Rule::Groups { groups: &groups, emission: Emission::StandIn };
        let (_, _, accepted) = simulate(&p, &p, &rule, |t| t, 3);
        assert_eq!(accepted, DRAWS as u64, "{name}");
        if groups.symmetric {
            let rule = Rule::Transport { groups: &groups };
            let (_, _, accepted) = simulate(&p, &p, &rule, |t| t, 5);
            assert_eq!(accepted, DRAWS as u64, "{name}");
        }
        let rule: Rule<'_, Singletons> = Rule::TokenLevel;
        let (_, _, accepted) = simulate(&p, &p, &rule, |t| t, 4);
        assert_eq!(accepted, DRAWS as u64, "{name}");
    }
}

#[test]
fn one_group_of_all_accepts_everything_and_emits_the_draft() {
    let mut rng = SeededRng::new(8);
    // Sixteenths, so that both rows sum to 1 without rounding.
    let p = Buf::new(&[1., 2., 3., 4., 0., 4., 1., 1.]);
    let q = Buf::new(&[4., 1., 1., 0., 6., 2., 1., 1.]);
    let all = Dense::new(&vec![vec![true; 8]; 8], |_, _| 1.0);
    let rule = Rule::Groups { groups: &all, emission: Emission::StandIn };
    let (tokens, _, accepted) = simulate(&p, &q, &rule, |t| t, rng.uniform().to_bits().into());
    assert_eq!(accepted, DRAWS as u64);
    follows(&tokens, &q.f64(), "the draft's law");
    // So does transport where everything is similar: all of the excess finds a place.
    let rule = Rule::Transport { groups: &all };
    let (tokens, _, accepted) = simulate(&p, &q, &rule, |t| t, 6);
    assert_eq!(accepted, DRAWS as u64);
    follows(&tokens, &q.f64(), "the draft's law");
}

#[test]
fn a_round_accepts_as_many_as_its_positions_say() {
    let mut rng = SeededRng::new(31);
    let n = 11;
    let groups = Dense::new(&symmetric(n, 0.3, &mut rng), |_, _| 1.0);
    let target: Vec<Buf> = (0..4).map(|_| random_row(n + 1, 0.1, &mut rng)).collect();
    let draft: Vec<Buf> = (0..3).map(|_| random_row(n + 1, 0.1, &mut rng)).collect();
    // In flat buffers, as the decode loop keeps them.
    let flat = |rows: &[Buf]| -> (Vec<f32>, Vec<f32>) {
        (
            rows.iter().flat_map(|r| r.probs.clone()).collect(),
            rows.iter().flat_map(|r| r.sums.clone()).collect(),
        )
    };
    let ((tp, ts), (dp, ds)) = (flat(&target), flat(&draft));
    let t = RowBuffer::new(&tp, &ts, n + 1, 4).unwrap();
    let d = RowBuffer::new(&dp, &ds, n + 1, 3).unwrap();
    let alphas: Vec<f64> =
        (0..3).map(|i| Closed::new(&target[i], &draft[i], &groups).alpha()).collect();
    let mut law = Vec::new();
    let mut reach = 1.0;
    for a in &alphas {
        law.push(reach * (1.0 - a));
        reach *= a;
    }
    law.push(reach);
    let rule = Rule::Groups { groups: &groups, emission: Emission::StandIn };
    let mut lengths = vec![0u64; 4];
    let mut recovered = vec![vec![0u64; n + 1]; 3];
    let mut bonus = vec![0u64; n + 1];
    for _ in 0..DRAWS {
        let drafted: Vec<u32> = draft.iter().map(|q| sample(q.row(), &mut rng).unwrap()).collect();
        let v = verify_round(&t, &d, &drafted, &rule, &mut rng).unwrap();
        lengths[v.accepted] += 1;
        match v.origin {
            Origin::Bonus => bonus[v.next as usize] += 1,
            Origin::Recovered => recovered[v.accepted][v.next as usize] += 1,
            Origin::Resampled => unreachable!("stand-in emission"),
        }
    }
    follows(&lengths, &law, "accepted a round");
    follows(&bonus, &target[3].f64(), "bonus");
    for i in 0..3 {
        let closed = Closed::new(&target[i], &draft[i], &groups);
        follows(&recovered[i], &closed.residual_tokens(), "recovered");
    }
}

// ---------------------------------------------------------------- wrong rules

/// The rule as the paper words it, with what is wrong left to the caller: the acceptance
/// probability given the drafted token and its group.
fn wrong_rule(
    closed: &Closed,
    q: &Buf,
    groups: &Dense,
    accept: impl Fn(usize, usize) -> f64,
) -> (Vec<u64>, Vec<u64>) {
    let v = closed.p.len();
    let (mut tokens, mut labels) = (vec![0; v], vec![0; v]);
    let mut rng = SeededRng::new(77);
    let r = Buf::new(&closed.residual_groups());
    for _ in 0..DRAWS {
        let x = sample(q.row(), &mut rng).unwrap();
        let g = if x < groups.codebook() { groups.draw_owner(x, rng.uniform()) } else { x };
        let (token, label) = if f64::from(rng.uniform()) < accept(x as usize, g as usize) {
            (x, g)
        } else {
            let g = sample(r.row(), &mut rng).unwrap();
            let law: Vec<f64> = (0..v).map(|t| closed.w[t][g as usize] * closed.p[t]).collect();
            (sample(Buf::new(&law).row(), &mut rng).unwrap(), g)
        };
        tokens[token as usize] += 1;
        labels[label as usize] += 1;
    }
    (tokens, labels)
}

#[test]
fn wrong_rules_fail_the_same_test() {
    let (_, p, q, groups) = cases().swap_remove(0);
    let closed = Closed::new(&p, &q, &groups);
    // The same simulation with the right probability passes ...
    let (tokens, labels) = wrong_rule(&closed, &q, &groups, |_, g| closed.cp[g] / closed.cq[g]);
    follows(&labels, &closed.cp, "the right rule");
    follows(&tokens, &closed.stand_in(), "the right rule");
    // ... the token's own ratio does not ...
    let (tokens, labels) = wrong_rule(&closed, &q, &groups, |x, _| closed.p[x] / closed.q[x]);
    fails_hugely(&labels, &closed.cp, "token ratio");
    fails_hugely(&tokens, &closed.stand_in(), "token ratio");
    // ... nor do group sums without the weights.
    let plain = |x: &[f64], g: usize| -> f64 {
        (0..x.len()).filter(|&t| closed.w[t][g] > 0.0).map(|t| x[t]).sum()
    };
    let (tokens, labels) =
        wrong_rule(&closed, &q, &groups, |_, g| plain(&closed.p, g) / plain(&closed.q, g));
    fails_hugely(&labels, &closed.cp, "no weights");
    fails_hugely(&tokens, &closed.stand_in(), "no weights");
}

#[test]
fn probability_zero_is_never_accepted() {
    // u = 0 is the one uniform that tells `<` from `<=`.
    let p = Buf::new(&[0.0, 0.0, 1.0, 1.0]);
    let q = Buf::new(&[1.0, 1.0, 1.0, 1.0]);
    let m = |g: usize, t: usize| (g < 2) == (t < 2);
    let member: Vec<Vec<bool>> = (0..4).map(|g| (0..4).map(|t| m(g, t)).collect()).collect();
    let groups = Dense::new(&member, |_, _| 1.0);
    let zeros = [0.0f32];
    let check = |strict: bool| -> bool {
        let closed = Closed::new(&p, &q, &groups);
        let ratio = closed.cp[0] / closed.cq[0];
        if strict { 0.0 < ratio } else { 0.0 <= ratio }
    };
    assert!(check(false), "the wrong comparison accepts a token that the target forbids");
    assert!(!check(true));
    for emission in [Emission::StandIn, Emission::Resample] {
        let rule = Rule::Groups { groups: &groups, emission };
        for x in 0..2 {
            let out =
                verify_position(p.row(), q.row(), x, &rule, &mut Scripted::new(&zeros)).unwrap();
            assert!(
                matches!(out, Outcome::Ended { next, origin: Origin::Recovered, .. } if next >= 2)
            );
        }
    }
    let rule: Rule<'_, Singletons> = Rule::TokenLevel;
    let out = verify_position(p.row(), q.row(), 0, &rule, &mut Scripted::new(&zeros)).unwrap();
    assert!(matches!(out, Outcome::Ended { next, .. } if next >= 2));
}

// ---------------------------------------------------------------- transport

/// The transport rule's closed form, over the vocabulary.
struct Transport {
    p: Vec<f64>,
    q: Vec<f64>,
    near: Vec<Vec<bool>>,
    /// `s`, `r`, and their sums over neighbours, `R` and `S`.
    s: Vec<f64>,
    r: Vec<f64>,
    lacking: Vec<f64>,
    over: Vec<f64>,
    f: Vec<Vec<f64>>,
}

impl Transport {
    fn new(p: &Buf, q: &Buf, groups: &Dense) -> Self {
        let (p, q) = (p.f64(), q.f64());
        let v = p.len();
        let listed = |x: usize, y: usize| groups.w.get(x).is_some_and(|w| w.get(y) > Some(&0.0));
        let near: Vec<Vec<bool>> =
            (0..v).map(|x| (0..v).map(|y| x == y || listed(x, y)).collect()).collect();
        let s: Vec<f64> = (0..v).map(|t| (q[t] - p[t]).max(0.0)).collect();
        let r: Vec<f64> = (0..v).map(|t| (p[t] - q[t]).max(0.0)).collect();
        let around = |x: usize, part: &[f64]| (0..v).filter(|&y| near[x][y]).map(|y| part[y]).sum();
        let lacking: Vec<f64> = (0..v).map(|x| around(x, &r)).collect();
        let over: Vec<f64> = (0..v).map(|y| around(y, &s)).collect();
        let mut f = vec![vec![0.0; v]; v];
        for x in 0..v {
            for y in 0..v {
                if near[x][y] && s[x] > 0.0 && r[y] > 0.0 {
                    f[x][y] = s[x] * r[y] / f64::max(lacking[x], over[y]);
                }
            }
        }
        Self { p, q, near, s, r, lacking, over, f }
    }
    fn out(&self, x: usize) -> f64 {
        self.f[x].iter().sum()
    }
    fn arriving(&self, y: usize) -> f64 {
        self.f.iter().map(|f| f[y]).sum()
    }
    fn moved(&self) -> f64 {
        (0..self.p.len()).map(|x| self.out(x)).sum()
    }
    fn common(&self, t: usize) -> f64 {
        self.p[t].min(self.q[t])
    }
    fn acceptance(&self) -> f64 {
        (0..self.p.len()).map(|t| self.common(t)).sum::<f64>() + self.moved()
    }
    fn missing(&self, t: usize) -> f64 {
        (self.r[t] - self.arriving(t)).max(0.0)
    }
    fn residual(&self) -> Vec<f64> {
        let total: f64 = (0..self.p.len()).map(|t| self.missing(t)).sum();
        (0..self.p.len()).map(|t| self.missing(t) / total).collect()
    }
    fn law(&self) -> Vec<f64> {
        (0..self.p.len()).map(|t| self.common(t) + self.out(t) + self.missing(t)).collect()
    }
}

/// By how much `P(X in A) <= p(N(A))` fails, at worst over all sets `A` of tokens.
fn strassen_gap(law: &[f64], p: &[f64], near: &[Vec<bool>]) -> f64 {
    let v = p.len();
    let bits: Vec<u32> =
        near.iter().map(|row| (0..v).filter(|&y| row[y]).map(|y| 1 << y).sum()).collect();
    (0..1u32 << v)
        .map(|a| {
            let inside = |set: u32, of: &[f64]| -> f64 {
                (0..v).filter(|t| set >> t & 1 == 1).map(|t| of[t]).sum()
            };
            let around = (0..v).filter(|t| a >> t & 1 == 1).fold(0, |n, t| n | bits[t]);
            inside(a, law) - inside(around, p)
        })
        .fold(f64::MIN, f64::max)
}

/// Graphs over a codebook of 11, in a vocabulary of 13.
fn graphs() -> Vec<(String, Vec<Vec<bool>>)> {
    let n = 11;
    let table = |near: &dyn Fn(usize, usize) -> bool| -> Vec<Vec<bool>> {
        (0..n).map(|x| (0..n).map(|y| x == y || near(x, y)).collect()).collect()
    };
    let mut out = vec![
        ("no edges".into(), table(&|_, _| false)),
        ("complete".into(), table(&|_, _| true)),
        ("ring".into(), table(&|x, y| (x + 1) % n == y || (y + 1) % n == x)),
        ("star".into(), table(&|x, y| x == 0 || y == 0)),
    ];
    let mut rng = SeededRng::new(1965);
    for share in [0.15, 0.3, 0.6] {
        out.push((format!("random {share}"), symmetric(n, share, &mut rng)));
    }
    out
}

fn transport_cases() -> Vec<(String, Buf, Buf, Dense)> {
    let mut rng = SeededRng::new(423);
    let mut out = Vec::new();
    for zeros in [0.0, 0.4] {
        for (name, member) in graphs() {
            // Weights do not matter: uneven ones, to see that.
            let groups = Dense::new(&member, |t, g| 1.0 + (t * 7 + g) as f64);
            let (p, q) = (random_row(13, zeros, &mut rng), random_row(13, zeros, &mut rng));
            out.push((format!("{name}, zeros {zeros}"), p, q, groups));
        }
    }
    out
}

#[test]
fn transport_gives_its_law() {
    for (i, (name, p, q, groups)) in transport_cases().into_iter().enumerate() {
        let closed = Transport::new(&p, &q, &groups);
        let rule = Rule::Transport { groups: &groups };
        let (tokens, _, accepted) = simulate(&p, &q, &rule, |t| t, 500 + i as u64);
        follows(&tokens, &closed.law(), &name);
        let alpha = closed.acceptance();
        let counts = [accepted, DRAWS as u64 - accepted];
        follows(&counts, &[alpha, 1.0 - alpha], &format!("{name}: acceptance"));
        let exact = transport::acceptance(p.row(), q.row(), &groups, &mut [0.0; 13]).unwrap();
        assert!((exact - alpha).abs() < 1e-6, "{name}: {exact} against {alpha}");
        if closed.moved() == 0.0 {
            follows(&tokens, &closed.p, &format!("{name}: the target's law"));
        } else if closed.moved() > 0.02 {
            // What is accepted beyond the token level, and that it is not the target's law.
            let token_level = [alpha - closed.moved(), 1.0 - alpha + closed.moved()];
            fails_hugely(&counts, &token_level, &name);
            fails_hugely(&tokens, &closed.p, &name);
        }
    }
}

#[test]
fn transport_stays_one_step_from_the_target() {
    let mut rng = SeededRng::new(17);
    for round in 0..60 {
        for (name, member) in graphs() {
            let groups = Dense::new(&member, |_, _| 1.0);
            let zeros = [0.0, 0.4, 0.7][round % 3];
            let (p, q) = (random_row(13, zeros, &mut rng), random_row(13, zeros, &mut rng));
            let closed = Transport::new(&p, &q, &groups);
            let law = closed.law();
            assert!((law.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            // The coupling: rows x, columns y, within one step, with both laws as margins.
            for t in 0..13 {
                let target = closed.common(t) + closed.arriving(t) + closed.missing(t);
                assert!((target - closed.p[t]).abs() < 1e-12, "{name}");
                assert!((0..13).all(|y| closed.f[t][y] == 0.0 || closed.near[t][y]));
            }
            let gap = strassen_gap(&law, &closed.p, &closed.near);
            assert!(gap < 1e-9, "{name}: some set has {gap} more than its neighbourhood");
            // No more than the largest flow from s to r, by its smallest cut.
            let largest = closed.s.iter().sum::<f64>()
                - strassen_gap(&closed.s, &closed.r, &closed.near).max(0.0);
            assert!(closed.moved() <= largest + 1e-9, "{name}: {} > {largest}", closed.moved());
        }
    }
    // Groups go two steps: 0 and 2 share the group of 1, so a draft of 0 stands for 2.
    let member = graphs().swap_remove(2).1;
    let groups = Dense::new(&member, |_, _| 1.0);
    let only = |t: usize| Buf::new(&(0..13).map(|i| f64::from(i == t)).collect::<Vec<_>>());
    let (p, q) = (only(2), only(0));
    let near = Transport::new(&p, &q, &groups).near;
    let by_group = Closed::new(&p, &q, &groups).stand_in();
    assert!(strassen_gap(&by_group, &p.f64(), &near) > 0.3);
    let rule = Rule::Transport { groups: &groups };
    let (tokens, _, accepted) = simulate(&p, &q, &rule, |t| t, 1);
    assert_eq!((tokens[2], accepted), (DRAWS as u64, 0));
}

#[test]
fn the_flow_is_feasible_and_as_written() {
    let mut rng = SeededRng::new(2);
    for round in 0..300 {
        for (name, member) in graphs() {
            let groups = Dense::new(&member, |_, _| 1.0);
            let zeros = [0.0, 0.3, 0.8][round % 3];
            let (p, q) = (random_row(13, zeros, &mut rng), random_row(13, zeros, &mut rng));
            let closed = Transport::new(&p, &q, &groups);
            let mut flow = vec![vec![0.0; 13]; 13];
            // Longer scratch than needed, with anything in it.
            let mut scratch = [f64::NAN; 20];
            transport::for_each_flow(p.row(), q.row(), &groups, &mut scratch, |x, y, f| {
                assert!(f > 0.0 && x != y);
                flow[x as usize][y as usize] += f;
            })
            .unwrap();
            for x in 0..13 {
                let out: f64 = flow[x].iter().sum();
                let into: f64 = flow.iter().map(|f| f[x]).sum();
                // The rows' f32 sums are 1 to some 1e-7.
                assert!(out <= closed.s[x] + 1e-6 && into <= closed.r[x] + 1e-6, "{name}");
                for y in 0..13 {
                    assert!((flow[x][y] - closed.f[x][y]).abs() < 1e-6, "{name}: {x} to {y}");
                }
            }
        }
    }
}

#[test]
fn what_transport_leaves_follows_its_law_whichever_way_it_is_drawn() {
    for (i, (name, p, q, groups)) in transport_cases().into_iter().enumerate() {
        let closed = Transport::new(&p, &q, &groups);
        if (0..13).map(|t| closed.missing(t)).sum::<f64>() < 1e-3 {
            continue;
        }
        let law = closed.residual();
        // Thinning, one try then exact, exact.
        for tries in [100_000, 1, 0] {
            let mut rng = SeededRng::with_stream(i as u64, 9);
            let mut counts = vec![0; law.len()];
            for _ in 0..DRAWS / 4 {
                let r = transport::residual(p.row(), q.row(), &groups, tries, &mut rng).unwrap();
                assert!(r.tries <= tries && !(r.exhausted && tries > 1));
                counts[r.token as usize] += 1;
            }
            follows(&counts, &law, &format!("{name}: residual, {tries} tries"));
        }
    }
    // Nothing is left: the target's law, after all tries.
    let p = Buf::new(&[1.0, 2.0, 1.0]);
    let r = transport::residual(p.row(), p.row(), &Singletons, 10, &mut SeededRng::new(1)).unwrap();
    assert!(r.exhausted && r.tries == 10 && r.token < 3);
}

#[test]
fn wrong_transport_fails_the_same_test() {
    // Acceptance of x for y and the residual are what can go wrong.
    let run = |closed: &Transport,
               q: &Buf,
               accept: &dyn Fn(usize, usize) -> f64,
               left: &[f64]|
     -> Vec<u64> {
        let mut tokens = vec![0; 13];
        let mut rng = SeededRng::new(78);
        let left = Buf::new(left);
        for _ in 0..DRAWS {
            let x = sample(q.row(), &mut rng).unwrap() as usize;
            let mut token = None;
            if f64::from(rng.uniform()) < closed.p[x] / closed.q[x] {
                token = Some(x);
            } else if closed.lacking[x] > 0.0 {
                let law: Vec<f64> =
                    (0..13).map(|y| if closed.near[x][y] { closed.r[y] } else { 0.0 }).collect();
                let y = sample(Buf::new(&law).row(), &mut rng).unwrap() as usize;
                if f64::from(rng.uniform()) < accept(x, y) {
                    token = Some(x);
                }
            }
            let token = token.unwrap_or_else(|| sample(left.row(), &mut rng).unwrap() as usize);
            tokens[token] += 1;
        }
        tokens
    };
    let (_, p, q, groups) = transport_cases().swap_remove(5);
    let c = Transport::new(&p, &q, &groups);
    let right = |x: usize, y: usize| c.lacking[x] / f64::max(c.lacking[x], c.over[y]);
    follows(&run(&c, &q, &right, &c.residual()), &c.law(), "the right rule");
    // Accepting whenever something is missing nearby fills some places twice, ...
    fails_hugely(&run(&c, &q, &|_, _| 1.0, &c.residual()), &c.law(), "always");
    // ... the sums may not be exchanged, ...
    let other = |x: usize, y: usize| c.over[y] / f64::max(c.lacking[x], c.over[y]);
    fails_hugely(&run(&c, &q, &other, &c.residual()), &c.law(), "exchanged");
    // ... and the residual is not the token level's.
    fails_hugely(&run(&c, &q, &right, &c.r), &c.law(), "residual by token");
    // The first of these breaks the guarantee as well.
    let kept = |x: usize| c.common(x) + if c.lacking[x] > 0.0 { c.s[x] } else { 0.0 };
    let rest = 1.0 - (0..13).map(kept).sum::<f64>();
    let law: Vec<f64> = (0..13).map(|t| kept(t) + rest * c.residual()[t]).collect();
    assert!(strassen_gap(&law, &c.p, &c.near) > 0.01);
}

/// Lists that break the promise of symmetry in one way each.
struct Broken(&'static [&'static [u32]]);

impl Groups for Broken {
    fn codebook(&self) -> u32 {
        self.0.len() as u32
    }
    fn owner_count(&self, _: u32) -> u32 {
        1
    }
    fn draw_owner(&self, t: u32, _: f32) -> u32 {
        t
    }
    fn for_each_owner<F: FnMut(u32, f32)>(&self, t: u32, mut visit: F) {
        visit(t, 1.0)
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, g: u32, mut visit: F) {
        self.0[g as usize].iter().for_each(|&t| visit(t, 1.0))
    }
    fn mean_members(&self) -> f32 {
        2.0
    }
    fn is_symmetric(&self) -> bool {
        true
    }
}

#[test]
fn transport_refuses_what_it_cannot_use() {
    // The draft has too much of 0, the target wants 1; 2 agrees, 3 is behind the codebook.
    let p = Buf::new(&[0.0, 4.0, 2.0, 2.0]);
    let q = Buf::new(&[4.0, 0.0, 2.0, 2.0]);
    let zeros = [0.0f32];
    let position = |groups: &Broken, p: &Buf, q: &Buf, x| {
        let rule = Rule::Transport { groups };
        verify_position(p.row(), q.row(), x, &rule, &mut Scripted::new(&zeros))
    };
    let sound = Broken(&[&[0, 1], &[0, 1], &[2]]);
    assert_eq!(position(&sound, &p, &q, 0), Ok(Outcome::Accepted));
    // u = 0 tells `<` from `<=`: token 0 has no probability, and its neighbours lack nothing.
    let alone = Broken(&[&[0, 2], &[1], &[2, 0]]);
    let out = position(&alone, &p, &q, 0);
    assert!(
        matches!(out, Ok(Outcome::Ended { next: 1, origin: Origin::Recovered, .. })),
        "{out:?}"
    );

    let one_sided = AcceptError::OneSided { token: 0, neighbour: 1 };
    assert_eq!(position(&Broken(&[&[0, 1], &[1], &[2]]), &p, &q, 0), Err(one_sided));
    assert_eq!(position(&Broken(&[&[0, 1], &[], &[]]), &p, &q, 0), Err(one_sided));
    // Nor may a list reach behind the codebook, where nothing has neighbours, or out of the rows.
    let far = Buf::new(&[0.0, 2.0, 2.0, 4.0]);
    let behind = AcceptError::OneSided { token: 0, neighbour: 3 };
    assert_eq!(position(&Broken(&[&[3, 0], &[1], &[2]]), &far, &q, 0), Err(behind));
    let outside = AcceptError::MemberOutOfRange { group: 0 };
    assert_eq!(position(&Broken(&[&[0, 99], &[1], &[2]]), &p, &q, 0), Err(outside));

    let mut rng = SeededRng::new(1);
    let mut residual = |groups: &Broken, tries| {
        transport::residual(p.row(), q.row(), groups, tries, &mut rng).map(|r| r.token)
    };
    let back = Err(AcceptError::OneSided { token: 1, neighbour: 0 });
    for tries in [50, 0] {
        assert_eq!(residual(&Broken(&[&[0], &[1, 0], &[2]]), tries), back);
        let outside = Err(AcceptError::MemberOutOfRange { group: 1 });
        assert_eq!(residual(&Broken(&[&[0], &[1, 99], &[2]]), tries), outside);
        assert_eq!(residual(&alone, tries), Ok(1));
    }

    let nan = Buf { probs: vec![0.0, f32::NAN, 0.5, 0.5], sums: vec![1.0] };
    let not_finite = Err(AcceptError::Dist(DistError::NotFinite));
    assert_eq!(position(&sound, &nan, &q, 0), not_finite);
    let infinite = Buf { probs: vec![0.0, f32::INFINITY, 0.5, 0.5], sums: vec![1.0] };
    assert_eq!(position(&sound, &infinite, &q, 0), not_finite);
    let measure = |p: &Buf, q: &Buf, groups: &Broken, scratch: &mut [f64]| {
        transport::acceptance(p.row(), q.row(), groups, scratch).unwrap_err()
    };
    assert_eq!(measure(&nan, &q, &sound, &mut [0.0; 4]), DistError::NotFinite.into());
    assert_eq!(
        measure(&p, &q, &sound, &mut [0.0; 3]),
        AcceptError::Scratch { needed: 4, found: 3 }
    );
    assert_eq!(
        transport::acceptance(p.row(), q.row(), &sound, &mut [0.0; 4]),
        Ok(1.0),
        "all of the excess of 0 goes to 1"
    );

    let wide = Broken(&[&[0], &[1], &[2], &[3], &[4]]);
    let codebook = AcceptError::Codebook { codebook: 5, vocabulary: 4 };
    assert_eq!(position(&wide, &p, &q, 0), Err(codebook));
    let directed = Dense::new(&[vec![true, true], vec![false, true]], |_, _| 1.0);
    let rule = Rule::Transport { groups: &directed };
    let refused = Err(AcceptError::NotSymmetric);
    assert_eq!(verify_position(p.row(), q.row(), 0, &rule, &mut rng), refused);
    assert_eq!(
        transport::residual(p.row(), q.row(), &directed, 5, &mut rng).unwrap_err(),
        AcceptError::NotSymmetric
    );
    assert!(AcceptError::NotSymmetric.to_string().contains("symmetric group index"));
}

// ---------------------------------------------------------------- penalties

/// Tokens of the penalty tests; the last one ends.
const FEW: usize = 5;
const LAST: u32 = FEW as u32 - 1;
const PROMPT: [u32; 3] = [2, 77, 0];

/// Logits of a model that looks at the last token alone, without ends of its own rows.
fn few_logits(seed: u64, last: u32) -> [f32; FEW] {
    let mut rng = SeededRng::with_stream(seed, u64::from(last));
    std::array::from_fn(|_| 4.0 * rng.uniform() - 2.0)
}

/// The definition, over sets and in f64: the law of the token behind `before`.
fn penalised(seed: u64, before: &[u32], emitted: usize, p: &Penalties) -> Vec<f64> {
    let back = if p.window == 0 { before.len() } else { p.window as usize };
    let said = &before[before.len().saturating_sub(back)..];
    let e: Vec<f64> = few_logits(seed, *before.last().unwrap())
        .iter()
        .enumerate()
        .map(|(t, &z)| {
            let (t, z, r) = (t as u32, f64::from(z), f64::from(p.repetition));
            match z {
                _ if t == LAST && emitted < p.min_tokens as usize => 0.0,
                _ if !said.contains(&t) => z.exp(),
                z if z > 0.0 => (z / r).exp(),
                z => (z * r).exp(),
            }
        })
        .collect();
    let total: f64 = e.iter().sum();
    e.iter().map(|e| e / total).collect()
}

/// A row by the library: its penalties, then a softmax.
fn few_row(seed: u64, last: u32, context: &Context<'_>, p: &Penalties) -> Buf {
    let mut out = [0.0; FEW];
    p.apply(&few_logits(seed, last), context, &mut out);
    Buf::new(&out.map(|z| f64::from(z).exp()))
}

/// Target rows behind drafts; a wrong one forgets the drafts before its row.
struct PenalisedRows<'a> {
    context: Context<'a>,
    penalties: Penalties,
    forgets: bool,
    row: Buf,
}

impl LazyRows for PenalisedRows<'_> {
    type Error = AcceptError;
    fn make(&mut self, i: usize) -> Result<Row<'_>, AcceptError> {
        let drafted = &self.context.drafted[..i];
        let last = *drafted.last().or(self.context.tokens.last()).unwrap();
        let drafted = if self.forgets { &[] } else { drafted };
        self.row = few_row(1, last, &Context { drafted, ..self.context }, &self.penalties);
        Ok(self.row.row())
    }
}

/// Counts of the first three tokens, as one number each.
fn penalised_rounds(
    p: Penalties,
    gamma: usize,
    draft_penalties: Penalties,
    forgets: bool,
) -> Vec<u64> {
    let (mut drafter, mut verifier) = (SeededRng::with_stream(3, 1), SeededRng::with_stream(3, 2));
    let mut counts = vec![0; FEW.pow(3)];
    for _ in 0..DRAWS / 4 {
        let mut tokens = PROMPT.to_vec();
        while tokens.len() < PROMPT.len() + 3 && tokens.last() != Some(&LAST) {
            let emitted = tokens.len() - PROMPT.len();
            let (mut drafted, mut probs, mut sums) = (vec![], vec![], vec![]);
            for _ in 0..gamma {
                let context = Context { tokens: &tokens, drafted: &drafted, emitted, end: LAST };
                let last = *drafted.last().or(tokens.last()).unwrap();
                let row = few_row(2, last, &context, &draft_penalties);
                probs.extend_from_slice(&row.probs);
                sums.extend_from_slice(&row.sums);
                drafted.push(sample(row.row(), &mut drafter).unwrap());
            }
            let context = Context { tokens: &tokens, drafted: &drafted, emitted, end: LAST };
            let mut rows = PenalisedRows { context, penalties: p, forgets, row: Buf::new(&[1.0]) };
            let draft = RowBuffer::new(&probs, &sums, FEW, gamma).unwrap();
            let rule: Rule<'_, Singletons> = Rule::TokenLevel;
            let verdict = verify_lazily(&mut rows, &draft, &drafted, &rule, &mut verifier).unwrap();
            let new = drafted[..verdict.accepted].iter().copied().chain([verdict.next]);
            let new: Vec<u32> = new.collect();
            let end = new.iter().position(|&t| t == LAST).map_or(new.len(), |at| at + 1);
            tokens.extend_from_slice(&new[..end]);
        }
        tokens.resize(PROMPT.len() + 3, LAST);
        let number = |n: usize, t: &u32| n * FEW + *t as usize;
        counts[tokens[PROMPT.len()..].iter().fold(0, number)] += 1;
    }
    counts
}

/// The product of the penalised laws; behind an end there are ends.
fn penalised_sequences(p: &Penalties) -> Vec<f64> {
    let mut law = vec![0.0; FEW.pow(3)];
    for (number, law) in law.iter_mut().enumerate() {
        let three = [number / FEW / FEW, number / FEW % FEW, number % FEW].map(|t| t as u32);
        let mut before = PROMPT.to_vec();
        *law = 1.0;
        for (i, &t) in three.iter().enumerate() {
            *law *= match i > 0 && three[i - 1] == LAST {
                true => f64::from(t == LAST),
                false => penalised(1, &before, i, p)[t as usize],
            };
            before.push(t);
        }
    }
    law
}

const PENALTIES: [Penalties; 4] = [
    Penalties { repetition: 3.0, window: 0, min_tokens: 0 },
    Penalties { repetition: 3.0, window: 2, min_tokens: 0 },
    Penalties { repetition: 1.0, window: 0, min_tokens: 2 },
    Penalties { repetition: 0.4, window: 1, min_tokens: 1 },
];

#[test]
fn acceptance_is_exact_for_the_penalised_target() {
    let off = Penalties::default();
    for p in PENALTIES {
        let law = penalised_sequences(&p);
        for gamma in [0, 1, 3] {
            follows(&penalised_rounds(p, gamma, p, false), &law, &format!("{p:?}, {gamma}"));
        }
        // Whatever the draft's own penalties: they are a matter of speed.
        follows(&penalised_rounds(p, 2, off, false), &law, "a draft without penalties");
        let plain = penalised_sequences(&off);
        if p.min_tokens == 0 {
            fails_hugely(&penalised_rounds(p, 3, p, false), &plain, "no penalties at all");
        }
    }
}

#[test]
fn rows_that_forget_their_drafts_fail_the_same_test() {
    for p in &PENALTIES[..2] {
        let counts = penalised_rounds(*p, 3, *p, true);
        fails_hugely(&counts, &penalised_sequences(p), "a context without drafts");
    }
}

// ---------------------------------------------------------------- edges

#[test]
fn edges_of_a_round() {
    let one = Buf::new(&[1.0]);
    let rule: Rule<'_, Singletons> = Rule::TokenLevel;
    let mut rng = SeededRng::new(1);
    let none: [Row<'_>; 0] = [];
    let v = verify_round(&[one.row()], &none, &[], &rule, &mut rng).unwrap();
    let bonus = Verdict { accepted: 0, next: 0, origin: Origin::Bonus, tries: 0, exhausted: false };
    assert_eq!(v, bonus, "V = 1, gamma = 0");
    let two = [one.row(), one.row()];
    let v = verify_round(&two, &[one.row()], &[0], &rule, &mut rng).unwrap();
    assert_eq!(v, Verdict { accepted: 1, ..bonus });

    // All mass on end-of-speech, which is a singleton behind a codebook of one group.
    let all = Dense::new(&vec![vec![true; 4]; 4], |_, _| 1.0);
    let eos = Buf::new(&[0., 0., 0., 0., 1.]);
    let flat = Buf::new(&[1., 1., 1., 1., 0.]);
    for emission in [Emission::StandIn, Emission::Resample] {
        let rule = Rule::Groups { groups: &all, emission };
        let v = verify_round(&[eos.row(), eos.row()], &[eos.row()], &[4], &rule, &mut rng);
        assert_eq!(v.unwrap(), Verdict { accepted: 1, next: 4, ..bonus });
        let v = verify_round(&[eos.row(), eos.row()], &[flat.row()], &[2], &rule, &mut rng);
        let v = v.unwrap();
        assert_eq!((v.accepted, v.next, v.origin), (0, 4, Origin::Recovered));
    }
    let v = verify_round(&[eos.row(), eos.row()], &[flat.row()], &[2], &rule, &mut rng).unwrap();
    assert_eq!((v.accepted, v.next, v.origin), (0, 4, Origin::Recovered));
}

#[test]
fn impossible_states_are_errors() {
    let mut rng = SeededRng::new(1);
    let p = Buf::new(&[1., 1., 2., 0.]);
    let short = Buf::new(&[1., 1.]);
    let rule: Rule<'_, Singletons> = Rule::TokenLevel;
    let position = |p: &Buf, q: &Buf, x, rng: &mut SeededRng| {
        verify_position(p.row(), q.row(), x, &rule, rng).unwrap_err()
    };
    assert_eq!(position(&p, &p, 3, &mut rng), AcceptError::Undraftable { token: 3 });
    assert_eq!(position(&p, &p, 4, &mut rng), AcceptError::TokenOutOfRange { token: 4 });
    assert_eq!(position(&p, &short, 0, &mut rng), AcceptError::Vocabulary { target: 4, draft: 2 });
    let nan = Buf { probs: vec![f32::NAN, 1.0, 0.0, 0.0], sums: vec![f32::NAN] };
    assert_eq!(position(&nan, &p, 0, &mut rng), AcceptError::Dist(DistError::NotFinite));
    let hidden = Buf { probs: vec![f32::NAN, 1.0, 0.0, 0.0], sums: vec![1.0] };
    assert_eq!(position(&hidden, &p, 0, &mut rng), AcceptError::Dist(DistError::NotFinite));
    let double = Buf { probs: vec![1.0; 4], sums: vec![4.0] };
    assert_eq!(
        position(&double, &p, 0, &mut rng),
        AcceptError::Dist(DistError::NotNormalised { total: 4.0 })
    );
    assert_eq!(
        verify_round(&[p.row()], &[p.row()], &[0], &rule, &mut rng).unwrap_err(),
        AcceptError::Rows { gamma: 1, target: 1, draft: 1 }
    );
    for beta in [-0.1, f32::NAN] {
        let rule: Rule<'_, Singletons> = Rule::Tolerance { beta };
        let e = verify_position(p.row(), p.row(), 0, &rule, &mut rng).unwrap_err();
        assert!(matches!(e, AcceptError::Beta(_)));
    }
    let wide = Dense::new(&vec![vec![true; 9]; 9], |_, _| 1.0);
    let rule = Rule::Groups { groups: &wide, emission: Emission::StandIn };
    assert_eq!(
        verify_position(p.row(), p.row(), 0, &rule, &mut rng).unwrap_err(),
        AcceptError::Codebook { codebook: 9, vocabulary: 4 }
    );
    // Owners and members that disagree: token 0 names group 1, which does not hold it.
    struct Torn;
    impl Groups for Torn {
        fn codebook(&self) -> u32 {
            4
        }
        fn owner_count(&self, _: u32) -> u32 {
            2
        }
        fn draw_owner(&self, _: u32, _: f32) -> u32 {
            1
        }
        fn for_each_owner<F: FnMut(u32, f32)>(&self, _: u32, mut visit: F) {
            visit(1, 1.0)
        }
        fn for_each_member<F: FnMut(u32, f32)>(&self, g: u32, mut visit: F) {
            visit(if g == 1 { 3 } else { 99 }, 1.0)
        }
        fn mean_members(&self) -> f32 {
            9.0
        }
    }
    let rule = Rule::Groups { groups: &Torn, emission: Emission::StandIn };
    assert_eq!(
        verify_position(p.row(), p.row(), 0, &rule, &mut rng).unwrap_err(),
        AcceptError::GroupMismatch { group: 1 }
    );
    assert_eq!(
        accept::residual(p.row(), p.row(), &Torn, 0, &mut rng).unwrap_err(),
        AcceptError::MemberOutOfRange { group: 0 }
    );
}

#[test]
fn the_generator_keeps_its_values() {
    let mut rng = SeededRng::new(42);
    let first: Vec<u32> = (0..4).map(|_| (rng.uniform() * 16_777_216.0) as u32).collect();
    let mut rng = SeededRng::with_stream(42, 1);
    let second: Vec<u32> = (0..4).map(|_| (rng.uniform() * 16_777_216.0) as u32).collect();
    assert_eq!([&first[..], &second[..]], PINNED);
}

// From a separate implementation of PCG-XSH-RR.
const PINNED: [[u32; 4]; 2] = [
    [13_434_437, 6_362_493, 6_873_372, 11_225_338],
    [16_312_611, 15_430_802, 8_582_441, 4_311_967],
];

// ---------------------------------------------------------------- rows

#[test]
fn rows_check_their_lengths() {
    assert_eq!(Row::new(&[], &[]).unwrap_err(), DistError::Empty);
    let p = vec![0.0f32; 257];
    assert_eq!(Row::new(&p, &[0.0]).unwrap_err(), DistError::BlockSums { expected: 2, found: 1 });
    let row = |probs: &[f32]| {
        let mut p = probs.to_vec();
        let mut sums = vec![0.0; block_count(p.len())];
        RowMut::new(&mut p, &mut sums).unwrap().normalise().unwrap_err()
    };
    assert_eq!(row(&[0.0, 0.0]), DistError::ZeroMass);
    assert_eq!(row(&[0.5, f32::NAN]), DistError::NotFinite);
    assert_eq!(row(&[0.5, f32::INFINITY]), DistError::NotFinite);
    assert_eq!(row(&[1.5, -0.5]), DistError::Negative);
    assert_eq!(row(&[-1.0, -0.5]), DistError::Negative);
}

#[test]
fn a_draw_is_the_inverse_of_the_cumulative_distribution() {
    let mut rng = SeededRng::new(6);
    for v in [1, 2, 255, 256, 257, 1000, 4096, 65_537] {
        for round in 0..20 {
            let row = random_row(v, [0.0, 0.5, 0.999][round % 3], &mut rng);
            for k in 0..50 {
                let u = match k {
                    0 => 0.0,
                    1 => 1.0 - 2f32.powi(-24),
                    _ => rng.uniform(),
                };
                let t = row.row().draw(u).unwrap() as usize;
                assert!(row.probs[t] > 0.0, "a token of probability 0 at u = {u}");
                let before: f64 = row.probs[..t].iter().map(|&p| f64::from(p)).sum();
                let after = before + f64::from(row.probs[t]);
                let total: f64 = row.probs.iter().map(|&p| f64::from(p)).sum();
                let u = f64::from(u) * total;
                assert!(before - 1e-6 <= u && u < after + 1e-6);
            }
        }
    }
}

#[test]
fn a_draw_survives_block_sums_that_disagree_with_their_tokens() {
    let mut p = vec![0.0f32; 1024];
    p[300] = 0.25;
    p[999] = 0.75;
    // Sums too large, in a block without any token too.
    let sums = [0.1, 0.3, 0.1, 0.9];
    let row = Row::new(&p, &sums).unwrap();
    let mut rng = SeededRng::new(3);
    for _ in 0..10_000 {
        assert!(matches!(row.draw(rng.uniform()).unwrap(), 300 | 999));
    }
    assert_eq!(Row::new(&p, &[0.0; 4]).unwrap().draw(0.5), Err(DistError::ZeroMass));
    let nothing = vec![0.0f32; 300];
    assert_eq!(Row::new(&nothing, &[1.0, 1.0]).unwrap().draw(0.9), Err(DistError::ZeroMass));
}

/// Which tokens stay, by sorting.
fn naive(probs: &[f32], t: &SamplingTransforms) -> Vec<bool> {
    let mut order: Vec<usize> = (0..probs.len()).filter(|&i| probs[i] > 0.0).collect();
    order.sort_by(|&a, &b| probs[b].total_cmp(&probs[a]).then(a.cmp(&b)));
    if t.top_k > 0 {
        order.truncate(t.top_k as usize);
    }
    if t.top_p < 1.0 {
        let total: f64 = order.iter().map(|&i| f64::from(probs[i])).sum();
        let mut mass = 0.0;
        let n = order
            .iter()
            .take_while(|&&i| {
                let more = mass < f64::from(t.top_p) * total;
                mass += f64::from(probs[i]);
                more
            })
            .count();
        order.truncate(n.max(1));
    }
    let max = probs[order[0]];
    order.retain(|&i| probs[i] >= (t.min_p * max).min(max));
    let mut keep = vec![false; probs.len()];
    order.iter().for_each(|&i| keep[i] = true);
    keep
}

#[test]
fn transforms_equal_a_naive_sort() {
    let mut rng = SeededRng::new(9);
    let mut scratch = TransformScratch::new();
    for round in 0..3000 {
        let v = [1, 2, 7, 255, 256, 257, 700, 3000][round % 8];
        // Small integers: plenty of ties, and every sum is exact.
        let levels = [3.0, 40.0, 3000.0][round % 3];
        let mut probs: Vec<f32> = (0..v)
            .map(|_| {
                let x = (rng.uniform().powi(4) * levels) as u32;
                x as f32
            })
            .collect();
        probs[(rng.uniform() * v as f32) as usize] += 1.0;
        let t = SamplingTransforms {
            top_k: [0, 1, 2, 5, 50, 300, 100_000][(rng.uniform() * 7.0) as usize],
            top_p: [1.0, 1.5, 0.0, 0.25, 0.5, 0.9375, 0.999][(rng.uniform() * 7.0) as usize],
            min_p: [0.0, 0.0, 0.125, 0.5, 1.0, 2.0][(rng.uniform() * 6.0) as usize],
        };
        let keep = naive(&probs, &t);
        let before = probs.clone();
        let mut sums = vec![0.0; block_count(v)];
        RowMut::new(&mut probs, &mut sums).unwrap().transform(&t, &mut scratch).unwrap();
        let kept: f64 =
            before.iter().zip(&keep).filter(|(_, k)| **k).map(|(p, _)| f64::from(*p)).sum();
        for i in 0..v {
            assert_eq!(probs[i] > 0.0, keep[i], "token {i} of {v}, {t:?}, was {}", before[i]);
            if keep[i] {
                assert!((f64::from(probs[i]) - f64::from(before[i]) / kept).abs() < 1e-6);
            }
        }
        for (block, sum) in probs.chunks(SUM_BLOCK).zip(&sums) {
            assert_eq!(block_sum(block), *sum);
        }
    }
}

#[test]
fn transforms_hold_at_full_size_and_on_strange_rows() {
    let mut rng = SeededRng::new(10);
    let mut scratch = TransformScratch::new();
    let v = 65_537;
    let shapes: [&dyn Fn(f32) -> f32; 4] = [
        &|u| (12.0 * u).exp(),                     // wide
        &|u| 1e-30 * (30.0 * u).exp(),             // tiny and not normalised
        &|u| if u < 0.9999 { 1e-42 } else { 1.0 }, // subnormal tail
        &|_| 0.1,                                  // all equal
    ];
    for shape in shapes {
        let base: Vec<f32> = (0..v).map(|_| shape(rng.uniform())).collect();
        for t in [
            SamplingTransforms::default(),
            SamplingTransforms { top_k: 50, ..Default::default() },
            SamplingTransforms { top_k: 5000, ..Default::default() },
            SamplingTransforms { top_p: 0.9, ..Default::default() },
            SamplingTransforms { min_p: 0.05, ..Default::default() },
            SamplingTransforms { top_k: 400, top_p: 0.8, min_p: 0.01 },
        ] {
            let mut probs = base.clone();
            let mut sums = vec![0.0; block_count(v)];
            RowMut::new(&mut probs, &mut sums).unwrap().transform(&t, &mut scratch).unwrap();
            let n = probs.iter().filter(|p| **p > 0.0).count();
            let total: f64 = probs.iter().map(|&p| f64::from(p)).sum();
            assert!((total - 1.0).abs() < 1e-4, "{t:?}: {total}");
            if t.top_k > 0 && t.top_p >= 1.0 {
                assert_eq!(n, (t.top_k as usize).min(n), "{t:?}");
            }
            // Kept: a prefix of the sorted order, and top-p's mass is just enough.
            let lowest =
                (0..v).filter(|&i| probs[i] > 0.0).map(|i| base[i]).fold(f32::MAX, f32::min);
            let highest_out =
                (0..v).filter(|&i| probs[i] == 0.0).map(|i| base[i]).fold(0.0, f32::max);
            assert!(highest_out <= lowest || lowest < 1e-36, "{t:?}");
            if t.top_p < 1.0 && t.top_k == 0 {
                let all: f64 = base.iter().map(|&p| f64::from(p)).sum();
                let kept: f64 =
                    (0..v).filter(|&i| probs[i] > 0.0).map(|i| f64::from(base[i])).sum();
                assert!(kept / all > 0.9 - 1e-5 && (kept - f64::from(lowest)) / all < 0.9 + 1e-5);
            }
        }
    }
}

/// `cargo test --release --test law -- --ignored --nocapture`
#[test]
#[ignore = "measures, asserts nothing"]
fn how_long_a_row_takes() {
    let v = 65_537;
    let mut rng = SeededRng::new(1);
    let mut scratch = TransformScratch::new();
    // About as wide as the default voice: most of the mass on some hundred tokens.
    let base: Vec<f32> = (0..v).map(|_| (22.0 * rng.uniform().powi(3)).exp()).collect();
    let mut sums = vec![0.0; block_count(v)];
    let d = SamplingTransforms::default();
    for (name, t) in [
        ("normalise", d),
        ("top-k 50", SamplingTransforms { top_k: 50, ..d }),
        ("top-k 4000", SamplingTransforms { top_k: 4000, ..d }),
        ("top-p 0.95", SamplingTransforms { top_p: 0.95, ..d }),
        ("min-p 0.05", SamplingTransforms { min_p: 0.05, ..d }),
        ("top-k 50, top-p 0.95", SamplingTransforms { top_k: 50, top_p: 0.95, ..d }),
    ] {
        let mut best = f64::MAX;
        for _ in 0..50 {
            let mut probs = base.clone();
            let mut row = RowMut::new(&mut probs, &mut sums).unwrap();
            let start = std::time::Instant::now();
            row.transform(&t, &mut scratch).unwrap();
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{name:24} {:6.1} us", best * 1e6);
    }
    let row = Buf::new(&base.iter().map(|&p| f64::from(p)).collect::<Vec<_>>());
    let start = std::time::Instant::now();
    let mut x = 0;
    for _ in 0..100_000 {
        x ^= row.row().draw(rng.uniform()).unwrap();
    }
    println!("{:24} {:6.3} us ({x})", "draw", start.elapsed().as_secs_f64() * 10.0);
}
