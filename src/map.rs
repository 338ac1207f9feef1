//! Files as bytes: the only place that maps memory.
//!
//! A [`Map`] is a whole file, read-only, shared by cloning. A [`MappedSlice`] is a checked
//! range of it that keeps the map alive, so weights can be handed to an operator without a
//! lifetime and without a copy.
//!
//! # What the operating system asks of you
//!
//! A mapped file must not be truncated or rewritten in place while the program runs: reading
//! a page that no longer exists ends the process with a bus error, and changed bytes change
//! the weights under the model. Replace a model file by writing a new one and renaming it
//! over the old name; the old bytes then live on until the last map is dropped.
//! [`Map::read`] copies the file instead, for systems or file systems where this cannot be
//! promised.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// Alignment in bytes of the first byte of every [`Map`].
///
/// External ONNX data and group indexes place their arrays at multiples of it, so a slice
/// has in memory the alignment that it has in the file.
pub const ALIGNMENT: usize = 64;

enum Backing {
    Mapped(memmap2::Mmap),
    /// Over-allocated by up to `ALIGNMENT - 1`; the content starts at `start`.
    Owned {
        buffer: Vec<u8>,
        start: usize,
        len: usize,
    },
    Static(&'static [u8]),
}

struct Inner {
    backing: Backing,
    name: String,
}

/// A whole file in memory, read-only; clones share it.
#[derive(Clone)]
pub struct Map {
    inner: Arc<Inner>,
}

impl Map {
    /// Maps the file at `path`, read-only.
    ///
    /// The kernel is told that all of it will be needed soon and that large pages are
    /// welcome. Both are hints: where they are refused the map works all the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreadable`] if the file is missing, is not a regular file, is empty, or
    /// cannot be mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open_regular(path)?;
        // SAFETY: the map is read-only and never handed out mutably, so this process cannot
        // change the bytes behind a `&[u8]`. That no other process truncates or rewrites the
        // file meanwhile is the documented condition of this module; it cannot be checked.
        let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| {
            Error::with_source(
                ErrorKind::Unreadable,
                format!(
                    "cannot map {} into memory; copy it to a local disk that supports mapping",
                    path.display()
                ),
                e,
            )
        })?;
        // Checked on the map as well: the file may have shrunk since its length was read.
        if mapped.is_empty() {
            return Err(empty(path));
        }
        #[cfg(unix)]
        let _ = mapped.advise(memmap2::Advice::WillNeed);
        #[cfg(target_os = "linux")]
        let _ = mapped.advise(memmap2::Advice::HugePage);
        Ok(Self::new(Backing::Mapped(mapped), path.display().to_string()))
    }

    /// Reads the file at `path` into memory instead of mapping it; the copy is the only
    /// allocation. What is appended meanwhile is not read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreadable`], as for [`Map::open`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut file = open_regular(path)?;
        let unreadable = |e: std::io::Error| {
            Error::with_source(ErrorKind::Unreadable, format!("cannot read {}", path.display()), e)
        };
        let bytes = file.metadata().map_err(unreadable)?.len();
        let (mut buffer, start) = aligned_buffer(usize::try_from(bytes).unwrap_or(usize::MAX))
            .ok_or_else(|| {
                let what = format!(
                    "the system does not give the {bytes} bytes for a copy of {}",
                    path.display()
                );
                Error::new(ErrorKind::Memory, what)
            })?;
        let end = buffer.len();
        let mut len = 0;
        while start + len < end {
            match file.read(&mut buffer[start + len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(e)),
            }
        }
        if len == 0 {
            return Err(empty(path));
        }
        Ok(Self::new(Backing::Owned { buffer, start, len }, path.display().to_string()))
    }

    /// Takes bytes that are already in memory, copying them once if they are not aligned to
    /// [`ALIGNMENT`]. Empty input is allowed here.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self::new(aligned(bytes), "(memory)".to_string())
    }

    /// A copy of `bytes`, aligned; the only allocation.
    pub fn copy_of(bytes: &[u8], name: &str) -> Self {
        Self::new(aligned_copy(bytes), name.to_string())
    }

    /// Bytes that live as long as the program, in place: a voice in flash or linked into the
    /// executable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if they are not aligned to [`ALIGNMENT`].
    pub fn from_static(bytes: &'static [u8], name: &str) -> Result<Self> {
        if bytes.as_ptr().align_offset(ALIGNMENT) != 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{name} is not aligned to {ALIGNMENT} bytes in memory: align it or copy it"
                ),
            ));
        }
        Ok(Self::new(Backing::Static(bytes), name.to_string()))
    }

    fn new(backing: Backing, name: String) -> Self {
        Self { inner: Arc::new(Inner { backing, name }) }
    }

    /// The path it came from, for messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Bytes that the map itself takes of the heap: none for a mapped file or borrowed bytes.
    pub fn heap_bytes(&self) -> usize {
        match &self.inner.backing {
            Backing::Owned { buffer, .. } => buffer.len(),
            Backing::Mapped(_) | Backing::Static(_) => 0,
        }
    }

    /// Whether the bytes are the file's own pages rather than a copy.
    pub fn is_mapped(&self) -> bool {
        matches!(self.inner.backing, Backing::Mapped(_))
    }

    /// The bytes `range`, kept alive by a share of this map.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] if the range is reversed or ends beyond the file.
    pub fn slice(&self, range: Range<usize>) -> Result<MappedSlice> {
        check(&range, self.len(), self.name())?;
        Ok(MappedSlice { map: self.clone(), range })
    }

    /// All bytes as a slice that keeps the map alive.
    pub fn whole(&self) -> MappedSlice {
        MappedSlice { map: self.clone(), range: 0..self.len() }
    }
}

/// Asks what a path is before it opens it: opening a FIFO waits for a writer, and opening a device
/// may do anything.
fn open_regular(path: &Path) -> Result<File> {
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(not_regular(path));
    }
    let file = File::open(path).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check its permissions",
            _ => "check the file and the disk",
        };
        Error::with_source(
            ErrorKind::Unreadable,
            format!("cannot open {}: {hint}", path.display()),
            e,
        )
    })?;
    let meta = file.metadata().map_err(|e| {
        Error::with_source(ErrorKind::Unreadable, format!("cannot inspect {}", path.display()), e)
    })?;
    if !meta.is_file() {
        return Err(not_regular(path));
    }
    if meta.len() == 0 {
        return Err(empty(path));
    }
    Ok(file)
}

fn not_regular(path: &Path) -> Error {
    Error::new(
        ErrorKind::Unreadable,
        format!("{} is not a regular file; name the file itself", path.display()),
    )
}

fn empty(path: &Path) -> Error {
    Error::new(
        ErrorKind::Unreadable,
        format!("{} is empty; the download or copy was cut short, fetch it again", path.display()),
    )
}

fn check(range: &Range<usize>, len: usize, name: &str) -> Result<()> {
    if range.start > range.end || range.end > len {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!(
                "bytes {}..{} are asked of {name}, which has {len}; the file is cut short or its header is damaged",
                range.start, range.end
            ),
        ));
    }
    Ok(())
}

fn aligned(bytes: Vec<u8>) -> Backing {
    if bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        let len = bytes.len();
        return Backing::Owned { buffer: bytes, start: 0, len };
    }
    aligned_copy(&bytes)
}

fn aligned_copy(bytes: &[u8]) -> Backing {
    let len = bytes.len();
    // The heap block does not move when the Vec does, so the offset stays right.
    let mut buffer = vec![0u8; len + ALIGNMENT - 1];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer[start..start + len].copy_from_slice(bytes);
    Backing::Owned { buffer, start, len }
}

/// Zeros for `len` bytes that begin aligned, at the second value; `None` if the system does
/// not give so many.
fn aligned_buffer(len: usize) -> Option<(Vec<u8>, usize)> {
    let mut buffer = Vec::<u8>::new();
    buffer.try_reserve_exact(len.checked_add(ALIGNMENT - 1)?).ok()?;
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.resize(start + len, 0);
    Some((buffer, start))
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        match &self.inner.backing {
            Backing::Mapped(m) => m,
            Backing::Owned { buffer, start, len } => &buffer[*start..*start + *len],
            Backing::Static(bytes) => bytes,
        }
    }
}

impl Deref for Map {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Map({}, {} bytes, mapped: {})", self.name(), self.len(), self.is_mapped())
    }
}

/// A checked range of a [`Map`], with a share of its ownership.
#[derive(Clone)]
pub struct MappedSlice {
    map: Map,
    range: Range<usize>,
}

impl MappedSlice {
    /// The bytes `range` of this slice (counted from its start).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] if the range is reversed or ends beyond this slice.
    pub fn slice(&self, range: Range<usize>) -> Result<MappedSlice> {
        check(&range, self.range.len(), self.map.name())?;
        let start = self.range.start + range.start;
        Ok(MappedSlice { map: self.map.clone(), range: start..start + range.len() })
    }

    /// Where the slice starts, in bytes from the start of the file.
    pub fn offset(&self) -> usize {
        self.range.start
    }

    /// The map it is part of.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The bytes as little-endian `f32`, without a copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] if the slice is not aligned to 4 bytes or not a whole number
    /// of values; [`ErrorKind::Unsupported`] on a big-endian machine.
    pub fn as_f32(&self) -> Result<&[f32]> {
        self.little_endian()?;
        // SAFETY: every bit pattern is a valid f32, the bytes are initialised and shared
        // read-only for the lifetime of the result, and `align_to` leaves whatever does not
        // fit the alignment in the head and tail, which are checked to be empty.
        let (head, body, tail) = unsafe { self.align_to::<f32>() };
        self.exact(head, tail, "f32")?;
        Ok(body)
    }

    /// The bytes as little-endian `f16`, without a copy.
    ///
    /// # Errors
    ///
    /// As for [`MappedSlice::as_f32`], with 2 bytes.
    pub fn as_f16(&self) -> Result<&[half::f16]> {
        self.little_endian()?;
        // SAFETY: `f16` is a transparent wrapper of `u16`, for which every bit pattern is
        // valid; the rest is as in `as_f32`.
        let (head, body, tail) = unsafe { self.align_to::<half::f16>() };
        self.exact(head, tail, "f16")?;
        Ok(body)
    }

    fn little_endian(&self) -> Result<()> {
        if cfg!(target_endian = "big") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "mapped weights are little-endian; this machine is big-endian",
            ));
        }
        Ok(())
    }

    fn exact(&self, head: &[u8], tail: &[u8], what: &str) -> Result<()> {
        if head.is_empty() && tail.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Malformed,
            format!(
                "{} bytes at offset {} of {} are not an aligned array of {what}; export the file again",
                self.len(),
                self.range.start,
                self.map.name()
            ),
        ))
    }
}

impl Deref for MappedSlice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map.as_ref()[self.range.clone()]
    }
}

impl AsRef<[u8]> for MappedSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for MappedSlice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedSlice({}, {}..{})", self.map.name(), self.range.start, self.range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_are_aligned_and_survive_moves() {
        for len in [0usize, 1, 63, 64, 65, 4097] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let map = Map::from_vec(bytes.clone());
            let moved = Box::new([map]);
            assert_eq!(moved[0].as_ref(), &bytes[..]);
            assert_eq!(moved[0].as_ptr() as usize % ALIGNMENT, 0, "len {len}");
        }
    }

    #[test]
    fn slices_are_checked() {
        let map = Map::from_vec((0..100).collect());
        let s = map.slice(10..20).unwrap();
        assert_eq!(&s[..], &(10..20).collect::<Vec<u8>>()[..]);
        assert_eq!(&s.slice(2..4).unwrap()[..], &[12, 13]);
        assert_eq!(s.slice(10..10).unwrap().len(), 0);
        assert_eq!(s.slice(0..11).unwrap_err().kind(), ErrorKind::Malformed);
        assert_eq!(map.slice(0..101).unwrap_err().kind(), ErrorKind::Malformed);
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = map.slice(5..4);
        assert_eq!(reversed.unwrap_err().kind(), ErrorKind::Malformed);
        assert!(map.slice(usize::MAX..usize::MAX).is_err());
        drop(map);
        assert_eq!(s[0], 10);
    }

    #[test]
    fn typed_views() {
        let mut bytes = vec![0u8; 64];
        bytes.extend_from_slice(&1.5f32.to_le_bytes());
        bytes.extend_from_slice(&(-2.0f32).to_le_bytes());
        let map = Map::from_vec(bytes);
        assert_eq!(map.slice(64..72).unwrap().as_f32().unwrap(), &[1.5, -2.0]);
        assert!(map.slice(65..69).unwrap().as_f32().is_err());
        assert!(map.slice(64..70).unwrap().as_f32().is_err());
        assert_eq!(map.slice(64..70).unwrap().as_f16().unwrap().len(), 3);
        assert!(map.slice(65..67).unwrap().as_f16().is_err());
    }

    #[test]
    fn files() {
        let dir = std::env::temp_dir().join(format!("voxgrain-map-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let full = dir.join("full");
        std::fs::write(&full, vec![7u8; 5000]).unwrap();
        let none = dir.join("none");
        std::fs::write(&none, []).unwrap();
        let map = Map::open(&full).unwrap();
        assert!(map.is_mapped());
        assert_eq!(map.len(), 5000);
        assert_eq!(map.as_ptr() as usize % ALIGNMENT, 0);
        let copy = Map::read(&full).unwrap();
        assert!(!copy.is_mapped());
        assert_eq!(copy.as_ref(), map.as_ref());
        assert_eq!(copy.as_ptr() as usize % ALIGNMENT, 0);
        assert!(map.heap_bytes() == 0 && copy.heap_bytes() >= 5000);
        for bad in [&none, &dir, &dir.join("absent")] {
            assert_eq!(Map::open(bad).unwrap_err().kind(), ErrorKind::Unreadable);
            assert_eq!(Map::read(bad).unwrap_err().kind(), ErrorKind::Unreadable);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
