//! Row-wise functions written once over 16 explicit lanes. Each instruction set compiles
//! the same source with its own features, so the order of operations, and with it every
//! bit of the result, is the same everywhere.

use super::widen::widen;
use super::{Attend, CODES, FACTORS, Place, SCALE_BLOCK, SUM_BLOCK};
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
    // Without the barrier the compiler shapes the loop that made `a` after this tree: in
    // vectors of two lanes.
    let a = core::hint::black_box(a);
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
    const { assert!(SCALE_BLOCK == 2 * LANES) };
    let (x, q) = (x.chunks_exact(SCALE_BLOCK), q.chunks_exact_mut(SCALE_BLOCK));
    for (((x, q), scale), sum) in x.zip(q).zip(scale.iter_mut()).zip(sum.iter_mut()) {
        let (a, b) = (load(&x[..16]), load(&x[16..]));
        let mut m = [0.0f32; LANES];
        for i in 0..LANES {
            let (a, b) = (a[i].abs(), b[i].abs());
            m[i] = if a > b { a } else { b };
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                m[i] = if m[i + half] > m[i] { m[i + half] } else { m[i] };
            }
        }
        let amax = m[0];
        let inverse = if amax > 0.0 { 127.0 / amax } else { 0.0 };
        *scale = amax / 127.0;
        // Adding and removing 1.5 * 2^23 rounds to nearest even and leaves the integer in
        // the low bits.
        let whole = |x: V| {
            let mut o = [0i32; LANES];
            for i in 0..LANES {
                o[i] = (x[i] * inverse + 12_582_912.0).to_bits().wrapping_sub(0x4b40_0000) as i32;
            }
            o
        };
        let (a, b) = (whole(a), whole(b));
        let mut t = [0i32; LANES];
        for i in 0..LANES {
            q[i] = a[i] as i8;
            q[16 + i] = b[i] as i8;
            t[i] = (a[i] as i8 as i32) + (b[i] as i8 as i32);
        }
        *sum = t.iter().sum();
    }
}

/// Puts the tiles of a product in their places; see [`super::Kernel::place`].
#[inline(always)]
pub(super) fn place(tiles: &[f32], to: &Place, out: &mut [f32]) {
    let Place { rows, columns, .. } = *to;
    for (t, tile) in tiles.chunks_exact(rows * LANES).enumerate() {
        let at = to.first + t * LANES;
        let width = LANES.min(columns - at);
        for (i, row) in tile.chunks_exact(LANES).enumerate() {
            let start = i * columns + at;
            if width == LANES {
                let mut v = load(row);
                if let Some(bias) = to.bias {
                    v = add(v, load(&bias[at..]));
                }
                if let Some(residual) = to.residual {
                    v = add(v, load(&residual[start..]));
                }
                out[start..start + LANES].copy_from_slice(&v);
            } else {
                for c in 0..width {
                    let bias = to.bias.map_or(0.0, |b| b[at + c]);
                    let residual = to.residual.map_or(0.0, |r| r[start + c]);
                    out[start + c] = (row[c] + bias) + residual;
                }
            }
        }
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
pub(super) fn silu(x: &mut [f32]) {
    in_place(x, |x| x * sigmoid(x));
}

#[inline(always)]
pub(super) fn scale_shift(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
    for (((o, x), a), b) in out.iter_mut().zip(x).zip(scale).zip(shift) {
        *o = x.mul_add(*a, *b);
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

/// Digits of a code and their pairs.
pub(super) const DIGITS: usize = 8;
pub(super) const PAIRS: usize = DIGITS * (DIGITS - 1) / 2;

/// Index of pair `(a, b)`, a < b, among the pairs of digits in lexicographic order.
#[inline(always)]
const fn pair(a: usize, b: usize) -> usize {
    a * (2 * DIGITS - 1 - a) / 2 + b - a - 1
}

/// Row of the digit table for digit `i` at `level`.
#[inline(always)]
pub(super) const fn digit_row(i: usize, level: usize) -> usize {
    4 * i + level
}

/// Row of the digit table for the pair of digits `(a, b)`, a < b.
#[inline(always)]
pub(super) const fn pair_row(a: usize, b: usize, level_a: usize, level_b: usize) -> usize {
    4 * DIGITS + 16 * pair(a, b) + 4 * level_a + level_b
}

/// The rows of a factorised table that make up `code`: its digits, then their pairs.
pub fn factor_rows(code: usize) -> [u32; DIGITS + PAIRS] {
    let mut rows = [0; DIGITS + PAIRS];
    let level = |i: usize| code >> (2 * i) & 3;
    let (digits, pairs) = rows.split_at_mut(DIGITS);
    for (i, r) in digits.iter_mut().enumerate() {
        *r = digit_row(i, level(i)) as u32;
    }
    let all = (0..DIGITS).flat_map(|a| (a + 1..DIGITS).map(move |b| (a, b)));
    for (r, (a, b)) in pairs.iter_mut().zip(all) {
        *r = pair_row(a, b, level(a), level(b)) as u32;
    }
    rows
}

// Explicit loops below, not `array::from_fn`: a closure that is not inlined is compiled without
// the vectors of the function around it.

/// Scores of one byte of four digits from digit `base` on: their rows and their six pairs.
/// Entry `[v]` has digits 2 and 3 at levels `v & 3` and `v >> 2`; lane `n` has digits 0 and 1
/// at levels `n & 3` and `n >> 2`.
#[inline(always)]
fn byte_table(scores: &[f32], base: usize) -> [V; LANES] {
    let mut lanes = [0.0; LANES];
    let mut second = [[0.0; LANES]; 4];
    let mut third = [[0.0; LANES]; 4];
    for n in 0..LANES {
        let (a, b) = (n & 3, n >> 2);
        let pair = scores[pair_row(base, base + 1, a, b)];
        lanes[n] = scores[digit_row(base, a)] + scores[digit_row(base + 1, b)] + pair;
        for l in 0..4 {
            second[l][n] =
                scores[pair_row(base, base + 2, a, l)] + scores[pair_row(base + 1, base + 2, b, l)];
            third[l][n] =
                scores[pair_row(base, base + 3, a, l)] + scores[pair_row(base + 1, base + 3, b, l)];
        }
    }
    let mut out = [[0.0; LANES]; LANES];
    for (v, out) in out.iter_mut().enumerate() {
        let (a, b) = (v & 3, v >> 2);
        let pair = scores[pair_row(base + 2, base + 3, a, b)];
        let own = scores[digit_row(base + 2, a)] + scores[digit_row(base + 3, b)] + pair;
        for n in 0..LANES {
            out[n] = (lanes[n] + own) + (second[a][n] + third[b][n]);
        }
    }
    out
}

/// `[half][j][l]`: scores of the pairs of high digit `4 + j` at level `l` with low digits 0 and
/// 1 (half 0), 2 and 3 (half 1); lanes as in [`byte_table`].
type Cross = [[[V; 4]; 4]; 2];

#[inline(always)]
fn cross_table(scores: &[f32]) -> Cross {
    let mut out = [[[[0.0; LANES]; 4]; 4]; 2];
    for (half, out) in out.iter_mut().enumerate() {
        for (j, out) in out.iter_mut().enumerate() {
            for (l, out) in out.iter_mut().enumerate() {
                for n in 0..LANES {
                    out[n] = scores[pair_row(2 * half, 4 + j, n & 3, l)]
                        + scores[pair_row(2 * half + 1, 4 + j, n >> 2, l)];
                }
            }
        }
    }
    out
}

#[inline(always)]
fn add(a: V, b: V) -> V {
    let mut o = [0.0; LANES];
    for i in 0..LANES {
        o[i] = a[i] + b[i];
    }
    o
}

#[inline(always)]
fn mul(a: V, b: V) -> V {
    let mut o = [0.0; LANES];
    for i in 0..LANES {
        o[i] = a[i] * b[i];
    }
    o
}

#[inline(always)]
pub(super) fn factor_logits(scores: &[f32], logits: &mut [f32]) {
    let low = byte_table(scores, 0);
    let high = byte_table(scores, 4);
    let table = cross_table(scores);
    for (hi, out) in logits.chunks_exact_mut(256).enumerate() {
        let a = high[hi >> 4][hi & 15];
        let (h0, h1, h2, h3) = (hi & 3, hi >> 2 & 3, hi >> 4 & 3, hi >> 6);
        let [t, u] = &table;
        let base = add(add(t[0][h0], t[1][h1]), add(t[2][h2], t[3][h3]));
        let other = add(add(u[0][h0], u[1][h1]), add(u[2][h2], u[3][h3]));
        for (v, (out, low)) in out.chunks_exact_mut(LANES).zip(&low).enumerate() {
            let s = a + other[v];
            out.copy_from_slice(&add(*low, add(base, [s; LANES])));
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

/// What [`factor_softmax`] keeps between its two passes, for each value of the high byte: the
/// factors of low digits 0 and 1 (lanes), and those of digits 2 and 3.
pub(super) struct FactorScratch([[V; 2]; 256]);

impl FactorScratch {
    pub(super) const fn new() -> Self {
        Self([[[0.0; LANES]; 2]; 256])
    }
}

#[inline(always)]
fn top(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// The softmax over all codes straight from their factors. With the high byte fixed, a
/// code's weight is a product: of a factor of the low byte, one of digits 0 and 1, and one of
/// digits 2 and 3. So it takes some hundred exponentials in all and two products a code.
///
/// Returns the total relative to a bound of the largest weight: where that is tiny (the
/// bound is far off, or a score is not a number), `probs` is unspecified and the caller must
/// take the long way.
#[inline(always)]
pub(super) fn factor_softmax(
    scores: &[f32],
    inverse_temperature: f32,
    probs: &mut [f32],
    sums: &mut [f32],
    scratch: &mut FactorScratch,
) -> f32 {
    let t = inverse_temperature;
    let mut low = byte_table(scores, 0);
    let mut high = byte_table(scores, 4);
    let mut table = cross_table(scores);
    // Every factor is taken relative to its largest, and the shifts go to the high byte.
    let low_top = top(low.as_flattened());
    in_place(low.as_flattened_mut(), |v| exp((v - low_top) * t));
    let mut shifts = [[0.0; 4]; 4];
    for half in &mut table {
        for (half, shifts) in half.iter_mut().zip(&mut shifts) {
            for (lanes, shift) in half.iter_mut().zip(shifts) {
                let m = top(lanes);
                *shift += m;
                *lanes = map(*lanes, |v| exp((v - m) * t));
            }
        }
    }
    for (v, lanes) in high.iter_mut().enumerate() {
        let own = shifts[2][v & 3] + shifts[3][v >> 2];
        for (n, x) in lanes.iter_mut().enumerate() {
            *x += shifts[0][n & 3] + shifts[1][n >> 2] + own;
        }
    }
    let extra = &scores[FACTORS..];
    let most = top(extra).max(top(high.as_flattened()) + low_top);
    in_place(high.as_flattened_mut(), |v| exp((v + low_top - most) * t));
    let weights = high.as_flattened();
    let mut total = 0.0f32;
    for (hi, (factors, weight)) in scratch.0.iter_mut().zip(weights).enumerate() {
        let (h0, h1, h2, h3) = (hi & 3, hi >> 2 & 3, hi >> 4 & 3, hi >> 6);
        let [t, u] = &table;
        *factors = [
            mul(mul(t[0][h0], t[1][h1]), mul(t[2][h2], t[3][h3])),
            mul(mul(u[0][h0], u[1][h1]), mul(u[2][h2], u[3][h3])),
        ];
        // Four sums, so that they do not wait for one another.
        let mut acc = [[0.0; LANES]; 4];
        for v in 0..LANES {
            acc[v % 4] = fma(low[v], [factors[1][v]; LANES], acc[v % 4]);
        }
        let acc = mul(add(add(acc[0], acc[1]), add(acc[2], acc[3])), factors[0]);
        total = tree(acc).mul_add(*weight, total);
    }
    let (codes, rest) = probs.split_at_mut(CODES);
    for (p, &v) in rest.iter_mut().zip(extra) {
        *p = exp((v - most) * t);
        total += *p;
    }
    let scale = 1.0 / total;
    let mut acc = [0.0; LANES];
    for (i, p) in rest.iter_mut().enumerate() {
        *p *= scale;
        acc[i % LANES] += *p;
    }
    let sum = tree(acc);
    sums[256..].iter_mut().for_each(|s| *s = sum);
    for (((out, factors), weight), sum) in
        codes.chunks_exact_mut(256).zip(&scratch.0).zip(weights).zip(sums.iter_mut())
    {
        let other = mul(factors[1], [weight * scale; LANES]);
        let mut acc = [0.0; LANES];
        for (v, out) in out.chunks_exact_mut(LANES).enumerate() {
            let p = mul(mul(low[v], factors[0]), [other[v]; LANES]);
            out.copy_from_slice(&p);
            acc = add(acc, p);
        }
        *sum = tree(acc);
    }
    total
}

/// How an instruction set reads f16.
pub(super) trait WidenHalf: Copy {
    /// The first 16 of `x`.
    fn widen(self, x: &[u16]) -> V;
    /// Asks for the cache line of `x[at]`, if there is one: caches of keys and values are
    /// read once a pass and have left the processor's cache by the next.
    #[inline(always)]
    fn fetch(self, _x: &[u16], _at: usize) {}
}

/// Without instructions for it.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl WidenHalf for Portable {
    #[inline(always)]
    fn widen(self, x: &[u16]) -> V {
        let mut o = [0.0; LANES];
        for i in 0..LANES {
            o[i] = widen(x[i]);
        }
        o
    }
}

/// Scores of `M` queries against every tile of 16 keys, each key widened once. One tile after
/// another, also for one row: several at once are several streams from memory, which costs
/// more than the sums' latency.
#[inline(always)]
fn score_rows<const M: usize>(
    q: &[f32],
    d: usize,
    keys: &[u16],
    scores: &mut [f32],
    padded: usize,
    halves: impl WidenHalf,
) {
    // One slice a row, as long as the loop: no check of bounds inside it.
    let q: [&[f32]; M] = std::array::from_fn(|i| &q[i * d..][..d]);
    for (t, tile) in keys.chunks_exact(d * LANES).enumerate() {
        let mut acc = [[0.0; LANES]; M];
        for c in 0..d {
            let k = halves.widen(&tile[c * LANES..][..LANES]);
            for i in 0..M {
                acc[i] = fma(k, [q[i][c]; LANES], acc[i]);
            }
        }
        for i in 0..M {
            scores[i * padded + t * LANES..][..LANES].copy_from_slice(&acc[i]);
        }
    }
}

/// Cache lines that are asked for where a stream begins.
const FETCH_LINES: usize = 48;

/// How many positions ahead values are asked for.
const FETCH_POSITIONS: usize = 16;

/// Weighted sums of `W * 16` channels of the values for `M` rows.
#[inline(always)]
fn mix_rows<const M: usize, const W: usize>(
    scores: &[f32],
    padded: usize,
    d: usize,
    values: &[u16],
    channel: usize,
    out: &mut [f32],
    halves: impl WidenHalf,
) {
    let n = values.len() / d;
    let scores: [&[f32]; M] = std::array::from_fn(|i| &scores[i * padded..][..n]);
    let mut acc = [[[0.0; LANES]; W]; M];
    for p in 0..n {
        let value = &values[p * d + channel..][..W * LANES];
        for line in 0..W.div_ceil(2) {
            halves.fetch(values, (p + FETCH_POSITIONS) * d + channel + line * 2 * LANES);
        }
        for w in 0..W {
            let v = halves.widen(&value[w * LANES..][..LANES]);
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

/// Calls `$f::<M, ..>` for 1 to 8 rows.
macro_rules! by_rows {
    ($rows:expr, $f:ident $(, $w:literal)?; $($arg:expr),*) => {
        match $rows {
            1 => $f::<1 $(, $w)?>($($arg),*),
            2 => $f::<2 $(, $w)?>($($arg),*),
            3 => $f::<3 $(, $w)?>($($arg),*),
            4 => $f::<4 $(, $w)?>($($arg),*),
            5 => $f::<5 $(, $w)?>($($arg),*),
            6 => $f::<6 $(, $w)?>($($arg),*),
            7 => $f::<7 $(, $w)?>($($arg),*),
            _ => $f::<8 $(, $w)?>($($arg),*),
        }
    };
}

/// Most rows that share the widening of keys and values.
pub(super) const ATTEND_ROWS: usize = 8;

/// `WIDE` is how many accumulators of 16 lanes the registers hold beside their operands; it
/// changes how often a value is widened, never the order of a sum.
#[inline(always)]
pub(super) fn attend<const WIDE: usize>(
    a: &Attend,
    scores: &mut [f32],
    out: &mut [f32],
    halves: impl WidenHalf,
) {
    let d = a.head_dim;
    let n = a.longest();
    let padded = n.next_multiple_of(LANES);
    let keys = &a.keys[..padded * d];
    let values = &a.values[..n * d];
    let most = WIDE.min(ATTEND_ROWS);
    for (chunk, lens) in a.lens.chunks(most).enumerate() {
        let rows = lens.len();
        let q = &a.q[chunk * most * d..][..rows * d];
        let out = &mut out[chunk * most * d..][..rows * d];
        by_rows!(rows, score_rows; q, d, keys, scores, padded, halves);
        // The processor sees a stream coming only after its first lines.
        for line in 0..FETCH_LINES {
            halves.fetch(values, line * 32);
        }
        for (row, &len) in lens.iter().enumerate() {
            let s = &mut scores[row * padded..][..padded];
            s[len..].fill(f32::NEG_INFINITY);
            let mut m = [f32::NEG_INFINITY; LANES];
            for c in s.chunks_exact(LANES) {
                for i in 0..LANES {
                    m[i] = if c[i] > m[i] { c[i] } else { m[i] };
                }
            }
            let max = m.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
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
        for line in 0..FETCH_LINES {
            halves.fetch(a.next, line * 32);
        }
        let mut channel = 0;
        while channel < d {
            let width = ((d - channel) / LANES).min(WIDE / rows);
            if width >= 4 {
                by_rows!(rows, mix_rows, 4; scores, padded, d, values, channel, out, halves);
                channel += 4 * LANES;
            } else if width >= 2 {
                by_rows!(rows, mix_rows, 2; scores, padded, d, values, channel, out, halves);
                channel += 2 * LANES;
            } else {
                by_rows!(rows, mix_rows, 1; scores, padded, d, values, channel, out, halves);
                channel += LANES;
            }
        }
    }
}

/// Rotates the pairs `(c, c + d/2)`.
#[inline(always)]
pub(super) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (lo, hi) = x.split_at_mut(cos.len());
    for (((a, b), cos), sin) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
        let (u, v) = (*a, *b);
        *a = u * cos - v * sin;
        *b = v * cos + u * sin;
    }
}

#[inline(always)]
pub(super) fn to_half(x: &[f32], out: &mut [u16]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = f16::from_f32(*x).to_bits();
    }
}

#[inline(always)]
pub(super) fn sum_rows(table: &[u16], rows: &[u32], out: &mut [f32]) {
    sum_rows_by(table, rows, out, Portable)
}

/// Sums stay in registers while all rows pass; every channel adds its rows in their order.
#[inline(always)]
pub(super) fn sum_rows_by(table: &[u16], rows: &[u32], out: &mut [f32], halves: impl WidenHalf) {
    const WIDE: usize = 4 * LANES;
    let c = out.len();
    let mut at = 0;
    while at + WIDE <= c {
        let mut acc = [[0.0; LANES]; 4];
        for &r in rows {
            let row = &table[r as usize * c + at..][..WIDE];
            for (w, acc) in acc.iter_mut().enumerate() {
                let v = halves.widen(&row[w * LANES..][..LANES]);
                for i in 0..LANES {
                    acc[i] += v[i];
                }
            }
        }
        for (w, acc) in acc.iter().enumerate() {
            out[at + w * LANES..][..LANES].copy_from_slice(acc);
        }
        at += WIDE;
    }
    for (at, o) in out.iter_mut().enumerate().skip(at) {
        *o = rows.iter().fold(0.0, |sum, &r| sum + widen(table[r as usize * c + at]));
    }
}
