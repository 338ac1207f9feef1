//! The whole pipeline: a voice, and a synthesizer that speaks with it.

use super::codec::CodecDecoder;
use super::text;
use crate::asg::{Index, Weights};
use crate::bundle::{Bundle, FILE_NAME, Speaker};
use crate::core::Emission;
use crate::decode::{Arm, Costs, DraftLength, Options, RoundEnd, Sampling, SpecStats, Speculator};
use crate::engine::{Model, Pool, Session};
use crate::map::Map;
use crate::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A bundle with its models mapped and its group index opened: immutable, to be shared by
/// any number of [`Synthesizer`]s.
#[derive(Debug, Clone)]
pub struct Voice {
    bundle: Arc<Bundle>,
    target: Arc<Model>,
    draft: Arc<Model>,
    codec: Arc<Model>,
    groups: Option<Index<Map>>,
    speaker: usize,
    load: Duration,
}

impl Voice {
    /// Maps the models of the bundle at `dir`, and its group index if it names one that is
    /// there. No weights are read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let clock = Instant::now();
        let bundle = Bundle::open(dir)?;
        let groups = match bundle.groups_path().filter(|p| p.exists()) {
            Some(path) => Some(Map::open(path)?),
            None => None,
        };
        let dir = bundle.dir().to_owned();
        Self::assemble(bundle, |file| Map::open(dir.join(file)), groups, clock)
    }

    /// The same from files in memory: `bundle.toml`, every file that it lists, by the path
    /// that it lists, and the group index, by its whole path or the last part of it.
    ///
    /// # Errors
    /// `Unreadable` for a file that is missing; as [`open`](Self::open) otherwise.
    pub fn from_files(files: &[(&str, Map)]) -> Result<Self> {
        let clock = Instant::now();
        let find = |name: &str| files.iter().find(|f| f.0 == name).map(|f| f.1.clone());
        let need = |name: &str| {
            let what = || format!("{name} is not among the files in memory: add it");
            find(name).ok_or_else(|| Error::new(ErrorKind::Unreadable, what()))
        };
        let description = need(FILE_NAME)?;
        let description = std::str::from_utf8(&description).map_err(|e| {
            Error::with_source(ErrorKind::Malformed, format!("{FILE_NAME} is not UTF-8"), e)
        })?;
        let bundle = Bundle::parse(description, "(memory)")?;
        for entry in &bundle.files {
            bundle.check_file(entry, &need(&entry.path)?)?;
        }
        let groups = bundle.groups.as_ref().and_then(|g| {
            find(&g.file).or_else(|| find(Path::new(&g.file).file_name()?.to_str()?))
        });
        Self::assemble(bundle, need, groups, clock)
    }

    fn assemble(
        bundle: Bundle,
        file: impl Fn(&str) -> Result<Map>,
        groups: Option<Map>,
        clock: Instant,
    ) -> Result<Self> {
        let load = |name: &str, positions: usize| {
            Model::from_maps(name, &file(name)?, file(&format!("{name}.data"))?, positions)
        };
        let target = load(&bundle.target.file, bundle.target.max_positions)?;
        let draft = load(&bundle.draft.file, bundle.draft.max_positions)?;
        let codec = load(&bundle.codec.file, 0)?;
        for (model, file) in [(&target, &bundle.target.file), (&draft, &bundle.draft.file)] {
            if model.output_columns() != bundle.vocabulary.scored() {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "{file} scores {} tokens, bundle.toml says {}: they do not belong together",
                        model.output_columns(),
                        bundle.vocabulary.scored()
                    ),
                ));
            }
        }
        let voice = Self {
            bundle: bundle.into(),
            target,
            draft,
            codec,
            groups: None,
            speaker: 0,
            load: Duration::ZERO,
        };
        let voice = match groups {
            Some(map) => voice.with_index(map)?,
            None => voice,
        };
        Ok(Self { load: clock.elapsed(), ..voice })
    }

    /// The same voice with another group index.
    ///
    /// # Errors
    /// `Mismatch` if the index was made from another target.
    pub fn with_groups(self, path: impl AsRef<Path>) -> Result<Self> {
        self.with_index(Map::open(path)?)
    }

    /// The same from a map.
    pub fn with_index(mut self, map: Map) -> Result<Self> {
        let name = map.name().to_owned();
        let index = Index::open(map)
            .map_err(|e| Error::with_source(ErrorKind::Malformed, format!("{name}: {e}"), e))?;
        let weights = format!("{}.data", self.bundle.target.file);
        let expected = self.bundle.listed_sha256(&weights).unwrap_or_default();
        let found = hex(&index.header().weights_sha256);
        if found != expected {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{name} was built for another target (sha256 {}…, this bundle's {weights} is {}…): \
                     build it again with `voxgrain asg build`",
                    &found[..12],
                    &expected[..expected.len().min(12)],
                ),
            ));
        }
        self.groups = Some(index);
        Ok(self)
    }

    /// The same bundle with another of its speakers. Clones share everything else, so one
    /// bundle in memory serves all of its speakers.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such speaker; the message lists those there are.
    pub fn with_speaker(self, name: &str) -> Result<Self> {
        let speaker = self.bundle.speaker(name)?;
        Ok(Self { speaker, ..self })
    }

    /// The same by the speaker's number in the bundle.
    ///
    /// # Errors
    /// `InvalidArgument` if the bundle has fewer speakers.
    pub fn with_speaker_number(self, speaker: usize) -> Result<Self> {
        let count = self.bundle.speakers.len();
        if speaker >= count {
            let what = format!(
                "there is no speaker {speaker} in this bundle; it has {count}, numbered from 0"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(Self { speaker, ..self })
    }

    /// The same voice with another split of tokens over groups.
    ///
    /// # Errors
    /// `InvalidArgument` if the index cannot weigh that way or there is none.
    pub fn with_weights(mut self, weights: Weights) -> Result<Self> {
        let bad = |what: String| Error::new(ErrorKind::InvalidArgument, what);
        match &mut self.groups {
            Some(index) => index.set_weights(weights).map_err(|e| bad(e.to_string()))?,
            None => return Err(bad("the voice has no group index to weigh by".into())),
        }
        Ok(self)
    }

    /// The description.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }
    /// Who speaks.
    pub fn speaker(&self) -> &Speaker {
        &self.bundle.speakers[self.speaker]
    }
    /// The target model.
    pub fn target(&self) -> &Arc<Model> {
        &self.target
    }
    /// The draft model.
    pub fn draft(&self) -> &Arc<Model> {
        &self.draft
    }
    /// The codec decoder's network.
    pub fn codec(&self) -> &Arc<Model> {
        &self.codec
    }
    /// The group index, where there is one.
    pub fn groups(&self) -> Option<&Index<Map>> {
        self.groups.as_ref()
    }
    /// Time that [`Voice::open`] took.
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// What the models read before the speech of `text`, a chunk of the text front end.
    ///
    /// # Errors
    /// `InvalidText` if there is nothing to speak or the voice has not its characters.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let vocabulary = &self.bundle.vocabulary;
        // Voices learn from whole sentences: after a comma they would talk on, and on.
        let ended = text.strip_suffix(',').map(|t| format!("{t}."));
        let characters = text::tokens(vocabulary, ended.as_deref().unwrap_or(text))?;
        if characters.is_empty() {
            return Err(Error::new(ErrorKind::InvalidText, "there is nothing to speak"));
        }
        let mut prompt = vec![self.speaker().begin];
        prompt.extend(characters);
        prompt.push(vocabulary.start_of_speech);
        Ok(prompt)
    }

    /// Most speech tokens behind a prompt: three to four a character are usual, and a voice
    /// that has not ended at four times that never will.
    pub fn limit(prompt: &[u32]) -> usize {
        150 + 14 * prompt.len().saturating_sub(2)
    }

    /// The voice's own sampling.
    pub fn sampling(&self) -> Sampling {
        self.bundle.sampling.law()
    }

    /// The voice's own number of drafts a round: by the running acceptance where the voice says
    /// what its passes cost, else fixed.
    pub fn draft_length(&self) -> DraftLength {
        let s = &self.bundle.sampling;
        match (s.draft_cost, s.row_cost) {
            (Some(draft), Some(row)) => DraftLength::Adaptive(Costs { draft, row }),
            _ => DraftLength::Fixed(s.gamma),
        }
    }

    /// How tokens are decoded where nobody chooses: by transport, which of the arms that keep to the
    /// target's law up to similar tokens gains most; by group where something is asked that only
    /// groups have (`emission`, the index's weights) or the index is not symmetric; by token without
    /// an index.
    pub fn default_arm(&self, emission: Emission) -> Arm {
        let Some(index) = self.groups() else { return Arm::Sd };
        let transport = index.header().symmetric
            && index.weights() == Weights::EqualSplit
            && matches!(emission, Emission::StandIn);
        if transport { Arm::Transport } else { Arm::Pcg { emission } }
    }

    /// The voice's own options for `arm`.
    pub fn options(&self, arm: Arm) -> Options {
        Options {
            arm,
            gamma: self.draft_length(),
            sampling: self.sampling(),
            seed: 0,
            end: self.bundle.vocabulary.end_of_speech,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Totals of one [`Synthesizer`].
#[derive(Debug, Clone, Copy, Default)]
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

/// Text to PCM.
pub struct Synthesizer {
    voice: Voice,
    speculator: Speculator<Session, Session, Index<Map>>,
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
        write!(f, "Synthesizer({:?})", self.voice.bundle.name)
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
        let target = Session::with_positions(&voice.target, pool, positions)?;
        let draft = Session::with_positions(&voice.draft, pool, positions)?;
        let speculator =
            Speculator::new(target, draft, voice.groups.clone(), pool.kernel(), options)?;
        let codec = CodecDecoder::new(&voice.codec, pool, &voice.bundle.audio)?;
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

    /// Begins to speak one chunk of the text front end; whatever was being spoken ends.
    /// The samples come from the iterator, or from [`Speech::next_into`] without
    /// allocation.
    pub fn speak(&mut self, text: &str) -> Result<Speech<'_>> {
        self.begin(text)?;
        Ok(Speech { synthesizer: self })
    }

    /// [`speak`](Self::speak) for callers that keep the synthesizer themselves and go on
    /// with [`next_into`](Self::next_into).
    pub fn begin(&mut self, text: &str) -> Result<()> {
        self.done = true;
        self.started = Instant::now();
        let prompt = self.voice.prompt(text)?;
        self.limit = Voice::limit(&prompt);
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

    /// Totals so far.
    pub fn stats(&self) -> SpeechStats {
        SpeechStats { spec: *self.speculator.stats(), ..self.stats }
    }

    /// Tokens of the utterance that is being spoken, those of its last round included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether a player that began with the first samples still has enough of them. The clock
    /// decides when sound is made, never which.
    fn ahead(&self) -> bool {
        let rate = f64::from(self.voice.bundle.audio.sample_rate_hz);
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
            self.codec.finish(pcm);
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
pub struct Speech<'a> {
    synthesizer: &'a mut Synthesizer,
}

impl Speech<'_> {
    /// Appends the next samples to `pcm`; `false` once the utterance is over.
    pub fn next_into(&mut self, pcm: &mut Vec<f32>) -> Result<bool> {
        self.synthesizer.next_into(pcm)
    }

    /// Tokens so far.
    pub fn tokens(&self) -> &[u32] {
        self.synthesizer.tokens()
    }
}

impl Iterator for Speech<'_> {
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
