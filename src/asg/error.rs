//! Why an index cannot be built.

use std::fmt;

use super::format::MAX_CODEBOOK;

/// Why an index cannot be built.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BuildError {
    /// The rows are not `[codebook, hidden]`, or there are none or too many.
    Shape {
        /// Values given.
        values: usize,
        /// Values a row.
        hidden: usize,
    },
    /// A row holds a NaN or an infinity.
    NotFinite {
        /// The row's token.
        token: u32,
    },
    /// The threshold lets in more pairs than can be kept.
    TooManyPairs {
        /// What can be kept.
        limit: usize,
    },
    /// The mask has another length than the codebook.
    Mask {
        /// Tokens in the codebook.
        expected: usize,
        /// Tokens in the mask.
        found: usize,
    },
    /// The metric does not belong to the kind of input, or the family to the call.
    Unsupported,
    /// A power of 0 or less, or not finite.
    Power,
    /// A threshold that is NaN or infinite.
    Theta,
    /// A list names a token outside the codebook.
    TokenOutOfRange {
        /// The group.
        group: u32,
        /// The token.
        token: u32,
    },
    /// The given order is not a permutation of the codebook.
    Order,
    /// The groups do not fit the format's 32-bit offsets.
    TooLarge,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { values, hidden } => write!(
                f,
                "{values} values are not rows of {hidden} for 1 to {MAX_CODEBOOK} tokens: slice the table to the codebook"
            ),
            Self::NotFinite { token } => {
                write!(f, "row {token} holds a NaN or an infinity: check the weights file")
            }
            Self::TooManyPairs { limit } => {
                write!(f, "more than {limit} pairs pass the threshold: raise theta, or use top-K")
            }
            Self::Mask { expected, found } => {
                write!(f, "the mask covers {found} tokens, the codebook has {expected}")
            }
            Self::Unsupported => f.write_str(
                "this metric and family do not go with this input: rows take cosine and Euclidean, FSQ digits L1 and Hamming",
            ),
            Self::Power => f.write_str("the power of similarity weights must be above 0"),
            Self::Theta => f.write_str("the threshold must be a number"),
            Self::TokenOutOfRange { group, token } => {
                write!(f, "group {group} lists token {token}, which is outside the codebook")
            }
            Self::Order => f.write_str("the order must list every token of the codebook once"),
            Self::TooLarge => {
                f.write_str("the groups exceed 2^32 bits: raise theta or cap the members")
            }
        }
    }
}

impl std::error::Error for BuildError {}
