//! The matrix products by AVX-512 VNNI.

use super::super::body::{self, FactorScratch};
use super::super::tiles::{
    PACKED, ROWS, ROWS_ZERO, RowTables, RowsFn, SPAN, TileArgs, qgemm, qgemm_rows,
};
use super::super::{
    Attend, Bits, Kernel, Place, QuantizedRows, ROWS_PER_TILE, RowMajor, SCALE_BLOCK, TILE,
};
use super::{Avx512, ask, four, prefetch};
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
/// 16 bytes at each of `w + r * stride`, r below 16.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transposed(w: *const u8, stride: usize) -> [__m512i; 4] {
    // Rows r, r + 4, r + 8 and r + 12, so that the words come out in the order of the rows.
    let load = |r: usize| {
        // SAFETY: `r` is below 4 and `i` too, and each of the 16 rows has the 16 bytes.
        let at = |i: usize| unsafe { _mm_loadu_si128(w.add((r + 4 * i) * stride).cast()) };
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

/// [`transposed`] to memory.
///
/// # Safety
/// As there; 64 floats at `out`.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(w: *const u8, stride: usize, out: *mut f32) {
    // SAFETY: the same 16 rows.
    for (j, v) in unsafe { transposed(w, stride) }.into_iter().enumerate() {
        // SAFETY: `j` is below 4, so the vector ends at float 64 at the latest.
        unsafe { _mm512_storeu_si512(out.add(j * TILE).cast(), v) };
    }
}

/// Four vectors of four columns of 16 rows, from one of the layouts. `near` is where the next
/// tile's line is asked for.
///
/// # Safety
/// [`TileArgs`] holds for `LAYOUT`: 256 bytes at `packed`, or 16 bytes at `rows` of each row.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn vectors<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    packed: usize,
    rows: usize,
    near: bool,
) -> [__m512i; 4] {
    if LAYOUT == PACKED {
        let w = t.w.wrapping_add(packed);
        std::array::from_fn(|j| {
            if M > 2 {
                ask::<_MM_HINT_T0>(w.wrapping_add(FETCH + j * 64));
            }
            // SAFETY: `j` is below 4: 64 of the 256 bytes.
            unsafe { _mm512_loadu_si512(w.wrapping_add(j * 64).cast()) }
        })
    } else {
        for line in 0..4 {
            // To the first cache where that is near enough to stay there, else to the second.
            let line = t.ahead.wrapping_add(packed + line * 64);
            if near { ask::<_MM_HINT_T0>(line) } else { ask::<_MM_HINT_T1>(line) }
        }
        // SAFETY: all 16 rows, 16 bytes of each.
        unsafe { transposed(t.w.add(rows), t.stride) }
    }
}

/// Adds the sums of block `b`, scaled, to those of the blocks before.
///
/// # Safety
/// [`TileArgs`] holds for `LAYOUT` and `M` rows; `b` is below its blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
#[inline]
unsafe fn accumulate<const M: usize, const LAYOUT: u8>(
    t: &TileArgs,
    b: usize,
    dot: [__m512i; M],
    acc: &mut [__m512; M],
) {
    // The 16 numbers of the block.
    let at = b * TILE;
    let ws = if LAYOUT == PACKED {
        // SAFETY: `scales` covers all blocks in this layout.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(t.scales.add(at).cast()) })
    } else {
        // SAFETY: `row_scales` covers all blocks in these.
        unsafe { _mm512_loadu_ps(t.row_scales.add(at)) }
    };
    for i in 0..M {
        let mut dot = dot[i];
        if LAYOUT == ROWS_ZERO {
            // SAFETY: `offsets` covers all blocks in this layout.
            let offset = unsafe { _mm512_loadu_si512(t.offsets.add(at).cast()) };
            // SAFETY: `i` is below M, `b` is the caller's.
            let sum = _mm512_set1_epi32(unsafe { t.activation_sum(i, b) });
            dot = _mm512_add_epi32(dot, _mm512_mullo_epi32(offset, sum));
        }
        // SAFETY: `i` is below M, `b` is the caller's.
        let s = _mm512_mul_ps(ws, _mm512_set1_ps(unsafe { t.activation_scale(i, b) }));
        acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), s, acc[i]);
    }
}

/// Sums to go on from.
///
/// # Safety
/// `M * 16` floats at `out`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn begin<const M: usize, const LAYOUT: u8>(out: *mut f32) -> [__m512; M] {
    match LAYOUT {
        PACKED => [_mm512_setzero_ps(); M],
        // SAFETY: `i` is below M: the 16 floats of that row.
        _ => std::array::from_fn(|i| unsafe { _mm512_loadu_ps(out.add(i * TILE)) }),
    }
}

/// # Safety
/// See [`RowsFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn tile8<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    // SAFETY: `out` has M rows.
    let mut acc = unsafe { begin::<M, LAYOUT>(out) };
    for b in 0..t.blocks {
        let mut dot = [_mm512_setzero_si512(); M];
        for i in 0..M {
            // SAFETY: `i` is below M and `b` below the blocks.
            dot[i] = _mm512_set1_epi32(unsafe { t.start(i, b) });
        }
        for half in 0..2 {
            let (packed, rows) = (b * 512 + half * 256, b * 32 + half * 16);
            // SAFETY: half of the 512 bytes that block `b` has packed, or of its 32 in a row.
            let w = unsafe { vectors::<M, LAYOUT>(t, packed, rows, false) };
            for j in 0..4 {
                for i in 0..M {
                    let q = t.activations(i, b).wrapping_add(half * 16 + j * 4);
                    // SAFETY: four of the 32 activations of a block and row that exist.
                    let a = unsafe { four(q) };
                    dot[i] = _mm512_dpbusd_epi32(dot[i], w[j], _mm512_set1_epi32(a));
                }
            }
        }
        // SAFETY: `t` holds for LAYOUT and M rows, and `b` is below its blocks.
        unsafe { accumulate::<M, LAYOUT>(t, b, dot, &mut acc) };
    }
    for i in 0..M {
        // SAFETY: `i` is below M: the 16 floats of that row.
        unsafe { _mm512_storeu_ps(out.add(i * TILE), acc[i]) };
    }
}

/// # Safety
/// See [`RowsFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn tile4<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let mask = _mm512_set1_epi8(15);
    // SAFETY: `out` has M rows.
    let mut acc = unsafe { begin::<M, LAYOUT>(out) };
    for b in 0..t.blocks {
        let mut dot = [_mm512_setzero_si512(); M];
        for i in 0..M {
            // SAFETY: `i` is below M and `b` below the blocks.
            dot[i] = _mm512_set1_epi32(unsafe { t.start(i, b) });
        }
        // SAFETY: all of the 256 bytes that block `b` has packed, or of its 16 in a row.
        let w = unsafe { vectors::<M, LAYOUT>(t, b * 256, b * 16, t.near) };
        for j in 0..4 {
            let lo = _mm512_and_si512(w[j], mask);
            let hi = _mm512_and_si512(_mm512_srli_epi16::<4>(w[j]), mask);
            for i in 0..M {
                let q = t.activations(i, b).wrapping_add(j * 4);
                // SAFETY: four of the first 16 activations of a block and row that exist, and
                // four of the second.
                let (a, c) = unsafe { (four(q), four(q.wrapping_add(16))) };
                dot[i] = _mm512_dpbusd_epi32(dot[i], lo, _mm512_set1_epi32(a));
                dot[i] = _mm512_dpbusd_epi32(dot[i], hi, _mm512_set1_epi32(c));
            }
        }
        // SAFETY: `t` holds for LAYOUT and M rows, and `b` is below its blocks.
        unsafe { accumulate::<M, LAYOUT>(t, b, dot, &mut acc) };
    }
    for i in 0..M {
        // SAFETY: `i` is below M: the 16 floats of that row.
        unsafe { _mm512_storeu_ps(out.add(i * TILE), acc[i]) };
    }
}

/// Sums of the four words of each quarter: element `4 l + j` is that of quarter `l` of `v[j]`.
#[target_feature(enable = "avx512f")]
#[inline]
fn quarters(v: [__m512i; 4]) -> __m512i {
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pair(v[0], v[1]), pair(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// 64 bytes at `p`, zeros from byte `left` on, which is a multiple of 4.
///
/// # Safety
/// `left` bytes at `p`, or 64 if that is less.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_some(p: *const u8, left: usize) -> __m512i {
    match left {
        // SAFETY: 64 bytes are there.
        64.. => unsafe { _mm512_loadu_si512(p.cast()) },
        _ => {
            let mask = (1u16 << (left / 4)).wrapping_sub(1);
            // SAFETY: the mask has the words below `left`, and no other is touched.
            unsafe { _mm512_maskz_loadu_epi32(mask, p.cast()) }
        }
    }
}

/// One activation row over row-major weights: each row is read from end to end, as it lies in
/// memory, and gives a sum a block; [`finish_one`] takes the sums across rows.
///
/// # Safety
/// See [`RowsFn`], for one row; at most [`SPAN`] blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn one8<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
    let dots = dots.as_mut_ptr().cast::<i32>();
    // First and second halves of the blocks of eight vectors, in order.
    let first = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
    let second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
    for r in 0..TILE {
        let w = t.w.wrapping_add(r * t.stride);
        for b in (0..t.blocks).step_by(16) {
            let left = (t.blocks - b) * SCALE_BLOCK;
            let sums = |first: usize| {
                let mut v = [_mm512_setzero_si512(); 4];
                for j in 0..4 {
                    let at = (first + j) * 64;
                    if at < left {
                        let w = w.wrapping_add(b * SCALE_BLOCK + at);
                        // SAFETY: `left` bytes are in row `r` from block `b` on.
                        let w = unsafe { load_some(w, left - at) };
                        let q = t.activations(0, b).wrapping_add(at);
                        // SAFETY: and as many activations, one a byte.
                        let q = unsafe { load_some(q.cast(), left - at) };
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
            // SAFETY: `b` is a multiple of 16 below SPAN, which is one as well: 16 of the SPAN sums
            // that row `r` has in `dots`.
            unsafe { _mm512_storeu_si512(dots.add(r * SPAN + b).cast(), sum) };
        }
    }
    // SAFETY: sums of all blocks of all rows were written, 16 at a time.
    unsafe { finish_one::<LAYOUT>(t, dots, out) };
}

/// [`one8`] for 4 bits.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn one4<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
    let mut dots = std::mem::MaybeUninit::<[i32; SPAN * TILE]>::uninit();
    let dots = dots.as_mut_ptr().cast::<i32>();
    let mask = _mm512_set1_epi8(15);
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    // The activations' even columns of four blocks, and their odd ones.
    let mut q = [[_mm512_setzero_si512(); 2]; SPAN / 4];
    for b in (0..t.blocks).step_by(4) {
        let left = (t.blocks - b) * SCALE_BLOCK;
        let at = t.activations(0, b);
        // SAFETY: `left` activations are there from block `b` on, one a byte.
        let a = unsafe { load_some(at.cast(), left) };
        // SAFETY: 64 fewer are there behind the first 64; if there are none, nothing is touched.
        let c = unsafe { load_some(at.wrapping_add(64).cast(), left.saturating_sub(64)) };
        let even = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
        let odd = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
        q[b / 4][0] = _mm512_permutex2var_epi64(a, even, c);
        q[b / 4][1] = _mm512_permutex2var_epi64(a, odd, c);
    }
    for r in 0..TILE {
        let w = t.w.wrapping_add(r * t.stride);
        for b in (0..t.blocks).step_by(16) {
            let mut v = [_mm512_setzero_si512(); 4];
            for j in 0..4 {
                let at = b + 4 * j;
                if at < t.blocks {
                    let w = w.wrapping_add(at * 16);
                    // SAFETY: 16 bytes a block are in row `r` from block `at` on.
                    let w = unsafe { load_some(w, (t.blocks - at) * 16) };
                    let low = _mm512_and_si512(w, mask);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask);
                    v[j] = _mm512_dpbusd_epi32(v[j], low, q[at / 4][0]);
                    v[j] = _mm512_dpbusd_epi32(v[j], high, q[at / 4][1]);
                }
            }
            let sum = _mm512_permutexvar_epi32(order, quarters(v));
            // SAFETY: `b` is a multiple of 16 below SPAN, which is one as well: 16 of the SPAN sums
            // that row `r` has in `dots`.
            unsafe { _mm512_storeu_si512(dots.add(r * SPAN + b).cast(), sum) };
        }
    }
    // SAFETY: sums of all blocks of all rows were written, 16 at a time.
    unsafe { finish_one::<LAYOUT>(t, dots, out) };
}

/// The sums of the blocks of 16 rows, scaled and added up in order.
///
/// # Safety
/// See [`RowsFn`], for one row; `dots` has `SPAN` sums for each row of weights, those up to the
/// last block, rounded up to four, written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
#[inline]
unsafe fn finish_one<const LAYOUT: u8>(t: &TileArgs, dots: *const i32, out: *mut f32) {
    // SAFETY: `out` has one row.
    let mut acc = unsafe { begin::<1, LAYOUT>(out) };
    for b in (0..t.blocks).step_by(4) {
        // SAFETY: four written sums of each of the 16 rows.
        let dot = unsafe { transposed(dots.add(b).cast(), SPAN * 4) };
        for j in 0..4.min(t.blocks - b) {
            // SAFETY: one row, and `b + j` is below the blocks.
            let start = _mm512_set1_epi32(unsafe { t.start(0, b + j) });
            let dot = _mm512_add_epi32(dot[j], start);
            // SAFETY: `t` holds for LAYOUT and one row, and `b + j` is below its blocks.
            unsafe { accumulate::<1, LAYOUT>(t, b + j, [dot], &mut acc) };
        }
    }
    // SAFETY: the 16 floats of the one row.
    unsafe { _mm512_storeu_ps(out, acc[0]) };
}
