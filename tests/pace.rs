//! The arithmetic of playback.
#![cfg(feature = "std")]

use voxgrain::speech::pace::Pace;

/// Chunks of 20 ms at 16 kHz, each made in `work` seconds.
fn play(chunks: usize, work: impl Fn(usize) -> f64) -> Pace {
    let mut pace = Pace::new(16_000, 100, 200);
    for i in 0..chunks {
        pace.work(work(i));
        pace.push(320);
        assert!(pace.fill() <= 0.3 + 1e-9 && pace.fill() >= 0.0);
    }
    pace.finish();
    pace
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn a_fast_maker_waits_for_the_player() {
    let pace = play(100, |_| 0.002);
    // Five chunks fill the device; from then on the sound takes as long as it is.
    near(pace.start().unwrap(), 5.0 * 0.002);
    near(pace.now(), 0.010 + 100.0 * 0.020);
    assert_eq!((pace.underruns(), pace.silence()), (0, 0.0));
    assert!(pace.lowest().unwrap() > 0.09);
}

#[test]
fn one_pause_longer_than_what_is_queued_is_one_underrun() {
    // 30 chunks fill the 300 ms; then one takes half a second.
    let pace = play(60, |i| if i == 30 { 0.5 } else { 0.0 });
    near(pace.start().unwrap(), 0.0);
    assert_eq!(pace.underruns(), 1);
    // Dry after 300 ms, heard again once five chunks are there, made at once.
    near(pace.silence(), 0.2);
    near(pace.now(), 60.0 * 0.020 + 0.2);
    near(pace.lowest().unwrap(), 0.0);
}

#[test]
fn a_maker_slower_than_sound_runs_dry_again_and_again() {
    let pace = play(100, |_| 0.040);
    near(pace.start().unwrap(), 5.0 * 0.040);
    assert!(pace.underruns() > 5, "{}", pace.underruns());
    near(pace.now(), pace.start().unwrap() + 100.0 * 0.020 + pace.silence());
}

#[test]
fn a_sound_shorter_than_the_buffer_is_heard_at_its_end() {
    let pace = play(3, |_| 0.010);
    near(pace.start().unwrap(), 0.030);
    near(pace.now(), 0.030 + 0.060);
    assert_eq!((pace.underruns(), pace.lowest()), (0, None));
    let mut nothing = Pace::new(16_000, 100, 200);
    nothing.finish();
    assert_eq!((nothing.start(), nothing.underruns()), (None, 0));
}
