//! What rules do after a rejection, whatever their law: the end of the thinning and the draw
//! that needs no memory.

use super::dist::Row;
use super::rng::Uniform;
use super::rule::{AcceptError, Origin, Outcome};

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
