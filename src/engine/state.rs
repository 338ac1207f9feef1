//! What one session keeps between passes.

use super::kv::{Frequencies, LayerCache, Rope};
use super::past::{Past, Sums};
use super::pool::Pool;
use std::cell::RefCell;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// Caches, tails and buffers of one session; operators find what is theirs by number.
pub(super) struct State {
    pub pool: Arc<Pool>,
    /// Positions already in the caches.
    pub len: usize,
    /// Rows, from the last, whose output somebody reads; the head computes no others.
    pub wanted: usize,
    pub layers: Vec<Arc<LayerCache>>,
    /// Past rows of each causal convolution, `[k - 1][C]`, oldest first.
    pub tails: Vec<Vec<f32>>,
    pub ropes: Vec<Rope>,
    /// What operators that look both ways keep.
    pub past: Past,
    /// Scratch of a group norm: the sums, mean and scale of each group, a pair for each channel.
    pub norm: Sums,
    pub factors: Vec<(f64, f64)>,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    /// Past and new rows of a convolution.
    pub window: Vec<f32>,
    /// A key on its way into a cache, as floats and as f16.
    pub rotated: Vec<f32>,
    pub half: Vec<u16>,
    /// Output tensors to use again, by slot.
    recycled: Vec<Vec<Arc<Tensor>>>,
}

/// The state as tract hands it to the operators of a turn.
pub(super) type StateCell = RefCell<State>;

/// Sizes of recycled outputs kept for one operator.
pub(super) const SIZES_KEPT: usize = 4;

impl State {
    pub fn new(
        pool: Arc<Pool>,
        layers: Vec<LayerCache>,
        frequencies: &[Frequencies],
        tails: Vec<Vec<f32>>,
        past: Past,
        slots: usize,
    ) -> Self {
        Self {
            pool,
            len: 0,
            wanted: usize::MAX,
            layers: layers.into_iter().map(Arc::new).collect(),
            tails,
            ropes: frequencies.iter().map(Rope::new).collect(),
            past,
            norm: Sums::default(),
            factors: Vec::new(),
            scale: Vec::new(),
            shift: Vec::new(),
            window: Vec::new(),
            rotated: Vec::new(),
            half: Vec::new(),
            recycled: vec![Vec::new(); slots],
        }
    }

    /// A tensor `[rows, columns]` that nobody else holds; its contents are unspecified.
    pub fn output(&mut self, slot: usize, rows: usize, columns: usize) -> TractResult<Arc<Tensor>> {
        let kept = &mut self.recycled[slot];
        let free =
            kept.iter_mut().position(|t| t.shape() == [rows, columns] && Arc::get_mut(t).is_some());
        match free {
            Some(i) => Ok(kept.swap_remove(i)),
            None => Ok(Arc::new(Tensor::zero::<f32>(&[rows, columns])?)),
        }
    }

    /// Keeps an output to use it again.
    pub fn keep(&mut self, slot: usize, tensor: &Arc<Tensor>) {
        let kept = &mut self.recycled[slot];
        if kept.len() == SIZES_KEPT {
            kept.remove(0);
        }
        kept.push(tensor.clone());
    }
}
