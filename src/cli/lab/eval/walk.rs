//! Positions of the target's own speech: its law and the draft's, after the same sampling.

use crate::cli::no_draft;
use std::sync::Arc;
use voxgrain::core::dist::{Row, block_count};
use voxgrain::core::penalty::Context;
use voxgrain::core::rng::{SeededRng, Uniform};
use voxgrain::decode::{PREFILL_ROWS, Sampling, Scratch};
use voxgrain::engine::{Pool, Session};
use voxgrain::speech::synth::Voice;
use voxgrain::{Error, ErrorKind, Result};

/// A probability row with its sums.
#[derive(Clone)]
pub struct Law {
    pub probs: Vec<f32>,
    pub sums: Vec<f32>,
}

impl Law {
    fn new(vocabulary: usize) -> Self {
        Self { probs: vec![0.0; vocabulary], sums: vec![0.0; block_count(vocabulary)] }
    }

    /// The law of the model's last row.
    fn take(
        &mut self,
        sampling: &Sampling,
        model: &mut Session,
        context: &Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        sampling.apply(model, 0, context, &mut self.probs, &mut self.sums, scratch)
    }

    pub fn row(&self) -> Result<Row<'_>> {
        Row::new(&self.probs, &self.sums).map_err(numeric)
    }

    pub fn draw(&self, rng: &mut impl Uniform) -> Result<u32> {
        self.row()?.draw(rng.uniform()).map_err(numeric)
    }
}

pub fn numeric(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Numeric, "a law cannot be used", e)
}

/// One chosen position.
pub struct Position<'a> {
    /// 1: the draft read the target's true states. `d`: behind `d - 1` drafts of its own.
    pub depth: usize,
    pub target: &'a Law,
    pub draft: &'a Law,
}

pub struct Walk<'a> {
    voice: &'a Voice,
    sampling: Sampling,
    target: Session,
    draft: Session,
    p: Law,
    q: Law,
    chain: (Law, Law),
    scratch: Box<Scratch>,
}

impl<'a> Walk<'a> {
    pub fn new(voice: &'a Voice, pool: &Arc<Pool>, sampling: Sampling) -> Result<Self> {
        sampling.check()?;
        let v = voice.bundle().vocabulary.scored();
        let law = || Law::new(v);
        Ok(Self {
            voice,
            sampling,
            target: Session::new(voice.target(), pool)?,
            draft: Session::new(voice.draft().ok_or_else(no_draft)?, pool)?,
            p: law(),
            q: law(),
            chain: (law(), law()),
            scratch: Box::default(),
        })
    }

    /// The target speaks one chunk of text; `visit` sees every position that `chosen` names,
    /// up to `depth` drafts deep. Returns the tokens.
    pub fn speak(
        &mut self,
        text: &str,
        seed: u64,
        depth: usize,
        chosen: impl Fn(usize) -> bool,
        mut visit: impl FnMut(Position<'_>) -> Result<()>,
    ) -> Result<Vec<u32>> {
        let prompt = self.voice.prompt(text)?;
        let limit = Voice::limit(&prompt);
        let end = self.voice.bundle().vocabulary.end_of_speech;
        let width = self.draft.feature_width();
        let mut rng = SeededRng::new(seed);
        self.target.rollback(0);
        self.draft.rollback(0);
        // What predicted the next token that is fed; nothing predicted the first.
        let mut feature = vec![0f32; width];
        let mut features = Vec::new();
        for chunk in prompt.chunks(PREFILL_ROWS) {
            self.target.step(chunk, 1)?;
            features.clear();
            if width > 0 {
                let hidden = self.target.hidden();
                let (before, last) = hidden.split_at(hidden.len() - width);
                features.extend_from_slice(&feature);
                features.extend_from_slice(before);
                feature.copy_from_slice(last);
            }
            self.draft.step_with(chunk, &features, 1)?;
        }
        let (asked, mut context) = (prompt.len(), prompt);
        let mut tokens = Vec::new();
        loop {
            let sampling = self.sampling;
            let before = Context { tokens: &context, drafted: &[], emitted: tokens.len(), end };
            self.p.take(&sampling, &mut self.target, &before, &mut self.scratch)?;
            let token = self.p.draw(&mut rng)?;
            if chosen(tokens.len()) && self.draft.room() > depth && self.target.room() > depth {
                self.q.take(&sampling, &mut self.draft, &before, &mut self.scratch)?;
                visit(Position { depth: 1, target: &self.p, draft: &self.q })?;
                self.deeper(depth, &context, asked, &mut rng, &mut visit)?;
            }
            if token == end || tokens.len() >= limit || self.target.room() == 0 {
                return Ok(tokens);
            }
            tokens.push(token);
            context.push(token);
            self.target.step(&[token], 1)?;
            self.draft.step_with(&[token], &feature, 1)?;
            if width > 0 {
                feature.copy_from_slice(self.target.hidden());
            }
        }
    }

    /// Follows the draft's own drafts behind `tokens`, of which a prompt of `asked` is the first
    /// part, then forgets them.
    fn deeper(
        &mut self,
        depth: usize,
        tokens: &[u32],
        asked: usize,
        rng: &mut SeededRng,
        visit: &mut impl FnMut(Position<'_>) -> Result<()>,
    ) -> Result<()> {
        let end = self.voice.bundle().vocabulary.end_of_speech;
        let (seen, known) = (self.target.len(), self.draft.len());
        let mut token = self.q.draw(rng)?;
        let mut drafted = Vec::with_capacity(depth);
        for depth in 2..=depth {
            if token == end {
                break;
            }
            let features = match self.draft.feature_width() {
                0 => Vec::new(),
                width => {
                    let hidden = self.draft.hidden();
                    hidden[hidden.len() - width..].to_vec()
                }
            };
            self.draft.step_with(&[token], &features, 1)?;
            self.target.step(&[token], 1)?;
            drafted.push(token);
            let before = Context { tokens, drafted: &drafted, emitted: tokens.len() - asked, end };
            let (sampling, scratch) = (self.sampling, &mut self.scratch);
            self.chain.0.take(&sampling, &mut self.target, &before, scratch)?;
            self.chain.1.take(&sampling, &mut self.draft, &before, scratch)?;
            visit(Position { depth, target: &self.chain.0, draft: &self.chain.1 })?;
            token = self.chain.1.draw(rng)?;
        }
        self.target.rollback(seen);
        self.draft.rollback(known);
        Ok(())
    }
}
