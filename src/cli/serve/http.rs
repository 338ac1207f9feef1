//! The HTTP half: OpenAI's speech interface, what a monitor asks, and the page.

use super::super::args::ArmName;
use super::super::output::rss_bytes;
use super::body::{Answer, Sound};
use super::hall::{Hall, raised};
use super::metrics::Door;
use super::request::{Format, MODELS, Refusal, Wish};
use clap::ValueEnum;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use voxgrain::Voice;
use voxgrain::core::accept::Emission;
use voxgrain::decode::{Arm, DEFAULT_BETA};

/// How long the head of a request, and then its body, may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

const PAGE: &str = include_str!("page.html");

/// What the HTTP half alone needs.
pub struct HttpDoor {
    pub hall: Arc<Hall>,
    /// SHA-256 of the token that requests must carry, if any.
    pub token: Option<[u8; 32]>,
    /// True once the server is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Serves one connection until it ends, or until the server stops and its request is answered.
pub async fn serve(door: Arc<HttpDoor>, socket: TcpStream) {
    let service = service_fn(|request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let mut stop = door.stop.clone();
    // A client that goes away or sends nonsense is its own affair; hyper has answered the latter.
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = raised(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

impl HttpDoor {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = match self.route(request).await {
            Ok(response) => response,
            Err(refusal) => {
                self.hall.metrics.refusal();
                refused(&refusal)
            }
        };
        log::info!("{method} {path}: {}", response.status().as_u16());
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
        let path = request.uri().path().to_owned();
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let allow = match path.as_str() {
            "/v1/audio/speech" => "POST",
            "/" | "/health" | "/metrics" | "/v1/models" | "/v1/audio/voices" => "GET, HEAD",
            _ => {
                let what = format!(
                    "there is nothing at {path:?}; there are /v1/audio/speech, /v1/audio/voices, \
                     /v1/models, /health, /metrics and /"
                );
                return Err(Refusal::new(404, "not_found", what));
            }
        };
        let right = if allow == "POST" { request.method() == Method::POST } else { get };
        if !right {
            let what = format!("{path} takes {allow}, not {}", request.method());
            let refusal = Refusal::new(405, "method_not_allowed", what);
            return Err(Refusal { allow: Some(allow), ..refusal });
        }
        // The page asks for the token itself, and a monitor need not know it.
        if !matches!(path.as_str(), "/" | "/health") {
            self.admit(request.headers())?;
        }
        match path.as_str() {
            "/" => Ok(page()),
            "/health" => Ok(self.health()),
            "/metrics" => Ok(self.metrics()?),
            "/v1/models" => Ok(models()),
            "/v1/audio/voices" => Ok(self.voices()),
            _ => self.speech(request).await,
        }
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|g| g.strip_prefix(b"Bearer ").or(g.strip_prefix(b"bearer ")));
        // Digests are compared, so that the time it takes tells nothing of the token.
        if given.is_some_and(|g| <[u8; 32]>::from(Sha256::digest(g)) == *token) {
            return Ok(());
        }
        let what = "this server wants its token: send the header Authorization: Bearer TOKEN";
        Err(Refusal::new(401, "invalid_api_key", what))
    }

    fn health(&self) -> Response<Answer> {
        let stopping = *self.stop.borrow();
        let bundle = self.hall.voice.bundle();
        let status = if stopping { "stopping" } else { "ok" };
        let told = json!({
            "status": status,
            "version": env!("CARGO_PKG_VERSION"),
            "voice": bundle.name,
            "sample_rate": bundle.audio.sample_rate_hz,
        });
        let mut response = as_json(&told);
        if stopping {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }

    fn metrics(&self) -> Result<Response<Answer>, Refusal> {
        let rate = self.hall.voice.bundle().audio.sample_rate_hz;
        let text = self.hall.metrics.text(rate, self.hall.session_bytes()?, rss_bytes());
        Ok(respond("text/plain; version=0.0.4; charset=utf-8", text.into()))
    }

    fn voices(&self) -> Response<Answer> {
        let voice = &self.hall.voice;
        let (low, high) = voice.rates();
        let voices: Vec<Value> = voice
            .bundle()
            .speakers
            .iter()
            .map(|s| json!({ "id": s.name, "name": s.name, "description": s.description }))
            .collect();
        as_json(&json!({
            "voices": voices,
            "default": voice.speaker().name,
            "aliases": self.hall.aliases.iter().map(|(alias, speaker)| {
                (alias.clone(), json!(speaker))
            }).collect::<serde_json::Map<_, _>>(),
            "arms": arms(voice),
            "default_arm": voice.default_arm(Emission::StandIn).name(),
            "sample_rate": voice.bundle().audio.sample_rate_hz,
            "speed": { "least": low, "most": high },
        }))
    }

    async fn speech(&self, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let kind = kind.map(<[u8]>::to_ascii_lowercase).unwrap_or_default();
        // Browsers send this type to other sites only where those allow it, so no page elsewhere
        // makes this machine speak.
        if kind.split(|&b| b == b';').next().map(<[u8]>::trim_ascii) != Some(b"application/json") {
            let what = "send the body as JSON, with the header Content-Type: application/json";
            return Err(Refusal::new(415, "unsupported_media_type", what));
        }
        let body = self.read(request).await?;
        let hall = &self.hall;
        let wish = Wish::parse(&body, &hall.voice, &hall.aliases, hall.limits.text)?;
        drop(body);
        let rate = hall.voice.bundle().audio.sample_rate_hz;
        let speech = hall.speak(Door::Http, wish.input, &wish.manner).await?;
        let sound = Sound::new(speech, wish.format, wish.events, wish.progress, rate)?;
        let kind = match wish.format {
            _ if wish.events => "text/event-stream",
            Format::Wav => "audio/wav",
            Format::Pcm => "audio/pcm",
        };
        let mut response = respond(kind, Answer::Sound(Box::new(sound)));
        let headers = response.headers_mut();
        headers.insert("x-sample-rate", HeaderValue::from(rate));
        // Proxies are to hand the sound on as it comes.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }

    async fn read(&self, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        let most = self.hall.limits.body;
        let large = || {
            let what = format!("the body has more than {most} bytes: send the text in parts");
            Refusal::new(413, "too_large", what)
        };
        if request.body().size_hint().lower() > most as u64 {
            return Err(large());
        }
        let body = Limited::new(request.into_body(), most).collect();
        match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(large()),
            Ok(Err(e)) => Err(Refusal::new(400, "broken_body", format!("the body broke off: {e}"))),
            Err(_) => {
                let what = format!("the body did not come within {} s", PATIENCE.as_secs());
                Err(Refusal::new(408, "timeout", what))
            }
        }
    }
}

/// The arms that this voice can be decoded by.
fn arms(voice: &Voice) -> Vec<&'static str> {
    let index = voice.groups().map(|g| g.header().symmetric);
    let all = ArmName::value_variants().iter().map(|a| a.arm(DEFAULT_BETA, Emission::StandIn));
    all.filter(|arm| match arm {
        Arm::Pcg { .. } => index.is_some(),
        Arm::Transport => index == Some(true),
        _ => true,
    })
    .map(|arm| arm.name())
    .collect()
}

fn respond(kind: &'static str, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn as_json(value: &Value) -> Response<Answer> {
    respond("application/json", value.to_string().into())
}

fn page() -> Response<Answer> {
    let mut response = respond("text/html; charset=utf-8", PAGE.to_owned().into());
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn models() -> Response<Answer> {
    let models: Vec<Value> = MODELS
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "voxgrain" }))
        .collect();
    as_json(&json!({ "object": "list", "data": models }))
}

fn refused(refusal: &Refusal) -> Response<Answer> {
    let mut response = as_json(&refusal.json());
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if refusal.again {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(allow) = refusal.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if refusal.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // What is left of a body that was not read is not taken for the next request.
    if matches!(refusal.status, 408 | 413) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
