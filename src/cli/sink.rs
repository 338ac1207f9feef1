//! Where the sound of `say` goes: the sound device, a file, standard output.

use super::output::status;
use super::usage;
use std::path::{Path, PathBuf};
#[cfg(feature = "audio")]
use voxgrain::speech::play::Output as Device;
use voxgrain::speech::wav::{Container, WavFile, WavStream};
use voxgrain::{Error, ErrorKind};

/// Written where nothing plays, if that is asked for.
const FALLBACK: &str = "voxgrain.wav";

/// Stands in where the program was built without the `audio` feature.
#[cfg(not(feature = "audio"))]
pub enum Device {}

#[cfg(not(feature = "audio"))]
impl Device {
    fn open(_: u32, _: u32) -> voxgrain::Result<Self> {
        Err(Error::new(ErrorKind::Audio, "this build has no playback (feature `audio`)"))
    }
    fn push(&mut self, _: &[f32]) -> voxgrain::Result<()> {
        match *self {}
    }
    fn drain(&mut self) -> voxgrain::Result<()> {
        match *self {}
    }
}

/// Standard output by any of its names: opened by its path it would begin at its start again.
pub fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|p| path.as_os_str() == *p)
}

const WAV: [&str; 2] = ["wav", "wave"];
const RAW: [&str; 6] = ["raw", "pcm", "s16", "s16le", "sw", "bin"];

/// Refuses a name that tells of a format which is not the file's. Devices and pipes may have any.
pub fn check_name(path: &Path, container: Container) -> voxgrain::Result<()> {
    if is_stdout(path) || std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return Ok(());
    }
    let Some(extension) = path.extension() else { return Ok(()) };
    let extension = extension.to_string_lossy().to_lowercase();
    let (wav, raw) = (WAV.contains(&&*extension), RAW.contains(&&*extension));
    let instead = match container {
        Container::Wav if wav => return Ok(()),
        Container::Raw if raw => return Ok(()),
        Container::Wav if raw => "add --raw".to_owned(),
        Container::Raw if wav => "leave out --raw".to_owned(),
        _ => format!("for {extension}, give the sound to a converter: -o - | ffmpeg -i - NAME"),
    };
    Err(usage(format!(
        "cannot write {}: say writes WAV files (.wav) and, with --raw, bare 16-bit samples (.raw, .pcm); {instead}",
        path.display()
    )))
}

pub enum Sink {
    Device(Box<Device>),
    /// With its name as the user gave it.
    File(WavFile, PathBuf),
    Stdout(Stdout),
}

/// What is wanted of the sound.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub output: Option<&'a Path>,
    pub container: Container,
    pub sample_rate_hz: u32,
    /// Write a file where nothing plays.
    pub fallback: bool,
}

impl Sink {
    pub fn open(wanted: Wanted) -> voxgrain::Result<Self> {
        let Wanted { container, sample_rate_hz: rate, .. } = wanted;
        let file = |path: &Path| {
            Ok(Sink::File(WavFile::create_as(path, rate, container)?, path.to_path_buf()))
        };
        match wanted.output {
            Some(path) if is_stdout(path) => Ok(Sink::Stdout(Stdout::open(rate, container)?)),
            Some(path) => file(path),
            None => match Device::open(rate, 200) {
                Ok(device) => Ok(Sink::Device(Box::new(device))),
                Err(e) if wanted.fallback => {
                    status(&format!("{e:#}; writing {FALLBACK} instead"));
                    file(Path::new(FALLBACK))
                }
                Err(e) => Err(Error::with_source(
                    ErrorKind::Audio,
                    format!(
                        "nothing here plays sound: write a file, as in `voxgrain say -o {FALLBACK} ...`, \
                         or let `voxgrain say --fallback ...` do so where nothing plays"
                    ),
                    e,
                )),
            },
        }
    }

    pub fn write(&mut self, pcm: &[f32]) -> voxgrain::Result<()> {
        match self {
            Sink::Device(d) => d.push(pcm),
            Sink::File(f, _) => f.write(pcm),
            Sink::Stdout(s) => s.stream.write(pcm),
        }
    }

    /// The name of the file that was written.
    pub fn finish(self) -> voxgrain::Result<Option<PathBuf>> {
        match self {
            Sink::Device(mut d) => d.drain().map(|()| None),
            Sink::File(f, path) => f.finish().map(|()| Some(path)),
            Sink::Stdout(s) => s.finish().map(|()| None),
        }
    }
}

/// Standard output. Where a file stands behind it (`> out.wav`), the header is completed at the
/// end, as that of any file; a pipe has only the header of a stream.
pub struct Stdout {
    stream: WavStream<std::io::Stdout>,
    #[cfg(target_os = "linux")]
    behind: Option<(std::fs::File, u64)>,
}

#[cfg(target_os = "linux")]
impl Stdout {
    fn open(rate: u32, container: Container) -> voxgrain::Result<Self> {
        let stream = WavStream::new(std::io::stdout(), rate, container)?;
        let behind = file_behind_stdout()
            .and_then(|(file, end)| Some((file, end.checked_sub(stream.header_bytes())?)));
        Ok(Self { stream, behind })
    }

    fn finish(self) -> voxgrain::Result<()> {
        if let Some((mut file, at)) = self.behind {
            self.stream.complete(&mut file, at)?;
        }
        self.stream.finish().map(|_| ())
    }
}

/// The regular file that standard output goes to, opened anew, so that writing in its middle
/// neither moves the place where others go on nor goes to the end, as with `>>`; and where standard
/// output stands in it. Only /proc opens it anew: elsewhere such a path is the same open file.
#[cfg(target_os = "linux")]
fn file_behind_stdout() -> Option<(std::fs::File, u64)> {
    use std::io::Seek;
    use std::os::fd::AsFd;
    const PATH: &str = "/proc/self/fd/1";
    if !std::fs::metadata(PATH).ok()?.is_file() {
        return None;
    }
    let mut same = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned().ok()?);
    let at = same.stream_position().ok()?;
    Some((std::fs::OpenOptions::new().write(true).open(PATH).ok()?, at))
}

#[cfg(not(target_os = "linux"))]
impl Stdout {
    fn open(rate: u32, container: Container) -> voxgrain::Result<Self> {
        Ok(Self { stream: WavStream::new(std::io::stdout(), rate, container)? })
    }

    fn finish(self) -> voxgrain::Result<()> {
        self.stream.finish().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        let ok = |name: &str, c| check_name(Path::new(name), c).is_ok();
        for name in ["a.wav", "a.WAV", "a.wave", "a", "-", "dir.d/a", "/dev/null", "/dev/stdout"] {
            assert!(ok(name, Container::Wav), "{name}");
        }
        for name in ["a.raw", "a.pcm", "a.s16le", "a", "-", "/dev/null"] {
            assert!(ok(name, Container::Raw), "{name}");
        }
        let told = |name: &str, c| check_name(Path::new(name), c).unwrap_err().to_string();
        for (name, container, words) in [
            ("a.mp3", Container::Wav, "ffmpeg"),
            ("a.txt", Container::Wav, "(.wav)"),
            ("a.pcm", Container::Wav, "add --raw"),
            ("a.wav", Container::Raw, "leave out --raw"),
            ("a.ogg", Container::Raw, "ffmpeg"),
        ] {
            let text = told(name, container);
            assert!(text.contains(words) && text.contains(name), "{text}");
        }
    }
}
