//! Files that appear only when they are whole: written beside their place under another name,
//! and renamed at the end. What is dropped before leaves nothing behind.
//!
//! A program that is about to end early, on a signal for instance, calls [`abandon`].

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    let mut all = unfinished();
    all.closed = true;
    for file in all.files.drain(..) {
        let _ = std::fs::remove_file(file);
    }
}

/// `path` with a name beside it that nobody else has.
fn beside(path: &Path, kind: &str) -> PathBuf {
    static UNIQUE: AtomicU32 = AtomicU32::new(0);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{unique}.{kind}", std::process::id()));
    path.with_file_name(name)
}

/// A file on its way.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    part: PathBuf,
    /// `None` once finished.
    out: Option<BufWriter<File>>,
}

impl Part {
    /// Begins a file that will be at `path`, replacing what is there then.
    ///
    /// # Errors
    /// If no file can be made in its folder.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let part = beside(&path, "part");
        let mut all = unfinished();
        all.open()?;
        let file = OpenOptions::new().write(true).create_new(true).open(&part)?;
        all.files.push(part.clone());
        Ok(Self { path, part, out: Some(BufWriter::with_capacity(1 << 16, file)) })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is until then.
    pub fn temporary(&self) -> &Path {
        &self.part
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
        out.get_ref().sync_all()
    }

    fn out(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.out.as_mut().ok_or_else(|| io::Error::other("the file is finished"))
    }

    /// Its name is its own from now on.
    fn appear(&mut self, all: &mut Unfinished) -> io::Result<()> {
        std::fs::rename(&self.part, &self.path)?;
        all.forget(&self.part);
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
        for p in parts.iter().rev().filter(|p| p.path.exists()) {
            let old = beside(&p.path, "old");
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
        for p in &parts[..appeared] {
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
            let _ = std::fs::remove_file(&self.part);
            unfinished().forget(&self.part);
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
        std::fs::remove_file(&all[1].part).unwrap();
        assert!(finish_all(all).is_err());
        assert_eq!(dir.names(), ["m", "m.data"]);
        assert_eq!((dir.read("m"), dir.read("m.data")), ("two".into(), "two".into()));
    }
}
