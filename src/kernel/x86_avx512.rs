/// Bytes ahead of the weights in use that are asked for where several rows keep the
/// processor busy: with one row its own guess is as good.
const FETCH: usize = 2048;

/// # Safety
/// See [`RowsFn`]; AVX-512 F, BW, VL and VNNI exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn tile8<const M: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); M];
        for b in 0..t.blocks {
            let w = t.w.add(b * 512);
            let mut dot = [_mm512_setzero_si512(); M];
            for i in 0..M {
                dot[i] = _mm512_set1_epi32(*t.x_start.add(i * t.blocks + b));
            }
            for j in 0..8 {
                if M > 2 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(FETCH + j * 64).cast());
                }
                let wj = _mm512_loadu_si512(w.add(j * 64).cast());
                for i in 0..M {
                    let a = t.q.add(i * t.k + b * BLOCK + j * 4).cast::<i32>().read_unaligned();
                    dot[i] = _mm512_dpbusd_epi32(dot[i], wj, _mm512_set1_epi32(a));
                }
            }
            let ws = _mm512_cvtph_ps(_mm256_loadu_si256(t.scales.add(b * TILE).cast()));
            for i in 0..M {
                let s = _mm512_mul_ps(ws, _mm512_set1_ps(*t.x_scale.add(i * t.blocks + b)));
                acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i]), s, acc[i]);
            }
        }
        for i in 0..M {
            _mm512_storeu_ps(out.add(i * TILE), acc[i]);
        }
    }
}

/// # Safety
/// See [`RowsFn`]; AVX-512 F, BW, VL and VNNI exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c")]
unsafe fn tile4<const M: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = _mm512_set1_epi8(15);
        let mut acc = [_mm512_setzero_ps(); M];
        for b in 0..t.blocks {
            let w = t.w.add(b * 256);
            let mut dot = [_mm512_setzero_si512(); M];
            for i in 0..M {
                dot[i] = _mm512_set1_epi32(*t.x_start.add(i * t.blocks + b));
            }
            for j in 0..4 {
                if M > 2 {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(FETCH + j * 64).cast());
                }
                let v = _mm512_loadu_si512(w.add(j * 64).cast());
                let lo = _mm512_and_si512(v, mask);
                let hi = _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask);
                for i in 0..M {
                    let q = t.q.add(i * t.k + b * BLOCK + j * 4);
                    let a = q.cast::<i32>().read_unaligned();
                    let c = q.add(16).cast::<i32>().read_unaligned();
                    dot[i] = _mm512_dpbusd_epi32(dot[i], lo, _mm512_set1_epi32(a));
                    dot[i] = _mm512_dpbusd_epi32(dot[i], hi, _mm512_set1_epi32(c));
                }
            }
            let ws = _mm512_cvtph_ps(_mm256_loadu_si256(t.scales.add(b * TILE).cast()));
            for i in 0..M {
                let s = _mm512_mul_ps(ws, _mm512_set1_ps(*t.x_scale.add(i * t.blocks + b)));
                acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i]), s, acc[i]);
            }
        }
        for i in 0..M {
            _mm512_storeu_ps(out.add(i * TILE), acc[i]);
        }
    }
}
