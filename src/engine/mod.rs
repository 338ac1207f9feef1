//! The models: ONNX graphs walked by tract, our operators over mapped weights.
//!
//! The only part of the crate that names tract. A [`Model`] is immutable and shared; a
//! [`Session`] or [`CodecSession`] holds the state of one utterance. Weights are slices of
//! the mapped file from load to multiplication: nothing is copied, so loading takes
//! milliseconds and resident memory is what has been touched.

mod kv;
mod load;
mod model;
mod nbits;
mod ops;
mod pack;
mod pool;
mod program;
mod session;
mod weight;
mod wire;

pub use model::{Model, TensorInfo};
pub use pack::{PackReport, pack, pack_bundle, stock_nodes};
pub use pool::{Pool, pin};
pub use session::{CodecSession, Session};
