//! The speaking loop: text in by any cut, samples out by any reader, cancelled from anywhere.
#![cfg(feature = "engine")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use voxgrain::core::Emission;
use voxgrain::decode::Arm;
use voxgrain::engine::Pool;
use voxgrain::map::Map;
use voxgrain::speech::stream::{OWN_SILENCE, Step, Utterance, default_threads};
use voxgrain::speech::text::{self, TextFrontend};
use voxgrain::speech::voice::OpenOptions;
use voxgrain::speech::wav::to_i16;
use voxgrain::{ErrorKind, Options, Stream, Synthesizer, Voice, kernel};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tiny() -> Voice {
    Voice::open(root().join("models/tiny")).unwrap()
}

fn options(voice: &Voice) -> Options {
    let mut options = Options::for_voice(voice);
    options.threads = 1;
    options.decode.seed = 7;
    options
}

fn stream(voice: &Voice) -> Stream {
    Stream::new(voice, &options(voice)).unwrap()
}

fn rest(stream: &mut Stream) -> Vec<f32> {
    let mut all = Vec::new();
    while let Some(pcm) = stream.next_pcm().unwrap() {
        assert!(!pcm.is_empty());
        all.extend_from_slice(pcm);
    }
    all
}

fn spoken(stream: &mut Stream, text: &str) -> Vec<f32> {
    stream.feed(text).unwrap();
    stream.flush().unwrap();
    rest(stream)
}

/// What `text` is to the front end, which meets it word by word.
fn utterances(voice: &Voice, text: &str) -> Vec<Utterance> {
    utterances_with(voice, Options::for_voice(voice).text, text)
}

fn utterances_with(voice: &Voice, options: text::Options, text: &str) -> Vec<Utterance> {
    let mut frontend = TextFrontend::new(options).unwrap();
    let mut chunks: Vec<_> =
        text.split_inclusive(' ').flat_map(|word| frontend.feed(word).unwrap()).collect();
    chunks.extend(frontend.flush().unwrap());
    chunks.iter().map(|c| voice.utterance(c, 1.0).unwrap()).collect()
}

/// Utterance by utterance, without a stream: samples, and where each begins and ends.
fn by_hand(voice: &Voice, utterances: &[Utterance]) -> (Vec<f32>, Vec<(usize, usize)>) {
    let pool = Pool::new(kernel::best(), 1);
    let mut synthesizer = Synthesizer::new(voice, options(voice).decode, &pool).unwrap();
    let rate = f64::from(voice.bundle().audio.sample_rate_hz);
    let (mut pcm, mut places, mut pause) = (Vec::new(), Vec::new(), 0.0);
    for utterance in utterances {
        pcm.resize(pcm.len() + (pause * rate).round() as usize, 0.0);
        let begin = pcm.len();
        synthesizer.begin(&utterance.text).unwrap();
        while synthesizer.next_into(&mut pcm).unwrap() {}
        places.push((begin, pcm.len()));
        pause = (f64::from(utterance.pause_after) - f64::from(OWN_SILENCE)).max(0.0);
    }
    (pcm, places)
}

const TEXT: &str = "One. Two! Three? 4 caf\u{e9}s, 3.5 km/h";

#[test]
fn every_cut_and_every_reader_give_the_same_samples() {
    let voice = tiny();
    let (want, _) = by_hand(&voice, &utterances(&voice, TEXT));
    assert!(want.len() > 1000);
    assert!(spoken(&mut stream(&voice), TEXT) == want, "in one piece");

    for step in [1, 2, 7] {
        let mut s = stream(&voice);
        for part in TEXT.as_bytes().chunks(step) {
            s.feed(part).unwrap();
        }
        s.flush().unwrap();
        assert!(rest(&mut s) == want, "{step} bytes at a time");
    }

    let mut s = Stream::with_pool(&voice, &options(&voice), &Pool::new(kernel::best(), 3)).unwrap();
    for utterance in utterances(&voice, TEXT) {
        s.push(utterance).unwrap();
    }
    let (mut all, mut part) = (Vec::new(), [0f32; 777]);
    loop {
        match s.read(&mut part).unwrap() {
            0 => break,
            n => all.extend_from_slice(&part[..n]),
        }
    }
    assert!(all == want, "prepared, on three threads, by 777 samples");
    assert_eq!(s.stats().threads, 3);

    let mut s = stream(&voice);
    let mut all = Vec::new();
    s.speak(TEXT, |pcm| {
        all.extend_from_slice(pcm);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(all == want, "to a sink");

    let mut s = stream(&voice);
    s.feed(TEXT).unwrap();
    s.flush().unwrap();
    let mut short = vec![0i16; want.len() + 1];
    let mut n = 0;
    while let more @ 1.. = s.read_i16(&mut short[n..]).unwrap() {
        n += more;
    }
    assert_eq!(n, want.len());
    assert!(short[..n].iter().zip(&want).all(|(a, b)| *a == to_i16(*b)), "in 16 bits");
    assert_eq!(s.read(&mut []).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn steps_are_prompts_and_rounds() {
    let voice = tiny();
    let mut s = stream(&voice);
    assert_eq!(s.step().unwrap(), Step::Idle);
    let want = spoken(&mut stream(&voice), "Yes. No, not so.");
    for utterance in utterances(&voice, "Yes. No, not so.") {
        s.push(utterance).unwrap();
    }
    let (mut prompts, mut rounds, mut all) = (0, 0, Vec::new());
    loop {
        match s.step().unwrap() {
            Step::Idle => break,
            Step::Prompt => prompts += 1,
            Step::Round => rounds += 1,
        }
        assert_eq!(s.synthesizer().stats().spec.rounds, rounds, "a step is one round");
        all.extend_from_slice(s.take());
        assert!(s.take().is_empty());
    }
    assert!(all == want);
    let stats = s.stats();
    assert_eq!((stats.speech.utterances, stats.samples), (prompts, want.len() as u64));
    // What is silence between two is no speech.
    let silence = want.len() as u64 - stats.speech.samples;
    assert_eq!((stats.begun, silence), (2, 1600), "0.3 s behind a sentence, 0.2 s in the voice");
    assert!(prompts > 0 && rounds > 2 * prompts);
    assert!(
        stats.first_audio <= stats.speech.compute && stats.longest_round > stats.first_audio / 50
    );
    // Samples that nobody takes wait; text waits behind them.
    s.push("yes.").unwrap();
    while s.step().unwrap() != Step::Round || s.synthesizer().is_speaking() {}
    s.push("no.").unwrap();
    assert_eq!(s.step().unwrap(), Step::Idle);
    assert!(!s.take().is_empty());
    assert_eq!(s.step().unwrap(), Step::Prompt);
}

/// Marks of every kind and what the markup asks for.
const PAUSED: &str = "<speak><p>This is number one. That is number two!</p><p>Three.</p>Four.<break time=\"2s\"/> Five.\
                      <break time=\"50ms\"/> Six.</speak>";

#[test]
fn pauses_are_as_long_as_the_front_end_says() {
    let voice = tiny();
    let mut o = options(&voice);
    (o.text.pauses.sentence, o.text.pauses.paragraph) = (0.5, 1.25);
    let all = utterances_with(&voice, o.text, PAUSED);
    let (want, places) = by_hand(&voice, &all);
    let gaps: Vec<usize> = places.windows(2).map(|two| two[1].0 - two[0].1).collect();
    // At 16 kHz: 0.5, 1.25 and 1.25 s without the voice's own 0.2 s; 2 s; what is less than the
    // voice's own adds nothing.
    assert_eq!(gaps, [4800, 16800, 16800, 28800, 0]);

    let fed = |s: &Stream| {
        s.feed(PAUSED).unwrap();
        s.flush().unwrap();
    };
    for portion in [1, 777, 1 << 20] {
        let mut s = Stream::new(&voice, &o).unwrap();
        fed(&s);
        let mut part = vec![f32::NAN; portion];
        let mut got = Vec::new();
        loop {
            let at = got.len();
            let n = s.read(&mut part).unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&part[..n]);
            // A portion is of one utterance or the silence before it, and the totals say which.
            let stats = s.stats();
            let (begin, end) = places[stats.begun as usize - 1];
            assert_eq!(stats.begin, begin as u64);
            assert!(at >= begin - s_gap(&gaps, stats.begun) && at + n <= end, "{at} + {n}");
        }
        assert!(got == want, "portions of {portion}");
        let stats = s.stats();
        assert_eq!((stats.samples, stats.begun), (want.len() as u64, 6));
        assert_eq!(
            stats.speech.samples as usize + gaps.iter().sum::<usize>(),
            want.len(),
            "nothing behind the last"
        );
    }
    // The synthesizer's samples and the silences are the same however steps are taken.
    let mut s = Stream::new(&voice, &o).unwrap();
    fed(&s);
    let mut got = Vec::new();
    let mut sources = Vec::new();
    for i in 0.. {
        match s.step().unwrap() {
            Step::Idle => break,
            Step::Prompt => {
                let (from, to) = s.stats().source;
                // The end of the document belongs to its last sentence.
                sources.push(PAUSED[from..to].trim_end_matches("</speak>"));
            }
            Step::Round => {}
        }
        // What is not taken waits, and an utterance behind it.
        if i % 3 == 0 || !s.synthesizer().is_speaking() {
            got.extend_from_slice(s.take());
        }
    }
    assert!(got == want, "step by step");
    assert_eq!(
        sources,
        ["This is number one.", "That is number two!", "Three.", "Four.", "Five.", "Six."]
    );
    assert!(s.stats().first_audio > std::time::Duration::ZERO);
}

/// Silence before the utterance that is the `begun`th.
fn s_gap(gaps: &[usize], begun: u64) -> usize {
    (begun as usize).checked_sub(2).map_or(0, |i| gaps[i])
}

#[test]
fn a_pause_is_dropped_with_what_it_follows() {
    let voice = tiny();
    let mut o = options(&voice);
    o.text.pauses.sentence = 1.0;
    const GAP: usize = 12_800;
    let alone = by_hand(&voice, &["yes.".into()]).0;
    let feed = |s: &Stream, text: &str| {
        s.feed(text).unwrap();
        s.flush().unwrap();
    };

    // A text that is fed when all before it was spoken comes after the pause as well.
    let mut s = Stream::new(&voice, &o).unwrap();
    feed(&s, "Oh.");
    let first = rest(&mut s);
    assert_eq!(s.silence(), GAP);
    feed(&s, "Yes.");
    let second = rest(&mut s);
    assert!(first.len() > 320 && second[..GAP].iter().all(|&x| x == 0.0));
    assert_eq!(s.stats().begin as usize, first.len() + GAP);

    // Cancelled in the middle of it, before it, and with everything spoken.
    for case in 0..3 {
        let mut s = Stream::new(&voice, &o).unwrap();
        feed(&s, if case < 2 { "Oh yes. Oh no." } else { "Oh." });
        let mut given = 0;
        let mut part = [1f32; 100];
        loop {
            let n = s.read(&mut part).unwrap();
            given += n;
            let stats = s.stats();
            let there = match case {
                0 => stats.begun == 2 && part[..n].iter().all(|&x| x == 0.0),
                1 => stats.speech.utterances == 1,
                _ => n == 0,
            };
            if there {
                break;
            }
            assert!(n > 0, "case {case} never came about");
        }
        assert!(s.silence() == GAP || case == 0);
        s.cancel();
        feed(&s, "Yes.");
        match s.read(&mut part) {
            Err(e) => assert!(case < 2 && e.kind() == ErrorKind::Cancelled, "case {case}: {e}"),
            // There was nothing to drop but the pause.
            Ok(n) => {
                assert!(case == 2);
                let mut all = part[..n].to_vec();
                all.extend(rest(&mut s));
                assert_eq!(s.stats().begin, given as u64);
                assert!(all.len() >= 320 && all[..320].iter().any(|&x| x != 0.0));
                continue;
            }
        }
        assert_eq!(s.silence(), 0);
        let all = rest(&mut s);
        assert!(all.len() >= 320 && all[..320].iter().any(|&x| x != 0.0), "case {case}");
        // Samples that nobody got are no samples.
        let stats = s.stats();
        assert_eq!((stats.begin, stats.samples), (given as u64, (given + all.len()) as u64));
    }
    // A sink that breaks off drops it too.
    let mut s = Stream::new(&voice, &o).unwrap();
    let _ = s.speak("Oh yes. Oh no.", |_| ControlFlow::Break(()));
    assert_eq!(s.silence(), 0);
    // None before the first.
    let mut s = Stream::new(&voice, &o).unwrap();
    feed(&s, "Yes.");
    assert!(rest(&mut s) == alone);
}

#[test]
fn one_rule_chooses_the_arm() {
    let voice = tiny();
    let arm = |voice: &Voice| Options::for_voice(voice).decode.arm;
    assert_eq!(arm(&voice), Arm::Transport);
    assert_eq!(voice.default_arm(Emission::StandIn), Arm::Transport);
    let resampled = Arm::Pcg { emission: Emission::Resample };
    assert_eq!(voice.default_arm(Emission::Resample), resampled);

    // Without an index, whatever else is asked: by token.
    let files: Vec<(String, Map)> = std::fs::read_dir(root().join("models/tiny"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_str().unwrap().into(), Map::read(&p).unwrap()))
        .collect();
    let files: Vec<(&str, Map)> = files.iter().map(|(n, m)| (&n[..], m.clone())).collect();
    let without = Voice::from_files(&files).unwrap();
    assert!(without.groups().is_none());
    assert_eq!(arm(&without), Arm::Sd);
    assert_eq!(without.default_arm(Emission::Resample), Arm::Sd);
    let pcm = spoken(&mut stream(&without), "Yes.");
    let mut by_token = options(&voice);
    by_token.decode.arm = Arm::Sd;
    assert!(pcm == spoken(&mut Stream::new(&voice, &by_token).unwrap(), "Yes."));
    // Whoever asks for groups is told that there are none.
    let mut grouped = options(&without);
    grouped.decode.arm = Arm::Transport;
    let e = Stream::new(&without, &grouped).unwrap_err();
    assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains("group index"));
    assert!((1..=4).contains(&default_threads()));
}

#[test]
fn what_waits_is_bounded_and_what_is_no_text_is_refused() {
    let voice = tiny();
    let mut o = options(&voice);
    o.max_text = Options::MIN_TEXT;
    let mut s = Stream::new(&voice, &o).unwrap();
    let line = "one two three four five six seven. ";
    let mut fed = 0;
    let full = loop {
        match s.feed(line) {
            Ok(()) => fed += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(full.kind(), ErrorKind::Full);
    assert!(full.to_string().contains("max_text"), "{full}");
    // Stored without the space, and up to a front end's worth is not counted twice.
    let most = Options::MIN_TEXT / (line.len() - 1);
    let least = (Options::MIN_TEXT - TextFrontend::MAX_PENDING) / line.len();
    assert!((least..=most).contains(&fed), "{fed} lines");
    assert_eq!(s.push("a".repeat(200)).unwrap_err().kind(), ErrorKind::Full);
    // Room again once something was spoken.
    while s.next_pcm().unwrap().is_some() && s.stats().speech.utterances < 6 {}
    s.feed(line).unwrap();
    s.cancel();
    s.feed(line).unwrap();

    let s = stream(&voice);
    s.feed(b"caf\xc3").unwrap();
    s.feed(b"\xa9. ").unwrap();
    assert_eq!(s.feed(b"\xff").unwrap_err().kind(), ErrorKind::InvalidText);
    // A character that was begun wrongly is given up, not kept for ever.
    s.feed(b"\xc3").unwrap();
    assert_eq!(s.feed(b"\xc3").unwrap_err().kind(), ErrorKind::InvalidText);
    s.feed("good.").unwrap();
    s.feed(b"\xe2\x82").unwrap();
    assert_eq!(s.flush().unwrap_err().kind(), ErrorKind::InvalidText);
    let mut s = s;
    assert!(!rest(&mut s).is_empty(), "what was whole is spoken");
    assert_eq!(s.stats().cancelled, 0);

    let nothing = s.speak("\u{4f60}\u{597d}", |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::InvalidText);
    assert!(s.stats().unspeakable > 0);
    s.speak("", |_| ControlFlow::Continue(())).unwrap();
    // A prepared utterance that the voice cannot read ends there, the next one is spoken.
    s.push("Not The Alphabet").unwrap();
    s.push("yes.").unwrap();
    assert_eq!(s.next_pcm().unwrap_err().kind(), ErrorKind::InvalidText);
    assert!(!rest(&mut s).is_empty());
}

#[test]
fn options_out_of_range_are_refused() {
    let voice = tiny();
    let spoil: [fn(&mut Options); 9] = [
        |o| o.threads = 0,
        |o| o.threads = Options::MAX_THREADS + 1,
        |o| o.max_text = Options::MIN_TEXT - 1,
        |o| o.max_text = Options::MAX_TEXT + 1,
        |o| o.max_positions = 100,
        |o| o.text.max_chars = 5,
        |o| o.decode.gamma = 16.into(),
        |o| o.decode.sampling.temperature = f32::NAN,
        |o| o.decode.arm = Arm::Tolerance { beta: 2.0 },
    ];
    for (i, spoil) in spoil.iter().enumerate() {
        let mut o = options(&voice);
        spoil(&mut o);
        let e = Stream::new(&voice, &o).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "case {i}: {e}");
    }
}

#[test]
fn a_handle_cancels_from_another_thread_and_new_text_is_kept() {
    let voice = tiny();
    let mut s = stream(&voice);
    let handle = s.handle();
    let steps = AtomicUsize::new(0);
    let long = "A long announcement that goes on, until somebody presses the button. ".repeat(50);
    std::thread::scope(|scope| {
        let steps = &steps;
        let speaker = scope.spawn(move || {
            let after = s.speak(&long, |_| {
                steps.fetch_add(1, Ordering::SeqCst);
                ControlFlow::Continue(())
            });
            (s, after)
        });
        while steps.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        assert!(handle.stats().unwrap().speech.spec.rounds > 0);
        handle.cancel();
        let at = steps.load(Ordering::SeqCst);
        handle.feed("New text.").unwrap();
        handle.flush().unwrap();
        let (mut s, after) = speaker.join().unwrap();
        assert_eq!(after.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(steps.load(Ordering::SeqCst) <= at + 1, "at most the step that was running");
        assert_eq!(s.stats().cancelled, 1);
        let before = s.stats().speech.utterances;
        assert!(!rest(&mut s).is_empty());
        assert_eq!(s.stats().speech.utterances, before + 1);
    });
}

#[test]
fn text_fed_after_a_cancellation_is_spoken_whoever_comes_first() {
    let voice = tiny();
    let mut o = options(&voice);
    // Short: what matters here is the order of locks.
    (o.max_positions, o.text.max_chars) = (40, 20);
    let mut s = Stream::new(&voice, &o).unwrap();
    let handle = s.handle();
    let done = AtomicUsize::new(0);
    const TIMES: u64 = 300;
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            while done.load(Ordering::Acquire) == 0 {
                // Cancelled or idle most of the time.
                let _ = s.next_pcm();
            }
        });
        for i in 0..TIMES {
            handle.cancel();
            handle.feed("no.").unwrap();
            handle.flush().unwrap();
            let since = std::time::Instant::now();
            while handle.stats().unwrap().speech.utterances == i {
                if since.elapsed().as_secs() > 20 {
                    done.store(1, Ordering::Release);
                    panic!("utterance {i} was lost");
                }
                std::thread::yield_now();
            }
        }
        done.store(1, Ordering::Release);
    });
}

#[test]
fn a_sink_that_stops_drops_the_rest() {
    let voice = tiny();
    let mut s = stream(&voice);
    let mut calls = 0;
    let stopped = s.speak("First sentence. ".repeat(20), |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!((calls, s.stats().cancelled), (3, 1));
    assert!(s.next_pcm().unwrap().is_none());
    assert!(!spoken(&mut s, "Again.").is_empty());
    // With nothing to drop nothing happens.
    s.cancel();
    assert!(s.next_pcm().unwrap().is_none());
    assert_eq!(s.stats().cancelled, 1);
}

#[test]
fn a_budget_is_kept_before_anything_is_made() {
    let voice = tiny();
    let mut o = options(&voice);
    let need = o.memory(&voice).unwrap();
    assert_eq!(need.total(), need.voice.mapped + need.voice.heap + need.state + need.work);
    assert_eq!(need.voice, voice.memory());
    o.max_memory = Some(need.total());
    assert_eq!(Stream::new(&voice, &o).unwrap().memory(), need);
    o.max_memory = Some(need.total() - 1);
    let e = Stream::new(&voice, &o).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Memory);
    assert!(e.to_string().contains(&need.total().to_string()), "{e}");

    let path = root().join("models/tiny");
    let mut open = OpenOptions::default();
    for copy in [false, true] {
        open.copy = copy;
        open.max_memory = None;
        let m = Voice::open_with(&path, &open).unwrap().memory();
        assert_eq!(m.mapped == 0, copy);
        open.max_memory = Some(m.total());
        Voice::open_with(&path, &open).unwrap();
        open.max_memory = Some(m.total() - 1);
        let e = Voice::open_with(&path, &open).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Memory);
    }
}

/// A copy is read: it works on a file system that maps nothing, such as the system's own files.
#[cfg(target_os = "linux")]
#[test]
fn a_copied_voice_is_never_mapped() {
    let Some(file) = ["/sys/kernel/profiling", "/sys/devices/system/cpu/possible"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.exists() && Map::open(p).is_err() && Map::read(p).is_ok())
    else {
        println!("skipped: every file here can be mapped");
        return;
    };
    let mut open = OpenOptions::default();
    open.groups = Some(file);
    let tried =
        |open: &OpenOptions| Voice::open_with(root().join("models/tiny"), open).unwrap_err().kind();
    assert_eq!(tried(&open), ErrorKind::Unreadable, "it cannot be mapped");
    open.copy = true;
    assert_eq!(tried(&open), ErrorKind::Malformed, "it can be read, and is no index");
}
