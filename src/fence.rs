//! Where other people's code is called on bytes that may be damaged: what panics inside comes
//! back as an error.
//!
//! The checks before such a call are what protects; this is behind them, for what they do not
//! know of. Where the program is built so that a panic ends it (`panic = "abort"`, the profile
//! `small`), only the checks are left.

use crate::{Error, ErrorKind, Result};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Panics of this thread are caught and told as errors, so nobody needs to read of them.
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; `what` says whose bytes it reads and what to do, should it panic. Whatever `f` was
/// making is lost then, and nothing else that it changed may be used again.
///
/// The panic is not printed: at the first call the process's panic hook is put behind one that
/// passes on every panic but those that are caught here.
///
/// # Errors
/// What `f` returns; `Malformed` with `what` after a panic, whose message is the cause.
pub(crate) fn fenced<T>(what: impl FnOnce() -> String, f: impl FnOnce() -> Result<T>) -> Result<T> {
    quieten();
    let outer = FENCED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(f));
    FENCED.set(outer);
    done.unwrap_or_else(|payload| {
        let cause = match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "a panic without words".into(),
        };
        // Dropping it may panic again.
        std::mem::forget(payload);
        let cause: String = cause.chars().take(300).collect();
        Err(Error::with_source(ErrorKind::Malformed, what(), cause))
    })
}

fn quieten() {
    static ONCE: Once = Once::new();
    // A hook cannot be set by a thread that is unwinding.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !FENCED.try_with(Cell::get).unwrap_or(false) {
                others(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_an_error() {
        let what = || "x is damaged: copy it again".to_owned();
        let e = fenced(what, || -> Result<()> { panic!("index 3 of {}", 2) }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert_eq!(format!("{e:#}"), "x is damaged: copy it again: index 3 of 2");
        let e = fenced(what, || -> Result<()> { std::panic::panic_any(7) }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        // Results pass, and one fence within another does not open the outer one.
        let inner = || fenced(what, || -> Result<i32> { panic!("inner") });
        let kept = fenced(what, || {
            assert!(inner().is_err());
            Ok(FENCED.get())
        });
        assert!(kept.unwrap() && !FENCED.get());
    }

    #[test]
    fn only_what_is_caught_is_silent() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        fenced(String::new, || Ok(())).unwrap();
        let fence = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = info.payload().downcast_ref::<&str>() == Some(&"seen by the fence's test");
            SEEN.fetch_add(usize::from(ours && !FENCED.get()), Ordering::SeqCst);
            if !ours {
                fence(info);
            }
        }));
        let fall = || -> Result<()> { panic!("seen by the fence's test") };
        assert!(fenced(String::new, fall).is_err());
        assert_eq!(SEEN.load(Ordering::SeqCst), 0);
        assert!(catch_unwind(fall).is_err());
        assert_eq!(SEEN.load(Ordering::SeqCst), 1);
    }
}
