use std::fmt;

/// What went wrong, coarse enough to branch on and to map to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option is out of range or contradictory.
    InvalidArgument,
    /// The text cannot be spoken (empty, not UTF-8, nothing pronounceable).
    InvalidText,
    /// A file is missing or cannot be read.
    Unreadable,
    /// A file was read but its bytes are damaged or of another format.
    Malformed,
    /// Files that are each sound do not belong together (hash, shape or rate differ).
    Mismatch,
    /// The file is sound but uses something this build does not support.
    Unsupported,
    /// The output could not be written.
    Unwritable,
    /// No usable sound device.
    Audio,
    /// The model or the acceptance rule produced something impossible (NaN, zero mass).
    Numeric,
    /// The caller asked to stop.
    Cancelled,
    /// More is waiting than was allowed to; nothing was taken. Later there may be room.
    Full,
    /// A memory budget does not suffice, or the system does not give the memory; nothing was
    /// made.
    Memory,
    /// A bug in this library left the object half done: drop it and make another.
    Internal,
}

/// The error of every fallible call: a kind to branch on, a message that says what to
/// do next, and the underlying cause where there is one.
///
/// One rule for its texts: **a message never quotes its cause.** The cause is told by
/// [`source`](std::error::Error::source) alone, so that whoever prints the whole chain says
/// nothing twice. `{}` is the message, `{:#}` the message and every cause behind it, with
/// colons between.
///
/// ```
/// use voxgrain::{Error, ErrorKind};
/// let cause = std::io::Error::other("no space left");
/// let e = Error::with_source(ErrorKind::Unwritable, "cannot write out.wav", cause);
/// assert_eq!(format!("{e}"), "cannot write out.wav");
/// assert_eq!(format!("{e:#}"), "cannot write out.wav: no space left");
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with no underlying cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// An error that keeps `source` as its cause, which `context` does not repeat.
    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// The kind, for branching.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        if f.alternate() {
            let mut cause = std::error::Error::source(self);
            while let Some(c) = cause {
                write!(f, ": {c}")?;
                cause = c.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as &(dyn std::error::Error + 'static))
    }
}
