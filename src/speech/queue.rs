//! Text on its way to a [`Stream`](super::stream::Stream): cut, written as the voice reads it,
//! and bounded.

use super::text::{self, TextFrontend};
use super::utterance::Utterance;
use super::voice::Voice;
use crate::{Error, ErrorKind, Result};
use std::collections::VecDeque;

/// What a byte of text takes at most while it waits, by then as words: "%" is nine letters.
pub(super) const TEXT_GROWTH: usize = 24;
/// What the front end needs for one part of a text.
pub(super) const TEXT_PASS: usize = 1 << 20;

/// Text goes to the front end word by word, so that every way to cut it gives the same
/// sentences, and in parts no longer than this, which bounds what it needs at a time.
const PART: usize = 1024;

/// Text on its way in.
pub(super) struct Queue {
    /// Says how chunks are written.
    voice: Voice,
    rate: f32,
    frontend: TextFrontend,
    max: usize,
    /// The beginning of a character whose rest has not come.
    partial: Vec<u8>,
    /// Fed since the front end last gave something, or was flushed.
    held: usize,
    utterances: VecDeque<Utterance>,
    queued: usize,
    epoch: usize,
    /// Whether a cancellation dropped something and the reader was not told yet.
    pub(super) dropped: bool,
    pub(super) replaced: u64,
    pub(super) unspeakable: u64,
}

impl Queue {
    pub(super) fn new(voice: &Voice, rate: f32, text: text::Options, max: usize) -> Result<Self> {
        Ok(Self {
            voice: voice.clone(),
            rate,
            frontend: TextFrontend::new(text)?,
            max,
            partial: Vec::new(),
            held: 0,
            utterances: VecDeque::new(),
            queued: 0,
            epoch: 0,
            dropped: false,
            replaced: 0,
            unspeakable: 0,
        })
    }

    /// Empty, for another speaker.
    pub(super) fn restart(&mut self, voice: &Voice) {
        self.clear();
        self.voice = voice.clone();
        (self.dropped, self.replaced, self.unspeakable) = (false, 0, 0);
    }

    /// Drops what was fed before the cancellation `epoch`.
    pub(super) fn sync(&mut self, epoch: usize) {
        if self.epoch == epoch {
            return;
        }
        self.epoch = epoch;
        self.dropped |= !self.utterances.is_empty() || self.held > 0 || !self.partial.is_empty();
        self.clear();
    }

    pub(super) fn clear(&mut self) {
        // What could be wrong in it is dropped with it.
        let _ = self.frontend.flush();
        self.frontend.take_report();
        self.partial.clear();
        self.utterances.clear();
        (self.held, self.queued) = (0, 0);
    }

    pub(super) fn room_for(&self, bytes: usize) -> Result<()> {
        let held = self.held.min(TextFrontend::MAX_PENDING);
        let used = self.queued + held + self.partial.len();
        if bytes <= self.max - used.min(self.max) {
            return Ok(());
        }
        let what = format!(
            "{} bytes of text wait and max_text is {}: read first, or feed less at a time",
            used + bytes,
            self.max
        );
        Err(Error::new(ErrorKind::Full, what))
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.room_for(bytes.len())?;
        let joined;
        let mut all = bytes;
        if !self.partial.is_empty() {
            joined = [&self.partial, bytes].concat();
            all = &joined;
        }
        let whole = match std::str::from_utf8(all) {
            // The last character is incomplete: its rest may come.
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            _ => all.len(),
        };
        let (all, partial) = all.split_at(whole);
        self.partial = partial.to_vec();
        let mut rest = text::utf8(all)?;
        while !rest.is_empty() {
            let ends = |&(_, c): &(usize, char)| text::may_end_sentence(c);
            let cut = match rest.char_indices().take(PART / 4).find(ends) {
                Some((at, c)) => at + c.len_utf8(),
                None => rest.char_indices().nth(PART / 4).map_or(rest.len(), |(at, _)| at),
            };
            let (part, after) = rest.split_at(cut);
            // A wrong document is dropped by the front end.
            let chunks = self.frontend.feed(part).inspect_err(|_| self.held = 0)?;
            self.held = match chunks.is_empty() {
                true => self.held + cut,
                false => cut.min(TextFrontend::MAX_PENDING),
            };
            self.take(chunks)?;
            rest = after;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.held = 0;
        let chunks = self.frontend.flush().inspect_err(|_| self.partial.clear())?;
        self.take(chunks)?;
        if self.partial.is_empty() {
            return Ok(());
        }
        self.partial.clear();
        let what = "the text ends inside a character: it is cut short or not UTF-8";
        Err(Error::new(ErrorKind::InvalidText, what))
    }

    fn take(&mut self, chunks: Vec<text::Chunk>) -> Result<()> {
        let report = self.frontend.take_report();
        self.replaced += report.replaced.len() as u64;
        self.unspeakable += report.unspeakable.len() as u64;
        for c in chunks {
            let mut utterance = self.voice.utterance(&c, self.rate)?;
            utterance.text.shrink_to_fit();
            self.enqueue(utterance);
        }
        Ok(())
    }

    pub(super) fn enqueue(&mut self, utterance: Utterance) {
        self.queued += utterance.text.len();
        self.utterances.push_back(utterance);
    }

    pub(super) fn pop(&mut self) -> Option<Utterance> {
        let utterance = self.utterances.pop_front()?;
        self.queued -= utterance.text.len();
        Some(utterance)
    }
}
