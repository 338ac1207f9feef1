//! Weights in safetensors files, sharded ones included. The header is read and checked by the
//! `safetensors` crate; tensors stay where they are mapped.

use super::source::{Dtype, Tensor, Tensors, malformed, unsupported};
use crate::map::Map;
use crate::{Error, ErrorKind, Result};
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::path::Path;

/// Longest index of shards, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// The tensors of one file.
///
/// # Errors
/// `Unreadable`; `Malformed` if its header is damaged or names bytes that are not there,
/// `Unsupported` for element types that no model here has.
pub fn open(path: &Path) -> Result<Tensors> {
    let map = Map::open(path)?;
    let tensors = read(&map)?;
    Ok(Tensors { origin: path.display().to_string(), tensors })
}

/// The same of a file that is in memory.
///
/// # Errors
/// As [`open`].
pub fn read(map: &Map) -> Result<BTreeMap<String, Tensor>> {
    let (length, header): (usize, Metadata) = safetensors::SafeTensors::read_metadata(map)
        .map_err(|e| {
            let what = format!("{} is no whole safetensors file; copy it again", map.name());
            Error::with_source(ErrorKind::Malformed, what, e)
        })?;
    let start = length.checked_add(8).ok_or_else(|| malformed("header too long"))?;
    let mut out = BTreeMap::new();
    for (name, info) in header.tensors() {
        use safetensors::Dtype as Theirs;
        let dtype = match info.dtype {
            Theirs::F64 => Dtype::F64,
            Theirs::F32 => Dtype::F32,
            Theirs::F16 => Dtype::F16,
            Theirs::BF16 => Dtype::BF16,
            Theirs::I64 => Dtype::I64,
            Theirs::I32 => Dtype::I32,
            Theirs::I16 => Dtype::I16,
            Theirs::I8 => Dtype::I8,
            Theirs::U8 => Dtype::U8,
            Theirs::BOOL => Dtype::Bool,
            other => {
                return Err(unsupported(format!(
                    "{}: tensor {name:?} has the type {other:?}; F32, F16 and BF16 weights are \
                     read: take the unquantised checkpoint",
                    map.name()
                )));
            }
        };
        let (from, to) = info.data_offsets;
        let range = start.checked_add(from).zip(start.checked_add(to));
        let (from, to) = range.ok_or_else(|| malformed("offsets out of range"))?;
        let tensor = Tensor::new(&name, dtype, info.shape.clone(), map.slice(from..to)?)?;
        out.insert(name, tensor);
    }
    Ok(out)
}

/// The tensors of the files that an index (`model.safetensors.index.json`, or that of PyTorch
/// shards) names, each opened by `open`.
///
/// # Errors
/// `Malformed` if the index is no such file, or names tensors that its shards do not have;
/// `Unreadable` if a shard is missing.
pub fn sharded(index: &Path, open: impl Fn(&Path) -> Result<Tensors>) -> Result<Tensors> {
    let text = super::files::read_text(index, MAX_INDEX)?;
    let bad = |what: String| malformed(format!("{}: {what}", index.display()));
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
        let what = format!("{} is not valid JSON", index.display());
        Error::with_source(ErrorKind::Malformed, what, e)
    })?;
    let Some(map) = json.get("weight_map").and_then(|m| m.as_object()) else {
        return Err(bad("it has no weight_map, is it an index of shards?".into()));
    };
    let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().filter(|f| super::files::is_plain_name(f));
        let file = file.ok_or_else(|| bad(format!("the shard of {name:?} is no file name")))?;
        by_file.entry(file).or_default().push(name);
    }
    if by_file.is_empty() {
        return Err(bad("its weight_map is empty".into()));
    }
    let mut all = Tensors { origin: index.display().to_string(), ..Tensors::default() };
    let folder = index.parent().unwrap_or(Path::new(""));
    for (file, names) in by_file {
        let path = folder.join(file);
        if !path.exists() {
            return Err(Error::new(
                ErrorKind::Unreadable,
                format!(
                    "the shard {} is missing, {} lists it; fetch it too",
                    path.display(),
                    index.display()
                ),
            ));
        }
        let mut shard = open(&path)?;
        for name in names {
            let tensor = shard.tensors.remove(name).ok_or_else(|| {
                bad(format!("{file} has no tensor {name:?}; the shards are of another export"))
            })?;
            all.tensors.insert(name.to_owned(), tensor);
        }
        if let Some(name) = shard.tensors.keys().next() {
            return Err(bad(format!("{file} has a tensor {name:?} that the index does not list")));
        }
    }
    Ok(all)
}
