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

/// # Safety
/// See [`RowsFn`]; AVX2, FMA and F16C exist.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile8<const M: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let flip = _mm256_set1_epi8(-128);
        for half in 0..2 {
            let mut acc = [_mm256_setzero_ps(); M];
            for b in 0..t.blocks {
                let w = t.w.add(b * 512 + half * 32);
                let mut dot = [_mm256_setzero_si256(); M];
                for j in 0..8 {
                    let wj = _mm256_xor_si256(_mm256_loadu_si256(w.add(j * 64).cast()), flip);
                    for i in 0..M {
                        let a = t.q.add(i * t.k + b * BLOCK + j * 4).cast::<i32>();
                        dot[i] = dot_signed(dot[i], wj, _mm256_set1_epi32(a.read_unaligned()));
                    }
                }
                let s = t.scales.add(b * TILE + half * 8);
                let ws = _mm256_cvtph_ps(_mm_loadu_si128(s.cast()));
                for i in 0..M {
                    let s = _mm256_mul_ps(ws, _mm256_set1_ps(*t.x_scale.add(i * t.blocks + b)));
                    acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), s, acc[i]);
                }
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
unsafe fn tile4<const M: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = _mm256_set1_epi8(15);
        let one = _mm256_set1_epi16(1);
        for half in 0..2 {
            let mut acc = [_mm256_setzero_ps(); M];
            for b in 0..t.blocks {
                let w = t.w.add(b * 256 + half * 32);
                let mut dot = [_mm256_setzero_si256(); M];
                for i in 0..M {
                    dot[i] = _mm256_set1_epi32(*t.x_start.add(i * t.blocks + b));
                }
                for j in 0..4 {
                    let v = _mm256_loadu_si256(w.add(j * 64).cast());
                    let lo = _mm256_and_si256(v, mask);
                    let hi = _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask);
                    for i in 0..M {
                        let q = t.q.add(i * t.k + b * BLOCK + j * 4);
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
                let s = t.scales.add(b * TILE + half * 8);
                let ws = _mm256_cvtph_ps(_mm_loadu_si128(s.cast()));
                for i in 0..M {
                    let s = _mm256_mul_ps(ws, _mm256_set1_ps(*t.x_scale.add(i * t.blocks + b)));
                    acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), s, acc[i]);
                }
            }
            for i in 0..M {
                _mm256_storeu_ps(out.add(i * TILE + half * 8), acc[i]);
            }
        }
    }
}
