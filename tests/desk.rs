//! What scripts and packagers use of the program: requests as lines of JSON, subtitles, man pages.
#![cfg(feature = "cli")]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use voxgrain::speech::wav::Wav;

/// A folder of its own for each test, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("voxgrain-desk-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }
    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(args: &[&str], stdin: &str) -> Output {
    let runner = std::env::var("VOXGRAIN_RUNNER").unwrap_or_default();
    let line: Vec<&str> =
        runner.split_whitespace().chain([env!("CARGO_BIN_EXE_voxgrain")]).collect();
    let mut c = Command::new(line[0]);
    c.args(&line[1..]).args(args).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    c.env_remove("VOXGRAIN_BUNDLE").env_remove("VOXGRAIN_KERNEL");
    c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = c.spawn().unwrap();
    let (mut pipe, bytes) = (child.stdin.take().unwrap(), stdin.to_owned());
    let writer = std::thread::spawn(move || {
        let _ = pipe.write_all(bytes.as_bytes());
    });
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    out
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

const TINY: &[&str] = &["say", "-q", "--bundle", "models/tiny"];

#[test]
fn lines_of_json_are_answered_by_lines() {
    let dir = Dir::new("lines");
    let (a, b) = (dir.path("a.wav"), dir.path("b.wav"));
    let long = format!("{{\"text\": \"{}\"}}", "a ".repeat(1 << 20));
    let lines = [
        format!("{{\"text\": \"Hello there.\", \"output\": \"{a}\"}}"),
        String::new(),
        format!(
            "{{\"text\": \"Hello there.\", \"voice\": \"second\", \"seed\": 9, \"output\": \"{b}\"}}"
        ),
        "{\"text\": \"Hello.\"".into(),
        "{\"text\": \"Hello.\", \"volume\": 3}".into(),
        "{\"text\": \" \", \"output\": \"x.wav\"}".into(),
        "{\"text\": \"a\", \"voice\": \"bob\", \"output\": \"x.wav\"}".into(),
        "{\"text\": \"a\", \"rate\": 9, \"output\": \"x.wav\"}".into(),
        "{\"text\": \"a\", \"output\": \"-\"}".into(),
        "{\"text\": \"a\", \"output\": \"x.mp3\"}".into(),
        long,
        format!("{{\"text\": \"Hello there.\", \"output\": \"{a}\"}}"),
    ];
    let o = run(&[TINY, &["--json-input"]].concat(), &lines.join("\n"));
    let told: Vec<Value> = String::from_utf8(o.stdout.clone())
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let numbers: Vec<u64> = told.iter().map(|t| t["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "{}", stderr(&o));
    for (line, words) in [
        (4, "\"output\": \"hello.wav\""),
        (5, "unknown field `volume`"),
        (6, "no text to speak"),
        (7, "no speaker \"bob\""),
        (8, "its rate is 1, not 9"),
        (9, "name a file"),
        (10, "ffmpeg"),
        (11, "at most"),
    ] {
        let told = told.iter().find(|t| t["line"] == line).unwrap();
        assert!(told["error"].as_str().unwrap().contains(words), "{told}");
    }
    assert_eq!((&told[1]["speaker"], &told[1]["seed"]), (&"second".into(), &9.into()));
    assert_eq!(told[0]["output"], a.as_str());
    assert!(stderr(&o).contains("8 of 12 lines"), "{}", stderr(&o));
    assert_eq!(o.status.code(), Some(2));
    // As each sounds alone.
    for (file, more) in [("a.wav", &[][..]), ("b.wav", &["--speaker", "second", "--seed", "9"])] {
        let alone = dir.path("alone.wav");
        run(&[TINY, more, &["-o", &alone, "Hello there."]].concat(), "");
        assert!(dir.read(file) == dir.read("alone.wav"), "{file}");
    }
}

/// Seconds of a time such as 00:01:02.345.
fn seconds(time: &str) -> f64 {
    let parts = time.replace(',', ".");
    parts.split(':').fold(0.0, |sum, part| 60.0 * sum + part.parse::<f64>().unwrap())
}

#[test]
fn subtitles_have_the_words_of_the_text_and_their_times() {
    let dir = Dir::new("subtitles");
    let (wav, srt, vtt) = (dir.path("o.wav"), dir.path("o.srt"), dir.path("o.vtt"));
    let text = "In 1984 Dr. Smith paid\n  $3 & left. Was he <sad>?";
    let args = ["say", "--bundle", "models/voice", "--markup", "none", "--json"];
    let o = run(&[&args[..], &["-o", &wav, "--srt", &srt, "--vtt", &vtt]].concat(), text);
    assert!(o.status.success(), "{}", stderr(&o));
    let json: Value = serde_json::from_slice(&o.stdout).unwrap();
    let sound = Wav::read(&wav).unwrap();
    let whole = sound.samples.len() as f64 / f64::from(sound.sample_rate_hz);
    let srt = String::from_utf8(dir.read("o.srt")).unwrap();
    let cues: Vec<&str> = srt.trim_end().split("\n\n").collect();
    assert_eq!(cues.len(), 2, "{srt}");
    assert!(cues[0].ends_with("\nIn 1984 Dr. Smith paid $3 & left."), "{srt}");
    let mut before = 0.0;
    for (i, cue) in cues.iter().enumerate() {
        let lines: Vec<&str> = cue.lines().collect();
        assert_eq!(lines[0], (i + 1).to_string());
        let (begin, end) = lines[1].split_once(" --> ").unwrap();
        let (begin, end) = (seconds(begin), seconds(end));
        assert!(before <= begin && begin < end && end < whole + 0.01, "{srt}");
        let chunk = &json["chunks"][i];
        assert!((chunk["start"].as_f64().unwrap() - begin).abs() < 0.001, "{chunk}");
        before = end;
    }
    let vtt = String::from_utf8(dir.read("o.vtt")).unwrap();
    assert!(vtt.starts_with("WEBVTT\n\n00:00:0"), "{vtt}");
    let (bare, times) =
        vtt.split('<').fold((String::new(), Vec::new()), |(mut bare, mut times), part| {
            match part.split_once('>') {
                Some((time, rest)) if time.len() == 12 => {
                    times.push(seconds(time));
                    bare += rest;
                }
                _ => bare += part,
            }
            (bare, times)
        });
    assert!(bare.contains("\nIn 1984 Dr. Smith paid $3 &amp; left.\n"), "{vtt}");
    assert!(bare.contains("&lt;sad&gt;?") || bare.contains("sad"), "{vtt}");
    assert!(times.len() >= 6 && times.is_sorted() && times[times.len() - 1] < whole, "{vtt}");
    // Each word that is said is told once, in order, within its sentence.
    for chunk in json["chunks"].as_array().unwrap() {
        let words = chunk["words"].as_array().unwrap();
        let said: Vec<&str> = words.iter().map(|w| w["text"].as_str().unwrap()).collect();
        let bare: String = chunk["text"].as_str().unwrap().replace([',', '.', '?', '!'], "");
        assert_eq!(said.join(" "), bare);
        let ends = |w: &Value| (w["start"].as_f64().unwrap(), w["end"].as_f64().unwrap());
        let (from, to) = (chunk["start"].as_f64().unwrap(), chunk["end"].as_f64().unwrap());
        let mut at = from;
        for word in words {
            let (start, end) = ends(word);
            assert!(at <= start + 1e-9 && start < end && end <= to + 1e-9, "{chunk}");
            at = end;
        }
    }
}

#[cfg(feature = "manual")]
#[test]
fn man_pages_and_completions_know_every_command() {
    let dir = Dir::new("manual");
    let o = run(&["manual", &dir.path("share")], "");
    assert!(o.status.success(), "{}", stderr(&o));
    let text = |name: &str| String::from_utf8(dir.read(&format!("share/{name}"))).unwrap();
    let whole = text("man/man1/voxgrain.1");
    for name in ["say", "text", "asg", "inspect", "bench", "pack"] {
        assert!(whole.contains(&format!("voxgrain\\-{name}(1)")), "{name}");
        assert!(text(&format!("man/man1/voxgrain-{name}.1")).starts_with(".ie"), "{name}");
    }
    assert!(text("man/man1/voxgrain-say.1").contains("\\-\\-json\\-input"));
    for file in [
        "bash-completion/completions/voxgrain",
        "zsh/site-functions/_voxgrain",
        "fish/vendor_completions.d/voxgrain.fish",
    ] {
        let text = text(file);
        assert!(text.contains("json-input") && text.contains("inspect"), "{file}");
    }
}
