//! Our operators: what a plan is made of.
//!
//! Each reads its weights from the map and its state from the session's [`State`]. Graphs of
//! these operators alone are run by [`super::program`], without tensors. Where a graph has
//! operators of tract's too, tract runs it and hands the state through as a shared resource
//! of the turn; output tensors are recycled then.

use super::kv::{LayerCache, Rope};
use super::pool::{Attention, Pool};
use super::weight::{Floats, Halves, Weight};
use crate::kernel::{CODES, FACTORS, Kernel, factor_rows};
use std::cell::RefCell;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// Rows and columns.
pub(super) type Shape = (usize, usize);

/// What one session keeps between passes.
pub(super) struct State {
    pub pool: Arc<Pool>,
    /// Positions already in the caches.
    pub len: usize,
    /// Rows, from the last, whose output somebody reads; the head computes no others.
    pub wanted: usize,
    pub layers: Vec<Arc<LayerCache>>,
    /// Past rows of each causal convolution, `[k - 1][C]`, oldest first.
    pub tails: Vec<Vec<f32>>,
    rope: Rope,
    /// Output tensors to use again, by operator.
    recycled: Vec<Vec<Arc<Tensor>>>,
    window: Vec<f32>,
    rotated: Vec<f32>,
    half: Vec<u16>,
}

/// Sizes of recycled outputs kept for one operator.
pub(super) const SIZES_KEPT: usize = 4;

impl State {
    pub fn new(
        pool: Arc<Pool>,
        layers: Vec<LayerCache>,
        tails: Vec<Vec<f32>>,
        slots: usize,
    ) -> Self {
        Self {
            pool,
            len: 0,
            wanted: usize::MAX,
            layers: layers.into_iter().map(Arc::new).collect(),
            tails,
            rope: Rope::default(),
            recycled: vec![Vec::new(); slots],
            window: Vec::new(),
            rotated: Vec::new(),
            half: Vec::new(),
        }
    }

    /// A tensor `[rows, columns]` that nobody else holds; its contents are unspecified.
    fn output(&mut self, slot: usize, rows: usize, columns: usize) -> TractResult<Arc<Tensor>> {
        let kept = &mut self.recycled[slot];
        let free =
            kept.iter_mut().position(|t| t.shape() == [rows, columns] && Arc::get_mut(t).is_some());
        match free {
            Some(i) => Ok(kept.swap_remove(i)),
            None => Ok(Arc::new(Tensor::zero::<f32>(&[rows, columns])?)),
        }
    }

    fn keep(&mut self, slot: usize, tensor: &Arc<Tensor>) {
        let kept = &mut self.recycled[slot];
        if kept.len() == SIZES_KEPT {
            kept.remove(0);
        }
        kept.push(tensor.clone());
    }
}

/// What an operator computes; see models/README.md for each one's definition.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    FactorEmbed { hidden: usize, factors: Halves, extra: Halves },
    Embed { hidden: usize, table: Halves },
    RmsNorm { weight: Floats, epsilon: f32 },
    QMatMul { weight: Arc<Weight>, bias: Option<Floats> },
    Attention { layer: usize, heads: usize, kv_heads: usize, head_dim: usize, rope_base: f32 },
    SwiGlu,
    FactorLogits,
    FsqEmbed { channels: usize, weight: Floats, bias: Floats },
    CausalConv { tail: usize, taps: usize, weight: Floats, bias: Floats },
    LayerNorm { weight: Floats, bias: Floats, epsilon: f32 },
    Gelu { tanh: bool },
    Upsample { factor: usize },
}

impl Kind {
    pub fn op_type(&self) -> &'static str {
        match self {
            Kind::FactorEmbed { .. } => "FactorEmbed",
            Kind::Embed { .. } => "Embed",
            Kind::RmsNorm { .. } => "RmsNorm",
            Kind::QMatMul { .. } => "QMatMul",
            Kind::Attention { .. } => "Attention",
            Kind::SwiGlu => "SwiGlu",
            Kind::FactorLogits => "FactorLogits",
            Kind::FsqEmbed { .. } => "FsqEmbed",
            Kind::CausalConv { .. } => "CausalConv",
            Kind::LayerNorm { .. } => "LayerNorm",
            Kind::Gelu { .. } => "Gelu",
            Kind::Upsample { .. } => "Upsample",
        }
    }
}

impl Kind {
    /// Whether the input is tokens, not activations.
    pub fn reads_tokens(&self) -> bool {
        matches!(self, Kind::FactorEmbed { .. } | Kind::Embed { .. } | Kind::FsqEmbed { .. })
    }
}

/// One node. Two nodes are equal when they are the same node: their state differs.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub kind: Arc<Kind>,
    /// Where its recycled outputs are.
    pub slot: usize,
    /// Whether it keeps only the rows that are wanted.
    pub selects_rows: bool,
}

impl PartialEq for Operator {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kind, &other.kind)
    }
}
impl Eq for Operator {}

impl Op for Operator {
    fn name(&self) -> StaticName {
        self.kind.op_type().into()
    }
    op_as_typed_op!();
}

impl TypedOp for Operator {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.check(inputs)?;
        let rows = inputs[0].shape[0].clone();
        let columns = inputs[0].shape.get(1).cloned().unwrap_or_else(|| 1.to_dim());
        let (rows, columns) = self.shape(rows, columns)?;
        Ok(tvec!(f32::fact(&[rows, columns])))
    }
}

/// The symbol of the rows that the head keeps.
pub(super) const WANTED: &str = "wanted";

impl Operator {
    /// Whether the inputs are what the weights were made for, so that no pass can fail.
    fn check(&self, inputs: &[&TypedFact]) -> TractResult<()> {
        let residual = matches!(*self.kind, Kind::QMatMul { .. }) && inputs.len() == 2;
        ensure!(inputs.len() == 1 || residual, "{} inputs", inputs.len());
        let x = inputs[0];
        if self.kind.reads_tokens() {
            ensure!(x.datum_type == i64::datum_type() && x.rank() == 1, "tokens are {x:?}");
            return Ok(());
        }
        ensure!(x.datum_type == f32::datum_type() && x.rank() == 2, "activations are {x:?}");
        let columns = x.shape[1].to_usize()?;
        let need = match &*self.kind {
            Kind::RmsNorm { weight, .. } | Kind::LayerNorm { weight, .. } => weight.len(),
            Kind::QMatMul { weight, .. } => weight.shape().k,
            Kind::Attention { heads, kv_heads, head_dim, .. } => (heads + 2 * kv_heads) * head_dim,
            Kind::CausalConv { bias, .. } => bias.len(),
            Kind::SwiGlu => columns / 2 * 2,
            Kind::FactorLogits => columns.max(FACTORS),
            Kind::Upsample { factor } => columns / factor * factor,
            _ => columns,
        };
        ensure!(need == columns && columns > 0, "{columns} columns where {need} are needed");
        if residual {
            let r = inputs[1];
            let (rows, n) = self.shape(x.shape[0].clone(), x.shape[1].clone())?;
            ensure!(
                r.datum_type == f32::datum_type() && *r.shape == [rows, n],
                "the residual is {r:?}"
            );
        }
        Ok(())
    }

    fn shape(&self, rows: TDim, columns: TDim) -> TractResult<(TDim, TDim)> {
        let columns = match &*self.kind {
            Kind::FactorEmbed { hidden, .. } | Kind::Embed { hidden, .. } => hidden.to_dim(),
            Kind::FsqEmbed { channels, .. } => channels.to_dim(),
            Kind::QMatMul { weight, .. } => weight.shape().n.to_dim(),
            Kind::Attention { heads, head_dim, .. } => (heads * head_dim).to_dim(),
            Kind::SwiGlu => columns / 2,
            Kind::FactorLogits => columns - FACTORS + CODES,
            Kind::Upsample { factor } => return Ok((rows * *factor, columns / *factor)),
            _ => columns,
        };
        Ok((rows, columns))
    }
}

impl Expansion for Operator {
    fn name(&self) -> StaticName {
        self.kind.op_type().into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        _inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&outputs[0].rank, 2)?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let wires = model.wire_node(prefix, self.clone(), inputs)?;
        if self.selects_rows {
            let rows = model.symbols.sym(WANTED);
            let mut fact = model.outlet_fact(wires[0])?.clone();
            fact.shape.set(0, rows.to_dim());
            model.set_outlet_fact(wires[0], fact)?;
        }
        Ok(wires)
    }
}

impl Operator {
    /// Shape of the output for an input of `rows x columns` of which `wanted` rows are read.
    pub fn out_shape(&self, (rows, columns): Shape, wanted: usize) -> Shape {
        let rows = if self.selects_rows { rows.min(wanted) } else { rows };
        match &*self.kind {
            Kind::FactorEmbed { hidden, .. } | Kind::Embed { hidden, .. } => (rows, *hidden),
            Kind::FsqEmbed { channels, .. } => (rows, *channels),
            Kind::QMatMul { weight, .. } => (rows, weight.shape().n),
            Kind::Attention { heads, head_dim, .. } => (rows, heads * head_dim),
            Kind::SwiGlu => (rows, columns / 2),
            Kind::FactorLogits => (rows, columns - FACTORS + CODES),
            Kind::Upsample { factor } => (rows * factor, columns / factor),
            _ => (rows, columns),
        }
    }
}

/// The session's state for the turn.
pub(super) type Shared = RefCell<State>;

impl EvalOp for Operator {
    not_out_of_plan!();

    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let state = ctx
            .shared
            .and_then(|s| s.get::<Shared>())
            .context("this plan runs inside a session only")?;
        let state = &mut *state.borrow_mut();
        let shape = inputs[0].shape();
        let from = (shape[0], shape.get(1).copied().unwrap_or(1));
        let to = self.out_shape(from, state.wanted);
        let mut out = state.output(self.slot, to.0, to.1)?;
        let tokens = self.kind.reads_tokens();
        let view = inputs[0].try_as_plain_ram()?;
        let (tokens, x) = match tokens {
            true => (view.as_slice::<i64>()?, &[][..]),
            false => (&[][..], view.as_slice::<f32>()?),
        };
        let residual = inputs.get(1).map(floats).transpose()?;
        self.compute(state, tokens, x, from, residual, floats_mut(&mut out)?)?;
        state.keep(self.slot, &out);
        Ok(tvec!(TValue::from_const(out)))
    }
}

fn floats(t: &TValue) -> TractResult<&[f32]> {
    t.try_as_plain_ram()?.as_slice::<f32>()
}

fn floats_mut(t: &mut Arc<Tensor>) -> TractResult<&mut [f32]> {
    let t = Arc::get_mut(t).context("output tensor is shared")?;
    t.to_plain_array_view_mut::<f32>()?.into_slice().context("output tensor is strided")
}

impl Operator {
    /// Computes `out` of the shape that [`out_shape`](Self::out_shape) says, from `tokens` or
    /// from `x[rows][columns]`.
    pub fn compute(
        &self,
        state: &mut State,
        tokens: &[i64],
        mut x: &[f32],
        (mut rows, columns): Shape,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) -> TractResult<()> {
        let kernel = state.pool.kernel();
        if self.selects_rows && rows > state.wanted {
            x = &x[(rows - state.wanted) * columns..];
            rows = state.wanted;
        }
        // Row by row, `width` columns of output each.
        let each = |out: &mut [f32], width: usize, f: &mut dyn FnMut(&[f32], &mut [f32])| {
            for (x, o) in x.chunks_exact(columns).zip(out.chunks_exact_mut(width)) {
                f(x, o)
            }
        };
        match &*self.kind {
            Kind::FactorEmbed { hidden, factors, extra } => {
                for (o, &t) in out.chunks_exact_mut(*hidden).zip(tokens) {
                    let t = usize::try_from(t).ok().context("negative token")?;
                    if t < CODES {
                        kernel.sum_rows(factors.get(), &factor_rows(t), o);
                    } else {
                        ensure!(t - CODES < extra.len() / hidden, "token {t} unknown");
                        kernel.sum_rows(extra.get(), &[(t - CODES) as u32], o);
                    }
                }
            }
            Kind::Embed { hidden, table } => {
                for (o, &t) in out.chunks_exact_mut(*hidden).zip(tokens) {
                    let there = table.len() / hidden;
                    let row = u32::try_from(t).ok().filter(|&t| (t as usize) < there);
                    let row = row.with_context(|| format!("token {t} unknown"))?;
                    kernel.sum_rows(table.get(), &[row], o);
                }
            }
            Kind::FsqEmbed { channels, weight, bias } => {
                for (o, &t) in out.chunks_exact_mut(*channels).zip(tokens) {
                    for ((o, w), b) in
                        o.iter_mut().zip(weight.get().chunks_exact(8)).zip(bias.get())
                    {
                        *o = *b;
                        for (i, w) in w.iter().enumerate() {
                            let level = (t >> (2 * i) & 3) as f32;
                            *o = w.mul_add((level - 1.5) / 1.5, *o);
                        }
                    }
                }
            }
            Kind::RmsNorm { weight, epsilon } => {
                each(out, columns, &mut |x, o| kernel.rms_norm(x, weight.get(), *epsilon, o))
            }
            Kind::LayerNorm { weight, bias, epsilon } => each(out, columns, &mut |x, o| {
                kernel.layer_norm(x, weight.get(), bias.get(), *epsilon, o)
            }),
            Kind::QMatMul { weight, bias } => {
                let bias = bias.as_ref().map(Floats::get);
                state.pool.multiply(weight, x, bias, residual, out);
            }
            Kind::SwiGlu => {
                let half = columns / 2;
                each(out, half, &mut |x, o| kernel.swiglu(&x[..half], &x[half..], o))
            }
            Kind::Gelu { tanh } => {
                out.copy_from_slice(x);
                if *tanh { kernel.gelu_tanh(out) } else { kernel.gelu_erf(out) }
            }
            Kind::FactorLogits => {
                let width = columns - FACTORS + CODES;
                each(out, width, &mut |x, o| expand_logits(kernel, x, o))
            }
            Kind::Upsample { .. } => out.copy_from_slice(x),
            Kind::CausalConv { tail, taps, weight, bias } => {
                let past = &mut state.tails[*tail];
                let window = &mut state.window;
                window.clear();
                window.extend_from_slice(past);
                window.extend_from_slice(x);
                for (r, o) in out.chunks_exact_mut(columns).enumerate() {
                    let x = &window[r * columns..][..taps * columns];
                    kernel.conv(x, weight.get(), bias.get(), o);
                }
                past.copy_from_slice(&window[window.len() - (taps - 1) * columns..]);
            }
            Kind::Attention { layer, heads, kv_heads, head_dim, rope_base } => {
                let (d, group) = (*head_dim, heads / kv_heads);
                let past = state.len;
                let State { rope, layers, pool, rotated, half, .. } = state;
                rope.cover(*rope_base, d, past + rows);
                rotated.resize(d, 0.0);
                half.resize(d, 0);
                let layer = layers[*layer].clone();
                for kv in 0..*kv_heads {
                    let mut cache = layer.head_mut(kv);
                    for (r, x) in x.chunks_exact(columns).enumerate() {
                        rotated.copy_from_slice(&x[(heads + kv) * d..][..d]);
                        rope.rotate(kernel, rotated, past + r);
                        let value = &x[(heads + kv_heads + kv) * d..][..d];
                        cache.store(kernel, past + r, rotated, value, half);
                    }
                }
                let scale = 1.0 / (d as f32).sqrt();
                let query = |query: &mut [f32]| {
                    let mut query = query.chunks_exact_mut(d);
                    for kv in 0..*kv_heads {
                        for (r, x) in x.chunks_exact(columns).enumerate() {
                            let heads = x[kv * group * d..][..group * d].chunks_exact(d);
                            for (x, q) in heads.zip(&mut query) {
                                for (q, x) in q.iter_mut().zip(x) {
                                    *q = x * scale;
                                }
                                rope.rotate(kernel, q, past + r);
                            }
                        }
                    }
                };
                let task = Attention { layer, head_dim: d, group, past, rows };
                pool.attend(&task, query, out);
            }
        }
        Ok(())
    }
}

/// One row of logits from its scores: the codes, then what stands for a token itself.
pub(super) fn expand_logits(kernel: Kernel, scores: &[f32], logits: &mut [f32]) {
    kernel.factor_logits(&scores[..FACTORS], &mut logits[..CODES]);
    logits[CODES..].copy_from_slice(&scores[FACTORS..]);
}
