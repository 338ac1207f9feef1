//! Ctrl-C, SIGTERM, a closed terminal and the like: the program ends at once, and what is not
//! whole is gone.

use std::process::ExitCode;

/// Begins to listen. A thread of its own takes the signal, so that it is heard while the others
/// wait for input, for the sound device or for a model.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::consts::{
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ,
    };
    use signal_hook::iterator::Signals;
    // Whoever starts the program with a signal ignored wants it to go on: nohup does so with
    // SIGHUP, a shell with SIGINT and SIGQUIT behind `&`.
    let ignored = ignored();
    let ends = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU];
    let heard = ends.into_iter().filter(|s| ignored >> (s - 1) & 1 == 0);
    // SIGXFSZ is heard so that it does not end the program: the write that went too far fails,
    // which is told as any failed write.
    // Without a listener the signals do what they always did.
    let Ok(mut signals) = Signals::new(heard.chain([SIGXFSZ])) else { return };
    let wait = move || {
        // Whoever has something else in mind for the first signal has it happen.
        let ends = |s: &i32| *s != SIGXFSZ && !ending::instead();
        if let Some(signal) = signals.forever().find(|s| ends(s)) {
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

/// The mask of ignored signals that the system tells, number 1 in its lowest bit; none where it
/// does not.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0)
}

/// The first signal that would end the program does `act` instead; the next one ends it.
#[cfg(feature = "serve")]
pub fn instead(act: impl Fn() + Send + 'static) {
    ending::set(Box::new(act));
}

mod ending {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};

    static ENDING: AtomicBool = AtomicBool::new(false);

    /// What the first signal does.
    static INSTEAD: Mutex<Option<Box<dyn Fn() + Send>>> = Mutex::new(None);

    #[cfg(feature = "serve")]
    pub fn set(act: Box<dyn Fn() + Send>) {
        *INSTEAD.lock().unwrap_or_else(PoisonError::into_inner) = Some(act);
    }

    /// Does what was set, once; whether there was anything.
    #[cfg(unix)]
    pub fn instead() -> bool {
        let act = INSTEAD.lock().unwrap_or_else(PoisonError::into_inner).take();
        act.is_some_and(|act| {
            act();
            true
        })
    }

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
