//! `voxgrain bench`: what the library costs on this machine.
//!
//! Whoever has a board measures it with this, so it is complete in every build of the program:
//! all arms in turn, percentiles of latency, cold start and memory of fresh processes, simulated
//! playback, what else the machine did, a comparison of two runs, and every format, since the
//! figures are read elsewhere. What explains figures instead of taking them is research and comes
//! with the feature `lab` (`cli/lab/bench.rs`): `--kernels`, matrix kernels alone against the
//! memory, and `--predict` with `--from`, boards that are not there.

mod cold;
mod compare;
mod html;
pub mod machine;
mod pace;
mod report;
pub mod run;

use super::args::{ArmName, Gamma, VoiceArgs, parse_gamma, stream};
use super::files::{read_file, sha256, write_whole};
use super::output::{self, progress};
use super::sink::is_stdout;
use super::usage;
use clap::{Args, ValueEnum};
use run::{Lane, Report, Sentence, Settings, VoiceFacts};
use std::path::{Path, PathBuf};
use voxgrain::Voice;
use voxgrain::core::accept::Emission;
use voxgrain::decode::{DEFAULT_BETA, Options};
use voxgrain::speech::text::{self, TextFrontend};
use voxgrain::{Error, ErrorKind, kernel};

/// Measure every decoding arm on this machine; compare two runs
///
/// Each sentence is spoken by every arm in turn, in rotating order, so that drifts of the
/// machine's speed meet all arms alike. Speed-ups are medians of the per-sentence ratios of
/// compute seconds a second of sound (rtf: lower is better). Playback is simulated: the
/// measured times of the chunks against a player's clock and buffers. Before the run a few
/// fresh processes are started for the cold start and the memory of one engine.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain bench                                      a Markdown report, about two minutes
  voxgrain bench --quick                              a few sentences, to see that it works
  voxgrain bench --threads 1 --json > one.json        all that was measured
  voxgrain bench --json=a.json --csv=a.csv --html=a.html
  voxgrain bench --arm ar --arm pcg --gamma 6 --set long -n 20
  voxgrain bench --compare a.json b.json              paired ratios with intervals

Directions: rtf, milliseconds and bytes are better low; tokens a second and speed-up are
better high. For figures to publish, leave the machine alone meanwhile: the report says
what share of it other programs took.")]
pub struct Bench {
    /// Sentences, one a line, instead of the built-in ones
    #[arg(short, long, value_name = "FILE", conflicts_with = "set")]
    file: Option<PathBuf>,
    /// Built-in sentences: 1 to 3 words, Harvard sentences, 150 to 200 characters
    #[arg(long, value_enum, default_value = "all")]
    set: SetName,
    /// How many utterances an arm, over again if there are fewer sentences [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub utterances: Option<u32>,
    /// A smoke run: 3 utterances, one start
    #[arg(long)]
    pub quick: bool,
    /// Arms to run, again for each [default: all that the group index allows]
    #[arg(long = "arm", value_enum)]
    arms: Vec<ArmName>,
    /// Tokens drafted a round: 0 to 15; `auto`, the voice's; `measured` follows the clock
    #[arg(long, value_name = "N|auto|measured", value_parser = parse_gamma, default_value = "auto")]
    gamma: Gamma,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave out the fresh processes: no cold start, no memory of one engine
    #[arg(long)]
    no_cold_start: bool,
    /// Everything as one JSON object, to a file or to stdout instead of the Markdown
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// A line an utterance and arm, to a file or to stdout instead of the Markdown
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    csv: Option<PathBuf>,
    /// One page with plots that needs nothing else, to a file or to stdout
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    html: Option<PathBuf>,
    /// Compare two runs saved with --json, utterance by utterance
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "html")]
    compare: Vec<PathBuf>,
    #[cfg(feature = "lab")]
    #[command(flatten)]
    pub lab: crate::cli::lab::bench::Laboratory,
    /// Speaks once and reports; what the cold start runs
    #[arg(long, hide = true)]
    probe: bool,
    /// Who speaks; `voxgrain inspect` shows the names [default: the bundle's first]
    #[arg(long, visible_alias = "voice", value_name = "NAME")]
    pub speaker: Option<String>,
    #[command(flatten)]
    pub voice: VoiceArgs,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum SetName {
    Short,
    Medium,
    Long,
    All,
}

pub const HARVARD: &str = include_str!("../../../tools/data/harvard.txt");

const SETS: [(&str, &str); 3] = [
    ("short", include_str!("sentences/short.txt")),
    ("medium", HARVARD),
    ("long", include_str!("sentences/long.txt")),
];

/// Sentences of the built-in sets, mixed so that a part of them is a mixture as well.
pub fn built_in(set: SetName) -> voxgrain::Result<Vec<Sentence>> {
    let mut all = Vec::new();
    for (i, (name, text)) in SETS.iter().enumerate() {
        if set != SetName::All && set as usize != i {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (k, line) in lines.iter().enumerate() {
            all.push(((k as f64 + 0.5) / lines.len() as f64, sentence(name, line)?));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(all.into_iter().map(|s| s.1).collect())
}

fn sentence(set: &'static str, line: &str) -> voxgrain::Result<Sentence> {
    let chunks = TextFrontend::default().speak(line)?.chunks;
    Ok(Sentence { set, text: line.trim().to_owned(), chunks })
}

/// Where a format goes: a file, or stdout.
fn write_to(path: &Path, text: &str) -> voxgrain::Result<()> {
    if is_stdout(path) {
        return output::line(text.trim_end());
    }
    write_whole(path, format!("{}\n", text.trim_end()).as_bytes())
}

fn to_json<T: serde::Serialize>(value: &T) -> voxgrain::Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::with_source(ErrorKind::Numeric, "a figure is not a number", e))
}

/// A run saved with --json.
pub fn load(path: &Path) -> voxgrain::Result<Report> {
    let bytes = read_file(path)?;
    let malformed = |what: String| Error::new(ErrorKind::Malformed, what);
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| {
        Error::with_source(ErrorKind::Malformed, format!("{} is not JSON", path.display()), e)
    })?;
    match value["voxgrain_bench"].as_u64() {
        Some(v) if v == u64::from(run::FORMAT) => {}
        Some(v) => {
            let what = format!(
                "{} has format {v}, this program reads {}: measure again",
                path.display(),
                run::FORMAT
            );
            return Err(malformed(what));
        }
        None => {
            let what = format!("{} is not a run of `voxgrain bench --json`", path.display());
            return Err(malformed(what));
        }
    }
    serde_json::from_value(value)
        .map_err(|e| Error::with_source(ErrorKind::Malformed, path.display().to_string(), e))
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        let stdout = [&self.json, &self.csv, &self.html];
        if stdout.iter().filter(|p| p.as_deref().is_some_and(is_stdout)).count() > 1 {
            return Err(usage(
                "only one format can go to stdout: give the others a file, as in --csv=FILE",
            )
            .into());
        }
        if self.probe {
            let voice = self.open()?;
            let arm = self.arms.first().copied().unwrap_or_else(|| best(&self.arm_names(&voice)));
            return cold::probe(&voice, &self.voice, arm);
        }
        if let [a, b] = &self.compare[..] {
            let comparison = compare::compare(&load(a)?, &load(b)?)?;
            return self.emit(&comparison, compare::csv, compare::markdown);
        }
        #[cfg(feature = "lab")]
        if self.lab.asked() {
            return crate::cli::lab::bench::run(&self);
        }
        let report = self.measure()?;
        if let Some(path) = &self.html {
            write_to(path, &html::page(&report))?;
            if is_stdout(path) {
                return Ok(());
            }
        }
        self.emit(&report, report::csv, report::markdown)
    }

    /// JSON and CSV where they are wanted; Markdown unless one of them took stdout.
    pub fn emit<T: serde::Serialize>(
        &self,
        value: &T,
        csv: impl Fn(&T) -> String,
        markdown: impl Fn(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut taken = false;
        if let Some(path) = &self.json {
            taken |= is_stdout(path);
            write_to(path, &to_json(value)?)?;
        }
        if let Some(path) = &self.csv {
            taken |= is_stdout(path);
            write_to(path, &csv(value))?;
        }
        if !taken {
            output::line(markdown(value).trim_end())?;
        }
        Ok(())
    }

    fn sentences(&self) -> voxgrain::Result<Vec<Sentence>> {
        let Some(path) = &self.file else { return built_in(self.set) };
        let bytes = read_file(path)?;
        let lines = text::utf8(&bytes)?.lines().filter(|l| !l.trim().is_empty());
        let sentences: Vec<Sentence> =
            lines.map(|l| sentence("file", l)).collect::<voxgrain::Result<_>>()?;
        // A line of nothing but signs is no utterance.
        let sentences: Vec<_> = sentences.into_iter().filter(|s| !s.chunks.is_empty()).collect();
        if sentences.is_empty() {
            return Err(usage(format!("{} has no sentences", path.display())));
        }
        Ok(sentences)
    }

    pub fn arm_names(&self, voice: &Voice) -> Vec<ArmName> {
        if self.arms.is_empty() {
            let mut names = vec![ArmName::Ar, ArmName::Sd, ArmName::Tolerance, ArmName::Pcg];
            match voice.groups() {
                Some(index) if !index.header().symmetric => output::status(
                    "bench: without the arm transport, which needs a symmetric group index",
                ),
                _ => names.push(ArmName::Transport),
            }
            return names;
        }
        let mut names: Vec<ArmName> = Vec::new();
        for &name in &self.arms {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn open(&self) -> voxgrain::Result<Voice> {
        self.voice.open_as(self.speaker.as_deref())
    }

    pub fn lanes(&self, voice: &Voice, names: &[ArmName]) -> voxgrain::Result<Vec<Lane>> {
        let pool = self.voice.pool();
        let lane = |name: ArmName| {
            let arm = name.arm(DEFAULT_BETA, Emission::StandIn);
            let mut options: Options = voice.options(arm);
            options.seed = self.seed;
            options.gamma = self.gamma.length(voice, pool.threads());
            Ok(Lane::new(arm, &options, stream(voice, options, &pool)?))
        };
        names.iter().copied().map(lane).collect()
    }

    fn measure(&self) -> anyhow::Result<Report> {
        let sentences = self.sentences()?;
        // Opened once to refuse what is wrong before anything is measured.
        let voice = self.open()?;
        let names = self.arm_names(&voice);
        drop(self.lanes(&voice, &names)?);
        drop(voice);
        let cold_start = if self.no_cold_start {
            None
        } else {
            output::status("bench: starting fresh processes");
            let arm = best(&names);
            Some(cold::measure(&self.voice, self.speaker.as_deref(), arm, self.quick)?)
        };

        let voice = self.open()?;
        let rate = voice.bundle().audio.sample_rate_hz;
        let mut lanes = self.lanes(&voice, &names)?;
        let total = self.utterances.map_or(if self.quick { 3 } else { 100 }, |n| n as usize);
        output::status(&format!(
            "bench: warming up, then {total} utterances by {} arms in turn",
            lanes.len()
        ));
        for lane in &mut lanes {
            for sentence in sentences.iter().take(if self.quick { 1 } else { 4 }) {
                lane.warm_up(sentence)?;
            }
        }
        let mut watch = machine::Watch::new();
        let bar = progress(total as u64, false);
        let mut all = Vec::with_capacity(total * lanes.len());
        for i in 0..total {
            for turn in 0..lanes.len() {
                let at = (i + turn) % lanes.len();
                let sentence = &sentences[i % sentences.len()];
                all.push(lanes[at].speak(i, turn, sentence, rate, &mut watch)?);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let conditions = watch.end();
        let mut sets = std::collections::BTreeMap::new();
        for i in 0..total {
            *sets.entry(sentences[i % sentences.len()].set.to_owned()).or_insert(0) += 1;
        }
        let (sampling, threads) = (voice.sampling(), self.voice.threads());
        let bundle = voice.bundle();
        let groups = self.voice.groups.clone().or_else(|| bundle.groups_path());
        Ok(Report {
            voxgrain_bench: run::FORMAT,
            build: machine::build(),
            machine: machine::describe(self.voice.pool().threads()),
            conditions,
            voice: VoiceFacts {
                name: bundle.name.clone(),
                speaker: Some(voice.speaker().name.clone()),
                sha256: sha256(&bundle.path(voxgrain::bundle::FILE_NAME))?,
                groups_sha256: match groups.filter(|p| p.exists()) {
                    Some(path) => Some(sha256(&path)?),
                    None => None,
                },
                mapped_bytes: [voice.target(), voice.draft(), voice.codec()]
                    .iter()
                    .map(|m| m.mapped_bytes() as u64)
                    .sum(),
                target_bits: bundle.target.bits,
                sample_rate_hz: rate,
                frame_rate_hz: bundle.audio.frame_rate_hz,
            },
            settings: Settings {
                utterances: total,
                sets,
                seed: self.seed,
                gamma: self.gamma.to_string(),
                costs: voice.costs(kernel::best(), threads).map(|c| run::Costs {
                    draft: c.draft,
                    row: c.row,
                    calibrated: voice.is_calibrated(kernel::best(), threads),
                }),
                temperature: sampling.temperature,
                top_k: sampling.transforms.top_k,
                top_p: sampling.transforms.top_p,
                min_p: sampling.transforms.min_p,
                device_ms: run::DEVICE_MS,
                ring_ms: run::RING_MS,
            },
            load_ms: voice.load_time().as_secs_f64() * 1e3,
            rss_bytes: output::rss_bytes(),
            peak_rss_bytes: output::peak_rss_bytes(),
            cold_start,
            arms: run::with_costs(lanes.into_iter().map(|l| l.report(&all)).collect()),
            definitions: run::definitions(),
            utterances: all,
        })
    }
}

/// The arm that a fresh process is started with: what `say` would take, of these.
pub fn best(names: &[ArmName]) -> ArmName {
    let wanted = [ArmName::Transport, ArmName::Pcg];
    wanted.into_iter().find(|arm| names.contains(arm)).unwrap_or(names[0])
}
