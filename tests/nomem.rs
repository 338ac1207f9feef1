//! An allocator that refuses the n-th request, for every n of opening a voice and speaking a short
//! utterance: through the library and through the C interface.
//!
//! Rust's own collections end the process where they get no memory: nothing else can be asked of
//! them. So this counts how each refusal ended (docs/security.md has the numbers), and holds that
//! there is no other end: an error or that abort, never a hang, a wrong result or another signal;
//! and that the loop which speaks asks for nothing once it is warm (tests/alloc.rs).
//!
//! The test starts itself once for every n. `VOXGRAIN_NOMEM=25` takes every 25th, `=1` all; otherwise
//! a few of them.
#![cfg(all(feature = "capi", target_os = "linux"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CString, c_void};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use voxgrain::capi::*;
use voxgrain::{ErrorKind, Options, Stream, Voice};

/// Requests until one is refused; less than 0: none is.
static LEFT: AtomicI64 = AtomicI64::new(-1);
/// Requests so far, where they are counted.
static ASKED: AtomicI64 = AtomicI64::new(0);

struct Failing;

/// Requests of more bytes than this are refused.
static LARGEST: AtomicUsize = AtomicUsize::new(usize::MAX);

fn refuses(bytes: usize) -> bool {
    ASKED.fetch_add(1, Ordering::Relaxed);
    if bytes > LARGEST.load(Ordering::Relaxed) {
        return true;
    }
    LEFT.load(Ordering::Relaxed) >= 0 && LEFT.fetch_sub(1, Ordering::Relaxed) == 0
}

// SAFETY: everything is passed on to the system's allocator or refused, which an allocator may.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

const SPOKEN: i32 = 10;
const REFUSED: i32 = 11;
const OTHER: i32 = 12;

fn tiny() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny").to_str().unwrap().to_owned()
}

fn library(dir: &str) -> voxgrain::Result<u64> {
    let voice = Voice::open(dir)?;
    let mut options = Options::for_voice(&voice);
    options.threads = 1;
    options.max_text = Options::MIN_TEXT;
    let mut stream = Stream::new(&voice, &options)?;
    stream.feed("a boat.")?;
    stream.flush()?;
    let mut samples = 0;
    while let Some(pcm) = stream.next_pcm()? {
        samples += pcm.len() as u64;
    }
    Ok(samples)
}

fn c_interface(dir: &CString) -> Result<u64, vx_status> {
    let good = |s: vx_status| if s < 0 { Err(s) } else { Ok(s) };
    let (mut voice, mut engine) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mut samples = 0u64;
    unsafe extern "C" fn count(user: *mut c_void, _: *const f32, n: usize) -> i32 {
        // SAFETY: the caller's own number.
        unsafe { *user.cast::<u64>() += n as u64 };
        0
    }
    // SAFETY: the header's conditions: pointers to what outlives the calls, handles of its own.
    unsafe {
        good(vx_voice_open(dir.as_ptr(), std::ptr::null(), &mut voice))?;
        let opened = good(vx_engine_open(voice, std::ptr::null(), &mut engine));
        let spoken = opened.and_then(|_| {
            let text = b"a boat.";
            let user = (&raw mut samples).cast();
            good(vx_engine_speak(engine, text.as_ptr().cast(), text.len(), Some(count), user))
        });
        vx_engine_close(engine);
        vx_voice_close(voice);
        spoken?;
    }
    Ok(samples)
}

/// The largest request of all is the question whether there is enough: refused, it is an error.
#[test]
fn too_little_memory_is_told_before_anything_is_made() {
    // Whatever its number: everything of more than a mebibyte is refused.
    let o = start("large", 0);
    assert_eq!(o.status.code(), Some(REFUSED), "{:?}", o.status);
}

/// The child: one run with a refusal, which says by its exit code how that ended.
fn child(door: &str, n: i64) -> ! {
    let (dir, c_dir) = (tiny(), CString::new(tiny()).unwrap());
    ASKED.store(0, Ordering::SeqCst);
    match door {
        "large" => LARGEST.store(1 << 20, Ordering::SeqCst),
        _ => LEFT.store(n, Ordering::SeqCst),
    }
    let code = match door {
        "c" => match c_interface(&c_dir) {
            Ok(samples) if samples > 0 => SPOKEN,
            Err(status) if status == VX_E_MEMORY => REFUSED,
            _ => OTHER,
        },
        _ => match library(&dir) {
            Ok(samples) if samples > 0 => SPOKEN,
            Err(e) if e.kind() == ErrorKind::Memory => REFUSED,
            _ => OTHER,
        },
    };
    LEFT.store(-1, Ordering::SeqCst);
    LARGEST.store(usize::MAX, Ordering::SeqCst);
    if n < 0 {
        println!("asked {}", ASKED.load(Ordering::SeqCst));
    }
    std::process::exit(code)
}

fn start(door: &str, n: i64) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_refused_request_is_an_error_or_the_end", "--nocapture"])
        .env("VOXGRAIN_NOMEM_CHILD", format!("{door} {n}"))
        .stderr(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_refused_request_is_an_error_or_the_end() {
    if let Ok(job) = std::env::var("VOXGRAIN_NOMEM_CHILD") {
        let (door, n) = job.split_once(' ').unwrap();
        child(door, n.parse().unwrap());
    }
    let every: Option<i64> = std::env::var("VOXGRAIN_NOMEM").ok().map(|s| s.parse().unwrap());
    for door in ["library", "c"] {
        let o = start(door, -1);
        assert_eq!(o.status.code(), Some(SPOKEN), "{door}");
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        let asked: i64 =
            text.lines().find_map(|l| l.strip_prefix("asked ")).unwrap().parse().unwrap();
        let step = every.unwrap_or(asked / 10).max(1);
        let (mut aborts, mut errors, mut spoken) = (0, 0, 0);
        for n in (0..asked).step_by(step as usize) {
            let o = start(door, n);
            match (o.status.code(), o.status.signal()) {
                (Some(SPOKEN), _) => spoken += 1,
                (Some(REFUSED), _) => errors += 1,
                (None, Some(6)) => aborts += 1,
                other => panic!("{door}: request {n} of {asked} refused: {other:?}"),
            }
        }
        println!(
            "{door}: {asked} requests; every {step}th refused by itself: {aborts} ended by abort, \
             {errors} came back as errors, {spoken} made no difference"
        );
        assert!(aborts > 0);
    }
}
