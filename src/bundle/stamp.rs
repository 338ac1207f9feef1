//! Which files were found sound, and when: so that damage is noticed without reading every file
//! each time.

use super::{Bundle, hex};
use crate::part::Part;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// First line of a stamp.
const HEAD: &str = "voxgrain stamp 1";

/// How long a stamp is believed: a disk forgets without telling.
pub const STAMP_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The state of a bundle's files: place, length and times, and the checksums that they are to
/// have. A file that is written, replaced or restored gets another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// What it is kept under.
    name: String,
    state: String,
}

impl Stamp {
    /// Of the listed files and of `beside`, an index or a lexicon; `None` where the system does not tell.
    pub fn of(bundle: &Bundle, beside: &[&Path]) -> Option<Self> {
        let dir = std::fs::canonicalize(bundle.dir()).ok()?;
        let mut state = String::new();
        let listed = bundle.files.iter().map(|f| (dir.join(&f.path), f.sha256.as_str()));
        for (path, sha256) in listed.chain(beside.iter().map(|p| (p.to_path_buf(), "-"))) {
            let facts = facts(&std::fs::metadata(&path).ok()?)?;
            writeln!(state, "{sha256} {facts} {}", path.display()).ok()?;
        }
        let name = hex(&Sha256::digest(dir.as_os_str().as_encoded_bytes())[..16]);
        Some(Self { name: format!("{name}.stamp"), state })
    }

    /// Whether `folder` says that just these files were found sound, not long ago.
    pub fn is_remembered(&self, folder: &Path) -> bool {
        let Ok(text) = std::fs::read_to_string(folder.join(&self.name)) else { return false };
        let Some((time, state)) = text
            .strip_prefix(HEAD)
            .and_then(|rest| rest.strip_prefix('\n'))
            .and_then(|rest| rest.split_once('\n'))
        else {
            return false;
        };
        let then = time.parse().ok().map(Duration::from_secs);
        let age = then.and_then(|then| now().checked_sub(then));
        state == self.state && age.is_some_and(|age| age < STAMP_LIFETIME)
    }

    /// Says so in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn remember(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut part = Part::create(folder.join(&self.name))?;
        write!(part, "{HEAD}\n{}\n{}", now().as_secs(), self.state)?;
        part.finish()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What changes when a file does.
#[cfg(unix)]
fn facts(meta: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let m = meta;
    Some(format!(
        "{} {} {} {}.{} {}.{}",
        m.dev(),
        m.ino(),
        m.size(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec()
    ))
}

#[cfg(not(unix))]
fn facts(meta: &std::fs::Metadata) -> Option<String> {
    let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {}", meta.len(), modified.as_nanos()))
}
