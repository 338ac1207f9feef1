//! Verifying drafted tokens: the rules, one position, one round.
//!
//! `p` is the target's row (`target_probs`), `q` the draft's (`draft_probs`), both after
//! the same sampling transforms. The draft proposed `x ~ q`.
//!
//! | [`Rule`]      | accepts `x` if                    | law of the emitted token |
//! |---------------|-----------------------------------|--------------------------|
//! | `TokenLevel`  | `u < p(x) / q(x)`                 | exactly `p` (Leviathan et al. 2023, Chen et al. 2023) |
//! | `Tolerance`   | `u < p(x) / q(x) + beta`          | not `p` for `beta > 0`: pulled towards `q` (arXiv 2505.15380) |
//! | `Groups`      | `u < P(g) / Q(g)`, `g ~ w(.\|x)`  | see [`Emission`] (arXiv 2511.13732, section 3) |
//! | `Transport`   | `u < p(x) / q(x)`, or else for a similar token that the draft has too little of | `p` up to one step between similar tokens: see [`transport`] |
//!
//! Groups overlap. Each is seeded by a token, so a group's id is its seed's, and the
//! kernel `w(g|t)` spreads every token over the groups that contain it, summing to one.
//! The coarse laws are `P(g) = sum_t w(g|t) p(t)` and `Q(g) = sum_t w(g|t) q(t)`. The
//! kernel may depend on `p` and `q` but never on the drafted token.
//!
//! What is exact for groups: the label `g` follows exactly `P`. The token follows `p`
//! only if it is emitted by [`Emission::Resample`], or if every group is a single token.
//! With [`Emission::StandIn`] its law is
//! `m(x) = sum_g w(g|x) q(x) min(1, P(g)/Q(g)) + (1 - alpha) sum_g R(g) w(g|x) p(x) / P(g)`
//! with `alpha = sum_g min(P(g), Q(g))` and the residual `R(g) ~ max(0, P(g) - Q(g))`:
//! within a group, the draft decides. `tests/law.rs` holds both laws to these formulas.
//!
//! All sums over a group are f64, in the order in which the index lists the members: a
//! group of hundreds of probabilities of mixed size would lose a part in 10^5 in f32,
//! and `P(g)/Q(g)` must be 1 where `p` and `q` agree.
//!
//! Uniforms are taken in a fixed order. One position: one for the group (only if `x` has
//! more than one), one for the decision, with `Resample` one for the token. A rejection
//! then takes for each try one for the token, one for the group (as before) and one for
//! the decision; the exact fallback takes one, or two where it works group by group. For
//! `Transport` see there.

use ::core::fmt;

use super::dist::{DistError, Row};
use super::rng::Uniform;
use super::transport;

/// A group, named by the token that seeds it.
pub type GroupId = u32;

/// What acceptance needs of the groups: a kernel `w(g|t)` over a codebook.
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
    /// from one that follows the target's law exactly. The module [`transport`] has the rule.
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

impl ::core::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn ::core::error::Error + 'static)> {
        match self {
            Self::Dist(e) => Some(e),
            _ => None,
        }
    }
}

/// Rows in order, wherever they live.
pub trait Rows {
    /// How many rows there are.
    fn count(&self) -> usize;
    /// Row `i`, `i < count()`.
    fn row(&self, i: usize) -> Result<Row<'_>, DistError>;
}

impl Rows for [Row<'_>] {
    fn count(&self) -> usize {
        self.len()
    }
    fn row(&self, i: usize) -> Result<Row<'_>, DistError> {
        self.get(i).copied().ok_or(DistError::Empty)
    }
}

impl<const N: usize> Rows for [Row<'_>; N] {
    fn count(&self) -> usize {
        N
    }
    fn row(&self, i: usize) -> Result<Row<'_>, DistError> {
        self.get(i).copied().ok_or(DistError::Empty)
    }
}

impl<R: Rows + ?Sized> Rows for &R {
    fn count(&self) -> usize {
        (**self).count()
    }
    fn row(&self, i: usize) -> Result<Row<'_>, DistError> {
        (**self).row(i)
    }
}

/// Target rows that are made where verification gets to them, each in the place of the one
/// before: a round that ends early makes fewer, and one buffer serves them all.
pub trait LazyRows {
    /// What making a row reports, and whatever the rule does.
    type Error: From<AcceptError>;
    /// Makes row `i`. Asked for in order, once each.
    fn make(&mut self, i: usize) -> Result<Row<'_>, Self::Error>;
}

impl<R: Rows + ?Sized> LazyRows for &R {
    type Error = AcceptError;
    fn make(&mut self, i: usize) -> Result<Row<'_>, AcceptError> {
        Ok(self.row(i)?)
    }
}

/// Rows one behind the other in two flat buffers of the caller, which may be longer.
#[derive(Clone, Copy, Debug)]
pub struct RowBuffer<'a> {
    probs: &'a [f32],
    block_sums: &'a [f32],
    vocabulary: usize,
    rows: usize,
}

impl<'a> RowBuffer<'a> {
    /// `probs`: `[rows, vocabulary]`, `block_sums`: `[rows, block_count(vocabulary)]`.
    pub fn new(
        probs: &'a [f32],
        block_sums: &'a [f32],
        vocabulary: usize,
        rows: usize,
    ) -> Result<Self, DistError> {
        if vocabulary == 0 || rows.checked_mul(vocabulary).is_none_or(|n| n > probs.len()) {
            return Err(DistError::Empty);
        }
        let expected = rows * super::dist::block_count(vocabulary);
        if expected > block_sums.len() {
            return Err(DistError::BlockSums { expected, found: block_sums.len() });
        }
        Ok(Self { probs, block_sums, vocabulary, rows })
    }
}

impl Rows for RowBuffer<'_> {
    fn count(&self) -> usize {
        self.rows
    }
    fn row(&self, i: usize) -> Result<Row<'_>, DistError> {
        if i >= self.rows {
            return Err(DistError::Empty);
        }
        let (v, b) = (self.vocabulary, super::dist::block_count(self.vocabulary));
        Row::new(&self.probs[i * v..(i + 1) * v], &self.block_sums[i * b..(i + 1) * b])
    }
}

/// One token from the target's row: the `ar` arm, and the bonus of the others.
pub fn sample(row: Row<'_>, uniforms: &mut impl Uniform) -> Result<u32, DistError> {
    row.draw(uniforms.uniform())
}

/// Verifies the `gamma = drafted.len()` tokens of one draft.
///
/// `target`: `gamma + 1` rows, row `i` the target's law of the token at `drafted[i]`
/// with `drafted[..i]` before it. `draft`: `gamma` rows, row `i` what `drafted[i]` was
/// drawn from. `gamma = 0` samples one token. Nothing is allocated; a round costs about
/// two listings of a group a position.
pub fn verify_round<G: Groups>(
    target: &(impl Rows + ?Sized),
    draft: &(impl Rows + ?Sized),
    drafted: &[u32],
    rule: &Rule<'_, G>,
    uniforms: &mut impl Uniform,
) -> Result<Verdict, AcceptError> {
    let gamma = drafted.len();
    if target.count() != gamma + 1 || draft.count() != gamma {
        return Err(AcceptError::Rows { gamma, target: target.count(), draft: draft.count() });
    }
    verify_lazily(&mut { target }, draft, drafted, rule, uniforms)
}

/// [`verify_round`] with the target's rows made one by one: `gamma + 1` of them, if it comes
/// to that.
pub fn verify_lazily<L: LazyRows, G: Groups>(
    target: &mut L,
    draft: &(impl Rows + ?Sized),
    drafted: &[u32],
    rule: &Rule<'_, G>,
    uniforms: &mut impl Uniform,
) -> Result<Verdict, L::Error> {
    let gamma = drafted.len();
    if draft.count() != gamma {
        return Err(AcceptError::Rows { gamma, target: gamma + 1, draft: draft.count() }.into());
    }
    for (i, &x) in drafted.iter().enumerate() {
        let draft = draft.row(i).map_err(AcceptError::from)?;
        match verify_position(target.make(i)?, draft, x, rule, uniforms)? {
            Outcome::Accepted => {}
            Outcome::Ended { next, origin, tries, exhausted } => {
                return Ok(Verdict { accepted: i, next, origin, tries, exhausted });
            }
        }
    }
    let last = target.make(gamma)?;
    last.check_normalised().map_err(AcceptError::from)?;
    let next = sample(last, uniforms).map_err(AcceptError::from)?;
    Ok(Verdict { accepted: gamma, next, origin: Origin::Bonus, tries: 0, exhausted: false })
}

/// Verifies one drafted token: `target` is `p`, `draft` is `q`, and `x ~ q`.
pub fn verify_position<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    x: u32,
    rule: &Rule<'_, G>,
    uniforms: &mut impl Uniform,
) -> Result<Outcome, AcceptError> {
    check_pair(target, draft)?;
    let (p, q) = (f64::from(target.prob(x)), f64::from(draft.prob(x)));
    if x as usize >= target.vocabulary() {
        return Err(AcceptError::TokenOutOfRange { token: x });
    }
    if !p.is_finite() || !q.is_finite() {
        return Err(DistError::NotFinite.into());
    }
    if q <= 0.0 {
        return Err(AcceptError::Undraftable { token: x });
    }
    let beta = match *rule {
        Rule::Groups { groups, emission } => {
            return verify_group(target, draft, x, groups, emission, uniforms);
        }
        Rule::Transport { groups } => {
            return transport::verify(target, draft, x, groups, uniforms);
        }
        Rule::TokenLevel => 0.0,
        Rule::Tolerance { beta } if beta >= 0.0 => f64::from(beta),
        Rule::Tolerance { beta } => return Err(AcceptError::Beta(beta)),
    };
    // Strict, so that probability 0 is never accepted.
    if f64::from(uniforms.uniform()) < p / q + beta {
        return Ok(Outcome::Accepted);
    }
    let r = residual(target, draft, &Singletons, TOKEN_TRIES, uniforms)?;
    Ok(r.recovered())
}

fn verify_group<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    x: u32,
    groups: &G,
    emission: Emission,
    uniforms: &mut impl Uniform,
) -> Result<Outcome, AcceptError> {
    check_codebook(target, groups)?;
    let group = owner(groups, x, uniforms);
    let (coarse_target, coarse_draft) = coarse(target, draft, groups, group)?;
    if coarse_draft <= 0.0 {
        return Err(AcceptError::GroupMismatch { group });
    }
    if f64::from(uniforms.uniform()) < coarse_target / coarse_draft {
        if emission == Emission::StandIn {
            return Ok(Outcome::Accepted);
        }
        let next = draw_member(target, groups, group, coarse_target, uniforms)?;
        return Ok(if next == x {
            Outcome::Accepted
        } else {
            Outcome::Ended { next, origin: Origin::Resampled, tries: 0, exhausted: false }
        });
    }
    Ok(residual(target, draft, groups, GROUP_TRIES, uniforms)?.recovered())
}

/// Tries before the exact residual. By token that is two scans of the vocabulary, so few.
/// By group it is up to two listings of every group, a third of a second at 65,536 groups
/// of 282, so many: a try lists one group, and a position needs more than 4,096 of them
/// with a chance below 10^-4, whatever `TV(P, Q)` is.
const TOKEN_TRIES: u32 = 64;
const GROUP_TRIES: u32 = 4096;

/// A token drawn from the residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residual {
    /// The token.
    pub token: u32,
    /// Tries of the thinning.
    pub tries: u32,
    /// Whether they did not suffice.
    pub exhausted: bool,
}

impl Residual {
    pub(super) fn recovered(self) -> Outcome {
        let Self { token: next, tries, exhausted } = self;
        Outcome::Ended { next, origin: Origin::Recovered, tries, exhausted }
    }
}

/// Draws `g` from `R(g) ~ max(0, P(g) - Q(g))` and a token from `w(g|t) p(t) / P(g)`.
///
/// By thinning: `t ~ p`, `g ~ w(.|t)`, kept if `u < 1 - Q(g)/P(g)`. That needs
/// `1 / TV(P, Q)` tries on average, and a rejection happens with probability `TV(P, Q)`.
/// After `max_tries` the residual is computed in full, again without a vector over
/// groups: once for its mass, once to find the drawn point. The law is the same, so the
/// bound costs no exactness. Should `P` and `Q` agree to rounding everywhere, no residual
/// is left and the token is drawn from `p`, which then differs from it by rounding.
pub fn residual<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    max_tries: u32,
    uniforms: &mut impl Uniform,
) -> Result<Residual, AcceptError> {
    check_pair(target, draft)?;
    check_codebook(target, groups)?;
    for tries in 1..=max_tries {
        let token = target.draw(uniforms.uniform())?;
        let group = owner(groups, token, uniforms);
        let (coarse_target, coarse_draft) = coarse(target, draft, groups, group)?;
        if coarse_target <= 0.0 {
            return Err(AcceptError::GroupMismatch { group });
        }
        if f64::from(uniforms.uniform()) < 1.0 - coarse_draft / coarse_target {
            return Ok(Residual { token, tries, exhausted: false });
        }
    }
    let found = exact_residual(target, draft, groups, uniforms)?;
    exhausted(target, found, max_tries, uniforms)
}

/// The end of `tries` that did not suffice: what the residual in full gave, and where rounding
/// left nothing of it a draw from the target.
pub(super) fn exhausted(
    target: Row<'_>,
    found: Option<u32>,
    tries: u32,
    uniforms: &mut impl Uniform,
) -> Result<Residual, AcceptError> {
    let token = match found {
        Some(token) => token,
        None => target.draw(uniforms.uniform())?,
    };
    Ok(Residual { token, tries, exhausted: true })
}

/// `None`: the residual has no mass.
fn exact_residual<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    uniforms: &mut impl Uniform,
) -> Result<Option<u32>, AcceptError> {
    // Two orders of the same sum. By group: every group once. By token: the groups of
    // every token that the target allows, which is less after top-k or top-p.
    let support = target.probs().iter().filter(|&&p| p > 0.0).count() as f32;
    if support * groups.mean_members() < groups.codebook() as f32 {
        exact_by_token(target, draft, groups, uniforms)
    } else {
        exact_by_group(target, draft, groups, uniforms)
    }
}

fn exact_by_token<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    uniforms: &mut impl Uniform,
) -> Result<Option<u32>, AcceptError> {
    // The residual's token law: p(t) sum_g w(g|t) max(0, 1 - Q(g)/P(g)).
    let mass_of = |token: u32, p: f32| -> Result<f64, AcceptError> {
        if token >= groups.codebook() {
            return Ok(f64::max(0.0, f64::from(p) - f64::from(draft.prob(token))));
        }
        let (mut sum, mut error) = (0f64, None);
        groups.for_each_owner(token, |group, w| {
            match coarse(target, draft, groups, group) {
                Ok((cp, cq)) if cp > cq => sum += f64::from(w) * (1.0 - cq / cp),
                Ok(_) => {}
                Err(e) => error = Some(e),
            };
        });
        error.map_or(Ok(sum * f64::from(p)), Err)
    };
    draw_by_mass(target, mass_of, uniforms)
}

/// Draws by `mass_of(token, p)` among the tokens that the target allows, in two passes so that
/// no memory is needed. `None`: there is no mass.
pub(super) fn draw_by_mass(
    target: Row<'_>,
    mass_of: impl Fn(u32, f32) -> Result<f64, AcceptError>,
    uniforms: &mut impl Uniform,
) -> Result<Option<u32>, AcceptError> {
    let positive = || {
        let tokens = target.probs().iter().enumerate();
        tokens.filter(|(_, p)| **p > 0.0).map(|(t, &p)| (t as u32, p))
    };
    let mut total = 0f64;
    for (token, p) in positive() {
        total += mass_of(token, p)?;
    }
    if total <= 0.0 {
        return Ok(None);
    }
    let goal = f64::from(uniforms.uniform()) * total;
    let (mut sum, mut last) = (0f64, None);
    for (token, p) in positive() {
        let mass = mass_of(token, p)?;
        if mass > 0.0 {
            sum += mass;
            last = Some(token);
            if goal < sum {
                break;
            }
        }
    }
    Ok(last)
}

fn exact_by_group<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    uniforms: &mut impl Uniform,
) -> Result<Option<u32>, AcceptError> {
    let ids = 0..target.vocabulary() as u32;
    let mut total = 0f64;
    for group in ids.clone() {
        let (cp, cq) = coarse(target, draft, groups, group)?;
        total += f64::max(0.0, cp - cq);
    }
    if total <= 0.0 {
        return Ok(None);
    }
    let goal = f64::from(uniforms.uniform()) * total;
    let (mut sum, mut last) = (0f64, None);
    for group in ids {
        let (cp, cq) = coarse(target, draft, groups, group)?;
        if cp > cq {
            sum += cp - cq;
            last = Some((group, cp));
            if goal < sum {
                break;
            }
        }
    }
    match last {
        Some((group, cp)) => draw_member(target, groups, group, cp, uniforms).map(Some),
        None => Ok(None),
    }
}

/// `g ~ w(.|token)`; takes a uniform only where there is a choice.
#[inline]
fn owner<G: Groups>(groups: &G, token: u32, uniforms: &mut impl Uniform) -> GroupId {
    if token >= groups.codebook() || groups.owner_count(token) <= 1 {
        return token;
    }
    groups.draw_owner(token, uniforms.uniform())
}

/// `(P(group), Q(group))`.
#[inline]
fn coarse<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    group: GroupId,
) -> Result<(f64, f64), AcceptError> {
    if group >= groups.codebook() {
        return Ok((f64::from(target.prob(group)), f64::from(draft.prob(group))));
    }
    let (p, q) = (target.probs(), draft.probs());
    let (mut cp, mut cq, mut inside) = (0f64, 0f64, true);
    groups.for_each_member(group, |t, w| match (p.get(t as usize), q.get(t as usize)) {
        (Some(&p), Some(&q)) => {
            cp += f64::from(w) * f64::from(p);
            cq += f64::from(w) * f64::from(q);
        }
        _ => inside = false,
    });
    if !inside {
        return Err(AcceptError::MemberOutOfRange { group });
    }
    if !(cp.is_finite() && cq.is_finite()) {
        return Err(DistError::NotFinite.into());
    }
    Ok((cp, cq))
}

/// `y ~ w(group|t) p(t) / P(group)`, where `coarse_target = P(group) > 0`.
fn draw_member<G: Groups>(
    target: Row<'_>,
    groups: &G,
    group: GroupId,
    coarse_target: f64,
    uniforms: &mut impl Uniform,
) -> Result<u32, AcceptError> {
    if group >= groups.codebook() {
        return Ok(group);
    }
    let goal = f64::from(uniforms.uniform()) * coarse_target;
    let (mut sum, mut found) = (0f64, None);
    groups.for_each_member(group, |t, w| {
        let mass = f64::from(w) * f64::from(target.prob(t));
        if mass > 0.0 && (found.is_none() || sum <= goal) {
            sum += mass;
            found = Some(t);
        }
    });
    found.ok_or(AcceptError::GroupMismatch { group })
}

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
