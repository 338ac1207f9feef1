//! Playback without a sound device: when would the sound start, and would it ever stop?
//!
//! [`Pace`] does the arithmetic of a player on a clock of its own. It is told how long each
//! chunk took to make and how many samples it has, and keeps what `Speaker` would
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
