//! A file on its way, its length and its checksum.

use crate::map::ALIGNMENT;
use crate::part::Part;
use crate::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;

pub(crate) struct Output {
    part: Part,
    offset: u64,
    sha256: Sha256,
}

impl Output {
    pub fn create(path: &Path) -> Result<Self> {
        let part = Part::create(path).map_err(|e| unwritable(path, e))?;
        Ok(Self { part, offset: 0, sha256: Sha256::new() })
    }

    /// Bytes so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        self.sha256.update(bytes);
        self.part.write_all(bytes).map_err(|e| unwritable(self.part.path(), e))
    }

    /// Goes on at a multiple of [`ALIGNMENT`].
    pub fn align(&mut self) -> Result<()> {
        let gap = self.offset.next_multiple_of(ALIGNMENT as u64) - self.offset;
        self.write(&[0; ALIGNMENT][..gap as usize])
    }

    /// Written to its end; its bytes and their SHA-256.
    pub fn end(mut self) -> Result<(Part, (u64, [u8; 32]))> {
        self.part.flush().map_err(|e| unwritable(self.part.path(), e))?;
        Ok((self.part, (self.offset, self.sha256.finalize().into())))
    }
}

pub(crate) fn unwritable(path: &Path, e: std::io::Error) -> Error {
    let what = format!("cannot write {}", path.display());
    Error::with_source(ErrorKind::Unwritable, what, e)
}
