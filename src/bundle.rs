//! A voice on disk: a folder with `bundle.toml`, the ONNX files and their external data.
//!
//! [`Bundle::open`] reads and checks the description and the length of every listed file;
//! it does not read the models. [`Bundle::verify`] recomputes their SHA-256.
//!
//! ```toml
//! format = 1
//! name = "voice"
//! licence = "..."
//! attribution = "..."
//! [audio]        # sample_rate_hz, frame_rate_hz, fft_size, hop, max_log_magnitude
//! [vocabulary]   # speech, end_of_speech, begin, start_of_speech, pad, first_character, characters, fsq_digits, fsq_levels
//! [[speakers]]   # optional: name, begin, description of each speaker; the first is the default
//! [target]       # file, layers, hidden, heads, kv_heads, head_dim, ffn, rope_base, max_positions, bits
//! [draft]        # the same
//! [codec]        # file, latency_samples, and optionally context_frames, lookahead_frames
//! [sampling]     # temperature, top_k, top_p, min_p, gamma: the voice's defaults
//! [groups]       # optional; file, which may lie outside the folder
//! [[files]]      # path, bytes, sha256 of every .onnx and .onnx.data
//! [training]     # optional, free-form facts
//! ```
//!
//! An unknown key anywhere but in `[training]` is an error: a misspelt key must not be
//! silently replaced by a default.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::core::dist::SamplingTransforms;
use crate::decode::{self, Costs, MAX_GAMMA};
use crate::{Error, ErrorKind, Result};

/// The version of `bundle.toml` that this build reads.
pub const FORMAT: u32 = 1;

/// The name of the description inside a bundle folder.
pub const FILE_NAME: &str = "bundle.toml";

/// The environment variable that names a bundle where no `--bundle` is given.
pub const ENV: &str = "VOXGRAIN_BUNDLE";

/// The longest `bundle.toml` that is read, in bytes.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// A checked description of a voice and the folder that it lies in.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    description: Description,
}

/// The content of `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of the description, [`FORMAT`].
    pub format: u32,
    /// Name of the voice.
    pub name: String,
    /// Licence of the weights.
    pub licence: String,
    /// Whom and what to credit.
    pub attribution: String,
    /// Rates and the inverse transform.
    pub audio: Audio,
    /// Token ids.
    pub vocabulary: Vocabulary,
    /// Who can speak, the default first. A file without the list has one speaker: the
    /// bundle's name and the vocabulary's `begin`.
    #[serde(default)]
    pub speakers: Vec<Speaker>,
    /// The large model, whose distribution is the voice.
    pub target: LanguageModel,
    /// The small model, which proposes.
    pub draft: LanguageModel,
    /// The codec decoder.
    pub codec: Codec,
    /// Defaults for sampling.
    pub sampling: Sampling,
    /// The default group index, if the voice has one.
    pub groups: Option<Groups>,
    /// Every file of the bundle.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// Free-form facts about the training; not interpreted.
    pub training: Option<toml::Table>,
}

/// `[audio]`: rates and the inverse transform that turns a spectrum into samples.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audio {
    /// PCM samples a second.
    pub sample_rate_hz: u32,
    /// Codec tokens a second.
    pub frame_rate_hz: u32,
    /// Length of the inverse FFT, in samples.
    pub fft_size: u32,
    /// Step from one inverse FFT to the next, in samples.
    pub hop: u32,
    /// Log-magnitudes are cut off above this.
    pub max_log_magnitude: f32,
}

impl Audio {
    /// PCM samples of one codec token.
    pub fn samples_per_frame(&self) -> usize {
        (self.sample_rate_hz / self.frame_rate_hz) as usize
    }

    /// Spectrum rows of one codec token.
    pub fn spectra_per_frame(&self) -> usize {
        self.samples_per_frame() / self.hop as usize
    }

    /// Frequency bins of one spectrum row: `fft_size / 2 + 1`.
    pub fn bins(&self) -> usize {
        self.fft_size as usize / 2 + 1
    }
}

/// `[vocabulary]`: token ids.
///
/// Speech tokens are `0..speech`, then comes `end_of_speech`; these are what the model can
/// produce. The other ids only occur in prompts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// Number of speech tokens.
    pub speech: u32,
    /// Ends an utterance; always equal to `speech`.
    pub end_of_speech: u32,
    /// Begins every prompt, unless `[[speakers]]` says otherwise.
    pub begin: u32,
    /// Stands between the characters and the speech.
    pub start_of_speech: u32,
    /// Padding of training batches. Never fed to a model as such, so a speaker may have it.
    pub pad: u32,
    /// Id of the first of `characters`; the others follow.
    pub first_character: u32,
    /// The characters that the voice was trained on, in the order of their ids.
    pub characters: String,
    /// Digits of a speech token.
    pub fsq_digits: u32,
    /// Levels of a digit: `speech == fsq_levels ^ fsq_digits`.
    pub fsq_levels: u32,
}

impl Vocabulary {
    /// The id of a character, or `None` if the voice does not have it.
    pub fn character(&self, c: char) -> Option<u32> {
        let index = self.characters.chars().position(|known| known == c)?;
        Some(self.first_character + index as u32)
    }

    /// Number of ids that the model scores: the speech tokens and `end_of_speech`.
    pub fn scored(&self) -> usize {
        self.speech as usize + 1
    }

    /// One more than the largest id.
    pub fn len(&self) -> usize {
        let last = self.first_character + self.characters.chars().count() as u32 - 1;
        let ids = [self.end_of_speech, self.begin, self.start_of_speech, self.pad, last];
        ids.into_iter().max().unwrap_or(0) as usize + 1
    }

    /// Always false: a checked vocabulary has characters.
    pub fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }
}

/// `[[speakers]]`: one of the speakers that a bundle was trained on. The first symbol of a
/// prompt says which of them speaks; everything else is shared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speaker {
    /// What the speaker is chosen by.
    pub name: String,
    /// Token id that begins the speaker's prompts.
    pub begin: u32,
    /// For people, such as "female, US English".
    #[serde(default)]
    pub description: String,
}

impl Speaker {
    /// The longest name, in characters.
    pub const MAX_NAME: usize = 64;
}

/// `[target]` and `[draft]`: the shape of a language model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModel {
    /// ONNX file, relative to the bundle folder.
    pub file: String,
    /// Number of transformer layers.
    pub layers: usize,
    /// Width of the residual stream; `heads * head_dim`.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Base of the rotary position angles.
    pub rope_base: f32,
    /// Longest sequence, prompt included, in tokens.
    pub max_positions: usize,
    /// Bits of a quantized weight: 4 or 8.
    pub bits: u32,
    /// Width of the target's hidden state that the model reads beside each token; 0, the
    /// default, for a model that reads tokens alone. Only a draft may.
    #[serde(default)]
    pub features: usize,
}

/// `[codec]`: the decoder from speech tokens to spectra.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codec {
    /// ONNX file, relative to the bundle folder.
    pub file: String,
    /// How far the sound stays behind the newest token, in PCM samples.
    pub latency_samples: u32,
    /// Bits of the matrix weights.
    #[serde(default = "eight")]
    pub bits: u32,
    /// Tokens of history that a token's sound depends on, if the decoder's is bounded.
    pub context_frames: Option<u32>,
    /// Later tokens that a token's sound depends on.
    pub lookahead_frames: Option<u32>,
}

/// `[sampling]`: defaults of the voice.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens up to this mass; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens below this fraction of the likeliest; 0 drops none.
    pub min_p: f32,
    /// Tokens proposed a round, at most [`MAX_GAMMA`]; 0 decodes without a draft.
    pub gamma: usize,
    /// What a draft step costs in target passes of one row. With `row_cost` it lets the
    /// number of drafts follow the running acceptance; absent, `gamma` is always drafted.
    pub draft_cost: Option<f32>,
    /// What each row of a target pass costs after the first, in passes of one row.
    pub row_cost: Option<f32>,
}

impl Sampling {
    /// How logits become the law that tokens are drawn from.
    pub fn law(&self) -> decode::Sampling {
        decode::Sampling {
            temperature: self.temperature,
            transforms: SamplingTransforms {
                top_k: u32::try_from(self.top_k).unwrap_or(u32::MAX),
                top_p: self.top_p,
                min_p: self.min_p,
            },
        }
    }
}

/// `[groups]`: the default group index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// Index file, relative to the bundle folder; may lie outside it.
    pub file: String,
}

/// `[[files]]`: one file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path inside the bundle folder, with `/`.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl FileEntry {
    /// Checks the length of the file, which is in memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Mismatch`] if it differs.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 == self.bytes {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "{} has {} bytes in memory and {FILE_NAME} lists {}; it is cut short or of another export",
                self.path,
                bytes.len(),
                self.bytes
            ),
        ))
    }
}

/// How far [`Bundle::verify`] is.
#[derive(Debug, Clone, Copy)]
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
            Some(Some(v)) if v == i64::from(FORMAT) => {}
            Some(Some(v)) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{} has format {v}; this build reads format {FORMAT}: use a matching voxgrain or export the bundle again",
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

    /// The folder of the bundle to use: `explicit`, else the environment variable
    /// [`ENV`], else the first of these that holds a `bundle.toml`: `./models/voice`,
    /// `../share/voxgrain/models/voice` and `./models/voice` next to the executable,
    /// `models/voice` in the source tree.
    ///
    /// An explicit choice is never replaced by a default: if it holds no bundle, that is the
    /// error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreadable`], listing every place that was looked at.
    pub fn find(explicit: Option<&Path>) -> Result<PathBuf> {
        let exe = std::env::current_exe().ok();
        Self::find_in(explicit, std::env::var_os(ENV), exe.as_deref())
    }

    /// [`Bundle::find`] with the surroundings as arguments.
    fn find_in(
        explicit: Option<&Path>,
        env: Option<OsString>,
        exe: Option<&Path>,
    ) -> Result<PathBuf> {
        let holds = |p: &Path| {
            p.join(FILE_NAME).is_file()
                || (p.file_name().is_some_and(|n| n == FILE_NAME) && p.is_file())
        };
        let chosen = match (explicit, env.filter(|v| !v.is_empty())) {
            (Some(p), _) => Some((p.to_path_buf(), "--bundle")),
            (None, Some(v)) => Some((PathBuf::from(v), ENV)),
            (None, None) => None,
        };
        if let Some((path, by)) = chosen {
            if holds(&path) {
                return Ok(path);
            }
            return Err(Error::new(
                ErrorKind::Unreadable,
                format!(
                    "no {FILE_NAME} in {} (chosen by {by}); name a folder that holds one",
                    path.display()
                ),
            ));
        }
        let mut places = vec![PathBuf::from("models/voice")];
        if let Some(bin) = exe.and_then(Path::parent) {
            places.push(bin.join("../share/voxgrain/models/voice"));
            places.push(bin.join("models/voice"));
        }
        places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/voice"));
        if let Some(found) = places.iter().find(|p| holds(p)) {
            return Ok(found.clone());
        }
        let list: Vec<String> = places.iter().map(|p| format!("\n  {}", p.display())).collect();
        Err(Error::new(
            ErrorKind::Unreadable,
            format!(
                "no voice found; give its folder with --bundle or {ENV}. Looked for {FILE_NAME} in:{}",
                list.concat()
            ),
        ))
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

    /// The draft's ONNX file.
    pub fn draft_path(&self) -> PathBuf {
        self.path(&self.draft.file)
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

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

impl Description {
    fn check(&self) -> std::result::Result<(), String> {
        ensure!(!self.name.trim().is_empty(), "name is empty");
        ensure!(!self.licence.trim().is_empty(), "licence is empty");
        self.audio.check()?;
        self.vocabulary.check()?;
        check_speakers(&self.speakers, &self.vocabulary)?;
        self.target.check("target")?;
        self.draft.check("draft")?;
        self.sampling.check()?;
        let a = &self.audio;
        ensure!(
            self.codec.latency_samples <= a.sample_rate_hz,
            "codec.latency_samples {} is more than a second",
            self.codec.latency_samples
        );
        if let Some(groups) = &self.groups {
            ensure!(
                !groups.file.is_empty() && !Path::new(&groups.file).is_absolute(),
                "groups.file {:?} is not a relative path",
                groups.file
            );
        }
        for (i, f) in self.files.iter().enumerate() {
            ensure!(
                inside(&f.path),
                "files: {:?} is not a plain path inside the bundle (no `..`, no leading `/`, no `\\`)",
                f.path
            );
            ensure!(
                self.files[..i].iter().all(|other| other.path != f.path),
                "files: {:?} is listed twice",
                f.path
            );
            ensure!(f.bytes > 0, "files: {:?} is listed with 0 bytes", f.path);
            ensure!(
                f.sha256.len() == 64
                    && f.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
                "files: the sha256 of {:?} is not 64 lower-case hexadecimal digits",
                f.path
            );
        }
        for (section, file) in [
            ("target", &self.target.file),
            ("draft", &self.draft.file),
            ("codec", &self.codec.file),
        ] {
            ensure!(
                self.files.iter().any(|f| f.path == *file),
                "{section}.file {file:?} is not listed under [[files]]"
            );
        }
        Ok(())
    }
}

fn check_speakers(speakers: &[Speaker], v: &Vocabulary) -> std::result::Result<(), String> {
    let characters = v.first_character..v.first_character + v.characters.chars().count() as u32;
    for (i, s) in speakers.iter().enumerate() {
        let name = &s.name;
        ensure!(
            !name.is_empty()
                && name.trim() == name
                && name.chars().count() <= Speaker::MAX_NAME
                && !name.contains(char::is_control),
            "speakers: the name {name:?} is empty, longer than {} characters, or has space around it",
            Speaker::MAX_NAME
        );
        ensure!(
            !s.description.contains(char::is_control),
            "speakers: the description of {name:?} is not one line of text"
        );
        let begin = s.begin;
        let bad = if begin < v.speech {
            Some("is a speech token")
        } else if begin == v.end_of_speech {
            Some("is vocabulary.end_of_speech")
        } else if begin == v.start_of_speech {
            Some("is vocabulary.start_of_speech")
        } else if characters.contains(&begin) {
            Some("is a character")
        } else if begin as usize >= v.len() {
            Some("is not in the vocabulary")
        } else {
            None
        };
        if let Some(why) = bad {
            return Err(format!(
                "speakers: {name:?} cannot begin with {begin}, which {why}; vocabulary.begin {} and \
                 vocabulary.pad {} are free",
                v.begin, v.pad
            ));
        }
        for other in &speakers[..i] {
            ensure!(other.name != *name, "speakers: {name:?} is listed twice");
            ensure!(
                other.begin != begin,
                "speakers: {name:?} and {:?} both begin with {begin}",
                other.name
            );
        }
    }
    Ok(())
}

/// A relative path that stays inside, spelt the same on every system.
fn inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':', '\0'])
        && !path.ends_with('/')
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

impl Audio {
    fn check(&self) -> std::result::Result<(), String> {
        let Self { sample_rate_hz, frame_rate_hz, fft_size, hop, max_log_magnitude } = *self;
        ensure!(
            (4_000..=192_000).contains(&sample_rate_hz),
            "audio.sample_rate_hz {sample_rate_hz} is not within 4000..=192000"
        );
        ensure!(
            frame_rate_hz > 0 && sample_rate_hz % frame_rate_hz == 0,
            "audio.frame_rate_hz {frame_rate_hz} does not divide the sample rate {sample_rate_hz}"
        );
        let frame = sample_rate_hz / frame_rate_hz;
        ensure!(
            hop > 0 && frame % hop == 0,
            "audio.hop {hop} does not divide a frame of {frame} samples"
        );
        ensure!(
            (2..=65_536).contains(&fft_size) && fft_size % 2 == 0 && fft_size % hop == 0,
            "audio.fft_size {fft_size} is not an even multiple of the hop {hop} up to 65536"
        );
        ensure!(
            max_log_magnitude.is_finite() && (-20.0..=20.0).contains(&max_log_magnitude),
            "audio.max_log_magnitude {max_log_magnitude} is not within -20..=20"
        );
        Ok(())
    }
}

impl Vocabulary {
    /// Ids fit the group index and the model's tables.
    const MAX_ID: u32 = 1 << 20;

    fn check(&self) -> std::result::Result<(), String> {
        ensure!(
            self.fsq_digits > 0
                && self.fsq_levels > 1
                && self.fsq_levels.checked_pow(self.fsq_digits) == Some(self.speech),
            "vocabulary.speech {} is not fsq_levels {} to the power fsq_digits {}",
            self.speech,
            self.fsq_levels,
            self.fsq_digits
        );
        ensure!(
            self.end_of_speech == self.speech,
            "vocabulary.end_of_speech {} does not follow the {} speech tokens",
            self.end_of_speech,
            self.speech
        );
        let characters: Vec<char> = self.characters.chars().collect();
        ensure!(
            characters.contains(&' ') && characters.len() > 1,
            "vocabulary.characters {:?} does not contain the space and letters",
            self.characters
        );
        for (i, c) in characters.iter().enumerate() {
            ensure!(!characters[..i].contains(c), "vocabulary.characters has {c:?} twice");
        }
        let last = u64::from(self.first_character) + characters.len() as u64 - 1;
        ensure!(
            self.first_character > self.speech && last <= u64::from(Self::MAX_ID),
            "vocabulary.first_character {} is not within {}..={}",
            self.first_character,
            self.speech + 1,
            Self::MAX_ID
        );
        let taken = [
            ("end_of_speech", self.end_of_speech),
            ("begin", self.begin),
            ("start_of_speech", self.start_of_speech),
            ("pad", self.pad),
        ];
        for (i, (name, id)) in taken.iter().enumerate() {
            ensure!(
                *id >= self.speech && *id <= Self::MAX_ID,
                "vocabulary.{name} {id} is not within {}..={}",
                self.speech,
                Self::MAX_ID
            );
            for (other, same) in &taken[..i] {
                ensure!(id != same, "vocabulary.{name} and {other} are both {id}");
            }
            ensure!(
                *id < self.first_character || u64::from(*id) > last,
                "vocabulary.{name} {id} lies among the characters {}..={last}",
                self.first_character
            );
        }
        Ok(())
    }
}

impl LanguageModel {
    fn check(&self, section: &str) -> std::result::Result<(), String> {
        let small = |name: &str, value: usize, most: usize| {
            ensure!(
                (1..=most).contains(&value),
                "{section}.{name} {value} is not within 1..={most}"
            );
            Ok(())
        };
        ensure!(
            self.features == 0 || section == "draft",
            "{section}.features: only a draft reads features"
        );
        small("layers", self.layers, 256)?;
        small("hidden", self.hidden, 65_536)?;
        small("heads", self.heads, 1_024)?;
        small("kv_heads", self.kv_heads, 1_024)?;
        small("head_dim", self.head_dim, 4_096)?;
        small("ffn", self.ffn, 1 << 20)?;
        small("max_positions", self.max_positions, 1 << 20)?;
        ensure!(
            self.hidden == self.heads * self.head_dim,
            "{section}.hidden {} is not heads {} times head_dim {}",
            self.hidden,
            self.heads,
            self.head_dim
        );
        ensure!(
            self.heads.is_multiple_of(self.kv_heads),
            "{section}.kv_heads {} does not divide heads {}",
            self.kv_heads,
            self.heads
        );
        ensure!(
            self.head_dim.is_multiple_of(2),
            "{section}.head_dim {} is odd, and positions rotate pairs",
            self.head_dim
        );
        ensure!(
            self.rope_base.is_finite() && self.rope_base > 1.0,
            "{section}.rope_base {} is not above 1",
            self.rope_base
        );
        ensure!(matches!(self.bits, 4 | 8), "{section}.bits {} is neither 4 nor 8", self.bits);
        Ok(())
    }
}

impl Sampling {
    /// What is accepted here can be decoded with: the bounds are the decoder's.
    fn check(&self) -> std::result::Result<(), String> {
        if let Some((name, range)) = self.law().fault() {
            return Err(format!("sampling.{} must be {range}", name.replace('-', "_")));
        }
        ensure!(self.gamma <= MAX_GAMMA, "sampling.gamma {} is above {MAX_GAMMA}", self.gamma);
        for (name, cost) in [("draft_cost", self.draft_cost), ("row_cost", self.row_cost)] {
            ensure!(
                cost.is_none_or(|c| Costs { draft: c, row: c }.are_valid()),
                "sampling.{name} is not within 0..=100"
            );
        }
        Ok(())
    }
}

fn eight() -> u32 {
    8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_prefers_the_explicit_choice_and_lists_places() {
        let root = std::env::temp_dir().join(format!("voxgrain-find-{}", std::process::id()));
        let prefix = root.join("prefix");
        let share = prefix.join("share/voxgrain/models/voice");
        let bin = prefix.join("bin");
        std::fs::create_dir_all(&share).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        let exe = bin.join("voxgrain");
        let absent = root.join("absent");

        let e = Bundle::find_in(Some(&absent), None, Some(&exe)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unreadable);
        assert!(e.to_string().contains("--bundle"), "{e}");
        let e = Bundle::find_in(None, Some(absent.clone().into()), Some(&exe)).unwrap_err();
        assert!(e.to_string().contains(ENV), "{e}");

        if let Err(e) = Bundle::find_in(None, None, Some(&exe)) {
            let text = e.to_string();
            for place in ["models/voice", "../share/voxgrain/models/voice", "bin/models/voice"] {
                assert!(text.contains(place), "{text}");
            }
            std::fs::write(share.join(FILE_NAME), "format = 1").unwrap();
            let found = Bundle::find_in(None, Some("".into()), Some(&exe)).unwrap();
            assert!(found.ends_with("share/voxgrain/models/voice"));
        }
        std::fs::write(share.join(FILE_NAME), "format = 1").unwrap();
        assert_eq!(Bundle::find_in(Some(&share), None, None).unwrap(), share);
        assert_eq!(
            Bundle::find_in(Some(&share), Some(absent.into()), None).unwrap(),
            share,
            "--bundle wins over the environment"
        );
        std::fs::remove_dir_all(&root).unwrap();
    }
}
