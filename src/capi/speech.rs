//! The whole library: voices, engines, text in, PCM out.

use super::*;
use crate::decode::{Arm, DraftLength, Options, PREFILL_ROWS, Sampling};
use crate::engine::Pool;
use crate::map::Map;
use crate::speech::synth::{Synthesizer, Voice};
use crate::speech::text::{self, TextFrontend};
use crate::speech::wav::to_i16;
use crate::{Error, ErrorKind, bundle, kernel};
use core::ffi::{CStr, c_char, c_void};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant};

pub const VX_NUL_TERMINATED: usize = usize::MAX;
pub const VX_OFF: i32 = -1;
pub const VX_GAMMA_MEASURED: i32 = -2;

pub const VX_VOICE_VERIFY: u32 = 1;
pub const VX_VOICE_BORROW: u32 = 2;
pub const VX_VOICE_COPY: u32 = 4;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_build {
    pub size: u32,
    pub abi_version: u32,
    pub version: *const c_char,
    pub target: *const c_char,
    pub kernel: *const c_char,
    pub kernels: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_voice_options {
    pub size: u32,
    pub flags: u32,
    pub groups_path: *const c_char,
    pub max_memory: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_file {
    pub name: *const c_char,
    pub data: *const c_void,
    pub bytes: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_voice_info {
    pub size: u32,
    pub sample_rate_hz: u32,
    pub token_rate_hz: u32,
    pub latency_samples: u32,
    pub max_positions: u32,
    pub default_gamma: u32,
    pub has_groups: i32,
    pub reserved: u32,
    pub name: *const c_char,
    pub licence: *const c_char,
    pub attribution: *const c_char,
    pub speaker_count: u32,
    pub reserved2: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_speaker {
    pub size: u32,
    pub reserved: u32,
    pub name: *const c_char,
    pub description: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_options {
    pub size: u32,
    pub arm: i32,
    pub seed: u64,
    pub max_memory: u64,
    pub max_positions: u32,
    pub threads: u32,
    pub gamma: i32,
    pub emission: i32,
    pub beta: f32,
    pub temperature: f32,
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    pub max_chars: u32,
    pub max_text: u32,
    pub reserved: u32,
    pub speaker: *const c_char,
    pub speaker_index: u32,
    pub reserved2: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct vx_memory {
    pub size: u32,
    pub reserved: u32,
    pub voice_mapped: u64,
    pub voice_heap: u64,
    pub engine_state: u64,
    pub engine_work: u64,
    pub total: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vx_stats {
    pub size: u32,
    pub threads: u32,
    pub utterances: u64,
    pub cut: u64,
    pub cancelled: u64,
    pub tokens: u64,
    pub samples: u64,
    pub rounds: u64,
    pub proposed: u64,
    pub accepted: u64,
    pub emitted: u64,
    pub exhausted: u64,
    pub replaced: u64,
    pub unspeakable: u64,
    pub compute_ns: u64,
    pub prefill_ns: u64,
    pub draft_ns: u64,
    pub verify_ns: u64,
    pub sampling_ns: u64,
    pub codec_ns: u64,
    pub first_audio_ns: u64,
    pub longest_round_ns: u64,
}

pub type vx_pcm_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, pcm: *const f32, samples: usize) -> i32>;

// SAFETY, for each: repr(C), size first, numbers and raw pointers.
unsafe impl Versioned for vx_build {}
unsafe impl Versioned for vx_voice_options {}
unsafe impl Versioned for vx_voice_info {
    const EARLIER: &'static [usize] = &[32 + 3 * size_of::<*const c_char>()];
}
unsafe impl Versioned for vx_speaker {}
unsafe impl Versioned for vx_options {
    const EARLIER: &'static [usize] = &[72];
}
unsafe impl Versioned for vx_memory {}
unsafe impl Versioned for vx_stats {}

// ------------------------------------------------------------------ failures

/// A status and the message for it.
struct Failure(vx_status, String);

type Outcome<T = ()> = Result<T, Failure>;

fn fail<T>(status: vx_status, message: impl Into<String>) -> Outcome<T> {
    Err(Failure(status, message.into()))
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let status = match e.kind() {
            ErrorKind::InvalidArgument => VX_E_ARGUMENT,
            ErrorKind::InvalidText => VX_E_TEXT,
            ErrorKind::Unreadable => VX_E_UNREADABLE,
            ErrorKind::Malformed => VX_E_MALFORMED,
            ErrorKind::Mismatch => VX_E_MISMATCH,
            ErrorKind::Unsupported => VX_E_UNSUPPORTED,
            ErrorKind::Numeric => VX_E_NUMERIC,
            ErrorKind::Cancelled => VX_E_CANCELLED,
            ErrorKind::Unwritable | ErrorKind::Audio => VX_E_INTERNAL,
        };
        let mut message = e.to_string();
        let mut cause = std::error::Error::source(&e);
        while let Some(c) = cause {
            let text = c.to_string();
            // Some contexts quote their cause.
            if !message.contains(&text) {
                message = format!("{message} ({text})");
            }
            cause = c.source();
        }
        Self(status, message)
    }
}

/// From the helpers that both halves share.
impl From<vx_status> for Failure {
    fn from(status: vx_status) -> Self {
        let message = match status {
            VX_E_SIZE => {
                "a struct's size is less than in version 1, or it was made by a newer header that \
                 this library does not know: set it to sizeof"
            }
            _ => "a pointer is null or not aligned, or a length is impossible",
        };
        Self(status, message.into())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

fn remember(message: &str) {
    // Neither does anything in the last moments of a thread.
    let _ = LAST.try_with(|last| *last.borrow_mut() = c_string(message));
}

/// Runs `f` behind the [`guard`] and keeps the message of its failure.
fn call(f: impl FnOnce() -> Outcome<vx_status>) -> vx_status {
    match guard(f) {
        Ok(Ok(status)) => status,
        Ok(Err(Failure(status, message))) => {
            remember(&message);
            status
        }
        Err(status) => {
            remember("a bug in voxgrain, whose trace is on stderr; close the engine");
            status
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn vx_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

// ------------------------------------------------------------------ what was built

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_build_info(build: *mut vx_build) -> vx_status {
    static TEXTS: OnceLock<[CString; 4]> = OnceLock::new();
    call(|| {
        let [version, target, kernel, kernels] = TEXTS.get_or_init(|| {
            use std::env::consts::{ARCH, OS};
            let all: Vec<_> = kernel::all().iter().map(|k| k.name()).collect();
            [
                c_string(env!("CARGO_PKG_VERSION")),
                c_string(&format!("{ARCH}-{OS}")),
                c_string(kernel::best().name()),
                c_string(&all.join(" ")),
            ]
        });
        let found = vx_build {
            size: 0,
            abi_version: VX_ABI_VERSION,
            version: version.as_ptr(),
            target: target.as_ptr(),
            kernel: kernel.as_ptr(),
            kernels: kernels.as_ptr(),
        };
        // SAFETY: the header's contract.
        unsafe { write(build, found)? };
        Ok(VX_OK)
    })
}

// ------------------------------------------------------------------ the voice

pub struct vx_voice {
    voice: Voice,
    mapped: u64,
    heap: u64,
    name: CString,
    licence: CString,
    attribution: CString,
    /// Names and descriptions.
    speakers: Vec<(CString, CString)>,
}

/// What the graph of a model takes on the heap for each byte of its ONNX file, and what
/// everything else of a voice takes; a test holds them against an allocator that counts.
const GRAPH_BYTES: u64 = 24;
const VOICE_BYTES: u64 = 1 << 20;

/// A NUL-terminated string of the caller's.
///
/// # Safety
/// `p` is null or such a string, unchanged for `'a`.
unsafe fn string<'a>(p: *const c_char, what: &str) -> Outcome<&'a str> {
    if p.is_null() {
        return fail(VX_E_ARGUMENT, format!("{what} is null"));
    }
    // SAFETY: not null; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(p) };
    bytes.to_str().or_else(|_| fail(VX_E_ARGUMENT, format!("{what} is not UTF-8")))
}

/// # Safety
/// `p` is null or came from an open function of this interface and was not closed.
unsafe fn handle<'a, T>(p: *const T, what: &str) -> Outcome<&'a T> {
    // SAFETY: the caller's promise.
    match unsafe { p.as_ref() } {
        Some(t) => Ok(t),
        None => fail(VX_E_ARGUMENT, format!("{what} is null")),
    }
}

fn within(budget: u64, need: u64, what: &str) -> Outcome {
    if budget == 0 || need <= budget {
        return Ok(());
    }
    fail(VX_E_MEMORY, format!("{what} may take {need} bytes, max_memory allows {budget}"))
}

/// # Safety
/// `out` can be written.
unsafe fn finish(
    mut voice: Voice,
    groups: Option<Map>,
    (mapped, heap): (u64, u64),
    out: *mut *mut vx_voice,
) -> Outcome<vx_status> {
    if let Some(map) = groups {
        voice = voice.with_index(map)?;
    }
    let b = voice.bundle();
    let made = vx_voice {
        mapped,
        heap,
        name: c_string(&b.name),
        licence: c_string(&b.licence),
        attribution: c_string(&b.attribution),
        speakers: b
            .speakers
            .iter()
            .map(|s| (c_string(&s.name), c_string(&s.description)))
            .collect(),
        voice,
    };
    // SAFETY: not null, as the callers checked; that it can be written is the contract.
    unsafe { out.write(Box::into_raw(Box::new(made))) };
    Ok(VX_OK)
}

/// The options, checked against the flags that make sense, and the index they name.
///
/// # Safety
/// The header's contract for `options`.
unsafe fn voice_options<'a>(
    options: *const vx_voice_options,
    flags: u32,
) -> Outcome<(vx_voice_options, Option<&'a Path>)> {
    // SAFETY: the caller's promise.
    let o = unsafe { read(options)? };
    if o.flags & !flags != 0 {
        let what = format!("flags {:#x} mean nothing here, only {flags:#x} do", o.flags & !flags);
        return fail(VX_E_ARGUMENT, what);
    }
    let groups = if o.groups_path.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(Path::new(unsafe { string(o.groups_path, "groups_path")? }))
    };
    Ok((o, groups))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_open(
    path: *const c_char,
    options: *const vx_voice_options,
    voice: *mut *mut vx_voice,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let (path, (o, groups)) = unsafe {
            let flags = VX_VOICE_VERIFY | VX_VOICE_COPY;
            (string(path, "path")?, voice_options(options, flags)?)
        };
        if voice.is_null() {
            return fail(VX_E_ARGUMENT, "voice is null");
        }
        // The description alone says how large everything is.
        let b = bundle::Bundle::open(path)?;
        let index = match groups {
            Some(path) => Some(path.to_owned()),
            None => b.groups_path().filter(|p| p.exists()),
        };
        let index_bytes = index.as_ref().and_then(|p| p.metadata().ok()).map_or(0, |m| m.len());
        let size = |graph: bool| -> u64 {
            b.files.iter().filter(|f| f.path.ends_with(".onnx") == graph).map(|f| f.bytes).sum()
        };
        let mut mapped = size(false) + index_bytes;
        let mut heap = VOICE_BYTES + GRAPH_BYTES * size(true);
        let copy = o.flags & VX_VOICE_COPY != 0;
        if copy {
            heap += mapped + size(true);
            mapped = 0;
        }
        within(o.max_memory, mapped + heap, "the voice")?;
        if o.flags & VX_VOICE_VERIFY != 0 {
            b.verify(|_| ControlFlow::Continue(()))?;
        }
        let open = |path: &Path| -> Outcome<Map> {
            let map = Map::open(path)?;
            Ok(if copy { Map::copy_of(&map, map.name()) } else { map })
        };
        // A voice opened from its folder maps its own index.
        let index = index.filter(|_| copy || groups.is_some());
        let index = index.map(|p| open(&p)).transpose()?;
        let opened = if copy {
            let mut files = vec![(bundle::FILE_NAME, open(&b.path(bundle::FILE_NAME))?)];
            for f in &b.files {
                files.push((&f.path, open(&b.path(&f.path))?));
            }
            Voice::from_files(&files)?
        } else {
            Voice::open(path)?
        };
        // SAFETY: the header's contract.
        unsafe { finish(opened, index, (mapped, heap), voice) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_open_memory(
    files: *const vx_file,
    count: usize,
    options: *const vx_voice_options,
    voice: *mut *mut vx_voice,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let (files, (o, groups)) =
            unsafe { (slice(files, count)?, voice_options(options, VX_VOICE_BORROW)?) };
        if voice.is_null() {
            return fail(VX_E_ARGUMENT, "voice is null");
        }
        let borrow = o.flags & VX_VOICE_BORROW != 0;
        let mut views = Vec::with_capacity(files.len());
        for f in files {
            // SAFETY: the header's contract. Beyond this call the bytes are kept only with
            // VX_VOICE_BORROW, where the caller promises that they outlive every user.
            let (name, data) = unsafe {
                (string(f.name, "a file's name")?, slice::<'static>(f.data.cast::<u8>(), f.bytes)?)
            };
            views.push((name, data));
        }
        let total: u64 = views.iter().map(|(_, data)| data.len() as u64).sum();
        let graphs: u64 =
            views.iter().filter(|(n, _)| n.ends_with(".onnx")).map(|(_, d)| d.len() as u64).sum();
        let index = groups.map(Map::open).transpose()?;
        let index_bytes = index.as_ref().map_or(0, |m| m.len() as u64);
        let mut sizes = (index_bytes, VOICE_BYTES + GRAPH_BYTES * graphs);
        *(if borrow { &mut sizes.0 } else { &mut sizes.1 }) += total;
        within(o.max_memory, sizes.0 + sizes.1, "the voice")?;
        let mut maps = Vec::with_capacity(views.len());
        for (name, data) in views {
            // The description is only parsed: it may lie anywhere.
            let map = if borrow && name != bundle::FILE_NAME {
                Map::from_static(data, name)?
            } else {
                Map::copy_of(data, name)
            };
            maps.push((name, map));
        }
        // SAFETY: the header's contract.
        unsafe { finish(Voice::from_files(&maps)?, index, sizes, voice) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_close(voice: *mut vx_voice) {
    if !voice.is_null() {
        // SAFETY: made by `finish`; the header says that it is closed once.
        let _ = guard(|| drop(unsafe { Box::from_raw(voice) }));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_describe(
    voice: *const vx_voice,
    info: *mut vx_voice_info,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let v = unsafe { handle(voice, "voice")? };
        let b = v.voice.bundle();
        let found = vx_voice_info {
            size: 0,
            sample_rate_hz: b.audio.sample_rate_hz,
            token_rate_hz: b.audio.frame_rate_hz,
            latency_samples: b.codec.latency_samples,
            max_positions: positions(&v.voice) as u32,
            default_gamma: b.sampling.gamma as u32,
            has_groups: v.voice.groups().is_some().into(),
            reserved: 0,
            name: v.name.as_ptr(),
            licence: v.licence.as_ptr(),
            attribution: v.attribution.as_ptr(),
            speaker_count: v.speakers.len() as u32,
            reserved2: 0,
        };
        // SAFETY: the header's contract.
        unsafe { write(info, found)? };
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_speaker(
    voice: *const vx_voice,
    index: u32,
    speaker: *mut vx_speaker,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let v = unsafe { handle(voice, "voice")? };
        let Some((name, description)) = v.speakers.get(index as usize) else {
            let count = v.speakers.len();
            return fail(VX_E_ARGUMENT, format!("the voice has {count} speakers, none is {index}"));
        };
        let found = vx_speaker {
            size: 0,
            reserved: 0,
            name: name.as_ptr(),
            description: description.as_ptr(),
        };
        // SAFETY: the header's contract.
        unsafe { write(speaker, found)? };
        Ok(VX_OK)
    })
}

/// The longest context that both models have.
fn positions(voice: &Voice) -> usize {
    voice.target().max_positions().min(voice.draft().max_positions())
}

// ------------------------------------------------------------------ options

/// Options with every default filled in.
struct Resolved {
    voice: Voice,
    decode: Options,
    text: text::Options,
    positions: usize,
    threads: usize,
    max_text: usize,
}

impl Resolved {
    /// # Safety
    /// The header's contract for `o.speaker`.
    unsafe fn new(voice: &Voice, o: &vx_options) -> Outcome<Self> {
        let bad = |what: String| fail(VX_E_ARGUMENT, what);
        let speaking = if o.speaker.is_null() {
            voice.clone().with_speaker_number(o.speaker_index as usize)?
        } else if o.speaker_index != 0 {
            return bad("speaker and speaker_index are both given: leave one of them zero".into());
        } else {
            // SAFETY: the caller's promise.
            voice.clone().with_speaker(unsafe { string(o.speaker, "speaker")? })?
        };
        let emission = match o.emission {
            VX_EMIT_STAND_IN => crate::core::Emission::StandIn,
            VX_EMIT_RESAMPLE => crate::core::Emission::Resample,
            other => return bad(format!("emission {other} is none of VX_EMIT_*")),
        };
        let beta = if o.beta == 0.0 { 0.4 } else { o.beta };
        let arm = match o.arm {
            VX_ARM_DEFAULT => voice.default_arm(emission),
            VX_ARM_PCG => Arm::Pcg { emission },
            VX_ARM_AR => Arm::Ar,
            VX_ARM_SD => Arm::Sd,
            VX_ARM_TOLERANCE => Arm::Tolerance { beta },
            VX_ARM_TRANSPORT => Arm::Transport,
            other => return bad(format!("arm {other} is none of VX_ARM_*")),
        };
        let mut decode = voice.options(arm);
        decode.seed = o.seed;
        decode.gamma = match o.gamma {
            0 => decode.gamma,
            VX_OFF => DraftLength::Fixed(0),
            VX_GAMMA_MEASURED => DraftLength::Measured,
            n => match usize::try_from(n) {
                Ok(n) => DraftLength::Fixed(n),
                Err(_) => {
                    return bad(format!(
                        "gamma {n} is neither VX_OFF, VX_GAMMA_MEASURED nor 0 to 15"
                    ));
                }
            },
        };
        let Sampling { temperature, transforms } = &mut decode.sampling;
        let off = VX_OFF as f32;
        let or = |given: f32, none: f32, default: f32| match given {
            0.0 => default,
            g if g == off => none,
            g => g,
        };
        *temperature = or(o.temperature, 0.0, *temperature);
        transforms.top_p = or(o.top_p, 1.0, transforms.top_p);
        transforms.min_p = or(o.min_p, 0.0, transforms.min_p);
        transforms.top_k = match o.top_k {
            0 => transforms.top_k,
            VX_OFF => 0,
            k if k > 0 => k as u32,
            k => return bad(format!("top_k {k} is neither VX_OFF nor 0 or more")),
        };
        decode.sampling.check()?;
        let max_chars = match o.max_chars {
            0 => text::Options::default().max_chars,
            n => n as usize,
        };
        let text = text::Options { max_chars };
        TextFrontend::new(text)?;
        let longest = positions(voice);
        let positions = match o.max_positions as usize {
            0 => longest,
            n => n.min(longest),
        };
        // A prompt is the characters between two marks, and something has to follow it.
        let least = max_chars + 2 + 16;
        if positions < least {
            return bad(format!(
                "a context of {positions} does not hold a stretch of {max_chars} characters; \
                 it takes {least}: raise max_positions or lower max_chars"
            ));
        }
        let threads = match o.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()).min(4),
            n @ 1..=64 => n as usize,
            n => return bad(format!("{n} threads are not within 1..=64")),
        };
        let max_text = match o.max_text as usize {
            0 => 1 << 16,
            n if (MIN_TEXT..=1 << 24).contains(&n) => n,
            n => return bad(format!("max_text {n} is not within {MIN_TEXT}..=16777216")),
        };
        if o.reserved != 0 || o.reserved2 != 0 {
            return bad("reserved must be 0".into());
        }
        Ok(Self { voice: speaking, decode, text, positions, threads, max_text })
    }

    /// Upper bounds; a test holds them against an allocator that counts.
    fn memory(&self, voice: &vx_voice) -> vx_memory {
        let (target, draft, codec) =
            (voice.voice.target(), voice.voice.draft(), voice.voice.codec());
        let b = voice.voice.bundle();
        let n = self.positions;
        let state = target.state_bytes(n) + draft.state_bytes(n) + codec.state_bytes(0);
        let gamma = if self.decode.arm == Arm::Ar { 0 } else { self.decode.gamma.most() };
        let rows = gamma + 1;
        let row = b.vocabulary.scored() * 4;
        let probabilities = (gamma + 1) * (row + row / 128) + (64 << 10);
        // Prompts go through in passes of many rows, rounds want the laws of all of theirs.
        let language = |m: &crate::engine::Model, wanted| {
            m.pass_bytes(PREFILL_ROWS, 1).max(m.pass_bytes(rows, wanted))
                + wanted * 4 * m.output_columns()
        };
        let codec_rows = rows + crate::speech::synth::CODEC_TOKENS;
        let passes =
            language(target, rows) + language(draft, 1) + codec.pass_bytes(codec_rows, codec_rows);
        // One product at a time: activations in 8 bits, results in pieces, scores of a head.
        let widest = |m: &bundle::LanguageModel| PREFILL_ROWS * 8 * (2 * m.ffn + m.hidden + 480);
        let products = widest(&b.target).max(widest(&b.draft)) + 16 * n + (256 << 10);
        let samples =
            (codec_rows + 2) * b.audio.samples_per_frame() + 8 * b.audio.fft_size as usize;
        // Text grows on the way to words; its own parts are small.
        let text = 24 * self.max_text + (1 << 20);
        let work = probabilities + passes + products + 8 * samples + text;
        let (state, work) = (state as u64, work as u64);
        vx_memory {
            size: 0,
            reserved: 0,
            voice_mapped: voice.mapped,
            voice_heap: voice.heap,
            engine_state: state,
            engine_work: work,
            total: voice.mapped + voice.heap + state + work,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_estimate(
    voice: *const vx_voice,
    options: *const vx_options,
    memory: *mut vx_memory,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        unsafe {
            let (voice, options) = (handle(voice, "voice")?, read(options)?);
            write(memory, Resolved::new(&voice.voice, &options)?.memory(voice))?;
        }
        Ok(VX_OK)
    })
}

// ------------------------------------------------------------------ the engine

/// Locked in the order speech, text, stats; `text` and `stats` only for moments.
pub struct vx_engine {
    memory: vx_memory,
    /// Raised by every cancellation. What was fed before the latest is not spoken.
    epoch: AtomicUsize,
    speech: Mutex<Speech>,
    text: Mutex<Text>,
    stats: Mutex<vx_stats>,
}

// Called from any thread, so all of it must be fit for that.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<vx_voice>();
    shared::<vx_engine>();
};

fn lock<T>(mutex: &Mutex<T>) -> Outcome<MutexGuard<'_, T>> {
    mutex.lock().or_else(|_| broken())
}

fn broken<T>() -> Outcome<T> {
    fail(VX_E_INTERNAL, "an earlier call met a bug; close the engine and open another")
}

/// Bytes that the front end holds back at most while it waits for the end of a sentence.
const HELD_BACK: usize = 4096;
/// Text goes to the front end word by word, so that every way to cut it gives the same
/// sentences, and in parts no longer than this, which bounds what it needs at a time.
const PART: usize = 1024;
const MIN_TEXT: usize = 2 * HELD_BACK;

/// Text on its way in.
struct Text {
    frontend: TextFrontend,
    max: usize,
    /// The beginning of a character whose rest has not come.
    partial: Vec<u8>,
    /// Fed since the front end last gave something, or was flushed.
    held: usize,
    queue: VecDeque<String>,
    queued: usize,
    epoch: usize,
    /// Whether a cancellation dropped something and the reader was not told yet.
    dropped: bool,
    replaced: u64,
    unspeakable: u64,
}

impl Text {
    /// Drops what was fed before the cancellation `epoch`.
    fn sync(&mut self, epoch: usize) {
        if self.epoch == epoch {
            return;
        }
        self.epoch = epoch;
        self.dropped |= !self.queue.is_empty() || self.held > 0 || !self.partial.is_empty();
        self.clear();
    }

    fn clear(&mut self) {
        self.frontend.flush();
        self.frontend.take_report();
        self.partial.clear();
        self.queue.clear();
        (self.held, self.queued) = (0, 0);
    }

    fn feed(&mut self, bytes: &[u8]) -> Outcome {
        let full = |used: usize, max: usize| {
            let what = format!(
                "{used} bytes of text wait and max_text is {max}: read first, or feed less at a time"
            );
            fail(VX_E_FULL, what)
        };
        let used = self.queued + self.held.min(HELD_BACK) + self.partial.len();
        if bytes.len() > self.max - used.min(self.max) {
            return full(used + bytes.len(), self.max);
        }
        let joined;
        let mut all = bytes;
        if !self.partial.is_empty() {
            joined = [&self.partial, bytes].concat();
            all = &joined;
        }
        let whole = match std::str::from_utf8(all) {
            // The last character is incomplete: its rest may come.
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            _ => all.len(),
        };
        let (all, partial) = all.split_at(whole);
        self.partial = partial.to_vec();
        let mut rest = text::utf8(all)?;
        while !rest.is_empty() {
            let ends = |&(_, c): &(usize, char)| c.is_whitespace() || "。！？".contains(c);
            let cut = match rest.char_indices().take(PART / 4).find(ends) {
                Some((at, c)) => at + c.len_utf8(),
                None => rest.char_indices().nth(PART / 4).map_or(rest.len(), |(at, _)| at),
            };
            let (part, after) = rest.split_at(cut);
            let chunks = self.frontend.feed(part);
            self.held = if chunks.is_empty() { self.held + cut } else { cut.min(HELD_BACK) };
            self.enqueue(chunks);
            rest = after;
        }
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        let chunks = self.frontend.flush();
        self.enqueue(chunks);
        self.held = 0;
        if self.partial.is_empty() {
            return Ok(());
        }
        self.partial.clear();
        fail(VX_E_TEXT, "the text ends inside a character: it is cut short or not UTF-8")
    }

    fn enqueue(&mut self, chunks: Vec<text::Chunk>) {
        let report = self.frontend.take_report();
        self.replaced += report.replaced.len() as u64;
        self.unspeakable += report.unspeakable.len() as u64;
        for mut c in chunks {
            c.text.shrink_to_fit();
            self.queued += c.text.len();
            self.queue.push_back(c.text);
        }
    }

    fn pop(&mut self) -> Option<String> {
        let text = self.queue.pop_front()?;
        self.queued -= text.len();
        Some(text)
    }
}

/// The utterance being spoken.
struct Speech {
    synthesizer: Synthesizer,
    /// Samples of the last round, given out up to `at`.
    pcm: Vec<f32>,
    at: usize,
    speaking: bool,
    /// Of the text being spoken.
    epoch: usize,
    started: Instant,
    heard: bool,
    cancelled: u64,
    first_audio: Duration,
    longest_round: Duration,
}

impl Speech {
    /// Breaks off; whether there was anything to break off.
    fn stop(&mut self) -> bool {
        let was = self.speaking || self.at < self.pcm.len();
        self.cancelled += was as u64;
        self.speaking = false;
        self.pcm.clear();
        self.at = 0;
        was
    }
}

/// What a reader finds.
enum Step {
    Samples,
    /// The queue has been spoken.
    Empty,
    /// What was being spoken or waited is gone.
    Cancelled,
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl vx_engine {
    fn reader(&self) -> Outcome<MutexGuard<'_, Speech>> {
        match self.speech.try_lock() {
            Ok(speech) => Ok(speech),
            Err(TryLockError::Poisoned(_)) => broken(),
            Err(TryLockError::WouldBlock) => {
                fail(VX_E_BUSY, "another call is reading from this engine")
            }
        }
    }

    /// Runs rounds until there are samples in `s.pcm` from `s.at` on.
    fn advance(&self, s: &mut Speech) -> Outcome<Step> {
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            let mut dropped = s.epoch != epoch && s.stop();
            s.epoch = epoch;
            let next = {
                let mut text = lock(&self.text)?;
                text.sync(epoch);
                dropped |= std::mem::take(&mut text.dropped);
                let idle = !dropped && !s.speaking && s.at == s.pcm.len();
                if idle { Some(text.pop()) } else { None }
            };
            if dropped {
                self.publish(s)?;
                return Ok(Step::Cancelled);
            }
            if s.at < s.pcm.len() {
                return Ok(Step::Samples);
            }
            s.pcm.clear();
            s.at = 0;
            let clock = Instant::now();
            match next {
                Some(None) => return Ok(Step::Empty),
                Some(Some(text)) => {
                    (s.started, s.heard) = (clock, false);
                    s.synthesizer.begin(&text)?;
                    s.speaking = true;
                }
                None => {
                    // An error ends the utterance.
                    s.speaking = false;
                    s.speaking = s.synthesizer.next_into(&mut s.pcm)?;
                }
            }
            s.longest_round = s.longest_round.max(clock.elapsed());
            if !s.heard && !s.pcm.is_empty() {
                s.heard = true;
                s.first_audio = s.started.elapsed();
            }
            self.publish(s)?;
        }
    }

    fn publish(&self, s: &Speech) -> Outcome {
        let all = s.synthesizer.stats();
        let mut stats = lock(&self.stats)?;
        *stats = vx_stats {
            utterances: all.utterances,
            cut: all.cut,
            cancelled: s.cancelled,
            tokens: all.tokens,
            samples: all.samples,
            rounds: all.spec.rounds,
            proposed: all.spec.proposed,
            accepted: all.spec.accepted,
            emitted: all.spec.emitted,
            exhausted: all.spec.exhausted,
            compute_ns: nanos(all.compute),
            prefill_ns: nanos(all.spec.prefill),
            draft_ns: nanos(all.spec.draft),
            verify_ns: nanos(all.spec.verify),
            sampling_ns: nanos(all.spec.sampling),
            codec_ns: nanos(all.codec),
            first_audio_ns: nanos(s.first_audio),
            longest_round_ns: nanos(s.longest_round),
            ..*stats
        };
        Ok(())
    }

    fn feed(&self, bytes: &[u8]) -> Outcome {
        let mut text = lock(&self.text)?;
        text.sync(self.epoch.load(Ordering::Acquire));
        text.feed(bytes)
    }

    fn flush(&self) -> Outcome {
        let mut text = lock(&self.text)?;
        text.sync(self.epoch.load(Ordering::Acquire));
        text.flush()
    }

    /// Drops everything, as the reader itself.
    fn drop_all(&self, s: &mut Speech) -> Outcome {
        s.stop();
        {
            let mut text = lock(&self.text)?;
            text.clear();
            text.dropped = false;
        }
        self.publish(s)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_open(
    voice: *const vx_voice,
    options: *const vx_options,
    engine: *mut *mut vx_engine,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let (v, o) = unsafe { (handle(voice, "voice")?, read(options)?) };
        if engine.is_null() {
            return fail(VX_E_ARGUMENT, "engine is null");
        }
        // SAFETY: the header's contract.
        let r = unsafe { Resolved::new(&v.voice, &o)? };
        let memory = r.memory(v);
        within(o.max_memory, memory.total, "the voice and this engine")?;
        // A system that refuses memory outright is asked first: later it would be too late.
        let own = usize::try_from(memory.engine_state + memory.engine_work).unwrap_or(usize::MAX);
        if Vec::<u8>::new().try_reserve_exact(own).is_err() {
            return fail(VX_E_MEMORY, format!("the system does not give {own} bytes"));
        }
        let pool = Pool::new(kernel::best(), r.threads);
        let synthesizer = Synthesizer::with_positions(&r.voice, r.decode, &pool, r.positions)?;
        // SAFETY: zeros are a value of it, see `Versioned`.
        let mut stats: vx_stats = unsafe { core::mem::zeroed() };
        stats.threads = pool.threads() as u32;
        let made = vx_engine {
            memory,
            epoch: AtomicUsize::new(0),
            speech: Mutex::new(Speech {
                synthesizer,
                pcm: Vec::new(),
                at: 0,
                speaking: false,
                epoch: 0,
                started: Instant::now(),
                heard: false,
                cancelled: 0,
                first_audio: Duration::ZERO,
                longest_round: Duration::ZERO,
            }),
            text: Mutex::new(Text {
                frontend: TextFrontend::new(r.text)?,
                max: r.max_text,
                partial: Vec::new(),
                held: 0,
                queue: VecDeque::new(),
                queued: 0,
                epoch: 0,
                dropped: false,
                replaced: 0,
                unspeakable: 0,
            }),
            stats: Mutex::new(stats),
        };
        // SAFETY: not null; that it can be written is the contract.
        unsafe { engine.write(Box::into_raw(Box::new(made))) };
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_close(engine: *mut vx_engine) {
    if !engine.is_null() {
        // SAFETY: made by `vx_engine_open`; the header says that it is closed once.
        let _ = guard(|| drop(unsafe { Box::from_raw(engine) }));
    }
}

/// # Safety
/// The header's contract for text.
unsafe fn text_bytes<'a>(text: *const c_char, bytes: usize) -> Outcome<&'a [u8]> {
    if bytes != VX_NUL_TERMINATED {
        // SAFETY: the caller's promise.
        return Ok(unsafe { slice(text.cast::<u8>(), bytes)? });
    }
    if text.is_null() {
        return fail(VX_E_ARGUMENT, "text is null");
    }
    // SAFETY: not null; the caller says that it ends with a zero.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_feed(
    engine: *mut vx_engine,
    text: *const c_char,
    bytes: usize,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let (engine, text) = unsafe { (handle(engine, "engine")?, text_bytes(text, bytes)?) };
        engine.feed(text)?;
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_flush(engine: *mut vx_engine) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        unsafe { handle(engine, "engine")? }.flush()?;
        Ok(VX_OK)
    })
}

/// # Safety
/// The contract of `vx_engine_read`.
unsafe fn take<T>(
    engine: *mut vx_engine,
    pcm: *mut T,
    capacity: usize,
    written: *mut usize,
    convert: impl Fn(f32) -> T,
) -> vx_status {
    call(|| {
        if written.is_null() {
            return fail(VX_E_ARGUMENT, "written is null");
        }
        // SAFETY: not null; the rest is the contract.
        let (engine, out) = unsafe {
            written.write(0);
            (handle(engine, "engine")?, slice_mut(pcm, capacity)?)
        };
        if out.is_empty() {
            return fail(VX_E_ARGUMENT, "capacity is 0: there must be room for a sample");
        }
        let mut s = engine.reader()?;
        match engine.advance(&mut s)? {
            Step::Samples => {}
            Step::Empty => return Ok(VX_END),
            Step::Cancelled => return fail(VX_E_CANCELLED, "cancelled"),
        }
        let n = out.len().min(s.pcm.len() - s.at);
        for (o, x) in out.iter_mut().zip(&s.pcm[s.at..]) {
            *o = convert(*x);
        }
        s.at += n;
        // SAFETY: as above.
        unsafe { written.write(n) };
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_read(
    engine: *mut vx_engine,
    pcm: *mut f32,
    capacity: usize,
    written: *mut usize,
) -> vx_status {
    // SAFETY: the header's contract.
    unsafe { take(engine, pcm, capacity, written, |x| x) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_read_i16(
    engine: *mut vx_engine,
    pcm: *mut i16,
    capacity: usize,
    written: *mut usize,
) -> vx_status {
    // SAFETY: the header's contract.
    unsafe { take(engine, pcm, capacity, written, to_i16) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_speak(
    engine: *mut vx_engine,
    text: *const c_char,
    bytes: usize,
    sink: vx_pcm_fn,
    user: *mut c_void,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let (engine, text) = unsafe { (handle(engine, "engine")?, text_bytes(text, bytes)?) };
        let Some(sink) = sink else {
            return fail(VX_E_ARGUMENT, "sink is null");
        };
        let mut s = engine.reader()?;
        if !text.is_empty() {
            engine.feed(text)?;
        }
        let mut any = text.is_empty();
        let mut run = || -> Outcome<Step> {
            engine.flush()?;
            loop {
                match engine.advance(&mut s)? {
                    Step::Samples => any = true,
                    end => return Ok(end),
                }
                let pcm = &s.pcm[s.at..];
                // SAFETY: the header asks for a function that takes this and returns.
                let stop = unsafe { sink(user, pcm.as_ptr(), pcm.len()) };
                if stop != 0 {
                    return fail(VX_E_CANCELLED, "the callback asked to stop");
                }
                s.at = s.pcm.len();
            }
        };
        match run() {
            Ok(Step::Cancelled) => fail(VX_E_CANCELLED, "cancelled"),
            Ok(_) if any => Ok(VX_OK),
            Ok(_) => fail(VX_E_TEXT, "there is nothing to speak in this text"),
            Err(e) => {
                engine.drop_all(&mut s)?;
                Err(e)
            }
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_cancel(engine: *mut vx_engine) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        unsafe { handle(engine, "engine")? }.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_stats(
    engine: *const vx_engine,
    stats: *mut vx_stats,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        let engine = unsafe { handle(engine, "engine")? };
        let mut found = *lock(&engine.stats)?;
        let text = lock(&engine.text)?;
        (found.replaced, found.unspeakable) = (text.replaced, text.unspeakable);
        drop(text);
        // SAFETY: the header's contract.
        unsafe { write(stats, found)? };
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_memory(
    engine: *const vx_engine,
    memory: *mut vx_memory,
) -> vx_status {
    call(|| {
        // SAFETY: the header's contract.
        unsafe { write(memory, handle(engine, "engine")?.memory)? };
        Ok(VX_OK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::{null, null_mut};

    #[test]
    fn a_panic_ends_at_the_border() {
        struct Angry;
        impl Drop for Angry {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(call(|| panic!("a bug")), VX_E_INTERNAL);
        assert_eq!(call(|| std::panic::panic_any(Angry)), VX_E_INTERNAL);
        // SAFETY: never null.
        let message = unsafe { CStr::from_ptr(vx_last_error()) };
        assert!(message.to_str().unwrap().contains("close the engine"));
    }

    #[test]
    fn after_a_panic_an_engine_can_only_be_closed() {
        let path = c_string(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny"));
        let (mut voice, mut engine) = (null_mut(), null_mut());
        // SAFETY: valid pointers throughout.
        unsafe {
            assert_eq!(vx_voice_open(path.as_ptr(), null(), &mut voice), VX_OK);
            assert_eq!(vx_engine_open(voice, null(), &mut engine), VX_OK);
            let within = call(|| {
                let _lock = (*engine).speech.lock();
                panic!("in the middle of a round");
            });
            assert_eq!(within, VX_E_INTERNAL);
            let (mut sample, mut n) = (0f32, 0);
            for _ in 0..2 {
                assert_eq!(vx_engine_read(engine, &mut sample, 1, &mut n), VX_E_INTERNAL);
            }
            assert_eq!(vx_engine_cancel(engine), VX_OK);
            vx_engine_close(engine);
            vx_voice_close(voice);
        }
    }
}
