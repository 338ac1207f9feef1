//! The program as a person or a script would run it.
#![cfg(feature = "cli")]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use voxgrain::asg::{BuildOptions, Index, IndexBuilder};
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
    let runner = runner();
    let line: Vec<&str> =
        runner.split_whitespace().chain([env!("CARGO_BIN_EXE_voxgrain")]).collect();
    let mut c = Command::new(line[0]);
    c.args(&line[1..]);
    c.current_dir(&dir.0).env_remove("VOXGRAIN_BUNDLE").env_remove("VOXGRAIN_KERNEL");
    c.env("VOXGRAIN_CALIBRATION", "off");
    c
}

fn runner() -> String {
    std::env::var("VOXGRAIN_RUNNER").unwrap_or_default()
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

/// What belongs to acceptance by group alone asks for that arm.
#[test]
fn the_default_arm_is_transport_unless_options_are_of_groups() {
    let dir = Dir::new("default-arm");
    dir.bundle();
    let arm = |extra: &[&str]| {
        let o = ok(say(&dir, &[extra, &["-o", "o.wav", "--json", "Hi."]].concat()));
        json(&o)["arm"].as_str().unwrap().to_owned()
    };
    assert_eq!(arm(&[]), "transport");
    assert_eq!(arm(&["--emission", "resample"]), "pcg");
    assert_eq!(arm(&["--emission", "resample", "--arm", "sd"]), "sd");
    let built =
        ["asg", "build", "--metric", "fsq-l1", "--family", "top-k", "--k", "4", "-o", "k.asg"];
    ok(run(&dir, &[&built[..], TINY].concat(), b""));
    assert_eq!(arm(&["--groups", "k.asg"]), "pcg");
    std::fs::remove_file(dir.path("asg-cache/tiny.asg")).unwrap();
    assert_eq!(arm(&[]), "sd");
    let o = ok(say(&dir, &["-o", "o.wav", "Hi."]));
    assert!(stderr(&o).contains("voxgrain asg build"), "{}", stderr(&o));
}

#[test]
fn every_arm_writes_a_wav_and_measures_itself() {
    let dir = Dir::new("arms");
    dir.bundle();
    for arm in ["ar", "sd", "tolerance", "pcg", "transport"] {
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
        // What was said when, without a gap.
        let mut at = 0.0;
        for chunk in v["chunks"].as_array().unwrap() {
            assert!(!chunk["text"].as_str().unwrap().is_empty());
            assert_eq!(chunk["start"].as_f64(), Some(at));
            at = chunk["end"].as_f64().unwrap();
        }
        assert_eq!(v["chunks"].as_array().unwrap().len() as u64, v["stretches"].as_u64().unwrap());
        assert!((at - wav.seconds()).abs() < 1e-6, "{v}");
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
    let groups = bytes(&["--arm", "pcg", "--threads", "1"], None);
    assert_ne!(groups, want, "another rule, other choices");
    for threads in ["1", "2", "3"] {
        assert_eq!(bytes(&["--arm", "pcg", "--threads", threads], None), groups);
    }
    for kernel in voxgrain::kernel::all() {
        assert_eq!(bytes(&[], Some(kernel.name())), want, "{}", kernel.name());
    }
    assert_ne!(bytes(&["--seed", "6"], None).len(), 0);
}

#[test]
fn transport_needs_a_symmetric_index() {
    let dir = Dir::new("one-way");
    dir.bundle();
    let known = Index::open(std::fs::read(dir.path("asg-cache/tiny.asg")).unwrap()).unwrap();
    // Every token lists the next one, which does not list it.
    let n = known.header().codebook;
    let lists: Vec<Vec<(u32, f32)>> = (0..n).map(|g| vec![((g + 1) % n, 0.5)]).collect();
    let options =
        BuildOptions { weights_sha256: known.header().weights_sha256, ..Default::default() };
    let built = IndexBuilder::from_lists(&lists, &options).unwrap();
    std::fs::write(dir.path("one-way.asg"), built.to_bytes().unwrap().0).unwrap();

    let groups = &["--groups", "one-way.asg"];
    let with = |arm| say(&dir, &[&groups[..], &["-o", "x.wav", "--arm", arm, "Hi."]].concat());
    ok(with("pcg"));
    std::fs::remove_file(dir.path("x.wav")).unwrap();
    let o = with("transport");
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(2), "{text}");
    assert!(text.contains("symmetric") && text.contains("voxgrain asg build"), "{text}");
    assert!(!dir.path("x.wav").exists());
    // The benchmark leaves out what the index does not allow, unless it was asked for.
    let quick = &["--quick", "--no-cold-start", "-n", "1", "--json"];
    let o = ok(bench(&dir, &[&groups[..], quick].concat()));
    assert!(stderr(&o).contains("without the arm transport"));
    let v = json(&o);
    let arms: Vec<&str> =
        v["arms"].as_array().unwrap().iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert_eq!(arms, ["ar", "sd", "tolerance", "pcg"]);
    let o = bench(&dir, &[&groups[..], quick, &["--arm", "transport"]].concat());
    assert_eq!(o.status.code(), Some(2));
}

#[test]
fn a_bundle_speaks_as_each_of_its_speakers() {
    let dir = Dir::new("speakers");
    dir.bundle();
    let spoken = |extra: &[&str]| {
        let o = ok(say(&dir, &[&["-o", "x.wav", "--json", "Hello there."], extra].concat()));
        (
            json(&o)["speaker"].as_str().unwrap().to_owned(),
            std::fs::read(dir.path("x.wav")).unwrap(),
        )
    };
    let default = spoken(&[]);
    assert_eq!(default.0, "first");
    assert_eq!(spoken(&["--speaker", "first"]), default);
    let other = spoken(&["--speaker", "second"]);
    // Its name of before.
    assert_eq!(other.0, "second");
    assert!(other.1 != default.1 && other == spoken(&["--voice", "second"]));

    // A batch and bench take the same option, and all say which voices there are.
    std::fs::write(dir.path("lines.txt"), "Hello there.\n").unwrap();
    let batch = ["--batch", "lines.txt", "--out-dir", "out", "--voice", "second"];
    ok(say(&dir, &batch));
    assert_eq!(std::fs::read(dir.path("out/00000.wav")).unwrap(), other.1);
    let one = ["--quick", "--arm", "ar", "-n", "1", "--json", "--voice", "second"];
    assert_eq!(json(&ok(bench(&dir, &one)))["voice"]["speaker"], "second");
    let text = ok(run(&dir, &[&["inspect"], TINY].concat(), b""));
    for line in ["first: noise, the first kind (default)", "second: noise, the second kind\n"] {
        assert!(stdout(&text).contains(line), "{}", stdout(&text));
    }
    let all = json(&ok(run(&dir, &[&["inspect", "--json"], TINY].concat(), b"")));
    assert_eq!(all["speakers"][1]["name"], "second");
    assert_eq!(all["speakers"][1]["begin"], 65539);
    for o in [
        say(&dir, &["-o", "y.wav", "--voice", "third", "Hi."]),
        bench(&dir, &["--quick", "--speaker", "third"]),
    ] {
        assert_eq!(o.status.code(), Some(2), "{}", stderr(&o));
        assert!(stderr(&o).contains("it has first, second"), "{}", stderr(&o));
    }
    assert!(!dir.path("y.wav").exists());
    let help = ok(run(&dir, &["say", "--help"], b""));
    assert!(stdout(&help).contains("voxgrain inspect"), "{}", stdout(&help));
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
fn without_a_sound_device_a_file_is_written_if_that_is_asked_for() {
    let dir = Dir::new("device");
    dir.bundle();
    // An empty ALSA configuration has no default device, also where a card exists.
    std::fs::write(dir.path("none.conf"), "").unwrap();
    let plays = |extra: &[&str]| {
        let mut c = command(&dir);
        c.args(["say"]).args(TINY).args(extra).arg("Hello.");
        c.env("ALSA_CONFIG_PATH", dir.path("none.conf")).output().unwrap()
    };
    let o = plays(&[]);
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(7), "{text}");
    for way in ["voxgrain say --fallback", "voxgrain say -o voxgrain.wav"] {
        assert!(text.contains(way), "{text}");
    }
    assert!(!dir.path("voxgrain.wav").exists());

    let text = stderr(&ok(plays(&["--fallback"])));
    let lines: Vec<&str> = text.lines().filter(|l| l.contains("writing voxgrain.wav")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(Wav::read(dir.path("voxgrain.wav")).unwrap().samples.len() > 100);
    // A file that is asked for is no fallback.
    ok(plays(&["-o", "named.wav"]));
    Wav::read(dir.path("named.wav")).unwrap();
}

#[test]
fn a_name_of_another_format_is_refused() {
    let nothing = |_: &Dir| {};
    let say = ["say", "--bundle", "models/tiny", "Hello."];
    for (i, (args, words)) in [
        (&["-o", "x.mp3"][..], "ffmpeg"),
        (&["-o", "x.txt"], "(.wav)"),
        (&["-o", "x.raw"], "add --raw"),
        (&["-o", "x.wav", "--raw"], "leave out --raw"),
    ]
    .into_iter()
    .enumerate()
    {
        refused(&format!("format-{i}"), 2, words, nothing, &[&say[..], args].concat(), b"");
    }
}

/// A WAV file as anybody's reader wants it: both lengths are those of the file.
fn lengths(bytes: &[u8]) -> (usize, usize) {
    let at = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap()) as usize;
    (at(4), at(40))
}

#[cfg(target_os = "linux")]
#[test]
fn sound_through_standard_output_is_a_whole_file_where_it_goes_to_one() {
    let dir = Dir::new("stdout-file");
    dir.bundle();
    let shell = |script: &str| {
        let mut c = Command::new("sh");
        let program = command(&dir);
        c.arg("-c").arg(script).arg("sh").arg(program.get_program()).args(program.get_args());
        ok(c.current_dir(&dir.0).output().unwrap());
    };
    const LINE: &str = "say -q --bundle models/tiny";
    ok(say(&dir, &["-q", "-o", "want.wav", "Hello."]));
    let want = std::fs::read(dir.path("want.wav")).unwrap();
    for (name, script) in [
        ("a", format!("\"$@\" {LINE} -o - Hello. > a")),
        ("b", format!("\"$@\" {LINE} -o - Hello. >> b")),
        ("c", format!("\"$@\" {LINE} -o /dev/stdout Hello. > c")),
    ] {
        shell(&script);
        assert_eq!(std::fs::read(dir.path(name)).unwrap(), want, "{name}");
    }
    // What others write before and after stays, and the lengths are still those of the sound.
    for (name, to) in [("d", ">"), ("e", ">>")] {
        for out in ["-", "/dev/stdout"] {
            let _ = std::fs::remove_file(dir.path(name));
            shell(&format!("(echo HEAD; \"$@\" {LINE} -o {out} Hello.; echo TAIL) {to} {name}"));
            let bytes = std::fs::read(dir.path(name)).unwrap();
            assert_eq!(bytes, [b"HEAD\n", &want[..], b"TAIL\n"].concat(), "{name} {out}");
        }
    }
    // A pipe has no lengths, and bare samples no header.
    let o = ok(say(&dir, &["-q", "-o", "-", "Hello."]));
    assert_eq!(lengths(&o.stdout), (u32::MAX as usize, u32::MAX as usize));
    assert_eq!(lengths(&want), (want.len() - 8, want.len() - 44));
    shell(&format!("\"$@\" {LINE} -o - --raw Hello. > raw"));
    assert_eq!(std::fs::read(dir.path("raw")).unwrap(), &want[44..]);
}

#[test]
fn speech_that_is_cut_has_an_exit_code_and_is_counted_once() {
    let dir = Dir::new("cut");
    dir.bundle();
    // So hot that the voice never draws its end.
    let hot = ["--temperature", "100"];
    let o = say(&dir, &[&hot[..], &["-o", "x.wav", "--json", "Hi, a boat."]].concat());
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(8), "{text}");
    assert!(text.contains("1 of 1 stretches"), "{text}");
    assert_eq!((&json(&o)["cut"], &json(&o)["stretches"]), (&1.into(), &1.into()));
    // All that was spoken is there.
    let samples = Wav::read(dir.path("x.wav")).unwrap().samples.len() as u64;
    assert_eq!(samples, 320 * json(&o)["tokens"].as_u64().unwrap());
    std::fs::write(dir.path("two.txt"), "Hi, a boat.\nAnother one.\n").unwrap();
    let o = say(&dir, &[&hot[..], &["--batch", "two.txt", "--out-dir", "out"]].concat());
    assert_eq!(o.status.code(), Some(8), "{}", stderr(&o));
    assert!(stderr(&o).contains("2 of 2 stretches"), "{}", stderr(&o));
    Wav::read(dir.path("out/00001.wav")).unwrap();
}

fn bench(dir: &Dir, args: &[&str]) -> Output {
    // An emulated program cannot start another of its kind.
    let cold = "--no-cold-start";
    let without: &[&str] = if runner().is_empty() || args.contains(&cold) { &[] } else { &[cold] };
    run(dir, &[&["bench"], TINY, args, without].concat(), b"")
}

fn stdout(o: &Output) -> &str {
    std::str::from_utf8(&o.stdout).unwrap()
}

/// Every number under `v` is finite (JSON has no other) and none is negative.
fn no_negative(v: &Value, at: &str) {
    match v {
        Value::Number(n) => assert!(n.as_f64().unwrap() >= 0.0, "{at} is {n}"),
        Value::Array(a) => {
            a.iter().enumerate().for_each(|(i, v)| no_negative(v, &format!("{at}[{i}]")))
        }
        Value::Object(o) => o.iter().for_each(|(k, v)| no_negative(v, &format!("{at}.{k}"))),
        _ => {}
    }
}

#[test]
fn bench_measures_every_arm() {
    let dir = Dir::new("bench");
    dir.bundle();
    // A seed with which the random tiny voice says something in every utterance.
    let v = json(&ok(bench(&dir, &["--quick", "--json", "--seed", "4"])));
    no_negative(&v, "");
    let arms = v["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert_eq!(names, ["ar", "sd", "tolerance", "pcg", "transport"]);
    assert_eq!(arms[0]["speed_up"], serde_json::json!([1.0, 1.0, 1.0]), "ar against itself");
    for a in arms {
        assert!(a["tokens"].as_u64().unwrap() > 0 && a["rtf"].as_f64().unwrap() > 0.0);
        let share: f64 =
            a["share"].as_object().unwrap().values().map(|s| s.as_f64().unwrap()).sum();
        assert!((share - 1.0).abs() < 1e-9, "{share}");
        for spread in [
            "first_token_ms",
            "first_audio_ms",
            "token_ms",
            "round_ms",
            "codec_token_ms",
            "utterance_rtf",
        ] {
            let get = |k: &str| a[spread][k].as_f64().unwrap_or_else(|| panic!("{spread}.{k}"));
            assert!(
                get("p50") <= get("p95") && get("p95") <= get("p99") && get("p99") <= get("max")
            );
            assert!(get("n") >= 3.0);
        }
        let drafted = a["proposed_at"].as_array().unwrap().len();
        assert_eq!(drafted, if a["arm"] == "ar" { 0 } else { 4 });
        for (p, k) in
            a["proposed_at"].as_array().unwrap().iter().zip(a["accepted_at"].as_array().unwrap())
        {
            assert!(k.as_u64() <= p.as_u64());
        }
        let lengths: u64 =
            a["accepted_lengths"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
        assert!(lengths <= a["rounds"].as_u64().unwrap());
        assert_eq!(a["playback"]["simulated"], true);
        assert!(a["playback"]["trace"].as_array().unwrap().len() > 2);
        assert_eq!(a["token_ms_percentiles"].as_array().unwrap().len(), 101);
    }
    let machine = &v["machine"];
    assert!(machine["kernels"].as_array().unwrap().contains(&machine["kernel"]));
    assert!(machine["threads"].as_u64().unwrap() >= 1 && machine["cores"].as_u64().unwrap() >= 1);
    for key in ["governor", "board", "cpu", "memory_bytes"] {
        assert!(machine.get(key).is_some(), "{key}: known or null, but there");
    }
    for key in ["celsius_max", "mhz_max", "others_share"] {
        assert!(v["conditions"].get(key).is_some(), "{key}");
    }
    assert!(!v["build"]["commit"].as_str().unwrap().is_empty());
    assert_eq!(v["voice"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(v["voice"]["groups_sha256"].as_str().unwrap().len(), 64);
    let cold = &v["cold_start"];
    assert_eq!(cold.is_object(), runner().is_empty());
    if cold.is_object() {
        assert!(cold["warm"]["first_audio_ms"]["p50"].as_f64().unwrap() > 0.0);
        assert!(cold["cold"].is_object() != cold["cold_note"].is_string(), "measured, or why not");
    }
    let memory = &cold["memory"];
    if cold.is_object() && cfg!(target_os = "linux") {
        let peak = memory["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak >= memory["steady"]["total"].as_u64().unwrap());
        assert!(peak >= memory["loaded"]["total"].as_u64().unwrap());
    }
    let said = v["utterances"].as_array().unwrap();
    assert_eq!(said.len(), 15);
    // Every arm has every turn, and each sentence is spoken by all arms before the next.
    for (i, u) in said.iter().enumerate() {
        assert_eq!(
            (u["utterance"].as_u64(), u["turn"].as_u64()),
            (Some(i as u64 / 5), Some(i as u64 % 5))
        );
    }
}

#[test]
fn bench_writes_every_format() {
    let dir = Dir::new("bench-formats");
    dir.bundle();
    let args = [
        "--quick",
        "--no-cold-start",
        "--set",
        "short",
        "--json=a.json",
        "--csv=a.csv",
        "--html=a.html",
    ];
    let o = ok(bench(&dir, &args));
    let markdown = stdout(&o);
    for heading in [
        "## Arms",
        "## Latency",
        "## By length",
        "## Where",
        "## Acceptance",
        "## Playback, simulated",
        "## Start and memory",
    ] {
        assert!(markdown.contains(heading), "no {heading}");
    }
    // A table's rows have as many cells as its head.
    for table in markdown.split("\n\n").filter(|t| t.starts_with('|')) {
        let cells: Vec<usize> = table.lines().map(|l| l.matches('|').count()).collect();
        assert!(cells.windows(2).all(|w| w[0] == w[1]), "{table}");
    }
    let csv = std::fs::read_to_string(dir.path("a.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 3 * 5);
    // The text comes last, and no short sentence has a comma.
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|l| l.split(',').count() == columns), "{csv}");
    assert!(lines[0].starts_with("utterance,set,arm,") && lines[1].starts_with("0,short,ar,"));
    let html = std::fs::read_to_string(dir.path("a.html")).unwrap();
    well_formed(&html);
    for outside in ["http", "//", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!html.contains(outside), "the page needs {outside}");
    }
    assert!(html.matches("<svg ").count() >= 6 && html.contains("prefers-color-scheme:dark"));
    assert!(!html.contains("NaN") && !html.contains("inf\""));
    // One utterance leaves nothing to draw from, so there is no interval to show.
    let one = ["--quick", "--no-cold-start", "-n", "1", "--seed", "4"];
    let lanes = ["--arm", "ar", "--arm", "sd", "--html=one.html"];
    let o = ok(bench(&dir, &[&one[..], &lanes].concat()));
    let page = std::fs::read_to_string(dir.path("one.html")).unwrap();
    for (text, shown) in [(stdout(&o), "| sd |"), (page.as_str(), " times ar</span>")] {
        let text = text.replace("[95 %]", "");
        assert!(text.contains(shown) && !text.contains('['), "an interval in {text}");
    }
    // One arm without drafts makes a page as well.
    let o = ok(bench(&dir, &["--quick", "--no-cold-start", "--arm", "ar", "--html"]));
    well_formed(stdout(&o));

    // A run against itself, and against one that took twice as long.
    let c = json(&ok(bench(&dir, &["--compare", "a.json", "a.json", "--json"])));
    assert_eq!(c["pairs"], 15);
    for r in c["rows"].as_array().unwrap() {
        assert_eq!(r["ratio"], serde_json::json!([1.0, 1.0, 1.0]));
        assert_eq!(r["pairs"], r["same_tokens"]);
    }
    let mut slow: Value =
        serde_json::from_slice(&std::fs::read(dir.path("a.json")).unwrap()).unwrap();
    for u in slow["utterances"].as_array_mut().unwrap() {
        // An utterance that ended at once has no rtf.
        if let Some(rtf) = u["rtf"].as_f64() {
            u["rtf"] = (2.0 * rtf).into();
        }
    }
    slow["machine"]["threads"] = 63.into();
    std::fs::write(dir.path("slow.json"), slow.to_string()).unwrap();
    let c = json(&ok(bench(&dir, &["--compare", "slow.json", "a.json", "--json"])));
    let rtf = |r: &&Value| r["measure"] == "rtf" && r["arm"] == "pcg";
    let row = c["rows"].as_array().unwrap().iter().find(rtf).unwrap();
    for bound in row["ratio"].as_array().unwrap() {
        assert!((bound.as_f64().unwrap() - 2.0).abs() < 1e-9, "{row}");
    }
    assert!(c["differences"].to_string().contains("threads: 63 against"));
    let o = ok(bench(&dir, &["--compare", "slow.json", "a.json"]));
    assert!(stdout(&o).contains("| pcg | all | rtf |"));
    let o = ok(bench(&dir, &["--compare", "slow.json", "a.json", "--csv"]));
    assert!(stdout(&o).lines().all(|l| l.split(',').count() == 10));
    // A saved run tells the prediction what is accepted.
    if cfg!(feature = "lab") {
        let p = json(&ok(bench(&dir, &["--predict", "--from", "a.json", "--json"])));
        assert!(p["bundles"][0]["behaviour"]["source"].as_str().unwrap().contains("--from"));
    }

    // Without the laboratory its options are unknown, and the message says where they are.
    let lab = |words: &'static str| if cfg!(feature = "lab") { words } else { "--features lab" };
    for (args, code, words) in [
        (&["--compare", "a.json", "missing.json"][..], 3, "missing.json"),
        (&["--compare", "a.csv", "a.json"], 4, "not JSON"),
        (&["--compare", "other.json", "a.json"], 4, "is not a run"),
        (&["--compare", "future.json", "a.json"], 4, "format 99"),
        (&["--compare", "broken.json", "a.json"], 4, "broken.json"),
        (&["--compare", "nobody.json", "a.json"], 2, "no utterance in common"),
        (&["--compare", "a.json"], 2, "--compare"),
        (&["--json", "--csv"], 2, "stdout"),
        (&["--kernels", "--predict"], 2, lab("--predict")),
        (&["--from", "a.json"], 2, lab("--predict")),
        (&["--quick", "--no-cold-start", "--csv=no/such/place.csv"], 5, "place.csv"),
        (&["-f", "none.txt"], 2, "no sentences"),
        (&["-f", "missing.txt"], 3, "missing.txt"),
        (&["-n", "0"], 2, "utterances"),
        (&["--set", "huge"], 2, "possible values"),
        (&["--gamma", "99", "--quick"], 2, "gamma"),
    ] {
        std::fs::write(dir.path("none.txt"), "\n").unwrap();
        std::fs::write(dir.path("other.json"), "{\"arms\":[]}").unwrap();
        std::fs::write(dir.path("future.json"), "{\"voxgrain_bench\":99}").unwrap();
        std::fs::write(dir.path("broken.json"), "{\"voxgrain_bench\":1}").unwrap();
        let mut nobody = slow.clone();
        nobody["utterances"] = serde_json::json!([]);
        std::fs::write(dir.path("nobody.json"), nobody.to_string()).unwrap();
        let o = bench(&dir, args);
        assert_eq!(o.status.code(), Some(code), "{args:?}: {}", stderr(&o));
        assert!(stderr(&o).contains(words), "{args:?}: {}", stderr(&o));
        assert!(o.stdout.is_empty(), "{args:?}");
    }
}

/// Every element that is opened is closed, in order.
fn well_formed(html: &str) {
    let body = html.strip_prefix("<!DOCTYPE html>").expect("a page");
    let mut open: Vec<&str> = Vec::new();
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed in order");
        } else if !tag.ends_with('/') && !tag.starts_with("meta") {
            open.push(tag.split_whitespace().next().unwrap());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[cfg(feature = "lab")]
#[test]
fn bench_counts_kernels_against_the_memory() {
    let dir = Dir::new("bench-kernels");
    let o = ok(run(&dir, &["bench", "--kernels", "--quick", "--threads", "2", "--json"], b""));
    let v = json(&o);
    no_negative(&v, "");
    let threads: Vec<u64> =
        v["read"].as_array().unwrap().iter().map(|r| r["threads"].as_u64().unwrap()).collect();
    assert!(threads.len() >= 2 && threads.iter().enumerate().all(|(i, t)| *t == i as u64 + 1));
    let rows = v["rows"].as_array().unwrap();
    for kernel in v["machine"]["kernels"].as_array().unwrap() {
        for bits in [8, 4] {
            let of = rows.iter().filter(|r| r["kernel"] == *kernel && r["bits"] == bits);
            let m: Vec<u64> = of.map(|r| r["m"].as_u64().unwrap()).collect();
            let picked = *kernel == v["machine"]["kernel"];
            assert_eq!(m, [1, 2, 4, 5, 8].repeat(if picked { 2 } else { 1 }), "{kernel} {bits}");
        }
    }
    assert!(rows.iter().all(|r| r["gb_s"].as_f64().unwrap() > 0.0));
}

#[cfg(feature = "lab")]
#[test]
fn bench_predicts_and_says_so() {
    let dir = Dir::new("bench-predict");
    dir.bundle();
    let v = json(&ok(bench(&dir, &["--predict", "--quick", "--json"])));
    no_negative(&v, "");
    assert_eq!(v["prediction"], true);
    let rows = v["rows"].as_array().unwrap();
    let profiles = std::fs::read_dir(root().join("targets")).unwrap();
    let profiles: Vec<String> = profiles
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    for id in &profiles {
        let of: Vec<_> = rows.iter().filter(|r| r["profile"] == id.as_str()).collect();
        let arms: Vec<_> = of.iter().map(|r| r["arm"].as_str().unwrap()).collect();
        assert_eq!(arms, ["ar", "transport"], "{id}");
        for r in of {
            assert_eq!(r["prediction"], true);
            let get = |k: &str| r[k].as_f64().unwrap();
            assert!(
                get("rtf") >= get("rtf_memory")
                    && get("rtf") <= get("rtf_memory") + get("rtf_instructions")
            );
            assert!(get("assumed_gb_s") < get("peak_gb_s"));
            assert!(
                r["command"].as_str().unwrap().starts_with("voxgrain bench --bundle models/tiny ")
            );
        }
    }
    let ar = rows.iter().find(|r| r["arm"] == "ar").unwrap();
    // Weights and scales of target and codec once a token, and the cache.
    let facts = &v["bundles"][0];
    let sum: f64 = ["target", "codec"]
        .iter()
        .map(|m| {
            facts[m]["weight_bytes"].as_f64().unwrap() + facts[m]["scale_bytes"].as_f64().unwrap()
        })
        .sum::<f64>()
        + facts["cache_bytes"][0].as_f64().unwrap();
    assert!((ar["bytes_per_token"].as_f64().unwrap() - sum).abs() < 1.0);
    let o = ok(bench(&dir, &["--predict", "--quick"]));
    assert!(stdout(&o).contains("**Prediction: no figure of a board here was measured.**"));
    assert!(stdout(&o).contains("--json=raspberry-pi-4.json`"));
}

#[test]
fn a_batch_writes_a_file_a_line() {
    let dir = Dir::new("batch");
    dir.bundle();
    std::fs::write(dir.path("list.txt"), "First line.\n\nSecond line.\r\n").unwrap();
    let o = ok(say(&dir, &["--batch", "list.txt", "--out-dir", "out", "--json", "-q"]));
    let lines: Vec<Value> = String::from_utf8(o.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["text"], "Second line.");
    // A file is numbered by its line, so that a blank one does not shift the others.
    assert_eq!((&lines[1]["line"], &lines[1]["file"]), (&3.into(), &"00002.wav".into()));
    for v in &lines {
        let wav = Wav::read(dir.path("out").join(v["file"].as_str().unwrap())).unwrap();
        assert_eq!(wav.samples.len() as u64, 320 * v["tokens"].as_u64().unwrap());
    }
}

#[test]
fn a_line_of_a_batch_sounds_as_it_does_alone() {
    let dir = Dir::new("batch-alone");
    dir.bundle();
    std::fs::write(dir.path("list.txt"), "Another.\nThe line.\n\nThe line.\n").unwrap();
    let seed = ["-q", "--seed", "5"];
    ok(say(&dir, &[&seed[..], &["--batch", "list.txt", "--out-dir", "out"]].concat()));
    ok(say(&dir, &[&seed[..], &["-o", "alone.wav", "The line."]].concat()));
    let alone = std::fs::read(dir.path("alone.wav")).unwrap();
    for name in ["out/00001.wav", "out/00003.wav"] {
        assert_eq!(std::fs::read(dir.path(name)).unwrap(), alone, "{name}");
    }
    let help = ok(run(&dir, &["say", "--help"], b""));
    assert!(stdout(&help).contains("it sounds as it does alone"), "{}", stdout(&help));
}

#[test]
fn a_bad_line_of_a_batch_is_named() {
    let dir = Dir::new("batch-bad");
    dir.bundle();
    std::fs::write(dir.path("list.txt"), b"One.\n...\n\xff\xfe\nFour.\n").unwrap();
    let batch = ["--batch", "list.txt", "--out-dir"];
    // It stops there, and what was done before stays.
    let o = say(&dir, &[&batch[..], &["stops"]].concat());
    assert_eq!(o.status.code(), Some(6), "{}", stderr(&o));
    assert!(stderr(&o).contains("line 2 of list.txt"), "{}", stderr(&o));
    assert!(stderr(&o).contains("--keep-going"), "{}", stderr(&o));
    assert_eq!(listing(&dir.path("stops")), [dir.path("stops/00000.wav")]);
    // Or it goes on, and says at the end what is missing.
    let o = say(&dir, &[&batch[..], &["goes", "--keep-going", "--json"]].concat());
    assert_eq!(o.status.code(), Some(6), "{}", stderr(&o));
    for words in ["line 2 of list.txt: ", "line 3 of list.txt: ", "2 of the lines", ": 2, 3"] {
        assert!(stderr(&o).contains(words), "{words}: {}", stderr(&o));
    }
    assert_eq!(
        listing(&dir.path("goes")),
        [dir.path("goes/00000.wav"), dir.path("goes/00003.wav")]
    );
    let told: Vec<Value> = stdout(&o).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(told.len(), 4);
    assert!(told[1]["error"].is_string() && told[1]["file"].is_null());
    assert_eq!(told[3]["file"], "00003.wav");
}

/// Lines longer than what is kept of one are spoken by parts, cut between words.
#[test]
fn a_line_without_end_is_cut_between_words() {
    let dir = Dir::new("endless");
    dir.bundle();
    // The mebibyte ends within a character.
    let blank = " ".repeat((1 << 20) - 7);
    let text = format!("{blank}na\u{ef}ve\n");
    let piped = [&["say"], TINY, &["-q", "-o", "a.wav"]].concat();
    ok(run(&dir, &piped, text.as_bytes()));
    ok(say(&dir, &["-q", "-o", "b.wav", "na\u{ef}ve"]));
    let read = |name: &str| std::fs::read(dir.path(name)).unwrap();
    assert_eq!(read("a.wav"), read("b.wav"));
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
    // Every caller's default is by token then, and a person is told; what needs groups is refused.
    refused("asg-gone", 2, "index", gone, &[SAY, &["--arm", "transport"]].concat(), b"");
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

/// Whether these tests, and what they start, are to ignore that signal.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Starts the program, waits until `ready`, ends it by `signal`; its exit code.
#[cfg(unix)]
fn interrupt(
    dir: &Dir,
    args: &[&str],
    signal: &str,
    input: &[u8],
    ready: impl Fn() -> bool,
) -> i32 {
    let mut child = command(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input).unwrap();
    let start = std::time::Instant::now();
    while !ready() {
        assert!(start.elapsed().as_secs() < 60, "{args:?}: never ready");
        assert!(child.try_wait().unwrap().is_none(), "{args:?}: ended before the signal");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let code = child.wait().unwrap().code();
    drop(pipe);
    code.expect("an exit code, not the signal itself")
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_nothing_half_written() {
    let dir = Dir::new("signals");
    dir.bundle();
    let halves = |at: &Path| {
        let all = std::fs::read_dir(at).into_iter().flatten().flatten();
        all.filter(|f| f.file_name().to_string_lossy().ends_with(".part")).count()
    };
    std::fs::write(dir.path("old.wav"), "the old one").unwrap();
    let half = || halves(&dir.0) > 0;
    // In the middle of a text that takes minutes.
    std::fs::write(dir.path("long.txt"), "One two three and four. ".repeat(20_000)).unwrap();
    let long = [&["say", "-q", "-o", "old.wav", "-f", "long.txt"], TINY].concat();
    // Behind `&` a shell has Ctrl-C ignored for all that it starts, these tests with it.
    let (int, code) = if ignored(2) { ("-TERM", 143) } else { ("-INT", 130) };
    assert_eq!(interrupt(&dir, &long, int, b"", half), code);
    assert_eq!(interrupt(&dir, &long, "-TERM", b"", half), 143);
    for (signal, number) in [("-QUIT", 3), ("-USR1", 10), ("-XCPU", 24)] {
        // Other systems number them otherwise.
        if cfg!(target_os = "linux") && !ignored(number) {
            assert_eq!(interrupt(&dir, &long, signal, b"", half), 128 + number);
        }
    }
    // While it waits for more text.
    let waits = [&["say", "-q", "-o", "old.wav"], TINY].concat();
    assert_eq!(interrupt(&dir, &waits, int, b"Hello there.\n", half), code);
    // A batch keeps the files that were finished.
    std::fs::write(dir.path("lines.txt"), "Hello.\n".repeat(100_000)).unwrap();
    let batch = [&["say", "-q", "--batch", "lines.txt", "--out-dir", "out"], TINY].concat();
    let second = || dir.path("out/00001.wav").exists();
    assert_eq!(interrupt(&dir, &batch, int, b"", second), code);
    assert_eq!((halves(&dir.0), halves(&dir.path("out"))), (0, 0));
    Wav::read(dir.path("out/00001.wav")).unwrap();
    assert_eq!(std::fs::read(dir.path("old.wav")).unwrap(), b"the old one");
}

/// What the system does not let a file become is told, and the old file stays.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_may_not_grow_is_not_begun_over_an_old_one() {
    let dir = Dir::new("limit");
    dir.bundle();
    let limited = |blocks: u32, args: &[&str]| {
        let program = command(&dir);
        let mut c = Command::new("sh");
        c.arg("-c").arg(format!("ulimit -f {blocks}; exec \"$@\"")).arg("sh");
        c.arg(program.get_program()).args(program.get_args()).args(args).args(TINY);
        c.current_dir(&dir.0).output().unwrap()
    };
    for name in ["old.wav", "old.json", "old.csv", "old.html"] {
        std::fs::write(dir.path(name), "the old one").unwrap();
    }
    let before = listing(&dir.0);
    let quick = ["bench", "--quick", "--no-cold-start", "--arm", "ar"];
    let text = "One two three and four, and many more words than fit. ".repeat(20);
    for args in [
        &[&quick[..], &["--json=old.json"]].concat()[..],
        &[&quick[..], &["--html=old.html"]].concat(),
        &[&quick[..], &["-n", "40", "--csv=old.csv"]].concat(),
        &["say", "-q", "-o", "old.wav", &text],
    ] {
        let o = limited(4, args);
        assert_eq!(o.status.code(), Some(5), "{args:?}: {:?} {}", o.status, stderr(&o));
        assert!(stderr(&o).contains("cannot write "), "{args:?}: {}", stderr(&o));
    }
    assert_eq!(listing(&dir.0), before);
    for name in ["old.wav", "old.json", "old.csv", "old.html"] {
        assert_eq!(std::fs::read(dir.path(name)).unwrap(), b"the old one", "{name}");
    }
}

/// In a container a process may have the number of the one before it, which was killed.
#[test]
fn what_a_killed_process_left_is_in_nobodys_way() {
    let dir = Dir::new("left");
    dir.bundle();
    let script = "for n in 0 1 2 3; do : > x.wav.$$-$n.part; done; exec \"$@\"";
    let program = command(&dir);
    let mut c = Command::new("sh");
    c.arg("-c").arg(script).arg("sh").arg(program.get_program()).args(program.get_args());
    c.args(["say", "-q", "-o", "x.wav", "Hello."]).args(TINY);
    ok(c.current_dir(&dir.0).output().unwrap());
    Wav::read(dir.path("x.wav")).unwrap();
}

#[cfg(unix)]
#[test]
fn an_output_file_keeps_its_permissions_and_links_are_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = Dir::new("mode");
    dir.bundle();
    std::fs::write(dir.path("m.wav"), "old").unwrap();
    std::fs::set_permissions(dir.path("m.wav"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("later.wav", dir.path("link.wav")).unwrap();
    for name in ["m.wav", "link.wav"] {
        ok(say(&dir, &["-q", "-o", name, "Hello."]));
        Wav::read(dir.path(name)).unwrap();
    }
    let mode = std::fs::metadata(dir.path("m.wav")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(dir.path("link.wav").symlink_metadata().unwrap().is_symlink());
    assert!(dir.path("later.wav").symlink_metadata().unwrap().is_file());
    let long = format!("{}.wav", "n".repeat(251));
    ok(say(&dir, &["-q", "-o", &long, "Hello."]));
    Wav::read(dir.path(&long)).unwrap();
}

/// As a shell starts programs behind `&`.
#[cfg(target_os = "linux")]
#[test]
fn an_ignored_signal_stays_ignored() {
    let dir = Dir::new("ignored");
    dir.bundle();
    std::fs::write(dir.path("long.txt"), "One two three and four. ".repeat(20_000)).unwrap();
    let program = command(&dir);
    let mut c = Command::new("sh");
    c.arg("-c").arg("trap '' INT QUIT; exec \"$@\"").arg("sh").arg(program.get_program());
    c.args(program.get_args()).args(["say", "-q", "-o", "x.wav", "-f", "long.txt"]).args(TINY);
    let mut child = c.current_dir(&dir.0).stderr(Stdio::null()).spawn().unwrap();
    let part = || listing(&dir.0).iter().any(|p| p.to_string_lossy().ends_with(".part"));
    let start = std::time::Instant::now();
    while !part() {
        assert!(start.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let send = |signal: &str| {
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    send("-INT");
    send("-QUIT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(part(), "it went on");
    send("-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!part());
}

#[test]
fn absurd_options_are_refused() {
    let many_cpus = vec!["0"; 3000].join(",");
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
        (&["--pin", "9999999"], "--pin"),
        (&["--pin", "x"], "--pin"),
        (&["--pin", &many_cpus], "64"),
        (&["--max-chars", "1"], "characters"),
        (&["--seed", "1e99"], "seed"),
        (&["--raw"], "--raw"),
        (&["--json", "-o", "-"], "stdout"),
        (&["--weights", "similarity"], "no similarities"),
        (&["--nonsense"], "--nonsense"),
        (&["--keep-going"], "--batch"),
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
fn a_mistyped_option_gets_the_right_tip() {
    let dir = Dir::new("tips");
    for (option, ours) in [("--sed", "--seed"), ("--speker", "--speaker"), ("--model", "--bundle")]
    {
        let o = run(&dir, &["say", option, "1"], b"");
        assert_eq!(o.status.code(), Some(2));
        assert!(stderr(&o).contains(&format!("'{ours}'")), "{option}: {}", stderr(&o));
    }
    // Similar letters, another thing.
    for line in [&["say", "--speed", "2"][..], &["say", "--tempo=2"]] {
        let o = run(&dir, line, b"");
        assert_eq!(o.status.code(), Some(2));
        assert!(stderr(&o).contains("'--rate'") && !stderr(&o).contains("--seed"), "{o:?}");
    }
}

/// The lexicon that phonemes come from, whatever the voice.
fn lexicon() -> String {
    root().join("models/lexicon/en-us.lexicon").to_str().unwrap().to_owned()
}

/// `voxgrain text --json` with that lexicon, a sentence an element.
fn told(dir: &Dir, args: &[&str], stdin: &[u8]) -> Vec<Value> {
    let o = ok(run(dir, &[&["text", "--json", "--lexicon", &lexicon()], args].concat(), stdin));
    stdout(&o).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn text_shows_what_will_be_said_and_why() {
    let dir = Dir::new("text");
    let text = "Dr. Ma ran 5 km. A USB stick \u{5317}\u{4eac} frobnicates!";
    let all = told(&dir, &[text], b"");
    assert_eq!(all.len(), 2);
    let first = &all[0];
    assert_eq!(first["written"], "Dr. Ma ran 5 km.");
    assert_eq!(first["text"], "doctor ma ran five kilometers.");
    assert_eq!(first["phonemes"], "dˈɑktəɹ mˈɑ ɹˈæn fˈIv kəlˈɑməTəɹz.");
    assert_eq!(first["replaced"][0]["original"], "Dr.");
    assert_eq!(first["replaced"][1]["spoken"], "five kilometers");
    assert_eq!(first["pause_after"], 0.3);
    assert_eq!(first["left_out"], serde_json::json!([]));
    // Words by their places, letters of a word together, with where each sound is from.
    let second = &all[1];
    let words = second["words"].as_array().unwrap();
    let texts: Vec<&str> = words.iter().map(|w| w["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a", "u s b", "stick", "frobnicates"]);
    assert_eq!(words[1]["phonemes"], "jˌuˌɛsbˈi");
    assert_eq!((&words[1]["letters"], &words[0]["letters"]), (&true.into(), &false.into()));
    assert_eq!((&words[2]["origin"], &words[3]["origin"]), (&"lexicon".into(), &"guessed".into()));
    assert_eq!(words[3]["mark"], "!");
    let place = |v: &Value| {
        let at = |k: &str| v["source"][k].as_u64().unwrap() as usize;
        text[at("start")..at("end")].to_owned()
    };
    assert_eq!(place(&words[1]), "USB");
    assert_eq!(place(second), second["written"]);
    assert_eq!(second["left_out"][0]["text"], "\u{5317}\u{4eac}");

    // For people the same, the phonemes under their words.
    let o = ok(run(&dir, &["text", "--lexicon", &lexicon(), text], b""));
    for line in [
        "Dr. Ma ran 5 km.\n  doctor   ma   ran   five  kilometers.\n  \
         dˈɑktəɹ  mˈɑ  ɹˈæn  fˈIv  kəlˈɑməTəɹz\n  replaced   Dr. → doctor; ",
        "\n  left out   \"\u{5317}\u{4eac}\"\n",
        "\n  guessed    frobnicates\n",
        "\n  pause      0.3 s\n",
    ] {
        assert!(stdout(&o).contains(line), "no {line:?} in\n{}", stdout(&o));
    }
    // Long sentences go on below, no line too long for a terminal.
    let long = "the birch canoe slid on the smooth planks and ".repeat(6) + "sank.";
    let o = ok(run(&dir, &["text", "--lexicon", &lexicon(), &long], b""));
    let lines: Vec<&str> = stdout(&o).lines().skip(1).collect();
    assert!(lines.len() > 8 && lines.iter().all(|l| l.chars().count() <= 82), "{lines:?}");
}

#[test]
fn text_reads_arguments_files_pipes_and_markup() {
    let dir = Dir::new("text-sources");
    let text = "It rains\non 2 days.\n\nThe end";
    std::fs::write(dir.path("t.txt"), text).unwrap();
    let want = told(&dir, &[text], b"");
    assert_eq!(want[0]["text"], "it rains on two days.");
    assert_eq!(want[0]["pause_after"], 0.6);
    assert_eq!(told(&dir, &["-f", "t.txt"], b""), want);
    assert_eq!(told(&dir, &[], text.as_bytes()), want);
    assert_eq!(told(&dir, &["-f", "-"], text.as_bytes()), want);
    let lines = told(&dir, &["--lines", "-f", "t.txt"], b"");
    let lines: Vec<&str> = lines.iter().map(|s| s["text"].as_str().unwrap()).collect();
    assert_eq!(lines, ["it rains.", "on two days.", "the end."]);
    let paused = told(&dir, &["--pause", "paragraph=1.5,sentence=0", text], b"");
    assert_eq!(paused[0]["pause_after"], 1.5);

    let marked = "<speak>Say <phoneme alphabet=\"ipa\" ph=\"b\u{26a}\u{261}\">two words</phoneme> \
                  twice<break time=\"2s\"/></speak>";
    let said = &told(&dir, &[marked], b"")[0];
    assert_eq!(said["phonemes"], "sˈA bɪɡ twˈIs.");
    assert_eq!(
        (&said["words"][1]["text"], &said["words"][1]["origin"]),
        (&"two words".into(), &"given".into())
    );
    assert_eq!(said["pause_after"], 2.0);
    let plain = told(&dir, &["--markup", "none", "*so* <b>"], b"");
    assert_ne!(told(&dir, &["--markup", "markdown", "*so* <b>"], b"")[0]["text"], plain[0]["text"]);
    // Nothing that steers a terminal comes through.
    let o = ok(run(&dir, &["text", "--lexicon", &lexicon(), "red \u{1b}[31m hat"], b""));
    assert!(!stdout(&o).contains('\u{1b}'), "{}", stdout(&o));
}

#[test]
fn a_list_of_ones_own_wins() {
    let dir = Dir::new("text-lists");
    std::fs::write(dir.path("a.tsv"), "nginx\tengine x\nMa\t/m\u{e6}/\n").unwrap();
    std::fs::write(dir.path("b.tsv"), "# later files win\nnginx\tend jinx\n").unwrap();
    let words = |args: &[&str]| {
        let said = told(&dir, &[args, &["Ma runs nginx."]].concat(), b"");
        let words = said[0]["words"].as_array().unwrap().clone();
        let get = |i: usize, k: &str| words[i][k].as_str().unwrap().to_owned();
        (get(0, "phonemes"), get(2, "phonemes"), get(2, "origin"))
    };
    let (ma, _, origin) = words(&[]);
    assert!(ma != "mæ" && origin != "list");
    let list = |a: &str, b: &str| (a.to_owned(), b.to_owned(), "list".to_owned());
    assert_eq!(words(&["--lexicon", "a.tsv"]), list("mæ", "ˈɛnʤən ˈɛks"));
    let both = words(&["--lexicon", "a.tsv", "--lexicon", "b.tsv"]);
    assert_eq!((both.0.as_str(), both.2.as_str()), ("mæ", "list"));
    assert!(both.1 != "ˈɛnʤən ˈɛks" && both.1.contains("ʤ"), "{both:?}");
    let o = ok(run(&dir, &["text", "--lexicon", "a.tsv", "--lexicon", &lexicon(), "Nginx."], b""));
    assert!(stdout(&o).contains("listed     nginx"), "{}", stdout(&o));

    std::fs::write(dir.path("wrong.tsv"), "fine\tfine\nno tab\n").unwrap();
    for (list, code, words) in [
        ("wrong.tsv", 2, "wrong.tsv, line 2"),
        ("none.tsv", 3, "none.tsv"),
        (lexicon().as_str(), 2, "two whole lexicons"),
    ] {
        let o = run(&dir, &["text", "--lexicon", &lexicon(), "--lexicon", list, "Hi."], b"");
        assert_eq!(o.status.code(), Some(code), "{list}: {}", stderr(&o));
        assert!(stderr(&o).contains(words) && o.stdout.is_empty(), "{list}: {}", stderr(&o));
    }
    // A voice that reads letters says what to do instead; a whole lexicon is no list.
    dir.bundle();
    let o = say(&dir, &["-o", "x.wav", "--lexicon", "a.tsv", "Hi."]);
    assert_eq!(o.status.code(), Some(4), "{}", stderr(&o));
    assert!(stderr(&o).contains("write the word as it sounds"), "{}", stderr(&o));
    let o = say(&dir, &["-o", "x.wav", "--lexicon", &lexicon(), "Hi."]);
    assert_eq!(o.status.code(), Some(2), "{}", stderr(&o));
    assert!(stderr(&o).contains("voxgrain text"), "{}", stderr(&o));
}

/// Without a voice and a lexicon there are words still.
#[test]
fn text_needs_no_voice() {
    let dir = Dir::new("text-alone");
    dir.bundle();
    let o = ok(run(&dir, &[&["text", "--json", "A USB stick."], TINY].concat(), b""));
    assert!(stderr(&o).contains("reads letters"), "{}", stderr(&o));
    assert_eq!(json(&o)["words"][1]["phonemes"], "jˌuˌɛsbˈi");
    let o = run(&dir, &["text", "--bundle", "nowhere", "Hi."], b"");
    assert_eq!(o.status.code(), Some(3), "{}", stderr(&o));
    // Far from any checkout.
    if runner().is_empty() {
        let alone = dir.path("bin");
        std::fs::create_dir(&alone).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_voxgrain"), alone.join("voxgrain")).unwrap();
        let program = |args: &[&str]| {
            let mut c = Command::new(alone.join("voxgrain"));
            c.args(args).current_dir(&dir.0).env_remove("VOXGRAIN_BUNDLE").output().unwrap()
        };
        let o = ok(program(&["text", "A USB stick."]));
        assert!(stderr(&o).contains("--lexicon"), "{}", stderr(&o));
        assert!(stdout(&o).starts_with("A USB stick.\n  a u s b stick.\n  replaced "), "{o:?}");
        let o = ok(program(&["text", "-q", "--json", "A USB stick."]));
        assert!(json(&o)["phonemes"].is_null() && o.stderr.is_empty(), "{}", stderr(&o));
        std::fs::write(dir.path("a.tsv"), "nginx\tengine x\n").unwrap();
        assert_eq!(program(&["text", "--lexicon", "a.tsv", "Hi."]).status.code(), Some(3));
    }
}

#[test]
fn wrong_markup_says_line_and_column() {
    let dir = Dir::new("ssml");
    dir.bundle();
    let wrong = "<speak>Good\n  <brake/> bye.</speak>";
    std::fs::write(dir.path("w.ssml"), wrong).unwrap();
    let say = [&["say", "-o", "x.wav"], TINY].concat();
    for (args, stdin) in [
        (&["text", wrong][..], ""),
        (&["text"], wrong),
        (&["text", "-f", "w.ssml"], ""),
        (&[&say[..], &[wrong]].concat(), ""),
        (&say, wrong),
        (&[&say[..], &["--lines"]].concat(), wrong),
        (&[&say[..], &["-f", "w.ssml"]].concat(), ""),
    ] {
        let o = run(&dir, args, stdin.as_bytes());
        assert_eq!(o.status.code(), Some(6), "{args:?}: {}", stderr(&o));
        assert!(stderr(&o).contains("line 2, column 3: <brake>"), "{args:?}: {}", stderr(&o));
        assert!(o.stdout.is_empty() && !dir.path("x.wav").exists());
    }
}

/// Chunks of `say --json`: text, start, end.
fn chunks(o: &Output) -> Vec<(String, f64, f64)> {
    let all = json(o)["chunks"].as_array().unwrap().clone();
    let at = |c: &Value, k: &str| c[k].as_f64().unwrap();
    let one = |c: &Value| (c["text"].as_str().unwrap().into(), at(c, "start"), at(c, "end"));
    all.iter().map(one).collect()
}

#[test]
fn lines_of_a_pipe_are_joined_unless_each_is_an_utterance() {
    let dir = Dir::new("wrapped");
    dir.bundle();
    let text = "The birch canoe\nslid on the planks.\n\nGlue the sheet to the dark\nblue \
                background. It is\n  done\n\n\nThe end";
    std::fs::write(dir.path("t.txt"), text).unwrap();
    let spoken = |args: &[&str], stdin: &str| {
        let o = [&["say", "-q", "-o", "x.wav", "--json"], TINY, args].concat();
        let o = ok(run(&dir, &o, stdin.as_bytes()));
        (chunks(&o), std::fs::read(dir.path("x.wav")).unwrap())
    };
    let file = spoken(&["-f", "t.txt"], "");
    let texts: Vec<&str> = file.0.iter().map(|c| c.0.as_str()).collect();
    assert_eq!(texts[0], "the birch canoe slid on the planks.");
    assert!(texts[1].starts_with("glue the sheet to the dark blue background."), "{texts:?}");
    // However it comes, the same sentences with the same pauses between paragraphs.
    let pipe = spoken(&[], text);
    let gaps = |all: &[(String, f64, f64)]| -> Vec<i64> {
        all.windows(2).map(|w| ((w[1].1 - w[0].2) * 1000.0).round() as i64).collect()
    };
    assert_eq!(gaps(&pipe.0)[0], 400, "{pipe:?}");
    assert_eq!(*gaps(&pipe.0).last().unwrap(), 400, "{:?}", pipe.0);
    assert_eq!(spoken(&["-f", "-"], text), pipe);
    let words = |all: &[(String, f64, f64)]| {
        all.iter().map(|c| c.0.replace('.', "")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&pipe.0), words(&file.0));
    // Documents are known only when they are whole.
    for (markup, doc) in [
        ("ssml", "<speak>One day.\n\nTwo <break time=\"1s\"/>\nnights.</speak>\n"),
        ("auto", "\n<speak>One day.\n\nTwo <break time=\"1s\"/>\nnights.</speak>\n"),
        ("markdown", "# Days\n\n| one. | two |\n|---|---|\n| a day. | b |\n"),
    ] {
        std::fs::write(dir.path("doc"), doc).unwrap();
        let markup = ["--markup", markup];
        let file = spoken(&[&markup[..], &["-f", "doc"]].concat(), "");
        assert_eq!(spoken(&markup, doc), file, "{markup:?}");
    }

    let lines = spoken(&["--lines"], "one boat sails\ntwo boats sail\n");
    let texts: Vec<&str> = lines.0.iter().map(|c| c.0.as_str()).collect();
    assert_eq!(texts, ["one boat sails.", "two boats sail."]);
    let joined = spoken(&[], "one boat sails\ntwo boats sail\n").0;
    assert_eq!(joined[0].0, "one boat sails two boats sail.");
}

/// What has come is spoken while the pipe stays open: `tail -f log | voxgrain say --lines`.
#[test]
fn a_line_is_spoken_when_it_comes() {
    use std::io::Read;
    let dir = Dir::new("tail");
    dir.bundle();
    for (extra, line) in [(&["--lines"][..], "a line without a mark\n"), (&[], "A sentence.\n")] {
        let mut c = command(&dir);
        c.args(["say", "-q", "--raw", "-o", "-"]).args(TINY).args(extra);
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut sound = child.stdout.take().unwrap();
        // Were it waiting for the end of the text, this would wait for ever.
        for _ in 0..2 {
            pipe.write_all(line.as_bytes()).unwrap();
            sound.read_exact(&mut [0; 640]).unwrap();
        }
        drop(pipe);
        sound.read_to_end(&mut Vec::new()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn pauses_are_set_by_what_ends_there() {
    let dir = Dir::new("pauses");
    dir.bundle();
    let gap = |args: &[&str], text: &str| {
        let o = ok(say(&dir, &[&["-q", "-o", "x.wav", "--json"], args, &[text]].concat()));
        let all = chunks(&o);
        assert_eq!(all.len(), 2, "{all:?}");
        // A voice itself leaves 0.2 s.
        ((all[1].1 - all[0].2) * 1000.0).round() as i64 + 200
    };
    let two = "The first boat sails away. The second boat stays here.";
    let paragraphs = "The first boat sails away.\n\nThe second boat stays here.";
    assert_eq!((gap(&[], two), gap(&[], paragraphs)), (300, 600));
    let set = ["--pause", "sentence=0.5, paragraph=2"];
    assert_eq!((gap(&set, two), gap(&set, paragraphs)), (500, 2000));
    assert_eq!(gap(&["--pause", "Sentence=1"], two), 1000);
    assert_eq!(gap(&["--pause", "sentence=0"], two), 200);
    let long = format!("A boat that sails, {} the end.", "and waves that roll on ".repeat(3));
    let cut = ["--max-chars", "60", "--pause", "comma=0.9,clause=0.9"];
    let o = ok(say(&dir, &[&["-q", "-o", "x.wav", "--json"], &cut[..], &[&long]].concat()));
    assert!(chunks(&o).len() > 1);
    for (wrong, words) in [
        ("pause=1", "none of comma"),
        ("sentence", "sentence=0.5"),
        ("sentence=-1", "0 to 60"),
        ("sentence=1e9", "0 to 60"),
        ("sentence=NaN", "0 to 60"),
    ] {
        for command in ["say", "text"] {
            let o = run(&dir, &[command, "--pause", wrong, "Hi."], b"");
            assert_eq!(o.status.code(), Some(2), "{wrong}: {}", stderr(&o));
            assert!(stderr(&o).contains(words), "{wrong}: {}", stderr(&o));
        }
    }
    // The defaults in the help are those in force.
    let p = voxgrain::speech::text::Pauses::default();
    let help = ok(run(&dir, &["say", "--help"], b""));
    let help: String = stdout(&help).split_whitespace().collect();
    let want = format!(
        "comma={},clause={},sentence={},paragraph={},heading={}",
        p.comma, p.clause, p.sentence, p.paragraph, p.heading
    );
    assert!(help.contains(&want), "{help}");
}

#[test]
fn chunks_tell_what_the_voice_read() {
    let dir = Dir::new("chunks");
    dir.bundle();
    // Letters are given their names, in a batch too.
    let o = ok(say(&dir, &["-q", "-o", "x.wav", "--json", "A USB stick."]));
    assert_eq!(json(&o)["chunks"][0]["text"], "a you ess bee stick.");
    assert!(json(&o)["chunks"][0].get("phonemes").is_none());
    std::fs::write(dir.path("one.txt"), "A USB stick.\n").unwrap();
    ok(say(&dir, &["-q", "--batch", "one.txt", "--out-dir", "out"]));
    let read = |name: &str| std::fs::read(dir.path(name)).unwrap();
    assert_eq!(read("out/00000.wav"), read("x.wav"));
    // A voice of phonemes reads those, and letters as they are.
    let voice = root().join("models/voice");
    let phonemes = voxgrain::Voice::open(&voice).unwrap().phonemizer().is_some();
    let args = ["say", "-q", "-o", "y.wav", "--json", "A USB stick.", "--bundle"];
    let o = json(&ok(run(&dir, &[&args[..], &[voice.to_str().unwrap()]].concat(), b"")));
    let (text, said) = match phonemes {
        true => ("a u s b stick.", "ɐ jˌuˌɛsbˈi stˈɪk.".into()),
        false => ("a you ess bee stick.", Value::Null),
    };
    assert_eq!((&o["chunks"][0]["text"], &o["chunks"][0]["phonemes"]), (&text.into(), &said));
}

#[test]
fn a_rate_that_the_voice_has_not_names_those_it_has() {
    let dir = Dir::new("rate");
    let bundle = dir.bundle();
    ok(say(&dir, &["-q", "--rate", "1", "-o", "x.wav", "Hi."]));
    std::fs::remove_file(dir.path("x.wav")).unwrap();
    let one = &["1.2", "0", "-1", "NaN", "inf"][..];
    std::fs::write(dir.path("one.txt"), "Hi.\n").unwrap();
    let refuses = |rates: &[&str], words: &str| {
        for rate in rates {
            for to in [&["-o", "x.wav", "Hi."][..], &["--batch", "one.txt", "--out-dir", "out"]] {
                let o = say(&dir, &[&["--rate", rate], to].concat());
                assert_eq!(o.status.code(), Some(2), "{rate}: {}", stderr(&o));
                assert!(stderr(&o).contains(words), "{rate}: {}", stderr(&o));
            }
            assert!(!dir.path("x.wav").exists() && !dir.path("out").exists());
        }
    };
    refuses(one, "one tempo");
    edit(bundle.join("bundle.toml"), |b| {
        let text = String::from_utf8(b.clone()).unwrap().replace("format = 1", "format = 2");
        let tempos = "[text]\nfront_end = \"letters\"\ntempo_symbols = \"xyz\"\n\
                      tempos = [0.5, 1.0, 2.0]\n\n[audio]";
        *b = text.replace("[audio]", tempos).into_bytes();
    });
    refuses(&["0.4", "2.1", "NaN"], "0.5 to 2 times");
    ok(say(&dir, &["-q", "--rate", "2", "-o", "x.wav", "Hi."]));
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_an_error() {
    let dir = Dir::new("help-full");
    let full = std::fs::File::create("/dev/full").unwrap();
    let o = command(&dir).arg("--help").stdout(full).output().unwrap();
    assert_eq!(o.status.code(), Some(5), "{}", stderr(&o));
}

#[test]
fn a_small_program_says_where_its_laboratory_is() {
    let dir = Dir::new("lab");
    for command in ["eval", "passes"] {
        let o = run(&dir, &[command, "--help"], b"");
        let told = stderr(&o).contains("cargo build --release --features lab");
        let code = if cfg!(feature = "lab") { 0 } else { 2 };
        assert_eq!((told, o.status.code()), (code == 2, Some(code)), "{}", stderr(&o));
    }
    let o = ok(run(&dir, &["--help"], b""));
    assert_eq!(stdout(&o).contains("\n  eval "), cfg!(feature = "lab"));
}

#[test]
fn help_teaches_by_example() {
    let dir = Dir::new("help");
    for args in [
        &["--help"][..],
        &["say", "--help"],
        &["text", "--help"],
        &["asg", "build", "--help"],
        &["inspect", "--help"],
        &["bench", "--help"],
    ] {
        let o = ok(run(&dir, args, b""));
        let text = String::from_utf8(o.stdout).unwrap();
        assert!(text.contains("Examples:") && text.contains("voxgrain "), "{args:?}");
    }
    let o = ok(run(&dir, &["--version"], b""));
    assert!(String::from_utf8_lossy(&o.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[cfg(feature = "lab")]
fn eval(dir: &Dir, args: &[&str]) -> Output {
    run(dir, &[&["eval"], &args[..1], TINY, &args[1..]].concat(), b"")
}

/// `[value, low, high]` in order.
#[cfg(feature = "lab")]
fn interval(v: &Value) -> [f64; 3] {
    let v: Vec<f64> = v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert!(v.len() == 3 && v[1] <= v[0] + 1e-9 && v[0] <= v[2] + 1e-9, "{v:?}");
    [v[0], v[1], v[2]]
}

#[cfg(feature = "lab")]
#[test]
fn eval_builds_families_and_accepts_by_them() {
    let dir = Dir::new("eval");
    dir.bundle();
    let build = ["groups", "--out", "idx", "fsq:0", "fsq:1", "fsq:1@2", "random:2", "--json"];
    let v = json(&ok(eval(&dir, &build)));
    let names: Vec<&str> =
        v["families"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fsq-0", "fsq-1", "fsq-1-p2", "random-2"]);
    assert_eq!(v["families"][1]["mean_members"], 13.0);

    let files = ["idx/fsq-0.asg", "idx/fsq-1.asg", "idx/fsq-1-p2.asg"];
    let args = ["-n", "4", "--every", "4", "--depth", "2", "--bounds", "3", "--json"];
    let cuts = ["--top-k", "40", "--temperature", "1,0.7"];
    let v = json(&ok(eval(&dir, &[&["acceptance"], &files[..], &args, &cuts].concat())));
    assert_eq!(v["settings"].as_array().unwrap().len(), 2);
    for setting in v["settings"].as_array().unwrap() {
        let depths = setting["depths"].as_array().unwrap();
        assert_eq!(depths.len(), 2);
        for depth in depths {
            let token = interval(&depth["token"])[0];
            assert!(interval(&depth["tolerance"])[0] >= token);
            let families = depth["families"].as_array().unwrap();
            // Groups of one token are acceptance by token.
            assert!((interval(&families[0]["groups"])[0] - token).abs() < 1e-5);
            assert!((interval(&families[0]["transport"])[0] - token).abs() < 1e-5);
            for f in &families[1..] {
                assert!(interval(&f["groups"])[0] >= token - 1e-5);
                assert!(interval(&f["groups_minus_token"])[0] >= -1e-5);
            }
            assert!(families[2]["power"] == 2.0 && families[1]["power"].is_null());
        }
        let f = &depths[0]["families"][1];
        let at = |k: &str| interval(&f[k])[0];
        for k in ["equal", "common", "step", "climbed"] {
            assert!(at(k) <= at("shared_high") + 1e-6, "{k} in {f}");
        }
        assert!(at("bound_token") <= at("near_high") && at("near_low") <= at("shared_high"));
        assert!(at("near_low") <= at("near_high") && at("shared_low") <= at("shared_high"));
        assert!(at("climbed") >= at("equal"));
    }
    let o = ok(eval(&dir, &["acceptance", "-n", "1", "--every", "60"]));
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    assert!(text.contains("| tiny |"), "{text}");

    for (args, code, told) in [
        (&["groups", "--out", "idx", "odd:1"][..], 2, "odd:1"),
        (&["acceptance", "--temperature", "0"], 2, "temperature"),
        (&["acceptance", "none.asg"], 3, "none.asg"),
        (&["acceptance", "--bound-mass", "2"], 2, "--bound-mass"),
        (&["live"], 2, "--theta"),
        (&["live", "--fsq", "1", "-n", "1"], 2, "--top-k"),
        (&["speech", "--top-k", "1,2"], 2, "one value"),
    ] {
        let o = eval(&dir, args);
        assert_eq!(o.status.code(), Some(code), "{args:?}: {}", stderr(&o));
        assert!(stderr(&o).contains(told), "{args:?}: {}", stderr(&o));
    }
}

#[cfg(feature = "lab")]
#[test]
fn eval_swaps_speaks_and_groups_on_the_fly() {
    let dir = Dir::new("eval-sounds");
    dir.bundle();
    ok(eval(&dir, &["groups", "--out", "idx", "fsq:0", "fsq:1", "random:1"]));
    let files = ["idx/fsq-0.asg", "idx/fsq-1.asg"];
    for shared in [&[][..], &["--shared"]] {
        let args = ["-n", "2", "--out", "swap", "--json"];
        let v = json(&ok(eval(&dir, &[&["swap"], &files[..], &args, shared].concat())));
        let f = v["families"].as_array().unwrap();
        assert_eq!(interval(&f[0]["replaced"]), [0.0; 3]);
        assert_eq!(interval(&f[0]["mel_db"]), [0.0; 3]);
        assert!(interval(&f[1]["replaced"])[0] > 0.85 && interval(&f[1]["mel_db"])[0] > 0.0);
    }
    let clean = Wav::read(dir.path("swap/unswapped/00001.wav")).unwrap();
    let alone = Wav::read(dir.path("swap/fsq-0/00001.wav")).unwrap();
    let moved = Wav::read(dir.path("swap/fsq-1-shared/00001.wav")).unwrap();
    assert_eq!(clean.samples, alone.samples);
    assert_eq!(clean.samples.len(), moved.samples.len());

    let args = ["-n", "2", "--out", "spoken", "--json", "--arm", "ar", "--arm", "pcg"];
    let v = json(&ok(eval(&dir, &[&["speech"], &files[..], &args].concat())));
    let lanes = v["lanes"].as_array().unwrap();
    let names: Vec<&str> = lanes.iter().map(|l| l["lane"].as_str().unwrap()).collect();
    assert_eq!(names, ["ar", "pcg-fsq-0", "pcg-fsq-1"]);
    assert_eq!(interval(&lanes[0]["speed_up"]), [1.0; 3]);
    assert_eq!(interval(&lanes[0]["tokens_per_round"])[0], 1.0);
    for lane in &lanes[1..] {
        assert!(interval(&lane["tokens_per_round"])[0] >= 1.0);
        let rate = interval(&lane["acceptance_rate"])[0];
        assert!((0.0..=1.0).contains(&rate));
        assert!(dir.path("spoken").join(lane["lane"].as_str().unwrap()).join("00001.wav").exists());
    }

    let args = ["--fsq", "1", "--index", "idx/fsq-1.asg", "--top-k", "30", "--mass", "1,0.5"];
    let v = json(&ok(eval(&dir, &[&["live", "-n", "1", "--json"], &args[..]].concat())));
    for row in v["rows"].as_array().unwrap() {
        assert!(interval(&row["live"])[0] >= interval(&row["token"])[0] - 1e-9);
        assert!(row["support"]["p95"].as_f64().unwrap() <= 60.0);
        assert!(
            row["live_us"]["p50"].as_f64().unwrap() > 0.0 && row["live_bytes"].as_u64() > Some(0)
        );
    }
    let v =
        json(&ok(eval(&dir, &["live", "--theta", "0.3", "-n", "1", "--top-p", "0.001", "--json"])));
    assert!(v["rows"][0]["index"].is_null());
}
