//! Measures what passes cost, for a [`Calibration`](super::calibration::Calibration).

use super::stream::{Options, Step, Stream};
use super::voice::Voice;
use crate::core::Emission;
use crate::decode::{Arm, Costs, DraftLength, SpecStats};
use crate::engine::Pool;
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

/// What [`measure`] found.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Measured {
    /// Medians over the pairs.
    pub costs: Costs,
    /// A round without drafts: a target pass of one row, its softmax and its draw.
    pub pass: Duration,
    /// Pairs of stretches that were compared.
    pub pairs: usize,
    /// The quartiles of both costs together.
    pub quartiles: (f32, f32),
}

/// Drafts a round while costs are measured, and rounds of one stretch.
const DRAFTS: usize = 3;
const ROUNDS: u64 = 16;

/// What is spoken meanwhile.
const SENTENCES: [&str; 4] = [
    "the birch canoe slid on the smooth planks.",
    "glue the sheet to the dark blue background.",
    "these days a chicken leg is a rare dish.",
    "the juice of lemons makes fine punch.",
];

/// Speaks with drafts and without, `pairs` stretches of each in turn, so that both meet the
/// same machine; each pair gives one ratio. `progress` hears how many are done.
///
/// # Errors
/// Whatever speaking reports; `InvalidArgument` for no pairs.
pub fn measure(
    voice: &Voice,
    pool: &Arc<Pool>,
    pairs: usize,
    mut progress: impl FnMut(usize),
) -> Result<Measured> {
    if pairs == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "at least one pair is wanted"));
    }
    let mut plain = Side::new(voice, pool, Arm::Ar, 0)?;
    let mut drafting = Side::new(voice, pool, voice.default_arm(Emission::StandIn), DRAFTS)?;
    let mut found = Vec::with_capacity(pairs);
    for done in 0..=pairs {
        let (a, b) = if done % 2 == 0 {
            let a = plain.stretch()?;
            (a, drafting.stretch()?)
        } else {
            let b = drafting.stretch()?;
            (plain.stretch()?, b)
        };
        // The first pair brings in pages and sizes buffers.
        if done > 0 {
            found.push((costs_of(&a, &b), round(&a)));
            progress(done);
        }
    }
    let median = |f: &dyn Fn(&(Costs, f64)) -> f64, at: f64| {
        let mut all: Vec<f64> = found.iter().map(f).collect();
        all.sort_by(f64::total_cmp);
        all[((all.len() - 1) as f64 * at).round() as usize]
    };
    let both = |x: &(Costs, f64)| f64::from(x.0.draft + x.0.row);
    let draft = median(&|x| f64::from(x.0.draft), 0.5).clamp(0.0, 100.0);
    // Of both together, which is what lengths are chosen by.
    let row = (median(&both, 0.5) - draft).clamp(0.0, 100.0);
    Ok(Measured {
        costs: Costs { draft: draft as f32, row: row as f32 },
        pass: Duration::from_secs_f64(median(&|x| x.1, 0.5).max(0.0)),
        pairs,
        quartiles: (median(&both, 0.25) as f32, median(&both, 0.75) as f32),
    })
}

/// A stream that speaks the sentences over and over.
struct Side {
    stream: Stream,
    next: usize,
}

/// Seconds a round, prompts and codec apart.
fn round(s: &SpecStats) -> f64 {
    (s.draft + s.verify + s.sampling).as_secs_f64() / s.rounds.max(1) as f64
}

/// What a draft step and a row of a pass cost, of rounds without drafts and rounds with them.
pub fn costs_of(plain: &SpecStats, drafting: &SpecStats) -> Costs {
    let (one, proposed) = (round(plain).max(1e-12), drafting.proposed.max(1) as f64);
    // Each draft has a softmax, and so has each of the target's rows that was looked at.
    let laws = proposed + (drafting.accepted + drafting.rounds) as f64;
    let (draft, sampling) = (drafting.draft.as_secs_f64(), drafting.sampling.as_secs_f64());
    let draft = (draft + sampling * proposed / laws) / proposed / one;
    let both = (round(drafting) / one - 1.0) * drafting.rounds as f64 / proposed;
    Costs { draft: draft as f32, row: (both - draft).max(0.0) as f32 }
}

impl Side {
    fn new(voice: &Voice, pool: &Arc<Pool>, arm: Arm, drafts: usize) -> Result<Self> {
        let mut options = Options::for_voice(voice);
        options.threads = pool.threads();
        options.decode.arm = arm;
        options.decode.gamma = DraftLength::Fixed(drafts);
        Ok(Self { stream: Stream::with_pool(voice, &options, pool)?, next: 0 })
    }

    fn stretch(&mut self) -> Result<SpecStats> {
        let before = self.stream.synthesizer().stats().spec;
        loop {
            if let Step::Idle = self.stream.step()? {
                self.stream.feed(SENTENCES[self.next % SENTENCES.len()])?;
                self.stream.flush()?;
                self.next += 1;
            }
            self.stream.take();
            let done = self.stream.synthesizer().stats().spec - before;
            if done.rounds >= ROUNDS {
                return Ok(done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_come_out_as_they_went_in() {
        let of = |rounds: u64, proposed: u64, draft: u64, verify: u64, sampling: u64| {
            let ms = Duration::from_millis;
            let mut s = SpecStats::default();
            (s.rounds, s.proposed, s.accepted) = (rounds, proposed, proposed / 2);
            (s.draft, s.verify, s.sampling) = (ms(draft), ms(verify), ms(sampling));
            s
        };
        // A pass takes 9 and a law 1; a draft step takes 2 beside its law, a row 3 beside its own.
        let plain = of(10, 0, 0, 90, 10);
        let (rounds, proposed) = (10, 30);
        let laws = proposed + proposed / 2 + rounds;
        let costs = costs_of(&plain, &of(rounds, proposed, 2 * proposed, 90 + 3 * proposed, laws));
        assert!((costs.draft - 0.3).abs() < 1e-6, "{costs:?}");
        // The law of half of the rows was made.
        assert!((costs.row - 0.35).abs() < 1e-6, "{costs:?}");
    }
}
