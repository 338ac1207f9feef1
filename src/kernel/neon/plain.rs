//! The matrix products by NEON without the dot product extension.

use super::super::scalar;
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, TileArgs, qgemm, qgemm_rows,
};
use super::super::{Bits, Kernel, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE};
use super::{
    accumulate, attend, begin, broadcast, one, prefetch, row_vectors, sum_rows, to_half, transpose,
};
use core::arch::aarch64::*;

instruction_set!("neon");

/// Groups of four weight rows for three and four activation rows.
const WIDE: usize = 1;

/// # Safety
/// See [`RowsFn`]; NEON exists. `G` divides 4.
unsafe fn tile8<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let flip = vdupq_n_u8(128);
        for first in (0..4).step_by(G) {
            let mut acc = begin::<M, G, LAYOUT>(out, first);
            for b in 0..t.blocks {
                // Rows 0 and 1 of a group, rows 2 and 3; two lanes a row.
                let mut low = [[vdupq_n_s32(0); M]; G];
                let mut high = [[vdupq_n_s32(0); M]; G];
                let mut rows = [[vdupq_n_u8(0); 4]; G];
                for j in (0..8).step_by(2) {
                    if j % 4 == 0 {
                        rows = row_vectors::<G, LAYOUT>(t, first, b * 32 + j * 4);
                    }
                    let w = t.w.wrapping_add(b * 512 + j * 64 + first * 16);
                    for g in 0..G {
                        let load = |j: usize| {
                            let w = match LAYOUT {
                                PACKED => vld1q_u8(w.add(j % 2 * 64 + g * 16)),
                                _ => rows[g][j % 4],
                            };
                            vreinterpretq_s8_u8(veorq_u8(w, flip))
                        };
                        let (w0, w1) = (load(j), load(j + 1));
                        for i in 0..M {
                            let a = t.q.add(i * t.k + b * SCALE_BLOCK + j * 4);
                            let (a0, a1) = (broadcast(a), broadcast(a.add(4)));
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
                    accumulate::<M, LAYOUT>(&mut acc[g], dot, t, b, first + g);
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
/// See [`RowsFn`]; NEON exists. `G` divides 4.
unsafe fn tile4<const M: usize, const G: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = vdupq_n_u8(15);
        for first in (0..4).step_by(G) {
            let mut acc = begin::<M, G, LAYOUT>(out, first);
            for b in 0..t.blocks {
                let mut low = [[vdupq_n_s16(0); M]; G];
                let mut high = [[vdupq_n_s16(0); M]; G];
                let rows = row_vectors::<G, LAYOUT>(t, first, b * 16);
                for j in 0..4 {
                    let w = t.w.wrapping_add(b * 256 + j * 64 + first * 16);
                    for g in 0..G {
                        let v = match LAYOUT {
                            PACKED => vld1q_u8(w.add(g * 16)),
                            _ => rows[g][j],
                        };
                        // Nibbles are stored as w + 8: 0 to 15.
                        let w0 = vreinterpretq_s8_u8(vandq_u8(v, mask));
                        let w1 = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                        for i in 0..M {
                            let a = t.q.add(i * t.k + b * SCALE_BLOCK + j * 4);
                            let (a0, a1) = (broadcast(a), broadcast(a.add(16)));
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
                        let zero = *t.x_start.add(i * t.x_blocks + b);
                        dot[i] = vaddq_s32(p, vdupq_n_s32(zero));
                    }
                    accumulate::<M, LAYOUT>(&mut acc[g], dot, t, b, first + g);
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

/// The sum of a block of one row, in four parts.
///
/// # Safety
/// NEON exists; 32 bytes at both.
#[inline(always)]
unsafe fn block8(w: *const u8, q: *const i8) -> int32x4_t {
    // SAFETY: passed on to the caller.
    unsafe {
        let pairs = |at: usize| {
            let w = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w.add(at)), vdupq_n_u8(128)));
            let q = vld1q_s8(q.add(at));
            // |w| <= 128 and |q| <= 127: two products stay inside 16 bits.
            vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), w, q)
        };
        vpadalq_s16(vpaddlq_s16(pairs(0)), pairs(16))
    }
}

/// [`block8`] for 4 bits, stored as w + 8.
///
/// # Safety
/// NEON exists; 16 bytes at `w`, 32 at `q`.
#[inline(always)]
unsafe fn block4(w: *const u8, q: *const i8) -> int32x4_t {
    // SAFETY: passed on to the caller.
    unsafe {
        let v = vld1q_u8(w);
        let low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
        let (a, c) = (vld1q_s8(q), vld1q_s8(q.add(16)));
        // Four products of at most 15 * 127 make 7620, inside 16 bits.
        let p = vmlal_high_s8(vmull_s8(vget_low_s8(low), vget_low_s8(a)), low, a);
        let p = vmlal_high_s8(vmlal_s8(p, vget_low_s8(high), vget_low_s8(c)), high, c);
        vpaddlq_s16(p)
    }
}
