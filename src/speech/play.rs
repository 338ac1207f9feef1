//! Playback through the default sound device.
//!
//! [`Output::push`] puts samples into a ring; the device takes them from there. The ring has
//! one writer and one reader and is lock-free; the loop or callback that feeds the device
//! neither allocates nor locks nor logs.
//!
//! On Linux the device is ALSA's `default`, and `libasound.so.2` is loaded when an output is
//! opened, not linked: a machine without ALSA, its headers or a sound card still builds and
//! runs the program, and gets [`ErrorKind::Audio`] with a reason when it asks for sound. This
//! is why this file is on the list of those that may use `unsafe`. Elsewhere the device is
//! cpal's default output.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// What the two sides share besides the ring.
#[derive(Default)]
struct Shared {
    underruns: AtomicU32,
    /// Samples that the device holds, as last asked.
    device_delay: AtomicU32,
    /// Set by `drain`, cleared by the device side when everything has been handed over and,
    /// on Linux, heard.
    draining: AtomicBool,
    stop: AtomicBool,
    /// 0, or why the device side has ended (an ALSA code; 1 from cpal).
    failure: AtomicI32,
}

/// A ring of samples for one writer and one reader. Bits of `f32` in atomics need no unsafe
/// code, and the size is free. `docs/dependencies.md` says why it is not `heapless::spsc`.
struct Ring {
    slots: Box<[AtomicU32]>,
    /// Samples read and written so far, wrapping; the slot is the count modulo the length,
    /// which is a power of two.
    read: AtomicUsize,
    written: AtomicUsize,
    /// Samples that may be queued, at most `slots.len()`.
    limit: usize,
}

impl Ring {
    fn new(limit: usize) -> Self {
        let size = limit.next_power_of_two();
        Self {
            slots: (0..size).map(|_| AtomicU32::new(0)).collect(),
            read: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            limit,
        }
    }

    fn len(&self) -> usize {
        let read = self.read.load(Ordering::Acquire);
        self.written.load(Ordering::Acquire).wrapping_sub(read)
    }

    /// Writes what fits and says how much that was. Only the one writer may call it.
    fn push(&self, samples: &[f32]) -> usize {
        let written = self.written.load(Ordering::Relaxed);
        let queued = written.wrapping_sub(self.read.load(Ordering::Acquire));
        let n = samples.len().min(self.limit.saturating_sub(queued));
        let mask = self.slots.len() - 1;
        for (i, s) in samples[..n].iter().enumerate() {
            self.slots[written.wrapping_add(i) & mask].store(s.to_bits(), Ordering::Relaxed);
        }
        self.written.store(written.wrapping_add(n), Ordering::Release);
        n
    }

    /// Hands up to `most` samples to `take`, oldest first, and says how many. Only the one
    /// reader may call it.
    fn pop(&self, most: usize, mut take: impl FnMut(usize, f32)) -> usize {
        let read = self.read.load(Ordering::Relaxed);
        let queued = self.written.load(Ordering::Acquire).wrapping_sub(read);
        let n = most.min(queued);
        let mask = self.slots.len() - 1;
        for i in 0..n {
            let bits = self.slots[read.wrapping_add(i) & mask].load(Ordering::Relaxed);
            take(i, f32::from_bits(bits));
        }
        self.read.store(read.wrapping_add(n), Ordering::Release);
        n
    }
}

/// The default sound device, playing what is pushed.
///
/// Dropping it stops at once; call [`drain`](Self::drain) first to hear the end.
pub struct Output {
    ring: Arc<Ring>,
    shared: Arc<Shared>,
    sample_rate_hz: u32,
    /// How long to sleep while the ring is full.
    nap: Duration,
    device: device::Device,
}

impl Output {
    /// Opens the default device for mono sound at `sample_rate_hz` (4000 to 192000; resampled
    /// if the device has another rate), with a ring of `buffer_ms` milliseconds (20 to 60000).
    ///
    /// The device has a buffer of its own besides, half as long, from 40 to 200 ms; playback
    /// begins when it is full, or at [`drain`](Self::drain).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Audio`] with a one-line reason if there is no sound library or no device,
    /// [`ErrorKind::InvalidArgument`] if an argument is out of range.
    pub fn open(sample_rate_hz: u32, buffer_ms: u32) -> Result<Self> {
        Self::open_with(device::LIBRARY, sample_rate_hz, buffer_ms)
    }

    fn open_with(library: &'static str, sample_rate_hz: u32, buffer_ms: u32) -> Result<Self> {
        if !(4_000..=192_000).contains(&sample_rate_hz) || !(20..=60_000).contains(&buffer_ms) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{sample_rate_hz} Hz with a buffer of {buffer_ms} ms is not within 4000..=192000 Hz and 20..=60000 ms"
                ),
            ));
        }
        let samples = u64::from(sample_rate_hz) * u64::from(buffer_ms) / 1000;
        let ring = Arc::new(Ring::new(samples as usize));
        let shared = Arc::new(Shared::default());
        let device_ms = (buffer_ms / 2).clamp(40, 200);
        let device = device::Device::open(
            library,
            sample_rate_hz,
            device_ms,
            Arc::clone(&ring),
            Arc::clone(&shared),
        )?;
        let nap = Duration::from_millis(u64::from(buffer_ms / 8).clamp(1, 20));
        Ok(Self { ring, shared, sample_rate_hz, nap, device })
    }

    /// Queues samples (full scale ±1), waiting while the ring is full.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Audio`] if the device has gone.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        let mut rest = samples;
        loop {
            self.check()?;
            rest = &rest[self.ring.push(rest)..];
            if rest.is_empty() {
                return Ok(());
            }
            std::thread::sleep(self.nap);
        }
    }

    /// Waits until everything pushed has been heard. More can be pushed afterwards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Audio`] if the device has gone.
    pub fn drain(&mut self) -> Result<()> {
        self.shared.draining.store(true, Ordering::Release);
        while self.shared.draining.load(Ordering::Acquire) {
            self.check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        self.device.after_drain(&self.shared, self.sample_rate_hz);
        self.check()
    }

    /// How often the device ran out of samples in the middle of the sound.
    pub fn underruns(&self) -> u32 {
        self.shared.underruns.load(Ordering::Relaxed)
    }

    /// How long it takes until a sample pushed now is heard: what the ring and the device
    /// hold.
    pub fn latency(&self) -> Duration {
        let device = self.shared.device_delay.load(Ordering::Relaxed) as usize;
        let samples = (self.ring.len() + device) as f64;
        Duration::from_secs_f64(samples / f64::from(self.sample_rate_hz))
    }

    /// Samples a second.
    pub fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    fn check(&self) -> Result<()> {
        match self.shared.failure.load(Ordering::Acquire) {
            0 => Ok(()),
            code => Err(Error::new(
                ErrorKind::Audio,
                format!("the sound device stopped: {}", self.device.reason(code)),
            )),
        }
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output({} Hz, {} queued)", self.sample_rate_hz, self.ring.len())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.device.close();
    }
}

#[cfg(target_os = "linux")]
mod device {
    use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
    use std::sync::mpsc;
    use std::thread::JoinHandle;

    use super::*;
    use crate::speech::wav::to_i16;

    pub(super) const LIBRARY: &str = "libasound.so.2";

    const PLAYBACK: c_int = 0;
    const INTERLEAVED: c_int = 3;
    /// `SND_PCM_FORMAT_S16_LE` or `_BE`: the machine's own.
    const S16: c_int = if cfg!(target_endian = "little") { 2 } else { 3 };
    const EAGAIN: c_long = -11;
    const EPIPE: c_long = -32;

    enum Pcm {}

    /// The functions of libasound that are used, with the types of `alsa/pcm.h`.
    #[derive(Clone, Copy)]
    struct Alsa {
        open: unsafe extern "C" fn(*mut *mut Pcm, *const c_char, c_int, c_int) -> c_int,
        set_params:
            unsafe extern "C" fn(*mut Pcm, c_int, c_int, c_uint, c_uint, c_int, c_uint) -> c_int,
        get_params: unsafe extern "C" fn(*mut Pcm, *mut c_ulong, *mut c_ulong) -> c_int,
        writei: unsafe extern "C" fn(*mut Pcm, *const c_void, c_ulong) -> c_long,
        recover: unsafe extern "C" fn(*mut Pcm, c_int, c_int) -> c_int,
        wait: unsafe extern "C" fn(*mut Pcm, c_int) -> c_int,
        delay: unsafe extern "C" fn(*mut Pcm, *mut c_long) -> c_int,
        drain: unsafe extern "C" fn(*mut Pcm) -> c_int,
        discard: unsafe extern "C" fn(*mut Pcm) -> c_int,
        prepare: unsafe extern "C" fn(*mut Pcm) -> c_int,
        close: unsafe extern "C" fn(*mut Pcm) -> c_int,
        strerror: unsafe extern "C" fn(c_int) -> *const c_char,
        /// Replaces the error printer of the calling thread. Only very old libraries lack it.
        set_local: Option<unsafe extern "C" fn(Option<LocalHandler>) -> *const c_void>,
    }

    /// `snd_local_error_handler_t`; the last argument is a `va_list`, which every Linux ABI
    /// passes in one pointer-sized place and which is not looked at.
    type LocalHandler = unsafe extern "C" fn(
        *const c_char,
        c_int,
        *const c_char,
        c_int,
        *const c_char,
        *mut c_void,
    );

    /// The library prints to stderr by itself; a library must not.
    unsafe extern "C" fn silent(
        _: *const c_char,
        _: c_int,
        _: *const c_char,
        _: c_int,
        _: *const c_char,
        _: *mut c_void,
    ) {
    }

    impl Alsa {
        fn load(library: &str) -> Result<Self> {
            let missing = |e: libloading::Error| {
                Error::with_source(
                    ErrorKind::Audio,
                    format!(
                        "no sound: {library} cannot be loaded; install ALSA's library (libasound2, alsa-lib) or write a file instead"
                    ),
                    e,
                )
            };
            // SAFETY: loading runs the library's initialisers; libasound's have no
            // preconditions.
            let lib = unsafe { libloading::Library::new(library) }.map_err(missing)?;
            macro_rules! symbol {
                ($name:literal) => {
                    // SAFETY: the type it is assigned to is that of the function of this name
                    // in alsa/pcm.h and alsa/error.h, unchanged since ALSA 0.9.
                    *unsafe { lib.get($name) }.map_err(missing)?
                };
            }
            let alsa = Self {
                open: symbol!(c"snd_pcm_open"),
                set_params: symbol!(c"snd_pcm_set_params"),
                get_params: symbol!(c"snd_pcm_get_params"),
                writei: symbol!(c"snd_pcm_writei"),
                recover: symbol!(c"snd_pcm_recover"),
                wait: symbol!(c"snd_pcm_wait"),
                delay: symbol!(c"snd_pcm_delay"),
                drain: symbol!(c"snd_pcm_drain"),
                discard: symbol!(c"snd_pcm_drop"),
                prepare: symbol!(c"snd_pcm_prepare"),
                close: symbol!(c"snd_pcm_close"),
                strerror: symbol!(c"snd_strerror"),
                // SAFETY: as above.
                set_local: unsafe { lib.get(c"snd_lib_error_set_local") }.ok().map(|s| *s),
            };
            // Never unloaded: the pointers above stay valid, and plug-ins that the library has
            // loaded may have threads of their own. Loading again only counts up.
            std::mem::forget(lib);
            Ok(alsa)
        }

        fn reason(&self, code: c_int) -> String {
            // SAFETY: returns a static string for any code, or null.
            let text = unsafe { (self.strerror)(code) };
            if text.is_null() {
                return format!("error {code}");
            }
            // SAFETY: not null, and a C string that is never freed.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        }
    }

    pub(super) struct Device {
        alsa: Alsa,
        thread: Option<JoinHandle<()>>,
    }

    impl Device {
        pub(super) fn open(
            library: &str,
            sample_rate_hz: u32,
            device_ms: u32,
            ring: Arc<Ring>,
            shared: Arc<Shared>,
        ) -> Result<Self> {
            let alsa = Alsa::load(library)?;
            let (tell, told) = mpsc::sync_channel(1);
            // All calls on the device are made by one thread, where the error printer of that
            // thread is silenced.
            let thread = std::thread::Builder::new()
                .name("voxgrain-audio".into())
                .spawn(move || match Playback::open(alsa, sample_rate_hz, device_ms) {
                    Ok(mut playback) => {
                        let _ = tell.send(Ok(()));
                        drop(tell);
                        playback.feed(&ring, &shared);
                    }
                    Err(e) => {
                        let _ = tell.send(Err(e));
                    }
                })
                .map_err(|e| {
                    Error::with_source(ErrorKind::Audio, "no sound: no thread for playback", e)
                })?;
            match told.recv() {
                Ok(Ok(())) => Ok(Self { alsa, thread: Some(thread) }),
                Ok(Err(e)) => {
                    let _ = thread.join();
                    Err(e)
                }
                Err(_) => Err(Error::new(ErrorKind::Audio, "no sound: playback did not start")),
            }
        }

        pub(super) fn reason(&self, code: i32) -> String {
            self.alsa.reason(code)
        }

        pub(super) fn after_drain(&self, _: &Shared, _: u32) {}

        pub(super) fn close(&mut self) {
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// An open device; lives in the playback thread.
    struct Playback {
        alsa: Alsa,
        pcm: *mut Pcm,
        /// One period; the feeding loop allocates nothing.
        block: Vec<i16>,
        nap: Duration,
    }

    impl Playback {
        fn open(alsa: Alsa, sample_rate_hz: u32, device_ms: u32) -> Result<Self> {
            let failed = |what: &str, code: c_int| {
                Error::new(
                    ErrorKind::Audio,
                    format!("no sound: {what}: {}; write a file instead", alsa.reason(code)),
                )
            };
            if let Some(set_local) = alsa.set_local {
                // SAFETY: the handler ignores its arguments and lives as long as the program.
                unsafe { set_local(Some(silent)) };
            }
            let mut pcm = std::ptr::null_mut();
            // SAFETY: a place for the handle and a C string; the handle is read only on
            // success.
            let code = unsafe { (alsa.open)(&mut pcm, c"default".as_ptr(), PLAYBACK, 0) };
            if code < 0 || pcm.is_null() {
                return Err(failed("the default sound device cannot be opened", code));
            }
            let mut this = Self {
                alsa,
                pcm,
                block: Vec::new(),
                nap: Duration::from_millis(u64::from(device_ms / 16).max(1)),
            };
            // SAFETY: an open handle; resampling in software is allowed.
            let code = unsafe {
                (alsa.set_params)(pcm, S16, INTERLEAVED, 1, sample_rate_hz, 1, device_ms * 1000)
            };
            if code < 0 {
                return Err(failed("the device does not take mono 16-bit sound", code));
            }
            let (mut buffer, mut period) = (0, 0);
            // SAFETY: an open, configured handle and two places to write to.
            if unsafe { (alsa.get_params)(pcm, &mut buffer, &mut period) } < 0 || period == 0 {
                period = c_ulong::from(sample_rate_hz / 100);
            }
            this.block = vec![0; (period as usize).clamp(64, 1 << 16)];
            Ok(this)
        }

        /// Until asked to stop: takes a period from the ring, writes it to the device.
        fn feed(&mut self, ring: &Ring, shared: &Shared) {
            let Self { alsa, pcm, block, nap } = self;
            let (alsa, pcm) = (*alsa, *pcm);
            // Whether the device holds sound, and whether its running out was counted.
            let (mut sounding, mut starved) = (false, false);
            loop {
                if shared.stop.load(Ordering::Acquire) {
                    // SAFETY: an open handle.
                    unsafe { (alsa.discard)(pcm) };
                    return;
                }
                // Read before the ring: what was pushed before the request is then seen.
                let draining = shared.draining.load(Ordering::Acquire);
                let most = block.len();
                let n = ring.pop(most, |i, s| block[i] = to_i16(s));
                if n == 0 {
                    if draining {
                        if sounding {
                            // SAFETY: an open handle; blocks until all is heard.
                            unsafe { (alsa.drain)(pcm) };
                            // SAFETY: an open handle.
                            let code = unsafe { (alsa.prepare)(pcm) };
                            if code < 0 {
                                shared.failure.store(code, Ordering::Release);
                                return;
                            }
                        }
                        (sounding, starved) = (false, false);
                        shared.device_delay.store(0, Ordering::Relaxed);
                        shared.draining.store(false, Ordering::Release);
                        continue;
                    }
                    if sounding && !starved && delay(alsa, pcm, shared) <= 0 {
                        shared.underruns.fetch_add(1, Ordering::Relaxed);
                        starved = true;
                    }
                    std::thread::sleep(*nap);
                    continue;
                }
                let mut done = 0;
                while done < n {
                    // SAFETY: an open handle in interleaved mode with one channel of i16, so
                    // a frame is one element; `n - done` of them lie at this place.
                    let wrote = unsafe {
                        let at = block[done..n].as_ptr().cast();
                        (alsa.writei)(pcm, at, (n - done) as c_ulong)
                    };
                    if wrote >= 0 {
                        done += wrote as usize;
                        continue;
                    }
                    if wrote == EAGAIN {
                        // SAFETY: an open handle.
                        unsafe { (alsa.wait)(pcm, 100) };
                    } else {
                        if wrote == EPIPE && sounding && !starved {
                            shared.underruns.fetch_add(1, Ordering::Relaxed);
                            starved = true;
                        }
                        // SAFETY: an open handle; handles running out, suspension and
                        // interruption, and returns any other code as it is.
                        let code = unsafe { (alsa.recover)(pcm, wrote as c_int, 1) };
                        if code < 0 {
                            shared.failure.store(code, Ordering::Release);
                            return;
                        }
                    }
                    if shared.stop.load(Ordering::Acquire) {
                        break;
                    }
                }
                (sounding, starved) = (true, false);
                delay(alsa, pcm, shared);
            }
        }
    }

    /// Samples that the device still holds; 0 if it has run out.
    fn delay(alsa: Alsa, pcm: *mut Pcm, shared: &Shared) -> c_long {
        let mut frames = 0;
        // SAFETY: an open handle and a place to write to.
        let code = unsafe { (alsa.delay)(pcm, &mut frames) };
        let frames = if code < 0 { 0 } else { frames.max(0) };
        shared.device_delay.store(frames.min(c_long::from(i32::MAX)) as u32, Ordering::Relaxed);
        frames
    }

    impl Drop for Playback {
        fn drop(&mut self) {
            // SAFETY: opened by `open`, closed only here.
            unsafe { (self.alsa.close)(self.pcm) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod device {
    use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
    use cpal::{FromSample, SampleFormat, SizedSample};

    use super::*;

    /// Nothing is loaded by name here.
    pub(super) const LIBRARY: &str = "";

    pub(super) struct Device {
        stream: Option<cpal::Stream>,
    }

    fn no_sound(what: &str, e: cpal::Error) -> Error {
        Error::with_source(ErrorKind::Audio, format!("no sound: {what}; write a file instead"), e)
    }

    impl Device {
        pub(super) fn open(
            _: &str,
            sample_rate_hz: u32,
            _: u32,
            ring: Arc<Ring>,
            shared: Arc<Shared>,
        ) -> Result<Self> {
            let Some(device) = cpal::default_host().default_output_device() else {
                return Err(Error::new(
                    ErrorKind::Audio,
                    "no sound: there is no default output device; write a file instead",
                ));
            };
            // The rate itself if the device has it, with few channels; else its default, and
            // the samples are interpolated.
            let exact = device.supported_output_configs().ok().and_then(|ranges| {
                ranges
                    .filter(|r| matches!(r.sample_format(), SampleFormat::F32 | SampleFormat::I16))
                    .filter_map(|r| r.try_with_sample_rate(sample_rate_hz))
                    .min_by_key(|c| (c.channels(), c.sample_format() != SampleFormat::F32))
            });
            let config = match exact {
                Some(config) => config,
                None => device
                    .default_output_config()
                    .map_err(|e| no_sound("the output device has no format", e))?,
            };
            let feeder = Feeder {
                ring,
                shared,
                step: f64::from(sample_rate_hz) / f64::from(config.sample_rate()),
                sample_rate_hz,
                at: 1.0,
                from: 0.0,
                to: 0.0,
                sounding: false,
            };
            let stream = match config.sample_format() {
                SampleFormat::F32 => build::<f32>(&device, &config, feeder),
                SampleFormat::F64 => build::<f64>(&device, &config, feeder),
                SampleFormat::I16 => build::<i16>(&device, &config, feeder),
                SampleFormat::U16 => build::<u16>(&device, &config, feeder),
                SampleFormat::I32 => build::<i32>(&device, &config, feeder),
                SampleFormat::U8 => build::<u8>(&device, &config, feeder),
                other => {
                    return Err(Error::new(
                        ErrorKind::Audio,
                        format!(
                            "no sound: the output device wants samples of format {other:?}; write a file instead"
                        ),
                    ));
                }
            }?;
            stream.play().map_err(|e| no_sound("the output device does not start", e))?;
            Ok(Self { stream: Some(stream) })
        }

        pub(super) fn reason(&self, _: i32) -> &'static str {
            "it was unplugged or its driver failed"
        }

        /// The callback has taken everything; the device still plays what it holds.
        pub(super) fn after_drain(&self, shared: &Shared, sample_rate_hz: u32) {
            let samples = f64::from(shared.device_delay.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_secs_f64(samples / f64::from(sample_rate_hz)));
        }

        pub(super) fn close(&mut self) {
            self.stream = None;
        }
    }

    fn build<T: SizedSample + FromSample<f32>>(
        device: &cpal::Device,
        config: &cpal::SupportedStreamConfig,
        mut feeder: Feeder,
    ) -> Result<cpal::Stream> {
        let channels = usize::from(config.channels()).max(1);
        let shared = Arc::clone(&feeder.shared);
        device
            .build_output_stream(
                config.config(),
                move |out: &mut [T], info: &cpal::OutputCallbackInfo| {
                    for frame in out.chunks_mut(channels) {
                        frame.fill(T::from_sample(feeder.next()));
                    }
                    let time = info.timestamp();
                    let ahead = time.playback.saturating_duration_since(time.callback);
                    let samples = ahead.as_secs_f64() * f64::from(feeder.sample_rate_hz);
                    feeder.shared.device_delay.store(samples as u32, Ordering::Relaxed);
                },
                move |e| match e.kind() {
                    cpal::ErrorKind::Xrun => {
                        shared.underruns.fetch_add(1, Ordering::Relaxed);
                    }
                    cpal::ErrorKind::DeviceChanged | cpal::ErrorKind::RealtimeDenied => {}
                    _ => shared.failure.store(1, Ordering::Release),
                },
                None,
            )
            .map_err(|e| no_sound("the output device cannot be opened", e))
    }

    /// The callback's side of the ring: one sample at the device's rate after the other.
    struct Feeder {
        ring: Arc<Ring>,
        shared: Arc<Shared>,
        sample_rate_hz: u32,
        /// Our samples for one of the device's.
        step: f64,
        /// Where between `from` and `to`.
        at: f64,
        from: f32,
        to: f32,
        sounding: bool,
    }

    impl Feeder {
        fn next(&mut self) -> f32 {
            while self.at >= 1.0 {
                let draining = self.shared.draining.load(Ordering::Acquire);
                let mut taken = 0.0;
                if self.ring.pop(1, |_, s| taken = s) == 0 {
                    if draining {
                        self.shared.draining.store(false, Ordering::Release);
                    } else if self.sounding {
                        self.shared.underruns.fetch_add(1, Ordering::Relaxed);
                    }
                    self.sounding = false;
                    (self.from, self.to) = (0.0, 0.0);
                    return 0.0;
                }
                self.sounding = true;
                self.from = self.to;
                self.to = if taken.is_finite() { taken.clamp(-1.0, 1.0) } else { 0.0 };
                self.at -= 1.0;
            }
            let out = self.from + (self.to - self.from) * self.at as f32;
            self.at += self.step;
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_order_across_threads() {
        let ring = Arc::new(Ring::new(1000));
        let reader = Arc::clone(&ring);
        let total = 1_000_000u32;
        let thread = std::thread::spawn(move || {
            let mut expected = 0u32;
            while expected < total {
                let n = reader.pop(137, |_, s| {
                    assert_eq!(s.to_bits(), expected);
                    expected += 1;
                });
                if n == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0u32;
        while next < total {
            let block: Vec<f32> = (next..total.min(next + 311)).map(f32::from_bits).collect();
            let n = ring.push(&block);
            assert!(ring.len() <= 1000);
            next += n as u32;
            if n == 0 {
                std::thread::yield_now();
            }
        }
        thread.join().unwrap();
        assert_eq!(ring.len(), 0);
    }

    #[test]
    fn arguments_are_checked() {
        for (rate, ms) in [(0, 100), (3_999, 100), (192_001, 100), (16_000, 19), (16_000, 60_001)] {
            assert_eq!(Output::open(rate, ms).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn without_the_library_there_is_a_reason() {
        let e = Output::open_with("libno-such-sound.so.9", 16_000, 200).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Audio);
        let text = e.to_string();
        assert!(text.contains("libno-such-sound.so.9") && !text.contains('\n'), "{text}");
        // A library that is there but is not ALSA.
        let e = Output::open_with("libc.so.6", 16_000, 200).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Audio);
    }

    /// Only of use as a child of the tests below, which choose ALSA's configuration; it plays
    /// three parts with pauses and drains twice.
    #[cfg(target_os = "linux")]
    #[test]
    #[ignore = "run by other tests"]
    fn child_plays() {
        let Ok(total) = std::env::var("VOXGRAIN_TEST_SAMPLES") else { return };
        let total: usize = total.parse().unwrap();
        let samples: Vec<f32> = (0..total).map(|i| (i % 32768) as f32 / 32767.0).collect();
        let mut output = match Output::open(16_000, 100) {
            Ok(s) => s,
            Err(e) => {
                println!("refused {:?}: {e}", e.kind());
                return;
            }
        };
        let (first, rest) = samples.split_at(total / 3);
        output.push(first).unwrap();
        output.drain().unwrap();
        for block in rest.chunks(333) {
            output.push(block).unwrap();
            assert!(output.latency() <= Duration::from_secs(1));
        }
        output.drain().unwrap();
        assert_eq!(output.latency(), Duration::ZERO);
        output.drain().unwrap();
        println!("played, {} underruns", output.underruns());
    }

    #[cfg(target_os = "linux")]
    fn child(config: &str, name: &str, total: usize) -> (String, std::path::PathBuf) {
        let dir = std::env::temp_dir().join(format!("voxgrain-play-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let raw = dir.join("played.raw");
        let conf = dir.join("asound.conf");
        std::fs::write(&conf, config.replace("RAW", &raw.display().to_string())).unwrap();
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "speech::play::tests::child_plays", "--ignored", "--nocapture"])
            .env("ALSA_CONFIG_PATH", &conf)
            .env("VOXGRAIN_TEST_SAMPLES", total.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}\n{complaint}");
        assert!(!complaint.contains("ALSA"), "the library must not print: {complaint}");
        (said, dir)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_pushed_is_what_is_played() {
        if Alsa::absent() {
            println!("skipped: no libasound.so.2 here");
            return;
        }
        let config = "pcm.!default { type file slave.pcm \"null\" file \"RAW\" format \"raw\" }\n\
                      pcm.null { type null }\n";
        for total in [10, 16_000, 100_001] {
            let (said, dir) = child(config, &format!("file-{total}"), total);
            assert!(said.contains("played"), "{said}");
            let bytes = std::fs::read(dir.join("played.raw")).unwrap();
            let heard: Vec<i16> =
                bytes.as_chunks::<2>().0.iter().map(|b| i16::from_ne_bytes(*b)).collect();
            let pushed: Vec<i16> = (0..total).map(|i| (i % 32768) as i16).collect();
            assert_eq!(heard.len(), pushed.len());
            assert!(heard == pushed, "played samples differ from pushed ones");
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn without_a_device_there_is_a_reason() {
        if Alsa::absent() {
            println!("skipped: no libasound.so.2 here");
            return;
        }
        let config = "pcm.!default { type hw card 31 }\n";
        let (said, dir) = child(config, "none", 10);
        assert!(said.contains("refused Audio: no sound: the default sound device"), "{said}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[cfg(target_os = "linux")]
    struct Alsa;

    #[cfg(target_os = "linux")]
    impl Alsa {
        fn absent() -> bool {
            // The arguments are fine, so the only failure that names the library is loading.
            Output::open(16_000, 100).is_err_and(|e| e.to_string().contains(device::LIBRARY))
        }
    }
}
