//! Rows of weights to blocks of 32 with one scale: quantised by the rule of models/README.md, or as
//! they are stored already.

use super::blocks;
use super::source::Tensor;
use crate::kernel::SCALE_BLOCK;
use crate::{Error, ErrorKind, Result};
use half::f16;

pub use crate::kernel::Bits;

/// A matrix `[N, K]` that is asked for row by row, by several threads.
pub trait Rows: Sync {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize);

    /// Row `n` as floats, in `out` of K places.
    fn read(&self, n: usize, out: &mut [f32]);

    /// The integers and scales (f16 bits, one a block of 32) of row `n`, if that is how it is
    /// stored and `bits` hold them; nothing is lost then.
    fn stored(&self, n: usize, bits: Bits, q: &mut [i8], scales: &mut [u16]) -> bool {
        let _ = (n, bits, q, scales);
        false
    }

    /// What row `n` comes from, for messages.
    fn origin(&self, n: usize) -> String;
}

/// Rows picked from tensors.
#[derive(Debug, Clone)]
pub struct Picked<'a> {
    tensors: Vec<&'a Tensor>,
    /// Tensor and row of each; none is a row of zeros.
    rows: Vec<Option<(usize, usize)>>,
    columns: usize,
}

impl<'a> Picked<'a> {
    /// No rows yet, of so many columns.
    pub fn new(columns: usize) -> Self {
        Self { tensors: Vec::new(), rows: Vec::new(), columns }
    }

    /// Adds rows of `tensor`, whose columns must be those of the matrix.
    ///
    /// # Errors
    /// `Mismatch` if they are not, or it has not these rows.
    pub fn push(
        &mut self,
        tensor: &'a Tensor,
        rows: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        let number = self.tensors.len();
        self.tensors.push(tensor);
        for row in rows {
            if row >= tensor.rows() || tensor.columns() != self.columns {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "row {row} of {} columns is asked of tensor {:?}, which has shape {:?}",
                        self.columns,
                        tensor.name(),
                        tensor.shape()
                    ),
                ));
            }
            self.rows.push(Some((number, row)));
        }
        Ok(())
    }

    /// Adds rows of zeros.
    pub fn pad(&mut self, rows: usize) {
        self.rows.resize(self.rows.len() + rows, None);
    }

    /// All rows of one tensor.
    pub fn all(tensor: &'a Tensor) -> Self {
        Self {
            tensors: vec![tensor],
            rows: (0..tensor.rows()).map(|r| Some((0, r))).collect(),
            columns: tensor.columns(),
        }
    }
}

impl Rows for Picked<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.rows.len(), self.columns)
    }

    fn read(&self, n: usize, out: &mut [f32]) {
        match self.rows[n] {
            Some((tensor, row)) => self.tensors[tensor].read_row(row, out),
            None => out.fill(0.0),
        }
    }

    fn stored(&self, n: usize, bits: Bits, q: &mut [i8], scales: &mut [u16]) -> bool {
        let Some((tensor, row)) = self.rows[n] else { return false };
        let tensor = self.tensors[tensor];
        let dtype = tensor.dtype();
        let fits = dtype.quantised_bits().is_some_and(|have| match bits {
            Bits::Four => have <= 4,
            Bits::Eight => have <= 8,
        });
        if !fits {
            return false;
        }
        let blocks = tensor.row_bytes(row).chunks_exact(dtype.block().1);
        for ((block, q), scale) in blocks.zip(q.chunks_exact_mut(SCALE_BLOCK)).zip(scales) {
            match blocks::symmetric(dtype, block, q) {
                Some(bits) => *scale = bits,
                None => return false,
            }
        }
        true
    }

    fn origin(&self, n: usize) -> String {
        match self.rows[n] {
            Some((tensor, row)) => format!("row {row} of {:?}", self.tensors[tensor].name()),
            None => "a row of zeros".into(),
        }
    }
}

/// Rows that a function computes.
pub struct Computed<F> {
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Fills row n.
    pub fill: F,
    /// For messages.
    pub name: String,
}

impl<F: Fn(usize, &mut [f32]) + Sync> Rows for Computed<F> {
    fn shape(&self) -> (usize, usize) {
        self.shape
    }
    fn read(&self, n: usize, out: &mut [f32]) {
        (self.fill)(n, out);
    }
    fn origin(&self, n: usize) -> String {
        format!("row {n} of {:?}", self.name)
    }
}

/// Columns padded to whole blocks.
pub fn padded(columns: usize) -> usize {
    columns.next_multiple_of(SCALE_BLOCK)
}

/// Integers and scales of row `n`, columns beyond the matrix zero. `x` is a buffer. Whether the
/// row was stored so already.
///
/// # Errors
/// `Malformed` if a weight is not finite or is beyond what f16 scales reach.
pub fn row(
    rows: &dyn Rows,
    n: usize,
    bits: Bits,
    x: &mut Vec<f32>,
    q: &mut [i8],
    scales: &mut [u16],
) -> Result<bool> {
    let (_, k) = rows.shape();
    if k % SCALE_BLOCK == 0 && rows.stored(n, bits, q, scales) {
        if let Some(s) = scales.iter().find(|s| !f16::from_bits(**s).is_finite()) {
            let what = format!("{} has the scale {}", rows.origin(n), f16::from_bits(*s));
            return Err(Error::new(ErrorKind::Malformed, what));
        }
        return Ok(true);
    }
    x.clear();
    x.resize(padded(k), 0.0);
    rows.read(n, &mut x[..k]);
    // A scale beyond f16 would be infinite.
    let limit = match bits {
        Bits::Four => 7.0 * f16::MAX.to_f32(),
        Bits::Eight => 127.0 * f16::MAX.to_f32(),
    };
    if let Some(w) = x.iter().find(|w| !w.is_finite() || w.abs() > limit) {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("{} has the weight {w}; the checkpoint is damaged", rows.origin(n)),
        ));
    }
    let blocks = x.chunks_exact(SCALE_BLOCK).zip(q.chunks_exact_mut(SCALE_BLOCK)).zip(scales);
    for ((x, q), scale) in blocks {
        let Ok(x) = <&[f32; SCALE_BLOCK]>::try_from(x) else { continue };
        let s = match bits {
            Bits::Eight => eight(x, q),
            Bits::Four => four(x, q),
        };
        *scale = s.to_bits();
    }
    Ok(false)
}

/// The smallest f16 that is not below `x`, so that nothing clips.
fn half_up(x: f32) -> f16 {
    let h = f16::from_f32(x);
    if h.to_f32() < x { f16::from_bits(h.to_bits() + 1) } else { h }
}

fn peak(x: &[f32; SCALE_BLOCK]) -> f32 {
    x.iter().fold(0.0, |m: f32, w| m.max(w.abs()))
}

fn round(x: &[f32; SCALE_BLOCK], s: f32, low: f32, high: f32) -> [f32; SCALE_BLOCK] {
    let s = if s != 0.0 { s } else { 1.0 };
    std::array::from_fn(|i| (x[i] / s).round_ties_even().clamp(low, high))
}

fn eight(x: &[f32; SCALE_BLOCK], q: &mut [i8]) -> f16 {
    let scale = half_up(peak(x) / 127.0);
    let values = round(x, scale.to_f32(), -127.0, 127.0);
    let zero = scale == f16::ZERO;
    q.iter_mut().zip(values).for_each(|(q, v)| *q = if zero { 0 } else { v as i8 });
    scale
}

/// The least squared error over scales from well inside the range (clipping the peak) to a little
/// over it, each refined once; the scale that takes the peak to -8, which is negative for a
/// positive one; and those that the peak is a whole number of, so that integers that were
/// dequantised come back as they were.
fn four(x: &[f32; SCALE_BLOCK], q: &mut [i8]) -> f16 {
    let peak = peak(x);
    let signed = x.iter().copied().find(|w| w.abs() == peak).unwrap_or(0.0);
    let mut best = (f32::INFINITY, f16::ZERO, [0.0; SCALE_BLOCK]);
    let mut consider = |scale: f16| {
        let s = scale.to_f32();
        let values = round(x, s, -8.0, 7.0);
        let error = x.iter().zip(values).fold(0.0, |e: f32, (x, q)| {
            let d = q * s - x;
            e + d * d
        });
        if error < best.0 {
            best = (error, scale, values);
        }
        error > 0.0
    };
    let refined = |trial: f16| {
        let values = round(x, trial.to_f32(), -8.0, 7.0);
        let square: f32 = values.iter().map(|v| v * v).sum();
        let product: f32 = values.iter().zip(x).map(|(v, x)| v * x).sum();
        f16::from_f32(if square > 0.0 { product / square } else { 0.0 })
    };
    let steps = (0..17).map(|step| half_up(peak / 7.0 * (0.70 + 0.02 * step as f32)));
    let negative = f16::from_f32(signed / -8.0);
    let whole = (1..=7).map(|n| f16::from_f32(peak / n as f32));
    // Whatever is exact ends the search.
    let _ = steps.map(refined).chain([refined(negative), negative]).chain(whole).all(&mut consider);
    let (_, scale, values) = best;
    let zero = scale.to_f32() == 0.0;
    q.iter_mut().zip(values).for_each(|(q, v)| *q = if zero { 0 } else { v as i8 });
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::source::Dtype;
    use crate::map::Map;

    fn quantised(bits: Bits, x: &[f32]) -> (Vec<i8>, Vec<u16>) {
        let rows = Computed {
            shape: (1, x.len()),
            fill: |_, out: &mut [f32]| out.copy_from_slice(x),
            name: "x".into(),
        };
        let k = padded(x.len());
        let (mut q, mut s) = (vec![0; k], vec![0; k / SCALE_BLOCK]);
        row(&rows, 0, bits, &mut Vec::new(), &mut q, &mut s).unwrap();
        (q, s)
    }

    /// What was quantised once comes back as the same integers and scales.
    #[test]
    fn dequantised_weights_come_back() {
        let mut state = 1u32;
        let mut next = move || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            state >> 8
        };
        for _ in 0..300 {
            let scale = f16::from_f32(1e-4 + (next() % 1000) as f32 * 3e-5);
            let s = scale.to_f32();
            let mut q: [i8; 32] = std::array::from_fn(|_| (next() % 255) as i8);
            q[5] = if next() % 2 == 0 { 127 } else { -127 };
            let x: Vec<f32> = q.iter().map(|q| f32::from((*q).max(-127)) * s).collect();
            let want: Vec<i8> = q.iter().map(|q| (*q).max(-127)).collect();
            assert_eq!(quantised(Bits::Eight, &x), (want, vec![scale.to_bits()]));
            // Four bits, as Q4_0 has them: the peak is -8, the scale of either sign.
            let s = if next() % 2 == 0 { s } else { -s };
            let mut q: [i8; 32] = std::array::from_fn(|_| (next() % 15) as i8 - 7);
            (q[3], q[4]) = (-8, 1);
            let x: Vec<f32> = q.iter().map(|q| f32::from(*q) * s).collect();
            assert_eq!(quantised(Bits::Four, &x), (q.to_vec(), vec![f16::from_f32(s).to_bits()]));
            // Or the peak may be any whole number of scales.
            let s = scale.to_f32();
            let most = 1 + (next() % 7) as i8;
            let mut q: [i8; 32] =
                std::array::from_fn(|_| (next() % (2 * most as u32 + 1)) as i8 - most);
            (q[0], q[1]) = (most, -1);
            let x: Vec<f32> = q.iter().map(|q| f32::from(*q) * s).collect();
            let (got, scales) = quantised(Bits::Four, &x);
            let back: Vec<f32> =
                got.iter().map(|q| f32::from(*q) * f16::from_bits(scales[0]).to_f32()).collect();
            // Small numbers are multiples of several scales: the values are what comes back.
            assert_eq!(back, x);
        }
    }

    #[test]
    fn four_bits_are_at_least_as_near_as_rounding_to_the_peak() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0).powi(3) * 1e-5).collect();
        let (q, s) = quantised(Bits::Four, &x);
        for (b, x) in x.chunks_exact(32).enumerate() {
            let scale = f16::from_bits(s[b]).to_f32();
            let error: f32 =
                (0..32).map(|i| (f32::from(q[32 * b + i]) * scale - x[i]).powi(2)).sum();
            let peak = x.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            let plain: f32 =
                x.iter().map(|w| ((w / peak * 7.0).round() * peak / 7.0 - w).powi(2)).sum();
            assert!(error <= plain, "{error} {plain}");
        }
    }

    #[test]
    fn zeros_and_padding_are_zero() {
        let (q, s) = quantised(Bits::Eight, &[0.0; 20]);
        assert_eq!((q, s), (vec![0; 32], vec![0]));
        let (q, s) = quantised(Bits::Four, &[1.0; 40]);
        assert!(q[40..].iter().all(|q| *q == 0) && s.len() == 2);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            let rows = Computed {
                shape: (1, 32),
                fill: |_, out: &mut [f32]| out.fill(bad),
                name: "w".into(),
            };
            let e = row(&rows, 0, Bits::Four, &mut vec![], &mut [0; 32], &mut [0]).unwrap_err();
            assert!(e.to_string().contains("row 0 of \"w\""), "{e}");
        }
    }

    #[test]
    fn gguf_blocks_keep_their_integers() {
        // A scale, then nibbles: low is element i, high i + 16.
        let scale = f16::from_f32(-0.25);
        let mut block = scale.to_le_bytes().to_vec();
        block.extend((0..16u8).map(|i| i | (15 - i) << 4));
        let bytes = Map::from_vec(block).whole();
        let tensor = Tensor::new("t", Dtype::Q4_0, vec![1, 32], bytes).unwrap();
        let picked = Picked::all(&tensor);
        for bits in [Bits::Four, Bits::Eight] {
            let (mut q, mut s) = ([0; 32], [0]);
            assert!(row(&picked, 0, bits, &mut vec![], &mut q, &mut s).unwrap());
            let want: Vec<i8> = (0..16).map(|i| i - 8).chain((0..16).map(|i| 7 - i)).collect();
            assert_eq!((q.to_vec(), s[0]), (want, scale.to_bits()));
            let mut x = [0.0; 32];
            tensor.read_row(0, &mut x);
            assert!(x.iter().zip(q).all(|(x, q)| *x == -0.25 * f32::from(q)));
        }
    }
}
