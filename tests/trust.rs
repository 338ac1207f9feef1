//! The program among damaged files, hostile names and signals.
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use voxgrain::speech::wav::Wav;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a copy of the tiny bundle, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("voxgrain-trust-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for folder in ["models/tiny", "asg-cache"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for f in std::fs::read_dir(root().join("models/tiny")).unwrap() {
            let f = f.unwrap().path();
            std::fs::copy(&f, dir.join("models/tiny").join(f.file_name().unwrap())).unwrap();
        }
        std::fs::copy(root().join("asg-cache/tiny.asg"), dir.join("asg-cache/tiny.asg")).unwrap();
        Self(dir)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join("models/tiny").join(name)
    }
    fn edit(&self, name: &str, f: impl Fn(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        f(&mut bytes);
        std::fs::write(self.path(name), bytes).unwrap();
    }
    /// Temporary files.
    fn parts(&self) -> usize {
        let all = std::fs::read_dir(&self.0).unwrap().flatten();
        all.filter(|f| f.file_name().to_string_lossy().ends_with(".part")).count()
    }
    /// The program, which keeps its stamps in this folder.
    fn command(&self, args: &[&str]) -> Command {
        let runner = std::env::var("VOXGRAIN_RUNNER").unwrap_or_default();
        let line: Vec<&str> =
            runner.split_whitespace().chain([env!("CARGO_BIN_EXE_voxgrain")]).collect();
        let mut c = Command::new(line[0]);
        c.args(&line[1..]).args(args).current_dir(&self.0);
        c.env_remove("VOXGRAIN_BUNDLE").env("XDG_CACHE_HOME", self.path("cache"));
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        c
    }
    /// Ends after 20 seconds at most.
    fn run(&self, args: &[&str]) -> Output {
        let mut child = self.command(args).spawn().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{args:?} does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }
    fn say(&self, args: &[&str]) -> Output {
        self.run(&[&["say", "--bundle", "models/tiny"], args].concat())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refused(o: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&o.stderr);
    assert_eq!(o.status.code(), Some(code), "{text}");
    assert!(text.contains(words) && !text.contains("panicked"), "{text}");
}

fn ok(o: Output) -> Output {
    assert!(o.status.success(), "{:?}: {}", o.status, String::from_utf8_lossy(&o.stderr));
    o
}

const HELLO: &[&str] = &["-q", "-o", "x.wav", "Hello."];
const LONG: &str = "One two three and four. ";

fn wait_for(child: &mut Child, what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "never {what}");
        assert!(child.try_wait().unwrap().is_none(), "ended before it was {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Opening a pipe that nobody writes to would wait for ever.
#[test]
fn a_pipe_in_the_place_of_a_file_is_not_opened() {
    let dir = Dir::new("pipes");
    let pipe = |path: &Path| {
        let _ = std::fs::remove_file(path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe(&dir.path("pipe"));
    for args in [&["asg", "verify", "pipe"][..], &["asg", "inspect", "pipe"]] {
        refused(&dir.run(args), 3, "regular file");
    }
    refused(&dir.say(&[HELLO, &["--groups", "pipe"]].concat()), 3, "regular file");
    for name in ["asg-cache/tiny.asg", "models/tiny/target.onnx", "models/tiny/codec.onnx.data"] {
        let dir = Dir::new("pipe-in-place");
        pipe(&dir.path(name));
        let o = dir.say(HELLO);
        assert_eq!(o.status.code(), Some(3), "{name}: {}", String::from_utf8_lossy(&o.stderr));
        let o = dir.run(&["inspect", "--bundle", "models/tiny"]);
        assert_eq!(o.status.code(), Some(3), "{name}: {}", String::from_utf8_lossy(&o.stderr));
    }
    // A device is no file either.
    refused(&dir.run(&["asg", "verify", "/dev/zero"]), 3, "regular file");
    pipe(&dir.file("bundle.toml"));
    assert_eq!(dir.say(HELLO).status.code(), Some(3));
    let e = voxgrain::bundle::Bundle::open(dir.path("models/tiny")).unwrap_err();
    assert_eq!(e.kind(), voxgrain::ErrorKind::Unreadable);
}

/// Every bit of every file counts: where loading does not see it, the checksums do.
#[test]
fn say_notices_a_single_flipped_bit() {
    let dir = Dir::new("rot");
    let files =
        ["target.onnx", "target.onnx.data", "draft.onnx.data", "codec.onnx", "codec.onnx.data"];
    for name in
        files.map(|f| format!("models/tiny/{f}")).iter().chain(&["asg-cache/tiny.asg".into()])
    {
        for place in [3, 7] {
            let flip = |b: &mut Vec<u8>| {
                let at = b.len() * place / 8;
                b[at] ^= 4;
            };
            dir.edit(name, flip);
            let o = dir.say(HELLO);
            assert_eq!(o.status.code(), Some(4), "{name}: {}", String::from_utf8_lossy(&o.stderr));
            assert!(!dir.path("x.wav").exists() && dir.parts() == 0, "{name}");
            dir.edit(name, flip);
        }
    }
    ok(dir.say(HELLO));
}

/// What was found sound is not read again until it changes.
#[test]
fn a_stamp_is_believed_until_a_file_changes() {
    let dir = Dir::new("stamp");
    let stamps = || std::fs::read_dir(dir.path("cache/voxgrain")).map_or(0, Iterator::count);
    ok(dir.say(HELLO));
    assert_eq!(stamps(), 1);
    let stamp =
        std::fs::read_dir(dir.path("cache/voxgrain")).unwrap().next().unwrap().unwrap().path();
    let before = std::fs::read_to_string(&stamp).unwrap();
    ok(dir.say(HELLO));
    assert_eq!(std::fs::read_to_string(&stamp).unwrap(), before, "it was read again");
    // Too old, and of the future: read again.
    for time in ["1000000000", "99999999999", "x"] {
        let mut lines: Vec<&str> = before.lines().collect();
        lines[1] = time;
        std::fs::write(&stamp, lines.join("\n") + "\n").unwrap();
        ok(dir.say(HELLO));
        let now = std::fs::read_to_string(&stamp).unwrap();
        assert!(now.lines().nth(1) != Some(time) && now.lines().skip(2).eq(before.lines().skip(2)));
    }
    // Written again with the same length and the same time.
    let name = "models/tiny/codec.onnx.data";
    let time = std::fs::metadata(dir.path(name)).unwrap().modified().unwrap();
    dir.edit(name, |b| {
        let at = b.len() / 2;
        b[at] ^= 1;
    });
    let file = std::fs::File::options().write(true).open(dir.path(name)).unwrap();
    file.set_modified(time).unwrap();
    refused(&dir.say(HELLO), 4, "codec.onnx.data");
    // Where nothing can be kept, everything is read each time.
    let o = dir.command(&[&["say", "--bundle", "models/tiny"], HELLO].concat());
    let nowhere = |mut c: Command| c.env("XDG_CACHE_HOME", "").env("HOME", "").output().unwrap();
    refused(&nowhere(o), 4, "codec.onnx.data");
}

#[test]
fn a_cpu_that_is_not_there_is_refused_before_it_is_asked_for() {
    let dir = Dir::new("pin");
    for absent in ["1000", "0,1023", "65536", "18446744073709551615"] {
        let o = dir.say(&[HELLO, &["--pin", absent]].concat());
        refused(&o, 2, "--pin");
    }
    ok(dir.say(&[HELLO, &["--pin", &voxgrain::engine::cpus()[0].to_string()]].concat()));
}

/// A file of the bundle that is cut short while it is mapped ends the program, with a word and
/// without leavings.
#[test]
fn a_file_cut_while_it_is_used_leaves_a_message_and_no_half_file() {
    for name in ["target.onnx.data", "codec.onnx.data"] {
        let dir = Dir::new("bus");
        std::fs::write(dir.path("long.txt"), LONG.repeat(20_000)).unwrap();
        std::fs::write(dir.path("x.wav"), "the old one").unwrap();
        let args = ["say", "-q", "--bundle", "models/tiny", "-o", "x.wav", "-f", "long.txt"];
        let mut child = dir.command(&args).spawn().unwrap();
        wait_for(&mut child, "writing", || dir.parts() > 0);
        let file = std::fs::File::options().write(true).open(dir.file(name)).unwrap();
        file.set_len(4096).unwrap();
        let o = child.wait_with_output().unwrap();
        refused(&o, 135, "cut short");
        assert_eq!(dir.parts(), 0);
        assert_eq!(std::fs::read(dir.path("x.wav")).unwrap(), b"the old one");
    }
}

/// Killed at any moment, by what cannot be heard too: no half file under the output's name, and
/// the next run works and clears away.
#[test]
fn the_run_after_a_kill_works_and_clears_away() {
    let dir = Dir::new("kills");
    std::fs::write(dir.path("long.txt"), LONG.repeat(20_000)).unwrap();
    let args = ["say", "-q", "--bundle", "models/tiny", "-o", "x.wav", "-f", "long.txt"];
    for wait in [0, 5, 10, 20, 40, 80] {
        let mut child = dir.command(&args).stderr(Stdio::null()).spawn().unwrap();
        if wait == 80 {
            wait_for(&mut child, "writing", || dir.parts() > 0);
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!dir.path("x.wav").exists());
    }
    let left = dir.parts();
    assert!(left > 0, "none was killed while it wrote");
    // Younger ones may be of a writer that is about to say so.
    std::thread::sleep(Duration::from_millis(2100));
    ok(dir.say(HELLO));
    Wav::read(dir.path("x.wav")).unwrap();
    assert_eq!(dir.parts(), 0);
}

/// Peak of a process so far, in bytes.
fn peak(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A text of any length is spoken as it is read: in little memory.
#[test]
fn a_long_file_is_not_held_in_memory() {
    let dir = Dir::new("long");
    let mut peaks = Vec::new();
    for (name, text) in [
        ("one", LONG.to_owned()),
        ("digits", "9".repeat(10_000_000)),
        ("prose", LONG.repeat(10_000_000 / LONG.len())),
        ("letters", "a\n".repeat(5_000_000)),
    ] {
        std::fs::write(dir.path("text"), text).unwrap();
        let args = ["say", "-q", "--bundle", "models/tiny", "-o", "-", "--raw", "-f", "text"];
        let mut child = dir.command(&args).spawn().unwrap();
        let mut sound = vec![0; 1 << 20];
        let mut out = child.stdout.take().unwrap();
        // A mebibyte of sound is half a minute, many sentences.
        let most = if name == "one" { 1 << 10 } else { sound.len() };
        out.read_exact(&mut sound[..most]).unwrap();
        peaks.push((name, peak(&child)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    println!("{peaks:?}");
    for (name, bytes) in &peaks[1..] {
        assert!(*bytes < peaks[0].1 + (20 << 20), "{name}: {peaks:?}");
    }
}

/// A document is known as a whole only, and has an end.
#[test]
fn a_document_without_end_is_refused() {
    let dir = Dir::new("document");
    std::fs::write(dir.path("text"), format!("<speak>{}", "a ".repeat(10 << 20))).unwrap();
    refused(&dir.say(&["-q", "-o", "x.wav", "-f", "text"]), 6, "16 MiB");
    let endless = dir.run(&["text", "--lexicon", "/dev/zero", "Hi."]);
    refused(&endless, 3, "longer than");
}

/// Where a long text goes wrong is told in bytes of the whole file.
#[test]
fn the_place_of_a_wrong_byte_is_that_of_the_file() {
    let dir = Dir::new("utf8");
    // More than is read at once, and little to say.
    let mut text = format!("Hello. {}", " \n".repeat(30_000)).into_bytes();
    let at = text.len() - 10;
    text[at] = 0xff;
    std::fs::write(dir.path("text"), &text).unwrap();
    // Nothing of it is written.
    refused(
        &dir.say(&["-q", "-o", "x.wav", "--max-chars", "40", "-f", "text"]),
        6,
        &at.to_string(),
    );
    assert!(!dir.path("x.wav").exists());
}

/// Messages quote files, and a terminal obeys what it is shown.
#[test]
fn what_a_file_says_does_not_reach_the_terminal_as_it_is() {
    let dir = Dir::new("escapes");
    dir.edit("models/tiny/bundle.toml", |b| {
        let text = String::from_utf8(b.clone()).unwrap();
        *b = text.replacen("gamma = 4", "gamma = \u{1b}[2J", 1).into_bytes();
    });
    let o = dir.say(HELLO);
    assert_eq!(o.status.code(), Some(4));
    assert!(!o.stderr.contains(&0x1b) && !o.stderr.is_empty());
}

/// What is written is as long as what is told, its pauses too.
#[test]
fn seconds_are_those_of_the_file() {
    let dir = Dir::new("seconds");
    let o = ok(dir.say(&[
        "--json",
        "-o",
        "x.wav",
        "The birch canoe slid on the planks. Glue the sheet to the dark blue background.",
    ]));
    let told: serde_json::Value = serde_json::from_slice(&o.stdout).unwrap();
    let seconds = |key: &str| told[key].as_f64().unwrap();
    let wav = Wav::read(dir.path("x.wav")).unwrap();
    assert!((wav.seconds() - seconds("audio_seconds")).abs() < 1e-6, "{told}");
    assert!(seconds("speech_seconds") < seconds("audio_seconds"), "{told}");
}
