//! Bare passes of one model, timed: what tools/compare measures against other engines.

use crate::cli::{output, table, usage};
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use voxgrain::engine::{Model, Pool, Session};
use voxgrain::kernel;
use voxgrain::map::Map;

/// What a pass over m rows behind a context costs
///
/// With --serve, commands come one a line on standard input and every one is answered by
/// one line of JSON, so that several engines can be measured in turn:
///
///   fill N              the context becomes N tokens
///   pass M K            one pass of M rows untimed, then K timed; the context stays
///   step PATH T,T,...   runs tokens, writes all their logits (f32) to PATH
///   rollback N          the context becomes its first N tokens
///   memory              resident bytes now and at most, of which private
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain passes models/voice/target.onnx --threads 1
  voxgrain passes big.onnx --rows 1,5 --past 512 --repeats 50 --json
  voxgrain passes --bandwidth big.onnx.data --threads 2")]
pub struct Passes {
    /// Model file (with `<FILE>.data` beside it)
    #[arg(required_unless_present = "bandwidth")]
    model: Option<PathBuf>,
    /// Measure how fast this file and as much anonymous memory are read instead
    #[arg(long, value_name = "FILE")]
    bandwidth: Option<PathBuf>,
    /// Rows of a pass
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,5,8",
          value_parser = clap::value_parser!(u16).range(1..=512))]
    rows: Vec<u16>,
    /// Tokens in the context before each pass
    #[arg(long, default_value_t = 256)]
    past: usize,
    /// Positions that the context may hold
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    positions: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    repeats: u16,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Take commands from standard input
    #[arg(long)]
    serve: bool,
}

impl Passes {
    pub fn run(self) -> anyhow::Result<()> {
        match &self.bandwidth {
            Some(path) => {
                let memory = Memory::new(path, usize::from(self.threads))?;
                if self.serve {
                    return serve(&memory.hello(), |words| memory.answer(words));
                }
                for _ in 0..self.repeats {
                    output::json(&memory.answer(&["read", "1"])?)?;
                }
                Ok(())
            }
            None => {
                let mut bench = Bench::load(&self)?;
                if self.serve {
                    let hello = bench.hello.clone();
                    return serve(&hello, |words| bench.answer(words));
                }
                self.table(&mut bench)
            }
        }
    }

    fn table(&self, bench: &mut Bench) -> anyhow::Result<()> {
        bench.fill(self.past)?;
        let mut times = vec![Vec::new(); self.rows.len()];
        for _ in 0..self.repeats {
            for (m, t) in self.rows.iter().zip(&mut times) {
                t.extend(bench.pass(usize::from(*m), 1)?);
            }
        }
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        for (m, t) in self.rows.iter().zip(&mut times) {
            t.sort_by(f64::total_cmp);
            let (least, median) = (t[0], t[t.len() / 2]);
            rows.push(json!({ "rows": m, "median_us": median, "least_us": least }));
            let ms = |us: f64| format!("{:.3}", us / 1e3);
            cells.push(vec![m.to_string(), ms(median), ms(least)]);
        }
        if self.json {
            let head = json!({
                "model": bench.hello, "past": self.past, "passes": rows, "memory": memory(),
            });
            return Ok(output::json(&head)?);
        }
        Ok(output::line(table::markdown(&["rows", "ms, median", "ms, least"], &cells).trim_end())?)
    }
}

/// Answers commands until the input ends.
fn serve(
    hello: &Value,
    mut answer: impl FnMut(&[&str]) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    output::json(hello)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("reading commands")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first() {
            None => {}
            Some(&"quit") => break,
            Some(&"memory") => output::json(&memory())?,
            Some(_) => output::json(&answer(&words)?)?,
        }
    }
    Ok(())
}

fn number(words: &[&str], at: usize) -> anyhow::Result<usize> {
    let word = words.get(at).ok_or_else(|| usage(format!("{words:?}: too few words")))?;
    Ok(word.parse().map_err(|_| usage(format!("{word:?} is no number")))?)
}

fn micros(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

/// Resident bytes; `anon` are this process's own, the rest are pages of files.
fn memory() -> Value {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb * 1024)
    };
    json!({ "rss": field("VmRSS:"), "peak": field("VmHWM:"), "anon": field("RssAnon:") })
}

struct Bench {
    session: Session,
    hello: Value,
    past: usize,
    vocabulary: u32,
}

impl Bench {
    fn load(args: &Passes) -> anyhow::Result<Self> {
        let path = args.model.as_ref().context("no model")?;
        let before = memory();
        let clock = Instant::now();
        let model = Model::load(path, args.positions as usize)?;
        let pool = Pool::new(kernel::best(), usize::from(args.threads));
        let mut session = Session::new(&model, &pool)?;
        let load = clock.elapsed();
        let loaded = memory();
        session.step(&[0], 1)?;
        let first = clock.elapsed();
        session.rollback(0);
        let hello = json!({
            "engine": "voxgrain",
            "version": env!("CARGO_PKG_VERSION"),
            "kernel": pool.kernel().name(),
            "threads": pool.threads(),
            "load_us": micros(load),
            "first_pass_us": micros(first),
            "before": before,
            "loaded": loaded,
            "first": memory(),
        });
        let vocabulary = session.vocabulary() as u32;
        Ok(Self { session, hello, past: 0, vocabulary })
    }

    /// Any tokens will do; all engines are given the same.
    fn tokens(&self, first: usize, count: usize) -> Vec<u32> {
        (first..first + count)
            .map(|i| (i as u32 * 7919 + 13) % self.vocabulary.min(65536))
            .collect()
    }

    fn fill(&mut self, past: usize) -> anyhow::Result<()> {
        self.session.rollback(0);
        for chunk in self.tokens(0, past).chunks(16) {
            self.session.step(chunk, 1)?;
        }
        self.past = past;
        Ok(())
    }

    /// Microseconds of `count` passes over `rows` tokens, after one that is not timed.
    fn pass(&mut self, rows: usize, count: usize) -> anyhow::Result<Vec<f64>> {
        let tokens = self.tokens(self.past, rows);
        let mut times = Vec::with_capacity(count);
        for i in 0..=count {
            self.session.rollback(self.past);
            let clock = Instant::now();
            self.session.step(&tokens, rows)?;
            if i > 0 {
                times.push(micros(clock.elapsed()));
            }
        }
        self.session.rollback(self.past);
        Ok(times)
    }

    fn answer(&mut self, words: &[&str]) -> anyhow::Result<Value> {
        match words[0] {
            "fill" => {
                self.fill(number(words, 1)?)?;
                Ok(json!({ "past": self.past }))
            }
            "pass" => Ok(json!({ "us": self.pass(number(words, 1)?, number(words, 2)?)? })),
            "rollback" => {
                self.session.rollback(number(words, 1)?);
                self.past = self.session.len();
                Ok(json!({ "past": self.past }))
            }
            "step" => {
                let path = words.get(1).ok_or_else(|| usage("step needs a path"))?;
                let list = words.get(2).ok_or_else(|| usage("step needs tokens"))?;
                let tokens: Result<Vec<u32>, _> = list.split(',').map(str::parse).collect();
                let tokens = tokens.map_err(|_| usage(format!("{list:?} are no tokens")))?;
                self.session.step(&tokens, tokens.len())?;
                self.past = self.session.len();
                let bytes: Vec<u8> =
                    self.session.logits().iter().flat_map(|x| x.to_le_bytes()).collect();
                std::fs::write(path, bytes).with_context(|| format!("writing {path}"))?;
                Ok(json!({ "rows": tokens.len(), "columns": self.vocabulary }))
            }
            other => Err(usage(format!("unknown command {other:?}")).into()),
        }
    }
}

/// Reading speed of memory: threads that each sum a share of it.
struct Memory {
    file: Map,
    anonymous: Arc<[u64]>,
    threads: usize,
}

impl Memory {
    fn new(path: &PathBuf, threads: usize) -> anyhow::Result<Self> {
        let file = Map::open(path)?;
        let count = file.len() / 8;
        Ok(Self { file, anonymous: (0..count as u64).collect(), threads })
    }

    fn hello(&self) -> Value {
        json!({ "engine": "bandwidth", "threads": self.threads, "bytes": self.file.len() })
    }

    fn answer(&self, words: &[&str]) -> anyhow::Result<Value> {
        if words[0] != "read" {
            return Err(usage(format!("unknown command {:?}", words[0])).into());
        }
        let mut best = [0f64; 2];
        for _ in 0..number(words, 1)?.max(1) {
            best[0] = best[0].max(self.rate(&self.file, |bytes| {
                let words = bytes.chunks_exact(8);
                words.fold(0, |a, b| {
                    a ^ u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
                })
            }));
            best[1] =
                best[1].max(self.rate(&self.anonymous, |words| words.iter().fold(0, |a, b| a ^ b)));
        }
        Ok(json!({ "file_gbs": best[0], "anonymous_gbs": best[1] }))
    }

    /// Gigabytes a second.
    fn rate<T: Sync>(&self, data: &[T], sum: impl Fn(&[T]) -> u64 + Sync) -> f64 {
        let share = data.len().div_ceil(self.threads).next_multiple_of(64).max(1);
        let clock = Instant::now();
        let total = std::thread::scope(|scope| {
            let parts: Vec<_> = data.chunks(share).map(|part| scope.spawn(|| sum(part))).collect();
            parts.into_iter().fold(0, |a, p| a ^ p.join().unwrap_or(0))
        });
        let seconds = clock.elapsed().as_secs_f64();
        std::hint::black_box(total);
        std::mem::size_of_val(data) as f64 / seconds / 1e9
    }
}
