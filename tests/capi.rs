//! The C ABI as a C program meets it: raw pointers, wrong sizes, several threads. And the
//! header against the code, item by item.
#![cfg(feature = "capi")]
// Every block is a call that C would make, with the header's conditions; a reason at each of a
// hundred would say no more.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use voxgrain::asg::Index;
use voxgrain::capi::*;
use voxgrain::core::{self as core_, Row, Rule, SeededRng};
use voxgrain::decode::Arm;
use voxgrain::speech::text::Markup;
use voxgrain::{Options, Stream, Voice};

// ------------------------------------------------------------------ an allocator that counts

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` needed on this thread at its worst, and what it still holds.
fn measured<T>(f: impl FnOnce() -> T) -> (T, u64, u64) {
    let before = LIVE.get();
    PEAK.set(before);
    let value = f();
    (value, (PEAK.get() - before).max(0) as u64, (LIVE.get() - before).max(0) as u64)
}

// ------------------------------------------------------------------ helpers

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tiny() -> CString {
    CString::new(root().join("models/tiny").to_str().unwrap()).unwrap()
}

fn zeroed<T>() -> T {
    // Every struct of the interface is valid when zeroed.
    unsafe { std::mem::zeroed() }
}

fn last() -> String {
    unsafe { CStr::from_ptr(vx_last_error()) }.to_str().unwrap().to_owned()
}

fn name(status: vx_status) -> &'static str {
    unsafe { CStr::from_ptr(vx_status_name(status)) }.to_str().unwrap()
}

#[track_caller]
fn is(status: vx_status, expected: vx_status) {
    assert_eq!(name(status), name(expected), "{}", last());
    if status < 0 {
        assert!(!last().is_empty(), "{} without a message", name(status));
    }
}

struct VoiceHandle(*mut vx_voice);
struct Engine(*mut vx_engine);
// The header promises that both may change and share threads.
unsafe impl Send for VoiceHandle {}
unsafe impl Sync for VoiceHandle {}
unsafe impl Send for Engine {}
unsafe impl Sync for Engine {}

impl Drop for VoiceHandle {
    fn drop(&mut self) {
        unsafe { vx_voice_close(self.0) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        unsafe { vx_engine_close(self.0) }
    }
}

impl VoiceHandle {
    fn open() -> Self {
        let mut v = null_mut();
        is(unsafe { vx_voice_open(tiny().as_ptr(), null(), &mut v) }, VX_OK);
        Self(v)
    }
    fn engine(&self, o: &vx_options) -> Engine {
        let mut e = null_mut();
        is(unsafe { vx_engine_open(self.0, o, &mut e) }, VX_OK);
        Engine(e)
    }
    fn estimate(&self, o: &vx_options) -> vx_memory {
        let mut m: vx_memory = zeroed();
        is(unsafe { vx_engine_estimate(self.0, o, &mut m) }, VX_OK);
        m
    }
}

unsafe extern "C" fn collect(user: *mut c_void, pcm: *const f32, samples: usize) -> i32 {
    let all = unsafe { &mut *user.cast::<Vec<f32>>() };
    all.extend_from_slice(unsafe { std::slice::from_raw_parts(pcm, samples) });
    0
}

impl Engine {
    fn feed(&self, text: &[u8]) -> vx_status {
        unsafe { vx_engine_feed(self.0, text.as_ptr().cast(), text.len()) }
    }
    fn speak(&self, text: &str) -> (vx_status, Vec<f32>) {
        let mut pcm = Vec::<f32>::new();
        let user = (&raw mut pcm).cast();
        let status = unsafe {
            vx_engine_speak(self.0, text.as_ptr().cast(), text.len(), Some(collect), user)
        };
        (status, pcm)
    }
    fn read(&self, capacity: usize) -> (vx_status, Vec<f32>) {
        let mut pcm = vec![f32::NAN; capacity];
        let mut n = usize::MAX;
        let status = unsafe { vx_engine_read(self.0, pcm.as_mut_ptr(), capacity, &mut n) };
        assert!(n <= capacity && (n > 0) == (status == VX_OK));
        pcm.truncate(n);
        (status, pcm)
    }
    fn read_i16(&self, capacity: usize) -> (vx_status, Vec<i16>) {
        let (mut pcm, mut n) = (vec![0; capacity], 0);
        let status = unsafe { vx_engine_read_i16(self.0, pcm.as_mut_ptr(), capacity, &mut n) };
        pcm.truncate(n);
        (status, pcm)
    }
    fn read_all(&self, capacity: usize) -> Vec<f32> {
        let mut all = Vec::new();
        loop {
            match self.read(capacity) {
                (VX_OK, pcm) => all.extend(pcm),
                (status, _) => {
                    is(status, VX_END);
                    return all;
                }
            }
        }
    }
    fn stats(&self) -> vx_stats {
        let mut s = vx_stats { size: size_of::<vx_stats>() as u32, ..zeroed() };
        is(unsafe { vx_engine_stats(self.0, &mut s) }, VX_OK);
        s
    }
}

fn options() -> vx_options {
    vx_options { size: size_of::<vx_options>() as u32, threads: 1, ..zeroed() }
}

/// The same through the Rust interface.
fn reference(arm: Arm, seed: u64, gamma: Option<usize>, text: &str) -> Vec<f32> {
    spoken_by(&Voice::open(root().join("models/tiny")).unwrap(), arm, seed, gamma, text)
}

fn spoken_by(voice: &Voice, arm: Arm, seed: u64, gamma: Option<usize>, text: &str) -> Vec<f32> {
    let mut o = Options::for_voice(voice);
    (o.decode.arm, o.decode.seed, o.threads) = (arm, seed, 1);
    if let Some(gamma) = gamma {
        o.decode.gamma = gamma.into();
    }
    let mut pcm = Vec::new();
    let mut collect = |part: &[f32]| {
        pcm.extend_from_slice(part);
        ControlFlow::Continue(())
    };
    Stream::new(voice, &o).unwrap().speak(text, &mut collect).unwrap();
    pcm
}

const PCG: Arm = Arm::Pcg { emission: core_::Emission::StandIn };
/// What `VX_ARM_DEFAULT` is with a symmetric index.
const DEFAULT: Arm = Arm::Transport;

// ------------------------------------------------------------------ what works

#[test]
fn every_way_to_speak_gives_the_same_samples() {
    let text = "Hi there. Pull or push?";
    let want = reference(DEFAULT, 7, None, text);
    assert!(!want.is_empty());
    let voice = VoiceHandle::open();
    let o = vx_options { seed: 7, ..options() };

    let (status, pushed) = voice.engine(&o).speak(text);
    is(status, VX_OK);
    assert!(pushed == want, "callback");

    let e = voice.engine(&o);
    is(e.read(16).0, VX_END);
    is(e.feed(text.as_bytes()), VX_OK);
    is(unsafe { vx_engine_flush(e.0) }, VX_OK);
    assert!(e.read_all(777) == want, "pull");
    is(e.read(16).0, VX_END);

    // However it is cut, a sentence is a sentence.
    let three = "One. Two! Three? 4 caf\u{e9}s, 3.5 km/h";
    let whole = voice.engine(&o).speak(three).1;
    for step in [1, 2, 7] {
        let e = voice.engine(&o);
        for part in three.as_bytes().chunks(step) {
            is(e.feed(part), VX_OK);
        }
        is(unsafe { vx_engine_flush(e.0) }, VX_OK);
        assert!(e.read_all(4096) == whole, "{step} bytes at a time");
    }

    // A byte at a time, on other threads, in 16 bits, and the voice closed before.
    let e = voice.engine(&vx_options { threads: 3, ..o });
    drop(voice);
    for b in text.bytes() {
        is(e.feed(&[b]), VX_OK);
    }
    is(unsafe { vx_engine_flush(e.0) }, VX_OK);
    let mut all = Vec::new();
    loop {
        // One thread a call.
        let (status, part) = std::thread::scope(|s| s.spawn(|| e.read_i16(300)).join().unwrap());
        if status == VX_END {
            break;
        }
        is(status, VX_OK);
        all.extend(part);
    }
    let want: Vec<i16> = want.iter().map(|x| voxgrain::speech::wav::to_i16(*x)).collect();
    assert!(all == want, "16 bits");

    let s = e.stats();
    assert_eq!((s.utterances, s.samples), (2, want.len() as u64));
    assert_eq!(s.threads, 3);
    assert!(s.tokens > 0 && s.rounds > 0 && s.proposed >= s.accepted && s.emitted >= s.tokens);
    assert!(s.first_audio_ns > 0 && s.longest_round_ns > 0 && s.compute_ns >= s.codec_ns);
}

#[test]
fn options_reach_the_decoder() {
    let voice = VoiceHandle::open();
    let text = "Oh.";
    let cases = [
        (vx_options { arm: VX_ARM_AR, ..options() }, reference(Arm::Ar, 0, None, text)),
        (vx_options { arm: VX_ARM_SD, seed: 3, ..options() }, reference(Arm::Sd, 3, None, text)),
        (vx_options { arm: VX_ARM_PCG, gamma: 2, ..options() }, reference(PCG, 0, Some(2), text)),
        (vx_options { gamma: VX_OFF, ..options() }, reference(DEFAULT, 0, Some(0), text)),
        (
            vx_options { arm: VX_ARM_TOLERANCE, ..options() },
            reference(Arm::Tolerance { beta: 0.4 }, 0, None, text),
        ),
        (
            vx_options { arm: VX_ARM_TRANSPORT, seed: 2, ..options() },
            reference(Arm::Transport, 2, None, text),
        ),
    ];
    for (i, (o, want)) in cases.iter().enumerate() {
        let (status, got) = voice.engine(o).speak(text);
        is(status, VX_OK);
        assert!(got == *want, "case {i}");
    }
    // Null options, and a zeroed struct without size, are the defaults.
    let mut e = null_mut();
    is(unsafe { vx_engine_open(voice.0, null(), &mut e) }, VX_OK);
    let a = Engine(e).speak(text);
    is(unsafe { vx_engine_open(voice.0, &zeroed(), &mut e) }, VX_OK);
    let b = Engine(e).speak(text);
    assert!(a.1 == b.1 && a.1 == reference(DEFAULT, 0, None, text));
    // Greedy: the seed does not matter.
    let greedy =
        |seed| vx_options { temperature: VX_OFF as f32, arm: VX_ARM_SD, seed, ..options() };
    assert!(voice.engine(&greedy(1)).speak(text).1 == voice.engine(&greedy(2)).speak(text).1);
}

#[test]
fn a_voice_describes_itself() {
    let voice = VoiceHandle::open();
    let mut i: vx_voice_info = zeroed();
    is(unsafe { vx_voice_describe(voice.0, &mut i) }, VX_OK);
    assert_eq!((i.sample_rate_hz, i.token_rate_hz, i.max_positions), (16000, 50, 512));
    assert_eq!((i.latency_samples, i.default_gamma, i.has_groups), (240, 4, 1));
    let text = |p| unsafe { CStr::from_ptr(p) }.to_str().unwrap();
    assert_eq!((text(i.name), text(i.attribution)), ("tiny", ""));
    // A caller of version 1 gets what it knows, and not a byte behind it.
    assert_eq!((i.size, i.speaker_count), (0, 0));
    i.size = size_of::<vx_voice_info>() as u32;
    is(unsafe { vx_voice_describe(voice.0, &mut i) }, VX_OK);
    assert_eq!((i.speaker_count, i.reserved2), (2, 0));
    let mut found = Vec::new();
    for index in 0..i.speaker_count {
        let mut s: vx_speaker = zeroed();
        is(unsafe { vx_voice_speaker(voice.0, index, &mut s) }, VX_OK);
        found.push((text(s.name), text(s.description)));
    }
    assert_eq!(found, [("first", "noise, the first kind"), ("second", "noise, the second kind")]);
    for index in [2, u32::MAX] {
        is(unsafe { vx_voice_speaker(voice.0, index, &mut zeroed()) }, VX_E_ARGUMENT);
        assert!(last().contains("2 speakers"), "{}", last());
    }
    let mut b: vx_build = zeroed();
    is(unsafe { vx_build_info(&mut b) }, VX_OK);
    assert_eq!(b.abi_version, vx_abi_version());
    assert_eq!(text(b.version), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(b.kernel), voxgrain::kernel::best().name());
    assert!(text(b.kernels).contains("scalar") && text(b.target).contains('-'));
    assert_eq!((name(VX_E_FULL), name(99)), ("VX_E_FULL", "unknown"));
}

#[test]
fn a_voice_speaks_as_each_of_its_speakers() {
    let voice = VoiceHandle::open();
    let spoken = |o: &vx_options| {
        let (status, pcm) = voice.engine(o).speak("Oh.");
        is(status, VX_OK);
        pcm
    };
    let named = |n: &CStr| vx_options { speaker: n.as_ptr(), ..options() };
    let (first, second) = (spoken(&named(c"first")), spoken(&named(c"second")));
    assert!(first == reference(DEFAULT, 0, None, "Oh.") && first == spoken(&options()));
    assert!(second != first && !second.is_empty());
    assert!(second == spoken(&vx_options { speaker_index: 1, ..options() }));
    let other = Voice::open(root().join("models/tiny")).unwrap().with_speaker("second").unwrap();
    assert!(second == spoken_by(&other, DEFAULT, 0, None, "Oh."));
    // What an old caller leaves behind its struct is not read.
    let old = vx_options { size: 72, speaker_index: 1, ..options() };
    assert!(first == spoken(&old));
    // Two at once, from one voice in memory.
    let (a, b) = (voice.engine(&named(c"first")), voice.engine(&named(c"second")));
    std::thread::scope(|s| {
        let one = s.spawn(|| a.speak("Oh.").1);
        assert!(b.speak("Oh.").1 == second && one.join().unwrap() == first);
    });

    let mut e = null_mut();
    for (o, words) in [
        (named(c"third"), "first, second"),
        (named(c""), "first, second"),
        (named(c"\xff"), "UTF-8"),
        (vx_options { speaker_index: 2, ..options() }, "speaker 2"),
        (vx_options { speaker_index: 1, ..named(c"second") }, "both"),
        (vx_options { reserved2: 1, ..options() }, "reserved"),
    ] {
        is(unsafe { vx_engine_open(voice.0, &o, &mut e) }, VX_E_ARGUMENT);
        assert!(last().contains(words), "{}", last());
        is(unsafe { vx_engine_estimate(voice.0, &o, &mut zeroed()) }, VX_E_ARGUMENT);
    }
    assert!(e.is_null());
}

#[test]
fn markup_lines_and_pauses_reach_the_front_end() {
    let voice = VoiceHandle::open();
    let rust = Voice::open(root().join("models/tiny")).unwrap();
    let want = |change: fn(&mut voxgrain::speech::text::Options), text: &str| {
        let mut o = Options::for_voice(&rust);
        o.threads = 1;
        change(&mut o.text);
        let mut pcm = Vec::new();
        let mut sink = |part: &[f32]| {
            pcm.extend_from_slice(part);
            ControlFlow::Continue(())
        };
        Stream::new(&rust, &o).unwrap().speak(text, &mut sink).unwrap();
        pcm
    };
    let said = |o: vx_options, text: &str| {
        let (status, pcm) = voice.engine(&o).speak(text);
        is(status, VX_OK);
        pcm
    };
    let bold = "A **bold** <b>word</b>.";
    let plain = said(options(), bold);
    assert!(plain == want(|_| {}, bold));
    for (markup, rust) in [
        (VX_MARKUP_NONE, Markup::None),
        (VX_MARKUP_MARKDOWN, Markup::Markdown),
        (VX_MARKUP_AUTO, Markup::Auto),
    ] {
        let pcm = said(vx_options { markup, ..options() }, bold);
        let same = match rust {
            Markup::None => want(|o| o.markup = Markup::None, bold),
            _ => want(|o| o.markup = Markup::Markdown, bold),
        };
        assert!(pcm == same, "{rust:?}");
        assert_eq!(pcm == plain, rust != Markup::None, "{rust:?}");
    }
    let ssml = voice.engine(&vx_options { markup: VX_MARKUP_SSML, ..options() });
    is(ssml.speak("No document.").0, VX_E_TEXT);
    is(ssml.speak("<speak>No.</speak>").0, VX_OK);

    let lines = "this is a longer line that goes on in\nthe one below it and\nthere it ends";
    let pcm = said(vx_options { lines: 1, ..options() }, lines);
    assert!(pcm == want(|o| o.lines = true, lines) && pcm != said(options(), lines));

    // At 16 kHz, without the 0.2 s that are the voice's own.
    let two = "# No\n\nOh. No.\n\nOh.";
    let off = VX_OFF as f32;
    let none = vx_options {
        pause_heading: off,
        pause_sentence: off,
        pause_paragraph: off,
        pause_comma: off,
        pause_clause: off,
        ..options()
    };
    let base = said(none, two).len();
    let longer = |o| said(o, two).len() - base;
    assert_eq!(longer(vx_options { pause_heading: 0.3, ..none }), 1600);
    assert_eq!(longer(vx_options { pause_sentence: 0.4, ..none }), 3200);
    assert_eq!(longer(vx_options { pause_paragraph: 0.5, ..none }), 4800);
    assert_eq!(longer(vx_options { pause_comma: 9.0, pause_clause: 9.0, ..none }), 0);
    assert_eq!(longer(options()), 8000 + 1600 + 6400, "0.7, 0.3 and 0.6 s");
}

#[test]
fn the_totals_say_what_is_being_read() {
    let text = "Hi there. Pull, or push?";
    let voice = VoiceHandle::open();
    let e = voice.engine(&vx_options { pause_sentence: 0.5, ..options() });
    is(e.feed(text.as_bytes()), VX_OK);
    is(unsafe { vx_engine_flush(e.0) }, VX_OK);
    let (mut at, mut begins) = (0, Vec::new());
    let before = e.stats();
    assert_eq!((before.begun, before.samples), (0, 0));
    loop {
        let (status, pcm) = e.read(1000);
        if status == VX_END {
            break;
        }
        at += pcm.len() as u64;
        let s = e.stats();
        assert!(s.samples >= at && s.begun as usize >= begins.len());
        if s.begun as usize > begins.len() {
            begins.push((s.begun_at, &text[s.source_begin as usize..s.source_end as usize]));
        }
    }
    let s = e.stats();
    assert_eq!(s.samples, at);
    assert_eq!((begins[0], begins.len()), ((0, "Hi there."), 2));
    assert_eq!(begins[1].1, "Pull, or push?");
    assert_eq!(at, s.tokens * 320 + 4800, "the silence between them is counted");
    assert!(begins[1].0 > 4800 && begins[1].0 % 320 == 4800 % 320);
}

// ------------------------------------------------------------------ what would be said

/// A sentence as the callback met it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    text: String,
    phonemes: String,
    place: (usize, usize),
    pause: f32,
    words: Vec<(String, usize, usize)>,
    pronounced: Vec<(String, String, i32)>,
    changes: Vec<(String, Option<String>, usize, usize)>,
}

unsafe extern "C" fn seen(user: *mut c_void, s: *const vx_sentence) -> i32 {
    fn all<'a, T>(p: *const T, n: usize) -> &'a [T] {
        assert!(!p.is_null() && p.is_aligned());
        unsafe { std::slice::from_raw_parts(p, n) }
    }
    let text = |p| unsafe { CStr::from_ptr(p) }.to_str().unwrap().to_owned();
    let (list, s) = unsafe { (&mut *user.cast::<Vec<Seen>>(), &*s) };
    assert_eq!(s.size as usize, size_of::<vx_sentence>());
    let words = all(s.words, s.word_count).iter();
    let pronounced = all(s.pronunciations, s.pronunciation_count).iter();
    let changes = all(s.changes, s.change_count).iter();
    list.push(Seen {
        text: text(s.text),
        phonemes: text(s.phonemes),
        place: (s.begin, s.end),
        pause: s.pause_after,
        words: words.map(|w| (text(w.text), w.begin, w.end)).collect(),
        pronounced: pronounced.map(|p| (text(p.word), text(p.phonemes), p.origin)).collect(),
        changes: changes
            .map(|c| {
                let spoken = (!c.spoken.is_null()).then(|| text(c.spoken));
                (text(c.written), spoken, c.begin, c.end)
            })
            .collect(),
    });
    (list.len() == 3) as i32
}

impl VoiceHandle {
    fn explain(&self, o: &vx_options, text: &str) -> (vx_status, Vec<Seen>) {
        let mut list = Vec::<Seen>::new();
        let user = (&raw mut list).cast();
        let status = unsafe {
            vx_voice_explain(self.0, o, text.as_ptr().cast(), text.len(), Some(seen), user)
        };
        (status, list)
    }

    fn with_lexicon(&self, text: &[u8], name: *const c_char) -> (vx_status, Self) {
        let mut v = null_mut();
        let status = unsafe {
            vx_voice_with_lexicon(self.0, text.as_ptr().cast(), text.len(), name, &mut v)
        };
        (status, Self(v))
    }

    /// The tiny voice described as one that reads phonemes, whose rows are anything, so it is not
    /// made to speak.
    fn of_phonemes() -> Self {
        let mut files = Files::load();
        let toml = std::fs::read_to_string(root().join("models/tiny/bundle.toml")).unwrap();
        let old = toml.lines().find(|l| l.starts_with("characters = ")).unwrap();
        let characters = format!("{}123", voxgrain::speech::phonemes::SYMBOLS);
        let section = "[text]\nfront_end = \"phonemes\"\nlexicon = \"../lexicon/en-us.lexicon\"\n\
                       tempo_symbols = \"123\"\ntempos = [0.5, 1.0, 2.0]\n[[speakers]]";
        let toml = toml
            .replacen("format = 1", "format = 2", 1)
            .replacen(old, &format!("characters = {}", toml::Value::from(characters)), 1)
            .replacen("[[speakers]]", section, 1);
        files.put("bundle.toml", toml.into_bytes());
        for name in ["target.onnx", "draft.onnx"] {
            files.put(
                name,
                with_room(std::fs::read(root().join("models/tiny").join(name)).unwrap()),
            );
        }
        let lexicon = std::fs::read(root().join("models/lexicon/en-us.lexicon")).unwrap();
        files.put("en-us.lexicon", lexicon);
        let (status, voice) = open_memory(&files.table(), 0);
        is(status, VX_OK);
        voice
    }
}

#[test]
fn what_would_be_said_is_told() {
    let text = "It is 5 km to \u{4f60}\u{597d} X. No! Yes.";
    let of = |s: &str| {
        let at = text.find(s).unwrap();
        (at, at + s.len())
    };
    let letters = VoiceHandle::open();
    let (status, all) = letters.explain(&options(), text);
    is(status, VX_E_CANCELLED);
    assert_eq!(all.len(), 3, "the third call asked to stop");
    let first = &all[0];
    assert_eq!(first.text, "it is five kilometers to x.");
    assert_eq!(first.words[2], ("five".into(), of("5 km").0, of("5 km").1));
    assert!((first.place.0, all[1].place) == (0, of("No!")), "{all:?}");
    assert!(first.phonemes.is_empty() && first.pronounced.is_empty());
    let (begin, end) = of("\u{4f60}\u{597d}");
    assert!(first.changes.contains(&("\u{4f60}\u{597d}".into(), None, begin, end)), "{first:?}");
    let (begin, end) = of("5 km");
    let five = ("5 km".into(), Some("five kilometers".into()), begin, end);
    assert!(first.changes.contains(&five), "{first:?}");
    assert!(first.changes.is_sorted_by_key(|c| c.2));
    assert!((all[1].pause, &all[1].changes[..]) == (0.3, &[]));

    // The options are an engine's.
    let o = vx_options { markup: VX_MARKUP_SSML, ..options() };
    is(letters.explain(&o, text).0, VX_E_TEXT);
    let o = vx_options { pause_sentence: 0.75, ..options() };
    assert_eq!(letters.explain(&o, "No.").1[0].pause, 0.75);
    let o = vx_options { rate: 2.0, markup: 7, ..options() };
    is(letters.explain(&o, "No.").0, VX_E_ARGUMENT);
    for nothing in ["", " ", "\u{4f60}"] {
        is(letters.explain(&options(), nothing).0, VX_E_TEXT);
    }
    let bad = [b'N', 0xff];
    let status = unsafe {
        vx_voice_explain(letters.0, null(), bad.as_ptr().cast(), 2, Some(seen), null_mut())
    };
    is(status, VX_E_TEXT);

    let voice = VoiceHandle::of_phonemes();
    let mut i = vx_voice_info { size: size_of::<vx_voice_info>() as u32, ..zeroed() };
    is(unsafe { vx_voice_describe(voice.0, &mut i) }, VX_OK);
    assert_eq!((i.reads_phonemes, i.min_rate, i.max_rate), (1, 0.5, 2.0));
    is(unsafe { vx_voice_describe(letters.0, &mut i) }, VX_OK);
    assert_eq!((i.reads_phonemes, i.min_rate, i.max_rate), (0, 1.0, 1.0));

    let (status, all) = voice.explain(&options(), "The USB cable, gribblefax.");
    is(status, VX_OK);
    let [s] = &all[..] else { panic!("{all:?}") };
    let told: Vec<_> = s.pronounced.iter().map(|p| (&p.0[..], p.2)).collect();
    let want = [
        ("the", VX_ORIGIN_LEXICON),
        ("USB", VX_ORIGIN_LEXICON),
        ("cable", VX_ORIGIN_LEXICON),
        ("gribblefax", VX_ORIGIN_LETTERS),
    ];
    assert_eq!(told, want);
    assert_eq!(s.pronounced[1].1, "j\u{2cc}u\u{2cc}\u{25b}sb\u{2c8}i");
    assert!(s.phonemes.contains(&s.pronounced[1].1) && s.phonemes.ends_with('.'));
    assert_eq!(s.words.len(), 6, "letters one by one: {s:?}");
    // A rate that the voice has.
    for (rate, expected) in [(0.5, VX_OK), (2.0, VX_OK), (2.5, VX_E_ARGUMENT)] {
        let mut m: vx_memory = zeroed();
        let o = vx_options { rate, ..options() };
        is(unsafe { vx_engine_estimate(voice.0, &o, &mut m) }, expected);
    }
}

#[test]
fn a_users_lexicon_makes_another_voice() {
    let voice = VoiceHandle::of_phonemes();
    let said = |v: &VoiceHandle| v.explain(&options(), "Start nginx.").1.remove(0).pronounced;
    let before = said(&voice);
    let (status, mine) = voice.with_lexicon(b"# mine\nnginx\tengine x\n", null());
    is(status, VX_OK);
    let (status, ours) = mine.with_lexicon("nginx\t/n\u{2c8}o\u{28a}/".as_bytes(), null());
    is(status, VX_OK);
    assert_eq!(said(&voice), before, "the voice stays as it is");
    drop(voice);
    assert_eq!((said(&mine)[1].0.as_str(), said(&mine)[1].2), ("nginx", VX_ORIGIN_USER));
    assert_ne!(said(&mine)[1].1, before[1].1);
    assert_ne!(said(&ours)[1].1, said(&mine)[1].1);
    assert_eq!(said(&ours)[0], before[0]);

    let (status, none) = mine.with_lexicon(b"no tab", c"words.txt".as_ptr());
    is(status, VX_E_ARGUMENT);
    assert!(none.0.is_null() && last().contains("words.txt, line 1"), "{}", last());
    is(mine.with_lexicon(b"n\t\xff", null()).0, VX_E_TEXT);
    is(VoiceHandle::open().with_lexicon(b"nginx\tengine x", null()).0, VX_E_UNSUPPORTED);
    is(mine.with_lexicon(b"", null()).0, VX_OK);
}

// ------------------------------------------------------------------ voices in memory

/// A language model of the tiny bundle with rows for phonemes: the table of characters goes on into
/// the weights behind it, which nobody makes speak. As long as it was.
fn with_room(mut graph: Vec<u8>) -> Vec<u8> {
    let find = |graph: &[u8], what: &[u8]| {
        graph.windows(what.len()).position(|w| w == what).expect("the tiny bundle has changed")
    };
    // 36 rows of 64 halves, in a protobuf.
    let at = find(&graph, b"\x08\x24\x08\x40\x10\x0aB\x0fembedding.extra");
    graph[at + 1] = 78;
    let length = at + find(&graph[at..], b"\x044608");
    graph[length + 1..][..4].copy_from_slice(b"9984");
    graph
}

/// The files of the tiny bundle with 64-byte alignment.
struct Files {
    names: Vec<CString>,
    buffers: Vec<Vec<u8>>,
    starts: Vec<usize>,
    lengths: Vec<usize>,
}

impl Files {
    fn load() -> Self {
        let dir = root().join("models/tiny");
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
        paths.push(root().join("asg-cache/tiny.asg"));
        let mut all = Self { names: vec![], buffers: vec![], starts: vec![], lengths: vec![] };
        for p in paths {
            all.put(p.file_name().unwrap().to_str().unwrap(), std::fs::read(&p).unwrap());
        }
        all
    }
    /// Adds a file, or replaces the one of that name.
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        if let Some(i) = self.names.iter().position(|n| n.to_str() == Ok(name)) {
            self.names.remove(i);
            self.lengths.remove(i);
            self.starts.remove(i);
            self.buffers.remove(i);
        }
        let mut buffer = vec![0; bytes.len() + 64];
        let start = buffer.as_ptr().align_offset(64);
        buffer[start..start + bytes.len()].copy_from_slice(&bytes);
        self.names.push(CString::new(name).unwrap());
        self.lengths.push(bytes.len());
        self.starts.push(start);
        self.buffers.push(buffer);
    }
    fn table(&self) -> Vec<vx_file> {
        (0..self.names.len())
            .map(|i| vx_file {
                name: self.names[i].as_ptr(),
                data: self.buffers[i][self.starts[i]..].as_ptr().cast(),
                bytes: self.lengths[i],
            })
            .collect()
    }
    fn find(&self, name: &str) -> usize {
        self.names.iter().position(|n| n.to_str() == Ok(name)).unwrap()
    }
}

fn open_memory(files: &[vx_file], flags: u32) -> (vx_status, VoiceHandle) {
    let o = vx_voice_options { flags, ..zeroed() };
    let mut v = null_mut();
    let status = unsafe { vx_voice_open_memory(files.as_ptr(), files.len(), &o, &mut v) };
    (status, VoiceHandle(v))
}

#[test]
fn a_voice_in_memory_speaks_like_one_in_files() {
    let want = reference(DEFAULT, 0, None, "No.");
    let files = Files::load();
    let (status, borrowed) = open_memory(&files.table(), VX_VOICE_BORROW);
    is(status, VX_OK);
    assert!(borrowed.engine(&options()).speak("No.").1 == want);

    let gone = Files::load();
    let (status, copied) = open_memory(&gone.table(), 0);
    is(status, VX_OK);
    drop(gone);
    assert!(copied.engine(&options()).speak("No.").1 == want);

    for flags in [VX_VOICE_COPY, VX_VOICE_VERIFY, VX_VOICE_COPY | VX_VOICE_VERIFY] {
        let index = CString::new(root().join("asg-cache/tiny.asg").to_str().unwrap()).unwrap();
        let o = vx_voice_options { flags, groups_path: index.as_ptr(), ..zeroed() };
        let mut v = null_mut();
        is(unsafe { vx_voice_open(tiny().as_ptr(), &o, &mut v) }, VX_OK);
        assert!(VoiceHandle(v).engine(&options()).speak("No.").1 == want);
    }
}

/// VX_VOICE_COPY does not map a file for a moment either: it works where nothing can be mapped.
#[cfg(target_os = "linux")]
#[test]
fn copied_files_are_read() {
    let unmappable = ["/sys/kernel/profiling", "/sys/devices/system/cpu/possible"]
        .into_iter()
        .find(|p| std::fs::read(p).is_ok_and(|b| !b.is_empty()));
    let Some(path) = unmappable else {
        println!("skipped: no such file here");
        return;
    };
    let path = CString::new(path).unwrap();
    for (flags, expected) in [(0, VX_E_UNREADABLE), (VX_VOICE_COPY, VX_E_MALFORMED)] {
        // Read or not: an index it is not.
        let o = vx_voice_options { flags, groups_path: path.as_ptr(), ..zeroed() };
        let mut v = null_mut();
        is(unsafe { vx_voice_open(tiny().as_ptr(), &o, &mut v) }, expected);
    }
}

// ------------------------------------------------------------------ what fails

#[test]
fn voices_that_cannot_be_opened() {
    let files = Files::load();
    type Case = (&'static str, fn(&mut vx_file), u32, vx_status);
    let cases: [Case; 8] = [
        ("target.onnx", |f| f.bytes -= 1, 0, VX_E_MISMATCH),
        ("draft.onnx.data", |f| f.name = c"other".as_ptr(), 0, VX_E_UNREADABLE),
        ("bundle.toml", |f| f.bytes /= 2, 0, VX_E_MALFORMED),
        ("bundle.toml", |f| f.bytes = 0, 0, VX_E_MALFORMED),
        ("tiny.asg", |f| f.bytes -= 1, 0, VX_E_MALFORMED),
        ("codec.onnx", |f| f.data = null(), 0, VX_E_ARGUMENT),
        ("codec.onnx", |f| f.name = null(), 0, VX_E_ARGUMENT),
        (
            "codec.onnx.data",
            |f| f.data = f.data.wrapping_byte_add(1),
            VX_VOICE_BORROW,
            VX_E_ARGUMENT,
        ),
    ];
    for (file, spoil, flags, expected) in cases {
        let mut table = files.table();
        spoil(&mut table[files.find(file)]);
        let (status, v) = open_memory(&table, flags);
        is(status, expected);
        assert!(v.0.is_null());
    }
    is(open_memory(&files.table(), VX_VOICE_VERIFY).0, VX_E_ARGUMENT);
    is(open_memory(&[], 0).0, VX_E_UNREADABLE);
    let mut without = files.table();
    without.remove(files.find("tiny.asg"));
    let (status, v) = open_memory(&without, 0);
    is(status, VX_OK);
    let mut e = null_mut();
    for arm in [VX_ARM_PCG, VX_ARM_TRANSPORT] {
        let grouped = vx_options { arm, ..options() };
        is(unsafe { vx_engine_open(v.0, &grouped, &mut e) }, VX_E_ARGUMENT);
    }
    assert!(last().contains("group index"), "{}", last());
    is(v.engine(&options()).speak("No.").0, VX_OK);

    let mut v = null_mut();
    let absent = CString::new(root().join("absent").to_str().unwrap()).unwrap();
    is(unsafe { vx_voice_open(absent.as_ptr(), null(), &mut v) }, VX_E_UNREADABLE);
    let o = vx_voice_options { groups_path: absent.as_ptr(), ..zeroed() };
    is(unsafe { vx_voice_open(tiny().as_ptr(), &o, &mut v) }, VX_E_UNREADABLE);
    is(unsafe { vx_voice_open(c"\xff".as_ptr(), null(), &mut v) }, VX_E_ARGUMENT);
    let o = vx_voice_options { flags: 64, ..zeroed() };
    is(unsafe { vx_voice_open(tiny().as_ptr(), &o, &mut v) }, VX_E_ARGUMENT);
    assert!(v.is_null());
}

#[test]
fn null_pointers_are_refused() {
    let voice = VoiceHandle::open();
    let e = voice.engine(&options());
    let (mut v, mut f, mut n) = (null_mut(), 0f32, 0usize);
    let mut out = null_mut();
    let text: *const c_char = c"no".as_ptr();
    let sink: vx_pcm_fn = Some(collect);
    let see: vx_sentence_fn = Some(seen);
    unsafe {
        for status in [
            vx_build_info(null_mut()),
            vx_voice_open(null(), null(), &mut v),
            vx_voice_open(tiny().as_ptr(), null(), null_mut()),
            vx_voice_open_memory(null(), 1, null(), &mut v),
            vx_voice_open_memory(null(), 0, null(), null_mut()),
            vx_voice_describe(null(), &mut zeroed()),
            vx_voice_describe(voice.0, null_mut()),
            vx_voice_speaker(null(), 0, &mut zeroed()),
            vx_voice_speaker(voice.0, 0, null_mut()),
            vx_voice_with_lexicon(null(), text, 2, null(), &mut v),
            vx_voice_with_lexicon(voice.0, null(), 2, null(), &mut v),
            vx_voice_with_lexicon(voice.0, text, 2, null(), null_mut()),
            vx_voice_explain(null(), null(), text, 2, see, null_mut()),
            vx_voice_explain(voice.0, null(), null(), 2, see, null_mut()),
            vx_voice_explain(voice.0, null(), text, 2, None, null_mut()),
            vx_engine_estimate(null(), null(), &mut zeroed()),
            vx_engine_estimate(voice.0, null(), null_mut()),
            vx_engine_open(null(), null(), &mut out),
            vx_engine_open(voice.0, null(), null_mut()),
            vx_engine_feed(null_mut(), text, 2),
            vx_engine_feed(e.0, null(), 2),
            vx_engine_feed(e.0, null(), VX_NUL_TERMINATED),
            vx_engine_flush(null_mut()),
            vx_engine_read(null_mut(), &mut f, 1, &mut n),
            vx_engine_read(e.0, null_mut(), 1, &mut n),
            vx_engine_read(e.0, &mut f, 0, &mut n),
            vx_engine_read(e.0, &mut f, 1, null_mut()),
            vx_engine_read(e.0, (&raw mut f).wrapping_byte_add(1), 1, &mut n),
            vx_engine_read(e.0, &mut f, usize::MAX, &mut n),
            vx_engine_read_i16(null_mut(), null_mut(), 1, &mut n),
            vx_engine_speak(null_mut(), text, 2, sink, null_mut()),
            vx_engine_speak(e.0, text, 2, None, null_mut()),
            vx_engine_speak(e.0, null(), 2, sink, null_mut()),
            vx_engine_speak(e.0, null(), VX_NUL_TERMINATED, sink, null_mut()),
            vx_engine_cancel(null_mut()),
            vx_engine_stats(null(), &mut zeroed()),
            vx_engine_stats(e.0, null_mut()),
            vx_engine_memory(null(), &mut zeroed()),
            vx_engine_memory(e.0, null_mut()),
        ] {
            is(status, VX_E_ARGUMENT);
        }
        vx_voice_close(null_mut());
        vx_engine_close(null_mut());
    }
    // Nothing of it left a trace.
    is(e.read(16).0, VX_END);
    is(e.speak("No.").0, VX_OK);
}

#[test]
fn sizes_make_versions() {
    let voice = VoiceHandle::open();
    let mut m: vx_memory = zeroed();
    // A newer caller: more bytes than this library knows, zero or not.
    let mut newer = vec![0u64; size_of::<vx_options>() / 8 + 4];
    let p = newer.as_mut_ptr().cast::<vx_options>();
    let size = (newer.len() * 8) as u32;
    unsafe {
        (*p).size = size;
        is(vx_engine_estimate(voice.0, p, &mut m), VX_OK);
    }
    *newer.last_mut().unwrap() = 1;
    let p = newer.as_ptr().cast::<vx_options>();
    is(unsafe { vx_engine_estimate(voice.0, p, &mut m) }, VX_E_SIZE);
    // Sizes that no version has, as in a struct that was never cleared.
    for size in [1, 4, 71, 73, 80, size_of::<vx_options>() as u32 - 1, 1025, 0xcccc_cccc, u32::MAX]
    {
        let o = vx_options { size, ..zeroed() };
        is(unsafe { vx_engine_estimate(voice.0, &o, &mut m) }, VX_E_SIZE);
    }
    for size in [1, 4, size_of::<vx_memory>() as u32 - 1, 1025, u32::MAX] {
        let mut m = vx_memory { size, ..zeroed() };
        is(unsafe { vx_engine_estimate(voice.0, null(), &mut m) }, VX_E_SIZE);
        assert_eq!(m.total, 0);
    }
    // Of an older caller nothing is read behind its struct.
    let v2 = std::mem::offset_of!(vx_options, rate) as u32;
    for size in [0, 72, v2] {
        let o = vx_options { size, rate: f64::NAN, markup: 9, ..zeroed() };
        is(unsafe { vx_engine_estimate(voice.0, &o, &mut m) }, VX_OK);
    }
    let o = vx_options { rate: f64::NAN, ..options() };
    is(unsafe { vx_engine_estimate(voice.0, &o, &mut m) }, VX_E_ARGUMENT);
    // Nor written.
    let marked = vx_voice_info { min_rate: 7.0, speaker_count: 99, ..zeroed() };
    let v2 = std::mem::offset_of!(vx_voice_info, min_rate) as u32;
    for (size, speakers, rate) in
        [(0, 99, 7.0), (v2, 2, 7.0), (size_of::<vx_voice_info>() as u32, 2, 1.0)]
    {
        let mut i = vx_voice_info { size, ..marked };
        is(unsafe { vx_voice_describe(voice.0, &mut i) }, VX_OK);
        assert_eq!((i.size, i.speaker_count, i.min_rate), (size, speakers, rate));
    }
    let e = voice.engine(&options());
    let v1 = std::mem::offset_of!(vx_stats, begun) as u32;
    for (size, begun) in [(0, 99), (v1, 99), (size_of::<vx_stats>() as u32, 0)] {
        let mut s = vx_stats { size, begun: 99, ..zeroed() };
        is(unsafe { vx_engine_stats(e.0, &mut s) }, VX_OK);
        assert_eq!((s.size, s.begun, s.threads), (size, begun, 1));
    }
    // An output struct of a newer caller is zero beyond what is known.
    let mut newer = vec![u64::MAX; size_of::<vx_memory>() / 8 + 2];
    let p = newer.as_mut_ptr().cast::<vx_memory>();
    unsafe {
        (*p).size = (newer.len() * 8) as u32;
        is(vx_engine_estimate(voice.0, null(), p), VX_OK);
        assert_eq!((*p).size, (newer.len() * 8) as u32);
    }
    assert_eq!(newer[newer.len() - 2..], [0, 0]);
}

#[test]
fn options_out_of_range() {
    let voice = VoiceHandle::open();
    let spoil: [fn(&mut vx_options); 35] = [
        |o| o.arm = 6,
        |o| o.arm = -1,
        |o| o.emission = 2,
        |o| o.gamma = 16,
        |o| o.gamma = -3,
        |o| (o.arm, o.beta) = (VX_ARM_TOLERANCE, 1.5),
        |o| (o.arm, o.beta) = (VX_ARM_TOLERANCE, f32::NAN),
        |o| o.temperature = f32::NAN,
        |o| o.temperature = -2.0,
        |o| o.temperature = 101.0,
        |o| o.top_k = -2,
        |o| o.top_p = 1.5,
        |o| o.top_p = f32::NAN,
        |o| o.min_p = 1.5,
        |o| o.min_p = f32::INFINITY,
        |o| o.max_chars = 19,
        |o| o.max_chars = 1001,
        |o| o.max_positions = 100,
        |o| o.threads = 65,
        |o| o.max_text = 100,
        |o| o.max_text = u32::MAX,
        |o| o.reserved = 1,
        |o| o.rate = 1.5,
        |o| o.rate = -1.0,
        |o| o.rate = f64::INFINITY,
        |o| o.markup = 4,
        |o| o.markup = -1,
        |o| o.lines = 2,
        |o| o.pause_comma = 60.5,
        |o| o.pause_clause = -2.0,
        |o| o.pause_sentence = f32::NAN,
        |o| o.pause_paragraph = f32::INFINITY,
        |o| o.pause_heading = -0.5,
        |o| o.reserved2 = 1,
        |o| o.reserved3 = 1,
    ];
    for (i, spoil) in spoil.iter().enumerate() {
        let mut o = options();
        spoil(&mut o);
        let mut e = null_mut();
        let status = unsafe { vx_engine_open(voice.0, &o, &mut e) };
        assert_eq!(name(status), "VX_E_ARGUMENT", "case {i}");
        assert!(e.is_null() && !last().is_empty());
    }
}

#[test]
fn text_that_cannot_be_spoken() {
    let voice = VoiceHandle::open();
    let e = voice.engine(&vx_options { max_text: 8192, ..options() });
    is(e.speak("\u{4f60}\u{597d}").0, VX_E_TEXT);
    assert!(e.stats().unspeakable > 0);
    is(e.speak("").0, VX_OK);
    is(e.feed(b"caf\xc3"), VX_OK);
    is(e.feed(b"\xa9. "), VX_OK);
    is(e.feed(b"\xa9"), VX_E_TEXT);
    is(e.feed(b"\xe2\x82"), VX_OK);
    is(unsafe { vx_engine_flush(e.0) }, VX_E_TEXT);
    // What was whole is still there.
    assert!(!e.read_all(4096).is_empty());
    assert_eq!(e.stats().utterances, 1);

    is(e.feed(&[b'a'; 8193]), VX_E_FULL);
    let line = b"one two three four five six seven. ";
    let mut fed = 0;
    while e.feed(line) == VX_OK {
        fed += 1;
    }
    assert!((8192 - 4096) / line.len() <= fed && fed <= 8192 / (line.len() - 1), "{fed}");
    is(e.feed(line), VX_E_FULL);
    is(unsafe { vx_engine_cancel(e.0) }, VX_OK);
    is(e.feed(line), VX_OK);
}

// ------------------------------------------------------------------ cancelling

struct Stopper {
    engine: *mut vx_engine,
    calls: usize,
    stop_at: usize,
    nested: Vec<vx_status>,
}

unsafe extern "C" fn stopper(user: *mut c_void, _: *const f32, _: usize) -> i32 {
    let s = unsafe { &mut *user.cast::<Stopper>() };
    s.calls += 1;
    let (mut f, mut n) = (0f32, 0);
    unsafe {
        s.nested.push(vx_engine_read(s.engine, &mut f, 1, &mut n));
        s.nested.push(vx_engine_speak(s.engine, null(), 0, Some(stopper), user));
        s.nested.push(vx_engine_stats(s.engine, &mut zeroed()));
    }
    (s.calls == s.stop_at) as i32
}

#[test]
fn a_callback_cancels_and_cannot_nest() {
    let voice = VoiceHandle::open();
    let e = voice.engine(&options());
    let text = "First sentence. ".repeat(20);
    let mut s = Stopper { engine: e.0, calls: 0, stop_at: 3, nested: vec![] };
    let status = unsafe {
        let user = (&raw mut s).cast();
        vx_engine_speak(e.0, text.as_ptr().cast(), text.len(), Some(stopper), user)
    };
    is(status, VX_E_CANCELLED);
    assert_eq!(s.calls, 3);
    assert_eq!(s.nested[..3], [VX_E_BUSY, VX_E_BUSY, VX_OK]);
    // The rest of the queue went with it, and the engine speaks again.
    is(e.read(16).0, VX_END);
    assert_eq!(e.stats().cancelled, 1);
    let (status, pcm) = e.speak("Again.");
    is(status, VX_OK);
    assert!(!pcm.is_empty());
    // Calls that succeed leave the message.
    assert!(last().contains("callback"));
}

struct Waiting {
    calls: AtomicUsize,
    cancelled: AtomicBool,
    late: AtomicUsize,
}

unsafe extern "C" fn waiting(user: *mut c_void, _: *const f32, _: usize) -> i32 {
    let w = unsafe { &*user.cast::<Waiting>() };
    w.late.fetch_add(w.cancelled.load(Ordering::SeqCst) as usize, Ordering::SeqCst);
    w.calls.fetch_add(1, Ordering::SeqCst);
    0
}

#[test]
fn another_thread_cancels_within_a_round() {
    let voice = VoiceHandle::open();
    let e = voice.engine(&vx_options { threads: 2, ..options() });
    let text = "A long announcement that goes on, until somebody presses the button. ".repeat(100);
    for _ in 0..3 {
        let w = Waiting {
            calls: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            late: AtomicUsize::new(0),
        };
        std::thread::scope(|scope| {
            let (e, w, text) = (&e, &w, &text);
            let speaker = scope.spawn(move || unsafe {
                let user = std::ptr::from_ref(w).cast_mut().cast();
                vx_engine_speak(e.0, text.as_ptr().cast(), text.len(), Some(waiting), user)
            });
            while w.calls.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            // Meanwhile text may be fed and figures read, but nobody else may read samples.
            assert!(e.stats().rounds > 0);
            let other = e.read(16);
            assert!(other.0 == VX_E_BUSY, "{}", name(other.0));
            is(unsafe { vx_engine_cancel(e.0) }, VX_OK);
            w.cancelled.store(true, Ordering::SeqCst);
            is(e.feed(b"New text."), VX_OK);
            is(unsafe { vx_engine_flush(e.0) }, VX_OK);
            is(speaker.join().unwrap(), VX_E_CANCELLED);
            assert!(w.late.load(Ordering::SeqCst) <= 1);
        });
        // What came after the cancellation is not lost.
        assert!(!e.read_all(4096).is_empty());
    }
    assert_eq!(e.stats().cancelled, 3);
}

#[test]
fn cancelling_while_pulling() {
    let voice = VoiceHandle::open();
    let e = voice.engine(&options());
    let cancel = || is(unsafe { vx_engine_cancel(e.0) }, VX_OK);
    // With nothing to drop nothing happens.
    cancel();
    is(e.read(16).0, VX_END);
    cancel();
    let want = reference(DEFAULT, 0, None, "Yes.");
    assert!(e.speak("Yes.").1 == want);
    // Waiting, half fed, and in the middle of a round.
    is(e.feed(b"One. Two. Three"), VX_OK);
    cancel();
    is(e.read(16).0, VX_E_CANCELLED);
    is(e.read(16).0, VX_END);
    is(e.feed(b"One. Two. Three"), VX_OK);
    is(e.read(16).0, VX_OK);
    cancel();
    cancel();
    is(e.read(16).0, VX_E_CANCELLED);
    is(e.read(16).0, VX_END);
    is(unsafe { vx_engine_flush(e.0) }, VX_OK);
    is(e.read(16).0, VX_END);
    // Closing in the middle is allowed.
    is(e.feed(b"One. Two. "), VX_OK);
    is(e.read(16).0, VX_OK);
}

#[test]
fn two_engines_on_two_threads_share_a_voice() {
    let voice = VoiceHandle::open();
    let text = "Both at once.";
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            let voice = &voice;
            scope.spawn(move || {
                let want = reference(DEFAULT, seed, None, text);
                let e = voice.engine(&vx_options { seed, threads: 2, ..options() });
                let (status, got) = e.speak(text);
                is(status, VX_OK);
                assert!(got == want);
                // Each thread has its own message.
                is(e.feed(b"\xff"), VX_E_TEXT);
                assert!(last().contains("UTF-8"));
            });
        }
    });
    assert_eq!(last(), "");
}

// ------------------------------------------------------------------ memory

#[test]
fn the_budget_holds() {
    for bundle in ["tiny", "voice"] {
        let dir = root().join("models").join(bundle);
        if dir.join("bundle.toml").exists() {
            budget_of(&dir);
        }
    }
}

fn budget_of(dir: &Path) {
    let path = CString::new(dir.to_str().unwrap()).unwrap();
    let (voice, peak, kept) = measured(|| {
        let mut v = null_mut();
        is(unsafe { vx_voice_open(path.as_ptr(), null(), &mut v) }, VX_OK);
        VoiceHandle(v)
    });
    let m = voice.estimate(&options());
    println!("voice: peak {peak}, kept {kept}, stated {m:?}");
    assert!(peak <= m.voice_heap, "opening the voice took {peak} of {}", m.voice_heap);
    assert_eq!(m.total, m.voice_mapped + m.voice_heap + m.engine_state + m.engine_work);

    // Every kind of text that grows on the way to words, as much as fits.
    let dense = "1234567 %&@#$ 12/11/2026 3.14159 ~ \u{20ac}5 \u{2265} \u{1f600}!\n";
    for (gamma, max_positions, max_text) in [(0, 0, 0), (15, 0, 0), (VX_OFF, 150, 8192)] {
        let max_chars = if max_positions == 0 { 0 } else { 90 };
        let o = vx_options { gamma, max_positions, max_text, max_chars, ..options() };
        let m = voice.estimate(&o);
        let (e, _, opened) = measured(|| voice.engine(&o));
        let (_, spoken, _) = measured(|| {
            while e.feed(dense.as_bytes()) == VX_OK {}
            let mut buffer = [0f32; 512];
            for _ in 0..1000 {
                let mut n = 0;
                match unsafe { vx_engine_read(e.0, buffer.as_mut_ptr(), 512, &mut n) } {
                    VX_OK => {}
                    status => return is(status, VX_END),
                }
            }
        });
        let stated = m.engine_state + m.engine_work;
        println!("gamma {gamma}: opened {opened}, then {spoken}, stated {stated}: {m:?}");
        assert!(opened + spoken <= stated, "{opened} + {spoken} of {stated}");
        let mut again: vx_memory = zeroed();
        is(unsafe { vx_engine_memory(e.0, &mut again) }, VX_OK);
        assert_eq!(again, m);
    }
}

#[test]
fn the_default_voice_fits_every_device_profile() {
    let path = CString::new(root().join("models/voice").to_str().unwrap()).unwrap();
    let mut v = null_mut();
    is(unsafe { vx_voice_open(path.as_ptr(), null(), &mut v) }, VX_OK);
    let voice = VoiceHandle(v);
    let mut profiles = 0;
    for entry in std::fs::read_dir(root().join("targets")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let p: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let number = |section: &str, key: &str| p[section][key].as_integer().unwrap() as u64;
        let budget = number("memory", "budget_mb") << 20;
        let threads = number("cpu", "threads") as u32;
        let o = vx_options { threads, max_memory: budget, ..options() };
        println!("{}: {} of {budget}", path.display(), voice.estimate(&o).total);
        let e = voice.engine(&o);
        assert!(unsafe { vx_engine_cancel(e.0) } == VX_OK);
        profiles += 1;
    }
    assert!(profiles >= 8);
}

#[test]
fn too_little_is_refused_up_front() {
    let voice = VoiceHandle::open();
    let full = voice.estimate(&options());
    let mut o = vx_options { max_memory: full.total, ..options() };
    let exact = voice.engine(&o);
    is(exact.speak("No.").0, VX_OK);
    o.max_memory -= 1;
    let mut e = null_mut();
    let (status, peak, _) = measured(|| unsafe { vx_engine_open(voice.0, &o, &mut e) });
    is(status, VX_E_MEMORY);
    assert!(e.is_null() && peak < 64 << 10, "{peak} bytes were allocated");
    assert!(last().contains(&full.total.to_string()), "{}", last());
    // A shorter context fits, and an utterance that meets its end is cut there.
    (o.max_positions, o.max_chars) = (38, 20);
    let e = voice.engine(&o);
    for _ in 0..20 {
        is(e.speak("One two three.").0, VX_OK);
    }
    let s = e.stats();
    assert!(s.cut > 0 && s.utterances == 20 && s.tokens <= 20 * 22, "{s:?}");
    assert!(voice.estimate(&o).engine_state < full.engine_state);

    let need = full.voice_mapped + full.voice_heap;
    for (max_memory, expected) in [(need - 1, VX_E_MEMORY), (need, VX_OK)] {
        let o = vx_voice_options { max_memory, ..zeroed() };
        let mut v = null_mut();
        is(unsafe { vx_voice_open(tiny().as_ptr(), &o, &mut v) }, expected);
        drop(VoiceHandle(v));
    }
    // Copies count as heap, and are what is stated.
    let o = vx_voice_options { flags: VX_VOICE_COPY, ..zeroed() };
    let mut v = null_mut();
    let (_, peak, _) =
        measured(|| is(unsafe { vx_voice_open(tiny().as_ptr(), &o, &mut v) }, VX_OK));
    let m = VoiceHandle(v).estimate(&options());
    assert!(m.voice_mapped == 0 && peak <= m.voice_heap, "{peak} of {}", m.voice_heap);
    let files = Files::load();
    let table = files.table();
    for flags in [0, VX_VOICE_BORROW] {
        let ((_, v), peak, _) = measured(|| open_memory(&table, flags));
        let m = v.estimate(&options());
        assert!(peak <= m.voice_heap, "{flags}: {peak} of {}", m.voice_heap);
        assert_eq!(m.voice_mapped > 0, flags == VX_VOICE_BORROW);
    }
}

// ------------------------------------------------------------------ the core

struct Core {
    _memory: Vec<u64>,
    core: *mut vx_core,
}

impl Core {
    fn new(seed: u64) -> Self {
        let mut memory = vec![0u64; vx_core_get_size().div_ceil(8)];
        let mut core = null_mut();
        let status =
            unsafe { vx_core_init(memory.as_mut_ptr().cast(), memory.len() * 8, seed, &mut core) };
        assert_eq!(status, VX_OK);
        Self { _memory: memory, core }
    }
}

const V: usize = 65537;

fn row(seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut z = seed;
    let mut probs: Vec<f32> = (0..V)
        .map(|_| {
            z = z.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((z >> 40) as f32 / (1 << 24) as f32).powi(40) + 1e-6
        })
        .collect();
    let mut sums = vec![0f32; vx_core_block_count(V)];
    let status = unsafe { vx_core_normalise(probs.as_mut_ptr(), sums.as_mut_ptr(), V) };
    assert_eq!(status, VX_OK);
    (probs, sums)
}

#[test]
fn the_core_agrees_with_the_library() {
    let bytes = std::fs::read(root().join("asg-cache/tiny.asg")).unwrap();
    let index = Index::open(&bytes[..]).unwrap();
    let c = Core::new(9);
    unsafe {
        assert_eq!(vx_core_codebook(c.core), 0);
        assert_eq!(vx_core_verify_index(c.core), VX_E_ARGUMENT);
        assert_eq!(
            vx_core_set_index(c.core, bytes.as_ptr().cast(), bytes.len() - 1),
            VX_E_MALFORMED
        );
        assert_eq!(vx_core_set_index(c.core, bytes.as_ptr().cast(), bytes.len()), VX_OK);
        assert_eq!(vx_core_verify_index(c.core), VX_OK);
        assert_eq!(vx_core_codebook(c.core), 65536);
        for token in [0u32, 1, 777, 65535] {
            let (mut out, mut n) = (vec![0u32; 4096], 0);
            assert_eq!(vx_core_members(c.core, token, out.as_mut_ptr(), out.len(), &mut n), VX_OK);
            assert_eq!(out[..n], index.members(token).collect::<Vec<_>>()[..]);
            assert_eq!(vx_core_owners(c.core, token, out.as_mut_ptr(), 1, &mut n), VX_OK);
            assert_eq!(n, index.owners(token).count());
            assert_eq!(out[0], index.owners(token).next().unwrap());
        }
        let mut n = 0;
        assert_eq!(vx_core_members(c.core, 65536, null_mut(), 0, &mut n), VX_OK);
        assert_eq!(n, 1);
    }
    let gamma = 3;
    let (mut tp, mut ts, mut dp, mut ds) = (vec![], vec![], vec![], vec![]);
    for i in 0..=gamma as u64 {
        let (p, s) = row(i);
        tp.extend(p);
        ts.extend(s);
    }
    for i in 0..gamma as u64 {
        let (p, s) = row(i + i % 2 * 50);
        dp.extend(p);
        ds.extend(s);
    }
    for (arm, rule) in [
        (VX_ARM_DEFAULT, Rule::Groups { groups: &index, emission: core_::Emission::StandIn }),
        (VX_ARM_SD, Rule::TokenLevel),
        (VX_ARM_TOLERANCE, Rule::Tolerance { beta: 0.25 }),
        (VX_ARM_TRANSPORT, Rule::Transport { groups: &index }),
    ] {
        unsafe { assert_eq!(vx_core_seed(c.core, 11), VX_OK) };
        let mut verify = SeededRng::with_stream(11, 0);
        let mut draft = SeededRng::with_stream(11, 1);
        for _ in 0..50 {
            let mut drafted = [0u32; 3];
            for (i, token) in drafted.iter_mut().enumerate() {
                let (p, s) = (&dp[i * V..][..V], &ds[i * 257..][..257]);
                let status = unsafe { vx_core_draft(c.core, p.as_ptr(), s.as_ptr(), V, token) };
                assert_eq!(status, VX_OK);
                assert_eq!(*token, core_::sample(Row::new(p, s).unwrap(), &mut draft).unwrap());
            }
            let round = vx_core_round {
                size: size_of::<vx_core_round>() as u32,
                arm,
                emission: VX_EMIT_STAND_IN,
                beta: 0.25,
                vocabulary: V,
                gamma,
                drafted: drafted.as_ptr(),
                target_probs: tp.as_ptr(),
                target_sums: ts.as_ptr(),
                draft_probs: dp.as_ptr(),
                draft_sums: ds.as_ptr(),
            };
            let mut got: vx_core_verdict = zeroed();
            assert_eq!(unsafe { vx_core_verify(c.core, &round, &mut got) }, VX_OK);
            let t = core_::RowBuffer::new(&tp, &ts, V, gamma + 1).unwrap();
            let d = core_::RowBuffer::new(&dp, &ds, V, gamma).unwrap();
            let want = core_::verify_round(&t, &d, &drafted, &rule, &mut verify).unwrap();
            assert_eq!((got.accepted as usize, got.next), (want.accepted, want.next));
            assert_eq!((got.tries, got.exhausted != 0), (want.tries, want.exhausted));
            assert_eq!(got.origin == VX_BONUS, want.accepted == gamma);
        }
    }
}

#[test]
fn the_core_refuses_what_it_cannot_use() {
    let c = Core::new(0);
    let size = vx_core_get_size();
    let mut memory = vec![0u64; size / 8 + 2];
    let m: *mut c_void = memory.as_mut_ptr().cast();
    let mut core = null_mut();
    let (mut p, mut s) = row(1);
    let mut token = 0;
    unsafe {
        assert_eq!(vx_core_init(null_mut(), size, 0, &mut core), VX_E_ARGUMENT);
        assert_eq!(vx_core_init(m.byte_add(4), size, 0, &mut core), VX_E_ARGUMENT);
        assert_eq!(vx_core_init(m, size - 1, 0, &mut core), VX_E_SIZE);
        assert_eq!(vx_core_init(m, size, 0, null_mut()), VX_E_ARGUMENT);
        assert!(core.is_null());
        assert_eq!(vx_core_seed(null_mut(), 0), VX_E_ARGUMENT);
        assert_eq!(vx_core_set_index(null_mut(), m, 8), VX_E_ARGUMENT);
        assert_eq!(vx_core_set_index(c.core, null(), 8), VX_E_ARGUMENT);
        assert_eq!(vx_core_set_index(c.core, m, 8), VX_E_MALFORMED);
        assert_eq!(vx_core_codebook(null()), 0);
        let mut n = 0;
        assert_eq!(vx_core_members(null(), 0, null_mut(), 0, &mut n), VX_E_ARGUMENT);
        assert_eq!(vx_core_members(c.core, 0, null_mut(), 1, &mut n), VX_E_ARGUMENT);
        assert_eq!(vx_core_members(c.core, 0, null_mut(), 0, null_mut()), VX_E_ARGUMENT);
        // Rows: null, empty, not probabilities.
        assert_eq!(vx_core_normalise(null_mut(), s.as_mut_ptr(), V), VX_E_ARGUMENT);
        assert_eq!(vx_core_normalise(p.as_mut_ptr(), s.as_mut_ptr(), 0), VX_E_ARGUMENT);
        let mut zeros = [0f32; 4];
        let mut one = [0f32; 1];
        assert_eq!(vx_core_normalise(zeros.as_mut_ptr(), one.as_mut_ptr(), 4), VX_E_NUMERIC);
        let mut nan = [f32::NAN; 4];
        assert_eq!(vx_core_normalise(nan.as_mut_ptr(), one.as_mut_ptr(), 4), VX_E_NUMERIC);
        let draft = |p: *const f32, s: *const f32, v, t| vx_core_draft(c.core, p, s, v, t);
        assert_eq!(draft(p.as_ptr(), s.as_ptr(), V, null_mut()), VX_E_ARGUMENT);
        assert_eq!(draft(p.as_ptr(), null(), V, &mut token), VX_E_ARGUMENT);
        assert_eq!(draft(zeros.as_ptr(), [0.5].as_ptr(), 4, &mut token), VX_E_NUMERIC);
        // Scratch, and transforms that keep nothing.
        let mut scratch = vec![0u64; vx_core_scratch_size() / 8];
        let mut transform = |k, top_p, min_p, bytes| {
            let (p, s) = (p.as_mut_ptr(), s.as_mut_ptr());
            vx_core_transform(p, s, V, k, top_p, min_p, scratch.as_mut_ptr().cast(), bytes)
        };
        let full = vx_core_scratch_size();
        assert_eq!(transform(50, 0.9, 0.0, full - 1), VX_E_SIZE);
        assert_eq!(transform(50, 0.0, 0.0, full), VX_E_ARGUMENT);
        assert_eq!(transform(50, f32::NAN, 0.0, full), VX_E_ARGUMENT);
        assert_eq!(transform(50, 1.0, -1.0, full), VX_E_ARGUMENT);
        assert_eq!(transform(50, 0.9, 0.01, full), VX_OK);
    }
    let kept = p.iter().filter(|&&x| x > 0.0).count();
    assert!((1..=50).contains(&kept), "{kept}");

    let drafted = [p.iter().position(|&x| x > 0.0).unwrap() as u32];
    let (tp, ts) = ([&p[..], &p[..]].concat(), [&s[..], &s[..]].concat());
    let sound = vx_core_round {
        arm: VX_ARM_SD,
        vocabulary: V,
        gamma: 1,
        drafted: drafted.as_ptr(),
        target_probs: tp.as_ptr(),
        target_sums: ts.as_ptr(),
        draft_probs: p.as_ptr(),
        draft_sums: s.as_ptr(),
        ..zeroed()
    };
    let outside = [V as u32];
    let never = [p.iter().position(|&x| x == 0.0).unwrap() as u32];
    let half: Vec<f32> = s.iter().map(|x| x / 2.0).collect();
    let verify = |r: &vx_core_round| unsafe { vx_core_verify(c.core, r, &mut zeroed()) };
    assert_eq!(verify(&sound), VX_OK);
    let cases = [
        (vx_core_round { arm: 9, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { arm: VX_ARM_AR, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { arm: VX_ARM_PCG, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { arm: VX_ARM_TRANSPORT, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { emission: 7, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { arm: VX_ARM_TOLERANCE, beta: -1.0, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { vocabulary: 0, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { gamma: usize::MAX, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { gamma: usize::MAX / 2, ..sound }, VX_E_ARGUMENT),
        (vx_core_round { drafted: null(), ..sound }, VX_E_ARGUMENT),
        (vx_core_round { target_sums: null(), ..sound }, VX_E_ARGUMENT),
        (vx_core_round { drafted: outside.as_ptr(), ..sound }, VX_E_ARGUMENT),
        (vx_core_round { drafted: never.as_ptr(), ..sound }, VX_E_NUMERIC),
        (vx_core_round { draft_sums: half.as_ptr(), ..sound }, VX_E_NUMERIC),
        (vx_core_round { size: 3, ..sound }, VX_E_SIZE),
    ];
    for (i, (round, expected)) in cases.iter().enumerate() {
        assert_eq!(name(verify(round)), name(*expected), "case {i}");
    }
    let mut v: vx_core_verdict = zeroed();
    unsafe {
        assert_eq!(vx_core_verify(null_mut(), &sound, &mut v), VX_E_ARGUMENT);
        assert_eq!(vx_core_verify(c.core, null(), &mut v), VX_E_ARGUMENT);
        assert_eq!(vx_core_verify(c.core, &sound, null_mut()), VX_E_ARGUMENT);
    }
    let one = vx_core_round { gamma: 0, arm: VX_ARM_AR, drafted: null(), ..sound };
    assert_eq!(verify(&one), VX_OK);
}

/// Pseudo-random numbers below `n`, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

#[test]
fn damaged_indexes_do_no_harm() {
    let sound = std::fs::read(root().join("asg-cache/tiny.asg")).unwrap();
    let (p, s) = row(1);
    let (q, t) = row(2);
    let (tp, ts) = ([&p[..], &p[..]].concat(), [&s[..], &s[..]].concat());
    let mut dice = Dice(1);
    let mut used = 0;
    for _ in 0..150 {
        let mut bytes = sound.clone();
        for _ in 0..1 + dice.below(2000) {
            // Mostly behind the header, whose checksum would stop it.
            let from = if dice.below(2000) == 0 { 0 } else { 512 };
            let at = from + dice.below(bytes.len() - from);
            bytes[at] ^= 1 << dice.below(8);
        }
        let c = Core::new(dice.0);
        if unsafe { vx_core_set_index(c.core, bytes.as_ptr().cast(), bytes.len()) } != VX_OK {
            continue;
        }
        used += 1;
        assert_eq!(unsafe { vx_core_verify_index(c.core) }, VX_E_MALFORMED);
        for _ in 0..50 {
            let (of, mut n, mut out) = (dice.below(70000) as u32, 0, [0u32; 8]);
            unsafe {
                let p = out.as_mut_ptr();
                assert_eq!(vx_core_members(c.core, of, p, 8, &mut n), VX_OK);
                assert_eq!(vx_core_owners(c.core, of, p, 8, &mut n), VX_OK);
            }
        }
        for i in 0..6 {
            let mut drafted = 0;
            assert_eq!(
                unsafe { vx_core_draft(c.core, q.as_ptr(), t.as_ptr(), V, &mut drafted) },
                VX_OK
            );
            let round = vx_core_round {
                arm: if i % 2 == 0 { VX_ARM_PCG } else { VX_ARM_TRANSPORT },
                vocabulary: V,
                gamma: 1,
                drafted: &drafted,
                target_probs: tp.as_ptr(),
                target_sums: ts.as_ptr(),
                draft_probs: q.as_ptr(),
                draft_sums: t.as_ptr(),
                ..zeroed()
            };
            let status = unsafe { vx_core_verify(c.core, &round, &mut zeroed()) };
            assert!([VX_OK, VX_E_MALFORMED, VX_E_NUMERIC].contains(&status), "{}", name(status));
        }
    }
    assert!(used > 50, "{used}");
}

#[test]
fn damaged_voices_do_no_harm() {
    let mut dice = Dice(2);
    let (mut opened, mut counts) = (0, BTreeMap::new());
    for i in 0..300 {
        let mut files = Files::load();
        let which = dice.below(files.names.len());
        for _ in 0..1 + dice.below(3) {
            let at = files.starts[which] + dice.below(files.lengths[which]);
            files.buffers[which][at] ^= 1 << dice.below(8);
        }
        let (status, v) = open_memory(&files.table(), i % 2 * VX_VOICE_BORROW);
        let mut status = status;
        if status == VX_OK {
            opened += 1;
            let mut e = null_mut();
            status = unsafe { vx_engine_open(v.0, &options(), &mut e) };
            if status == VX_OK {
                status = Engine(e).speak("No.").0;
            }
        }
        *counts.entry((files.names[which].clone(), name(status))).or_insert(0) += 1;
    }
    assert!(opened > 50);
    assert!(counts.keys().all(|(_, status)| *status != "VX_E_INTERNAL"), "{counts:#?}");
}

// ------------------------------------------------------------------ the header

/// Constants, struct fields and functions, each with its type spelled in one way.
#[derive(Debug, Default, PartialEq)]
struct Interface {
    constants: BTreeMap<String, i64>,
    structs: BTreeMap<String, Vec<(String, String)>>,
    functions: BTreeMap<String, (Vec<(String, String)>, String)>,
}

/// Text without comments, white space made single.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        out.push_str(&rest[..at]);
        rest = &rest[at..][rest[at..].find("*/").unwrap() + 2..];
    }
    out.push_str(rest);
    let lines: Vec<&str> = out.lines().map(|l| l.split("//").next().unwrap().trim()).collect();
    lines.join("\n")
}

fn c_declarator(text: &str) -> (String, String) {
    let text = text.trim();
    let at = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').unwrap() + 1;
    let ty = &text[..at];
    let (base, stars) = (ty.trim_end_matches([' ', '*']), ty.matches('*').count());
    let (constant, base) = match base.strip_prefix("const ") {
        Some(b) => (true, b),
        None => (false, base),
    };
    let base = match base {
        "char" => "c_char",
        "void" => "c_void",
        "float" => "f32",
        "double" => "f64",
        "size_t" => "usize",
        "int16_t" => "i16",
        "int32_t" => "i32",
        "uint32_t" => "u32",
        "uint64_t" => "u64",
        other => other,
    };
    let mut out = String::new();
    for i in 0..stars {
        // `const T *` is a pointer to constant; of `T **` both are plain.
        out.push_str(if constant && i == stars - 1 { "*const " } else { "*mut " });
    }
    (text[at..].to_string(), out + base)
}

fn header() -> Interface {
    let text = plain(&std::fs::read_to_string(root().join("targets/include/voxgrain.h")).unwrap());
    let mut found = Interface::default();
    for line in text.lines() {
        let number = |v: &str| v.trim_matches(['(', ')']).parse::<i64>().ok();
        if let Some(rest) = line.strip_prefix("#define VX_") {
            let (n, v) = rest.split_once(' ').unwrap_or((rest, ""));
            if let Some(v) = number(v) {
                found.constants.insert(format!("VX_{n}"), v);
            }
        } else if line.starts_with("VX_") && line.contains(" = ") {
            let (n, v) = line.trim_end_matches(',').split_once(" = ").unwrap();
            found.constants.insert(n.into(), number(v).unwrap());
        }
    }
    found.constants.insert("VX_NUL_TERMINATED".into(), -1);
    assert!(text.contains("#define VX_NUL_TERMINATED ((size_t)-1)"));
    let flat = text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join(" ");
    for part in flat.split("typedef struct ").skip(1) {
        let Some((head, rest)) = part.split_once('{') else { continue };
        if head.contains(';') {
            continue;
        }
        let body = &rest[..rest.find('}').unwrap()];
        let fields = body.split(';').filter(|f| !f.trim().is_empty()).map(c_declarator).collect();
        found.structs.insert(head.trim().into(), fields);
    }
    for part in flat.split("VX_API ").skip(1) {
        let (head, rest) = part.split_once('(').unwrap();
        let (name, result) = c_declarator(head);
        let arguments = rest[..rest.find(')').unwrap()].trim();
        let arguments = match arguments {
            "void" => vec![],
            a => a.split(',').map(c_declarator).collect(),
        };
        let result = if result == "c_void" { String::new() } else { result };
        found.functions.insert(name, (arguments, result));
    }
    found
}

fn rust_pairs(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter(|f| !f.trim().is_empty())
        .map(|f| {
            let (n, t) = f.trim().trim_start_matches("pub ").split_once(':').unwrap();
            (n.trim().into(), t.trim().into())
        })
        .collect()
}

fn code() -> Interface {
    let mut found = Interface::default();
    for file in ["src/capi.rs", "src/capi/bare.rs", "src/capi/explain.rs", "src/capi/speech.rs"] {
        let text = plain(&std::fs::read_to_string(root().join(file)).unwrap());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("pub const VX_") {
                let (n, v) = rest.split_once(':').unwrap();
                let v = v.split_once("= ").unwrap().1.trim_end_matches(';');
                let v = if v == "usize::MAX" { -1 } else { v.parse().unwrap() };
                found.constants.insert(format!("VX_{n}"), v);
            }
        }
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in flat.split("#[repr(C)]").skip(1) {
            let part = &part[part.find("pub struct ").unwrap() + 11..];
            let (name, rest) = part.split_once('{').unwrap();
            found.structs.insert(name.trim().into(), rust_pairs(&rest[..rest.find('}').unwrap()]));
        }
        for part in flat.split("#[unsafe(no_mangle)]").skip(1) {
            let part = &part[part.find("extern \"C\" fn ").unwrap() + 14..];
            let (name, rest) = part.split_once('(').unwrap();
            let (arguments, rest) = rest.split_once(')').unwrap();
            let result = rest[..rest.find('{').unwrap()].trim().trim_start_matches("->").trim();
            let result = result.replace("core::ffi::", "");
            found.functions.insert(name.into(), (rust_pairs(arguments), result));
        }
    }
    found
}

#[test]
fn the_header_is_the_code() {
    let (header, code) = (header(), code());
    assert!(header.functions.len() > 30 && header.structs.len() > 8 && header.constants.len() > 30);
    assert_eq!(header.constants, code.constants);
    assert_eq!(header.structs, code.structs);
    assert_eq!(header.functions, code.functions);
    let list = std::fs::read_to_string(root().join("targets/include/symbols.txt")).unwrap();
    let listed: BTreeSet<&str> = list.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(listed, header.functions.keys().map(String::as_str).collect());
}
