//! Log-mel spectra: of the codec's output for a token held still, and of sound.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// Triangles on the mel scale over the bins of a spectrum.
pub struct Mel {
    /// `(first bin, weights)` of each band.
    bands: Vec<(usize, Vec<f32>)>,
}

/// A full-scale tone has a magnitude of about 160 in 640 samples under a Hann window; what
/// lies 84 dB below it is not heard.
const FLOOR: f32 = 1e-2;

impl Mel {
    pub fn new(bands: usize, bins: usize, sample_rate_hz: u32) -> Self {
        let mel = |hz: f64| 1127.0 * (1.0 + hz / 700.0).ln();
        let top = mel(f64::from(sample_rate_hz) / 2.0);
        let at = |bin: usize| mel(bin as f64 * f64::from(sample_rate_hz) / 2.0 / (bins - 1) as f64);
        let edge = |i: usize| top * i as f64 / (bands + 1) as f64;
        let bands = (0..bands)
            .map(|b| {
                let (low, mid, high) = (edge(b), edge(b + 1), edge(b + 2));
                let weight = |bin: usize| {
                    let m = at(bin);
                    (((m - low) / (mid - low)).min((high - m) / (high - mid)).max(0.0)) as f32
                };
                let mut weights: Vec<(usize, f32)> =
                    (0..bins).map(|k| (k, weight(k))).filter(|w| w.1 > 0.0).collect();
                if weights.is_empty() {
                    // A band narrower than a bin takes the nearest one.
                    let near = |k: usize| (at(k) - mid).abs();
                    let best = (0..bins).min_by(|&a, &b| near(a).total_cmp(&near(b)));
                    weights.push((best.unwrap_or(0), 1.0));
                }
                (weights[0].0, weights.iter().map(|w| w.1).collect())
            })
            .collect();
        Self { bands }
    }

    /// Appends the natural logarithm of each band's magnitude.
    pub fn push(&self, magnitudes: &[f32], out: &mut Vec<f32>) {
        for (first, weights) in &self.bands {
            let sum: f32 = weights.iter().zip(&magnitudes[*first..]).map(|(w, m)| w * m).sum();
            out.push(sum.max(FLOOR).ln());
        }
    }
}

/// Mean absolute difference of the log-mel spectra of two sounds of one length, in dB.
pub fn distance(a: &[f32], b: &[f32], fft: usize, hop: usize, mel: &Mel) -> f64 {
    let (a, b) = (spectra(a, fft, hop, mel), spectra(b, fft, hop, mel));
    let n = a.len().min(b.len());
    let sum: f64 = a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs())).sum();
    20.0 / std::f64::consts::LN_10 * sum / n.max(1) as f64
}

fn spectra(sound: &[f32], fft: usize, hop: usize, mel: &Mel) -> Vec<f32> {
    let plan = FftPlanner::new().plan_fft_forward(fft);
    let window: Vec<f32> = (0..fft)
        .map(|i| 0.5 - 0.5 * (2.0 * std::f32::consts::PI * i as f32 / fft as f32).cos())
        .collect();
    let mut out = Vec::new();
    let mut frame = vec![Complex::default(); fft];
    let mut magnitudes = vec![0f32; fft / 2 + 1];
    for part in sound.windows(fft).step_by(hop) {
        for ((f, x), w) in frame.iter_mut().zip(part).zip(&window) {
            *f = Complex::new(x * w, 0.0);
        }
        plan.process(&mut frame);
        magnitudes.iter_mut().zip(&frame).for_each(|(m, f)| *m = f.norm());
        mel.push(&magnitudes, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_loud_is_six_decibels() {
        let mel = Mel::new(40, 321, 16_000);
        let sound: Vec<f32> = (0..8000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65536.0 - 0.5)
            .collect();
        let loud: Vec<f32> = sound.iter().map(|x| 2.0 * x).collect();
        let d = distance(&sound, &loud, 640, 160, &mel);
        assert!((d - 6.02).abs() < 0.05, "{d}");
        assert_eq!(distance(&sound, &sound, 640, 160, &mel), 0.0);
    }
}
