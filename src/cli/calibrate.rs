//! `voxgrain calibrate`: costs of passes, measured and kept.

use super::args::VoiceArgs;
use super::output::{self, progress};
use super::usage;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use voxgrain::engine::Pool;
use voxgrain::kernel;
use voxgrain::speech::calibrate;
use voxgrain::speech::calibration::{Calibration, ENV, Entry};

const HELP: &str = "\
How many tokens are drafted a round (--gamma auto) follows what a draft and a further row of the
target's pass cost. A voice stores the costs of the machine that it was made on, made safe for
narrower kernels; here they are measured, by speaking a few sentences with drafts and without in
turn, and kept for this processor, kernel, number of threads and voice. `say`, `bench` and the C
interface use them from then on, and the same seed gives the same sound on this machine with that
number of threads; to hear what it gives elsewhere, say --gamma 2 on both.

The file is $XDG_CONFIG_HOME/voxgrain/calibration.toml (else ~/.config/...), or what
VOXGRAIN_CALIBRATION names; with VOXGRAIN_CALIBRATION=off it is neither written nor read.
Leave the machine alone meanwhile.

Examples:
  voxgrain calibrate                          every number of threads up to the usual one
  voxgrain calibrate --threads 1 --bundle models/nano
  voxgrain calibrate --dry-run --json         measures and keeps nothing";

/// Measure once what drafts cost here, so that as many are made as pay
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Calibrate {
    #[command(flatten)]
    voice: VoiceArgs,
    /// Pairs of stretches, with drafts and without, that are compared
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pairs: u32,
    /// Keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl Calibrate {
    pub fn run(self) -> anyhow::Result<()> {
        let path = match Calibration::path() {
            Some(path) => Some(path),
            None if self.dry_run => None,
            None => {
                let what = format!(
                    "there is no folder for the file: set XDG_CONFIG_HOME, or {ENV} to a file (it \
                     may be `off` now), or use --dry-run"
                );
                return Err(usage(what).into());
            }
        };
        // What is there is kept, so it must be read before anything is measured.
        let mut kept = match path.as_ref().filter(|p| p.exists()) {
            Some(path) if !self.dry_run => Calibration::read(path)?,
            _ => Calibration::default(),
        };
        let voice = self.voice.open()?;
        let most = self.voice.threads();
        let pinned = !self.voice.pin.is_empty() || self.voice.threads.is_some();
        let all: Vec<usize> = if pinned { vec![most] } else { (1..=most).collect() };
        let mut found = Vec::new();
        for threads in all {
            let pool: Arc<Pool> = match pinned {
                true => self.voice.pool(),
                false => Pool::new(kernel::best(), threads),
            };
            let bar = progress(u64::from(self.pairs), self.json);
            let measured = calibrate::measure(&voice, &pool, self.pairs as usize, |n| {
                bar.set_position(n as u64);
            })?;
            bar.finish_and_clear();
            let entry = Entry::of(voice.bundle(), pool.kernel().name(), threads, measured.costs);
            if !self.json {
                output::line(&format!(
                    "{} thread{}, {}: a draft step costs {:.3}, a further row {:.3} passes of one row \
                     ({:.3} ms); together {:.3}, half of the pairs within {:.3} and {:.3}",
                    threads,
                    if threads == 1 { "" } else { "s" },
                    entry.kernel,
                    entry.draft_cost,
                    entry.row_cost,
                    measured.pass.as_secs_f64() * 1e3,
                    entry.draft_cost + entry.row_cost,
                    measured.quartiles.0,
                    measured.quartiles.1,
                ))?;
            }
            found.push(json!({
                "cpu": entry.cpu, "kernel": entry.kernel, "threads": threads,
                "draft_cost": entry.draft_cost, "row_cost": entry.row_cost,
                "pass_ms": measured.pass.as_secs_f64() * 1e3, "pairs": measured.pairs,
                "quartiles": [measured.quartiles.0, measured.quartiles.1],
            }));
            kept.set(entry);
        }
        let path: Option<PathBuf> = path.filter(|_| !self.dry_run);
        if let Some(path) = &path {
            kept.write(path)?;
        }
        let shown = path.as_ref().map(|p| p.display().to_string());
        if self.json {
            output::json(&json!({ "file": shown, "costs": found }))?;
        } else if let Some(shown) = shown {
            output::status(&format!("kept in {shown}"));
        }
        Ok(())
    }
}
