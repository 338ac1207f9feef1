//! Where the random choices come from.
//!
//! Every rule takes its uniforms through [`Uniform`], so a test can script them and a
//! run can be repeated: the same seed gives the same values on every platform and in
//! every later version of this crate.

use rand_core::Rng;
use rand_pcg::Lcg64Xsh32;

/// A source of uniforms.
pub trait Uniform {
    /// The next value in `[0, 1)`, a multiple of 2^-24. Never 1.
    fn uniform(&mut self) -> f32;
}

impl<U: Uniform + ?Sized> Uniform for &mut U {
    fn uniform(&mut self) -> f32 {
        (**self).uniform()
    }
}

/// The top 24 bits of `bits` as a float in `[0, 1)`; every value is exact.
#[inline]
pub fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
}

/// PCG-XSH-RR 64/32: 64-bit multiplications only, so it is cheap on 32-bit targets too.
///
/// Value-stable: seed and stream determine every value, and a test holds the first
/// ones. It is not a cryptographic generator.
#[derive(Clone, Debug)]
pub struct SeededRng(Lcg64Xsh32);

impl SeededRng {
    /// Stream 0 of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_stream(seed, 0)
    }

    /// One of 2^63 independent streams of `seed`: give the drafter one and the verifier
    /// another, so that changing the draft length does not shift the verifier's draws.
    pub fn with_stream(seed: u64, stream: u64) -> Self {
        Self(Lcg64Xsh32::new(mix(seed), stream))
    }
}

/// The finaliser of SplitMix64: neighbouring seeds start far apart.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Uniform for SeededRng {
    fn uniform(&mut self) -> f32 {
        unit(self.0.next_u32())
    }
}

/// Uniforms read from a list, for tests; after the last one it starts again.
#[derive(Clone, Debug)]
pub struct Scripted<'a> {
    values: &'a [f32],
    used: usize,
}

impl<'a> Scripted<'a> {
    /// Replays `values`, each in `[0, 1)`. An empty list gives 0 for ever.
    pub fn new(values: &'a [f32]) -> Self {
        Self { values, used: 0 }
    }

    /// How many uniforms have been asked for.
    pub fn used(&self) -> usize {
        self.used
    }
}

impl Uniform for Scripted<'_> {
    fn uniform(&mut self) -> f32 {
        let at = self.used;
        self.used += 1;
        match self.values.len() {
            0 => 0.0,
            n => self.values[at % n],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_is_below_one() {
        assert_eq!(unit(0), 0.0);
        assert_eq!(unit(u32::MAX), 1.0 - 2f32.powi(-24));
    }
}
