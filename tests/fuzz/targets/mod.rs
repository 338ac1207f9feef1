//! What each target does with an input: shared by cargo-fuzz (tests/fuzz) and tests/fuzzing.rs.

pub mod asg;
pub mod bundle;
#[cfg(feature = "capi")]
pub mod calls;
#[cfg(feature = "engine")]
pub mod guard;
pub mod lexicon;
pub mod markup;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "convert")]
pub mod pack;
pub mod text;
pub mod wav;

/// The folder of the repository, from its own tests and from tests/fuzz.
pub fn root() -> std::path::PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let up = here.ancestors().find(|d| d.join("models/tiny").is_dir());
    up.unwrap_or(here).to_path_buf()
}
