//! The decoding loop on scripted models, whose laws are known, and on the tiny bundle.

use std::collections::HashMap;
use voxgrain::asg::{BuildOptions, Index, IndexBuilder};
use voxgrain::core::{Emission, Groups, Penalties, RowMut, Singletons};
use voxgrain::decode::{Arm, Options, RoundEnd, Speculator, TokenModel};
use voxgrain::{ErrorKind, Result};

const VOCABULARY: usize = 6;
const END: u32 = 5;

/// A model whose logits depend on its last two tokens through a table of its own.
struct Scripted {
    seed: u64,
    context: Vec<u32>,
    capacity: usize,
    logits: Vec<f32>,
    poison: bool,
}

fn scripted_logits(seed: u64, context: &[u32]) -> Vec<f32> {
    let last = context.len().checked_sub(1).map_or(9, |i| context[i]);
    let before = context.len().checked_sub(2).map_or(9, |i| context[i]);
    (0..VOCABULARY as u64)
        .map(|t| {
            let mut z = seed ^ (last as u64) << 8 ^ (before as u64) << 16 ^ t << 24;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 4.0
        })
        .collect()
}

impl Scripted {
    fn new(seed: u64) -> Self {
        Self { seed, context: vec![], capacity: 64, logits: vec![], poison: false }
    }
}

impl TokenModel for Scripted {
    fn step(&mut self, tokens: &[u32], _: &[f32], wanted: usize) -> Result<()> {
        assert!(!tokens.is_empty() && tokens.len() <= self.room());
        self.logits.clear();
        for (i, t) in tokens.iter().enumerate() {
            self.context.push(*t);
            if i + wanted >= tokens.len() {
                self.logits.extend(scripted_logits(self.seed, &self.context));
            }
        }
        if self.poison {
            self.logits.fill(f32::NAN);
        }
        Ok(())
    }
    fn logits(&mut self) -> &[f32] {
        &self.logits
    }
    fn softmax(&mut self, row: usize, inverse_t: f32, probs: &mut [f32], sums: &mut [f32]) -> bool {
        let logits = &self.logits[row * VOCABULARY..][..VOCABULARY];
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        probs.iter_mut().zip(logits).for_each(|(p, l)| *p = ((l - max) * inverse_t).exp());
        RowMut::new(probs, sums).is_ok_and(|mut row| row.normalise().is_ok())
    }
    fn len(&self) -> usize {
        self.context.len()
    }
    fn room(&self) -> usize {
        self.capacity - self.context.len()
    }
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }
    fn rollback(&mut self, len: usize) {
        self.context.truncate(len);
    }
}

/// Overlapping groups on a line: t and its neighbours below END.
#[derive(Clone)]
struct Line;

impl Line {
    fn around(t: u32) -> std::ops::RangeInclusive<u32> {
        t.saturating_sub(1)..=(t + 1).min(END - 1)
    }
}

impl Groups for Line {
    fn codebook(&self) -> u32 {
        END
    }
    fn owner_count(&self, t: u32) -> u32 {
        Self::around(t).count() as u32
    }
    fn draw_owner(&self, t: u32, u: f32) -> u32 {
        let r = Self::around(t);
        r.start() + (u * self.owner_count(t) as f32) as u32
    }
    fn for_each_owner<F: FnMut(u32, f32)>(&self, t: u32, mut visit: F) {
        Self::around(t).for_each(|g| visit(g, 1.0 / self.owner_count(t) as f32))
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, g: u32, mut visit: F) {
        Self::around(g).for_each(|t| visit(t, 1.0 / self.owner_count(t) as f32))
    }
    fn mean_members(&self) -> f32 {
        3.0
    }
    fn is_symmetric(&self) -> bool {
        true
    }
}

/// The same lists without the promise that they are symmetric.
#[derive(Clone)]
struct Directed;

impl Groups for Directed {
    fn codebook(&self) -> u32 {
        Line.codebook()
    }
    fn owner_count(&self, t: u32) -> u32 {
        Line.owner_count(t)
    }
    fn draw_owner(&self, t: u32, u: f32) -> u32 {
        Line.draw_owner(t, u)
    }
    fn for_each_owner<F: FnMut(u32, f32)>(&self, t: u32, visit: F) {
        Line.for_each_owner(t, visit)
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, g: u32, visit: F) {
        Line.for_each_member(g, visit)
    }
    fn mean_members(&self) -> f32 {
        3.0
    }
}

fn options(arm: Arm, gamma: usize, seed: u64, temperature: f32) -> Options {
    let mut options = Options::new(arm, END).with_seed(seed);
    options.gamma = gamma.into();
    options.sampling.temperature = temperature;
    options
}

fn generate<G: Groups>(groups: Option<G>, o: Options, limit: usize) -> Vec<u32> {
    generate_from(1, groups, o, limit)
}

fn generate_from<G: Groups>(seed: u64, groups: Option<G>, o: Options, limit: usize) -> Vec<u32> {
    let (target, draft) = (Scripted::new(seed), Scripted::new(seed + 1));
    let mut s = Speculator::new(target, draft, groups, o).unwrap();
    s.start(&[0, 1, 2]).unwrap();
    let mut out = vec![];
    while out.len() < limit {
        if s.round(&mut out).unwrap() != RoundEnd::More {
            out.push(END);
            break;
        }
    }
    out.truncate(limit);
    out
}

const PCG: Arm = Arm::Pcg { emission: Emission::StandIn };

#[test]
fn greedy_speculation_is_greedy_decoding() {
    let mut total = 0;
    for seed in 1..40 {
        let run =
            |arm, gamma| generate_from(seed, Some(Singletons), options(arm, gamma, 0, 0.0), 50);
        let want = run(Arm::Ar, 0);
        total += want.len();
        for gamma in 0..=15 {
            assert_eq!(run(Arm::Sd, gamma), want, "gamma {gamma}");
            assert_eq!(run(PCG, gamma), want, "singletons, gamma {gamma}");
            assert_eq!(run(Arm::Transport, gamma), want, "no neighbours, gamma {gamma}");
        }
    }
    assert!(total > 400, "only {total} tokens were compared");
}

#[test]
fn singleton_groups_are_token_level_speculation() {
    for seed in 0..200 {
        let sd = generate::<Singletons>(None, options(Arm::Sd, 4, seed, 1.0), 30);
        let pcg = generate(Some(Singletons), options(PCG, 4, seed, 1.0), 30);
        assert_eq!(sd, pcg, "seed {seed}");
        let transport = generate(Some(Singletons), options(Arm::Transport, 4, seed, 1.0), 30);
        assert_eq!(sd, transport, "seed {seed}");
    }
}

#[test]
fn a_seed_fixes_the_tokens() {
    for arm in [PCG, Arm::Transport] {
        let run = |seed| generate(Some(Line), options(arm, 3, seed, 1.0), 40);
        let a = run(7);
        assert_eq!(a, run(7));
        assert!((0..20).filter(|s| run(*s) != a).count() > 15, "{arm:?}");
    }
}

/// The scripted logits after the penalties, by their definition over sets.
fn penalised_logits(seed: u64, context: &[u32], p: Penalties) -> Vec<f64> {
    let from = match p.window {
        0 => 0,
        n => context.len().saturating_sub(n as usize),
    };
    let said: std::collections::HashSet<_> = context[from..].iter().collect();
    let (r, emitted) = (f64::from(p.repetition), context.len() - 3);
    let penalised = |(t, z): (usize, &f32)| match f64::from(*z) {
        _ if t as u32 == END && emitted < p.min_tokens as usize => f64::NEG_INFINITY,
        z if !said.contains(&(t as u32)) => z,
        z if z > 0.0 => z / r,
        z => z * r,
    };
    scripted_logits(seed, context).iter().enumerate().map(penalised).collect()
}

/// Probability of every sequence of `n` tokens under the target alone.
fn exact(n: usize, penalties: Penalties) -> HashMap<Vec<u32>, f64> {
    let mut laws: HashMap<Vec<u32>, f64> = HashMap::from([(vec![], 1.0)]);
    for _ in 0..n {
        let mut next = HashMap::new();
        for (sequence, p) in laws {
            if sequence.last() == Some(&END) {
                *next.entry(sequence).or_insert(0.0) += p;
                continue;
            }
            let context: Vec<u32> = [0, 1, 2].iter().chain(&sequence).copied().collect();
            let e: Vec<f64> =
                penalised_logits(1, &context, penalties).iter().map(|l| l.exp()).collect();
            let total: f64 = e.iter().sum();
            for (t, e) in e.iter().enumerate() {
                let mut s = sequence.clone();
                s.push(t as u32);
                *next.entry(s).or_insert(0.0) += p * e / total;
            }
        }
        laws = next;
    }
    laws
}

/// Chi-square per degree of freedom, cells with few expected draws pooled.
fn chi_square(counts: &HashMap<Vec<u32>, f64>, law: &HashMap<Vec<u32>, f64>, n: f64) -> f64 {
    let (mut chi, mut cells, mut rest, mut rest_seen) = (0.0, 0.0, 0.0, 0.0);
    for (s, p) in law {
        let seen = counts.get(s).copied().unwrap_or(0.0);
        if p * n < 20.0 {
            rest += p * n;
            rest_seen += seen;
            continue;
        }
        chi += (seen - p * n).powi(2) / (p * n);
        cells += 1.0;
    }
    if rest > 0.0 {
        chi += (rest_seen - rest).powi(2) / rest;
    }
    chi / cells
}

fn law_of<G: Groups + Clone>(groups: Option<G>, arm: Arm, gamma: usize) -> f64 {
    let mut counts = draw(groups, options(arm, gamma, 99, 1.0));
    compare(&mut counts, Penalties::default())
}

fn compare(counts: &mut HashMap<Vec<u32>, f64>, penalties: Penalties) -> f64 {
    let law = exact(3, penalties);
    assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-9);
    chi_square(counts, &law, counts.values().sum())
}

/// How often each sequence of three tokens came.
fn draw<G: Groups + Clone>(groups: Option<G>, o: Options) -> HashMap<Vec<u32>, f64> {
    const N: u64 = 200_000;
    let mut counts = HashMap::new();
    let mut s = Speculator::new(Scripted::new(1), Scripted::new(2), groups, o).unwrap();
    let mut out = vec![];
    for _ in 0..N {
        s.start(&[0, 1, 2]).unwrap();
        out.clear();
        while out.len() < 3 {
            if s.round(&mut out).unwrap() != RoundEnd::More {
                out.push(END);
                break;
            }
        }
        out.truncate(3);
        *counts.entry(out.clone()).or_insert(0.0) += 1.0;
    }
    counts
}

const PENALTIES: [Penalties; 4] = [
    Penalties { repetition: 1.5, window: 0, min_tokens: 0 },
    Penalties { repetition: 2.0, window: 2, min_tokens: 0 },
    Penalties { repetition: 1.0, window: 0, min_tokens: 2 },
    Penalties { repetition: 0.5, window: 3, min_tokens: 1 },
];

/// Every row is penalised by the drafts before it too, or the law would not be the target's.
#[test]
fn speculation_follows_the_penalised_target() {
    let resample = Arm::Pcg { emission: Emission::Resample };
    for penalties in PENALTIES {
        for (arm, gamma) in [(Arm::Ar, 0), (Arm::Sd, 1), (Arm::Sd, 4), (resample, 2)] {
            let mut o = options(arm, gamma, 7, 1.0);
            o.sampling.penalties = penalties;
            let mut counts = draw(Some(Line), o);
            let chi = compare(&mut counts, penalties);
            assert!(chi < 1.5, "{penalties:?}, {arm:?}, gamma {gamma}: {chi}");
            // The same draws are far from the law without the penalties.
            let off = compare(&mut counts, Penalties::default());
            assert!(off > 5.0, "{penalties:?}: {off}");
        }
    }
}

#[test]
fn greedy_speculation_is_greedy_decoding_under_penalties() {
    let mut compared = 0;
    for penalties in PENALTIES {
        for seed in 1..30 {
            let run = |arm, gamma| {
                let mut o = options(arm, gamma, 0, 0.0);
                o.sampling.penalties = penalties;
                generate_from(seed, Some(Singletons), o, 40)
            };
            let mut want = vec![0, 1, 2];
            while want.len() < 43 && want.last() != Some(&END) {
                let logits = penalised_logits(seed, &want, penalties);
                let best = (0..VOCABULARY).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                want.push(best.unwrap() as u32);
            }
            let want = want.split_off(3);
            compared += want.len();
            for gamma in [0, 1, 3, 9] {
                let arm = if gamma == 0 { Arm::Ar } else { Arm::Sd };
                assert_eq!(run(arm, gamma), want, "{penalties:?}, seed {seed}, gamma {gamma}");
            }
        }
    }
    assert!(compared > 800, "only {compared} tokens were compared");
}

/// A draft that equals its target is never rejected: it sees the same penalty.
#[test]
fn the_draft_sees_the_targets_penalty() {
    for penalties in PENALTIES {
        let mut o = options(Arm::Sd, 4, 5, 1.0);
        o.sampling.penalties = penalties;
        let same = || Scripted::new(1);
        let mut s = Speculator::new(same(), same(), None::<Singletons>, o).unwrap();
        for _ in 0..1000 {
            let mut out = vec![];
            s.start(&[0, 1, 2]).unwrap();
            while out.len() < 30 && s.round(&mut out).unwrap() == RoundEnd::More {}
            assert!(out.len() >= penalties.min_tokens as usize);
        }
        assert!(s.stats().proposed > 1000, "{penalties:?}: {:?}", s.stats());
        assert_eq!(s.stats().acceptance_rate(), Some(1.0), "{penalties:?}");
    }
}

#[test]
fn without_a_draft_tokens_are_decoded_plainly() {
    for seed in 0..50 {
        let o = options(Arm::Ar, 4, seed, 1.0);
        let mut s =
            Speculator::new(Scripted::new(1), None::<Scripted>, None::<Singletons>, o).unwrap();
        s.start(&[0, 1, 2]).unwrap();
        let mut out = vec![];
        while out.len() < 30 && s.round(&mut out).unwrap() == RoundEnd::More {}
        let mut want = generate::<Singletons>(None, o, 30);
        want.pop_if(|t| *t == END);
        assert_eq!(out, want);
        assert_eq!(s.stats().proposed, 0);
    }
    for arm in [Arm::Sd, PCG, Arm::Transport, Arm::Tolerance { beta: 0.4 }] {
        let o = options(arm, 4, 0, 1.0);
        let e = Speculator::new(Scripted::new(1), None::<Scripted>, Some(Line), o).map(|_| ());
        let e = e.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        let said = e.to_string();
        assert!(said.contains(arm.name()) && said.contains("arm ar"), "{said}");
    }
}

#[test]
fn sequences_follow_the_target_where_they_should() {
    // About 150 cells: a correct law stays near 1 and below 1.5.
    let resample = Arm::Pcg { emission: Emission::Resample };
    assert!(law_of::<Singletons>(None, Arm::Ar, 0) < 1.5);
    for gamma in [1, 2, 5] {
        let sd = law_of::<Singletons>(None, Arm::Sd, gamma);
        let exact_groups = law_of(Some(Line), resample, gamma);
        assert!(sd < 1.5 && exact_groups < 1.5, "gamma {gamma}: {sd} {exact_groups}");
    }
    // These say that they are not the target's law, and the same test sees it.
    assert!(law_of(Some(Line), PCG, 2) > 5.0);
    assert!(law_of(Some(Line), Arm::Transport, 2) > 5.0);
    assert!(law_of::<Singletons>(None, Arm::Tolerance { beta: 0.4 }, 2) > 5.0);
}

#[test]
fn counters_add_up() {
    for arm in [PCG, Arm::Transport] {
        let o = options(arm, 4, 3, 1.0);
        let (target, draft) = (Scripted::new(1), Scripted::new(2));
        let mut s = Speculator::new(target, draft, Some(Line), o).unwrap();
        let mut emitted = 0;
        for _ in 0..50 {
            let mut out = vec![];
            s.start(&[0, 1, 2]).unwrap();
            while s.round(&mut out).unwrap() == RoundEnd::More {}
            emitted += out.len() as u64;
        }
        let stats = s.stats();
        assert!(stats.emitted >= emitted + 40, "the end token counts too");
        assert_eq!(stats.proposed, stats.proposed_at.iter().sum::<u64>());
        assert_eq!(stats.accepted, stats.accepted_at.iter().sum::<u64>());
        assert!(stats.accepted <= stats.proposed && stats.tokens_per_round() > 1.0);
        assert!(stats.accepted_at.windows(2).all(|w| w[0] >= w[1]));
    }
}

/// What the target alone finds most probable, the end token included, `n` tokens at most.
fn greedy(seed: u64, n: usize) -> Vec<u32> {
    let mut context = vec![0, 1, 2];
    while context.len() < 3 + n && context.last() != Some(&END) {
        let logits = scripted_logits(seed, &context);
        let best = (0..VOCABULARY).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        context.push(best.unwrap() as u32);
    }
    context.split_off(3)
}

#[test]
fn a_full_context_cuts_the_utterance_and_an_end_finishes_it() {
    let (mut cut, mut finished) = (0, 0);
    for seed in 1..60 {
        // Two prompt tokens are in the context before the first round: 8 of 10 places are left.
        let mut want = greedy(seed, 8);
        let end = match want.pop_if(|t| *t == END) {
            Some(_) => RoundEnd::Finished,
            None => RoundEnd::Full,
        };
        for gamma in [0, 1, 4, 15] {
            let target = Scripted { capacity: 10, ..Scripted::new(seed) };
            let draft = Scripted::new(seed + gamma as u64 % 2);
            let o = options(Arm::Sd, gamma, 0, 0.0);
            let mut s = Speculator::new(target, draft, None::<Singletons>, o).unwrap();
            s.start(&[0, 1, 2]).unwrap();
            let mut out = vec![];
            let found = loop {
                match s.round(&mut out).unwrap() {
                    RoundEnd::More => {}
                    end => break end,
                }
            };
            assert_eq!((found, &out), (end, &want), "seed {seed}, gamma {gamma}");
            // What is full stays full.
            if found == RoundEnd::Full {
                assert_eq!(s.round(&mut out).unwrap(), RoundEnd::Full);
            }
        }
        match end {
            RoundEnd::Full => cut += 1,
            _ => finished += 1,
        }
    }
    assert!(cut > 5 && finished > 5, "{cut} cut, {finished} finished");
}

#[test]
fn what_cannot_work_is_an_error() {
    let new = |o: Options, groups: Option<Line>| {
        Speculator::new(Scripted::new(1), Scripted::new(2), groups, o).map(|_| ())
    };
    let kind = |r: Result<()>| r.unwrap_err().kind();
    for arm in [PCG, Arm::Transport] {
        assert_eq!(kind(new(options(arm, 4, 0, 1.0), None)), ErrorKind::InvalidArgument);
        assert!(new(options(arm, 4, 0, 1.0), Some(Line)).is_ok());
    }
    let directed = |arm| {
        let o = options(arm, 4, 0, 1.0);
        Speculator::new(Scripted::new(1), Scripted::new(2), Some(Directed), o).map(|_| ())
    };
    assert!(directed(PCG).is_ok());
    let refusal = directed(Arm::Transport).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::InvalidArgument);
    assert!(refusal.to_string().contains("asg build"), "{refusal}");
    assert_eq!(kind(new(options(Arm::Sd, 16, 0, 1.0), None)), ErrorKind::InvalidArgument);
    for t in [-1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(kind(new(options(Arm::Sd, 4, 0, t), None)), ErrorKind::InvalidArgument);
    }
    let beta = Arm::Tolerance { beta: f32::NAN };
    assert_eq!(kind(new(options(beta, 4, 0, 1.0), None)), ErrorKind::InvalidArgument);
    let mut end = options(Arm::Sd, 4, 0, 1.0);
    end.end = 6;
    assert_eq!(kind(new(end, None)), ErrorKind::InvalidArgument);

    let bad = Scripted { poison: true, ..Scripted::new(1) };
    let o = options(Arm::Sd, 2, 0, 1.0);
    let mut s = Speculator::new(bad, Scripted::new(2), None::<Singletons>, o).unwrap();
    assert_eq!(kind(s.round(&mut vec![]).map(|_| ())), ErrorKind::InvalidArgument);
    assert_eq!(kind(s.start(&[])), ErrorKind::InvalidArgument);
    s.start(&[0]).unwrap();
    assert_eq!(kind(s.round(&mut vec![]).map(|_| ())), ErrorKind::Numeric);
}

/// Groups whose lists cannot be true.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Untrue {
    /// No group lists anything.
    Empty,
    /// Every group lists a token that no row has.
    Outside,
    /// Every token lists all others, and none but the first lists them back.
    OneSided,
    /// More tokens than the models score.
    Wide,
}

impl Groups for Untrue {
    fn codebook(&self) -> u32 {
        if *self == Untrue::Wide { VOCABULARY as u32 + 1 } else { END }
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
        match self {
            Untrue::Empty => {}
            Untrue::Outside => visit(VOCABULARY as u32, 1.0),
            Untrue::OneSided if g == 0 => (0..END).for_each(|t| visit(t, 1.0)),
            Untrue::OneSided | Untrue::Wide => visit(g, 1.0),
        }
    }
    fn mean_members(&self) -> f32 {
        1.0
    }
    fn is_symmetric(&self) -> bool {
        true
    }
}

/// The first error of many utterances.
fn first_error<G: Groups>(groups: G, arm: Arm) -> voxgrain::Error {
    let (target, draft) = (Scripted::new(1), Scripted::new(2));
    let mut s = match Speculator::new(target, draft, Some(groups), options(arm, 4, 5, 1.0)) {
        Ok(s) => s,
        Err(e) => return e,
    };
    for _ in 0..100 {
        let mut out = vec![];
        s.start(&[0, 1, 2]).unwrap();
        loop {
            match s.round(&mut out) {
                Ok(RoundEnd::More) => {}
                Ok(_) => break,
                Err(e) => return e,
            }
        }
    }
    panic!("{arm:?}: nothing was noticed");
}

#[test]
fn groups_that_lie_are_a_damaged_index_and_not_a_damaged_model() {
    for (groups, arm) in [
        (Untrue::Empty, PCG),
        (Untrue::Outside, PCG),
        (Untrue::Outside, Arm::Transport),
        (Untrue::OneSided, Arm::Transport),
    ] {
        let e = first_error(groups, arm);
        assert_eq!(e.kind(), ErrorKind::Malformed, "{groups:?} {arm:?}: {e}");
        let cause = std::error::Error::source(&e).unwrap().to_string();
        assert!(cause.contains("verify or rebuild the index"), "{cause}");
        assert!(!e.to_string().contains(&cause), "a context does not quote its cause");
    }
    for arm in [PCG, Arm::Transport] {
        let e = first_error(Untrue::Wide, arm);
        assert_eq!(e.kind(), ErrorKind::Mismatch, "{arm:?}: {e}");
    }
    // An arm that asks for no groups is not disturbed by them.
    let o = options(Arm::Sd, 4, 0, 1.0);
    assert!(Speculator::new(Scripted::new(1), Scripted::new(2), Some(Untrue::Wide), o).is_ok());
}

#[test]
fn a_damaged_index_file_is_said_to_be_damaged() {
    let lists: Vec<Vec<(u32, f32)>> =
        (0..END).map(|g| (0..END).filter(|t| *t != g).map(|t| (t, 1.0)).collect()).collect();
    let built = IndexBuilder::from_lists(&lists, &BuildOptions::default()).unwrap();
    let (mut file, _) = built.to_bytes().unwrap();
    let header = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    for arm in [PCG, Arm::Transport] {
        let sound = Index::open(file.clone()).unwrap();
        let o = options(arm, 4, 5, 1.0);
        let mut s = Speculator::new(Scripted::new(1), Scripted::new(2), Some(sound), o).unwrap();
        s.start(&[0, 1, 2]).unwrap();
        while s.round(&mut vec![]).unwrap() == RoundEnd::More {}
    }
    // Opening reads the header alone; what is behind it now decodes to nothing.
    let end = file.len() - 8;
    file[header..end].fill(0);
    let e = first_error(Index::open(file).unwrap(), PCG);
    assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
}

#[cfg(feature = "engine")]
mod engine {
    use super::*;
    use std::path::Path;
    use voxgrain::bundle::Bundle;
    use voxgrain::engine::{Model, Pool, Session};

    #[test]
    fn greedy_speculation_on_models_is_greedy_decoding() {
        for name in ["tiny", "voice"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
            if name == "voice" && !dir.exists() {
                continue;
            }
            let bundle = Bundle::open(dir).unwrap();
            let target = Model::load(bundle.target_path(), 512).unwrap();
            let draft = Model::load(bundle.draft_path().unwrap(), 512).unwrap();
            let v = &bundle.vocabulary;
            let mut prompt = vec![v.begin];
            // Letters or phonemes that every vocabulary has.
            prompt.extend("hat put, wait.".chars().map(|c| v.character(c).unwrap()));
            prompt.push(v.start_of_speech);
            let run = |arm: Arm, gamma: usize, threads: usize| {
                let pool = Pool::new(voxgrain::kernel::best(), threads);
                let mut o = Options::new(arm, v.end_of_speech);
                o.gamma = gamma.into();
                o.sampling.temperature = 0.0;
                let mut s = Speculator::new(
                    Session::new(&target, &pool).unwrap(),
                    Session::new(&draft, &pool).unwrap(),
                    None::<Singletons>,
                    o,
                )
                .unwrap();
                s.start(&prompt).unwrap();
                let mut out = vec![];
                while out.len() < 60 && s.round(&mut out).unwrap() == RoundEnd::More {}
                out.truncate(60);
                out
            };
            let want = run(Arm::Ar, 0, 1);
            for gamma in [1, 4, 7, 15] {
                assert_eq!(run(Arm::Sd, gamma, 1 + gamma % 3), want, "{name}, gamma {gamma}");
            }
        }
    }
}

/// A scripted model that reads features and gives hidden states.
struct Wide {
    model: Scripted,
    features: usize,
    hidden: usize,
}

impl TokenModel for Wide {
    fn step(&mut self, tokens: &[u32], features: &[f32], wanted: usize) -> Result<()> {
        self.model.step(tokens, features, wanted)
    }
    fn logits(&mut self) -> &[f32] {
        self.model.logits()
    }
    fn softmax(&mut self, row: usize, inverse_t: f32, probs: &mut [f32], sums: &mut [f32]) -> bool {
        self.model.softmax(row, inverse_t, probs, sums)
    }
    fn hidden_width(&self) -> usize {
        self.hidden
    }
    fn feature_width(&self) -> usize {
        self.features
    }
    fn len(&self) -> usize {
        self.model.len()
    }
    fn room(&self) -> usize {
        self.model.room()
    }
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }
    fn rollback(&mut self, len: usize) {
        self.model.rollback(len)
    }
}

/// While it drafts, its own hidden state is what it reads next.
#[test]
fn a_draft_gives_hidden_states_as_wide_as_it_reads() {
    let wide = |features, hidden| Wide { model: Scripted::new(1), features, hidden };
    let pair = |draft| {
        let o = options(Arm::Sd, 4, 1, 1.0);
        Speculator::new(wide(0, 8), draft, None::<Line>, o).map(|_| ())
    };
    pair(wide(8, 8)).unwrap();
    for (features, hidden) in [(8, 7), (8, 0), (8, 16), (7, 7)] {
        let e = pair(wide(features, hidden)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Mismatch, "{features} {hidden}: {e}");
    }
}
