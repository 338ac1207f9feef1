//! From any text to utterances that the voice can say.
//!
//! The voice knows 32 characters: `a-z`, the space and `' , . ? !`. [`TextFrontend`] turns
//! English text into chunks over just these: numbers, dates, money, units, abbreviations,
//! symbols and addresses become words; letters lose their accents; what cannot be spoken
//! (other scripts, most emoji, control characters) is reported, never dropped silently.
//! Chunks are cut at sentences, then at clauses, so that none is longer than the voice was
//! trained on.
//!
//! ```
//! use voxgrain::speech::text::TextFrontend;
//! let speech = TextFrontend::default().speak("Dr. Smith paid $3.50 on Nov 24.")?;
//! assert_eq!(
//!     speech.chunks[0].text,
//!     "doctor smith paid three dollars and fifty cents on november twenty fourth."
//! );
//! # Ok::<(), voxgrain::Error>(())
//! ```

mod amounts;
mod chunks;
mod dates;
mod figures;
mod fold;

mod numbers;
mod phones;
mod places;
mod read;
mod tables;
mod tokens;
mod units;
mod words;

use chunks::{hard_split, render, split};

use crate::bundle::Vocabulary;
use crate::{Error, ErrorKind, Result};

/// Every character that a chunk can contain.
pub const ALPHABET: &str = " ',.?!abcdefghijklmnopqrstuvwxyz";

/// Settings of the front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Longest chunk, in characters, its closing mark included; within
    /// [`Options::MIN_CHARS`]`..=`[`Options::MAX_CHARS`].
    pub max_chars: usize,
}

impl Options {
    /// The smallest limit.
    pub const MIN_CHARS: usize = 20;
    /// The largest limit.
    pub const MAX_CHARS: usize = 1000;
}

impl Default for Options {
    /// 200 characters: within the 250 that the voices are trained on.
    fn default() -> Self {
        Self { max_chars: 200 }
    }
}

/// One utterance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Words over [`ALPHABET`], single spaces between them, ending in `.`, `?`, `!`, or in
    /// `,` where the sentence goes on in the next chunk.
    pub text: String,
    /// Whether a sentence ends here, which asks for a longer pause.
    pub ends_sentence: bool,
}

/// Something that is said differently from how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// As written (accents and typographic marks already simplified).
    pub original: String,
    /// As said; empty for an invisible character that was removed.
    pub spoken: String,
}

/// Something that cannot be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unspeakable {
    /// The characters, neighbours together.
    pub text: String,
    /// Where they begin, in bytes from the start of the input.
    pub position: usize,
}

/// What happened to the text on its way to the voice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is said differently from how it is written, in order. Case, accents and plain
    /// punctuation are not listed.
    pub replaced: Vec<Replacement>,
    /// What cannot be said, in order. It is left out of the speech.
    pub unspeakable: Vec<Unspeakable>,
}

impl Report {
    /// Whether everything was said as written.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.unspeakable.is_empty()
    }
}

/// A text, ready to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// The utterances in order; at least one.
    pub chunks: Vec<Chunk>,
    /// What was changed or left out.
    pub report: Report,
}

/// The front end; see the module.
///
/// [`speak`](Self::speak) takes a whole text. [`feed`](Self::feed) and
/// [`flush`](Self::flush) take text as it arrives and give each sentence when it is
/// complete.
#[derive(Debug, Clone, Default)]
pub struct TextFrontend {
    options: Options,
    /// Fed, not yet given out.
    pending: String,
    /// Position of `pending` in all that was fed.
    base: usize,
    report: Report,
}

impl TextFrontend {
    /// Bytes without a sentence end that are held back at most.
    pub const MAX_PENDING: usize = 4096;

    /// A front end with settings of your own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a setting is out of range.
    pub fn new(options: Options) -> Result<Self> {
        if !(Options::MIN_CHARS..=Options::MAX_CHARS).contains(&options.max_chars) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "a chunk of {} characters is not within {}..={}",
                    options.max_chars,
                    Options::MIN_CHARS,
                    Options::MAX_CHARS
                ),
            ));
        }
        Ok(Self { options, ..Self::default() })
    }

    /// The settings.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Turns a whole text into utterances. What was fed before is not touched.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if nothing in the text can be spoken.
    pub fn speak(&self, text: &str) -> Result<Speech> {
        let mut report = Report::default();
        let pieces = read::normalise(text, 0, &mut report);
        let chunks = split(pieces, self.options.max_chars);
        if chunks.is_empty() {
            return Err(nothing(text, &report));
        }
        Ok(Speech { chunks, report })
    }

    /// The normalised text in one line, before it is cut into chunks; empty if nothing can be
    /// spoken.
    pub fn normalise(&self, text: &str) -> String {
        let pieces = read::normalise(text, 0, &mut Report::default());
        render(&hard_split(pieces, self.options.max_chars))
    }

    /// Takes the next part of a text and gives the sentences that are complete.
    ///
    /// A sentence is complete when its closing mark is followed by white space and could not
    /// be part of an abbreviation or a number, when a blank line follows, or when 4096 bytes
    /// have come without an end. The parts may be cut anywhere between characters.
    pub fn feed(&mut self, text: &str) -> Vec<Chunk> {
        self.pending.push_str(text);
        if !text.contains(may_end_sentence) && self.pending.len() <= Self::MAX_PENDING {
            return Vec::new();
        }
        let mut cut = complete(&self.pending);
        if self.pending.len() - cut > Self::MAX_PENDING {
            let tail = &self.pending[cut..];
            cut += match tail.rfind(char::is_whitespace) {
                Some(at) if at > 0 => at,
                _ => tail.len(),
            };
        }
        self.take(cut)
    }

    /// Gives what is left as the end of the text, and starts anew.
    ///
    /// Unlike [`speak`](Self::speak) this is not an error if nothing can be spoken: earlier
    /// parts may have been.
    pub fn flush(&mut self) -> Vec<Chunk> {
        let chunks = self.take(self.pending.len());
        self.base = 0;
        chunks
    }

    /// The report on all that was fed since it was last taken.
    pub fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn take(&mut self, cut: usize) -> Vec<Chunk> {
        if cut == 0 {
            return Vec::new();
        }
        let pieces = read::normalise(&self.pending[..cut], self.base, &mut self.report);
        self.pending.drain(..cut);
        self.base += cut;
        split(pieces, self.options.max_chars)
    }
}

/// The ids of a chunk's characters, in order: what stands between the begin token and the
/// start-of-speech token, neither of which is added here.
///
/// # Errors
///
/// [`ErrorKind::InvalidText`] if the voice lacks a character.
pub fn tokens(vocabulary: &Vocabulary, text: &str) -> Result<Vec<u32>> {
    text.chars()
        .map(|c| {
            vocabulary.character(c).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidText,
                    format!(
                        "this voice has no character {c:?}; it has {:?}: pass the text through TextFrontend",
                        vocabulary.characters
                    ),
                )
            })
        })
        .collect()
}

/// Bytes as text.
///
/// # Errors
///
/// [`ErrorKind::InvalidText`], with the position of the first byte that is not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        Error::with_source(
            ErrorKind::InvalidText,
            format!(
                "the text is not UTF-8 at byte {}; convert it, for instance with iconv -t utf-8",
                e.valid_up_to()
            ),
            e,
        )
    })
}

fn nothing(text: &str, report: &Report) -> Error {
    let what = if text.trim().is_empty() {
        "there is no text to speak".to_string()
    } else if let Some(first) = report.unspeakable.first() {
        let sample: String = first.text.chars().take(12).collect();
        format!(
            "nothing in the text can be spoken: the voice reads English in Latin letters, and this begins with {sample:?} at byte {}",
            first.position
        )
    } else {
        "the text has only punctuation; give it words or numbers".to_string()
    };
    Error::new(ErrorKind::InvalidText, what)
}

/// Full stops that need no space behind them.
const WIDE_STOPS: [char; 3] = ['。', '！', '？'];

/// Whether a sentence may turn out to be complete with this character.
pub(crate) fn may_end_sentence(c: char) -> bool {
    c.is_whitespace() || WIDE_STOPS.contains(&c)
}

/// How many bytes of `text` end in a sentence end that nothing that follows can undo.
fn complete(text: &str) -> usize {
    let mut cut = 0;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if WIDE_STOPS.contains(&c) {
            cut = at + c.len_utf8();
            start = cut;
            continue;
        }
        if !c.is_whitespace() {
            continue;
        }
        if ends_surely(&text[start..at]) {
            cut = at;
        } else if c == '\n' {
            // A blank line: nothing but white space since the last line break.
            let before = text[..at].trim_end_matches([' ', '\t', '\r']);
            if before.ends_with('\n') {
                cut = at;
            }
        }
        start = at + c.len_utf8();
    }
    cut
}

/// Whether a token ends its sentence whatever comes next.
fn ends_surely(token: &str) -> bool {
    let token = token.trim_end_matches([')', ']', '"', '\'', '”', '’', '»', '*', '_']);
    if token.ends_with(['?', '!']) {
        return true;
    }
    let Some(word) = token.strip_suffix('.') else { return false };
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let lower = word.to_lowercase();
    word.chars().count() > 1
        && word.chars().all(char::is_alphabetic)
        && !tables::WITH_STOP.iter().any(|w| w.0 == lower)
        && !tables::BEFORE_NUMBER.iter().any(|w| w.0 == lower)
        && !tables::MONTHS.iter().any(|w| w.0 == lower)
        && !units::known(word)
        && !matches!(lower.as_str(), "st" | "dr" | "al" | "am" | "pm" | "ok")
}
