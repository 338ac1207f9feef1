//! Files that appear only when they are whole: written beside their place under another name,
//! and renamed at the end. What is dropped before leaves nothing behind.
//!
//! A program that is about to end early, on a signal for instance, calls [`abandon`]. What one that
//! was killed left behind is in nobody's way, and is removed by the next that writes into the same
//! folder: whoever writes holds a lock on its file, which ends with the process.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// The temporary files of this process.
struct Unfinished {
    files: Vec<PathBuf>,
    /// Nothing begins or appears any more.
    closed: bool,
}

static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished { files: Vec::new(), closed: false });

fn unfinished() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unfinished {
    fn open(&self) -> io::Result<()> {
        match self.closed {
            true => Err(io::Error::other("the program is being ended")),
            false => Ok(()),
        }
    }

    fn forget(&mut self, file: &Path) {
        self.files.retain(|f| f != file);
    }
}

/// Removes every file that this process has begun and not finished, and lets none appear from
/// now on: to be called just before the process ends. Waits for a [`finish`](Part::finish) that
/// is giving files their names at this moment, so what appears is whole.
pub fn abandon() {
    // A handler of signals may have broken in on whoever holds the lock, and then waits in vain.
    for patience in (0..TRIES).rev() {
        let mut all = match UNFINISHED.try_lock() {
            Ok(all) => all,
            Err(TryLockError::Poisoned(all)) => all.into_inner(),
            Err(TryLockError::WouldBlock) if patience > 0 => {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            Err(TryLockError::WouldBlock) => return,
        };
        all.closed = true;
        for file in all.files.drain(..) {
            let _ = std::fs::remove_file(file);
        }
        return;
    }
}

/// Ends the names of temporary files, behind the process and a number.
const ENDING: &str = "voxgrain.part";
/// What is younger may be of a writer that has not got its lock yet.
const YOUNG: Duration = Duration::from_secs(2);

/// Removes what processes that are gone left in the folder of `path`; once for each folder.
fn sweep(path: &Path) {
    static SWEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if !swept.get_or_insert_default().insert(folder.clone()) {
        return;
    }
    drop(swept);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name().to_string_lossy()) && is_stale(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a name is one that [`beside`] gives: `NAME.PROCESS-NUMBER.voxgrain.part`.
fn is_temporary(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.strip_suffix(ENDING)
        .and_then(|rest| rest.strip_suffix('.'))
        .and_then(|rest| rest.rsplit_once('.'))
        .and_then(|(_, numbers)| numbers.split_once('-'))
        .is_some_and(|(process, number)| digits(process) && digits(number))
}

/// Whether nobody writes it any more.
fn is_stale(path: &Path) -> bool {
    // Not behind a link, and no pipe that would wait.
    let Ok(meta) = std::fs::symlink_metadata(path) else { return false };
    let age = meta.modified().ok().and_then(|t| t.elapsed().ok());
    if !meta.is_file() || age.is_none_or(|age| age < YOUNG) {
        return false;
    }
    // The lock goes with the handle, the file before it.
    OpenOptions::new().write(true).open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Longest name that file systems take, in bytes.
const NAME_BYTES: usize = 255;
/// Names that are tried: each one in the way is what an earlier process with the same number
/// left, as the first processes of containers do.
const TRIES: usize = 10_000;

/// A name beside `path` that this process has not given yet.
fn beside(path: &Path, kind: &str) -> PathBuf {
    static UNIQUE: AtomicU32 = AtomicU32::new(0);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let tail = format!(".{}-{unique}.{kind}", std::process::id());
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    let room = NAME_BYTES - tail.len();
    if name.len() > room {
        let text = name.to_string_lossy();
        let end = (0..=room).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
        name = text[..end].into();
    }
    name.push(tail);
    path.with_file_name(name)
}

/// Where a file that is to be at `path` really goes: behind all links, also where nothing is there
/// yet.
fn behind_links(path: PathBuf) -> io::Result<PathBuf> {
    let mut at = path.clone();
    // As many as Linux follows.
    for _ in 0..40 {
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => {
                let to = std::fs::read_link(&at)?;
                at = at.parent().unwrap_or(Path::new("")).join(to);
            }
            // A name that cannot be is told before the work.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => return Ok(at),
        }
    }
    // The system has the words for it.
    std::fs::metadata(&path)?;
    Err(io::Error::other("too many links in a row"))
}

/// A file on its way.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    /// `None` for what is no regular file, which is written as it is.
    part: Option<PathBuf>,
    /// `None` once finished.
    out: Option<BufWriter<File>>,
}

impl Part {
    /// Begins a file that will be at `path`, replacing what is there then. Links are followed, and
    /// the new file has the permissions of the old one (hard links part, and the owner is whoever
    /// writes). A device or a named pipe is no file that could appear: it is written to directly.
    ///
    /// # Errors
    /// If no file can be made in its folder, `path` is a folder, or what is there may not be
    /// written.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let before = std::fs::metadata(&path).ok();
        if let Some(meta) = &before {
            // Asks for permission, changes nothing.
            let open = OpenOptions::new().write(true).open(&path)?;
            if !meta.is_file() {
                return Ok(Self { path, part: None, out: Some(BufWriter::new(open)) });
            }
        }
        let path = behind_links(path)?;
        if path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no file name"));
        }
        sweep(&path);
        let mut all = unfinished();
        all.open()?;
        let mut tried = 0;
        let (part, file) = loop {
            let part = beside(&path, ENDING);
            match OpenOptions::new().write(true).create_new(true).open(&part) {
                Ok(file) => break (part, file),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tried < TRIES => tried += 1,
                Err(e) => return Err(e),
            }
        };
        all.files.push(part.clone());
        drop(all);
        // Says that somebody writes it; where files cannot be locked, nobody removes it either.
        let _ = file.try_lock();
        let whole =
            Self { path, part: Some(part), out: Some(BufWriter::with_capacity(1 << 16, file)) };
        if let (Some(meta), Some(out)) = (before, &whole.out) {
            out.get_ref().set_permissions(meta.permissions())?;
        }
        Ok(whole)
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is until then.
    pub fn temporary(&self) -> &Path {
        self.part.as_deref().unwrap_or(&self.path)
    }

    /// Brings the bytes to the disk and gives the file its name.
    ///
    /// # Errors
    /// Nothing is left behind then, and what was at `path` stays.
    pub fn finish(self) -> io::Result<()> {
        finish_all(vec![self])
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.flush()?;
        // Devices and pipes have nothing to bring anywhere.
        if self.part.is_some() { out.get_ref().sync_all() } else { Ok(()) }
    }

    fn out(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.out.as_mut().ok_or_else(|| io::Error::other("the file is finished"))
    }

    /// Its name is its own from now on.
    fn appear(&mut self, all: &mut Unfinished) -> io::Result<()> {
        if let Some(part) = &self.part {
            std::fs::rename(part, &self.path)?;
            all.forget(part);
        }
        self.out = None;
        Ok(())
    }
}

/// Gives files that belong together their names. The last one makes sense of the others, as
/// `model.onnx` of `model.onnx.data`: where they replace earlier ones, it is missing until all
/// the others are new, so that nobody ever opens a mixture, whenever the process ends.
///
/// # Errors
/// What was there before is there again then, as far as the system allows, and nothing of the
/// new files.
pub fn finish_all(mut parts: Vec<Part>) -> io::Result<()> {
    for p in &mut parts {
        p.sync()?;
    }
    let mut all = unfinished();
    all.open()?;
    if let [one] = &mut parts[..] {
        return one.appear(&mut all);
    }
    let mut aside: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut appeared = 0;
    let mut exchange = || {
        for p in parts.iter().rev().filter(|p| p.part.is_some() && p.path.exists()) {
            let mut old = beside(&p.path, "old");
            // Whoever left one of that name may want it back.
            while std::fs::symlink_metadata(&old).is_ok() {
                old = beside(&p.path, "old");
            }
            std::fs::rename(&p.path, &old)?;
            aside.push((p.path.clone(), old));
        }
        for p in &mut parts {
            p.appear(&mut all)?;
            appeared += 1;
        }
        Ok(())
    };
    let done: io::Result<()> = exchange();
    if done.is_err() {
        for p in parts[..appeared].iter().filter(|p| p.part.is_some()) {
            let _ = std::fs::remove_file(&p.path);
        }
        // The last one comes back last, too.
        for (path, old) in aside.iter().rev() {
            let _ = std::fs::rename(old, path);
        }
    } else {
        for (_, old) in &aside {
            let _ = std::fs::remove_file(old);
        }
    }
    // Dropping the parts takes the lock.
    drop(all);
    done
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out()?.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out()?.flush()
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out()?.seek(to)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // Closed without flushing: the bytes are not wanted.
            drop(out.into_parts());
            if let Some(part) = &self.part {
                let _ = std::fs::remove_file(part);
                unfinished().forget(part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("voxgrain-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
        fn names(&self) -> Vec<String> {
            let all = std::fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join(name)).unwrap()
        }
        fn part(&self, name: &str, text: &str) -> Part {
            let mut p = Part::create(self.0.join(name)).unwrap();
            p.write_all(text.as_bytes()).unwrap();
            p
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let dir = Dir::new("part-whole");
        let p = dir.part("a", "new");
        assert!(dir.names()[0].ends_with(".part"));
        p.finish().unwrap();
        assert_eq!((dir.names(), dir.read("a")), (vec!["a".to_owned()], "new".to_owned()));
        drop(dir.part("a", "never"));
        assert_eq!((dir.names().len(), dir.read("a")), (1, "new".to_owned()));
        assert!(Part::create(dir.0.join("absent/x")).is_err());
    }

    #[test]
    fn files_that_belong_together_are_exchanged_together() {
        let dir = Dir::new("part-together");
        for round in ["one", "two"] {
            let all = vec![dir.part("m.data", round), dir.part("m", round)];
            finish_all(all).unwrap();
            assert_eq!(dir.names(), ["m", "m.data"]);
            assert_eq!((dir.read("m"), dir.read("m.data")), (round.into(), round.into()));
        }
        // The last one cannot appear: the first is as it was.
        let all = vec![dir.part("m.data", "three"), dir.part("m", "three")];
        std::fs::remove_file(all[1].temporary()).unwrap();
        assert!(finish_all(all).is_err());
        assert_eq!(dir.names(), ["m", "m.data"]);
        assert_eq!((dir.read("m"), dir.read("m.data")), ("two".into(), "two".into()));
    }

    #[test]
    fn what_a_killed_process_left_is_not_in_the_way() {
        let dir = Dir::new("part-left");
        // The numbers that this process comes to next, whatever the other tests do.
        for n in 0..1000 {
            let name = format!("a.{}-{n}.{ENDING}", std::process::id());
            std::fs::write(dir.0.join(name), "").unwrap();
        }
        dir.part("a", "new").finish().unwrap();
        assert_eq!((dir.names().len(), dir.read("a")), (1001, "new".to_owned()));
    }

    #[test]
    fn what_nobody_writes_any_more_is_swept() {
        let dir = Dir::new("part-swept");
        let old = |name: &str| {
            let path = dir.0.join(name);
            std::fs::write(&path, "x").unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * YOUNG).unwrap();
            file
        };
        old("a.wav.7-0.voxgrain.part");
        old("other.1234-56.voxgrain.part");
        // Of somebody else, or a name that only looks like it.
        let kept = ["a.wav.7-x.voxgrain.part", "a.7-0.part", "7-0.voxgrain.old", "voxgrain.part"];
        kept.iter().for_each(|name| drop(old(name)));
        let writing = old("b.wav.7-1.voxgrain.part");
        writing.lock().unwrap();
        std::fs::write(dir.0.join("c.7-0.voxgrain.part"), "young").unwrap();
        dir.part("a.wav", "new").finish().unwrap();
        let mut want: Vec<&str> = kept.to_vec();
        want.extend(["b.wav.7-1.voxgrain.part", "c.7-0.voxgrain.part", "a.wav"]);
        want.sort_unstable();
        assert_eq!(dir.names(), want);
    }

    #[test]
    fn the_longest_names_are_taken() {
        let dir = Dir::new("part-long");
        for name in ["x".repeat(255), "\u{e4}".repeat(127)] {
            dir.part(&name, "long").finish().unwrap();
            assert_eq!(dir.read(&name), "long");
        }
        assert_eq!(dir.names().len(), 2);
        assert!(Part::create(dir.0.join("x".repeat(256))).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_stay_and_links_are_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = Dir::new("part-mode");
        std::fs::write(dir.0.join("private"), "old").unwrap();
        let mode = |name: &str| {
            std::fs::symlink_metadata(dir.0.join(name)).unwrap().permissions().mode() & 0o777
        };
        std::fs::set_permissions(dir.0.join("private"), PermissionsExt::from_mode(0o600)).unwrap();
        symlink("private", dir.0.join("link")).unwrap();
        let p = dir.part("link", "new");
        assert_eq!(p.temporary().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        p.finish().unwrap();
        assert_eq!((mode("private"), dir.read("private")), (0o600, "new".to_owned()));

        // A link to a file that is not there yet, over a second link.
        symlink("later", dir.0.join("one")).unwrap();
        symlink(dir.0.join("one"), dir.0.join("two")).unwrap();
        dir.part("two", "new").finish().unwrap();
        assert!(dir.0.join("later").symlink_metadata().unwrap().is_file());
        assert!(dir.0.join("two").symlink_metadata().unwrap().is_symlink());
        symlink("circle", dir.0.join("circle")).unwrap();
        assert!(Part::create(dir.0.join("circle")).is_err());

        // What is no file is written, not replaced.
        Part::create("/dev/null").unwrap().finish().unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
    }
}
