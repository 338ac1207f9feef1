//! How many tokens to draft in the next round.
//!
//! A round that drafts `g` tokens costs one verification pass of `g + 1` rows and `g` draft
//! steps, and yields one token more than are accepted. With `a_i` the chance that draft `i`
//! is accepted where the ones before it were, the expected yield is
//! `E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 .. a_g`, and the best `g` maximises yield over cost
//! (Leviathan et al. 2023, arXiv 2211.17192, section 3.5, with costs that grow with the rows and an
//! acceptance that depends on the position). `g = 0` is plain decoding: speculation
//! switches itself off while it does not pay.

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
/// Weight of the past after one more round.
const MEMORY: f32 = 0.98;
/// What is believed of the first draft's acceptance before anything was seen, and how firmly.
const PRIOR: f32 = 0.6;
const PRIOR_WEIGHT: f32 = 2.0;

pub(super) struct Chooser {
    length: DraftLength,
    rounds: u64,
    /// Whether speculation is off, for how many rounds, and how many it stays so.
    off: bool,
    idle: u64,
    wait: u64,
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
        let (mut reached, mut tokens, mut before) = (1.0, 1.0, PRIOR);
        for g in 1..=MOST {
            // A position that was hardly met is taken for a little worse than the one before.
            let weight = self.judged[g - 1] + PRIOR_WEIGHT;
            before = (self.accepted[g - 1] + PRIOR_WEIGHT * 0.97 * before) / weight;
            reached *= before;
            tokens += reached;
            let speed = tokens / (1.0 + g as f32 * (costs.row + costs.draft));
            if speed > best.1 {
                best = (g, speed);
            }
        }
        let measured = self.length == DraftLength::Measured;
        self.off = best.0 == 0;
        if self.off {
            self.idle += 1;
            if self.idle < self.wait {
                return 0;
            }
            (self.idle, self.wait) = (0, (2 * self.wait).min(TRY_AFTER.1));
            return 2;
        }
        (self.idle, self.wait) = (0, TRY_AFTER.0);
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
        let judged = gamma.min(accepted + 1);
        for i in 0..judged {
            self.judged[i] = self.judged[i] * MEMORY + 1.0;
            self.accepted[i] = self.accepted[i] * MEMORY + (i < accepted) as u32 as f32;
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

    /// Plays rounds with a fixed acceptance and costs; the share of rounds by length, late.
    fn play(mut c: Chooser, acceptance: f32, cost: Costs) -> [usize; MOST + 1] {
        let mut counts = [0; MOST + 1];
        let mut z = 1u64;
        for round in 0..2000 {
            let gamma = c.choose();
            let mut accepted = 0;
            while accepted < gamma {
                z = z.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if (z >> 40) as f32 / (1u64 << 24) as f32 >= acceptance {
                    break;
                }
                accepted += 1;
            }
            let g = gamma as f32;
            // A clock with one pass in fifty ten times too long.
            let slow = if round % 50 == 7 { 10.0 } else { 1.0 };
            c.observe(gamma, accepted, g * cost.draft * 1e-3, (1.0 + g * cost.row) * 1e-3 * slow);
            if round >= 1000 {
                counts[gamma] += 1;
            }
        }
        counts
    }

    fn yielded(acceptance: f32, g: usize) -> f32 {
        (0..=g).map(|i| acceptance.powi(i as i32)).sum()
    }

    fn cost_of(g: usize, c: Costs) -> f32 {
        1.0 + g as f32 * (c.draft + c.row)
    }

    fn best(acceptance: f32, c: Costs) -> usize {
        let speed = |g: usize| yielded(acceptance, g) / cost_of(g, c);
        (0..=MOST).max_by(|&a, &b| speed(a).total_cmp(&speed(b))).unwrap()
    }

    #[test]
    fn the_best_length_is_found_with_given_and_with_measured_costs() {
        for acceptance in [0.3, 0.6, 0.75, 0.9] {
            for cost in [0.03, 0.1, 0.3] {
                let c = Costs { draft: cost, row: cost };
                let want = best(acceptance, c);
                for length in [DraftLength::Adaptive(c), DraftLength::Measured] {
                    let counts = play(Chooser::new(length), acceptance, c);
                    let (mut tokens, mut time) = (0.0, 0.0);
                    for (g, n) in counts.iter().enumerate() {
                        tokens += *n as f32 * yielded(acceptance, g);
                        time += *n as f32 * cost_of(g, c);
                    }
                    let lost = 1.0 - tokens / time / (yielded(acceptance, want) / cost_of(want, c));
                    assert!(lost < 0.05, "{length:?} at {acceptance}, {cost}: {lost} {counts:?}");
                }
            }
        }
    }

    #[test]
    fn speculation_that_does_not_pay_is_switched_off_and_tried_again() {
        let c = Costs { draft: 0.5, row: 0.5 };
        for length in [DraftLength::Adaptive(c), DraftLength::Measured] {
            let counts = play(Chooser::new(length), 0.2, c);
            assert!(counts[0] >= 990 && counts[2] >= 1, "{length:?}: {counts:?}");
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
