use crate::kernel::Kernel;

/// Keys and values of one head of one layer, f16.
///
/// Both buffers span the model's longest context from the start; the zeroed pages cost
/// nothing until they are written, so the cache grows in place and never moves.
#[derive(Clone)]
pub(super) struct HeadCache {
    /// `[capacity/16][head_dim][16]`, see [`crate::kernel::Attend::keys`].
    pub keys: Vec<u16>,
    /// `[capacity][head_dim]`.
    pub values: Vec<u16>,
}

/// The cache of one attention layer. Its length is the session's, so rolling back is
/// setting one integer: rows beyond it are overwritten by the next pass.
#[derive(Clone)]
pub(super) struct LayerCache {
    pub heads: Vec<HeadCache>,
}

impl LayerCache {
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        let padded = capacity.next_multiple_of(16);
        let head =
            || HeadCache { keys: vec![0; padded * head_dim], values: vec![0; capacity * head_dim] };
        Self { heads: (0..kv_heads).map(|_| head()).collect() }
    }
}

impl HeadCache {
    /// Stores one position's key (after RoPE) and value.
    pub fn store(&mut self, kernel: Kernel, position: usize, key: &[f32], value: &[f32]) {
        let d = key.len();
        kernel.to_half(value, &mut self.values[position * d..][..d]);
        let tile = &mut self.keys[position / 16 * 16 * d..][..16 * d];
        for (lanes, k) in tile.chunks_exact_mut(16).zip(key) {
            lanes[position % 16] = half::f16::from_f32(*k).to_bits();
        }
    }
}

/// Sines and cosines of rotary position embedding, one table a model, grown on demand.
#[derive(Clone, Default)]
pub(super) struct Rope {
    base: f32,
    head_dim: usize,
    /// `[positions][head_dim/2]` pairs (cos, sin).
    table: Vec<(f32, f32)>,
}

impl Rope {
    /// Makes the table cover `positions`.
    pub fn cover(&mut self, base: f32, head_dim: usize, positions: usize) {
        if self.base != base || self.head_dim != head_dim {
            *self = Rope { base, head_dim, table: Vec::new() };
        }
        let half = head_dim / 2;
        for p in self.table.len() / half..positions {
            for i in 0..half {
                let exponent = -2.0 * i as f64 / head_dim as f64;
                // libm, not the platform's: the same bits on every machine.
                let (sin, cos) = libm::sincos(p as f64 * libm::pow(base as f64, exponent));
                self.table.push((cos as f32, sin as f32));
            }
        }
    }

    /// Rotates the pairs `(c, c + head_dim/2)` of one head at `position`.
    pub fn rotate(&self, x: &mut [f32], position: usize) {
        let half = self.head_dim / 2;
        let (lo, hi) = x.split_at_mut(half);
        for ((a, b), (cos, sin)) in lo.iter_mut().zip(hi).zip(&self.table[position * half..]) {
            let (u, v) = (*a, *b);
            *a = u * cos - v * sin;
            *b = v * cos + u * sin;
        }
    }
}
