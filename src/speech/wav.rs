//! 16-bit mono PCM: a file that appears only when it is whole, a stream for pipes, and a
//! checked reader.
//!
//! Samples are `f32` with full scale at ±1. They are written as little-endian `i16`, scaled
//! by 32767 and rounded to the nearest (halves away from zero); what exceeds full scale is
//! clamped, NaN becomes 0, and no dither is added ([`to_i16`]).

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::part::Part;
use crate::{Error, ErrorKind, Result};

/// Bytes before the first sample of a file written here.
const HEADER_BYTES: u32 = 44;
/// Most bytes of samples that the 32-bit sizes of the header can describe, rounded to whole
/// samples.
const MAX_DATA_BYTES: u64 = (u32::MAX - (HEADER_BYTES - 8)) as u64 & !1;
/// In a header whose length is not known yet: "until the end of the stream".
const UNKNOWN: u32 = u32::MAX;

/// What stands around the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// RIFF WAVE, format 1 (PCM), one channel, 16 bits.
    #[default]
    Wav,
    /// Nothing: bare little-endian 16-bit samples (`s16le`).
    Raw,
}

/// One sample as 16-bit PCM: scaled by 32767, rounded, clamped; NaN is 0.
#[inline]
pub fn to_i16(sample: f32) -> i16 {
    // `as` saturates and maps NaN to 0.
    (sample * 32767.0).round() as i16
}

/// The inverse of [`to_i16`] up to its rounding.
#[inline]
pub fn from_i16(sample: i16) -> f32 {
    f32::from(sample) / 32767.0
}

fn header(sample_rate_hz: u32, data_bytes: Option<u32>) -> [u8; HEADER_BYTES as usize] {
    let mut h = [0u8; HEADER_BYTES as usize];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        h[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"RIFF");
    put(&data_bytes.map_or(UNKNOWN, |n| n + HEADER_BYTES - 8).to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes()); // PCM
    put(&1u16.to_le_bytes()); // channels
    put(&sample_rate_hz.to_le_bytes());
    put(&sample_rate_hz.wrapping_mul(2).to_le_bytes()); // bytes a second
    put(&2u16.to_le_bytes()); // bytes a sample
    put(&16u16.to_le_bytes()); // bits
    put(b"data");
    put(&data_bytes.unwrap_or(UNKNOWN).to_le_bytes());
    h
}

fn check_rate(sample_rate_hz: u32) -> Result<()> {
    if (1..=1_000_000).contains(&sample_rate_hz) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("a sample rate of {sample_rate_hz} Hz is not within 1..=1000000"),
    ))
}

/// Encodes into `bytes`, replacing its content; allocates only while it grows.
fn encode(samples: &[f32], bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend(samples.iter().flat_map(|&s| to_i16(s).to_le_bytes()));
}

/// Writes samples to anything that takes bytes, for instance a pipe.
///
/// The length is not known when the header is written, so both of its sizes are 0xFFFFFFFF,
/// which ffmpeg, mpv, sox and aplay read as "until the end". Every call of
/// [`write`](Self::write) is flushed: the reader hears what there is.
#[derive(Debug)]
pub struct WavStream<W: Write> {
    out: W,
    bytes: Vec<u8>,
    samples: u64,
    sample_rate_hz: u32,
    container: Container,
}

impl<W: Write> WavStream<W> {
    /// Begins a stream; writes and flushes the header of [`Container::Wav`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for an impossible rate, [`ErrorKind::Unwritable`] if
    /// `out` does not take the header.
    pub fn new(mut out: W, sample_rate_hz: u32, container: Container) -> Result<Self> {
        check_rate(sample_rate_hz)?;
        if container == Container::Wav {
            out.write_all(&header(sample_rate_hz, None))
                .and_then(|()| out.flush())
                .map_err(stream_error)?;
        }
        Ok(Self { out, bytes: Vec::new(), samples: 0, sample_rate_hz, container })
    }

    /// Bytes that were written before the first sample.
    pub fn header_bytes(&self) -> u64 {
        if self.container == Container::Wav { u64::from(HEADER_BYTES) } else { 0 }
    }

    /// Where the stream turned out to go to a file: writes the lengths so far into the header,
    /// which lies at byte `at` of `file`. Without a header, or with more samples than one can
    /// describe, nothing is written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unwritable`].
    pub fn complete(&self, file: &mut (impl Write + Seek), at: u64) -> Result<()> {
        let bytes = 2 * self.samples;
        if self.container == Container::Raw || bytes > MAX_DATA_BYTES {
            return Ok(());
        }
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(&header(self.sample_rate_hz, Some(bytes as u32))))
            .and_then(|()| file.flush())
            .map_err(stream_error)
    }

    /// Writes samples and flushes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unwritable`], for instance when the reader has gone.
    pub fn write(&mut self, samples: &[f32]) -> Result<()> {
        encode(samples, &mut self.bytes);
        self.out.write_all(&self.bytes).and_then(|()| self.out.flush()).map_err(stream_error)?;
        self.samples += samples.len() as u64;
        Ok(())
    }

    /// Samples written so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unwritable`].
    pub fn finish(mut self) -> Result<W> {
        self.out.flush().map_err(stream_error)?;
        Ok(self.out)
    }
}

fn stream_error(e: std::io::Error) -> Error {
    let what = match e.kind() {
        std::io::ErrorKind::BrokenPipe => "the program that reads the sound has ended",
        std::io::ErrorKind::StorageFull => "the disk is full",
        _ => "the sound could not be written to the output stream",
    };
    Error::with_source(ErrorKind::Unwritable, what, e)
}

/// Writes a file under a temporary name beside `path` and renames it when it is whole.
///
/// Dropped without [`finish`](Self::finish), it leaves nothing behind, and whatever was at
/// `path` stays. A `path` that is a device or a named pipe is written as a stream instead
/// ([`WavStream`]); a symbolic link is followed.
#[derive(Debug)]
pub struct WavFile {
    path: PathBuf,
    state: State,
    max_data_bytes: u64,
}

#[derive(Debug)]
enum State {
    Stream(WavStream<File>),
    Part { out: Part, bytes: Vec<u8>, samples: u64, sample_rate_hz: u32, container: Container },
}

impl WavFile {
    /// Begins a WAV file at `path`; nothing appears there before [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unwritable`]: `path` is a directory, its folder does not exist, or the
    ///   temporary file cannot be created in it.
    /// - [`ErrorKind::InvalidArgument`]: an impossible rate.
    pub fn create(path: impl AsRef<Path>, sample_rate_hz: u32) -> Result<Self> {
        Self::create_as(path, sample_rate_hz, Container::Wav)
    }

    /// [`create`](Self::create) with a choice of container.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn create_as(
        path: impl AsRef<Path>,
        sample_rate_hz: u32,
        container: Container,
    ) -> Result<Self> {
        check_rate(sample_rate_hz)?;
        let given = path.as_ref();
        if given.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::Unwritable, "the name of the output file is empty"));
        }
        let mut path = given.to_path_buf();
        if let Ok(meta) = std::fs::metadata(given) {
            if meta.is_dir() {
                return Err(Error::new(
                    ErrorKind::Unwritable,
                    format!(
                        "{} is a directory; name a file in it, for instance {}",
                        given.display(),
                        given.join("out.wav").display()
                    ),
                ));
            }
            if !meta.is_file() {
                let out = OpenOptions::new()
                    .write(true)
                    .open(given)
                    .map_err(|e| create_error(given, e))?;
                let stream = WavStream::new(out, sample_rate_hz, container)?;
                return Ok(Self {
                    path,
                    state: State::Stream(stream),
                    max_data_bytes: MAX_DATA_BYTES,
                });
            }
            // Through a link, so that the rename replaces the file and not the link.
            path = std::fs::canonicalize(given).map_err(|e| create_error(given, e))?;
        }
        if path.file_name().is_none() {
            return Err(Error::new(
                ErrorKind::Unwritable,
                format!("{} does not end in a file name", given.display()),
            ));
        }
        if given.as_os_str().to_string_lossy().ends_with(std::path::is_separator) {
            return Err(Error::new(
                ErrorKind::Unwritable,
                format!("{} names a directory, which does not exist; name a file", given.display()),
            ));
        }
        let mut out = Part::create(&path).map_err(|e| create_error(given, e))?;
        if container == Container::Wav {
            out.write_all(&header(sample_rate_hz, Some(0))).map_err(|e| create_error(&path, e))?;
        }
        Ok(Self {
            path,
            state: State::Part { out, bytes: Vec::new(), samples: 0, sample_rate_hz, container },
            max_data_bytes: MAX_DATA_BYTES,
        })
    }

    /// Appends samples.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unwritable`] if the disk does not take them, [`ErrorKind::Unsupported`]
    /// if the file would pass the 4 GiB that a WAV header can describe (37 hours at 16 kHz);
    /// what was written before can still be finished.
    pub fn write(&mut self, samples: &[f32]) -> Result<()> {
        match &mut self.state {
            State::Stream(stream) => stream.write(samples),
            State::Part { out, bytes, samples: written, container, .. } => {
                let total = *written + samples.len() as u64;
                if *container == Container::Wav && total > self.max_data_bytes / 2 {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "{} would pass the 4 GiB that a WAV file can hold; split the text or write raw samples",
                            self.path.display()
                        ),
                    ));
                }
                encode(samples, bytes);
                out.write_all(bytes).map_err(|e| create_error(&self.path, e))?;
                *written = total;
                Ok(())
            }
        }
    }

    /// Samples written so far.
    pub fn samples(&self) -> u64 {
        match &self.state {
            State::Stream(stream) => stream.samples(),
            State::Part { samples, .. } => *samples,
        }
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Completes the header, brings the bytes to the disk and gives the file its name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unwritable`]; nothing is left behind then.
    pub fn finish(self) -> Result<()> {
        match self.state {
            State::Stream(mut stream) => stream.out.flush().map_err(stream_error),
            State::Part { mut out, samples, sample_rate_hz, container, .. } => {
                let complete = || {
                    if container == Container::Wav {
                        out.seek(SeekFrom::Start(0))?;
                        // `write` keeps this within u32.
                        out.write_all(&header(sample_rate_hz, Some((samples * 2) as u32)))?;
                    }
                    out.finish()
                };
                complete().map_err(|e| create_error(&self.path, e))
            }
        }
    }
}

fn create_error(path: &Path, e: std::io::Error) -> Error {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let hint = match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("the folder {} does not exist; create it first", folder.display())
        }
        std::io::ErrorKind::NotADirectory => {
            format!("{} is not a folder", folder.display())
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            format!("no permission to write in {}; choose another folder", folder.display())
        }
        std::io::ErrorKind::StorageFull => "the disk is full".to_string(),
        std::io::ErrorKind::InvalidFilename => "the name is too long or not allowed".to_string(),
        _ => "check the path and the disk".to_string(),
    };
    Error::with_source(ErrorKind::Unwritable, format!("cannot write {}: {hint}", path.display()), e)
}

/// A mono 16-bit WAV file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wav {
    /// Samples a second.
    pub sample_rate_hz: u32,
    /// The samples.
    pub samples: Vec<i16>,
}

impl Wav {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreadable`], or as for [`Wav::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| {
            Error::with_source(ErrorKind::Unreadable, format!("cannot read {}", path.display()), e)
        })?;
        Self::parse(&bytes)
    }

    /// Parses the bytes of a file or of a stream that was recorded to its end. Chunks other
    /// than `fmt ` and `data` are skipped.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Malformed`]: not a WAV file, or cut short.
    /// - [`ErrorKind::Unsupported`]: a WAV file that is not mono 16-bit PCM.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let malformed =
            |what: &str| Error::new(ErrorKind::Malformed, format!("not a sound WAV file: {what}"));
        if bytes.len() < 12 || &bytes[..4] != b"RIFF" || &bytes[8..12] != b"WAVE" {
            return Err(malformed("it does not begin with RIFF and WAVE"));
        }
        let mut rest = &bytes[12..];
        let mut rate = None;
        while let Some((head, body)) = rest.split_at_checked(8) {
            let (id, size) = head.split_at(4);
            let size = u32::from_le_bytes(size.try_into().unwrap_or([0; 4]));
            if id == b"data" {
                let Some(sample_rate_hz) = rate else {
                    return Err(malformed("its data comes before its format"));
                };
                let data = if size == UNKNOWN {
                    body
                } else {
                    body.get(..size as usize).ok_or_else(|| {
                        malformed("its samples are cut short; write or copy it again")
                    })?
                };
                if data.len() % 2 != 0 {
                    return Err(malformed("its last sample is cut short"));
                }
                let samples =
                    data.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
                return Ok(Self { sample_rate_hz, samples });
            }
            let chunk = body
                .get(..size as usize)
                .ok_or_else(|| malformed("a chunk ends beyond the file"))?;
            if id == b"fmt " {
                rate = Some(parse_format(chunk, malformed)?);
            }
            // Chunks are padded to an even length.
            rest = body.get((size as usize).saturating_add(size as usize % 2)..).unwrap_or(&[]);
        }
        Err(malformed("it has no data"))
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate_hz)
    }

    /// The samples with full scale at ±1.
    pub fn to_f32(&self) -> Vec<f32> {
        self.samples.iter().map(|&s| from_i16(s)).collect()
    }
}

fn parse_format(chunk: &[u8], malformed: impl Fn(&str) -> Error) -> Result<u32> {
    if chunk.len() < 16 {
        return Err(malformed("its format chunk is cut short"));
    }
    let half = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
    let (mut tag, channels, align, bits) = (half(0), half(2), half(12), half(14));
    let rate = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
    if tag == 0xFFFE && chunk.len() >= 26 {
        // Extensible: the real tag opens the subformat.
        tag = half(24);
    }
    if tag != 1 || channels != 1 || bits != 16 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "only mono 16-bit PCM is read; this has format {tag}, {channels} channels, {bits} bits: convert it, for instance with ffmpeg -i in.wav -ac 1 -c:a pcm_s16le out.wav"
            ),
        ));
    }
    if align != 2 || rate == 0 {
        return Err(malformed("its format chunk contradicts itself"));
    }
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_pass_the_limit() {
        let path = std::env::temp_dir().join(format!("voxgrain-limit-{}.wav", std::process::id()));
        let mut file = WavFile::create(&path, 16_000).unwrap();
        assert_eq!(file.max_data_bytes, 4_294_967_258);
        file.max_data_bytes = 21;
        file.write(&[0.5; 10]).unwrap();
        let e = file.write(&[0.5; 1]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains("4 GiB"), "{e}");
        file.finish().unwrap();
        assert_eq!(Wav::read(&path).unwrap().samples.len(), 10);
        std::fs::remove_file(&path).unwrap();
    }
}
