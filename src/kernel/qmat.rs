//! The packed weight layout and quantized activations.

use half::f16;

/// Columns that share one weight scale and one activation scale.
pub const BLOCK: usize = 32;
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
            Bits::Four => TILE * BLOCK / 2,
            Bits::Eight => TILE * BLOCK,
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
        self.k / BLOCK
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
    if k % BLOCK != 0 {
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
            for c in 0..BLOCK {
                let w = weights[row * k + b * BLOCK + c];
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

/// Activation rows quantized per block; a reusable buffer.
#[derive(Debug, Clone, Default)]
pub struct QuantizedRows {
    rows: usize,
    k: usize,
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
        assert!(k % BLOCK == 0 && k > 0 && x.len() % k == 0);
        let rows = x.len() / k;
        let blocks = k / BLOCK;
        self.rows = rows;
        self.k = k;
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
    /// Number of rows `m`.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Columns `K`.
    pub fn columns(&self) -> usize {
        self.k
    }
    /// `K / 32`.
    pub fn blocks(&self) -> usize {
        self.k / BLOCK
    }
}
