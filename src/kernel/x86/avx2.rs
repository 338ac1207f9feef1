//! The matrix products by AVX2.

use super::super::body::{self, FactorScratch};
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, SPAN, TileArgs, qgemm, qgemm_rows,
};
use super::super::{
    Attend, Bits, Kernel, Place, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE,
};
use super::{F16c, ask, prefetch};
use core::arch::x86_64::*;

instruction_set!("avx2", "avx2,fma,f16c", 4, F16c);

/// Bytes ahead of the weights in use that are asked for where several rows keep the
/// processor busy. Only for the first half of the rows: the second reads the same lines.
const FETCH: usize = 2048;

/// Four-way dot products of eight rows, exact: |w| <= 128 and |a| <= 127 keep every pair
/// sum inside 16 bits.
///
/// # Safety
/// AVX2 exists.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn dot_signed(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Four words of each of eight rows as four vectors, each a word of every row.
///
/// # Safety
/// 16 bytes at each of `w + r * stride`, r below 8; AVX2 exists.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transposed(w: *const u8, stride: usize) -> [__m256i; 4] {
    // SAFETY: passed on to the caller.
    unsafe {
        // Rows r and r + 4, so that the words come out in the order of the rows.
        let load = |r: usize| {
            let at = |r: usize| _mm_loadu_si128(w.add(r * stride).cast());
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
}

/// [`transposed`] for 16 rows, to memory.
///
/// # Safety
/// As there, r below 16; 64 floats at `out`.
#[target_feature(enable = "avx2")]
unsafe fn transpose(w: *const u8, stride: usize, out: *mut f32) {
    // SAFETY: passed on to the caller.
    unsafe {
        for half in 0..2 {
            let words = transposed(w.add(half * 8 * stride), stride);
            for (j, v) in words.into_iter().enumerate() {
                _mm256_storeu_si256(out.add(j * TILE + half * 8).cast(), v);
            }
        }
    }
}

/// Four vectors of four columns of the eight rows of `half`, from one of the layouts.
///
/// # Safety
/// 256 bytes at `packed`, or rows as [`transposed`] needs them at `rows`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn vectors<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    half: usize,
    packed: usize,
    rows: usize,
) -> [__m256i; 4] {
    // SAFETY: passed on to the caller.
    unsafe {
        if LAYOUT == PACKED {
            let w = t.w.add(packed + half * 32);
            std::array::from_fn(|j| {
                if M > 2 && half == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(FETCH + j * 64).cast());
                }
                _mm256_loadu_si256(w.add(j * 64).cast())
            })
        } else {
            for line in 0..2 {
                let at = packed + (2 * half + line) * 64;
                ask(false, t.ahead.wrapping_add(at));
            }
            transposed(t.w.add(half * 8 * t.stride + rows), t.stride)
        }
    }
}

/// Adds the sums of block `b`, scaled, to those of the blocks before.
///
/// # Safety
/// See [`RowsFn`]; AVX2, FMA and F16C exist.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn accumulate<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    half: usize,
    b: usize,
    dot: [__m256i; M],
    acc: &mut [__m256; M],
) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let at = b * TILE + half * 8;
        let ws = if LAYOUT == PACKED {
            _mm256_cvtph_ps(_mm_loadu_si128(t.scales.add(at).cast()))
        } else {
            _mm256_loadu_ps(t.row_scales.add(at))
        };
        for i in 0..M {
            let mut dot = dot[i];
            if LAYOUT == ROWS_ZERO {
                let offset = _mm256_loadu_si256(t.offsets.add(at).cast());
                let sum = _mm256_set1_epi32(*t.x_sum.add(i * t.x_blocks + b));
                dot = _mm256_add_epi32(dot, _mm256_mullo_epi32(offset, sum));
            }
            let s = _mm256_mul_ps(ws, _mm256_set1_ps(*t.x_scale.add(i * t.x_blocks + b)));
            acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), s, acc[i]);
        }
    }
}

/// # Safety
/// See [`RowsFn`].
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn begin<const M: usize, const LAYOUT: u8>(out: *mut f32, half: usize) -> [__m256; M] {
    // SAFETY: passed on to the caller.
    unsafe {
        match LAYOUT {
            PACKED => [_mm256_setzero_ps(); M],
            _ => std::array::from_fn(|i| _mm256_loadu_ps(out.add(i * TILE + half * 8))),
        }
    }
}

/// # Safety
/// See [`RowsFn`]; AVX2, FMA and F16C exist.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile8<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let flip = _mm256_set1_epi8(-128);
        for half in 0..2 {
            let mut acc = begin::<M, LAYOUT>(out, half);
            for b in 0..t.blocks {
                let mut dot = [_mm256_setzero_si256(); M];
                for part in 0..2 {
                    let (packed, rows) = (b * 512 + part * 256, b * 32 + part * 16);
                    let w = vectors::<M, LAYOUT>(t, half, packed, rows);
                    for j in 0..4 {
                        let wj = _mm256_xor_si256(w[j], flip);
                        for i in 0..M {
                            let a = t.q.add(i * t.k + b * SCALE_BLOCK + part * 16 + j * 4);
                            let a = a.cast::<i32>().read_unaligned();
                            dot[i] = dot_signed(dot[i], wj, _mm256_set1_epi32(a));
                        }
                    }
                }
                accumulate::<M, LAYOUT>(t, half, b, dot, &mut acc);
            }
            for i in 0..M {
                _mm256_storeu_ps(out.add(i * TILE + half * 8), acc[i]);
            }
        }
    }
}

/// # Safety
/// See [`RowsFn`]; AVX2, FMA and F16C exist.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile4<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = _mm256_set1_epi8(15);
        let one = _mm256_set1_epi16(1);
        for half in 0..2 {
            let mut acc = begin::<M, LAYOUT>(out, half);
            for b in 0..t.blocks {
                let mut dot = [_mm256_setzero_si256(); M];
                for i in 0..M {
                    dot[i] = _mm256_set1_epi32(*t.x_start.add(i * t.x_blocks + b));
                }
                let w = vectors::<M, LAYOUT>(t, half, b * 256, b * 16);
                for j in 0..4 {
                    let lo = _mm256_and_si256(w[j], mask);
                    let hi = _mm256_and_si256(_mm256_srli_epi16::<4>(w[j]), mask);
                    for i in 0..M {
                        let q = t.q.add(i * t.k + b * SCALE_BLOCK + j * 4);
                        let a = _mm256_set1_epi32(q.cast::<i32>().read_unaligned());
                        let c = _mm256_set1_epi32(q.add(16).cast::<i32>().read_unaligned());
                        // Both pair sums together stay below 2 * 15 * 127 * 2.
                        let pairs = _mm256_add_epi16(
                            _mm256_maddubs_epi16(lo, a),
                            _mm256_maddubs_epi16(hi, c),
                        );
                        dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, one));
                    }
                }
                accumulate::<M, LAYOUT>(t, half, b, dot, &mut acc);
            }
            for i in 0..M {
                _mm256_storeu_ps(out.add(i * TILE + half * 8), acc[i]);
            }
        }
    }
}

/// Sums of the eight words of eight vectors, in order.
///
/// # Safety
/// AVX2 exists.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums(v: [__m256i; 8]) -> __m256i {
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
/// See [`RowsFn`]; AVX2, FMA and F16C exist; at most [`SPAN`] blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn one<const LAYOUT: u8, const ROW: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs; `dots` has SPAN, a
    // multiple of 8, sums for each row.
    unsafe {
        let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
        let dots = dots.as_mut_ptr().cast::<i32>();
        let zero = _mm256_setzero_si256();
        for r in 0..TILE {
            let w = t.w.add(r * t.stride);
            for b in (0..t.blocks).step_by(8) {
                let mut v = [zero; 8];
                for j in 0..8 {
                    if b + j < t.blocks {
                        let w = w.add((b + j) * ROW);
                        let q = _mm256_loadu_si256(t.q.add((b + j) * SCALE_BLOCK).cast());
                        v[j] = if ROW == SCALE_BLOCK {
                            let w = _mm256_loadu_si256(w.cast());
                            dot_signed(zero, _mm256_xor_si256(w, _mm256_set1_epi8(-128)), q)
                        } else {
                            let w = _mm_loadu_si128(w.cast());
                            let w = _mm256_set_m128i(_mm_srli_epi16::<4>(w), w);
                            let w = _mm256_and_si256(w, _mm256_set1_epi8(15));
                            _mm256_madd_epi16(_mm256_maddubs_epi16(w, q), _mm256_set1_epi16(1))
                        };
                    }
                }
                _mm256_storeu_si256(dots.add(r * SPAN + b).cast(), sums(v));
            }
        }
        for half in 0..2 {
            let mut acc = begin::<1, LAYOUT>(out, half);
            for b in (0..t.blocks).step_by(4) {
                let dot = transposed(dots.add(half * 8 * SPAN + b).cast(), SPAN * 4);
                for j in 0..4.min(t.blocks - b) {
                    let usual = if ROW == SCALE_BLOCK { 0 } else { *t.x_start.add(b + j) };
                    let dot = _mm256_add_epi32(dot[j], _mm256_set1_epi32(usual));
                    accumulate::<1, LAYOUT>(t, half, b + j, [dot], &mut acc);
                }
            }
            _mm256_storeu_ps(out.add(half * 8), acc[0]);
        }
    }
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one8<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: passed on to the caller.
    unsafe { one::<LAYOUT, { SCALE_BLOCK }>(t, out) }
}

/// # Safety
/// As for [`one`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: passed on to the caller.
    unsafe { one::<LAYOUT, { SCALE_BLOCK / 2 }>(t, out) }
}
