//! What `bundle.toml` says: the schema, and what follows from a section alone.

use serde::Deserialize;

use super::FILE_NAME;
use crate::core::dist::SamplingTransforms;
use crate::{Error, ErrorKind, Result, decode};

/// The content of `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Description {
    /// Version of the description, [`FORMAT`](super::FORMAT).
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
    /// What prompts are written in. A file of format 1 has no such section: letters.
    #[serde(default)]
    pub text: Text,
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
#[non_exhaustive]
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

/// What the characters of a prompt stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FrontEnd {
    /// The letters and marks of a normalised text.
    #[default]
    Letters,
    /// What [`Phonemizer`](crate::speech::phonemes::Phonemizer) writes, behind a symbol for
    /// the tempo if the voice has any.
    Phonemes,
}

/// `[text]`: how a text becomes the characters of a prompt.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Text {
    /// What is written.
    pub front_end: FrontEnd,
    /// The pronunciation lexicon, relative to the bundle folder; empty for letters.
    #[serde(default)]
    pub lexicon: String,
    /// Characters of the vocabulary, one of which stands first in every prompt and says how
    /// fast to speak; none if the voice has one tempo.
    #[serde(default)]
    pub tempo_symbols: String,
    /// What they mean: times the natural tempo, rising; one of them is 1.
    #[serde(default)]
    pub tempos: Vec<f32>,
}

impl Text {
    /// The symbol of the tempo nearest to `rate`, and that tempo; `None` for a voice of one.
    pub fn tempo(&self, rate: f32) -> Option<(char, f32)> {
        let far = |tempo: f32| (tempo / rate).ln().abs();
        let all = self.tempo_symbols.chars().zip(self.tempos.iter().copied());
        all.min_by(|a, b| far(a.1).total_cmp(&far(b.1)))
    }
}

/// `[[speakers]]`: one of the speakers that a bundle was trained on. The first symbol of a
/// prompt says which of them speaks; everything else is shared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// Width of what the model reads of the target beside each token: `hidden` of the target for
    /// its hidden state, and as much again for each of its taps. 0, the default, for a model that
    /// reads tokens alone. Only a draft may.
    #[serde(default)]
    pub features: usize,
}

/// `[codec]`: the decoder from speech tokens to spectra.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens up to this mass; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens below this fraction of the likeliest; 0 drops none.
    pub min_p: f32,
    /// Tokens proposed a round, at most [`MAX_GAMMA`](decode::MAX_GAMMA); 0 decodes without a draft.
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
#[non_exhaustive]
pub struct Groups {
    /// Index file, relative to the bundle folder; may lie outside it.
    pub file: String,
}

/// `[[files]]`: one file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
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

fn eight() -> u32 {
    8
}
