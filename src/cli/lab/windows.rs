//! How the windows of a codec that looks both ways compare with decoding at once.

use crate::cli::lab::eval::mel::{Mel, distance};
use crate::cli::{output, table, usage};
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;
use voxgrain::bundle::{Audio, Codec};
use voxgrain::engine::{CodecSession, Model, Pool};
use voxgrain::kernel;
use voxgrain::map::Map;
use voxgrain::speech::codec::{CodecDecoder, Inverse};

/// What streaming costs with a codec that looks both ways, in work and in sound
///
/// Decodes the same codes at once, in windows that begin anew (what others do), and in the windows
/// that a bundle streams in, whose past is kept; docs/codec.md has the tables.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain windows models/nano/codec.onnx --codes speech.json --reference 150
  voxgrain windows codec.onnx --frames 250 --threads 1 --json")]
pub struct Windows {
    /// The codec's file (with `<FILE>.data` beside it)
    model: PathBuf,
    /// Codes as a JSON list; random ones without it
    #[arg(long, value_name = "FILE")]
    codes: Option<PathBuf>,
    /// How many codes, if they are random
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    frames: u32,
    /// So many of the codes are a reference that comes before the speech
    #[arg(long, default_value_t = 0, value_name = "N")]
    reference: usize,
    /// Codes a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    frame_rate: u32,
    /// Codes that the first sound waits for
    #[arg(long, default_value_t = 10)]
    first: u32,
    /// Codes that a window adds
    #[arg(long, default_value_t = 25)]
    new: u32,
    /// Codes that a window reads beyond those
    #[arg(long, default_value_t = 5)]
    ahead: u32,
    /// Earlier codes that a window sees
    #[arg(long, default_value_t = 100)]
    back: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Only this way: whole, anew or kept
    #[arg(long, value_parser = ["whole", "anew", "kept"])]
    only: Option<String>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One way to decode, as measured.
struct Way {
    name: &'static str,
    seconds: f64,
    first: f64,
    rows: usize,
    sound: Vec<f32>,
    seams: Vec<usize>,
}

impl Windows {
    pub fn run(self) -> anyhow::Result<()> {
        let pool = Pool::new(kernel::best(), usize::from(self.threads));
        let model = Model::load(&self.model, 0)?;
        let fft = model.output_columns().saturating_sub(2);
        if !model.looks_ahead() || fft < 8 || fft % 4 != 0 {
            return Err(
                usage("a codec that looks both ways is wanted: others need no windows").into()
            );
        }
        let hop = fft / 4;
        let audio: Audio = toml::from_str(&format!(
            "sample_rate_hz = {}\nframe_rate_hz = {}\nfft_size = {fft}\nhop = {hop}\nmax_log_magnitude = 4.605170185988092",
            hop * self.frame_rate as usize,
            self.frame_rate
        ))?;
        let codec: Codec = toml::from_str(&format!(
            "file = \"\"\nlatency_samples = 0\nkind = \"windowed\"\nfirst_frames = {}\nnew_frames = {}\nahead_frames = {}\nback_frames = {}",
            self.first, self.new, self.ahead, self.back
        ))?;
        if self.first <= self.ahead || self.new == 0 || self.back == 0 {
            return Err(
                usage("--first is more than --ahead; --new and --back are more than 0").into()
            );
        }
        let codes = self.codes()?;
        if codes.len() < self.reference + 20 {
            return Err(usage(format!("{} codes are too few", codes.len())).into());
        }
        let (reference, codes) = codes.split_at(self.reference);
        let mut ways = Vec::new();
        let wanted = |name: &str| self.only.as_deref().is_none_or(|only| only == name);
        if wanted("whole") || self.only.is_none() {
            let mut session =
                CodecSession::with_past(&model, &pool, 0, self.reference + codes.len())?;
            let all = [reference, codes].concat();
            ways.push(self.timed("whole", codes.len(), |way| {
                let spectra = session.push(&all)?;
                let from = reference.len() * model.output_columns();
                let mut inverse = Inverse::new(&audio, &codec);
                inverse.push(&spectra[from..], &mut way.sound)?;
                inverse.finish(&mut way.sound);
                way.rows = all.len();
                Ok(())
            })?);
        }
        let windows = codec.windows().context("it is windowed")?;
        let borders = |starts: &mut Vec<usize>| {
            let (mut at, mut keep) = (0, windows.first - windows.ahead);
            while at + keep + windows.ahead < codes.len() {
                at += keep;
                starts.push(at);
                keep = (keep + keep.div_ceil(2)).min(windows.new);
            }
        };
        if wanted("anew") {
            let (new, back, ahead) = (25, 50, 5);
            let mut session = CodecSession::with_past(&model, &pool, 0, new + back + ahead)?;
            let all = [reference, codes].concat();
            ways.push(self.timed("anew 25/50/5", codes.len(), |way| {
                let mut inverse = Inverse::new(&audio, &codec);
                let clock = Instant::now();
                for from in (reference.len()..all.len()).step_by(new) {
                    let start = from.saturating_sub(back);
                    let end = (from + new + ahead).min(all.len());
                    session.reset();
                    let spectra = session.push(&all[start..end])?;
                    let rows = from - start..(from + new).min(all.len()) - start;
                    let columns = model.output_columns();
                    let rows = &spectra[rows.start * columns..rows.end * columns];
                    inverse.push(rows, &mut way.sound)?;
                    way.rows += end - start;
                    if from > reference.len() {
                        way.seams.push(from - reference.len());
                    } else {
                        way.first = clock.elapsed().as_secs_f64();
                    }
                }
                inverse.finish(&mut way.sound);
                Ok(())
            })?);
        }
        if wanted("kept") {
            let mut decoder =
                CodecDecoder::with_reference(&model, &pool, &audio, &codec, reference)?;
            ways.push(self.timed("kept", codes.len(), |way| {
                let clock = Instant::now();
                for code in codes {
                    decoder.push(&[*code], &mut way.sound)?;
                    if way.first == 0.0 && !way.sound.is_empty() {
                        way.first = clock.elapsed().as_secs_f64();
                    }
                }
                decoder.finish(&mut way.sound)?;
                borders(&mut way.seams);
                way.rows = codes.len() + way.seams.len() * windows.ahead;
                Ok(())
            })?);
        }
        self.report(&audio, codes.len(), &ways)
    }

    fn timed(
        &self,
        name: &'static str,
        frames: usize,
        mut run: impl FnMut(&mut Way) -> voxgrain::Result<()>,
    ) -> anyhow::Result<Way> {
        let mut best: Option<Way> = None;
        let mut times = Vec::new();
        // The first run maps what it touches.
        for i in 0..=self.repeats {
            let mut way = Way {
                name,
                seconds: 0.0,
                first: 0.0,
                rows: 0,
                sound: Vec::new(),
                seams: Vec::new(),
            };
            let clock = Instant::now();
            run(&mut way)?;
            if i > 0 {
                times.push(clock.elapsed().as_secs_f64());
            }
            best = Some(way);
        }
        times.sort_by(f64::total_cmp);
        let mut way = best.context("it ran")?;
        way.seconds = times[times.len() / 2] * f64::from(self.frame_rate) / frames as f64;
        Ok(way)
    }

    fn report(&self, audio: &Audio, frames: usize, ways: &[Way]) -> anyhow::Result<()> {
        let (fft, hop, rate) = (audio.fft_size as usize, audio.hop as usize, audio.sample_rate_hz);
        let mel = Mel::new(80, fft / 2 + 1, rate);
        let whole = ways.iter().find(|w| w.name == "whole").map(|w| &w.sound);
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        for way in ways {
            let far = whole.map(|w| distance(w, &way.sound, fft, hop / 4, &mel));
            let near = whole.filter(|_| !way.seams.is_empty()).map(|w| {
                let parts = way.seams.iter().map(|s| {
                    let at = s * hop;
                    let range = at.saturating_sub(fft)..(at + fft).min(way.sound.len());
                    distance(&w[range.clone()], &way.sound[range], fft, hop / 4, &mel)
                });
                parts.sum::<f64>() / way.seams.len() as f64
            });
            let work = way.rows as f64 / frames as f64;
            rows.push(json!({
                "way": way.name, "work": work, "rtf": way.seconds, "first_s": way.first,
                "mel_db": far, "seams_db": near,
            }));
            let db = |x: Option<f64>| x.map_or("".into(), |x| format!("{x:.2}"));
            cells.push(vec![
                way.name.to_owned(),
                format!("{work:.2}"),
                format!("{:.1}", 1e3 * way.seconds),
                format!("{:.1}", 1e3 * way.first),
                db(far),
                db(near),
            ]);
        }
        if self.json {
            let head = json!({ "frames": frames, "threads": self.threads, "ways": rows });
            return Ok(output::json(&head)?);
        }
        let head = [
            "way",
            "rows a token",
            "ms a second of sound",
            "first sound, ms",
            "log-mel distance to whole, dB",
            "around seams, dB",
        ];
        Ok(output::line(table::markdown(&head, &cells).trim_end())?)
    }

    fn codes(&self) -> anyhow::Result<Vec<u32>> {
        let Some(path) = &self.codes else {
            let mut state = 1u64;
            return Ok((0..self.frames as usize + self.reference)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 48) as u32
                })
                .collect());
        };
        let map = Map::read(path)?;
        let what = || format!("{}: a JSON list of codes is wanted", path.display());
        serde_json::from_slice(&map).with_context(what)
    }
}
