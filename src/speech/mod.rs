//! From text to utterances, and from samples to files and ears.

#[cfg(feature = "engine")]
pub mod codec;
pub mod pace;
pub mod phonemes;
#[cfg(feature = "audio")]
pub mod play;
#[cfg(feature = "engine")]
pub mod synth;
pub mod text;
pub mod wav;
