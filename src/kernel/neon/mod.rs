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
use super::{Attend, Kernel, SCALE_BLOCK, TILE};
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
/// `block8`, `block4` and `WIDE`. Each safe function is safe to name because the table leaves
/// this module only through [`detect`].
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
            // SAFETY: reachable only through `detect`, which checked the features; the
            // slice lengths were checked by `Kernel::qgemm`.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK }>(w, s, x, out, &ROWS8) }
        }

        fn qgemm4(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK / 2 }>(w, s, x, out, &ROWS4) }
        }

        fn rows(w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as above, the lengths by `Kernel::qgemm_rows`.
            unsafe {
                match w.bits {
                    Bits::Eight => qgemm_rows::<SCALE_BLOCK>(w, x, out, &BY_ROW8),
                    Bits::Four => qgemm_rows::<{ SCALE_BLOCK / 2 }>(w, x, out, &BY_ROW4),
                }
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

        /// # Safety
        /// See [`one`]; the CPU has the features.
        unsafe fn one8<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { one::<LAYOUT>(t, SCALE_BLOCK, false, |w, q| block8(w, q), out) }
        }
        /// # Safety
        /// See [`one`]; the CPU has the features.
        unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { one::<LAYOUT>(t, SCALE_BLOCK / 2, true, |w, q| block4(w, q), out) }
        }
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
    body::attend::<4>(a, scores, out, Neon)
}

/// f16 by `fcvtl`.
#[derive(Clone, Copy)]
struct Neon;

impl WidenHalf for Neon {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> [f32; 16] {
        let x: &[u16; 16] = x[..16].try_into().unwrap();
        let mut out = [0f32; 16];
        for i in (0..16).step_by(4) {
            // SAFETY: NEON was checked by `detect`; four numbers from i are inside both.
            unsafe { vst1q_f32(out[i..].as_mut_ptr(), widen4(vld1_u16(x[i..].as_ptr()))) };
        }
        out
    }
}

fn to_half(x: &[f32], out: &mut [u16]) {
    let mut x4 = x.chunks_exact(4);
    let mut out4 = out.chunks_exact_mut(4);
    for (x, o) in (&mut x4).zip(&mut out4) {
        // SAFETY: NEON was checked by `detect`; both hold four numbers.
        unsafe { vst1_u16(o.as_mut_ptr(), narrow4(vld1q_f32(x.as_ptr()))) }
    }
    let (x, out) = (x4.remainder(), out4.into_remainder());
    let mut last = [0f32; 4];
    last[..x.len()].copy_from_slice(x);
    let mut rounded = [0u16; 4];
    // SAFETY: as above.
    unsafe { vst1_u16(rounded.as_mut_ptr(), narrow4(vld1q_f32(last.as_ptr()))) }
    out.copy_from_slice(&rounded[..x.len()]);
}

fn sum_rows(table: &[u16], rows: &[u32], out: &mut [f32]) {
    body::sum_rows_by(table, rows, out, Neon)
}

/// Four f16 as f32.
///
/// # Safety
/// NEON exists.
#[inline(always)]
unsafe fn widen4(x: uint16x4_t) -> float32x4_t {
    let out;
    // SAFETY: registers only. (The intrinsic waits for the compiler's f16 vector types.)
    unsafe {
        asm!("fcvtl {o:v}.4s, {x:v}.4h", o = lateout(vreg) out, x = in(vreg) x,
             options(pure, nomem, nostack));
    }
    out
}

/// Four f32 rounded to f16, to nearest even.
///
/// # Safety
/// NEON exists.
#[inline(always)]
unsafe fn narrow4(x: float32x4_t) -> uint16x4_t {
    let out;
    // SAFETY: registers only.
    unsafe {
        asm!("fcvtn {o:v}.4h, {x:v}.4s", o = lateout(vreg) out, x = in(vreg) x,
             options(pure, nomem, nostack));
    }
    out
}

/// Four words of each of four rows as four vectors, each a word of every row.
///
/// # Safety
/// NEON exists; 16 bytes at each of `w + r * stride`, r below 4.
#[inline(always)]
unsafe fn transposed(w: *const u8, stride: usize) -> [uint8x16_t; 4] {
    // SAFETY: passed on to the caller.
    unsafe {
        let row = |r: usize| vreinterpretq_u32_u8(vld1q_u8(w.add(r * stride)));
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (ab, cd) = (vtrn1q_u32(a, b), vtrn1q_u32(c, d));
        let (ef, gh) = (vtrn2q_u32(a, b), vtrn2q_u32(c, d));
        let low = |a, b| {
            vreinterpretq_u8_u64(vtrn1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)))
        };
        let high = |a, b| {
            vreinterpretq_u8_u64(vtrn2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)))
        };
        [low(ab, cd), low(ef, gh), high(ab, cd), high(ef, gh)]
    }
}

/// [`transposed`] for 16 rows, to memory.
///
/// # Safety
/// As there, r below 16; 64 floats at `out`.
unsafe fn transpose(w: *const u8, stride: usize, out: *mut f32) {
    // SAFETY: passed on to the caller.
    unsafe {
        for g in 0..4 {
            let words = transposed(w.add(4 * g * stride), stride);
            for (j, v) in words.into_iter().enumerate() {
                vst1q_u8(out.add(j * TILE + 4 * g).cast(), v);
            }
        }
    }
}

/// See [`RowTables`].
///
/// # Safety
/// None is needed: a prefetch does not fault.
#[inline(always)]
unsafe fn prefetch(from: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        // SAFETY: a hint.
        unsafe {
            asm!("prfm pldl1keep, [{p}]", p = in(reg) from.wrapping_add(at),
                 options(nostack, preserves_flags, readonly));
        }
    }
}

/// [`transposed`] for the groups of four rows from `first` on, or nothing where the layout is
/// interleaved already.
///
/// # Safety
/// NEON exists; `rows` is the place of 16 bytes in each row of the tile.
#[inline(always)]
unsafe fn row_vectors<const G: usize, const LAYOUT: u8>(
    t: &TileArgs,
    first: usize,
    rows: usize,
) -> [[uint8x16_t; 4]; G] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut out = [[vdupq_n_u8(0); 4]; G];
        if LAYOUT != PACKED {
            for g in 0..G {
                let line = t.ahead.wrapping_add((rows / 16 * 4 + first + g) * 64);
                if t.near {
                    prefetch(line, 64);
                } else {
                    asm!("prfm pldl2keep, [{p}]", p = in(reg) line,
                         options(nostack, preserves_flags, readonly));
                }
                out[g] = transposed(t.w.add((first + g) * 4 * t.stride + rows), t.stride);
            }
        }
        out
    }
}

/// `acc + dot * (weight scale * activation scale)` for one group of four weight rows and
/// `M` activation rows of block `b`, in the order of the reference.
///
/// # Safety
/// NEON exists; see [`RowsFn`]. `group` is below 4.
#[inline(always)]
unsafe fn accumulate<const M: usize, const LAYOUT: u8>(
    acc: &mut [float32x4_t; M],
    dot: [int32x4_t; M],
    t: &TileArgs,
    b: usize,
    group: usize,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let at = b * TILE + group * 4;
        let ws = match LAYOUT {
            PACKED => widen4(vld1_u16(t.scales.add(at))),
            _ => vld1q_f32(t.row_scales.add(at)),
        };
        for i in 0..M {
            let mut dot = dot[i];
            if LAYOUT == ROWS_ZERO {
                let sum = *t.x_sum.add(i * t.x_blocks + b);
                dot = vmlaq_n_s32(dot, vld1q_s32(t.offsets.add(at)), sum);
            }
            let s = vmulq_n_f32(ws, *t.x_scale.add(i * t.x_blocks + b));
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot), s);
        }
    }
}

/// Sums to go on from.
///
/// # Safety
/// NEON exists; see [`RowsFn`].
#[inline(always)]
unsafe fn begin<const M: usize, const G: usize, const LAYOUT: u8>(
    out: *mut f32,
    first: usize,
) -> [[float32x4_t; M]; G] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); M]; G];
        if LAYOUT != PACKED {
            for g in 0..G {
                for i in 0..M {
                    acc[g][i] = vld1q_f32(out.add(i * TILE + (first + g) * 4));
                }
            }
        }
        acc
    }
}

/// One activation row over row-major weights: each row is read from end to end, as it lies in
/// memory, and gives a sum a block; the sums are then taken across rows. `dot` gives a block's
/// sum in four parts, to which the start of the sums is to be added if it has the weights as
/// they are `stored`.
///
/// # Safety
/// NEON exists; see [`RowsFn`]; at most [`SPAN`] blocks of `row` bytes.
#[inline(always)]
unsafe fn one<const LAYOUT: u8>(
    t: &TileArgs,
    row: usize,
    stored: bool,
    dot: impl Fn(*const u8, *const i8) -> int32x4_t,
    out: *mut f32,
) {
    // SAFETY: every address is inside the extents promised by TileArgs; `dots` has SPAN, a
    // multiple of 4, sums for each row.
    unsafe {
        let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
        let dots = dots.as_mut_ptr().cast::<i32>();
        for r in 0..TILE {
            let w = t.w.add(r * t.stride);
            for b in (0..t.blocks).step_by(4) {
                let mut v = [vdupq_n_s32(0); 4];
                for j in 0..4 {
                    if b + j < t.blocks {
                        v[j] = dot(w.add((b + j) * row), t.q.add((b + j) * SCALE_BLOCK));
                    }
                }
                let sums = vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
                vst1q_s32(dots.add(r * SPAN + b), sums);
            }
        }
        let mut acc = begin::<1, 4, LAYOUT>(out, 0);
        for b in (0..t.blocks).step_by(4) {
            for g in 0..4 {
                let words = transposed(dots.add(4 * g * SPAN + b).cast(), SPAN * 4);
                for j in 0..4.min(t.blocks - b) {
                    let start = if stored { *t.x_start.add(b + j) } else { 0 };
                    let dot = vaddq_s32(vreinterpretq_s32_u8(words[j]), vdupq_n_s32(start));
                    accumulate::<1, LAYOUT>(&mut acc[g], [dot], t, b + j, g);
                }
            }
        }
        for g in 0..4 {
            vst1q_f32(out.add(g * 4), acc[g][0]);
        }
    }
}

/// Four activations in every group of four lanes.
///
/// # Safety
/// NEON exists; `a` has four bytes.
#[inline(always)]
unsafe fn broadcast(a: *const i8) -> int8x16_t {
    // SAFETY: passed on to the caller.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned())) }
}
