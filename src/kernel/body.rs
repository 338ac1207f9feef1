//! Row-wise functions written once over 16 explicit lanes. Each instruction set compiles
//! the same source with its own features, so the order of operations, and with it every
//! bit of the result, is the same everywhere.

use super::{Attend, SUM_BLOCK};
use half::f16;

const LANES: usize = 16;
type V = [f32; LANES];

#[inline(always)]
fn load(x: &[f32]) -> V {
    x[..LANES].try_into().unwrap()
}

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    let mut o = [0.0; LANES];
    for i in 0..LANES {
        o[i] = f(a[i]);
    }
    o
}

#[inline(always)]
fn fma(a: V, b: V, c: V) -> V {
    let mut o = [0.0; LANES];
    for i in 0..LANES {
        o[i] = a[i].mul_add(b[i], c[i]);
    }
    o
}

/// Sum of 16 lanes as a fixed tree.
#[inline(always)]
fn tree(a: V) -> f32 {
    let mut b = [0.0; 8];
    for i in 0..8 {
        b[i] = a[i] + a[i + 8];
    }
    let c = [b[0] + b[4], b[1] + b[5], b[2] + b[6], b[3] + b[7]];
    (c[0] + c[2]) + (c[1] + c[3])
}

/// exp(x), relative error below 2e-7 for x in [-87, 88]; 0 below, clamped above.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    const MAGIC: f32 = 12_582_912.0;
    let c = x.clamp(-87.0, 88.0);
    let n = c.mul_add(LOG2E, MAGIC) - MAGIC;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, c));
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.0e-1);
    let y = (p * r).mul_add(r, r + 1.0);
    // n is a whole number in -126..=127, so the exponent field stays in range.
    let two_n = f32::from_bits(((n + (MAGIC + 127.0)).to_bits()) << 23);
    let v = y * two_n;
    if x < -87.0 { 0.0 } else { v }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Applies `f` to 16 lanes at a time and one by one at the end.
#[inline(always)]
fn in_place(x: &mut [f32], f: impl Fn(f32) -> f32 + Copy) {
    let mut it = x.chunks_exact_mut(LANES);
    for c in &mut it {
        let v = map(load(c), f);
        c.copy_from_slice(&v);
    }
    for v in it.into_remainder() {
        *v = f(*v);
    }
}

#[inline(always)]
pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    for (((x, q), scale), sum) in
        x.chunks_exact(32).zip(q.chunks_exact_mut(32)).zip(scale.iter_mut()).zip(sum.iter_mut())
    {
        let (a, b) = (load(&x[..16]), load(&x[16..]));
        let mut m = [0.0f32; LANES];
        for i in 0..LANES {
            m[i] = a[i].abs().max(b[i].abs());
        }
        let mut amax = 0.0f32;
        for v in m {
            amax = amax.max(v);
        }
        let inverse = if amax > 0.0 { 127.0 / amax } else { 0.0 };
        *scale = amax / 127.0;
        let mut total = 0;
        for i in 0..32 {
            // Adding and removing 1.5 * 2^23 rounds to nearest even and leaves the
            // integer in the low bits.
            q[i] = (x[i] * inverse + 12_582_912.0).to_bits().wrapping_sub(0x4b40_0000) as i8;
            total += q[i] as i32;
        }
        *sum = total;
    }
}

#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut acc = [0.0; LANES];
    let mut it = x.chunks_exact(LANES);
    for c in &mut it {
        let v = load(c);
        acc = fma(v, v, acc);
    }
    let mut sum = tree(acc);
    for v in it.remainder() {
        sum = v.mul_add(*v, sum);
    }
    let r = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * r * w;
    }
}

#[inline(always)]
pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mut acc = [0.0; LANES];
    let mut it = x.chunks_exact(LANES);
    for c in &mut it {
        let v = load(c);
        for i in 0..LANES {
            acc[i] += v[i];
        }
    }
    let mean = it.remainder().iter().fold(tree(acc), |s, v| s + v) / n;
    let mut acc = [0.0; LANES];
    let mut it = x.chunks_exact(LANES);
    for c in &mut it {
        let v = map(load(c), |v| v - mean);
        acc = fma(v, v, acc);
    }
    let var = it.remainder().iter().fold(tree(acc), |s, v| (v - mean).mul_add(v - mean, s)) / n;
    let r = 1.0 / (var + epsilon).sqrt();
    for (((o, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = ((x - mean) * r).mul_add(*w, *b);
    }
}

#[inline(always)]
pub(super) fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    out.copy_from_slice(gate);
    in_place(out, |g| g * sigmoid(g));
    for (o, u) in out.iter_mut().zip(up) {
        *o *= *u;
    }
}

#[inline(always)]
pub(super) fn gelu_tanh(x: &mut [f32]) {
    // 0.5 x (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2/pi) (x + 0.044715 x^3)
    in_place(x, |x| {
        let z = (x * x * x).mul_add(0.044_715, x) * 1.595_769;
        x * sigmoid(z)
    })
}

#[inline(always)]
pub(super) fn gelu_erf(x: &mut [f32]) {
    // Abramowitz and Stegun 7.1.26.
    in_place(x, |x| {
        let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
        let mut p = 1.061_405_4f32;
        p = p.mul_add(t, -1.453_152_1);
        p = p.mul_add(t, 1.421_413_8);
        p = p.mul_add(t, -0.284_496_72);
        p = p.mul_add(t, 0.254_829_6);
        let tail = p * t * exp(-(z * z)) * 0.5;
        x * if x < 0.0 { tail } else { 1.0 - tail }
    })
}

#[inline(always)]
pub(super) fn conv(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    out.copy_from_slice(bias);
    let c = out.len();
    if c == 0 {
        return;
    }
    for (x, w) in x.chunks_exact(c).zip(weight.chunks_exact(c)) {
        for ((o, x), w) in out.iter_mut().zip(x).zip(w) {
            *o = w.mul_add(*x, *o);
        }
    }
}

/// Index of pair `(a, b)`, a < b, among the 28 pairs of 8 digits in lexicographic order.
#[inline(always)]
const fn pair(a: usize, b: usize) -> usize {
    a * (15 - a) / 2 + b - a - 1
}

/// Row of the digit table for digit `i` at `level`.
#[inline(always)]
pub(super) const fn digit_row(i: usize, level: usize) -> usize {
    4 * i + level
}

/// Row of the digit table for the pair of digits `(a, b)`, a < b.
#[inline(always)]
pub(super) const fn pair_row(a: usize, b: usize, level_a: usize, level_b: usize) -> usize {
    32 + 16 * pair(a, b) + 4 * level_a + level_b
}

/// Sum of the rows of digits `base..base+4` and their six pairs, for all 256 values.
#[inline(always)]
fn half_table(scores: &[f32], base: usize, out: &mut [f32; 256]) {
    for (t, o) in out.iter_mut().enumerate() {
        let d = [t & 3, t >> 2 & 3, t >> 4 & 3, t >> 6];
        let mut sum = 0.0;
        for i in 0..4 {
            sum += scores[digit_row(base + i, d[i])];
        }
        for a in 0..4 {
            for b in a + 1..4 {
                sum += scores[pair_row(base + a, base + b, d[a], d[b])];
            }
        }
        *o = sum;
    }
}

#[inline(always)]
pub(super) fn factor_logits(scores: &[f32], logits: &mut [f32]) {
    let mut low = [0.0; 256];
    let mut high = [0.0; 256];
    half_table(scores, 0, &mut low);
    half_table(scores, 4, &mut high);
    for (hi, (out, &a)) in logits.chunks_exact_mut(256).zip(high.iter()).enumerate() {
        let h = [hi & 3, hi >> 2 & 3, hi >> 4 & 3, hi >> 6];
        // cross[i][l]: the four pairs of low digit i at level l with the high digits.
        let mut cross = [[0.0f32; 4]; 4];
        for (i, row) in cross.iter_mut().enumerate() {
            for (l, v) in row.iter_mut().enumerate() {
                let p = |j: usize| scores[pair_row(i, 4 + j, l, h[j])];
                *v = (p(0) + p(1)) + (p(2) + p(3));
            }
        }
        let mut base = [0.0; LANES];
        for (lane, b) in base.iter_mut().enumerate() {
            *b = cross[0][lane & 3] + cross[1][lane >> 2];
        }
        for (v, (out, low)) in out.chunks_exact_mut(LANES).zip(low.chunks_exact(LANES)).enumerate()
        {
            let s = a + (cross[2][v & 3] + cross[3][v >> 2]);
            for i in 0..LANES {
                out[i] = low[i] + (base[i] + s);
            }
        }
    }
}

#[inline(always)]
pub(super) fn softmax(
    logits: &[f32],
    inverse_temperature: f32,
    probs: &mut [f32],
    sums: &mut [f32],
) -> f32 {
    let mut m = [f32::NEG_INFINITY; LANES];
    let mut it = logits.chunks_exact(LANES);
    for c in &mut it {
        for i in 0..LANES {
            m[i] = if c[i] > m[i] { c[i] } else { m[i] };
        }
    }
    let max = m.iter().chain(it.remainder()).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let shift = -max * inverse_temperature;
    let mut total = 0.0f32;
    for ((l, p), s) in
        logits.chunks(SUM_BLOCK).zip(probs.chunks_mut(SUM_BLOCK)).zip(sums.iter_mut())
    {
        let mut acc = [0.0; LANES];
        let mut li = l.chunks_exact(LANES);
        let mut pi = p.chunks_exact_mut(LANES);
        for (l, p) in (&mut li).zip(&mut pi) {
            let e = map(load(l), |v| exp(v.mul_add(inverse_temperature, shift)));
            p.copy_from_slice(&e);
            for i in 0..LANES {
                acc[i] += e[i];
            }
        }
        let mut sum = tree(acc);
        for (l, p) in li.remainder().iter().zip(pi.into_remainder()) {
            *p = exp(l.mul_add(inverse_temperature, shift));
            sum += *p;
        }
        *s = sum;
        total += sum;
    }
    let scale = 1.0 / total;
    for v in probs.iter_mut() {
        *v *= scale;
    }
    for v in sums.iter_mut() {
        *v *= scale;
    }
    max
}

/// Scores of `M` queries against every tile of 16 keys; each key is widened once.
#[inline(always)]
fn score_rows<const M: usize>(
    q: &[f32],
    d: usize,
    keys: &[u16],
    scores: &mut [f32],
    padded: usize,
    widen: impl Fn(&[u16]) -> V + Copy,
) {
    // One slice a row, as long as the loop: no check of bounds inside it.
    let q: [&[f32]; M] = std::array::from_fn(|i| &q[i * d..][..d]);
    for (t, tile) in keys.chunks_exact(d * LANES).enumerate() {
        let mut acc = [[0.0; LANES]; M];
        for c in 0..d {
            let k = widen(&tile[c * LANES..][..LANES]);
            for i in 0..M {
                acc[i] = fma(k, [q[i][c]; LANES], acc[i]);
            }
        }
        for i in 0..M {
            scores[i * padded + t * LANES..][..LANES].copy_from_slice(&acc[i]);
        }
    }
}

/// Weighted sums of `W * 16` channels of the values for `M` rows.
#[inline(always)]
fn mix_rows<const M: usize, const W: usize>(
    scores: &[f32],
    padded: usize,
    d: usize,
    values: &[u16],
    channel: usize,
    out: &mut [f32],
    widen: impl Fn(&[u16]) -> V + Copy,
) {
    let n = values.len() / d;
    let scores: [&[f32]; M] = std::array::from_fn(|i| &scores[i * padded..][..n]);
    let mut acc = [[[0.0; LANES]; W]; M];
    for p in 0..n {
        let value = &values[p * d + channel..][..W * LANES];
        for w in 0..W {
            let v = widen(&value[w * LANES..][..LANES]);
            for i in 0..M {
                acc[i][w] = fma(v, [scores[i][p]; LANES], acc[i][w]);
            }
        }
    }
    for i in 0..M {
        for w in 0..W {
            out[i * d + channel + w * LANES..][..LANES].copy_from_slice(&acc[i][w]);
        }
    }
}

/// Calls `$f::<M, ..>` for 1 to 4 rows.
macro_rules! by_rows {
    ($rows:expr, $f:ident $(, $w:literal)? ; $($arg:expr),*) => {
        match $rows {
            1 => $f::<1 $(, $w)?>($($arg),*),
            2 => $f::<2 $(, $w)?>($($arg),*),
            3 => $f::<3 $(, $w)?>($($arg),*),
            _ => $f::<4 $(, $w)?>($($arg),*),
        }
    };
}

/// `WIDE` is how many accumulators of 16 lanes the registers hold beside their operands; it
/// changes how often a value is widened, never the order of a sum.
#[inline(always)]
pub(super) fn attend<const WIDE: usize>(
    a: &Attend,
    scores: &mut [f32],
    out: &mut [f32],
    widen: impl Fn(&[u16]) -> V + Copy,
) {
    let d = a.head_dim;
    let n = a.longest();
    let padded = n.next_multiple_of(LANES);
    let keys = &a.keys[..padded * d];
    let values = &a.values[..n * d];
    for (chunk, lens) in a.lens.chunks(4).enumerate() {
        let rows = lens.len();
        let q = &a.q[chunk * 4 * d..][..rows * d];
        let out = &mut out[chunk * 4 * d..][..rows * d];
        by_rows!(rows, score_rows; q, d, keys, scores, padded, widen);
        for (row, &len) in lens.iter().enumerate() {
            let s = &mut scores[row * padded..][..padded];
            let max = s[..len].iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
            s[len..].fill(f32::NEG_INFINITY);
            in_place(s, |v| exp(v - max));
            let mut acc = [0.0; LANES];
            for c in s.chunks_exact(LANES) {
                for i in 0..LANES {
                    acc[i] += c[i];
                }
            }
            let scale = 1.0 / tree(acc);
            in_place(s, |v| v * scale);
        }
        let mut channel = 0;
        while channel < d {
            let width = ((d - channel) / LANES).min(WIDE / rows);
            if width >= 4 {
                by_rows!(rows, mix_rows, 4; scores, padded, d, values, channel, out, widen);
                channel += 4 * LANES;
            } else if width >= 2 {
                by_rows!(rows, mix_rows, 2; scores, padded, d, values, channel, out, widen);
                channel += 2 * LANES;
            } else {
                by_rows!(rows, mix_rows, 1; scores, padded, d, values, channel, out, widen);
                channel += LANES;
            }
        }
    }
}

/// f16 to f32 without a branch, exact: the bits moved into place are the number divided by
/// 2^112. (`half` looks for an instruction on every call.)
#[inline(always)]
pub(super) fn widen(h: u16) -> f32 {
    const TWO_112: f32 = f32::from_bits((112 + 127) << 23);
    let magnitude = (h as u32 & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_112).to_bits();
    let quiet = if magnitude > 0x0f80_0000 { 0x7fc0_0000 } else { 0x7f80_0000 };
    let bits = if magnitude < 0x0f80_0000 { finite } else { magnitude | quiet };
    f32::from_bits(bits | (h as u32 & 0x8000) << 16)
}

#[inline(always)]
pub(super) fn widen_portable(x: &[u16]) -> V {
    let mut o = [0.0; LANES];
    for i in 0..LANES {
        o[i] = widen(x[i]);
    }
    o
}

#[inline(always)]
pub(super) fn to_half(x: &[f32], out: &mut [u16]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = f16::from_f32(*x).to_bits();
    }
}

#[inline(always)]
pub(super) fn sum_rows(table: &[u16], rows: &[u32], out: &mut [f32]) {
    out.fill(0.0);
    let c = out.len();
    for &r in rows {
        let row = &table[r as usize * c..][..c];
        for (o, v) in out.iter_mut().zip(row) {
            *o += widen(*v);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn widening_is_exact() {
        for h in 0..=u16::MAX {
            let want = half::f16::from_bits(h).to_f32();
            assert_eq!(super::widen(h).to_bits(), want.to_bits(), "{h:#06x}");
        }
    }
}
