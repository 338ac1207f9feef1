//! The matrix products by NEON with the dot product extension.

use super::super::scalar;
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, TileArgs, qgemm, qgemm_rows,
};
use super::super::{Bits, Kernel, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE};
use super::{accumulate, attend, begin, one, prefetch, row_vectors, sum_rows, to_half, transpose};
use core::arch::aarch64::*;
use core::arch::asm;

instruction_set!("neon-dotprod");

/// Groups of four weight rows for three and four activation rows.
const WIDE: usize = 2;

/// Adds to each of four sums the products of four weights with the four activations of lane
/// `LANE`. (Inline assembly because the intrinsic is not stable.)
///
/// # Safety
/// NEON and the dot product extension exist.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn sdot<const LANE: usize>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let out;
    // SAFETY: registers only.
    unsafe {
        asm!("sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
             acc = inlateout(vreg) acc => out, w = in(vreg) w, a = in(vreg) a,
             lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Runs the block for lanes 0 to 3 as a constant.
macro_rules! each_lane {
    ($lane:ident, $body:block) => {
        each_lane!(@ $lane, $body, 0, 1, 2, 3)
    };
    (@ $lane:ident, $body:block, $($n:literal),*) => {
        $({
            const $lane: usize = $n;
            $body
        })*
    };
}

/// # Safety
/// See [`RowsFn`]; NEON and the dot product extension exist. `G` divides 4.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile8<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let flip = vdupq_n_u8(128);
        for first in (0..4).step_by(G) {
            let mut acc = begin::<M, G, LAYOUT>(out, first);
            for b in 0..t.blocks {
                let mut dot = [[vdupq_n_s32(0); M]; G];
                for half in 0..2 {
                    let mut a = [vdupq_n_s8(0); M];
                    for i in 0..M {
                        a[i] = vld1q_s8(t.q.add(i * t.k + b * SCALE_BLOCK + half * 16));
                    }
                    let w = t.w.wrapping_add(b * 512 + half * 256 + first * 16);
                    let rows = row_vectors::<G, LAYOUT>(t, first, b * 32 + half * 16);
                    each_lane!(J, {
                        for g in 0..G {
                            let w = match LAYOUT {
                                PACKED => vld1q_u8(w.add(J * 64 + g * 16)),
                                _ => rows[g][J],
                            };
                            let w = veorq_u8(w, flip);
                            for i in 0..M {
                                let w = vreinterpretq_s8_u8(w);
                                dot[g][i] = sdot::<J>(dot[g][i], w, a[i]);
                            }
                        }
                    });
                }
                for g in 0..G {
                    accumulate::<M, LAYOUT>(&mut acc[g], dot[g], t, b, first + g);
                }
            }
            for g in 0..G {
                for i in 0..M {
                    vst1q_f32(out.add(i * TILE + (first + g) * 4), acc[g][i]);
                }
            }
        }
    }
}

/// # Safety
/// See [`RowsFn`]; NEON and the dot product extension exist. `G` divides 4.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile4<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = vdupq_n_u8(15);
        for first in (0..4).step_by(G) {
            let mut acc = begin::<M, G, LAYOUT>(out, first);
            for b in 0..t.blocks {
                let mut dot = [[vdupq_n_s32(0); M]; G];
                let mut a0 = [vdupq_n_s8(0); M];
                let mut a1 = [vdupq_n_s8(0); M];
                for i in 0..M {
                    // Nibbles are stored as w + 8: take 8 times the activations' sum off.
                    let zero = vdupq_n_s32(*t.x_start.add(i * t.x_blocks + b));
                    for g in 0..G {
                        dot[g][i] = zero;
                    }
                    let q = t.q.add(i * t.k + b * SCALE_BLOCK);
                    (a0[i], a1[i]) = (vld1q_s8(q), vld1q_s8(q.add(16)));
                }
                let w = t.w.wrapping_add(b * 256 + first * 16);
                let rows = row_vectors::<G, LAYOUT>(t, first, b * 16);
                each_lane!(J, {
                    for g in 0..G {
                        let v = match LAYOUT {
                            PACKED => vld1q_u8(w.add(J * 64 + g * 16)),
                            _ => rows[g][J],
                        };
                        let low = vreinterpretq_s8_u8(vandq_u8(v, mask));
                        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                        for i in 0..M {
                            dot[g][i] = sdot::<J>(dot[g][i], low, a0[i]);
                            dot[g][i] = sdot::<J>(dot[g][i], high, a1[i]);
                        }
                    }
                });
                for g in 0..G {
                    accumulate::<M, LAYOUT>(&mut acc[g], dot[g], t, b, first + g);
                }
            }
            for g in 0..G {
                for i in 0..M {
                    vst1q_f32(out.add(i * TILE + (first + g) * 4), acc[g][i]);
                }
            }
        }
    }
}

/// Adds to each of four sums the products of four weights with four activations.
///
/// # Safety
/// NEON and the dot product extension exist.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn sdot_all(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let out;
    // SAFETY: registers only.
    unsafe {
        asm!("sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
             acc = inlateout(vreg) acc => out, w = in(vreg) w, a = in(vreg) a,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The sum of a block of one row, in four parts.
///
/// # Safety
/// NEON and the dot product extension exist; 32 bytes at both.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn block8(w: *const u8, q: *const i8) -> int32x4_t {
    // SAFETY: passed on to the caller.
    unsafe {
        let load = |at: usize| vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w.add(at)), vdupq_n_u8(128)));
        let sum = sdot_all(vdupq_n_s32(0), load(0), vld1q_s8(q));
        sdot_all(sum, load(16), vld1q_s8(q.add(16)))
    }
}

/// [`block8`] for 4 bits, stored as w + 8.
///
/// # Safety
/// NEON and the dot product extension exist; 16 bytes at `w`, 32 at `q`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn block4(w: *const u8, q: *const i8) -> int32x4_t {
    // SAFETY: passed on to the caller.
    unsafe {
        let v = vld1q_u8(w);
        let low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
        let sum = sdot_all(vdupq_n_s32(0), low, vld1q_s8(q));
        sdot_all(sum, vreinterpretq_s8_u8(vshrq_n_u8::<4>(v)), vld1q_s8(q.add(16)))
    }
}
