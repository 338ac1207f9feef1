//! Commands over the library's public API. Data goes to stdout, status to stderr.

mod args;
mod asg;
mod bench;
mod calibrate;
mod files;
mod find;
mod hints;
mod inspect;
mod interrupt;
#[cfg(feature = "lab")]
mod lab;
mod output;
mod pack;
mod say;
mod sink;
mod stats;
mod table;
mod text;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use voxgrain::speech::synth::SpeechStats;
use voxgrain::{Error, ErrorKind};

/// Speech on a CPU, drawn token by token and decoded as it comes.
#[derive(Parser)]
#[command(name = "voxgrain", version, after_help = AFTER, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// More about what happens, on stderr; twice for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

const AFTER: &str = "\
Examples:
  voxgrain say \"The birch canoe slid on the smooth planks.\"
  voxgrain say -o canoe.wav \"The birch canoe slid on the smooth planks.\"
  voxgrain text \"Dr. Ma ran 5 km on Nov 24.\"
  voxgrain inspect
  voxgrain asg inspect
  voxgrain bench --quick

Exit codes:
  0  done
  1  a model produced what it cannot (not a number); the bundle may be damaged
  2  an argument or option is wrong
  3  a file is missing or cannot be read
  4  a file is damaged, of another version, or does not belong to the others
  5  the output cannot be written
  6  the text cannot be spoken
  7  no usable sound device (-o and --fallback of `say` write a file)
  8  spoken, but some of it was cut at the length limit because the voice did not end it
  130  interrupted (Ctrl-C; 143 by SIGTERM, 129 by a closed terminal): nothing half-written stays

Environment:
  VOXGRAIN_BUNDLE  folder of the voice to use where --bundle is not given
  VOXGRAIN_CALIBRATION  file of `voxgrain calibrate`, or `off` to leave it alone
  VOXGRAIN_KERNEL  scalar, portable, avx2, neon, ...: use narrower vectors, for comparison";

#[derive(Subcommand)]
enum Command {
    /// Speak text through the sound device, or write it to a file or pipe
    Say(say::Say),
    /// Show what would be said: words, phonemes, what is replaced and left out
    Text(text::Text),
    /// Build, inspect and verify group indexes
    Asg(asg::Asg),
    /// Show what is in a bundle
    Inspect(inspect::Inspect),
    /// Measure every decoding arm on this machine, compare runs
    Bench(bench::Bench),
    /// Measure once what drafts cost here, so that as many are made as pay
    Calibrate(calibrate::Calibrate),
    #[cfg(feature = "lab")]
    /// Measure what groups give and cost: acceptance, bounds, damage, speech by many indexes
    Eval(lab::eval::Eval),
    /// Rewrite a stock ONNX model or bundle for faster matrix products, without loss
    Pack(pack::Pack),
    #[cfg(feature = "lab")]
    /// Time bare passes of one model file, for tools/compare
    #[command(hide = true)]
    Passes(lab::passes::Passes),
}

pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return hints::refuse(e, Cli::command()),
    };
    interrupt::listen();
    output::init_log(cli.verbose);
    let result = match cli.command {
        Command::Say(c) => c.run(),
        Command::Text(c) => c.run(),
        Command::Asg(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Bench(c) => c.run(),
        Command::Calibrate(c) => c.run(),
        #[cfg(feature = "lab")]
        Command::Eval(c) => c.run(),
        Command::Pack(c) => c.run(),
        #[cfg(feature = "lab")]
        Command::Passes(c) => c.run(),
    };
    interrupt::exit(|| match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let code = exit_code(&e);
            output::error(&e);
            ExitCode::from(code)
        }
    })
}

fn exit_code(e: &anyhow::Error) -> u8 {
    if e.is::<Cut>() {
        return 8;
    }
    match e.downcast_ref::<Error>().map(Error::kind) {
        Some(ErrorKind::InvalidArgument) => 2,
        Some(ErrorKind::Unreadable) => 3,
        Some(ErrorKind::Malformed | ErrorKind::Mismatch | ErrorKind::Unsupported) => 4,
        Some(ErrorKind::Unwritable) => 5,
        Some(ErrorKind::InvalidText) => 6,
        Some(ErrorKind::Audio) => 7,
        _ => 1,
    }
}

/// All is done, but the voice did not end some of what it said.
#[derive(Debug)]
struct Cut {
    cut: u64,
    of: u64,
}

impl Cut {
    fn check(stats: &SpeechStats) -> anyhow::Result<()> {
        let (cut, of) = (stats.cut, stats.utterances);
        if cut == 0 { Ok(()) } else { Err(Cut { cut, of }.into()) }
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (cut, of) = (self.cut, self.of);
        write!(
            f,
            "{cut} of {of} stretches met the length limit before the voice ended them: try another --seed"
        )
    }
}

impl std::error::Error for Cut {}

/// `InvalidArgument`, for what clap cannot check.
fn usage(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, what)
}
