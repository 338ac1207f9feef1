//! Our operators: what a plan is made of.
//!
//! Each reads its weights from the map and its state from the session's [`State`]. Graphs of
//! these operators alone are run by [`super::program`], without tensors. Where a graph has
//! operators of tract's too, tract runs it and hands the state through as a shared resource
//! of the turn; output tensors are recycled then.
//!
//! # To add an operator
//!
//! 1. Define it in models/README.md: inputs, attributes, what it computes.
//! 2. In the file of its family ([`tokens`], [`rows`], [`product`], [`mixing`], [`both`]) write a struct of
//!    its checked attributes and weights, a function `read` that makes it from a
//!    [`NodeReader`], and its [`Operator`]: how wide its output is and how that is computed.
//!    What it keeps from pass to pass belongs in [`State`] and is asked for through
//!    [`Needs`](super::node::Needs) by `read`.
//! 3. Name it in [`OPERATORS`]. That list is the only one: it registers the name with tract and
//!    finds `read`.
//!
//! A test against onnxruntime or PyTorch goes into tests/engine.rs, where every kernel and number
//! of threads must give the same bits.

mod both;
mod mixing;
mod product;
mod rows;
mod tokens;

pub(super) use rows::expand_logits;

use super::nbits;
use super::node::NodeReader;
use super::state::{State, StateCell};
use super::weight::Weight;
use crate::Result;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// Makes an operator of a node.
type Read = fn(&mut NodeReader) -> Result<Arc<dyn Operator>>;

/// Whose output the second matrix of a feed-forward layer reads.
pub(super) const GATE: &str = "SwiGlu";

/// Every operator of the domain, by its name in an ONNX file.
pub(super) const OPERATORS: &[(&str, Read)] = &[
    ("FactorEmbed", tokens::FactorEmbed::read),
    ("Embed", tokens::Embed::read),
    ("QEmbed", tokens::QEmbed::read),
    ("FsqEmbed", tokens::FsqEmbed::read),
    ("RmsNorm", rows::RmsNorm::read),
    ("LayerNorm", rows::LayerNorm::read),
    (GATE, rows::SwiGlu::read),
    ("Gelu", rows::Gelu::read),
    ("FactorLogits", rows::FactorLogits::read),
    ("Upsample", rows::Upsample::read),
    (product::NAME, product::QMatMul::read),
    ("Attention", mixing::Attention::read),
    ("CausalConv", mixing::CausalConv::read),
    ("Silu", rows::Silu::read),
    ("Conv", both::Conv::read),
    ("GroupNorm", both::GroupNorm::read),
    ("SelfAttention", both::SelfAttention::read),
];

/// The operator of a node of our domain or of a stock matrix product, and its name; `None` for
/// a name that is not in the list.
pub(super) fn read(node: &mut NodeReader) -> Result<Option<(&'static str, Arc<dyn Operator>)>> {
    if nbits::is(node.node) {
        return Ok(Some((product::NAME, product::QMatMul::read_stock(node)?)));
    }
    match OPERATORS.iter().find(|(name, _)| *name == node.node.op_type) {
        Some((name, read)) => Ok(Some((name, read(node)?))),
        None => Ok(None),
    }
}

/// What a node computes; models/README.md has each one's definition.
pub(super) trait Operator: std::fmt::Debug + Send + Sync {
    /// Columns of the output for so many of the input, which are 1 for tokens; `None` if the
    /// operator is not made for them.
    fn columns(&self, input: usize) -> Option<usize>;

    /// Computes all of `out`, which has the rows and columns that the other functions say.
    ///
    /// # Errors
    /// Tokens that there are no weights for; everything else was checked before.
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()>;

    /// Rows of the output for one of the input.
    fn rows(&self) -> usize {
        1
    }

    /// Whether the input is tokens, not activations.
    fn reads_tokens(&self) -> bool {
        false
    }

    /// Whether a second input may be added to the result.
    fn takes_residual(&self) -> bool {
        false
    }

    /// Whether it can be told to compute the last rows only: row by row, without state.
    fn is_row_wise(&self) -> bool {
        false
    }

    /// The matrix of a product.
    fn matrix(&self) -> Option<&Arc<Weight>> {
        None
    }

    /// Whether it makes logits of the scores of factors.
    fn expands_factors(&self) -> bool {
        false
    }
}

/// What an operator reads.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    /// Empty where activations are read.
    pub tokens: &'a [i64],
    /// Activations `[rows][columns]`, empty where tokens are read.
    pub x: &'a [f32],
    /// 1 for tokens.
    pub columns: usize,
    /// Of the output's shape.
    pub residual: Option<&'a [f32]>,
}

/// Rows and columns.
pub(super) type Shape = (usize, usize);

/// One node of a plan.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub name: &'static str,
    pub operator: Arc<dyn Operator>,
    /// Where its recycled outputs are.
    pub slot: usize,
    /// Whether it keeps only the rows that are wanted.
    pub selects_rows: bool,
}

/// Two nodes are equal when they are the same node: their state differs.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.operator, &other.operator)
    }
}
impl Eq for Node {}

impl Node {
    /// Shape of the output for an input of `rows x columns` of which `wanted` rows are read;
    /// `None` if it is not made for so many columns.
    pub fn out_shape(&self, (rows, columns): Shape, wanted: usize) -> Option<Shape> {
        let rows = if self.selects_rows { rows.min(wanted) } else { rows };
        Some((rows * self.operator.rows(), self.operator.columns(columns)?))
    }

    /// Computes `out` of the shape that [`out_shape`](Self::out_shape) says.
    pub fn compute(
        &self,
        state: &mut State,
        mut input: Input<'_>,
        out: &mut [f32],
    ) -> TractResult<()> {
        if self.selects_rows {
            let skipped = (input.x.len() / input.columns).saturating_sub(state.wanted);
            input.x = &input.x[skipped * input.columns..];
        }
        self.operator.compute(state, input, out)
    }

    /// The output's shape, if the inputs are what the weights were made for, so that no pass
    /// can fail.
    fn check(&self, inputs: &[&TypedFact]) -> TractResult<[TDim; 2]> {
        let residual = self.operator.takes_residual() && inputs.len() == 2;
        ensure!(inputs.len() == 1 || residual, "{} inputs", inputs.len());
        let x = inputs[0];
        let columns = if self.operator.reads_tokens() {
            ensure!(x.datum_type == i64::datum_type() && x.rank() == 1, "tokens are {x:?}");
            1
        } else {
            ensure!(x.datum_type == f32::datum_type() && x.rank() == 2, "activations are {x:?}");
            x.shape[1].to_usize()?
        };
        let out = self.operator.columns(columns).filter(|_| columns > 0);
        let out = out.with_context(|| format!("{} is not for {columns} columns", self.name))?;
        let shape = [x.shape[0].clone() * self.operator.rows(), out.to_dim()];
        if residual {
            let r = inputs[1];
            let right = r.datum_type == f32::datum_type() && *r.shape == shape;
            ensure!(right, "the residual is {r:?}");
        }
        Ok(shape)
    }
}

impl Op for Node {
    fn name(&self) -> StaticName {
        self.name.into()
    }
    op_as_typed_op!();
}

impl TypedOp for Node {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(self.check(inputs)?)))
    }
}

/// The symbol of the rows that the head keeps.
pub(super) const WANTED: &str = "wanted";

impl Expansion for Node {
    fn name(&self) -> StaticName {
        self.name.into()
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

impl EvalOp for Node {
    not_out_of_plan!();

    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let state = ctx
            .shared
            .and_then(|s| s.get::<StateCell>())
            .context("this plan runs inside a session only")?;
        let state = &mut *state.borrow_mut();
        let shape = inputs[0].shape();
        let columns = shape.get(1).copied().unwrap_or(1);
        let to = self.out_shape((shape[0], columns), state.wanted);
        let to = to.with_context(|| format!("{columns} columns came to {}", self.name))?;
        let mut out = state.output(self.slot, to.0, to.1)?;
        let view = inputs[0].try_as_plain_ram()?;
        let (tokens, x) = match self.operator.reads_tokens() {
            true => (view.as_slice::<i64>()?, &[][..]),
            false => (&[][..], view.as_slice::<f32>()?),
        };
        let residual = inputs.get(1).map(floats).transpose()?;
        let input = Input { tokens, x, columns, residual };
        self.compute(state, input, floats_mut(&mut out)?)?;
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
