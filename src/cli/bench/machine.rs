//! What the measurements were made on: facts that the system tells, and nothing guessed.

use crate::cli::find;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};
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

/// The root of the files in which the system tells about itself: `/`, or a test's.
#[derive(Debug, Clone)]
pub struct System(PathBuf);

fn here() -> System {
    System(PathBuf::from("/"))
}

impl System {
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read_to_string(self.path(path)).ok()?;
        let text = text.trim_matches(['\0', '\n', ' ']).to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn cpuinfo(&self, key: &str) -> Option<String> {
        let text = self.read("proc/cpuinfo")?;
        let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    }

    /// Names of ARM cores, which the system gives as numbers only.
    fn arm_core(&self) -> Option<String> {
        let part = self.cpuinfo("CPU part")?;
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

    fn cache_bytes(&self) -> Option<u64> {
        let mut largest = None;
        let caches = self.path("sys/devices/system/cpu/cpu0/cache");
        for entry in std::fs::read_dir(caches).ok()?.flatten() {
            let Some(size) = self.read(entry.path().join("size")) else { continue };
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

    fn memory_bytes(&self, key: &str) -> Option<u64> {
        let text = self.read("proc/meminfo")?;
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb << 10)
    }

    /// Folders `cpu0`, `cpu1`, ...
    fn cpus(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.path("sys/devices/system/cpu")).into_iter().flatten();
        let is_cpu = |p: &PathBuf| {
            let name = p.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("cpu"));
            name.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        all.flatten().map(|e| e.path()).filter(is_cpu).collect()
    }

    /// The governors of all cores; more than one where clusters have their own.
    fn governor(&self) -> Option<String> {
        let read = |cpu: PathBuf| self.read(cpu.join("cpufreq/scaling_governor"));
        let mut all: Vec<String> = self.cpus().into_iter().filter_map(read).collect();
        all.sort();
        all.dedup();
        (!all.is_empty()).then(|| all.join(", "))
    }

    fn mhz(&self, file: &str) -> Option<f64> {
        let khz = |cpu: PathBuf| self.read(cpu.join("cpufreq").join(file))?.parse::<f64>().ok();
        self.cpus().into_iter().filter_map(khz).reduce(f64::max).map(|khz| khz / 1e3)
    }

    fn describe(&self, threads: usize) -> Machine {
        let huge = self.read("sys/kernel/mm/transparent_hugepage/enabled");
        let release = self.read("proc/sys/kernel/osrelease");
        Machine {
            board: self
                .read("proc/device-tree/model")
                .or_else(|| self.read("sys/class/dmi/id/product_name")),
            cpu: self.cpuinfo("model name").or_else(|| self.arm_core()),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            arch: std::env::consts::ARCH.to_owned(),
            os: release.map(|r| format!("{} {r}", std::env::consts::OS)),
            memory_bytes: self.memory_bytes("MemTotal:"),
            cache_bytes: self.cache_bytes(),
            governor: self.governor(),
            max_mhz: self.mhz("cpuinfo_max_freq"),
            huge_pages: huge.and_then(|h| Some(h.split_once('[')?.1.split_once(']')?.0.to_owned())),
            kernel: kernel::best().name().to_owned(),
            kernels: kernel::all().iter().map(|k| k.name().to_owned()).collect(),
            threads,
        }
    }

    /// The hottest zone and the fastest core.
    fn sample(&self) -> Sample {
        let mut celsius: Option<f64> = None;
        let zones = std::fs::read_dir(self.path("sys/class/thermal")).into_iter().flatten();
        for zone in zones.flatten() {
            if let Some(milli) =
                self.read(zone.path().join("temp")).and_then(|t| t.parse::<f64>().ok())
                && (0.0..150_000.0).contains(&milli)
            {
                celsius = Some(celsius.unwrap_or(0.0).max(milli / 1e3));
            }
        }
        let mhz = self.mhz("scaling_cur_freq").or_else(|| self.cpuinfo("cpu MHz")?.parse().ok());
        Sample { celsius, mhz }
    }

    /// Raspberry Pi: the firmware's throttling bits.
    fn throttled(&self) -> Option<String> {
        self.read("sys/devices/platform/soc/soc:firmware/get_throttled")
    }
}

#[cfg(feature = "lab")]
pub fn available_bytes() -> Option<u64> {
    here().memory_bytes("MemAvailable:")
}

pub fn describe(threads: usize) -> Machine {
    here().describe(threads)
}

#[cfg(feature = "lab")]
pub fn sample() -> Sample {
    here().sample()
}

pub fn build() -> Build {
    let mut features = vec!["cli".to_owned()];
    for (on, name) in [
        (cfg!(feature = "audio"), "audio"),
        (cfg!(feature = "capi"), "capi"),
        (cfg!(feature = "lab"), "lab"),
    ] {
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
    let root = find::checkout()?;
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
    system: System,
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
    let stat = here().read("proc/stat")?;
    let cpu: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let own = here().read("proc/self/stat")?;
    // Fields after the name, which may hold anything: the first is field 3.
    let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    let own = own.get(11)?.parse::<f64>().ok()? + own.get(12)?.parse::<f64>().ok()?;
    Some(Ticks { all: cpu.get(..8)?.iter().sum(), idle: cpu[3] + cpu[4], stolen: cpu[7], own })
}

impl Watch {
    pub fn new() -> Self {
        Self::of(here())
    }

    fn of(system: System) -> Self {
        let (start, samples) = (ticks(), vec![system.sample()]);
        Self { clock: Instant::now(), system, start, samples }
    }

    pub fn look(&mut self) -> Sample {
        let s = self.system.sample();
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
            load_average: self
                .system
                .read("proc/loadavg")
                .and_then(|l| l.split_whitespace().next()?.parse().ok()),
            throttled: self.system.throttled(),
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
    let text = here().read("proc/self/status")?;
    let get = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb << 10)
    };
    Some(Rss { total: get("VmRSS:")?, anonymous: get("RssAnon:") })
}

/// Bytes that this process had the storage read.
pub fn storage_reads() -> Option<u64> {
    let text = here().read("proc/self/io")?;
    text.lines().find_map(|l| l.strip_prefix("read_bytes: ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a board, in a folder of their own.
    struct Board(PathBuf);

    impl Board {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("voxgrain-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&root);
            let board = Self(root);
            files.iter().for_each(|(path, text)| board.set(path, text));
            board
        }
        fn set(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        fn system(&self) -> System {
            System(self.0.clone())
        }
    }

    impl Drop for Board {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const CPU: &str = "sys/devices/system/cpu";

    #[test]
    fn a_raspberry_pi_tells_what_it_is_and_how_it_fares() {
        let cpu = |n: usize, file: &str| format!("{CPU}/cpu{n}/cpufreq/{file}");
        let board = Board::new(
            "board-pi",
            &[
                ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
                (
                    "proc/cpuinfo",
                    "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nSerial\t: 1\n",
                ),
                ("proc/meminfo", "MemTotal:        3884360 kB\nMemAvailable:    3000000 kB\n"),
                ("proc/sys/kernel/osrelease", "6.6.31+rpt-rpi-v8\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
                (&format!("{CPU}/cpu0/cache/index0/size"), "32K\n"),
                (&format!("{CPU}/cpu0/cache/index2/size"), "1M\n"),
                // Entries that are no cores.
                (&format!("{CPU}/cpufreq/policy0/scaling_governor"), "performance\n"),
                (&format!("{CPU}/cpuidle/current_driver"), "none\n"),
                (&cpu(0, "scaling_governor"), "ondemand\n"),
                (&cpu(1, "scaling_governor"), "ondemand\n"),
                (&cpu(0, "cpuinfo_max_freq"), "1800000\n"),
                (&cpu(0, "scaling_cur_freq"), "600000\n"),
                (&cpu(1, "scaling_cur_freq"), "1500000\n"),
                ("sys/class/thermal/thermal_zone0/temp", "48212\n"),
                ("sys/class/thermal/cooling_device0/type", "fan\n"),
                ("sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n"),
            ],
        );
        let m = board.system().describe(3);
        assert_eq!(m.board.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
        assert_eq!(m.cpu.as_deref(), Some("Cortex-A72"));
        assert_eq!((m.governor.as_deref(), m.max_mhz), (Some("ondemand"), Some(1800.0)));
        assert_eq!((m.memory_bytes, m.cache_bytes), (Some(3884360 << 10), Some(1 << 20)));
        assert_eq!((m.huge_pages.as_deref(), m.threads), (Some("madvise"), 3));
        assert!(m.os.unwrap().ends_with("6.6.31+rpt-rpi-v8"));

        // It gets warm, and slower.
        let mut watch = Watch::of(board.system());
        board.set("sys/class/thermal/thermal_zone0/temp", "81700\n");
        board.set("sys/class/thermal/thermal_zone1/temp", "60000\n");
        board.set(&cpu(1, "scaling_cur_freq"), "1000000\n");
        let now = watch.look();
        assert_eq!((now.celsius, now.mhz), (Some(81.7), Some(1000.0)));
        board.set("sys/class/thermal/thermal_zone0/temp", "70000\n");
        watch.look();
        let c = watch.end();
        assert_eq!((c.celsius_start, c.celsius_max), (Some(48.212), Some(81.7)));
        assert_eq!((c.mhz_min, c.mhz_max), (Some(1000.0), Some(1500.0)));
        assert_eq!(c.throttled.as_deref(), Some("50000"));
    }

    #[test]
    fn clusters_may_have_governors_of_their_own_and_zones_may_lie() {
        let board = Board::new(
            "board-big-little",
            &[
                (&format!("{CPU}/cpu0/cpufreq/scaling_governor"), "schedutil"),
                (&format!("{CPU}/cpu4/cpufreq/scaling_governor"), "performance"),
                (&format!("{CPU}/cpu0/cpufreq/cpuinfo_max_freq"), "1510400"),
                (&format!("{CPU}/cpu4/cpufreq/cpuinfo_max_freq"), "2208000"),
                // Zones of parts that are off.
                ("sys/class/thermal/thermal_zone0/temp", "-274000"),
                ("sys/class/thermal/thermal_zone1/temp", "text"),
                ("sys/class/thermal/thermal_zone2/temp", "51000"),
                ("proc/cpuinfo", "CPU part\t: 0xd99\n"),
            ],
        );
        let (m, s) = (board.system().describe(1), board.system().sample());
        assert_eq!(m.governor.as_deref(), Some("performance, schedutil"));
        assert_eq!((m.max_mhz, m.cpu.as_deref()), (Some(2208.0), Some("ARM part 0xd99")));
        assert_eq!((s.celsius, s.mhz), (Some(51.0), None));
    }

    #[test]
    fn a_machine_that_tells_nothing_is_no_error() {
        let board = Board::new("board-empty", &[("proc/cpuinfo", "cpu MHz\t: 2600.123\n")]);
        let m = board.system().describe(1);
        assert!(m.board.is_none() && m.cpu.is_none() && m.governor.is_none());
        assert!(m.memory_bytes.is_none() && m.cache_bytes.is_none() && m.max_mhz.is_none());
        let s = board.system().sample();
        assert_eq!((s.celsius, s.mhz), (None, Some(2600.123)));
        assert!(Watch::of(board.system()).end().throttled.is_none());
    }
}
