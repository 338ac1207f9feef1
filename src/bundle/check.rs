//! What a description must not say: ranges, and sections that contradict each other.

use std::collections::HashSet;
use std::path::{Component, Path};

use super::{
    Audio, Codec, Description, FrontEnd, LanguageModel, Prompt, Sampling, Speaker, Text, Vocabulary,
};
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
        self.check_texts()?;
        self.audio.check()?;
        self.vocabulary.check()?;
        check_speakers(&self.speakers, &self.vocabulary)?;
        self.check_text()?;
        self.target.check("target")?;
        if let Some(draft) = &self.draft {
            draft.check("draft")?;
            ensure!(
                draft.features.is_multiple_of(self.target.hidden),
                "draft.features {} is not target.hidden {} once, or once more for each tap",
                draft.features,
                self.target.hidden
            );
        }
        self.sampling.check()?;
        let a = &self.audio;
        ensure!(
            self.codec.latency_samples <= a.sample_rate_hz,
            "codec.latency_samples {} is more than a second",
            self.codec.latency_samples
        );
        self.codec.check(a)?;
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
        let draft = self.draft.iter().map(|d| ("draft", &d.file));
        let others = [("target", &self.target.file), ("codec", &self.codec.file)];
        for (section, file) in others.into_iter().chain(draft) {
            ensure!(
                self.files.iter().any(|f| f.path == *file),
                "{section}.file {file:?} is not listed under [[files]]"
            );
            ensure!(
                self.files.iter().any(|f| f.path.strip_suffix(".data") == Some(file)),
                "the weights of {section}.file, \"{file}.data\", are not listed under [[files]]"
            );
        }
        ensure!(
            matches!(self.codec.bits, 4 | 8 | 16 | 32),
            "codec.bits {} is none of 4, 8, 16 and 32",
            self.codec.bits
        );
        Ok(())
    }
}

impl Description {
    /// What people are shown: a terminal obeys control characters.
    fn check_texts(&self) -> std::result::Result<(), String> {
        for (key, text) in [("name", &self.name), ("licence", &self.licence)] {
            ensure!(!text.trim().is_empty(), "{key} is empty");
            ensure!(!text.contains(char::is_control), "{key} {text:?} is not one line of text");
        }
        ensure!(
            !self
                .attribution
                .contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')),
            "attribution has control characters"
        );
        Ok(())
    }

    fn check_text(&self) -> std::result::Result<(), String> {
        let Text { front_end, lexicon, tempo_symbols, tempos, tokenizer } = &self.text;
        ensure!(
            self.format > 1 || self.text == Text::default(),
            "format 1 has no [text]: its prompts are letters"
        );
        ensure!(
            lexicon.is_empty() == (*front_end != FrontEnd::Phonemes)
                && !Path::new(lexicon).is_absolute(),
            "text.lexicon {lexicon:?} is not a relative path for phonemes, or is there for letters"
        );
        let bpe = *front_end == FrontEnd::Bpe;
        ensure!(
            tokenizer.is_empty() != bpe
                && self.prompt.is_some() == bpe
                && self.vocabulary.size.is_some() == bpe,
            "text.tokenizer, [prompt] and vocabulary.size belong to the front end bpe, and it to them"
        );
        if let Some(prompt) = &self.prompt {
            ensure!(
                self.files.iter().any(|f| f.path == *tokenizer),
                "text.tokenizer {tokenizer:?} is not listed under [[files]]"
            );
            prompt.check()?;
        }
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

impl Prompt {
    fn check(&self) -> std::result::Result<(), String> {
        const MOST: usize = 64;
        const LONGEST: usize = 4096;
        ensure!(
            (1..=MOST).contains(&self.parts.len()) && self.emotions.len() <= MOST,
            "prompt: {} parts and {} emotions, at least one part and at most {MOST} of each",
            self.parts.len(),
            self.emotions.len()
        );
        for part in &self.parts {
            ensure!(
                (1..=LONGEST).contains(&part.len()),
                "prompt.parts: one has {} bytes, not 1 to {LONGEST}",
                part.len()
            );
            let codes = part.contains(Self::REFERENCE_CODES);
            ensure!(
                !codes || part == Self::REFERENCE_CODES,
                "prompt.parts: {part:?} has more in it than {}",
                Self::REFERENCE_CODES
            );
        }
        for (name, most) in [
            (Self::TEXT, 1),
            (Self::REFERENCE_TEXT, 1),
            (Self::EMOTION, 1),
            (Self::REFERENCE_CODES, 1),
        ] {
            let found: usize = self.parts.iter().map(|p| p.matches(name).count()).sum();
            ensure!(found <= most, "prompt.parts: {name} is there {found} times");
        }
        let text = self.parts.iter().find(|p| p.contains(Self::TEXT));
        let text = text.ok_or_else(|| format!("prompt.parts: no part has {}", Self::TEXT))?;
        for name in [Self::REFERENCE_TEXT, Self::EMOTION] {
            let apart = self.parts.iter().any(|p| p.contains(name) && p != text);
            ensure!(!apart, "prompt.parts: {name} stands apart from {}", Self::TEXT);
        }
        let plain = |e: &&String| !e.is_empty() && e.bytes().all(|b| b.is_ascii_lowercase());
        if let Some(odd) = self.emotions.iter().find(|e| !plain(e)) {
            return Err(format!("prompt.emotions: {odd:?} is not a word of small letters"));
        }
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

/// The shortest context of a model.
const MIN_POSITIONS: usize = 32;

/// A relative path that stays inside, spelt the same on every system.
fn inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':'])
        && !path.contains(char::is_control)
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

impl Codec {
    /// Tokens of a window: what is beyond is no stream any more.
    const MAX_FRAMES: usize = 1024;

    fn check(&self, audio: &Audio) -> std::result::Result<(), String> {
        let given = [self.first_frames, self.new_frames, self.ahead_frames, self.back_frames];
        let Some(w) = self.windows() else {
            ensure!(
                given.iter().all(Option::is_none),
                "codec.first_frames, new_frames, ahead_frames and back_frames are for \
                 codec.kind = \"windowed\""
            );
            return Ok(());
        };
        ensure!(
            audio.spectra_per_frame() == 1,
            "a windowed codec makes one spectrum a token, audio.hop {} is not the token's {} samples",
            audio.hop,
            audio.samples_per_frame()
        );
        for (name, value, least) in [
            ("first_frames", w.first, w.ahead + 1),
            ("new_frames", w.new, 1),
            ("ahead_frames", w.ahead, 0),
            ("back_frames", w.back, 1),
        ] {
            ensure!(
                (least..=Self::MAX_FRAMES).contains(&value),
                "codec.{name} {value} is not within {least}..={}",
                Self::MAX_FRAMES
            );
        }
        Ok(())
    }
}

impl Vocabulary {
    /// Ids fit the group index and the model's tables.
    const MAX_ID: u32 = 1 << 20;
    /// More than any script has; looking one up takes as many steps.
    const MAX_CHARACTERS: usize = 1 << 16;

    fn check(&self) -> std::result::Result<(), String> {
        ensure!(
            self.fsq_digits.is_some() == self.fsq_levels.is_some(),
            "vocabulary has one of fsq_digits and fsq_levels: both are needed or neither"
        );
        if let (Some(digits), Some(levels)) = (self.fsq_digits, self.fsq_levels) {
            ensure!(
                digits > 0 && levels > 1 && levels.checked_pow(digits) == Some(self.speech),
                "vocabulary.speech {} is not fsq_levels {levels} to the power fsq_digits {digits}",
                self.speech,
            );
        }
        ensure!(
            (1..Self::MAX_ID).contains(&self.speech),
            "vocabulary.speech {} is not within 1..{}",
            self.speech,
            Self::MAX_ID
        );
        ensure!(
            self.end_of_speech == self.speech,
            "vocabulary.end_of_speech {} does not follow the {} speech tokens",
            self.end_of_speech,
            self.speech
        );
        if let Some(size) = self.size {
            return self.check_tokenizer(size);
        }
        ensure!(
            self.first_speech_id.is_none() && self.end_id.is_none(),
            "vocabulary.first_speech_id and end_id are a tokenizer's: vocabulary.size is missing"
        );
        let characters: Vec<char> =
            self.characters.chars().take(Self::MAX_CHARACTERS + 1).collect();
        ensure!(
            characters.len() <= Self::MAX_CHARACTERS,
            "vocabulary.characters has more than {} of them",
            Self::MAX_CHARACTERS
        );
        ensure!(
            characters.contains(&' ') && characters.len() > 1,
            "vocabulary.characters does not contain the space and letters"
        );
        let mut seen = HashSet::new();
        for c in &characters {
            ensure!(seen.insert(c), "vocabulary.characters has {c:?} twice");
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

    /// Of a voice whose prompts a tokenizer makes: ids of its own, and no characters.
    fn check_tokenizer(&self, size: u32) -> std::result::Result<(), String> {
        ensure!(
            self.characters.is_empty()
                && [self.begin, self.start_of_speech, self.pad, self.first_character] == [0; 4],
            "vocabulary has size {size} and characters or their symbols: ids are a tokenizer's or \
             characters"
        );
        ensure!(
            size > self.speech && size <= Self::MAX_ID,
            "vocabulary.size {size} is not within {}..={}",
            self.speech + 1,
            Self::MAX_ID
        );
        let (Some(first), Some(end)) = (self.first_speech_id, self.end_id) else {
            return Err(format!("vocabulary has size {size} without first_speech_id and end_id"));
        };
        ensure!(
            first <= size - self.speech,
            "vocabulary.first_speech_id {first} leaves no room for {} speech tokens within size {size}",
            self.speech
        );
        ensure!(
            end < size && !(first..first + self.speech).contains(&end),
            "vocabulary.end_id {end} is a speech token or not below size {size}"
        );
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
        // Less holds no prompt and an answer.
        ensure!(
            self.max_positions >= MIN_POSITIONS,
            "{section}.max_positions {} is below {MIN_POSITIONS}",
            self.max_positions
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
        if let Some(base) = self.rope_base {
            ensure!(base.is_finite() && base > 1.0, "{section}.rope_base {base} is not above 1");
        }
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
