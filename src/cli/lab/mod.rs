//! What only research needs, behind the feature `lab`: `eval`, the experiments on groups; `passes`,
//! bare passes of one model for tools/compare; `windows`, what streaming costs with a codec that looks both ways; and what `bench` does beyond measuring this machine.

pub mod bench;
pub mod eval;
mod kernels;
mod memory;
pub mod passes;
mod predict;
pub mod windows;
