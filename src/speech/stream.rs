//! Text in, samples out, each as it comes: the one speaking loop of the program, the C
//! interface and whoever embeds the library.
//!
//! A [`Stream`] belongs to whoever reads; its [`Handle`]s, of which there may be any number on
//! any thread, feed it and cancel. In between there is a queue of bounded size.
//!
//! ```
//! # #[cfg(feature = "engine")]
//! # fn main() -> voxgrain::Result<()> {
//! use voxgrain::{Options, Stream, Voice};
//!
//! let voice = Voice::open("models/tiny")?;
//! let mut stream = Stream::new(&voice, &Options::for_voice(&voice))?;
//! stream.feed("Text may come in par")?;
//! stream.feed("ts. And ends where it is flushed")?;
//! stream.flush()?;
//! let mut samples = 0;
//! while let Some(pcm) = stream.next_pcm()? {
//!     samples += pcm.len();
//! }
//! assert!(samples > 0 && samples as u64 == stream.stats().samples);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "engine"))]
//! # fn main() {}
//! ```

use super::queue::{Queue, TEXT_GROWTH, TEXT_PASS};
use super::synth::{CODEC_TOKENS, SpeechStats, Synthesizer};
use super::text::{self, TextFrontend};
pub use super::utterance::{OWN_SILENCE, Utterance};
pub use super::voice::default_threads;
use super::voice::{Voice, VoiceMemory, within};
use super::wav::to_i16;
use crate::core::Emission;
use crate::decode::{self, Arm, MAX_GAMMA, PREFILL_ROWS};
use crate::engine::{Model, Pool};
use crate::{Error, ErrorKind, Result, bundle, kernel};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What a [`Stream`] speaks like and what it may take.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Options {
    /// Acceptance rule, draft length, sampling and seed.
    pub decode: decode::Options,
    /// How the text is cut into utterances.
    pub text: text::Options,
    /// Times the voice's natural speed, within [`Voice::check_rate`]; the voice takes the
    /// nearest of the tempos that it knows.
    pub rate: f32,
    /// Threads that compute, the reader's own included; within 1..=[`Options::MAX_THREADS`].
    pub threads: usize,
    /// Longest context, prompt included, in tokens; what is longer is cut there. More than
    /// the voice's is the voice's.
    pub max_positions: usize,
    /// Bytes of text that may wait to be spoken; within
    /// [`Options::MIN_TEXT`]`..=`[`Options::MAX_TEXT`].
    pub max_text: usize,
    /// Bytes that the voice and the stream may take together, see [`Memory`].
    pub max_memory: Option<u64>,
}

impl Options {
    /// Most threads.
    pub const MAX_THREADS: usize = 64;
    /// The smallest queue of text: what the front end holds back has to fit twice.
    pub const MIN_TEXT: usize = 2 * TextFrontend::MAX_PENDING;
    /// The largest queue of text.
    pub const MAX_TEXT: usize = 1 << 24;

    /// Every default for this voice and its speaker: the arm by [`Voice::default_arm`], the
    /// voice's own sampling and draft length, seed 0, [`default_threads`], 64 KiB of text and
    /// no budget. For a voice that reads letters the names of letters are written as words,
    /// because a lone letter is mostly misread; a voice that reads phonemes needs none of it.
    pub fn for_voice(voice: &Voice) -> Self {
        let respelling = match voice.phonemizer() {
            Some(_) => text::Respelling::None,
            None => text::Respelling::Letters,
        };
        Self {
            decode: voice.options(voice.default_arm(Emission::StandIn)),
            text: text::Options { respelling, ..text::Options::default() },
            rate: 1.0,
            threads: default_threads(),
            max_positions: voice.max_positions(),
            max_text: 1 << 16,
            max_memory: None,
        }
    }

    /// The threads: for several streams, or for a [`Synthesizer`].
    pub fn pool(&self) -> Arc<Pool> {
        Pool::new(kernel::best(), self.threads)
    }

    /// Whether the options make sense for `voice`; the number of positions in force.
    fn check(&self, voice: &Voice) -> Result<usize> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        self.decode.sampling.check()?;
        TextFrontend::new(self.text)?;
        voice.check_rate(self.rate)?;
        let positions = self.max_positions.min(voice.max_positions());
        let max_chars = self.text.max_chars;
        // A prompt is the characters between two marks, and something has to follow it. Phonemes
        // are about as many as letters; a stretch with more than fit is refused when it is spoken.
        let least = max_chars + 2 + 16;
        if positions < least {
            return bad(format!(
                "a context of {positions} does not hold a stretch of {max_chars} characters; \
                 it takes {least}: raise max_positions or lower max_chars"
            ));
        }
        if !(1..=Self::MAX_THREADS).contains(&self.threads) {
            return bad(format!(
                "{} threads are not within 1..={}",
                self.threads,
                Self::MAX_THREADS
            ));
        }
        if !(Self::MIN_TEXT..=Self::MAX_TEXT).contains(&self.max_text) {
            return bad(format!(
                "max_text {} is not within {}..={}",
                self.max_text,
                Self::MIN_TEXT,
                Self::MAX_TEXT
            ));
        }
        Ok(positions)
    }

    /// What a stream with these options would take, without making one; the budget is not
    /// looked at.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of range.
    pub fn memory(&self, voice: &Voice) -> Result<Memory> {
        let n = self.check(voice)?;
        let (target, draft, codec) = (voice.target(), voice.draft(), voice.codec());
        let b = voice.bundle();
        let state = target.state_bytes(n) + draft.state_bytes(n) + codec.state_bytes(0);
        let gamma = match self.decode.arm {
            Arm::Ar => 0,
            _ => self.decode.gamma.most().min(MAX_GAMMA),
        };
        let rows = gamma + 1;
        let row = b.vocabulary.scored() * 4;
        let probabilities = rows * (row + row / 128) + (64 << 10);
        // Prompts go through in passes of many rows, rounds want the laws of all of theirs.
        let language = |m: &Model, wanted| {
            m.pass_bytes(PREFILL_ROWS, 1).max(m.pass_bytes(rows, wanted))
                + wanted * 4 * m.output_columns()
        };
        let codec_rows = rows + CODEC_TOKENS;
        let passes =
            language(target, rows) + language(draft, 1) + codec.pass_bytes(codec_rows, codec_rows);
        // What one product reads and writes: two gates, the residual stream, factors of a head.
        let widest = |m: &bundle::LanguageModel| 2 * m.ffn + m.hidden + kernel::FACTORS;
        let products = Pool::work_bytes(PREFILL_ROWS, widest(&b.target).max(widest(&b.draft)), n);
        let samples =
            (codec_rows + 2) * b.audio.samples_per_frame() + 8 * b.audio.fft_size as usize;
        let text = TEXT_GROWTH * self.max_text + TEXT_PASS;
        let work = probabilities + passes + products + 8 * samples + text;
        Ok(Memory { voice: voice.memory(), state: state as u64, work: work as u64 })
    }
}

/// Upper bounds, in bytes, of what a [`Stream`] and its voice take; tests hold them against an
/// allocator that counts. The code itself, stacks and the allocator's own are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The voice, which streams may share.
    pub voice: VoiceMemory,
    /// Caches of the whole context.
    pub state: u64,
    /// Probabilities, intermediate results, text, samples.
    pub work: u64,
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.voice.total() + self.state + self.work
    }
}

/// Totals of a [`Stream`], as of its last step.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Threads that compute.
    pub threads: usize,
    /// What was spoken, without the silences between utterances.
    pub speech: SpeechStats,
    /// Samples that were given out or are ready, silences included.
    pub samples: u64,
    /// Utterances that were begun.
    pub begun: u64,
    /// Of the latest one: how many samples came before its first.
    pub begin: u64,
    /// Of the latest one: where it was written, see [`Utterance::source`].
    pub source: (usize, usize),
    /// Utterances that were broken off.
    pub cancelled: u64,
    /// Pieces of text that were said differently from how they are written.
    pub replaced: u64,
    /// Pieces of text that were left out.
    pub unspeakable: u64,
    /// From the start of the latest utterance to its first samples.
    pub first_audio: Duration,
    /// The longest that a reader has waited for one step.
    pub longest_round: Duration,
}

/// What [`Stream::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: all that was fed, and is known to be complete, has been spoken.
    Idle,
    /// The pass over an utterance's prompt.
    Prompt,
    /// A round of decoding, and the codec over what it has so far.
    Round,
}

/// Feeds a [`Stream`] and cancels it, from any thread. Clones are of the same stream.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// The queue and the totals are locked in this order and for moments only.
struct Shared {
    /// Raised by every cancellation. What was fed before the latest is not spoken. Read while
    /// the queue is locked: so nobody who holds the lock knows an older one than the last.
    epoch: AtomicUsize,
    queue: Mutex<Queue>,
    stats: Mutex<Stats>,
    memory: Memory,
}

/// What a panic on another thread left half done is not used again.
fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| {
        let what = "an earlier call met a bug in voxgrain: drop this stream and make another";
        Error::new(ErrorKind::Internal, what)
    })
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// The queue, without what a cancellation dropped from it.
    fn queue(&self) -> Result<(MutexGuard<'_, Queue>, usize)> {
        let mut queue = lock(&self.shared.queue)?;
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        queue.sync(epoch);
        Ok((queue, epoch))
    }

    /// Adds text, `str` or the bytes of one, behind what was fed before. A sentence is spoken
    /// when its end is certain; the parts may be cut anywhere, within a character too, and
    /// every cut gives the same speech.
    ///
    /// # Errors
    /// `Full` if more would wait than `max_text`, `InvalidText` if it is not UTF-8; nothing
    /// is taken then, and a character that was begun is given up.
    pub fn feed(&self, text: impl AsRef<[u8]>) -> Result<()> {
        self.queue()?.0.feed(text.as_ref())
    }

    /// Ends the text: what was fed and is not yet complete is taken as it is.
    ///
    /// # Errors
    /// `InvalidText` if the text ends inside a character; what was whole is spoken.
    pub fn flush(&self) -> Result<()> {
        self.queue()?.0.flush()
    }

    /// Adds one utterance that the caller made, by [`Voice::utterance`] or in the voice's own
    /// characters, behind all that is complete.
    ///
    /// # Errors
    /// `Full`, as for [`feed`](Self::feed).
    pub fn push(&self, utterance: impl Into<Utterance>) -> Result<()> {
        let mut queue = self.queue()?.0;
        let utterance = utterance.into();
        queue.room_for(utterance.text.len())?;
        queue.enqueue(utterance);
        Ok(())
    }

    /// Drops all that was fed so far: what is being spoken ends after the step that is running,
    /// whoever reads gets an error of kind `Cancelled`, and new text can be fed at once.
    /// Nothing happens if there is nothing to drop. It only adds to an atomic counter, so it
    /// may be called from a signal handler.
    pub fn cancel(&self) {
        self.shared.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Totals as of the last step.
    ///
    /// # Errors
    /// `Internal` after a panic.
    pub fn stats(&self) -> Result<Stats> {
        let queue = lock(&self.shared.queue)?;
        let (replaced, unspeakable) = (queue.replaced, queue.unspeakable);
        drop(queue);
        Ok(Stats { replaced, unspeakable, ..*lock(&self.shared.stats)? })
    }

    /// Upper bounds of what the stream and its voice take.
    pub fn memory(&self) -> Memory {
        self.shared.memory
    }
}

/// Speaks what it is fed; see the [module](self). The reader's side: one thread at a time,
/// which may change from call to call.
pub struct Stream {
    handle: Handle,
    synthesizer: Synthesizer,
    /// Samples of the last step, given out up to `at`.
    pcm: Vec<f32>,
    at: usize,
    speaking: bool,
    /// Samples of silence before the next utterance.
    silence: usize,
    /// Of the text being spoken.
    epoch: usize,
    started: Instant,
    heard: bool,
    stats: Stats,
}

/// What a reader finds.
enum Found {
    Samples,
    /// The queue has been spoken.
    Nothing,
    /// What was being spoken or waited is gone.
    Cancelled,
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled")
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.synthesizer)
    }
}

impl Stream {
    /// A stream with threads of its own.
    ///
    /// # Errors
    /// - `InvalidArgument`: an option is out of range, or the arm needs a group index that the
    ///   voice has not.
    /// - `Memory`: [`Options::memory`] exceeds the budget, or the system refuses so much;
    ///   nothing was made then.
    pub fn new(voice: &Voice, options: &Options) -> Result<Self> {
        let memory = options.memory(voice)?;
        within(options.max_memory, memory.total(), "the voice and what speaks with it")?;
        // A system that refuses memory outright is asked first: later it would be too late.
        let own = usize::try_from(memory.state + memory.work).unwrap_or(usize::MAX);
        if Vec::<u8>::new().try_reserve_exact(own).is_err() {
            let what = format!("the system does not give {own} bytes");
            return Err(Error::new(ErrorKind::Memory, what));
        }
        Self::with_pool(voice, options, &options.pool())
    }

    /// The same on threads that are there already, `options.threads` or not, and without
    /// asking the system for the memory first.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_pool(voice: &Voice, options: &Options, pool: &Arc<Pool>) -> Result<Self> {
        let positions = options.check(voice)?;
        let memory = options.memory(voice)?;
        within(options.max_memory, memory.total(), "the voice and what speaks with it")?;
        let synthesizer = Synthesizer::with_positions(voice, options.decode, pool, positions)?;
        let stats = Stats { threads: pool.threads(), ..Stats::default() };
        let queue = Queue::new(voice, options.rate, options.text, options.max_text)?;
        let shared = Shared {
            epoch: AtomicUsize::new(0),
            queue: Mutex::new(queue),
            stats: Mutex::new(stats),
            memory,
        };
        Ok(Self {
            handle: Handle { shared: Arc::new(shared) },
            synthesizer,
            pcm: Vec::new(),
            at: 0,
            speaking: false,
            silence: 0,
            epoch: 0,
            started: Instant::now(),
            heard: false,
            stats,
        })
    }

    /// Feeds and cancels from other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// [`Handle::feed`].
    ///
    /// # Errors
    /// As there.
    pub fn feed(&self, text: impl AsRef<[u8]>) -> Result<()> {
        self.handle.feed(text)
    }

    /// [`Handle::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&self) -> Result<()> {
        self.handle.flush()
    }

    /// [`Handle::push`].
    ///
    /// # Errors
    /// As there.
    pub fn push(&self, utterance: impl Into<Utterance>) -> Result<()> {
        self.handle.push(utterance)
    }

    /// [`Handle::cancel`].
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// [`Handle::stats`], up to date.
    pub fn stats(&self) -> Stats {
        let now = self.totals();
        self.handle.stats().map_or(now, |s| Stats {
            replaced: s.replaced,
            unspeakable: s.unspeakable,
            ..now
        })
    }

    /// [`Handle::memory`].
    pub fn memory(&self) -> Memory {
        self.handle.memory()
    }

    /// What speaks: its voice's tokens and totals.
    pub fn synthesizer(&self) -> &Synthesizer {
        &self.synthesizer
    }

    /// Writes up to `pcm.len()` samples, -1..=1 or a little beyond, and returns how many: at
    /// least one, or 0 where all that is complete has been spoken. Runs as few steps as it
    /// takes to have a sample: usually one, at the start of an utterance the prompt and a few.
    ///
    /// # Errors
    /// - `Cancelled`: what was fed before [`cancel`](Self::cancel) is dropped; go on with new
    ///   text.
    /// - `InvalidArgument` if `pcm` has no room.
    /// - Others end the utterance; the next call goes on with the next one.
    pub fn read(&mut self, pcm: &mut [f32]) -> Result<usize> {
        self.read_as(pcm, |x| x)
    }

    /// The same in 16 bits, rounded and limited.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_i16(&mut self, pcm: &mut [i16]) -> Result<usize> {
        self.read_as(pcm, to_i16)
    }

    fn read_as<T>(&mut self, out: &mut [T], convert: impl Fn(f32) -> T) -> Result<usize> {
        if out.is_empty() {
            let what = "capacity is 0: there must be room for a sample";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        match self.advance()? {
            Found::Samples => {}
            Found::Nothing => return Ok(0),
            Found::Cancelled => return Err(cancelled()),
        }
        let n = out.len().min(self.pcm.len() - self.at);
        for (o, x) in out.iter_mut().zip(&self.pcm[self.at..]) {
            *o = convert(*x);
        }
        self.at += n;
        Ok(n)
    }

    /// The next samples, all that a step gave; `None` where all that is complete has been
    /// spoken.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn next_pcm(&mut self) -> Result<Option<&[f32]>> {
        match self.advance()? {
            Found::Samples => Ok(Some(self.take())),
            Found::Nothing => Ok(None),
            Found::Cancelled => Err(cancelled()),
        }
    }

    /// Samples of silence that will come before the next utterance: what is left of its
    /// predecessor's pause beside the silence that a voice itself leaves.
    pub fn silence(&self) -> usize {
        self.silence
    }

    /// Samples that are there without another step, and with that given out.
    pub fn take(&mut self) -> &[f32] {
        let from = std::mem::replace(&mut self.at, self.pcm.len());
        &self.pcm[from..]
    }

    /// One step, for whoever wants to look at the clock in between. Its samples are there for
    /// [`take`](Self::take), behind those that were not taken yet.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn step(&mut self) -> Result<Step> {
        match self.look()? {
            Some(next) => self.work(next),
            None => Err(cancelled()),
        }
    }

    /// Feeds `text`, flushes, and hands everything that waits to `sink` step by step until
    /// there is no more. Without text it speaks what was fed before. If it is broken off, by the
    /// sink or by an error while speaking, the rest is dropped.
    ///
    /// # Errors
    /// - `InvalidText` if there is nothing to speak in `text`, `Full` as for
    ///   [`feed`](Self::feed).
    /// - `Cancelled` if the sink or a [`Handle`] asked for it.
    pub fn speak(
        &mut self,
        text: impl AsRef<[u8]>,
        mut sink: impl FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<()> {
        let text = text.as_ref();
        if !text.is_empty() {
            self.feed(text)?;
        }
        let mut any = text.is_empty();
        let mut run = || {
            self.flush()?;
            loop {
                match self.advance()? {
                    Found::Samples => any = true,
                    end => return Ok(end),
                }
                if sink(self.take()).is_break() {
                    return Err(Error::new(ErrorKind::Cancelled, "the callback asked to stop"));
                }
            }
        };
        match run() {
            // What was fed after the cancellation stays.
            Ok(Found::Cancelled) => Err(cancelled()),
            Ok(_) if any => Ok(()),
            Ok(_) => {
                let what = "there is nothing to speak in this text";
                Err(Error::new(ErrorKind::InvalidText, what))
            }
            Err(e) => {
                self.drop_all()?;
                Err(e)
            }
        }
    }

    /// Steps until there are samples in `pcm` from `at` on.
    fn advance(&mut self) -> Result<Found> {
        loop {
            let Some(next) = self.look()? else { return Ok(Found::Cancelled) };
            if self.at < self.pcm.len() {
                return Ok(Found::Samples);
            }
            if self.work(next)? == Step::Idle {
                return Ok(Found::Nothing);
            }
        }
    }

    /// The text to begin with, if it is time to begin; `None` after a cancellation.
    fn look(&mut self) -> Result<Option<Option<Utterance>>> {
        let busy = self.speaking || self.at < self.pcm.len();
        let (mut queue, epoch) = self.handle.queue()?;
        let dropped = std::mem::take(&mut queue.dropped) || (busy && self.epoch != epoch);
        if self.epoch != epoch {
            // What it was to stand apart from is gone.
            self.silence = 0;
        }
        self.epoch = epoch;
        // Under the same lock: what is taken now is of this epoch.
        let next = if busy || dropped { None } else { queue.pop() };
        drop(queue);
        if dropped {
            self.stop();
            self.publish()?;
            return Ok(None);
        }
        Ok(Some(next))
    }

    fn work(&mut self, next: Option<Utterance>) -> Result<Step> {
        if self.at == self.pcm.len() {
            self.pcm.clear();
            self.at = 0;
        }
        let clock = Instant::now();
        let before = self.pcm.len();
        let step = match next {
            Some(Utterance { text, pause_after, source }) => {
                (self.started, self.heard) = (clock, false);
                self.synthesizer.begin(&text)?;
                self.pcm.resize(before + self.silence, 0.0);
                self.stats.begun += 1;
                self.stats.begin = self.stats.samples + self.silence as u64;
                self.stats.source = (source.start, source.end);
                let rate = self.synthesizer.voice().bundle().audio.sample_rate_hz;
                let silence = (pause_after - OWN_SILENCE).clamp(0.0, text::Pauses::MAX);
                self.silence = (silence * rate as f32).round() as usize;
                self.speaking = true;
                Step::Prompt
            }
            None if self.speaking => {
                // An error ends the utterance.
                self.speaking = false;
                self.synthesizer.next_into(&mut self.pcm)?;
                self.speaking = self.synthesizer.is_speaking();
                Step::Round
            }
            None => return Ok(Step::Idle),
        };
        self.stats.samples += (self.pcm.len() - before) as u64;
        self.stats.longest_round = self.stats.longest_round.max(clock.elapsed());
        if !self.heard && step == Step::Round && self.pcm.len() > before {
            self.heard = true;
            self.stats.first_audio = self.started.elapsed();
        }
        self.publish()?;
        Ok(step)
    }

    /// Breaks off, if there is anything to break off.
    fn stop(&mut self) {
        let left = self.pcm.len() - self.at;
        self.stats.cancelled += (self.speaking || left > 0) as u64;
        self.stats.samples -= left as u64;
        self.speaking = false;
        self.silence = 0;
        self.pcm.clear();
        self.at = 0;
    }

    /// Drops everything, as the reader itself.
    fn drop_all(&mut self) -> Result<()> {
        self.stop();
        let mut queue = self.handle.queue()?.0;
        queue.clear();
        queue.dropped = false;
        drop(queue);
        self.publish()
    }

    fn totals(&self) -> Stats {
        Stats { speech: self.synthesizer.stats(), ..self.stats }
    }

    fn publish(&self) -> Result<()> {
        *lock(&self.handle.shared.stats)? = self.totals();
        Ok(())
    }
}
