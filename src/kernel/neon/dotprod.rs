//! The matrix products by NEON with the dot product extension.

use super::super::scalar;
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, TileArgs, qgemm, qgemm_rows,
};
use super::super::{Bits, Kernel, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE};
use super::{
    accumulate, attend, begin, one, packed_or, prefetch, row_vectors, store, sum_rows, to_half,
    transpose,
};
use core::arch::aarch64::*;
use core::arch::asm;

instruction_set!("neon-dotprod");

/// Groups of four weight rows for three and four activation rows.
const WIDE: usize = 2;

/// Adds to each of four sums the products of four weights with the four activations of lane
/// `LANE`. (Inline assembly because the intrinsic is not stable.)
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: usize>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let out;
    // SAFETY: from register to register, the extension exists.
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
/// See [`RowsFn`]. `G` divides 4.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile8<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let flip = vdupq_n_u8(128);
    for first in (0..4).step_by(G) {
        // SAFETY: `out` has M rows, and `first` is a multiple of G, which divides 4.
        let mut acc = unsafe { begin::<M, G, LAYOUT>(out, first) };
        for b in 0..t.blocks {
            let mut dot = [[vdupq_n_s32(0); M]; G];
            for half in 0..2 {
                let mut a = [vdupq_n_s8(0); M];
                for i in 0..M {
                    let q = t.activations(i, b).wrapping_add(half * 16);
                    // SAFETY: half of the 32 activations of a block and row that exist.
                    a[i] = unsafe { vld1q_s8(q) };
                }
                let w = t.w.wrapping_add(b * 512 + half * 256 + first * 16);
                // SAFETY: half of the 32 bytes of block `b` in a row.
                let rows = unsafe { row_vectors::<G, LAYOUT>(t, first, b * 32 + half * 16) };
                each_lane!(J, {
                    for g in 0..G {
                        let packed = w.wrapping_add(J * 64 + g * 16);
                        // SAFETY: vector J of the four of this half of block `b`, group
                        // `first + g` of its four.
                        let w = unsafe { packed_or::<LAYOUT>(packed, rows[g][J]) };
                        let w = vreinterpretq_s8_u8(veorq_u8(w, flip));
                        for i in 0..M {
                            dot[g][i] = sdot::<J>(dot[g][i], w, a[i]);
                        }
                    }
                });
            }
            for g in 0..G {
                // SAFETY: `t` holds for LAYOUT and M rows, `b` is below its blocks.
                unsafe { accumulate::<M, LAYOUT>(&mut acc[g], dot[g], t, b, first + g) };
            }
        }
        // SAFETY: as for `begin`.
        unsafe { store(&acc, out, first) };
    }
}

/// # Safety
/// See [`RowsFn`]. `G` divides 4.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile4<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let mask = vdupq_n_u8(15);
    for first in (0..4).step_by(G) {
        // SAFETY: `out` has M rows, and `first` is a multiple of G, which divides 4.
        let mut acc = unsafe { begin::<M, G, LAYOUT>(out, first) };
        for b in 0..t.blocks {
            let mut dot = [[vdupq_n_s32(0); M]; G];
            let mut a0 = [vdupq_n_s8(0); M];
            let mut a1 = [vdupq_n_s8(0); M];
            for i in 0..M {
                // Nibbles are stored as w + 8: take 8 times the activations' sum off.
                // SAFETY: `i` is below M and `b` below the blocks.
                let zero = vdupq_n_s32(unsafe { t.start(i, b) });
                for g in 0..G {
                    dot[g][i] = zero;
                }
                let q = t.activations(i, b);
                // SAFETY: the 32 activations of a block and row that exist.
                (a0[i], a1[i]) = unsafe { (vld1q_s8(q), vld1q_s8(q.add(16))) };
            }
            let w = t.w.wrapping_add(b * 256 + first * 16);
            // SAFETY: the 16 bytes of block `b` in a row.
            let rows = unsafe { row_vectors::<G, LAYOUT>(t, first, b * 16) };
            each_lane!(J, {
                for g in 0..G {
                    let packed = w.wrapping_add(J * 64 + g * 16);
                    // SAFETY: vector J of the four of block `b`, group `first + g` of its four.
                    let v = unsafe { packed_or::<LAYOUT>(packed, rows[g][J]) };
                    let low = vreinterpretq_s8_u8(vandq_u8(v, mask));
                    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                    for i in 0..M {
                        dot[g][i] = sdot::<J>(dot[g][i], low, a0[i]);
                        dot[g][i] = sdot::<J>(dot[g][i], high, a1[i]);
                    }
                }
            });
            for g in 0..G {
                // SAFETY: `t` holds for LAYOUT and M rows, `b` is below its blocks.
                unsafe { accumulate::<M, LAYOUT>(&mut acc[g], dot[g], t, b, first + g) };
            }
        }
        // SAFETY: as for `begin`.
        unsafe { store(&acc, out, first) };
    }
}

/// Adds to each of four sums the products of four weights with four activations.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot_all(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let out;
    // SAFETY: from register to register, the extension exists.
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
/// 32 bytes at both.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn block8(w: *const u8, q: *const i8) -> int32x4_t {
    let add = |sum, at: usize| {
        // SAFETY: `at` is 0 or 16: 16 of the 32 bytes at each.
        let (w, q) = unsafe { (vld1q_u8(w.add(at)), vld1q_s8(q.add(at))) };
        sdot_all(sum, vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(128))), q)
    };
    add(add(vdupq_n_s32(0), 0), 16)
}

/// [`block8`] for 4 bits, stored as w + 8.
///
/// # Safety
/// 16 bytes at `w`, 32 at `q`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn block4(w: *const u8, q: *const i8) -> int32x4_t {
    // SAFETY: 16 bytes are there.
    let v = unsafe { vld1q_u8(w) };
    // SAFETY: and two times 16 there.
    let (a, c) = unsafe { (vld1q_s8(q), vld1q_s8(q.add(16))) };
    let low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
    let sum = sdot_all(vdupq_n_s32(0), low, a);
    sdot_all(sum, vreinterpretq_s8_u8(vshrq_n_u8::<4>(v)), c)
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn one8<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let dot = |w: *const u8, b: usize| {
        // SAFETY: `one` asks for blocks that exist: 32 bytes of the row, as many activations.
        unsafe { block8(w.wrapping_add(b * SCALE_BLOCK), t.activations(0, b)) }
    };
    // SAFETY: the same conditions.
    unsafe { one::<LAYOUT>(t, false, dot, out) }
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let dot = |w: *const u8, b: usize| {
        // SAFETY: `one` asks for blocks that exist: 16 bytes of the row, 32 activations.
        unsafe { block4(w.wrapping_add(b * (SCALE_BLOCK / 2)), t.activations(0, b)) }
    };
    // SAFETY: the same conditions.
    unsafe { one::<LAYOUT>(t, true, dot, out) }
}
