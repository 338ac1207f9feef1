//! The reference: plain loops, no vector types, the definition of every result.

use super::{Attend, Kernel, QuantizedRows, RowMajor, SCALE_BLOCK, TILE, body};
use half::f16;

pub(super) const KERNEL: Kernel = Kernel {
    name: "scalar",
    quantize: body::quantize,
    qgemm8,
    qgemm4,
    qgemm_rows,
    place: body::place,
    rms_norm: body::rms_norm,
    layer_norm: body::layer_norm,
    swiglu: body::swiglu,
    silu: body::silu,
    scale_shift: body::scale_shift,
    gelu_tanh: body::gelu_tanh,
    gelu_erf: body::gelu_erf,
    conv: body::conv,
    factor_logits: body::factor_logits,
    softmax: body::softmax,
    attend,
    rope: body::rope,
    factor_softmax: body::factor_softmax,
    to_half: body::to_half,
    sum_rows: body::sum_rows,
};

fn attend(a: &Attend, scores: &mut [f32], out: &mut [f32]) {
    body::attend::<4>(a, scores, out, body::Portable)
}

fn qgemm8(packed: &[u8], scales: &[u16], x: &QuantizedRows, out: &mut [f32]) {
    qgemm(TILE * SCALE_BLOCK, packed, scales, x, out, |block, r, c| {
        block[(c / 4 * TILE + r) * 4 + c % 4] as i32 - 128
    })
}

fn qgemm4(packed: &[u8], scales: &[u16], x: &QuantizedRows, out: &mut [f32]) {
    qgemm(TILE * SCALE_BLOCK / 2, packed, scales, x, out, |block, r, c| {
        let byte = block[(c % 16 / 4 * TILE + r) * 4 + c % 4];
        (if c < 16 { byte & 15 } else { byte >> 4 }) as i32 - 8
    })
}

fn qgemm(
    bytes: usize,
    packed: &[u8],
    scales: &[u16],
    x: &QuantizedRows,
    out: &mut [f32],
    weight: impl Fn(&[u8], usize, usize) -> i32,
) {
    let (m, blocks) = (x.rows(), x.blocks());
    let (stride, block_stride) = x.strides();
    for (t, out) in out.chunks_exact_mut(m * TILE).enumerate() {
        for i in 0..m {
            for r in 0..TILE {
                let mut acc = 0.0f32;
                for b in 0..blocks {
                    let block = &packed[(t * blocks + b) * bytes..][..bytes];
                    let q = &x.q[i * stride + b * SCALE_BLOCK..][..SCALE_BLOCK];
                    let dot: i32 =
                        (0..SCALE_BLOCK).map(|c| weight(block, r, c) * q[c] as i32).sum();
                    let s = f16::from_bits(scales[(t * blocks + b) * TILE + r]).to_f32()
                        * x.scale[i * block_stride + b];
                    acc = (dot as f32).mul_add(s, acc);
                }
                out[i * TILE + r] = acc;
            }
        }
    }
}

fn qgemm_rows(w: &RowMajor, x: &QuantizedRows, out: &mut [f32]) {
    let (m, blocks) = (x.rows(), x.blocks());
    let (stride, block_stride) = x.strides();
    let bytes = w.bits.bytes_per_row_block();
    out.fill(0.0);
    for row in 0..w.rows() {
        for i in 0..m {
            let mut acc = 0.0f32;
            for b in 0..blocks {
                let block = &w.weights[(row * blocks + b) * bytes..][..bytes];
                let zero = w.zero_point(row, b) as i32;
                let q = &x.q[i * stride + b * SCALE_BLOCK..][..SCALE_BLOCK];
                let dot: i32 = (0..SCALE_BLOCK)
                    .map(|c| {
                        let a = q[if x.paired { c / 2 + c % 2 * 16 } else { c }];
                        (RowMajor::stored(w.bits, block, c) as i32 - zero) * a as i32
                    })
                    .sum();
                let s = w.scales.get(row * blocks + b) * x.scale[i * block_stride + b];
                acc = (dot as f32).mul_add(s, acc);
            }
            out[(row / TILE * m + i) * TILE + row % TILE] = acc;
        }
    }
}
