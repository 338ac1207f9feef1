//! Text to a WAV file, in one go.
//!
//! ```sh
//! cargo run --release --example say -- "The birch canoe slid on the smooth planks."
//! cargo run --release --example say -- --voice models/tiny --out tiny.wav "Hello."
//! ```

use std::path::PathBuf;
use voxgrain::speech::wav::WavFile;
use voxgrain::{Error, ErrorKind, Options, Stream, Voice};

fn main() {
    if let Err(e) = run() {
        eprintln!("say: {e:#}");
        std::process::exit(1);
    }
}

fn run() -> voxgrain::Result<()> {
    let (mut folder, mut out) = (PathBuf::from("models/voice"), PathBuf::from("say.wav"));
    let mut words = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--voice" => folder = args.next().unwrap_or_default().into(),
            "--out" => out = args.next().unwrap_or_default().into(),
            _ => words.push(arg),
        }
    }
    if words.is_empty() {
        let usage = "usage: say [--voice FOLDER] [--out FILE] TEXT";
        return Err(Error::new(ErrorKind::InvalidArgument, usage));
    }

    // A voice is opened once and shared; a stream is what speaks with it.
    let voice = Voice::open(folder)?;
    let mut stream = Stream::new(&voice, &Options::for_voice(&voice))?;
    stream.feed(words.join(" "))?;
    stream.flush()?;

    let rate = voice.bundle().audio.sample_rate_hz;
    let mut file = WavFile::create(&out, rate)?;
    while let Some(pcm) = stream.next_pcm()? {
        file.write(pcm)?;
    }
    // The file appears when it is whole.
    file.finish()?;

    let stats = stream.stats();
    let seconds = stats.speech.samples as f64 / f64::from(rate);
    println!(
        "{}: {seconds:.2} s of sound by {} of {}, made in {:.2} s, {:.2} tokens a round",
        out.display(),
        voice.speaker().name,
        voice.bundle().name,
        stats.speech.compute.as_secs_f64(),
        stats.speech.spec.tokens_per_round(),
    );
    Ok(())
}
