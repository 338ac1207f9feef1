//! `voxgrain eval`: the experiments on groups. Every table of docs/experiments is made of
//! what these print; `python -m voxgrain_tools experiments` runs them all.

mod acceptance;
mod coarse;
mod flow;
mod groups;
mod lists;
mod live;
pub mod mel;
mod speech;
mod splits;
mod swap;
mod tally;
mod walk;

use crate::cli::args::VoiceArgs;
use crate::cli::bench::HARVARD;
use crate::cli::files::{make_folder, read_file};
use crate::cli::{output, usage};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use voxgrain::asg::{Index, Weights};
use voxgrain::decode::Sampling;
use voxgrain::engine::Pool;
use voxgrain::map::Map;
use voxgrain::speech::synth::Voice;
use voxgrain::speech::text::{self, TextFrontend};
use voxgrain::speech::wav::WavFile;
use voxgrain::{Error, ErrorKind};

/// Measure what groups give and what they cost
///
/// `groups` makes one index for every family that is to be compared; the others take index
/// files, of whatever origin, and compare them on the same rows, tokens or sentences.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain eval groups --out idx                         the default families, minutes
  voxgrain eval groups --out idx cos:0.7 fsq:2 random:32
  voxgrain eval acceptance idx/*.asg                     exact acceptance, all on the same rows
  voxgrain eval acceptance idx/fsq-2.asg --bounds 200    and the most that any rule could have
  voxgrain eval acceptance idx/fsq-2.asg --temperature 1,0.8 --top-k 0,50 --top-p 1,0.9
  voxgrain eval swap idx/*.asg --out swap                every token replaced within its group
  voxgrain eval speech idx/*.asg --out spoken -n 100     tokens a round and speed, in turn
  voxgrain eval live --theta 0.7 --top-k 50              groups found on the fly

Sentences are the built-in Harvard sentences, or --file's. An index is named by its file.
Add --json for one JSON object on stdout; progress goes to stderr.")]
pub struct Eval {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the index files of several families at once
    Groups(groups::Groups),
    /// Exact acceptance of rules and families on the target's own speech
    Acceptance(acceptance::Acceptance),
    /// Damage when every token is replaced by a random member of its group
    Swap(swap::Swap),
    /// Speak with every arm and index in turn: tokens a round, speed-up, sounds
    Speech(speech::Speech),
    /// Groups found at each position among its likely tokens, without an index
    Live(live::Live),
}

impl Eval {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Groups(c) => c.run(),
            Command::Acceptance(c) => c.run(),
            Command::Swap(c) => c.run(),
            Command::Speech(c) => c.run(),
            Command::Live(c) => c.run(),
        }
    }
}

/// Which voice, on how many threads.
#[derive(Args, Clone)]
struct Engine {
    /// Folder of the voice [default: models/voice, found beside the program or the source]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Who speaks, of the bundle's speakers [default: its first]
    #[arg(long, visible_alias = "voice", value_name = "NAME")]
    speaker: Option<String>,
    /// Threads that compute [default: the machine's cores, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
}

impl Engine {
    fn args(&self) -> VoiceArgs {
        VoiceArgs {
            bundle: self.bundle.clone(),
            groups: None,
            threads: self.threads,
            pin: Vec::new(),
        }
    }

    fn open(&self) -> voxgrain::Result<(Voice, Arc<Pool>)> {
        let args = self.args();
        Ok((args.open_as(self.speaker.as_deref())?, args.pool()))
    }

    fn threads(&self) -> usize {
        self.args().threads()
    }
}

/// What is spoken.
#[derive(Args, Clone)]
struct Sentences {
    /// Sentences, one a line [default: built-in Harvard sentences]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many of them
    #[arg(short = 'n', long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    sentences: u32,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The laws that are compared: every combination of these.
#[derive(Args, Clone)]
struct SamplingArgs {
    /// Temperatures [default: the voice's]
    #[arg(long, value_name = "T,...", value_delimiter = ',')]
    temperature: Vec<f32>,
    /// Top-k cuts, 0 is off [default: the voice's]
    #[arg(long, value_name = "K,...", value_delimiter = ',')]
    top_k: Vec<u32>,
    /// Top-p cuts, 1 is off [default: the voice's]
    #[arg(long, value_name = "P,...", value_delimiter = ',')]
    top_p: Vec<f32>,
}

impl SamplingArgs {
    fn settings(&self, voice: &Voice) -> voxgrain::Result<Vec<Sampling>> {
        let own = voice.sampling();
        let or = |given: &[f32], own: f32| if given.is_empty() { vec![own] } else { given.into() };
        let top_k =
            if self.top_k.is_empty() { vec![own.transforms.top_k] } else { self.top_k.clone() };
        let mut all = Vec::new();
        for temperature in or(&self.temperature, own.temperature) {
            for &k in &top_k {
                for top_p in or(&self.top_p, own.transforms.top_p) {
                    let mut s = Sampling { temperature, ..own };
                    s.transforms.top_k = k;
                    s.transforms.top_p = top_p;
                    s.check()?;
                    if temperature == 0.0 {
                        return Err(usage("laws are compared at a temperature above 0"));
                    }
                    all.push(s);
                }
            }
        }
        Ok(all)
    }
}

fn describe_sampling(s: &Sampling) -> serde_json::Value {
    serde_json::json!({
        "temperature": s.temperature, "top_k": s.transforms.top_k,
        "top_p": s.transforms.top_p, "min_p": s.transforms.min_p,
    })
}

impl Sentences {
    /// The chunks that the text front end makes of each sentence, as the voice reads them.
    fn read(&self, voice: &Voice) -> voxgrain::Result<Vec<Vec<String>>> {
        let bytes = match &self.file {
            Some(path) => read_file(path)?,
            None => HARVARD.as_bytes().to_vec(),
        };
        let frontend = TextFrontend::new(voxgrain::Options::for_voice(voice).text)?;
        let mut all = Vec::new();
        for line in text::utf8(&bytes)?.lines().filter(|l| !l.trim().is_empty()) {
            if all.len() == self.sentences as usize {
                break;
            }
            let chunks = frontend.speak(line)?.chunks;
            if !chunks.is_empty() {
                let written = chunks.iter().map(|c| voice.write(c, 1.0));
                all.push(written.collect::<voxgrain::Result<_>>()?);
            }
        }
        if all.is_empty() {
            return Err(usage("there is nothing to speak in the file"));
        }
        Ok(all)
    }
}

/// An index with the name that tables give it.
struct Named {
    name: String,
    index: Index<Map>,
    /// The voice with this index, its weights included.
    voice: Voice,
    bytes: u64,
}

/// Opens the files, or the bundle's own index if there are none. An index that stores
/// similarities weighs by them.
fn open_indexes(files: &[PathBuf], voice: &Voice) -> voxgrain::Result<Vec<Named>> {
    let own;
    let files = match files {
        [] => {
            own = [voice.bundle().groups_path().ok_or_else(|| {
                usage("the bundle names no index: give index files, made by `voxgrain eval groups`")
            })?];
            &own[..]
        }
        given => given,
    };
    files.iter().map(|path| open_index(path, voice)).collect()
}

fn open_index(path: &Path, voice: &Voice) -> voxgrain::Result<Named> {
    let map = Map::open(path)?;
    let bytes = map.len() as u64;
    let mut voice = voice.clone().with_index(map)?;
    let unusable = || usage("the index cannot be used with this voice");
    let header = voice.groups().ok_or_else(unusable)?.header().clone();
    if header.codebook != voice.bundle().vocabulary.speech {
        let what = format!("{} covers another codebook than the voice", path.display());
        return Err(Error::new(ErrorKind::Mismatch, what));
    }
    if header.power.is_some() {
        voice = voice
            .with_weights(Weights::Similarity)
            .map_err(|_| usage("the index holds a power but no similarities"))?;
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let index = voice.groups().ok_or_else(unusable)?.clone();
    Ok(Named { name, index, voice, bytes })
}

/// Where sounds go: `FOLDER/NAME/00000.wav`, ..., or nowhere.
struct Sounds<'a> {
    folder: Option<&'a Path>,
    sample_rate_hz: u32,
}

impl<'a> Sounds<'a> {
    /// Makes the folders of `names`.
    fn new<'n>(
        folder: Option<&'a Path>,
        names: impl IntoIterator<Item = &'n str>,
        sample_rate_hz: u32,
    ) -> voxgrain::Result<Self> {
        for name in names {
            let Some(path) = folder.map(|f| f.join(name)) else { break };
            make_folder(&path)?;
        }
        Ok(Self { folder, sample_rate_hz })
    }

    fn write(&self, name: &str, i: usize, pcm: &[f32]) -> voxgrain::Result<()> {
        let Some(folder) = self.folder else { return Ok(()) };
        let path = folder.join(name).join(format!("{i:05}.wav"));
        let mut file = WavFile::create(path, self.sample_rate_hz)?;
        file.write(pcm)?;
        file.finish()
    }
}

/// `value [low, high]` with `digits` decimals.
fn shown(v: &[f64; 3], digits: usize) -> String {
    format!("{:.digits$} [{:.digits$}, {:.digits$}]", v[0], v[1], v[2])
}
