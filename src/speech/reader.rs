//! How a voice with a tokenizer reads: its recipe of a prompt, who turns text into phonemes, whom
//! it imitates.

use super::bpe::Bpe;
use super::command::PhonemesCommand;
use super::prompt::{Recipe, Reference};
use super::text::Chunk;
use crate::bundle::{Bundle, TextIs};
use crate::{Error, ErrorKind, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folder of reference voices inside a bundle's.
pub const VOICES: &str = "voices";

/// Longest file of a reference voice, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// `voices/NAME.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VoiceFile {
    /// What is said, in ordinary text.
    transcript: String,
    /// The same in phonemes, for models that read them.
    phonemes: Option<String>,
    /// Speech tokens.
    codes: Vec<u32>,
}

/// Where the reference voice `name` of the bundle at `dir` is.
///
/// # Errors
/// `InvalidArgument` if it is no name.
pub fn voice_path(dir: &Path, name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    if name.is_empty() || name.trim() != name || !name.chars().all(plain) {
        let what = format!("a voice cannot be called {name:?}: letters, digits, - and _ are names");
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    Ok(dir.join(VOICES).join(format!("{name}.toml")))
}

/// Names of the reference voices of the bundle at `dir`, sorted.
pub fn voices(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(VOICES));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[derive(Debug, Clone)]
pub(super) struct Reader {
    recipe: Recipe,
    text_is: TextIs,
    command: Option<PhonemesCommand>,
    reference: Option<Arc<Reference>>,
    emotion: Option<String>,
}

impl Reader {
    /// Of a bundle with a tokenizer, whose file this is.
    pub fn open(bundle: &Bundle, tokenizer: &[u8]) -> Result<Option<Self>> {
        let Some(prompt) = &bundle.prompt else { return Ok(None) };
        let bpe = Bpe::read(tokenizer, &bundle.text.tokenizer)?;
        let recipe = Recipe::new(bpe, prompt, &bundle.vocabulary)?;
        let (text_is, command) = (prompt.text_is, None);
        Ok(Some(Self { recipe, text_is, command, reference: None, emotion: None }))
    }

    pub fn set_command(&mut self, command: PhonemesCommand) -> Result<()> {
        if self.text_is != TextIs::EspeakPhonemes {
            let what = "this voice reads ordinary text or symbols of its own: it needs no program \
                        for phonemes";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        self.command = Some(command);
        Ok(())
    }

    pub fn set_emotion(&mut self, emotion: &str) -> Result<()> {
        // Asked for once here, so that it is told before any work.
        self.recipe.prompt("a", None, Some(emotion))?;
        self.emotion = Some(emotion.to_owned());
        Ok(())
    }

    pub fn set_reference(&mut self, reference: Reference) -> Result<()> {
        self.recipe.prompt("a", Some(&reference), None)?;
        self.reference = Some(Arc::new(reference));
        Ok(())
    }

    /// The reference voice `name` in the folder of a bundle.
    pub fn read_reference(&self, dir: &Path, name: &str) -> Result<Reference> {
        let path = voice_path(dir, name)?;
        let told = |what: String| {
            let all = voices(dir);
            let known = match all.is_empty() {
                true => "this bundle has none yet, `voxgrain voice add` makes one".to_owned(),
                false => format!("this bundle has {}", all.join(", ")),
            };
            Error::new(ErrorKind::InvalidArgument, format!("{what}; {known}"))
        };
        if !path.is_file() {
            return Err(told(format!("there is no voice {name:?}")));
        }
        let unreadable = |e: std::io::Error| {
            let what = format!("cannot read {}", path.display());
            Error::with_source(ErrorKind::Unreadable, what, e)
        };
        let long = path.metadata().map_err(unreadable)?.len() > MAX_FILE;
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        let file: Result<VoiceFile, _> = toml::from_str(&text);
        let file = match file {
            Ok(file) if !long => file,
            Ok(_) => {
                let what = format!("{} is longer than {MAX_FILE} bytes", path.display());
                return Err(Error::new(ErrorKind::Malformed, what));
            }
            Err(e) => {
                let what = format!("{} describes no voice", path.display());
                return Err(Error::with_source(ErrorKind::Malformed, what, e));
            }
        };
        let text = match self.text_is {
            TextIs::Plain => file.transcript,
            TextIs::PlainLower => file.transcript.to_lowercase(),
            _ => match (file.phonemes, &self.command) {
                (Some(phonemes), _) => phonemes,
                (None, Some(command)) => command.phonemes(&file.transcript)?,
                (None, None) => return Err(self.needs_command()),
            },
        };
        Ok(Reference::new(name, text, file.codes))
    }

    fn needs_command(&self) -> Error {
        let what = match self.text_is {
            TextIs::EspeakPhonemes => {
                "this voice reads phonemes: name the program that writes them, such as \
                 --phonemes-command 'espeak-ng -v en-us --ipa -q', or give phonemes with --phonemes"
            }
            _ => "this voice reads symbols of its own: give them with --phonemes",
        };
        Error::new(ErrorKind::Unsupported, what)
    }

    /// A chunk as prompts write it.
    pub fn write(&self, chunk: &Chunk) -> Result<String> {
        let mut sentence = chunk.text.clone();
        if self.text_is == TextIs::PlainLower {
            return Ok(sentence);
        }
        // Words come in small letters; such models were trained on written sentences.
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        match (self.text_is, &self.command) {
            (TextIs::Plain, _) => Ok(sentence),
            (TextIs::EspeakPhonemes, Some(command)) => command.phonemes(&sentence),
            _ => Err(self.needs_command()),
        }
    }

    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.recipe.prompt(text, self.reference.as_deref(), self.emotion.as_deref())
    }

    pub fn reference(&self) -> Option<&Arc<Reference>> {
        self.reference.as_ref()
    }
}
