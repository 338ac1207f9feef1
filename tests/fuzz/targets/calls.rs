use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::LazyLock;
use voxgrain::capi::*;

static TINY: LazyLock<CString> =
    LazyLock::new(|| CString::new(super::root().join("models/tiny").to_str().unwrap()).unwrap());

struct Voice(*mut vx_voice);
// SAFETY: the header lets threads share a voice.
unsafe impl Send for Voice {}
// SAFETY: the same.
unsafe impl Sync for Voice {}

static VOICE: LazyLock<Voice> = LazyLock::new(|| {
    let mut voice = null_mut();
    // SAFETY: a string and a place for the handle; null options are the defaults.
    unsafe { vx_voice_open(TINY.as_ptr(), null(), &mut voice) };
    Voice(voice)
});

unsafe extern "C" fn some(user: *mut c_void, _: *const f32, _: usize) -> i32 {
    // SAFETY: the caller's own number of calls to let through.
    let left = unsafe { &mut *user.cast::<i32>() };
    *left -= 1;
    i32::from(*left <= 0)
}

/// Each byte is a call on one engine, with arguments that follow from it: whatever their order,
/// they end with a status that the header knows, and closing always works.
pub fn run(data: &[u8]) {
    let mut engine = null_mut();
    // SAFETY: as the header asks throughout: handles of its own, pointers to what outlives the call.
    unsafe {
        if vx_engine_open(VOICE.0, null(), &mut engine) < 0 {
            return;
        }
        let mut pcm = [0f32; 4096];
        let mut short = [0i16; 64];
        let mut produced = 0usize;
        let mut sounded = 0;
        for (i, &call) in data.iter().take(48).enumerate() {
            let rest = &data[i..];
            let text = &rest[..rest.len().min(usize::from(call >> 4))];
            let (bytes, len) = (text.as_ptr().cast(), text.len());
            let status = match call % 11 {
                0 | 1 => vx_engine_feed(engine, b"a boat. ".as_ptr().cast(), 8),
                2 => vx_engine_feed(engine, bytes, len),
                3 => vx_engine_feed(engine, null(), len),
                4 => vx_engine_flush(engine),
                5 if sounded < 12 => {
                    sounded += 1;
                    vx_engine_read(engine, pcm.as_mut_ptr(), usize::from(call) * 16, &mut produced)
                }
                6 => vx_engine_read_i16(
                    engine,
                    short.as_mut_ptr(),
                    usize::from(call >> 4),
                    &mut produced,
                ),
                7 => vx_engine_cancel(engine),
                8 => {
                    let mut left = i32::from(call >> 5);
                    let user = (&raw mut left).cast();
                    vx_engine_speak(engine, bytes, len, Some(some), user)
                }
                9 => {
                    let mut stats: vx_stats = std::mem::zeroed();
                    stats.size =
                        if call & 16 == 0 { size_of::<vx_stats>() as u32 } else { u32::from(call) };
                    vx_engine_stats(engine, &mut stats)
                }
                _ => vx_engine_stats(null_mut(), null_mut()),
            };
            let name = std::ffi::CStr::from_ptr(vx_status_name(status));
            assert!(name.to_bytes() != b"unknown" && status != VX_E_INTERNAL, "{name:?}");
        }
        vx_engine_close(engine);
    }
}
