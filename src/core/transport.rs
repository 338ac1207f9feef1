//! Acceptance by transport: [`Rule::Transport`](super::rule::Rule::Transport).
//!
//! `p` is the target's row, `q` the draft's, and `x ~ y` a symmetric relation of similar
//! tokens: the lists of a symmetric group index, whose weights do not matter here. Every
//! token is similar to itself, and an id from `codebook()` on to nothing else. The draft has
//! too much of some tokens, `s(x) = max(0, q(x) - p(x))`, and too little of others,
//! `r(y) = max(0, p(y) - q(y))`; what is in excess is moved to similar tokens that lack it:
//!
//! ```text
//! R(x) = sum of r(y) over y ~ x          S(y) = sum of s(x) over x ~ y
//! f(x, y) = s(x) r(y) / max(R(x), S(y))  for x ~ y, else 0
//! ```
//!
//! This moves no more than there is: `sum_y f(x, y) <= s(x) sum_y r(y) / R(x) = s(x)`, and
//! likewise `sum_x f(x, y) <= r(y)`. (No token has both parts, so none is its own `y`.)
//!
//! # One position
//! 1. `x ~ q` is accepted if `u < p(x) / q(x)`, as by token. What fails has mass `s(x)`.
//! 2. `y ~ x` is drawn by `r(y) / R(x)`, and `x` is accepted, for `y`, if
//!    `u < R(x) / max(R(x), S(y))`: mass `f(x, y)`. Without such `y` it is rejected.
//! 3. After a rejection a token is drawn from the law proportional to what is still missing,
//!    `r(t) - sum_x f(x, t)`: see [`residual`].
//!
//! # Law
//! The emitted token follows
//! `min(p, q)(t) + sum_y f(t, y) + r(t) - sum_x f(x, t)`.
//! Call `Y` the token that is accepted by 1, the `y` that `x` is accepted for in 2, the token
//! drawn in 3. `P(Y = t) = min(p, q)(t) + sum_x f(x, t) + r(t) - sum_x f(x, t) = p(t)`: so the
//! emitted token `X` and a token `Y` **exactly of the target's law** are drawn together, always
//! `X = Y` or `X ~ Y`, and they differ with probability `F = sum f`. Hence, for every set `A` of
//! tokens with its neighbours `N(A)`, `P(X in A) <= p(N(A))` and `p(A) <= P(X in N(A))`, and the
//! law of `X` is within `F` of `p` in total variation. (That the first inequality is enough for
//! such a coupling to exist is Strassen 1965, theorem 11; here it is made.) This holds for a
//! position given what is before it, and what is before it are emitted tokens.
//!
//! Acceptance is `1 - TV(p, q) + F`, never less than by token; without neighbours it is
//! speculative sampling by token, decision for decision. `docs/transport.md` has the
//! comparison with the largest flow and with acceptance by group.
//!
//! # Uniforms and cost
//! One uniform for step 1; if it fails and `R(x) > 0`, one for `y` and one for the decision. A
//! try of the residual takes one for the token and one for what it lacks, and, where its
//! neighbours have an excess, one for one of them and one for the decision. What passes step 1
//! lists no neighbours. Otherwise the list of `x` is read for `R(x)` and again for `y`, and the
//! list of `y` for `S(y)`. Sums are f64, in the order of the lists.

use super::dist::{DistError, Row};
use super::residual::{Residual, draw_by_mass, exhausted};
use super::rng::Uniform;
use super::rule::{AcceptError, Groups, Outcome, check_codebook, check_pair};

/// Tries before the exact residual, as by group: a position needs more with a chance below
/// 10^-4, whatever is left over.
const TRIES: u32 = 4096;

/// Which part of `p - q`.
#[derive(Clone, Copy)]
enum Part {
    /// `r`: what the draft has too little of.
    Deficit,
    /// `s`: what it has too much of.
    Excess,
}

struct Pair<'a, G> {
    target: Row<'a>,
    draft: Row<'a>,
    groups: &'a G,
}

impl<'a, G: Groups> Pair<'a, G> {
    fn new(target: Row<'a>, draft: Row<'a>, groups: &'a G) -> Result<Self, AcceptError> {
        check_codebook(target, groups)?;
        if !groups.is_symmetric() {
            return Err(AcceptError::NotSymmetric);
        }
        Ok(Self { target, draft, groups })
    }

    /// At least 0; NaN if a probability is.
    #[inline]
    fn part(&self, part: Part, token: u32) -> f64 {
        let (p, q) = (f64::from(self.target.prob(token)), f64::from(self.draft.prob(token)));
        let part = match part {
            Part::Deficit => p - q,
            Part::Excess => q - p,
        };
        if part <= 0.0 { 0.0 } else { part }
    }

    /// The sum of `part` over the neighbours of `token`. `from`, whose neighbour `token` is,
    /// must be among them.
    fn around(&self, token: u32, part: Part, from: Option<u32>) -> Result<f64, AcceptError> {
        let (mut sum, mut inside, mut back) = (0f64, true, from.is_none());
        if token < self.groups.codebook() {
            self.groups.for_each_neighbour(token, |t| {
                inside &= (t as usize) < self.target.vocabulary();
                back |= Some(t) == from;
                sum += self.part(part, t);
            });
        }
        match from {
            _ if !inside => Err(AcceptError::MemberOutOfRange { group: token }),
            Some(from) if !back => Err(AcceptError::OneSided { token: from, neighbour: token }),
            _ if !sum.is_finite() => Err(DistError::NotFinite.into()),
            _ => Ok(sum),
        }
    }

    /// A neighbour of `token` by its share of `sum`, which is above 0.
    fn draw(&self, token: u32, part: Part, sum: f64, u: f32) -> Result<u32, AcceptError> {
        let goal = f64::from(u) * sum;
        let (mut before, mut found) = (0f64, None);
        self.groups.for_each_neighbour(token, |t| {
            let mass = self.part(part, t);
            if mass > 0.0 && (found.is_none() || before <= goal) {
                before += mass;
                found = Some(t);
            }
        });
        found.ok_or(AcceptError::GroupMismatch { group: token })
    }

    /// `r(token) - sum_x f(x, token)`.
    fn missing(&self, token: u32) -> Result<f64, AcceptError> {
        let deficit = self.part(Part::Deficit, token);
        if !deficit.is_finite() {
            return Err(DistError::NotFinite.into());
        }
        let over = if deficit > 0.0 { self.around(token, Part::Excess, None)? } else { 0.0 };
        if over <= 0.0 {
            return Ok(deficit);
        }
        let (mut covered, mut error) = (0f64, None);
        self.groups.for_each_neighbour(token, |x| {
            let excess = self.part(Part::Excess, x);
            if excess > 0.0 && error.is_none() {
                match self.around(x, Part::Deficit, Some(token)) {
                    Ok(lacking) => covered += excess / lacking.max(over),
                    Err(e) => error = Some(e),
                }
            }
        });
        error.map_or(Ok(deficit * (1.0 - covered).max(0.0)), Err)
    }
}

/// The rule for a drafted `x` that [`verify_position`](super::accept::verify_position) has
/// found sound: `p` and `q` of it are finite, `q > 0`.
pub(super) fn verify<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    x: u32,
    groups: &G,
    uniforms: &mut impl Uniform,
) -> Result<Outcome, AcceptError> {
    let pair = Pair::new(target, draft, groups)?;
    let (p, q) = (f64::from(target.prob(x)), f64::from(draft.prob(x)));
    if f64::from(uniforms.uniform()) < p / q {
        return Ok(Outcome::Accepted);
    }
    // From here on p < q: the excess of x is positive.
    let lacking = pair.around(x, Part::Deficit, None)?;
    if lacking > 0.0 {
        let y = pair.draw(x, Part::Deficit, lacking, uniforms.uniform())?;
        let over = pair.around(y, Part::Excess, Some(x))?;
        if f64::from(uniforms.uniform()) < lacking / lacking.max(over) {
            return Ok(Outcome::Accepted);
        }
    }
    Ok(residual(target, draft, groups, TRIES, uniforms)?.recovered())
}

/// Draws from the law proportional to `r(t) - sum_x f(x, t)`.
///
/// By thinning: `t ~ p` is kept if `u < r(t) / p(t)`; then, where `S(t) > 0`, `x ~ t` is drawn
/// by `s(x) / S(t)` and `t` dropped after all if `u < S(t) / max(R(x), S(t))`. A try succeeds with
/// the probability that a position is rejected, so about one try a position is needed in all.
/// After `max_tries` the law is summed in full, twice, without memory for it: that lists two
/// steps around every token that the target allows, milliseconds after top-k or top-p, seconds for
/// 65,536 tokens with a hundred neighbours each. The law is the same. If rounding leaves nothing
/// that is missing, the token is drawn from `p`.
///
/// # Errors
/// `NotSymmetric`, or what is wrong with the rows or the lists.
pub fn residual<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    max_tries: u32,
    uniforms: &mut impl Uniform,
) -> Result<Residual, AcceptError> {
    check_pair(target, draft)?;
    let pair = Pair::new(target, draft, groups)?;
    for tries in 1..=max_tries {
        let token = target.draw(uniforms.uniform())?;
        let (p, q) = (f64::from(target.prob(token)), f64::from(draft.prob(token)));
        if !q.is_finite() {
            return Err(DistError::NotFinite.into());
        }
        // A drawn token has p > 0.
        if f64::from(uniforms.uniform()) >= 1.0 - q / p {
            continue;
        }
        let over = pair.around(token, Part::Excess, None)?;
        if over > 0.0 {
            let x = pair.draw(token, Part::Excess, over, uniforms.uniform())?;
            let lacking = pair.around(x, Part::Deficit, Some(token))?;
            if f64::from(uniforms.uniform()) < over / lacking.max(over) {
                continue;
            }
        }
        return Ok(Residual { token, tries, exhausted: false });
    }
    let found = draw_by_mass(target, |t, _| pair.missing(t), uniforms)?;
    exhausted(target, found, max_tries, uniforms)
}

/// Visits every `(x, y, f(x, y))` with `f > 0`, for measurements: what is accepted beyond
/// [`Rule::TokenLevel`](super::rule::Rule::TokenLevel), and from where to where. Each token
/// with an excess or a deficit is listed once, those with an excess again.
///
/// `scratch` holds the sums of the neighbours, at least one number a token.
///
/// # Errors
/// `Scratch` if that is too short, `NotSymmetric`, or what is wrong with the rows or the lists.
/// A list that is not answered by its members is not found here: verify the index.
pub fn for_each_flow<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    scratch: &mut [f64],
    mut visit: impl FnMut(u32, u32, f64),
) -> Result<(), AcceptError> {
    check_pair(target, draft)?;
    let pair = Pair::new(target, draft, groups)?;
    let (needed, found) = (target.vocabulary(), scratch.len());
    let sums = scratch.get_mut(..needed).ok_or(AcceptError::Scratch { needed, found })?;
    // A token has one part only: R where it has an excess, S where it has a deficit.
    for (token, sum) in (0..).zip(sums.iter_mut()) {
        let (excess, deficit) = (pair.part(Part::Excess, token), pair.part(Part::Deficit, token));
        *sum = if excess > 0.0 {
            pair.around(token, Part::Deficit, None)?
        } else if deficit > 0.0 {
            pair.around(token, Part::Excess, None)?
        } else if excess + deficit == 0.0 {
            0.0
        } else {
            return Err(DistError::NotFinite.into());
        };
    }
    for x in 0..groups.codebook() {
        let (excess, lacking) = (pair.part(Part::Excess, x), sums[x as usize]);
        if excess > 0.0 && lacking > 0.0 {
            groups.for_each_neighbour(x, |y| {
                let deficit = pair.part(Part::Deficit, y);
                if deficit > 0.0 {
                    visit(x, y, excess * deficit / lacking.max(sums[y as usize]));
                }
            });
        }
    }
    Ok(())
}

/// The probability that a token drafted from `draft` is accepted,
/// `sum min(p, q) + sum f`, summed exactly. Arguments and errors are those of
/// [`for_each_flow`].
pub fn acceptance<G: Groups>(
    target: Row<'_>,
    draft: Row<'_>,
    groups: &G,
    scratch: &mut [f64],
) -> Result<f64, AcceptError> {
    let mut moved = 0f64;
    for_each_flow(target, draft, groups, scratch, |_, _, f| moved += f)?;
    let both = target.probs().iter().zip(draft.probs());
    let common: f64 = both.map(|(&p, &q)| f64::from(p.min(q))).sum();
    Ok((common + moved).min(1.0))
}
