//! What passes cost on this machine, measured once and kept, so that `--gamma auto` drafts as
//! many tokens as pay here and a seed still says it all.
//!
//! A voice stores the costs of the machine that it was made on, and [`stored`] makes them safe for
//! other kernels. A calibration is better: [`measure`](super::calibrate::measure) speaks a few
//! sentences with drafts and without, in turn, and [`Calibration`] keeps the two costs in a file
//! beside the user's settings, by processor, kernel, number of threads and models. From then on the same seed gives the same
//! sound on that machine with that kernel and number of threads; `VOXGRAIN_CALIBRATION=off`
//! leaves the file alone.

use crate::bundle::Bundle;
use crate::decode::Costs;
use crate::part::Part;
use crate::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The environment variable that names the file, or is `off`.
pub const ENV: &str = "VOXGRAIN_CALIBRATION";

/// The only version of the file so far.
const FORMAT: u32 = 1;
/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The costs of one voice on one machine with one kernel and number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What the system calls the processor; empty where it does not say.
    pub cpu: String,
    /// Name of the kernel.
    pub kernel: String,
    /// Threads that computed.
    pub threads: usize,
    /// SHA-256 of the target's weights, as the bundle lists it.
    pub target: String,
    /// The same of the draft's.
    pub draft: String,
    /// One draft step, in target passes of one row.
    pub draft_cost: f32,
    /// Each row of a target pass after the first, in passes of one row.
    pub row_cost: f32,
}

/// Costs that were measured; see the [module](self).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    format: u32,
    #[serde(default)]
    costs: Vec<Entry>,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { format: FORMAT, costs: Vec::new() }
    }
}

impl Calibration {
    /// Where the user's file is, whether or not it exists: what `VOXGRAIN_CALIBRATION` names,
    /// else `voxgrain/calibration.toml` in `XDG_CONFIG_HOME`, in `.config` of `HOME`, or in
    /// `APPDATA`. `None` if the variable is `off`, or the system says no such folder.
    pub fn path() -> Option<PathBuf> {
        place(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
    }

    /// The user's; `None` if there is none. One that cannot be used is none either: that is
    /// logged, and the voice's own costs are safe.
    pub fn of_user() -> Option<Self> {
        let path = Self::path().filter(|p| p.exists())?;
        match Self::read(&path) {
            Ok(found) => Some(found),
            Err(e) => {
                log::warn!("{e}: costs of passes are the voice's own");
                None
            }
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `Unreadable`, or `Malformed` if it is no calibration.
    pub fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|f| f.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(|e| {
                let what = format!("cannot read {}", path.display());
                Error::with_source(ErrorKind::Unreadable, what, e)
            })?;
        let bad = |why: String| {
            let what = format!(
                "{} is no calibration ({why}): delete it, or write it anew with `voxgrain calibrate`",
                path.display()
            );
            Error::new(ErrorKind::Malformed, what)
        };
        let read: Self = toml::from_str(&text).map_err(|e| bad(e.message().to_owned()))?;
        if read.format != FORMAT {
            return Err(bad(format!("format {} is not {FORMAT}", read.format)));
        }
        match read.costs.iter().find(|e| !e.costs().are_valid()) {
            Some(e) => Err(bad(format!("costs of {} are out of range", e.kernel))),
            None => Ok(read),
        }
    }

    /// Writes it to `path`, with the folder above if that is missing. The file is there as a
    /// whole or as it was.
    ///
    /// # Errors
    /// `Unwritable`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let unwritable = |e: std::io::Error| {
            let what = format!("cannot write {}", path.display());
            Error::with_source(ErrorKind::Unwritable, what, e)
        };
        let body =
            toml::to_string(self).map_err(|e| unwritable(std::io::Error::other(e.to_string())))?;
        let text = format!(
            "# Written by `voxgrain calibrate`: what passes cost here, in target passes of one row.\n{body}"
        );
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let mut part = Part::create(path).map_err(unwritable)?;
        part.write_all(text.as_bytes()).map_err(unwritable)?;
        part.finish().map_err(unwritable)
    }

    /// What was measured of this voice on this processor.
    pub fn costs(&self, bundle: &Bundle, kernel: &str, threads: usize) -> Option<Costs> {
        let wanted = Entry::of(bundle, kernel, threads, Costs { draft: 0.0, row: 0.0 });
        self.costs.iter().find(|e| e.is_of(&wanted)).map(Entry::costs)
    }

    /// Keeps an entry, in place of one for the same.
    pub fn set(&mut self, entry: Entry) {
        self.costs.retain(|e| !e.is_of(&entry));
        self.costs.push(entry);
    }

    /// All of them.
    pub fn entries(&self) -> &[Entry] {
        &self.costs
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = variable(ENV) {
        return (named.as_os_str() != "off").then_some(named);
    }
    // The standard says that a relative path is none.
    let folder = variable("XDG_CONFIG_HOME").filter(|p| p.is_absolute());
    let folder = folder.or_else(|| variable("HOME").map(|home| home.join(".config")));
    Some(folder.or_else(|| variable("APPDATA"))?.join("voxgrain/calibration.toml"))
}

impl Entry {
    /// Of a voice on this processor.
    pub fn of(bundle: &Bundle, kernel: &str, threads: usize, costs: Costs) -> Self {
        let hash = |file: &str| {
            bundle.listed_sha256(&format!("{file}.data")).unwrap_or_default().to_owned()
        };
        Self {
            cpu: cpu(),
            kernel: kernel.to_owned(),
            threads,
            target: hash(&bundle.target.file),
            draft: hash(&bundle.draft.file),
            draft_cost: costs.draft,
            row_cost: costs.row,
        }
    }

    /// Both costs.
    pub fn costs(&self) -> Costs {
        Costs { draft: self.draft_cost, row: self.row_cost }
    }

    fn is_of(&self, other: &Self) -> bool {
        let key = |e: &Self| {
            let [cpu, kernel, target, draft] =
                [&e.cpu, &e.kernel, &e.target, &e.draft].map(String::clone);
            (cpu, kernel, e.threads, target, draft)
        };
        key(self) == key(other)
    }
}

/// Linux: the name, or the number of an ARM core.
fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    value("model name").or_else(|| value("CPU part")).unwrap_or_default()
}

/// Costs that a voice stores, on another kernel than that of the machine where they were
/// measured (AVX-512 VNNI): never lower, and where a row costs nearly a pass, high enough that
/// speculation stays off unless almost all is accepted.
///
/// The narrower a kernel's products, the more they are what a pass waits for and the less the
/// reading of the weights, which all rows share. The figures are medians of `voxgrain calibrate`, rounded up
/// (SPEED.md, 2026-11-30).
pub fn stored(costs: Costs, kernel: &str) -> Costs {
    let least = match kernel {
        "avx512-vnni" => Costs { draft: 0.0, row: 0.0 },
        "avx2" | "neon-dotprod" => AVX2,
        _ => PORTABLE,
    };
    Costs { draft: costs.draft.max(least.draft), row: costs.row.max(least.row) }
}

const AVX2: Costs = Costs { draft: 0.2, row: 0.4 };
const PORTABLE: Costs = Costs { draft: 0.3, row: 1.0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_standard_says() {
        let of = |given: &[(&str, &str)]| {
            place(|name| given.iter().find(|g| g.0 == name).map(|g| PathBuf::from(g.1)))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HOME", "/u")]), Some("/u/.config/voxgrain/calibration.toml".into()));
        let xdg = [("HOME", "/u"), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(of(&xdg), Some("/x/voxgrain/calibration.toml".into()));
        let relative = [("HOME", "/u"), ("XDG_CONFIG_HOME", "x")];
        assert_eq!(of(&relative), Some("/u/.config/voxgrain/calibration.toml".into()));
        assert_eq!(of(&[("HOME", "/u"), (ENV, "/c.toml")]), Some("/c.toml".into()));
        assert_eq!(of(&[("HOME", "/u"), (ENV, "off")]), None);
    }

    #[test]
    fn stored_costs_never_fall_on_another_kernel() {
        let costs = Costs { draft: 0.11, row: 0.15 };
        assert_eq!(stored(costs, "avx512-vnni"), costs);
        for kernel in ["avx2", "portable", "scalar", "neon", "neon-dotprod"] {
            let s = stored(costs, kernel);
            assert!(s.draft >= costs.draft && s.row > costs.row, "{kernel}: {s:?}");
        }
        let dear = Costs { draft: 2.0, row: 3.0 };
        assert_eq!(stored(dear, "portable"), dear);
    }
}
