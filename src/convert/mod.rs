//! Rewriting models and bundles offline, without loss.
//!
//! Above the engine, whose reading of a graph it uses, the bundle and the group index, all of
//! which follow a model that changes. Nothing that speaks needs it, so it has a feature of its
//! own that device builds leave out.

mod output;
mod pack;
pub(crate) mod wire;

pub(crate) use output::{Output, unwritable};
pub use pack::{PackReport, pack, pack_bundle, stock_nodes};
