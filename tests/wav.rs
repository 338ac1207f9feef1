//! WAV files and streams: what is written is what is read, and nothing half-written stays.
#![cfg(feature = "std")]

use std::io::Write;
use std::path::PathBuf;

use voxgrain::ErrorKind;
use voxgrain::speech::wav::{Container, Wav, WavFile, WavStream, from_i16, to_i16};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("voxgrain-wav-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn entries(&self) -> usize {
        std::fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn samples_round_and_clamp() {
    let table = [
        (0.0, 0),
        (-0.0, 0),
        (1.0, 32767),
        (-1.0, -32767),
        (1.5, 32767),
        (-1.5, -32768),
        (f32::INFINITY, 32767),
        (f32::NEG_INFINITY, -32768),
        (f32::NAN, 0),
        (0.5 / 32767.0, 1),
        (-0.5 / 32767.0, -1),
        (0.49 / 32767.0, 0),
        (0.5, 16384),
    ];
    for (sample, expected) in table {
        assert_eq!(to_i16(sample), expected, "{sample}");
    }
    for v in i16::MIN..=i16::MAX {
        assert_eq!(to_i16(from_i16(v)), v);
    }
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = Folder::new("whole");
    let path = folder.0.join("a.wav");
    let samples: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.01).sin()).collect();

    let mut file = WavFile::create(&path, 16_000).unwrap();
    file.write(&samples[..400]).unwrap();
    assert!(!path.exists(), "not before finish");
    file.write(&samples[400..]).unwrap();
    file.write(&[]).unwrap();
    assert_eq!(file.samples(), 1000);
    file.finish().unwrap();
    assert_eq!(folder.entries(), 1);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 44 + 2000);
    let wav = Wav::read(&path).unwrap();
    assert_eq!(wav.sample_rate_hz, 16_000);
    assert_eq!(wav.samples, samples.iter().map(|&s| to_i16(s)).collect::<Vec<_>>());
    assert_eq!(wav.seconds(), 0.0625);

    // An abandoned rewrite leaves the old file and nothing else.
    let mut again = WavFile::create(&path, 16_000).unwrap();
    again.write(&[0.0; 100_000]).unwrap();
    drop(again);
    assert_eq!(folder.entries(), 1);
    assert_eq!(Wav::read(&path).unwrap(), wav);

    // A finished one replaces it.
    WavFile::create(&path, 8_000).unwrap().finish().unwrap();
    let none = Wav::read(&path).unwrap();
    assert_eq!((none.sample_rate_hz, none.samples.len()), (8_000, 0));

    let raw = folder.0.join("a.raw");
    let mut file = WavFile::create_as(&raw, 16_000, Container::Raw).unwrap();
    file.write(&[1.0, -1.0]).unwrap();
    file.finish().unwrap();
    assert_eq!(std::fs::read(&raw).unwrap(), [0xff, 0x7f, 0x01, 0x80]);
}

#[test]
fn bad_places_are_named() {
    let folder = Folder::new("bad");
    let plain = folder.0.join("plain");
    std::fs::write(&plain, "x").unwrap();
    let table = [
        (folder.0.clone(), "is a directory"),
        (folder.0.join("no/such/a.wav"), "does not exist"),
        (plain.join("a.wav"), "not a folder"),
        (folder.0.join("new/"), "name a file"),
        (folder.0.join("x".repeat(300)), "name"),
        (PathBuf::new(), "empty"),
        (PathBuf::from(".."), "directory"),
    ];
    for (path, mention) in table {
        let e = WavFile::create(&path, 16_000).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unwritable, "{path:?}: {e}");
        assert!(e.to_string().contains(mention), "{path:?}: {e}");
    }
    assert_eq!(folder.entries(), 1);
    let e = WavFile::create(folder.0.join("a.wav"), 0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_kept() {
    let folder = Folder::new("links");
    let real = folder.0.join("real.wav");
    std::fs::write(&real, "old").unwrap();
    let link = folder.0.join("link.wav");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut file = WavFile::create(&link, 16_000).unwrap();
    file.write(&[0.25]).unwrap();
    file.finish().unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    assert_eq!(Wav::read(&real).unwrap().samples, [8192]);

    let mut null = WavFile::create("/dev/null", 16_000).unwrap();
    null.write(&[0.0; 10]).unwrap();
    null.finish().unwrap();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    assert_eq!(folder.entries(), 2);
}

#[test]
fn streams() {
    let mut stream = WavStream::new(Vec::new(), 22_050, Container::Wav).unwrap();
    stream.write(&[0.5, -0.5]).unwrap();
    stream.write(&[0.0]).unwrap();
    assert_eq!(stream.samples(), 3);
    let bytes = stream.finish().unwrap();
    assert_eq!(&bytes[4..8], &[0xff; 4]);
    assert_eq!(&bytes[40..44], &[0xff; 4]);
    let wav = Wav::parse(&bytes).unwrap();
    assert_eq!(wav, Wav { sample_rate_hz: 22_050, samples: vec![16384, -16384, 0] });

    let mut raw = WavStream::new(Vec::new(), 22_050, Container::Raw).unwrap();
    raw.write(&[1.0]).unwrap();
    assert_eq!(raw.finish().unwrap(), [0xff, 0x7f]);

    #[derive(Debug)]
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let e = WavStream::new(Closed, 16_000, Container::Wav).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unwritable);
}

#[test]
fn damaged_headers_are_refused() {
    let mut stream = WavStream::new(Vec::new(), 16_000, Container::Wav).unwrap();
    stream.write(&[0.1; 8]).unwrap();
    let mut good = stream.finish().unwrap();
    good[40..44].copy_from_slice(&16u32.to_le_bytes());
    assert_eq!(Wav::parse(&good).unwrap().samples.len(), 8);

    // Never a panic, wherever it is cut or whichever byte is damaged.
    for cut in 0..good.len() {
        assert_eq!(Wav::parse(&good[..cut]).unwrap_err().kind(), ErrorKind::Malformed, "{cut}");
    }
    for at in 0..44 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _ = Wav::parse(&bad);
        }
    }
    for (at, value) in [(20, 3), (22, 2), (34, 24)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Wav::parse(&bad).unwrap_err().kind(), ErrorKind::Unsupported, "{at}");
    }
    // An odd chunk before the data, with its padding byte.
    let mut listed = good[..36].to_vec();
    listed.extend_from_slice(b"LIST\x03\x00\x00\x00abc\x00");
    listed.extend_from_slice(&good[36..]);
    assert_eq!(Wav::parse(&listed).unwrap().samples.len(), 8);
}
