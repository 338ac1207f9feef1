//! From text to utterances, and from samples to files and ears.

pub mod text;
pub mod wav;
