//! What all requests share: the voice, the threads, the places and who waits for them.

use super::metrics::{Door, Metrics};
use super::request::{Manner, Refusal};
use super::turns::{Listener, Piece, Text, Turns};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use voxgrain::core::accept::Emission;
use voxgrain::decode::{Arm, DEFAULT_BETA};
use voxgrain::engine::Pool;
use voxgrain::speech::stream::Utterance;
use voxgrain::speech::text::{Chunk, Markup, TextFrontend};
use voxgrain::{Error, ErrorKind, Options, Stream, Voice};

/// Bounds of what clients may ask for.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Speeches at a time.
    pub sessions: usize,
    /// Requests that wait for their turn.
    pub waiting: u64,
    /// Characters of text, of one request or waiting in a stream of it.
    pub text: usize,
    /// Bytes of a request's body, and of an event's data.
    pub body: usize,
}

/// Streams that nobody speaks with. They are kept, since the system gives out and takes back the
/// memory of a whole context for each that is made; there are never more than sessions.
#[derive(Default)]
struct Idle(Mutex<Vec<(Arm, Stream)>>);

impl Idle {
    fn all(&self) -> MutexGuard<'_, Vec<(Arm, Stream)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that decodes by `arm`. Where there are only others one of them is given up, for the one
    /// that is going to be made.
    fn take(&self, arm: Arm) -> Option<Stream> {
        let mut all = self.all();
        match all.iter().position(|(its, _)| *its == arm) {
            Some(at) => Some(all.swap_remove(at).1),
            None => {
                all.pop();
                None
            }
        }
    }
}

/// A stream that is spoken with, and kept for the next client afterwards.
pub struct Lent {
    /// `None` once it has been given up.
    stream: Option<Stream>,
    arm: Arm,
    home: Arc<Idle>,
}

impl Lent {
    fn new(stream: Stream, arm: Arm, home: Arc<Idle>) -> Self {
        Self { stream: Some(stream), arm, home }
    }

    /// The stream, unless it was given up.
    pub fn get(&mut self) -> voxgrain::Result<&mut Stream> {
        let gone = || Error::new(ErrorKind::Internal, "this speech met a bug before");
        self.stream.as_mut().ok_or_else(gone)
    }

    /// Gives it up: what a panic left half done is not used again.
    pub fn spoil(&mut self) {
        self.stream = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.home.all().push((self.arm, stream));
        }
    }
}

pub struct Hall {
    pub voice: Voice,
    /// Other names for speakers.
    pub aliases: Vec<(String, String)>,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    pub turns: Turns,
    pool: Arc<Pool>,
    idle: Arc<Idle>,
    /// Each is room for one session; they are given out in the order of asking.
    places: Arc<Semaphore>,
}

/// Turns text into utterances.
#[derive(Clone)]
pub struct Reader {
    voice: Voice,
    rate: f32,
    frontend: TextFrontend,
}

impl Reader {
    fn new(voice: &Voice, manner: &Manner) -> voxgrain::Result<Self> {
        voice.check_rate(manner.rate)?;
        let options = Options::for_voice(voice).text;
        let markup = match manner.ssml {
            None => options.markup,
            Some(false) => Markup::None,
            Some(true) => Markup::Ssml,
        };
        let frontend = TextFrontend::new(voxgrain::speech::text::Options { markup, ..options })?;
        Ok(Self { voice: voice.clone(), rate: manner.rate, frontend })
    }

    fn write(&self, chunks: &[Chunk]) -> voxgrain::Result<Vec<Utterance>> {
        chunks.iter().map(|c| self.voice.utterance(c, self.rate)).collect()
    }

    /// A whole text.
    pub fn whole(&self, text: &str) -> voxgrain::Result<Vec<Utterance>> {
        self.write(&self.frontend.speak(text)?.chunks)
    }

    /// What is complete of a text that comes in parts.
    pub fn part(&mut self, text: &str) -> voxgrain::Result<Vec<Utterance>> {
        let chunks = self.frontend.feed(text)?;
        self.write(&chunks)
    }

    /// The rest of it.
    pub fn end(&mut self) -> voxgrain::Result<Vec<Utterance>> {
        let chunks = self.frontend.flush()?;
        self.write(&chunks)
    }
}

/// Waits until a flag is up, or nobody is left to raise it.
pub async fn raised(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}

/// Work that computes, off the thread that waits for sockets.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> voxgrain::Result<T> + Send + 'static,
) -> voxgrain::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => {
            let what = "reading this text met a bug in voxgrain: please report it";
            Err(Error::new(ErrorKind::Internal, what))
        }
    }
}

/// A speech that has begun to be made.
pub struct Speech {
    pub listener: Listener,
    /// Its first piece: sound, or its end if there was nothing to speak.
    pub first: Piece,
}

impl Hall {
    pub fn new(
        voice: Voice,
        pool: Arc<Pool>,
        aliases: Vec<(String, String)>,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let turns = Turns::start(metrics.clone())?;
        let places = Arc::new(Semaphore::new(limits.sessions));
        Ok(Self { voice, aliases, limits, metrics, turns, pool, idle: Arc::default(), places })
    }

    /// The voice, as the speaker whom the client wants.
    fn voice(&self, manner: &Manner) -> voxgrain::Result<Voice> {
        match &manner.speaker {
            Some(name) => self.voice.clone().with_speaker(name),
            None => Ok(self.voice.clone()),
        }
    }

    pub fn reader(&self, manner: &Manner) -> voxgrain::Result<Reader> {
        Reader::new(&self.voice(manner)?, manner)
    }

    /// What a session is made with: as by `say`.
    fn options(voice: &Voice, manner: &Manner) -> Options {
        let mut options = Options::for_voice(voice);
        let arm = match manner.arm {
            Some(name) => name.arm(DEFAULT_BETA, Emission::StandIn),
            None => voice.default_arm(Emission::StandIn),
        };
        options.decode = voice.options(arm);
        options.decode.seed = manner.seed;
        // Utterances come one at a time.
        options.max_text = Options::MIN_TEXT;
        options
    }

    /// Speaks a word to nobody: then the voice is known to work, and its pages are in memory.
    pub fn warm(&self) -> voxgrain::Result<()> {
        let clock = Instant::now();
        let options = Self::options(&self.voice, &Manner::default());
        let mut stream = Stream::with_pool(&self.voice, &options, &self.pool)?;
        stream.feed("Ready.")?;
        stream.flush()?;
        while stream.next_pcm()?.is_some() {}
        drop(Lent::new(stream, options.decode.arm, self.idle.clone()));
        log::info!("warm after {:.0} ms", clock.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    /// Upper bound of what a session takes besides the voice, in bytes.
    pub fn session_bytes(&self) -> voxgrain::Result<u64> {
        let memory = Self::options(&self.voice, &Manner::default()).memory(&self.voice)?;
        Ok(memory.state + memory.work)
    }

    /// Waits for a place among the sessions, in the order of asking.
    pub async fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let Some(_waiting) = self.metrics.wait(self.limits.waiting) else {
            let what = format!(
                "{} speeches are being made and {} wait: ask again soon",
                self.limits.sessions, self.limits.waiting
            );
            return Err(Refusal::busy(&what));
        };
        let place = self.places.clone().acquire_owned().await;
        place.map_err(|_| Refusal::busy("the server is stopping"))
    }

    /// Begins to speak what comes in `text`.
    pub async fn begin(
        &self,
        manner: &Manner,
        text: Arc<Text>,
        place: OwnedSemaphorePermit,
        asked: Option<Instant>,
    ) -> Result<Listener, Refusal> {
        let voice = self.voice(manner)?;
        let options = Self::options(&voice, manner);
        let (pool, idle) = (self.pool.clone(), self.idle.clone());
        let seed = manner.seed;
        let stream = apart(move || {
            let arm = options.decode.arm;
            let stream = match idle.take(arm) {
                Some(mut stream) => {
                    stream.restart(&voice, seed)?;
                    stream
                }
                None => Stream::with_pool(&voice, &options, &pool)?,
            };
            Ok(Lent::new(stream, arm, idle))
        })
        .await?;
        Ok(self.turns.speak(stream, text, place, asked))
    }

    /// Speaks a whole text, from when its first sound is there.
    pub async fn speak(
        &self,
        door: Door,
        input: String,
        manner: &Manner,
    ) -> Result<Speech, Refusal> {
        let asked = Instant::now();
        self.metrics.request(door);
        let reader = self.reader(manner)?;
        let utterances = apart(move || reader.whole(&input)).await?;
        if utterances.is_empty() {
            let what = "there is nothing to speak in this text: send some words";
            return Err(Error::new(ErrorKind::InvalidText, what).into());
        }
        let place = self.place().await?;
        let text = Text::new(0);
        text.add(utterances, true);
        let mut listener = self.begin(manner, text, place, Some(asked)).await?;
        match listener.next().await {
            Some(Piece::Failed(e)) => Err(e.into()),
            Some(first) => Ok(Speech { listener, first }),
            None => Err(Refusal::busy("the server is stopping")),
        }
    }
}
