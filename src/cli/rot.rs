//! Damage of a bundle's files is noticed while it speaks.
//!
//! The files are read once and compared with their checksums, beside the speech so that nobody
//! waits for it; what is written gets its name only afterwards. A stamp in the user's cache saves
//! doing so again until a file changes, for a week at most.

use super::find;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use voxgrain::bundle::Stamp;
use voxgrain::{Error, ErrorKind, Voice};

/// The check, running or done.
pub struct Rot(Option<Check>);

enum Check {
    Running(JoinHandle<voxgrain::Result<()>>),
    Done(voxgrain::Result<()>),
}

impl Rot {
    /// Begins to check the files of `voice`, whose index is at `groups`.
    pub fn begin(voice: &Voice, groups: Option<&Path>) -> Self {
        let groups = groups.map(Path::to_path_buf).or_else(|| voice.bundle().groups_path());
        let groups = groups.filter(|_| voice.groups().is_some());
        let (folder, stamp) = (find::cache(), stamp(voice, groups.as_deref()));
        if let (Some(folder), Some(stamp)) = (&folder, &stamp)
            && stamp.is_remembered(folder)
        {
            return Self(None);
        }
        let other = voice.clone();
        let check = move || check(&other, folder.as_deref(), stamp, groups);
        let thread = std::thread::Builder::new().name("checksums".into()).spawn(check);
        Self(Some(match thread {
            Ok(thread) => Check::Running(thread),
            // Without a thread it is done now.
            Err(_) => {
                let all = voice.bundle().verify(|_| ControlFlow::Continue(()));
                Check::Done(all.and_then(|()| index(voice)))
            }
        }))
    }

    /// Waits for the result; the second time there is nothing to wait for.
    ///
    /// # Errors
    /// `Mismatch` or `Malformed`, naming the file.
    pub fn end(&mut self) -> voxgrain::Result<()> {
        match self.0.take() {
            None => Ok(()),
            Some(Check::Done(result)) => result,
            Some(Check::Running(thread)) => thread.join().unwrap_or_else(|_| {
                let what = "the check of the bundle's files ended early";
                Err(Error::new(ErrorKind::Internal, what))
            }),
        }
    }
}

fn stamp(voice: &Voice, groups: Option<&Path>) -> Option<Stamp> {
    Stamp::of(voice.bundle(), groups.as_slice())
}

fn check(
    voice: &Voice,
    folder: Option<&Path>,
    before: Option<Stamp>,
    groups: Option<PathBuf>,
) -> voxgrain::Result<()> {
    voice.bundle().verify(|_| ControlFlow::Continue(()))?;
    index(voice)?;
    // What was written meanwhile may be another file.
    let after = stamp(voice, groups.as_deref());
    if let (Some(folder), Some(stamp)) = (folder, after)
        && Some(&stamp) == before.as_ref()
        && let Err(e) = stamp.remember(folder)
    {
        log::debug!("{} keeps no stamp: {e}", folder.display());
    }
    Ok(())
}

/// The body of the index; its header was checked on opening.
fn index(voice: &Voice) -> voxgrain::Result<()> {
    let Some(index) = voice.groups() else { return Ok(()) };
    index.verify().map_err(|e| {
        let what =
            "the group index is damaged: copy it again or build it with `voxgrain asg build`";
        Error::with_source(ErrorKind::Malformed, what, e)
    })
}
