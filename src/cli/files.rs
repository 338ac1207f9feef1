//! Files that are read and written whole, and their checksums.

use super::usage;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use voxgrain::bundle::Bundle;
use voxgrain::part::Part;
use voxgrain::{Error, ErrorKind};

pub fn read_file(path: &Path) -> voxgrain::Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::with_source(ErrorKind::Unreadable, format!("cannot read {}", path.display()), e)
    })
}

/// Makes the folder that `path` is to lie in.
pub fn make_folder_of(path: &Path) -> voxgrain::Result<()> {
    let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) else { return Ok(()) };
    make_folder(dir)
}

pub fn make_folder(dir: &Path) -> voxgrain::Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| {
        let what = format!("cannot create the folder {}", dir.display());
        Error::with_source(ErrorKind::Unwritable, what, e)
    })
}

/// A reader never sees half of it, and what was there before stays if it fails.
pub fn write_whole(path: &Path, bytes: &[u8]) -> voxgrain::Result<()> {
    let write = || {
        let mut file = Part::create(path)?;
        file.write_all(bytes)?;
        file.finish()
    };
    write().map_err(|e| {
        let what = format!("cannot write {}", path.display());
        Error::with_source(ErrorKind::Unwritable, what, e)
    })
}

pub fn sha256(path: &Path) -> voxgrain::Result<String> {
    let digest = Sha256::digest(read_file(path)?);
    Ok(hex(&digest))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The target's weights as the bundle lists them: what an index is bound to.
pub fn target_sha256(bundle: &Bundle) -> voxgrain::Result<[u8; 32]> {
    let weights = format!("{}.data", bundle.target.file);
    let listed = bundle.listed_sha256(&weights).unwrap_or_default();
    let mut sha = [0u8; 32];
    for (i, b) in sha.iter_mut().enumerate() {
        let digits = listed.get(2 * i..2 * i + 2).unwrap_or_default();
        *b = u8::from_str_radix(digits, 16).map_err(|_| usage("bundle.toml lists no sha256"))?;
    }
    Ok(sha)
}
