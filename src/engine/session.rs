use super::graph::Model;
use super::ops::{Shared, State};
use super::pool::Pool;
use crate::{Error, ErrorKind, Result};
use std::cell::RefCell;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

fn failed(what: &str, e: TractError) -> Error {
    Error::with_source(ErrorKind::Numeric, format!("{what} failed; the model may be damaged"), e)
}

/// A running plan with its state.
struct Runner {
    state: TypedSimpleState,
    output: Option<TValue>,
    tokens: Arc<Tensor>,
}

impl Runner {
    fn new(model: &Model, pool: &Arc<Pool>, positions: usize) -> Result<Self> {
        let mut state = model.plan.spawn().map_err(|e| failed("starting a session", e))?;
        let own: Shared = RefCell::new(model.state(pool.clone(), positions));
        state.turn_state.shared.insert(own);
        let tokens = Arc::new(Tensor::zero::<i64>(&[1]).map_err(|e| failed("starting", e))?);
        Ok(Self { state, output: None, tokens })
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut State) -> T) -> T {
        match self.state.turn_state.shared.get_mut::<Shared>() {
            Some(s) => f(s.get_mut()),
            None => unreachable!("inserted by new"),
        }
    }

    fn run(&mut self, tokens: &[u32]) -> Result<()> {
        self.output = None;
        let mut run = || -> TractResult<()> {
            if self.tokens.shape() != [tokens.len()] || Arc::get_mut(&mut self.tokens).is_none() {
                self.tokens = Arc::new(Tensor::zero::<i64>(&[tokens.len()])?);
            }
            let t = Arc::get_mut(&mut self.tokens).context("token buffer is shared")?;
            for (s, &t) in t.to_plain_array_view_mut::<i64>()?.iter_mut().zip(tokens) {
                *s = t as i64;
            }
            let inputs = tvec!(TValue::from_const(self.tokens.clone()));
            self.output = self.state.run(inputs)?.pop();
            Ok(())
        };
        run().map_err(|e| {
            // A failed pass leaves wires behind; the next one must not see them.
            let _ = self.state.reset_turn();
            failed("a model pass", e)
        })
    }

    /// `[rows][columns]` of the last pass.
    fn output(&self) -> &[f32] {
        self.output
            .as_ref()
            .and_then(|t| t.as_plain_ram())
            .and_then(|v| v.as_slice::<f32>().ok())
            .unwrap_or(&[])
    }
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
        Ok(Self { model: model.clone(), runner, len: 0, positions, wanted: 0 })
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
        if tokens.is_empty() || tokens.len() > self.room() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "a pass of {} tokens behind {} does not fit a context of {}: split the text",
                    tokens.len(),
                    self.len,
                    self.positions
                ),
            ));
        }
        let (len, wanted) = (self.len, wanted.clamp(1, tokens.len()));
        self.runner.with(|s| {
            s.len = len;
            s.wanted = wanted;
        });
        self.runner.run(tokens)?;
        self.len += tokens.len();
        self.wanted = wanted;
        Ok(())
    }

    /// Logits of the last pass, `[wanted][vocabulary]`.
    pub fn logits(&self) -> &[f32] {
        // A graph that ends in standard operators gives every row.
        let all = self.runner.output();
        &all[all.len().saturating_sub(self.wanted * self.vocabulary())..]
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
        self.runner.run(tokens)?;
        Ok(self.runner.output())
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
