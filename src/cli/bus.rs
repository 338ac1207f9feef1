//! A bundle's file that is cut short while it is mapped: the system ends whoever reads it by
//! SIGBUS. There is no way back, but there is time for a message and for what is half-written.
#![allow(unsafe_code)]

/// What the program ends with, as a shell reports the signal.
#[cfg(target_os = "linux")]
const CODE: i32 = 128 + libc::SIGBUS;

/// Begins to listen.
#[cfg(target_os = "linux")]
pub fn listen() {
    // SAFETY: all zeros is a `sigaction` without flags or handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ended as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_ONSTACK;
    // SAFETY: the action is whole, its handler has the signature of one without SA_SIGINFO, and
    // nobody wants the one before: Rust's own would only end the process.
    unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
}

#[cfg(not(target_os = "linux"))]
pub fn listen() {}

/// On the thread that read a page that is gone, in the middle of a kernel, of SHA-256 or of a
/// lookup: it holds no lock and is not inside the allocator.
#[cfg(target_os = "linux")]
extern "C" fn ended(_: libc::c_int) {
    const WORDS: &[u8] = b"voxgrain: a file of the bundle was cut short while it was in use; \
        restore it, and replace such files by renaming\n";
    // SAFETY: the bytes are there, and write may be called here.
    unsafe { libc::write(2, WORDS.as_ptr().cast(), WORDS.len()) };
    voxgrain::part::abandon();
    // SAFETY: it ends the process and runs nothing else.
    unsafe { libc::_exit(CODE) }
}
