//! The matrix products by AVX2.

use super::super::body::{self, FactorScratch};
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, SPAN, TileArgs, qgemm, qgemm_rows,
};
use super::super::{
    Attend, Bits, Kernel, Place, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE,
};
use super::{F16c, ask, four, prefetch};
use core::arch::x86_64::*;

instruction_set!("avx2", "avx2,fma,f16c", 4, F16c);

/// Bytes ahead of the weights in use that are asked for where several rows keep the
/// processor busy. Only for the first half of the rows: the second reads the same lines.
const FETCH: usize = 2048;

/// Four-way dot products of eight rows, exact: |w| <= 128 and |a| <= 127 keep every pair
/// sum inside 16 bits.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn dot_signed(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Four words of each of eight rows as four vectors, each a word of every row.
///
/// # Safety
/// 16 bytes at each of `w + r * stride`, r below 8.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transposed(w: *const u8, stride: usize) -> [__m256i; 4] {
    // Rows r and r + 4, so that the words come out in the order of the rows.
    let load = |r: usize| {
        // SAFETY: `r` is below 8 in both uses, and each such row has the 16 bytes.
        let at = |r: usize| unsafe { _mm_loadu_si128(w.add(r * stride).cast()) };
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(at(r)), at(r + 4))
    };
    let (a, b, c, d) = (load(0), load(1), load(2), load(3));
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ef, gh) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ef, gh),
        _mm256_unpackhi_epi64(ef, gh),
    ]
}

/// [`transposed`] for 16 rows, to memory.
///
/// # Safety
/// As there, r below 16; 64 floats at `out`.
#[target_feature(enable = "avx2")]
unsafe fn transpose(w: *const u8, stride: usize, out: *mut f32) {
    for half in 0..2 {
        // SAFETY: the eight rows of this half are among the 16.
        let words = unsafe { transposed(w.add(half * 8 * stride), stride) };
        for (j, v) in words.into_iter().enumerate() {
            // SAFETY: `j` is below 4, so the vector ends at float 64 at the latest.
            unsafe { _mm256_storeu_si256(out.add(j * TILE + half * 8).cast(), v) };
        }
    }
}

/// Four vectors of four columns of the eight rows of `half`, from one of the layouts.
///
/// # Safety
/// [`TileArgs`] holds for `LAYOUT`: 256 bytes at `packed`, or 16 bytes at `rows` of each row.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn vectors<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    half: usize,
    packed: usize,
    rows: usize,
) -> [__m256i; 4] {
    if LAYOUT == PACKED {
        let w = t.w.wrapping_add(packed + half * 32);
        std::array::from_fn(|j| {
            if M > 2 && half == 0 {
                ask::<_MM_HINT_T0>(w.wrapping_add(FETCH + j * 64));
            }
            // SAFETY: `half` is below 2 and `j` below 4: 32 of the 256 bytes.
            unsafe { _mm256_loadu_si256(w.wrapping_add(j * 64).cast()) }
        })
    } else {
        for line in 0..2 {
            let at = packed + (2 * half + line) * 64;
            ask::<_MM_HINT_T1>(t.ahead.wrapping_add(at));
        }
        // SAFETY: eight of the 16 rows, 16 bytes of each.
        unsafe { transposed(t.w.add(half * 8 * t.stride + rows), t.stride) }
    }
}

/// Adds the sums of block `b`, scaled, to those of the blocks before.
///
/// # Safety
/// [`TileArgs`] holds for `LAYOUT` and `M` rows; `half` is below 2 and `b` below its blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn accumulate<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    half: usize,
    b: usize,
    dot: [__m256i; M],
    acc: &mut [__m256; M],
) {
    // Of the 16 numbers that each block has there, the eight of this half.
    let at = b * TILE + half * 8;
    let ws = if LAYOUT == PACKED {
        // SAFETY: `scales` covers all blocks in this layout.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(t.scales.add(at).cast()) })
    } else {
        // SAFETY: `row_scales` covers all blocks in these.
        unsafe { _mm256_loadu_ps(t.row_scales.add(at)) }
    };
    for i in 0..M {
        let mut dot = dot[i];
        if LAYOUT == ROWS_ZERO {
            // SAFETY: `offsets` covers all blocks in this layout.
            let offset = unsafe { _mm256_loadu_si256(t.offsets.add(at).cast()) };
            // SAFETY: `i` is below M, `b` is the caller's.
            let sum = _mm256_set1_epi32(unsafe { t.activation_sum(i, b) });
            dot = _mm256_add_epi32(dot, _mm256_mullo_epi32(offset, sum));
        }
        // SAFETY: `i` is below M, `b` is the caller's.
        let s = _mm256_mul_ps(ws, _mm256_set1_ps(unsafe { t.activation_scale(i, b) }));
        acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), s, acc[i]);
    }
}

/// Sums to go on from.
///
/// # Safety
/// `M * 16` floats at `out`; `half` is below 2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn begin<const M: usize, const LAYOUT: u8>(out: *mut f32, half: usize) -> [__m256; M] {
    match LAYOUT {
        PACKED => [_mm256_setzero_ps(); M],
        // SAFETY: `i` is below M: eight of the 16 floats of that row.
        _ => std::array::from_fn(|i| unsafe { _mm256_loadu_ps(out.add(i * TILE + half * 8)) }),
    }
}

/// # Safety
/// See [`RowsFn`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile8<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let flip = _mm256_set1_epi8(-128);
    for half in 0..2 {
        // SAFETY: `out` has M rows.
        let mut acc = unsafe { begin::<M, LAYOUT>(out, half) };
        for b in 0..t.blocks {
            let mut dot = [_mm256_setzero_si256(); M];
            for part in 0..2 {
                let (packed, rows) = (b * 512 + part * 256, b * 32 + part * 16);
                // SAFETY: half of the 512 bytes that block `b` has packed, or of its 32 in a row.
                let w = unsafe { vectors::<M, LAYOUT>(t, half, packed, rows) };
                for j in 0..4 {
                    let wj = _mm256_xor_si256(w[j], flip);
                    for i in 0..M {
                        let q = t.activations(i, b).wrapping_add(part * 16 + j * 4);
                        // SAFETY: four of the 32 activations of a block and row that exist.
                        let a = unsafe { four(q) };
                        dot[i] = dot_signed(dot[i], wj, _mm256_set1_epi32(a));
                    }
                }
            }
            // SAFETY: `t` holds for LAYOUT and M rows, and `b` is below its blocks.
            unsafe { accumulate::<M, LAYOUT>(t, half, b, dot, &mut acc) };
        }
        for i in 0..M {
            // SAFETY: `i` is below M: eight of the 16 floats of that row.
            unsafe { _mm256_storeu_ps(out.add(i * TILE + half * 8), acc[i]) };
        }
    }
}

/// # Safety
/// See [`RowsFn`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile4<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let mask = _mm256_set1_epi8(15);
    let one = _mm256_set1_epi16(1);
    for half in 0..2 {
        // SAFETY: `out` has M rows.
        let mut acc = unsafe { begin::<M, LAYOUT>(out, half) };
        for b in 0..t.blocks {
            let mut dot = [_mm256_setzero_si256(); M];
            for i in 0..M {
                // SAFETY: `i` is below M and `b` below the blocks.
                dot[i] = _mm256_set1_epi32(unsafe { t.start(i, b) });
            }
            // SAFETY: all of the 256 bytes that block `b` has packed, or of its 16 in a row.
            let w = unsafe { vectors::<M, LAYOUT>(t, half, b * 256, b * 16) };
            for j in 0..4 {
                let lo = _mm256_and_si256(w[j], mask);
                let hi = _mm256_and_si256(_mm256_srli_epi16::<4>(w[j]), mask);
                for i in 0..M {
                    let q = t.activations(i, b).wrapping_add(j * 4);
                    // SAFETY: four of the first 16 activations of a block and row that exist,
                    // and four of the second.
                    let (a, c) = unsafe { (four(q), four(q.wrapping_add(16))) };
                    // Both pair sums together stay below 2 * 15 * 127 * 2.
                    let pairs = _mm256_add_epi16(
                        _mm256_maddubs_epi16(lo, _mm256_set1_epi32(a)),
                        _mm256_maddubs_epi16(hi, _mm256_set1_epi32(c)),
                    );
                    dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, one));
                }
            }
            // SAFETY: `t` holds for LAYOUT and M rows, and `b` is below its blocks.
            unsafe { accumulate::<M, LAYOUT>(t, half, b, dot, &mut acc) };
        }
        for i in 0..M {
            // SAFETY: `i` is below M: eight of the 16 floats of that row.
            unsafe { _mm256_storeu_ps(out.add(i * TILE + half * 8), acc[i]) };
        }
    }
}

/// Sums of the eight words of eight vectors, in order.
#[target_feature(enable = "avx2")]
#[inline]
fn sums(v: [__m256i; 8]) -> __m256i {
    let pair = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let four = |a, b, c, d| {
        let (ab, cd) = (pair(a, b), pair(c, d));
        _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
    };
    let (low, high) = (four(v[0], v[1], v[2], v[3]), four(v[4], v[5], v[6], v[7]));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    )
}

/// One activation row over row-major weights: each row is read from end to end, as it lies in
/// memory, and gives a sum a block; the sums are then taken across rows.
///
/// # Safety
/// See [`RowsFn`], for one row; at most [`SPAN`] blocks of `ROW` bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn one<const LAYOUT: u8, const ROW: usize>(t: &TileArgs, out: *mut f32) {
    let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
    let dots = dots.as_mut_ptr().cast::<i32>();
    let zero = _mm256_setzero_si256();
    for r in 0..TILE {
        let w = t.w.wrapping_add(r * t.stride);
        for b in (0..t.blocks).step_by(8) {
            let mut v = [zero; 8];
            for j in 0..8 {
                if b + j < t.blocks {
                    let w = w.wrapping_add((b + j) * ROW);
                    // SAFETY: the 32 activations of a block that exists.
                    let q = unsafe { _mm256_loadu_si256(t.activations(0, b + j).cast()) };
                    v[j] = if ROW == SCALE_BLOCK {
                        // SAFETY: the 32 bytes that this block has in row `r`.
                        let w = unsafe { _mm256_loadu_si256(w.cast()) };
                        dot_signed(zero, _mm256_xor_si256(w, _mm256_set1_epi8(-128)), q)
                    } else {
                        // SAFETY: the 16 bytes that this block has in row `r`.
                        let w = unsafe { _mm_loadu_si128(w.cast()) };
                        let w = _mm256_set_m128i(_mm_srli_epi16::<4>(w), w);
                        let w = _mm256_and_si256(w, _mm256_set1_epi8(15));
                        _mm256_madd_epi16(_mm256_maddubs_epi16(w, q), _mm256_set1_epi16(1))
                    };
                }
            }
            // SAFETY: `b` is a multiple of 8 below SPAN, which is one as well: eight of the SPAN
            // sums that row `r` has in `dots`.
            unsafe { _mm256_storeu_si256(dots.add(r * SPAN + b).cast(), sums(v)) };
        }
    }
    for half in 0..2 {
        // SAFETY: `out` has one row.
        let mut acc = unsafe { begin::<1, LAYOUT>(out, half) };
        for b in (0..t.blocks).step_by(4) {
            // SAFETY: four sums of each of eight rows of `dots`, written above: there eight at a
            // time, from a multiple of 8 on.
            let dot = unsafe { transposed(dots.add(half * 8 * SPAN + b).cast(), SPAN * 4) };
            for j in 0..4.min(t.blocks - b) {
                // SAFETY: one row, and `b + j` is below the blocks.
                let usual = if ROW == SCALE_BLOCK { 0 } else { unsafe { t.start(0, b + j) } };
                let dot = _mm256_add_epi32(dot[j], _mm256_set1_epi32(usual));
                // SAFETY: `t` holds for LAYOUT and one row, and `b + j` is below its blocks.
                unsafe { accumulate::<1, LAYOUT>(t, half, b + j, [dot], &mut acc) };
            }
        }
        // SAFETY: eight of the 16 floats of the one row.
        unsafe { _mm256_storeu_ps(out.add(half * 8), acc[0]) };
    }
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one8<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: the same conditions; 32 weights of 8 bits are 32 bytes.
    unsafe { one::<LAYOUT, { SCALE_BLOCK }>(t, out) }
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: the same conditions; 32 weights of 4 bits are 16 bytes.
    unsafe { one::<LAYOUT, { SCALE_BLOCK / 2 }>(t, out) }
}
