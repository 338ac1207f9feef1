//! The models: ONNX graphs walked by tract, our operators over mapped weights.
//!
//! The only part of the crate that names tract. A [`Model`] is immutable and shared; a
//! [`Session`] or [`CodecSession`] holds the state of one utterance. Weights are slices of
//! the mapped file from load to multiplication: nothing is copied, so loading takes
//! milliseconds and resident memory is what has been touched.

mod guard;
mod kv;
pub(crate) mod load;
mod model;
pub(crate) mod nbits;
pub(crate) mod node;
mod ops;
mod past;
mod pool;
mod program;
mod session;
mod shape;
mod state;
mod weight;

pub use model::Model;
pub use node::TensorInfo;
pub use pool::{Pool, cpus, pin};
pub use session::{CodecSession, Session};
pub use shape::AttentionShape;

/// ONNX files as messages, for the converter.
#[cfg(feature = "convert")]
pub(crate) use tract_onnx::pb;
