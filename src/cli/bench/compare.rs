//! Two runs, utterance by utterance.

use super::report::{interval, voice_name};
use super::run::{Report, Utterance};
use crate::cli::stats::median_interval;
use crate::cli::table::{self, field};
use crate::cli::usage;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Serialize)]
pub struct Comparison {
    pub a: String,
    pub b: String,
    /// What else differs between the runs, so that a ratio is not laid at the wrong door.
    pub differences: Vec<String>,
    pub pairs: usize,
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub arm: String,
    /// `all`, or one set of sentences.
    pub set: String,
    pub measure: String,
    pub pairs: usize,
    /// Pairs with the same number of tokens: the same speech, if the seeds are the same.
    pub same_tokens: usize,
    pub median_a: f64,
    pub median_b: f64,
    /// Median of a / b and its 95 % interval. Above 1: b is faster.
    pub ratio: [f64; 3],
}

type Measure = fn(&Utterance) -> Option<f64>;

/// What is compared; all are better low.
const MEASURES: [(&str, Measure); 5] = [
    ("rtf", |u| u.rtf),
    ("first_token_ms", |u| Some(u.first_token_ms)),
    ("first_audio_ms", |u| Some(u.first_audio_ms)),
    ("token_ms", |u| Some(u.token_ms)),
    ("codec_seconds", |u| Some(u.split_seconds.codec)),
];

fn name(r: &Report) -> String {
    format!(
        "{} ({}), {} threads, {}, commit {}",
        r.machine.cpu.as_deref().unwrap_or("unnamed CPU"),
        r.machine.kernel,
        r.machine.threads,
        voice_name(&r.voice),
        r.build.commit
    )
}

fn differences(a: &Report, b: &Report) -> Vec<String> {
    let facts = |r: &Report| -> Vec<(&'static str, String)> {
        let or = |o: &Option<String>| o.clone().unwrap_or("unknown".into());
        vec![
            ("CPU", or(&r.machine.cpu)),
            ("board", or(&r.machine.board)),
            ("kernel", r.machine.kernel.clone()),
            ("threads", r.machine.threads.to_string()),
            ("governor", or(&r.machine.governor)),
            ("bundle", r.voice.sha256.chars().take(16).collect()),
            ("speaker", or(&r.voice.speaker)),
            ("groups", or(&r.voice.groups_sha256.as_ref().map(|s| s.chars().take(16).collect()))),
            ("commit", r.build.commit.clone()),
            ("gamma", r.settings.gamma.to_string()),
            ("seed", r.settings.seed.to_string()),
            (
                "sampling",
                format!(
                    "{} {} {} {}",
                    r.settings.temperature, r.settings.top_k, r.settings.top_p, r.settings.min_p
                ),
            ),
        ]
    };
    let mut out: Vec<String> = facts(a)
        .into_iter()
        .zip(facts(b))
        .filter(|(x, y)| x.1 != y.1)
        .map(|(x, y)| format!("{}: {} against {}", x.0, x.1, y.1))
        .collect();
    for (which, r) in [("A", a), ("B", b)] {
        if let Some(share) = r.conditions.others_share.filter(|s| *s > 0.05) {
            out.push(format!(
                "other programs took {:.0} % of the machine during {which}",
                100.0 * share
            ));
        }
    }
    out
}

pub fn compare(a: &Report, b: &Report) -> voxgrain::Result<Comparison> {
    let index = |r: &Report| -> BTreeMap<(String, usize, String), usize> {
        let keys = r.utterances.iter().enumerate();
        keys.map(|(i, u)| ((u.arm.clone(), u.utterance, u.text.clone()), i)).collect()
    };
    let other = index(b);
    let pairs: Vec<(&Utterance, &Utterance)> = index(a)
        .into_iter()
        .filter_map(|(key, i)| Some((&a.utterances[i], &b.utterances[*other.get(&key)?])))
        .collect();
    if pairs.is_empty() {
        return Err(usage(
            "the runs have no utterance in common: measure both with the same sentences and an arm in common",
        ));
    }
    let mut rows = Vec::new();
    for arm in a.arms.iter().map(|x| &x.arm) {
        let mut sets: Vec<&str> = vec!["all"];
        for (x, _) in pairs.iter().filter(|p| p.0.arm == *arm) {
            if !sets.contains(&x.set.as_str()) {
                sets.push(&x.set);
            }
        }
        if sets.len() == 2 {
            sets.pop();
        }
        for set in sets {
            for (measure, get) in MEASURES {
                let of: Vec<_> = pairs
                    .iter()
                    .filter(|p| p.0.arm == *arm && (set == "all" || p.0.set == set))
                    .filter_map(|(x, y)| Some((get(x)?, get(y)?, x.tokens == y.tokens)))
                    .filter(|p| p.0 > 0.0 && p.1 > 0.0)
                    .collect();
                let Some(ratio) = median_interval(of.iter().map(|p| p.0 / p.1)) else { continue };
                let median = |v: Vec<f64>| median_interval(v).map_or(0.0, |m| m[0]);
                rows.push(Row {
                    arm: arm.clone(),
                    set: set.to_owned(),
                    measure: measure.to_owned(),
                    pairs: of.len(),
                    same_tokens: of.iter().filter(|p| p.2).count(),
                    median_a: median(of.iter().map(|p| p.0).collect()),
                    median_b: median(of.iter().map(|p| p.1).collect()),
                    ratio,
                });
            }
        }
    }
    Ok(Comparison {
        a: name(a),
        b: name(b),
        differences: differences(a, b),
        pairs: pairs.len(),
        rows,
    })
}

pub fn markdown(c: &Comparison) -> String {
    let mut out = format!("# voxgrain bench --compare\n\n- A: {}\n- B: {}\n", c.a, c.b);
    let w = &mut out;
    for d in &c.differences {
        let _ = writeln!(w, "- differs: {d}");
    }
    let _ = write!(
        w,
        "\nMedian over utterances of A / B with its 95 % bootstrap interval; every measure is better \
         low, so above 1 means that B is faster. The runs were made one after the other: a machine \
         that changed its speed between them is in the ratio, not in the interval.\n\n"
    );
    let cells = |r: &Row| {
        vec![
            r.arm.clone(),
            r.set.clone(),
            r.measure.clone(),
            format!("{:.3}", r.median_a),
            format!("{:.3}", r.median_b),
            interval(&r.ratio),
            r.pairs.to_string(),
            r.same_tokens.to_string(),
        ]
    };
    let head = ["arm", "set", "measure", "A", "B", "A / B [95 %]", "pairs", "same tokens"];
    out.push_str(&table::markdown(&head, &c.rows.iter().map(cells).collect::<Vec<_>>()));
    out
}

pub fn csv(c: &Comparison) -> String {
    let mut out =
        String::from("arm,set,measure,median_a,median_b,ratio,low,high,pairs,same_tokens\n");
    for r in &c.rows {
        let [ratio, low, high] = r.ratio;
        let _ = writeln!(
            out,
            "{},{},{},{},{},{ratio},{low},{high},{},{}",
            field(&r.arm),
            field(&r.set),
            r.measure,
            r.median_a,
            r.median_b,
            r.pairs,
            r.same_tokens
        );
    }
    out
}
