//! Positions of the target's own speech: its law and the draft's, after the same sampling.

use std::sync::Arc;
use voxgrain::core::dist::{Row, TransformScratch, block_count};
use voxgrain::core::rng::{SeededRng, Uniform};
use voxgrain::decode::{PREFILL_ROWS, Sampling, TokenModel};
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
        scratch: &mut TransformScratch,
    ) -> Result<()> {
        sampling.apply(model, 0, &mut self.probs, &mut self.sums, scratch)
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
    scratch: Box<TransformScratch>,
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
            draft: Session::new(voice.draft(), pool)?,
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
                features.extend_from_slice(&feature);
                self.target.features(0..chunk.len(), width, &mut features);
                feature.copy_from_slice(&features[chunk.len() * width..]);
                features.truncate(chunk.len() * width);
            }
            self.draft.step_with(chunk, &features, 1)?;
        }
        let mut tokens = Vec::new();
        loop {
            let sampling = self.sampling;
            self.p.take(&sampling, &mut self.target, &mut self.scratch)?;
            let token = self.p.draw(&mut rng)?;
            if chosen(tokens.len()) && self.draft.room() > depth && self.target.room() > depth {
                self.q.take(&sampling, &mut self.draft, &mut self.scratch)?;
                visit(Position { depth: 1, target: &self.p, draft: &self.q })?;
                self.deeper(depth, &mut rng, &mut visit)?;
            }
            if token == end || tokens.len() >= limit || self.target.room() == 0 {
                return Ok(tokens);
            }
            tokens.push(token);
            self.target.step(&[token], 1)?;
            self.draft.step_with(&[token], &feature, 1)?;
            if width > 0 {
                feature.clear();
                self.target.features(0..1, width, &mut feature);
            }
        }
    }

    /// Follows the draft's own drafts, then forgets them.
    fn deeper(
        &mut self,
        depth: usize,
        rng: &mut SeededRng,
        visit: &mut impl FnMut(Position<'_>) -> Result<()>,
    ) -> Result<()> {
        let end = self.voice.bundle().vocabulary.end_of_speech;
        let (seen, known) = (self.target.len(), self.draft.len());
        let mut token = self.q.draw(rng)?;
        for depth in 2..=depth {
            if token == end {
                break;
            }
            let features = match self.draft.feature_width() {
                0 => Vec::new(),
                width => {
                    // Nothing stands in for the taps.
                    let own = self.draft.hidden();
                    let own = &own[own.len() - self.draft.hidden_width()..];
                    let mut features = vec![0.0; width - own.len()];
                    features.extend_from_slice(own);
                    features
                }
            };
            self.draft.step_with(&[token], &features, 1)?;
            self.target.step(&[token], 1)?;
            let (sampling, scratch) = (self.sampling, &mut self.scratch);
            self.chain.0.take(&sampling, &mut self.target, scratch)?;
            self.chain.1.take(&sampling, &mut self.draft, scratch)?;
            visit(Position { depth, target: &self.chain.0, draft: &self.chain.1 })?;
            token = self.chain.1.draw(rng)?;
        }
        self.target.rollback(seen);
        self.draft.rollback(known);
        Ok(())
    }
}
