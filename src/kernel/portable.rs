//! The matrix products arranged for whatever vectors the compiler has at hand: for CPUs
//! without a kernel of their own (32-bit ARM, x86-64 before AVX2, others). Safe code.
//!
//! Lanes hold four columns of all rows of a tile, as the layout stores them, and the
//! activations are repeated to match, so that every step works lane by lane.

use super::widen::widen;
use super::{Bits, Kernel, QuantizedRows, RowMajor, SCALE_BLOCK, TILE, scalar};

pub(super) const KERNEL: Kernel =
    Kernel { name: "portable", qgemm8, qgemm4, qgemm_rows, ..scalar::KERNEL };

/// Four columns of the 16 rows of a tile. A loop of this length is one that compilers turn
/// into vectors instead of unrolling it.
const LANES: usize = 64;

fn qgemm8(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
    qgemm::<{ TILE * SCALE_BLOCK }>(w, s, x, out, dot8)
}

fn qgemm4(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
    qgemm::<{ TILE * SCALE_BLOCK / 2 }>(w, s, x, out, dot4)
}

fn qgemm_rows(w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
    match w.bits {
        Bits::Eight => rows::<{ TILE * SCALE_BLOCK }>(w, x, out, dot8),
        Bits::Four => rows::<{ TILE * SCALE_BLOCK / 2 }>(w, x, out, dot4),
    }
}

#[inline(always)]
fn dot8(w: &[u8; TILE * SCALE_BLOCK], q: &[i8; SCALE_BLOCK]) -> [i32; TILE] {
    let mut sum = [0i32; LANES];
    for j in (0..8).step_by(2) {
        let (w0, w1) = (lanes(&w[j * LANES..]), lanes(&w[(j + 1) * LANES..]));
        let (a0, a1) = (repeat(&q[j * 4..]), repeat(&q[j * 4 + 4..]));
        // |w| <= 128 and |a| <= 127: two products stay inside 16 bits. Two loops, because
        // the width of the sums would be the width of one.
        let mut p = [0i16; LANES];
        for l in 0..LANES {
            let p0 = (w0[l] as i16 - 128).wrapping_mul(a0[l]);
            p[l] = p0.wrapping_add((w1[l] as i16 - 128).wrapping_mul(a1[l]));
        }
        for l in 0..LANES {
            sum[l] += p[l] as i32;
        }
    }
    std::array::from_fn(|r| sum[4 * r] + sum[4 * r + 1] + sum[4 * r + 2] + sum[4 * r + 3])
}

#[inline(always)]
fn dot4(w: &[u8; TILE * SCALE_BLOCK / 2], q: &[i8; SCALE_BLOCK]) -> [i32; TILE] {
    let mut sum = [0i16; LANES];
    for j in 0..4 {
        let w = lanes(&w[j * LANES..]);
        let (a0, a1) = (repeat(&q[j * 4..]), repeat(&q[j * 4 + 16..]));
        for l in 0..LANES {
            // Eight products of at most 8 * 127.
            let p = ((w[l] & 15) as i16 - 8).wrapping_mul(a0[l]);
            let p = p.wrapping_add(((w[l] >> 4) as i16 - 8).wrapping_mul(a1[l]));
            sum[l] = sum[l].wrapping_add(p);
        }
    }
    // Four times 8128 is inside 16 bits.
    std::array::from_fn(|r| (sum[4 * r] + sum[4 * r + 1] + sum[4 * r + 2] + sum[4 * r + 3]) as i32)
}

#[inline(always)]
fn lanes(w: &[u8]) -> &[u8; LANES] {
    w[..LANES].try_into().unwrap()
}

/// Four activations, once for every row.
#[inline(always)]
fn repeat(q: &[i8]) -> [i16; LANES] {
    let four = [q[0] as i16, q[1] as i16, q[2] as i16, q[3] as i16];
    let mut out = [0; LANES];
    for o in out.chunks_exact_mut(4) {
        o.copy_from_slice(&four);
    }
    out
}

/// `dot` gives the exact sums of a block for the rows of a tile.
#[inline(always)]
fn qgemm<const BYTES: usize>(
    w: &[u8],
    scales: &[u16],
    x: &QuantizedRows,
    out: &mut [f32],
    dot: impl Fn(&[u8; BYTES], &[i8; SCALE_BLOCK]) -> [i32; TILE],
) {
    let (m, blocks) = (x.rows(), x.blocks());
    let (stride, block_stride) = x.strides();
    for ((w, scales), out) in w
        .chunks_exact(blocks * BYTES)
        .zip(scales.chunks_exact(blocks * TILE))
        .zip(out.chunks_exact_mut(m * TILE))
    {
        out.fill(0.0);
        for ((b, w), scales) in w.chunks_exact(BYTES).enumerate().zip(scales.chunks_exact(TILE)) {
            let w: &[u8; BYTES] = w.try_into().unwrap();
            let scales: [f32; TILE] = std::array::from_fn(|r| widen(scales[r]));
            for (i, out) in out.chunks_exact_mut(TILE).enumerate() {
                let q: &[i8; SCALE_BLOCK] =
                    x.q[i * stride + b * SCALE_BLOCK..][..SCALE_BLOCK].try_into().unwrap();
                let (dot, scale) = (dot(w, q), x.scale[i * block_stride + b]);
                for r in 0..TILE {
                    out[r] = (dot[r] as f32).mul_add(scales[r] * scale, out[r]);
                }
            }
        }
    }
}

/// Rows: a block of 16 of them is put into the order of the interleaved layout first.
#[inline(always)]
fn rows<const BYTES: usize>(
    w: &RowMajor,
    x: &QuantizedRows,
    out: &mut [f32],
    dot: impl Fn(&[u8; BYTES], &[i8; SCALE_BLOCK]) -> [i32; TILE],
) {
    let (m, blocks) = (x.rows(), x.blocks());
    let (stride, block_stride) = x.strides();
    let bytes = BYTES / TILE;
    let mut block = [0u8; BYTES];
    let mut scales = [0f32; TILE];
    let mut offsets = [0i32; TILE];
    out.fill(0.0);
    for (t, out) in out.chunks_exact_mut(m * TILE).enumerate() {
        let valid = TILE.min(w.rows() - t * TILE);
        for b in 0..blocks {
            for r in 0..valid {
                let row = &w.weights[((t * TILE + r) * blocks + b) * bytes..][..bytes];
                for (j, four) in row.chunks_exact(4).enumerate() {
                    block[(j * TILE + r) * 4..][..4].copy_from_slice(four);
                }
            }
            w.spread_scales(t * TILE, valid, b, &mut scales, |_, _| ());
            if w.zero_points.is_some() {
                w.spread_offsets(t * TILE, valid, b, &mut offsets);
            }
            for (i, out) in out.chunks_exact_mut(TILE).enumerate() {
                let q: &[i8; SCALE_BLOCK] =
                    x.q[i * stride + b * SCALE_BLOCK..][..SCALE_BLOCK].try_into().unwrap();
                let (dot, scale) = (dot(&block, q), x.scale[i * block_stride + b]);
                let sum = x.sum[i * block_stride + b];
                for r in 0..TILE {
                    let dot = (dot[r] + offsets[r] * sum) as f32;
                    out[r] = dot.mul_add(scales[r] * scale, out[r]);
                }
            }
        }
    }
}
