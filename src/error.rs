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
}

/// The error of every fallible call: a kind to branch on, a message that says what to
/// do next, and the underlying cause where there is one.
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

    /// An error that keeps `source` as its cause.
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
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as &(dyn std::error::Error + 'static))
    }
}
