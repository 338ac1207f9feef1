//! Single flipped bits in every file of a bundle, its index and its lexicon: the voice opens or is
//! refused, speaks or stops with an error; it never panics, hangs or takes memory that nobody
//! stated. The checksums are left out here, so that what is behind them is met.
//!
//! A short run is part of the tests; `VOXGRAIN_FLIPS=50000` makes a long one, `VOXGRAIN_FLIPS_SEED`
//! another one (docs/security.md has those that were made).
#![cfg(feature = "engine")]

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use voxgrain::engine::Pool;
use voxgrain::map::Map;
use voxgrain::speech::text::TextFrontend;
use voxgrain::{Error, Options, Synthesizer, Voice, kernel};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a trial may take beside the file that it copies.
const CEILING: usize = 48 << 20;

struct Bundle {
    files: Vec<(String, Map)>,
    text: &'static str,
}

fn bundle(name: &str) -> Bundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut add = |key: String, path: PathBuf| files.push((key, Map::open(path).unwrap()));
    for f in std::fs::read_dir(root.join("models").join(name)).unwrap() {
        let path = f.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let used = !file.starts_with("draft_plain") || file.ends_with(".data");
        if used && (file.contains(".onnx") || file == "bundle.toml") {
            add(file, path);
        }
    }
    if name == "tiny" {
        // Listed, and not used by the voice.
        add("draft_plain.onnx".into(), root.join("models/tiny/draft_plain.onnx"));
    } else {
        add("en-us.lexicon".into(), root.join("models/lexicon/en-us.lexicon"));
    }
    add(format!("{name}.asg"), root.join(format!("asg-cache/{name}.asg")));
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Bundle { files, text: "A boat." }
}

/// What `inspect` and `say` do, with a short context.
fn use_it(
    files: &[(&str, Map)],
    text: &str,
    pool: &Arc<Pool>,
    opened: &AtomicBool,
) -> Result<usize, Error> {
    let voice = Voice::from_files(files)?;
    opened.store(true, Ordering::Relaxed);
    for model in [voice.target(), voice.draft().unwrap(), voice.codec()] {
        assert!(model.tensors().len() < 100_000);
    }
    let options = Options::for_voice(&voice);
    options.memory(&voice)?;
    let chunk = &TextFrontend::new(options.text)?.speak(text)?.chunks[0];
    let utterance = voice.utterance(chunk, 1.0)?;
    let mut s = Synthesizer::with_positions(&voice, options.decode, pool, 48)?;
    let mut samples = 0;
    for pcm in s.speak(&utterance.text)? {
        samples += pcm?.len();
    }
    Ok(samples)
}

/// When the trial that is running began, in milliseconds, and its number.
static BEGAN: AtomicU64 = AtomicU64::new(0);
static TRIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
struct Counts {
    spoken: u64,
    refused: u64,
    failed_later: u64,
    panics: u64,
    largest: usize,
    slowest: Duration,
}

fn run(name: &str, trials: u64, seed: u64) -> Counts {
    let bundle = bundle(name);
    let pool = Pool::new(kernel::best(), 1);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut counts = Counts::default();
    let start = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let (watched, label) = (done.clone(), name.to_owned());
    let watch = std::thread::spawn(move || {
        while !watched.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
            let began = BEGAN.load(Ordering::Relaxed);
            let now = start.elapsed().as_millis() as u64;
            if began > 0 && now > began + 60_000 {
                eprintln!("{label}: trial {} hangs", TRIAL.load(Ordering::Relaxed));
                std::process::abort();
            }
        }
    });
    // Sound, it speaks.
    let sound: Vec<(&str, Map)> = bundle.files.iter().map(|f| (&f.0[..], f.1.clone())).collect();
    assert!(use_it(&sound, bundle.text, &pool, &AtomicBool::new(false)).unwrap() > 0);
    for trial in 0..trials {
        let which = rng.random_range(0..bundle.files.len());
        let (file, map) = &bundle.files[which];
        let bit = rng.random_range(0..map.len() as u64 * 8);
        let base = LIVE.load(Ordering::Relaxed);
        PEAK.store(base, Ordering::Relaxed);
        TRIAL.store(trial, Ordering::Relaxed);
        BEGAN.store(start.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        let clock = Instant::now();
        let mut bytes = map.to_vec();
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        let mut files = sound.clone();
        files[which].1 = Map::from_vec(bytes);
        let opened = AtomicBool::new(false);
        let result = catch_unwind(AssertUnwindSafe(|| use_it(&files, bundle.text, &pool, &opened)));
        match result {
            Ok(Ok(_)) => counts.spoken += 1,
            Ok(Err(e)) => {
                let text = format!("{e:#}");
                assert!(!text.is_empty() && text.len() < 4000, "{file} bit {bit}: {text}");
                match opened.load(Ordering::Relaxed) {
                    true => counts.failed_later += 1,
                    false => counts.refused += 1,
                }
            }
            Err(_) => {
                counts.panics += 1;
                eprintln!("{name}: a panic by bit {bit} of {file}");
            }
        }
        drop(files);
        let took = PEAK.load(Ordering::Relaxed).saturating_sub(base + map.len() + 64);
        assert!(took < CEILING, "{file} bit {bit}: {took} bytes");
        counts.largest = counts.largest.max(took);
        counts.slowest = counts.slowest.max(clock.elapsed());
    }
    done.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    println!("{name}, seed {seed}, {trials} flips in {:.0?}: {counts:?}", start.elapsed());
    counts
}

fn number(key: &str) -> Option<u64> {
    std::env::var(key).ok()?.parse().ok()
}

#[test]
fn a_flipped_bit_is_an_error_or_a_sound() {
    let seed = number("VOXGRAIN_FLIPS_SEED").unwrap_or(1);
    let long = number("VOXGRAIN_FLIPS");
    let only = std::env::var("VOXGRAIN_FLIPS_BUNDLE").ok();
    for (name, few) in [("tiny", 400), ("voice", 40)] {
        if only.as_deref().is_some_and(|o| o != name) {
            continue;
        }
        let counts = run(name, long.unwrap_or(few), seed);
        assert_eq!(counts.panics, 0);
        assert!(counts.spoken > 0 && counts.refused > 0, "{counts:?}");
    }
}
