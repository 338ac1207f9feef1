//! The arithmetic under the models: quantized matrix products and row-wise functions.
//!
//! A [`Kernel`] is a table of entry points for one instruction set. [`best`] picks the
//! widest one that this CPU has, once; [`all`] lists every one that it has, for tests and
//! benchmarks. Every kernel gives **bit for bit the same result** as [`scalar()`], and row `i`
//! of an `m`-row call equals the one-row call: integer sums are exact, float sums run in one
//! fixed order (16 lanes, then a fixed tree), and products are fused where the reference
//! fuses them. That is what makes greedy speculation reproduce plain decoding exactly and
//! audio independent of the machine's vector width.
//!
//! | file | holds |
//! |---|---|
//! | `scalar.rs` | the reference: it defines every result |
//! | `body.rs` | row-wise functions, one source that each instruction set compiles for itself |
//! | `qmat.rs` | layouts of weights and quantized activations |
//! | `portable.rs` | the products for whatever vectors the compiler finds, safe code |
//! | `tiles.rs` | the walk over weights that SIMD kernels share, the one place that makes addresses |
//! | `x86/`, `neon/` | a file an instruction set: its products, and the table of its functions |
//!
//! # To add a kernel
//!
//! For an instruction set of a known architecture write `x86/<name>.rs` or `neon/<name>.rs`: the
//! functions that `instruction_set!` of that folder names, each `#[target_feature]`, and a call
//! of the macro, which makes the table `KERNEL`. Add the table to `detect()` of the folder, narrowest
//! first, behind checks of *every* feature that its functions enable: that is what every `unsafe`
//! in the table rests on. Another architecture is a folder of its own with a `detect()` that
//! [`all`] calls; what it has no better code for it takes from the reference, as `neon/` does.
//!
//! To add a function, define it in `scalar.rs` (or `body.rs`, if it works on rows), give [`Kernel`]
//! a field for it and a method that checks every length that the vector code relies on, and
//! name it in the tables.
//!
//! Then tests/kernel.rs compares every bit with the reference by itself, for all kernels of the
//! CPU; tests/targets.rs holds one digest for all architectures; targets/cross/test.sh runs both
//! on emulated CPUs and must be told which kernels each of them has.

mod body;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod portable;
mod qmat;
mod scalar;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod tiles;
mod widen;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use qmat::{
    Bits, PackError, PackedShape, QuantizedRows, RowMajor, RowScales, SCALE_BLOCK, TILE, pack,
};

pub use body::factor_rows;

use body::FactorScratch;
use std::cell::RefCell;
use std::sync::OnceLock;

/// Largest number of activation rows that one register tile handles; longer calls are cut
/// into tiles of this size while the weights of one tile stay in the first-level cache.
pub const ROWS_PER_TILE: usize = 8;

/// Tokens per partial sum of a probability row.
pub const SUM_BLOCK: usize = 256;

/// Codes of the factorised codebook: 8 digits of 4 levels.
pub const CODES: usize = 1 << (2 * body::DIGITS);

/// Rows of a factorised table, one for each level of a digit and each pair of levels of a pair
/// of digits: 8 * 4 + 28 * 16 = 480.
pub const FACTORS: usize = 4 * body::DIGITS + 16 * body::PAIRS;

/// Entry points for one instruction set. Obtained from [`best`], [`all`] or [`scalar`], so a
/// value exists only where the CPU qualifies.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)]
pub struct Kernel {
    name: &'static str,
    quantize: fn(&[f32], &mut [i8], &mut [f32], &mut [i32]),
    qgemm8: fn(&[u8], &[u16], &QuantizedRows, &mut [f32]),
    qgemm4: fn(&[u8], &[u16], &QuantizedRows, &mut [f32]),
    qgemm_rows: fn(&RowMajor, &QuantizedRows, &mut [f32]),
    place: fn(&[f32], &Place, &mut [f32]),
    rms_norm: fn(&[f32], &[f32], f32, &mut [f32]),
    layer_norm: fn(&[f32], &[f32], &[f32], f32, &mut [f32]),
    swiglu: fn(&[f32], &[f32], &mut [f32]),
    silu: fn(&mut [f32]),
    scale_shift: fn(&[f32], &[f32], &[f32], &mut [f32]),
    gelu_tanh: fn(&mut [f32]),
    gelu_erf: fn(&mut [f32]),
    conv: fn(&[f32], &[f32], &[f32], &mut [f32]),
    factor_logits: fn(&[f32], &mut [f32]),
    softmax: fn(&[f32], f32, &mut [f32], &mut [f32]) -> f32,
    attend: fn(&Attend, &mut [f32], &mut [f32]),
    rope: fn(&mut [f32], &[f32], &[f32]),
    factor_softmax: fn(&[f32], f32, &mut [f32], &mut [f32], &mut FactorScratch) -> f32,
    to_half: fn(&[f32], &mut [u16]),
    sum_rows: fn(&[u16], &[u32], &mut [f32]),
}

/// Where the tiles of a product belong in `out[rows][columns]`, and what is added on the way.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Activation rows `m`.
    pub rows: usize,
    /// Columns of the output, `N`.
    pub columns: usize,
    /// Column of the first tile, a multiple of 16.
    pub first: usize,
    /// Added to every row, `[N]`.
    pub bias: Option<&'a [f32]>,
    /// Added elementwise, `[m][N]`.
    pub residual: Option<&'a [f32]>,
}

/// Query rows and the cache of one key/value head.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Queries `[rows][head_dim]`, already scaled.
    pub q: &'a [f32],
    /// Row `i` sees the first `lens[i]` positions.
    pub lens: &'a [usize],
    /// Keys in f16, `[ceil(n/16)][head_dim][16 positions]`: sixteen scores at a time need no
    /// sum across lanes.
    pub keys: &'a [u16],
    /// Values in f16, `[n][head_dim]`.
    pub values: &'a [u16],
    /// Channels of a head, a multiple of 16.
    pub head_dim: usize,
    /// What the caller will read next, the keys of the next head say; may be empty.
    pub next: &'a [u16],
}

impl Attend<'_> {
    /// Positions seen by the row that sees most.
    pub fn longest(&self) -> usize {
        self.lens.iter().copied().max().unwrap_or(0)
    }
    /// Floats of scratch that [`Kernel::attend`] needs.
    pub fn scratch(&self) -> usize {
        self.lens.len().min(body::ATTEND_ROWS) * self.longest().next_multiple_of(16)
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

impl Kernel {
    /// The instruction set: `scalar`, `portable`, `avx2`, `avx512-vnni`, `neon` or
    /// `neon-dotprod`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Quantizes one row of `K` activations to int8 per block of [`SCALE_BLOCK`].
    ///
    /// `q[K]`, `scale[K/32]` (largest magnitude / 127) and `sum[K/32]` (sum of the block's
    /// int8 values) are overwritten. Non-finite activations quantize to unspecified values;
    /// they never panic.
    pub fn quantize(&self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        let blocks = x.len() / SCALE_BLOCK;
        assert!(x.len() % SCALE_BLOCK == 0 && q.len() == x.len());
        assert!(scale.len() == blocks && sum.len() == blocks);
        (self.quantize)(x, q, scale, sum)
    }

    /// `out[tile][m][16] = W x` for the consecutive 16-row weight tiles held in `packed` and
    /// `scales` (see [`PackedShape`]); the layout of `out` lets tiles be split among threads.
    pub fn qgemm(
        &self,
        bits: Bits,
        packed: &[u8],
        scales: &[u16],
        x: &QuantizedRows,
        out: &mut [f32],
    ) {
        let tiles = scales.len() / (x.blocks() * TILE);
        assert_eq!(scales.len(), tiles * x.blocks() * TILE);
        assert_eq!(packed.len(), tiles * x.blocks() * bits.bytes_per_block());
        assert_eq!(out.len(), tiles * x.rows() * TILE);
        assert!(!x.paired, "activations quantized for rows");
        match bits {
            Bits::Eight => (self.qgemm8)(packed, scales, x, out),
            Bits::Four => (self.qgemm4)(packed, scales, x, out),
        }
    }

    /// [`qgemm`](Self::qgemm) over row-major weights, read where they are: the same bits for
    /// the same weights. `x` comes from [`QuantizedRows::fill_for_rows`]; `out` has tiles of 16
    /// rows as there, the last filled up with zeros.
    pub fn qgemm_rows(&self, w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
        let rows = w.rows();
        assert_eq!(w.blocks, x.blocks());
        assert_eq!(w.scales.len(), rows * w.blocks);
        assert_eq!(w.weights.len(), rows * w.blocks * w.bits.bytes_per_row_block());
        if let Some(zero) = w.zero_points {
            assert_eq!(zero.len(), rows * RowMajor::zero_bytes(w.bits, w.blocks));
        }
        assert_eq!(out.len(), rows.div_ceil(TILE) * x.rows() * TILE);
        assert_eq!(x.paired, w.bits == Bits::Four, "activations quantized for another layout");
        (self.qgemm_rows)(w, x, out)
    }

    /// Writes the result of [`qgemm`](Self::qgemm), `tiles[tile][m][16]`, to its columns of
    /// `out[m][N]`, with bias and residual.
    pub fn place(&self, tiles: &[f32], to: &Place, out: &mut [f32]) {
        let size = to.rows * to.columns;
        let last = to.first + tiles.len() / to.rows.max(1);
        assert!(to.rows > 0 && tiles.len() % (to.rows * TILE) == 0 && to.first % TILE == 0);
        assert!(out.len() == size && last < to.columns + TILE);
        assert!(to.bias.is_none_or(|b| b.len() == to.columns));
        assert!(to.residual.is_none_or(|r| r.len() == size));
        (self.place)(tiles, to, out)
    }

    /// `out[c] = x[c] / sqrt(mean(x^2) + epsilon) * weight[c]` for one row.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        assert!(x.len() == weight.len() && x.len() == out.len());
        (self.rms_norm)(x, weight, epsilon, out)
    }

    /// Layer normalisation of one row over its channels.
    pub fn layer_norm(
        &self,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        epsilon: f32,
        out: &mut [f32],
    ) {
        assert!(x.len() == weight.len() && x.len() == out.len() && x.len() == bias.len());
        (self.layer_norm)(x, weight, bias, epsilon, out)
    }

    /// `out = silu(gate) * up`, elementwise over one row.
    pub fn swiglu(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && gate.len() == out.len());
        (self.swiglu)(gate, up, out)
    }

    /// `x sigmoid(x)` in place.
    pub fn silu(&self, x: &mut [f32]) {
        (self.silu)(x)
    }

    /// `out[c] = x[c] * scale[c] + shift[c]` for one row, in one rounding.
    pub fn scale_shift(&self, x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
        assert!(x.len() == scale.len() && x.len() == shift.len() && x.len() == out.len());
        (self.scale_shift)(x, scale, shift, out)
    }

    /// GELU in place, tanh approximation.
    pub fn gelu_tanh(&self, x: &mut [f32]) {
        (self.gelu_tanh)(x)
    }

    /// GELU in place, error function (absolute error of erf below 2e-7).
    pub fn gelu_erf(&self, x: &mut [f32]) {
        (self.gelu_erf)(x)
    }

    /// One output row of a depthwise convolution: `out[c] = bias[c] + sum_j weight[j][c] x[j][c]`
    /// over the `k` rows of `x` (`k*C`), oldest first.
    pub fn conv(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        assert!(x.len() == weight.len() && out.len() == bias.len());
        assert!(out.is_empty() || x.len() % out.len() == 0);
        (self.conv)(x, weight, bias, out)
    }

    /// The head in factor form, from `scores` of the [`FACTORS`] to `logits` of the [`CODES`]:
    /// about two additions a token.
    pub fn factor_logits(&self, scores: &[f32], logits: &mut [f32]) {
        assert!(scores.len() == FACTORS && logits.len() == CODES);
        (self.factor_logits)(scores, logits)
    }

    /// `probs = softmax(logits / temperature)`, with the sum of each [`SUM_BLOCK`] in
    /// `sums`. Returns the largest logit; NaN or infinite results mean the logits were.
    pub fn softmax(
        &self,
        logits: &[f32],
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> f32 {
        assert!(logits.len() == probs.len() && sums.len() == logits.len().div_ceil(SUM_BLOCK));
        (self.softmax)(logits, inverse_temperature, probs, sums)
    }

    /// `probs = softmax(logits / temperature)` over the codes of
    /// [`factor_logits`](Self::factor_logits) and the `E` scores behind those of the factors,
    /// which stand for one token each, without forming the logits. `scores[FACTORS + E]`,
    /// `probs[CODES + E]`, `sums` as in [`softmax`](Self::softmax).
    ///
    /// `false` where the factors are so far apart that products of them underflow, or are not
    /// numbers: `probs` is unspecified then and the long way is needed.
    #[must_use]
    pub fn factor_softmax(
        &self,
        scores: &[f32],
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool {
        assert!(scores.len() >= FACTORS && scores.len() <= FACTORS + SUM_BLOCK);
        assert!(probs.len() == scores.len() - FACTORS + CODES);
        assert!(sums.len() == probs.len().div_ceil(SUM_BLOCK));
        thread_local! {
            static SCRATCH: RefCell<Box<FactorScratch>> =
                RefCell::new(Box::new(FactorScratch::new()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let total = (self.factor_softmax)(scores, inverse_temperature, probs, sums, scratch);
            (1e-20..=f32::MAX).contains(&total)
        })
    }

    /// Rotates the pairs `(c, c + d/2)` of one head in place: `x[d]`, `cos[d/2]`, `sin[d/2]`.
    pub fn rope(&self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(x.len() == 2 * cos.len() && cos.len() == sin.len());
        (self.rope)(x, cos, sin)
    }

    /// Attention of a few query rows over the cached positions of one key/value head:
    /// `out[rows][D]`. `scores` is scratch of [`Attend::scratch`] floats.
    pub fn attend(&self, a: &Attend, scores: &mut [f32], out: &mut [f32]) {
        let (d, n) = (a.head_dim, a.longest());
        assert!(d > 0 && d % 16 == 0 && a.q.len() == a.lens.len() * d && out.len() == a.q.len());
        assert!(a.lens.iter().all(|&l| l > 0) && scores.len() >= a.scratch());
        assert!(a.keys.len() >= n.next_multiple_of(16) * d && a.values.len() >= n * d);
        (self.attend)(a, scores, out)
    }

    /// Rounds to f16 (bits), to nearest even.
    pub fn to_half(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len());
        (self.to_half)(x, out)
    }

    /// `out[C] = sum of the named rows` of an f16 `table[R*C]`, in the given order.
    pub fn sum_rows(&self, table: &[u16], rows: &[u32], out: &mut [f32]) {
        // By division: the end of a row need not fit 32 bits.
        let there = table.len().checked_div(out.len()).unwrap_or(usize::MAX);
        assert!(rows.iter().all(|&r| (r as usize) < there));
        (self.sum_rows)(table, rows, out)
    }
}

/// The naive reference that every other kernel must equal bit for bit.
pub fn scalar() -> Kernel {
    scalar::KERNEL
}

/// Every kernel that this CPU can run, narrowest first.
pub fn all() -> Vec<Kernel> {
    #[allow(unused_mut)]
    let mut kernels = vec![scalar::KERNEL, portable::KERNEL];
    #[cfg(target_arch = "x86_64")]
    kernels.extend(x86::detect());
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    kernels.extend(neon::detect());
    kernels
}

/// The widest kernel that this CPU can run. `VOXGRAIN_KERNEL=<name>` chooses a narrower one
/// for comparison; an unknown name is ignored with a warning.
pub fn best() -> Kernel {
    static BEST: OnceLock<Kernel> = OnceLock::new();
    *BEST.get_or_init(|| {
        let kernels = all();
        if let Ok(name) = std::env::var("VOXGRAIN_KERNEL") {
            match kernels.iter().find(|k| k.name == name) {
                Some(kernel) => return *kernel,
                None => log::warn!("VOXGRAIN_KERNEL={name}: this CPU has {kernels:?}"),
            }
        }
        kernels[kernels.len() - 1]
    })
}
