//! Costs that are measured on the machine and kept: the file, who uses it, and how to leave it
//! alone.
#![cfg(feature = "engine")]

use std::path::{Path, PathBuf};
use voxgrain::decode::{Costs, DraftLength};
use voxgrain::engine::Pool;
use voxgrain::speech::calibrate::measure;
use voxgrain::speech::calibration::{Calibration, Entry, stored};
use voxgrain::{ErrorKind, Voice, kernel};

/// A folder of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let name = format!("voxgrain-calibration-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tiny() -> Voice {
    Voice::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap()
}

#[test]
fn what_is_kept_is_found_again_for_the_same_machine_alone() {
    let dir = Dir::new("kept");
    // The folder above is made too.
    let path = dir.0.join("deep/calibration.toml");
    let voice = tiny();
    let costs = Costs { draft: 0.07, row: 0.21 };
    let mut kept = Calibration::default();
    kept.set(Entry::of(voice.bundle(), "avx2", 2, Costs { draft: 9.0, row: 9.0 }));
    kept.set(Entry::of(voice.bundle(), "avx2", 2, costs));
    kept.set(Entry::of(voice.bundle(), "avx2", 1, Costs { draft: 0.5, row: 0.5 }));
    assert_eq!(kept.entries().len(), 2);
    kept.write(&path).unwrap();
    let read = Calibration::read(&path).unwrap();
    assert_eq!(read, kept);
    let of = |kernel, threads| read.costs(voice.bundle(), kernel, threads);
    assert_eq!(of("avx2", 2), Some(costs));
    assert_eq!((of("avx2", 3), of("scalar", 2)), (None, None));
    let elsewhere = Entry { cpu: "another".into(), ..kept.entries()[0].clone() };
    let mut other = Calibration::default();
    other.set(elsewhere);
    assert_eq!(other.costs(voice.bundle(), "avx2", 2), None);
    // Nothing but the file is left.
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
}

#[test]
fn a_file_that_is_none_is_refused_with_what_to_do() {
    let dir = Dir::new("bad");
    std::fs::create_dir_all(&dir.0).unwrap();
    let path = dir.0.join("calibration.toml");
    let entry = |draft: &str| {
        format!(
            "format = 1\n[[costs]]\ncpu = \"\"\nkernel = \"avx2\"\nthreads = 1\ntarget = \"\"\n\
             draft = \"\"\ndraft_cost = {draft}\nrow_cost = 0.1\n"
        )
    };
    std::fs::write(&path, entry("0.1")).unwrap();
    assert_eq!(Calibration::read(&path).unwrap().entries().len(), 1);
    let long = format!("format = 1\n#{}", "x".repeat(2 << 20));
    for text in ["", "format = 2", "format = 1\nmore = 1", &entry("-1.0"), &entry("nan"), &long] {
        std::fs::write(&path, text).unwrap();
        match Calibration::read(&path) {
            // Cut behind its first line, a comment is still one.
            Ok(read) => assert!(text.len() > 1 << 20 && read.entries().is_empty()),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
                assert!(e.to_string().contains("voxgrain calibrate"), "{e}");
            }
        }
    }
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(Calibration::read(&path).unwrap_err().kind(), ErrorKind::Unreadable);
}

#[test]
fn a_voice_drafts_by_what_was_measured_of_it() {
    let voice = tiny();
    let (kernel, threads) = (kernel::best(), 3);
    assert_eq!(
        voice.draft_length_on(kernel, threads),
        DraftLength::Fixed(voice.bundle().sampling.gamma)
    );
    assert!(!voice.is_calibrated(kernel, threads));
    let costs = Costs { draft: 0.3, row: 0.2 };
    let mut kept = Calibration::default();
    kept.set(Entry::of(voice.bundle(), kernel.name(), threads, costs));
    let voice = voice.with_calibration(Some(kept));
    assert_eq!(voice.draft_length_on(kernel, threads), DraftLength::Adaptive(costs));
    assert!(voice.is_calibrated(kernel, threads));
    // Another number of threads was not measured.
    assert_eq!(voice.costs(kernel, threads + 1), None);
    let voice = voice.with_calibration(None);
    assert_eq!(voice.costs(kernel, threads), None);
}

#[test]
fn costs_that_a_voice_stores_are_raised_for_narrower_kernels() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/voice");
    if !dir.exists() {
        return;
    }
    let voice = Voice::open(dir).unwrap();
    let s = &voice.bundle().sampling;
    let costs = Costs { draft: s.draft_cost.unwrap(), row: s.row_cost.unwrap() };
    for kernel in kernel::all() {
        let safe = stored(costs, kernel.name());
        assert_eq!(voice.costs(kernel, 1), Some(safe));
        assert!(safe.draft >= costs.draft && safe.row >= costs.row);
        assert_eq!(voice.draft_length_on(kernel, 1), DraftLength::Adaptive(safe));
    }
}

#[test]
fn measuring_gives_costs_that_can_be_used() {
    let voice = tiny();
    let pool = Pool::new(kernel::best(), 1);
    let mut told = Vec::new();
    let measured = measure(&voice, &pool, 5, |n| told.push(n)).unwrap();
    assert_eq!(told, [1, 2, 3, 4, 5]);
    assert!(measured.costs.are_valid() && measured.costs.draft > 0.0, "{measured:?}");
    assert!(measured.quartiles.0 <= measured.quartiles.1 && !measured.pass.is_zero());
    assert_eq!(measure(&voice, &pool, 0, |_| ()).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[cfg(feature = "cli")]
mod program {
    use super::*;
    use serde_json::Value;
    use std::process::{Command, Output};

    fn run(dir: &Dir, setting: Option<&str>, args: &[&str]) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_voxgrain"));
        c.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
        c.env("XDG_CONFIG_HOME", &dir.0).env_remove("VOXGRAIN_CALIBRATION");
        if let Some(setting) = setting {
            c.env("VOXGRAIN_CALIBRATION", setting);
        }
        c.output().unwrap()
    }

    #[test]
    fn calibrate_keeps_costs_and_bench_says_so() {
        let dir = Dir::new("program");
        let path = dir.0.join("voxgrain/calibration.toml");
        let args =
            ["calibrate", "--bundle", "models/tiny", "--pairs", "2", "--threads", "2", "--json"];
        let o = run(&dir, None, &[&args[..], &["--dry-run"]].concat());
        assert!(o.status.success() && !path.exists());
        let o = run(&dir, Some("off"), &args);
        assert_eq!(o.status.code(), Some(2));
        let o = run(&dir, None, &args);
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
        let told: Value = serde_json::from_slice(&o.stdout).unwrap();
        let kept = Calibration::read(&path).unwrap();
        let [entry] = kept.entries() else { panic!("{kept:?}") };
        assert_eq!((entry.threads, told["costs"][0]["threads"].as_u64()), (2, Some(2)));
        let told = told["costs"][0]["row_cost"].as_f64().unwrap();
        assert!((told - f64::from(entry.row_cost)).abs() < 1e-6);

        let bench = |setting, threads| {
            let args = ["bench", "--bundle", "models/tiny", "--quick", "--no-cold-start", "--json"];
            let o = run(&dir, setting, &[&args[..], &["--cold=3", "--threads", threads]].concat());
            assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
            serde_json::from_slice::<Value>(&o.stdout).unwrap()
        };
        let report = bench(None, "2");
        let costs = &report["settings"]["costs"];
        assert!(costs["calibrated"] == true && costs["row"].as_f64().is_some(), "{costs}");
        assert_eq!(report["settings"]["emptied_bytes"].as_u64(), Some(3 << 20));
        for arm in report["arms"].as_array().unwrap().iter().filter(|a| a["arm"] != "ar") {
            let drafted = arm["mean_gamma"].as_f64().unwrap() > 0.0;
            assert_eq!(arm["costs"]["draft"].as_f64().is_some(), drafted, "{}", arm["costs"]);
        }
        // Neither another number of threads nor one who says `off` has them.
        for report in [bench(None, "1"), bench(Some("off"), "2")] {
            assert!(report["settings"]["costs"].is_null(), "{}", report["settings"]);
        }
        // A damaged file is said, and does not stop anybody from speaking.
        std::fs::write(&path, "format = 9").unwrap();
        let wav = dir.0.join("x.wav");
        let say = ["say", "--bundle", "models/tiny", "-o", wav.to_str().unwrap(), "one two."];
        let o = run(&dir, None, &say);
        assert!(
            o.status.success() && String::from_utf8_lossy(&o.stderr).contains("no calibration")
        );
        assert_eq!(run(&dir, None, &args).status.code(), Some(4));
    }
}
