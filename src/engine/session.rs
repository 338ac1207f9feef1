use super::model::Model;
use super::ops::expand_logits;
use super::pool::Pool;
use super::program::Buffers;
use super::state::{State, StateCell};
use crate::kernel::{CODES, FACTORS};
use crate::{Error, ErrorKind, Result};
use std::cell::RefCell;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

fn failed(what: &str, e: TractError) -> Error {
    Error::with_source(ErrorKind::Numeric, format!("{what} failed; the model may be damaged"), e)
}

/// A model with the state of one session.
enum Runner {
    /// All operators are ours.
    Own { model: Arc<Model>, state: State, buffers: Buffers },
    /// Some are tract's, so tract runs them all.
    Plan {
        state: TypedSimpleState,
        outputs: TVec<TValue>,
        tokens: Arc<Tensor>,
        features: Arc<Tensor>,
    },
}

impl Runner {
    fn new(model: &Arc<Model>, pool: &Arc<Pool>, positions: usize) -> Result<Self> {
        let own = model.state(pool.clone(), positions);
        if model.program.is_some() {
            let buffers = Buffers::default();
            return Ok(Self::Own { model: model.clone(), state: own, buffers });
        }
        let mut state = model.plan.spawn().map_err(|e| failed("starting a session", e))?;
        let own: StateCell = RefCell::new(own);
        state.turn_state.shared.insert(own);
        let tokens = Arc::new(Tensor::zero::<i64>(&[1]).map_err(|e| failed("starting", e))?);
        let features = Tensor::zero::<f32>(&[1, model.feature_width()]);
        let features = Arc::new(features.map_err(|e| failed("starting", e))?);
        Ok(Self::Plan { state, outputs: tvec!(), tokens, features })
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut State) -> T) -> T {
        match self {
            Self::Own { state, .. } => f(state),
            Self::Plan { state, .. } => match state.turn_state.shared.get_mut::<StateCell>() {
                Some(s) => f(s.get_mut()),
                None => unreachable!("inserted by new"),
            },
        }
    }

    fn run(&mut self, given: &[u32], numbers: &[f32]) -> Result<()> {
        match self {
            Self::Own { model, state, buffers } => match &model.program {
                Some(program) => buffers.run(program, state, given, numbers),
                None => unreachable!("checked by new"),
            }
            .map_err(|e| failed("a model pass", e)),
            Self::Plan { state, outputs, tokens, features } => {
                outputs.clear();
                let mut run = || -> TractResult<()> {
                    fill(tokens, &[given.len()], given.iter().map(|&t| i64::from(t)))?;
                    let mut inputs = tvec!(TValue::from_const(tokens.clone()));
                    if !numbers.is_empty() {
                        let width = numbers.len() / given.len();
                        fill(features, &[given.len(), width], numbers.iter().copied())?;
                        inputs.push(TValue::from_const(features.clone()));
                    }
                    *outputs = state.run(inputs)?;
                    Ok(())
                };
                let result = run();
                result.map_err(|e| {
                    // A failed pass leaves wires behind; the next one must not see them.
                    let _ = state.reset_turn();
                    failed("a model pass", e)
                })
            }
        }
    }

    /// `[rows][columns]` of one output of the last pass.
    fn output(&self, which: usize) -> &[f32] {
        match self {
            Self::Own { model, buffers, .. } => match &model.program {
                Some(program) => buffers.output(program, which),
                None => &[],
            },
            Self::Plan { outputs, .. } => outputs
                .get(which)
                .and_then(|t| t.as_plain_ram())
                .and_then(|v| v.as_slice::<f32>().ok())
                .unwrap_or(&[]),
        }
    }
}

/// Overwrites an input, which is made anew only where its shape changes.
fn fill<T: Datum + Copy>(
    tensor: &mut Arc<Tensor>,
    shape: &[usize],
    values: impl Iterator<Item = T>,
) -> TractResult<()> {
    if tensor.shape() != shape || Arc::get_mut(tensor).is_none() {
        *tensor = Arc::new(Tensor::zero_dt(T::datum_type(), shape)?);
    }
    let t = Arc::get_mut(tensor).context("an input is shared")?;
    for (slot, value) in t.to_plain_array_view_mut::<T>()?.iter_mut().zip(values) {
        *slot = value;
    }
    Ok(())
}

/// A language model at one point of one utterance: its context and the last logits.
///
/// The context grows with [`step`](Self::step) and shrinks with
/// [`rollback`](Self::rollback), which costs nothing.
pub struct Session {
    model: Arc<Model>,
    runner: Runner,
    len: usize,
    positions: usize,
    wanted: usize,
    /// Logits of a factorised head, once somebody asked for them.
    logits: Vec<f32>,
    expanded: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?}, {} positions)", self.model, self.len)
    }
}

impl Session {
    /// An empty context.
    pub fn new(model: &Arc<Model>, pool: &Arc<Pool>) -> Result<Self> {
        Self::with_positions(model, pool, model.max_positions())
    }

    /// An empty context that holds `positions` at most, or the model's own limit if that is
    /// less: its caches are as large as that.
    pub fn with_positions(model: &Arc<Model>, pool: &Arc<Pool>, positions: usize) -> Result<Self> {
        let positions = positions.min(model.max_positions());
        let runner = Runner::new(model, pool, positions)?;
        Ok(Self {
            model: model.clone(),
            runner,
            len: 0,
            positions,
            wanted: 0,
            logits: Vec::new(),
            expanded: false,
        })
    }

    /// Positions in the context.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the context is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that may still be added.
    pub fn room(&self) -> usize {
        self.positions - self.len
    }

    /// Runs `tokens` in one pass behind the context and keeps the logits of the last
    /// `wanted` of them (at most all), see [`logits`](Self::logits).
    ///
    /// # Errors
    /// `InvalidArgument` when no token is given or the context would grow beyond the
    /// model's longest; the context is unchanged then.
    pub fn step(&mut self, tokens: &[u32], wanted: usize) -> Result<()> {
        self.step_with(tokens, &[], wanted)
    }

    /// [`step`](Self::step) of a model that reads features beside its tokens:
    /// `features[tokens][feature_width]`, those of a token being the states of the target that
    /// predicted it ([`hidden`](Self::hidden) of the token before, or its taps and then that),
    /// zeros for the first one.
    ///
    /// # Errors
    /// `InvalidArgument` as well if there are more or fewer features than that.
    pub fn step_with(&mut self, tokens: &[u32], features: &[f32], wanted: usize) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        if tokens.is_empty() || tokens.len() > self.room() {
            return invalid(format!(
                "a pass of {} tokens behind {} does not fit a context of {}: split the text",
                tokens.len(),
                self.len,
                self.positions
            ));
        }
        if features.len() != tokens.len() * self.model.feature_width() {
            return invalid(format!(
                "{} tokens need {} features each, {} were given in all: a draft that reads \
                 features works only beside its target",
                tokens.len(),
                self.model.feature_width(),
                features.len()
            ));
        }
        let (len, wanted) = (self.len, wanted.clamp(1, tokens.len()));
        self.runner.with(|s| {
            s.len = len;
            s.wanted = wanted;
        });
        self.expanded = false;
        self.runner.run(tokens, features)?;
        self.len += tokens.len();
        self.wanted = wanted;
        Ok(())
    }

    /// Logits of the last pass, `[wanted][vocabulary]`.
    pub fn logits(&mut self) -> &[f32] {
        if !self.model.factored {
            return self.scores();
        }
        if !self.expanded {
            let kernel = self.runner.with(|s| s.pool.kernel());
            let v = self.vocabulary();
            let mut logits = std::mem::take(&mut self.logits);
            let (scores, width) = (self.scores(), self.score_columns());
            logits.resize(scores.len() / width * v, 0.0);
            for (x, o) in scores.chunks_exact(width).zip(logits.chunks_exact_mut(v)) {
                expand_logits(kernel, x, o);
            }
            (self.logits, self.expanded) = (logits, true);
        }
        &self.logits
    }

    /// What the plan ends in, logits or the scores of their factors, of the wanted rows.
    fn scores(&self) -> &[f32] {
        // A graph that ends in standard operators gives every row.
        let all = self.runner.output(0);
        &all[all.len().saturating_sub(self.wanted * self.score_columns())..]
    }

    fn score_columns(&self) -> usize {
        match self.model.factored {
            true => self.vocabulary() - CODES + FACTORS,
            false => self.vocabulary(),
        }
    }

    /// `probs[vocabulary] = softmax(logits / temperature)` of row `row` of the wanted ones,
    /// and the sum of each block of 256 in `sums`. `false` if they are not numbers.
    pub fn softmax(
        &mut self,
        row: usize,
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool {
        let kernel = self.runner.with(|s| s.pool.kernel());
        if self.model.factored {
            let width = self.score_columns();
            let scores = &self.scores()[row * width..][..width];
            if kernel.factor_softmax(scores, inverse_temperature, probs, sums) {
                return true;
            }
        }
        let v = self.vocabulary();
        let logits = &self.logits()[row * v..][..v];
        kernel.softmax(logits, inverse_temperature, probs, sums).is_finite()
    }

    /// Hidden states before the head of every token of the last pass, `[tokens][hidden]`;
    /// empty if the model does not give them.
    pub fn hidden(&self) -> &[f32] {
        self.runner.output(1)
    }

    /// Rows of the residual stream of every token of the last pass, as [`hidden`](Self::hidden)
    /// and as wide; empty from [`taps`](Self::taps) on.
    pub fn tap(&self, which: usize) -> &[f32] {
        match which < self.taps() {
            true => self.runner.output(2 + which),
            false => &[],
        }
    }

    /// How many [`tap`](Self::tap)s the model gives.
    pub fn taps(&self) -> usize {
        self.model.taps()
    }

    /// Width of the features that each token needs, see [`step_with`](Self::step_with).
    pub fn feature_width(&self) -> usize {
        self.model.feature_width()
    }

    /// Width of [`hidden`](Self::hidden).
    pub fn hidden_width(&self) -> usize {
        self.model.hidden_width()
    }

    /// Tokens that have logits.
    pub fn vocabulary(&self) -> usize {
        self.model.output_columns()
    }

    /// Forgets everything from position `len` on; longer than the context is no change.
    pub fn rollback(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// The codec decoder's network at one point of a stream of tokens.
pub struct CodecSession {
    model: Arc<Model>,
    runner: Runner,
}

impl std::fmt::Debug for CodecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodecSession({:?})", self.model)
    }
}

impl CodecSession {
    /// The start of a stream.
    pub fn new(model: &Arc<Model>, pool: &Arc<Pool>) -> Result<Self> {
        Ok(Self { model: model.clone(), runner: Runner::new(model, pool, 0)? })
    }

    /// Decodes the next tokens and returns their spectra, `[frames][columns]`.
    pub fn push(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        if tokens.is_empty() {
            return Ok(&[]);
        }
        self.runner.run(tokens, &[])?;
        Ok(self.runner.output(0))
    }

    /// Values a frame.
    pub fn columns(&self) -> usize {
        self.model.output_columns()
    }

    /// Back to the start of a stream.
    pub fn reset(&mut self) {
        self.runner.with(|s| s.tails.iter_mut().for_each(|t| t.fill(0.0)));
    }
}
