//! The packed weight layout and quantized activations.

use half::f16;

/// Columns that share one weight scale and one activation scale.
pub const SCALE_BLOCK: usize = 32;
/// Weight rows interleaved in one tile.
pub const TILE: usize = 16;

/// Bits of one stored weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Two weights a byte, stored as `w + 8`, w in -8..=7.
    Four,
    /// One weight a byte, stored as `w + 128`, w in -128..=127.
    Eight,
}

impl Bits {
    /// Bytes of one block of 32 columns of one tile of 16 rows.
    pub const fn bytes_per_block(self) -> usize {
        match self {
            Bits::Four => TILE * SCALE_BLOCK / 2,
            Bits::Eight => TILE * SCALE_BLOCK,
        }
    }

    /// Bytes of one block of 32 columns of one row.
    pub const fn bytes_per_row_block(self) -> usize {
        self.bytes_per_block() / TILE
    }

    /// What a weight of zero is stored as, where nothing else is said.
    pub const fn zero_point(self) -> u8 {
        match self {
            Bits::Four => 8,
            Bits::Eight => 128,
        }
    }

    /// From the attribute of the operator.
    pub fn from_count(bits: i64) -> Option<Self> {
        match bits {
            4 => Some(Bits::Four),
            8 => Some(Bits::Eight),
            _ => None,
        }
    }
}

/// Shape of a packed `[N, K]` weight.
///
/// Weights are `[ceil(N/16)][K/32][j][16 rows][4]`: one 64-byte vector holds four
/// consecutive columns of 16 rows, the operand of one 4-way int8 dot product.
/// For 8 bits `j` runs over 8 groups of four columns, element `(j, r, i)` being column
/// `4j + i`. For 4 bits `j` runs over 4, the low nibble being column `4j + i` and the high
/// nibble column `16 + 4j + i`. Scales are f16 `[ceil(N/16)][K/32][16]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedShape {
    /// Output channels.
    pub n: usize,
    /// Input channels, a multiple of 32.
    pub k: usize,
    /// Width of a weight.
    pub bits: Bits,
}

impl PackedShape {
    /// Tiles of 16 rows.
    pub fn tiles(&self) -> usize {
        self.n.div_ceil(TILE)
    }
    /// Blocks of 32 columns.
    pub fn blocks(&self) -> usize {
        self.k / SCALE_BLOCK
    }
    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.tiles() * self.blocks() * self.bits.bytes_per_block()
    }
    /// Number of f16 scales.
    pub fn scale_count(&self) -> usize {
        self.tiles() * self.blocks() * TILE
    }
}

/// Why a matrix could not be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackError {
    /// `K` is not a multiple of 32.
    Columns,
    /// The slices do not have the lengths that the shape asks for.
    Length,
    /// A weight is outside the range of its bits.
    Range,
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PackError::Columns => "the number of columns must be a multiple of 32",
            PackError::Length => "weights and scales do not have the lengths of the shape",
            PackError::Range => "a weight is outside the range of its bits",
        })
    }
}
impl std::error::Error for PackError {}

/// Packs row-major `weights[N][K]` (signed values) and `scales[N][K/32]` (f16 bits) into the
/// layout of [`PackedShape`], without loss.
pub fn pack(
    shape: PackedShape,
    weights: &[i8],
    scales: &[u16],
) -> Result<(Vec<u8>, Vec<u16>), PackError> {
    let PackedShape { n, k, bits } = shape;
    if k % SCALE_BLOCK != 0 {
        return Err(PackError::Columns);
    }
    let blocks = shape.blocks();
    if weights.len() != n * k || scales.len() != n * blocks {
        return Err(PackError::Length);
    }
    if bits == Bits::Four && weights.iter().any(|w| !(-8..=7).contains(w)) {
        return Err(PackError::Range);
    }
    let zero = match bits {
        Bits::Four => 0x88,
        Bits::Eight => 128,
    };
    let mut packed = vec![zero; shape.weight_bytes()];
    let mut packed_scales = vec![f16::ZERO.to_bits(); shape.scale_count()];
    for row in 0..n {
        let (tile, r) = (row / TILE, row % TILE);
        for b in 0..blocks {
            let block = tile * blocks + b;
            packed_scales[block * TILE + r] = scales[row * blocks + b];
            let base = block * bits.bytes_per_block();
            for c in 0..SCALE_BLOCK {
                let w = weights[row * k + b * SCALE_BLOCK + c];
                match bits {
                    Bits::Eight => {
                        packed[base + (c / 4 * TILE + r) * 4 + c % 4] = (w as i16 + 128) as u8
                    }
                    Bits::Four => {
                        let byte = &mut packed[base + (c % 16 / 4 * TILE + r) * 4 + c % 4];
                        let v = (w + 8) as u8;
                        *byte = if c < 16 { *byte & 0xf0 | v } else { *byte & 0x0f | v << 4 };
                    }
                }
            }
        }
    }
    Ok((packed, packed_scales))
}

/// Scales of row-major weights, `[N][K/32]`.
#[derive(Debug, Clone, Copy)]
pub enum RowScales<'a> {
    /// As stock ONNX files have them beside float32 activations.
    F32(&'a [f32]),
    /// f16 bits.
    F16(&'a [u16]),
}

impl RowScales<'_> {
    /// Number of scales.
    pub fn len(&self) -> usize {
        match self {
            RowScales::F32(s) => s.len(),
            RowScales::F16(s) => s.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Scale `i` of the array.
    #[inline(always)]
    pub fn get(&self, i: usize) -> f32 {
        match self {
            RowScales::F32(s) => s[i],
            RowScales::F16(s) => super::widen::widen(s[i]),
        }
    }
}

/// Weights as the ONNX operator `com.microsoft.MatMulNBits` stores them with blocks of 32:
/// one row after another, a block of 32 columns in 32 bytes, or in 16 with column `2i` in the
/// low and `2i + 1` in the high nibble of byte `i`.
#[derive(Debug, Clone, Copy)]
pub struct RowMajor<'a> {
    /// Width of a weight.
    pub bits: Bits,
    /// Blocks of a row, `K / 32`.
    pub blocks: usize,
    /// `[N][K/32]` blocks.
    pub weights: &'a [u8],
    /// `[N][K/32]`.
    pub scales: RowScales<'a>,
    /// What a weight of zero is stored as, for each block: a byte each, or for 4 bits a nibble
    /// each, low first, every row on its own byte; [`Bits::zero_point`] everywhere if absent.
    pub zero_points: Option<&'a [u8]>,
}

impl RowMajor<'_> {
    /// Bytes of the zero points of one row.
    pub const fn zero_bytes(bits: Bits, blocks: usize) -> usize {
        match bits {
            Bits::Four => blocks.div_ceil(2),
            Bits::Eight => blocks,
        }
    }

    /// The zero point of a block.
    #[inline(always)]
    pub fn zero_point(&self, row: usize, block: usize) -> u8 {
        let Some(zero) = self.zero_points else { return self.bits.zero_point() };
        let row = &zero[row * Self::zero_bytes(self.bits, self.blocks)..];
        match self.bits {
            Bits::Four => row[block / 2] >> (block % 2 * 4) & 15,
            Bits::Eight => row[block],
        }
    }

    /// Column `c` of a block as it is stored.
    #[inline(always)]
    pub fn stored(bits: Bits, block: &[u8], c: usize) -> u8 {
        match bits {
            Bits::Four => block[c / 2] >> (c % 2 * 4) & 15,
            Bits::Eight => block[c],
        }
    }

    /// Up to 16 row-major `rows` to one tile of the interleaved layout, without loss; missing
    /// rows are zero.
    pub fn interleave(bits: Bits, blocks: usize, rows: &[u8], tile: &mut [u8]) {
        let bytes = bits.bytes_per_row_block();
        assert!(rows.len() % (blocks * bytes) == 0 && rows.len() <= blocks * bytes * TILE);
        assert_eq!(tile.len(), blocks * bits.bytes_per_block());
        let zero = bits.zero_point();
        tile.fill(if bits == Bits::Four { zero << 4 | zero } else { zero });
        for (r, row) in rows.chunks_exact(blocks * bytes).enumerate() {
            for (block, tile) in
                row.chunks_exact(bytes).zip(tile.chunks_exact_mut(bits.bytes_per_block()))
            {
                for j in 0..bytes / 4 {
                    for i in 0..4 {
                        tile[(j * TILE + r) * 4 + i] = match bits {
                            Bits::Eight => block[4 * j + i],
                            Bits::Four => {
                                let at = |c| Self::stored(bits, block, c);
                                at(4 * j + i) | at(16 + 4 * j + i) << 4
                            }
                        };
                    }
                }
            }
        }
    }

    /// Rows `N`.
    pub fn rows(&self) -> usize {
        self.scales.len() / self.blocks
    }

    /// Brings the scales of blocks `first..` of `valid` rows from `row` on into the order of
    /// the interleaved layout, `[block][16]`, those of missing rows zero. `four` does it for four
    /// blocks of 16 rows at a time.
    pub(super) fn spread_scales(
        &self,
        row: usize,
        valid: usize,
        first: usize,
        out: &mut [f32],
        mut four: impl FnMut(&[f32], &mut [f32]),
    ) {
        let at = row * self.blocks + first;
        let mut done = 0;
        if let RowScales::F32(s) = self.scales
            && valid == TILE
        {
            for (i, out) in out.chunks_exact_mut(4 * TILE).enumerate() {
                four(&s[at + 4 * i..][..(TILE - 1) * self.blocks + 4], out);
                done = 4 * (i + 1);
            }
        }
        for (b, out) in out.chunks_exact_mut(TILE).enumerate().skip(done) {
            for (r, o) in out.iter_mut().enumerate() {
                *o = if r < valid { self.scales.get(at + r * self.blocks + b) } else { 0.0 };
            }
        }
    }

    /// What each unit of the activations' sum adds to a sum over weights with the usual zero
    /// point, `[block][16]`.
    pub(super) fn spread_offsets(&self, row: usize, valid: usize, first: usize, out: &mut [i32]) {
        let usual = self.bits.zero_point() as i32;
        for (b, out) in out.chunks_exact_mut(TILE).enumerate() {
            for (r, o) in out.iter_mut().enumerate() {
                *o = usual - self.zero_point(row + r.min(valid - 1), first + b) as i32;
            }
        }
    }
}

/// Activation rows quantized per block; a reusable buffer.
#[derive(Debug, Clone, Default)]
pub struct QuantizedRows {
    rows: usize,
    k: usize,
    /// From the start of one row to that of the next: `k`, or less where rows overlap.
    stride: usize,
    /// Whether each block holds its even columns before its odd ones, as the nibbles of
    /// row-major 4-bit weights lie.
    pub(super) paired: bool,
    pub(super) q: Vec<i8>,
    pub(super) scale: Vec<f32>,
    pub(super) sum: Vec<i32>,
    /// Where the sums of products with stored weights start, so that they end as if the
    /// weights were stored without their offset: -128 (8 bits) and -8 (4 bits) times `sum`.
    pub(super) start8: Vec<i32>,
    pub(super) start4: Vec<i32>,
}

impl QuantizedRows {
    /// Quantizes `x[rows][k]`, reusing the buffers.
    pub fn fill(&mut self, kernel: super::Kernel, x: &[f32], k: usize) {
        self.fill_windows(kernel, x, k, 1)
    }

    /// Quantizes `x[R][columns]` as the `R - taps + 1` rows that a convolution multiplies, each
    /// of `taps` neighbouring rows of `x` behind one another. They share what they overlap in:
    /// nothing is quantized or stored twice.
    pub fn fill_windows(&mut self, kernel: super::Kernel, x: &[f32], columns: usize, taps: usize) {
        let k = columns;
        assert!(k % SCALE_BLOCK == 0 && k > 0 && x.len() % k == 0);
        let rows = x.len() / k;
        assert!(taps > 0 && rows + 1 >= taps);
        let blocks = k / SCALE_BLOCK;
        self.rows = rows + 1 - taps;
        self.k = k * taps;
        self.stride = k;
        self.paired = false;
        self.q.resize(rows * k, 0);
        self.scale.resize(rows * blocks, 0.0);
        self.sum.resize(rows * blocks, 0);
        for r in 0..rows {
            kernel.quantize(
                &x[r * k..][..k],
                &mut self.q[r * k..][..k],
                &mut self.scale[r * blocks..][..blocks],
                &mut self.sum[r * blocks..][..blocks],
            );
        }
        for (start, factor) in [(&mut self.start8, -128), (&mut self.start4, -8)] {
            start.clear();
            start.extend(self.sum.iter().map(|s| s * factor));
        }
    }
    /// [`fill`](Self::fill) for [`Kernel::qgemm_rows`](super::Kernel::qgemm_rows) with weights
    /// of `bits`.
    pub fn fill_for_rows(&mut self, kernel: super::Kernel, x: &[f32], k: usize, bits: Bits) {
        self.fill(kernel, x, k);
        self.paired = bits == Bits::Four;
        if self.paired {
            for block in self.q.chunks_exact_mut(SCALE_BLOCK) {
                let old: [i8; SCALE_BLOCK] = std::array::from_fn(|c| block[c]);
                for i in 0..SCALE_BLOCK / 2 {
                    (block[i], block[SCALE_BLOCK / 2 + i]) = (old[2 * i], old[2 * i + 1]);
                }
            }
        }
    }

    /// Makes room for `values` activations, `m K`.
    pub fn reserve(&mut self, values: usize) {
        let blocks = values / SCALE_BLOCK;
        self.q.reserve(values.saturating_sub(self.q.len()));
        self.scale.reserve(blocks.saturating_sub(self.scale.len()));
        for sums in [&mut self.sum, &mut self.start8, &mut self.start4] {
            sums.reserve(blocks.saturating_sub(sums.len()));
        }
    }

    /// Number of rows `m`.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// From the start of one row to that of the next, in columns and in blocks.
    pub(super) fn strides(&self) -> (usize, usize) {
        (self.stride, self.stride / SCALE_BLOCK)
    }
    /// Columns `K`.
    pub fn columns(&self) -> usize {
        self.k
    }
    /// `K / 32`.
    pub fn blocks(&self) -> usize {
        self.k / SCALE_BLOCK
    }
}
