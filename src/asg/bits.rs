//! Bits, least significant first: bit `i` of a stream is bit `i % 8` of byte `i / 8`.

/// Zero bytes behind a stream, so that a reader near its end can still load 8 bytes.
pub const STREAM_PADDING: usize = 8;

/// Reads codes of at most 32 bits. Past the end it reads zeros: the caller bounds how
/// many codes it asks for, not the reader.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at bit `at` of `bytes`.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// At least 32 coming bits, in the low end.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        match self.bytes.get(self.at / 8..).and_then(|b| b.first_chunk::<8>()) {
            Some(b) => u64::from_le_bytes(*b) >> (self.at % 8),
            None => 0,
        }
    }

    #[inline]
    pub(super) fn skip(&mut self, bits: u32) {
        self.at = self.at.wrapping_add(bits as usize);
    }
}

/// Writes what [`BitReader`] reads.
#[cfg(feature = "std")]
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    have: u32,
}

#[cfg(feature = "std")]
impl BitWriter {
    /// Appends the low `bits <= 32` of `value`, whose higher bits are 0.
    pub(super) fn push(&mut self, value: u32, bits: u32) {
        self.pending |= u64::from(value) << self.have;
        self.have += bits;
        while self.have >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.have -= 8;
        }
    }

    /// Bits written so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() * 8 + self.have as usize
    }

    /// The stream with its padding.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.have > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes.extend([0; STREAM_PADDING]);
        self.bytes
    }
}
