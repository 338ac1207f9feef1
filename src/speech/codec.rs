//! Speech tokens to sound: the streaming half of the codec.

use crate::bundle::Audio;
use crate::engine::{CodecSession, Model, Pool};
use crate::{Error, ErrorKind, Result};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlannerScalar};
use std::sync::Arc;

/// Speech tokens to PCM, as they come.
///
/// The network is causal; a frame's sound is complete once the spectra are in that its window
/// overlaps. Any split of the tokens into pushes gives the same samples: `n` tokens have `n` times
/// [`samples_per_frame`](Audio::samples_per_frame) of them, the last ones from
/// [`finish`](Self::finish).
pub struct CodecDecoder {
    network: CodecSession,
    istft: Istft,
    trim: usize,
    skip: usize,
}

impl std::fmt::Debug for CodecDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodecDecoder({:?})", self.network)
    }
}

impl CodecDecoder {
    /// The start of a stream.
    ///
    /// # Errors
    /// `Mismatch` if the model's output is not the spectrum that `audio` describes.
    pub fn new(model: &Arc<Model>, pool: &Arc<Pool>, audio: &Audio) -> Result<Self> {
        let network = CodecSession::new(model, pool)?;
        let istft =
            Istft::new(audio.fft_size as usize, audio.hop as usize, audio.max_log_magnitude);
        if network.columns() != 2 * istft.bins() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the codec writes {} values a frame, an FFT of {} needs {}",
                    network.columns(),
                    audio.fft_size,
                    2 * istft.bins()
                ),
            ));
        }
        // Centred frames: half of what overlaps on each side lies outside the sound.
        let trim = (audio.fft_size - audio.hop) as usize / 2;
        Ok(Self { network, istft, trim, skip: trim })
    }

    /// Decodes the next tokens and appends the samples (-1..=1, a little beyond where the
    /// codec overshoots) that are now complete.
    ///
    /// # Errors
    /// `Numeric` if the network's spectra are not numbers; [`reset`](Self::reset) begins anew.
    pub fn push(&mut self, tokens: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let columns = self.network.columns();
        for frame in self.network.push(tokens)?.chunks_exact(columns) {
            // A limit or a conversion further on would make silence or noise of them.
            if !frame.iter().all(|x| x.is_finite()) {
                let what = "the codec's spectra are not numbers: check its file with \
                            `voxgrain inspect --verify`";
                return Err(Error::new(ErrorKind::Numeric, what));
            }
            let done = self.istft.frame(frame);
            let skipped = self.skip.min(done.len());
            self.skip -= skipped;
            out.extend_from_slice(&done[skipped..]);
        }
        Ok(())
    }

    /// Appends the samples still held back and goes back to the start of a stream.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        // Nothing was pushed if the first samples are still to be skipped.
        if self.skip < self.trim {
            out.extend_from_slice(&self.istft.pending()[..self.trim]);
        }
        self.reset();
    }

    /// Drops whatever is held back: the start of a new stream.
    pub fn reset(&mut self) {
        self.network.reset();
        self.istft.reset();
        self.skip = self.trim;
    }
}

/// Inverse short-time Fourier transform with a periodic Hann window, one frame at a time.
struct Istft {
    fft: Arc<dyn Fft<f32>>,
    size: usize,
    hop: usize,
    max_log_magnitude: f32,
    /// Window, inverse transform's 1/size and the overlap's gain in one factor.
    window: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// Sums that later frames still add to, `size` long; the first `hop` are complete
    /// after each frame.
    overlap: Vec<f32>,
    done: Vec<f32>,
}

impl Istft {
    fn new(size: usize, hop: usize, max_log_magnitude: f32) -> Self {
        // The scalar planner: the same bits whatever the CPU's vectors.
        let fft = FftPlannerScalar::new().plan_fft_inverse(size);
        let hann =
            |i: usize| 0.5 - 0.5 * libm::cos(2.0 * std::f64::consts::PI * i as f64 / size as f64);
        let gain: f64 = (0..size).map(|i| hann(i) * hann(i)).sum::<f64>() / hop as f64;
        let window = (0..size).map(|i| (hann(i) / gain / size as f64) as f32).collect();
        Self {
            size,
            hop,
            max_log_magnitude,
            window,
            spectrum: vec![Complex::default(); size],
            scratch: vec![Complex::default(); fft.get_inplace_scratch_len()],
            fft,
            overlap: vec![0.0; size],
            done: vec![0.0; hop],
        }
    }

    fn bins(&self) -> usize {
        self.size / 2 + 1
    }

    /// Adds one frame `[bins log-magnitudes, bins phases]`; returns the next `hop` samples.
    fn frame(&mut self, frame: &[f32]) -> &[f32] {
        let bins = self.bins();
        let (magnitudes, phases) = frame.split_at(bins);
        for (k, (m, p)) in magnitudes.iter().zip(phases).enumerate() {
            let m = libm::expf(m.min(self.max_log_magnitude));
            let (sin, cos) = libm::sincosf(*p);
            let mut c = Complex::new(m * cos, m * sin);
            // A real signal has no imaginary part at zero and at half the rate.
            if k == 0 || 2 * k == self.size {
                c.im = 0.0;
            } else {
                self.spectrum[self.size - k] = c.conj();
            }
            self.spectrum[k] = c;
        }
        self.fft.process_with_scratch(&mut self.spectrum, &mut self.scratch);
        for ((o, s), w) in self.overlap.iter_mut().zip(&self.spectrum).zip(&self.window) {
            *o += s.re * w;
        }
        self.done.copy_from_slice(&self.overlap[..self.hop]);
        self.overlap.copy_within(self.hop.., 0);
        self.overlap[self.size - self.hop..].fill(0.0);
        &self.done
    }

    /// Samples that later frames would still have added to.
    fn pending(&self) -> &[f32] {
        &self.overlap
    }

    fn reset(&mut self) {
        self.overlap.fill(0.0);
    }
}
