use super::coarse::{Batch, map};
use super::flow::{self, Support};
use super::lists::Lists;
use super::splits;
use super::tally::Tally;
use super::walk::{Law, Walk};
use super::{
    Engine, Named, SamplingArgs, Sentences, describe_sampling, open_indexes, output, shown, usage,
};
use crate::cli::output::progress;
use crate::cli::table;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use voxgrain::decode::{DEFAULT_BETA, Sampling};

/// Exact acceptance of rules and families on the target's own speech
///
/// The target speaks the sentences with its sampling. At every --every-th position its law
/// and the draft's are taken, after the same transforms, and the probability that a drafted
/// token is accepted is computed exactly: by token, by the groups of every index, and by
/// transport (excess passed on to near tokens). *Shift* is the total variation between the
/// law of the token that is then emitted and the target's: what acceptance beyond `by token`
/// is paid with (for transport it is just that difference). With --bounds also the most that any rule
/// could accept: a maximum flow over pairs that are near or share a group, within the tokens
/// that hold --bound-mass of either law, with what the rest may change as lower and upper
/// value; and splits that know both laws. Intervals are of 95 %, over sentences.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain eval acceptance                               the bundle's index
  voxgrain eval acceptance idx/*.asg -n 60 -f tools/data/heldout.txt --json
  voxgrain eval acceptance idx/fsq-2.asg --bounds 5      bounds at every 5th of the positions
  voxgrain eval acceptance idx/fsq-2.asg --depth 4       behind the draft's own drafts as well
  voxgrain eval acceptance idx/fsq-2.asg --temperature 1,0.8,0.6 --top-k 0,50 --top-p 1,0.9")]
pub struct Acceptance {
    /// Index files [default: the bundle's]
    indexes: Vec<PathBuf>,
    #[command(flatten)]
    sentences: Sentences,
    /// Take one position of so many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Drafts in a row: 1 is behind the target's true states only
    #[arg(long, value_name = "D", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=15))]
    depth: u32,
    /// Bounds and splits at one of so many positions; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    bounds: u32,
    /// Share of each law within which flows are computed
    #[arg(long, value_name = "P", default_value_t = 0.999)]
    bound_mass: f64,
    /// What the tolerance rule adds
    #[arg(long, default_value_t = DEFAULT_BETA)]
    beta: f32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Engine,
}

/// What is known of one family.
#[derive(Default)]
struct Family {
    groups: Tally,
    /// Of the emitted token's law from the target's, in total variation.
    shift: Tally,
    transport: Tally,
    /// Bounds and splits, in the order of `BOUNDS`.
    bounds: [Tally; BOUNDS.len()],
}

const BOUNDS: [&str; 9] = [
    "equal",
    "common",
    "step",
    "climbed",
    "near_low",
    "near_high",
    "shared_low",
    "shared_high",
    "bound_token",
];

#[derive(Default)]
struct Rows {
    token: Tally,
    tolerance: Tally,
    tolerance_shift: Tally,
    families: Vec<Family>,
}

impl Acceptance {
    pub fn run(self) -> anyhow::Result<()> {
        if !(self.bound_mass > 0.0 && self.bound_mass <= 1.0) {
            return Err(usage("--bound-mass must be above 0 and at most 1").into());
        }
        let (voice, pool) = self.engine.open()?;
        let texts = self.sentences.read(&voice)?;
        let settings = self.sampling.settings(&voice)?;
        let named = open_indexes(&self.indexes, &voice)?;
        output::status(&format!("acceptance: unpacking {} indexes", named.len()));
        let lists: Vec<Lists> = named.iter().map(|n| Lists::new(&n.index)).collect();
        let bar = progress((settings.len() * texts.len()) as u64, self.json);
        let mut reports = Vec::new();
        for sampling in settings {
            let clock = Instant::now();
            let mut rows: Vec<Rows> = (0..self.depth)
                .map(|_| Rows {
                    families: named.iter().map(|_| Family::default()).collect(),
                    ..Rows::default()
                })
                .collect();
            let mut walk = Walk::new(&voice, &pool, sampling)?;
            let mut batch = Batch::new(voice.bundle().vocabulary.scored());
            let mut bounded: Vec<(usize, Law, Law)> = Vec::new();
            let (mut tokens, mut seen) = (0, 0u32);
            for (i, chunks) in texts.iter().enumerate() {
                for (c, chunk) in chunks.iter().enumerate() {
                    let seed = self.sentences.seed + 1000 * i as u64 + c as u64;
                    let every = self.every as usize;
                    let chosen = |at: usize| (at + i) % every == 0;
                    let spoken = walk.speak(chunk, seed, self.depth as usize, chosen, |at| {
                        batch.push(i, at.depth, at.target, at.draft);
                        if batch.is_full() {
                            self.sum(&mut batch, &lists, &mut rows);
                        }
                        if at.depth == 1 && self.bounds > 0 {
                            if seen.is_multiple_of(self.bounds) {
                                bounded.push((i, at.target.clone(), at.draft.clone()));
                            }
                            seen += 1;
                        }
                        Ok(())
                    })?;
                    tokens += spoken.len();
                }
                if bounded.len() >= 8 {
                    self.bound(&mut bounded, &lists, &mut rows[0]);
                }
                bar.inc(1);
            }
            self.sum(&mut batch, &lists, &mut rows);
            self.bound(&mut bounded, &lists, &mut rows[0]);
            reports.push(self.report(&sampling, &rows, &named, tokens, clock));
        }
        bar.finish_and_clear();
        if self.json {
            output::json(&json!({
                "eval": "acceptance",
                "voice": voice.bundle().name, "speaker": voice.speaker().name,
                "sentences": texts.len(),
                "every": self.every,
                "seed": self.sentences.seed,
                "bound_mass": self.bound_mass,
                "beta": self.beta,
                "settings": reports,
            }))?;
        } else {
            for report in &reports {
                output::line(markdown(report).trim_end())?;
            }
        }
        Ok(())
    }

    fn sum(&self, batch: &mut Batch, lists: &[Lists], rows: &mut [Rows]) {
        let threads = self.engine.threads();
        let token = batch.by_token(0.0);
        let (tolerance, shift) = batch.by_tolerance(self.beta);
        for (i, &(sentence, depth)) in batch.origin.iter().enumerate() {
            rows[depth - 1].token.add(sentence, token[i]);
            rows[depth - 1].tolerance.add(sentence, tolerance[i]);
            rows[depth - 1].tolerance_shift.add(sentence, shift[i]);
        }
        for (f, lists) in lists.iter().enumerate() {
            let (groups, shift) = if lists.symmetric && lists.equal_split() {
                let (groups, shift) = batch.by_group_with_shift(lists, threads);
                (groups, Some(shift))
            } else {
                (batch.by_group(lists, threads), None)
            };
            let transport = lists.symmetric.then(|| batch.by_transport(lists, threads));
            for (i, &(sentence, depth)) in batch.origin.iter().enumerate() {
                let family = &mut rows[depth - 1].families[f];
                family.groups.add(sentence, groups[i]);
                if let Some(shift) = &shift {
                    family.shift.add(sentence, shift[i]);
                }
                if let Some(transport) = &transport {
                    family.transport.add(sentence, transport[i]);
                }
            }
        }
        batch.clear();
    }

    fn bound(&self, laws: &mut Vec<(usize, Law, Law)>, lists: &[Lists], rows: &mut Rows) {
        let jobs = laws.len() * lists.len();
        let found = map(jobs, self.engine.threads(), |job| {
            let ((_, p, q), lists) = (&laws[job / lists.len()], &lists[job % lists.len()]);
            let support = Support::new(p, q, self.bound_mass);
            let known = lists.symmetric.then(|| splits::acceptance(lists, &support, p, q));
            let near = flow::near(lists, &support, p, q);
            let shared = flow::shared(lists, &support, p, q);
            let token: f64 = p.probs.iter().zip(&q.probs).map(|(p, q)| f64::from(p.min(*q))).sum();
            let mut values = [f64::NAN; BOUNDS.len()];
            if let Some(k) = known {
                values[..4].copy_from_slice(&[k.equal, k.common, k.step, k.climbed]);
            }
            values[4..].copy_from_slice(&[
                near.lower,
                near.upper,
                shared.lower,
                shared.upper,
                token,
            ]);
            values
        });
        for (job, values) in found.into_iter().enumerate() {
            let sentence = laws[job / lists.len()].0;
            let family = &mut rows.families[job % lists.len()];
            for (tally, v) in family.bounds.iter_mut().zip(values) {
                if v.is_finite() {
                    tally.add(sentence, v);
                }
            }
        }
        laws.clear();
    }

    fn report(
        &self,
        sampling: &Sampling,
        rows: &[Rows],
        named: &[Named],
        tokens: usize,
        clock: Instant,
    ) -> Value {
        let depths: Vec<Value> = rows
            .iter()
            .enumerate()
            .map(|(depth, rows)| {
                let families: Vec<Value> = named
                    .iter()
                    .zip(&rows.families)
                    .map(|(named, family)| describe(named, family, &rows.token))
                    .collect();
                json!({
                    "depth": depth + 1,
                    "positions": rows.token.count(),
                    "token": rows.token.interval(),
                    "tolerance": rows.tolerance.interval(),
                    "tolerance_shift": rows.tolerance_shift.interval(),
                    "families": families,
                })
            })
            .collect();
        let mut value = describe_sampling(sampling);
        value["tokens"] = json!(tokens);
        value["seconds"] = json!(clock.elapsed().as_secs_f64());
        value["depths"] = json!(depths);
        value
    }
}

fn describe(named: &Named, family: &Family, token: &Tally) -> Value {
    let h = named.index.header();
    let mut value = json!({
        "name": named.name,
        "mean_members": h.entries as f64 / f64::from(h.codebook),
        "max_members": h.max_members,
        "bytes": named.bytes,
        "power": h.power,
        "groups": family.groups.interval(),
        "groups_minus_token": family.groups.minus(token),
    });
    if family.shift.count() > 0 {
        value["groups_shift"] = json!(family.shift.interval());
    }
    if family.transport.count() > 0 {
        value["transport"] = json!(family.transport.interval());
        value["transport_minus_groups"] = json!(family.transport.minus(&family.groups));
    }
    for (name, tally) in BOUNDS.iter().zip(&family.bounds) {
        if tally.count() > 0 {
            value[*name] = json!(tally.interval());
            value["bound_positions"] = json!(tally.count());
        }
    }
    value
}

/// A number of the report, or a triple, for people.
fn cell(v: &Value) -> String {
    match v.as_array().map(|a| a.iter().filter_map(Value::as_f64).collect::<Vec<_>>()) {
        Some(v) if v.len() == 3 => shown(&[v[0], v[1], v[2]], 3),
        _ => String::new(),
    }
}

/// An option as it was given.
fn short(v: &Value) -> f32 {
    v.as_f64().unwrap_or(f64::NAN) as f32
}

fn mean(v: &Value) -> String {
    v[0].as_f64().map_or(String::new(), |v| format!("{v:.3}"))
}

fn markdown(report: &Value) -> String {
    let mut out = String::new();
    for depth in report["depths"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "temperature {}, top-k {}, top-p {}; draft {} of a round, {} positions; by token {}, with tolerance {}, shift {}\n\n",
            short(&report["temperature"]),
            report["top_k"],
            short(&report["top_p"]),
            depth["depth"],
            depth["positions"],
            cell(&depth["token"]),
            cell(&depth["tolerance"]),
            mean(&depth["tolerance_shift"]),
        ));
        let families: Vec<&Value> = depth["families"].as_array().into_iter().flatten().collect();
        let rows: Vec<Vec<String>> = families
            .iter()
            .map(|f| {
                vec![
                    f["name"].as_str().unwrap_or_default().to_owned(),
                    format!("{:.1}", f["mean_members"].as_f64().unwrap_or(f64::NAN)),
                    format!("{:.2}", f["bytes"].as_f64().unwrap_or(f64::NAN) / 1e6),
                    cell(&f["groups"]),
                    cell(&f["groups_minus_token"]),
                    mean(&f["groups_shift"]),
                    cell(&f["transport"]),
                ]
            })
            .collect();
        let head = ["groups", "members", "MB", "by group", "- by token", "shift", "by transport"];
        out.push_str(&table::markdown(&head, &rows));
        out.push('\n');
        let bounded: Vec<_> = families.iter().filter(|f| !f["near_low"].is_null()).collect();
        if bounded.is_empty() {
            continue;
        }
        let rows: Vec<Vec<String>> = bounded
            .iter()
            .map(|f| {
                let mut row = vec![f["name"].as_str().unwrap_or_default().to_owned()];
                row.extend(
                    ["bound_token", "equal", "common", "step", "climbed"].map(|k| mean(&f[k])),
                );
                row.push(format!("{} .. {}", mean(&f["shared_low"]), mean(&f["shared_high"])));
                row.push(format!("{} .. {}", mean(&f["near_low"]), mean(&f["near_high"])));
                row
            })
            .collect();
        out.push_str(&format!("bounds at {} of the positions\n\n", bounded[0]["bound_positions"]));
        out.push_str(&table::markdown(
            &[
                "groups",
                "by token",
                "equal split",
                "common",
                "one step",
                "climbed",
                "most, sharing a group",
                "most, near",
            ],
            &rows,
        ));
        out.push('\n');
    }
    out
}
