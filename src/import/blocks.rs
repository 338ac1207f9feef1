//! Blocks of quantised weights as GGUF files have them.
//!
//! From the formats' description by their reference code in Python, package gguf 0.19.0
//! (`quants.py`); tests/import.rs holds golden values that it made.

use super::source::Dtype;
use half::f16;

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Blocks to floats; `out` has as many places as the blocks have elements.
pub(super) fn dequantise(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    let (elements, length) = dtype.block();
    let one = match dtype {
        Dtype::Q8_0 => q8_0,
        Dtype::Q4_0 => q4_0,
        Dtype::Q4_1 => q4_1,
        Dtype::Q5_0 => q5_0,
        Dtype::Q5_1 => q5_1,
        Dtype::Q4K => q4_k,
        Dtype::Q5K => q5_k,
        Dtype::Q6K => q6_k,
        // Plain types have no blocks.
        _ => return,
    };
    for (b, o) in bytes.chunks_exact(length).zip(out.chunks_exact_mut(elements)) {
        one(b, o);
    }
}

/// The integers and the scale's bits of a block that is symmetric: what `QMatMul` stores as well.
pub(super) fn symmetric(dtype: Dtype, block: &[u8], out: &mut [i8]) -> Option<u16> {
    match dtype {
        Dtype::Q8_0 => out.iter_mut().zip(&block[2..]).for_each(|(o, &b)| *o = b as i8),
        Dtype::Q4_0 => {
            for (i, &b) in block[2..].iter().enumerate() {
                out[i] = (b & 15) as i8 - 8;
                out[i + 16] = (b >> 4) as i8 - 8;
            }
        }
        _ => return None,
    }
    Some(u16::from_le_bytes([block[0], block[1]]))
}

fn q8_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    out.iter_mut().zip(&b[2..]).for_each(|(o, &q)| *o = d * f32::from(q as i8));
}

fn q4_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    for (i, &q) in b[2..].iter().enumerate() {
        out[i] = d * (f32::from(q & 15) - 8.0);
        out[i + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

fn q4_1(b: &[u8], out: &mut [f32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    for (i, &q) in b[4..].iter().enumerate() {
        out[i] = d * f32::from(q & 15) + m;
        out[i + 16] = d * f32::from(q >> 4) + m;
    }
}

/// The fifth bits of a block, of element i in bit i.
fn fifth(b: &[u8]) -> impl Fn(usize) -> u8 {
    let high = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    move |i| ((high >> i & 1) as u8) << 4
}

fn q5_0(b: &[u8], out: &mut [f32]) {
    let (d, high) = (half(b, 0), fifth(&b[2..]));
    for (i, &q) in b[6..].iter().enumerate() {
        out[i] = d * (f32::from(q & 15 | high(i)) - 16.0);
        out[i + 16] = d * (f32::from(q >> 4 | high(i + 16)) - 16.0);
    }
}

fn q5_1(b: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half(b, 0), half(b, 2), fifth(&b[4..]));
    for (i, &q) in b[8..].iter().enumerate() {
        out[i] = d * f32::from(q & 15 | high(i)) + m;
        out[i + 16] = d * f32::from(q >> 4 | high(i + 16)) + m;
    }
}

/// Scale and minimum of sub-block `j` of 8, six bits each in twelve bytes.
fn scale_min(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
    };
    (scale.into(), min.into())
}

fn q4_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    // 64 elements take 32 bytes: low nibbles are the first 32.
    for (j, o) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(&b[4..16], j);
        let q = &b[16 + j / 2 * 32..][..32];
        for (o, &q) in o.iter_mut().zip(q) {
            *o = d * scale * f32::from(q >> (j % 2 * 4) & 15) - dmin * min;
        }
    }
}

fn q5_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    let high = &b[16..48];
    for (j, o) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(&b[4..16], j);
        let q = &b[48 + j / 2 * 32..][..32];
        for ((o, &q), &h) in o.iter_mut().zip(q).zip(high) {
            let q = q >> (j % 2 * 4) & 15 | (h >> j & 1) << 4;
            *o = d * scale * f32::from(q) - dmin * min;
        }
    }
}

fn q6_k(b: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half(b, 208));
    // Each half of 128 elements: four runs of 32, two of them in each nibble plane.
    for (i, o) in out.iter_mut().enumerate() {
        let (part, run, at) = (i / 128, i % 128 / 32, i % 32);
        let l = low[part * 64 + run % 2 * 32 + at] >> (run / 2 * 4) & 15;
        let h = high[part * 32 + at] >> (2 * run) & 3;
        let q = (l | h << 4) as i8 - 32;
        *o = d * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}
