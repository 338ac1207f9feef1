//! NEON, without and with the dot product extension.
//!
//! NEON is part of every AArch64 CPU and so of the compiler's baseline: the shared row
//! functions are already vectors and fused multiply-adds in the reference. What is written
//! here is what the compiler does not find by itself: the matrix products, and f16
//! conversion, which without FEAT_FP16 (Cortex-A53, A72) `half` does in software although
//! `fcvtl` and `fcvtn` are in the baseline.
//!
//! There is no kernel for `smmla` (FEAT_I8MM): no CPU of the device profiles has it, and its
//! operand of eight columns a row would need two shuffles per vector of weights.
#![allow(unsafe_code)]

use super::body::{self, WidenHalf};
use super::tiles::{PACKED, ROWS_ZERO, SPAN, TileArgs};
use super::{Attend, Kernel, TILE};
use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

/// A function for each number of activation rows, indexed by it less one. The second number is
/// how many groups of four weight rows run together: for few rows enough of them to hide the
/// latency of a sum, for many what 32 registers hold.
macro_rules! by_rows {
    ($f:ident, $layout:ident) => {
        [
            $f::<1, 4, $layout>,
            $f::<2, 2, $layout>,
            $f::<3, WIDE, $layout>,
            $f::<4, WIDE, $layout>,
            $f::<5, 1, $layout>,
            $f::<6, 1, $layout>,
            $f::<7, 1, $layout>,
            $f::<8, 1, $layout>,
        ]
    };
}

/// Builds the table `KERNEL` of the module that calls it, over that module's `tile8`, `tile4`,
/// `one8`, `one4` and `WIDE`. Each safe function is safe to name because the table leaves this
/// module only through [`detect`].
macro_rules! instruction_set {
    ($name:literal) => {
        pub(super) const KERNEL: Kernel = Kernel {
            name: $name,
            qgemm8,
            qgemm4,
            qgemm_rows: rows,
            attend,
            to_half,
            sum_rows,
            ..scalar::KERNEL
        };

        fn qgemm8(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: reachable only through `detect`, which checked the features of the table, and
            // `Kernel::qgemm`, which checked the lengths.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK }>(w, s, x, out, &ROWS8) }
        }

        fn qgemm4(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as in `qgemm8`.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK / 2 }>(w, s, x, out, &ROWS4) }
        }

        fn rows(w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
            match w.bits {
                // SAFETY: reachable only through `detect`, which checked the features of the table,
                // and `Kernel::qgemm_rows`, which checked the lengths; 32 bytes are 32 weights of 8
                // bits.
                Bits::Eight => unsafe { qgemm_rows::<SCALE_BLOCK>(w, x, out, &BY_ROW8) },
                // SAFETY: as above; 16 bytes are 32 weights of 4 bits.
                Bits::Four => unsafe { qgemm_rows::<{ SCALE_BLOCK / 2 }>(w, x, out, &BY_ROW4) },
            }
        }

        static ROWS8: [RowsFn; ROWS_PER_TILE] = by_rows!(tile8, PACKED);
        static ROWS4: [RowsFn; ROWS_PER_TILE] = by_rows!(tile4, PACKED);
        static BY_ROW8: RowTables = RowTables {
            plain: by_rows!(tile8, ROWS),
            zero: by_rows!(tile8, ROWS_ZERO),
            one: one8::<ROWS>,
            one_zero: one8::<ROWS_ZERO>,
            transpose,
            prefetch,
        };
        static BY_ROW4: RowTables = RowTables {
            plain: by_rows!(tile4, ROWS),
            zero: by_rows!(tile4, ROWS_ZERO),
            one: one4::<ROWS>,
            one_zero: one4::<ROWS_ZERO>,
            transpose,
            prefetch,
        };
    };
}

mod dotprod;
mod plain;

/// The kernels that this CPU qualifies for, narrowest first. The only way to the tables
/// below, so that each entry point runs only where its features exist.
pub(super) fn detect() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    if is_aarch64_feature_detected!("neon") {
        kernels.push(plain::KERNEL);
        if is_aarch64_feature_detected!("dotprod") {
            kernels.push(dotprod::KERNEL);
        }
    }
    kernels
}

fn attend(a: &Attend, scores: &mut [f32], out: &mut [f32]) {
    #[target_feature(enable = "neon")]
    fn inner(a: &Attend, scores: &mut [f32], out: &mut [f32]) {
        body::attend::<4>(a, scores, out, Neon::new())
    }
    // SAFETY: reachable only through `detect`, which checked for NEON.
    unsafe { inner(a, scores, out) }
}

fn sum_rows(table: &[u16], rows: &[u32], out: &mut [f32]) {
    #[target_feature(enable = "neon")]
    fn inner(table: &[u16], rows: &[u32], out: &mut [f32]) {
        body::sum_rows_by(table, rows, out, Neon::new())
    }
    // SAFETY: reachable only through `detect`, which checked for NEON.
    unsafe { inner(table, rows, out) }
}

fn to_half(x: &[f32], out: &mut [u16]) {
    #[target_feature(enable = "neon")]
    fn inner(x: &[f32], out: &mut [u16]) {
        let mut x4 = x.chunks_exact(4);
        let mut out4 = out.chunks_exact_mut(4);
        for (x, o) in (&mut x4).zip(&mut out4) {
            // SAFETY: `chunks_exact(4)` gives four floats.
            let x = unsafe { vld1q_f32(x.as_ptr()) };
            // SAFETY: and room for four numbers of 16 bits.
            unsafe { vst1_u16(o.as_mut_ptr(), narrow4(x)) };
        }
        let (x, out) = (x4.remainder(), out4.into_remainder());
        let mut last = [0f32; 4];
        last[..x.len()].copy_from_slice(x);
        let mut rounded = [0u16; 4];
        // SAFETY: both are arrays of four.
        unsafe { vst1_u16(rounded.as_mut_ptr(), narrow4(vld1q_f32(last.as_ptr()))) };
        out.copy_from_slice(&rounded[..x.len()]);
    }
    // SAFETY: reachable only through `detect`, which checked for NEON.
    unsafe { inner(x, out) }
}

/// f16 by `fcvtl`. A value shows that the CPU has NEON.
#[derive(Clone, Copy)]
struct Neon(());

impl Neon {
    #[target_feature(enable = "neon")]
    fn new() -> Self {
        Self(())
    }
}

impl WidenHalf for Neon {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> [f32; 16] {
        let x: &[u16; 16] = x[..16].try_into().unwrap();
        let mut out = [0f32; 16];
        for i in (0..16).step_by(4) {
            // SAFETY: `self` shows that NEON exists; four numbers from `i` are inside both.
            unsafe { vst1q_f32(out[i..].as_mut_ptr(), widen4(vld1_u16(x[i..].as_ptr()))) };
        }
        out
    }
}

/// Four f16 as f32.
#[target_feature(enable = "neon")]
#[inline]
fn widen4(x: uint16x4_t) -> float32x4_t {
    let out;
    // SAFETY: from register to register, NEON exists. (The intrinsic waits for the compiler's f16
    // vector types.)
    unsafe {
        asm!("fcvtl {o:v}.4s, {x:v}.4h", o = lateout(vreg) out, x = in(vreg) x,
             options(pure, nomem, nostack));
    }
    out
}

/// Four f32 rounded to f16, to nearest even.
#[target_feature(enable = "neon")]
#[inline]
fn narrow4(x: float32x4_t) -> uint16x4_t {
    let out;
    // SAFETY: from register to register, NEON exists.
    unsafe {
        asm!("fcvtn {o:v}.4h, {x:v}.4s", o = lateout(vreg) out, x = in(vreg) x,
             options(pure, nomem, nostack));
    }
    out
}

/// Four words of each of four rows as four vectors, each a word of every row.
///
/// # Safety
/// 16 bytes at each of `w + r * stride`, r below 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn transposed(w: *const u8, stride: usize) -> [uint8x16_t; 4] {
    // SAFETY: `r` is below 4 in each use, and each such row has the 16 bytes.
    let row = |r: usize| vreinterpretq_u32_u8(unsafe { vld1q_u8(w.add(r * stride)) });
    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
    let (ab, cd) = (vtrn1q_u32(a, b), vtrn1q_u32(c, d));
    let (ef, gh) = (vtrn2q_u32(a, b), vtrn2q_u32(c, d));
    let low =
        |a, b| vreinterpretq_u8_u64(vtrn1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
    let high =
        |a, b| vreinterpretq_u8_u64(vtrn2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
    [low(ab, cd), low(ef, gh), high(ab, cd), high(ef, gh)]
}

/// [`transposed`] for 16 rows, to memory.
///
/// # Safety
/// As there, r below 16; 64 floats at `out`.
#[target_feature(enable = "neon")]
unsafe fn transpose(w: *const u8, stride: usize, out: *mut f32) {
    for g in 0..4 {
        // SAFETY: the four rows of this group are among the 16.
        let words = unsafe { transposed(w.add(4 * g * stride), stride) };
        for (j, v) in words.into_iter().enumerate() {
            // SAFETY: `j` and `g` are below 4, so the vector ends at float 64 at the latest.
            unsafe { vst1q_u8(out.add(j * TILE + 4 * g).cast(), v) };
        }
    }
}

/// See [`RowTables`](super::tiles::RowTables).
fn prefetch(from: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        ask::<true>(from.wrapping_add(at));
    }
}

/// Asks for the line at an address, which need not exist: to the first cache if `NEAR`, else to
/// the second.
#[inline(always)]
fn ask<const NEAR: bool>(line: *const u8) {
    // SAFETY: a hint does not fault whatever the address.
    unsafe {
        if NEAR {
            asm!("prfm pldl1keep, [{p}]", p = in(reg) line,
                 options(nostack, preserves_flags, readonly));
        } else {
            asm!("prfm pldl2keep, [{p}]", p = in(reg) line,
                 options(nostack, preserves_flags, readonly));
        }
    }
}

/// [`transposed`] for the groups of four rows from `first` on, or nothing where the layout is
/// interleaved already.
///
/// # Safety
/// [`TileArgs`] holds for `LAYOUT`; `first + G` is at most 4, and unless the layout is [`PACKED`]
/// each row of the tile has 16 bytes at `rows`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn row_vectors<const G: usize, const LAYOUT: u8>(
    t: &TileArgs,
    first: usize,
    rows: usize,
) -> [[uint8x16_t; 4]; G] {
    let mut out = [[vdupq_n_u8(0); 4]; G];
    if LAYOUT != PACKED {
        for g in 0..G {
            let line = t.ahead.wrapping_add((rows / 16 * 4 + first + g) * 64);
            if t.near {
                ask::<true>(line)
            } else {
                ask::<false>(line)
            }
            // SAFETY: four of the 16 rows, 16 bytes of each.
            out[g] = unsafe { transposed(t.w.add((first + g) * 4 * t.stride + rows), t.stride) };
        }
    }
    out
}

/// 16 bytes of weights as the interleaved layout has them.
///
/// # Safety
/// 16 bytes at `packed` if the layout is [`PACKED`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn packed_or<const LAYOUT: u8>(packed: *const u8, row: uint8x16_t) -> uint8x16_t {
    match LAYOUT {
        // SAFETY: the caller's promise.
        PACKED => unsafe { vld1q_u8(packed) },
        _ => row,
    }
}

/// `acc + dot * (weight scale * activation scale)` for one group of four weight rows and
/// `M` activation rows of block `b`, in the order of the reference.
///
/// # Safety
/// [`TileArgs`] holds for `LAYOUT` and `M` rows; `group` is below 4 and `b` below its blocks.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn accumulate<const M: usize, const LAYOUT: u8>(
    acc: &mut [float32x4_t; M],
    dot: [int32x4_t; M],
    t: &TileArgs,
    b: usize,
    group: usize,
) {
    // Of the 16 numbers that each block has there, the four of this group.
    let at = b * TILE + group * 4;
    let ws = match LAYOUT {
        // SAFETY: `scales` covers all blocks in this layout.
        PACKED => widen4(unsafe { vld1_u16(t.scales.add(at)) }),
        // SAFETY: `row_scales` covers all blocks in these.
        _ => unsafe { vld1q_f32(t.row_scales.add(at)) },
    };
    for i in 0..M {
        let mut dot = dot[i];
        if LAYOUT == ROWS_ZERO {
            // SAFETY: `i` is below M, `b` is the caller's.
            let sum = unsafe { t.activation_sum(i, b) };
            // SAFETY: `offsets` covers all blocks in this layout.
            dot = vmlaq_n_s32(dot, unsafe { vld1q_s32(t.offsets.add(at)) }, sum);
        }
        // SAFETY: `i` is below M, `b` is the caller's.
        let s = vmulq_n_f32(ws, unsafe { t.activation_scale(i, b) });
        acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot), s);
    }
}

/// Sums to go on from.
///
/// # Safety
/// `M * 16` floats at `out`; `first + G` is at most 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn begin<const M: usize, const G: usize, const LAYOUT: u8>(
    out: *mut f32,
    first: usize,
) -> [[float32x4_t; M]; G] {
    let mut acc = [[vdupq_n_f32(0.0); M]; G];
    if LAYOUT != PACKED {
        for g in 0..G {
            for i in 0..M {
                // SAFETY: `i` is below M: four of the 16 floats of that row.
                acc[g][i] = unsafe { vld1q_f32(out.add(i * TILE + (first + g) * 4)) };
            }
        }
    }
    acc
}

/// The sums of the groups from `first` on to their places.
///
/// # Safety
/// `M * 16` floats at `out`; `first + G` is at most 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn store<const M: usize, const G: usize>(
    acc: &[[float32x4_t; M]; G],
    out: *mut f32,
    first: usize,
) {
    for g in 0..G {
        for i in 0..M {
            // SAFETY: `i` is below M: four of the 16 floats of that row.
            unsafe { vst1q_f32(out.add(i * TILE + (first + g) * 4), acc[g][i]) };
        }
    }
}

/// One activation row over row-major weights: each row is read from end to end, as it lies in
/// memory, and gives a sum a block; the sums are then taken across rows. `dot` gives the sum of
/// a block of the row that starts at an address, in four parts; to these the start of the sums is
/// to be added if it has the weights as they are `stored`.
///
/// # Safety
/// See [`RowsFn`](super::tiles::RowsFn), for one row; at most [`SPAN`] blocks.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn one<const LAYOUT: u8>(
    t: &TileArgs,
    stored: bool,
    dot: impl Fn(*const u8, usize) -> int32x4_t,
    out: *mut f32,
) {
    let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
    let dots = dots.as_mut_ptr().cast::<i32>();
    for r in 0..TILE {
        let w = t.w.wrapping_add(r * t.stride);
        for b in (0..t.blocks).step_by(4) {
            let mut v = [vdupq_n_s32(0); 4];
            for j in 0..4 {
                if b + j < t.blocks {
                    v[j] = dot(w, b + j);
                }
            }
            let sums = vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
            // SAFETY: `b` is a multiple of 4 below SPAN, which is one as well: four of the SPAN
            // sums that row `r` has in `dots`.
            unsafe { vst1q_s32(dots.add(r * SPAN + b), sums) };
        }
    }
    // SAFETY: `out` has one row.
    let mut acc = unsafe { begin::<1, 4, LAYOUT>(out, 0) };
    for b in (0..t.blocks).step_by(4) {
        for g in 0..4 {
            // SAFETY: four sums of each of four rows of `dots`, written above.
            let words = unsafe { transposed(dots.add(4 * g * SPAN + b).cast(), SPAN * 4) };
            for j in 0..4.min(t.blocks - b) {
                // SAFETY: one row, and `b + j` is below the blocks.
                let start = if stored { unsafe { t.start(0, b + j) } } else { 0 };
                let dot = vaddq_s32(vreinterpretq_s32_u8(words[j]), vdupq_n_s32(start));
                // SAFETY: `t` holds for LAYOUT and one row, `b + j` is below its blocks.
                unsafe { accumulate::<1, LAYOUT>(&mut acc[g], [dot], t, b + j, g) };
            }
        }
    }
    // SAFETY: `out` has one row.
    unsafe { store(&acc, out, 0) };
}
