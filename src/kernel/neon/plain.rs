//! The matrix products by NEON without the dot product extension.

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

instruction_set!("neon");

/// Groups of four weight rows for three and four activation rows.
const WIDE: usize = 1;

/// Four activations in every group of four lanes.
///
/// # Safety
/// Four bytes are at `q`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn broadcast(q: *const i8) -> int8x16_t {
    // SAFETY: the caller's promise; any alignment will do.
    vreinterpretq_s8_s32(vdupq_n_s32(unsafe { q.cast::<i32>().read_unaligned() }))
}

/// # Safety
/// See [`RowsFn`]. `G` divides 4.
#[target_feature(enable = "neon")]
unsafe fn tile8<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let flip = vdupq_n_u8(128);
    for first in (0..4).step_by(G) {
        // SAFETY: `out` has M rows, and `first` is a multiple of G, which divides 4.
        let mut acc = unsafe { begin::<M, G, LAYOUT>(out, first) };
        for b in 0..t.blocks {
            // Rows 0 and 1 of a group, rows 2 and 3; two lanes a row.
            let mut low = [[vdupq_n_s32(0); M]; G];
            let mut high = [[vdupq_n_s32(0); M]; G];
            let mut rows = [[vdupq_n_u8(0); 4]; G];
            for j in (0..8).step_by(2) {
                if j % 4 == 0 {
                    // SAFETY: `j * 4` is 0 or 16: half of the 32 bytes of block `b` in a row.
                    rows = unsafe { row_vectors::<G, LAYOUT>(t, first, b * 32 + j * 4) };
                }
                let w = t.w.wrapping_add(b * 512 + j * 64 + first * 16);
                for g in 0..G {
                    let load = |j: usize| {
                        let packed = w.wrapping_add(j % 2 * 64 + g * 16);
                        // SAFETY: vector `j` of the eight of block `b`, group `first + g` of its
                        // four.
                        let w = unsafe { packed_or::<LAYOUT>(packed, rows[g][j % 4]) };
                        vreinterpretq_s8_u8(veorq_u8(w, flip))
                    };
                    let (w0, w1) = (load(j), load(j + 1));
                    for i in 0..M {
                        let q = t.activations(i, b).wrapping_add(j * 4);
                        // SAFETY: eight of the 32 activations of a block and row that exist.
                        let (a0, a1) = unsafe { (broadcast(q), broadcast(q.wrapping_add(4))) };
                        // |w| <= 128 and |a| <= 127: two products stay inside 16 bits.
                        let p = vmull_s8(vget_low_s8(w0), vget_low_s8(a0));
                        let p = vmlal_s8(p, vget_low_s8(w1), vget_low_s8(a1));
                        low[g][i] = vpadalq_s16(low[g][i], p);
                        let p = vmlal_high_s8(vmull_high_s8(w0, a0), w1, a1);
                        high[g][i] = vpadalq_s16(high[g][i], p);
                    }
                }
            }
            for g in 0..G {
                let mut dot = [vdupq_n_s32(0); M];
                for i in 0..M {
                    dot[i] = vpaddq_s32(low[g][i], high[g][i]);
                }
                // SAFETY: `t` holds for LAYOUT and M rows, `b` is below its blocks.
                unsafe { accumulate::<M, LAYOUT>(&mut acc[g], dot, t, b, first + g) };
            }
        }
        // SAFETY: as for `begin`.
        unsafe { store(&acc, out, first) };
    }
}

/// # Safety
/// See [`RowsFn`]. `G` divides 4.
#[target_feature(enable = "neon")]
unsafe fn tile4<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let mask = vdupq_n_u8(15);
    for first in (0..4).step_by(G) {
        // SAFETY: `out` has M rows, and `first` is a multiple of G, which divides 4.
        let mut acc = unsafe { begin::<M, G, LAYOUT>(out, first) };
        for b in 0..t.blocks {
            let mut low = [[vdupq_n_s16(0); M]; G];
            let mut high = [[vdupq_n_s16(0); M]; G];
            // SAFETY: the 16 bytes of block `b` in a row.
            let rows = unsafe { row_vectors::<G, LAYOUT>(t, first, b * 16) };
            for j in 0..4 {
                let w = t.w.wrapping_add(b * 256 + j * 64 + first * 16);
                for g in 0..G {
                    // SAFETY: vector `j` of the four of block `b`, group `first + g` of its four.
                    let v = unsafe { packed_or::<LAYOUT>(w.wrapping_add(g * 16), rows[g][j]) };
                    // Nibbles are stored as w + 8: 0 to 15.
                    let w0 = vreinterpretq_s8_u8(vandq_u8(v, mask));
                    let w1 = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                    for i in 0..M {
                        let q = t.activations(i, b).wrapping_add(j * 4);
                        // SAFETY: four of the first 16 activations of a block and row that exist,
                        // and four of the second.
                        let (a0, a1) = unsafe { (broadcast(q), broadcast(q.wrapping_add(16))) };
                        let p = vmlal_s8(low[g][i], vget_low_s8(w0), vget_low_s8(a0));
                        low[g][i] = vmlal_s8(p, vget_low_s8(w1), vget_low_s8(a1));
                        let p = vmlal_high_s8(high[g][i], w0, a0);
                        high[g][i] = vmlal_high_s8(p, w1, a1);
                    }
                }
            }
            for g in 0..G {
                let mut dot = [vdupq_n_s32(0); M];
                for i in 0..M {
                    // 16 products of at most 15 * 127 make 30480, inside 16 bits.
                    let p = vpaddlq_s16(vpaddq_s16(low[g][i], high[g][i]));
                    // SAFETY: `i` is below M and `b` below the blocks.
                    dot[i] = vaddq_s32(p, vdupq_n_s32(unsafe { t.start(i, b) }));
                }
                // SAFETY: `t` holds for LAYOUT and M rows, `b` is below its blocks.
                unsafe { accumulate::<M, LAYOUT>(&mut acc[g], dot, t, b, first + g) };
            }
        }
        // SAFETY: as for `begin`.
        unsafe { store(&acc, out, first) };
    }
}

/// The sum of a block of one row, in four parts.
///
/// # Safety
/// 32 bytes at both.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn block8(w: *const u8, q: *const i8) -> int32x4_t {
    let pairs = |at: usize| {
        // SAFETY: `at` is 0 or 16: 16 of the 32 bytes at each.
        let (w, q) = unsafe { (vld1q_u8(w.add(at)), vld1q_s8(q.add(at))) };
        let w = vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(128)));
        // |w| <= 128 and |q| <= 127: two products stay inside 16 bits.
        vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), w, q)
    };
    vpadalq_s16(vpaddlq_s16(pairs(0)), pairs(16))
}

/// [`block8`] for 4 bits, stored as w + 8.
///
/// # Safety
/// 16 bytes at `w`, 32 at `q`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn block4(w: *const u8, q: *const i8) -> int32x4_t {
    // SAFETY: 16 bytes are there.
    let v = unsafe { vld1q_u8(w) };
    let low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
    // SAFETY: and two times 16 there.
    let (a, c) = unsafe { (vld1q_s8(q), vld1q_s8(q.add(16))) };
    // Four products of at most 15 * 127 make 7620, inside 16 bits.
    let p = vmlal_high_s8(vmull_s8(vget_low_s8(low), vget_low_s8(a)), low, a);
    let p = vmlal_high_s8(vmlal_s8(p, vget_low_s8(high), vget_low_s8(c)), high, c);
    vpaddlq_s16(p)
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "neon")]
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
#[target_feature(enable = "neon")]
unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let dot = |w: *const u8, b: usize| {
        // SAFETY: `one` asks for blocks that exist: 16 bytes of the row, 32 activations.
        unsafe { block4(w.wrapping_add(b * (SCALE_BLOCK / 2)), t.activations(0, b)) }
    };
    // SAFETY: the same conditions.
    unsafe { one::<LAYOUT>(t, true, dot, out) }
}
