//! `--json-input`: a line of JSON in, speech, a line of JSON out, by one voice that stays warm.

use super::{LONGEST_LINE, Say, Voicing, end_of_words, measurements};
use crate::cli::output;
use crate::cli::sink::{Sink, Wanted, check_name, is_stdout};
use crate::cli::usage;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;
use voxgrain::decode::Options;
use voxgrain::engine::Pool;
use voxgrain::speech::text::{self, TextFrontend};
use voxgrain::{Error, ErrorKind, Voice};

/// One line. What it leaves out is as the command line says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    text: String,
    voice: Option<String>,
    rate: Option<f32>,
    seed: Option<u64>,
    /// Without it the sound device plays.
    output: Option<PathBuf>,
}

/// What all lines have in common.
pub(super) struct Lines<'a> {
    pub say: &'a Say,
    pub voice: Voice,
    pub options: Options,
    pub frontend: TextFrontend,
    pub pool: Arc<Pool>,
}

impl Lines<'_> {
    /// Answers every line of standard input, wrong ones too.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut stdin = std::io::stdin().lock();
        // It stays open from line to line.
        let mut device = None;
        let (mut number, mut last) = (0, None);
        let mut bad = Vec::new();
        loop {
            let mut line = Vec::new();
            let n = (&mut stdin).take(LONGEST_LINE as u64).read_until(b'\n', &mut line);
            let n = n.map_err(|e| {
                Error::with_source(ErrorKind::Unreadable, "cannot read standard input", e)
            })?;
            if n == 0 {
                break;
            }
            number += 1;
            let long = n == LONGEST_LINE && !line.ends_with(b"\n");
            if long {
                // The rest of it is no line of its own.
                line.truncate(end_of_words(&line).min(100));
                skip_line(&mut stdin)?;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let answer = if long {
                Err(usage(format!(
                    "a line has at most {LONGEST_LINE} bytes: give the text in parts"
                )))
            } else {
                self.answer(&line, &mut device)
            };
            let mut told = answer.unwrap_or_else(|e| {
                bad.push(number);
                let told = json!({ "error": format!("{e:#}") });
                last = Some(e);
                told
            });
            told["line"] = json!(number);
            output::json(&told)?;
        }
        if let Some(device) = device {
            device.finish()?;
        }
        match last {
            Some(e) => {
                let what = format!("{} of {number} lines could not be spoken", bad.len());
                Err(Error::new(e.kind(), what).into())
            }
            None => Ok(()),
        }
    }

    fn answer(&self, line: &[u8], device: &mut Option<Sink>) -> voxgrain::Result<Value> {
        let request: Request = serde_json::from_str(text::utf8(line)?.trim()).map_err(|e| {
            let what = "write each line as {\"text\": \"Hello.\", \"output\": \"hello.wav\"}";
            Error::with_source(ErrorKind::InvalidArgument, what, e)
        })?;
        if let Some(path) = &request.output {
            if is_stdout(path) {
                return Err(usage("the answers go to standard output: name a file as \"output\""));
            }
            check_name(path, self.say.container())?;
        }
        let mut voice = self.voice.clone();
        if let Some(name) = &request.voice {
            voice = voice.with_speaker(name)?;
        }
        let options = request.seed.map_or(self.options, |seed| self.options.with_seed(seed));
        let rate = request.rate.unwrap_or(self.say.rate);
        let chunks = self.frontend.speak(&request.text)?.chunks;
        if chunks.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidText,
                "there is nothing to speak in \"text\"",
            ));
        }
        let mut voicing = Voicing::new(&voice, options, &self.pool, rate, true)?;
        let wanted = Wanted { output: request.output.as_deref(), ..self.say.wanted(&voice) };
        let mut file = None;
        let sink = if request.output.is_some() { &mut file } else { device };
        for chunk in &chunks {
            voicing.speak(chunk, |pcm| {
                let sink = match &mut *sink {
                    Some(sink) => sink,
                    none => none.insert(Sink::open(wanted)?),
                };
                sink.write(pcm)
            })?;
        }
        if let Some(file) = file {
            file.finish()?;
        }
        let mut told = measurements(&voicing, &options, &voice, &self.pool);
        if let Some(path) = &request.output {
            told["output"] = json!(path);
        }
        Ok(told)
    }
}

fn skip_line(from: &mut impl BufRead) -> voxgrain::Result<()> {
    loop {
        let mut line = Vec::new();
        let read = from.by_ref().take(1 << 16).read_until(b'\n', &mut line);
        let n = read.map_err(|e| {
            Error::with_source(ErrorKind::Unreadable, "cannot read standard input", e)
        })?;
        if n == 0 || line.ends_with(b"\n") {
            return Ok(());
        }
    }
}
