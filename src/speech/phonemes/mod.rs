//! From words to phonemes.
//!
//! A [`Phonemizer`] reads a lexicon file in place and turns normalised English text into
//! strings over [`SYMBOLS`], the set of Kokoro's English front end: words by list, by their
//! part of speech and what follows them, by their endings and parts, and at last by their
//! letters; never a word left out. Entries of a [`UserLexicon`] come before everything.
//!
//! ```no_run
//! use voxgrain::{map::Map, speech::phonemes::Phonemizer};
//! let phonemizer = Phonemizer::open(&Map::open("en-us.lexicon")?)?;
//! assert_eq!(phonemizer.phonemize("Hello, world")?, "həlˈO, wˈɜɹld.");
//! # Ok::<(), voxgrain::Error>(())
//! ```
//!
//! # The string
//!
//! Words stand with one space between them. `, . ? ! ; : …` follow the word in front, then
//! `”` and `)`; `“` and `(` precede the next word; a dash stands as ` — ` between words. Runs
//! of marks become the strongest of them. The string ends in a mark.

mod context;
mod format;
pub mod letters;
pub mod lexicon;
mod morphology;
mod respell;
pub mod symbols;
pub mod tagger;
mod text;
mod user;
mod words;

pub use respell::respell;
pub use symbols::{MARKS, SYMBOLS, from_ipa};
pub use text::{Spoken, Word, render};
pub use user::UserLexicon;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use lexicon::Lexicon;
use tagger::{Shape, Tag};
use words::{Following, Words};

use crate::map::Map;
use crate::{Error, ErrorKind, Result};

/// Where a pronunciation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Given with the word.
    Given,
    /// From a user's lexicon.
    User,
    /// From the lexicon, with or without an ending.
    Lexicon,
    /// Two words of the lexicon written as one.
    Compound,
    /// Named letter by letter.
    Spelt,
    /// Guessed from the letters.
    Letters,
}

/// Turns words into phonemes; see the module. Clones share the mapped file.
#[derive(Clone)]
pub struct Phonemizer {
    lexicon: Arc<Lexicon>,
    /// The users' words and their phonemes, the last list first in rank.
    user: Vec<Arc<HashMap<String, String>>>,
}

impl std::fmt::Debug for Phonemizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Phonemizer({} words, {} lists)", self.entries(), self.user.len())
    }
}

impl Phonemizer {
    /// Opens a lexicon file; [`lexicon`](mod@lexicon) has its format. The words and models stay in
    /// the map.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] if the file is damaged or no lexicon,
    /// [`ErrorKind::Unsupported`] if it is of another version.
    pub fn open(map: &Map) -> Result<Self> {
        Ok(Self { lexicon: Arc::new(Lexicon::open(map)?), user: Vec::new() })
    }

    /// Adds a user's lexicon, whose entries win over all that was there before. Respellings
    /// are read by the lexicon file alone, so that two entries cannot chase each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if an entry has nothing that can be said.
    pub fn add(&mut self, lexicon: &UserLexicon) -> Result<()> {
        let bare = Self { lexicon: Arc::clone(&self.lexicon), user: Vec::new() };
        let mut said = HashMap::with_capacity(lexicon.len());
        for (word, entry) in lexicon.entries() {
            let phonemes = match entry {
                user::Said::Ipa(ipa) => from_ipa(ipa, self.is_british())?,
                user::Said::Respelt(text) => {
                    let folded = text::fold(text);
                    let spoken = bare.phonemize_words(&text::words(&folded))?;
                    let parts: Vec<&str> = spoken.iter().map(|s| s.phonemes.as_str()).collect();
                    parts.join(" ")
                }
            };
            // A front end of text writes names in lower case.
            let lower = word.to_lowercase();
            let name = word.chars().skip(1).eq(lower.chars().skip(1));
            if name && !lexicon.has(&lower) {
                said.insert(lower, phonemes.clone());
            }
            said.insert(word.to_string(), phonemes);
        }
        self.user.push(Arc::new(said));
        Ok(())
    }

    /// Whether words are said the British way.
    pub fn is_british(&self) -> bool {
        self.lexicon.british()
    }

    /// Number of words in the lexicon file.
    pub fn entries(&self) -> usize {
        self.lexicon.entries()
    }

    /// Size of the lexicon file in bytes.
    pub fn bytes(&self) -> usize {
        self.lexicon.bytes()
    }

    /// The phonemes of a normalised text of words and marks, as one string.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if there is nothing to say in it.
    pub fn phonemize(&self, text: &str) -> Result<String> {
        let folded = text::fold(text);
        let said = render(&self.phonemize_words(&text::words(&folded))?);
        if said.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidText,
                "no word has a letter that English knows; pass the text through TextFrontend",
            ));
        }
        Ok(said)
    }

    /// The phonemes of each word. Where a word has its own, they are mapped to the symbol set.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if there is no word, or pronunciations that came with the
    /// words have symbols that are no IPA; the message names them.
    pub fn phonemize_words(&self, words: &[Word<'_>]) -> Result<Vec<Spoken>> {
        if words.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidText,
                "there is no word to pronounce; give letters, not marks alone",
            ));
        }
        let folded: Vec<Cow<'_, str>> = words.iter().map(|w| text::fold(w.text)).collect();
        let lower: Vec<String> = folded.iter().map(|w| w.to_lowercase()).collect();
        let lower_refs: Vec<&str> = lower.iter().map(String::as_str).collect();
        let tags = self.tags(words, &folded);
        let reader = Words { lexicon: &self.lexicon };
        let mut out: Vec<Spoken> = Vec::with_capacity(words.len());
        let mut following = Following::default();
        // From the end: a word's form depends on the sound behind it.
        for i in (0..words.len()).rev() {
            let word = &words[i];
            if word.after.contains(|c| ";:,.!?—…".contains(c)) {
                following.vowel = None;
            }
            let (phonemes, origin) = if let Some(given) = word.phonemes {
                (from_ipa(given, self.is_british())?, Origin::Given)
            } else if let Some(p) = self.by_user(&folded[i], &lower[i]) {
                (p, Origin::User)
            } else {
                let mut tag = tags[i];
                let mut said = None;
                match context::judge(&lower_refs, i, tag) {
                    Some(context::Verdict::Tag(t)) => tag = t,
                    Some(context::Verdict::Said(p)) => said = Some(p),
                    None => {}
                }
                match said {
                    Some(p) => (p.to_string(), Origin::Lexicon),
                    None => reader.read(&folded[i], tag, following),
                }
            };
            if !phonemes.is_empty() {
                following = following.before(&phonemes, &folded[i]);
            }
            out.push(Spoken {
                text: word.text.to_string(),
                phonemes,
                before: word.before.to_string(),
                after: word.after.to_string(),
                origin,
            });
        }
        out.reverse();
        Ok(out)
    }

    /// Words and marks in one row, tagged; the tags of the words.
    fn tags(&self, words: &[Word<'_>], folded: &[Cow<'_, str>]) -> Vec<Tag> {
        let mut shapes = Vec::with_capacity(2 * words.len());
        let mut places = Vec::with_capacity(words.len());
        let mut buffer = [0u8; 4];
        for (word, text) in words.iter().zip(folded) {
            for c in word.before.chars() {
                shapes.push(Shape::new(c.encode_utf8(&mut buffer)));
            }
            places.push(shapes.len());
            shapes.push(Shape::new(text));
            for c in word.after.chars().filter(|c| *c != ' ') {
                shapes.push(Shape::new(c.encode_utf8(&mut buffer)));
            }
        }
        let tags = self.lexicon.tags(&shapes);
        places.into_iter().map(|i| tags[i]).collect()
    }

    fn by_user(&self, word: &str, lower: &str) -> Option<String> {
        for list in self.user.iter().rev() {
            let find = |w: &str, l: &str| list.get(w).or_else(|| list.get(l)).cloned();
            if let Some(found) = find(word, lower) {
                return Some(found);
            }
            if let (Some(w), Some(l)) = (word.strip_suffix("'s"), lower.strip_suffix("'s"))
                && let Some(found) = find(w, l)
            {
                return Some(morphology::with_s(&found, self.is_british()));
            }
        }
        None
    }
}
