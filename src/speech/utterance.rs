//! What is spoken in one go.

use std::ops::Range;

/// Silence that a voice itself leaves between two utterances, in seconds: corpora are cut to
/// about 60 ms before and 140 ms behind the speech.
pub const OWN_SILENCE: f32 = 0.2;

/// What a stream speaks in one go, as its voice reads it:
/// [`Voice::utterance`](super::voice::Voice::utterance).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Utterance {
    /// Over the characters of the voice's vocabulary.
    pub text: String,
    /// Silence to the next utterance, in seconds, [`OWN_SILENCE`] included.
    pub pause_after: f32,
    /// Where it was written, in bytes of what was fed since the last flush; empty for text that
    /// was not fed.
    pub source: Range<usize>,
}

impl<T: Into<String>> From<T> for Utterance {
    fn from(text: T) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}
