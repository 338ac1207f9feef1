//! Ctrl-C, SIGTERM and a closed terminal: the program ends at once, and what is not whole is
//! gone.

use std::process::ExitCode;

/// Begins to listen. A thread of its own takes the signal, so that it is heard while the others
/// wait for input, for the sound device or for a model.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    // Without it the signals do what they always did.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    // Whoever starts the program with SIGHUP ignored, as nohup does, wants it to go on.
    let ignored = hangups_are_ignored();
    if !ignored && signals.add_signal(SIGHUP).is_err() {
        return;
    }
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            ending::begin();
            voxgrain::part::abandon();
            // As a shell reports a program that a signal ended. No destructors: other threads
            // are still at work.
            signal_hook::low_level::exit(128 + signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}

#[cfg(not(unix))]
pub fn listen() {}

/// The mask of ignored signals that the system tells; SIGHUP is its first bit.
#[cfg(unix)]
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 1 == 1)
}

mod ending {
    use std::sync::atomic::{AtomicBool, Ordering};

    static ENDING: AtomicBool = AtomicBool::new(false);

    #[cfg(unix)]
    pub fn begin() {
        ENDING.store(true, Ordering::SeqCst);
    }
    pub fn begun() -> bool {
        ENDING.load(Ordering::SeqCst)
    }
}

/// The program's exit code, unless a signal is ending it: what the main thread then made of its
/// vanished files is of no interest, and the signal's code is the one that counts.
pub fn exit(code: impl FnOnce() -> ExitCode) -> ExitCode {
    while ending::begun() {
        std::thread::park();
    }
    code()
}
