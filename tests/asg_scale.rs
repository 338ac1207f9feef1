//! The group index at the paper's scale: what must hold there, and behind `--ignored` the
//! sizes and times that are measured, which assert no times.
//!
//! ```text
//! VOXGRAIN_TARGET=target.safetensors cargo test --release --test asg_scale -- --ignored --nocapture
//! ```
//! The weights file holds `input_embedding.factors` as f16 `[480, 512]`: 32 digit rows and
//! 448 digit-pair rows, whose sums are the 65,536 embedding rows.
#![cfg(feature = "std")]

use std::time::Instant;

use voxgrain::asg::{BuildOptions, Family, Index, IndexBuilder, Metric, Order, Weights};
use voxgrain::core::{
    Emission, Groups, Row, Rule, SUM_BLOCK, SeededRng, Uniform, block_count, verify_position,
};

const CODEBOOK: usize = 65_536;
const HIDDEN: usize = 512;

/// The embedding rows of the factorised table named `name`.
fn rows(name: &str) -> Vec<f32> {
    let path = std::env::var("VOXGRAIN_TARGET").expect("set VOXGRAIN_TARGET, see the top");
    let file = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let json = std::str::from_utf8(&file[8..8 + header]).unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let start = json[name]["data_offsets"][0].as_u64().unwrap() as usize + 8 + header;
    let factors: Vec<f32> = file[start..start + 480 * HIDDEN * 2]
        .chunks_exact(2)
        .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
        .collect();
    let mut out = vec![0f32; CODEBOOK * HIDDEN];
    for (t, row) in out.chunks_exact_mut(HIDDEN).enumerate() {
        let digit = |i: usize| t >> (2 * i) & 3;
        let mut used: Vec<usize> = (0..8).map(|i| 4 * i + digit(i)).collect();
        let mut pair = 0;
        for a in 0..8 {
            for b in a + 1..8 {
                used.push(32 + 16 * pair + 4 * digit(a) + digit(b));
                pair += 1;
            }
        }
        for f in used {
            row.iter_mut().zip(&factors[f * HIDDEN..][..HIDDEN]).for_each(|(x, y)| *x += y);
        }
    }
    out
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

fn report(name: &str, builder: &IndexBuilder) {
    let start = Instant::now();
    let (bytes, written) = builder.to_bytes().unwrap();
    let encode = seconds(start);
    let mean = written.entries as f64 / CODEBOOK as f64;
    println!(
        "{name}: {:.2} MB, {:.2} bits an entry, {mean:.1} members (most {}), encoded in {encode:.1} s",
        written.bytes as f64 / 1e6,
        written.bytes as f64 * 8.0 / written.entries as f64,
        written.max_members
    );
    let start = Instant::now();
    let mut opened = 0;
    for _ in 0..1000 {
        opened += Index::open(&bytes).unwrap().header().codebook;
    }
    let open = seconds(start) / 1000.0;
    assert_eq!(opened, 1000 * CODEBOOK as u32);
    let mut index = Index::open(&bytes).unwrap();
    let start = Instant::now();
    index.verify().unwrap();
    let verify = seconds(start);
    // In random order, as decoding asks.
    let mut rng = SeededRng::new(1);
    let ask: Vec<u32> = (0..CODEBOOK).map(|_| (rng.uniform() * CODEBOOK as f32) as u32).collect();
    // The best of several short pieces: longer ones measure who else is on the machine.
    let listed = |f: &dyn Fn(u32) -> u64| {
        let mut sum = 0.0;
        for piece in ask.chunks(1024) {
            let mut best = f64::MAX;
            for _ in 0..4 {
                let start = Instant::now();
                let total: u64 = piece.iter().map(|&g| f(g)).sum();
                assert!(total > 0);
                best = best.min(seconds(start));
            }
            sum += best;
        }
        sum * 1e6 / CODEBOOK as f64
    };
    let list = listed(&|g| index.members(g).fold(0, |sum, t| sum + u64::from(t) + 1));
    let next = listed(&|g| {
        let mut sum = 0;
        for t in index.members(g) {
            sum += u64::from(t) + 1;
        }
        sum
    });
    let nth = listed(&|g| u64::from(index.draw_owner(g, 0.5)) + 1);
    let row = vec![1.0f32 / CODEBOOK as f32; CODEBOOK];
    let coarse = |index: &Index<&Vec<u8>>, g| {
        let mut sum = 0f64;
        index.for_each_member(g, |t, w| sum += f64::from(w) * f64::from(row[t as usize]));
        (sum * 1e9) as u64 + 1
    };
    let equal = listed(&|g| coarse(&index, g));
    println!(
        "  open {:.1} us, verify {verify:.2} s, list {list:.2} us, by next {next:.2} us, draw an owner {nth:.2} us, coarse sum {equal:.2} us",
        open * 1e6
    );
    if index.set_weights(Weights::Similarity).is_ok() {
        let similar = listed(&|g| coarse(&index, g));
        println!("  coarse sum by similarity {similar:.2} us");
        index.set_weights(Weights::EqualSplit).unwrap();
    }

    // A whole position: draft and target as two unlike rows.
    let make = |seed: u64| {
        let mut rng = SeededRng::new(seed);
        let mut p: Vec<f32> =
            (0..=CODEBOOK).map(|_| (14.0 * rng.uniform().powi(3)).exp()).collect();
        let mut s = vec![0.0; block_count(p.len())];
        voxgrain::core::RowMut::new(&mut p, &mut s).unwrap().normalise().unwrap();
        (p, s)
    };
    let ((p, ps), (q, qs)) = (make(1), make(2));
    assert_eq!(ps.len(), p.len().div_ceil(SUM_BLOCK));
    let (p, q) = (Row::new(&p, &ps).unwrap(), Row::new(&q, &qs).unwrap());
    let rule = Rule::Groups { groups: &index, emission: Emission::StandIn };
    let drafted: Vec<u32> = (0..10_000).map(|_| q.draw(rng.uniform()).unwrap()).collect();
    let start = Instant::now();
    let mut accepted = 0;
    for &x in &drafted {
        let outcome = verify_position(p, q, x, &rule, &mut rng).unwrap();
        accepted += u32::from(outcome == voxgrain::core::Outcome::Accepted);
    }
    println!("  a position {:.2} us ({accepted} of 10,000 accepted)", seconds(start) * 100.0);
}

fn threshold_groups(cases: &[(&str, f32, Option<f32>, Order)]) {
    let rows = rows("input_embedding.factors");
    for (name, theta, power, order) in cases {
        let options = BuildOptions { power: *power, order: order.clone(), ..Default::default() };
        let start = Instant::now();
        let family = Family::Threshold { theta: *theta };
        let builder =
            IndexBuilder::from_rows(&rows, HIDDEN, Metric::Cosine, family, &options).unwrap();
        println!("built in {:.1} s", seconds(start));
        report(name, &builder);
    }
}

#[test]
#[ignore = "needs a weights file; takes minutes"]
fn groups_as_large_as_the_papers() {
    threshold_groups(&[("cos > .6664, by id", 0.6664, None, Order::Ids)]);
}

#[test]
#[ignore = "needs a weights file; takes minutes"]
fn other_threshold_groups() {
    threshold_groups(&[
        ("cos > .6664, similarities", 0.6664, Some(2.0), Order::Ids),
        ("cos > .6664, clustered", 0.6664, None, Order::Clustered),
        ("cos > .8, by id", 0.8, None, Order::Ids),
    ]);
}

#[test]
#[ignore = "needs a weights file; takes minutes"]
fn nearest_groups_of_the_output_head() {
    let rows = rows("output_head.factors");
    for family in [Family::TopKSymmetrised { k: 32 }, Family::TopK { k: 32 }] {
        let start = Instant::now();
        let options = BuildOptions::default();
        let builder =
            IndexBuilder::from_rows(&rows, HIDDEN, Metric::Cosine, family, &options).unwrap();
        println!("built in {:.1} s", seconds(start));
        report(&format!("head, {family:?}"), &builder);
    }
}

/// 65,536 groups, whose sizes have a closed form: what only shows with a codebook of 16 bits.
#[test]
fn a_codebook_of_the_papers_size_is_exact() {
    // Ordered pairs of two digits by distance: 4 + 6x + 4x^2 + 2x^3; of eight, its 8th power.
    let mut pairs = vec![1u64];
    for _ in 0..8 {
        let mut next = vec![0; pairs.len() + 3];
        for (i, n) in pairs.iter().enumerate() {
            [4, 6, 4, 2].iter().enumerate().for_each(|(d, m)| next[i + d] += n * m);
        }
        pairs = next;
    }
    assert_eq!(pairs.iter().sum::<u64>(), 1 << 32);
    let digits = |t: u32| (0..8).map(move |i| (t >> (2 * i) & 3) as i32);
    let apart =
        |a: u32, b: u32| -> i32 { digits(a).zip(digits(b)).map(|(x, y)| (x - y).abs()).sum() };

    let family = Family::Threshold { theta: 1.0 };
    let options = BuildOptions::default();
    let builder = IndexBuilder::from_fsq(&[4; 8], Metric::FsqL1, family, &options).unwrap();
    let (bytes, written) = builder.to_bytes().unwrap();
    assert_eq!(written.entries, pairs[0] + pairs[1]);
    // Two neighbours a digit, but for the ends.
    assert_eq!(written.max_members, 1 + 2 * 8);
    assert!(bytes.len() as u64 * 8 < 7 * written.entries, "{} bytes", bytes.len());
    let index = Index::open(&bytes).unwrap();
    index.verify().unwrap();
    let mut rng = SeededRng::new(4);
    let draws = (0..20).map(|_| (rng.uniform() * CODEBOOK as f32) as u32);
    for g in draws.chain([0, CODEBOOK as u32 - 1]) {
        let mut listed: Vec<u32> = index.members(g).collect();
        listed.sort_unstable();
        let near: Vec<u32> = (0..CODEBOOK as u32).filter(|&t| apart(g, t) <= 1).collect();
        assert_eq!(listed, near, "group {g}");
        assert!(index.owners(g).eq(index.members(g)));
    }
    // The token behind the codebook is alone, whatever the index says of the others.
    let mut row = vec![0.0; CODEBOOK + 1];
    let mut sums = vec![0.0; block_count(row.len())];
    (row[CODEBOOK], row[CODEBOOK - 1]) = (0.5, 0.5);
    voxgrain::core::RowMut::new(&mut row, &mut sums).unwrap().normalise().unwrap();
    let row = Row::new(&row, &sums).unwrap();
    let rule = Rule::Groups { groups: &index, emission: Emission::StandIn };
    for x in [CODEBOOK as u32 - 1, CODEBOOK as u32] {
        let outcome = verify_position(row, row, x, &rule, &mut rng).unwrap();
        assert_eq!(outcome, voxgrain::core::Outcome::Accepted);
    }
}

#[test]
#[ignore = "measures"]
fn groups_of_fsq_digits() {
    for (metric, theta) in [(Metric::FsqL1, 1.0), (Metric::FsqL1, 2.0), (Metric::FsqHamming, 2.0)] {
        let family = Family::Threshold { theta };
        let builder =
            IndexBuilder::from_fsq(&[4; 8], metric, family, &BuildOptions::default()).unwrap();
        report(&format!("{metric:?} <= {theta}"), &builder);
    }
}

/// Rows without any structure: what the format costs where nothing can be exploited.
#[test]
#[ignore = "measures"]
fn groups_without_structure() {
    let mut rng = SeededRng::new(3);
    let lists: Vec<Vec<(u32, f32)>> = (0..CODEBOOK as u32)
        .map(|_| (0..141).map(|_| ((rng.uniform() * CODEBOOK as f32) as u32, 0.5)).collect())
        .collect();
    let mut both = lists.clone();
    for (g, list) in lists.iter().enumerate() {
        list.iter().for_each(|&(t, s)| both[t as usize].push((g as u32, s)));
    }
    let builder = IndexBuilder::from_lists(&both, &BuildOptions::default()).unwrap();
    report("random pairs", &builder);
}
