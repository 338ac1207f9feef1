//! The program as a person or a script would run it.
#![cfg(feature = "cli")]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use voxgrain::speech::wav::Wav;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of its own for each test, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("voxgrain-cli-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    /// A copy of the tiny bundle with its index, in the layout that bundle.toml expects.
    fn bundle(&self) -> PathBuf {
        let to = self.path("models/tiny");
        std::fs::create_dir_all(&to).unwrap();
        std::fs::create_dir_all(self.path("asg-cache")).unwrap();
        for f in std::fs::read_dir(root().join("models/tiny")).unwrap() {
            let f = f.unwrap().path();
            std::fs::copy(&f, to.join(f.file_name().unwrap())).unwrap();
        }
        std::fs::copy(root().join("asg-cache/tiny.asg"), self.path("asg-cache/tiny.asg")).unwrap();
        to
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, under the emulator that VOXGRAIN_RUNNER names (targets/cross/test.sh): an
/// emulated test cannot start a program of its own kind by itself.
fn command(dir: &Dir) -> Command {
    let runner = std::env::var("VOXGRAIN_RUNNER").unwrap_or_default();
    let line: Vec<&str> =
        runner.split_whitespace().chain([env!("CARGO_BIN_EXE_voxgrain")]).collect();
    let mut c = Command::new(line[0]);
    c.args(&line[1..]);
    c.current_dir(&dir.0).env_remove("VOXGRAIN_BUNDLE").env_remove("VOXGRAIN_KERNEL");
    c
}

fn run(dir: &Dir, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = command(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = pipe.write_all(&bytes);
    });
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    out
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

fn ok(o: Output) -> Output {
    assert!(o.status.success(), "exit {:?}: {}", o.status.code(), stderr(&o));
    o
}

fn json(o: &Output) -> Value {
    serde_json::from_slice(&o.stdout).unwrap_or_else(|e| {
        panic!("stdout is not one JSON object ({e}): {}", String::from_utf8_lossy(&o.stdout))
    })
}

const TINY: &[&str] = &["--bundle", "models/tiny"];

fn say(dir: &Dir, args: &[&str]) -> Output {
    run(dir, &[&["say"], TINY, args].concat(), b"")
}

#[test]
fn every_arm_writes_a_wav_and_measures_itself() {
    let dir = Dir::new("arms");
    dir.bundle();
    for arm in ["ar", "sd", "tolerance", "pcg"] {
        let o = ok(say(&dir, &["-o", "out.wav", "--json", "--arm", arm, "Hello there."]));
        let v = json(&o);
        for key in [
            "arm",
            "seed",
            "audio_seconds",
            "compute_seconds",
            "tokens",
            "tokens_per_second",
            "rounds",
            "proposed",
            "accepted",
            "acceptance_rate",
            "tokens_per_round",
            "mean_gamma",
            "first_audio_ms",
            "rtf",
            "peak_rss_bytes",
            "kernel",
            "threads",
        ] {
            assert!(v.get(key).is_some(), "{arm}: no {key} in {v}");
        }
        assert_eq!(v["arm"], arm);
        assert_eq!(v["acceptance_rate"].is_null(), arm == "ar");
        let wav = Wav::read(dir.path("out.wav")).unwrap();
        assert_eq!(wav.sample_rate_hz, 16_000);
        assert_eq!(wav.samples.len() as u64, v["tokens"].as_u64().unwrap() * 320);
        assert!((wav.seconds() - v["audio_seconds"].as_f64().unwrap()).abs() < 1e-6);
        assert!(v["rtf"].as_f64().unwrap() > 0.0);
        let status = stderr(&o);
        assert!(status.contains("wrote out.wav"), "{status}");
    }
}

#[test]
fn a_seed_fixes_the_sound_whatever_the_threads_and_the_kernel() {
    let dir = Dir::new("seed");
    dir.bundle();
    let text = &"One two three and four. And then a second sentence, to be sure! ".repeat(4);
    let bytes = |extra: &[&str], kernel: Option<&str>| {
        let mut c = command(&dir);
        c.args(["say", "-q", "--seed", "3", "-o", "x.wav"]).args(TINY).args(extra).arg(text);
        if let Some(k) = kernel {
            c.env("VOXGRAIN_KERNEL", k);
        }
        ok(c.output().unwrap());
        std::fs::read(dir.path("x.wav")).unwrap()
    };
    let want = bytes(&["--threads", "1"], None);
    assert!(want.len() > 1_500);
    for threads in ["2", "3", "8"] {
        assert_eq!(bytes(&["--threads", threads], None), want, "{threads} threads");
    }
    for kernel in voxgrain::kernel::all() {
        assert_eq!(bytes(&[], Some(kernel.name())), want, "{}", kernel.name());
    }
    assert_ne!(bytes(&["--seed", "6"], None).len(), 0);
}

#[test]
fn text_comes_from_an_argument_a_file_or_a_pipe() {
    let dir = Dir::new("sources");
    dir.bundle();
    let text = "The clock struck nine.";
    ok(say(&dir, &["-q", "-o", "a.wav", text]));
    let want = std::fs::read(dir.path("a.wav")).unwrap();
    std::fs::write(dir.path("t.txt"), text).unwrap();
    ok(say(&dir, &["-q", "-o", "b.wav", "-f", "t.txt"]));
    assert_eq!(std::fs::read(dir.path("b.wav")).unwrap(), want);
    let piped = [&["say"], TINY, &["-q", "-o", "c.wav"]].concat();
    ok(run(&dir, &piped, format!("{text}\n").as_bytes()));
    assert_eq!(std::fs::read(dir.path("c.wav")).unwrap(), want);

    // To a pipe: the same samples, with and without a header.
    let o = ok(say(&dir, &["-q", "-o", "-", text]));
    let wav = Wav::parse(&o.stdout).unwrap();
    assert_eq!(wav.samples, Wav::parse(&want).unwrap().samples);
    let o = ok(say(&dir, &["-q", "-o", "-", "--raw", text]));
    assert!(want.ends_with(&o.stdout) && o.stdout.len() == 2 * wav.samples.len());
}

#[test]
fn without_a_sound_device_a_file_is_written_and_one_line_says_so() {
    let dir = Dir::new("device");
    dir.bundle();
    // An empty ALSA configuration has no default device, also where a card exists.
    std::fs::write(dir.path("none.conf"), "").unwrap();
    let mut c = command(&dir);
    c.args(["say"]).args(TINY).arg("Hello.").env("ALSA_CONFIG_PATH", dir.path("none.conf"));
    let o = ok(c.output().unwrap());
    let text = stderr(&o);
    let lines: Vec<&str> = text.lines().filter(|l| l.contains("writing voxgrain.wav")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(Wav::read(dir.path("voxgrain.wav")).unwrap().samples.len() > 100);
}

#[test]
fn bench_compares_every_arm() {
    let dir = Dir::new("bench");
    dir.bundle();
    let args = [&["bench", "-n", "3", "--json"], TINY].concat();
    let v = json(&ok(run(&dir, &args, b"")));
    let arms = v["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert_eq!(names, ["ar", "sd", "tolerance", "pcg"]);
    assert_eq!(arms[0]["speed_up"][0], 1.0, "ar against itself");
    for a in arms {
        assert!(a["tokens"].as_u64().unwrap() > 0 && a["rtf"].as_f64().unwrap() > 0.0);
        let shares = a["share"].as_object().unwrap().values();
        let total: f64 = shares.map(|s| s.as_f64().unwrap()).sum();
        assert!(total > 0.5 && total < 1.01, "{total} of the time is told apart");
    }
    let o = ok(run(&dir, &[&["bench", "-n", "1", "--arm", "sd"], TINY].concat(), b""));
    assert!(String::from_utf8_lossy(&o.stdout).contains("| sd |"));
    std::fs::write(dir.path("none.txt"), "\n").unwrap();
    let o = run(&dir, &[&["bench", "-f", "none.txt"], TINY].concat(), b"");
    assert_eq!(o.status.code(), Some(2));
}

#[test]
fn a_batch_writes_a_file_a_line() {
    let dir = Dir::new("batch");
    dir.bundle();
    std::fs::write(dir.path("list.txt"), "First line.\n\nSecond line.\n").unwrap();
    let o = ok(say(&dir, &["--batch", "list.txt", "--out-dir", "out", "--json", "-q"]));
    let lines: Vec<Value> = String::from_utf8(o.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["text"], "Second line.");
    for v in &lines {
        let wav = Wav::read(dir.path("out").join(v["file"].as_str().unwrap())).unwrap();
        assert_eq!(wav.samples.len() as u64, 320 * v["tokens"].as_u64().unwrap());
    }
}

#[test]
fn an_index_is_built_inspected_verified_and_used() {
    let dir = Dir::new("asg");
    dir.bundle();
    let build = |args: &[&str]| {
        json(&ok(run(&dir, &[&["asg", "build", "--json"], TINY, args].concat(), b"")))
    };
    let v = build(&["--metric", "fsq-hamming", "--theta", "1", "-o", "new/h1.asg"]);
    assert_eq!(v["mean_members"], 25.0);
    let o = ok(run(&dir, &["asg", "inspect", "new/h1.asg", "--group", "7", "--json"], b""));
    let v = json(&o);
    let members = v["members"].as_array().unwrap();
    assert!(members.len() == 25 && members.contains(&7.into()));
    let total: f64 = v["weights"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-5, "every token has 25 owners");
    ok(run(&dir, &["asg", "verify", "new/h1.asg"], b""));
    ok(say(&dir, &["-q", "--groups", "new/h1.asg", "-o", "x.wav", "Hello."]));
    build(&["--metric", "fsq-l1", "--theta", "1", "--power", "2", "-o", "new/s.asg"]);
    let similar = &["-q", "--groups", "new/s.asg", "--weights", "similarity", "-o", "y.wav", "Hi."];
    ok(say(&dir, similar));
    let o = ok(run(&dir, &[&["inspect", "--json", "--verify", "--tensors"], TINY].concat(), b""));
    let v = json(&o);
    assert_eq!(v["verified"], true);
    assert!(v["target"]["tensors"].as_array().unwrap().len() > 5);
    assert_eq!(v["groups"]["metric"], "fsq-l1");
    let o = ok(run(&dir, &[&["inspect"], TINY].concat(), b""));
    assert!(String::from_utf8_lossy(&o.stdout).contains("2 layers x 64"));
}

#[test]
#[cfg(target_os = "linux")]
fn loading_a_voice_leaves_its_weights_on_disk() {
    let dir = Dir::new("rss");
    let load = |name: &str| {
        let bundle = root().join("models").join(name);
        let o = run(&dir, &["inspect", "--json", "--bundle", bundle.to_str().unwrap()], b"");
        json(&ok(o))
    };
    let (tiny, voice) = (load("tiny"), load("voice"));
    let rss = |v: &Value| v["rss_bytes"].as_u64().unwrap();
    let mapped: u64 = ["target", "draft", "codec"]
        .iter()
        .map(|m| voice[m]["mapped_bytes"].as_u64().unwrap())
        .sum();
    // Against a voice of next to no weights, so that the program itself does not count.
    let weights = rss(&voice).saturating_sub(rss(&tiny));
    assert!(weights * 5 < mapped, "{weights} of {mapped} mapped bytes are resident after loading");
}

/// Damages a copy of the bundle, runs, and expects an exit code and words in the message.
fn refused(name: &str, code: i32, words: &str, damage: impl Fn(&Dir), args: &[&str], stdin: &[u8]) {
    let dir = Dir::new(name);
    dir.bundle();
    damage(&dir);
    let before = listing(&dir.0);
    let o = run(&dir, args, stdin);
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(code), "{name}: {text}");
    assert!(text.to_lowercase().contains(words), "{name}: {text:?} does not say {words:?}");
    assert!(!text.contains("panicked") && text.len() < 2000, "{name}: {text}");
    assert_eq!(listing(&dir.0), before, "{name}: something was left behind");
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![];
    for e in std::fs::read_dir(dir).unwrap() {
        let p = e.unwrap().path();
        if p.is_dir() {
            all.extend(listing(&p));
        } else {
            all.push(p);
        }
    }
    all.sort();
    all
}

fn edit(path: PathBuf, f: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(&path).unwrap();
    f(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

const SAY: &[&str] = &["say", "--bundle", "models/tiny", "-o", "out.wav", "Hello."];
const VERIFY: &[&str] = &["inspect", "--bundle", "models/tiny", "--verify"];

#[test]
fn damaged_files_are_refused() {
    let nothing = |_: &Dir| {};
    refused("no-bundle", 3, "bundle", nothing, &["say", "--bundle", "nowhere", "Hi."], b"");
    for f in ["bundle.toml", "target.onnx", "target.onnx.data", "draft.onnx", "codec.onnx.data"] {
        let gone = |d: &Dir| std::fs::remove_file(d.path("models/tiny").join(f)).unwrap();
        refused("gone", 3, f, gone, SAY, b"");
    }
    for f in ["target.onnx", "target.onnx.data", "draft.onnx.data", "codec.onnx"] {
        let cut = |d: &Dir| edit(d.path("models/tiny").join(f), |b| b.truncate(b.len() / 2));
        refused("cut", 4, f, cut, SAY, b"");
        let empty = |d: &Dir| edit(d.path("models/tiny").join(f), |b| b.clear());
        refused("empty", 4, f, empty, SAY, b"");
        let flipped = |d: &Dir| {
            edit(d.path("models/tiny").join(f), |b| {
                let n = b.len();
                b[n / 2] ^= 1
            })
        };
        refused("flipped", 4, f, flipped, VERIFY, b"");
    }
    let swapped = |d: &Dir| {
        let t = d.path("models/tiny");
        std::fs::rename(t.join("target.onnx.data"), t.join("x")).unwrap();
        std::fs::rename(t.join("draft.onnx.data"), t.join("target.onnx.data")).unwrap();
        std::fs::rename(t.join("x"), t.join("draft.onnx.data")).unwrap();
    };
    refused("swapped", 4, "bytes", swapped, SAY, b"");
    let toml = |f: fn(&str) -> String| {
        move |d: &Dir| {
            edit(d.path("models/tiny/bundle.toml"), |b| {
                *b = f(std::str::from_utf8(b).unwrap()).into_bytes()
            })
        }
    };
    let sha = toml(|t| {
        let at = t.find("sha256 = \"").unwrap() + 10;
        format!("{}{}{}", &t[..at], "0".repeat(64), &t[at + 64..])
    });
    refused("wrong-sha", 4, "sha-256", sha, VERIFY, b"");
    refused("garbage", 4, "bundle.toml", toml(|_| "\u{0}{{{".into()), SAY, b"");
    let unknown = toml(|t| t.replace("format = 1", "format = 1\nsurprise = true"));
    refused("unknown-key", 4, "surprise", unknown, SAY, b"");
    refused("version", 4, "format", toml(|t| t.replace("format = 1", "format = 99")), SAY, b"");
    let shape = toml(|t| t.replacen("hidden = 64", "hidden = 63", 1));
    refused("shape", 4, "hidden", shape, SAY, b"");
    let binary = |d: &Dir| edit(d.path("models/tiny/bundle.toml"), |b| b.fill(0xff));
    refused("binary", 4, "bundle.toml", binary, SAY, b"");
}

#[test]
fn damaged_and_foreign_indexes_are_refused() {
    let index = |f: fn(&mut Vec<u8>)| move |d: &Dir| edit(d.path("asg-cache/tiny.asg"), f);
    let verify: &[&str] = &["asg", "verify", "asg-cache/tiny.asg"];
    refused("asg-cut", 4, "tiny.asg", index(|b| b.truncate(b.len() - 9)), SAY, b"");
    refused("asg-magic", 4, "tiny.asg", index(|b| b[0] ^= 0xff), SAY, b"");
    let flip = index(|b| {
        let n = b.len();
        b[n / 2] ^= 16
    });
    refused("asg-flip", 4, "tiny.asg", flip, verify, b"");
    let foreign = |d: &Dir| {
        edit(d.path("models/tiny/bundle.toml"), |b| {
            let t = String::from_utf8(b.clone()).unwrap();
            let block = t.find("path = \"target.onnx.data\"").unwrap();
            let at = block + t[block..].find("sha256 = \"").unwrap() + 10;
            *b = format!("{}{}{}", &t[..at], "a".repeat(64), &t[at + 64..]).into_bytes();
        })
    };
    refused("asg-foreign", 4, "another target", foreign, SAY, b"");
    let gone = |d: &Dir| std::fs::remove_file(d.path("asg-cache/tiny.asg")).unwrap();
    refused("asg-gone", 2, "index", gone, SAY, b"");
    refused("asg-gone-verify", 3, "tiny.asg", gone, verify, b"");
    let group: &[&str] = &["asg", "inspect", "asg-cache/tiny.asg", "--group", "65536"];
    refused("asg-group", 2, "65536", |_| {}, group, b"");
}

#[test]
fn text_that_cannot_be_spoken_is_refused() {
    let pipe: &[&str] = &["say", "--bundle", "models/tiny", "-o", "out.wav"];
    let emoji = "\u{1f9ff}".repeat(50_000);
    let nothing = |_: &Dir| {};
    for (name, text) in [
        ("t-empty", &b""[..]),
        ("t-blank", b"   \n\n \t \n"),
        ("t-marks", b"... --- !!! ()\n"),
        ("t-script", "\u{5317}\u{4eac}".as_bytes()),
        ("t-emoji", emoji.as_bytes()),
        ("t-binary", &[0xff, 0xfe, 0, 1, 2, 0x80]),
    ] {
        refused(name, 6, "", nothing, pipe, text);
    }
    refused("t-arg", 6, "", nothing, &["say", "--bundle", "models/tiny", "-o", "o.wav", ""], b"");
    refused("t-file", 3, "nowhere.txt", nothing, &[pipe, &["-f", "nowhere.txt"]].concat(), b"");
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    let nothing = |_: &Dir| {};
    let to = |path: &'static str| ["say", "--bundle", "models/tiny", "-o", path, "Hello."];
    refused("o-folder", 5, "models", nothing, &to("models"), b"");
    refused("o-nowhere", 5, "nowhere", nothing, &to("nowhere/out.wav"), b"");
    refused("o-device", 5, "full", nothing, &to("/dev/full/x.wav"), b"");
    let asg: &[&str] = &[
        "asg",
        "build",
        "--bundle",
        "models/tiny",
        "--metric",
        "fsq-l1",
        "--theta",
        "0",
        "-o",
        "models",
    ];
    refused("o-asg", 5, "models", nothing, asg, b"");
    // A reader that goes away ends the program without noise from the runtime.
    let dir = Dir::new("o-pipe");
    dir.bundle();
    let mut c = command(&dir);
    c.args(["say"]).args(TINY).args(["-o", "-", "Hello there, this goes on for a while."]);
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let o = child.wait_with_output().unwrap();
    assert_eq!(o.status.code(), Some(5), "{}", stderr(&o));
    assert!(!stderr(&o).contains("panicked"));
}

#[test]
fn absurd_options_are_refused() {
    let nothing = |_: &Dir| {};
    for (i, (args, words)) in [
        (&["--gamma", "99"][..], "gamma"),
        (&["--gamma", "-1"], "gamma"),
        (&["--temperature", "-1"], "temperature"),
        (&["--temperature", "NaN"], "temperature"),
        (&["--temperature", "inf"], "temperature"),
        (&["--top-p", "0"], "top-p"),
        (&["--top-p", "1.5"], "top-p"),
        (&["--min-p", "2"], "min-p"),
        (&["--top-k", "-5"], "top-k"),
        (&["--arm", "best"], "possible values"),
        (&["--arm", "tolerance", "--beta", "7"], "beta"),
        (&["--threads", "0"], "threads"),
        (&["--threads", "100000"], "threads"),
        (&["--max-chars", "1"], "characters"),
        (&["--seed", "1e99"], "seed"),
        (&["--raw"], "--raw"),
        (&["--json", "-o", "-"], "stdout"),
        (&["--weights", "similarity"], "no similarities"),
        (&["--nonsense"], "--nonsense"),
        (&["--batch", "x"], "--batch"),
    ]
    .into_iter()
    .enumerate()
    {
        let all = [&["say", "--bundle", "models/tiny", "Hello."], args].concat();
        refused(&format!("option-{i}"), 2, words, nothing, &all, b"");
    }
    refused("no-command", 2, "usage", nothing, &[], b"");
    let asg: &[&str] = &["asg", "build", "--bundle", "models/tiny", "-o", "x.asg"];
    for (name, args, words) in [
        ("asg-k", &["--family", "top-k"][..], "--k"),
        ("asg-theta", &["--metric", "euclidean"], "--theta"),
        ("asg-nan", &["--theta", "NaN"], "theta"),
        ("asg-power", &["--metric", "fsq-l1", "--theta", "1", "--power", "-1"], "power"),
    ] {
        refused(name, 2, words, nothing, &[asg, args].concat(), b"");
    }
}

#[test]
fn help_teaches_by_example() {
    let dir = Dir::new("help");
    for args in
        [&["--help"][..], &["say", "--help"], &["asg", "build", "--help"], &["inspect", "--help"]]
    {
        let o = ok(run(&dir, args, b""));
        let text = String::from_utf8(o.stdout).unwrap();
        assert!(text.contains("Examples:") && text.contains("voxgrain "), "{args:?}");
    }
    let o = ok(run(&dir, &["--version"], b""));
    assert!(String::from_utf8_lossy(&o.stdout).contains(env!("CARGO_PKG_VERSION")));
}
