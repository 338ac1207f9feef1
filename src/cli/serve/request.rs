//! What a client asks for, checked; and how a refusal is told.

use super::super::args::ArmName;
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use voxgrain::{Error, ErrorKind, Voice};

/// Why a request is refused, as OpenAI's clients read it.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
    /// The field that is wrong.
    pub param: Option<&'static str>,
    pub code: &'static str,
    /// Whether it may be asked again soon.
    pub again: bool,
    /// For 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, param: None, code, again: false, allow: None }
    }

    fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(400, "invalid_value", message) }
    }

    pub fn busy(message: &str) -> Self {
        Self { again: true, ..Self::new(503, "busy", message) }
    }

    pub fn json(&self) -> Value {
        let kind = match self.status {
            401 => "authentication_error",
            503 => "overloaded_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        let message = format!("{e:#}");
        match e.kind() {
            ErrorKind::InvalidText => Self::field("input", message),
            ErrorKind::InvalidArgument => Self::new(400, "invalid_value", message),
            ErrorKind::Full => Self::new(413, "too_large", message),
            ErrorKind::Memory => Self { again: true, ..Self::new(503, "no_memory", message) },
            ErrorKind::Cancelled => Self::new(408, "timeout", message),
            _ => Self::new(500, "internal", message),
        }
    }
}

/// What the sound is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    Wav,
    Pcm,
}

const FORMATS: &str = "wav and pcm";

/// What a speech is to be like, whoever asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Manner {
    /// One of the bundle's speakers; none for the server's own.
    pub speaker: Option<String>,
    pub rate: f32,
    pub seed: u64,
    pub arm: Option<ArmName>,
    pub ssml: Option<bool>,
}

/// The seed where nobody names one, as that of `say`.
pub const SEED: u64 = 1;

impl Default for Manner {
    fn default() -> Self {
        Self { speaker: None, rate: 1.0, seed: SEED, arm: None, ssml: None }
    }
}

/// `POST /v1/audio/speech`.
#[derive(Debug, PartialEq)]
pub struct Wish {
    pub input: String,
    pub manner: Manner,
    pub format: Format,
    /// Server-sent events instead of bare sound.
    pub events: bool,
    /// Events that tell how decoding goes.
    pub progress: bool,
}

/// Names that a model may have: OpenAI's clients send one of theirs.
pub const MODELS: [&str; 4] = ["voxgrain", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"];

/// Other names for speakers, from `--alias`.
pub type Aliases = [(String, String)];

/// The speaker that is called `name`.
pub fn speaker(voice: &Voice, aliases: &Aliases, name: &str) -> Result<String, Refusal> {
    let found = aliases.iter().find(|(alias, _)| alias == name);
    let name = found.map_or(name, |(_, speaker)| speaker.as_str());
    match voice.bundle().speaker(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(e) => {
            Err(Refusal { code: "voice_not_found", ..Refusal::field("voice", e.to_string()) })
        }
    }
}

impl Wish {
    /// Reads the body of a request; `most` characters of text are taken.
    pub fn parse(
        body: &[u8],
        voice: &Voice,
        aliases: &Aliases,
        most: usize,
    ) -> Result<Self, Refusal> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| Refusal::new(400, "invalid_json", format!("the body is not JSON: {e}")))?;
        let Value::Object(mut fields) = value else {
            let what =
                "the body is JSON but no object: send {\"input\": \"Hello.\", \"voice\": ...}";
            return Err(Refusal::new(400, "invalid_json", what));
        };
        let model = text(&mut fields, "model")?;
        if let Some(model) = model.filter(|m| !MODELS.contains(&m.as_str())) {
            let what =
                format!("there is no model {model:?}; GET /v1/models lists {}", MODELS.join(", "));
            let refusal =
                Refusal { param: Some("model"), ..Refusal::new(404, "model_not_found", what) };
            return Err(refusal);
        }
        let Some(input) = text(&mut fields, "input")? else {
            return Err(Refusal::field("input", "there is no \"input\": send the text to speak"));
        };
        let length = input.chars().count();
        if length > most {
            let what =
                format!("\"input\" has {length} characters; {most} are the most: send it in parts");
            return Err(Refusal {
                code: "too_large",
                status: 413,
                ..Refusal::field("input", what)
            });
        }
        let name = match fields.remove("voice") {
            Some(Value::Object(mut named)) => {
                let id = text(&mut named, "id").ok().flatten();
                let what = "\"voice\" is a name, or an object with the name as \"id\"";
                Some(id.ok_or_else(|| Refusal::field("voice", what))?)
            }
            Some(other) => {
                fields.insert("voice".into(), other);
                text(&mut fields, "voice")?
            }
            None => None,
        };
        let speaker = name.map(|name| speaker(voice, aliases, &name)).transpose()?;
        let format = match text(&mut fields, "response_format")?.as_deref() {
            None | Some("wav") => Format::Wav,
            Some("pcm") => Format::Pcm,
            Some(other) => {
                let what = format!(
                    "\"response_format\" {other:?} is not written here; {FORMATS} are: ask for wav \
                     and give it to a converter"
                );
                return Err(Refusal::field("response_format", what));
            }
        };
        let events = match text(&mut fields, "stream_format")?.as_deref() {
            None | Some("audio") => false,
            Some("sse") => true,
            Some(other) => {
                let what = format!("\"stream_format\" is \"audio\" or \"sse\", not {other:?}");
                return Err(Refusal::field("stream_format", what));
            }
        };
        let rate = match fields.remove("speed") {
            None | Some(Value::Null) => 1.0,
            Some(value) => {
                let number = value.as_f64().map(|n| n as f32);
                number.ok_or_else(|| Refusal::field("speed", "\"speed\" is a number"))?
            }
        };
        voice.check_rate(rate).map_err(|e| Refusal::field("speed", e.to_string()))?;
        let seed = match fields.remove("seed") {
            None | Some(Value::Null) => SEED,
            Some(value) => {
                let what = "\"seed\" is a whole number from 0 to 18446744073709551615";
                value.as_u64().ok_or_else(|| Refusal::field("seed", what))?
            }
        };
        let arm = match text(&mut fields, "arm")? {
            None => None,
            Some(name) => Some(ArmName::from_str(&name, false).map_err(|_| {
                let all = ArmName::value_variants().iter();
                let names: Vec<_> = all.filter_map(|a| a.to_possible_value()).collect();
                let names: Vec<_> = names.iter().map(|n| n.get_name()).collect();
                Refusal::field("arm", format!("\"arm\" {name:?} is none of {}", names.join(", ")))
            })?),
        };
        let progress = match fields.remove("progress") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(wanted)) if events || !wanted => wanted,
            Some(Value::Bool(_)) => {
                let what = "\"progress\" comes as events: add \"stream_format\": \"sse\"";
                return Err(Refusal::field("progress", what));
            }
            Some(_) => return Err(Refusal::field("progress", "\"progress\" is true or false")),
        };
        // It asks for a way to speak, which this voice does not change; OpenAI's older models
        // leave it out as well.
        text(&mut fields, "instructions")?;
        if let Some(name) = fields.keys().next() {
            let what = format!(
                "there is no field {name:?} here; there are model, input, voice, response_format, \
                 stream_format, speed, instructions, seed, arm and progress"
            );
            return Err(Refusal::new(400, "unknown_field", what));
        }
        let manner = Manner { speaker, rate, seed, arm, ssml: None };
        Ok(Self { input, manner, format, events, progress })
    }
}

/// A field that is text, taken out; `null` is as good as no field.
fn text(fields: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Refusal> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let kind = match other {
                Value::Bool(_) => "true or false",
                Value::Number(_) => "a number",
                Value::Array(_) => "a list",
                _ => "an object",
            };
            Err(Refusal::field(name, format!("\"{name}\" is text, not {kind}")))
        }
    }
}
