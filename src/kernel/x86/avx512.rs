//! The matrix products by AVX-512 VNNI.

use super::super::body::{self, FactorScratch};
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, SPAN, TileArgs, qgemm, qgemm_rows,
};
use super::super::{
    Attend, Bits, Kernel, Place, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE,
};
use super::{Avx512, ask, prefetch};
use core::arch::x86_64::*;

instruction_set!(
    "avx512-vnni",
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
    16,
    Avx512
);

/// Bytes ahead of the weights in use that are asked for where several rows keep the
/// processor busy: with one row its own guess is as good.
const FETCH: usize = 2048;

/// Four words of each of 16 rows as four vectors, each a word of every row.
///
/// # Safety
/// 16 bytes at each of `w + r * stride`, r below 16; AVX-512 F exists.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transposed(w: *const u8, stride: usize) -> [__m512i; 4] {
    // SAFETY: passed on to the caller.
    unsafe {
        // Rows r, r + 4, r + 8 and r + 12, so that the words come out in the order of the rows.
        let load = |r: usize| {
            let at = |i: usize| _mm_loadu_si128(w.add((r + 4 * i) * stride).cast());
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(at(0)), at(1));
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(at(2)), at(3));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        let (a, b, c, d) = (load(0), load(1), load(2), load(3));
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ef, gh) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ef, gh),
            _mm512_unpackhi_epi64(ef, gh),
        ]
    }
}

/// [`transposed`] to memory.
///
/// # Safety
/// As there; 64 floats at `out`.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(w: *const u8, stride: usize, out: *mut f32) {
    // SAFETY: passed on to the caller.
    unsafe {
        for (j, v) in transposed(w, stride).into_iter().enumerate() {
            _mm512_storeu_si512(out.add(j * TILE).cast(), v);
        }
    }
}

/// Four vectors of four columns of 16 rows, from one of the layouts.
///
/// # Safety
/// 256 bytes at `packed`, or rows as [`transposed`] needs them at `rows`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn vectors<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    packed: usize,
    rows: usize,
    near: bool,
) -> [__m512i; 4] {
    // SAFETY: passed on to the caller.
    unsafe {
        if LAYOUT == PACKED {
            let w = t.w.add(packed);
            std::array::from_fn(|j| {
                if M > 2 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(FETCH + j * 64).cast());
                }
                _mm512_loadu_si512(w.add(j * 64).cast())
            })
        } else {
            for line in 0..4 {
                ask(near, t.ahead.wrapping_add(packed + line * 64));
            }
            transposed(t.w.add(rows), t.stride)
        }
    }
}

/// Adds the sums of block `b`, scaled, to those of the blocks before.
///
/// # Safety
/// See [`RowsFn`]; the features of the tiles exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
#[inline]
unsafe fn accumulate<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    b: usize,
    dot: [__m512i; M],
    acc: &mut [__m512; M],
) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let ws = if LAYOUT == PACKED {
            _mm512_cvtph_ps(_mm256_loadu_si256(t.scales.add(b * TILE).cast()))
        } else {
            _mm512_loadu_ps(t.row_scales.add(b * TILE))
        };
        for i in 0..M {
            let mut dot = dot[i];
            if LAYOUT == ROWS_ZERO {
                let offset = _mm512_loadu_si512(t.offsets.add(b * TILE).cast());
                let sum = _mm512_set1_epi32(*t.x_sum.add(i * t.x_blocks + b));
                dot = _mm512_add_epi32(dot, _mm512_mullo_epi32(offset, sum));
            }
            let s = _mm512_mul_ps(ws, _mm512_set1_ps(*t.x_scale.add(i * t.x_blocks + b)));
            acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), s, acc[i]);
        }
    }
}

/// # Safety
/// See [`RowsFn`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn begin<const M: usize, const LAYOUT: u8>(out: *mut f32) -> [__m512; M] {
    // SAFETY: passed on to the caller.
    unsafe {
        match LAYOUT {
            PACKED => [_mm512_setzero_ps(); M],
            _ => std::array::from_fn(|i| _mm512_loadu_ps(out.add(i * TILE))),
        }
    }
}

/// # Safety
/// See [`RowsFn`]; AVX-512 F, BW, VL and VNNI exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn tile8<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mut acc = begin::<M, LAYOUT>(out);
        for b in 0..t.blocks {
            let mut dot = [_mm512_setzero_si512(); M];
            for i in 0..M {
                dot[i] = _mm512_set1_epi32(*t.x_start.add(i * t.x_blocks + b));
            }
            for half in 0..2 {
                let w = vectors::<M, LAYOUT>(t, b * 512 + half * 256, b * 32 + half * 16, false);
                for j in 0..4 {
                    for i in 0..M {
                        let a = t.q.add(i * t.k + b * SCALE_BLOCK + half * 16 + j * 4);
                        let a = a.cast::<i32>().read_unaligned();
                        dot[i] = _mm512_dpbusd_epi32(dot[i], w[j], _mm512_set1_epi32(a));
                    }
                }
            }
            accumulate::<M, LAYOUT>(t, b, dot, &mut acc);
        }
        for i in 0..M {
            _mm512_storeu_ps(out.add(i * TILE), acc[i]);
        }
    }
}

/// # Safety
/// See [`RowsFn`]; AVX-512 F, BW, VL and VNNI exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn tile4<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = _mm512_set1_epi8(15);
        let mut acc = begin::<M, LAYOUT>(out);
        for b in 0..t.blocks {
            let mut dot = [_mm512_setzero_si512(); M];
            for i in 0..M {
                dot[i] = _mm512_set1_epi32(*t.x_start.add(i * t.x_blocks + b));
            }
            let w = vectors::<M, LAYOUT>(t, b * 256, b * 16, t.near);
            for j in 0..4 {
                let lo = _mm512_and_si512(w[j], mask);
                let hi = _mm512_and_si512(_mm512_srli_epi16::<4>(w[j]), mask);
                for i in 0..M {
                    let q = t.q.add(i * t.k + b * SCALE_BLOCK + j * 4);
                    let a = q.cast::<i32>().read_unaligned();
                    let c = q.add(16).cast::<i32>().read_unaligned();
                    dot[i] = _mm512_dpbusd_epi32(dot[i], lo, _mm512_set1_epi32(a));
                    dot[i] = _mm512_dpbusd_epi32(dot[i], hi, _mm512_set1_epi32(c));
                }
            }
            accumulate::<M, LAYOUT>(t, b, dot, &mut acc);
        }
        for i in 0..M {
            _mm512_storeu_ps(out.add(i * TILE), acc[i]);
        }
    }
}

/// Sums of the four words of each quarter: element `4 l + j` is that of quarter `l` of `v[j]`.
///
/// # Safety
/// AVX-512 F exists.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn quarters(v: [__m512i; 4]) -> __m512i {
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pair(v[0], v[1]), pair(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// 64 bytes at `p`, zeros from byte `left` on, which is a multiple of 4.
///
/// # Safety
/// AVX-512 F exists; `left` bytes at `p`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_some(p: *const u8, left: usize) -> __m512i {
    // SAFETY: the mask keeps to the bytes that exist.
    unsafe {
        match left {
            64.. => _mm512_loadu_si512(p.cast()),
            _ => _mm512_maskz_loadu_epi32((1u16 << (left / 4)).wrapping_sub(1), p.cast()),
        }
    }
}

/// One activation row over row-major weights: each row is read from end to end, as it lies in
/// memory, and gives a sum a block; [`finish_one`] takes the sums across rows.
///
/// # Safety
/// See [`RowsFn`]; AVX-512 F, BW, VL and VNNI exist; at most [`SPAN`] blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn one8<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs; `dots` has SPAN, a
    // multiple of 16, sums for each row.
    unsafe {
        let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
        let dots = dots.as_mut_ptr().cast::<i32>();
        // First and second halves of the blocks of eight vectors, in order.
        let first = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
        let second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
        for r in 0..TILE {
            let w = t.w.add(r * t.stride);
            for b in (0..t.blocks).step_by(16) {
                let left = (t.blocks - b) * SCALE_BLOCK;
                let sums = |first: usize| {
                    let mut v = [_mm512_setzero_si512(); 4];
                    for j in 0..4 {
                        let at = (first + j) * 64;
                        if at < left {
                            let w = load_some(w.add(b * SCALE_BLOCK + at), left - at);
                            let q = load_some(t.q.add(b * SCALE_BLOCK + at).cast(), left - at);
                            v[j] = _mm512_dpbusd_epi32(v[j], w, q);
                        }
                    }
                    quarters(v)
                };
                let (low, high) = (sums(0), sums(4));
                let sum = _mm512_add_epi32(
                    _mm512_permutex2var_epi32(low, first, high),
                    _mm512_permutex2var_epi32(low, second, high),
                );
                _mm512_storeu_si512(dots.add(r * SPAN + b).cast(), sum);
            }
        }
        finish_one::<LAYOUT>(t, dots, out);
    }
}

/// [`one8`] for 4 bits.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: as in `one8`.
    unsafe {
        let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
        let dots = dots.as_mut_ptr().cast::<i32>();
        let mask = _mm512_set1_epi8(15);
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        // The activations' even columns of four blocks, and their odd ones.
        let mut q = [[_mm512_setzero_si512(); 2]; SPAN / 4];
        for b in (0..t.blocks).step_by(4) {
            let a = load_some(t.q.add(b * SCALE_BLOCK).cast(), (t.blocks - b) * SCALE_BLOCK);
            let left = ((t.blocks - b) * SCALE_BLOCK).saturating_sub(64);
            let c = load_some(t.q.wrapping_add(b * SCALE_BLOCK + 64).cast(), left);
            let even = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
            let odd = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
            q[b / 4][0] = _mm512_permutex2var_epi64(a, even, c);
            q[b / 4][1] = _mm512_permutex2var_epi64(a, odd, c);
        }
        for r in 0..TILE {
            let w = t.w.add(r * t.stride);
            for b in (0..t.blocks).step_by(16) {
                let mut v = [_mm512_setzero_si512(); 4];
                for j in 0..4 {
                    let at = b + 4 * j;
                    if at < t.blocks {
                        let w = load_some(w.add(at * 16), (t.blocks - at) * 16);
                        let low = _mm512_and_si512(w, mask);
                        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask);
                        v[j] = _mm512_dpbusd_epi32(v[j], low, q[at / 4][0]);
                        v[j] = _mm512_dpbusd_epi32(v[j], high, q[at / 4][1]);
                    }
                }
                let sum = _mm512_permutexvar_epi32(order, quarters(v));
                _mm512_storeu_si512(dots.add(r * SPAN + b).cast(), sum);
            }
        }
        finish_one::<LAYOUT>(t, dots, out);
    }
}

/// The sums of the blocks of 16 rows, scaled and added up in order.
///
/// # Safety
/// See [`RowsFn`]; the features of the tiles exist; `dots` has `SPAN` sums for each row, those
/// up to the last block defined, rounded up to four.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
#[inline]
unsafe fn finish_one<const LAYOUT: u8>(t: &TileArgs, dots: *const i32, out: *mut f32) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut acc = begin::<1, LAYOUT>(out);
        for b in (0..t.blocks).step_by(4) {
            let dot = transposed(dots.add(b).cast(), SPAN * 4);
            for j in 0..4.min(t.blocks - b) {
                let start = _mm512_set1_epi32(*t.x_start.add(b + j));
                accumulate::<1, LAYOUT>(t, b + j, [_mm512_add_epi32(dot[j], start)], &mut acc);
            }
        }
        _mm512_storeu_ps(out, acc[0]);
    }
}
