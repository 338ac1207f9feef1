//! Means over positions with intervals over sentences.

use crate::cli::stats::bootstrap;

/// `sum / count` over sentences with its 95 % interval; NaN where nothing was counted.
pub fn ratio(sentences: &[(f64, f64)]) -> [f64; 3] {
    let used: Vec<_> = sentences.iter().copied().filter(|s| s.1 > 0.0).collect();
    let mean = |of: &[(f64, f64)]| {
        let (sum, count) = of.iter().fold((0.0, 0.0), |a, s| (a.0 + s.0, a.1 + s.1));
        sum / count
    };
    if used.is_empty() {
        return [f64::NAN; 3];
    }
    let [low, high] = bootstrap(&used, |draw| mean(draw));
    [mean(&used), low, high]
}

/// Sums and counts by sentence, for means over positions with intervals over sentences.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sums: Vec<(f64, f64)>,
}

impl Tally {
    pub fn add(&mut self, sentence: usize, value: f64) {
        if self.sums.len() <= sentence {
            self.sums.resize(sentence + 1, (0.0, 0.0));
        }
        self.sums[sentence].0 += value;
        self.sums[sentence].1 += 1.0;
    }

    pub fn count(&self) -> usize {
        self.sums.iter().map(|s| s.1).sum::<f64>() as usize
    }

    /// The mean and its 95 % interval, sentences drawn anew each time.
    pub fn interval(&self) -> [f64; 3] {
        ratio(&self.sums)
    }

    /// The same of the difference to `base`, which covers the same positions.
    pub fn minus(&self, base: &Tally) -> [f64; 3] {
        let pairs: Vec<_> =
            self.sums.iter().zip(&base.sums).map(|(a, b)| (a.0 - b.0, a.1)).collect();
        ratio(&pairs)
    }
}
