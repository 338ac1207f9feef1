//! What the measurements were made on: facts that the system tells, and nothing guessed.

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use voxgrain::kernel;

/// The machine and the program. What the system does not tell is `None`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The board's own name (device tree, or the firmware's product name).
    pub board: Option<String>,
    pub cpu: Option<String>,
    pub cores: usize,
    pub arch: String,
    pub os: Option<String>,
    pub memory_bytes: Option<u64>,
    /// The largest cache, as the system lists it.
    pub cache_bytes: Option<u64>,
    pub governor: Option<String>,
    pub max_mhz: Option<f64>,
    /// `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    pub kernel: String,
    pub kernels: Vec<String>,
    pub threads: usize,
}

/// The program that measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Build {
    pub version: String,
    /// Of the sources that the program was built from, `-dirty` if they were changed.
    pub commit: String,
    pub target: String,
    pub features: Vec<String>,
    pub debug_assertions: bool,
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_matches(['\0', '\n', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

fn cpuinfo(key: &str) -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Names of ARM cores, which the system gives as numbers only.
fn arm_core() -> Option<String> {
    let part = cpuinfo("CPU part")?;
    let name = match part.as_str() {
        "0xd03" => "Cortex-A53",
        "0xd04" => "Cortex-A35",
        "0xd05" => "Cortex-A55",
        "0xd07" => "Cortex-A57",
        "0xd08" => "Cortex-A72",
        "0xd09" => "Cortex-A73",
        "0xd0a" => "Cortex-A75",
        "0xd0b" => "Cortex-A76",
        "0xd0c" => "Neoverse N1",
        "0xd41" => "Cortex-A78",
        "0xd42" => "Cortex-A78AE",
        "0xc07" => "Cortex-A7",
        other => return Some(format!("ARM part {other}")),
    };
    Some(name.to_owned())
}

fn cache_bytes() -> Option<u64> {
    let mut largest = None;
    for entry in std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?.flatten() {
        let Some(size) = read(entry.path().join("size")) else { continue };
        let (digits, unit) = size.split_at(size.trim_end_matches(char::is_alphabetic).len());
        let factor = match unit {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => 1,
        };
        largest = largest.max(digits.parse::<u64>().ok().map(|n| n * factor));
    }
    largest
}

fn memory_bytes(key: &str) -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb << 10)
}

pub fn available_bytes() -> Option<u64> {
    memory_bytes("MemAvailable:")
}

pub fn describe(threads: usize) -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpufreq = Path::new("/sys/devices/system/cpu/cpu0/cpufreq");
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    Machine {
        board: read("/proc/device-tree/model").or_else(|| read("/sys/class/dmi/id/product_name")),
        cpu: cpuinfo("model name").or_else(arm_core),
        cores,
        arch: std::env::consts::ARCH.to_owned(),
        os: read("/proc/sys/kernel/osrelease").map(|r| format!("{} {r}", std::env::consts::OS)),
        memory_bytes: memory_bytes("MemTotal:"),
        cache_bytes: cache_bytes(),
        governor: read(cpufreq.join("scaling_governor")),
        max_mhz: read(cpufreq.join("cpuinfo_max_freq"))
            .and_then(|k| k.parse::<f64>().ok())
            .map(|khz| khz / 1e3),
        huge_pages: huge.and_then(|h| Some(h.split_once('[')?.1.split_once(']')?.0.to_owned())),
        kernel: kernel::best().name().to_owned(),
        kernels: kernel::all().iter().map(|k| k.name().to_owned()).collect(),
        threads,
    }
}

pub fn build() -> Build {
    let mut features = vec!["cli".to_owned()];
    for (on, name) in [(cfg!(feature = "audio"), "audio"), (cfg!(feature = "capi"), "capi")] {
        if on {
            features.push(name.to_owned());
        }
    }
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        target: format!(
            "{}-{}{}",
            std::env::consts::ARCH,
            std::env::consts::OS,
            if cfg!(target_env = "gnu") { "-gnu" } else { "" }
        ),
        features,
        debug_assertions: cfg!(debug_assertions),
    }
}

/// Given to the compiler by whoever packages the program (`VOXGRAIN_COMMIT`), or else the
/// state of the source tree, provided that no source is newer than the program. (A build
/// script would compile the crate again for every commit.)
fn commit() -> Option<String> {
    if let Some(given) = option_env!("VOXGRAIN_COMMIT") {
        return Some(given.to_owned());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".git").exists() {
        return None;
    }
    let built = std::fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok()?;
    let sources = [root.join("src"), root.join("Cargo.toml"), root.join("Cargo.lock")];
    if sources.iter().any(|p| newer(p, built)) {
        return Some("unknown: sources are newer than the program".to_owned());
    }
    let git = std::process::Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()?;
    let text = String::from_utf8(git.stdout).ok()?.trim().to_owned();
    (git.status.success() && !text.is_empty()).then_some(text)
}

fn newer(path: &Path, than: SystemTime) -> bool {
    let Ok(meta) = std::fs::metadata(path) else { return false };
    if meta.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        return entries.into_iter().any(|e| newer(&e.path(), than));
    }
    meta.modified().is_ok_and(|m| m > than)
}

/// Heat and clock at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub celsius: Option<f64>,
    pub mhz: Option<f64>,
}

/// The hottest zone and the fastest core.
pub fn sample() -> Sample {
    let mut celsius: Option<f64> = None;
    for zone in std::fs::read_dir("/sys/class/thermal").into_iter().flatten().flatten() {
        if let Some(milli) = read(zone.path().join("temp")).and_then(|t| t.parse::<f64>().ok())
            && (0.0..150_000.0).contains(&milli)
        {
            celsius = Some(celsius.unwrap_or(0.0).max(milli / 1e3));
        }
    }
    let mut mhz: Option<f64> = None;
    for cpu in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq");
        if let Some(khz) = read(path).and_then(|t| t.parse::<f64>().ok()) {
            mhz = Some(mhz.unwrap_or(0.0).max(khz / 1e3));
        }
    }
    let mhz = mhz.or_else(|| cpuinfo("cpu MHz")?.parse().ok());
    Sample { celsius, mhz }
}

/// What else the machine did meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Conditions {
    pub seconds: f64,
    pub celsius_start: Option<f64>,
    pub celsius_max: Option<f64>,
    pub mhz_min: Option<f64>,
    pub mhz_max: Option<f64>,
    /// Share of all cores' time that other programs took.
    pub others_share: Option<f64>,
    /// Share that the host of a virtual machine kept.
    pub stolen_share: Option<f64>,
    pub load_average: Option<f64>,
    /// Raspberry Pi: the firmware's throttling bits, 0x0 if it never throttled.
    pub throttled: Option<String>,
}

/// Watches from its creation to [`end`](Watch::end).
pub struct Watch {
    clock: Instant,
    start: Option<Ticks>,
    samples: Vec<Sample>,
}

/// Clock ticks: of all cores in all, idle, stolen, and this process's own.
struct Ticks {
    all: f64,
    idle: f64,
    stolen: f64,
    own: f64,
}

fn ticks() -> Option<Ticks> {
    let stat = read("/proc/stat")?;
    let cpu: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let own = read("/proc/self/stat")?;
    // Fields after the name, which may hold anything: the first is field 3.
    let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    let own = own.get(11)?.parse::<f64>().ok()? + own.get(12)?.parse::<f64>().ok()?;
    Some(Ticks { all: cpu.get(..8)?.iter().sum(), idle: cpu[3] + cpu[4], stolen: cpu[7], own })
}

impl Watch {
    pub fn new() -> Self {
        Self { clock: Instant::now(), start: ticks(), samples: vec![sample()] }
    }

    pub fn look(&mut self) -> Sample {
        let s = sample();
        self.samples.push(s);
        s
    }

    pub fn end(&self) -> Conditions {
        let both = self.start.as_ref().zip(ticks());
        let share = |f: &dyn Fn(&Ticks) -> f64| {
            let (a, b) = both.as_ref()?;
            let all = b.all - a.all;
            (all > 0.0).then(|| ((f(b) - f(a)) / all).clamp(0.0, 1.0))
        };
        let heat = self.samples.iter().filter_map(|s| s.celsius);
        let clock = || self.samples.iter().filter_map(|s| s.mhz);
        Conditions {
            seconds: self.clock.elapsed().as_secs_f64(),
            celsius_start: self.samples.first().and_then(|s| s.celsius),
            celsius_max: heat.reduce(f64::max),
            mhz_min: clock().reduce(f64::min),
            mhz_max: clock().reduce(f64::max),
            others_share: share(&|t| t.all - t.idle - t.stolen - t.own),
            stolen_share: share(&|t| t.stolen),
            load_average: read("/proc/loadavg")
                .and_then(|l| l.split_whitespace().next()?.parse().ok()),
            throttled: read("/sys/devices/platform/soc/soc:firmware/get_throttled"),
        }
    }
}

/// Resident memory of this process, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Rss {
    pub total: u64,
    /// Of that, memory of its own; the rest are pages of files, which the system may drop.
    pub anonymous: Option<u64>,
}

pub fn rss() -> Option<Rss> {
    let text = read("/proc/self/status")?;
    let get = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb << 10)
    };
    Some(Rss { total: get("VmRSS:")?, anonymous: get("RssAnon:") })
}

/// Bytes that this process had the storage read.
pub fn storage_reads() -> Option<u64> {
    let text = read("/proc/self/io")?;
    text.lines().find_map(|l| l.strip_prefix("read_bytes: ")?.parse().ok())
}

/// Memory larger than the caches to read from: eight times the largest cache, within 128 to
/// 512 MB and a quarter of what is free.
pub fn field() -> Vec<u8> {
    let cache = cache_bytes().unwrap_or(4 << 20);
    let free = available_bytes().unwrap_or(1 << 30) / 4;
    let bytes = (8 * cache).clamp(128 << 20, 512 << 20).min(free).max(1 << 20);
    // Written, so that every page is there.
    (0..bytes).map(|i| (i >> 6) as u8).collect()
}

/// GB/s at which `threads` sum `parts`, the best of passes over `budget`.
pub fn read_gb_s(parts: &[&[u8]], threads: usize, budget: Duration) -> f64 {
    let bytes: usize = parts.iter().map(|p| p.len()).sum();
    let begin = Instant::now();
    let mut best = 0.0f64;
    while best == 0.0 || begin.elapsed() < budget {
        let clock = Instant::now();
        std::thread::scope(|s| {
            for t in 0..threads {
                s.spawn(move || {
                    for part in parts {
                        let (a, b) = (part.len() * t / threads, part.len() * (t + 1) / threads);
                        std::hint::black_box(sum(&part[a..b]));
                    }
                });
            }
        });
        best = best.max(bytes as f64 / clock.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// As many sums as registers hold, so that only the memory is waited for.
fn sum(bytes: &[u8]) -> u64 {
    let mut acc = [0u64; 16];
    for chunk in bytes.chunks_exact(128) {
        for (a, w) in acc.iter_mut().zip(chunk.chunks_exact(8)) {
            let word = [w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]];
            *a = a.wrapping_add(u64::from_le_bytes(word));
        }
    }
    acc.iter().fold(0, |a, b| a.wrapping_add(*b))
}
