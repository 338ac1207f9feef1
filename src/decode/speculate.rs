use super::gamma::{Chooser, DraftLength, MAX_GAMMA};
use super::stats::POSITIONS;
use super::{PREFILL_ROWS, Sampling, SpecStats, TokenModel};
use crate::core::accept::{
    self, AcceptError, Emission, Groups, LazyRows, RowBuffer, Rule, Verdict,
};
use crate::core::dist::{DistError, Row, TransformScratch, block_count};
use crate::core::rng::SeededRng;
use crate::{Error, ErrorKind, Result};
use std::time::Instant;

/// What [`Arm::Tolerance`] adds where nobody says otherwise; arXiv 2505.15380 uses it.
pub const DEFAULT_BETA: f32 = 0.4;

/// How tokens are found.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Arm {
    /// One token a target pass.
    Ar,
    /// Speculation with acceptance by token; the law is the target's.
    Sd,
    /// Acceptance by token, relaxed by `beta`.
    Tolerance {
        /// Added to the acceptance probability.
        beta: f32,
    },
    /// Acceptance by group: principled coarse-graining.
    Pcg {
        /// What an accepted position emits.
        emission: Emission,
    },
    /// Acceptance by token or for a similar token: what is emitted is at most one step of the
    /// index from a token of the target's law ([`crate::core::transport`]).
    Transport,
}

impl Arm {
    /// `ar`, `sd`, `tolerance`, `pcg`, `transport`.
    pub fn name(&self) -> &'static str {
        match self {
            Arm::Ar => "ar",
            Arm::Sd => "sd",
            Arm::Tolerance { .. } => "tolerance",
            Arm::Pcg { .. } => "pcg",
            Arm::Transport => "transport",
        }
    }
}

/// Options of a [`Speculator`]; make them with [`Options::new`] and set what differs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Options {
    /// The acceptance rule.
    pub arm: Arm,
    /// Tokens drafted a round; at most 15 where fixed, and 0 is plain decoding.
    pub gamma: DraftLength,
    /// The law that tokens are drawn from.
    pub sampling: Sampling,
    /// Same seed, same tokens.
    pub seed: u64,
    /// The token that ends an utterance; it must have logits.
    pub end: u32,
}

impl Options {
    /// Four drafts a round, every token at temperature 1, seed 0.
    pub fn new(arm: Arm, end: u32) -> Self {
        Self { arm, gamma: DraftLength::Fixed(4), sampling: Sampling::default(), seed: 0, end }
    }

    /// The same with another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoundEnd {
    /// There is more to say.
    More,
    /// The end token was emitted.
    Finished,
    /// The context is full; the utterance was cut.
    Full,
}

/// A target and a draft that share one context.
///
/// Between rounds the last emitted token is pending: neither model has seen it. The draft
/// may lag behind by more, and catches up in its next pass.
///
/// A draft that reads the target's states sees the true ones of every emitted token. Beyond
/// those, while it drafts, its own hidden state stands in for the target's, and zeros for the
/// taps, which it has none of; so after a round it forgets what
/// it drafted and reads the accepted tokens again, with their true features, in one pass.
pub struct Speculator<T, D, G> {
    target: T,
    draft: D,
    groups: Option<G>,
    options: Options,
    verify_rng: SeededRng,
    draft_rng: SeededRng,
    /// Tokens emitted or prompted that some model has not seen; `base` of them were seen
    /// by both and are forgotten.
    recent: Vec<u32>,
    base: usize,
    /// `[recent][feature_width]`: the states that predicted them.
    features: Vec<f32>,
    /// What predicts the next token: of the target's last row, or of the draft's.
    feature: Vec<f32>,
    /// Tokens in the draft's context whose features were true.
    sure: usize,
    chooser: Chooser,
    drafted: Vec<u32>,
    pass: Vec<u32>,
    target_probs: Vec<f32>,
    target_sums: Vec<f32>,
    draft_probs: Vec<f32>,
    draft_sums: Vec<f32>,
    scratch: Box<TransformScratch>,
    stats: SpecStats,
}

impl<T: TokenModel, D: TokenModel, G: Groups> Speculator<T, D, G> {
    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of range, an arm that needs groups without them, or
    /// `transport` with groups that are not symmetric, `Mismatch` if the models do not score the
    /// same tokens, or fewer than the groups cover.
    pub fn new(target: T, draft: D, groups: Option<G>, options: Options) -> Result<Self> {
        options.sampling.check()?;
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        match options.gamma {
            DraftLength::Fixed(gamma) if gamma > MAX_GAMMA => {
                return invalid(format!("gamma must be at most {MAX_GAMMA}, not {gamma}"));
            }
            DraftLength::Adaptive(costs) if !costs.are_valid() => {
                return invalid(format!("{costs:?}: give costs in passes, between 0 and 100"));
            }
            _ => {}
        }
        if let Arm::Tolerance { beta } = options.arm
            && !(0.0..=1.0).contains(&beta)
        {
            return invalid(format!("beta must be between 0 and 1, not {beta}"));
        }
        match (options.arm, &groups) {
            (Arm::Pcg { .. } | Arm::Transport, None) => {
                return invalid(format!(
                    "the arm {} needs a group index: build one with `voxgrain asg build` or \
                     choose another arm",
                    options.arm.name()
                ));
            }
            (Arm::Transport, Some(g)) if !g.is_symmetric() => {
                return invalid(
                    "the arm transport needs a symmetric group index, and top-k lists are not: \
                     build one with `voxgrain asg build --family threshold` or `--family \
                     top-k-symmetric`, or choose the arm pcg"
                        .into(),
                );
            }
            _ => {}
        }
        let vocabulary = target.vocabulary();
        if draft.vocabulary() != vocabulary {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the draft scores {} tokens, the target {vocabulary}: they are not a pair",
                    draft.vocabulary()
                ),
            ));
        }
        if let (Arm::Pcg { .. } | Arm::Transport, Some(g)) = (options.arm, &groups)
            && g.codebook() as usize > vocabulary
        {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the group index covers {} tokens, the models score {vocabulary}: use the \
                     index that was built for this model",
                    g.codebook()
                ),
            ));
        }
        let width = draft.feature_width();
        let (hidden, taps) = (target.hidden_width(), target.taps());
        if width > 0
            && (![hidden, (taps + 1) * hidden].contains(&width) || draft.hidden_width() != hidden)
        {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the draft reads {width} features and its own state is {} wide, the target's \
                     is {hidden} and has {taps} taps beside it: they are not a pair",
                    draft.hidden_width()
                ),
            ));
        }
        if options.end as usize >= vocabulary {
            return invalid(format!("end token {} has no logits", options.end));
        }
        let length = if options.arm == Arm::Ar { DraftLength::Fixed(0) } else { options.gamma };
        let options = Options { gamma: length, ..options };
        let gamma = length.most();
        let blocks = block_count(vocabulary);
        // A draft that has not paid for long has all of the context to catch up with.
        let positions = target.len() + target.room();
        Ok(Self {
            target,
            draft,
            groups,
            options,
            verify_rng: SeededRng::with_stream(options.seed, 0),
            draft_rng: SeededRng::with_stream(options.seed, 1),
            recent: Vec::with_capacity(positions),
            base: 0,
            features: Vec::with_capacity((PREFILL_ROWS + MAX_GAMMA + 1) * width),
            feature: vec![0.0; if gamma > 0 { width } else { 0 }],
            sure: 0,
            chooser: Chooser::new(length),
            drafted: Vec::with_capacity(MAX_GAMMA),
            pass: Vec::with_capacity(MAX_GAMMA + 1),
            target_probs: vec![0.0; vocabulary],
            target_sums: vec![0.0; blocks],
            draft_probs: vec![0.0; gamma * vocabulary],
            draft_sums: vec![0.0; gamma * blocks],
            scratch: Box::default(),
            stats: SpecStats::default(),
        })
    }

    /// Starts an utterance: forgets the context and takes a prompt, whose last token is
    /// run by the first round.
    pub fn start(&mut self, prompt: &[u32]) -> Result<()> {
        self.target.rollback(0);
        self.draft.rollback(0);
        self.base = 0;
        self.recent.clear();
        let Some((_, head)) = prompt.split_last() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "the prompt is empty"));
        };
        let clock = Instant::now();
        let drafts = self.options.gamma.most() > 0;
        // A draft that is not used reads the prompt when it is tried again.
        let later = drafts && !self.chooser.pays();
        self.features.clear();
        self.feature.fill(0.0);
        if self.feature.is_empty() {
            self.target.prefill(head)?;
            if drafts && !later {
                self.draft.prefill(head)?;
            }
        } else {
            let width = self.feature.len();
            for chunk in head.chunks(PREFILL_ROWS) {
                self.target.step(chunk, &[], 1)?;
                self.features.extend_from_slice(&self.feature);
                self.target.features(0..chunk.len(), width, &mut self.features);
                let last = self.features.len() - width;
                self.feature.copy_from_slice(&self.features[last..]);
                self.features.truncate(last);
                if !later {
                    self.draft.step(chunk, &self.features, 1)?;
                    self.features.clear();
                }
            }
            self.features.extend_from_slice(&self.feature);
        }
        self.sure = self.draft.len();
        self.base = if later { 0 } else { head.len() };
        self.recent.extend_from_slice(&prompt[self.base..]);
        self.stats.prefill += clock.elapsed();
        Ok(())
    }

    /// One round: appends the emitted tokens to `out`, the end token excluded.
    ///
    /// # Errors
    /// Whatever the models report, `Numeric` where a law is impossible, `Malformed` where the
    /// groups contradict themselves: the index is damaged. The utterance cannot go on then;
    /// [`start`](Self::start) begins anew.
    pub fn round(&mut self, out: &mut Vec<u32>) -> Result<RoundEnd> {
        let Some(&pending) = self.recent.last() else {
            return Err(Error::new(ErrorKind::InvalidArgument, "no utterance was started"));
        };
        if self.target.room() == 0 {
            return Ok(RoundEnd::Full);
        }
        let gamma = self.chooser.choose().min(self.target.room() - 1);
        let began = Instant::now();
        self.propose(gamma)?;
        let drafting = began.elapsed();
        let gamma = self.drafted.len();

        self.pass.clear();
        self.pass.push(pending);
        self.pass.extend_from_slice(&self.drafted);
        let clock = Instant::now();
        self.target.step(&self.pass, &[], gamma + 1)?;
        self.stats.verify += clock.elapsed();

        let verifying = clock;
        let clock = Instant::now();
        let verdict = self.verify()?;
        self.stats.sampling += clock.elapsed();
        let (drafting, verifying) = (drafting.as_secs_f32(), verifying.elapsed().as_secs_f32());
        self.chooser.observe(gamma, verdict.accepted, drafting, verifying);

        let stats = &mut self.stats;
        stats.rounds += 1;
        stats.proposed += gamma as u64;
        stats.accepted += verdict.accepted as u64;
        stats.exhausted += verdict.exhausted as u64;
        for i in 0..gamma {
            stats.proposed_at[i.min(POSITIONS - 1)] += 1;
            stats.accepted_at[i.min(POSITIONS - 1)] += (i < verdict.accepted) as u64;
        }

        // The target has seen the pending token and every draft: keep what was accepted.
        let seen = self.target.len() - gamma + verdict.accepted;
        self.target.rollback(seen);
        self.draft.rollback(match self.feature.is_empty() {
            true => seen,
            false => seen.min(self.sure),
        });
        let width = self.feature.len();
        if width > 0 {
            // Row i is of the token before emitted token i: what predicted it.
            self.target.features(0..verdict.accepted + 1, width, &mut self.features);
        }
        let emitted = self.drafted[..verdict.accepted].iter().copied().chain([verdict.next]);
        for token in emitted {
            stats.emitted += 1;
            if token == self.options.end {
                return Ok(RoundEnd::Finished);
            }
            out.push(token);
            self.recent.push(token);
        }
        self.forget();
        Ok(RoundEnd::More)
    }

    /// Drafts up to `gamma` tokens; fewer where the draft ends the utterance.
    fn propose(&mut self, gamma: usize) -> Result<()> {
        self.drafted.clear();
        let (v, b) = (self.draft.vocabulary(), block_count(self.draft.vocabulary()));
        let width = self.feature.len();
        for i in 0..gamma.min(self.draft.room()) {
            let clock = Instant::now();
            if i == 0 {
                self.catch_up()?;
            } else {
                if width > 0 {
                    let hidden = self.draft.hidden();
                    let (taps, own) = self.feature.split_at_mut(width - self.draft.hidden_width());
                    taps.fill(0.0);
                    own.copy_from_slice(&hidden[hidden.len() - own.len()..]);
                }
                self.draft.step(&self.drafted[i - 1..], &self.feature, 1)?;
            }
            self.stats.draft += clock.elapsed();
            let clock = Instant::now();
            let probs = &mut self.draft_probs[i * v..][..v];
            let sums = &mut self.draft_sums[i * b..][..b];
            let draft = &mut self.draft;
            self.options.sampling.apply(draft, 0, probs, sums, &mut self.scratch)?;
            let row = accept::sample(Row::new(probs, sums).map_err(numeric)?, &mut self.draft_rng);
            let token = row.map_err(numeric)?;
            self.stats.sampling += clock.elapsed();
            self.drafted.push(token);
            if token == self.options.end {
                break;
            }
        }
        Ok(())
    }

    /// Runs the draft over what it has not seen, the pending token last.
    fn catch_up(&mut self) -> Result<()> {
        let width = self.feature.len();
        let mut at = self.draft.len() - self.base;
        while at < self.recent.len() {
            // More than a few only after rounds without drafts.
            let end = (at + PREFILL_ROWS).min(self.recent.len());
            let features = self.features.get(at * width..end * width).unwrap_or_default();
            self.draft.step(&self.recent[at..end], features, 1)?;
            at = end;
        }
        self.sure = self.draft.len();
        Ok(())
    }

    fn verify(&mut self) -> Result<Verdict> {
        let v = self.target.vocabulary();
        let draft = RowBuffer::new(&self.draft_probs, &self.draft_sums, v, self.drafted.len())
            .map_err(numeric)?;
        let rule = match (self.options.arm, &self.groups) {
            (Arm::Ar | Arm::Sd, _) => Rule::TokenLevel,
            (Arm::Tolerance { beta }, _) => Rule::Tolerance { beta },
            (Arm::Pcg { emission }, Some(groups)) => Rule::Groups { groups, emission },
            (Arm::Transport, Some(groups)) => Rule::Transport { groups },
            (Arm::Pcg { .. } | Arm::Transport, None) => unreachable!("checked by new"),
        };
        let mut target = TargetRows {
            model: &mut self.target,
            sampling: &self.options.sampling,
            probs: &mut self.target_probs,
            sums: &mut self.target_sums,
            scratch: &mut self.scratch,
        };
        accept::verify_lazily(&mut target, &draft, &self.drafted, &rule, &mut self.verify_rng)
    }

    /// Drops the tokens that both models have seen, or that the draft never will.
    fn forget(&mut self) {
        let seen = match self.options.gamma.most() {
            0 => self.target.len(),
            _ => self.target.len().min(self.draft.len()),
        };
        let known = (seen - self.base).min(self.recent.len() - 1);
        self.recent.drain(..known);
        self.features.drain(..known * self.feature.len());
        self.base += known;
    }

    /// Counters since the speculator was made.
    pub fn stats(&self) -> &SpecStats {
        &self.stats
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// The target's laws after its last pass, made where verification gets to them.
struct TargetRows<'a, T> {
    model: &'a mut T,
    sampling: &'a Sampling,
    probs: &'a mut [f32],
    sums: &'a mut [f32],
    scratch: &'a mut TransformScratch,
}

impl<T: TokenModel> LazyRows for TargetRows<'_, T> {
    type Error = Error;
    fn make(&mut self, i: usize) -> Result<Row<'_>> {
        let Self { model, sampling, probs, sums, scratch } = self;
        sampling.apply(*model, i, probs, sums, scratch)?;
        Row::new(probs, sums).map_err(numeric)
    }
}

impl From<AcceptError> for Error {
    /// Says whose fault it is: the index's, a pair of files', the caller's, or the model's.
    fn from(e: AcceptError) -> Self {
        let kind = match e {
            AcceptError::GroupMismatch { .. }
            | AcceptError::MemberOutOfRange { .. }
            | AcceptError::OneSided { .. } => ErrorKind::Malformed,
            AcceptError::Codebook { .. } | AcceptError::Vocabulary { .. } => ErrorKind::Mismatch,
            AcceptError::Beta(_) | AcceptError::NotSymmetric => ErrorKind::InvalidArgument,
            _ => ErrorKind::Numeric,
        };
        Error::with_source(kind, STOPPED, e)
    }
}

const STOPPED: &str = "decoding cannot go on";

fn numeric(e: DistError) -> Error {
    Error::with_source(ErrorKind::Numeric, STOPPED, e)
}
