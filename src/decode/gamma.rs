//! How many tokens to draft in the next round.
//!
//! A round that drafts `g` tokens costs one verification pass of `g + 1` rows and `g` draft
//! steps, and yields one token more than are accepted. With `a_i` the chance that draft `i`
//! is accepted where the ones before it were, the expected yield is
//! `E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 .. a_g`, and the best `g` maximises yield over cost
//! (Leviathan et al. 2023, arXiv 2211.17192, section 3.5, with costs that grow with the rows and an
//! acceptance that depends on the position). `g = 0` is plain decoding: speculation
//! switches itself off while it does not pay.
//!
//! The chances are learnt from the rounds, and a round of `g` drafts tells of the first `g`
//! positions at most. What is believed of the others fades towards what the position before
//! them shows, with every round, and all of it is taken a little better than it was seen, the
//! more so the less was seen (discounted optimism: Garivier and Moulines 2008, arXiv 0805.3415;
//! over positions that are met in order: Kveton et al. 2015, arXiv 1502.02763). So a run of bad
//! luck is forgotten in a hundred rounds, and no length stays untried. Tests below hold the
//! loss against the best fixed length, which nobody knows beforehand, to 5 % where acceptance
//! is steady, jumps, swings or begins with bad luck. Everything is sums, products and square
//! roots, so the choice is the same on every machine.

/// Largest draft length: more never pays, and the verification pass stays within the rows
/// that read the weights once.
pub const MAX_GAMMA: usize = 15;

/// What a round costs, in verification passes of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// One draft step, with the softmax and the draw.
    pub draft: f32,
    /// Each row of a verification pass after the first, with its softmax.
    pub row: f32,
}

impl Costs {
    /// Whether both are numbers that make sense.
    pub fn are_valid(&self) -> bool {
        (0.0..=100.0).contains(&self.draft) && (0.0..=100.0).contains(&self.row)
    }
}

/// How the number of drafted tokens is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum DraftLength {
    /// The same in every round, 0 (plain decoding) to 15.
    Fixed(usize),
    /// From the running acceptance and the given costs. Reproducible: the same seed gives the
    /// same tokens.
    Adaptive(Costs),
    /// From the running acceptance and costs that the clock measures as decoding goes. The
    /// fastest on a machine that one does not know, but **not reproducible**: where a round ends
    /// decides what the draft may choose, and here the clock decides where it ends.
    Measured,
}

impl From<usize> for DraftLength {
    fn from(gamma: usize) -> Self {
        Self::Fixed(gamma)
    }
}

impl DraftLength {
    /// Most tokens drafted in a round: what the caller's buffers must hold.
    pub fn most(self) -> usize {
        match self {
            Self::Fixed(gamma) => gamma,
            Self::Adaptive(_) | Self::Measured => MOST,
        }
    }
}

/// Most tokens drafted by choice: with the pending token they are the rows of one tile of the
/// matrix products.
const MOST: usize = 7;
/// Rounds before speculation that seems not to pay is tried again: at first, and at most; each try
/// that changes nothing doubles the wait.
const TRY_AFTER: (u64, u64) = (64, 1024);
/// Rounds between two of another length than the best, for the sake of the fit.
const VARY_EVERY: u64 = 12;
/// Rounds of drafting after which speculation counts as paying again.
const SETTLED: u64 = 32;
/// Weight of the past after one more round.
const MEMORY: f32 = 0.98;
/// What is left of it when speculation is tried again.
const LEFT: f32 = 0.25;
/// What is believed of the first draft's acceptance before anything was seen, and how firmly.
const PRIOR: f32 = 0.6;
const PRIOR_WEIGHT: f32 = 6.0;
/// A draft where the one before it was accepted, against that one.
const DECLINE: f32 = 0.97;
/// By how many standard errors acceptance is taken for better than it was seen.
const OPTIMISM: f32 = 0.4;

pub(super) struct Chooser {
    length: DraftLength,
    rounds: u64,
    /// Whether speculation is off, for how many rounds, and how many it stays so.
    off: bool,
    idle: u64,
    wait: u64,
    /// Rounds of drafting in a row.
    on: u64,
    /// By position: how often a draft was judged there, how often accepted; with forgetting.
    judged: [f32; MAX_GAMMA],
    accepted: [f32; MAX_GAMMA],
    clock: Clock,
}

/// Running fit of the times of passes: `first + row * (rows - 1)`, and of one draft step.
#[derive(Default)]
struct Clock {
    weight: f32,
    rows: f32,
    rows2: f32,
    time: f32,
    time_rows: f32,
    draft: f32,
    draft_weight: f32,
}

/// Time of a row after the first against that of the first, before two sizes were seen.
const ROW_PRIOR: f32 = 0.12;
const DRAFT_PRIOR: f32 = 0.1;
/// How firmly that is believed: as the spread of sizes that would weigh as much.
const FIRMNESS: f32 = 0.1;

impl Clock {
    fn mean(&self) -> f32 {
        self.time / self.weight.max(1e-9)
    }

    fn pass(&mut self, rows: f32, seconds: f32) {
        // A pass during which the system ran something else says nothing.
        let seconds = match self.weight > 4.0 {
            true => seconds.min(3.0 * self.mean()),
            false => seconds,
        };
        for (sum, v) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.rows2, rows * rows),
            (&mut self.time, seconds),
            (&mut self.time_rows, seconds * rows),
        ] {
            *sum = *sum * MEMORY + v;
        }
    }

    fn draft(&mut self, steps: f32, seconds: f32) {
        let limit = 3.0 * self.draft / self.draft_weight.max(1e-9) * steps;
        let seconds = if self.draft_weight > 4.0 { seconds.min(limit) } else { seconds };
        self.draft = self.draft * MEMORY + seconds;
        self.draft_weight = self.draft_weight * MEMORY + steps;
    }

    fn costs(&self) -> Costs {
        if self.weight < 0.5 {
            return Costs { draft: DRAFT_PRIOR, row: ROW_PRIOR };
        }
        let (time, rows) = (self.mean(), self.rows / self.weight);
        let spread = self.rows2 / self.weight - rows * rows;
        let together = self.time_rows / self.weight - time * rows;
        // Drawn towards the prior where all passes had about the same size.
        let prior = ROW_PRIOR * time / (1.0 + ROW_PRIOR * (rows - 1.0));
        let row = ((together + FIRMNESS * prior) / (spread + FIRMNESS)).clamp(0.0, time / rows);
        let first = (time - row * (rows - 1.0)).max(1e-9);
        let draft = match self.draft_weight > 0.5 {
            true => self.draft / self.draft_weight / first,
            false => DRAFT_PRIOR,
        };
        Costs { draft, row: row / first }
    }
}

impl Chooser {
    pub fn new(length: DraftLength) -> Self {
        Self {
            length,
            rounds: 0,
            off: false,
            idle: 0,
            wait: TRY_AFTER.0,
            on: 0,
            judged: [0.0; MAX_GAMMA],
            accepted: [0.0; MAX_GAMMA],
            clock: Clock::default(),
        }
    }

    /// The next round's number of drafts.
    pub fn choose(&mut self) -> usize {
        let costs = match self.length {
            DraftLength::Fixed(gamma) => return gamma,
            DraftLength::Adaptive(costs) => costs,
            DraftLength::Measured => self.clock.costs(),
        };
        self.rounds += 1;
        let mut best = (0, 1.0);
        let (mut reached, mut tokens, mut mean) = (1.0, 1.0, PRIOR);
        for g in 1..=MOST {
            // A position that was hardly met is taken for a little worse than the one before.
            let weight = self.judged[g - 1] + PRIOR_WEIGHT;
            mean = (self.accepted[g - 1] + PRIOR_WEIGHT * DECLINE * mean) / weight;
            let error = (mean * (1.0 - mean) / weight).max(0.0).sqrt();
            reached *= (mean + OPTIMISM * error).min(1.0);
            tokens += reached;
            let speed = tokens / (1.0 + g as f32 * (costs.row + costs.draft));
            if speed > best.1 {
                best = (g, speed);
            }
        }
        let measured = self.length == DraftLength::Measured;
        self.off = best.0 == 0;
        if self.off {
            (self.idle, self.on) = (self.idle + 1, 0);
            if self.idle < self.wait {
                return 0;
            }
            (self.idle, self.wait) = (0, (2 * self.wait).min(TRY_AFTER.1));
            self.judged.iter_mut().chain(&mut self.accepted).for_each(|n| *n *= LEFT);
            return 2;
        }
        (self.idle, self.on) = (0, self.on + 1);
        if self.on >= SETTLED {
            self.wait = TRY_AFTER.0;
        }
        match best.0 {
            // Passes of one size alone do not tell what a row costs.
            gamma if measured && self.rounds % (2 * VARY_EVERY) == 0 => gamma.saturating_sub(2),
            gamma if measured && self.rounds % VARY_EVERY == 0 => (gamma + 2).min(MOST),
            gamma => gamma,
        }
    }

    /// Whether the draft had better keep up: not while speculation is off.
    pub fn pays(&self) -> bool {
        !self.off
    }

    /// What became of a round.
    pub fn observe(&mut self, gamma: usize, accepted: usize, draft: f32, verify: f32) {
        if gamma > 0 {
            let judged = gamma.min(accepted + 1);
            for i in 0..MAX_GAMMA {
                self.judged[i] = self.judged[i] * MEMORY + (i < judged) as u32 as f32;
                self.accepted[i] = self.accepted[i] * MEMORY + (i < accepted) as u32 as f32;
            }
        }
        if self.length == DraftLength::Measured {
            self.clock.pass((gamma + 1) as f32, verify);
            if gamma > 0 {
                self.clock.draft(gamma as f32, draft);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chance of a draft at each place of a round, after so many tokens.
    type Acceptance = fn(f64) -> [f64; MOST];

    struct Played {
        time_per_token: f64,
        lengths: [usize; MOST + 1],
    }

    /// Speaks so many tokens, each round by what the chooser says.
    fn play(length: DraftLength, acceptance: Acceptance, c: Costs, tokens: f64) -> Played {
        let mut chooser = Chooser::new(length);
        let (mut time, mut done, mut lengths) = (0.0, 0.0, [0; MOST + 1]);
        let mut z = 1u64;
        for round in 0.. {
            if done >= tokens {
                break;
            }
            let chances = acceptance(done);
            let gamma = chooser.choose();
            let mut accepted = 0;
            while accepted < gamma {
                z = z.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if (z >> 40) as f64 / (1u64 << 24) as f64 >= chances[accepted] {
                    break;
                }
                accepted += 1;
            }
            let g = gamma as f32;
            // A clock with one pass in fifty ten times too long.
            let slow = if round % 50 == 7 { 10.0 } else { 1.0 };
            let (draft, verify) = (g * c.draft * 1e-3, (1.0 + g * c.row) * 1e-3 * slow);
            chooser.observe(gamma, accepted, draft, verify);
            time += cost_of(gamma, c);
            done += 1.0 + accepted as f64;
            lengths[gamma] += 1;
        }
        Played { time_per_token: time / done, lengths }
    }

    fn cost_of(g: usize, c: Costs) -> f64 {
        1.0 + g as f64 * f64::from(c.draft + c.row)
    }

    /// Time a token of the best fixed length, in expectation.
    fn best(acceptance: Acceptance, c: Costs, tokens: f64) -> f64 {
        let of = |g: usize| {
            let (mut time, mut done) = (0.0, 0.0);
            while done < tokens {
                let (mut reached, mut yielded) = (1.0, 1.0);
                for chance in &acceptance(done)[..g] {
                    reached *= chance;
                    yielded += reached;
                }
                time += cost_of(g, c);
                done += yielded;
            }
            time / done
        };
        (0..=MOST).map(of).fold(f64::INFINITY, f64::min)
    }

    fn even(a: f64) -> [f64; MOST] {
        [a; MOST]
    }

    /// The chance falls from place to place.
    fn falling(first: f64, by: f64) -> [f64; MOST] {
        std::array::from_fn(|i| first * by.powi(i as i32))
    }

    const STEADY: [(&str, Acceptance); 6] = [
        (".3", |_| even(0.3)),
        (".6", |_| even(0.6)),
        (".75", |_| even(0.75)),
        (".9", |_| even(0.9)),
        (".75, falling", |_| falling(0.75, 0.9)),
        ("a poor first draft, good ones behind it", |_| [0.5, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]),
    ];

    const DRIFTING: [(&str, Acceptance); 5] = [
        ("jumps between .9 and .4", |t| even(if t as u64 / 500 % 2 == 0 { 0.9 } else { 0.4 })),
        ("jumps between .8 and .3", |t| even(if t as u64 / 2000 % 2 == 0 { 0.8 } else { 0.3 })),
        ("swings from .4 to .9", |t| even(0.65 + 0.25 * (t / 480.0).sin())),
        // What a second draft lacked for a while it has again: what was seen must not stay.
        ("200 tokens of bad luck", |t| if t < 200.0 { falling(0.75, 0.0) } else { even(0.75) }),
        ("1,000 tokens of bad luck", |t| if t < 1000.0 { falling(0.8, 0.0) } else { even(0.8) }),
    ];

    #[test]
    fn little_is_lost_against_the_best_fixed_length() {
        let tokens = 6000.0;
        for (name, acceptance) in STEADY.into_iter().chain(DRIFTING) {
            for cost in [0.03, 0.06, 0.13, 0.25, 0.6] {
                let c = Costs { draft: cost, row: cost };
                let played = play(DraftLength::Adaptive(c), acceptance, c, tokens);
                let lost = played.time_per_token / best(acceptance, c, tokens) - 1.0;
                println!("{name}, {cost} each: {lost:.3} {:?}", played.lengths);
                assert!(lost < 0.05, "{name}, {cost} each: {lost} {:?}", played.lengths);
            }
        }
    }

    #[test]
    fn measured_costs_do_as_well() {
        for (name, acceptance) in STEADY {
            for cost in [0.03, 0.1, 0.3] {
                let c = Costs { draft: cost, row: cost };
                let played = play(DraftLength::Measured, acceptance, c, 6000.0);
                let lost = played.time_per_token / best(acceptance, c, 6000.0) - 1.0;
                assert!(lost < 0.07, "{name}, {cost} each: {lost} {:?}", played.lengths);
            }
        }
    }

    /// What does not pay costs plain decoding at most a hundredth, and is tried again.
    #[test]
    fn speculation_that_does_not_pay_is_switched_off_and_tried_again() {
        let c = Costs { draft: 0.5, row: 0.5 };
        for length in [DraftLength::Adaptive(c), DraftLength::Measured] {
            let played = play(length, |_| even(0.2), c, 6000.0);
            assert!(played.time_per_token < 1.01, "{length:?}: {:?}", played.lengths);
            assert!(played.lengths[2] >= 3, "{length:?}: {:?}", played.lengths);
        }
        // Where it pays later, that is found.
        let played = play(
            DraftLength::Adaptive(Costs { draft: 0.1, row: 0.1 }),
            |t| even(if t < 3000.0 { 0.05 } else { 0.8 }),
            Costs { draft: 0.1, row: 0.1 },
            12_000.0,
        );
        assert!(played.time_per_token < 0.75, "{} {:?}", played.time_per_token, played.lengths);
    }

    #[test]
    fn the_same_rounds_give_the_same_choice() {
        let c = Costs { draft: 0.11, row: 0.15 };
        let run = || play(DraftLength::Adaptive(c), DRIFTING[0].1, c, 3000.0).lengths;
        assert_eq!(run(), run());
        // And no clock has a say in it.
        let mut choosers = [0.0, 9.0].map(|_| Chooser::new(DraftLength::Adaptive(c)));
        for round in 0..200 {
            let [a, b] = choosers.each_mut().map(Chooser::choose);
            assert_eq!(a, b);
            let accepted = (round % 5).min(a);
            choosers[0].observe(a, accepted, 0.0, 0.0);
            choosers[1].observe(b, accepted, 9.0, 0.1 * round as f32);
        }
    }

    #[test]
    fn fixed_is_fixed() {
        let mut c = Chooser::new(DraftLength::Fixed(9));
        for _ in 0..100 {
            assert_eq!(c.choose(), 9);
            c.observe(9, 0, 1.0, 1.0);
        }
    }
}
