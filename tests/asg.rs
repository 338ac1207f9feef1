//! The group index: the builder against brute force, the reader against the builder,
//! and both against files that lie.
#![cfg(feature = "std")]

use voxgrain::asg::format::crc32;
use voxgrain::asg::{
    BuildError, BuildOptions, Family, FormatError, Index, IndexBuilder, Metric, NoSimilarities,
    Order, RowSource, Weights,
};
use voxgrain::core::{Groups, SeededRng, Uniform};

// ---------------------------------------------------------------- helpers

fn random_rows(n: usize, hidden: usize, rng: &mut SeededRng) -> Vec<f32> {
    (0..n * hidden).map(|_| rng.uniform() - 0.5).collect()
}

fn below(n: u32, rng: &mut SeededRng) -> u32 {
    (rng.uniform() * n as f32) as u32
}

/// Pairwise score from the definition, in f64; higher is nearer.
fn score(rows: &[f32], hidden: usize, metric: Metric, a: usize, b: usize) -> f64 {
    let row = |t: usize| rows[t * hidden..][..hidden].iter().map(|&x| f64::from(x));
    let dot = |a: usize, b: usize| row(a).zip(row(b)).map(|(x, y)| x * y).sum::<f64>();
    match metric {
        Metric::Cosine => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
        _ => -row(a).zip(row(b)).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt(),
    }
}

fn sorted<D: AsRef<[u8]>>(index: &Index<D>, g: u32) -> Vec<u32> {
    let mut m: Vec<u32> = index.members(g).collect();
    m.sort_unstable();
    m
}

/// Everything that the reader says, against lists that the test worked out.
fn agrees(bytes: &[u8], expected: &[Vec<u32>], symmetric: bool) {
    let mut index = Index::open(bytes).unwrap();
    index.verify().unwrap();
    let n = expected.len() as u32;
    assert_eq!(index.header().codebook, n);
    assert_eq!(index.header().symmetric, symmetric);
    assert_eq!(index.header().entries, expected.iter().map(|l| l.len() as u64).sum::<u64>());
    let mut owners = vec![Vec::new(); expected.len()];
    for (g, list) in expected.iter().enumerate() {
        assert_eq!(&sorted(&index, g as u32), list, "group {g}");
        assert_eq!(index.members(g as u32).next(), Some(g as u32), "the seed comes first");
        assert_eq!(index.member_count(g as u32), list.len() as u32);
        // Internal, external and mixed iteration agree.
        let mut internal = Vec::new();
        index.members(g as u32).for_each(|t| internal.push(t));
        assert!(index.members(g as u32).eq(internal.iter().copied()));
        let mut mixed = index.members(g as u32);
        let mut seen: Vec<u32> = mixed.by_ref().take(g % 5).collect();
        seen = mixed.fold(seen, |mut seen, t| {
            seen.push(t);
            seen
        });
        assert_eq!(seen, internal);
        list.iter().for_each(|&t| owners[t as usize].push(g as u32));
    }
    for outside in [n, n + 1, u32::MAX] {
        assert_eq!(index.members(outside).count(), 0);
        assert_eq!(index.owners(outside).count(), 0);
        assert_eq!(index.member_count(outside), 0);
    }
    let weights: &[Weights] = match index.header().power {
        Some(_) => &[Weights::EqualSplit, Weights::Similarity],
        None => &[Weights::EqualSplit],
    };
    for &weights in weights {
        index.set_weights(weights).unwrap();
        let mut by_member = std::collections::HashMap::new();
        for g in 0..n {
            index.for_each_member(g, |t, w| {
                assert!(by_member.insert((g, t), w).is_none(), "listed twice");
            });
        }
        for (t, owners) in owners.iter().enumerate() {
            let t = t as u32;
            let mut got = Vec::new();
            let mut total = 0f64;
            index.for_each_owner(t, |g, w| {
                assert_eq!(by_member.get(&(g, t)), Some(&w), "one kernel from both sides");
                got.push(g);
                total += f64::from(w);
            });
            got.sort_unstable();
            assert_eq!(&got, owners);
            let mut listed: Vec<u32> = index.owners(t).collect();
            listed.sort_unstable();
            assert_eq!(&listed, owners);
            assert_eq!(index.owner_count(t) as usize, owners.len());
            assert!((total - 1.0).abs() < 1e-5, "the weights of token {t} sum to {total}");
            if weights == Weights::EqualSplit {
                assert!((index.weight(t, t) - 1.0 / owners.len() as f32).abs() < 1e-7);
            }
            assert_eq!(index.weight(n, t), 0.0);
            // Draws at evenly spaced points hit each owner as often as its weight says.
            let draws = 2000;
            let mut hits = std::collections::HashMap::new();
            for i in 0..draws {
                let g = index.draw_owner(t, (i as f32 + 0.5) / draws as f32);
                *hits.entry(g).or_insert(0u32) += 1;
            }
            for (g, hits) in hits {
                let w = by_member[&(g, t)];
                assert!((hits as f32 / draws as f32 - w).abs() < 2.0 / draws as f32 + 1e-6);
            }
        }
    }
}

fn brute_threshold(n: usize, near: impl Fn(usize, usize) -> bool) -> Vec<Vec<u32>> {
    (0..n).map(|g| (0..n).filter(|&t| t == g || near(g, t)).map(|t| t as u32).collect()).collect()
}

fn brute_top_k(n: usize, k: usize, score: impl Fn(usize, usize) -> f64) -> Vec<Vec<u32>> {
    (0..n)
        .map(|g| {
            let mut others: Vec<usize> = (0..n).filter(|&t| t != g).collect();
            others.sort_by(|&a, &b| score(g, b).total_cmp(&score(g, a)).then(a.cmp(&b)));
            others.truncate(k);
            others.push(g);
            let mut list: Vec<u32> = others.into_iter().map(|t| t as u32).collect();
            list.sort_unstable();
            list
        })
        .collect()
}

fn symmetrised(lists: &[Vec<u32>]) -> Vec<Vec<u32>> {
    brute_threshold(lists.len(), |g, t| {
        lists[g].contains(&(t as u32)) || lists[t].contains(&(g as u32))
    })
}

// ---------------------------------------------------------------- builder and reader

#[test]
fn every_family_and_metric_equals_brute_force() {
    let mut rng = SeededRng::new(1);
    for (n, hidden) in [(1, 3), (2, 1), (37, 5), (300, 8), (520, 16)] {
        let rows = random_rows(n, hidden, &mut rng);
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let s = |a: usize, b: usize| score(&rows, hidden, metric, a, b);
            let theta = if metric == Metric::Cosine { 0.41 } else { 0.83 };
            let near = |a: usize, b: usize| {
                if metric == Metric::Cosine { s(a, b) > theta } else { -s(a, b) < theta }
            };
            for power in [None, Some(3.0)] {
                for order in [Order::Ids, Order::Clustered] {
                    let options = BuildOptions { power, order, threads: 2, ..Default::default() };
                    let build = |family| {
                        IndexBuilder::from_rows(&rows, hidden, metric, family, &options)
                            .unwrap()
                            .to_bytes()
                            .unwrap()
                            .0
                    };
                    let bytes = build(Family::Threshold { theta: theta as f32 });
                    agrees(&bytes, &brute_threshold(n, near), true);
                    let lists = brute_top_k(n, 4, s);
                    let symmetric = symmetrised(&lists) == lists;
                    agrees(&build(Family::TopK { k: 4 }), &lists, symmetric);
                    let both = symmetrised(&lists);
                    agrees(&build(Family::TopKSymmetrised { k: 4 }), &both, true);
                }
            }
        }
    }
}

#[test]
fn fsq_digits_equal_brute_force() {
    for levels in [&[4u8, 4, 4][..], &[2, 3, 5], &[1, 7], &[1]] {
        let n: usize = levels.iter().map(|&l| usize::from(l)).product();
        let digits = |mut t: usize| -> Vec<i32> {
            levels
                .iter()
                .map(|&l| {
                    let d = t % usize::from(l);
                    t /= usize::from(l);
                    d as i32
                })
                .collect()
        };
        for metric in [Metric::FsqL1, Metric::FsqHamming] {
            let distance = |a: usize, b: usize| -> i32 {
                let each = digits(a).into_iter().zip(digits(b)).map(|(x, y)| (x - y).abs());
                if metric == Metric::FsqL1 { each.sum() } else { each.map(|d| d.min(1)).sum() }
            };
            let options = BuildOptions { power: Some(1.0), ..Default::default() };
            let build = |family| {
                let b = IndexBuilder::from_fsq(levels, metric, family, &options).unwrap();
                b.to_bytes().unwrap().0
            };
            let lists = brute_threshold(n, |a, b| distance(a, b) <= 2);
            agrees(&build(Family::Threshold { theta: 2.0 }), &lists, true);
            let lists = brute_top_k(n, 6, |a, b| f64::from(-distance(a, b)));
            let both = symmetrised(&lists);
            agrees(&build(Family::TopK { k: 6 }), &lists, both == lists);
            agrees(&build(Family::TopKSymmetrised { k: 6 }), &both, true);
        }
    }
}

#[test]
fn given_lists_come_back_in_any_order_and_depth() {
    let mut rng = SeededRng::new(2);
    for n in [1usize, 15, 16, 17, 255, 256, 257, 5000, 66_000] {
        for round in 0..3 {
            let most = [3, 40, 400][round].min(n as u32);
            // Large codebooks: a few long lists, the rest short.
            let lists: Vec<Vec<(u32, f32)>> = (0..n)
                .map(|g| {
                    let m = if n > 5000 && g % 500 > 0 { 2 } else { below(most + 1, &mut rng) };
                    (0..m).map(|_| (below(n as u32, &mut rng), rng.uniform())).collect()
                })
                .collect();
            let mut order: Vec<u32> = (0..n as u32).collect();
            for i in (1..n).rev() {
                order.swap(i, below(i as u32 + 1, &mut rng) as usize);
            }
            let order = if round == 0 { Order::Ids } else { Order::Given(order) };
            let options =
                BuildOptions { order, power: (round == 2).then_some(0.5), ..Default::default() };
            let bytes = IndexBuilder::from_lists(&lists, &options).unwrap().to_bytes().unwrap().0;
            let index = Index::open(&bytes).unwrap();
            index.verify().unwrap();
            for (g, list) in lists.iter().enumerate() {
                let mut expected: Vec<u32> = list.iter().map(|m| m.0).collect();
                expected.push(g as u32);
                expected.sort_unstable();
                expected.dedup();
                assert_eq!(sorted(&index, g as u32), expected);
            }
            if n <= 257 {
                let expected: Vec<Vec<u32>> = (0..n).map(|g| sorted(&index, g as u32)).collect();
                agrees(&bytes, &expected, index.header().symmetric);
            }
        }
    }
}

#[test]
fn one_group_of_all_and_only_singletons() {
    let rows = vec![1.0f32; 64];
    let family = Family::Threshold { theta: 0.5 };
    let options = BuildOptions::default();
    let all = IndexBuilder::from_rows(&rows, 1, Metric::Cosine, family, &options).unwrap();
    agrees(&all.to_bytes().unwrap().0, &vec![(0..64).collect(); 64], true);
    let family = Family::Threshold { theta: 1.5 };
    let none = IndexBuilder::from_rows(&rows, 1, Metric::Cosine, family, &options).unwrap();
    let alone: Vec<Vec<u32>> = (0..64).map(|t| vec![t]).collect();
    agrees(&none.to_bytes().unwrap().0, &alone, true);
    for family in [Family::TopK { k: 0 }, Family::TopKSymmetrised { k: 0 }] {
        let b = IndexBuilder::from_rows(&rows, 1, Metric::Cosine, family, &options).unwrap();
        agrees(&b.to_bytes().unwrap().0, &alone, true);
    }
    for family in [Family::TopK { k: 64 }, Family::TopKSymmetrised { k: 1000 }] {
        let b = IndexBuilder::from_rows(&rows, 1, Metric::Euclidean, family, &options).unwrap();
        agrees(&b.to_bytes().unwrap().0, &vec![(0..64).collect(); 64], true);
    }
}

#[test]
fn the_thread_count_and_symmetry_do_not_change_the_file() {
    let mut rng = SeededRng::new(3);
    let rows = random_rows(1000, 24, &mut rng);
    for family in [Family::Threshold { theta: 0.3 }, Family::TopK { k: 9 }] {
        let build = |threads| {
            let options = BuildOptions { threads, power: Some(2.0), ..Default::default() };
            let b = IndexBuilder::from_rows(&rows, 24, Metric::Cosine, family, &options).unwrap();
            b.to_bytes().unwrap().0
        };
        let one = build(1);
        assert_eq!(one, build(2));
        assert_eq!(one, build(7));
    }
}

#[test]
fn a_cap_keeps_the_most_similar_and_the_symmetry() {
    let mut rng = SeededRng::new(4);
    let (n, hidden) = (300, 6);
    let rows = random_rows(n, hidden, &mut rng);
    let s = |a: usize, b: usize| score(&rows, hidden, Metric::Cosine, a, b);
    let options = BuildOptions { cap: Some(8), ..Default::default() };
    let family = Family::Threshold { theta: 0.3 };
    let b = IndexBuilder::from_rows(&rows, hidden, Metric::Cosine, family, &options).unwrap();
    let top = brute_top_k(n, 7, s);
    let expected = brute_threshold(n, |g, t| {
        s(g, t) > 0.3 && top[g].contains(&(t as u32)) && top[t].contains(&(g as u32))
    });
    let bytes = b.to_bytes().unwrap().0;
    agrees(&bytes, &expected, true);
    let header = Index::open(&bytes).unwrap().header().clone();
    assert!(header.max_members <= 8 && header.cap == 8);
}

#[test]
fn unused_tokens_and_rows_of_length_zero_are_singletons() {
    let mut rng = SeededRng::new(5);
    let (n, hidden) = (60, 4);
    let mut rows = random_rows(n, hidden, &mut rng);
    rows[10 * hidden..11 * hidden].fill(0.0);
    let used: Vec<bool> = (0..n).map(|t| t % 7 != 3).collect();
    let options = BuildOptions { used: Some(&used), ..Default::default() };
    let alone = |t: usize| t == 10 || !used[t];
    let family = Family::Threshold { theta: 0.2 };
    let b = IndexBuilder::from_rows(&rows, hidden, Metric::Cosine, family, &options).unwrap();
    let expected = brute_threshold(n, |a, b| {
        !alone(a) && !alone(b) && score(&rows, hidden, Metric::Cosine, a, b) > 0.2
    });
    agrees(&b.to_bytes().unwrap().0, &expected, true);
    let short = [true; 3];
    let options = BuildOptions { used: Some(&short), ..Default::default() };
    assert_eq!(
        IndexBuilder::from_rows(&rows, hidden, Metric::Cosine, family, &options).unwrap_err(),
        BuildError::Mask { expected: 60, found: 3 }
    );
}

#[test]
fn impossible_input_is_refused() {
    let family = Family::Threshold { theta: 0.2 };
    let o = BuildOptions::default();
    let rows = |rows: &[f32], hidden, metric, o: &BuildOptions<'_>| {
        IndexBuilder::from_rows(rows, hidden, metric, family, o).unwrap_err()
    };
    let shape = BuildError::Shape { values: 5, hidden: 2 };
    assert_eq!(rows(&[0.0; 5], 2, Metric::Cosine, &o), shape);
    assert_eq!(rows(&[], 2, Metric::Cosine, &o), BuildError::Shape { values: 0, hidden: 2 });
    assert_eq!(rows(&[1.0], 0, Metric::Cosine, &o), BuildError::Shape { values: 1, hidden: 0 });
    assert_eq!(rows(&[1.0, f32::NAN], 1, Metric::Cosine, &o), BuildError::NotFinite { token: 1 });
    assert_eq!(rows(&[1.0, 2.0], 1, Metric::FsqL1, &o), BuildError::Unsupported);
    let bad = BuildOptions { power: Some(0.0), ..Default::default() };
    assert_eq!(rows(&[1.0, 2.0], 1, Metric::Cosine, &bad), BuildError::Power);
    let bad = BuildOptions { order: Order::Given(vec![0, 0]), ..Default::default() };
    assert_eq!(rows(&[1.0, 2.0], 1, Metric::Cosine, &bad), BuildError::Order);
    for theta in [f32::NAN, f32::INFINITY] {
        let family = Family::Threshold { theta };
        let b = IndexBuilder::from_rows(&[1.0, 2.0], 1, Metric::Cosine, family, &o);
        assert_eq!(b.unwrap_err(), BuildError::Theta);
        let b = IndexBuilder::from_fsq(&[4, 4], Metric::FsqL1, family, &o);
        assert_eq!(b.unwrap_err(), BuildError::Theta);
    }
    assert!(IndexBuilder::from_fsq(&[255; 8], Metric::FsqL1, family, &o).is_err());
    assert!(IndexBuilder::from_fsq(&[0, 3], Metric::FsqL1, family, &o).is_err());
    assert_eq!(
        IndexBuilder::from_lists(&[vec![(1, 0.5)]], &o).unwrap_err(),
        BuildError::TokenOutOfRange { group: 0, token: 1 }
    );
}

#[test]
fn an_index_without_similarities_says_so() {
    let b = IndexBuilder::from_lists(&[vec![]], &BuildOptions::default()).unwrap();
    let mut index = Index::open(b.to_bytes().unwrap().0).unwrap();
    assert_eq!(index.set_weights(Weights::Similarity), Err(NoSimilarities));
    assert_eq!(index.weights(), Weights::EqualSplit);
}

#[test]
fn the_header_keeps_what_it_was_told() {
    let rows = [1.0f32, 0.9, 0.8];
    let options = BuildOptions {
        source: RowSource::OutputHead,
        weights_sha256: [7; 32],
        power: Some(2.5),
        ..Default::default()
    };
    let family = Family::Threshold { theta: 0.66 };
    let b = IndexBuilder::from_rows(&rows, 1, Metric::Cosine, family, &options).unwrap();
    let mut bytes = Vec::new();
    let written = b.write(&mut bytes).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    let index = Index::open(bytes).unwrap();
    let h = index.header();
    assert_eq!((h.family, h.metric, h.source), (family, Metric::Cosine, options.source));
    assert_eq!((h.weights_sha256, h.power, h.cap), ([7; 32], Some(2.5), 0));
    assert_eq!((h.entries, h.max_members), (9, 3));
}

#[test]
fn every_family_metric_and_source_comes_back() {
    let rows = [1.0f32, 0.9, 0.8, 0.1, 0.3, 0.2];
    let families = [
        Family::Threshold { theta: -0.25 },
        Family::TopK { k: 1 },
        Family::TopKSymmetrised { k: 2 },
    ];
    let sources = [
        RowSource::Unknown,
        RowSource::InputEmbedding,
        RowSource::OutputHead,
        RowSource::FsqDigits,
    ];
    for source in sources {
        let options = BuildOptions { source, ..Default::default() };
        let back = |b: Result<IndexBuilder, BuildError>| {
            let h = Index::open(b.unwrap().to_bytes().unwrap().0).unwrap().header().clone();
            assert_eq!(h.source, source);
            (h.family, h.metric)
        };
        for family in families {
            for metric in [Metric::Cosine, Metric::Euclidean] {
                let b = IndexBuilder::from_rows(&rows, 2, metric, family, &options);
                assert_eq!(back(b), (family, metric));
            }
            for metric in [Metric::FsqL1, Metric::FsqHamming] {
                let b = IndexBuilder::from_fsq(&[2, 3], metric, family, &options);
                assert_eq!(back(b), (family, metric));
            }
        }
        let b = IndexBuilder::from_lists(&[vec![(1, 0.5)], vec![]], &options);
        assert_eq!(back(b), (Family::Explicit, Metric::Given));
    }
}

// ---------------------------------------------------------------- files that lie

/// One of every section: unsymmetric, with similarities and an own order.
fn full_file(rng: &mut SeededRng) -> Vec<u8> {
    let rows = random_rows(90, 5, rng);
    let options = BuildOptions { power: Some(2.0), order: Order::Clustered, ..Default::default() };
    let family = Family::TopK { k: 6 };
    let b = IndexBuilder::from_rows(&rows, 5, Metric::Cosine, family, &options).unwrap();
    b.to_bytes().unwrap().0
}

fn header_len(file: &[u8]) -> usize {
    u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize
}

/// Makes the header's checksum right again, so that the next check is reached.
fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    let end = header_len(&file) - 4;
    let crc = crc32(&file[..end]);
    file[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    file
}

fn with(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Start of the row of the table for the section of this kind, and its offset and length.
fn row(file: &[u8], kind: u32) -> (usize, usize, usize) {
    let sections = usize::from(u16::from_le_bytes(file[58..60].try_into().unwrap()));
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    (0..sections)
        .map(|i| 156 + 24 * i)
        .find(|&at| file[at..at + 4] == kind.to_le_bytes())
        .map(|at| (at, u64_at(at + 8), u64_at(at + 16)))
        .unwrap()
}

fn open(file: &[u8]) -> FormatError {
    Index::open(file).map(|_| ()).unwrap_err()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = full_file(&mut SeededRng::new(6));
    let head = header_len(&file);
    for len in (0..head + 20).chain((head..file.len()).step_by(97)).chain([file.len() - 1]) {
        let error = open(&file[..len]);
        match len {
            0..60 => assert!(matches!(error, FormatError::Truncated { .. }), "{len}: {error:?}"),
            // The header's own checksum is gone, or there but the sections are not.
            _ if len < head => assert!(
                matches!(error, FormatError::Truncated { .. } | FormatError::HeaderChecksum),
                "{len}: {error:?}"
            ),
            _ => assert_eq!(
                error,
                FormatError::Length { said: file.len() as u64, found: len as u64 }
            ),
        }
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(matches!(open(&longer), FormatError::Length { .. }));
}

#[test]
fn each_lie_in_the_header_has_its_error() {
    use FormatError as E;
    use voxgrain::asg::format::Section as S;
    let file = full_file(&mut SeededRng::new(7));
    let sections = file[58];
    let (tables, tables_at, tables_len) = row(&file, 1);
    let (order, order_at, _) = row(&file, 2);
    let (counts, _, counts_len) = row(&file, 4);
    let (stream, _, _) = row(&file, 6);
    let last = 156 + 24 * (usize::from(sections) - 1);
    let len = file.len() as u64;
    let f32s = |x: f32| x.to_le_bytes();

    // Before the checksum is looked at.
    assert_eq!(open(&with(&file, 0, b"RIFF")), E::Magic);
    assert_eq!(open(&with(&file, 8, &[2])), E::Version(2));
    assert_eq!(open(&with(&file, 12, &[9, 0])), E::HeaderLength(9));
    assert_eq!(open(&with(&file, 58, &[3, 0])), E::SectionCount(3));
    assert_eq!(open(&with(&file, 58, &[0xff, 0xff])), E::SectionCount(0xffff));
    assert_eq!(open(&with(&file, 24, &[1])), E::HeaderChecksum);
    assert_eq!(open(&with(&file, file.len() - 8, &[1])), E::Trailer);

    // With a checksum that fits.
    let lies: Vec<(usize, Vec<u8>, FormatError)> = vec![
        (16, (len + 1).to_le_bytes().to_vec(), E::Length { said: len + 1, found: len }),
        (24, vec![0; 4], E::Codebook(0)),
        (24, u32::MAX.to_le_bytes().to_vec(), E::Codebook(u32::MAX)),
        (28, vec![0], E::Family(0)),
        (28, vec![9], E::Family(9)),
        (28, vec![1], E::Flags(6)), // a threshold family that is not symmetric
        (29, vec![5], E::Metric(5)),
        (30, vec![4], E::Source(4)),
        (31, vec![0x80], E::Flags(0x80)),
        (31, vec![4], E::Power), // a power without similarities
        (32, f32s(f32::NAN).to_vec(), E::Parameter),
        (32, f32s(-1.0).to_vec(), E::Parameter),
        (32, f32s(1.5).to_vec(), E::Parameter),
        (44, f32s(0.0).to_vec(), E::Power),
        (44, f32s(f32::INFINITY).to_vec(), E::Power),
        (44, f32s(-2.0).to_vec(), E::Power),
        (56, vec![1], E::Depth(1)),
        (56, vec![7], E::Depth(7)),
        (57, vec![0], E::CodeBits(0)),
        (57, vec![13], E::CodeBits(13)),
        (60, vec![1], E::Reserved),
        (100, vec![1], E::Reserved),
        (tables, vec![77], E::UnknownSection(77)),
        (order, vec![1], E::DuplicateSection(S::Tables)),
        (order + 8, vec![0; 8], E::SectionOffset(S::Order)),
        (order + 8, (order_at as u64 - 1).to_le_bytes().to_vec(), E::SectionOffset(S::Order)),
        (order + 8, u64::MAX.to_le_bytes().to_vec(), E::SectionOffset(S::Order)),
        (last + 16, u64::MAX.to_le_bytes().to_vec(), E::SectionBounds(S::OwnerSimilarities)),
        (last + 16, len.to_le_bytes().to_vec(), E::SectionBounds(S::OwnerSimilarities)),
        (last + 16, vec![0; 8], E::Length { said: 0, found: 0 }), // a gap at the end
        (31, vec![2], E::UnexpectedSection(S::Order)),
        (31, vec![7], E::UnexpectedSection(S::OwnerCounts)),
        (
            57,
            vec![12],
            E::SectionLength {
                section: S::Tables,
                expected: 2 * tables_len as u64,
                found: tables_len as u64,
            },
        ),
        (
            24,
            91u32.to_le_bytes().to_vec(),
            E::SectionLength { section: S::Order, expected: 182, found: 180 },
        ),
        (
            48,
            1_000_000u64.to_le_bytes().to_vec(),
            E::SectionLength { section: S::Similarities, expected: 1_000_000, found: 90 * 7 },
        ),
    ];
    for (at, bytes, expected) in lies {
        let error = open(&resealed(with(&file, at, &bytes)));
        match expected {
            E::Length { said: 0, .. } => assert!(matches!(error, E::Length { .. }), "{error:?}"),
            _ => assert_eq!(error, expected, "{bytes:?} at {at}"),
        }
        assert!(error.to_string().len() > 20, "a message that says what to do");
    }
    assert_eq!((counts_len, tables_at), (180, header_len(&file)));
    assert!(counts < stream);

    // A section too few: take the last row away.
    let mut short = file.clone();
    let head = header_len(&file);
    let removed = row(&file, 24).2;
    short.drain(file.len() - 8 - removed..file.len() - 8);
    short.drain(last..last + 24);
    let total = short.len() as u64;
    short[12..16].copy_from_slice(&(head as u32 - 24).to_le_bytes());
    short[16..24].copy_from_slice(&total.to_le_bytes());
    short[58] -= 1;
    let end = short.len() - 8;
    short[end..].copy_from_slice(&total.to_le_bytes());
    for i in 0..usize::from(sections) - 1 {
        let at = 156 + 24 * i + 8;
        let offset = u64::from_le_bytes(short[at..at + 8].try_into().unwrap()) - 24;
        short[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    }
    assert_eq!(open(&resealed(short)), E::MissingSection(S::OwnerSimilarities));
}

#[test]
fn verify_finds_every_flipped_bit() {
    let file = full_file(&mut SeededRng::new(8));
    let head = header_len(&file);
    let mut rng = SeededRng::new(9);
    Index::open(&file).unwrap().verify().unwrap();
    for _ in 0..3000 {
        let at = head + below((file.len() - 8 - head) as u32, &mut rng) as usize;
        let flipped = with(&file, at, &[file[at] ^ 1 << below(8, &mut rng)]);
        let error = Index::open(&flipped).unwrap().verify().unwrap_err();
        assert!(matches!(error, FormatError::SectionChecksum(_)), "{error:?} at {at}");
    }
}

/// Changes a section and makes its checksum and the header's right again.
fn forged(file: &[u8], kind: u32, change: impl Fn(&mut [u8])) -> FormatError {
    let mut file = file.to_vec();
    let (table_row, at, len) = row(&file, kind);
    change(&mut file[at..at + len]);
    let crc = crc32(&file[at..at + len]);
    file[table_row + 4..table_row + 8].copy_from_slice(&crc.to_le_bytes());
    Index::open(resealed(file)).unwrap().verify().unwrap_err()
}

#[test]
fn verify_finds_lies_behind_right_checksums() {
    let file = full_file(&mut SeededRng::new(10));
    use FormatError as E;
    let to = |bytes: &'static [u8]| move |s: &mut [u8]| s[..bytes.len()].copy_from_slice(bytes);
    assert!(matches!(forged(&file, 2, to(&[200, 0])), E::Order { .. }));
    assert!(matches!(forged(&file, 3, to(&[200, 0])), E::Order { token: 0 }));
    assert!(matches!(
        forged(&file, 4, to(&[200, 0])),
        E::GroupCount { group: 0, said: 201, found: 7 }
    ));
    assert_eq!(forged(&file, 5, to(&[255; 4])), E::GroupOffset { group: 0 });
    assert_eq!(forged(&file, 7, to(&[9])), E::GroupOffset { group: 0 });
    assert_eq!(forged(&file, 9, to(&[0; 4])), E::Norm { token: 0 });
    assert_eq!(forged(&file, 9, |s| s[2..4].copy_from_slice(&[0xc0, 0x7f])), E::Norm { token: 0 });
    // Codes that decode to nothing, and to everything.
    assert_eq!(forged(&file, 1, |s| s.fill(0)), E::SeedMissing { group: 0 });
    assert_eq!(
        forged(&file, 1, |s| {
            for e in s.chunks_exact_mut(4) {
                e.copy_from_slice(&[0xff, 0xff, 0, 0]);
            }
        }),
        E::MemberOutOfRange { group: 0 }
    );
    // Owners that are another group's: swap the owner lists of two tokens.
    let error = forged(&file, 22, |s| s[0] ^= 0x10);
    assert!(
        matches!(
            error,
            E::Asymmetric { .. }
                | E::GroupCount { .. }
                | E::SeedMissing { .. }
                | E::MemberOutOfRange { .. }
        ),
        "{error:?}"
    );

    // A symmetric file with one pair stored one way only.
    let lists = |one_way: bool| {
        let mut lists = vec![vec![(1u32, 1.0f32)], vec![(0, 1.0)], vec![(3, 1.0)], vec![(2, 1.0)]];
        if one_way {
            lists[3] = vec![(1, 1.0)];
        }
        lists
    };
    let build = |one_way| {
        let b = IndexBuilder::from_lists(&lists(one_way), &BuildOptions::default()).unwrap();
        b.to_bytes().unwrap().0
    };
    let torn = build(true);
    assert!(!Index::open(&torn).unwrap().header().symmetric);
    let sound = build(false);
    assert!(Index::open(&sound).unwrap().header().symmetric);
    // Take the sections that a symmetric file has, and claim that it is symmetric.
    let keep: Vec<u32> = vec![1, 4, 5, 6];
    let head = 156 + 24 * keep.len() + 4;
    let mut fake = torn[..156].to_vec();
    let mut body = Vec::new();
    for &kind in &keep {
        let (at, offset, len) = row(&torn, kind);
        fake.extend_from_slice(&torn[at..at + 8]);
        fake.extend(((head + body.len()) as u64).to_le_bytes());
        fake.extend((len as u64).to_le_bytes());
        body.extend_from_slice(&torn[offset..offset + len]);
    }
    fake.extend([0; 4]);
    fake.extend(body);
    let total = fake.len() as u64 + 8;
    fake.extend(total.to_le_bytes());
    fake[12..16].copy_from_slice(&(head as u32).to_le_bytes());
    fake[16..24].copy_from_slice(&total.to_le_bytes());
    fake[31] |= 1;
    fake[58] = keep.len() as u8;
    let error = Index::open(resealed(fake)).unwrap().verify().unwrap_err();
    assert!(matches!(error, E::Asymmetric { .. }), "{error:?}");
}

#[test]
fn damaged_files_never_panic_or_run_away() {
    let mut rng = SeededRng::new(11);
    let mut seeds = vec![full_file(&mut rng)];
    let fsq = |family| {
        let b = IndexBuilder::from_fsq(&[4; 5], Metric::FsqL1, family, &BuildOptions::default());
        b.unwrap().to_bytes().unwrap().0
    };
    seeds.push(fsq(Family::Threshold { theta: 2.0 }));
    seeds.push(fsq(Family::TopK { k: 5 }));
    let (mut opened, mut refused) = (0, 0);
    for round in 0..2000 {
        let mut file = seeds[round % seeds.len()].clone();
        for _ in 0..=below(12, &mut rng) {
            // Half of the damage in the header and the small sections behind it.
            let reach = if rng.uniform() < 0.5 { 600 } else { file.len() as u32 };
            let at = below(reach, &mut rng) as usize;
            file[at] = match below(4, &mut rng) {
                0 => 0,
                1 => 255,
                2 => file[at] ^ 1 << below(8, &mut rng),
                _ => below(256, &mut rng) as u8,
            };
        }
        if header_len(&file) <= file.len() && header_len(&file) >= 4 {
            file = resealed(file);
        }
        let Ok(mut index) = Index::open(&file) else {
            refused += 1;
            continue;
        };
        opened += 1;
        let n = index.header().codebook;
        let most = (n as usize).next_multiple_of(16).max(256) * 16;
        for weights in [Weights::EqualSplit, Weights::Similarity] {
            let _ = index.set_weights(weights);
            for g in 0..n {
                assert!(index.members(g).count() <= most);
                assert!(index.members(g).all(|t| t < n) && index.owners(g).all(|t| t < n));
                assert!(index.draw_owner(g, rng.uniform()) < n);
                if g % 16 == 0 {
                    index.for_each_member(g, |t, _| assert!(t < n));
                    index.for_each_owner(g, |t, _| assert!(t < n));
                    let _ = (index.owner_count(g), index.weight(g, g));
                }
            }
        }
        let _ = index.verify();
    }
    assert!(opened > 300 && refused > 300, "{opened} opened, {refused} refused");
}
