//! The fuzz targets of tests/fuzz on inputs that a seeded generator mutates, without a nightly
//! compiler: a quarter of a second each in the ordinary tests, `VOXGRAIN_FUZZ_SECONDS=10` each in CI, as
//! long as one likes by hand (`VOXGRAIN_FUZZ_ONLY=text` for one target, `VOXGRAIN_FUZZ_SEED`).
//! docs/security.md has the long runs. Coverage guides nothing here; where it matters, cargo-fuzz
//! runs the same targets.
#![cfg(feature = "std")]

#[path = "fuzz/targets/mod.rs"]
mod targets;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::path::Path;
use std::time::{Duration, Instant};

struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: Vec<Vec<u8>>,
    /// Words that its format knows.
    words: &'static [&'static str],
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn lines(path: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(read(path)).unwrap();
    text.lines().map(|l| l.split('\t').next().unwrap().as_bytes().to_vec()).collect()
}

fn all() -> Vec<Target> {
    let wav = {
        let mut out = Vec::new();
        let mut w = voxgrain::speech::wav::WavStream::new(
            &mut out,
            16_000,
            voxgrain::speech::wav::Container::Wav,
        )
        .unwrap();
        w.write(&[0.0, 0.5, -0.5]).unwrap();
        w.finish().unwrap();
        out
    };
    let markup = [
        "<speak>Hi <break time=\"1s\"/> <say-as interpret-as=\"date\">1/2/2026</say-as></speak>",
        "# Title\n\n* item **bold** [link](http://x) `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        "<p>One &amp; two&nbsp;<b>three</b><br/>four</p>",
        "<speak><prosody rate=\"50%\">a</prosody><phoneme alphabet=\"ipa\" ph=\"a\">b</phoneme></speak>",
    ];
    let mut list: Vec<Target> = vec![
        Target {
            name: "text",
            run: targets::text::run,
            seeds: lines("tests/data/texts.tsv"),
            words: &[
                "Dr.", "$", "12:30", "\u{a0}", "km/h", "\u{2014}", "IV", "1e9", "\u{feff}",
                "\u{202e}",
            ],
        },
        Target {
            name: "markup",
            run: targets::markup::run,
            seeds: markup.map(|m| m.as_bytes().to_vec()).to_vec(),
            words: &[
                "<speak>",
                "</speak>",
                "<![CDATA[",
                "]]>",
                "<!--",
                "&#x0;",
                "&amp;",
                "**",
                "```",
                "![](",
                "<break time=\"9e9s\"/>",
                "<!DOCTYPE x [<!ENTITY a \"b\">]>",
            ],
        },
        Target {
            name: "bundle",
            run: targets::bundle::run,
            seeds: vec![read("models/tiny/bundle.toml")],
            words: &[
                "[[files]]",
                "= -1",
                "= 1e99",
                "\"\"\"",
                "[[speakers]]",
                "\\u0000",
                "= nan",
                "..",
                "training",
            ],
        },
        Target {
            name: "wav",
            run: targets::wav::run,
            seeds: vec![wav],
            words: &["RIFF", "fmt ", "data", "LIST", "\u{0}\u{0}\u{0}\u{0}"],
        },
        Target {
            name: "asg",
            run: targets::asg::run,
            seeds: (0..9).map(|i| vec![i, 12, 0, 255]).collect(),
            words: &[],
        },
        Target {
            name: "lexicon",
            run: targets::lexicon::run,
            seeds: [
                &[0, 40, 0, 0, 1][..],
                b"\x01The blorptastic wind.",
                b"\x02nginx\tengine x\n",
                b"\x03h\xca\x8c",
            ]
            .iter()
            .map(|s| s.to_vec())
            .collect(),
            words: &["\t", "/", "\u{2c8}", "\u{26a}", "#"],
        },
    ];
    #[cfg(feature = "engine")]
    list.extend([
        Target {
            name: "guard",
            run: targets::guard::run,
            seeds: (0..40).map(|i| vec![i % 10, i * 7, i * 13, i]).collect(),
            words: &[],
        },
        Target {
            name: "model",
            run: targets::model::run,
            seeds: vec![
                read("models/tiny/target.onnx"),
                read("models/tiny/codec.onnx"),
                read("models/tiny/draft_plain.onnx"),
            ],
            words: &["Add", "ConstantOfShape", "tokens", "hidden", "Loop"],
        },
    ]);
    #[cfg(feature = "convert")]
    list.push(Target {
        name: "pack",
        run: targets::pack::run,
        seeds: vec![read("tests/data/stock/stock.onnx")],
        words: &["MatMulNBits", "QMatMul", "com.microsoft"],
    });
    #[cfg(feature = "capi")]
    list.push(Target {
        name: "calls",
        run: targets::calls::run,
        seeds: vec![vec![0, 4, 5, 5, 7, 9], vec![8, 7, 0, 4, 6]],
        words: &[],
    });
    list
}

/// A seed with a few changes.
fn mutate(rng: &mut StdRng, t: &Target) -> Vec<u8> {
    let mut bytes = t.seeds[rng.random_range(0..t.seeds.len())].clone();
    for _ in 0..1 << rng.random_range(0..5) {
        let n = bytes.len();
        let at = rng.random_range(0..=n);
        let end = (at + rng.random_range(1..=1 + n.min(64) / 2)).min(n);
        match rng.random_range(0..9) {
            0 if at < n => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < n => bytes[at] = rng.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, part);
            }
            4 if !t.words.is_empty() => {
                let word = t.words[rng.random_range(0..t.words.len())].bytes();
                bytes.splice(at..end.min(at + 4), word);
            }
            5 if at + 4 <= n => {
                let odd = [0u32, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                bytes[at..at + 4].copy_from_slice(&odd[rng.random_range(0..8)].to_le_bytes());
            }
            6 => {
                let other = &t.seeds[rng.random_range(0..t.seeds.len())];
                let from = rng.random_range(0..=other.len());
                let to = (from + rng.random_range(0..=64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            7 => {
                let many = rng.random_range(1..40);
                let byte = rng.random();
                bytes.splice(at..at, std::iter::repeat_n(byte, many));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes.truncate(1 << 16);
    bytes
}

#[test]
fn targets_hold_on_mutated_inputs() {
    let seconds: f64 =
        std::env::var("VOXGRAIN_FUZZ_SECONDS").ok().map_or(0.25, |s| s.parse().unwrap());
    let seed = std::env::var("VOXGRAIN_FUZZ_SEED").ok().map_or(1, |s| s.parse().unwrap());
    let only = std::env::var("VOXGRAIN_FUZZ_ONLY").ok();
    for t in all() {
        if only.as_deref().is_some_and(|o| o != t.name) {
            continue;
        }
        let mut rng = StdRng::seed_from_u64(seed);
        t.seeds.iter().for_each(|s| (t.run)(s));
        let (start, mut n) = (Instant::now(), 0u64);
        let mut slowest = Duration::ZERO;
        while n < 20 || start.elapsed().as_secs_f64() < seconds {
            let input = mutate(&mut rng, &t);
            let clock = Instant::now();
            (t.run)(&input);
            slowest = slowest.max(clock.elapsed());
            n += 1;
        }
        println!(
            "{}: {n} executions in {:.1?}, the slowest {slowest:.1?}",
            t.name,
            start.elapsed()
        );
        assert!(slowest < Duration::from_secs(60), "{}: {slowest:?}", t.name);
    }
}
