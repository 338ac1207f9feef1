use super::tally::ratio;
use super::{
    Engine, SamplingArgs, Sentences, Sounds, describe_sampling, open_indexes, output, shown, usage,
};
use crate::cli::args::{ArmName, Gamma, parse_gamma, stream};
use crate::cli::output::progress;
use crate::cli::stats::median_interval;
use crate::cli::table;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use voxgrain::Stream;
use voxgrain::core::accept::{Emission, Groups};
use voxgrain::decode::{Arm, DEFAULT_BETA};

/// Speak with every arm and index in turn: tokens a round, speed-up, sounds
///
/// Each sentence is spoken by every lane in rotating order, so that drifts of the machine
/// meet all alike. A lane is an arm; an arm that accepts by groups has one lane an index.
/// Speed-up is the median over sentences of the ratio of compute seconds a second of sound
/// to those of `ar`. With --out the sounds are kept in --out/LANE/00000.wav, ... for a
/// recogniser.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain eval speech                                 every arm with the bundle's index
  voxgrain eval speech idx/*.asg --arm ar --arm sd --arm pcg -n 150 -f tools/data/heldout.txt
  voxgrain eval speech idx/fsq-2.asg --gamma 4 --out spoken --json")]
pub struct Speech {
    /// Index files [default: the bundle's]
    indexes: Vec<PathBuf>,
    #[command(flatten)]
    sentences: Sentences,
    /// Arms, again for each [default: all]
    #[arg(long = "arm", value_enum)]
    arms: Vec<ArmName>,
    /// Tokens drafted a round: 0 to 15; `auto`, the voice's; `measured` follows the clock
    #[arg(long, value_name = "N|auto|measured", value_parser = parse_gamma, default_value = "auto")]
    gamma: Gamma,
    /// What the tolerance rule adds
    #[arg(long, default_value_t = DEFAULT_BETA)]
    beta: f32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Folder for the sounds [default: none are written]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Engine,
}

struct Lane {
    name: String,
    index: Option<String>,
    arm: Arm,
    stream: Stream,
    /// Of each sentence.
    done: Vec<Spoken>,
}

#[derive(Clone, Copy)]
struct Spoken {
    tokens: u64,
    emitted: u64,
    rounds: u64,
    proposed: u64,
    accepted: u64,
    compute: f64,
    audio: f64,
    cut: u64,
}

impl Speech {
    pub fn run(self) -> anyhow::Result<()> {
        let (voice, pool) = self.engine.open()?;
        let texts = self.sentences.read(&voice)?;
        let settings = self.sampling.settings(&voice)?;
        let [sampling] = settings[..] else {
            return Err(usage("give one value of each sampling option").into());
        };
        let arms = match &self.arms[..] {
            [] => ArmName::value_variants().to_vec(),
            given => given.to_vec(),
        };
        let named = open_indexes(&self.indexes, &voice)?;
        let rate = voice.bundle().audio.sample_rate_hz;
        let mut lanes = Vec::new();
        for name in arms {
            let arm = name.arm(self.beta, Emission::StandIn);
            let mut add = |lane: String, index: Option<&super::Named>| -> voxgrain::Result<()> {
                let voice = index.map_or(&voice, |named| &named.voice);
                let mut options = voice.options(arm);
                options.seed = self.sentences.seed;
                options.sampling = sampling;
                options.gamma = self.gamma.length(voice, pool.threads());
                lanes.push(Lane {
                    name: lane,
                    index: index.map(|n| n.name.clone()),
                    arm,
                    stream: stream(voice, options, &pool)?,
                    done: Vec::new(),
                });
                Ok(())
            };
            if !matches!(arm, Arm::Ar | Arm::Sd | Arm::Tolerance { .. }) {
                for n in &named {
                    if arm == Arm::Transport && !n.index.is_symmetric() {
                        output::status(&format!(
                            "speech: {} is not symmetric: without transport",
                            n.name
                        ));
                        continue;
                    }
                    add(format!("{}-{}", arm.name(), n.name), Some(n))?;
                }
            } else {
                add(arm.name().to_owned(), None)?;
            }
        }
        let names = lanes.iter().map(|lane| lane.name.as_str());
        let sounds = Sounds::new(self.out.as_deref(), names, rate)?;
        let bar = progress(texts.len() as u64, self.json);
        let mut pcm = Vec::new();
        for (i, chunks) in texts.iter().enumerate() {
            for turn in 0..lanes.len() {
                let at = (i + turn) % lanes.len();
                let lane = &mut lanes[at];
                let before = lane.stream.stats().speech;
                pcm.clear();
                for chunk in chunks {
                    lane.stream.push(chunk.as_str())?;
                    while let Some(more) = lane.stream.next_pcm()? {
                        pcm.extend_from_slice(more);
                    }
                }
                let s = lane.stream.stats().speech;
                lane.done.push(Spoken {
                    tokens: s.tokens - before.tokens,
                    emitted: s.spec.emitted - before.spec.emitted,
                    rounds: s.spec.rounds - before.spec.rounds,
                    proposed: s.spec.proposed - before.spec.proposed,
                    accepted: s.spec.accepted - before.spec.accepted,
                    compute: (s.compute - before.compute).as_secs_f64(),
                    audio: pcm.len() as f64 / f64::from(rate),
                    cut: s.cut - before.cut,
                });
                sounds.write(&lane.name, i, &pcm)?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let plain = lanes.iter().find(|l| l.arm == Arm::Ar).map(|l| l.done.clone());
        let rows: Vec<Value> = lanes.iter().map(|l| describe(l, plain.as_deref())).collect();
        if self.json {
            output::json(&json!({
                "eval": "speech", "voice": voice.bundle().name, "speaker": voice.speaker().name, "sentences": texts.len(),
                "seed": self.sentences.seed, "gamma": self.gamma.to_string(),
                "threads": pool.threads(), "kernel": pool.kernel().name(),
                "sampling": describe_sampling(&sampling),
                "lanes": rows,
            }))?;
            return Ok(());
        }
        let triple = |v: &Value, digits: usize| match &v.as_array().map(Vec::as_slice) {
            Some([a, b, c]) => {
                let v = [a, b, c].map(|x| x.as_f64().unwrap_or(f64::NAN));
                shown(&v, digits)
            }
            _ => String::new(),
        };
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|r| {
                vec![
                    r["lane"].as_str().unwrap_or_default().to_owned(),
                    triple(&r["acceptance_rate"], 3),
                    triple(&r["tokens_per_round"], 2),
                    triple(&r["speed_up"], 2),
                    r["rtf"].as_f64().map_or(String::new(), |x| format!("{x:.3}")),
                ]
            })
            .collect();
        let head = ["lane", "accepted", "tokens a round", "speed-up", "rtf"];
        output::line(table::markdown(&head, &rows).trim_end())?;
        Ok(())
    }
}

fn describe(lane: &Lane, plain: Option<&[Spoken]>) -> Value {
    let of = |f: fn(&Spoken) -> (u64, u64)| {
        let pairs: Vec<_> = lane.done.iter().map(f).map(|(a, b)| (a as f64, b as f64)).collect();
        ratio(&pairs)
    };
    let drafts = lane.done.iter().any(|d| d.proposed > 0);
    let rtf = |d: &Spoken| d.compute / d.audio;
    let (compute, audio) =
        lane.done.iter().fold((0.0, 0.0), |a, d| (a.0 + d.compute, a.1 + d.audio));
    let speed_up = plain.and_then(|plain| {
        median_interval(plain.iter().zip(&lane.done).map(|(a, b)| rtf(a) / rtf(b)))
    });
    json!({
        "lane": lane.name,
        "arm": lane.arm.name(),
        "index": lane.index,
        "tokens_per_round": of(|d| (d.emitted, d.rounds)),
        "acceptance_rate": drafts.then(|| of(|d| (d.accepted, d.proposed))),
        "drafted_per_round": of(|d| (d.proposed, d.rounds)),
        "speed_up": speed_up,
        "rtf": compute / audio,
        "audio_seconds": audio,
        "compute_seconds": compute,
        "tokens": lane.done.iter().map(|d| d.tokens).sum::<u64>(),
        "cut": lane.done.iter().map(|d| d.cut).sum::<u64>(),
    })
}
