//! The Wyoming protocol over TCP, which Home Assistant speaks: a line of JSON, then as many bytes
//! of JSON data and of payload as the line says.

use super::hall::{Hall, Reader, apart, raised};
use super::metrics::Door;
use super::request::{Manner, Refusal, speaker};
use super::turns::{Piece, Text};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use voxgrain::speech::wav::to_i16;

/// The longest line: what the protocol's own library reads.
const LINE: usize = 64 << 10;
/// How long the rest of an event that has begun may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may be silent between events.
const IDLE: Duration = Duration::from_secs(600);
/// The protocol's version that this was tried with.
const VERSION: &str = "1.10.2";
const LANGUAGE: &str = "en_US";

#[derive(Debug)]
struct Event {
    kind: String,
    data: Map<String, Value>,
}

fn wrong(what: impl Into<String>) -> Refusal {
    Refusal::new(400, "bad_event", what)
}

/// Reads one event; `None` where the client has ended the connection between two. Data and
/// payload have at most `most` bytes. A payload means nothing to a server that speaks.
async fn read_event(
    from: &mut (impl AsyncBufRead + Unpin),
    most: usize,
) -> Result<Option<Event>, Refusal> {
    match tokio::time::timeout(IDLE, from.fill_buf()).await {
        Ok(Ok([])) | Ok(Err(_)) => return Ok(None),
        Ok(Ok(_)) => {}
        Err(_) => return Err(Refusal::new(408, "timeout", "nothing came for ten minutes")),
    }
    match tokio::time::timeout(PATIENCE, read_rest(from, most)).await {
        Ok(event) => event.map(Some),
        Err(_) => {
            let what = format!("the rest of an event did not come within {} s", PATIENCE.as_secs());
            Err(Refusal::new(408, "timeout", what))
        }
    }
}

async fn read_rest(from: &mut (impl AsyncBufRead + Unpin), most: usize) -> Result<Event, Refusal> {
    let ended = |_| wrong("the connection ended inside an event");
    let mut line = Vec::new();
    let n = (&mut *from).take(LINE as u64 + 1).read_until(b'\n', &mut line).await.map_err(ended)?;
    if line.last() != Some(&b'\n') {
        return Err(wrong(match n > LINE {
            true => format!("a line has more than {LINE} bytes: put the data behind it"),
            false => "the connection ended inside a line".into(),
        }));
    }
    let head: Value =
        serde_json::from_slice(&line).map_err(|e| wrong(format!("a line is not JSON: {e}")))?;
    let Value::Object(mut head) = head else {
        return Err(wrong("a line is JSON but no object: send {\"type\": \"describe\"}"));
    };
    let Some(Value::String(kind)) = head.remove("type") else {
        return Err(wrong("an event has no \"type\""));
    };
    let mut data = match head.remove("data") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(data)) => data,
        Some(_) => return Err(wrong("\"data\" is an object")),
    };
    let mut length = |name: &str| match head.remove(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => match value.as_u64() {
            Some(n) if n <= most as u64 => Ok(n as usize),
            Some(n) => {
                let what = format!("{name} is {n}; {most} bytes are the most");
                Err(Refusal::new(413, "too_large", what))
            }
            None => Err(wrong(format!("{name} is a whole number of bytes, not {value}"))),
        },
    };
    let (behind, payload) = (length("data_length")?, length("payload_length")?);
    if behind > 0 {
        let mut bytes = vec![0; behind];
        from.read_exact(&mut bytes).await.map_err(ended)?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(more)) => data.extend(more),
            Ok(_) => return Err(wrong("the data behind a line is an object")),
            Err(e) => return Err(wrong(format!("the data behind a line is not JSON: {e}"))),
        }
    }
    let mut rest = (&mut *from).take(payload as u64);
    let read = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map_err(ended)?;
    if read < payload as u64 {
        return Err(wrong("the connection ended inside an event"));
    }
    Ok(Event { kind, data })
}

/// Why a connection ends.
enum End {
    /// The client has gone, or does not read.
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        End::Refused(refusal)
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        End::Gone
    }
}

struct Conversation {
    hall: Arc<Hall>,
    events: mpsc::Receiver<Result<Event, Refusal>>,
    /// True once the client has ended its side.
    gone: watch::Receiver<bool>,
    out: OwnedWriteHalf,
    rate: u32,
}

/// Serves one connection until it ends, or until the server stops and its speech is spoken.
pub async fn serve(hall: Arc<Hall>, socket: TcpStream, mut stop: watch::Receiver<bool>) {
    let (read, out) = socket.into_split();
    let (send, events) = mpsc::channel(4);
    let (tell, gone) = watch::channel(false);
    let most = hall.limits.body;
    let reader = tokio::spawn(async move {
        let mut read = BufReader::new(read);
        while let Some(event) = read_event(&mut read, most).await.transpose() {
            let last = event.is_err();
            if send.send(event).await.is_err() || last {
                // Whoever listens decides when the connection ends.
                send.closed().await;
                return;
            }
        }
        let _ = tell.send(true);
        send.closed().await;
    });
    let rate = hall.voice.bundle().audio.sample_rate_hz;
    let mut c = Conversation { hall, events, gone, out, rate };
    loop {
        let event = tokio::select! {
            biased;
            event = c.events.recv() => event,
            _ = raised(&mut c.gone) => None,
            _ = raised(&mut stop) => None,
        };
        let ended = match event {
            None => break,
            Some(Ok(event)) => c.answer(event).await,
            Some(Err(refusal)) => Err(End::Refused(refusal)),
        };
        match ended {
            Ok(()) => {}
            Err(End::Gone) => break,
            Err(End::Refused(refusal)) => {
                c.hall.metrics.refusal();
                let told = json!({ "text": refusal.message, "code": refusal.code });
                // A client that waits for the end of the sound would wait for ever: so it ends.
                let _ = c.write("error", told, &[]).await;
                break;
            }
        }
    }
    reader.abort();
    let _ = c.out.shutdown().await;
}

impl Conversation {
    async fn write(&mut self, kind: &str, data: Value, payload: &[u8]) -> std::io::Result<()> {
        let data = data.to_string();
        let line = json!({
            "type": kind,
            "version": VERSION,
            "data_length": data.len(),
            "payload_length": payload.len(),
        });
        let mut bytes = format!("{line}\n{data}").into_bytes();
        bytes.extend_from_slice(payload);
        self.out.write_all(&bytes).await
    }

    async fn answer(&mut self, event: Event) -> Result<(), End> {
        log::info!("wyoming: {}", event.kind);
        match event.kind.as_str() {
            "describe" => {
                let info = self.info();
                Ok(self.write("info", info, &[]).await?)
            }
            "ping" => Ok(self.write("pong", Value::Object(event.data), &[]).await?),
            "synthesize" => self.whole(event).await,
            "synthesize-start" => self.stream(event).await,
            "synthesize-chunk" | "synthesize-stop" => {
                let what = format!("{} comes behind synthesize-start", event.kind);
                Err(wrong(what).into())
            }
            // The protocol has more than speech, and will have more: what is not known is dropped.
            _ => Ok(()),
        }
    }

    fn info(&self) -> Value {
        let bundle = self.hall.voice.bundle();
        let version = env!("CARGO_PKG_VERSION");
        let from = json!({ "name": bundle.attribution, "url": "" });
        let voices: Vec<Value> = bundle
            .speakers
            .iter()
            .map(|s| {
                json!({
                    "name": s.name,
                    "description": if s.description.is_empty() { &s.name } else { &s.description },
                    "attribution": from,
                    "installed": true,
                    "version": version,
                    "languages": [LANGUAGE],
                })
            })
            .collect();
        json!({ "asr": [], "tts": [{
            "name": "voxgrain",
            "description": "Speech on a CPU, drawn token by token",
            "attribution": { "name": "voxgrain", "url": "" },
            "installed": true,
            "version": version,
            "voices": voices,
            "supports_synthesize_streaming": true,
        }], "handle": [], "intent": [], "wake": [], "mic": [], "snd": [] })
    }

    fn manner(&self, data: &Map<String, Value>) -> Result<Manner, Refusal> {
        let hall = &self.hall;
        let mut manner = Manner::default();
        match data.get("voice") {
            None | Some(Value::Null) => {}
            Some(Value::Object(voice)) => {
                let get = |key: &str| match voice.get(key) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(s)) => Ok(Some(s.as_str())),
                    Some(_) => Err(wrong(format!("the voice's \"{key}\" is text"))),
                };
                // Of a bundle that is named, the speaker; else a name is a speaker's.
                let (bundle, name) = (hall.voice.bundle(), get("name")?);
                let whole = name.is_some_and(|n| n == bundle.name);
                let one = if whole { get("speaker")? } else { get("speaker")?.or(name) };
                manner.speaker = one.map(|n| speaker(&hall.voice, &hall.aliases, n)).transpose()?;
                if let (None, Some(language)) = (name, get("language")?)
                    && !language.to_ascii_lowercase().starts_with("en")
                {
                    let what = format!("the voice speaks {LANGUAGE}, not {language:?}");
                    return Err(Refusal::new(400, "voice_not_found", what));
                }
            }
            Some(_) => return Err(wrong("\"voice\" is an object, as {\"name\": \"heart\"}")),
        }
        manner.ssml = match data.get("text_format") {
            None | Some(Value::Null) => None,
            Some(Value::String(format)) if format == "text" => Some(false),
            Some(Value::String(format)) if format == "ssml" => Some(true),
            Some(other) => {
                let what = format!("\"text_format\" is \"text\" or \"ssml\", not {other}");
                return Err(wrong(what));
            }
        };
        Ok(manner)
    }

    fn text(data: &mut Map<String, Value>) -> Result<String, Refusal> {
        match data.remove("text") {
            Some(Value::String(text)) => Ok(text),
            _ => Err(wrong("the event has no \"text\": it is what to speak")),
        }
    }

    /// A text in one event.
    async fn whole(&mut self, mut event: Event) -> Result<(), End> {
        let manner = self.manner(&event.data)?;
        let text = Self::text(&mut event.data)?;
        let (length, most) = (text.chars().count(), self.hall.limits.text);
        if length > most {
            let what = format!(
                "the text has {length} characters; {most} are the most: send it in parts, behind \
                 synthesize-start"
            );
            return Err(Refusal::new(413, "too_large", what).into());
        }
        let hall = self.hall.clone();
        let mut speech = tokio::select! {
            speech = hall.speak(Door::Wyoming, text, &manner) => speech?,
            _ = raised(&mut self.gone) => return Err(End::Gone),
        };
        self.start().await?;
        let mut samples = 0;
        let mut piece = Some(speech.first);
        while !self.sound(piece, &mut samples).await? {
            piece = tokio::select! {
                piece = speech.listener.next() => piece,
                _ = raised(&mut self.gone) => return Err(End::Gone),
            };
        }
        self.stop(samples).await
    }

    /// A text that comes in parts, spoken sentence by sentence.
    async fn stream(&mut self, event: Event) -> Result<(), End> {
        let manner = self.manner(&event.data)?;
        let hall = self.hall.clone();
        hall.metrics.request(Door::Wyoming);
        let mut reader = hall.reader(&manner).map_err(Refusal::from)?;
        let place = tokio::select! {
            place = hall.place() => place?,
            _ = raised(&mut self.gone) => return Err(End::Gone),
        };
        let text = Text::new(hall.limits.text);
        let mut listener = hall.begin(&manner, text.clone(), place, None).await?;
        let (mut samples, mut started, mut reading) = (0, false, true);
        loop {
            let next = async {
                text.room().await;
                self.events.recv().await
            };
            tokio::select! {
                piece = listener.next() => {
                    if !started && matches!(piece, Some(Piece::Sound(..))) {
                        started = true;
                        self.start().await?;
                    }
                    if self.sound(piece, &mut samples).await? {
                        break;
                    }
                }
                event = next, if reading => match event {
                    Some(event) => reading = self.hear(event?, &mut reader, &text).await?,
                    None => return Err(End::Gone),
                },
                _ = raised(&mut self.gone), if !reading => return Err(End::Gone),
            }
        }
        if !started {
            let what = "there is nothing to speak in this text: send some words";
            return Err(Refusal::new(400, "invalid_value", what).into());
        }
        self.stop(samples).await?;
        Ok(self.write("synthesize-stopped", json!({}), &[]).await?)
    }

    /// Takes an event that came while a text comes in parts; whether more is to come.
    async fn hear(
        &mut self,
        mut event: Event,
        reader: &mut Reader,
        text: &Arc<Text>,
    ) -> Result<bool, End> {
        let ended = match event.kind.as_str() {
            "synthesize-chunk" => false,
            "synthesize-stop" => true,
            "synthesize-start" => return Err(wrong("a text has begun and not ended").into()),
            // With `synthesize` comes the whole text once more, for servers that take no parts.
            _ => return Ok(true),
        };
        let part = if ended { None } else { Some(Self::text(&mut event.data)?) };
        let mut its = reader.clone();
        let (its, utterances) = apart(move || {
            let utterances = match part {
                Some(part) => its.part(&part)?,
                None => its.end()?,
            };
            Ok((its, utterances))
        })
        .await
        .map_err(Refusal::from)?;
        *reader = its;
        text.add(utterances, ended);
        self.hall.turns.wake();
        Ok(!ended)
    }

    async fn start(&mut self) -> Result<(), End> {
        let told = json!({ "rate": self.rate, "width": 2, "channels": 1, "timestamp": 0 });
        Ok(self.write("audio-start", told, &[]).await?)
    }

    fn milliseconds(&self, samples: u64) -> u64 {
        samples * 1000 / u64::from(self.rate)
    }

    async fn stop(&mut self, samples: u64) -> Result<(), End> {
        let told = json!({ "timestamp": self.milliseconds(samples) });
        Ok(self.write("audio-stop", told, &[]).await?)
    }

    /// Sends what was made; whether it was the last.
    async fn sound(&mut self, piece: Option<Piece>, samples: &mut u64) -> Result<bool, End> {
        match piece {
            Some(Piece::Sound(pcm, _)) => {
                let told = json!({
                    "rate": self.rate,
                    "width": 2,
                    "channels": 1,
                    "timestamp": self.milliseconds(*samples),
                });
                *samples += pcm.len() as u64;
                let bytes: Vec<u8> = pcm.iter().flat_map(|&x| to_i16(x).to_le_bytes()).collect();
                self.write("audio-chunk", told, &bytes).await?;
                Ok(false)
            }
            Some(Piece::End(_)) => Ok(true),
            Some(Piece::Failed(e)) => Err(End::Refused(e.into())),
            None => Err(End::Refused(Refusal::busy("the server is stopping"))),
        }
    }
}
