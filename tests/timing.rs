//! Times of words against a teacher's.
#![cfg(feature = "std")]

use voxgrain::speech::phonemes::{Origin, Spoken};
use voxgrain::speech::timing;

fn spoken(word: &str) -> Spoken {
    let mark = |c: char| ";:,.!?\u{2014}\u{2026}\u{201c}\u{201d}()".contains(c);
    let bare = word.trim_end_matches(mark);
    Spoken {
        text: String::new(),
        phonemes: bare.trim_start_matches(mark).into(),
        before: bare[..bare.len() - bare.trim_start_matches(mark).len()].into(),
        after: word[bare.len()..].into(),
        origin: Origin::Given,
    }
}

/// Half of the begins and ends are within 60 ms of hibari's, in sentences that the lengths were not fitted to.
#[test]
fn words_are_timed_as_the_teacher_does() {
    let data = std::fs::read_to_string("tests/data/timings.tsv").unwrap();
    let (mut errors, mut even) = (Vec::new(), Vec::new());
    for line in data.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let said: Vec<Spoken> = fields[0].split(' ').map(spoken).collect();
        let times: Vec<(f64, f64)> = fields[2]
            .split(' ')
            .map(|t| t.split_once('-').unwrap())
            .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
            .collect();
        assert_eq!(said.len(), times.len(), "{line}");
        let (begin, end) = (times[0].0, times[times.len() - 1].1);
        let found = timing::words(&said, begin..end);
        for (i, (time, found)) in times.iter().zip(found).enumerate() {
            errors.extend([(found.start - time.0).abs(), (found.end - time.1).abs()]);
            // As if all words were equally long.
            let at = |n: usize| begin + (end - begin) * n as f64 / said.len() as f64;
            even.extend([(at(i) - time.0).abs(), (at(i + 1) - time.1).abs()]);
        }
    }
    let median = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (error, even) = (median(&mut errors), median(&mut even));
    println!(
        "median error {error:.0} ms of {} begins and ends; words of one length {even:.0}",
        errors.len()
    );
    assert!(error <= 60.0, "{error} ms");
    assert!(even > 2.0 * error, "words of one length would do as well: {even} ms");
}

#[test]
fn times_are_in_order_and_within_the_sound() {
    let said: Vec<Spoken> = ["həlˈO,", "", "wˈɜɹld."].map(spoken).into();
    let times = timing::words(&said, 1.0..2.0);
    assert_eq!((times[0].start, times[2].end), (1.0, 2.0));
    assert_eq!(times[1].start, times[1].end);
    for pair in times.windows(2) {
        assert!(pair[0].start <= pair[0].end && pair[0].end <= pair[1].start, "{times:?}");
    }
    assert!(timing::words(&[], 0.0..1.0).is_empty());
    assert_eq!(timing::words(&[spoken("")], 0.0..1.0), [0.0..0.0]);
}
