//! The matrix product over quantized weights.

use super::{Input, Operator};
use crate::engine::nbits;
use crate::engine::node::NodeReader;
use crate::engine::state::State;
use crate::engine::weight::{Floats, Weight, packed_shape};
use crate::{Error, Result};
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

pub(super) const NAME: &str = "QMatMul";

/// `x W^T (+ bias) (+ residual)`.
#[derive(Debug)]
pub(super) struct QMatMul {
    weight: Arc<Weight>,
    bias: Option<Floats>,
}

impl QMatMul {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let shape = packed_shape(node.int("N")?, node.int("K")?, node.int("bits")?)?;
        let (packed, scales) = (node.weight(1, "u8")?.0, node.weight(2, "f16")?.0);
        let weight = Arc::new(Weight::new(shape, packed, scales)?);
        let bias = if node.has(3) { Some(node.floats(3)?) } else { None };
        if let Some(b) = &bias {
            node.same(b.len(), shape.n, "bias and N")?;
        }
        Ok(Arc::new(Self { weight, bias }))
    }

    /// From a `MatMulNBits` node.
    pub fn read_stock(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let stock = nbits::read(node.node, |name| {
            let found = node.tensors.get(name);
            found.map(|(s, i)| (s, i.data_type.as_str(), i.dims.as_slice()))
        })
        .map_err(|e| Error::new(e.kind(), format!("{}: {e}", node.model)))?;
        let bias = stock.bias.clone().map(Floats::new).transpose()?;
        Ok(Arc::new(Self { weight: Arc::new(Weight::stock(stock)), bias }))
    }
}

impl Operator for QMatMul {
    fn columns(&self, input: usize) -> Option<usize> {
        let shape = self.weight.shape();
        (input == shape.k).then_some(shape.n)
    }
    fn takes_residual(&self) -> bool {
        true
    }
    fn is_row_wise(&self) -> bool {
        true
    }
    fn matrix(&self) -> Option<&Arc<Weight>> {
        Some(&self.weight)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let bias = self.bias.as_ref().map(Floats::get);
        state.pool.multiply(&self.weight, input.x, bias, input.residual, out);
        Ok(())
    }
}
