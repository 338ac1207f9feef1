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
/// that calls it, over that module's `tile8`, `tile4`, `one8`, `one4` and `transpose`, which must
/// need no other features than `$features`. Each outer function is safe to name because the table
/// leaves this module only through [`detect`].
macro_rules! instruction_set {
    ($name:literal, $features:literal, $wide:literal, $halves:ident) => {
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
            silu,
            scale_shift,
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
        instruction_set!(@fn $features, silu(x: &mut [f32]) -> ());
        instruction_set!(@fn $features, scale_shift(x: &[f32], a: &[f32], b: &[f32], o: &mut [f32]) -> ());
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
                body::attend::<$wide>(a, s, o, $halves::new())
            }
            // SAFETY: reachable only through `detect`, which checked the features.
            unsafe { inner(a, s, o) }
        }

        fn sum_rows(t: &[u16], r: &[u32], o: &mut [f32]) {
            #[target_feature(enable = $features)]
            fn inner(t: &[u16], r: &[u32], o: &mut [f32]) {
                body::sum_rows_by(t, r, o, $halves::new())
            }
            // SAFETY: reachable only through `detect`, which checked the features.
            unsafe { inner(t, r, o) }
        }

        fn to_half(x: &[f32], o: &mut [u16]) {
            #[target_feature(enable = $features)]
            fn inner(x: &[f32], o: &mut [u16]) {
                let mut x8 = x.chunks_exact(8);
                let mut o8 = o.chunks_exact_mut(8);
                for (x, o) in (&mut x8).zip(&mut o8) {
                    // SAFETY: `chunks_exact(8)` gives eight floats.
                    let h = _mm256_cvtps_ph::<0>(unsafe { _mm256_loadu_ps(x.as_ptr()) });
                    // SAFETY: and room for eight numbers of 16 bits.
                    unsafe { _mm_storeu_si128(o.as_mut_ptr().cast(), h) };
                }
                body::to_half(x8.remainder(), o8.into_remainder());
            }
            // SAFETY: reachable only through `detect`, which checked the features.
            unsafe { inner(x, o) }
        }

        fn qgemm8(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: reachable only through `detect`, which checked the features of the table, and
            // `Kernel::qgemm`, which checked the lengths.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK }>(w, s, x, out, &ROWS8) }
        }

        fn qgemm4(w: &[u8], s: &[u16], x: &QuantizedRows, out: &mut [f32]) {
            // SAFETY: as in `qgemm8`.
            unsafe { qgemm::<{ TILE * SCALE_BLOCK / 2 }>(w, s, x, out, &ROWS4) }
        }

        fn rows(w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
            match w.bits {
                // SAFETY: reachable only through `detect`, which checked the features of the table,
                // and `Kernel::qgemm_rows`, which checked the lengths; 32 bytes are 32 weights of 8
                // bits.
                Bits::Eight => unsafe { qgemm_rows::<SCALE_BLOCK>(w, x, out, &BY_ROW8) },
                // SAFETY: as above; 16 bytes are 32 weights of 4 bits.
                Bits::Four => unsafe { qgemm_rows::<{ SCALE_BLOCK / 2 }>(w, x, out, &BY_ROW4) },
            }
        }

        static ROWS8: [RowsFn; ROWS_PER_TILE] = by_rows!(tile8, PACKED);
        static ROWS4: [RowsFn; ROWS_PER_TILE] = by_rows!(tile4, PACKED);
        static BY_ROW8: RowTables = RowTables {
            plain: by_rows!(tile8, ROWS),
            zero: by_rows!(tile8, ROWS_ZERO),
            one: one8::<ROWS>,
            one_zero: one8::<ROWS_ZERO>,
            transpose,
            prefetch,
        };
        static BY_ROW4: RowTables = RowTables {
            plain: by_rows!(tile4, ROWS),
            zero: by_rows!(tile4, ROWS_ZERO),
            one: one4::<ROWS>,
            one_zero: one4::<ROWS_ZERO>,
            transpose,
            prefetch,
        };
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

/// f16 by F16C. A value shows that the CPU has it.
#[derive(Clone, Copy)]
struct F16c(());

impl F16c {
    #[target_feature(enable = "avx,f16c")]
    fn new() -> Self {
        Self(())
    }
}

impl WidenHalf for F16c {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> [f32; 16] {
        let x: &[u16; 16] = x[..16].try_into().unwrap();
        let mut out = [0f32; 16];
        // SAFETY: `self` shows that AVX and F16C exist; two times 8 numbers are inside both.
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
        ask::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at).cast());
    }
}

/// f16 by AVX-512. A value shows that the CPU has it.
#[derive(Clone, Copy)]
struct Avx512(());

impl Avx512 {
    #[target_feature(enable = "avx512f,f16c")]
    fn new() -> Self {
        Self(())
    }
}

impl WidenHalf for Avx512 {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> [f32; 16] {
        let x: &[u16; 16] = x[..16].try_into().unwrap();
        let mut out = [0f32; 16];
        // SAFETY: `self` shows that AVX-512 F exists; 16 numbers are inside both.
        unsafe {
            let v = _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_storeu_ps(out.as_mut_ptr(), v);
        }
        out
    }

    #[inline(always)]
    fn fetch(self, x: &[u16], at: usize) {
        ask::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at).cast());
    }
}

/// Asks for the line at an address, which need not exist.
#[inline(always)]
fn ask<const HINT: i32>(line: *const u8) {
    // SAFETY: a hint does not fault whatever the address, and SSE is part of x86-64.
    unsafe { _mm_prefetch::<HINT>(line.cast()) }
}

/// See [`RowTables`](super::tiles::RowTables).
fn prefetch(from: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        ask::<_MM_HINT_T0>(from.wrapping_add(at));
    }
}

/// Four activations as one word.
///
/// # Safety
/// Four bytes are at `q`.
#[inline(always)]
unsafe fn four(q: *const i8) -> i32 {
    // SAFETY: the caller's promise; any alignment will do.
    unsafe { q.cast::<i32>().read_unaligned() }
}
