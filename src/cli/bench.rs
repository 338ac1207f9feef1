use super::say::{ArmName, Gamma, parse_gamma, progress};
use super::{VoiceArgs, output, read_file, usage};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use voxgrain::core::accept::Emission;
use voxgrain::core::rng::{SeededRng, Uniform};
use voxgrain::decode::{Arm, Options, SpecStats};
use voxgrain::speech::synth::Synthesizer;
use voxgrain::speech::text::{self, TextFrontend};

/// What every decoding arm costs on this machine, in one alternating run
///
/// Each sentence is spoken by every arm in turn, in rotating order, so that drifts of the
/// machine's speed meet all arms alike. Speed-ups are medians of the per-sentence ratios of
/// compute seconds a second of sound.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain bench
  voxgrain bench --utterances 100 --threads 1 --json > bench.json
  voxgrain bench --arm ar --arm pcg --gamma 6 -f sentences.txt")]
pub struct Bench {
    /// Sentences, one a line [default: forty Harvard sentences]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many sentences, over again if there are fewer
    #[arg(short = 'n', long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    utterances: u32,
    /// Arms to run, again for each [default: all]
    #[arg(long = "arm", value_enum)]
    arms: Vec<ArmName>,
    /// Tokens drafted a round: 0 to 15, `auto` (the voice's) or `measured`, which follows the clock
    #[arg(long, value_name = "N|auto|measured", value_parser = parse_gamma, default_value = "measured")]
    gamma: Gamma,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object on stdout instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

const HARVARD: &str = include_str!("../../tools/data/harvard.txt");

/// One spoken sentence.
struct Run {
    tokens: u64,
    audio: f64,
    compute: f64,
    first_audio: f64,
}

struct Lane {
    arm: Arm,
    synthesizer: Synthesizer,
    runs: Vec<Run>,
}

impl Lane {
    fn speak(&mut self, chunks: &[text::Chunk], rate: f64) -> voxgrain::Result<Run> {
        let before = self.synthesizer.stats();
        let clock = Instant::now();
        let mut first = None;
        let mut pcm = Vec::new();
        for chunk in chunks {
            let mut speech = self.synthesizer.speak(&chunk.text)?;
            loop {
                pcm.clear();
                if !speech.next_into(&mut pcm)? {
                    break;
                }
                if !pcm.is_empty() {
                    first.get_or_insert_with(|| clock.elapsed());
                }
            }
        }
        let after = self.synthesizer.stats();
        Ok(Run {
            tokens: after.tokens - before.tokens,
            audio: (after.samples - before.samples) as f64 / rate,
            compute: (after.compute - before.compute).as_secs_f64(),
            first_audio: first.unwrap_or_default().as_secs_f64() * 1e3,
        })
    }
}

impl Run {
    fn rtf(&self) -> f64 {
        if self.audio > 0.0 { self.compute / self.audio } else { f64::NAN }
    }
}

/// The value below which `share` of the finite `values` lie.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut v: Vec<f64> = values.filter(|x| x.is_finite()).collect();
    if v.is_empty() {
        return f64::NAN;
    }
    v.sort_by(f64::total_cmp);
    v[((v.len() - 1) as f64 * share).round() as usize]
}

/// Median and 95 % bootstrap interval.
fn interval(values: &[f64]) -> [f64; 3] {
    let mut rng = SeededRng::new(7);
    let n = values.len();
    let medians: Vec<f64> = (0..1000)
        .map(|_| {
            let draw = (0..n).map(|_| values[(rng.uniform() * n as f32) as usize]);
            quantile(draw.collect::<Vec<_>>().into_iter(), 0.5)
        })
        .collect();
    let all = values.iter().copied();
    [
        quantile(all, 0.5),
        quantile(medians.iter().copied(), 0.025),
        quantile(medians.iter().copied(), 0.975),
    ]
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        let voice = self.voice.open()?;
        let pool = self.voice.pool();
        let rate = f64::from(voice.bundle().audio.sample_rate_hz);
        let bytes = match &self.file {
            Some(path) => read_file(path)?,
            None => HARVARD.as_bytes().to_vec(),
        };
        let frontend = TextFrontend::default();
        let mut sentences = Vec::new();
        for line in text::utf8(&bytes)?.lines().filter(|l| !l.trim().is_empty()) {
            sentences.push(frontend.speak(line)?.chunks);
        }
        if sentences.is_empty() {
            return Err(usage("the file has no sentences").into());
        }
        let all = [ArmName::Ar, ArmName::Sd, ArmName::Tolerance, ArmName::Pcg];
        let names = if self.arms.is_empty() { &all[..] } else { &self.arms };
        let mut lanes = Vec::new();
        for name in names {
            let arm = name.arm(0.4, Emission::StandIn);
            let mut options: Options = voice.options(arm);
            options.seed = self.seed;
            options.gamma = self.gamma.length(&voice);
            let synthesizer = Synthesizer::new(&voice, options, &pool)?;
            lanes.push(Lane { arm, synthesizer, runs: Vec::new() });
        }
        for lane in &mut lanes {
            lane.speak(&sentences[0], rate)?;
        }
        let warm: Vec<_> = lanes.iter().map(|l| l.synthesizer.stats()).collect();
        let total = self.utterances as usize;
        let bar = progress(total as u64, self.json);
        for i in 0..total {
            for k in 0..lanes.len() {
                let at = (i + k) % lanes.len();
                let run = lanes[at].speak(&sentences[i % sentences.len()], rate)?;
                lanes[at].runs.push(run);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();

        let base = lanes.iter().position(|l| l.arm == Arm::Ar);
        let rows: Vec<Value> = lanes
            .iter()
            .zip(&warm)
            .map(|(lane, warm)| {
                let ratios: Option<Vec<f64>> = base.map(|b| {
                    let pairs = lanes[b].runs.iter().zip(&lane.runs);
                    pairs.map(|(a, x)| a.rtf() / x.rtf()).collect()
                });
                row(lane, &warm.spec, warm.codec, ratios.as_deref())
            })
            .collect();
        let head = json!({
            "voxgrain": env!("CARGO_PKG_VERSION"),
            "voice": voice.bundle().name,
            "kernel": pool.kernel().name(),
            "threads": pool.threads(),
            "utterances": total,
            "load_ms": voice.load_time().as_secs_f64() * 1e3,
            "peak_rss_bytes": output::peak_rss_bytes(),
            "arms": rows,
        });
        if self.json {
            return Ok(output::json(&head)?);
        }
        output::line(&table(&head))?;
        Ok(())
    }
}

fn row(lane: &Lane, warm: &SpecStats, warm_codec: Duration, ratios: Option<&[f64]>) -> Value {
    let s = lane.synthesizer.stats();
    let runs = &lane.runs;
    let tokens: u64 = runs.iter().map(|r| r.tokens).sum();
    let compute: f64 = runs.iter().map(|r| r.compute).sum();
    let audio: f64 = runs.iter().map(|r| r.audio).sum();
    let rounds = s.spec.rounds - warm.rounds;
    let proposed = s.spec.proposed - warm.proposed;
    let accepted = s.spec.accepted - warm.accepted;
    let emitted = s.spec.emitted - warm.emitted;
    let share = |a: Duration, b: Duration| (a.saturating_sub(b)).as_secs_f64() / compute;
    json!({
        "arm": lane.arm.name(),
        "tokens": tokens,
        "audio_seconds": audio,
        "compute_seconds": compute,
        "tokens_per_second": tokens as f64 / compute,
        "rtf": compute / audio,
        "speed_up": ratios.map(interval),
        "acceptance_rate": (proposed > 0).then(|| accepted as f64 / proposed as f64),
        "tokens_per_round": emitted as f64 / rounds.max(1) as f64,
        "first_audio_ms": {
            "p50": quantile(runs.iter().map(|r| r.first_audio), 0.5),
            "p95": quantile(runs.iter().map(|r| r.first_audio), 0.95),
        },
        "share": {
            "prefill": share(s.spec.prefill, warm.prefill),
            "draft": share(s.spec.draft, warm.draft),
            "verify": share(s.spec.verify, warm.verify),
            "sampling": share(s.spec.sampling, warm.sampling),
            "codec": share(s.codec, warm_codec),
        },
    })
}

fn table(v: &Value) -> String {
    let mut out = format!(
        "{} sentences, {} threads, {}; voice {} loaded in {:.0} ms, at most {:.0} MB resident\n\n",
        v["utterances"],
        v["threads"],
        v["kernel"].as_str().unwrap_or_default(),
        v["voice"].as_str().unwrap_or_default(),
        v["load_ms"].as_f64().unwrap_or(f64::NAN),
        v["peak_rss_bytes"].as_f64().unwrap_or(f64::NAN) / 1e6,
    );
    out.push_str(
        "| arm | tokens/s | rtf | speed-up [95 %] | accepted | tokens a round | first audio ms \
         p50 / p95 | prefill, draft, verify, sampling, codec % |\n|---|---|---|---|---|---|---|---|\n",
    );
    let f = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    for a in v["arms"].as_array().into_iter().flatten() {
        let speed = match a["speed_up"].as_array() {
            Some(s) => format!("{:.2} [{:.2}, {:.2}]", f(&s[0]), f(&s[1]), f(&s[2])),
            None => "-".into(),
        };
        let accepted = match a["acceptance_rate"].as_f64() {
            Some(r) => format!("{:.0} %", r * 100.0),
            None => "-".into(),
        };
        let share: Vec<String> = ["prefill", "draft", "verify", "sampling", "codec"]
            .iter()
            .map(|k| format!("{:.0}", 100.0 * f(&a["share"][k])))
            .collect();
        out.push_str(&format!(
            "| {} | {:.0} | {:.3} | {speed} | {accepted} | {:.2} | {:.0} / {:.0} | {} |\n",
            a["arm"].as_str().unwrap_or_default(),
            f(&a["tokens_per_second"]),
            f(&a["rtf"]),
            f(&a["tokens_per_round"]),
            f(&a["first_audio_ms"]["p50"]),
            f(&a["first_audio_ms"]["p95"]),
            share.join(", ")
        ));
    }
    out.trim_end().to_string()
}
