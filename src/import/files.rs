//! Small files of a model's folder.

use super::source::malformed;
use crate::{Error, ErrorKind, Result};
use std::io::Read;
use std::path::Path;

/// A text of at most so many bytes.
pub(super) fn read_text(path: &Path, most: u64) -> Result<String> {
    let unreadable = |e: std::io::Error| {
        let what = format!("cannot read {}", path.display());
        Error::with_source(ErrorKind::Unreadable, what, e)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(malformed(format!("{} is longer than {most} bytes", path.display())));
    }
    String::from_utf8(bytes).map_err(|e| {
        let what = format!("{} is not UTF-8", path.display());
        Error::with_source(ErrorKind::Malformed, what, e)
    })
}

/// JSON of at most 16 MiB.
pub(super) fn read_json(path: &Path) -> Result<serde_json::Value> {
    serde_json::from_str(&read_text(path, 16 << 20)?).map_err(|e| {
        let what = format!("{} is not valid JSON", path.display());
        Error::with_source(ErrorKind::Malformed, what, e)
    })
}

/// Whether `name` is the name of a file, not a path to somewhere else.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\', ':', '\0']) && name != "." && name != ".."
}
