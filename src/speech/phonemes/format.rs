//! Reading sections of a lexicon file, every length checked.

use crate::{Error, ErrorKind, Result};

/// A cursor over bytes that never reads past their end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    name: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], name: &'a str) -> Self {
        Self { bytes, at: 0, name }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return Err(self.damaged("a length")) };
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.bytes(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.bytes(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(super) fn damaged(&self, what: &str) -> Error {
        damaged(self.name, what)
    }
}

pub(super) fn damaged(name: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Malformed,
        format!("{name} is not a sound lexicon: {what} cannot be right; fetch the file again"),
    )
}
