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

use super::body::Halves;
use super::tiles::{RowsFn, TileArgs, qgemm};
use super::{Attend, BLOCK, Kernel, QuantizedRows, ROWS_PER_TILE, TILE, body, scalar};
use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

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

/// Builds the table of one feature set over the `tile8` and `tile4` of its file. Each safe
/// function is safe to name because the table is private to this module and leaves it only
/// through [`detect`].
macro_rules! instruction_set {
    ($module:ident, $name:literal) => {
        mod $module {
            use super::*;

            pub(super) const KERNEL: Kernel =
                Kernel { name: $name, qgemm8, qgemm4, attend, to_half, sum_rows, ..scalar::KERNEL };

            fn qgemm8(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
                // SAFETY: reachable only through `detect`, which checked the features; the
                // slice lengths were checked by `Kernel::qgemm`.
                unsafe { qgemm::<{ TILE * BLOCK }>(w, s, x, out, &ROWS8) }
            }

            fn qgemm4(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { qgemm::<{ TILE * BLOCK / 2 }>(w, s, x, out, &ROWS4) }
            }

            // Indexed by the number of activation rows less one. The second number is how
            // many groups of four weight rows run together: for few rows enough of them
            // to hide the latency of a sum, for many what 32 registers hold.
            static ROWS8: [RowsFn; ROWS_PER_TILE] = [
                tile8::<1, 4>,
                tile8::<2, 2>,
                tile8::<3, WIDE>,
                tile8::<4, WIDE>,
                tile8::<5, 1>,
                tile8::<6, 1>,
                tile8::<7, 1>,
                tile8::<8, 1>,
            ];
            static ROWS4: [RowsFn; ROWS_PER_TILE] = [
                tile4::<1, 4>,
                tile4::<2, 2>,
                tile4::<3, WIDE>,
                tile4::<4, WIDE>,
                tile4::<5, 1>,
                tile4::<6, 1>,
                tile4::<7, 1>,
                tile4::<8, 1>,
            ];

            include!(concat!("neon_", stringify!($module), ".rs"));
        }
    };
}

instruction_set!(plain, "neon");
instruction_set!(dotprod, "neon-dotprod");

fn attend(a: &Attend, scores: &mut [f32], out: &mut [f32]) {
    body::attend::<4>(a, scores, out, Neon)
}

/// f16 by `fcvtl`.
#[derive(Clone, Copy)]
struct Neon;

impl Halves for Neon {
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

/// `acc + dot * (weight scale * activation scale)` for one group of four weight rows and
/// `M` activation rows of block `b`, in the order of the reference.
///
/// # Safety
/// NEON exists; `scales` has four f16, `x_scale` M floats `blocks` apart.
#[inline(always)]
unsafe fn accumulate<const M: usize>(
    acc: &mut [float32x4_t; M],
    dot: [int32x4_t; M],
    scales: *const u16,
    x_scale: *const f32,
    blocks: usize,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let ws = widen4(vld1_u16(scales));
        for i in 0..M {
            let s = vmulq_n_f32(ws, *x_scale.add(i * blocks));
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), s);
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
