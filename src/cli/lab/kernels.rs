//! The matrix kernels against the memory: weights larger than the caches are read once a call.

use super::memory;
use super::predict::Counts;
use crate::cli::bench::machine::{self, Build, Machine};
use crate::cli::{output, table};
use serde::Serialize;
use std::fmt::Write;
use std::time::{Duration, Instant};
use voxgrain::kernel::{self, Bits, Kernel, QuantizedRows, SCALE_BLOCK, TILE};
use voxgrain::map::Map;

/// The target's largest shape.
const N: usize = 2752;
const K: usize = 512;
const ROWS: [usize; 5] = [1, 2, 4, 5, 8];

#[derive(Serialize)]
pub struct Kernels {
    pub machine: Machine,
    pub build: Build,
    pub weights_bytes: usize,
    pub read: Vec<Read>,
    pub rows: Vec<Row>,
}

/// The memory alone: threads that sum it.
#[derive(Serialize)]
pub struct Read {
    pub threads: usize,
    pub gb_s: f64,
    /// The same over the voice's mapped files: other pages, and perhaps part of them cached.
    pub voice_gb_s: Option<f64>,
}

#[derive(Serialize)]
pub struct Row {
    pub kernel: String,
    pub picked: bool,
    pub bits: u32,
    pub threads: usize,
    /// Activation rows.
    pub m: usize,
    /// Weights and scales read, GB/s: higher is better.
    pub gb_s: f64,
    /// Of the memory's own with as many threads.
    pub share_of_read: f64,
    pub multiply_adds_per_ns: f64,
    /// Counted, not measured; for all `m` rows together.
    pub instructions_per_weight: Option<f64>,
}

/// Distinct matrices, as many as fit.
struct Weights {
    bits: Bits,
    packed: Vec<u8>,
    scales: Vec<u16>,
}

impl Weights {
    fn new(bits: Bits, total: usize) -> Self {
        let blocks = N / TILE * (K / SCALE_BLOCK);
        let one = blocks * (bits.bytes_per_block() + TILE * 2);
        let n = (total / one).max(1);
        let mut word = 1u32;
        let random = |_| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (word >> 24) as u8
        };
        Self {
            bits,
            packed: (0..n * blocks * bits.bytes_per_block()).map(random).collect(),
            scales: vec![half::f16::from_f32(0.01).to_bits(); n * blocks * TILE],
        }
    }

    fn bytes(&self) -> usize {
        self.packed.len() + 2 * self.scales.len()
    }

    /// Seconds of one pass over all matrices, split among threads by matrix.
    fn pass(
        &self,
        kernel: Kernel,
        x: &QuantizedRows,
        threads: usize,
        limit: usize,
    ) -> (f64, usize) {
        let blocks = N / TILE * (K / SCALE_BLOCK);
        let (wide, narrow) = (blocks * self.bits.bytes_per_block(), blocks * TILE);
        let n = (self.packed.len() / wide).min(limit);
        let per = n.div_ceil(threads);
        let run = |range: std::ops::Range<usize>| {
            let mut out = vec![0f32; N * x.rows()];
            for i in range {
                let packed = &self.packed[i * wide..][..wide];
                let scales = &self.scales[i * narrow..][..narrow];
                kernel.qgemm(self.bits, packed, scales, x, &mut out);
                std::hint::black_box(&out);
            }
        };
        let clock = Instant::now();
        if threads == 1 {
            run(0..n);
        } else {
            std::thread::scope(|s| {
                for t in 0..threads {
                    let run = &run;
                    s.spawn(move || run((t * per).min(n)..((t + 1) * per).min(n)));
                }
            });
        }
        (clock.elapsed().as_secs_f64(), n * (wide + 2 * narrow))
    }
}

/// `files`: the voice's, mapped, if there is one.
pub fn measure(threads: usize, quick: bool, files: &[Map]) -> Kernels {
    let budget = Duration::from_millis(if quick { 20 } else { 300 });
    let most = std::thread::available_parallelism().map_or(1, |n| n.get()).max(threads);
    output::status("bench: reading memory");
    let field = memory::field();
    let files: Vec<&[u8]> = files.iter().map(|f| &f[..]).collect();
    let read: Vec<Read> = (1..=most)
        .map(|t| Read {
            threads: t,
            gb_s: memory::read_gb_s(&[&field], t, 2 * budget),
            voice_gb_s: (!files.is_empty()).then(|| memory::read_gb_s(&files, t, 2 * budget)),
        })
        .collect();
    let total = if quick { field.len() / 4 } else { field.len() };
    drop(field);
    let counts = Counts::load();
    let best = kernel::best().name();
    let mut rows = Vec::new();
    let mut used = 0;
    for bits in [Bits::Eight, Bits::Four] {
        let weights = Weights::new(bits, total);
        used = used.max(weights.bytes());
        for k in kernel::all() {
            let picked = k.name() == best;
            output::status(&format!("bench: {} {bits:?}", k.name()));
            // Several threads for the one that will be used only.
            let teams: &[usize] = if picked && threads > 1 { &[1, threads] } else { &[1] };
            for &t in teams {
                for m in ROWS {
                    rows.push(row(&weights, k, picked, t, m, budget, &read, &counts));
                }
            }
        }
    }
    Kernels {
        machine: machine::describe(threads),
        build: machine::build(),
        weights_bytes: used,
        read,
        rows,
    }
}

fn number(bits: Bits) -> u32 {
    match bits {
        Bits::Eight => 8,
        Bits::Four => 4,
    }
}

#[allow(clippy::too_many_arguments)]
fn row(
    weights: &Weights,
    kernel: Kernel,
    picked: bool,
    threads: usize,
    m: usize,
    budget: Duration,
    read: &[Read],
    counts: &Counts,
) -> Row {
    let mut x = QuantizedRows::default();
    let activations: Vec<f32> = (0..m * K).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    x.fill(kernel, &activations, K);
    // A kernel of the slow kind is given fewer matrices: it does not wait for memory anyway.
    let (one, bytes) = weights.pass(kernel, &x, 1, 1);
    let most = weights.bytes() / bytes;
    let fit = (4.0 * budget.as_secs_f64() / one) as usize;
    let limit = fit.clamp(threads, most.max(threads));
    let begin = Instant::now();
    let mut best = 0.0f64;
    while best == 0.0 || begin.elapsed() < budget {
        let (seconds, bytes) = weights.pass(kernel, &x, threads, limit);
        best = best.max(bytes as f64 / seconds / 1e9);
    }
    let per_weight = bytes as f64 / (N * K) as f64;
    let alone = read.iter().find(|r| r.threads == threads).map_or(f64::MAX, |r| r.gb_s);
    Row {
        kernel: kernel.name().to_owned(),
        picked,
        bits: number(weights.bits),
        threads,
        m,
        gb_s: best,
        share_of_read: best / alone,
        multiply_adds_per_ns: best / per_weight * m as f64,
        instructions_per_weight: counts
            .of(kernel.name(), std::env::consts::ARCH)
            .map(|c| c.product(number(weights.bits), m) / (SCALE_BLOCK * TILE) as f64),
    }
}

pub fn markdown(k: &Kernels) -> String {
    let mut out = format!(
        "# voxgrain bench --kernels\n\n{}, {}; picked: {}\n\n\
         Matrices of {N} x {K}, {:.0} MB of them, each read once a call: GB/s of weights and scales, \
         the best of several passes. Higher is better; the memory's own figure is the most that one \
         row can reach.\n\n",
        k.machine.cpu.as_deref().unwrap_or("unnamed CPU"),
        k.build.target,
        k.machine.kernel,
        k.weights_bytes as f64 / 1e6
    );
    let read = |r: &Read| {
        let voice = r.voice_gb_s.map_or("-".into(), |g| format!("{g:.1}"));
        vec![r.threads.to_string(), format!("{:.1}", r.gb_s), voice]
    };
    let head = ["threads", "the memory alone, GB/s", "the voice's mapped files, GB/s"];
    out.push_str(&table::markdown(&head, &k.read.iter().map(read).collect::<Vec<_>>()));
    out.push('\n');
    let group = |group: &[Row]| {
        let first = &group[0];
        let at = |m: usize| {
            let row = group.iter().find(|r| r.m == m);
            row.and_then(|r| r.instructions_per_weight).map_or("-".into(), |i| format!("{i:.2}"))
        };
        let mut cells = vec![
            format!("{}{}", first.kernel, if first.picked { " (picked)" } else { "" }),
            first.bits.to_string(),
            first.threads.to_string(),
        ];
        cells.extend(group.iter().map(|r| format!("{:.1}", r.gb_s)));
        cells.push(format!("{:.0}", 100.0 * first.share_of_read));
        cells.push(format!("{} / {}", at(1), at(5)));
        cells
    };
    let counts: Vec<String> = ROWS.iter().map(|m| format!("m = {m}")).collect();
    let mut head = vec!["kernel", "bits", "threads"];
    head.extend(counts.iter().map(String::as_str));
    head.extend(["% of the memory, m = 1", "instructions a weight, m = 1 / 5"]);
    let rows: Vec<Vec<String>> = k.rows.chunks(ROWS.len()).map(group).collect();
    out.push_str(&table::markdown(&head, &rows));
    let _ = write!(
        out,
        "\nInstructions are counted for all rows of a call together (targets/cross/instructions.toml), not measured here.\n"
    );
    out
}

pub fn csv(k: &Kernels) -> String {
    let mut out = String::from(
        "kernel,picked,bits,threads,m,gb_s,share_of_read,multiply_adds_per_ns,instructions_per_weight\n",
    );
    for r in &k.rows {
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{}",
            r.kernel,
            r.picked,
            r.bits,
            r.threads,
            r.m,
            r.gb_s,
            r.share_of_read,
            r.multiply_adds_per_ns,
            r.instructions_per_weight.map(|i| i.to_string()).unwrap_or_default()
        );
    }
    out
}
