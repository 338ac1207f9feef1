//! Bodies of answers: all at once, or sound as it is made.

use super::hall::Speech;
use super::request::Format;
use super::turns::{Listener, Piece, Progress};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{Error, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use voxgrain::speech::wav::{Container, WavStream};

pub enum Answer {
    Whole(Option<Bytes>),
    Sound(Box<Sound>),
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Answer::Whole(Some(text.into()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Answer::Sound(sound) => sound.poll(cx).map(|b| b.map(|b| b.map(Frame::data))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Answer::Sound(_) => SizeHint::default(),
        }
    }
}

/// Bytes that a writer of sound leaves for the network.
#[derive(Clone, Default)]
struct Tray(Arc<Mutex<Vec<u8>>>);

impl Tray {
    fn empty(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Tray {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sound on its way: pieces in, bytes out.
pub struct Sound {
    listener: Listener,
    first: Option<Piece>,
    tray: Tray,
    writer: WavStream<Tray>,
    events: bool,
    progress: bool,
    rate: u32,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Sound {
    pub fn new(
        speech: Speech,
        format: Format,
        events: bool,
        progress: bool,
        rate: u32,
    ) -> voxgrain::Result<Self> {
        let container = match format {
            Format::Wav => Container::Wav,
            Format::Pcm => Container::Raw,
        };
        let tray = Tray::default();
        let writer = WavStream::new(tray.clone(), rate, container)?;
        Ok(Self {
            listener: speech.listener,
            first: Some(speech.first),
            tray,
            writer,
            events,
            progress,
            rate,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    /// The next bytes. An error ends the connection in the middle of the answer, which tells a
    /// client that the sound is not whole.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let piece = match self.first.take() {
                Some(piece) => Some(piece),
                None => ready!(self.listener.poll(cx)),
            };
            if let Err(e) = self.take(piece) {
                self.ended = true;
                return Poll::Ready(Some(Err(e)));
            }
        }
    }

    fn take(&mut self, piece: Option<Piece>) -> Result<(), Error> {
        match piece {
            Some(Piece::Sound(pcm, progress)) => {
                self.writer.write(&pcm).map_err(Error::other)?;
                let bytes = self.tray.empty();
                if self.events {
                    let audio = STANDARD.encode(bytes);
                    self.event(&json!({ "type": "speech.audio.delta", "audio": audio }));
                    if self.progress {
                        self.event(&self.told(&progress));
                    }
                } else {
                    self.ready.push_back(bytes.into());
                }
            }
            Some(Piece::End(progress)) => {
                self.ended = true;
                if self.events {
                    if self.progress {
                        self.event(&self.told(&progress));
                    }
                    let (read, spoken) = (progress.read, progress.tokens);
                    let usage = json!({
                        "input_tokens": read, "output_tokens": spoken, "total_tokens": read + spoken,
                    });
                    self.event(&json!({ "type": "speech.audio.done", "usage": usage }));
                }
            }
            Some(Piece::Failed(e)) if self.events => {
                self.ended = true;
                self.event(&json!({ "type": "error", "error": { "message": format!("{e:#}") } }));
            }
            Some(Piece::Failed(e)) => return Err(Error::other(e)),
            None => return Err(Error::other("the server ended this speech")),
        }
        Ok(())
    }

    fn told(&self, p: &Progress) -> Value {
        json!({
            "type": "voxgrain.progress",
            "sound_seconds": p.samples as f64 / f64::from(self.rate),
            "compute_seconds": p.compute.as_secs_f64(),
            "tokens": p.tokens,
            "rounds": p.rounds,
            "drafted": p.proposed,
            "accepted": p.accepted,
        })
    }

    fn event(&mut self, data: &Value) {
        self.ready.push_back(format!("data: {data}\n\n").into());
    }
}
