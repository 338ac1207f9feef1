//! The whole library: voices, engines, text in, PCM out.

use super::*;
use crate::core::Emission;
use crate::decode::{Arm, DEFAULT_BETA, DraftLength, MAX_GAMMA, Sampling};
use crate::map::Map;
use crate::speech::calibration::Calibration;
use crate::speech::phonemes::UserLexicon;
use crate::speech::stream::{Handle, Memory, Options, Stream};
use crate::speech::text::{Markup, utf8};
use crate::speech::voice::{OpenOptions, Voice, VoiceMemory, within};
use crate::{Error, ErrorKind, bundle, kernel};
use core::ffi::{CStr, c_char, c_void};
use std::cell::RefCell;
use std::ffi::CString;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::Duration;

pub const VX_NUL_TERMINATED: usize = usize::MAX;
pub const VX_OFF: i32 = -1;
pub const VX_GAMMA_MEASURED: i32 = -2;

pub const VX_MARKUP_AUTO: i32 = 0;
pub const VX_MARKUP_NONE: i32 = 1;
pub const VX_MARKUP_MARKDOWN: i32 = 2;
pub const VX_MARKUP_SSML: i32 = 3;

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
    pub min_rate: f32,
    pub max_rate: f32,
    pub reads_phonemes: i32,
    pub reserved3: u32,
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
    pub rate: f64,
    pub markup: i32,
    pub lines: i32,
    pub pause_comma: f32,
    pub pause_clause: f32,
    pub pause_sentence: f32,
    pub pause_paragraph: f32,
    pub pause_heading: f32,
    pub reserved3: u32,
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
    pub begun: u64,
    pub begun_at: u64,
    pub source_begin: u64,
    pub source_end: u64,
}

pub type vx_pcm_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, pcm: *const f32, samples: usize) -> i32>;

// SAFETY: repr(C), size first; numbers, and pointers that may be null.
unsafe impl Versioned for vx_build {}
// SAFETY: repr(C), size first; numbers, and a pointer that may be null.
unsafe impl Versioned for vx_voice_options {}
// SAFETY: repr(C), size first; numbers, and pointers that may be null.
unsafe impl Versioned for vx_voice_info {
    const EARLIER: &'static [usize] =
        &[32 + 3 * size_of::<*const c_char>(), 40 + 3 * size_of::<*const c_char>()];
}
// SAFETY: repr(C), size first; a number, and pointers that may be null.
unsafe impl Versioned for vx_speaker {}
// SAFETY: repr(C), size first; numbers, and a pointer that may be null.
unsafe impl Versioned for vx_options {
    // `rate` is aligned as the whole struct is: padding behind version 2 is none of it.
    const EARLIER: &'static [usize] = &[72, core::mem::offset_of!(vx_options, rate)];
}
// SAFETY: repr(C), size first; numbers alone.
unsafe impl Versioned for vx_memory {}
// SAFETY: repr(C), size first; numbers alone.
unsafe impl Versioned for vx_stats {
    const EARLIER: &'static [usize] = &[core::mem::offset_of!(vx_stats, begun)];
}

// ------------------------------------------------------------------ failures

/// A status and the message for it.
pub(super) struct Failure(pub(super) vx_status, pub(super) String);

pub(super) type Outcome<T = ()> = Result<T, Failure>;

pub(super) fn fail<T>(status: vx_status, message: impl Into<String>) -> Outcome<T> {
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
            ErrorKind::Full => VX_E_FULL,
            ErrorKind::Memory => VX_E_MEMORY,
            ErrorKind::Internal | ErrorKind::Unwritable | ErrorKind::Audio => VX_E_INTERNAL,
        };
        Self(status, format!("{e:#}"))
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

pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

fn remember(message: &str) {
    // Neither does anything in the last moments of a thread.
    let _ = LAST.try_with(|last| *last.borrow_mut() = c_string(message));
}

/// Runs `f` behind the [`guard`] and keeps the message of its failure.
pub(super) fn call(f: impl FnOnce() -> Outcome<vx_status>) -> vx_status {
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
        // SAFETY: `build` is null, which `write` refuses, or a struct of the caller's as large as
        // it says.
        unsafe { write(build, found)? };
        Ok(VX_OK)
    })
}

// ------------------------------------------------------------------ the voice

pub struct vx_voice {
    pub(super) voice: Voice,
    name: CString,
    licence: CString,
    attribution: CString,
    /// Names and descriptions.
    speakers: Vec<(CString, CString)>,
}

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
pub(super) unsafe fn handle<'a, T>(p: *const T, what: &str) -> Outcome<&'a T> {
    // SAFETY: null is no reference; anything else is a whole `T` of ours that lives until its
    // close.
    match unsafe { p.as_ref() } {
        Some(t) => Ok(t),
        None => fail(VX_E_ARGUMENT, format!("{what} is null")),
    }
}

/// 0 stands for no budget.
fn budget(max_memory: u64) -> Option<u64> {
    (max_memory != 0).then_some(max_memory)
}

/// # Safety
/// `out` can be written.
unsafe fn finish(voice: Voice, out: *mut *mut vx_voice) -> Outcome<vx_status> {
    let b = voice.bundle();
    let made = vx_voice {
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
    // SAFETY: `options` is null or a struct of the caller's as large as it says.
    let o = unsafe { read(options)? };
    if o.flags & !flags != 0 {
        let what = format!("flags {:#x} mean nothing here, only {flags:#x} do", o.flags & !flags);
        return fail(VX_E_ARGUMENT, what);
    }
    let groups = if o.groups_path.is_null() {
        None
    } else {
        // SAFETY: not null, and a string of the caller's that ends with a zero and stays as it is
        // during the call.
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
        // SAFETY: `path` and what `options` names are null or strings of the caller's that stay as
        // they are during the call.
        let (path, (o, groups)) = unsafe {
            let flags = VX_VOICE_VERIFY | VX_VOICE_COPY;
            (string(path, "path")?, voice_options(options, flags)?)
        };
        if voice.is_null() {
            return fail(VX_E_ARGUMENT, "voice is null");
        }
        let options = OpenOptions {
            verify: o.flags & VX_VOICE_VERIFY != 0,
            copy: o.flags & VX_VOICE_COPY != 0,
            groups: groups.map(Path::to_owned),
            max_memory: budget(o.max_memory),
        };
        // SAFETY: `voice` is not null and the caller's place for a pointer.
        unsafe {
            let opened = Voice::open_with(path, &options)?;
            finish(opened.with_calibration(Calibration::of_user()), voice)
        }
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
        // SAFETY: `files` has `count` structs of the caller's and `options` is null or one; both
        // stay as they are during the call.
        let (files, (o, groups)) =
            unsafe { (slice(files, count)?, voice_options(options, VX_VOICE_BORROW)?) };
        if voice.is_null() {
            return fail(VX_E_ARGUMENT, "voice is null");
        }
        let borrow = o.flags & VX_VOICE_BORROW != 0;
        let mut views = Vec::with_capacity(files.len());
        for f in files {
            // SAFETY: the name ends with a zero and `bytes` bytes are at `data`, all during the
            // call. Beyond it the bytes are kept only with VX_VOICE_BORROW, where the caller
            // promises that they outlive every user.
            let (name, data) = unsafe {
                (string(f.name, "a file's name")?, slice::<'static>(f.data.cast::<u8>(), f.bytes)?)
            };
            views.push((name, data));
        }
        let index = groups.map(Map::open).transpose()?;
        let need = VoiceMemory::of_files(views.iter().map(|(n, d)| (*n, d.len() as u64, borrow)));
        let index_bytes = index.as_ref().map_or(0, |m| m.len() as u64);
        within(budget(o.max_memory), need.total() + index_bytes, "the voice")?;
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
        let mut opened = Voice::from_files(&maps)?;
        if let Some(map) = index {
            opened = opened.with_index(map)?;
        }
        // SAFETY: `voice` is not null and the caller's place for a pointer.
        unsafe { finish(opened.with_calibration(Calibration::of_user()), voice) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_with_lexicon(
    voice: *const vx_voice,
    text: *const c_char,
    bytes: usize,
    name: *const c_char,
    changed: *mut *mut vx_voice,
) -> vx_status {
    call(|| {
        // SAFETY: null or an open voice, which nobody closes during the call; the text stays as it
        // is until it returns, and none of it is kept.
        let (v, text) = unsafe { (handle(voice, "voice")?, text_bytes(text, bytes)?) };
        if changed.is_null() {
            return fail(VX_E_ARGUMENT, "changed is null");
        }
        let name = if name.is_null() {
            "the lexicon"
        } else {
            // SAFETY: not null, and a string of the caller's that ends with a zero and stays as it
            // is during the call.
            unsafe { string(name, "name")? }
        };
        let lexicon = UserLexicon::parse(utf8(text)?, name)?;
        // SAFETY: `changed` is not null and the caller's place for a pointer.
        unsafe { finish(v.voice.clone().with_lexicon(&lexicon)?, changed) }
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
        // SAFETY: null or an open voice, which nobody closes during the call.
        let v = unsafe { handle(voice, "voice")? };
        let b = v.voice.bundle();
        let found = vx_voice_info {
            size: 0,
            sample_rate_hz: b.audio.sample_rate_hz,
            token_rate_hz: b.audio.frame_rate_hz,
            latency_samples: b.codec.latency_samples,
            max_positions: v.voice.max_positions() as u32,
            default_gamma: b.sampling.gamma as u32,
            has_groups: v.voice.groups().is_some().into(),
            reserved: 0,
            name: v.name.as_ptr(),
            licence: v.licence.as_ptr(),
            attribution: v.attribution.as_ptr(),
            speaker_count: v.speakers.len() as u32,
            reserved2: 0,
            min_rate: v.voice.rates().0,
            max_rate: v.voice.rates().1,
            reads_phonemes: v.voice.phonemizer().is_some().into(),
            reserved3: 0,
        };
        // SAFETY: null, which `write` refuses, or a struct of the caller's as large as it says.
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
        // SAFETY: null or an open voice, which nobody closes during the call.
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
        // SAFETY: null, which `write` refuses, or a struct of the caller's as large as it says.
        unsafe { write(speaker, found)? };
        Ok(VX_OK)
    })
}

// ------------------------------------------------------------------ options

/// The voice as its speaker, and every option with the defaults filled in.
///
/// # Safety
/// The header's contract for `o.speaker`.
pub(super) unsafe fn resolve(voice: &Voice, o: &vx_options) -> Outcome<(Voice, Options)> {
    let bad = |what: String| fail(VX_E_ARGUMENT, what);
    let voice = if o.speaker.is_null() {
        voice.clone().with_speaker_number(o.speaker_index as usize)?
    } else if o.speaker_index != 0 {
        return bad("speaker and speaker_index are both given: leave one of them zero".into());
    } else {
        // SAFETY: not null; the caller of this function vouches for the string.
        voice.clone().with_speaker(unsafe { string(o.speaker, "speaker")? })?
    };
    let emission = match o.emission {
        VX_EMIT_STAND_IN => Emission::StandIn,
        VX_EMIT_RESAMPLE => Emission::Resample,
        other => return bad(format!("emission {other} is none of VX_EMIT_*")),
    };
    let beta = if o.beta == 0.0 { DEFAULT_BETA } else { o.beta };
    let arm = match o.arm {
        VX_ARM_DEFAULT => voice.default_arm(emission),
        VX_ARM_PCG => Arm::Pcg { emission },
        VX_ARM_AR => Arm::Ar,
        VX_ARM_SD => Arm::Sd,
        VX_ARM_TOLERANCE => Arm::Tolerance { beta },
        VX_ARM_TRANSPORT => Arm::Transport,
        other => return bad(format!("arm {other} is none of VX_ARM_*")),
    };
    let mut options = Options::for_voice(&voice);
    let decode = &mut options.decode;
    (decode.arm, decode.seed) = (arm, o.seed);
    decode.gamma = match o.gamma {
        0 => {
            let threads = if o.threads == 0 { options.threads } else { o.threads as usize };
            voice.draft_length_on(kernel::best(), threads)
        }
        VX_OFF => DraftLength::Fixed(0),
        VX_GAMMA_MEASURED => DraftLength::Measured,
        n => match usize::try_from(n) {
            Ok(n) => DraftLength::Fixed(n),
            Err(_) => {
                return bad(format!(
                    "gamma {n} is neither VX_OFF, VX_GAMMA_MEASURED nor 0 to {MAX_GAMMA}"
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
    let given = |n: u32, default: usize| if n == 0 { default } else { n as usize };
    options.rate = if o.rate == 0.0 { 1.0 } else { o.rate as f32 };
    options.text.markup = match o.markup {
        VX_MARKUP_AUTO => Markup::Auto,
        VX_MARKUP_NONE => Markup::None,
        VX_MARKUP_MARKDOWN => Markup::Markdown,
        VX_MARKUP_SSML => Markup::Ssml,
        other => return bad(format!("markup {other} is none of VX_MARKUP_*")),
    };
    options.text.lines = match o.lines {
        0 => false,
        1 => true,
        other => return bad(format!("lines {other} is neither 0 nor 1")),
    };
    let pauses = &mut options.text.pauses;
    for (given, pause) in [
        (o.pause_comma, &mut pauses.comma),
        (o.pause_clause, &mut pauses.clause),
        (o.pause_sentence, &mut pauses.sentence),
        (o.pause_paragraph, &mut pauses.paragraph),
        (o.pause_heading, &mut pauses.heading),
    ] {
        *pause = or(given, 0.0, *pause);
    }
    options.text.max_chars = given(o.max_chars, options.text.max_chars);
    options.max_positions = given(o.max_positions, options.max_positions);
    options.threads = given(o.threads, options.threads);
    options.max_text = given(o.max_text, options.max_text);
    options.max_memory = budget(o.max_memory);
    if (o.reserved, o.reserved2, o.reserved3) != (0, 0, 0) {
        return bad("reserved must be 0".into());
    }
    Ok((voice, options))
}

fn memory_of(m: &Memory) -> vx_memory {
    vx_memory {
        size: 0,
        reserved: 0,
        voice_mapped: m.voice.mapped,
        voice_heap: m.voice.heap,
        engine_state: m.state,
        engine_work: m.work,
        total: m.total(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_estimate(
    voice: *const vx_voice,
    options: *const vx_options,
    memory: *mut vx_memory,
) -> vx_status {
    call(|| {
        // SAFETY: the voice is null or open, and the options and `memory` are null or structs of
        // the caller's as large as they say, with a speaker's name that ends with a zero.
        unsafe {
            let (voice, options) = (handle(voice, "voice")?, read(options)?);
            let (voice, options) = resolve(&voice.voice, &options)?;
            write(memory, memory_of(&options.memory(&voice)?))?;
        }
        Ok(VX_OK)
    })
}

// ------------------------------------------------------------------ the engine

pub struct vx_engine {
    /// Locked while somebody reads.
    stream: Mutex<Stream>,
    /// What everybody else uses.
    handle: Handle,
}

// Called from any thread, so all of it must be fit for that.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<vx_voice>();
    shared::<vx_engine>();
};

impl vx_engine {
    fn reader(&self) -> Outcome<MutexGuard<'_, Stream>> {
        match self.stream.try_lock() {
            Ok(stream) => Ok(stream),
            Err(TryLockError::Poisoned(_)) => {
                fail(VX_E_INTERNAL, "an earlier call met a bug; close the engine and open another")
            }
            Err(TryLockError::WouldBlock) => {
                fail(VX_E_BUSY, "another call is reading from this engine")
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_open(
    voice: *const vx_voice,
    options: *const vx_options,
    engine: *mut *mut vx_engine,
) -> vx_status {
    call(|| {
        // SAFETY: the voice is null or open; the options are null or a struct of the caller's as
        // large as it says.
        let (voice, options) = unsafe { (handle(voice, "voice")?, read(options)?) };
        if engine.is_null() {
            return fail(VX_E_ARGUMENT, "engine is null");
        }
        // SAFETY: the speaker's name is null or ends with a zero and stays as it is during the
        // call.
        let (voice, options) = unsafe { resolve(&voice.voice, &options)? };
        let stream = Stream::new(&voice, &options)?;
        let made = vx_engine { handle: stream.handle(), stream: Mutex::new(stream) };
        // SAFETY: not null, and the caller's place for a pointer.
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
pub(super) unsafe fn text_bytes<'a>(text: *const c_char, bytes: usize) -> Outcome<&'a [u8]> {
    if bytes != VX_NUL_TERMINATED {
        // SAFETY: `bytes` bytes are at `text` if it is not null, which `slice` looks at.
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
        // SAFETY: null or an open engine, which nobody closes during the call; the text stays as it
        // is until it returns, and none of it is kept.
        let (engine, text) = unsafe { (handle(engine, "engine")?, text_bytes(text, bytes)?) };
        engine.handle.feed(text)?;
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_flush(engine: *mut vx_engine) -> vx_status {
    call(|| {
        // SAFETY: null or an open engine, which nobody closes during the call.
        unsafe { handle(engine, "engine")? }.handle.flush()?;
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
    read: impl FnOnce(&mut Stream, &mut [T]) -> crate::Result<usize>,
) -> vx_status {
    call(|| {
        if written.is_null() {
            return fail(VX_E_ARGUMENT, "written is null");
        }
        // SAFETY: `written` is not null and the caller's; the engine is null or open; `capacity`
        // samples of the caller's are at `pcm`, and nobody else looks at them during the call.
        let (engine, out) = unsafe {
            written.write(0);
            (handle(engine, "engine")?, slice_mut(pcm, capacity)?)
        };
        let n = read(&mut *engine.reader()?, out)?;
        // SAFETY: not null, and nothing in between has made it another's.
        unsafe { written.write(n) };
        Ok(if n == 0 { VX_END } else { VX_OK })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_read(
    engine: *mut vx_engine,
    pcm: *mut f32,
    capacity: usize,
    written: *mut usize,
) -> vx_status {
    // SAFETY: the same contract, handed on.
    unsafe { take(engine, pcm, capacity, written, |stream, out| stream.read(out)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_read_i16(
    engine: *mut vx_engine,
    pcm: *mut i16,
    capacity: usize,
    written: *mut usize,
) -> vx_status {
    // SAFETY: the same contract, handed on.
    unsafe { take(engine, pcm, capacity, written, |stream, out| stream.read_i16(out)) }
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
        // SAFETY: null or an open engine, which nobody closes during the call; the text is copied
        // before the sink is called.
        let (engine, text) = unsafe { (handle(engine, "engine")?, text_bytes(text, bytes)?) };
        let Some(sink) = sink else {
            return fail(VX_E_ARGUMENT, "sink is null");
        };
        engine.reader()?.speak(text, |pcm| {
            // SAFETY: a function of this type that returns, with `user` as the caller gave it; the
            // samples are the stream's and stay during the call.
            match unsafe { sink(user, pcm.as_ptr(), pcm.len()) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        })?;
        Ok(VX_OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_cancel(engine: *mut vx_engine) -> vx_status {
    call(|| {
        // SAFETY: null or an open engine, which nobody closes during the call.
        unsafe { handle(engine, "engine")? }.handle.cancel();
        Ok(VX_OK)
    })
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_engine_stats(
    engine: *const vx_engine,
    stats: *mut vx_stats,
) -> vx_status {
    call(|| {
        // SAFETY: null or an open engine, which nobody closes during the call.
        let s = unsafe { handle(engine, "engine")? }.handle.stats()?;
        let (speech, spec) = (&s.speech, &s.speech.spec);
        let found = vx_stats {
            size: 0,
            threads: s.threads as u32,
            utterances: speech.utterances,
            cut: speech.cut,
            cancelled: s.cancelled,
            tokens: speech.tokens,
            samples: s.samples,
            rounds: spec.rounds,
            proposed: spec.proposed,
            accepted: spec.accepted,
            emitted: spec.emitted,
            exhausted: spec.exhausted,
            replaced: s.replaced,
            unspeakable: s.unspeakable,
            compute_ns: nanos(speech.compute),
            prefill_ns: nanos(spec.prefill),
            draft_ns: nanos(spec.draft),
            verify_ns: nanos(spec.verify),
            sampling_ns: nanos(spec.sampling),
            codec_ns: nanos(speech.codec),
            first_audio_ns: nanos(s.first_audio),
            longest_round_ns: nanos(s.longest_round),
            begun: s.begun,
            begun_at: s.begin,
            source_begin: s.source.0 as u64,
            source_end: s.source.1 as u64,
        };
        // SAFETY: null, which `write` refuses, or a struct of the caller's as large as it says.
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
        // SAFETY: null or an open engine, which nobody closes during the call; `memory` is null or
        // a struct of the caller's as large as it says.
        unsafe { write(memory, memory_of(&handle(engine, "engine")?.handle.memory()))? };
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
                let _lock = (*engine).stream.lock();
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
