//! Samples as they come, text as it comes, and a timer that cancels.
//!
//! One thread feeds text the way a chat would, a few words at a time. The main thread reads
//! samples, as a player would. After a while a third one cancels: what was fed before is
//! dropped within one step, and the stream goes on with what is fed afterwards.
//!
//! ```sh
//! cargo run --release --example stream                       # models/voice
//! cargo run --release --example stream -- models/tiny 50     # cancelled after 50 ms
//! ```

use std::thread;
use std::time::{Duration, Instant};
use voxgrain::{ErrorKind, Options, Stream, Voice};

const STORY: &str = "It was a bright cold day in spring, and the clocks were striking thirteen. \
    A woman in a long coat crossed the square. She looked up, once, and then she was gone. ";

fn main() {
    if let Err(e) = run() {
        eprintln!("stream: {e:#}");
        std::process::exit(1);
    }
}

fn run() -> voxgrain::Result<()> {
    let mut args = std::env::args().skip(1);
    let voice = Voice::open(args.next().unwrap_or_else(|| "models/voice".into()))?;
    let after = args.next().and_then(|ms| ms.parse().ok()).unwrap_or(700);
    let after = Duration::from_millis(after);
    let rate = f64::from(voice.bundle().audio.sample_rate_hz);

    let mut stream = Stream::new(&voice, &Options::for_voice(&voice))?;
    let (feeder, timer) = (stream.handle(), stream.handle());
    let clock = Instant::now();

    let writer = thread::spawn(move || -> voxgrain::Result<()> {
        // The story goes on until the timer ends it.
        while clock.elapsed() < after {
            for part in STORY.split_inclusive(' ') {
                match feeder.feed(part) {
                    Ok(()) => {}
                    // Too much waits: the listener is slower than the writer.
                    Err(e) if e.kind() == ErrorKind::Full => break,
                    Err(e) => return Err(e),
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        timer.cancel();
        println!("{:6.3} s  cancelled by the timer", clock.elapsed().as_secs_f64());
        feeder.feed("That is enough.")?;
        feeder.flush()
    });

    let mut pcm = [0f32; 4096];
    let (mut samples, mut reads) = (0, 0);
    loop {
        let last = writer.is_finished();
        match stream.read(&mut pcm) {
            // All that is complete has been spoken; more may come while somebody writes.
            Ok(0) if last => break,
            Ok(0) => thread::sleep(Duration::from_millis(1)),
            Ok(n) => {
                samples += n;
                reads += 1;
                if reads <= 5 || reads % 50 == 0 {
                    let (now, sound) = (clock.elapsed().as_secs_f64(), samples as f64 / rate);
                    println!(
                        "{now:6.3} s  read {reads}: {n} samples, {sound:.2} s of sound so far"
                    );
                }
            }
            Err(e) if e.kind() == ErrorKind::Cancelled => {
                println!("{:6.3} s  the reader stops", clock.elapsed().as_secs_f64());
            }
            Err(e) => return Err(e),
        }
    }
    writer.join().expect("the writer does not panic")?;

    let s = stream.stats();
    println!(
        "{} utterances spoken, {} broken off, first sound of the latest after {} ms",
        s.speech.utterances,
        s.cancelled,
        s.first_audio.as_millis()
    );
    Ok(())
}
