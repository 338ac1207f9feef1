//! Speech tokens to sound: the streaming half of the codec.

use crate::bundle::{Audio, Codec, CodecKind, Windows};
use crate::engine::{CodecSession, Model, Pool};
use crate::{Error, ErrorKind, Result};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlannerScalar};
use std::sync::Arc;

/// Speech tokens to PCM, as they come.
///
/// A frame's sound is complete once the spectra are in that its window overlaps. Any split of the
/// tokens into pushes gives the same samples: `n` tokens have `n` times
/// [`samples_per_frame`](Audio::samples_per_frame) of them, the last ones from
/// [`finish`](Self::finish).
///
/// A decoder that looks both ways gets its tokens in windows that depend on nothing but their number:
/// the first sound after [`Windows::first`] tokens, then more a window, up to [`Windows::new`].
/// Each token is decoded once as part of the sound, and up to [`Windows::ahead`] times as the view
/// ahead of others; of what is past, keys, values and sums are kept.
pub struct CodecDecoder {
    network: CodecSession,
    inverse: Inverse,
    windows: Option<Waiting>,
}

/// Tokens that wait for their window.
struct Waiting {
    windows: Windows,
    tokens: Vec<u32>,
    /// How many of them the next window adds to the sound.
    keep: usize,
}

impl Waiting {
    fn new(windows: Windows) -> Self {
        let room = windows.first.max(windows.new + windows.ahead) + 16;
        let mut new = Self { windows, tokens: Vec::with_capacity(room), keep: 0 };
        new.reset();
        new
    }

    fn reset(&mut self) {
        self.tokens.clear();
        self.keep = self.windows.first - self.windows.ahead;
    }

    /// Half as many tokens more than the last window had: whoever makes tokens a little faster than
    /// they sound has the next window's before the last one's sound has ended.
    fn advance(&mut self) {
        self.tokens.drain(..self.keep);
        self.keep = (self.keep + self.keep.div_ceil(2)).min(self.windows.new);
    }
}

impl Windows {
    /// Most tokens of one pass.
    pub(crate) fn longest(&self) -> usize {
        (self.new.max(self.first - self.ahead) + self.ahead).max(self.back)
    }

    /// Positions that a stream keeps keys and values of, `held` of them those of a reference.
    pub(crate) fn room(&self, held: usize) -> usize {
        held + self.back
    }
}

impl std::fmt::Debug for CodecDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodecDecoder({:?})", self.network)
    }
}

/// Whether a codec's graph is what its description says.
///
/// # Errors
/// `Mismatch`, saying which of the two claims what.
pub(super) fn check(model: &Model, audio: &Audio, codec: &Codec) -> Result<()> {
    let kind = codec.kind;
    let wrong = |what: String| Err(Error::new(ErrorKind::Mismatch, what));
    if model.output_columns() != 2 * audio.bins() {
        return wrong(format!(
            "the codec writes {} values a frame, an FFT of {} needs {}",
            model.output_columns(),
            audio.fft_size,
            2 * audio.bins()
        ));
    }
    let rows = model.rows_per_token();
    if rows != audio.spectra_per_frame() {
        return wrong(format!(
            "the codec writes {rows} spectra a token, tokens of {} samples in hops of {} need {}",
            audio.samples_per_frame(),
            audio.hop,
            audio.spectra_per_frame()
        ));
    }
    if model.looks_ahead() != (kind == CodecKind::Windowed) {
        let (is, said) = match model.looks_ahead() {
            true => ("looks both ways", "causal"),
            false => ("looks back alone", "windowed"),
        };
        return wrong(format!("the codec {is}, bundle.toml says codec.kind = {said:?}"));
    }
    Ok(())
}

impl CodecDecoder {
    /// The start of a stream.
    ///
    /// # Errors
    /// `Mismatch` if the model is not what the description says of the codec.
    pub fn new(model: &Arc<Model>, pool: &Arc<Pool>, audio: &Audio, codec: &Codec) -> Result<Self> {
        Self::with_reference(model, pool, audio, codec, &[])
    }

    /// The start of streams that continue the codes of a reference, such as those in the prompt of a
    /// cloned voice: they sound like it from the first frame on. Of a long reference the last
    /// [`Windows::back`] codes are used. Nothing of it is heard. A causal decoder needs none and
    /// begins anew.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_reference(
        model: &Arc<Model>,
        pool: &Arc<Pool>,
        audio: &Audio,
        codec: &Codec,
        reference: &[u32],
    ) -> Result<Self> {
        check(model, audio, codec)?;
        let windows = codec.windows();
        let network = match &windows {
            None => CodecSession::new(model, pool)?,
            Some(w) => {
                let reference = &reference[reference.len().saturating_sub(w.back)..];
                let room = w.room(reference.len());
                let mut network = CodecSession::with_past(model, pool, room, w.longest())?;
                network.push(reference)?;
                network.hold();
                network
            }
        };
        let inverse = Inverse::new(audio, codec);
        Ok(Self { network, inverse, windows: windows.map(Waiting::new) })
    }

    /// All samples of `tokens`, made in one pass where the decoder looks both ways: what a stream of
    /// them comes close to.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`push`](Self::push).
    pub fn whole(
        model: &Arc<Model>,
        pool: &Arc<Pool>,
        audio: &Audio,
        codec: &Codec,
        tokens: &[u32],
    ) -> Result<Vec<f32>> {
        check(model, audio, codec)?;
        let mut network = CodecSession::with_past(model, pool, 0, tokens.len())?;
        let mut inverse = Inverse::new(audio, codec);
        let mut out = Vec::new();
        inverse.push(network.push(tokens)?, &mut out)?;
        inverse.finish(&mut out);
        Ok(out)
    }

    /// Decodes the next tokens and appends the samples (-1..=1, a little beyond where the
    /// codec overshoots) that are now complete.
    ///
    /// # Errors
    /// `Numeric` if the network's spectra are not numbers; [`reset`](Self::reset) begins anew.
    pub fn push(&mut self, tokens: &[u32], out: &mut Vec<f32>) -> Result<()> {
        let Self { network, inverse, windows } = self;
        let Some(w) = windows else { return inverse.push(network.push(tokens)?, out) };
        let mut tokens = tokens;
        while !tokens.is_empty() {
            let size = w.keep + w.windows.ahead;
            let (now, later) = tokens.split_at(tokens.len().min(size - w.tokens.len()));
            w.tokens.extend_from_slice(now);
            tokens = later;
            if w.tokens.len() == size {
                let kept = w.keep * network.columns();
                inverse.push(&network.pass(&w.tokens, w.keep)?[..kept], out)?;
                w.advance();
            }
        }
        Ok(())
    }

    /// Appends the samples still held back and goes back to the start of a stream.
    ///
    /// # Errors
    /// As [`push`](Self::push): tokens that waited for their window are decoded here.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<()> {
        let Self { network, inverse, windows } = self;
        if let Some(w) = windows {
            inverse.push(network.push(&w.tokens)?, out)?;
        }
        inverse.finish(out);
        self.reset();
        Ok(())
    }

    /// Drops whatever is held back: the start of a new stream.
    pub fn reset(&mut self) {
        self.network.reset();
        self.inverse.reset();
        if let Some(w) = &mut self.windows {
            w.reset();
        }
    }
}

/// Spectra to samples: the codec's half that is no network.
pub struct Inverse {
    istft: Istft,
    /// Samples before the sound: frames are centred, so half of what overlaps on each side lies
    /// outside.
    trim: usize,
    /// How many of them are still to come.
    skip: usize,
}

impl Inverse {
    /// The start of a stream of spectra as the description has them.
    pub fn new(audio: &Audio, codec: &Codec) -> Self {
        let istft = Istft::new(
            audio.fft_size as usize,
            audio.hop as usize,
            audio.max_log_magnitude,
            codec.kind == CodecKind::Windowed,
        );
        let trim = (audio.fft_size - audio.hop) as usize / 2;
        Self { istft, trim, skip: trim }
    }

    /// Appends the samples that the next spectra, `[frames][2 bins]`, complete.
    ///
    /// # Errors
    /// `Numeric` if they are not numbers.
    pub fn push(&mut self, spectra: &[f32], out: &mut Vec<f32>) -> Result<()> {
        for frame in spectra.chunks_exact(2 * self.istft.bins()) {
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

    /// Appends the samples still held back and goes back to the start.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        // Nothing was pushed if all of the first samples are still to be skipped.
        if self.skip < self.trim {
            self.istft.pending(self.skip..self.trim, out);
        }
        self.reset();
    }

    fn reset(&mut self) {
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
    /// What the squares of the windows sum up to there, where the sound is divided by that: at its
    /// ends fewer overlap. Without it the window has the gain of the middle in it.
    energy: Option<Energy>,
    done: Vec<f32>,
}

/// Squares of the window and their sums over the frames so far.
struct Energy {
    squares: Vec<f32>,
    sums: Vec<f32>,
}

/// Smallest energy that is divided by.
const MIN_ENERGY: f32 = 1e-11;

impl Istft {
    fn new(size: usize, hop: usize, max_log_magnitude: f32, by_energy: bool) -> Self {
        // The scalar planner: the same bits whatever the CPU's vectors.
        let fft = FftPlannerScalar::new().plan_fft_inverse(size);
        let hann =
            |i: usize| 0.5 - 0.5 * libm::cos(2.0 * std::f64::consts::PI * i as f64 / size as f64);
        let gain = match by_energy {
            true => 1.0,
            false => (0..size).map(|i| hann(i) * hann(i)).sum::<f64>() / hop as f64,
        };
        let squares = || (0..size).map(|i| (hann(i) * hann(i)) as f32).collect();
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
            energy: by_energy.then(|| Energy { squares: squares(), sums: vec![0.0; size] }),
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
        if let Some(e) = &mut self.energy {
            e.sums.iter_mut().zip(&e.squares).for_each(|(sum, s)| *sum += s);
            self.done.iter_mut().zip(&e.sums).for_each(|(o, sum)| *o /= sum.max(MIN_ENERGY));
            e.sums.copy_within(self.hop.., 0);
            e.sums[self.size - self.hop..].fill(0.0);
        }
        self.overlap.copy_within(self.hop.., 0);
        self.overlap[self.size - self.hop..].fill(0.0);
        &self.done
    }

    /// Appends samples that later frames would still have added to.
    fn pending(&self, range: std::ops::Range<usize>, out: &mut Vec<f32>) {
        let from = out.len();
        out.extend_from_slice(&self.overlap[range.clone()]);
        if let Some(e) = &self.energy {
            let sums = out[from..].iter_mut().zip(&e.sums[range]);
            sums.for_each(|(o, sum)| *o /= sum.max(MIN_ENERGY));
        }
    }

    fn reset(&mut self) {
        self.overlap.fill(0.0);
        if let Some(e) = &mut self.energy {
            e.sums.fill(0.0);
        }
    }
}
