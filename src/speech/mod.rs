//! From text to utterances, and from samples to files and ears.

#[cfg(feature = "audio")]
pub mod play;
pub mod text;
pub mod wav;
