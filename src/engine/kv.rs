use crate::kernel::Kernel;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Keys and values of one head of one layer, f16.
///
/// Both buffers span the model's longest context from the start; the zeroed pages cost
/// nothing until they are written, so the cache grows in place and never moves.
pub(super) struct HeadCache {
    /// `[capacity/16][head_dim][16]`, see [`crate::kernel::Attend::keys`].
    pub keys: Vec<u16>,
    /// `[capacity][head_dim]`.
    pub values: Vec<u16>,
}

/// The cache of one attention layer. Its length is the session's, so rolling back is
/// setting one integer: rows beyond it are overwritten by the next pass.
///
/// The locks let the pool's threads read while no pass writes; they never wait, except for
/// a thread that the system put aside while it read.
pub(super) struct LayerCache {
    heads: Vec<RwLock<HeadCache>>,
}

impl LayerCache {
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        let padded = capacity.next_multiple_of(16);
        let head =
            || HeadCache { keys: vec![0; padded * head_dim], values: vec![0; capacity * head_dim] };
        Self { heads: (0..kv_heads).map(|_| RwLock::new(head())).collect() }
    }

    pub fn kv_heads(&self) -> usize {
        self.heads.len()
    }

    pub fn head(&self, head: usize) -> RwLockReadGuard<'_, HeadCache> {
        self.heads[head].read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn head_mut(&self, head: usize) -> RwLockWriteGuard<'_, HeadCache> {
        self.heads[head].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeadCache {
    /// Stores one position's key (after RoPE) and value. `half` is scratch of a head's size.
    pub fn store(
        &mut self,
        kernel: Kernel,
        position: usize,
        key: &[f32],
        value: &[f32],
        half: &mut [u16],
    ) {
        let d = key.len();
        kernel.to_half(value, &mut self.values[position * d..][..d]);
        kernel.to_half(key, half);
        let tile = &mut self.keys[position / 16 * 16 * d..][..16 * d];
        for (lanes, k) in tile.chunks_exact_mut(16).zip(half) {
            lanes[position % 16] = *k;
        }
    }

    /// Gives position `to` the key and value, of `d` channels, of position `from`.
    pub fn copy(&mut self, from: usize, to: usize, d: usize) {
        self.values.copy_within(from * d..(from + 1) * d, to * d);
        let at = |position: usize, c: usize| position / 16 * 16 * d + c * 16 + position % 16;
        for c in 0..d {
            self.keys[at(to, c)] = self.keys[at(from, c)];
        }
    }
}

/// What a pair of channels turns by from one position to the next, in radians: `[head_dim/2]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frequencies(Vec<f64>);

impl Frequencies {
    /// `base^(-2i / head_dim)`.
    pub fn of_base(base: f32, head_dim: usize) -> Self {
        let exponent = |i: usize| -2.0 * i as f64 / head_dim as f64;
        // libm, not the platform's: the same bits on every machine.
        Self((0..head_dim / 2).map(|i| libm::pow(base as f64, exponent(i))).collect())
    }

    /// A file's own; `None` where one is no number or below zero.
    pub fn of_table(table: &[f32]) -> Option<Self> {
        let sound = table.iter().all(|f| f.is_finite() && *f >= 0.0);
        sound.then(|| Self(table.iter().map(|&f| f64::from(f)).collect()))
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        2 * self.0.len()
    }
}

/// Sines and cosines of rotary position embedding, one table for all layers that turn alike,
/// grown on demand.
pub(super) struct Rope {
    frequencies: Frequencies,
    /// `[positions][head_dim/2]` each.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub fn new(frequencies: &Frequencies) -> Self {
        Self { frequencies: frequencies.clone(), cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes the table cover `positions`.
    pub fn cover(&mut self, positions: usize) {
        let Frequencies(frequencies) = &self.frequencies;
        for p in self.cos.len() / frequencies.len()..positions {
            for f in frequencies {
                let (sin, cos) = libm::sincos(p as f64 * f);
                self.cos.push(cos as f32);
                self.sin.push(sin as f32);
            }
        }
    }

    /// Rotates one head at `position`.
    pub fn rotate(&self, kernel: Kernel, x: &mut [f32], position: usize) {
        let half = self.frequencies.0.len();
        kernel.rope(x, &self.cos[position * half..][..half], &self.sin[position * half..][..half]);
    }
}
