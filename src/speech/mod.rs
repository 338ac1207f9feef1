//! From text to utterances, and from samples to files and ears.

#[cfg(feature = "engine")]
pub mod calibrate;
#[cfg(feature = "engine")]
pub mod calibration;
#[cfg(feature = "engine")]
pub mod codec;
#[cfg(feature = "engine")]
mod models;
pub mod phonemes;
#[cfg(feature = "audio")]
pub mod play;
#[cfg(feature = "engine")]
mod queue;
#[cfg(feature = "engine")]
pub mod stream;
#[cfg(feature = "engine")]
pub mod synth;
pub mod text;
#[cfg(feature = "engine")]
mod utterance;
#[cfg(feature = "engine")]
pub mod voice;
pub mod wav;
pub mod written;
