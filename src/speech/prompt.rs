//! Prompts of models that have a tokenizer: a recipe of the bundle, a text, and perhaps a
//! reference voice whose words and speech tokens come first.

use super::bpe::Bpe;
use crate::bundle::{Prompt, Vocabulary};
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;

/// A voice to imitate: what it says, as prompts write it, and its speech tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// What it says, in what the prompt's text is written in.
    pub text: String,
    /// How it says it, one token a frame.
    pub codes: Vec<u32>,
}

impl Reference {
    /// A reference of this name.
    pub fn new(name: impl Into<String>, text: impl Into<String>, codes: Vec<u32>) -> Self {
        Self { name: name.into(), text: text.into(), codes }
    }
}

#[derive(Debug, Clone)]
enum Part {
    /// Ids that are always the same.
    Ids(Vec<u32>),
    /// Text with places in it, cut where an emotion's token may stand.
    Text(String, Option<String>),
    Codes,
}

/// A recipe that is ready: clones share its tokenizer.
#[derive(Debug, Clone)]
pub struct Recipe {
    bpe: Bpe,
    parts: Arc<[Part]>,
    vocabulary: Arc<Vocabulary>,
    /// Emotions and their tokens.
    emotions: Arc<[(String, u32)]>,
    /// Tokens that a text must not hold.
    control: Arc<[u32]>,
}

impl Recipe {
    /// Looks up all that is the same in every prompt.
    ///
    /// # Errors
    /// `Mismatch` if the tokenizer has not the tokens that the recipe names, or ids that the model
    /// has no rows for.
    pub fn new(bpe: Bpe, prompt: &Prompt, vocabulary: &Vocabulary) -> Result<Self> {
        let foreign = |what: String| Error::new(ErrorKind::Mismatch, what);
        let known = |id: u32| {
            vocabulary.from_tokenizer(id).ok_or_else(|| {
                foreign(format!(
                    "the tokenizer gives the id {id}, the model has {} rows: it is another model's",
                    vocabulary.len()
                ))
            })
        };
        let (mut parts, mut control) = (Vec::new(), Vec::new());
        for part in &prompt.parts {
            let ids = if part == Prompt::REFERENCE_CODES {
                parts.push(Part::Codes);
                continue;
            } else if part.contains(Prompt::TEXT) {
                parts.push(match part.split_once(Prompt::EMOTION) {
                    Some((before, behind)) => Part::Text(before.into(), Some(behind.into())),
                    None => Part::Text(part.clone(), None),
                });
                continue;
            } else if let Some(id) = bpe.id(part) {
                if bpe.is_added(id) {
                    control.push(known(id)?);
                }
                vec![id]
            } else if part.starts_with("<|") && part.ends_with("|>") {
                let what = format!("the tokenizer has no {part}, which prompt.parts names");
                return Err(foreign(what));
            } else {
                bpe.encode(part)?
            };
            parts.push(Part::Ids(ids.into_iter().map(known).collect::<Result<_>>()?));
        }
        let emotion = |name: &String| {
            let token = Prompt::emotion_token(name);
            let id = bpe.id(&token);
            let id = id.ok_or_else(|| foreign(format!("the tokenizer has no {token}")))?;
            Ok((name.clone(), known(id)?))
        };
        let emotions = prompt.emotions.iter().map(emotion).collect::<Result<Vec<_>>>()?;
        control.extend(emotions.iter().map(|e| e.1));
        Ok(Self {
            bpe,
            parts: parts.into(),
            vocabulary: Arc::new(vocabulary.clone()),
            emotions: emotions.into(),
            control: control.into(),
        })
    }

    /// Names of the emotions that may be asked for.
    pub fn emotions(&self) -> impl Iterator<Item = &str> {
        self.emotions.iter().map(|(name, _)| name.as_str())
    }

    /// Whether prompts have a place for a reference's speech tokens.
    pub fn takes_reference(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Codes))
    }

    /// The ids that the models read before the speech of `text`.
    ///
    /// # Errors
    /// `InvalidText` if there is nothing to say or a token of the model's own is in it,
    /// `InvalidArgument` for an emotion or reference that the model has no place for.
    pub fn prompt(
        &self,
        text: &str,
        reference: Option<&Reference>,
        emotion: Option<&str>,
    ) -> Result<Vec<u32>> {
        let bad = |what: String| Error::new(ErrorKind::InvalidArgument, what);
        if text.trim().is_empty() {
            return Err(Error::new(ErrorKind::InvalidText, "there is nothing to speak"));
        }
        if let Some(r) = reference {
            if !self.takes_reference() {
                return Err(bad("this model has one voice: its prompts hold no other".into()));
            }
            if let Some(code) = r.codes.iter().find(|c| **c >= self.vocabulary.speech) {
                return Err(bad(format!(
                    "the voice {:?} has the speech token {code}, this model has {}",
                    r.name, self.vocabulary.speech
                )));
            }
        }
        let emotion = match emotion {
            None => None,
            Some(name) => {
                let found = self.emotions.iter().find(|(known, _)| known == name);
                let found = found.ok_or_else(|| {
                    let all: Vec<&str> = self.emotions().collect();
                    bad(match all.len() {
                        0 => "this model knows no emotions".into(),
                        _ => format!("there is no emotion {name:?}: {}", all.join(", ")),
                    })
                })?;
                Some(found.1)
            }
        };
        // What the places stand for is put in at once: a text that names a place stays text.
        let fill = |template: &str| {
            let mut out = String::new();
            let mut rest = template;
            while let Some(at) = rest.find('{') {
                out.push_str(&rest[..at]);
                rest = &rest[at..];
                let places = [
                    (Prompt::TEXT, text),
                    (Prompt::REFERENCE_TEXT, reference.map_or("", |r| r.text.as_str())),
                ];
                match places.iter().find(|(name, _)| rest.starts_with(name)) {
                    Some((name, value)) => {
                        out.push_str(value.trim());
                        rest = &rest[name.len()..];
                    }
                    None => {
                        out.push('{');
                        rest = &rest[1..];
                    }
                }
            }
            out + rest
        };
        let mut ids = Vec::new();
        for part in self.parts.iter() {
            match part {
                Part::Ids(all) => ids.extend(all),
                Part::Codes => ids.extend(reference.iter().flat_map(|r| &r.codes)),
                Part::Text(before, behind) => match (behind, emotion) {
                    (None, _) => self.say(fill(before).trim(), &mut ids)?,
                    (Some(behind), None) => {
                        self.say(format!("{} {}", fill(before), fill(behind)).trim(), &mut ids)?;
                    }
                    (Some(behind), Some(emotion)) => {
                        self.say(fill(before).trim(), &mut ids)?;
                        ids.push(emotion);
                        self.say(fill(behind).trim(), &mut ids)?;
                    }
                },
            }
        }
        Ok(ids)
    }

    /// Encodes what somebody wrote, which must not steer the model.
    fn say(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for id in self.bpe.encode(text)? {
            let ours = self.vocabulary.from_tokenizer(id);
            match ours.filter(|id| *id > self.vocabulary.speech && !self.control.contains(id)) {
                Some(id) => ids.push(id),
                None => {
                    let what = "the text holds a token of the model's own, such as <|speech_0|>: \
                                leave it out";
                    return Err(Error::new(ErrorKind::InvalidText, what));
                }
            }
        }
        Ok(())
    }
}
