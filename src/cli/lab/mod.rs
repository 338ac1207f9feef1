//! What only research needs.

pub mod eval;
pub mod passes;
