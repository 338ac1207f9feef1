/// Groups of four weight rows for three and four activation rows.
const WIDE: usize = 2;

/// Adds to each of four sums the products of four weights with the four activations of lane
/// `LANE`. (Inline assembly because the intrinsic is not stable.)
///
/// # Safety
/// NEON and the dot product extension exist.
#[target_feature(enable = "neon,dotprod")]
#[inline]
unsafe fn sdot<const LANE: usize>(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let out;
    // SAFETY: registers only.
    unsafe {
        asm!("sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
             acc = inlateout(vreg) acc => out, w = in(vreg) w, a = in(vreg) a,
             lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Runs the block for lanes 0 to 3 as a constant.
macro_rules! each_lane {
    ($lane:ident, $body:block) => {
        each_lane!(@ $lane, $body, 0, 1, 2, 3)
    };
    (@ $lane:ident, $body:block, $($n:literal),*) => {
        $({
            const $lane: usize = $n;
            $body
        })*
    };
}

/// # Safety
/// See [`RowsFn`]; NEON and the dot product extension exist. `G` divides 4.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile8<const M: usize, const G: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let flip = vdupq_n_u8(128);
        for first in (0..4).step_by(G) {
            let mut acc = [[vdupq_n_f32(0.0); M]; G];
            for b in 0..t.blocks {
                let mut dot = [[vdupq_n_s32(0); M]; G];
                for half in 0..2 {
                    let mut a = [vdupq_n_s8(0); M];
                    for i in 0..M {
                        a[i] = vld1q_s8(t.q.add(i * t.k + b * BLOCK + half * 16));
                    }
                    let w = t.w.add(b * 512 + half * 256 + first * 16);
                    each_lane!(J, {
                        for g in 0..G {
                            let w = veorq_u8(vld1q_u8(w.add(J * 64 + g * 16)), flip);
                            for i in 0..M {
                                let w = vreinterpretq_s8_u8(w);
                                dot[g][i] = sdot::<J>(dot[g][i], w, a[i]);
                            }
                        }
                    });
                }
                for g in 0..G {
                    let s = t.scales.add(b * TILE + (first + g) * 4);
                    accumulate(&mut acc[g], dot[g], s, t.x_scale.add(b), t.blocks);
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
/// See [`RowsFn`]; NEON and the dot product extension exist. `G` divides 4.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile4<const M: usize, const G: usize>(t: &TileArgs, out: *mut f32) {
    // SAFETY: every address is inside the extents promised by TileArgs.
    unsafe {
        let mask = vdupq_n_u8(15);
        for first in (0..4).step_by(G) {
            let mut acc = [[vdupq_n_f32(0.0); M]; G];
            for b in 0..t.blocks {
                let mut dot = [[vdupq_n_s32(0); M]; G];
                let mut a0 = [vdupq_n_s8(0); M];
                let mut a1 = [vdupq_n_s8(0); M];
                for i in 0..M {
                    // Nibbles are stored as w + 8: take 8 times the activations' sum off.
                    let zero = vdupq_n_s32(*t.x_start.add(i * t.blocks + b));
                    for g in 0..G {
                        dot[g][i] = zero;
                    }
                    let q = t.q.add(i * t.k + b * BLOCK);
                    (a0[i], a1[i]) = (vld1q_s8(q), vld1q_s8(q.add(16)));
                }
                let w = t.w.add(b * 256 + first * 16);
                each_lane!(J, {
                    for g in 0..G {
                        let v = vld1q_u8(w.add(J * 64 + g * 16));
                        let low = vreinterpretq_s8_u8(vandq_u8(v, mask));
                        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                        for i in 0..M {
                            dot[g][i] = sdot::<J>(dot[g][i], low, a0[i]);
                            dot[g][i] = sdot::<J>(dot[g][i], high, a1[i]);
                        }
                    }
                });
                for g in 0..G {
                    let s = t.scales.add(b * TILE + (first + g) * 4);
                    accumulate(&mut acc[g], dot[g], s, t.x_scale.add(b), t.blocks);
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
