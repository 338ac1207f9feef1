//! Arguments that several commands share.

use super::files::read_file;
use super::{find, usage};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use voxgrain::core::accept::Emission;
use voxgrain::decode::{self, Arm, DraftLength, MAX_GAMMA};
use voxgrain::engine::{Pool, pin};
use voxgrain::kernel;
use voxgrain::speech::calibration::Calibration;
use voxgrain::speech::phonemes::UserLexicon;
use voxgrain::speech::phonemes::lexicon::MAGIC;
use voxgrain::speech::stream::default_threads;
use voxgrain::speech::text::{self, Markup, Pauses};
use voxgrain::{Options, Stream, Voice};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum ArmName {
    /// One token a pass of the target
    Ar,
    /// Speculation, accepted token by token; the law is the target's
    Sd,
    /// Accepted token by token with a tolerance (--beta)
    Tolerance,
    /// Accepted by acoustic similarity group
    Pcg,
    /// Accepted by token or for a similar token: at most one step of the index from the target's law
    Transport,
}

impl ArmName {
    pub fn arm(self, beta: f32, emission: Emission) -> Arm {
        match self {
            ArmName::Ar => Arm::Ar,
            ArmName::Sd => Arm::Sd,
            ArmName::Tolerance => Arm::Tolerance { beta },
            ArmName::Pcg => Arm::Pcg { emission },
            ArmName::Transport => Arm::Transport,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum EmissionName {
    /// An accepted draft stands in for its group
    StandIn,
    /// An accepted draft is replaced by a draw from its group: the law is the target's
    Resample,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum WeightsName {
    /// A token's mass is split evenly over its groups
    Equal,
    /// By similarity, with the power that the index was built with
    Similarity,
}

/// What `--gamma` takes.
#[derive(Debug, Clone, Copy)]
pub enum Gamma {
    Fixed(usize),
    Auto,
    Measured,
}

impl Gamma {
    pub fn length(self, voice: &Voice, threads: usize) -> DraftLength {
        match self {
            Gamma::Fixed(n) => DraftLength::Fixed(n),
            Gamma::Auto => voice.draft_length_on(kernel::best(), threads),
            Gamma::Measured => DraftLength::Measured,
        }
    }
}

impl std::fmt::Display for Gamma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Gamma::Fixed(n) => n.fmt(f),
            Gamma::Auto => f.write_str("auto"),
            Gamma::Measured => f.write_str("measured"),
        }
    }
}

pub fn parse_gamma(s: &str) -> Result<Gamma, String> {
    match s {
        "auto" => Ok(Gamma::Auto),
        "measured" => Ok(Gamma::Measured),
        n => match n.parse() {
            Ok(n) if n <= MAX_GAMMA => Ok(Gamma::Fixed(n)),
            _ => Err(format!("{n:?} is neither 0 to {MAX_GAMMA} nor `auto` nor `measured`")),
        },
    }
}

/// Most threads that are started.
const MOST_THREADS: usize = Options::MAX_THREADS;

/// Number of a CPU, within what a system's sets of CPUs hold: beyond it they are not asked.
fn cpu(s: &str) -> Result<usize, String> {
    match s.trim().parse() {
        Ok(n) if n < 1024 => Ok(n),
        _ => Err("a CPU is a number from 0 to 1023".into()),
    }
}

/// Where the voice comes from and what it runs on.
#[derive(Args, Clone)]
pub struct VoiceArgs {
    /// Folder of the voice [default: models/voice, found beside the program or the source]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Group index to use instead of the bundle's own
    #[arg(long, value_name = "FILE")]
    pub groups: Option<PathBuf>,
    /// Threads that compute [default: the machine's cores, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS as i64))]
    pub threads: Option<u16>,
    /// Keep the threads on these CPUs, the first one on the first; as many threads unless
    /// --threads says otherwise
    #[arg(long, value_name = "CPU,...", value_delimiter = ',', value_parser = cpu)]
    pub pin: Vec<usize>,
}

impl VoiceArgs {
    pub fn open(&self) -> voxgrain::Result<Voice> {
        if self.pin.len() > MOST_THREADS {
            let what = format!("--pin names {} CPUs; {MOST_THREADS} are the most", self.pin.len());
            return Err(usage(what));
        }
        let voice = Voice::open(find::bundle(self.bundle.as_deref())?)?;
        let voice = voice.with_calibration(Calibration::of_user());
        match &self.groups {
            Some(path) => voice.with_groups(path),
            None => Ok(voice),
        }
    }

    /// With the speaker of that name, if one is named.
    pub fn open_as(&self, speaker: Option<&str>) -> voxgrain::Result<Voice> {
        let voice = self.open()?;
        match speaker {
            Some(name) => voice.with_speaker(name),
            None => Ok(voice),
        }
    }

    pub fn threads(&self) -> usize {
        let default = if self.pin.is_empty() { default_threads() } else { self.pin.len() };
        self.threads.map_or(default, usize::from)
    }

    pub fn pool(&self) -> Arc<Pool> {
        let threads = self.threads();
        if let Some(&first) = self.pin.first()
            && !pin(first)
        {
            log::warn!("this thread could not be kept on CPU {first}");
        }
        Pool::pinned(kernel::best(), threads, &self.pin)
    }
}

/// What speaks for every command.
pub fn stream(
    voice: &Voice,
    decode: decode::Options,
    pool: &Arc<Pool>,
) -> voxgrain::Result<Stream> {
    let mut options = Options::for_voice(voice);
    options.decode = decode;
    options.threads = pool.threads();
    Stream::with_pool(voice, &options, pool)
}

/// How a text is read.
#[derive(Args, Clone)]
pub struct Reading {
    /// What is markup: `auto` takes what is unmistakable
    #[arg(long, value_enum, default_value = "auto")]
    pub markup: MarkupName,
    /// Every line is an utterance of its own, as in logs and lists; otherwise wrapped lines are
    /// joined
    #[arg(long)]
    pub lines: bool,
    /// Seconds of silence behind what ends there: comma, clause (where a long sentence is cut),
    /// sentence, paragraph, heading [default: comma=0.1,clause=0.2,sentence=0.3,paragraph=0.6,
    /// heading=0.7]
    #[arg(long, value_name = "WHERE=SECONDS,...", value_delimiter = ',', value_parser = parse_pause)]
    pub pause: Vec<(Place, f32)>,
}

/// Where a pause is.
#[derive(Clone, Copy, ValueEnum)]
pub enum Place {
    Comma,
    Clause,
    Sentence,
    Paragraph,
    Heading,
}

fn parse_pause(s: &str) -> Result<(Place, f32), String> {
    let (place, seconds) = s
        .split_once('=')
        .ok_or("write where the pause is and its seconds, as in sentence=0.5,paragraph=1")?;
    let place = Place::from_str(place.trim(), true).map_err(|_| {
        format!("{place:?} is none of comma, clause, sentence, paragraph and heading")
    })?;
    match seconds.trim().parse() {
        Ok(seconds) if (0.0..=Pauses::MAX).contains(&seconds) => Ok((place, seconds)),
        _ => Err(format!("{seconds:?} is not a number of seconds from 0 to {}", Pauses::MAX)),
    }
}

/// `--markup`.
#[derive(Clone, Copy, ValueEnum)]
pub enum MarkupName {
    /// SSML documents, and Markdown and HTML where they are unmistakable
    Auto,
    /// Every character is text
    None,
    /// Markdown and the HTML in it
    Markdown,
    /// One `<speak>` document
    Ssml,
}

impl Reading {
    /// What the voice wants, read as the user wants.
    pub fn options(&self, voice: text::Options) -> text::Options {
        let markup = match self.markup {
            MarkupName::Auto => Markup::Auto,
            MarkupName::None => Markup::None,
            MarkupName::Markdown => Markup::Markdown,
            MarkupName::Ssml => Markup::Ssml,
        };
        let mut pauses = voice.pauses;
        for &(place, seconds) in &self.pause {
            *match place {
                Place::Comma => &mut pauses.comma,
                Place::Clause => &mut pauses.clause,
                Place::Sentence => &mut pauses.sentence,
                Place::Paragraph => &mut pauses.paragraph,
                Place::Heading => &mut pauses.heading,
            } = seconds;
        }
        text::Options { markup, lines: self.lines, pauses, ..voice }
    }
}

/// Whether a file is a lexicon as voices have it, and no list of a user's.
pub fn is_whole_lexicon(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A user's list of words and how they are said.
pub fn user_lexicon(path: &Path) -> voxgrain::Result<UserLexicon> {
    let bytes = read_file(path)?;
    if is_whole_lexicon(&bytes) {
        let what = format!(
            "{} is the lexicon of a voice: say takes lists of words and how they are said \
             (`voxgrain text` takes both)",
            path.display()
        );
        return Err(usage(what));
    }
    parse_lexicon(&bytes, path)
}

/// A user's list, which was read from `path`.
pub fn parse_lexicon(bytes: &[u8], path: &Path) -> voxgrain::Result<UserLexicon> {
    UserLexicon::parse(text::utf8(bytes)?, &path.display().to_string())
}
