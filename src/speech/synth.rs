//! The whole pipeline: a voice, and a synthesizer that speaks with it.

use super::codec::CodecDecoder;
use super::text;
use crate::asg::Index;
use crate::bundle::Bundle;
use crate::decode::{Arm, Options, RoundEnd, Sampling, SpecStats, Speculator};
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
    load: Duration,
}

impl Voice {
    /// Maps the models of the bundle at `dir`, and its group index if it names one that is
    /// there. No weights are read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let clock = Instant::now();
        let bundle = Bundle::open(dir)?;
        let target = Model::load(bundle.target_path(), bundle.target.max_positions)?;
        let draft = Model::load(bundle.draft_path(), bundle.draft.max_positions)?;
        let codec = Model::load(bundle.codec_path(), 0)?;
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
        let groups = bundle.groups_path().filter(|p| p.exists());
        let voice = Self {
            bundle: bundle.into(),
            target,
            draft,
            codec,
            groups: None,
            load: Duration::ZERO,
        };
        let voice = match groups {
            Some(path) => voice.with_groups(path)?,
            None => voice,
        };
        Ok(Self { load: clock.elapsed(), ..voice })
    }

    /// The same voice with another group index.
    ///
    /// # Errors
    /// `Mismatch` if the index was made from another target.
    pub fn with_groups(mut self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let index = Index::open(Map::open(path)?).map_err(|e| {
            Error::with_source(ErrorKind::Malformed, format!("{}: {e}", path.display()), e)
        })?;
        let weights = format!("{}.data", self.bundle.target.file);
        let expected = self.bundle.listed_sha256(&weights).unwrap_or_default();
        let found = hex(&index.header().weights_sha256);
        if found != expected {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{} was built for another target (sha256 {}…, this bundle's {weights} is {}…): \
                     build it again with `voxgrain asg build`",
                    path.display(),
                    &found[..12],
                    &expected[..expected.len().min(12)],
                ),
            ));
        }
        self.groups = Some(index);
        Ok(self)
    }

    /// The description.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
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

    /// The voice's own sampling.
    pub fn sampling(&self) -> Sampling {
        let s = &self.bundle.sampling;
        Sampling {
            temperature: s.temperature,
            transforms: crate::core::dist::SamplingTransforms {
                top_k: u32::try_from(s.top_k).unwrap_or(u32::MAX),
                top_p: s.top_p,
                min_p: s.min_p,
            },
        }
    }

    /// The voice's own options for `arm`.
    pub fn options(&self, arm: Arm) -> Options {
        Options {
            arm,
            gamma: self.bundle.sampling.gamma,
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
    started: Instant,
}

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
        let target = Session::new(&voice.target, pool)?;
        let draft = Session::new(&voice.draft, pool)?;
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
            started: Instant::now(),
        })
    }

    /// Begins to speak one chunk of the text front end; whatever was being spoken ends.
    /// The samples come from the iterator, or from [`Speech::next_into`] without
    /// allocation.
    pub fn speak(&mut self, text: &str) -> Result<Speech<'_>> {
        self.started = Instant::now();
        let vocabulary = &self.voice.bundle.vocabulary;
        let characters = text::tokens(vocabulary, text)?;
        if characters.is_empty() {
            return Err(Error::new(ErrorKind::InvalidText, "there is nothing to speak"));
        }
        // Three to four tokens a character are usual; a voice that has not ended at four
        // times that never will.
        self.limit = 150 + 14 * characters.len();
        let mut prompt = vec![vocabulary.begin];
        prompt.extend(characters);
        prompt.push(vocabulary.start_of_speech);
        self.speculator.start(&prompt)?;
        self.codec.reset();
        self.spoken = 0;
        self.stats.compute += self.started.elapsed();
        Ok(Speech { synthesizer: self, done: false })
    }

    /// Totals so far.
    pub fn stats(&self) -> SpeechStats {
        SpeechStats { spec: *self.speculator.stats(), ..self.stats }
    }

    /// Tokens of the utterance that is being spoken, those of its last round included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    fn round(&mut self, pcm: &mut Vec<f32>) -> Result<bool> {
        let clock = Instant::now();
        if self.spoken == 0 {
            self.tokens.clear();
        }
        let before = pcm.len();
        let end = self.speculator.round(&mut self.tokens)?;
        let codec_clock = Instant::now();
        self.codec.push(&self.tokens[self.spoken..], pcm)?;
        self.spoken = self.tokens.len();
        let cut = end == RoundEnd::Full || (end == RoundEnd::More && self.spoken >= self.limit);
        let more = end == RoundEnd::More && !cut;
        if !more {
            self.codec.finish(pcm);
            self.stats.utterances += 1;
            self.stats.cut += cut as u64;
            self.stats.tokens += self.spoken as u64;
        }
        self.stats.codec += codec_clock.elapsed();
        self.stats.compute += clock.elapsed();
        self.stats.samples += (pcm.len() - before) as u64;
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
    done: bool,
}

impl Speech<'_> {
    /// Appends the next samples to `pcm`; `false` once the utterance is over.
    pub fn next_into(&mut self, pcm: &mut Vec<f32>) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        // An error ends the utterance as well.
        self.done = true;
        self.done = !self.synthesizer.round(pcm)?;
        Ok(true)
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
