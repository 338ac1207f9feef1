//! What `/metrics` tells, in the text format of Prometheus: a name, a label and a number a line.

use super::turns::Progress;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a speech ended.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// Spoken to its end.
    Done,
    /// Its client went away.
    Cancelled,
    /// It could not be spoken.
    Failed,
    /// The server ended it.
    Cut,
}

const OUTCOMES: [&str; 4] = ["done", "cancelled", "failed", "cut"];

/// Upper ends of the classes of the time to the first sound, in seconds.
const CLASSES: [f64; 11] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

#[derive(Default)]
pub struct Metrics {
    requests: [AtomicU64; 2],
    refused: AtomicU64,
    ended: [AtomicU64; OUTCOMES.len()],
    speaking: AtomicU64,
    waiting: AtomicU64,
    samples: AtomicU64,
    tokens: AtomicU64,
    rounds: AtomicU64,
    proposed: AtomicU64,
    accepted: AtomicU64,
    compute_us: AtomicU64,
    gaps: AtomicU64,
    first: [AtomicU64; CLASSES.len()],
    first_count: AtomicU64,
    first_us: AtomicU64,
}

/// Which door a request came in by.
#[derive(Clone, Copy)]
pub enum Door {
    Http,
    Wyoming,
}

/// Counts one request as waiting for as long as it lives.
pub struct Waiting<'a>(&'a Metrics);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    pub fn request(&self, door: Door) {
        self.requests[door as usize].fetch_add(1, Relaxed);
    }

    pub fn refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub fn ended_all(&self, outcome: Outcome, n: u64) {
        self.ended[outcome as usize].fetch_add(n, Relaxed);
    }

    pub fn speaking(&self, sessions: u64) {
        self.speaking.store(sessions, Relaxed);
    }

    /// `None` if as many as `most` wait already.
    pub fn wait(&self, most: u64) -> Option<Waiting<'_>> {
        let one_more = |n| (n < most).then_some(n + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Waiting(self))
    }

    pub fn worked(&self, before: &Progress, after: &Progress) {
        let add = |to: &AtomicU64, a: u64, b: u64| to.fetch_add(b.saturating_sub(a), Relaxed);
        add(&self.samples, before.samples, after.samples);
        add(&self.tokens, before.tokens, after.tokens);
        add(&self.rounds, before.rounds, after.rounds);
        add(&self.proposed, before.proposed, after.proposed);
        add(&self.accepted, before.accepted, after.accepted);
        let us = |d: Duration| d.as_micros() as u64;
        add(&self.compute_us, us(before.compute), us(after.compute));
    }

    pub fn first_sound(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        if let Some(class) = CLASSES.iter().position(|&end| seconds <= end) {
            self.first[class].fetch_add(1, Relaxed);
        }
        self.first_count.fetch_add(1, Relaxed);
        self.first_us.fetch_add(after.as_micros() as u64, Relaxed);
    }

    /// A piece of sound came after its listener had run out.
    pub fn gap(&self) {
        self.gaps.fetch_add(1, Relaxed);
    }

    /// All of it; `rate` is samples a second, `session_bytes` what one may take at most.
    pub fn text(&self, rate: u32, session_bytes: u64, rss: Option<u64>) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
            let _ = writeln!(out, "# HELP voxgrain_{name} {help}\n# TYPE voxgrain_{name} {kind}");
            for (label, value) in lines {
                let _ = writeln!(out, "voxgrain_{name}{label} {value}");
            }
        };
        let get = |n: &AtomicU64| n.load(Relaxed) as f64;
        let one = |value: f64| vec![(String::new(), value)];
        let labelled = |key: &str, names: &[&str], values: &[AtomicU64]| -> Vec<_> {
            let pairs = names.iter().zip(values);
            pairs.map(|(n, v)| (format!("{{{key}=\"{n}\"}}"), get(v))).collect()
        };
        let doors = labelled("protocol", &["http", "wyoming"], &self.requests);
        family("requests_total", "counter", "Speeches that were asked for.", &doors);
        let refused = one(get(&self.refused));
        family("refused_total", "counter", "Requests that were refused with a reason.", &refused);
        let ended = labelled("outcome", &OUTCOMES, &self.ended);
        family("speeches_total", "counter", "Speeches that ended, by how.", &ended);
        let speaking = one(get(&self.speaking));
        family("sessions", "gauge", "Speeches that are being made.", &speaking);
        family("waiting", "gauge", "Requests that wait for a session.", &one(get(&self.waiting)));
        let sound = one(get(&self.samples) / f64::from(rate));
        family("sound_seconds_total", "counter", "Sound that was made.", &sound);
        let compute = one(get(&self.compute_us) / 1e6);
        family("compute_seconds_total", "counter", "Time that it took to make.", &compute);
        family("tokens_total", "counter", "Speech tokens.", &one(get(&self.tokens)));
        family("rounds_total", "counter", "Passes of the target.", &one(get(&self.rounds)));
        family("drafted_total", "counter", "Drafted tokens.", &one(get(&self.proposed)));
        let accepted = one(get(&self.accepted));
        family("accepted_total", "counter", "Drafted tokens that were accepted.", &accepted);
        let help = "Pieces of sound that came after a listener in real time had run out.";
        family("gaps_total", "counter", help, &one(get(&self.gaps)));
        let most = one(session_bytes as f64);
        family("session_bytes_most", "gauge", "What a session may take at most.", &most);
        if let Some(rss) = rss {
            family("resident_bytes", "gauge", "Memory of the process.", &one(rss as f64));
        }
        let mut sum = 0.0;
        let mut first: Vec<(String, f64)> = Vec::new();
        for (end, n) in CLASSES.iter().zip(&self.first) {
            sum += get(n);
            first.push((format!("_bucket{{le=\"{end}\"}}"), sum));
        }
        first.push(("_bucket{le=\"+Inf\"}".into(), get(&self.first_count)));
        first.push(("_sum".into(), get(&self.first_us) / 1e6));
        first.push(("_count".into(), get(&self.first_count)));
        let help = "From a request to its first sound.";
        family("first_sound_seconds", "histogram", help, &first);
        out
    }
}
