//! Files that are read and written whole, and their checksums.

use super::usage;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use voxgrain::bundle::Bundle;
use voxgrain::part::Part;
use voxgrain::{Error, ErrorKind};

/// Longest file that is read whole; a device may never end.
const LONGEST: u64 = 1 << 28;

pub fn read_file(path: &Path) -> voxgrain::Result<Vec<u8>> {
    let unreadable =
        |e| Error::with_source(ErrorKind::Unreadable, format!("cannot read {}", path.display()), e);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        let what = format!("{} is longer than {} MiB", path.display(), LONGEST >> 20);
        return Err(Error::new(ErrorKind::Unreadable, what));
    }
    Ok(bytes)
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
    let unreadable =
        |e| Error::with_source(ErrorKind::Unreadable, format!("cannot read {}", path.display()), e);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(e)),
        }
    }
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
