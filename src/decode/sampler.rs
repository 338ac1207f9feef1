use super::TokenModel;
use crate::core::dist::{RowMut, SUM_BLOCK, SamplingTransforms, TransformScratch};
use crate::core::penalty::{Context, Penalties};
use crate::{Error, ErrorKind, Result};

/// How logits become the law that tokens are drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What the context changes, before everything else.
    pub penalties: Penalties,
    /// Divides the logits; 0 always takes the most probable token (lowest id of equals).
    pub temperature: f32,
    /// Applied to the probabilities, in the order top-k, top-p, min-p.
    pub transforms: SamplingTransforms,
}

/// Buffers of [`Sampling::apply`]; make one a loop and reuse it.
#[derive(Debug, Default)]
pub struct Scratch {
    transforms: TransformScratch,
    /// `[vocabulary]` once penalties changed some.
    logits: Vec<f32>,
}

impl Scratch {
    /// With room for the logits of `vocabulary` tokens, if `sampling` changes any.
    pub fn new(sampling: &Sampling, vocabulary: usize) -> Self {
        let logits = if sampling.penalties.are_off() { 0 } else { vocabulary };
        Self { transforms: TransformScratch::new(), logits: vec![0.0; logits] }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            penalties: Penalties::default(),
            temperature: 1.0,
            transforms: SamplingTransforms::default(),
        }
    }
}

impl Sampling {
    /// The first value that is out of its range: its name, and what it must be.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let SamplingTransforms { top_p, min_p, .. } = self.transforms;
        let (least, most) = Penalties::REPETITION;
        if !(least..=most).contains(&self.penalties.repetition) {
            return Some(("repetition-penalty", "between 0.01 and 100 (1 is off)"));
        }
        if !(0.0..=100.0).contains(&self.temperature) {
            return Some(("temperature", "between 0 (greedy) and 100"));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Some(("top-p", "above 0 and at most 1 (1 keeps every token)"));
        }
        if !(0.0..1.0).contains(&min_p) {
            return Some((
                "min-p",
                "at least 0 (off) and below 1 (for the likeliest alone: temperature 0)",
            ));
        }
        None
    }

    /// Whether every value is in its range.
    ///
    /// # Errors
    /// `InvalidArgument` naming the option.
    pub fn check(&self) -> Result<()> {
        match self.fault() {
            Some((name, range)) => {
                Err(Error::new(ErrorKind::InvalidArgument, format!("{name} must be {range}")))
            }
            None => Ok(()),
        }
    }

    /// Turns row `row` of the model's last pass into probabilities and block sums: the law
    /// that tokens are drawn from behind `context`. `probs` is `[vocabulary]`, `sums` its
    /// blocks'.
    ///
    /// # Errors
    /// `Numeric` if the logits are not numbers.
    pub fn apply(
        &self,
        model: &mut impl TokenModel,
        row: usize,
        context: &Context<'_>,
        probs: &mut [f32],
        sums: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let changed = !self.penalties.are_off();
        if changed {
            scratch.logits.resize(probs.len(), 0.0);
            let logits = &model.logits()[row * probs.len()..][..probs.len()];
            self.penalties.apply(logits, context, &mut scratch.logits);
        }
        if self.temperature == 0.0 {
            let best = match changed {
                true => argmax(&scratch.logits),
                false => argmax(&model.logits()[row * probs.len()..][..probs.len()]),
            };
            let best = best.ok_or_else(not_finite)?;
            probs.fill(0.0);
            sums.fill(0.0);
            probs[best] = 1.0;
            sums[best / SUM_BLOCK] = 1.0;
            return Ok(());
        }
        let inverse_temperature = 1.0 / self.temperature;
        let sound = match changed {
            true => model.softmax_of(&scratch.logits, inverse_temperature, probs, sums),
            false => model.softmax(row, inverse_temperature, probs, sums),
        };
        if !sound {
            return Err(not_finite());
        }
        if self.transforms != SamplingTransforms::default() {
            RowMut::new(probs, sums)
                .and_then(|mut row| row.transform(&self.transforms, &mut scratch.transforms))
                .map_err(|e| Error::with_source(ErrorKind::Numeric, "sampling failed", e))?;
        }
        Ok(())
    }
}

fn not_finite() -> Error {
    Error::new(
        ErrorKind::Numeric,
        "the model's logits are not numbers: verify the bundle with `voxgrain inspect --verify`",
    )
}

fn argmax(logits: &[f32]) -> Option<usize> {
    let mut best = None;
    let mut max = f32::NEG_INFINITY;
    for (i, &l) in logits.iter().enumerate() {
        if l > max {
            (best, max) = (Some(i), l);
        }
    }
    best
}
