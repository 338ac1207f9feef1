//! Groups without an index: membership found at each position, among the tokens that count.
//!
//! [`LiveGroups`] is a [`Groups`] over a *support*, the tokens that the target or the draft
//! may emit at one position ([`cover`]). After top-k or top-p that is a few dozen of 65,536,
//! so who is near whom can be asked of the embedding rows themselves. Groups are seeded by
//! the tokens of the support and hold tokens of the support; every other token is alone.
//!
//! What is exact: the split `w(g|t) = 1 / N(t)`, with `N(t)` the tokens of the support near
//! `t`, is one split for both laws and depends on `p` and `q` through the support only,
//! never on the drafted token. So all that [`crate::core::accept`] promises holds: the law
//! of the group is exactly the target's. It is another split than the index's, because
//! groups outside the support get no share: the group laws, and the acceptance, differ
//! unless the support is the whole codebook. [`cover`] with a mass below 1 changes nothing
//! in this: what it leaves out is accepted token by token.

use crate::core::accept::{GroupId, Groups};
use crate::core::dist::Row;
use std::cell::{Cell, OnceCell, RefCell};

/// Who is near whom among the tokens of a support: symmetric, and each is near itself.
pub trait Nearness {
    /// Makes `tokens`, ascending, the ones that [`near`](Self::near) compares.
    fn load(&mut self, tokens: &[u32]);
    /// Appends the places in the loaded tokens that are near the one at `place`, ascending.
    fn near(&self, place: usize, out: &mut Vec<u32>);
    /// Bytes held for the loaded tokens.
    fn bytes(&self) -> usize;
}

/// Rows of tokens by number.
pub trait TokenRows {
    /// Values a row.
    fn width(&self) -> usize;
    /// Writes the row of `token`.
    fn row(&self, token: u32, out: &mut [f32]);
}

const LANES: usize = 8;

/// `cos(row[a], row[b]) > theta`, in the arithmetic of the index builder.
#[derive(Clone, Debug)]
pub struct CosineRows<R> {
    rows: R,
    theta: f32,
    count: usize,
    /// `[count / 8][width][8]`: rows of length one, or of zeros where there is no direction.
    panels: Vec<f32>,
    row: Vec<f32>,
}

impl<R: TokenRows> CosineRows<R> {
    /// Compares with the threshold `theta`.
    pub fn new(rows: R, theta: f32) -> Self {
        let row = vec![0.0; rows.width()];
        Self { rows, theta, count: 0, panels: Vec::new(), row }
    }
}

impl<R: TokenRows> Nearness for CosineRows<R> {
    fn load(&mut self, tokens: &[u32]) {
        let width = self.row.len();
        self.count = tokens.len();
        self.panels.clear();
        self.panels.resize(tokens.len().next_multiple_of(LANES) * width, 0.0);
        for (i, &t) in tokens.iter().enumerate() {
            self.rows.row(t, &mut self.row);
            let square: f64 = self.row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            if square.is_finite() && square > 0.0 {
                let scale = 1.0 / square.sqrt();
                let panel = &mut self.panels[i / LANES * LANES * width..][..LANES * width];
                for (k, &x) in self.row.iter().enumerate() {
                    panel[k * LANES + i % LANES] = (f64::from(x) * scale) as f32;
                }
            }
        }
    }

    fn near(&self, place: usize, out: &mut Vec<u32>) {
        let width = self.row.len();
        let panels = self.panels.as_chunks::<LANES>().0;
        let own = &panels[place / LANES * width..][..width];
        let lane = place % LANES;
        for (i, panel) in panels.chunks_exact(width.max(1)).enumerate() {
            let mut sums = [0f32; LANES];
            for (a, b) in own.iter().zip(panel) {
                for j in 0..LANES {
                    sums[j] += a[lane] * b[j];
                }
            }
            for (j, &s) in sums.iter().enumerate() {
                let at = i * LANES + j;
                if at < self.count && (s > self.theta || at == place) {
                    out.push(at as u32);
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        4 * (self.panels.len() + self.row.len())
    }
}

/// At most `radius` steps of FSQ digits apart in all; needs no rows.
#[derive(Clone, Debug)]
pub struct DigitSteps {
    levels: Vec<u8>,
    radius: u32,
    digits: Vec<u8>,
}

impl DigitSteps {
    /// Token `= sum_i digit_i * prod_(j<i) levels_j`.
    pub fn new(levels: &[u8], radius: u32) -> Self {
        Self { levels: levels.to_vec(), radius, digits: Vec::new() }
    }
}

impl Nearness for DigitSteps {
    fn load(&mut self, tokens: &[u32]) {
        self.digits.clear();
        for &t in tokens {
            let mut rest = t;
            for &l in &self.levels {
                self.digits.push((rest % u32::from(l.max(1))) as u8);
                rest /= u32::from(l.max(1));
            }
        }
    }

    fn near(&self, place: usize, out: &mut Vec<u32>) {
        let n = self.levels.len().max(1);
        let own = &self.digits[place * n..][..n];
        for (at, other) in self.digits.chunks_exact(n).enumerate() {
            let steps: u32 = own.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            if steps <= self.radius {
                out.push(at as u32);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.digits.len() + self.levels.len()
    }
}

/// The tokens below `codebook` that count at a position, ascending: all that `target` or
/// `draft` may emit, or with `mass < 1` the fewest of them, by `p + q`, that leave out no
/// more than `1 - mass` of the two laws' mean.
pub fn cover(target: Row<'_>, draft: Row<'_>, codebook: u32, mass: f64, out: &mut Vec<u32>) {
    out.clear();
    let n = (codebook as usize).min(target.vocabulary()).min(draft.vocabulary());
    let (p, q) = (&target.probs()[..n], &draft.probs()[..n]);
    let both = |t: u32| f64::from(p[t as usize]) + f64::from(q[t as usize]);
    out.extend((0..n as u32).filter(|&t| both(t) > 0.0));
    if mass >= 1.0 {
        return;
    }
    out.sort_unstable_by(|&a, &b| both(b).total_cmp(&both(a)).then(a.cmp(&b)));
    let goal = mass * out.iter().map(|&t| both(t)).sum::<f64>();
    let mut sum = 0.0;
    let kept = out.iter().position(|&t| {
        sum += both(t);
        sum >= goal
    });
    out.truncate(kept.map_or(out.len(), |k| k + 1));
    out.sort_unstable();
}

/// Groups of one position, see the [module](self). A group is listed when it is first asked
/// for, so a position pays for the few groups that its verification touches.
#[derive(Debug)]
pub struct LiveGroups<N> {
    nearness: N,
    codebook: u32,
    support: Vec<u32>,
    /// Of each place: the tokens of its group.
    lists: Vec<OnceCell<Vec<u32>>>,
    /// Emptied lists, to be filled again.
    spare: RefCell<Vec<Vec<u32>>>,
    listed: Cell<(u32, u64)>,
}

impl<N: Nearness> LiveGroups<N> {
    /// No support yet: every token is alone.
    pub fn new(nearness: N, codebook: u32) -> Self {
        Self {
            nearness,
            codebook,
            support: Vec::new(),
            lists: Vec::new(),
            spare: RefCell::default(),
            listed: Cell::default(),
        }
    }

    /// Takes the support of the next position: ascending, below the codebook, no token twice.
    pub fn set_support(&mut self, tokens: &[u32]) {
        self.spare.get_mut().extend(self.lists.iter_mut().filter_map(OnceCell::take));
        self.lists.clear();
        self.support.clear();
        self.support.extend(tokens.iter().filter(|&&t| t < self.codebook));
        self.lists.resize_with(self.support.len(), OnceCell::new);
        self.nearness.load(&self.support);
        self.listed.set((0, 0));
    }

    /// The support.
    pub fn support(&self) -> &[u32] {
        &self.support
    }

    /// Groups that were listed since the support was set.
    pub fn groups_listed(&self) -> u32 {
        self.listed.get().0
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        let lists: usize = self.lists.iter().filter_map(OnceCell::get).map(|l| 4 * l.len()).sum();
        4 * self.support.len()
            + self.lists.len() * size_of::<OnceCell<Vec<u32>>>()
            + lists
            + self.nearness.bytes()
    }

    /// The group that `token` seeds, which is also the groups that contain it.
    fn group(&self, token: u32) -> Option<&[u32]> {
        let place = self.support.binary_search(&token).ok()?;
        Some(self.lists[place].get_or_init(|| {
            let mut list = self.spare.borrow_mut().pop().unwrap_or_default();
            list.clear();
            self.nearness.near(place, &mut list);
            list.iter_mut().for_each(|at| *at = self.support[*at as usize]);
            let (n, sum) = self.listed.get();
            self.listed.set((n + 1, sum + list.len() as u64));
            list
        }))
    }
}

impl<N: Nearness> Groups for LiveGroups<N> {
    fn codebook(&self) -> u32 {
        self.codebook
    }
    fn owner_count(&self, token: u32) -> u32 {
        self.group(token).map_or(1, |g| g.len() as u32)
    }
    fn draw_owner(&self, token: u32, u: f32) -> GroupId {
        let Some(owners) = self.group(token) else { return token };
        let nth = (f64::from(u) * owners.len() as f64) as usize;
        owners.get(nth.min(owners.len().saturating_sub(1))).copied().unwrap_or(token)
    }
    fn for_each_owner<F: FnMut(GroupId, f32)>(&self, token: u32, mut visit: F) {
        match self.group(token) {
            Some(owners) => owners.iter().for_each(|&g| visit(g, 1.0 / owners.len() as f32)),
            None => visit(token, 1.0),
        }
    }
    fn for_each_member<F: FnMut(u32, f32)>(&self, group: GroupId, mut visit: F) {
        match self.group(group) {
            Some(members) => {
                members.iter().for_each(|&t| visit(t, 1.0 / self.owner_count(t) as f32));
            }
            None => visit(group, 1.0),
        }
    }
    fn is_symmetric(&self) -> bool {
        true
    }
    fn mean_members(&self) -> f32 {
        let (n, sum) = self.listed.get();
        if n == 0 { 1.0 } else { sum as f32 / n as f32 }
    }
}
