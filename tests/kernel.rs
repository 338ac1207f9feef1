//! Every SIMD kernel against the scalar reference, bit for bit, and the reference against
//! double precision.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use voxgrain::kernel::{
    self, Attend, Bits, Kernel, PackedShape, QuantizedRows, RowMajor, RowScales, SCALE_BLOCK, TILE,
};

fn random(rng: &mut StdRng, n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|_| (rng.random::<f32>() - 0.5) * scale).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Runs `f` with the reference and with every other kernel and compares every bit.
fn same(what: &str, f: impl Fn(Kernel) -> Vec<f32>) -> Vec<f32> {
    let want = f(kernel::scalar());
    for k in kernel::all() {
        let got = f(k);
        assert_eq!(bits(&want), bits(&got), "{what}: {} differs from scalar", k.name());
    }
    want
}

struct Matrix {
    shape: PackedShape,
    weights: Vec<i8>,
    scales: Vec<f32>,
    packed: (Vec<u8>, Vec<u16>),
}

fn matrix(rng: &mut StdRng, n: usize, k: usize, bits: Bits) -> Matrix {
    let shape = PackedShape { n, k, bits };
    let weights: Vec<i8> = (0..n * k)
        .map(|_| match bits {
            Bits::Eight => rng.random_range(-128i16..128) as i8,
            Bits::Four => rng.random_range(-8i8..8),
        })
        .collect();
    let half: Vec<u16> = (0..n * k / SCALE_BLOCK)
        .map(|_| half::f16::from_f32(rng.random::<f32>() * 0.01 + 1e-4).to_bits())
        .collect();
    let packed = kernel::pack(shape, &weights, &half).unwrap();
    let scales = half.iter().map(|h| half::f16::from_bits(*h).to_f32()).collect();
    Matrix { shape, weights, scales, packed }
}

fn product(k: Kernel, m: &Matrix, x: &[f32]) -> Vec<f32> {
    let mut rows = QuantizedRows::default();
    rows.fill(k, x, m.shape.k);
    let mut out = vec![f32::NAN; m.shape.tiles() * rows.rows() * TILE];
    k.qgemm(m.shape.bits, &m.packed.0, &m.packed.1, &rows, &mut out);
    out
}

#[test]
fn matrix_products_agree_bit_for_bit() {
    let mut rng = StdRng::seed_from_u64(1);
    for bits in [Bits::Eight, Bits::Four] {
        for (n, k) in [(1, 32), (16, 64), (17, 96), (48, 352), (100, 512)] {
            let w = matrix(&mut rng, n, k, bits);
            for m in 1..=19 {
                let x = random(&mut rng, m * k, 8.0);
                same("qgemm", |kernel| product(kernel, &w, &x));
            }
        }
    }
}

#[test]
fn tiles_are_put_in_their_places() {
    let mut rng = StdRng::seed_from_u64(19);
    for (n, rows) in [(1usize, 1), (16, 2), (37, 3), (64, 5)] {
        let tiles = n.div_ceil(TILE);
        let source = random(&mut rng, tiles * rows * TILE, 2.0);
        let (bias, residual) = (random(&mut rng, n, 2.0), random(&mut rng, rows * n, 2.0));
        for added in 0..4 {
            let bias = (added & 1 > 0).then_some(&bias[..]);
            let residual = (added & 2 > 0).then_some(&residual[..]);
            let out = same("place", |k| {
                let mut out = vec![f32::NAN; rows * n];
                // In two pieces, as threads hand them over.
                let cut = tiles / 2;
                for piece in [0..cut, cut..tiles] {
                    let first = piece.start * TILE;
                    let place = kernel::Place { rows, columns: n, first, bias, residual };
                    let range = piece.start * rows * TILE..piece.end * rows * TILE;
                    k.place(&source[range], &place, &mut out);
                }
                out
            });
            for (at, got) in out.iter().enumerate() {
                let (i, c) = (at / n, at % n);
                let want = source[(c / TILE * rows + i) * TILE + c % TILE]
                    + bias.map_or(0.0, |b| b[c])
                    + residual.map_or(0.0, |r| r[at]);
                assert_eq!(*got, want);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let mut rng = StdRng::seed_from_u64(2);
    for bits in [Bits::Eight, Bits::Four] {
        let w = matrix(&mut rng, 80, 416, bits);
        let x = random(&mut rng, 16 * 416, 3.0);
        for kernel in kernel::all() {
            let all = product(kernel, &w, &x);
            for i in 0..16 {
                let one = product(kernel, &w, &x[i * 416..][..416]);
                for t in 0..w.shape.tiles() {
                    assert_eq!(all[(t * 16 + i) * TILE..][..TILE], one[t * TILE..][..TILE]);
                }
            }
        }
    }
}

/// The rows of a convolution share memory where they overlap; the product is that of rows which
/// were written out.
#[test]
fn overlapping_rows_are_as_good_as_copies() {
    let mut rng = StdRng::seed_from_u64(20);
    for bits in [Bits::Eight, Bits::Four] {
        for (taps, columns, n, rows) in [(1, 64, 20, 3), (3, 32, 33, 9), (7, 96, 16, 18)] {
            let w = matrix(&mut rng, n, taps * columns, bits);
            let x = random(&mut rng, (rows + taps - 1) * columns, 3.0);
            let copied: Vec<f32> =
                (0..rows).flat_map(|r| x[r * columns..][..taps * columns].to_vec()).collect();
            let got = same("windows", |kernel| {
                let mut q = QuantizedRows::default();
                q.fill_windows(kernel, &x, columns, taps);
                assert_eq!((q.rows(), q.columns()), (rows, taps * columns));
                let mut out = vec![f32::NAN; w.shape.tiles() * rows * TILE];
                kernel.qgemm(bits, &w.packed.0, &w.packed.1, &q, &mut out);
                out
            });
            assert_eq!(self::bits(&got), self::bits(&product(kernel::scalar(), &w, &copied)));
        }
    }
}

#[test]
fn products_match_double_precision() {
    let mut rng = StdRng::seed_from_u64(3);
    for bits in [Bits::Eight, Bits::Four] {
        let (n, k) = (50, 512);
        let w = matrix(&mut rng, n, k, bits);
        let x = random(&mut rng, k, 4.0);
        let got = product(kernel::best(), &w, &x);
        let (mut err, mut norm) = (0f64, 0f64);
        for r in 0..n {
            let want: f64 = (0..k)
                .map(|c| {
                    w.weights[r * k + c] as f64
                        * w.scales[r * k / SCALE_BLOCK + c / SCALE_BLOCK] as f64
                        * x[c] as f64
                })
                .sum();
            err += (want - got[r] as f64).powi(2);
            norm += want * want;
        }
        // int8 activations: a uniform error of half a step of 1/127 of the block's largest.
        assert!((err / norm).sqrt() < 0.01, "{bits:?}: {}", (err / norm).sqrt());
    }
}

#[test]
fn quantization_is_half_a_step_at_most() {
    let mut rng = StdRng::seed_from_u64(4);
    let x = random(&mut rng, 320, 7.0);
    for k in kernel::all() {
        let (mut q, mut s, mut t) = (vec![0; 320], vec![0.0; 10], vec![0; 10]);
        k.quantize(&x, &mut q, &mut s, &mut t);
        for (i, v) in x.iter().enumerate() {
            assert!((q[i] as f32 * s[i / 32] - v).abs() <= s[i / 32] * 0.5001);
        }
        for b in 0..10 {
            assert_eq!(t[b], q[b * 32..][..32].iter().map(|&v| v as i32).sum::<i32>());
            assert_eq!(q[b * 32..][..32].iter().map(|v| v.unsigned_abs()).max(), Some(127));
        }
        let (mut q, mut s, mut t) = (vec![1; 32], vec![1.0; 1], vec![1; 1]);
        k.quantize(&[0.0; 32], &mut q, &mut s, &mut t);
        assert!(q.iter().all(|&v| v == 0) && s[0] == 0.0 && t[0] == 0);
    }
}

fn close(got: &[f32], want: impl Iterator<Item = f64>, tolerance: f64) {
    let mut n = 0;
    for (g, w) in got.iter().zip(want) {
        assert!((*g as f64 - w).abs() <= tolerance * w.abs().max(1.0), "{g} against {w}");
        n += 1;
    }
    assert_eq!(n, got.len());
}

#[test]
fn row_functions_agree_and_match_double_precision() {
    let mut rng = StdRng::seed_from_u64(5);
    for n in [1, 15, 16, 33, 320, 512] {
        let x = random(&mut rng, n, 12.0);
        let w = random(&mut rng, n, 2.0);
        let b = random(&mut rng, n, 2.0);
        let d = |i: usize| x[i] as f64;

        let out = same("rms_norm", |k| {
            let mut o = vec![0.0; n];
            k.rms_norm(&x, &w, 1e-5, &mut o);
            o
        });
        let ms = (0..n).map(|i| d(i) * d(i)).sum::<f64>() / n as f64;
        close(&out, (0..n).map(|i| d(i) / (ms + 1e-5).sqrt() * w[i] as f64), 1e-5);

        let out = same("layer_norm", |k| {
            let mut o = vec![0.0; n];
            k.layer_norm(&x, &w, &b, 1e-6, &mut o);
            o
        });
        let mean = (0..n).map(d).sum::<f64>() / n as f64;
        let var = (0..n).map(|i| (d(i) - mean).powi(2)).sum::<f64>() / n as f64;
        if n > 1 {
            close(
                &out,
                (0..n).map(|i| (d(i) - mean) / (var + 1e-6).sqrt() * w[i] as f64 + b[i] as f64),
                1e-5,
            );
        }

        let out = same("swiglu", |k| {
            let mut o = vec![0.0; n];
            k.swiglu(&x, &w, &mut o);
            o
        });
        close(&out, (0..n).map(|i| d(i) / (1.0 + (-d(i)).exp()) * w[i] as f64), 1e-5);

        let out = same("silu", |k| {
            let mut o = x.clone();
            k.silu(&mut o);
            o
        });
        close(&out, (0..n).map(|i| d(i) / (1.0 + (-d(i)).exp())), 1e-5);

        let out = same("scale_shift", |k| {
            let mut o = vec![0.0; n];
            k.scale_shift(&x, &w, &b, &mut o);
            o
        });
        close(&out, (0..n).map(|i| d(i) * w[i] as f64 + b[i] as f64), 1e-6);

        let out = same("gelu_tanh", |k| {
            let mut o = x.clone();
            k.gelu_tanh(&mut o);
            o
        });
        let g = |v: f64| {
            0.5 * v
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh())
        };
        close(&out, (0..n).map(|i| g(d(i))), 1e-5);

        let out = same("gelu_erf", |k| {
            let mut o = x.clone();
            k.gelu_erf(&mut o);
            o
        });
        close(&out, (0..n).map(|i| 0.5 * d(i) * (1.0 + erf(d(i) / 2f64.sqrt()))), 1e-5);

        same("to_half", |k| {
            let mut o = vec![0; n];
            k.to_half(&x, &mut o);
            o.iter().map(|h| half::f16::from_bits(*h).to_f32()).collect()
        });
    }
}

/// Series of the error function in double precision.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn convolution_and_row_sums_agree() {
    let mut rng = StdRng::seed_from_u64(6);
    for c in [1, 20, 384] {
        let (x, w, b) =
            (random(&mut rng, 7 * c, 2.0), random(&mut rng, 7 * c, 2.0), random(&mut rng, c, 2.0));
        let out = same("conv", |k| {
            let mut o = vec![0.0; c];
            k.conv(&x, &w, &b, &mut o);
            o
        });
        close(
            &out,
            (0..c).map(|i| {
                b[i] as f64 + (0..7).map(|j| x[j * c + i] as f64 * w[j * c + i] as f64).sum::<f64>()
            }),
            1e-5,
        );
        let table: Vec<u16> = random(&mut rng, 50 * c, 2.0)
            .iter()
            .map(|v| half::f16::from_f32(*v).to_bits())
            .collect();
        let rows: Vec<u32> = (0..36).map(|_| rng.random_range(0..50)).collect();
        same("sum_rows", |k| {
            let mut o = vec![0.0; c];
            k.sum_rows(&table, &rows, &mut o);
            o
        });
    }
}

#[test]
fn factor_logits_are_the_36_scores_of_each_token() {
    let mut rng = StdRng::seed_from_u64(7);
    let scores = random(&mut rng, 480, 4.0);
    let out = same("factor_logits", |k| {
        let mut o = vec![0.0; 65536];
        k.factor_logits(&scores, &mut o);
        o
    });
    for t in (0..65536).step_by(37).chain([65535]) {
        let d: Vec<usize> = (0..8).map(|i| t >> (2 * i) & 3).collect();
        let mut want: f64 = (0..8).map(|i| scores[4 * i + d[i]] as f64).sum();
        let mut row = 32;
        for a in 0..8 {
            for b in a + 1..8 {
                want += scores[row + 4 * d[a] + d[b]] as f64;
                row += 16;
            }
        }
        assert!((out[t] as f64 - want).abs() < 2e-5, "token {t}: {} against {want}", out[t]);
    }
}

#[test]
fn factor_softmax_is_the_softmax_of_the_factor_logits() {
    let mut rng = StdRng::seed_from_u64(17);
    for (scale, extra) in [(0.0, 1), (1.0, 0), (4.0, 1), (9.0, 3)] {
        let scores = random(&mut rng, 480 + extra, scale);
        for inverse_t in [1.0, 1.0 / 0.7, 0.5] {
            let n = 65536 + extra;
            let got = same("factor_softmax", |k| {
                let mut p = vec![f32::NAN; n];
                let mut s = vec![f32::NAN; n.div_ceil(256)];
                assert!(k.factor_softmax(&scores, inverse_t, &mut p, &mut s));
                p.extend(s);
                p
            });
            let k = kernel::best();
            let mut logits = vec![0.0; n];
            k.factor_logits(&scores[..480], &mut logits[..65536]);
            logits[65536..].copy_from_slice(&scores[480..]);
            let (mut p, mut s) = (vec![0.0; n], vec![0.0; n.div_ceil(256)]);
            k.softmax(&logits, inverse_t, &mut p, &mut s);
            for (i, (a, b)) in got.iter().zip(p.iter().chain(&s)).enumerate() {
                assert!((a - b).abs() <= 2e-5 * b + 1e-12, "{i}: {a} against {b}");
            }
            for (block, sum) in got[..n].chunks(256).zip(&got[n..]) {
                assert_eq!(voxgrain::core::dist::block_sum(block).to_bits(), sum.to_bits());
            }
        }
    }
    // Factors too far apart for products, and scores that are no numbers, are reported.
    let (mut p, mut s) = (vec![0.0; 65536], vec![0.0; 256]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut scores = random(&mut rng, 480, 1.0);
        scores[77] = bad;
        assert!(!kernel::best().factor_softmax(&scores, 1.0, &mut p, &mut s));
    }
    // Levels 0 of digits 0 and 4 are good alone, impossible together, and so on round.
    let mut scores = vec![0.0; 480];
    let level = |token: usize, i: usize| token >> (2 * i) & 3;
    scores[..32].iter_mut().enumerate().for_each(|(i, s)| *s = if i % 4 == 0 { 90.0 } else { 0.0 });
    for r in 0..16 {
        let zero = [level(r, 0), level(r, 1)].iter().filter(|&&l| l == 0).count();
        for pair in 0..28 {
            scores[32 + 16 * pair + r] = if zero > 0 { -30.0 } else { 0.0 };
        }
    }
    assert!(!kernel::best().factor_softmax(&scores, 1.0, &mut p, &mut s));
}

#[test]
fn rotation_agrees() {
    let mut rng = StdRng::seed_from_u64(18);
    for half in [8, 32, 40] {
        let x = random(&mut rng, 2 * half, 3.0);
        let angle = random(&mut rng, half, 6.0);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angle.iter().map(|a| (a.cos(), a.sin())).unzip();
        let out = same("rope", |k| {
            let mut o = x.clone();
            k.rope(&mut o, &cos, &sin);
            o
        });
        close(
            &out[..half],
            (0..half).map(|i| x[i] as f64 * cos[i] as f64 - x[half + i] as f64 * sin[i] as f64),
            1e-6,
        );
    }
}

#[test]
fn softmax_sums_to_one_and_matches() {
    let mut rng = StdRng::seed_from_u64(8);
    for n in [1, 255, 256, 257, 4000, 65537] {
        let mut logits = random(&mut rng, n, 30.0);
        logits[n / 2] = -200.0;
        for inverse_t in [1.0, 1.0 / 0.7, 3.0] {
            let both = same("softmax", |k| {
                let mut p = vec![0.0; n];
                let mut s = vec![0.0; n.div_ceil(256)];
                k.softmax(&logits, inverse_t, &mut p, &mut s);
                p.extend(s);
                p
            });
            let (p, s) = both.split_at(n);
            let max = logits.iter().cloned().fold(f32::MIN, f32::max) as f64;
            let e: Vec<f64> =
                logits.iter().map(|l| ((*l as f64 - max) * inverse_t as f64).exp()).collect();
            let total: f64 = e.iter().sum();
            for (p, e) in p.iter().zip(&e) {
                let want = e / total;
                assert!((*p as f64 - want).abs() <= 3e-6 * want + 1e-30, "{p} against {want}");
            }
            assert!((s.iter().map(|v| *v as f64).sum::<f64>() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn attention_agrees_and_matches_double_precision() {
    let mut rng = StdRng::seed_from_u64(9);
    let half =
        |v: Vec<f32>| -> Vec<u16> { v.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect() };
    for (d, n) in [(16usize, 1usize), (32, 5), (64, 33), (64, 300), (128, 17), (80, 9)] {
        let padded = n.next_multiple_of(16);
        let (k, v) = (half(random(&mut rng, padded * d, 2.0)), half(random(&mut rng, n * d, 2.0)));
        let key =
            |p: usize, c: usize| half::f16::from_bits(k[(p / 16 * d + c) * 16 + p % 16]).to_f64();
        let f = |h: u16| half::f16::from_bits(h).to_f64();
        for rows in 1..=17 {
            let q = random(&mut rng, rows * d, 2.0);
            let lens: Vec<usize> =
                (0..rows).map(|i| n.saturating_sub(rows - 1 - i).max(1)).collect();
            let run = |kernel: Kernel, q: &[f32], lens: &[usize]| {
                let a = Attend { q, lens, keys: &k, values: &v, head_dim: d, next: &[] };
                let mut o = vec![0.0; q.len()];
                kernel.attend(&a, &mut vec![0.0; a.scratch()], &mut o);
                o
            };
            let out = same("attend", |kernel| run(kernel, &q, &lens));
            for i in 0..rows {
                let alone = run(kernel::best(), &q[i * d..][..d], &lens[i..][..1]);
                assert_eq!(bits(&alone), bits(&out[i * d..][..d]), "row {i} of {rows}");
                let s: Vec<f64> = (0..lens[i])
                    .map(|p| (0..d).map(|c| q[i * d + c] as f64 * key(p, c)).sum::<f64>().exp())
                    .collect();
                let total: f64 = s.iter().sum();
                close(
                    &out[i * d..][..d],
                    (0..d)
                        .map(|c| (0..lens[i]).map(|p| s[p] * f(v[p * d + c])).sum::<f64>() / total),
                    1e-5,
                );
            }
        }
    }
}

#[test]
fn packing_checks_its_arguments() {
    let shape = |n, k, bits| PackedShape { n, k, bits };
    use kernel::PackError;
    assert_eq!(kernel::pack(shape(1, 33, Bits::Eight), &[0; 33], &[0; 1]), Err(PackError::Columns));
    assert_eq!(kernel::pack(shape(1, 32, Bits::Eight), &[0; 31], &[0; 1]), Err(PackError::Length));
    assert_eq!(kernel::pack(shape(1, 32, Bits::Four), &[8; 32], &[0; 1]), Err(PackError::Range));
}

/// A matrix as stock ONNX stores it.
struct Stock {
    bits: Bits,
    n: usize,
    k: usize,
    weights: Vec<u8>,
    scales: Vec<f32>,
    half: Vec<u16>,
    zero: Vec<u8>,
}

impl Stock {
    /// Row-major bytes of signed `weights[N][K]`.
    fn bytes(weights: &[i8], bits: Bits) -> Vec<u8> {
        match bits {
            Bits::Eight => weights.iter().map(|&w| (w as i16 + 128) as u8).collect(),
            Bits::Four => weights
                .chunks_exact(2)
                .map(|w| (w[0] + 8) as u8 | ((w[1] + 8) as u8) << 4)
                .collect(),
        }
    }

    fn of(m: &Matrix) -> Self {
        let PackedShape { n, k, bits } = m.shape;
        let half = m.scales.iter().map(|s| half::f16::from_f32(*s).to_bits()).collect();
        let weights = Self::bytes(&m.weights, bits);
        Self { bits, n, k, weights, scales: m.scales.clone(), half, zero: vec![] }
    }

    /// Scales that f16 cannot hold, and zero points.
    fn random(rng: &mut StdRng, n: usize, k: usize, bits: Bits) -> Self {
        let mut s = Self::of(&matrix(rng, n, k, bits));
        s.scales = random(rng, n * k / SCALE_BLOCK, 0.02);
        let bytes = n * RowMajor::zero_bytes(bits, k / SCALE_BLOCK);
        s.zero = (0..bytes).map(|_| rng.random()).collect();
        s
    }

    fn view(&self, half: bool, zero: bool) -> RowMajor<'_> {
        RowMajor {
            bits: self.bits,
            blocks: self.k / SCALE_BLOCK,
            weights: &self.weights,
            scales: if half { RowScales::F16(&self.half) } else { RowScales::F32(&self.scales) },
            zero_points: zero.then_some(&self.zero),
        }
    }
}

fn stock_product(kernel: Kernel, w: &RowMajor, x: &[f32]) -> Vec<f32> {
    let mut rows = QuantizedRows::default();
    rows.fill_for_rows(kernel, x, w.blocks * SCALE_BLOCK, w.bits);
    let mut out = vec![f32::NAN; w.rows().div_ceil(TILE) * TILE * rows.rows()];
    kernel.qgemm_rows(w, &rows, &mut out);
    out
}

/// The definition, on integers of its own.
fn naive(w: &Stock, zero: bool, x: &[f32]) -> Vec<f32> {
    let (n, k, blocks) = (w.n, w.k, w.k / SCALE_BLOCK);
    let m = x.len() / k;
    let mut out = vec![0.0; n.div_ceil(TILE) * TILE * m];
    let (mut q, mut s, mut sums) = (vec![0i8; k], vec![0f32; blocks], vec![0; blocks]);
    for i in 0..m {
        kernel::scalar().quantize(&x[i * k..][..k], &mut q, &mut s, &mut sums);
        for row in 0..n {
            let mut acc = 0f32;
            for b in 0..blocks {
                let nibble = |bytes: &[u8], at: usize| (bytes[at / 2] >> (at % 2 * 4)) & 15;
                let z = match (zero, w.bits) {
                    (false, Bits::Four) => 8,
                    (false, Bits::Eight) => 128,
                    (true, Bits::Four) => nibble(&w.zero[row * blocks.div_ceil(2)..], b) as i32,
                    (true, Bits::Eight) => w.zero[row * blocks + b] as i32,
                };
                let dot: i32 = (0..SCALE_BLOCK)
                    .map(|c| {
                        let at = row * k + b * SCALE_BLOCK + c;
                        let stored = match w.bits {
                            Bits::Four => nibble(&w.weights, at),
                            Bits::Eight => w.weights[at],
                        };
                        (stored as i32 - z) * q[b * SCALE_BLOCK + c] as i32
                    })
                    .sum();
                acc = (dot as f32).mul_add(w.scales[row * blocks + b] * s[b], acc);
            }
            out[(row / TILE * m + i) * TILE + row % TILE] = acc;
        }
    }
    out
}

#[test]
fn row_major_products_are_those_of_the_packed_layout() {
    let mut rng = StdRng::seed_from_u64(10);
    for w in [Bits::Eight, Bits::Four] {
        for (n, k) in [(1, 32), (17, 96), (48, 352), (100, 512), (33, 1120), (32, 2112)] {
            let packed = matrix(&mut rng, n, k, w);
            let stock = Stock::of(&packed);
            for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19] {
                let x = random(&mut rng, m * k, 8.0);
                let want = product(kernel::scalar(), &packed, &x);
                for half in [false, true] {
                    let got =
                        same("qgemm_rows", |k| stock_product(k, &stock.view(half, false), &x));
                    assert_eq!(bits(&want), bits(&got), "{w:?} {n} x {k}, {m} rows, f16 {half}");
                }
            }
        }
    }
}

#[test]
fn row_major_products_have_zero_points_and_any_scale() {
    let mut rng = StdRng::seed_from_u64(11);
    for w in [Bits::Eight, Bits::Four] {
        for (n, k) in [(3, 32), (31, 96), (32, 1056), (49, 160)] {
            let stock = Stock::random(&mut rng, n, k, w);
            for m in 1..=17 {
                let x = random(&mut rng, m * k, 8.0);
                for zero in [false, true] {
                    let want = naive(&stock, zero, &x);
                    let got =
                        same("qgemm_rows", |k| stock_product(k, &stock.view(false, zero), &x));
                    assert_eq!(bits(&want), bits(&got), "{w:?} {n} x {k}, {m} rows, zero {zero}");
                }
            }
        }
    }
}

/// A measurement, not a check:
/// `cargo test --release --all-features --test kernel speed -- --ignored --nocapture`
#[test]
#[ignore = "measures for a minute"]
fn speed() {
    use std::time::Instant;
    let mut rng = StdRng::seed_from_u64(12);
    println!("GB/s of weights and scales, one thread: rows / packed (ratio of the times)");
    for (n, k) in [(2752, 512), (8192, 2048)] {
        for w in [Bits::Eight, Bits::Four] {
            let shape = PackedShape { n, k, bits: w };
            let bytes = shape.weight_bytes();
            // So many copies that they come from memory.
            let copies = (160usize << 20) / bytes;
            let one: Vec<u8> = (0..bytes).map(|_| rng.random()).collect();
            let all: Vec<u8> = (0..copies).flat_map(|_| &one).copied().collect();
            let scales = vec![0.01f32; copies * shape.scale_count()];
            let half = vec![half::f16::from_f32(0.01).to_bits(); copies * shape.scale_count()];
            for kernel in kernel::all().into_iter().filter(|k| k.name() != "scalar") {
                let mut line = format!("{:<12} {w:?} {n} x {k}", kernel.name());
                for m in [1, 4, 5, 8] {
                    let x = random(&mut rng, m * k, 8.0);
                    let mut q = QuantizedRows::default();
                    q.fill(kernel, &x, k);
                    let mut paired = QuantizedRows::default();
                    paired.fill_for_rows(kernel, &x, k, w);
                    let mut out = vec![0f32; shape.tiles() * TILE * m];
                    let mut times = [vec![], vec![]];
                    let few = if kernel.name() == "portable" { 6 } else { copies };
                    for _ in 0..(if few < 20 { 9 } else { 3 }) {
                        for (layout, times) in times.iter_mut().enumerate() {
                            for c in 0..few {
                                let clock = Instant::now();
                                let weights = &all[c * bytes..][..bytes];
                                let at = c * shape.scale_count();
                                if layout == 0 {
                                    let scales = &scales[at..][..shape.scale_count()];
                                    let rows = RowMajor {
                                        bits: w,
                                        blocks: k / SCALE_BLOCK,
                                        weights,
                                        scales: RowScales::F32(scales),
                                        zero_points: None,
                                    };
                                    kernel.qgemm_rows(&rows, &paired, &mut out);
                                } else {
                                    let scales = &half[at..][..shape.scale_count()];
                                    kernel.qgemm(w, weights, scales, &q, &mut out);
                                }
                                times.push(clock.elapsed().as_secs_f64());
                            }
                        }
                    }
                    // Other work on the machine only ever adds: a product each, the fastest
                    // tenth.
                    let [rows, packed] = times.map(|mut t| {
                        t.sort_by(f64::total_cmp);
                        t[t.len() / 10]
                    });
                    let rate = |t: f64, scale: usize| {
                        (bytes + scale * shape.scale_count()) as f64 / t / 1e9
                    };
                    line += &format!(
                        "  m={m} {:.1} / {:.1} ({:.2})",
                        rate(rows, 4),
                        rate(packed, 2),
                        rows / packed
                    );
                }
                println!("{line}");
            }
        }
    }
}
