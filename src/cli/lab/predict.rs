//! What a run would show on a board that is not here, computed from counts. Nothing in this
//! file measures time, and everything that it prints says that it is a prediction.
//!
//! A pass of a model over m rows takes, on a board,
//!
//! ```text
//! max(bytes / bandwidth, products' instructions / (threads x clock x instructions a cycle))
//!   + other instructions / (clock x instructions a cycle)
//! ```
//!
//! since products are split among threads and wait for memory, and the rest (attention,
//! norms, softmax, the codec's transform) runs on one thread out of the caches.

use crate::cli::bench::machine;
use crate::cli::table::{self, field};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use voxgrain::bundle::LanguageModel;
use voxgrain::engine::Model;
use voxgrain::speech::synth::Voice;

const COUNTS: &str = include_str!("../../../targets/cross/instructions.toml");

const PROFILES: [(&str, &str); 8] = [
    ("raspberry-pi-zero-2w", include_str!("../../../targets/raspberry-pi-zero-2w.toml")),
    ("raspberry-pi-3", include_str!("../../../targets/raspberry-pi-3.toml")),
    ("raspberry-pi-4", include_str!("../../../targets/raspberry-pi-4.toml")),
    ("raspberry-pi-5", include_str!("../../../targets/raspberry-pi-5.toml")),
    ("jetson-orin-nano", include_str!("../../../targets/jetson-orin-nano.toml")),
    ("x86-64-v2", include_str!("../../../targets/x86-64-v2.toml")),
    ("x86-64-v3", include_str!("../../../targets/x86-64-v3.toml")),
    ("x86-64-v4", include_str!("../../../targets/x86-64-v4.toml")),
];

/// The codec's inverse transform, a token: two frames of 640 by a scalar FFT and 321 complex
/// exponentials each; counted on x86-64 with valgrind and taken to be the same elsewhere.
const TRANSFORM: f64 = 254_000.0;
/// What the model's executor and the copies around the operators add to the operators'
/// instructions: counted on x86-64 (12.1 million a token of the default voice where the
/// operators have 11.3).
const AROUND: f64 = 1.07;

/// Instructions of one call of each function, see the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCounts {
    qgemm8: [f64; 5],
    qgemm4: [f64; 5],
    attend: [f64; 5],
    factor_logits: f64,
    softmax: f64,
    quantize: f64,
    rms_norm: f64,
    swiglu: f64,
    gelu: f64,
    conv: f64,
    to_half: f64,
    sum_rows: f64,
}

const ROWS: [usize; 5] = [1, 2, 4, 5, 8];

/// Between the counted numbers of rows, in proportion; beyond 8 in tiles of 8.
fn at(counts: &[f64; 5], m: usize) -> f64 {
    if m > 8 {
        return counts[4] * (m / 8) as f64 + if m % 8 > 0 { at(counts, m % 8) } else { 0.0 };
    }
    let high = ROWS.iter().position(|&r| r >= m).unwrap_or(4);
    if ROWS[high] == m || high == 0 {
        return counts[high];
    }
    let (a, b) = (ROWS[high - 1], ROWS[high]);
    let part = (m - a) as f64 / (b - a) as f64;
    counts[high - 1] + (counts[high] - counts[high - 1]) * part
}

impl KernelCounts {
    /// Of one block of 16 x 32 weights for `m` rows.
    pub fn product(&self, bits: u32, m: usize) -> f64 {
        at(if bits == 4 { &self.qgemm4 } else { &self.qgemm8 }, m) / 128.0
    }
}

pub struct Counts(BTreeMap<String, KernelCounts>);

impl Counts {
    pub fn load() -> Self {
        // The file is part of the program; tests/cli.rs sees that it parses.
        Self(toml::from_str(COUNTS).unwrap_or_default())
    }

    pub fn of(&self, kernel: &str, arch: &str) -> Option<&KernelCounts> {
        self.0.get(kernel).or_else(|| self.0.get(&format!("{kernel}-{arch}")))
    }
}

#[derive(Deserialize)]
struct Profile {
    name: String,
    triple: String,
    kernel: String,
    cpu: Cpu,
    memory: Memory,
}

#[derive(Deserialize)]
struct Cpu {
    threads: u32,
    clock_ghz: f64,
    instructions_per_cycle: f64,
}

#[derive(Deserialize)]
struct Memory {
    budget_mb: u32,
    /// What reading is expected to reach: twice what is copied, or half of the peak.
    expected_gb_s: f64,
    peak_gb_s: f64,
    peak_source: String,
    memcpy_source: Option<String>,
}

/// What the voice does, from speaking here; it is the same on every machine.
#[derive(Debug, Clone, Serialize)]
pub struct Behaviour {
    /// The speculative arm that was measured.
    pub arm: String,
    pub source: String,
    pub gamma: usize,
    pub acceptance_rate: f64,
    pub tokens_per_round: f64,
    /// Positions in the cache, on average.
    pub context: f64,
}

#[derive(Serialize)]
pub struct Prediction {
    pub prediction: bool,
    pub bundles: Vec<BundleFacts>,
    pub rows: Vec<Row>,
    /// Of the first bundle.
    pub check: Option<Check>,
}

#[derive(Serialize)]
pub struct BundleFacts {
    pub bundle: String,
    pub frame_rate_hz: u32,
    pub behaviour: Behaviour,
    pub target: ModelFacts,
    pub draft: Option<ModelFacts>,
    pub codec: ModelFacts,
    /// Keys and values that one token reads at the average context, target and draft.
    pub cache_bytes: [f64; 2],
}

/// Of one pass over one row (the codec: over one token).
#[derive(Serialize, Clone)]
pub struct ModelFacts {
    pub weight_bytes: u64,
    pub scale_bytes: u64,
    pub multiply_adds: u64,
    /// Blocks of 16 x 32 weights by bits and by rows a token.
    #[serde(skip)]
    blocks: Vec<(u32, usize, f64)>,
    /// Columns of activations that products read, a row.
    #[serde(skip)]
    columns: f64,
}

impl ModelFacts {
    /// From the tensors of the file; what comes behind the codec's `up` runs twice a token.
    fn of(model: &Model) -> Self {
        let mut f = Self {
            weight_bytes: 0,
            scale_bytes: 0,
            multiply_adds: 0,
            blocks: Vec::new(),
            columns: 0.0,
        };
        let mut rows = 1;
        for t in model.tensors() {
            match t.dims[..] {
                [tiles, blocks, j, 16, 4] if t.data_type == "u8" => {
                    let bits = if j == 4 { 4 } else { 8 };
                    f.weight_bytes += t.bytes as u64;
                    f.multiply_adds += (tiles * blocks * 512 * rows) as u64;
                    f.blocks.push((bits, rows, (tiles * blocks) as f64));
                    f.columns += (blocks * 32 * rows) as f64;
                }
                [_, _, 16] if t.data_type == "f16" => f.scale_bytes += t.bytes as u64,
                _ => {}
            }
            if t.name.starts_with("up.") && t.name.ends_with(".packed") {
                rows = 2;
            }
        }
        f
    }

    fn bytes(&self) -> f64 {
        (self.weight_bytes + self.scale_bytes) as f64
    }

    /// Instructions of the products for `m` rows (the codec: tokens).
    fn products(&self, c: &KernelCounts, m: usize) -> f64 {
        self.blocks.iter().map(|&(bits, rows, n)| n * c.product(bits, m * rows)).sum()
    }
}

/// Predicted, for one board, bundle and arm.
#[derive(Serialize, Clone)]
pub struct Row {
    pub prediction: bool,
    pub device: String,
    pub profile: String,
    pub bundle: String,
    pub arm: String,
    pub kernel: String,
    pub threads: u32,
    pub peak_gb_s: f64,
    pub assumed_gb_s: f64,
    pub bandwidth_source: String,
    pub clock_ghz: f64,
    pub instructions_per_cycle: f64,
    /// Bytes of weights, scales and cache, a token of speech.
    pub bytes_per_token: f64,
    pub instructions_per_token: f64,
    /// rtf if memory were all that mattered, and if instructions were.
    pub rtf_memory: f64,
    pub rtf_instructions: f64,
    pub rtf: f64,
    pub fits: bool,
    /// Run on the board, this measures it.
    pub command: String,
}

/// Seconds and counts, summed over the passes of a round.
#[derive(Default, Clone, Copy)]
struct Cost {
    bytes: f64,
    split: f64,
    serial: f64,
    seconds: f64,
    memory: f64,
    instructions: f64,
}

struct Board<'a> {
    counts: &'a KernelCounts,
    bytes_s: f64,
    /// Instructions a second of one thread, and of all.
    one: f64,
    all: f64,
}

impl Board<'_> {
    fn pass(&self, bytes: f64, split: f64, serial: f64) -> Cost {
        let (split, serial) = (split * AROUND, serial * AROUND);
        let memory = bytes / self.bytes_s;
        let work = split / self.all;
        Cost {
            bytes,
            split,
            serial,
            seconds: memory.max(work) + serial / self.one,
            memory,
            instructions: work + serial / self.one,
        }
    }

    /// A language model over `m` rows with the logits of all.
    fn language(&self, f: &ModelFacts, m: &LanguageModel, rows: usize, context: f64) -> Cost {
        let c = self.counts;
        let (r, layers) = (rows as f64, m.layers as f64);
        let head = m.head_dim as f64 / 64.0 * context / 256.0;
        let attention = layers * m.heads as f64 * at(&c.attend, rows) * head;
        let norms = (2.0 * layers + 1.0) * m.hidden as f64 / 512.0 * c.rms_norm;
        let quantize = f.columns / 512.0 * c.quantize;
        let swiglu = layers * m.ffn as f64 / 1024.0 * c.swiglu;
        let store = layers * 2.0 * (m.kv_heads * m.head_dim) as f64 / 512.0 * c.to_half;
        let embed = m.hidden as f64 / 512.0 * c.sum_rows;
        let tokens = c.factor_logits + c.softmax;
        let serial = attention + r * (norms + quantize + swiglu + store + embed + tokens);
        self.pass(f.bytes() + cache(m, context), f.products(c, rows), serial)
    }

    /// The codec over `tokens`.
    fn codec(&self, f: &ModelFacts, tokens: usize) -> Cost {
        let c = self.counts;
        // A block's two products read C and 3 C columns.
        let channels = f.columns / 4.0;
        let one = f.columns / 512.0 * c.quantize
            + channels / 384.0 * c.conv
            + channels / 512.0 * c.rms_norm * 1.5
            + 3.0 * channels / 1024.0 * c.gelu
            + TRANSFORM;
        self.pass(f.bytes(), f.products(c, tokens), one * tokens as f64)
    }
}

fn cache(m: &LanguageModel, context: f64) -> f64 {
    (m.layers * m.kv_heads * m.head_dim) as f64 * context * 4.0
}

impl Cost {
    fn add(&mut self, o: Self, share: f64) {
        self.bytes += o.bytes * share;
        self.split += o.split * share;
        self.serial += o.serial * share;
        self.seconds += o.seconds * share;
        self.memory += o.memory * share;
        self.instructions += o.instructions * share;
    }
}

pub fn facts(name: &str, voice: &Voice, behaviour: Behaviour) -> BundleFacts {
    let b = voice.bundle();
    let context = behaviour.context;
    BundleFacts {
        bundle: name.to_owned(),
        frame_rate_hz: b.audio.frame_rate_hz,
        behaviour,
        target: ModelFacts::of(voice.target()),
        draft: voice.draft().map(|d| ModelFacts::of(d)),
        codec: ModelFacts::of(voice.codec()),
        cache_bytes: [
            cache(&b.target, context),
            b.draft.as_ref().map_or(0.0, |d| cache(d, context)),
        ],
    }
}

/// Seconds and counts of one token by `arm`.
fn token(board: &Board, voice: &Voice, facts: &BundleFacts, arm: &str) -> Cost {
    let (b, h) = (voice.bundle(), &facts.behaviour);
    let mut cost = Cost::default();
    let draft = facts.draft.as_ref().zip(b.draft.as_ref()).filter(|_| arm != "ar");
    let tokens = if let Some((draft, shape)) = draft {
        cost.add(board.language(&facts.target, &b.target, h.gamma + 1, h.context), 1.0);
        for i in 0..h.gamma {
            // The first pass of the draft catches up with two tokens.
            let rows = if i == 0 { 2 } else { 1 };
            cost.add(board.language(draft, shape, rows, h.context), 1.0);
        }
        h.tokens_per_round.max(1.0)
    } else {
        cost.add(board.language(&facts.target, &b.target, 1, h.context), 1.0);
        1.0
    };
    // Rounds differ in length: the codec's cost between whole numbers of tokens.
    let (whole, part) = (tokens.floor() as usize, tokens.fract());
    cost.add(board.codec(&facts.codec, whole), 1.0 - part);
    cost.add(board.codec(&facts.codec, whole + 1), part);
    let mut one = Cost::default();
    one.add(cost, 1.0 / tokens);
    one
}

fn profiles() -> voxgrain::Result<Vec<(&'static str, Profile)>> {
    let parse = |(id, text): (&'static str, &str)| {
        let profile = toml::from_str(text).map_err(|e| {
            let what = format!("device profile {id}");
            voxgrain::Error::with_source(voxgrain::ErrorKind::Malformed, what, e)
        })?;
        Ok((id, profile))
    };
    PROFILES.into_iter().map(parse).collect()
}

pub fn rows(voice: &Voice, facts: &BundleFacts) -> voxgrain::Result<Vec<Row>> {
    let all = Counts::load();
    let mut rows = Vec::new();
    for (id, p) in profiles()? {
        let arch = match p.triple.split('-').next() {
            Some("armv7") => "arm",
            Some(other) => other,
            None => "",
        };
        let counts = all.of(&p.kernel, arch).ok_or_else(|| {
            let what = format!("device profile {id}: no counts for {}", p.kernel);
            voxgrain::Error::new(voxgrain::ErrorKind::Malformed, what)
        })?;
        let assumed = p.memory.expected_gb_s;
        let source = match &p.memory.memcpy_source {
            Some(source) => format!("twice what is copied: {source}"),
            None => format!("half of the peak ({}), assumed", p.memory.peak_source),
        };
        let one = p.cpu.clock_ghz * 1e9 * p.cpu.instructions_per_cycle;
        let board =
            Board { counts, bytes_s: assumed * 1e9, one, all: one * f64::from(p.cpu.threads) };
        for arm in ["ar", &facts.behaviour.arm] {
            let cost = token(&board, voice, facts, arm);
            let rate = f64::from(facts.frame_rate_hz);
            // Program, voice and one engine's caches for an utterance.
            let draft = facts.draft.as_ref().map_or(0.0, |d| d.bytes());
            let need = facts.target.bytes() + draft + facts.codec.bytes() + 40e6;
            rows.push(Row {
                prediction: true,
                device: p.name.clone(),
                profile: id.to_owned(),
                bundle: facts.bundle.clone(),
                arm: arm.to_owned(),
                kernel: p.kernel.clone(),
                threads: p.cpu.threads,
                peak_gb_s: p.memory.peak_gb_s,
                assumed_gb_s: assumed,
                bandwidth_source: source.clone(),
                clock_ghz: p.cpu.clock_ghz,
                instructions_per_cycle: p.cpu.instructions_per_cycle,
                bytes_per_token: cost.bytes,
                instructions_per_token: cost.split + cost.serial,
                rtf_memory: cost.memory * rate,
                rtf_instructions: cost.instructions * rate,
                rtf: cost.seconds * rate,
                fits: need < f64::from(p.memory.budget_mb) * 1e6,
                command: format!(
                    "voxgrain bench --bundle {} --arm ar --arm {} --threads {} --json={id}.json",
                    facts.bundle, facts.behaviour.arm, p.cpu.threads
                ),
            });
        }
    }
    Ok(rows)
}

/// The same arithmetic for the machine at hand, beside what it measured: how far to trust
/// the rest.
#[derive(Serialize)]
pub struct Check {
    pub kernel: String,
    pub threads: usize,
    pub read_gb_s: f64,
    pub clock_ghz: f64,
    pub instructions_per_cycle: f64,
    pub rows: Vec<CheckRow>,
}

#[derive(Serialize)]
pub struct CheckRow {
    pub arm: String,
    pub predicted_rtf: f64,
    pub measured_rtf: f64,
}

/// `None` where the system does not tell its clock or the kernel was not counted.
pub fn check(
    voice: &Voice,
    facts: &BundleFacts,
    threads: usize,
    read_gb_s: f64,
    measured: &[(String, f64)],
) -> voxgrain::Result<Option<Check>> {
    let all = Counts::load();
    let kernel = voxgrain::kernel::best().name();
    let profiles = profiles()?;
    // The assumption of the profile with this kernel.
    let same = profiles.iter().find(|(_, p)| p.kernel == kernel);
    let (Some(counts), Some((_, p)), Some(mhz)) =
        (all.of(kernel, std::env::consts::ARCH), same, machine::sample().mhz)
    else {
        return Ok(None);
    };
    let per_cycle = p.cpu.instructions_per_cycle;
    let one = mhz * 1e6 * per_cycle;
    let board = Board { counts, bytes_s: read_gb_s * 1e9, one, all: one * threads as f64 };
    let row = |(arm, measured): &(String, f64)| CheckRow {
        arm: arm.clone(),
        predicted_rtf: token(&board, voice, facts, arm).seconds * f64::from(facts.frame_rate_hz),
        measured_rtf: *measured,
    };
    Ok(Some(Check {
        kernel: kernel.to_owned(),
        threads,
        read_gb_s,
        clock_ghz: mhz / 1e3,
        instructions_per_cycle: per_cycle,
        rows: measured.iter().map(row).collect(),
    }))
}

pub fn markdown(p: &Prediction) -> String {
    let mut out = String::from(
        "# voxgrain bench --predict\n\n**Prediction: no figure of a board here was measured.** \
         Computed from bytes, counted instructions (targets/cross/instructions.toml), published \
         memory bandwidth and an assumed number of instructions a cycle (targets/*.toml). rtf is \
         compute over audio seconds: lower is better, above 1 does not keep up with speech. Memory \
         and instructions are taken to overlap, which in-order cores (Cortex-A53) do only in part: \
         theirs is the least to expect. Nor is there anything in it for threads that wait for one \
         another: a prediction is a floor, and the machine at hand says how far below (last table).\n\n",
    );
    let w = &mut out;
    let mb = |b: f64| format!("{:.2}", b / 1e6);
    for b in &p.bundles {
        let h = &b.behaviour;
        let _ = writeln!(
            w,
            "{}: {} tokens a second; {} {} (gamma {}, {:.0} % accepted, {:.2} tokens a round, {:.0} positions of context)\n",
            b.bundle,
            b.frame_rate_hz,
            h.arm,
            h.source,
            h.gamma,
            100.0 * h.acceptance_rate,
            h.tokens_per_round,
            h.context
        );
        let [target, draft] = b.cache_bytes.map(Some);
        let models = [
            ("target", Some(&b.target), target),
            ("draft", b.draft.as_ref(), draft),
            ("codec", Some(&b.codec), None),
        ];
        let rows: Vec<Vec<String>> = models
            .into_iter()
            .filter_map(|(name, f, cache)| Some((name, f?, cache)))
            .map(|(name, f, cache)| {
                vec![
                    name.to_owned(),
                    mb(f.weight_bytes as f64),
                    mb(f.scale_bytes as f64),
                    cache.map_or("-".into(), mb),
                    format!("{:.1}", f.multiply_adds as f64 / 1e6),
                ]
            })
            .collect();
        let head = [
            "a pass over one row",
            "weights MB",
            "scales MB",
            "cache MB",
            "multiply-adds, millions",
        ];
        w.push_str(&table::markdown(&head, &rows));
        w.push('\n');
    }
    let cells = |r: &Row| {
        vec![
            format!("{}{}", r.device, if r.fits { "" } else { " (beyond its memory budget)" }),
            r.bundle.clone(),
            r.arm.clone(),
            format!("{}, {}", r.kernel, r.threads),
            format!("{:.1}, {:.1}", r.peak_gb_s, r.assumed_gb_s),
            format!("{:.1}", r.bytes_per_token / 1e6),
            format!("{:.1}", r.instructions_per_token / 1e6),
            format!("{:.3}", r.rtf_memory),
            format!("{:.3}", r.rtf_instructions),
            format!("**{:.2}**", r.rtf),
        ]
    };
    let head = [
        "device",
        "bundle",
        "arm",
        "kernel, threads",
        "GB/s peak, assumed",
        "MB a token",
        "million instructions a token",
        "rtf, memory alone",
        "rtf, instructions alone",
        "**predicted rtf**",
    ];
    w.push_str(&table::markdown(&head, &p.rows.iter().map(cells).collect::<Vec<_>>()));
    if let Some(c) = &p.check {
        let _ = write!(
            w,
            "\nThe same arithmetic for this machine ({}, {} threads, {:.1} GB/s read from the mapped files as measured, {:.2} GHz, {} instructions a cycle assumed), beside a short measurement:\n\n",
            c.kernel, c.threads, c.read_gb_s, c.clock_ghz, c.instructions_per_cycle
        );
        let cells = |r: &CheckRow| {
            vec![
                r.arm.clone(),
                format!("{:.3}", r.predicted_rtf),
                format!("{:.3}", r.measured_rtf),
                format!("{:.2}", r.measured_rtf / r.predicted_rtf),
            ]
        };
        let head = ["arm", "predicted rtf", "measured rtf", "measured / predicted"];
        w.push_str(&table::markdown(&head, &c.rows.iter().map(cells).collect::<Vec<_>>()));
    }
    let _ = write!(w, "\nOn the board, this measures it:\n\n");
    let mut seen = Vec::new();
    for r in &p.rows {
        if !seen.contains(&&r.command) {
            seen.push(&r.command);
            let _ = writeln!(w, "- {}: `{}`", r.device, r.command);
        }
    }
    let _ = write!(w, "\nBandwidth assumed:\n\n");
    let mut seen = Vec::new();
    for r in &p.rows {
        if !seen.contains(&&r.device) {
            seen.push(&r.device);
            let _ = writeln!(w, "- {}: {}", r.device, r.bandwidth_source);
        }
    }
    out
}

pub fn csv(p: &Prediction) -> String {
    let mut out = String::from(
        "prediction,device,profile,bundle,arm,kernel,threads,peak_gb_s,assumed_gb_s,clock_ghz,\
         instructions_per_cycle,bytes_per_token,instructions_per_token,rtf_memory,\
         rtf_instructions,rtf,fits,command\n",
    );
    for r in &p.rows {
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            r.prediction,
            field(&r.device),
            r.profile,
            field(&r.bundle),
            r.arm,
            r.kernel,
            r.threads,
            r.peak_gb_s,
            r.assumed_gb_s,
            r.clock_ghz,
            r.instructions_per_cycle,
            r.bytes_per_token,
            r.instructions_per_token,
            r.rtf_memory,
            r.rtf_instructions,
            r.rtf,
            r.fits,
            field(&r.command)
        );
    }
    out
}
