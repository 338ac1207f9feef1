//! Acoustic similarity groups: the index file, its reader and its builder.
//!
//! - [`format`](mod@format) specifies the file.
//! - [`Index`] reads it in place, `no_std` and without allocation, and is the
//!   [`Groups`](crate::core::Groups) that acceptance asks.
//! - With `std`, [`build`] searches neighbours and [`IndexBuilder`] writes the file.
//! - [`live`] needs no file: it finds the groups of one position among its likely tokens.

mod bits;
#[cfg(feature = "std")]
pub mod build;
#[cfg(feature = "std")]
mod error;
pub mod format;
mod index;
#[cfg(feature = "std")]
pub mod live;
#[cfg(feature = "std")]
mod order;
#[cfg(feature = "std")]
mod search;

#[cfg(feature = "std")]
pub use build::{BuildOptions, IndexBuilder, Order, Written, nearest_neighbours};
#[cfg(feature = "std")]
pub use error::BuildError;
pub use format::{Family, FormatError, Header, Metric, RowSource, retarget};
pub use index::{Index, Members, NoSimilarities, Weights};
