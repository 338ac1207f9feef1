//! One thread speaks for everybody, a step at a time. Each step goes to whoever's listener would
//! run out of sound first; since a step moves that moment on, everybody's turn comes.

use super::hall::Lent;
use super::metrics::{Metrics, Outcome};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use voxgrain::speech::stream::{Step, Utterance};
use voxgrain::{Error, ErrorKind, Result};

/// Whoever has less sound than this in hand goes before somebody who has none yet.
const START: Duration = Duration::from_millis(100);
/// Pieces of sound that may wait for a client; then its speech waits. Up to some 8 s.
const PIECES: usize = 64;
/// How long a client may leave sound unread, or a stream of text without text.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the thread shows that it is alive when it has nothing to do.
const BEAT: Duration = Duration::from_millis(500);

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Totals of one session.
#[derive(Clone, Copy, Default)]
pub struct Progress {
    pub samples: u64,
    pub tokens: u64,
    pub rounds: u64,
    pub proposed: u64,
    pub accepted: u64,
    pub compute: Duration,
    /// Characters that the models read.
    pub read: u64,
}

/// What a session gives; a channel that ends without `End` was cut.
pub enum Piece {
    Sound(Vec<f32>, Progress),
    End(Progress),
    Failed(Error),
}

/// Text on its way to one session: whole utterances.
pub struct Text {
    waiting: Mutex<Waiting>,
    /// Bytes that may wait.
    max: usize,
    room: Notify,
}

#[derive(Default)]
struct Waiting {
    utterances: VecDeque<Utterance>,
    bytes: usize,
    ended: bool,
}

impl Text {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), max, room: Notify::new() })
    }

    /// Adds what is complete, and says whether that was all.
    pub fn add(&self, utterances: Vec<Utterance>, ended: bool) {
        let mut w = lock(&self.waiting);
        w.bytes += utterances.iter().map(|u| u.text.len()).sum::<usize>();
        w.utterances.extend(utterances);
        w.ended |= ended;
    }

    /// Waits until there is room for more.
    pub async fn room(&self) {
        loop {
            let told = self.room.notified();
            if lock(&self.waiting).bytes <= self.max {
                return;
            }
            told.await;
        }
    }

    fn pop(&self) -> Option<Utterance> {
        let mut w = lock(&self.waiting);
        let utterance = w.utterances.pop_front()?;
        w.bytes -= utterance.text.len();
        drop(w);
        self.room.notify_one();
        Some(utterance)
    }

    /// Whether there is something to do: speak, or end.
    fn has_news(&self) -> bool {
        let w = lock(&self.waiting);
        w.ended || !w.utterances.is_empty()
    }

    fn has_ended(&self) -> bool {
        let w = lock(&self.waiting);
        w.ended && w.utterances.is_empty()
    }
}

/// One speech for one client.
struct Session {
    /// Goes back before the place does.
    stream: Lent,
    text: Arc<Text>,
    out: mpsc::Sender<Piece>,
    progress: Progress,
    /// When it was asked for; of a text that comes in parts, when its first sentence was there.
    asked: Option<Instant>,
    /// When its listener runs out of sound.
    due: Instant,
    /// Whether its first sound has been made.
    heard: bool,
    /// Whether its listener plays: not before the first sound, nor where the text gave out.
    sounding: bool,
    /// Whether its text gave out.
    hungry: bool,
    /// Since when it has waited for text or for its client.
    idle: Option<Instant>,
    /// A place among the sessions, given back when this is dropped.
    _place: OwnedSemaphorePermit,
}

enum Turn {
    Step,
    /// There is no text yet.
    Hungry,
    End,
}

impl Session {
    /// Whether a step makes sense now.
    fn is_ready(&self) -> bool {
        self.out.capacity() > 0 && (!self.hungry || self.text.has_news())
    }

    fn turn(&mut self, metrics: &Metrics) -> Result<Turn> {
        if std::mem::take(&mut self.hungry) {
            self.due = Instant::now() + START;
        }
        let stream = self.stream.get()?;
        if stream.step()? == Step::Idle {
            match self.text.pop() {
                Some(utterance) => {
                    self.asked.get_or_insert_with(Instant::now);
                    self.progress.read += utterance.text.chars().count() as u64;
                    stream.push(utterance)?;
                    stream.step()?;
                }
                None if self.text.has_ended() => return Ok(Turn::End),
                None => return Ok(Turn::Hungry),
            }
        }
        let stats = stream.stats();
        let speech = &stats.speech;
        let before = self.progress;
        self.progress = Progress {
            samples: stats.samples,
            tokens: speech.spec.emitted,
            rounds: speech.spec.rounds,
            proposed: speech.spec.proposed,
            accepted: speech.spec.accepted,
            compute: speech.compute,
            read: before.read,
        };
        metrics.worked(&before, &self.progress);
        let pcm = stream.take();
        if pcm.is_empty() {
            return Ok(Turn::Step);
        }
        let pcm = pcm.to_vec();
        let rate = stream.synthesizer().voice().bundle().audio.sample_rate_hz;
        let now = Instant::now();
        if !self.heard {
            self.heard = true;
            metrics.first_sound(self.asked.map_or(Duration::ZERO, |asked| now - asked));
        } else if self.sounding && now > self.due {
            metrics.gap();
        }
        // A listener who ran out begins again with this piece.
        let from = if self.sounding { self.due.max(now) } else { now };
        self.sounding = true;
        self.due = from + Duration::from_secs_f64(pcm.len() as f64 / f64::from(rate));
        // There is room: nobody else sends.
        let _ = self.out.try_send(Piece::Sound(pcm, self.progress));
        Ok(Turn::Step)
    }
}

#[derive(Default)]
struct Inbox {
    new: Vec<Session>,
    woken: bool,
    stop: bool,
}

struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    metrics: Arc<Metrics>,
    begun: Instant,
    /// Milliseconds from `begun` to the last look around.
    beat: AtomicU64,
}

impl Shared {
    fn wake(&self) {
        lock(&self.inbox).woken = true;
        self.wake.notify_one();
    }
}

/// The thread that speaks.
#[derive(Clone)]
pub struct Turns {
    shared: Arc<Shared>,
}

/// A client's end of its speech. Dropped, it ends the speech before the next step.
pub struct Listener {
    pieces: mpsc::Receiver<Piece>,
    shared: Arc<Shared>,
}

impl Listener {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let piece = ready!(self.pieces.poll_recv(cx));
        self.shared.wake();
        Poll::Ready(piece)
    }

    /// The next piece; `None` where the speech was cut.
    pub async fn next(&mut self) -> Option<Piece> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.pieces.close();
        self.shared.wake();
    }
}

impl Turns {
    pub fn start(metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            metrics,
            begun: Instant::now(),
            beat: AtomicU64::new(0),
        });
        let its = shared.clone();
        std::thread::Builder::new().name("voxgrain-turns".into()).spawn(move || its.run())?;
        Ok(Self { shared })
    }

    /// Lets `stream` speak `text`; the client asked for it at `asked`, or with its first sentence.
    pub fn speak(
        &self,
        stream: Lent,
        text: Arc<Text>,
        place: OwnedSemaphorePermit,
        asked: Option<Instant>,
    ) -> Listener {
        let (out, pieces) = mpsc::channel(PIECES);
        let session = Session {
            stream,
            text,
            out,
            progress: Progress::default(),
            asked,
            due: Instant::now() + START,
            heard: false,
            sounding: false,
            hungry: false,
            idle: None,
            _place: place,
        };
        lock(&self.shared.inbox).new.push(session);
        self.shared.wake();
        Listener { pieces, shared: self.shared.clone() }
    }

    /// There is new text for a session.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Ends every session before its next step.
    pub fn stop(&self) {
        lock(&self.shared.inbox).stop = true;
        self.shared.wake();
    }

    /// Time since the thread last looked around.
    pub fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.shared.beat.load(Ordering::Relaxed));
        self.shared.begun.elapsed().saturating_sub(beat)
    }
}

impl Shared {
    fn run(&self) {
        let mut sessions: Vec<Session> = Vec::new();
        loop {
            self.beat.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
            {
                let mut inbox = lock(&self.inbox);
                inbox.woken = false;
                sessions.append(&mut inbox.new);
                if inbox.stop {
                    self.metrics.ended_all(Outcome::Cut, sessions.len() as u64);
                    sessions.clear();
                }
            }
            self.leave_out(&mut sessions);
            self.metrics.speaking(sessions.len() as u64);
            let ready = (0..sessions.len()).filter(|&i| sessions[i].is_ready());
            let Some(first) = ready.min_by_key(|&i| sessions[i].due) else {
                let inbox = lock(&self.inbox);
                if !inbox.woken {
                    drop(self.wake.wait_timeout(inbox, BEAT));
                }
                continue;
            };
            if self.step(&mut sessions[first]) {
                sessions.swap_remove(first);
            }
        }
    }

    /// Drops the sessions that nobody listens to, and those that hold their place for nothing.
    fn leave_out(&self, sessions: &mut Vec<Session>) {
        let now = Instant::now();
        sessions.retain_mut(|s| {
            if s.out.is_closed() {
                self.metrics.ended_all(Outcome::Cancelled, 1);
                return false;
            }
            if s.is_ready() {
                s.idle = None;
                return true;
            }
            let tired = now - *s.idle.get_or_insert(now) > PATIENCE;
            if tired {
                let what = format!(
                    "nothing came for {} s: send the rest of the text, or its end",
                    PATIENCE.as_secs()
                );
                // A client that leaves its sound unread does not get this; its sound is cut.
                let _ = s.out.try_send(Piece::Failed(Error::new(ErrorKind::Cancelled, what)));
                self.metrics.ended_all(Outcome::Cut, 1);
            }
            !tired
        });
    }

    /// Whether the session ended.
    fn step(&self, s: &mut Session) -> bool {
        let turned = catch_unwind(AssertUnwindSafe(|| s.turn(&self.metrics)));
        let turned = turned.unwrap_or_else(|_| {
            s.stream.spoil();
            Err(Error::new(ErrorKind::Internal, "speaking met a bug in voxgrain: please report it"))
        });
        let (last, outcome) = match turned {
            Ok(Turn::Step) => return false,
            Ok(Turn::Hungry) => {
                (s.hungry, s.sounding) = (true, false);
                return false;
            }
            Ok(Turn::End) => (Piece::End(s.progress), Outcome::Done),
            Err(e) => (Piece::Failed(e), Outcome::Failed),
        };
        // Counted before the client can know.
        self.metrics.ended_all(outcome, 1);
        let _ = s.out.try_send(last);
        true
    }
}
