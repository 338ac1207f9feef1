//! What every acceptance rule shares: groups, rules, verdicts, and why a round cannot be verified.

use ::core::fmt;

use super::dist::{DistError, Row};

/// A group, named by the token that seeds it.
pub type GroupId = u32;

/// What acceptance needs of the groups: a split `w(g|t)` of tokens over groups.
///
/// Implementations list only tokens below [`codebook`](Self::codebook); every id from
/// there on (end-of-speech) is a group of its own and is never asked about.
pub trait Groups {
    /// Tokens `0 .. codebook` are grouped, the rest are singletons.
    fn codebook(&self) -> u32;

    /// In how many groups `token` is: `N(t)`, at least 1.
    fn owner_count(&self, token: u32) -> u32;

    /// A group drawn from `w(.|token)` by `u` in `[0, 1)`; one with `w > 0`.
    fn draw_owner(&self, token: u32, u: f32) -> GroupId;

    /// Calls `visit(g, w(g|token))` for the groups that contain `token`.
    fn for_each_owner<F: FnMut(GroupId, f32)>(&self, token: u32, visit: F);

    /// Calls `visit(t, w(group|t))` for the members of `group`, always in one order.
    fn for_each_member<F: FnMut(u32, f32)>(&self, group: GroupId, visit: F);

    /// A guess at the members of an average group, to choose between two exact ways.
    fn mean_members(&self) -> f32;

    /// Whether `t` is in the group of `g` wherever `g` is in the group of `t`, so that groups
    /// are lists of similar tokens: what [`Rule::Transport`] needs. `false` unless promised.
    fn is_symmetric(&self) -> bool {
        false
    }

    /// Calls `visit(t)` for the tokens similar to `token`, always in one order: the members of
    /// its group, itself included.
    fn for_each_neighbour<F: FnMut(u32)>(&self, token: u32, mut visit: F) {
        self.for_each_member(token, |t, _| visit(t))
    }
}

impl<G: Groups + ?Sized> Groups for &G {
    fn codebook(&self) -> u32 {
        (**self).codebook()
    }
    fn owner_count(&self, token: u32) -> u32 {
        (**self).owner_count(token)
    }
    fn draw_owner(&self, token: u32, u: f32) -> GroupId {
        (**self).draw_owner(token, u)
    }
    fn for_each_owner<F: FnMut(GroupId, f32)>(&self, token: u32, visit: F) {
        (**self).for_each_owner(token, visit)
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, group: GroupId, visit: F) {
        (**self).for_each_member(group, visit)
    }
    fn mean_members(&self) -> f32 {
        (**self).mean_members()
    }
    fn is_symmetric(&self) -> bool {
        (**self).is_symmetric()
    }
    fn for_each_neighbour<F: FnMut(u32)>(&self, token: u32, visit: F) {
        (**self).for_each_neighbour(token, visit)
    }
}

/// Every token alone: `Groups` with it is `TokenLevel`, decision for decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Singletons;

impl Groups for Singletons {
    fn codebook(&self) -> u32 {
        0
    }
    fn owner_count(&self, _token: u32) -> u32 {
        1
    }
    fn draw_owner(&self, token: u32, _u: f32) -> GroupId {
        token
    }
    fn for_each_owner<F: FnMut(GroupId, f32)>(&self, token: u32, mut visit: F) {
        visit(token, 1.0)
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, group: GroupId, mut visit: F) {
        visit(group, 1.0)
    }
    fn mean_members(&self) -> f32 {
        1.0
    }
    fn is_symmetric(&self) -> bool {
        true
    }
}

/// What an accepted position emits under [`Rule::Groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Emission {
    /// The drafted token, standing in for its group (the paper). The group law is
    /// exactly `P`; the token law is not `p`.
    #[default]
    StandIn,
    /// A token drawn from the group, `y ~ w(g|t) p(t) / P(g)`. The token law is exactly
    /// `p`, but the round ends wherever `y` is not the drafted token, because the later
    /// drafts saw the drafted one. That leaves fewer tokens a round than `TokenLevel`:
    /// it is here to compare and to test with.
    Resample,
}

/// How drafted tokens are accepted. `G` matters for `Groups` and `Transport` only; see
/// [`Singletons`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Rule<'a, G> {
    /// Speculative sampling by token (`sd`); the law is exactly the target's.
    TokenLevel,
    /// By token with `beta >= 0` added to the acceptance probability (`tolerance`). A
    /// rejection draws from the token-level residual `max(0, p - q)`, so the law is not
    /// the target's.
    Tolerance {
        /// What is added; arXiv 2505.15380 uses 0.4.
        beta: f32,
    },
    /// By group (`pcg`).
    Groups {
        /// The groups with their weights.
        groups: &'a G,
        /// What an accepted position emits.
        emission: Emission,
    },
    /// By token, or for a similar token (`transport`): the emitted token is at most one step
    /// from one that follows the target's law exactly. The module [`transport`](super::transport) has the rule.
    Transport {
        /// Which tokens are similar; symmetric. Weights do not matter.
        groups: &'a G,
    },
}

/// Where a round's last token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A draft was rejected; drawn from the residual.
    Recovered,
    /// Every draft was accepted; drawn from the target's row after the last one.
    Bonus,
    /// A draft was accepted and [`Emission::Resample`] replaced it.
    Resampled,
}

/// The end of a round. It emits `drafted[..accepted]`, then `next`: `accepted + 1` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Drafted tokens that are emitted as they are, `0 ..= gamma`.
    pub accepted: usize,
    /// The token after them.
    pub next: u32,
    /// How `next` was found.
    pub origin: Origin,
    /// Tries of the thinning that found it; 0 where nothing was rejected.
    pub tries: u32,
    /// Whether the thinning gave up and the residual was computed in full.
    pub exhausted: bool,
}

/// The end of one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The drafted token is emitted and the round goes on.
    Accepted,
    /// Another token is emitted and the round is over.
    Ended {
        /// The token.
        next: u32,
        /// `Recovered` or `Resampled`.
        origin: Origin,
        /// As in [`Verdict`].
        tries: u32,
        /// As in [`Verdict`].
        exhausted: bool,
    },
}

/// Why a round cannot be verified. None of these happens with sound models and a
/// verified index; each is reported before anything is divided by zero.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum AcceptError {
    /// A row cannot be used.
    Dist(DistError),
    /// The rows do not cover the same vocabulary.
    Vocabulary {
        /// Of the target's row.
        target: usize,
        /// Of the draft's row.
        draft: usize,
    },
    /// The groups cover more tokens than the rows.
    Codebook {
        /// Of the groups.
        codebook: u32,
        /// Of the rows.
        vocabulary: usize,
    },
    /// For gamma drafted tokens there must be gamma draft rows and gamma + 1 target rows.
    Rows {
        /// Drafted tokens.
        gamma: usize,
        /// Target rows.
        target: usize,
        /// Draft rows.
        draft: usize,
    },
    /// A drafted token is outside the vocabulary.
    TokenOutOfRange {
        /// The token.
        token: u32,
    },
    /// A drafted token has no probability in the draft's row: the row is another one, or
    /// was transformed after the draw.
    Undraftable {
        /// The token.
        token: u32,
    },
    /// A group holds no draft probability although the drafted token is in it: the
    /// members and the owners of the index disagree.
    GroupMismatch {
        /// The group.
        group: GroupId,
    },
    /// A group lists a token outside the vocabulary.
    MemberOutOfRange {
        /// The group.
        group: GroupId,
    },
    /// `beta` is negative or NaN.
    Beta(f32),
    /// Transport needs a symmetric relation, and the groups do not promise one.
    NotSymmetric,
    /// `token` lists `neighbour`, which does not list it, though the groups say that they are
    /// symmetric.
    OneSided {
        /// The token.
        token: u32,
        /// The other.
        neighbour: u32,
    },
    /// The scratch memory is too short.
    Scratch {
        /// Numbers that are needed: one a token.
        needed: usize,
        /// Numbers that are there.
        found: usize,
    },
}

impl From<DistError> for AcceptError {
    fn from(e: DistError) -> Self {
        Self::Dist(e)
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Dist(ref e) => e.fmt(f),
            Self::Vocabulary { target, draft } => write!(
                f,
                "the target's row has {target} tokens and the draft's {draft}: slice both to the sampled ids"
            ),
            Self::Codebook { codebook, vocabulary } => write!(
                f,
                "the group index covers {codebook} tokens but the rows only {vocabulary}: use the index built for this model"
            ),
            Self::Rows { gamma, target, draft } => write!(
                f,
                "{gamma} drafted tokens need {gamma} draft rows and one more target row, got {draft} and {target}"
            ),
            Self::TokenOutOfRange { token } => {
                write!(f, "drafted token {token} is outside the rows: draft only sampled ids")
            }
            Self::Undraftable { token } => write!(
                f,
                "drafted token {token} has draft probability 0: pass the row that it was drawn from"
            ),
            Self::GroupMismatch { group } => write!(
                f,
                "group {group} does not contain a token that names it: verify or rebuild the index"
            ),
            Self::MemberOutOfRange { group } => write!(
                f,
                "group {group} lists a token outside the vocabulary: verify or rebuild the index"
            ),
            Self::Beta(beta) => write!(f, "tolerance {beta} must be 0 or more"),
            Self::NotSymmetric => f.write_str(
                "acceptance by transport needs a symmetric group index: build one by a threshold or by symmetrised top-k lists",
            ),
            Self::OneSided { token, neighbour } => write!(
                f,
                "token {token} lists {neighbour}, which does not list it: verify or rebuild the index"
            ),
            Self::Scratch { needed, found } => {
                write!(f, "the scratch memory holds {found} numbers: give it {needed}, one a token")
            }
        }
    }
}

/// Without a source: [`AcceptError::Dist`] tells its cause itself.
impl ::core::error::Error for AcceptError {}

pub(super) fn check_pair(target: Row<'_>, draft: Row<'_>) -> Result<(), AcceptError> {
    if target.vocabulary() != draft.vocabulary() {
        return Err(AcceptError::Vocabulary {
            target: target.vocabulary(),
            draft: draft.vocabulary(),
        });
    }
    target.check_normalised()?;
    draft.check_normalised()?;
    Ok(())
}

pub(super) fn check_codebook<G: Groups>(target: Row<'_>, groups: &G) -> Result<(), AcceptError> {
    let (codebook, vocabulary) = (groups.codebook(), target.vocabulary());
    if codebook as usize > vocabulary {
        return Err(AcceptError::Codebook { codebook, vocabulary });
    }
    Ok(())
}
