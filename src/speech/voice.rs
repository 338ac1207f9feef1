//! A voice: a bundle with its models and its group index.

use super::text;
use crate::asg::{Index, Weights};
use crate::bundle::{Bundle, FILE_NAME, Speaker};
use crate::core::Emission;
use crate::decode::{Arm, Costs, DraftLength, Options, Sampling};
use crate::engine::Model;
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
