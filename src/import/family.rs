//! Which speech language model it is, by the names of its tokens, and how its prompts are made: a
//! fixed recipe a family, written into the bundle as data.

use super::config::{Body, Config};
use super::source::{malformed, unsupported};
use crate::bundle::{Prompt, TextIs};
use crate::{Error, ErrorKind, Result};
use std::collections::HashMap;

/// Most speech tokens.
const MAX_SPEECH: u32 = 65_536;
/// Fewer are no codebook.
const MIN_SPEECH: u32 = 4;

/// Token ids by name.
pub type Ids = HashMap<String, u32>;

/// A family as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Such as `NeuTTS Nano`.
    pub name: String,
    /// Number of speech tokens.
    pub speech: u32,
    /// Tokenizer id of the first of them.
    pub first_speech: u32,
    /// Tokenizer id that ends an utterance.
    pub end: u32,
    /// Parts of a prompt, in order; models/README.md says what stands in them.
    pub parts: Vec<String>,
    /// What `{text}` must be.
    pub text_is: TextIs,
    /// Emotions and the token of each.
    pub emotions: Vec<String>,
    /// Defaults of sampling.
    pub sampling: Sampling,
    /// Longest sequence it was trained on.
    pub context: usize,
    /// Codec frames a second.
    pub frame_rate: u32,
    /// Codecs that its tokens are of, for messages.
    pub codec: &'static str,
    /// Levels and digits of a token, where it has factors.
    pub fsq: Option<(u32, u32)>,
}

/// `[sampling]` of a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// Tokens before the end may come.
    pub min_tokens: u32,
}

/// How speech tokens are named, the number between.
const SPEECH: [(&str, &str); 3] = [("<|speech_", "|>"), ("<|s_", "|>"), ("[", "]")];

impl Family {
    /// Finds the family of a model of this shape with these tokens. `bos` are the tokens that its
    /// tokenizer puts before every text, `date` whether its chat template begins with the
    /// system message of Llama 3.2.
    ///
    /// # Errors
    /// `Unsupported` if it has no speech tokens or is of no known family; `Malformed` if its ids
    /// contradict each other.
    pub fn find(config: &Config, ids: &Ids, bos: &[String], date: bool) -> Result<Self> {
        let (speech, first_speech) = speech_tokens(ids)?;
        let has = |name: &str| ids.contains_key(name);
        let fsq = fsq(speech);
        let neutral = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            min_tokens: 0,
        };
        let mut parts: Vec<String> = bos.to_vec();
        let mut add = |all: &[&str]| parts.extend(all.iter().map(|p| (*p).to_owned()));
        let found = if has("<|TEXT_PROMPT_START|>") && has("<|SPEECH_GENERATION_START|>") {
            // The newer models say it; before them all read phonemes but the one without a chat.
            let bpe = config.input_format.as_deref().map(|f| f.eq_ignore_ascii_case("bpe"));
            let bpe = bpe.unwrap_or(config.body == Body::Qwen3);
            let name = match config.body {
                Body::Llama => "NeuTTS Nano",
                Body::Qwen2 => "NeuTTS Air",
                Body::Qwen3 => "NeuTTS-2E",
            };
            if bpe {
                add(&["<|TEXT_PROMPT_START|>", "{reference_text}{emotion}{text}"]);
                add(&["<|TEXT_PROMPT_END|>", "<|SPEECH_GENERATION_START|>"]);
            } else {
                add(&["user: Convert the text to speech:", "<|TEXT_PROMPT_START|>"]);
                add(&["{reference_text} {text}", "<|TEXT_PROMPT_END|>", "\nassistant:"]);
                add(&["<|SPEECH_GENERATION_START|>"]);
            }
            add(&["{reference_codes}"]);
            let emotions = config.emotions.iter().filter(|e| has(&Prompt::emotion_token(e)));
            Self {
                name: name.into(),
                text_is: if bpe { TextIs::Plain } else { TextIs::EspeakPhonemes },
                emotions: emotions.cloned().collect(),
                sampling: Sampling { top_k: 50, min_tokens: 50, ..neutral },
                context: 2048,
                frame_rate: 50,
                codec: "NeuCodec",
                end: id(ids, "<|SPEECH_GENERATION_END|>")?,
                parts,
                speech,
                first_speech,
                fsq,
            }
        } else if has("<|TEXT_UNDERSTANDING_START|>") && has("<|SPEECH_GENERATION_START|>") {
            if date {
                // The fixed message of Llama 3.2's chat template; its date is the one it falls back to.
                add(&["<|start_header_id|>", "system", "<|end_header_id|>"]);
                add(&[concat!(
                    "\n\nCutting Knowledge Date: December 2023\n",
                    "Today Date: 26 Jul 2024\n\n"
                )]);
                add(&["<|eot_id|>"]);
            }
            add(&["<|start_header_id|>", "user", "<|end_header_id|>"]);
            add(&["\n\nConvert the text to speech:", "<|TEXT_UNDERSTANDING_START|>"]);
            add(&["{reference_text} {text}", "<|TEXT_UNDERSTANDING_END|>", "<|eot_id|>"]);
            add(&["<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"]);
            add(&["<|SPEECH_GENERATION_START|>", "{reference_codes}"]);
            Self {
                name: "Llasa".into(),
                text_is: TextIs::Plain,
                emotions: Vec::new(),
                sampling: Sampling { temperature: 0.8, ..neutral },
                context: 2048,
                frame_rate: 50,
                codec: "X-codec2",
                end: id(ids, "<|SPEECH_GENERATION_END|>")?,
                parts,
                speech,
                first_speech,
                fsq,
            }
        } else if ["[STOP]", "[TEXT]", "[START]"].into_iter().all(has) {
            // Its prompts are written whole: nothing comes before.
            Self {
                name: "Soprano".into(),
                parts: ["[STOP]", "[TEXT]", "{text}", "[START]"].map(str::to_owned).to_vec(),
                text_is: TextIs::PlainLower,
                emotions: Vec::new(),
                sampling: Sampling {
                    temperature: 0.0,
                    top_p: 0.95,
                    repetition_penalty: 1.2,
                    ..neutral
                },
                context: 512,
                // 2,048 samples a token at 32 kHz are no whole number a second.
                frame_rate: 0,
                codec: "Soprano's own",
                end: id(ids, "[STOP]")?,
                speech,
                first_speech,
                fsq: None,
            }
        } else if ["<|begin|>", "<|start_of_speech|>", "<|end_of_speech|>"].into_iter().all(has) {
            Self {
                name: "voxgrain".into(),
                parts: ["<|begin|>", "{text}", "<|start_of_speech|>"].map(str::to_owned).to_vec(),
                text_is: TextIs::OwnPhonemes,
                emotions: Vec::new(),
                sampling: neutral,
                context: config.context,
                frame_rate: 50,
                codec: "voxgrain's own",
                end: id(ids, "<|end_of_speech|>")?,
                speech,
                first_speech,
                fsq,
            }
        } else {
            return Err(unsupported(format!(
                "the tokenizer has {speech} speech tokens, but its prompts are of no known family \
                 (NeuTTS, Llasa, Soprano; docs/models.md): the tokens around text and speech are missing"
            )));
        };
        found.check(config, ids)
    }

    fn check(self, config: &Config, ids: &Ids) -> Result<Self> {
        let size = config.vocabulary;
        let last = self.first_speech as usize + self.speech as usize;
        if last > size || self.end as usize >= size {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the tokenizer's speech ids {}..{last} and end id {} are not among the model's {size} \
                     rows: it is the tokenizer of another model",
                    self.first_speech, self.end
                ),
            ));
        }
        if (self.first_speech..self.first_speech + self.speech).contains(&self.end) {
            return Err(malformed(format!("the end id {} is a speech id", self.end)));
        }
        for part in self.parts.iter().filter(|p| is_token(p)) {
            let at = id(ids, part)?;
            if at as usize >= size {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!("the token {part} has the id {at}, the model has {size} rows"),
                ));
            }
        }
        Ok(self)
    }

    /// The bundle's id of a tokenizer id: speech, the end, then everything else in order.
    pub fn bundle_id(&self, id: u32) -> u32 {
        let speech = self.first_speech..self.first_speech + self.speech;
        if speech.contains(&id) {
            return id - self.first_speech;
        }
        if id == self.end {
            return self.speech;
        }
        // What was taken out of the ids below.
        let before = u32::from(id >= speech.end) * self.speech + u32::from(id > self.end);
        self.speech + 1 + id - before
    }

    /// The tokenizer's ids in the order of the bundle's.
    pub fn order(&self, size: usize) -> Vec<usize> {
        let mut order = vec![0; size];
        for id in 0..size {
            order[self.bundle_id(id as u32) as usize] = id;
        }
        order
    }
}

/// Whether a part of a recipe is one token by its name.
pub fn is_token(part: &str) -> bool {
    let of = |a: &str, b: &str| {
        part.strip_prefix(a).and_then(|p| p.strip_suffix(b)).is_some_and(|name| {
            !name.is_empty() && !name.contains(['{', '}', ' ', '\n', '<', '[', ']'])
        })
    };
    of("<|", "|>") || of("[", "]")
}

fn id(ids: &Ids, name: &str) -> Result<u32> {
    ids.get(name).copied().ok_or_else(|| {
        malformed(format!("the tokenizer has no {name}; is it the tokenizer of another model?"))
    })
}

/// Number of speech tokens and the id of the first; they must follow each other.
fn speech_tokens(ids: &Ids) -> Result<(u32, u32)> {
    for (before, behind) in SPEECH {
        let name = |n: u32| format!("{before}{n}{behind}");
        let Some(&first) = ids.get(&name(0)) else { continue };
        let mut n = 1;
        while let Some(&next) = ids.get(&name(n)) {
            if first.checked_add(n) != Some(next) {
                return Err(unsupported(format!(
                    "the token {} has the id {next}, and {} speech tokens before it begin at {first}: \
                     speech ids must follow each other",
                    name(n),
                    n
                )));
            }
            n += 1;
            if n > MAX_SPEECH {
                return Err(unsupported(format!(
                    "there are more than {MAX_SPEECH} speech tokens, {} among them",
                    name(MAX_SPEECH)
                )));
            }
        }
        // A gap would cut the codebook short without a word.
        let beyond = ids.keys().filter_map(|t| t.strip_prefix(before)?.strip_suffix(behind));
        if let Some(m) = beyond.filter_map(|t| t.parse::<u32>().ok()).find(|m| *m > n) {
            return Err(malformed(format!(
                "the token {} is missing while {} is there: is the tokenizer whole?",
                name(n),
                name(m)
            )));
        }
        if n >= MIN_SPEECH {
            return Ok((n, first));
        }
    }
    Err(unsupported(
        "the tokenizer has no speech tokens (<|speech_0|>, <|s_0|> or [0] and on): it is no speech \
         language model of one codebook, see docs/models.md",
    ))
}

/// Digits and levels of a codebook of 4^n codes: those that have a codec here.
fn fsq(speech: u32) -> Option<(u32, u32)> {
    (1..=8).find(|&d| 4u32.pow(d) == speech).map(|d| (d, 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(first: u32, speech: u32, end: u32) -> Family {
        Family {
            name: "f".into(),
            speech,
            first_speech: first,
            end,
            parts: vec![],
            text_is: TextIs::Plain,
            emotions: vec![],
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
                repetition_penalty: 1.0,
                min_tokens: 0,
            },
            context: 1,
            frame_rate: 50,
            codec: "",
            fsq: None,
        }
    }

    /// Speech, end, then the rest in rising order, wherever the end lies.
    #[test]
    fn ids_are_sorted_once() {
        for (first, speech, end, size) in
            [(5, 4, 4, 12), (5, 4, 9, 12), (5, 4, 0, 12), (0, 4, 4, 6), (2, 4, 7, 8), (1, 4, 0, 5)]
        {
            let f = family(first, speech, end);
            let order = f.order(size);
            let mut want: Vec<usize> = (first..first + speech).map(|i| i as usize).collect();
            want.push(end as usize);
            want.extend((0..size).filter(|i| !want.contains(i)).collect::<Vec<_>>());
            assert_eq!(order, want, "{first} {speech} {end}");
            assert!(order.iter().enumerate().all(|(b, t)| f.bundle_id(*t as u32) == b as u32));
        }
    }

    #[test]
    fn tokens_and_texts_of_a_recipe_differ() {
        for token in ["<|TEXT_PROMPT_START|>", "[STOP]", "<|eot_id|>"] {
            assert!(is_token(token), "{token}");
        }
        for text in [
            "{text}",
            "user: Convert",
            "\nassistant:",
            "{reference_text} {text}",
            "[a] [b]",
            "<||>",
        ] {
            assert!(!is_token(text), "{text}");
        }
    }

    #[test]
    fn speech_ids_must_follow_each_other() {
        let ids = |names: &[(&str, u32)]| -> Ids {
            names.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect()
        };
        let four = [("<|s_0|>", 7), ("<|s_1|>", 8), ("<|s_2|>", 9), ("<|s_3|>", 10)];
        assert_eq!(speech_tokens(&ids(&four)).unwrap(), (4, 7));
        let mut broken = four;
        broken[2].1 = 11;
        assert!(speech_tokens(&ids(&broken)).unwrap_err().to_string().contains("follow"));
        let gap = [four[0], four[1], four[3], ("<|s_5|>", 12)];
        assert!(speech_tokens(&ids(&gap)).unwrap_err().to_string().contains("<|s_2|>"));
        assert!(speech_tokens(&ids(&[("a", 0)])).is_err());
        assert_eq!(fsq(65_536), Some((8, 4)));
        assert_eq!(fsq(8_000), None);
    }
}
