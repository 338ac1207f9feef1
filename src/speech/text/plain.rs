//! What markup leaves: plain text, where each part of it came from, and what is no text.

use std::borrow::Cow;
use std::ops::Range;

use super::Replacement;

/// What markup is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Markup {
    /// What is unmistakable: an SSML document, Markdown's links, images, headings, tables and
    /// bold words, HTML's tags and named characters.
    #[default]
    Auto,
    /// None: every character is text.
    None,
    /// Markdown (CommonMark with tables, task lists and crossed-out text) and the HTML in it.
    Markdown,
    /// SSML: one `<speak>` document.
    Ssml,
}

/// From places in a text made of another to places in that other, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Map(Vec<(usize, usize)>);

impl Map {
    /// From `made` on, the text is that of `source` on. Both never fall.
    pub(super) fn push(&mut self, made: usize, source: usize) {
        match self.0.last_mut() {
            Some(last) if made.wrapping_sub(last.0) == source.wrapping_sub(last.1) => {}
            Some(last) if last.0 == made => last.1 = source,
            None if made == source => {}
            _ => self.0.push((made, source)),
        }
    }

    /// The place in the source.
    pub(super) fn at(&self, made: usize) -> usize {
        let next = self.0.partition_point(|e| e.0 <= made);
        let (from, source) = match next.checked_sub(1) {
            Some(i) => self.0[i],
            None => (0, 0),
        };
        let place = source + (made - from);
        self.0.get(next).map_or(place, |n| place.min(n.1))
    }
}

/// Longer pauses than a mark's, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Gap {
    #[default]
    None,
    /// The end of a line or list item.
    Item,
    Paragraph,
    Heading,
}

/// What stands between the words without being text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    /// An end of a sentence that the text does not mark.
    End(Gap),
    /// Silence, in seconds.
    Pause(f32),
    /// Speed from here on, 1 as the voice speaks by itself.
    Rate(f32),
    /// Words as they are said, a comma behind one where a pause is.
    Say(String),
    /// Text with its pronunciation.
    Phonemes { ipa: String, text: String },
}

/// The character that stands for an object in the plain text.
pub(super) const OBJECT: char = '\u{fffc}';

/// Text without markup.
#[derive(Debug, Default)]
pub(super) struct Plain<'a> {
    pub text: Cow<'a, str>,
    pub map: Map,
    /// The objects and where [`OBJECT`] stands for them in `text`, in order.
    pub objects: Vec<(usize, Object)>,
    /// Where each object was written.
    pub written: Vec<Range<usize>>,
    /// What the markup replaced.
    pub notes: Vec<Replacement>,
}

impl<'a> Plain<'a> {
    /// A text without markup.
    pub(super) fn bare(text: &'a str) -> Self {
        Self { text: Cow::Borrowed(text), ..Self::default() }
    }

    /// Adds text that stands in the source from `at` on.
    pub(super) fn push(&mut self, text: &str, at: usize) {
        let made = self.text.to_mut();
        self.map.push(made.len(), at);
        made.push_str(text);
    }

    /// Adds an object that stands at `place` in the source.
    pub(super) fn object(&mut self, object: Object, place: Range<usize>) {
        let made = self.text.to_mut();
        if matches!(object, Object::Say(_) | Object::Phonemes { .. })
            && made.ends_with(char::is_alphanumeric)
        {
            made.push(' ');
        }
        self.map.push(made.len(), place.start);
        self.objects.push((made.len(), object));
        self.written.push(place.clone());
        made.push(OBJECT);
        self.map.push(made.len(), place.end);
    }

    /// Ends the map: the source is so long.
    pub(super) fn close(&mut self, length: usize) {
        self.map.push(self.text.len(), length);
    }
}
