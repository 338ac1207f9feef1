//! AVX2 and AVX-512 VNNI.
#![allow(unsafe_code)]

use super::Kernel;
use super::body::WidenHalf;
use core::arch::x86_64::*;

/// A function for each number of activation rows, indexed by it less one.
macro_rules! by_rows {
    ($f:ident, $layout:ident) => {
        [
            $f::<1, $layout>,
            $f::<2, $layout>,
            $f::<3, $layout>,
            $f::<4, $layout>,
            $f::<5, $layout>,
            $f::<6, $layout>,
            $f::<7, $layout>,
            $f::<8, $layout>,
        ]
    };
}

/// Compiles the shared bodies for one feature set and builds the table `KERNEL` of the module
/// that calls it, over that module's `tile8`, `tile4`, `one8`, `one4` and `transpose`. Each outer
/// function is safe to name because the table leaves this module only through [`detect`].
macro_rules! instruction_set {
    ($name:literal, $features:literal, $wide:literal, $halves:expr) => {
        pub(super) const KERNEL: Kernel = Kernel {
            name: $name,
            quantize,
            qgemm8,
            qgemm4,
            qgemm_rows: rows,
            place,
            rms_norm,
            layer_norm,
            swiglu,
            gelu_tanh,
            gelu_erf,
            conv,
            factor_logits,
            softmax,
            attend,
            rope,
            factor_softmax,
            to_half,
            sum_rows,
        };

        instruction_set!(@fn $features, quantize(x: &[f32], q: &mut [i8], s: &mut [f32], t: &mut [i32]) -> ());
        instruction_set!(@fn $features, place(t: &[f32], to: &Place, o: &mut [f32]) -> ());
        instruction_set!(@fn $features, rms_norm(x: &[f32], w: &[f32], e: f32, o: &mut [f32]) -> ());
        instruction_set!(@fn $features, layer_norm(x: &[f32], w: &[f32], b: &[f32], e: f32, o: &mut [f32]) -> ());
        instruction_set!(@fn $features, swiglu(g: &[f32], u: &[f32], o: &mut [f32]) -> ());
        instruction_set!(@fn $features, gelu_tanh(x: &mut [f32]) -> ());
        instruction_set!(@fn $features, gelu_erf(x: &mut [f32]) -> ());
        instruction_set!(@fn $features, conv(x: &[f32], w: &[f32], b: &[f32], o: &mut [f32]) -> ());
        instruction_set!(@fn $features, factor_logits(s: &[f32], l: &mut [f32]) -> ());
        instruction_set!(@fn $features, softmax(l: &[f32], t: f32, p: &mut [f32], s: &mut [f32]) -> f32);
        instruction_set!(@fn $features, rope(x: &mut [f32], c: &[f32], s: &[f32]) -> ());
        instruction_set!(@fn $features, factor_softmax(x: &[f32], t: f32, p: &mut [f32], s: &mut [f32], f: &mut FactorScratch) -> f32);

        fn attend(a: &Attend, s: &mut [f32], o: &mut [f32]) {
            #[target_feature(enable = $features)]
            fn inner(a: &Attend, s: &mut [f32], o: &mut [f32]) {
                body::attend::<$wide>(a, s, o, $halves)
            }
            // SAFETY: reachable only through `detect`, which checked the features.
            unsafe { inner(a, s, o) }
        }

        fn sum_rows(t: &[u16], r: &[u32], o: &mut [f32]) {
            #[target_feature(enable = $features)]
            fn inner(t: &[u16], r: &[u32], o: &mut [f32]) {
                body::sum_rows_by(t, r, o, $halves)
            }
            // SAFETY: as above.
            unsafe { inner(t, r, o) }
        }

        fn to_half(x: &[f32], o: &mut [u16]) {
            #[target_feature(enable = $features)]
            fn inner(x: &[f32], o: &mut [u16]) {
                let mut x8 = x.chunks_exact(8);
                let mut o8 = o.chunks_exact_mut(8);
                for (x, o) in (&mut x8).zip(&mut o8) {
                    // SAFETY: F16C exists; both hold eight numbers.
                    unsafe {
                        let h = _mm256_cvtps_ph::<0>(_mm256_loadu_ps(x.as_ptr()));
                        _mm_storeu_si128(o.as_mut_ptr().cast(), h);
                    }
                }
                body::to_half(x8.remainder(), o8.into_remainder());
            }
            // SAFETY: as above.
            unsafe { inner(x, o) }
        }

        fn qgemm8(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as above; the slice lengths were checked by `Kernel::qgemm`.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK }>(w, s, x, out, &ROWS8) }
        }

        fn qgemm4(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK / 2 }>(w, s, x, out, &ROWS4) }
        }

        fn rows(w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as above, the lengths by `Kernel::qgemm_rows`.
            unsafe {
                match w.bits {
                    Bits::Eight => qgemm_rows::<SCALE_BLOCK>(w, x, out, &BY_ROW8),
                    Bits::Four => qgemm_rows::<{ SCALE_BLOCK / 2 }>(w, x, out, &BY_ROW4),
                }
            }
        }

        static ROWS8: [RowsFn; ROWS_PER_TILE] = by_rows!(tile8_fn, PACKED);
        static ROWS4: [RowsFn; ROWS_PER_TILE] = by_rows!(tile4_fn, PACKED);
        static BY_ROW8: RowTables = RowTables {
            plain: by_rows!(tile8_fn, ROWS),
            zero: by_rows!(tile8_fn, ROWS_ZERO),
            one: one8_fn::<ROWS>,
            one_zero: one8_fn::<ROWS_ZERO>,
            transpose: transpose_fn,
            prefetch,
        };
        static BY_ROW4: RowTables = RowTables {
            plain: by_rows!(tile4_fn, ROWS),
            zero: by_rows!(tile4_fn, ROWS_ZERO),
            one: one4_fn::<ROWS>,
            one_zero: one4_fn::<ROWS_ZERO>,
            transpose: transpose_fn,
            prefetch,
        };

        /// # Safety
        /// See [`RowsFn`]; the CPU has the features.
        unsafe fn tile8_fn<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { tile8::<M, LAYOUT>(t, out) }
        }
        /// # Safety
        /// See [`RowsFn`]; the CPU has the features.
        unsafe fn tile4_fn<const M: usize, const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { tile4::<M, LAYOUT>(t, out) }
        }
        /// # Safety
        /// See [`RowsFn`]; the CPU has the features.
        unsafe fn one8_fn<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { one8::<LAYOUT>(t, out) }
        }
        /// # Safety
        /// See [`RowsFn`]; the CPU has the features.
        unsafe fn one4_fn<const LAYOUT: u8>(t: &TileArgs, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { one4::<LAYOUT>(t, out) }
        }
        /// # Safety
        /// See [`RowTables`]; the CPU has the features.
        unsafe fn transpose_fn(w: *const u8, stride: usize, out: *mut f32) {
            // SAFETY: passed on to the caller.
            unsafe { transpose(w, stride, out) }
        }
    };
    (@fn $features:literal, $f:ident($($a:ident: $t:ty),*) -> $r:ty) => {
        fn $f($($a: $t),*) -> $r {
            #[target_feature(enable = $features)]
            fn inner($($a: $t),*) -> $r {
                body::$f($($a),*)
            }
            // SAFETY: reachable only through `detect`, which checked the features.
            unsafe { inner($($a),*) }
        }
    };
}

mod avx2;
mod avx512;

/// The kernels that this CPU qualifies for, narrowest first. The only way to the tables
/// below, so that each entry point runs only where its features exist.
pub(super) fn detect() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    if avx2 {
        kernels.push(avx2::KERNEL);
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
        {
            kernels.push(avx512::KERNEL);
        }
    }
    kernels
}

/// f16 by F16C. Made only where the CPU has it.
#[derive(Clone, Copy)]
struct F16c;

impl WidenHalf for F16c {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> [f32; 16] {
        let x: &[u16; 16] = x[..16].try_into().unwrap();
        let mut out = [0f32; 16];
        // SAFETY: the kernels of `detect` have AVX and F16C; 16 numbers are inside both.
        unsafe {
            let lo = _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()));
            let hi = _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().add(8).cast()));
            _mm256_storeu_ps(out.as_mut_ptr(), lo);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), hi);
        }
        out
    }

    #[inline(always)]
    fn fetch(self, x: &[u16], at: usize) {
        // SAFETY: prefetching reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at).cast()) }
    }
}

/// f16 by AVX-512. Made only where the CPU has it.
#[derive(Clone, Copy)]
struct Avx512;

impl WidenHalf for Avx512 {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> [f32; 16] {
        let x: &[u16; 16] = x[..16].try_into().unwrap();
        let mut out = [0f32; 16];
        // SAFETY: the AVX-512 kernel has it; 16 numbers are inside both.
        unsafe {
            let v = _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_storeu_ps(out.as_mut_ptr(), v);
        }
        out
    }

    #[inline(always)]
    fn fetch(self, x: &[u16], at: usize) {
        F16c.fetch(x, at)
    }
}

/// Asks for a line of the next tile: to the first cache where that is near enough to stay
/// there, else to the second.
///
/// # Safety
/// None is needed: a prefetch does not fault.
#[inline(always)]
unsafe fn ask(near: bool, line: *const u8) {
    // SAFETY: a hint; SSE is part of x86-64.
    unsafe {
        match near {
            true => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
            false => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
        }
    }
}

/// See [`RowTables`].
///
/// # Safety
/// None is needed: a prefetch does not fault.
unsafe fn prefetch(from: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        // SAFETY: a hint; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) }
    }
}
