//! Cold start: what a fresh process needs until it is heard, measured by starting some.

use super::machine::{self, Rss};
use crate::cli::args::{ArmName, VoiceArgs, stream};
use crate::cli::stats::{Spread, spread};
use crate::cli::{find, output, usage};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;
use voxgrain::Voice;
use voxgrain::bundle::Bundle;
use voxgrain::core::accept::Emission;
use voxgrain::decode::DEFAULT_BETA;
use voxgrain::{Error, ErrorKind};

/// What the fresh process says of itself once it has spoken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Opening the bundle.
    pub load_ms: f64,
    /// Making the engine: caches, threads, buffers.
    pub engine_ms: f64,
    /// From the text to its first samples, pages of weights coming in meanwhile.
    pub first_audio_ms: f64,
    pub loaded: Option<Rss>,
    /// After three sentences.
    pub steady: Option<Rss>,
    pub peak_rss_bytes: Option<u64>,
    pub storage_read_bytes: Option<u64>,
}

/// A number of starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Starts {
    /// From starting the process to its first samples.
    pub first_audio_ms: Spread,
    pub load_ms: Spread,
    pub engine_ms: Spread,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ColdStart {
    pub arm: String,
    pub sentence: String,
    /// The files in the system's cache.
    pub warm: Starts,
    /// The files dropped from it first.
    pub cold: Option<Starts>,
    /// Why not, where `cold` is missing.
    pub cold_note: Option<String>,
    /// Memory of a process with one engine, the last warm start's.
    pub memory: Probe,
}

const SENTENCE: &str = "the birch canoe slid on the smooth planks.";

/// The hidden mode: opens the voice, speaks, says so.
pub fn probe(opened: &Voice, voice: &VoiceArgs, arm: ArmName) -> anyhow::Result<()> {
    let loaded = machine::rss();
    let clock = Instant::now();
    let pool = voice.pool();
    let options = opened.options(arm.arm(DEFAULT_BETA, Emission::StandIn));
    let mut stream = stream(opened, options, &pool)?;
    let engine_ms = clock.elapsed().as_secs_f64() * 1e3;
    let mut first = None;
    for _ in 0..3 {
        let clock = Instant::now();
        stream.push(SENTENCE)?;
        while stream.next_pcm()?.is_some() {
            if first.is_none() {
                first = Some(clock.elapsed().as_secs_f64() * 1e3);
                output::line("first")?;
            }
        }
    }
    let probe = Probe {
        load_ms: opened.load_time().as_secs_f64() * 1e3,
        engine_ms,
        first_audio_ms: first.unwrap_or_default(),
        loaded,
        steady: machine::rss(),
        peak_rss_bytes: output::peak_rss_bytes(),
        storage_read_bytes: machine::storage_reads(),
    };
    Ok(output::line(&serde_json::to_string(&probe)?)?)
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unreadable, format!("cannot measure the cold start: {what}"))
}

/// Starts one and times it: milliseconds to its first samples, and what it said.
fn start(voice: &VoiceArgs, speaker: Option<&str>, arm: ArmName) -> voxgrain::Result<(f64, Probe)> {
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["bench", "--probe"]);
    if let Some(name) = arm.to_possible_value() {
        command.args(["--arm", name.get_name()]);
    }
    for (flag, path) in [("--bundle", &voice.bundle), ("--groups", &voice.groups)] {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    if let Some(name) = speaker {
        command.arg(format!("--speaker={name}"));
    }
    if let Some(threads) = voice.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    let clock = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let Some(stdout) = child.stdout.take() else { return Err(failed("no pipe")) };
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next();
    let first_ms = clock.elapsed().as_secs_f64() * 1e3;
    let last = lines.next();
    let mut told = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut told);
    }
    let status = child.wait().map_err(failed)?;
    match (first, last) {
        (Some(Ok(first)), Some(Ok(last))) if status.success() && first == "first" => {
            let probe = serde_json::from_str(&last).map_err(failed)?;
            Ok((first_ms, probe))
        }
        _ => Err(failed(format!("the process ended with {status}: {}", told.trim()))),
    }
}

fn starts(all: &[(f64, Probe)]) -> Option<Starts> {
    Some(Starts {
        first_audio_ms: spread(all.iter().map(|r| r.0))?,
        load_ms: spread(all.iter().map(|r| r.1.load_ms))?,
        engine_ms: spread(all.iter().map(|r| r.1.engine_ms))?,
    })
}

/// Asks the system to drop the bundle's files from its cache.
#[cfg(target_os = "linux")]
fn drop_cache(bundle: &Bundle) -> Result<(), String> {
    let groups = bundle.groups_path().filter(|p| p.exists());
    for path in bundle.files.iter().map(|f| bundle.path(&f.path)).chain(groups) {
        let file = std::fs::File::open(&path).map_err(|e| e.to_string())?;
        // Pages that were never written back cannot be dropped.
        let _ = file.sync_all();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn drop_cache(_: &Bundle) -> Result<(), String> {
    Err("this system offers no way to drop a file from its cache".into())
}

/// Must run while this process has no file of the bundle mapped: such pages stay.
pub fn measure(
    voice: &VoiceArgs,
    speaker: Option<&str>,
    arm: ArmName,
    quick: bool,
) -> voxgrain::Result<ColdStart> {
    let bundle = Bundle::open(find::bundle(voice.bundle.as_deref())?)?;
    let total: u64 = bundle.files.iter().map(|f| f.bytes).sum();
    let mut cold = Vec::new();
    let mut note = None;
    // One start that is not counted brings the program itself in.
    start(voice, speaker, arm)?;
    for _ in 0..if quick { 1 } else { 3 } {
        if let Err(e) = drop_cache(&bundle) {
            note = Some(format!("not measured: {e}"));
            break;
        }
        let run = start(voice, speaker, arm)?;
        // Only what was read shows that the pages were gone.
        if run.1.storage_read_bytes.unwrap_or(0) < total / 2 {
            note = Some("not measured: the system kept the files in its cache".into());
            break;
        }
        cold.push(run);
    }
    if note.is_some() {
        cold.clear();
    }
    let mut warm = Vec::new();
    for _ in 0..if quick { 1 } else { 5 } {
        warm.push(start(voice, speaker, arm)?);
    }
    let all = starts(&warm).zip(warm.last());
    let Some((all, last)) = all else { return Err(usage("no start was measured")) };
    Ok(ColdStart {
        arm: arm.arm(DEFAULT_BETA, Emission::StandIn).name().to_owned(),
        sentence: SENTENCE.to_owned(),
        warm: all,
        cold: starts(&cold),
        cold_note: note,
        memory: last.1.clone(),
    })
}
