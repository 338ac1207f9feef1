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

/// CRC-32 as [`asg::format::crc32`](crate::asg::format::crc32) gives it, eight bytes a step:
/// a lexicon is checked whole each time a program starts.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    /// `TABLES[k][b]`: the remainder of byte `b` with `k` zero bytes behind it.
    static TABLES: [[u32; 256]; 8] = {
        let mut tables = [[0u32; 256]; 8];
        let mut b = 0;
        while b < 256 {
            let mut c = b as u32;
            let mut bit = 0;
            while bit < 8 {
                c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
                bit += 1;
            }
            tables[0][b] = c;
            b += 1;
        }
        let mut k = 1;
        while k < 8 {
            let mut b = 0;
            while b < 256 {
                let c = tables[k - 1][b];
                tables[k][b] = (c >> 8) ^ tables[0][(c & 255) as usize];
                b += 1;
            }
            k += 1;
        }
        tables
    };
    let mut crc = !0u32;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight) ^ u64::from(crc);
        crc = 0;
        for (k, byte) in word.to_le_bytes().into_iter().enumerate() {
            crc ^= TABLES[7 - k][usize::from(byte)];
        }
    }
    for &b in rest {
        crc = TABLES[0][((crc ^ u32::from(b)) & 255) as usize] ^ (crc >> 8);
    }
    !crc
}

pub(super) fn damaged(name: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Malformed,
        format!("{name} is not a sound lexicon: {what} cannot be right; fetch the file again"),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn checksums_are_the_same() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for n in [0, 1, 7, 8, 9, 63, 64, 999, 1000] {
            assert_eq!(super::crc32(&bytes[..n]), crate::asg::format::crc32(&bytes[..n]), "{n}");
        }
    }
}
