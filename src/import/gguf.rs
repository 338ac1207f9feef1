//! GGUF files, versions 2 and 3: metadata, and tensors where they are mapped.
//!
//! Every length and offset of the file is checked before it is used; a count is believed only as
//! far as the bytes that are left could hold it.

use super::source::{Dtype, Tensor, Tensors, byte_length, malformed, unsupported};
use crate::Result;
use crate::map::Map;
use std::collections::BTreeMap;
use std::path::Path;

/// Deepest array of arrays.
const MAX_DEPTH: usize = 4;

/// One value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type.
    Int(i128),
    /// Either float type.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// Text; what is no UTF-8 is replaced.
    Text(String),
    /// Values of one type.
    Array(Vec<Value>),
}

/// A file's metadata and tensors.
#[derive(Debug, Clone, Default)]
pub struct Gguf {
    /// By key, such as `llama.block_count`.
    pub metadata: BTreeMap<String, Value>,
    /// Shapes in numpy's order, the reverse of the file's.
    pub tensors: Tensors,
}

impl Gguf {
    /// Maps and reads the file.
    ///
    /// # Errors
    /// `Unreadable`, `Malformed`; `Unsupported` for another version.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(&Map::open(path)?)
    }

    /// The same of a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(map: &Map) -> Result<Self> {
        let mut r = Reader { map, at: 0 };
        if r.take(4)? != b"GGUF" {
            return Err(malformed(format!("{} is no GGUF file", map.name())));
        }
        let version = r.u32()?;
        if !(2..=3).contains(&version) {
            // A file of the other byte order has its version in the upper bytes.
            let what =
                if version & 0xffff == 0 { "is big-endian" } else { "is of another version" };
            return Err(unsupported(format!(
                "{} {what} ({version}); GGUF 2 and 3, little-endian, are read",
                map.name()
            )));
        }
        // The least that a tensor and an entry take.
        let tensors = r.count(24)?;
        let entries = r.count(13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = r.text()?;
            let kind = r.u32()?;
            let value = r.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(r.bad(&format!("the key {key:?} is there twice")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Int(a)) => usize::try_from(*a)
                .ok()
                .filter(|a| a.is_power_of_two() && *a <= 1 << 20)
                .ok_or_else(|| r.bad(&format!("general.alignment is {a}")))?,
            Some(other) => return Err(r.bad(&format!("general.alignment is {other:?}"))),
        };
        let mut listed = Vec::new();
        for _ in 0..tensors {
            let name = r.text()?;
            let rank = r.u32()? as usize;
            if rank > 8 {
                return Err(r.bad(&format!("tensor {name:?} has {rank} dimensions")));
            }
            let mut shape = Vec::with_capacity(rank);
            for _ in 0..rank {
                shape.push(r.size()?);
            }
            shape.reverse();
            let dtype = dtype(r.u32()?, &name, map.name())?;
            listed.push((name, dtype, shape, r.size()?));
        }
        let start = r.at.checked_next_multiple_of(alignment);
        let mut out = BTreeMap::new();
        for (name, dtype, shape, offset) in listed {
            if offset % alignment != 0 {
                return Err(r.bad(&format!("tensor {name:?} begins at {offset}, not aligned")));
            }
            let from = start.and_then(|s| s.checked_add(offset));
            let length = byte_length(&name, dtype, &shape)?;
            let range = from.and_then(|f| Some(f..f.checked_add(length)?));
            let range = range.ok_or_else(|| r.bad(&format!("tensor {name:?} is out of range")))?;
            let tensor = Tensor::new(&name, dtype, shape, map.slice(range)?)?;
            if out.insert(name.clone(), tensor).is_some() {
                return Err(r.bad(&format!("the tensor {name:?} is there twice")));
            }
        }
        let tensors = Tensors { origin: map.name().to_owned(), tensors: out };
        Ok(Self { metadata, tensors })
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(t) => Some(t),
            _ => None,
        }
    }

    /// A number of the metadata.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// A whole number of the metadata that is not negative.
    pub fn size(&self, key: &str) -> Option<usize> {
        match self.metadata.get(key)? {
            Value::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }

    /// A list of texts of the metadata.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        let Value::Array(all) = self.metadata.get(key)? else { return None };
        all.iter()
            .map(|v| match v {
                Value::Text(t) => Some(t.as_str()),
                _ => None,
            })
            .collect()
    }

    /// A list of whole numbers of the metadata.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        let Value::Array(all) = self.metadata.get(key)? else { return None };
        all.iter()
            .map(|v| match v {
                Value::Int(i) => i64::try_from(*i).ok(),
                _ => None,
            })
            .collect()
    }
}

fn dtype(number: u32, name: &str, file: &str) -> Result<Dtype> {
    Ok(match number {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Q4_0,
        3 => Dtype::Q4_1,
        6 => Dtype::Q5_0,
        7 => Dtype::Q5_1,
        8 => Dtype::Q8_0,
        12 => Dtype::Q4K,
        13 => Dtype::Q5K,
        14 => Dtype::Q6K,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::BF16,
        other => {
            let known = match other {
                10 => "Q2_K",
                11 => "Q3_K",
                16..=23 | 29 => "an IQ type",
                34 | 35 => "a ternary type",
                39 => "MXFP4",
                _ => "unknown here",
            };
            return Err(unsupported(format!(
                "{file}: tensor {name:?} is of type {other} ({known}); F32, F16, BF16, Q8_0, Q4_0 are \
                 taken as they are, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K requantised: take such a file"
            )));
        }
    })
}

struct Reader<'a> {
    map: &'a Map,
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, what: &str) -> crate::Error {
        malformed(format!("{}: {what}, at byte {}; copy it again", self.map.name(), self.at))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n);
        let found = end.and_then(|end| self.map.get(self.at..end));
        let found = found.ok_or_else(|| self.bad("it ends in its header"))?;
        self.at += n;
        Ok(found)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn size(&mut self) -> Result<usize> {
        let n = u64::from_le_bytes(self.bytes()?);
        usize::try_from(n).map_err(|_| self.bad(&format!("{n} is no length")))
    }

    /// A number of things that take at least so many bytes each.
    fn count(&mut self, each: usize) -> Result<usize> {
        let n = self.size()?;
        let left = self.map.len() - self.at;
        if n > left / each {
            return Err(self.bad(&format!("{n} entries do not fit into the rest of the file")));
        }
        Ok(n)
    }

    fn text(&mut self) -> Result<String> {
        let n = self.count(1)?;
        Ok(String::from_utf8_lossy(self.take(n)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        macro_rules! int {
            ($t:ty) => {
                Value::Int(<$t>::from_le_bytes(self.bytes()?).into())
            };
        }
        Ok(match kind {
            0 => int!(u8),
            1 => int!(i8),
            2 => int!(u16),
            3 => int!(i16),
            4 => int!(u32),
            5 => int!(i32),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Value::Bool(self.bytes::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => {
                if depth >= MAX_DEPTH {
                    return Err(self.bad("arrays are nested too deep"));
                }
                let kind = self.u32()?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    9 => 12,
                    _ => 8,
                };
                let n = self.count(least)?;
                let mut all = Vec::new();
                for _ in 0..n {
                    all.push(self.value(kind, depth + 1)?);
                }
                Value::Array(all)
            }
            10 => int!(u64),
            11 => int!(i64),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            other => return Err(self.bad(&format!("a value of the unknown type {other}"))),
        })
    }
}
