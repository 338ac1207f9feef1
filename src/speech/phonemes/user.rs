//! Pronunciations that a user wants.

use std::collections::HashMap;

use super::from_ipa;
use super::text::fold;
use crate::{Error, ErrorKind, Result};

/// How a word is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// IPA, checked.
    Ipa(String),
    /// In other words.
    Respelt(String),
}

/// A list of words and how to say them.
///
/// One entry a line: the word, a tab, then its pronunciation, in IPA or respelt in ordinary
/// words: `nginx<TAB>engine x`. It is IPA if it stands between slashes (`/ɡɪf/`) or has any
/// character that is not ASCII (`ɡɪf`). Empty lines and lines that begin with `#` are passed
/// over; of two entries for a word the later one counts. A word in lower case stands for all
/// its spellings, one that begins with a capital (`Siobhan`) for itself and, unless that has an
/// entry too, for the word in lower case, one with other capitals (`GIF`) for exactly itself.
/// Possessives (`nginx's`) follow.
#[derive(Debug, Clone, Default)]
pub struct UserLexicon {
    entries: HashMap<String, Said>,
}

impl UserLexicon {
    /// Longest text that is taken, in bytes.
    pub const MAX_BYTES: usize = 4 << 20;

    /// Reads a text; `name` is what messages call it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] with the number of the line that has no tab, no word, more
    /// than one word, nothing to say, or symbols that are no IPA.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        if text.len() > Self::MAX_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{name} has {} bytes; a user's lexicon may have {}",
                    text.len(),
                    Self::MAX_BYTES
                ),
            ));
        }
        let mut entries = HashMap::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| {
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("{name}, line {}: {what}", number + 1),
                )
            };
            let Some((word, said)) = line.split_once('\t') else {
                return Err(wrong(
                    "no tab; write the word, a tab, and how to say it, as in nginx<TAB>engine x",
                ));
            };
            let word = fold(word.trim()).into_owned();
            let said = said.trim();
            if word.is_empty() || !word.chars().any(char::is_alphanumeric) {
                return Err(wrong("no word before the tab"));
            }
            if word.contains(char::is_whitespace) {
                return Err(wrong("more than one word before the tab; give each its own line"));
            }
            let said = match said.strip_prefix('/').and_then(|s| s.strip_suffix('/')) {
                Some(ipa) => Said::Ipa(ipa.to_string()),
                None if said.is_ascii() || !said.chars().any(|c| !is_written(c)) => {
                    Said::Respelt(said.to_string())
                }
                None => Said::Ipa(said.to_string()),
            };
            match &said {
                Said::Ipa(ipa) => {
                    from_ipa(ipa, true).map_err(|e| wrong(&e.to_string()))?;
                }
                Said::Respelt(words) => {
                    if words.contains('\t') {
                        return Err(wrong("a second tab; an entry has two parts"));
                    }
                    if !words.chars().any(char::is_alphabetic) {
                        return Err(wrong("nothing to say behind the tab"));
                    }
                    if let Some(c) = words.chars().find(|&c| !is_written(c)) {
                        return Err(wrong(&format!(
                            "{c:?} cannot stand in a respelling; write it out in letters, or put IPA between slashes"
                        )));
                    }
                }
            }
            entries.insert(word, said);
        }
        Ok(Self { entries })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `word` is in the list, written just so.
    pub(super) fn has(&self, word: &str) -> bool {
        self.entries.contains_key(word)
    }

    /// All entries, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Said)> {
        self.entries.iter().map(|(word, said)| (word.as_str(), said))
    }
}

/// What a respelling may have.
fn is_written(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, ' ' | '\'' | '-' | ',' | '.')
}
