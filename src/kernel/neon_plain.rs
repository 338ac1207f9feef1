/// Groups of four weight rows for three and four activation rows.
const WIDE: usize = 1;

/// # Safety
/// See [`RowsFn`]; NEON exists. `G` divides 4.
unsafe fn tile8<const M: usize, const G: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let flip = vdupq_n_u8(128);
        for first in (0..4).step_by(G) {
            let mut acc = [[vdupq_n_f32(0.0); M]; G];
            for b in 0..t.blocks {
                // Rows 0 and 1 of a group, rows 2 and 3; two lanes a row.
                let mut low = [[vdupq_n_s32(0); M]; G];
                let mut high = [[vdupq_n_s32(0); M]; G];
                for j in (0..8).step_by(2) {
                    let w = t.w.add(b * 512 + j * 64 + first * 16);
                    for g in 0..G {
                        let load = |p: *const u8| {
                            vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p.add(g * 16)), flip))
                        };
                        let (w0, w1) = (load(w), load(w.add(64)));
                        for i in 0..M {
                            let a = t.q.add(i * t.k + b * BLOCK + j * 4);
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
                    let s = t.scales.add(b * TILE + (first + g) * 4);
                    accumulate(&mut acc[g], dot, s, t.x_scale.add(b), t.blocks);
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
unsafe fn tile4<const M: usize, const G: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = vdupq_n_u8(15);
        for first in (0..4).step_by(G) {
            let mut acc = [[vdupq_n_f32(0.0); M]; G];
            for b in 0..t.blocks {
                let mut low = [[vdupq_n_s16(0); M]; G];
                let mut high = [[vdupq_n_s16(0); M]; G];
                for j in 0..4 {
                    let w = t.w.add(b * 256 + j * 64 + first * 16);
                    for g in 0..G {
                        let v = vld1q_u8(w.add(g * 16));
                        // Nibbles are stored as w + 8: 0 to 15.
                        let w0 = vreinterpretq_s8_u8(vandq_u8(v, mask));
                        let w1 = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                        for i in 0..M {
                            let a = t.q.add(i * t.k + b * BLOCK + j * 4);
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
                        let zero = *t.x_start.add(i * t.blocks + b);
                        dot[i] = vaddq_s32(p, vdupq_n_s32(zero));
                    }
                    let s = t.scales.add(b * TILE + (first + g) * 4);
                    accumulate(&mut acc[g], dot, s, t.x_scale.add(b), t.blocks);
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
