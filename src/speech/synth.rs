//! From text to samples: a voice at work.

use super::codec::CodecDecoder;
pub use super::voice::Voice;
use crate::asg::Index;
use crate::decode::{Arm, Options, RoundEnd, SpecStats, Speculator};
use crate::engine::{Pool, Session};
use crate::map::Map;
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Totals of one [`Synthesizer`].
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SpeechStats {
    /// Utterances spoken to their end.
    pub utterances: u64,
    /// Utterances that met the length limit before the end token.
    pub cut: u64,
    /// Speech tokens.
    pub tokens: u64,
    /// PCM samples.
    pub samples: u64,
    /// Time spent in models, sampling and codec; waiting for a consumer is not in it.
    pub compute: Duration,
    /// Of that, the codec's.
    pub codec: Duration,
    /// From the start of the first utterance to its first samples.
    pub first_audio: Option<Duration>,
    /// The decoding loop's counters.
    pub spec: SpecStats,
}

/// One utterance at a time, from the text front end's chunks to PCM.
///
/// ```
/// use voxgrain::{Options, Synthesizer, Voice};
/// let voice = Voice::open("models/tiny")?;
/// let options = Options::for_voice(&voice);
/// let mut synthesizer = Synthesizer::new(&voice, options.decode, &options.pool())?;
/// let mut samples = 0;
/// for pcm in synthesizer.speak("good morning.")? {
///     samples += pcm?.len();
/// }
/// assert_eq!(samples, synthesizer.tokens().len() * voice.bundle().audio.samples_per_frame());
/// # Ok::<(), voxgrain::Error>(())
/// ```
pub struct Synthesizer {
    voice: Voice,
    speculator: Speculator<Session, Option<Session>, Index<Map>>,
    codec: CodecDecoder,
    stats: SpeechStats,
    tokens: Vec<u32>,
    limit: usize,
    spoken: usize,
    done: bool,
    started: Instant,
    /// When the utterance's first samples were ready, and how many there are by now.
    sounding: Option<Instant>,
    sounded: usize,
}

/// Tokens that the codec decodes at once where the sound is far enough ahead: its weights
/// are then read once for all of them.
pub(crate) const CODEC_TOKENS: usize = 6;
/// How far ahead of a player's clock that is.
const LEAD: Duration = Duration::from_millis(120);

impl std::fmt::Debug for Synthesizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Synthesizer({:?})", self.voice.bundle().name)
    }
}

impl Synthesizer {
    /// Sessions of the voice's models on `pool`.
    ///
    /// # Errors
    /// As [`Speculator::new`].
    pub fn new(voice: &Voice, options: Options, pool: &Arc<Pool>) -> Result<Self> {
        Self::with_positions(voice, options, pool, usize::MAX)
    }

    /// The same with contexts of at most `positions`, prompt included: what is longer is cut
    /// there. The caches are as large as that, so this bounds the memory.
    pub fn with_positions(
        voice: &Voice,
        options: Options,
        pool: &Arc<Pool>,
        positions: usize,
    ) -> Result<Self> {
        let target = Session::with_positions(voice.target(), pool, positions)?;
        // Plain decoding needs no caches of a draft.
        let draft = voice.draft().filter(|_| options.arm != Arm::Ar);
        let draft = draft.map(|d| Session::with_positions(d, pool, positions)).transpose()?;
        let speculator = Speculator::new(target, draft, voice.groups().cloned(), options)?;
        // Speech goes on where the reference ends, for the codec too.
        let reference = voice.reference().map_or(&[][..], |r| &r.codes);
        let (audio, decoder) = (&voice.bundle().audio, &voice.bundle().codec);
        let codec = CodecDecoder::with_reference(voice.codec(), pool, audio, decoder, reference)?;
        Ok(Self {
            voice: voice.clone(),
            speculator,
            codec,
            stats: SpeechStats::default(),
            tokens: Vec::new(),
            limit: 0,
            spoken: 0,
            done: true,
            started: Instant::now(),
            sounding: None,
            sounded: 0,
        })
    }

    /// As if it had just been made with this seed, as another speaker of its bundle if `voice`
    /// is one, with the memory that it has.
    ///
    /// # Errors
    /// `InvalidArgument` if `voice` is of another bundle; nothing is changed then.
    pub fn restart(&mut self, voice: &Voice, seed: u64) -> Result<()> {
        let models = |v: &Voice| [Some(v.target()), v.draft()].map(|m| m.map(Arc::as_ptr));
        // The codec has heard the codes of a reference voice.
        let reference = |v: &Voice| v.reference().map(|r| r.codes.clone());
        if models(voice) != models(&self.voice) || reference(voice) != reference(&self.voice) {
            let what = "a synthesizer goes on with speakers of its own bundle alone: make another";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.voice = voice.clone();
        self.speculator.restart(seed);
        self.codec.reset();
        self.stats = SpeechStats::default();
        self.tokens.clear();
        (self.limit, self.spoken, self.done) = (0, 0, true);
        (self.sounding, self.sounded) = (None, 0);
        Ok(())
    }

    /// Begins to speak one chunk of the text front end; whatever was being spoken ends.
    /// The samples come from the iterator, or from [`Speaking::next_into`] without
    /// allocation.
    pub fn speak(&mut self, text: &str) -> Result<Speaking<'_>> {
        self.begin(text)?;
        Ok(Speaking { synthesizer: self })
    }

    /// [`speak`](Self::speak) for callers that keep the synthesizer themselves and go on
    /// with [`next_into`](Self::next_into).
    pub fn begin(&mut self, text: &str) -> Result<()> {
        self.done = true;
        self.started = Instant::now();
        let prompt = self.voice.prompt(text)?;
        self.limit = self.voice.limit_of(text, &prompt);
        self.speculator.start(&prompt)?;
        self.codec.reset();
        self.tokens.clear();
        self.spoken = 0;
        (self.sounding, self.sounded) = (None, 0);
        self.stats.compute += self.started.elapsed();
        self.done = false;
        Ok(())
    }

    /// Appends the samples of the next round to `pcm`; `false` once the utterance is over.
    pub fn next_into(&mut self, pcm: &mut Vec<f32>) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        // An error ends the utterance as well.
        self.done = true;
        self.done = !self.round(pcm)?;
        Ok(true)
    }

    /// The voice.
    pub fn voice(&self) -> &Voice {
        &self.voice
    }

    /// Totals so far.
    pub fn stats(&self) -> SpeechStats {
        SpeechStats { spec: *self.speculator.stats(), ..self.stats }
    }

    /// Whether the utterance that was begun has more to come.
    pub fn is_speaking(&self) -> bool {
        !self.done
    }

    /// Tokens of the utterance that is being spoken, those of its last round included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether a player that began with the first samples still has enough of them. The clock
    /// decides when sound is made, never which.
    fn ahead(&self) -> bool {
        let rate = f64::from(self.voice.bundle().audio.sample_rate_hz);
        self.sounding.is_some_and(|since| {
            self.sounded as f64 / rate > (since.elapsed() + LEAD).as_secs_f64()
        })
    }

    fn round(&mut self, pcm: &mut Vec<f32>) -> Result<bool> {
        let clock = Instant::now();
        let before = pcm.len();
        let end = self.speculator.round(&mut self.tokens)?;
        let codec_clock = Instant::now();
        let cut =
            end == RoundEnd::Full || (end == RoundEnd::More && self.tokens.len() >= self.limit);
        let more = end == RoundEnd::More && !cut;
        if !more || self.tokens.len() - self.spoken >= CODEC_TOKENS || !self.ahead() {
            self.codec.push(&self.tokens[self.spoken..], pcm)?;
            self.spoken = self.tokens.len();
        }
        if !more {
            self.codec.finish(pcm)?;
            self.stats.utterances += 1;
            self.stats.cut += cut as u64;
            self.stats.tokens += self.spoken as u64;
        }
        self.stats.codec += codec_clock.elapsed();
        self.stats.compute += clock.elapsed();
        self.stats.samples += (pcm.len() - before) as u64;
        self.sounded += pcm.len() - before;
        if self.sounded > 0 {
            self.sounding.get_or_insert_with(Instant::now);
        }
        if pcm.len() > before && self.stats.first_audio.is_none() {
            self.stats.first_audio = Some(self.started.elapsed());
        }
        Ok(more)
    }
}

/// One utterance being spoken: an iterator of PCM chunks, one a round.
#[derive(Debug)]
pub struct Speaking<'a> {
    synthesizer: &'a mut Synthesizer,
}

impl Speaking<'_> {
    /// Appends the next samples to `pcm`; `false` once the utterance is over.
    pub fn next_into(&mut self, pcm: &mut Vec<f32>) -> Result<bool> {
        self.synthesizer.next_into(pcm)
    }

    /// Tokens so far.
    pub fn tokens(&self) -> &[u32] {
        self.synthesizer.tokens()
    }
}

impl Iterator for Speaking<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut pcm = Vec::new();
        match self.next_into(&mut pcm) {
            Ok(true) => Some(Ok(pcm)),
            Ok(false) => None,
            Err(e) => Some(Err(e)),
        }
    }
}
