use super::args::VoiceArgs;
use super::files::{hex, make_folder_of, target_sha256, write_whole};
use super::{find, output, usage};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;
use voxgrain::asg::{BuildOptions, Family, Header, Index, IndexBuilder, Metric, Order, RowSource};
use voxgrain::bundle::Bundle;
use voxgrain::engine::Model;
use voxgrain::map::Map;
use voxgrain::{Error, ErrorKind};

/// Build, inspect and verify group indexes
#[derive(Args)]
pub struct Asg {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find the groups of a bundle's target and write the index
    Build(Build),
    /// Show what an index holds
    Inspect(Inspect),
    /// Read a whole index and check every list
    Verify(Verify),
}

#[derive(Clone, Copy, ValueEnum)]
enum FamilyName {
    /// Everything more similar than --theta (FSQ: at most that far)
    Threshold,
    /// The --k nearest
    TopK,
    /// The --k nearest, in both directions
    TopKSymmetric,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricName {
    Cosine,
    Euclidean,
    FsqL1,
    FsqHamming,
}

#[derive(Clone, Copy, ValueEnum)]
enum SourceName {
    /// Rows of the target's input embedding, as in the paper
    Input,
    /// Rows of the target's output head
    Head,
}

const EXAMPLES: &str = "\
Examples:
  voxgrain asg build                                  the bundle's default place
  voxgrain asg build --theta 0.7 -o asg-cache/cos70.asg
  voxgrain asg build --family top-k-symmetric --k 16 --source head -o head16.asg
  voxgrain asg build --metric fsq-l1 --theta 1 -o fsq1.asg
  voxgrain say --groups fsq1.asg \"With other groups.\"";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Build {
    /// Where to write [default: the place that the bundle names]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which neighbours belong to a group
    #[arg(long, value_enum, default_value = "threshold")]
    family: FamilyName,
    /// How similarity is measured
    #[arg(long, value_enum, default_value = "cosine")]
    metric: MetricName,
    /// Whose rows are compared
    #[arg(long, value_enum, default_value = "input")]
    source: SourceName,
    /// Threshold: cosine above it, or distance below it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    theta: Option<f32>,
    /// Neighbours of the top-k families
    #[arg(long, value_name = "K")]
    k: Option<u32>,
    /// Keep at most so many members a group, the most similar
    #[arg(long, value_name = "N")]
    cap: Option<u32>,
    /// Store similarities, weighted with this power
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    power: Option<f32>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  voxgrain asg inspect\n  voxgrain asg inspect asg-cache/voice.asg --group 4711 --json"
)]
struct Inspect {
    /// The index [default: the bundle's]
    file: Option<PathBuf>,
    /// List the members and weights of one group
    #[arg(long, value_name = "TOKEN")]
    group: Option<u32>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

#[derive(Args)]
struct Verify {
    /// The index [default: the bundle's]
    file: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    voice: VoiceArgs,
}

impl Asg {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Build(c) => c.run(),
            Command::Inspect(c) => c.run(),
            Command::Verify(c) => c.run(),
        }
    }
}

fn family(h: &Header) -> String {
    match h.family {
        Family::Threshold { theta } => format!("threshold {theta}"),
        Family::TopK { k } => format!("top-{k}"),
        Family::TopKSymmetrised { k } => format!("top-{k} symmetrised"),
        Family::Explicit => "explicit".into(),
    }
}

fn metric(h: &Header) -> &'static str {
    match h.metric {
        Metric::Given => "given",
        Metric::Cosine => "cosine",
        Metric::Euclidean => "euclidean",
        Metric::FsqL1 => "fsq-l1",
        Metric::FsqHamming => "fsq-hamming",
    }
}

fn source(h: &Header) -> &'static str {
    match h.source {
        RowSource::Unknown => "unknown",
        RowSource::InputEmbedding => "input embedding",
        RowSource::OutputHead => "output head",
        RowSource::FsqDigits => "fsq digits",
    }
}

/// What an index holds, for machines.
pub fn describe(index: &Index<Map>) -> Value {
    let h = index.header();
    json!({
        "codebook": h.codebook, "family": family(h), "metric": metric(h), "source": source(h),
        "symmetric": h.symmetric, "power": h.power, "cap": h.cap, "entries": h.entries,
        "mean_members": h.entries as f64 / h.codebook as f64, "max_members": h.max_members,
        "target_sha256": hex(&h.weights_sha256),
    })
}

/// The same in a line for people.
pub fn one_line(index: &Index<Map>) -> String {
    let h = index.header();
    format!(
        "{} {} of the {}, {:.1} members on average, at most {}",
        family(h),
        metric(h),
        source(h),
        h.entries as f64 / h.codebook as f64,
        h.max_members
    )
}

fn open(path: &Path) -> voxgrain::Result<Index<Map>> {
    Index::open(Map::open(path)?)
        .map_err(|e| Error::with_source(ErrorKind::Malformed, path.display().to_string(), e))
}

/// The named file, or the one that the bundle names.
fn place(file: &Option<PathBuf>, voice: &VoiceArgs) -> voxgrain::Result<PathBuf> {
    if let Some(file) = file.as_ref().or(voice.groups.as_ref()) {
        return Ok(file.clone());
    }
    let bundle = Bundle::open(find::bundle(voice.bundle.as_deref())?)?;
    bundle.groups_path().ok_or_else(|| usage("the bundle names no index: give a file"))
}

impl Build {
    fn family(&self, metric: Metric) -> voxgrain::Result<Family> {
        let k = || self.k.ok_or_else(|| usage("the top-k families need --k"));
        Ok(match self.family {
            FamilyName::TopK => Family::TopK { k: k()? },
            FamilyName::TopKSymmetric => Family::TopKSymmetrised { k: k()? },
            FamilyName::Threshold => {
                let default = (metric == Metric::Cosine).then_some(0.8);
                let theta = self.theta.or(default);
                let theta = theta.ok_or_else(|| usage("this metric needs --theta"))?;
                if !theta.is_finite() {
                    return Err(usage("--theta must be a finite number"));
                }
                Family::Threshold { theta }
            }
        })
    }

    fn run(self) -> anyhow::Result<()> {
        let metric = match self.metric {
            MetricName::Cosine => Metric::Cosine,
            MetricName::Euclidean => Metric::Euclidean,
            MetricName::FsqL1 => Metric::FsqL1,
            MetricName::FsqHamming => Metric::FsqHamming,
        };
        let family = self.family(metric)?;
        let bundle = Bundle::open(find::bundle(self.voice.bundle.as_deref())?)?;
        let path = match &self.output {
            Some(p) => p.clone(),
            None => {
                bundle.groups_path().ok_or_else(|| usage("the bundle names no index: give -o"))?
            }
        };
        let sha = target_sha256(&bundle)?;
        let clock = Instant::now();
        let bar = output::progress(1000, self.json);
        let on_progress = |f: f32| bar.set_position((f * 1000.0) as u64);
        let fsq = matches!(metric, Metric::FsqL1 | Metric::FsqHamming);
        let source = match (fsq, self.source) {
            (true, _) => RowSource::FsqDigits,
            (_, SourceName::Input) => RowSource::InputEmbedding,
            (_, SourceName::Head) => RowSource::OutputHead,
        };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let options = BuildOptions {
            threads: self.voice.threads.map_or(cores, usize::from),
            cap: self.cap,
            power: self.power,
            used: None,
            order: Order::Ids,
            source,
            weights_sha256: sha,
            progress: &on_progress,
        };
        let built = if fsq {
            let levels = bundle.vocabulary.levels().ok_or_else(crate::cli::no_digits)?;
            IndexBuilder::from_fsq(&levels, metric, family, &options)
        } else {
            let model = Model::load(bundle.target_path(), 0)?;
            let rows = match self.source {
                SourceName::Input => model.embedding_rows(),
                SourceName::Head => model.head_rows(),
            };
            let (rows, hidden) = rows.ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, "the target has no token rows to compare")
            })?;
            IndexBuilder::from_rows(&rows, hidden, metric, family, &options)
        };
        let bad = |e| Error::with_source(ErrorKind::InvalidArgument, "cannot build the index", e);
        let (bytes, written) = built.and_then(|b| b.to_bytes()).map_err(bad)?;
        bar.finish_and_clear();
        make_folder_of(&path)?;
        write_whole(&path, &bytes)?;
        let seconds = clock.elapsed().as_secs_f64();
        let index = open(&path)?;
        if self.json {
            let mut value = describe(&index);
            value["file"] = json!(path.display().to_string());
            value["bytes"] = json!(written.bytes);
            value["seconds"] = json!(seconds);
            output::json(&value)?;
        } else {
            output::status(&format!(
                "{}: {}, {:.2} MB, in {seconds:.1} s",
                path.display(),
                one_line(&index),
                written.bytes as f64 / 1e6
            ));
        }
        Ok(())
    }
}

impl Inspect {
    fn run(self) -> anyhow::Result<()> {
        let path = place(&self.file, &self.voice)?;
        let index = open(&path)?;
        let mut value = describe(&index);
        value["file"] = json!(path.display().to_string());
        if let Some(g) = self.group {
            if g >= index.header().codebook {
                return Err(
                    usage(format!("--group must be below {}", index.header().codebook)).into()
                );
            }
            let members: Vec<u32> = index.members(g).collect();
            let weights: Vec<f32> = members.iter().map(|&t| index.weight(g, t)).collect();
            value["group"] = json!(g);
            value["members"] = json!(members);
            value["weights"] = json!(weights);
        }
        if self.json {
            return Ok(output::json(&value)?);
        }
        let mut text = format!("{}\n  {}\n", path.display(), one_line(&index));
        for key in ["codebook", "entries", "symmetric", "power", "cap", "target_sha256", "members"]
        {
            if !value[key].is_null() {
                text.push_str(&format!("  {key:<14} {}\n", value[key]));
            }
        }
        output::line(text.trim_end())?;
        Ok(())
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<()> {
        let path = place(&self.file, &self.voice)?;
        let clock = Instant::now();
        let index = open(&path)?;
        index
            .verify()
            .map_err(|e| Error::with_source(ErrorKind::Malformed, path.display().to_string(), e))?;
        let seconds = clock.elapsed().as_secs_f64();
        if self.json {
            let mut value = describe(&index);
            value["file"] = json!(path.display().to_string());
            value["seconds"] = json!(seconds);
            output::json(&value)?;
        } else {
            output::line(&format!("{}: sound ({seconds:.2} s)", path.display()))?;
        }
        Ok(())
    }
}
