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
mod html;
mod letters;
mod markdown;
mod markup;
mod numbers;
mod phones;
mod places;
mod plain;
mod read;
mod respell;
mod ssml;
mod tables;
mod tokens;
mod units;
mod words;

use std::ops::Range;

use chunks::{hard_split, render, split};
pub use plain::Markup;
use plain::Plain;
use read::Piece;
pub use respell::{Respelling, letter_name};
use serde::Serialize;
use tokens::Layout;

use crate::bundle::Vocabulary;
use crate::{Error, ErrorKind, Result};

/// Every character that a chunk can contain.
pub const ALPHABET: &str = " ',.?!abcdefghijklmnopqrstuvwxyz";

/// Marks that end a sentence without white space behind them.
pub const ENDS: &str = "。！？";

/// Silences behind the parts of a text, in seconds, for whoever puts them between chunks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pauses {
    /// A comma, where a sentence is cut there.
    pub comma: f32,
    /// A semicolon, a colon or a dash, where a sentence is cut there.
    pub clause: f32,
    /// The end of a sentence or of a list item.
    pub sentence: f32,
    /// The end of a paragraph.
    pub paragraph: f32,
    /// A heading.
    pub heading: f32,
}

impl Pauses {
    /// The longest silence.
    pub const MAX: f32 = 60.0;
}

impl Default for Pauses {
    fn default() -> Self {
        Self { comma: 0.1, clause: 0.2, sentence: 0.3, paragraph: 0.6, heading: 0.7 }
    }
}

/// Settings of the front end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Longest chunk, in characters, its closing mark included; within
    /// [`Options::MIN_CHARS`]`..=`[`Options::MAX_CHARS`].
    pub max_chars: usize,
    /// What markup is understood.
    pub markup: Markup,
    /// Every line is an utterance: for logs and lists. Otherwise lines are joined, unless they
    /// are short ones like those of a menu.
    pub lines: bool,
    /// Silences for [`Chunk::pause_after`].
    pub pauses: Pauses,
    /// How the names of letters are written in chunks.
    pub respelling: Respelling,
}

impl Options {
    /// The smallest limit.
    pub const MIN_CHARS: usize = 20;
    /// The largest limit.
    pub const MAX_CHARS: usize = 1000;

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        if !(Self::MIN_CHARS..=Self::MAX_CHARS).contains(&self.max_chars) {
            return wrong(format!(
                "a chunk of {} characters is not within {}..={}",
                self.max_chars,
                Self::MIN_CHARS,
                Self::MAX_CHARS
            ));
        }
        let p = &self.pauses;
        for (name, seconds) in [
            ("comma", p.comma),
            ("clause", p.clause),
            ("sentence", p.sentence),
            ("paragraph", p.paragraph),
            ("heading", p.heading),
        ] {
            if !(0.0..=Pauses::MAX).contains(&seconds) {
                return wrong(format!(
                    "a {name} pause of {seconds} seconds is not within 0 to {}",
                    Pauses::MAX
                ));
            }
        }
        Ok(())
    }

    fn layout(&self) -> Layout {
        Layout { lines: self.lines, inside: false }
    }
}

impl Default for Options {
    /// 200 characters: within the 250 that the voices are trained on. Markup that is
    /// unmistakable is understood.
    fn default() -> Self {
        Self {
            max_chars: 200,
            markup: Markup::default(),
            lines: false,
            pauses: Pauses::default(),
            respelling: Respelling::default(),
        }
    }
}

/// A word as it will be spoken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Word {
    /// Over `a-z` and `'`.
    pub text: String,
    /// The mark behind it: one of `,.?!`.
    pub mark: Option<char>,
    /// It is the name of a letter: "u" in "USB", but not the word "a".
    pub letter: bool,
    /// Its pronunciation in IPA, where the markup gives one. Empty where the pronunciation of
    /// the word before holds for this one too.
    pub phonemes: Option<String>,
    /// Where it was written, in bytes of the input: the whole of what was read together, so
    /// that "1984" is the source of four words.
    pub source: Range<usize>,
}

/// One utterance.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Chunk {
    /// Words over [`ALPHABET`], single spaces between them, ending in `.`, `?` or `!`: a voice
    /// reads whole sentences, so a part of one is written as one.
    pub text: String,
    /// Whether a sentence ends here.
    pub ends_sentence: bool,
    /// The words of `text` one by one, before any respelling and with the marks of the text.
    pub words: Vec<Word>,
    /// Where they were written, in bytes of the input.
    pub source: Range<usize>,
    /// Silence to the next chunk, in seconds: [`Options::pauses`], or what the markup asks for.
    pub pause_after: f32,
    /// Speed that the markup asks for; 1 as the voice speaks by itself.
    pub rate: f32,
}

/// Something that is said differently from how it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// As written (accents and typographic marks already simplified).
    pub original: String,
    /// As said; empty for an invisible character that was removed.
    pub spoken: String,
    /// Where it was written, in bytes of the input.
    pub source: Range<usize>,
}

/// Something that cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unspeakable {
    /// The characters, neighbours together.
    pub text: String,
    /// Where they begin, in bytes from the start of the input.
    pub position: usize,
}

/// What happened to the text on its way to the voice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Utterances {
    /// The utterances in order; at least one.
    pub chunks: Vec<Chunk>,
    /// What was changed or left out.
    pub report: Report,
}

/// One sentence and what becomes of it, for people who want to see what will be said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Sentence {
    /// Where it stands, in bytes of the input.
    pub source: Range<usize>,
    /// What is said: words and marks, as [`TextFrontend::normalise`] gives them.
    pub text: String,
    /// The same word by word.
    pub words: Vec<Word>,
    /// What is said differently from how it is written.
    pub replaced: Vec<Replacement>,
    /// What is left out because it cannot be said.
    pub left_out: Vec<Unspeakable>,
    /// Silence behind it, in seconds.
    pub pause_after: f32,
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
    /// `pending` begins inside a line.
    inside: bool,
    report: Report,
}

impl TextFrontend {
    /// Bytes without the end of a sentence that [`feed`](Self::feed) holds back at most.
    pub const MAX_PENDING: usize = 4096;

    /// A front end with settings of your own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if a setting is out of range.
    pub fn new(options: Options) -> Result<Self> {
        options.check()?;
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
    /// [`ErrorKind::InvalidText`] if nothing in the text can be spoken, or if its markup is
    /// wrong, with line and column.
    pub fn speak(&self, text: &str) -> Result<Utterances> {
        let mut report = Report::default();
        let pieces = self.pieces(text, &mut report)?;
        let chunks = self.chunks(pieces);
        if chunks.is_empty() {
            return Err(nothing(text, &report));
        }
        Ok(Utterances { chunks, report })
    }

    /// The normalised text in one line, before it is cut into chunks; empty if nothing can be
    /// spoken or the markup is wrong.
    pub fn normalise(&self, text: &str) -> String {
        let pieces = self.pieces(text, &mut Report::default()).unwrap_or_default();
        render(&hard_split(pieces, self.options.max_chars))
    }

    /// What will be said, sentence by sentence, and why.
    ///
    /// # Errors
    ///
    /// As [`speak`](Self::speak).
    pub fn explain(&self, text: &str) -> Result<Vec<Sentence>> {
        let mut report = Report::default();
        let pieces = hard_split(self.pieces(text, &mut report)?, self.options.max_chars);
        if pieces.is_empty() {
            return Err(nothing(text, &report));
        }
        let mut out: Vec<Sentence> = Vec::new();
        let mut start = 0;
        for end in 1..=pieces.len() {
            if end < pieces.len() && !pieces[end - 1].after.ends_sentence() {
                continue;
            }
            let part = &pieces[start..end];
            start = end;
            let pause = split(part.to_vec(), Options::MAX_CHARS, &self.options.pauses);
            out.push(Sentence {
                source: chunks::source(part),
                text: render(part),
                words: part.iter().map(chunks::word).collect(),
                replaced: Vec::new(),
                left_out: Vec::new(),
                pause_after: pause.last().map_or(0.0, |c| c.pause_after),
            });
        }
        // What stands before the first sentence belongs to it, everything else to the last
        // sentence that began before it.
        let home = |out: &[Sentence], at: usize| {
            out.partition_point(|s| s.source.start <= at).saturating_sub(1)
        };
        for r in report.replaced {
            let i = home(&out, r.source.start);
            out[i].replaced.push(r);
        }
        for u in report.unspeakable {
            let i = home(&out, u.position);
            out[i].left_out.push(u);
        }
        Ok(out)
    }

    /// Takes the next part of a text and gives the sentences that are complete.
    ///
    /// A sentence is complete when its closing mark is followed by white space and could not
    /// be part of an abbreviation or a number, when a blank line follows, or when
    /// [`MAX_PENDING`](Self::MAX_PENDING) bytes have come without an end. The parts may be cut
    /// anywhere between characters. An SSML document is complete when it ends.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if an SSML document is wrong, or longer than
    /// [`MAX_PENDING`](Self::MAX_PENDING): pass such a one whole to [`speak`](Self::speak). What
    /// was held back is dropped then.
    pub fn feed(&mut self, text: &str) -> Result<Vec<Chunk>> {
        self.pending.push_str(text);
        if !text.contains(|c: char| may_end_sentence(c) || c == '>')
            && self.pending.len() <= Self::MAX_PENDING
        {
            return Ok(Vec::new());
        }
        if let Some(end) = ssml::document(&self.pending, self.options.markup) {
            let Some(end) = end else {
                if self.pending.len() > Self::MAX_PENDING {
                    self.drop_pending();
                    return Err(Error::new(
                        ErrorKind::InvalidText,
                        format!(
                            "an SSML document of more than {} bytes came in parts: pass it whole",
                            Self::MAX_PENDING
                        ),
                    ));
                }
                return Ok(Vec::new());
            };
            return self.take(end);
        }
        let mut cut = complete(&self.pending, self.options.lines);
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
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if the markup is wrong.
    pub fn flush(&mut self) -> Result<Vec<Chunk>> {
        let chunks = self.take(self.pending.len());
        (self.base, self.inside) = (0, false);
        chunks
    }

    /// The report on all that was fed since it was last taken.
    pub fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    fn drop_pending(&mut self) {
        self.base += self.pending.len();
        self.pending.clear();
        self.inside = false;
    }

    fn pieces(&self, text: &str, report: &mut Report) -> Result<Vec<Piece>> {
        let plain = markup::plain(text, self.options.markup)?;
        Ok(read(&plain, text, 0, self.options.layout(), report))
    }

    fn chunks(&self, mut pieces: Vec<Piece>) -> Vec<Chunk> {
        respell::apply(self.options.respelling, &mut pieces);
        split(pieces, self.options.max_chars, &self.options.pauses)
    }

    fn take(&mut self, cut: usize) -> Result<Vec<Chunk>> {
        if cut == 0 {
            return Ok(Vec::new());
        }
        let part = &self.pending[..cut];
        let layout = Layout { inside: self.inside, ..self.options.layout() };
        let pieces = match markup::plain(part, self.options.markup) {
            Ok(plain) => read(&plain, part, self.base, layout, &mut self.report),
            Err(e) => {
                self.drop_pending();
                return Err(e);
            }
        };
        self.inside = !part.ends_with('\n');
        self.pending.drain(..cut);
        self.base += cut;
        Ok(self.chunks(pieces))
    }
}

/// What will be said for a text, sentence by sentence: needs no voice.
///
/// ```
/// use voxgrain::speech::text::{Options, explain};
/// let sentences = explain("It is 5 km. Dr. Ma said so.", Options::default())?;
/// assert_eq!(sentences[0].text, "it is five kilometers.");
/// assert_eq!(sentences[1].replaced[0].original, "Dr.");
/// assert_eq!(sentences[1].source, 12..27);
/// # Ok::<(), voxgrain::Error>(())
/// ```
///
/// # Errors
///
/// As [`TextFrontend::new`] and [`TextFrontend::speak`].
pub fn explain(text: &str, options: Options) -> Result<Vec<Sentence>> {
    TextFrontend::new(options)?.explain(text)
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
                let some: String = vocabulary.characters.chars().take(80).collect();
                Error::new(
                    ErrorKind::InvalidText,
                    format!(
                        "this voice has no character {c:?}; it has {some:?}: pass the text through TextFrontend"
                    ),
                )
            })
        })
        .collect()
}

/// Whether [`Markup::Auto`] finds markup in a text, or in the beginning of one: then its parts
/// are not read by themselves.
pub fn is_marked_up(text: &str) -> bool {
    ssml::begins(text) || markdown::signs(text) || html::signs(text)
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

/// The words of `text`, whose markup is off in `plain`; its first byte is `base` in the input.
fn read(
    plain: &Plain<'_>,
    text: &str,
    base: usize,
    layout: Layout,
    report: &mut Report,
) -> Vec<Piece> {
    let noted = report.replaced.len();
    let mut pieces = read::normalise(plain, base, layout, report);
    for p in &mut pieces {
        let place = settle(p.source.0..p.source.1, text, base);
        p.source = (place.start, place.end);
    }
    for r in &mut report.replaced[noted..] {
        r.source = settle(r.source.clone(), text, base);
    }
    pieces
}

/// Places begin and end between characters, and end before white space.
fn settle(range: Range<usize>, text: &str, base: usize) -> Range<usize> {
    let (mut start, mut end) = (range.start - base, (range.end - base).min(text.len()));
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end -= text[start..end].len() - text[start..end].trim_end().len();
    start + base..end + base
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

/// Whether a sentence may turn out to be complete with this character.
pub(crate) fn may_end_sentence(c: char) -> bool {
    c.is_whitespace() || ENDS.contains(c)
}

/// How many bytes of `text` end in a sentence end that nothing that follows can undo.
fn complete(text: &str, lines: bool) -> usize {
    let mut cut = 0;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if ENDS.contains(c) {
            cut = at + c.len_utf8();
            start = cut;
            continue;
        }
        if !c.is_whitespace() {
            continue;
        }
        if ends_surely(&text[start..at]) {
            cut = at;
        } else if c == '\n' && lines {
            cut = at + 1;
        } else if c == '\n' {
            // A blank line: nothing but white space since the last line break.
            let before = text[..at].trim_end_matches([' ', '\t', '\r']);
            if before.ends_with('\n') {
                cut = at;
            }
        }
        start = at + c.len_utf8();
    }
    // Blank lines that have come belong to what they end.
    if cut > 0 {
        let rest = &text[cut..];
        let white = rest.len() - rest.trim_start_matches(char::is_whitespace).len();
        if rest[..white].contains('\n') {
            cut += white;
        }
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
