//! Language models of others as bundles: weights, tokenizer and codec are read from their own
//! files, checked, and written in our operators. Nothing is executed, nothing is fetched.
//!
//! [`import`] does it all. What it is made of can be used alone: readers behind
//! [`TensorSource`](source::TensorSource), the writer of graphs ([`graph`]) and the quantiser
//! ([`quantize`]).

mod blocks;
mod bundle;
pub mod codec;
pub mod codes;
pub mod config;
pub mod family;
mod files;
pub mod gguf;
pub mod graph;
mod lm;
pub mod pickle;
pub mod quantize;
pub mod safetensors;
pub mod source;
pub mod tokenizer;

pub use bundle::{Options, Report, import};
pub use codec::Codec;

use crate::{Error, ErrorKind, Result};
use source::Tensors;
use std::path::Path;

/// The tensors of a folder or file in any format but GGUF: `model.safetensors` (or the only
/// safetensors file), its shards, or PyTorch's `pytorch_model.bin` (or the only `.bin`, `.pt`,
/// `.pth` or `.ckpt`).
///
/// # Errors
/// `Unreadable` if there is none, and those of the readers.
pub fn open_tensors(path: &Path) -> Result<Tensors> {
    if path.is_file() {
        return open_file(path);
    }
    let first = |names: &[&str]| names.iter().map(|n| path.join(n)).find(|p| p.exists());
    if let Some(index) = first(&["model.safetensors.index.json", "pytorch_model.bin.index.json"]) {
        // Of a folder that has both forms, one file is enough.
        if let Some(whole) = first(&["model.safetensors"]) {
            return open_file(&whole);
        }
        return safetensors::sharded(&index, open_file);
    }
    if let Some(whole) = first(&["model.safetensors", "pytorch_model.bin"]) {
        return open_file(&whole);
    }
    for extensions in [&["safetensors"][..], &["bin", "pt", "pth", "ckpt"]] {
        let mut found = Vec::new();
        let entries = std::fs::read_dir(path).map_err(|e| {
            let what = format!("cannot read {}: name a model's folder or file", path.display());
            Error::with_source(ErrorKind::Unreadable, what, e)
        })?;
        for entry in entries.flatten() {
            let file = entry.path();
            let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if extensions.contains(&extension) && file.is_file() {
                found.push(file);
            }
        }
        match &found[..] {
            [] => continue,
            [one] => return open_file(one),
            _ => {
                found.sort();
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "{} has several weight files ({} and {}) and no index of shards: name the file",
                        path.display(),
                        found[0].display(),
                        found[1].display()
                    ),
                ));
            }
        }
    }
    Err(Error::new(
        ErrorKind::Unreadable,
        format!(
            "{} has no weights: model.safetensors, its shards with their index, or a PyTorch file are wanted",
            path.display()
        ),
    ))
}

fn open_file(path: &Path) -> Result<Tensors> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension {
        "safetensors" => safetensors::open(path),
        "gguf" => Ok(gguf::Gguf::open(path)?.tensors),
        "bin" | "pt" | "pth" | "ckpt" => pickle::open(path),
        other => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{} ends in {other:?}: safetensors, gguf, bin, pt, pth or ckpt are read",
                path.display()
            ),
        )),
    }
}
