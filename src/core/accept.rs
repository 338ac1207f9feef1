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
//! split `w(g|t)` spreads every token over the groups that contain it, summing to one.
//! The coarse laws are `P(g) = sum_t w(g|t) p(t)` and `Q(g) = sum_t w(g|t) q(t)`. The
//! split may depend on `p` and `q` but never on the drafted token.
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

use super::dist::{DistError, Row};
use super::residual::{draw_by_mass, exhausted};
use super::rng::Uniform;
use super::rule::{check_codebook, check_pair};
use super::transport;

pub use super::residual::Residual;
pub use super::rule::{
    AcceptError, Emission, GroupId, Groups, Origin, Outcome, Rule, Singletons, Verdict,
};

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
