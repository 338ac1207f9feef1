//! Sound: the codec against PyTorch, streaming against one piece, a whole utterance.
#![cfg(feature = "engine")]

use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use voxgrain::core::accept::Emission;
use voxgrain::decode::Arm;
use voxgrain::engine::Pool;
use voxgrain::kernel;
use voxgrain::speech::codec::CodecDecoder;
use voxgrain::speech::synth::{Synthesizer, Voice};
use voxgrain::speech::text::TextFrontend;
use voxgrain::{ErrorKind, Options, Stream};

const PCG: Arm = Arm::Pcg { emission: Emission::StandIn };

fn bundle(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

/// A tensor of a golden file, and the tokens of its header.
fn golden(bundle: &str, tensor: &str) -> (Vec<u32>, Vec<f32>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/golden/{bundle}-codec.bin"));
    let bytes = std::fs::read(path).unwrap();
    let end = bytes.iter().position(|&b| b == b'\n').unwrap();
    let header: Value = serde_json::from_slice(&bytes[..end]).unwrap();
    let tokens = header["tokens_in"].as_array().or(header["tokens"].as_array()).unwrap();
    let tokens = tokens.iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let info = header["tensors"].as_array().unwrap().iter().find(|t| t["name"] == tensor).unwrap();
    let at = end + 1 + info["offset"].as_u64().unwrap() as usize;
    let n: u64 = info["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
    let floats = bytes[at..at + 4 * n as usize].chunks_exact(4);
    (tokens, floats.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

#[test]
fn pcm_matches_pytorch_and_does_not_depend_on_the_pushes() {
    for name in ["tiny", "voice"] {
        let voice = Voice::open(bundle(name)).unwrap();
        let pool = Pool::new(kernel::best(), 1);
        let mut decoder =
            CodecDecoder::new(voice.codec(), &pool, &voice.bundle().audio, &voice.bundle().codec)
                .unwrap();
        let (tokens, _) = golden(name, "pcm");
        let mut whole = Vec::new();
        decoder.push(&tokens, &mut whole).unwrap();
        assert_eq!(whole.len(), tokens.len() * 320 - 240, "one hop and a half is held back");
        decoder.finish(&mut whole).unwrap();
        assert_eq!(whole.len(), tokens.len() * 320);
        for reference in ["pcm", "pcm_torch"] {
            let (_, want) = golden(name, reference);
            let error: f64 = whole.iter().zip(&want).map(|(a, b)| (a - b).powi(2) as f64).sum();
            let power: f64 = want.iter().map(|b| (b * b) as f64).sum();
            let relative = (error / power).sqrt();
            println!("{name} against {reference}: relative error {relative:.4}");
            assert!(relative < 0.08, "{name} against {reference}: {relative}");
        }
        for size in [1, 2, 5, 39] {
            let mut parts = Vec::new();
            for c in tokens.chunks(size) {
                decoder.push(c, &mut parts).unwrap();
            }
            decoder.finish(&mut parts).unwrap();
            assert!(parts == whole, "{name}: pushes of {size} give other samples");
        }
        // Nothing pushed, nothing owed; and an abandoned stream leaves no trace.
        let mut none = Vec::new();
        decoder.finish(&mut none).unwrap();
        assert!(none.is_empty());
        decoder.push(&tokens[..7], &mut Vec::new()).unwrap();
        decoder.reset();
        decoder.push(&tokens, &mut none).unwrap();
        decoder.finish(&mut none).unwrap();
        assert!(none == whole);
    }
}

/// The first utterance of a text, as the voice reads it.
fn written(voice: &Voice, text: &str) -> String {
    voice.write(&TextFrontend::default().speak(text).unwrap().chunks[0], 1.0).unwrap()
}

/// A copy of the tiny voice whose codec has weights that are no numbers.
#[test]
fn spectra_that_are_no_numbers_are_an_error_and_not_silence() {
    let dir = std::env::temp_dir().join(format!("voxgrain-spectra-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    for f in std::fs::read_dir(bundle("tiny")).unwrap() {
        let path = f.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let data = dir.join("codec.onnx.data");
    let sound = std::fs::read(&data).unwrap();
    // As halves and as floats, quiet ones that are no numbers.
    std::fs::write(&data, vec![0xff; sound.len()]).unwrap();
    let voice = Voice::open(&dir).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let pool = Pool::new(kernel::best(), 1);
    let mut decoder =
        CodecDecoder::new(voice.codec(), &pool, &voice.bundle().audio, &voice.bundle().codec)
            .unwrap();
    let mut pcm = Vec::new();
    let e = decoder.push(&[1, 2, 3], &mut pcm).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Numeric, "{e}");
    assert!(e.to_string().contains("--verify"), "{e}");
    assert!(pcm.is_empty());
    // Wherever it is met.
    let mut s = Synthesizer::new(&voice, voice.options(Arm::Sd), &pool).unwrap();
    let e = s.speak("yes.").unwrap().find_map(Result::err).expect("an error");
    assert_eq!(e.kind(), ErrorKind::Numeric);
    assert!(!s.is_speaking());
    let mut stream = Stream::new(&voice, &Options::for_voice(&voice)).unwrap();
    let e = stream.speak("Yes. No.", |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Numeric);
    assert_eq!(stream.next_pcm().unwrap(), None);
}

#[test]
fn speech_streams_sample_for_sample() {
    let voice = Voice::open(bundle("voice")).unwrap();
    let pool = Pool::new(kernel::best(), 2);
    let mut s = Synthesizer::new(&voice, voice.options(PCG), &pool).unwrap();
    let text = written(&voice, "hello there, this is a test.");
    let mut speech = s.speak(&text).unwrap();
    let chunks: Vec<Vec<f32>> = (&mut speech).map(Result::unwrap).collect();
    let tokens = speech.tokens().to_vec();
    let stats = s.stats();
    assert!(chunks.len() > 10, "sound comes in {} pieces", chunks.len());
    assert!(chunks[0].len() < 16_000, "the first piece comes before the end");
    let streamed = chunks.concat();
    assert_eq!(streamed.len(), tokens.len() * 320);
    assert_eq!(stats.samples as usize, streamed.len());
    assert_eq!((stats.utterances, stats.cut), (1, 0));
    assert!(stats.first_audio.unwrap() < stats.compute);
    // Between half a second and five, and not silence.
    assert!((8_000..80_000).contains(&streamed.len()));
    let rms = (streamed.iter().map(|v| v * v).sum::<f32>() / streamed.len() as f32).sqrt();
    assert!(rms > 0.01 && streamed.iter().all(|v| v.abs() < 4.0), "rms {rms}");

    let mut decoder =
        CodecDecoder::new(voice.codec(), &pool, &voice.bundle().audio, &voice.bundle().codec)
            .unwrap();
    let mut whole = Vec::new();
    decoder.push(&tokens, &mut whole).unwrap();
    decoder.finish(&mut whole).unwrap();
    assert!(whole == streamed, "streamed and one-shot sound differ");
}

#[test]
fn a_synthesizer_can_be_interrupted_and_used_again() {
    let voice = Voice::open(bundle("voice")).unwrap();
    let pool = Pool::new(kernel::best(), 1);
    let say = |s: &mut Synthesizer, text: &str| -> Vec<f32> {
        s.speak(&written(&voice, text)).unwrap().flat_map(Result::unwrap).collect()
    };
    let mut greedy = voice.options(Arm::Ar);
    greedy.sampling.temperature = 0.0;
    let mut fresh = Synthesizer::new(&voice, greedy, &pool).unwrap();
    let want = say(&mut fresh, "good morning.");
    let mut s = Synthesizer::new(&voice, greedy, &pool).unwrap();
    {
        let text = written(&voice, "this one is never heard to its end.");
        let mut speech = s.speak(&text).unwrap();
        for _ in 0..5 {
            speech.next();
        }
    }
    assert!(say(&mut s, "good morning.") == want);
    assert!(s.speak("").is_err());
    assert!(s.speak("Not The Alphabet").is_err());
    assert!(say(&mut s, "good morning.") == want);
}
