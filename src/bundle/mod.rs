//! A voice on disk: a folder with `bundle.toml`, the ONNX files and their external data.
//!
//! [`Bundle::open`] reads and checks the description and the length of every listed file;
//! it does not read the models. [`Bundle::verify`] recomputes their SHA-256.
//!
//! ```toml
//! format = 2    # 1 has no [text]: its prompts are letters
//! name = "voice"
//! licence = "..."
//! attribution = "..."
//! [audio]        # sample_rate_hz, frame_rate_hz, fft_size, hop, max_log_magnitude
//! [vocabulary]   # speech, end_of_speech, begin, start_of_speech, pad, first_character, characters, fsq_digits, fsq_levels
//!                # or, of a tokenizer's ids: speech, end_of_speech, size, first_speech_id, end_id
//! [text]         # front_end (letters, phonemes or bpe), lexicon, tempo_symbols, tempos, tokenizer
//! [prompt]       # for bpe: parts, text_is, emotions
//! [[speakers]]   # optional: name, begin, description of each speaker; the first is the default
//! [target]       # file, layers, hidden, heads, kv_heads, head_dim, ffn, max_positions, bits; optionally rope_base, qk_norm
//! [draft]        # optional; the same, and features
//! [codec]        # file, latency_samples, and optionally context_frames, lookahead_frames; kind (causal or windowed),
//!                # of a windowed one first_frames, new_frames, ahead_frames, back_frames
//! [sampling]     # temperature, top_k, top_p, min_p, gamma: the voice's defaults; optionally
//!                # repetition_penalty, repetition_window, min_tokens, draft_cost, row_cost
//! [groups]       # optional; file, which may lie outside the folder
//! [[files]]      # path, bytes, sha256 of every .onnx and .onnx.data
//! [training]     # optional, free-form facts
//! ```
//!
//! An unknown key anywhere but in `[training]` is an error: a misspelt key must not be
//! silently replaced by a default.

mod check;
mod description;
mod stamp;

pub use description::{
    Audio, Codec, CodecKind, Description, FileEntry, FrontEnd, Groups, LanguageModel, Prompt,
    Sampling, Speaker, Text, TextIs, Vocabulary, Windows,
};
pub use stamp::{STAMP_LIFETIME, Stamp};

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Result};

/// The newest version of `bundle.toml`; this build reads all from 1 on. 2 adds `[text]`.
pub const FORMAT: u32 = 2;

/// The name of the description inside a bundle folder.
pub const FILE_NAME: &str = "bundle.toml";

/// The longest `bundle.toml` that is read, in bytes.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// A checked description of a voice and the folder that it lies in.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    description: Description,
}

/// How far [`Bundle::verify`] is.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct VerifyProgress<'a> {
    /// The file being read, as listed.
    pub path: &'a str,
    /// Bytes read so far, of all files.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Only the version, so that a newer description gets its own message instead of the first
/// unknown key.
#[derive(Deserialize)]
struct Version {
    format: Option<toml::Value>,
}

impl Bundle {
    /// Opens the bundle in the folder `dir` (or whose `bundle.toml` is `dir`), checks the
    /// description and that every listed file is there with the listed length.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unreadable`]: the description or a listed file is missing.
    /// - [`ErrorKind::Malformed`]: the description does not parse or contradicts itself.
    /// - [`ErrorKind::Unsupported`]: the description is of another version.
    /// - [`ErrorKind::Mismatch`]: a file has another length than listed.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let given = dir.as_ref();
        let dir = if given.file_name().is_some_and(|n| n == FILE_NAME) && given.is_file() {
            match given.parent() {
                Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
                _ => PathBuf::from("."),
            }
        } else {
            given.to_path_buf()
        };
        let bundle = Self::parse(&read_description(&dir.join(FILE_NAME))?, &dir)?;
        for entry in &bundle.files {
            let path = bundle.dir.join(&entry.path);
            let meta = std::fs::metadata(&path).map_err(|e| {
                Error::with_source(
                    ErrorKind::Unreadable,
                    format!(
                        "{} is listed in {FILE_NAME} but cannot be found; the bundle is incomplete, copy it again",
                        path.display()
                    ),
                    e,
                )
            })?;
            if !meta.is_file() {
                return Err(Error::new(
                    ErrorKind::Unreadable,
                    format!("{} is listed in {FILE_NAME} but is not a file", path.display()),
                ));
            }
            if meta.len() != entry.bytes {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "{} has {} bytes and {FILE_NAME} lists {}; the file is cut short or of another export, copy it again{}",
                        path.display(),
                        meta.len(),
                        entry.bytes,
                        if meta.len() < 1024 {
                            " (if it is a Git LFS pointer: git lfs pull)"
                        } else {
                            ""
                        }
                    ),
                ));
            }
        }
        Ok(bundle)
    }

    /// Parses and checks the text of a `bundle.toml` that lies in `dir`; touches no file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] or [`ErrorKind::Unsupported`], as for [`Bundle::open`].
    pub fn parse(text: &str, dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let place = dir.join(FILE_NAME);
        let malformed = |e: toml::de::Error| {
            Error::with_source(
                ErrorKind::Malformed,
                format!("{} is not a valid bundle description", place.display()),
                e,
            )
        };
        let version: Version = toml::from_str(text).map_err(malformed)?;
        match version.format.as_ref().map(toml::Value::as_integer) {
            Some(Some(v)) if (1..=i64::from(FORMAT)).contains(&v) => {}
            Some(Some(v)) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{} has format {v}; this build reads formats 1 to {FORMAT}: use a matching voxgrain or export the bundle again",
                        place.display()
                    ),
                ));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Malformed,
                    format!(
                        "{} does not begin with `format = {FORMAT}`; is it a voxgrain bundle?",
                        place.display()
                    ),
                ));
            }
        }
        let mut description: Description = toml::from_str(text).map_err(malformed)?;
        description.check().map_err(|why| {
            Error::new(
                ErrorKind::Malformed,
                format!("{}: {why}; export the bundle again or correct it", place.display()),
            )
        })?;
        if description.speakers.is_empty() {
            description.speakers.push(Speaker {
                name: description.name.clone(),
                begin: description.vocabulary.begin,
                description: String::new(),
            });
        }
        Ok(Self { dir, description })
    }

    /// Recomputes the SHA-256 of every listed file.
    ///
    /// `progress` is called about once a megabyte; [`ControlFlow::Break`] stops.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Mismatch`] for a file that differs, [`ErrorKind::Unreadable`] for one
    /// that cannot be read, [`ErrorKind::Cancelled`] if `progress` broke off.
    pub fn verify(
        &self,
        mut progress: impl FnMut(VerifyProgress<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let total_bytes = self.files.iter().map(|f| f.bytes).sum();
        let mut done_bytes = 0u64;
        let mut buffer = vec![0u8; 1 << 20];
        for entry in &self.files {
            let path = self.dir.join(&entry.path);
            let unreadable = |e: std::io::Error| {
                Error::with_source(
                    ErrorKind::Unreadable,
                    format!("cannot read {}", path.display()),
                    e,
                )
            };
            let mut file = File::open(&path).map_err(unreadable)?;
            let mut hash = Sha256::new();
            let mut length = 0u64;
            loop {
                let n = match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(unreadable(e)),
                };
                hash.update(&buffer[..n]);
                length += n as u64;
                done_bytes += n as u64;
                let report = VerifyProgress { path: &entry.path, done_bytes, total_bytes };
                if progress(report).is_break() {
                    return Err(Error::new(
                        ErrorKind::Cancelled,
                        "the check of the bundle was stopped",
                    ));
                }
            }
            let found = hex(hash.finalize().as_slice());
            if length != entry.bytes || found != entry.sha256 {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "{} has {length} bytes with SHA-256 {found} and {FILE_NAME} lists {} bytes with {}; the file is damaged or of another export, copy it again",
                        path.display(),
                        entry.bytes,
                        entry.sha256
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Number of the speaker called `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`], listing the names there are.
    pub fn speaker(&self, name: &str) -> Result<usize> {
        self.speakers.iter().position(|s| s.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.speakers.iter().map(|s| s.name.as_str()).collect();
            Error::new(
                ErrorKind::InvalidArgument,
                format!("there is no speaker {name:?} in this bundle; it has {}", names.join(", ")),
            )
        })
    }

    /// The bundle folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path of the description (`target.file`, `files[i].path`) made whole.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    /// The target's ONNX file.
    pub fn target_path(&self) -> PathBuf {
        self.path(&self.target.file)
    }

    /// The draft's ONNX file, of a bundle that has one.
    pub fn draft_path(&self) -> Option<PathBuf> {
        self.draft.as_ref().map(|d| self.path(&d.file))
    }

    /// The codec decoder's ONNX file.
    pub fn codec_path(&self) -> PathBuf {
        self.path(&self.codec.file)
    }

    /// The default group index, if the voice names one. Whether it exists is not checked:
    /// a voice can be used without groups.
    pub fn groups_path(&self) -> Option<PathBuf> {
        self.groups.as_ref().map(|g| self.path(&g.file))
    }

    /// Where the pronunciation lexicon is, if the voice reads phonemes.
    pub fn lexicon_path(&self) -> Option<PathBuf> {
        let file = &self.text.lexicon;
        (!file.is_empty()).then(|| self.path(file))
    }

    /// The listed SHA-256 of a file of the bundle, for instance to bind a group index to the
    /// model that it was built from.
    pub fn listed_sha256(&self, relative: &str) -> Option<&str> {
        self.files.iter().find(|f| f.path == relative).map(|f| f.sha256.as_str())
    }
}

impl std::ops::Deref for Bundle {
    type Target = Description;
    fn deref(&self) -> &Description {
        &self.description
    }
}

/// Lower-case hexadecimal digits, as hashes are written.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn read_description(path: &Path) -> Result<String> {
    let unreadable = |e: std::io::Error| {
        Error::with_source(
            ErrorKind::Unreadable,
            format!(
                "cannot read {}; a bundle is a folder that holds a {FILE_NAME}",
                path.display()
            ),
            e,
        )
    };
    // Opening a FIFO would wait for a writer.
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        let what = format!("{} is not a regular file", path.display());
        return Err(Error::new(ErrorKind::Unreadable, what));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_DESCRIPTION + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_DESCRIPTION {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("{} is longer than {MAX_DESCRIPTION} bytes", path.display()),
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        Error::with_source(ErrorKind::Malformed, format!("{} is not UTF-8", path.display()), e)
    })
}
