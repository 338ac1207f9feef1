//! Weights, all of them views of the mapped file.

use super::nbits::Stock;
use crate::kernel::{
    Bits, Kernel, PackedShape, QuantizedRows, RowMajor, RowScales, SCALE_BLOCK, TILE,
};
use crate::map::MappedSlice;
use crate::{Error, ErrorKind, Result};
use half::slice::HalfFloatSliceExt;

/// A weight matrix, a view of the mapped file.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    shape: PackedShape,
    packed: MappedSlice,
    scales: MappedSlice,
    layout: Layout,
}

/// How the bytes of a [`Weight`] lie.
#[derive(Debug, Clone)]
enum Layout {
    /// Sixteen rows interleaved, see [`PackedShape`].
    Packed,
    /// Row by row, see [`RowMajor`].
    Rows { half: bool, zero_points: Option<MappedSlice> },
}

impl Weight {
    /// Checks lengths and alignment once.
    pub fn new(shape: PackedShape, packed: MappedSlice, scales: MappedSlice) -> Result<Self> {
        if packed.len() != shape.weight_bytes() || scales.len() != shape.scale_count() * 2 {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!(
                    "a packed weight of {} x {} needs {} bytes and {} scales, the file has {} and {}",
                    shape.n,
                    shape.k,
                    shape.weight_bytes(),
                    shape.scale_count(),
                    packed.len(),
                    scales.len() / 2
                ),
            ));
        }
        scales.as_f16()?;
        Ok(Self { shape, packed, scales, layout: Layout::Packed })
    }

    /// A stock weight, where it lies.
    pub fn stock(s: Stock) -> Self {
        let layout = Layout::Rows { half: s.half, zero_points: s.zero_points };
        Self { shape: s.shape, packed: s.weights, scales: s.scales, layout }
    }

    /// Rows `rows` of a row-major weight; `None` for the other layout.
    fn rows(&self, rows: std::ops::Range<usize>) -> Option<RowMajor<'_>> {
        let Layout::Rows { half, zero_points } = &self.layout else { return None };
        let PackedShape { bits, .. } = self.shape;
        let blocks = self.shape.blocks();
        let row = blocks * bits.bytes_per_row_block();
        let scales = rows.start * blocks..rows.end * blocks;
        let zero = RowMajor::zero_bytes(bits, blocks);
        Some(RowMajor {
            bits,
            blocks,
            weights: &self.packed[rows.start * row..rows.end * row],
            // Checked at construction; an empty slice would fail the kernel's own check.
            scales: if *half {
                let all: &[u16] = self.scales.as_f16().unwrap_or_default().reinterpret_cast();
                RowScales::F16(&all[scales])
            } else {
                RowScales::F32(&self.scales.as_f32().unwrap_or_default()[scales])
            },
            zero_points: zero_points.as_ref().map(|z| &z[rows.start * zero..rows.end * zero]),
        })
    }

    /// Quantizes activations for this weight.
    pub fn quantize(&self, q: &mut QuantizedRows, kernel: Kernel, x: &[f32]) {
        match self.layout {
            Layout::Packed => q.fill(kernel, x, self.shape.k),
            Layout::Rows { .. } => q.fill_for_rows(kernel, x, self.shape.k, self.shape.bits),
        }
    }

    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// The weights as floats, `[N][K]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let PackedShape { n, k, bits } = self.shape;
        let blocks = self.shape.blocks();
        let mut out = vec![0.0; n * k];
        if let Some(w) = self.rows(0..n) {
            let bytes = bits.bytes_per_row_block();
            for (i, out) in out.chunks_exact_mut(SCALE_BLOCK).enumerate() {
                let zero = w.zero_point(i / blocks, i % blocks) as i32;
                let block = &w.weights[i * bytes..][..bytes];
                for (c, o) in out.iter_mut().enumerate() {
                    let stored = RowMajor::stored(bits, block, c) as i32;
                    *o = (stored - zero) as f32 * w.scales.get(i);
                }
            }
            return out;
        }
        let scales = self.scales.as_f16().unwrap_or_default();
        for (row, out) in out.chunks_exact_mut(k).enumerate() {
            for (c, o) in out.iter_mut().enumerate() {
                let block = row / TILE * blocks + c / SCALE_BLOCK;
                let at = |c: usize| {
                    block * bits.bytes_per_block() + (c / 4 * TILE + row % TILE) * 4 + c % 4
                };
                let w = match bits {
                    Bits::Eight => self.packed[at(c % SCALE_BLOCK)] as i32 - 128,
                    Bits::Four => {
                        let byte = self.packed[at(c % 16)];
                        (if c % SCALE_BLOCK < 16 { byte & 15 } else { byte >> 4 }) as i32 - 8
                    }
                };
                *o = w as f32 * scales[block * TILE + row % TILE].to_f32();
            }
        }
        out
    }

    /// `out[tile][m][16]` for `tiles`.
    pub fn multiply(
        &self,
        kernel: Kernel,
        x: &QuantizedRows,
        tiles: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        if let Some(w) = self.rows(tiles.start * TILE..(tiles.end * TILE).min(self.shape.n)) {
            return kernel.qgemm_rows(&w, x, out);
        }
        let per_tile = self.shape.blocks() * self.shape.bits.bytes_per_block();
        let per_scale = self.shape.blocks() * TILE;
        // Checked at construction; an empty slice would fail the kernel's own check.
        let scales = self.scales.as_f16().unwrap_or_default().reinterpret_cast();
        kernel.qgemm(
            self.shape.bits,
            &self.packed[tiles.start * per_tile..tiles.end * per_tile],
            &scales[tiles.start * per_scale..tiles.end * per_scale],
            x,
            out,
        );
    }

    pub fn bytes(&self) -> usize {
        self.packed.len() + self.scales.len()
    }
}

/// From the operator's attributes.
pub(super) fn packed_shape(n: i64, k: i64, bits: i64) -> Result<PackedShape> {
    let malformed = |what: &str| {
        Error::new(ErrorKind::Malformed, format!("matrix product with {what}: export it again"))
    };
    let bits = Bits::from_count(bits).ok_or_else(|| malformed("bits other than 4 or 8"))?;
    let size = |v: i64| usize::try_from(v).ok().filter(|v| (1..1 << 24).contains(v));
    let n = size(n).ok_or_else(|| malformed("N out of range"))?;
    let k = size(k)
        .filter(|k| k % crate::kernel::SCALE_BLOCK == 0)
        .ok_or_else(|| malformed("K not a multiple of 32"))?;
    Ok(PackedShape { n, k, bits })
}

/// Small float weights, read in place.
#[derive(Debug, Clone)]
pub(super) struct Floats(MappedSlice);

impl Floats {
    pub fn new(slice: MappedSlice) -> crate::Result<Self> {
        slice.as_f32()?;
        Ok(Self(slice))
    }
    pub fn get(&self) -> &[f32] {
        self.0.as_f32().unwrap_or_default()
    }
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }
}

/// A half-precision table `[rows][columns]`, read in place.
#[derive(Debug, Clone)]
pub(super) struct HalfTable(MappedSlice);

impl HalfTable {
    pub fn new(slice: MappedSlice) -> crate::Result<Self> {
        slice.as_f16()?;
        Ok(Self(slice))
    }
    pub fn get(&self) -> &[u16] {
        self.0.as_f16().unwrap_or_default().reinterpret_cast()
    }
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }
    /// `out += row`, of the table's rows as wide as `out`; nothing beyond the table.
    pub fn add_row(&self, row: usize, out: &mut [f32]) {
        let values = self.0.as_f16().unwrap_or_default();
        let values = values.get(row * out.len()..).unwrap_or_default();
        out.iter_mut().zip(values).for_each(|(o, v)| *o += v.to_f32());
    }
}

/// A quantized table `[rows][hidden]`, read in place row by row: blocks of 32 columns with a scale
/// each, 4-bit columns `i` and `i + 16` of a block in the nibbles of its byte `i`, low and high.
#[derive(Debug, Clone)]
pub(super) struct QuantizedTable {
    bits: Bits,
    hidden: usize,
    values: MappedSlice,
    scales: MappedSlice,
}

impl QuantizedTable {
    /// `hidden` is a multiple of 32. Checks lengths and alignment once.
    pub fn new(
        bits: Bits,
        hidden: usize,
        values: MappedSlice,
        scales: MappedSlice,
    ) -> crate::Result<Self> {
        let rows = scales.as_f16()?.len() / (hidden / SCALE_BLOCK);
        let whole = rows * (hidden / SCALE_BLOCK);
        if scales.len() != 2 * whole || values.len() != whole * bits.bytes_per_row_block() {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!(
                    "a quantized table of {hidden} columns has {} bytes and {} scales, which do \
                     not belong together: export the model again",
                    values.len(),
                    scales.len() / 2
                ),
            ));
        }
        Ok(Self { bits, hidden, values, scales })
    }
    pub fn hidden(&self) -> usize {
        self.hidden
    }
    pub fn rows(&self) -> usize {
        self.scales.len() / 2 / (self.hidden / SCALE_BLOCK)
    }
    /// `out[hidden]` = row `row`, which is there: integer times scale.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let blocks = self.hidden / SCALE_BLOCK;
        let bytes = self.bits.bytes_per_row_block();
        let values = self.values[row * blocks * bytes..][..blocks * bytes].chunks_exact(bytes);
        let scales = &self.scales.as_f16().unwrap_or_default()[row * blocks..][..blocks];
        for ((out, values), scale) in out.chunks_exact_mut(SCALE_BLOCK).zip(values).zip(scales) {
            let scale = scale.to_f32();
            let of = |stored: u8, zero: i32| (i32::from(stored) - zero) as f32 * scale;
            match self.bits {
                Bits::Eight => {
                    out.iter_mut().zip(values).for_each(|(o, &v)| *o = of(v, 128));
                }
                Bits::Four => {
                    let (low, high) = out.split_at_mut(SCALE_BLOCK / 2);
                    for ((l, h), &v) in low.iter_mut().zip(high).zip(values) {
                        (*l, *h) = (of(v & 15, 8), of(v >> 4, 8));
                    }
                }
            }
        }
    }
}

/// What tokens are looked up in.
#[derive(Debug, Clone)]
pub(super) enum Table {
    Half(HalfTable),
    Quantized(QuantizedTable),
}

impl Table {
    /// Rows of `hidden` columns.
    pub fn rows(&self, hidden: usize) -> usize {
        match self {
            Table::Half(t) => t.len() / hidden,
            Table::Quantized(t) => t.rows(),
        }
    }
    /// `out` = row `row`, which is as wide as the table and there.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Table::Half(t) => {
                out.fill(0.0);
                t.add_row(row, out);
            }
            Table::Quantized(t) => t.read_row(row, out),
        }
    }
}
