//! Groups found on the fly against the index, and by the law that acceptance promises.
#![cfg(feature = "std")]

use voxgrain::asg::live::{CosineRows, DigitSteps, LiveGroups, Nearness, TokenRows, cover};
use voxgrain::asg::{BuildOptions, Family, Index, IndexBuilder, Metric, nearest_neighbours};
use voxgrain::core::accept::{Emission, Groups, Rule, verify_position};
use voxgrain::core::dist::{Row, RowMut, block_count};
use voxgrain::core::rng::{SeededRng, Uniform};

const N: usize = 300;
const WIDTH: usize = 12;

#[derive(Clone)]
struct Table(Vec<f32>);

impl TokenRows for Table {
    fn width(&self) -> usize {
        WIDTH
    }
    fn row(&self, token: u32, out: &mut [f32]) {
        out.copy_from_slice(&self.0[token as usize * WIDTH..][..WIDTH]);
    }
}

/// Rows in clusters, one of length zero.
fn rows() -> Table {
    let mut rng = SeededRng::new(5);
    let centres: Vec<f32> = (0..20 * WIDTH).map(|_| rng.uniform() - 0.5).collect();
    let mut rows: Vec<f32> = (0..N * WIDTH)
        .map(|i| centres[(i / WIDTH % 20) * WIDTH + i % WIDTH] + 0.4 * (rng.uniform() - 0.5))
        .collect();
    rows[7 * WIDTH..8 * WIDTH].fill(0.0);
    Table(rows)
}

fn index(built: IndexBuilder) -> Index<Vec<u8>> {
    Index::open(built.to_bytes().unwrap().0).unwrap()
}

fn owners(groups: &impl Groups, t: u32) -> Vec<(u32, f32)> {
    let mut out = vec![];
    groups.for_each_owner(t, |g, w| out.push((g, w)));
    out.sort_by_key(|o| o.0);
    out
}

fn members(groups: &impl Groups, g: u32) -> Vec<(u32, f32)> {
    let mut out = vec![];
    groups.for_each_member(g, |t, w| out.push((t, w)));
    out.sort_by_key(|o| o.0);
    out
}

fn equal_everywhere<N: Nearness>(live: &LiveGroups<N>, index: &Index<Vec<u8>>) {
    assert_eq!(live.codebook(), index.codebook());
    let mut largest = 0;
    for t in 0..index.codebook() {
        assert_eq!(owners(live, t), owners(index, t), "owners of {t}");
        assert_eq!(members(live, t), members(index, t), "members of {t}");
        assert_eq!(live.owner_count(t), index.owner_count(t));
        largest = largest.max(live.owner_count(t));
    }
    assert!(largest > 4, "the groups are trivial");
}

#[test]
fn where_the_support_is_everything_the_groups_are_the_index() {
    let rows = rows();
    let all: Vec<u32> = (0..N as u32).collect();
    for theta in [0.5f32, 0.8] {
        let family = Family::Threshold { theta };
        let options = BuildOptions::default();
        let built =
            IndexBuilder::from_rows(&rows.0, WIDTH, Metric::Cosine, family, &options).unwrap();
        let mut live = LiveGroups::new(CosineRows::new(rows.clone(), theta), N as u32);
        live.set_support(&all);
        equal_everywhere(&live, &index(built));
    }
    let levels = [4u8, 3, 5, 2];
    let built = IndexBuilder::from_fsq(
        &levels,
        Metric::FsqL1,
        Family::Threshold { theta: 2.0 },
        &BuildOptions::default(),
    );
    let mut live = LiveGroups::new(DigitSteps::new(&levels, 2), 120);
    live.set_support(&(0..120).collect::<Vec<u32>>());
    equal_everywhere(&live, &index(built.unwrap()));
}

#[test]
fn outside_the_support_tokens_are_alone_and_supports_do_not_mix() {
    let mut live = LiveGroups::new(CosineRows::new(rows(), 0.3), N as u32);
    assert_eq!(owners(&live, 3), [(3, 1.0)]);
    live.set_support(&(0..N as u32).collect::<Vec<u32>>());
    let before = owners(&live, 3);
    let support: Vec<u32> = (0..N as u32).step_by(3).collect();
    live.set_support(&support);
    assert_eq!(live.support(), support);
    for t in 0..N as u32 {
        let own = owners(&live, t);
        if t % 3 != 0 {
            assert_eq!(own, [(t, 1.0)]);
            assert_eq!(members(&live, t), own);
            continue;
        }
        assert!(own.iter().all(|o| o.0 % 3 == 0) && own.iter().any(|o| o.0 == t));
        let sum: f32 = own.iter().map(|o| o.1).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{t}: {sum}");
        for (g, w) in own {
            assert!(members(&live, g).contains(&(t, w)), "{t} and {g} disagree");
        }
        for u in [0.0, 0.5, 0.999_999_94] {
            assert!(owners(&live, t).iter().any(|o| o.0 == live.draw_owner(t, u)));
        }
    }
    let kept: Vec<u32> = before.iter().map(|o| o.0).filter(|g| g % 3 == 0).collect();
    assert_eq!(owners(&live, 3).iter().map(|o| o.0).collect::<Vec<_>>(), kept);
    assert!(live.bytes() > 0 && live.groups_listed() > 0 && live.mean_members() >= 1.0);
}

/// A row of `N + 1` probabilities, the last one the end token's, some of them 0.
fn law(seed: u64, sums: &mut [f32]) -> Vec<f32> {
    let mut rng = SeededRng::new(seed);
    let mut probs: Vec<f32> =
        (0..=N).map(|_| if rng.uniform() < 0.9 { 0.0 } else { rng.uniform().powi(2) }).collect();
    probs[N] = 0.3;
    RowMut::new(&mut probs, sums).unwrap().normalise().unwrap();
    probs
}

#[test]
fn the_cover_holds_the_mass_and_depends_on_both_laws_alone() {
    let mut sums = [vec![0.0; block_count(N + 1)], vec![0.0; block_count(N + 1)]];
    let (p, q) = (law(1, &mut sums[0]), law(2, &mut sums[1]));
    let (p, q) = (Row::new(&p, &sums[0]).unwrap(), Row::new(&q, &sums[1]).unwrap());
    let both = |t: &u32| f64::from(p.prob(*t)) + f64::from(q.prob(*t));
    let mut all = vec![];
    cover(p, q, N as u32, 1.0, &mut all);
    assert!(
        all.iter().all(|t| both(t) > 0.0) && all.is_sorted() && *all.last().unwrap() < N as u32
    );
    let whole: f64 = all.iter().map(both).sum();
    for mass in [0.2, 0.7, 0.95] {
        let mut some = vec![];
        cover(p, q, N as u32, mass, &mut some);
        assert!(some.is_sorted() && some.len() < all.len());
        let sum: f64 = some.iter().map(both).sum();
        let least = some.iter().map(both).fold(f64::INFINITY, f64::min);
        assert!(sum >= mass * whole - 1e-9 && sum - least < mass * whole);
    }
}

/// Group labels follow the coarse law of the target exactly: here, whether accepted tokens
/// and recovered ones together give the closed form of the token law.
#[test]
fn the_law_is_the_closed_form() {
    let mut sums = [vec![0.0; block_count(N + 1)], vec![0.0; block_count(N + 1)]];
    let (p, q) = (law(11, &mut sums[0]), law(12, &mut sums[1]));
    let (p, q) = (Row::new(&p, &sums[0]).unwrap(), Row::new(&q, &sums[1]).unwrap());
    let mut support = vec![];
    cover(p, q, N as u32, 0.9, &mut support);
    let mut live = LiveGroups::new(CosineRows::new(rows(), 0.3), N as u32);
    live.set_support(&support);

    let coarse = |row: Row<'_>| -> Vec<f64> {
        let mut out = vec![0f64; N + 1];
        for t in 0..N as u32 {
            for (g, w) in owners(&live, t) {
                out[g as usize] += f64::from(w) * f64::from(row.prob(t));
            }
        }
        out[N] = f64::from(row.prob(N as u32));
        out
    };
    let (cp, cq) = (coarse(p), coarse(q));
    let residual: Vec<f64> = cp.iter().zip(&cq).map(|(p, q)| (p - q).max(0.0)).collect();
    let law_of = |t: u32| -> f64 {
        let own = if t == N as u32 { vec![(t, 1.0)] } else { owners(&live, t) };
        own.iter()
            .map(|&(g, w)| {
                let (g, w) = (g as usize, f64::from(w));
                let kept = w * f64::from(q.prob(t)) * (cp[g] / cq[g]).min(1.0);
                let found = residual[g] * w * f64::from(p.prob(t)) / cp[g];
                (if cq[g] > 0.0 { kept } else { 0.0 }) + (if cp[g] > 0.0 { found } else { 0.0 })
            })
            .sum()
    };
    const DRAWS: usize = 200_000;
    let mut counts = vec![0u32; N + 1];
    let mut rng = SeededRng::new(3);
    let rule = Rule::Groups { groups: &live, emission: Emission::StandIn };
    for _ in 0..DRAWS {
        let x = q.draw(rng.uniform()).unwrap();
        let next = match verify_position(p, q, x, &rule, &mut rng).unwrap() {
            voxgrain::core::accept::Outcome::Accepted => x,
            voxgrain::core::accept::Outcome::Ended { next, .. } => next,
        };
        counts[next as usize] += 1;
    }
    let sum: f64 = (0..=N as u32).map(law_of).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    for t in 0..=N as u32 {
        let want = law_of(t);
        let found = f64::from(counts[t as usize]) / DRAWS as f64;
        let error = 5.5 * (want * (1.0 - want) / DRAWS as f64).sqrt() + 1e-5;
        assert!((found - want).abs() < error, "{t}: {found}, not {want}");
    }
}

#[test]
fn the_nearest_are_those_of_brute_force() {
    let rows = rows().0;
    let row = |t: usize| &rows[t * WIDTH..][..WIDTH];
    let dot = |a: usize, b: usize| -> f64 {
        row(a).iter().zip(row(b)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    for metric in [Metric::Cosine, Metric::Euclidean] {
        let found = nearest_neighbours(&rows, WIDTH, metric, 9, &BuildOptions::default()).unwrap();
        assert_eq!(found.len(), N);
        for (t, list) in found.iter().enumerate() {
            if metric == Metric::Cosine && t == 7 {
                assert!(list.is_empty(), "a row of length zero has no direction");
                continue;
            }
            assert_eq!(list.len(), 9);
            let score = |o: usize| match metric {
                Metric::Cosine => -dot(t, o) / (dot(t, t) * dot(o, o)).sqrt(),
                _ => (dot(t, t) + dot(o, o) - 2.0 * dot(t, o)).max(0.0).sqrt(),
            };
            let mut all: Vec<f64> = (0..N)
                .filter(|&o| o != t && (metric != Metric::Cosine || o != 7))
                .map(score)
                .collect();
            all.sort_by(f64::total_cmp);
            for (i, &(o, s)) in list.iter().enumerate() {
                let s = if metric == Metric::Cosine { -f64::from(s) } else { f64::from(s) };
                assert!((s - all[i]).abs() < 1e-3 && (score(o as usize) - s).abs() < 1e-3);
            }
        }
    }
}
