//! Tensors of other people's files, whatever the format: names, shapes, element types and the
//! bytes where they are mapped.

use super::blocks;
use crate::map::MappedSlice;
use crate::{Error, ErrorKind, Result};
use half::{bf16, f16};
use std::collections::BTreeMap;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Most elements of a tensor: far above any model here, far below what overflows.
const MAX_ELEMENTS: usize = 1 << 36;

/// The type of a tensor's elements, blocks of GGUF included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
}

impl Dtype {
    /// Elements and bytes of one block; a plain type is a block of one.
    pub fn block(self) -> (usize, usize) {
        match self {
            Dtype::F64 | Dtype::I64 => (1, 8),
            Dtype::F32 | Dtype::I32 => (1, 4),
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => (1, 2),
            Dtype::I8 | Dtype::U8 | Dtype::Bool => (1, 1),
            Dtype::Q8_0 => (32, 34),
            Dtype::Q4_0 => (32, 18),
            Dtype::Q4_1 => (32, 20),
            Dtype::Q5_0 => (32, 22),
            Dtype::Q5_1 => (32, 24),
            Dtype::Q4K => (256, 144),
            Dtype::Q5K => (256, 176),
            Dtype::Q6K => (256, 210),
        }
    }

    /// Whether the elements are whole numbers, of which no weights are made.
    pub fn is_integer(self) -> bool {
        matches!(self, Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool)
    }

    /// Bits of a quantised element, the scale apart; `None` for plain types.
    pub fn quantised_bits(self) -> Option<u32> {
        match self {
            Dtype::Q8_0 => Some(8),
            Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q4K => Some(4),
            Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q5K => Some(5),
            Dtype::Q6K => Some(6),
            _ => None,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::Q4K => "Q4_K",
            Dtype::Q5K => "Q5_K",
            Dtype::Q6K => "Q6_K",
            other => return write!(f, "{other:?}"),
        })
    }
}

/// One tensor where it lies: row-major, its shape in the order of numpy.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: MappedSlice,
}

impl Tensor {
    /// Checks that the bytes are those of the shape.
    ///
    /// # Errors
    /// `Malformed` if they are not, or the shape is absurd.
    pub fn new(name: &str, dtype: Dtype, shape: Vec<usize>, bytes: MappedSlice) -> Result<Self> {
        let want = byte_length(name, dtype, &shape)?;
        if bytes.len() != want {
            return Err(malformed(format!(
                "tensor {name:?} of shape {shape:?} and type {dtype} takes {want} bytes, the file has \
                 {}; copy or export it again",
                bytes.len()
            )));
        }
        Ok(Self { name: name.to_owned(), dtype, shape, bytes })
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
    /// Its shape, slowest dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The first dimension; 1 of a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
    /// Elements of a row: the product of the other dimensions.
    pub fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
    /// The bytes as the file has them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of one row. Blocks lie within rows, see [`byte_length`].
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let (elements, bytes) = self.dtype.block();
        let width = self.columns() / elements * bytes;
        self.bytes.get(row * width..(row + 1) * width).unwrap_or_default()
    }

    /// The row as floats; `out` has [`columns`](Self::columns) places. Whole numbers become floats
    /// as well.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        decode(self.dtype, self.row_bytes(row), out);
    }

    /// All elements as floats.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        decode(self.dtype, &self.bytes, &mut out);
        out
    }

    /// All elements as whole numbers.
    ///
    /// # Errors
    /// `Mismatch` if they are no integers.
    pub fn to_integers(&self) -> Result<Vec<i64>> {
        fn all<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> i64) -> Vec<i64> {
            bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        let b = &self.bytes[..];
        Ok(match self.dtype {
            Dtype::I64 => all(b, i64::from_le_bytes),
            Dtype::I32 => all(b, |c| i32::from_le_bytes(c).into()),
            Dtype::I16 => all(b, |c| i16::from_le_bytes(c).into()),
            Dtype::I8 => all(b, |c: [u8; 1]| (c[0] as i8).into()),
            Dtype::U8 => all(b, |c: [u8; 1]| c[0].into()),
            other => {
                let what = format!("{:?} holds {other}, whole numbers are wanted", self.name);
                return Err(Error::new(ErrorKind::Mismatch, what));
            }
        })
    }
}

/// Bytes of a tensor.
///
/// # Errors
/// `Malformed` if the shape is absurd or cuts blocks.
pub fn byte_length(name: &str, dtype: Dtype, shape: &[usize]) -> Result<usize> {
    let (elements, bytes) = dtype.block();
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.filter(|&n| n <= MAX_ELEMENTS && shape.len() <= MAX_RANK);
    let Some(count) = count else {
        return Err(malformed(format!("tensor {name:?} has the impossible shape {shape:?}")));
    };
    // As rows are read apart, a block must not reach into the next.
    if elements > 1 && shape.last().is_none_or(|last| last % elements != 0) {
        return Err(malformed(format!(
            "tensor {name:?} of shape {shape:?} cuts blocks of {elements} elements ({dtype})"
        )));
    }
    Ok(count / elements * bytes)
}

fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
        out.iter_mut().zip(bytes.as_chunks::<N>().0).for_each(|(o, c)| *o = f(*c));
    }
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::F64 => each(bytes, out, |c| f64::from_le_bytes(c) as f32),
        Dtype::F16 => each(bytes, out, |c| f16::from_le_bytes(c).to_f32()),
        Dtype::BF16 => each(bytes, out, |c| bf16::from_le_bytes(c).to_f32()),
        Dtype::I64 => each(bytes, out, |c| i64::from_le_bytes(c) as f32),
        Dtype::I32 => each(bytes, out, |c| i32::from_le_bytes(c) as f32),
        Dtype::I16 => each(bytes, out, |c| i16::from_le_bytes(c).into()),
        Dtype::I8 => each(bytes, out, |c: [u8; 1]| (c[0] as i8).into()),
        Dtype::U8 | Dtype::Bool => each(bytes, out, |c: [u8; 1]| c[0].into()),
        blocks => blocks::dequantise(blocks, bytes, out),
    }
}

/// Where weights come from.
pub trait TensorSource {
    /// What it was read from, for messages.
    fn origin(&self) -> &str;

    /// Every tensor by its name.
    fn tensors(&self) -> &BTreeMap<String, Tensor>;

    /// The tensor `name`.
    fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors().get(name)
    }

    /// The tensor `name`, which must be there with this shape.
    ///
    /// # Errors
    /// `Malformed` if it is missing, `Mismatch` if its shape differs or it holds integers.
    fn expect(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self.get(name).ok_or_else(|| {
            malformed(format!(
                "{} has no tensor {name:?}; is a shard missing, or is it another model?",
                self.origin()
            ))
        })?;
        if tensor.shape() != shape {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{}: tensor {name:?} has shape {:?}, the configuration asks for {shape:?}",
                    self.origin(),
                    tensor.shape()
                ),
            ));
        }
        if tensor.dtype().is_integer() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{}: tensor {name:?} holds {}, not weights; quantised checkpoints of other \
                     tools cannot be read, take the original or a GGUF",
                    self.origin(),
                    tensor.dtype()
                ),
            ));
        }
        Ok(tensor)
    }
}

/// Tensors of one or several files.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// For messages.
    pub origin: String,
    /// By name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl TensorSource for Tensors {
    fn origin(&self) -> &str {
        &self.origin
    }
    fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }
}

pub(super) fn malformed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Malformed, what)
}

pub(super) fn unsupported(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Map;

    fn tensor(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        Tensor::new("t", dtype, shape.to_vec(), Map::from_vec(bytes.to_vec()).whole())
    }

    #[test]
    fn plain_types_become_floats() {
        let of = |dtype, bytes: &[u8]| tensor(dtype, &[1], bytes).unwrap().to_vec()[0];
        assert_eq!(of(Dtype::F64, &(-1.5f64).to_le_bytes()), -1.5);
        assert_eq!(of(Dtype::F32, &2.25f32.to_le_bytes()), 2.25);
        assert_eq!(of(Dtype::F16, &f16::from_f32(0.5).to_le_bytes()), 0.5);
        assert_eq!(of(Dtype::BF16, &bf16::from_f32(-3.0).to_le_bytes()), -3.0);
        assert_eq!(of(Dtype::I64, &(-7i64).to_le_bytes()), -7.0);
        assert_eq!(of(Dtype::I8, &[0xff]), -1.0);
        assert_eq!(of(Dtype::U8, &[0xff]), 255.0);
    }

    #[test]
    fn rows_are_those_of_the_first_dimension() {
        let bytes: Vec<u8> = (0..24u8).collect();
        let t = tensor(Dtype::U8, &[2, 3, 4], &bytes).unwrap();
        assert_eq!((t.rows(), t.columns()), (2, 12));
        let mut row = [0.0; 12];
        t.read_row(1, &mut row);
        assert_eq!((row[0], row[11]), (12.0, 23.0));
        assert_eq!(t.to_integers().unwrap()[23], 23);
        assert!(tensor(Dtype::F32, &[1], &[0; 4]).unwrap().to_integers().is_err());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(tensor(Dtype::F32, &[usize::MAX, 8], &[]).is_err());
        assert!(tensor(Dtype::F32, &[1; 9], &[0; 4]).is_err());
        assert!(tensor(Dtype::F32, &[2], &[0; 4]).is_err());
        assert!(tensor(Dtype::Q8_0, &[2, 16], &[0; 34]).is_err());
        assert!(tensor(Dtype::Q8_0, &[], &[0; 34]).is_err());
        assert!(tensor(Dtype::Q8_0, &[1, 32], &[0; 34]).is_ok());
    }
}
