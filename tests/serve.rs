//! `voxgrain serve` as other programs meet it: a real process, real sockets.
#![cfg(all(feature = "serve", unix))]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TEXT: &str = "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue.";
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let runner = std::env::var("VOXGRAIN_RUNNER").unwrap_or_default();
    let line: Vec<&str> =
        runner.split_whitespace().chain([env!("CARGO_BIN_EXE_voxgrain")]).collect();
    let mut c = Command::new(line[0]);
    c.args(&line[1..]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    for name in ["VOXGRAIN_BUNDLE", "VOXGRAIN_KERNEL", "VOXGRAIN_TOKEN", "NOTIFY_SOCKET"] {
        c.env_remove(name);
    }
    c
}

const SERVE: &[&str] =
    &["serve", "--bundle", "models/tiny", "--listen", "127.0.0.1:0", "--wyoming", "127.0.0.1:0"];

struct Server {
    child: Child,
    http: String,
    wyoming: String,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let mut c = program();
        c.args(SERVE).args(more);
        Self::run(c)
    }

    fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let (mut http, mut wyoming, mut all) = (String::new(), String::new(), String::new());
        while http.is_empty() || wyoming.is_empty() {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended: {all}");
            all += &line;
            if let Some((_, address)) = line.trim().split_once("listening on http://") {
                http = address.into();
            }
            if let Some((_, address)) = line.trim().split_once("listening on tcp://") {
                wyoming = address.split_whitespace().next().unwrap().into();
            }
        }
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, http, wyoming }
    }

    fn post(&self, body: &Value) -> TcpStream {
        self.send(&request("application/json", body.to_string().as_bytes()))
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut s = TcpStream::connect(&self.http).unwrap();
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        s.write_all(bytes).unwrap();
        s
    }

    fn get(&self, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Answer::read(self.send(head.as_bytes()))
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|l| l.rsplit_once(' ').is_some_and(|(n, _)| n == name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse()
            .unwrap()
    }

    /// Waits until a metric has this value.
    fn until(&self, name: &str, value: f64) {
        let begun = Instant::now();
        while self.metric(name) != value {
            assert!(begun.elapsed() < PATIENCE, "{name} is {}, not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }

    fn talk(&self) -> Wyoming {
        let s = TcpStream::connect(&self.wyoming).unwrap();
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        Wyoming(BufReader::new(s))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut all = format!(
        "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    all.extend_from_slice(body);
    all
}

/// An answer, read until its end or until the connection ends.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether it came to its end.
    whole: bool,
    chunks: usize,
}

impl Answer {
    fn read(stream: TcpStream) -> Self {
        let mut from = BufReader::new(stream);
        let mut head = String::new();
        loop {
            let mut line = String::new();
            let n = from.read_line(&mut line).unwrap();
            assert!(n > 0, "no answer: {head:?}");
            if line == "\r\n" {
                break;
            }
            head += &line.to_ascii_lowercase();
        }
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head, body: Vec::new(), whole: false, chunks: 0 };
        if let Some(length) = answer.header("content-length") {
            let n = length.parse::<u64>().unwrap();
            from.take(n).read_to_end(&mut answer.body).unwrap();
            answer.whole = answer.body.len() as u64 == n;
            return answer;
        }
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        loop {
            let mut size = String::new();
            if from.read_line(&mut size).unwrap_or(0) == 0 {
                return answer;
            }
            let n = u64::from_str_radix(size.trim(), 16).unwrap();
            if n == 0 {
                answer.whole = true;
                return answer;
            }
            let before = answer.body.len();
            let read = (&mut from).take(n).read_to_end(&mut answer.body);
            let mut end = [0; 2];
            if read.is_err()
                || (answer.body.len() - before) as u64 != n
                || from.read_exact(&mut end).is_err()
            {
                return answer;
            }
            answer.chunks += 1;
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| Some(l.strip_prefix(name)?.strip_prefix(": ")?.trim()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Wyoming(BufReader<TcpStream>);

impl Wyoming {
    fn send(&mut self, kind: &str, data: &Value) {
        let data = data.to_string();
        let line = json!({ "type": kind, "version": "1.10.2", "data_length": data.len() });
        self.raw(format!("{line}\n{data}").as_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// The next event's type, data and payload; `None` at the end.
    fn next(&mut self) -> Option<(String, Value, Vec<u8>)> {
        let mut line = String::new();
        if self.0.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        let head: Value = serde_json::from_str(&line).unwrap();
        let mut read = |name: &str| {
            let mut bytes = vec![0; head[name].as_u64().unwrap_or(0) as usize];
            self.0.read_exact(&mut bytes).unwrap();
            bytes
        };
        let (data, payload) = (read("data_length"), read("payload_length"));
        let data = serde_json::from_slice(&data).unwrap_or(Value::Null);
        Some((head["type"].as_str().unwrap().into(), data, payload))
    }

    /// Samples up to audio-stop.
    fn sound(&mut self) -> Vec<u8> {
        let (kind, data, _) = self.next().unwrap();
        assert_eq!((kind.as_str(), &data["rate"]), ("audio-start", &json!(16000)), "{data}");
        let mut all = Vec::new();
        loop {
            let (kind, data, payload) = self.next().unwrap();
            match kind.as_str() {
                "audio-chunk" => {
                    assert_eq!((&data["width"], &data["channels"]), (&json!(2), &json!(1)));
                    assert_eq!(data["timestamp"], json!(all.len() / 32), "{data}");
                    all.extend(payload);
                }
                "audio-stop" => return all,
                other => panic!("{other}: {data}"),
            }
        }
    }
}

fn say(args: &[&str]) -> Vec<u8> {
    let line = ["say", "-q", "--bundle", "models/tiny", "-o", "-"];
    let o: Output = program().args(line).args(args).stderr(Stdio::piped()).output().unwrap();
    // The tiny voice is not meant to end by itself.
    assert!(matches!(o.status.code(), Some(0 | 8)), "{}", String::from_utf8_lossy(&o.stderr));
    assert!(o.stdout.len() > 1000);
    o.stdout
}

/// Text that takes a while.
fn long() -> String {
    TEXT.repeat(20)
}

#[test]
fn a_request_sounds_as_say_does() {
    let server = Server::start(&[]);
    for (seed, arm) in [(1, "transport"), (7, "transport"), (3, "ar")] {
        let n = seed.to_string();
        let wanted = say(&["--seed", &n, "--arm", arm, TEXT]);
        let ask =
            json!({ "model": "tts-1", "input": TEXT, "voice": "first", "seed": seed, "arm": arm });
        let answer = Answer::read(server.post(&ask));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/wav")));
        assert!(answer.whole && answer.body == wanted, "seed {seed}, {arm}");
        assert!(answer.chunks > 3, "it came in {} parts", answer.chunks);
    }
    let raw = say(&["--raw", TEXT]);
    let ask =
        json!({ "input": TEXT, "response_format": "pcm", "speed": 1, "instructions": "Softly." });
    let answer = Answer::read(server.post(&ask));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/pcm")));
    assert_eq!(answer.header("x-sample-rate"), Some("16000"));
    assert!(answer.body == raw);

    let mut talk = server.talk();
    talk.send("synthesize", &json!({ "text": TEXT }));
    assert!(talk.sound() == raw);
    // The same connection takes another, and a text in parts.
    talk.send("synthesize", &json!({ "text": TEXT, "voice": { "name": "first" } }));
    assert!(talk.sound() == raw);
    talk.send("synthesize-start", &json!({ "voice": { "language": "en_GB" } }));
    for part in TEXT.as_bytes().chunks(7) {
        talk.send("synthesize-chunk", &json!({ "text": String::from_utf8_lossy(part) }));
    }
    talk.send("synthesize", &json!({ "text": TEXT }));
    talk.send("synthesize-stop", &json!({}));
    assert!(talk.sound() == raw);
    assert_eq!(talk.next().unwrap().0, "synthesize-stopped");
}

#[test]
fn events_carry_the_same_sound_and_how_it_goes() {
    let server = Server::start(&[]);
    let ask = json!({
        "input": TEXT, "response_format": "pcm", "stream_format": "sse", "progress": true,
        "voice": { "id": "first" },
    });
    let answer = Answer::read(server.post(&ask));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    let (mut sound, mut last, mut done) = (Vec::new(), Value::Null, Value::Null);
    for event in answer.text().split_terminator("\n\n") {
        let event: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        match event["type"].as_str().unwrap() {
            "speech.audio.delta" => sound.extend(base64(event["audio"].as_str().unwrap())),
            "voxgrain.progress" => last = event,
            "speech.audio.done" => done = event,
            other => panic!("{other}"),
        }
    }
    assert!(sound == say(&["--raw", TEXT]));
    assert!(last["rounds"].as_u64().unwrap() > 10, "{last}");
    assert_eq!(last["sound_seconds"].as_f64().unwrap(), sound.len() as f64 / 32000.0);
    let usage = &done["usage"];
    let sum = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"].as_u64(), Some(sum));
}

fn base64(text: &str) -> Vec<u8> {
    const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut n, mut out) = (0u32, 0, Vec::new());
    for c in text.bytes().filter(|&c| c != b'=') {
        bits = bits << 6 | SIGNS.iter().position(|&s| s == c).unwrap() as u32;
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    out
}

#[test]
fn sixteen_clients_get_all_of_their_own_sound() {
    let server = Server::start(&["--sessions", "6"]);
    let texts: Vec<String> = (0..16).map(|i| format!("Client number {i} speaks. {TEXT}")).collect();
    let alone: Vec<Vec<u8>> = texts.iter().take(3).map(|t| say(&["--raw", t])).collect();
    let heard: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let clients: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let server = &server;
                scope.spawn(move || {
                    if i % 4 == 0 {
                        let mut talk = server.talk();
                        talk.send("synthesize", &json!({ "text": text }));
                        return talk.sound();
                    }
                    let ask = json!({ "input": text, "response_format": "pcm" });
                    let answer = Answer::read(server.post(&ask));
                    assert!(answer.status == 200 && answer.whole);
                    answer.body
                })
            })
            .collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    for (wanted, heard) in alone.iter().zip(&heard) {
        assert!(wanted == heard);
    }
    // The others once more, each by itself.
    for (text, heard) in texts.iter().zip(&heard).skip(3) {
        let answer = Answer::read(server.post(&json!({ "input": text, "response_format": "pcm" })));
        assert!(&answer.body == heard, "{text}");
    }
    assert_eq!(server.metric("voxgrain_speeches_total{outcome=\"done\"}"), 29.0);
    assert_eq!(server.metric("voxgrain_waiting"), 0.0);
    assert_eq!(server.metric("voxgrain_requests_total{protocol=\"wyoming\"}"), 4.0);
    assert_eq!(server.metric("voxgrain_first_sound_seconds_count"), 29.0);
}

#[test]
fn a_client_that_goes_away_ends_its_speech() {
    let server = Server::start(&[]);
    let all = Answer::read(server.post(&json!({ "input": long() })));
    assert!(all.whole);
    let whole = server.metric("voxgrain_sound_seconds_total");
    for way in 0..3 {
        let before = server.metric("voxgrain_sound_seconds_total");
        let mut some = [0; 3000];
        if way < 2 {
            let mut s = server.post(&json!({ "input": long() }));
            s.read_exact(&mut some).unwrap();
            // Half closed counts as gone, as fully closed.
            if way == 0 { drop(s) } else { s.shutdown(Shutdown::Write).unwrap() }
        } else {
            let mut talk = server.talk();
            talk.send("synthesize", &json!({ "text": long() }));
            talk.0.read_exact(&mut some).unwrap();
        }
        server.until("voxgrain_speeches_total{outcome=\"cancelled\"}", f64::from(way + 1));
        server.until("voxgrain_sessions", 0.0);
        let made = server.metric("voxgrain_sound_seconds_total") - before;
        assert!(made < 0.9 * whole, "way {way}: {made} s of {whole} s were made");
    }
}

/// A client that does not read holds up itself alone; who finds no place is told.
#[test]
fn places_and_queue_are_bounded() {
    let server = Server::start(&[
        "--sessions",
        "2",
        "--waiting",
        "1",
        "--max-text",
        "1000000",
        "--max-body",
        "1000000",
    ]);
    let endless = || server.post(&json!({ "input": long().repeat(20) }));
    let unread = endless();
    let short = Answer::read(server.post(&json!({ "input": "Hello." })));
    assert!(short.status == 200 && short.whole);
    let other = endless();
    server.until("voxgrain_sessions", 2.0);
    let waits = server.post(&json!({ "input": "Hello there." }));
    server.until("voxgrain_waiting", 1.0);
    let refused = Answer::read(server.post(&json!({ "input": "Hello." })));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("ask again soon"));
    let mut talk = server.talk();
    talk.send("synthesize", &json!({ "text": "Hello." }));
    let (kind, data, _) = talk.next().unwrap();
    assert_eq!((kind.as_str(), &data["code"]), ("error", &json!("busy")));
    assert!(talk.next().is_none(), "a client that waits for audio-stop must not wait for ever");
    // A place that becomes free goes to who waits.
    drop(unread);
    let answer = Answer::read(waits);
    assert!(answer.status == 200 && answer.whole);
    drop(other);
    server.until("voxgrain_sessions", 0.0);
}

#[test]
fn malformed_requests_have_their_status_and_message() {
    let server =
        Server::start(&["--max-text", "200", "--max-body", "2000", "--alias", "alloy=second"]);
    let body = |text: &str| request("application/json", text.as_bytes());
    let head = |text: &str| text.replace('\n', "\r\n").into_bytes();
    let long = json!({ "input": "a".repeat(201) }).to_string();
    let longer = json!({ "input": "a".repeat(3000) }).to_string();
    let chunked = format!(
        "POST /v1/audio/speech HTTP/1.1\nHost: x\nContent-Type: application/json\n\
         Transfer-Encoding: chunked\n\n{:x}\n{longer}\n0\n\n",
        longer.len()
    );
    let table: Vec<(Vec<u8>, u16, &str)> = vec![
        (body(""), 400, "the body is not JSON"),
        (body("{\"input\": \"a\""), 400, "the body is not JSON"),
        (body("\u{0}\u{1}"), 400, "the body is not JSON"),
        (request("application/json", b"{\"input\": \"\xff\"}"), 400, "the body is not JSON"),
        (body(&"[".repeat(1500)), 400, "the body is not JSON"),
        (body("[]"), 400, "no object"),
        (body("{}"), 400, "there is no \\\"input\\\""),
        (body(r#"{"input": 1}"#), 400, "is text, not a number"),
        (body(r#"{"input": ["a"]}"#), 400, "is text, not a list"),
        (body(r#"{"input": null}"#), 400, "there is no \\\"input\\\""),
        (body(r#"{"input": ""}"#), 400, "no text to speak"),
        (body(r#"{"input": " \n\t"}"#), 400, "no text to speak"),
        (body(r#"{"input": "\u6f22\u5b57"}"#), 400, "nothing"),
        (body(r#"{"input": "a", "voice": "bob"}"#), 400, "no speaker \\\"bob\\\""),
        (body(r#"{"input": "a", "voice": {"id": "bob"}}"#), 400, "no speaker \\\"bob\\\""),
        (body(r#"{"input": "a", "voice": {"name": "first"}}"#), 400, "with the name as \\\"id\\\""),
        (body(r#"{"input": "a", "voice": 3}"#), 400, "is text, not a number"),
        (body(r#"{"input": "a", "model": "gpt-9"}"#), 404, "there is no model"),
        (body(r#"{"input": "a", "response_format": "mp3"}"#), 400, "wav and pcm"),
        (body(r#"{"input": "a", "response_format": "opus"}"#), 400, "wav and pcm"),
        (body(r#"{"input": "a", "stream_format": "ws"}"#), 400, "\\\"audio\\\" or \\\"sse\\\""),
        (body(r#"{"input": "a", "speed": 9}"#), 400, "its rate is 1, not 9"),
        (body(r#"{"input": "a", "speed": -1}"#), 400, "its rate is 1"),
        (body(r#"{"input": "a", "speed": 1e999}"#), 400, "not JSON"),
        (body(r#"{"input": "a", "speed": "1"}"#), 400, "is a number"),
        (body(r#"{"input": "a", "seed": -1}"#), 400, "whole number"),
        (body(r#"{"input": "a", "seed": 1.5}"#), 400, "whole number"),
        (body(r#"{"input": "a", "arm": "leg"}"#), 400, "none of ar, sd"),
        (body(r#"{"input": "a", "progress": true}"#), 400, "stream_format"),
        (body(r#"{"input": "a", "progress": 1}"#), 400, "true or false"),
        (body(r#"{"input": "a", "volume": 2}"#), 400, "no field \\\"volume\\\""),
        (body(r#"{"input": "<speak>no end"}"#), 400, "speak"),
        (body(&long), 413, "201 characters; 200 are the most"),
        (body(&longer), 413, "more than 2000 bytes"),
        (head(&chunked), 413, "more than 2000 bytes"),
        (request("text/plain", b"{\"input\": \"a\"}"), 415, "Content-Type: application/json"),
        (
            request("application/x-www-form-urlencoded", b"{}"),
            415,
            "Content-Type: application/json",
        ),
        (head("GET /v1/audio/speech HTTP/1.1\nHost: x\n\n"), 405, "takes POST, not GET"),
        (head("POST /health HTTP/1.1\nHost: x\nContent-Length: 0\n\n"), 405, "takes GET"),
        (head("DELETE /v1/models HTTP/1.1\nHost: x\n\n"), 405, "takes GET"),
        (head("GET /v1/audio/transcriptions HTTP/1.1\nHost: x\n\n"), 404, "there is nothing at"),
        (head("GET /../../etc/passwd HTTP/1.1\nHost: x\n\n"), 404, "there is nothing at"),
        // These hyper answers, without a word.
        (head("nonsense\n\n"), 400, ""),
        (head("POST /v1/audio/speech HTTP/1.1\nContent-Length: no\n\n"), 400, ""),
        (head(&format!("GET / HTTP/1.1\n{}\n", "X: y\n".repeat(200))), 431, ""),
    ];
    for (bytes, status, words) in &table {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let mut s = TcpStream::connect(&server.http).unwrap();
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may have answered and closed before all was sent.
        let _ = s.write_all(bytes);
        let answer = Answer::read(s);
        assert_eq!(answer.status, *status, "{shown}: {}", answer.text());
        assert!(answer.text().contains(words), "{shown}: {}", answer.text());
        if !words.is_empty() {
            let error = &answer.json()["error"];
            assert!(error["message"].is_string() && error["code"].is_string(), "{error}");
        }
        if *status == 405 {
            assert!(answer.header("allow").is_some());
        }
    }
    // A body that breaks off, a client that only connects: nobody is harmed.
    drop(server.send(&request("application/json", b"{\"input\": \"a\"}")[..120]));
    drop(TcpStream::connect(&server.http).unwrap());
    let answer = Answer::read(server.post(&json!({ "input": "Hello.", "voice": "alloy" })));
    assert!(answer.status == 200 && answer.whole);
    assert!(answer.body == say(&["--speaker", "second", "Hello."]));
    server.until("voxgrain_sessions", 0.0);
}

#[test]
fn malformed_events_have_their_code_and_message() {
    let server = Server::start(&["--max-text", "200", "--max-body", "2000"]);
    let event = |kind: &str, data: Value| {
        let data = data.to_string();
        format!("{{\"type\":\"{kind}\",\"data_length\":{}}}\n{data}", data.len()).into_bytes()
    };
    let start = event("synthesize-start", json!({}));
    let table: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"\n".to_vec(), "bad_event", "not JSON"),
        (b"hello\n".to_vec(), "bad_event", "not JSON"),
        (b"[]\n".to_vec(), "bad_event", "no object"),
        (b"{}\n".to_vec(), "bad_event", "no \"type\""),
        (b"{\"type\": 3}\n".to_vec(), "bad_event", "no \"type\""),
        (b"{\"type\": \"describe\"".to_vec(), "bad_event", "inside a line"),
        (b"{\"type\": \"describe\", \"data\": 3}\n".to_vec(), "bad_event", "is an object"),
        (b"{\"type\": \"describe\", \"data_length\": -1}\n".to_vec(), "bad_event", "whole number"),
        (
            b"{\"type\": \"describe\", \"data_length\": \"9\"}\n".to_vec(),
            "bad_event",
            "whole number",
        ),
        (
            b"{\"type\": \"describe\", \"data_length\": 9999999999}\n".to_vec(),
            "too_large",
            "2000 bytes",
        ),
        (
            b"{\"type\": \"describe\", \"payload_length\": 2001}\n".to_vec(),
            "too_large",
            "2000 bytes",
        ),
        (
            b"{\"type\": \"describe\", \"data_length\": 9}\n{}".to_vec(),
            "bad_event",
            "inside an event",
        ),
        (
            b"{\"type\": \"ping\", \"payload_length\": 9}\nab".to_vec(),
            "bad_event",
            "inside an event",
        ),
        (b"{\"type\": \"ping\", \"data_length\": 2}\n[]".to_vec(), "bad_event", "is an object"),
        (b"{\"type\": \"ping\", \"data_length\": 2}\n{{".to_vec(), "bad_event", "not JSON"),
        (vec![b'a'; 70_000], "bad_event", "more than 65536 bytes"),
        (event("synthesize", json!({})), "bad_event", "no \"text\""),
        (event("synthesize", json!({ "text": 3 })), "bad_event", "no \"text\""),
        (event("synthesize", json!({ "text": " " })), "invalid_value", "no text to speak"),
        (event("synthesize", json!({ "text": "a".repeat(201) })), "too_large", "200 are the most"),
        (
            event("synthesize", json!({ "text": "a", "voice": "first" })),
            "bad_event",
            "is an object",
        ),
        (
            event("synthesize", json!({ "text": "a", "voice": { "name": "bob" } })),
            "voice_not_found",
            "bob",
        ),
        (
            event("synthesize", json!({ "text": "a", "voice": { "language": "de" } })),
            "voice_not_found",
            "en_US",
        ),
        (
            event("synthesize", json!({ "text": "a", "text_format": "rtf" })),
            "bad_event",
            "\"ssml\"",
        ),
        (
            event("synthesize", json!({ "text": "a < b", "text_format": "ssml" })),
            "invalid_value",
            "SSML",
        ),
        (event("synthesize-chunk", json!({ "text": "a" })), "bad_event", "behind synthesize-start"),
        ([&start[..], &start].concat(), "bad_event", "has begun and not ended"),
        (
            [&start[..], &event("synthesize-stop", json!({}))].concat(),
            "invalid_value",
            "nothing to speak",
        ),
        ([&start[..], &event("synthesize-chunk", json!({}))].concat(), "bad_event", "no \"text\""),
        ([&start[..], b"half"].concat(), "bad_event", "inside a line"),
    ];
    for (bytes, code, words) in &table {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let mut talk = server.talk();
        let _ = talk.0.get_mut().write_all(bytes);
        if words.contains("inside") {
            talk.0.get_mut().shutdown(Shutdown::Write).unwrap();
        }
        let (kind, data, _) = talk.next().unwrap_or_else(|| panic!("{shown}: no answer"));
        assert_eq!((kind.as_str(), &data["code"]), ("error", &json!(code)), "{shown}: {data}");
        assert!(data["text"].as_str().unwrap().contains(words), "{shown}: {data}");
        assert!(talk.next().is_none(), "{shown}");
    }
    // What is not known is passed over, whatever it carries.
    let mut talk = server.talk();
    talk.raw(b"{\"type\": \"run-satellite\", \"data\": {\"a\": 1}, \"payload_length\": 3}\nabc");
    talk.send("ping", &json!({ "text": "there?" }));
    assert_eq!(talk.next().unwrap(), ("pong".into(), json!({ "text": "there?" }), vec![]));
    talk.send("describe", &json!({}));
    let (kind, info, _) = talk.next().unwrap();
    assert_eq!((kind.as_str(), &info["tts"][0]["voices"][0]["name"]), ("info", &json!("first")));
    assert_eq!(info["tts"][0]["supports_synthesize_streaming"], json!(true));
}

#[test]
fn the_token_is_wanted_where_it_matters() {
    let dir = std::env::temp_dir().join(format!("voxgrain-serve-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("token"), "secret\n").unwrap();
    let server = Server::start(&["--token-file", dir.join("token").to_str().unwrap()]);
    for (path, status) in [
        ("/", 200),
        ("/health", 200),
        ("/metrics", 401),
        ("/v1/models", 401),
        ("/v1/audio/voices", 401),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    let ask = |token: &str| {
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nAuthorization: {token}\r\nConnection: close\r\n\r\n"
        );
        Answer::read(server.send(head.as_bytes()))
    };
    let refused = ask("Bearer secre");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("bearer")));
    assert_eq!(ask("secret").status, 401);
    assert_eq!(ask("Bearer secret ").status, 200, "spaces around a header are not its value");
    let models = ask("Bearer secret").json();
    assert!(models["data"].as_array().unwrap().iter().any(|m| m["id"] == "tts-1"), "{models}");
    let refused = Answer::read(server.post(&json!({ "input": "Hello." })));
    assert_eq!(refused.status, 401);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn health_and_voices_are_told() {
    let server = Server::start(&[]);
    let health = server.get("/health").json();
    assert_eq!((&health["status"], &health["sample_rate"]), (&json!("ok"), &json!(16000)));
    let voices = server.get("/v1/audio/voices").json();
    assert_eq!(
        (&voices["voices"][0]["id"], &voices["default"]),
        (&json!("first"), &json!("first"))
    );
    let page = server.get("/");
    assert!(page.text().contains("<title>voxgrain</title>"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[test]
fn sigterm_lets_speeches_end_and_takes_no_new_ones() {
    let mut server = Server::start(&["--grace", "100"]);
    let wanted = Answer::read(server.post(&json!({ "input": long() })));
    let speech = server.post(&json!({ "input": long() }));
    let mut talk = server.talk();
    talk.send("synthesize", &json!({ "text": TEXT }));
    server.until("voxgrain_requests_total{protocol=\"wyoming\"}", 1.0);
    server.until("voxgrain_requests_total{protocol=\"http\"}", 2.0);
    server.signal("TERM");
    let answer = Answer::read(speech);
    assert!(answer.whole && answer.body == wanted.body);
    assert!(talk.sound().len() > 1000);
    assert!(talk.next().is_none());
    assert_eq!(server.exit_code(), Some(0));
    assert!(TcpStream::connect(&server.http).is_err());
}

#[test]
fn without_grace_speeches_are_cut_and_seen_to_be() {
    let mut server =
        Server::start(&["--grace", "0", "--max-text", "1000000", "--max-body", "1000000"]);
    let mut speech = server.post(&json!({ "input": long().repeat(20) }));
    let mut first = [0; 1];
    speech.read_exact(&mut first).unwrap();
    server.signal("INT");
    assert_eq!(server.exit_code(), Some(0));
    let mut rest = Vec::new();
    let _ = speech.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the answer looks whole");
}

#[test]
fn systemd_gives_the_socket_and_hears_of_life() {
    let dir = std::env::temp_dir().join(format!("voxgrain-notify-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let notify = UnixDatagram::bind(dir.join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let its = program();
    // The shell hands its standard input on as the first socket, as systemd does.
    let mut sh = Command::new("sh");
    sh.arg("-c").arg("exec 3<&0; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"").arg("sh");
    sh.arg(its.get_program()).args(its.get_args()).args(SERVE);
    sh.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(std::os::fd::OwnedFd::from(socket));
    sh.env("NOTIFY_SOCKET", dir.join("notify")).env("WATCHDOG_USEC", "300000");
    let mut server = Server::run(sh);
    assert_eq!(server.http, address, "the socket that was given is used");
    let told = || {
        let mut bytes = [0; 100];
        let n = notify.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    assert_eq!([told(), told(), told()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    assert_eq!(server.get("/health").status, 200);
    server.signal("TERM");
    while told() != "STOPPING=1" {}
    assert_eq!(server.exit_code(), Some(0));
    std::fs::remove_dir_all(&dir).unwrap();
}
