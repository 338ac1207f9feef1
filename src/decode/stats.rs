use std::ops::{AddAssign, Sub};
use std::time::Duration;

/// Draft positions whose acceptance is counted one by one.
pub const POSITIONS: usize = 16;

/// What the rounds so far proposed, accepted and cost.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SpecStats {
    /// Target passes after the prompt.
    pub rounds: u64,
    /// Drafted tokens.
    pub proposed: u64,
    /// Drafted tokens that were accepted.
    pub accepted: u64,
    /// Tokens emitted, end of speech included.
    pub emitted: u64,
    /// Drafted tokens by position in their round.
    pub proposed_at: [u64; POSITIONS],
    /// Accepted ones by position.
    pub accepted_at: [u64; POSITIONS],
    /// Rejections whose thinning gave up for the exact residual.
    pub exhausted: u64,
    /// Time of the prompt's passes.
    pub prefill: Duration,
    /// Time of the draft's passes.
    pub draft: Duration,
    /// Time of the target's passes.
    pub verify: Duration,
    /// Time of softmax, transforms, draws and acceptance.
    pub sampling: Duration,
}

impl SpecStats {
    /// Accepted over proposed; `None` where nothing was proposed.
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.proposed > 0).then(|| self.accepted as f64 / self.proposed as f64)
    }
    /// Emitted tokens a target pass.
    pub fn tokens_per_round(&self) -> f64 {
        if self.rounds == 0 { 0.0 } else { self.emitted as f64 / self.rounds as f64 }
    }
    /// Drafted tokens a round.
    pub fn mean_gamma(&self) -> f64 {
        if self.rounds == 0 { 0.0 } else { self.proposed as f64 / self.rounds as f64 }
    }
}

impl AddAssign for SpecStats {
    fn add_assign(&mut self, o: Self) {
        self.rounds += o.rounds;
        self.proposed += o.proposed;
        self.accepted += o.accepted;
        self.emitted += o.emitted;
        for i in 0..POSITIONS {
            self.proposed_at[i] += o.proposed_at[i];
            self.accepted_at[i] += o.accepted_at[i];
        }
        self.exhausted += o.exhausted;
        self.prefill += o.prefill;
        self.draft += o.draft;
        self.verify += o.verify;
        self.sampling += o.sampling;
    }
}

impl Sub for SpecStats {
    type Output = Self;

    /// What came after `earlier`, a copy of the same counters.
    fn sub(self, earlier: Self) -> Self {
        let at = |now: [u64; POSITIONS], then: [u64; POSITIONS]| {
            std::array::from_fn(|i| now[i] - then[i])
        };
        Self {
            rounds: self.rounds - earlier.rounds,
            proposed: self.proposed - earlier.proposed,
            accepted: self.accepted - earlier.accepted,
            emitted: self.emitted - earlier.emitted,
            proposed_at: at(self.proposed_at, earlier.proposed_at),
            accepted_at: at(self.accepted_at, earlier.accepted_at),
            exhausted: self.exhausted - earlier.exhausted,
            prefill: self.prefill - earlier.prefill,
            draft: self.draft - earlier.draft,
            verify: self.verify - earlier.verify,
            sampling: self.sampling - earlier.sampling,
        }
    }
}
