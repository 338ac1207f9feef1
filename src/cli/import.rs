use super::output;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use voxgrain::bundle::Bundle;
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::import::{Options, Report, import};
use voxgrain::speech::stream::default_threads;

const HELP: &str = "\
MODEL is a Hugging Face folder (config.json, tokenizer.json, safetensors in one piece or shards, or
PyTorch's .bin) or a GGUF file. Known are NeuTTS Nano, Air and 2E, Llasa 1B and 3B, the language model
of Soprano, and voices of voxgrain's own kind; docs/models.md has the table. What cannot be run is
refused with the reason. Nothing is fetched, and nothing in these files is executed.

The folder is a bundle when the command ends well, and untouched otherwise.

Weights of 4 and 8 bits in blocks of 32 (Q4_0, Q8_0) keep their integers and scales. Floats become
8 bits, or 4 with --bits 4; other blocks are requantised, and that is reported.

Examples:
  voxgrain import ./neutts-nano --codec ./neucodec -o models/nano
  voxgrain import neutts-nano-Q4_0.gguf --codec ./neucodec -o models/nano
  voxgrain import ./llasa-1b --codec ./xcodec2 -o models/llasa --bits 4
  voxgrain say --bundle models/nano --arm ar -o out.wav \"The birch canoe slid.\"";

/// Make a bundle of a speech language model that you have
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Import {
    /// A Hugging Face folder, or a GGUF file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder of the codec's decoder, or of a bundle that has it
    #[arg(long, value_name = "DIR")]
    codec: Option<PathBuf>,
    /// Folder of the bundle to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Bits of a weight: 4 or 8 [default: as stored, 8 of floats]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32))]
    bits: Option<u32>,
    /// The model's tokenizer.json, where it does not lie beside the weights
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Longest sequence, prompt included, in tokens [default: what the family was trained on]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Build no groups (`voxgrain asg build` can later)
    #[arg(long)]
    no_groups: bool,
    /// Replace a bundle that exists
    #[arg(long)]
    force: bool,
    /// Threads that quantise and search [default: all cores]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    threads: usize,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl Import {
    pub fn run(self) -> anyhow::Result<()> {
        let clock = Instant::now();
        let mut options = Options::new(&self.model, &self.output);
        options.codec = self.codec;
        options.bits = self.bits;
        options.tokenizer = self.tokenizer;
        options.context = self.context;
        options.no_groups = self.no_groups;
        options.force = self.force;
        options.threads = self.threads;
        let bar = output::progress(1, self.json);
        let report = import(&options, &mut |what, done, total| {
            bar.set_message(what.to_owned());
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        let seconds = clock.elapsed().as_secs_f64();
        let pace = pace(&self.output)?;
        if self.json {
            return Ok(output::json(&value(&report, pace, seconds))?);
        }
        for line in lines(&report, pace) {
            output::status(&line);
        }
        output::status(&format!("wrote {} in {seconds:.1} s", self.output.display()));
        Ok(())
    }
}

/// How the model decodes here, measured: passes of one token on the threads that `say` takes.
#[derive(Clone, Copy)]
struct Pace {
    threads: usize,
    tokens_a_second: f64,
    frame_rate: u32,
}

/// A second of passes, or 64 of them.
fn pace(folder: &std::path::Path) -> voxgrain::Result<Pace> {
    let bundle = Bundle::open(folder)?;
    let model = Model::load(bundle.target_path(), bundle.target.max_positions)?;
    let threads = default_threads();
    let pool = Pool::new(voxgrain::kernel::best(), threads);
    let mut session = Session::with_positions(&model, &pool, 128)?;
    // The first passes read the weights from the disk.
    for token in 0..4 {
        session.step(&[token], 1)?;
    }
    let clock = Instant::now();
    let mut passes = 0;
    while passes < 64 && clock.elapsed() < Duration::from_secs(1) {
        session.step(&[passes % bundle.vocabulary.speech], 1)?;
        passes += 1;
    }
    let tokens_a_second = f64::from(passes) / clock.elapsed().as_secs_f64();
    Ok(Pace { threads, tokens_a_second, frame_rate: bundle.audio.frame_rate_hz })
}

fn lines(r: &Report, pace: Pace) -> Vec<String> {
    let (f, c) = (&r.family, &r.config);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut lines = vec![
        format!(
            "{}: {} of {} layers, width {}, {} heads over {} of {}, feed-forward {}",
            f.name,
            c.body.name(),
            c.layers,
            c.hidden,
            c.heads,
            c.kv_heads,
            c.head_dim,
            c.ffn
        ),
        format!(
            "{} ids: {} speech from {}, end {}; context {} of {}",
            c.vocabulary, f.speech, f.first_speech, f.end, r.positions, c.context
        ),
        format!(
            "{} bits: {} rows as they were stored, {} quantised here",
            r.bits, r.counts.kept, r.counts.quantised
        ),
        format!(
            "{:.1} MB a token, files {:.1} MB (mapped), state {:.1} MB",
            mb(r.token_bytes),
            mb(r.file_bytes),
            mb(r.state_bytes)
        ),
        format!(
            "{:.0} tokens a second here, {} threads, measured: {:.2} times real time before the codec",
            pace.tokens_a_second,
            pace.threads,
            pace.tokens_a_second / f64::from(pace.frame_rate)
        ),
    ];
    if let Some((groups, members)) = r.groups {
        lines.push(format!("{groups} groups of the head, {members:.1} members on average"));
    }
    lines.extend(r.notes.iter().map(|n| format!("note: {n}")));
    lines
}

fn value(r: &Report, pace: Pace, seconds: f64) -> Value {
    let (f, c) = (&r.family, &r.config);
    json!({
        "family": f.name, "body": c.body.name(), "layers": c.layers, "hidden": c.hidden,
        "heads": c.heads, "kv_heads": c.kv_heads, "head_dim": c.head_dim, "ffn": c.ffn,
        "vocabulary": c.vocabulary, "speech": f.speech, "first_speech_id": f.first_speech,
        "end_id": f.end, "positions": r.positions, "bits": r.bits,
        "rows_kept": r.counts.kept, "rows_quantised": r.counts.quantised,
        "token_bytes": r.token_bytes, "file_bytes": r.file_bytes, "state_bytes": r.state_bytes,
        "mean_members": r.groups.map(|g| g.1), "notes": r.notes,
        "tokens_a_second": pace.tokens_a_second, "threads": pace.threads, "seconds": seconds,
    })
}
