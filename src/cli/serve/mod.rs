//! `voxgrain serve`: speech for other programs, over HTTP and the Wyoming protocol.
//!
//! One thread waits for sockets (`http`, `wyoming`), one speaks for all (`turns`); in between
//! stands the `hall`, which knows who may come in. Neither door knows how speech is made.

mod body;
mod hall;
mod http;
mod metrics;
mod request;
mod systemd;
mod turns;
mod wyoming;

use super::args::{VoiceArgs, user_lexicon};
use super::files::read_file;
use super::interrupt;
use super::output::status;
use super::usage;
use clap::Args;
use hall::{Hall, Limits, raised};
use listenfd::ListenFd;
use sha2::{Digest, Sha256};
use std::future::Future;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use voxgrain::{Error, ErrorKind};

const EXAMPLES: &str = "\
Examples:
  voxgrain serve                                 http://127.0.0.1:8880 and its page
  voxgrain serve --wyoming                       for Home Assistant too, on 127.0.0.1:10200
  voxgrain serve --listen 0.0.0.0:8880 --token-file token
  curl -s localhost:8880/v1/audio/speech -H 'Content-Type: application/json' \\
    -d '{\"input\": \"The birch canoe slid on the smooth planks.\"}' | aplay

POST /v1/audio/speech takes what OpenAI's clients send (model, input, voice, response_format wav or
pcm, stream_format audio or sse, speed) and seed, arm, progress; GET /v1/models, /v1/audio/voices,
/health, /metrics (Prometheus) and / (a page to try it) are there too. docs/serve.md says more.

A request sounds as `say` does with the same text, speaker, rate and seed. One that cannot begin at
once waits for its turn; one whose client goes away ends within a round.

SIGTERM and Ctrl-C: nothing new is taken, what has begun is spoken to its end, for --grace seconds
at most; a second signal ends it at once. Under systemd its sockets, its readiness and its watchdog
are used.

Environment:
  VOXGRAIN_TOKEN  the token, where --token-file is not given";

/// Speak for other programs: OpenAI's speech interface over HTTP, and the Wyoming protocol
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Address and port for HTTP; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8880")]
    listen: String,
    /// Speak the Wyoming protocol too, which has no token
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:10200")]
    wyoming: Option<String>,
    /// File with the token that HTTP requests must carry, as `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Who speaks where a request names nobody [default: the bundle's first]
    #[arg(long, visible_alias = "voice", value_name = "NAME")]
    speaker: Option<String>,
    /// Another name for a speaker, such as alloy=heart; may be repeated
    #[arg(long, value_name = "NAME=SPEAKER", value_parser = parse_alias)]
    alias: Vec<(String, String)>,
    /// Words and how to say them, as for `say`; may be repeated, later files win
    #[arg(long, value_name = "FILE")]
    lexicon: Vec<PathBuf>,
    /// Speeches that are made at a time, by turns
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    sessions: u16,
    /// Requests that may wait for one to end; more are told to come again
    #[arg(long, value_name = "N", default_value_t = 64)]
    waiting: u16,
    /// Most characters of a request's text
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_text: u32,
    /// Most bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 10, value_parser = clap::value_parser!(u32).range(64..=1 << 24))]
    max_body: u32,
    /// Seconds that speeches have to end after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u16,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

fn parse_alias(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((alias, speaker)) if !alias.is_empty() && !speaker.is_empty() => {
            Ok((alias.into(), speaker.into()))
        }
        _ => Err("write the other name and the speaker's own, as in alloy=heart".into()),
    }
}

/// Connections at a time, of each kind; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long connections have to end after their speeches were cut.
const LAST: Duration = Duration::from_secs(1);

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        let token = self.token()?;
        let mut voice = self.voice.open_as(self.speaker.as_deref())?;
        for (_, name) in &self.alias {
            voice.bundle().speaker(name)?;
        }
        for path in &self.lexicon {
            voice = voice.with_lexicon(&user_lexicon(path)?)?;
        }
        let mut given = ListenFd::from_env();
        let mut inherited = |at: usize| {
            let taken = if at < given.len() { given.take_tcp_listener(at) } else { Ok(None) };
            taken.map_err(|e| refused("the sockets that systemd opened", e))
        };
        let (first, second) = (inherited(0)?, inherited(1)?);
        let web = first.map_or_else(|| bind(&self.listen), Ok)?;
        let house = match (second, &self.wyoming) {
            (Some(socket), _) => Some(socket),
            (None, Some(address)) => Some(bind(address)?),
            (None, None) => None,
        };
        let pool = self.voice.pool();
        let limits = Limits {
            sessions: self.sessions.into(),
            waiting: self.waiting.into(),
            text: self.max_text as usize,
            body: self.max_body as usize,
        };
        let hall = Hall::new(voice, pool, self.alias.clone(), limits)
            .map_err(|e| refused("the thread that speaks", e))?;
        hall.warm()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Texts are read and sessions made there: more at a time only disturb who speaks.
            .max_blocking_threads(2)
            .build()
            .map_err(|e| refused("the sockets' runtime", e))?;
        runtime.block_on(self.serve(Arc::new(hall), web, house, token))?;
        // Whoever still reads a text is not waited for.
        runtime.shutdown_background();
        Ok(())
    }

    fn token(&self) -> anyhow::Result<Option<[u8; 32]>> {
        let token = match &self.token_file {
            Some(path) => Some(read_file(path)?),
            None => std::env::var_os("VOXGRAIN_TOKEN").map(|t| t.into_encoded_bytes()),
        };
        let Some(token) = token else { return Ok(None) };
        let token = token.trim_ascii();
        if token.is_empty() {
            let what = "the token is empty: write one into the file, or leave it out";
            return Err(usage(what).into());
        }
        Ok(Some(Sha256::digest(token).into()))
    }

    fn say(&self, what: &str) {
        if !self.quiet {
            status(what);
        }
    }

    async fn serve(
        &self,
        hall: Arc<Hall>,
        web: TcpListener,
        house: Option<TcpListener>,
        token: Option<[u8; 32]>,
    ) -> anyhow::Result<()> {
        let (stop, stopping) = watch::channel(false);
        let stop = Arc::new(stop);
        let its = stop.clone();
        interrupt::instead(move || {
            let _ = its.send(true);
        });
        let web_address = web.local_addr()?;
        let house_address = house.as_ref().map(TcpListener::local_addr).transpose()?;
        let session = hall.session_bytes()? as f64 / 1e6;
        self.say(&format!("listening on http://{web_address}"));
        if let Some(address) = house_address {
            self.say(&format!("listening on tcp://{address} (Wyoming)"));
        }
        self.say(&format!(
            "{} speeches at a time, each at most {session:.0} MB beside the voice; {} may wait",
            self.sessions, self.waiting
        ));
        self.warn(web_address, house_address, token.is_some());
        // Each connection holds a copy; when all are gone there is none.
        let (open, mut closed) = mpsc::channel::<()>(1);
        let door = Arc::new(http::HttpDoor { hall: hall.clone(), token, stop: stopping.clone() });
        let visit = move |socket| http::serve(door.clone(), socket);
        tokio::spawn(accept(web, stopping.clone(), open.clone(), visit));
        if let Some(house) = house {
            let (hall, stop) = (hall.clone(), stopping.clone());
            let visit = move |socket| wyoming::serve(hall.clone(), socket, stop.clone());
            tokio::spawn(accept(house, stopping.clone(), open.clone(), visit));
        }
        drop(open);
        systemd::tell("READY=1");
        let watched = tokio::spawn(show_life(hall.clone()));
        let mut stopping = stopping;
        raised(&mut stopping).await;
        watched.abort();
        systemd::tell("STOPPING=1");
        let grace = Duration::from_secs(self.grace.into());
        self.say(&format!("stopping: speeches have {} s to end", self.grace));
        if tokio::time::timeout(grace, closed.recv()).await.is_err() {
            self.say("some speeches were cut");
            hall.turns.stop();
            let _ = tokio::time::timeout(LAST, closed.recv()).await;
        }
        hall.turns.stop();
        Ok(())
    }

    fn warn(&self, web: SocketAddr, house: Option<SocketAddr>, token: bool) {
        if !web.ip().is_loopback() && !token {
            status("warning: anybody who reaches this machine may use it: set --token-file");
        }
        if house.is_some_and(|h| !h.ip().is_loopback()) {
            status("warning: Wyoming has no token: anybody who reaches this machine may use it");
        }
    }
}

fn refused(what: &str, e: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Unreadable, format!("cannot use {what}"), e)
}

fn bind(address: &str) -> voxgrain::Result<TcpListener> {
    let found = address.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let found = found.unwrap_or_default();
    if found.is_empty() {
        let what =
            format!("{address:?} is no address with a port: write 127.0.0.1:8880 or [::1]:8880");
        return Err(usage(what));
    }
    TcpListener::bind(&found[..]).map_err(|e| {
        let what = format!("cannot listen on {address}: choose another port, or end who has it");
        Error::with_source(ErrorKind::Unreadable, what, e)
    })
}

/// Lets connections in until the server stops.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    socket: TcpListener,
    mut stop: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
    visit: impl Fn(TcpStream) -> F,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let socket =
        socket.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(socket));
    let socket = match socket {
        Ok(socket) => socket,
        Err(e) => return log::error!("a socket cannot be used: {e}"),
    };
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = raised(&mut stop) => return,
        };
        match accepted {
            Ok((socket, _)) => {
                let _ = socket.set_nodelay(true);
                let (visit, open) = (visit(socket), open.clone());
                tokio::spawn(async move {
                    visit.await;
                    drop((place, open));
                });
            }
            // Such as too many open files: those there are will end.
            Err(e) => {
                log::warn!("a connection was not accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tells systemd that the thread that speaks does.
async fn show_life(hall: Arc<Hall>) {
    let Some(every) = systemd::watchdog() else { return };
    loop {
        if hall.turns.silence() < every {
            systemd::tell("WATCHDOG=1");
        }
        tokio::time::sleep(every / 3).await;
    }
}
