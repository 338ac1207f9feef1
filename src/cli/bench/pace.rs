//! Playback without a sound device: when would the sound start, and would it ever stop?
//!
//! [`Pace`] does the arithmetic of a player on a clock of its own. It is told how long each
//! chunk took to make and how many samples it has, and keeps what `speech::play::Output` would
//! have queued: playback begins when the device's own buffer is full, samples leave at the
//! sample rate, the maker waits while everything is full, and a device that runs dry begins
//! again when its buffer is full again. No time passes, no sound card is needed, and the same
//! chunks give the same answer on every machine.

/// A player's buffers and clock. Times are seconds from the start of the utterance.
#[derive(Debug, Clone)]
pub struct Pace {
    rate: f64,
    device: f64,
    capacity: f64,
    now: f64,
    /// Seconds of sound queued.
    fill: f64,
    playing: bool,
    start: Option<f64>,
    dry_since: Option<f64>,
    underruns: u32,
    silence: f64,
    lowest: Option<f64>,
}

impl Pace {
    /// A device that buffers `device_ms` before it begins, behind a ring of `ring_ms`.
    pub fn new(sample_rate_hz: u32, device_ms: u32, ring_ms: u32) -> Self {
        let device = f64::from(device_ms.max(1)) / 1e3;
        Self {
            rate: f64::from(sample_rate_hz.max(1)),
            device,
            capacity: device + f64::from(ring_ms) / 1e3,
            now: 0.0,
            fill: 0.0,
            playing: false,
            start: None,
            dry_since: None,
            underruns: 0,
            silence: 0.0,
            lowest: None,
        }
    }

    /// `seconds` pass while the maker works.
    pub fn work(&mut self, seconds: f64) {
        let end = self.now + seconds.max(0.0);
        if self.playing {
            if self.fill < end - self.now {
                self.underruns += 1;
                self.playing = false;
                self.dry_since = Some(self.now + self.fill);
                self.fill = 0.0;
            } else {
                self.fill -= end - self.now;
            }
            self.lowest = Some(self.lowest.map_or(self.fill, |l| l.min(self.fill)));
        }
        self.now = end;
    }

    /// `samples` are queued, waiting while there is no room.
    pub fn push(&mut self, samples: usize) {
        let sound = samples as f64 / self.rate;
        let put = sound.min(self.capacity - self.fill);
        self.fill += put;
        if self.fill >= self.device {
            self.begin();
        }
        // What did not fit goes in as the same amount leaves.
        self.now += sound - put;
    }

    /// Nothing more comes: what is queued is played to its end.
    pub fn finish(&mut self) {
        if self.fill > 0.0 {
            self.begin();
        }
        self.now += self.fill;
        self.fill = 0.0;
        self.playing = false;
    }

    fn begin(&mut self) {
        if !self.playing {
            self.playing = true;
            self.start.get_or_insert(self.now);
            if let Some(since) = self.dry_since.take() {
                self.silence += self.now - since;
            }
        }
    }

    /// The player's clock.
    pub fn now(&self) -> f64 {
        self.now
    }
    /// Seconds of sound queued.
    pub fn fill(&self) -> f64 {
        self.fill
    }
    /// When the first sample was heard.
    pub fn start(&self) -> Option<f64> {
        self.start
    }
    /// How often the device ran dry in the middle of the sound.
    pub fn underruns(&self) -> u32 {
        self.underruns
    }
    /// Seconds of silence that those made.
    pub fn silence(&self) -> f64 {
        self.silence
    }
    /// Least sound that was queued while playing; `None` if the sound was over before that
    /// could be seen.
    pub fn lowest(&self) -> Option<f64> {
        self.lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
