//! What a description must not say: ranges, and sections that contradict each other.

use std::path::{Component, Path};

use super::{Audio, Description, FrontEnd, LanguageModel, Sampling, Speaker, Text, Vocabulary};
use crate::decode::{Costs, MAX_GAMMA};

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

impl Description {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        ensure!(!self.name.trim().is_empty(), "name is empty");
        ensure!(!self.licence.trim().is_empty(), "licence is empty");
        self.audio.check()?;
        self.vocabulary.check()?;
        check_speakers(&self.speakers, &self.vocabulary)?;
        self.check_text()?;
        self.target.check("target")?;
        self.draft.check("draft")?;
        ensure!(
            self.draft.features.is_multiple_of(self.target.hidden),
            "draft.features {} is not target.hidden {} once, or once more for each tap",
            self.draft.features,
            self.target.hidden
        );
        self.sampling.check()?;
        let a = &self.audio;
        ensure!(
            self.codec.latency_samples <= a.sample_rate_hz,
            "codec.latency_samples {} is more than a second",
            self.codec.latency_samples
        );
        if let Some(groups) = &self.groups {
            ensure!(
                !groups.file.is_empty() && !Path::new(&groups.file).is_absolute(),
                "groups.file {:?} is not a relative path",
                groups.file
            );
        }
        for (i, f) in self.files.iter().enumerate() {
            ensure!(
                inside(&f.path),
                "files: {:?} is not a plain path inside the bundle (no `..`, no leading `/`, no `\\`)",
                f.path
            );
            ensure!(
                self.files[..i].iter().all(|other| other.path != f.path),
                "files: {:?} is listed twice",
                f.path
            );
            ensure!(f.bytes > 0, "files: {:?} is listed with 0 bytes", f.path);
            ensure!(
                f.sha256.len() == 64
                    && f.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
                "files: the sha256 of {:?} is not 64 lower-case hexadecimal digits",
                f.path
            );
        }
        for (section, file) in [
            ("target", &self.target.file),
            ("draft", &self.draft.file),
            ("codec", &self.codec.file),
        ] {
            ensure!(
                self.files.iter().any(|f| f.path == *file),
                "{section}.file {file:?} is not listed under [[files]]"
            );
        }
        Ok(())
    }
}

impl Description {
    fn check_text(&self) -> std::result::Result<(), String> {
        let Text { front_end, lexicon, tempo_symbols, tempos } = &self.text;
        ensure!(
            self.format > 1 || self.text == Text::default(),
            "format 1 has no [text]: its prompts are letters"
        );
        ensure!(
            lexicon.is_empty() == (*front_end == FrontEnd::Letters)
                && !Path::new(lexicon).is_absolute(),
            "text.lexicon {lexicon:?} is not a relative path for phonemes, or is there for letters"
        );
        ensure!(
            tempo_symbols.chars().count() == tempos.len(),
            "text.tempo_symbols {tempo_symbols:?} are not one for each of {} text.tempos",
            tempos.len()
        );
        for (i, c) in tempo_symbols.chars().enumerate() {
            ensure!(
                self.vocabulary.character(c).is_some()
                    && !tempo_symbols.chars().take(i).any(|other| other == c),
                "text.tempo_symbols: {c:?} is there twice or not in vocabulary.characters"
            );
        }
        ensure!(
            tempos.iter().all(|t| (0.1..=10.0).contains(t))
                && tempos.windows(2).all(|pair| pair[0] < pair[1])
                && (tempos.is_empty() || tempos.contains(&1.0)),
            "text.tempos {tempos:?} are not rising from 0.1 to at most 10 with a 1 among them"
        );
        Ok(())
    }
}

fn check_speakers(speakers: &[Speaker], v: &Vocabulary) -> std::result::Result<(), String> {
    let characters = v.first_character..v.first_character + v.characters.chars().count() as u32;
    for (i, s) in speakers.iter().enumerate() {
        let name = &s.name;
        ensure!(
            !name.is_empty()
                && name.trim() == name
                && name.chars().count() <= Speaker::MAX_NAME
                && !name.contains(char::is_control),
            "speakers: the name {name:?} is empty, longer than {} characters, or has space around it",
            Speaker::MAX_NAME
        );
        ensure!(
            !s.description.contains(char::is_control),
            "speakers: the description of {name:?} is not one line of text"
        );
        let begin = s.begin;
        let bad = if begin < v.speech {
            Some("is a speech token")
        } else if begin == v.end_of_speech {
            Some("is vocabulary.end_of_speech")
        } else if begin == v.start_of_speech {
            Some("is vocabulary.start_of_speech")
        } else if characters.contains(&begin) {
            Some("is a character")
        } else if begin as usize >= v.len() {
            Some("is not in the vocabulary")
        } else {
            None
        };
        if let Some(why) = bad {
            return Err(format!(
                "speakers: {name:?} cannot begin with {begin}, which {why}; vocabulary.begin {} and \
                 vocabulary.pad {} are free",
                v.begin, v.pad
            ));
        }
        for other in &speakers[..i] {
            ensure!(other.name != *name, "speakers: {name:?} is listed twice");
            ensure!(
                other.begin != begin,
                "speakers: {name:?} and {:?} both begin with {begin}",
                other.name
            );
        }
    }
    Ok(())
}

/// A relative path that stays inside, spelt the same on every system.
fn inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':', '\0'])
        && !path.ends_with('/')
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

impl Audio {
    fn check(&self) -> std::result::Result<(), String> {
        let Self { sample_rate_hz, frame_rate_hz, fft_size, hop, max_log_magnitude } = *self;
        ensure!(
            (4_000..=192_000).contains(&sample_rate_hz),
            "audio.sample_rate_hz {sample_rate_hz} is not within 4000..=192000"
        );
        ensure!(
            frame_rate_hz > 0 && sample_rate_hz % frame_rate_hz == 0,
            "audio.frame_rate_hz {frame_rate_hz} does not divide the sample rate {sample_rate_hz}"
        );
        let frame = sample_rate_hz / frame_rate_hz;
        ensure!(
            hop > 0 && frame % hop == 0,
            "audio.hop {hop} does not divide a frame of {frame} samples"
        );
        ensure!(
            (2..=65_536).contains(&fft_size) && fft_size % 2 == 0 && fft_size % hop == 0,
            "audio.fft_size {fft_size} is not an even multiple of the hop {hop} up to 65536"
        );
        ensure!(
            max_log_magnitude.is_finite() && (-20.0..=20.0).contains(&max_log_magnitude),
            "audio.max_log_magnitude {max_log_magnitude} is not within -20..=20"
        );
        Ok(())
    }
}

impl Vocabulary {
    /// Ids fit the group index and the model's tables.
    const MAX_ID: u32 = 1 << 20;

    fn check(&self) -> std::result::Result<(), String> {
        ensure!(
            self.fsq_digits > 0
                && self.fsq_levels > 1
                && self.fsq_levels.checked_pow(self.fsq_digits) == Some(self.speech),
            "vocabulary.speech {} is not fsq_levels {} to the power fsq_digits {}",
            self.speech,
            self.fsq_levels,
            self.fsq_digits
        );
        ensure!(
            self.end_of_speech == self.speech,
            "vocabulary.end_of_speech {} does not follow the {} speech tokens",
            self.end_of_speech,
            self.speech
        );
        let characters: Vec<char> = self.characters.chars().collect();
        ensure!(
            characters.contains(&' ') && characters.len() > 1,
            "vocabulary.characters {:?} does not contain the space and letters",
            self.characters
        );
        for (i, c) in characters.iter().enumerate() {
            ensure!(!characters[..i].contains(c), "vocabulary.characters has {c:?} twice");
        }
        let last = u64::from(self.first_character) + characters.len() as u64 - 1;
        ensure!(
            self.first_character > self.speech && last <= u64::from(Self::MAX_ID),
            "vocabulary.first_character {} is not within {}..={}",
            self.first_character,
            self.speech + 1,
            Self::MAX_ID
        );
        let taken = [
            ("end_of_speech", self.end_of_speech),
            ("begin", self.begin),
            ("start_of_speech", self.start_of_speech),
            ("pad", self.pad),
        ];
        for (i, (name, id)) in taken.iter().enumerate() {
            ensure!(
                *id >= self.speech && *id <= Self::MAX_ID,
                "vocabulary.{name} {id} is not within {}..={}",
                self.speech,
                Self::MAX_ID
            );
            for (other, same) in &taken[..i] {
                ensure!(id != same, "vocabulary.{name} and {other} are both {id}");
            }
            ensure!(
                *id < self.first_character || u64::from(*id) > last,
                "vocabulary.{name} {id} lies among the characters {}..={last}",
                self.first_character
            );
        }
        Ok(())
    }
}

impl LanguageModel {
    fn check(&self, section: &str) -> std::result::Result<(), String> {
        let small = |name: &str, value: usize, most: usize| {
            ensure!(
                (1..=most).contains(&value),
                "{section}.{name} {value} is not within 1..={most}"
            );
            Ok(())
        };
        ensure!(
            self.features == 0 || section == "draft",
            "{section}.features: only a draft reads features"
        );
        small("layers", self.layers, 256)?;
        small("hidden", self.hidden, 65_536)?;
        small("heads", self.heads, 1_024)?;
        small("kv_heads", self.kv_heads, 1_024)?;
        small("head_dim", self.head_dim, 4_096)?;
        small("ffn", self.ffn, 1 << 20)?;
        small("max_positions", self.max_positions, 1 << 20)?;
        ensure!(
            self.hidden == self.heads * self.head_dim,
            "{section}.hidden {} is not heads {} times head_dim {}",
            self.hidden,
            self.heads,
            self.head_dim
        );
        ensure!(
            self.heads.is_multiple_of(self.kv_heads),
            "{section}.kv_heads {} does not divide heads {}",
            self.kv_heads,
            self.heads
        );
        ensure!(
            self.head_dim.is_multiple_of(2),
            "{section}.head_dim {} is odd, and positions rotate pairs",
            self.head_dim
        );
        ensure!(
            self.rope_base.is_finite() && self.rope_base > 1.0,
            "{section}.rope_base {} is not above 1",
            self.rope_base
        );
        ensure!(matches!(self.bits, 4 | 8), "{section}.bits {} is neither 4 nor 8", self.bits);
        Ok(())
    }
}

impl Sampling {
    /// What is accepted here can be decoded with: the bounds are the decoder's.
    fn check(&self) -> std::result::Result<(), String> {
        if let Some((name, range)) = self.law().fault() {
            return Err(format!("sampling.{} must be {range}", name.replace('-', "_")));
        }
        ensure!(self.gamma <= MAX_GAMMA, "sampling.gamma {} is above {MAX_GAMMA}", self.gamma);
        for (name, cost) in [("draft_cost", self.draft_cost), ("row_cost", self.row_cost)] {
            ensure!(
                cost.is_none_or(|c| Costs { draft: c, row: c }.are_valid()),
                "sampling.{name} is not within 0..=100"
            );
        }
        Ok(())
    }
}
