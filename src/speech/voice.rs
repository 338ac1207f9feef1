//! A voice: a bundle with its models and its group index.

use super::calibration::{Calibration, stored};
use super::phonemes::{Phonemizer, SYMBOLS, UserLexicon};
use super::text::{self, Chunk};
use super::utterance::Utterance;
use super::written::written;
use crate::asg::{Index, Weights};
use crate::bundle::{Bundle, FILE_NAME, Speaker, hex};
use crate::core::Emission;
use crate::decode::{Arm, Costs, DraftLength, Options, Sampling};
use crate::engine::Model;
use crate::kernel::{self, Kernel};
use crate::map::Map;
use crate::{Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a voice takes on the heap besides its graphs and copies; a test holds it against an
/// allocator that counts.
const VOICE_BYTES: u64 = 1 << 20;

/// How [`Voice::open_with`] opens. `OpenOptions::default()` is [`Voice::open`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Reads every listed file first and compares its SHA-256.
    pub verify: bool,
    /// Reads the files instead of mapping them.
    pub copy: bool,
    /// A group index instead of the bundle's own.
    pub groups: Option<PathBuf>,
    /// Bytes that the voice may take, see [`VoiceMemory`].
    pub max_memory: Option<u64>,
}

/// Upper bounds of what a voice takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VoiceMemory {
    /// Files in place: mapped, or borrowed.
    pub mapped: u64,
    /// Graphs, and copies of files where they are copied.
    pub heap: u64,
}

impl VoiceMemory {
    /// Of files by name and length, if each is used in place or else copied.
    pub fn of_files<'a>(files: impl IntoIterator<Item = (&'a str, u64, bool)>) -> Self {
        let (mut sum, mut graphs) = (Self { mapped: 0, heap: VOICE_BYTES }, 0);
        for (name, bytes, in_place) in files {
            *(if in_place { &mut sum.mapped } else { &mut sum.heap }) += bytes;
            if name.ends_with(".onnx") {
                graphs += bytes;
            }
        }
        sum.heap = sum.heap.saturating_add(Model::heap_bytes_for(graphs));
        sum
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.mapped + self.heap
    }

    /// With a map that is held besides.
    fn and(self, map: &Map) -> Self {
        let bytes = map.len() as u64;
        match map.heap_bytes() {
            0 => Self { mapped: self.mapped + bytes, ..self },
            _ => Self { heap: self.heap + bytes, ..self },
        }
    }
}

/// Threads where nobody says how many: the machine's cores, at most 4. More of them read the
/// same memory no faster.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(4)
}

/// Whether `need` bytes are within `budget`.
///
/// # Errors
/// `Memory`, naming `what` needs them.
pub fn within(budget: Option<u64>, need: u64, what: &str) -> Result<()> {
    match budget {
        Some(budget) if need > budget => Err(Error::new(
            ErrorKind::Memory,
            format!("{what} may take {need} bytes, max_memory allows {budget}"),
        )),
        _ => Ok(()),
    }
}

/// A bundle with its models mapped and its group index opened: immutable, to be shared by
/// any number of [`Synthesizer`](super::synth::Synthesizer)s and
/// [`Stream`](super::stream::Stream)s.
#[derive(Debug, Clone)]
pub struct Voice {
    bundle: Arc<Bundle>,
    target: Arc<Model>,
    draft: Arc<Model>,
    codec: Arc<Model>,
    groups: Option<Index<Map>>,
    /// Of a voice that reads phonemes.
    phonemizer: Option<Phonemizer>,
    speaker: usize,
    calibration: Option<Arc<Calibration>>,
    /// Of the bundle and its lexicon, and of the index.
    memory: (VoiceMemory, VoiceMemory),
    load: Duration,
}

impl Voice {
    /// Maps the models of the bundle at `dir`, and its group index if it names one that is
    /// there. No weights are read.
    ///
    /// # Errors
    /// As [`Bundle::open`]; `Malformed`, `Mismatch` or `Unsupported` if a model or the index
    /// is damaged or belongs to another bundle.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, &OpenOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Memory` if the budget does not suffice: nothing is
    /// mapped or read then but the description.
    pub fn open_with(dir: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let clock = Instant::now();
        let bundle = Bundle::open(dir)?;
        // The description alone says how large everything is.
        let groups = match &options.groups {
            Some(path) => Some(path.clone()),
            None => bundle.groups_path().filter(|path| {
                let there = path.exists();
                if !there {
                    log::warn!(
                        "{} is not there, so tokens are accepted one by one: build it with \
                         `voxgrain asg build`",
                        path.display()
                    );
                }
                there
            }),
        };
        let listed = bundle.files.iter().map(|f| (f.path.as_str(), f.bytes, !options.copy));
        let memory = VoiceMemory::of_files(listed);
        let length = |path: &Option<PathBuf>| {
            path.as_ref().and_then(|p| p.metadata().ok()).map_or(0, |m| m.len())
        };
        let lexicon = bundle.lexicon_path();
        let beside = length(&groups) + length(&lexicon);
        within(options.max_memory, memory.total() + beside, "the voice")?;
        if options.verify {
            bundle.verify(|_| ControlFlow::Continue(()))?;
        }
        let open = |path: &Path| if options.copy { Map::read(path) } else { Map::open(path) };
        let groups = groups.map(|path| open(&path)).transpose()?;
        let lexicon = lexicon.map(|path| open(&path)).transpose()?;
        let (dir, entries) = (bundle.dir().to_owned(), bundle.files.clone());
        let file = |name: &str| {
            let map = open(&dir.join(name))?;
            // It may have changed since the description was checked.
            match entries.iter().find(|f| f.path == name) {
                Some(entry) => entry.check(&map).map(|()| map),
                None => Ok(map),
            }
        };
        Self::assemble(bundle, file, groups, lexicon, memory, clock)
    }

    /// The same from files in memory: `bundle.toml`, every file that it lists, by the path
    /// that it lists, and the group index and the lexicon, by their whole path or the last part
    /// of it.
    ///
    /// # Errors
    /// `Unreadable` for a file that is missing; as [`open`](Self::open) otherwise.
    pub fn from_files(files: &[(&str, Map)]) -> Result<Self> {
        let clock = Instant::now();
        let find = |name: &str| files.iter().find(|f| f.0 == name);
        let missing = |name: &str| {
            let what = format!("{name} is not among the files in memory: add it");
            Error::new(ErrorKind::Unreadable, what)
        };
        let need = |name: &str| Ok(find(name).ok_or_else(|| missing(name))?.1.clone());
        let description: Map = need(FILE_NAME)?;
        let description = std::str::from_utf8(&description).map_err(|e| {
            Error::with_source(ErrorKind::Malformed, format!("{FILE_NAME} is not UTF-8"), e)
        })?;
        let bundle = Bundle::parse(description, "(memory)")?;
        for entry in &bundle.files {
            entry.check(&need(&entry.path)?)?;
        }
        let beside =
            |file: &str| find(file).or_else(|| find(Path::new(file).file_name()?.to_str()?));
        let groups = bundle.groups.as_ref().and_then(|g| beside(&g.file));
        let lexicon = match bundle.text.lexicon.as_str() {
            "" => None,
            file => match beside(file) {
                Some(found) => Some(found),
                None => return Err(missing(file)),
            },
        };
        let apart = |name: &str| [groups, lexicon].into_iter().flatten().any(|f| f.0 == name);
        let held = files.iter().filter(|f| !apart(f.0));
        let memory = VoiceMemory::of_files(
            held.map(|(name, map)| (*name, map.len() as u64, map.heap_bytes() == 0)),
        );
        let map = |file: Option<&(&str, Map)>| file.map(|f| f.1.clone());
        Self::assemble(bundle, need, map(groups), map(lexicon), memory, clock)
    }

    fn assemble(
        bundle: Bundle,
        file: impl Fn(&str) -> Result<Map>,
        groups: Option<Map>,
        lexicon: Option<Map>,
        memory: VoiceMemory,
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
        let (listed, read) = (bundle.draft.features, draft.feature_width());
        let (hidden, taps) = (target.hidden_width(), target.taps());
        if listed != read || ![0, hidden, (taps + 1) * hidden].contains(&read) {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{} reads {read} features, bundle.toml says {listed}, {} gives {hidden} and \
                     {taps} taps of that width: they do not belong together",
                    bundle.draft.file, bundle.target.file
                ),
            ));
        }
        let memory = lexicon.as_ref().map_or(memory, |map| memory.and(map));
        let phonemizer = lexicon.map(|map| Phonemizer::open(&map)).transpose()?;
        if phonemizer.is_some()
            && let Some(c) = SYMBOLS.chars().find(|&c| bundle.vocabulary.character(c).is_none())
        {
            let what = format!("{FILE_NAME} says phonemes, but its vocabulary has no {c:?}");
            return Err(Error::new(ErrorKind::Mismatch, what));
        }
        let voice = Self {
            bundle: bundle.into(),
            target,
            draft,
            codec,
            groups: None,
            phonemizer,
            speaker: 0,
            calibration: None,
            memory: (memory, VoiceMemory::default()),
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
    ///
    /// # Errors
    /// `Malformed` if it is no index, `Mismatch` if it was made from another target.
    pub fn with_index(mut self, map: Map) -> Result<Self> {
        let name = map.name().to_owned();
        let memory = VoiceMemory::default().and(&map);
        let index = Index::open(map).map_err(|e| {
            Error::with_source(ErrorKind::Malformed, format!("{name} cannot be used"), e)
        })?;
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
        self.memory.1 = memory;
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
    /// The longest context that both models have, prompt included, in tokens.
    pub fn max_positions(&self) -> usize {
        self.target.max_positions().min(self.draft.max_positions())
    }
    /// Upper bounds of what the voice takes.
    pub fn memory(&self) -> VoiceMemory {
        let (bundle, index) = self.memory;
        VoiceMemory { mapped: bundle.mapped + index.mapped, heap: bundle.heap + index.heap }
    }
    /// Time that [`Voice::open`] took.
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// The pronunciation lexicon, of a voice that reads phonemes.
    pub fn phonemizer(&self) -> Option<&Phonemizer> {
        self.phonemizer.as_ref()
    }

    /// The same voice with words of the user's, which win over its lexicon and over lists that
    /// were given before.
    ///
    /// # Errors
    /// `InvalidText` if an entry has nothing that can be said, `Unsupported` if the voice reads
    /// letters and not phonemes.
    pub fn with_lexicon(mut self, lexicon: &UserLexicon) -> Result<Self> {
        match &mut self.phonemizer {
            Some(phonemizer) => phonemizer.add(lexicon)?,
            None => {
                let what = "this voice reads letters, so a lexicon cannot change how it says a \
                            word: write the word as it sounds";
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        }
        Ok(self)
    }

    /// The text of a chunk as the models read it, over the characters of the vocabulary: its
    /// letters, or the symbol of the tempo nearest to `rate` and its phonemes.
    ///
    /// # Errors
    /// `InvalidText` if there is nothing to speak, or a pronunciation in the chunk has symbols
    /// that are no IPA.
    pub fn write(&self, chunk: &Chunk, rate: f32) -> Result<String> {
        let Some(said) = self.phonemes(chunk)? else { return Ok(chunk.text.clone()) };
        let tempo = self.bundle.text.tempo(rate * chunk.rate).map(|(symbol, _)| symbol);
        Ok(tempo.into_iter().chain(said.chars()).collect())
    }

    /// The phonemes of a chunk as the voice reads them; `None` of a voice that reads letters.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn phonemes(&self, chunk: &Chunk) -> Result<Option<String>> {
        self.phonemizer.as_ref().map(|p| written(p, &chunk.words)).transpose()
    }

    /// A chunk as a stream speaks it, `rate` times as fast as the voice by itself.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn utterance(&self, chunk: &Chunk, rate: f32) -> Result<Utterance> {
        Ok(Utterance {
            text: self.write(chunk, rate)?,
            pause_after: chunk.pause_after,
            source: chunk.source.clone(),
        })
    }

    /// The slowest and the fastest that the voice speaks, times its natural rate.
    pub fn rates(&self) -> (f32, f32) {
        let tempos = &self.bundle.text.tempos;
        match (tempos.first(), tempos.last()) {
            (Some(&low), Some(&high)) => (low, high),
            _ => (1.0, 1.0),
        }
    }

    /// Whether the voice can speak `rate` times as fast as by itself.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the range.
    pub fn check_rate(&self, rate: f32) -> Result<()> {
        let (low, high) = self.rates();
        if (low..=high).contains(&rate) {
            return Ok(());
        }
        let what = if low == high {
            format!("this voice has one tempo: its rate is 1, not {rate}")
        } else {
            format!("this voice speaks {low} to {high} times its natural rate, not {rate}")
        };
        Err(Error::new(ErrorKind::InvalidArgument, what))
    }

    /// What the models read before the speech of a [written](Self::write) chunk.
    ///
    /// # Errors
    /// `InvalidText` if there is nothing to speak or the voice has not its characters.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let vocabulary = &self.bundle.vocabulary;
        let characters = text::tokens(vocabulary, text)?;
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

    /// The same voice with what was measured of it on this machine.
    pub fn with_calibration(self, calibration: Option<Calibration>) -> Self {
        Self { calibration: calibration.map(Arc::new), ..self }
    }

    /// What passes cost with this kernel and number of threads: as
    /// [calibrated](Self::with_calibration), else what the voice says, made safe for the kernel
    /// ([`stored`]). `None` if nobody knows.
    pub fn costs(&self, kernel: Kernel, threads: usize) -> Option<Costs> {
        let measured = self.calibration.as_ref();
        measured.and_then(|c| c.costs(&self.bundle, kernel.name(), threads)).or_else(|| {
            let s = &self.bundle.sampling;
            let costs = Costs { draft: s.draft_cost?, row: s.row_cost? };
            Some(stored(costs, kernel.name()))
        })
    }

    /// Whether [`costs`](Self::costs) were measured here.
    pub fn is_calibrated(&self, kernel: Kernel, threads: usize) -> bool {
        let measured = self.calibration.as_ref();
        measured.is_some_and(|c| c.costs(&self.bundle, kernel.name(), threads).is_some())
    }

    /// The voice's own number of drafts a round: by the running acceptance where it is known
    /// what [passes cost](Self::costs), else fixed.
    pub fn draft_length_on(&self, kernel: Kernel, threads: usize) -> DraftLength {
        match self.costs(kernel, threads) {
            Some(costs) => DraftLength::Adaptive(costs),
            None => DraftLength::Fixed(self.bundle.sampling.gamma),
        }
    }

    /// [`draft_length_on`](Self::draft_length_on) the widest kernel and
    /// [`default_threads`].
    pub fn draft_length(&self) -> DraftLength {
        self.draft_length_on(kernel::best(), default_threads())
    }

    /// How tokens are decoded where nobody chooses an arm, the same for every caller:
    ///
    /// 1. by token ([`Arm::Sd`], whose law is the target's own) if the voice has no group index;
    /// 2. by group ([`Arm::Pcg`]) if something is asked that only groups have, which is an
    ///    `emission` other than the stand-in or the index's own weights, or if the index is not
    ///    symmetric;
    /// 3. else by transport ([`Arm::Transport`]), which of the arms that keep to the target's law
    ///    up to similar tokens gains most.
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
