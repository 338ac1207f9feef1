use super::tally::Tally;
use super::walk::{Law, Walk, numeric};
use super::{
    Engine, Named, SamplingArgs, Sentences, describe_sampling, open_index, output, shown, usage,
};
use crate::cli::output::progress;
use crate::cli::stats::{Spread, spread};
use crate::cli::table;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use voxgrain::asg::live::{CosineRows, DigitSteps, LiveGroups, Nearness, cover};
use voxgrain::core::accept::{Emission, Groups, Rule, verify_position};
use voxgrain::core::rng::{SeededRng, Uniform};
use voxgrain::decode::Sampling;

/// Groups found at each position among its likely tokens, without an index
///
/// At each position the groups are made of the tokens that the target or the draft may emit
/// there, by the cosine of their embedding rows (--theta) or their codec digits (--fsq). The
/// split is one for both laws and depends on them through this support only, so the group
/// law stays exact; it is not the index's split, whose groups reach beyond the support.
/// Printed for every sampling setting: the support's size, exact acceptance by token, by
/// these groups (with the shift of the emitted token's law) and by the index, and the time and memory that one verification takes.
#[derive(Args)]
#[command(after_help = "\
Examples:
  voxgrain eval live --theta 0.7 --top-k 50
  voxgrain eval live --theta 0.7 --index idx/cos-0.7.asg --top-k 20,50,200 --top-p 1,0.9
  voxgrain eval live --fsq 2 --mass 0.95                no top-k: the tokens that hold 95 %")]
pub struct Live {
    /// Cosine of embedding rows above which tokens are near
    #[arg(
        long,
        value_name = "X",
        conflicts_with = "fsq",
        required_unless_present = "fsq",
        allow_negative_numbers = true
    )]
    theta: Option<f32>,
    /// Steps of codec digits within which tokens are near
    #[arg(long, value_name = "D")]
    fsq: Option<u32>,
    /// Index with the same groups, to compare with [default: none]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Share of both laws that the support holds; 1 is every token that may be emitted
    #[arg(long, value_name = "P,...", value_delimiter = ',', default_value = "1")]
    mass: Vec<f64>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    sentences: Sentences,
    /// Take one position of so many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Engine,
}

/// Tokens of a support: where there are more, groups are not found in any sensible time and
/// the position is left out, and counted.
const MOST: usize = 8192;

impl Live {
    pub fn run(self) -> anyhow::Result<()> {
        if self.mass.iter().any(|m| !(*m > 0.0 && *m <= 1.0)) {
            return Err(usage("--mass must be above 0 and at most 1").into());
        }
        let (voice, pool) = self.engine.open()?;
        let texts = self.sentences.read(&voice)?;
        let index = match &self.index {
            Some(path) => Some(open_index(path, &voice)?),
            None => None,
        };
        let v = &voice.bundle().vocabulary;
        let mut rows = Vec::new();
        let settings = self.sampling.settings(&voice)?;
        let bar = progress((settings.len() * self.mass.len()) as u64, self.json);
        for sampling in settings {
            let mut walk = Walk::new(&voice, &pool, sampling)?;
            let mut laws: Vec<(usize, Law, Law)> = Vec::new();
            for (i, chunks) in texts.iter().enumerate() {
                for (c, chunk) in chunks.iter().enumerate() {
                    let seed = self.sentences.seed + 1000 * i as u64 + c as u64;
                    let every = self.every as usize;
                    walk.speak(
                        chunk,
                        seed,
                        1,
                        |at| (at + i) % every == 0,
                        |at| {
                            laws.push((i, at.target.clone(), at.draft.clone()));
                            Ok(())
                        },
                    )?;
                }
            }
            for &mass in &self.mass {
                let row = match (self.theta, self.fsq) {
                    (Some(theta), _) => {
                        let near = CosineRows::new(voice.target().clone(), theta);
                        self.measure(LiveGroups::new(near, v.speech), &laws, mass, index.as_ref())?
                    }
                    (None, Some(radius)) => {
                        let levels = v.levels().ok_or_else(crate::cli::no_digits)?;
                        let near = DigitSteps::new(&levels, radius);
                        self.measure(LiveGroups::new(near, v.speech), &laws, mass, index.as_ref())?
                    }
                    (None, None) => return Err(usage("give --theta or --fsq").into()),
                };
                rows.push((sampling, mass, row));
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        self.print(&rows, &voice.bundle().name)
    }

    fn measure<N: Nearness>(
        &self,
        mut live: LiveGroups<N>,
        laws: &[(usize, Law, Law)],
        mass: f64,
        index: Option<&Named>,
    ) -> voxgrain::Result<Row> {
        let mut row = Row::default();
        let mut rng = SeededRng::new(self.sentences.seed);
        let (mut support, mut bytes) = (Vec::new(), 0);
        let (mut live_us, mut index_us, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        let mut sizes = Vec::new();
        for (sentence, target, draft) in laws {
            let (p, q) = (target.row()?, draft.row()?);
            let x = draft.draw(&mut rng)?;
            // The same choices for both.
            let seed = u64::from((rng.uniform() * 1e6) as u32);
            let clock = Instant::now();
            cover(p, q, live.codebook(), mass, &mut support);
            if support.len() > MOST {
                row.skipped += 1;
                continue;
            }
            live.set_support(&support);
            let rule = Rule::Groups { groups: &live, emission: Emission::StandIn };
            verify_position(p, q, x, &rule, &mut SeededRng::new(seed)).map_err(numeric)?;
            live_us.push(clock.elapsed().as_secs_f64() * 1e6);
            listed.push(f64::from(live.groups_listed()));
            sizes.push(support.len() as f64);
            bytes = bytes.max(live.bytes());
            if let Some(named) = index {
                let clock = Instant::now();
                let rule = Rule::Groups { groups: &named.index, emission: Emission::StandIn };
                verify_position(p, q, x, &rule, &mut SeededRng::new(seed)).map_err(numeric)?;
                index_us.push(clock.elapsed().as_secs_f64() * 1e6);
                let (accepted, shift) = by_group(&named.index, target, draft);
                row.by_index.add(*sentence, accepted);
                row.index_shift.add(*sentence, shift);
            }
            let (accepted, shift) = by_group(&live, target, draft);
            row.by_live.add(*sentence, accepted);
            row.live_shift.add(*sentence, shift);
            let token = target.probs.iter().zip(&draft.probs).map(|(p, q)| f64::from(p.min(*q)));
            row.by_token.add(*sentence, token.sum());
        }
        if sizes.is_empty() {
            return Err(usage(format!(
                "more than {MOST} tokens may be emitted at every position, too many to compare \
                 with one another: give --top-k, --top-p or --mass"
            )));
        }
        row.support = spread(sizes);
        row.live_us = spread(live_us);
        row.index_us = spread(index_us);
        row.listed = spread(listed);
        row.live_bytes = bytes;
        row.index_bytes = index.map(|n| n.bytes);
        Ok(row)
    }

    fn print(&self, rows: &[(Sampling, f64, Row)], voice: &str) -> anyhow::Result<()> {
        if self.json {
            let rows: Vec<Value> = rows
                .iter()
                .map(|(s, mass, r)| {
                    json!({
                        "sampling": describe_sampling(s),
                        "mass": mass,
                        "positions": r.by_token.count(),
                        "skipped": r.skipped,
                        "support": r.support,
                        "token": r.by_token.interval(),
                        "live": r.by_live.interval(),
                        "live_shift": r.live_shift.interval(),
                        "index_shift": (r.by_index.count() > 0).then(|| r.index_shift.interval()),
                        "index": (r.by_index.count() > 0).then(|| r.by_index.interval()),
                        "live_us": r.live_us,
                        "index_us": r.index_us,
                        "groups_listed": r.listed,
                        "live_bytes": r.live_bytes,
                        "index_bytes": r.index_bytes,
                    })
                })
                .collect();
            return Ok(output::json(&json!({
                "eval": "live", "voice": voice, "theta": self.theta, "fsq": self.fsq, "rows": rows,
            }))?);
        }
        let us = |s: &Option<Spread>| {
            s.as_ref().map_or(String::new(), |s| format!("{:.0} / {:.0}", s.p50, s.p95))
        };
        let cells = |(s, mass, r): &(Sampling, f64, Row)| {
            let t = s.transforms;
            vec![
                format!("{}, {}, {}", s.temperature, t.top_k, t.top_p),
                mass.to_string(),
                us(&r.support),
                shown(&r.by_token.interval(), 3),
                shown(&r.by_live.interval(), 3),
                format!("{:.3}", r.live_shift.interval()[0]),
                if r.by_index.count() > 0 {
                    shown(&r.by_index.interval(), 3)
                } else {
                    String::new()
                },
                us(&r.live_us),
                us(&r.index_us),
                format!("{:.2}", r.live_bytes as f64 / 1e6),
                r.index_bytes.map_or(String::new(), |b| format!("{:.2}", b as f64 / 1e6)),
            ]
        };
        let head = [
            "T, top-k, top-p",
            "mass",
            "support, p50 / p95",
            "by token",
            "on the fly",
            "shift",
            "by index",
            "µs on the fly",
            "µs index",
            "MB on the fly",
            "MB index",
        ];
        let rows: Vec<_> = rows.iter().map(cells).collect();
        output::line(table::markdown(&head, &rows).trim_end())?;
        Ok(())
    }
}

#[derive(Default)]
struct Row {
    by_token: Tally,
    by_live: Tally,
    by_index: Tally,
    live_shift: Tally,
    index_shift: Tally,
    support: Option<Spread>,
    live_us: Option<Spread>,
    index_us: Option<Spread>,
    listed: Option<Spread>,
    live_bytes: usize,
    index_bytes: Option<u64>,
    /// Positions with more than `MOST` tokens.
    skipped: usize,
}

/// `sum_g min(P(g), Q(g))` over all groups and the tokens beyond the codebook, and how far
/// the law of the emitted token is from the target's in total variation; both from the
/// tokens that have any probability.
fn by_group(groups: &impl Groups, target: &Law, draft: &Law) -> (f64, f64) {
    let n = groups.codebook() as usize;
    let rows =
        || target.probs.iter().zip(&draft.probs).map(|(p, q)| (f64::from(*p), f64::from(*q)));
    let mut sums = vec![[0f64; 2]; n];
    for (t, (p, q)) in rows().enumerate().take(n).filter(|(_, (p, q))| p + q > 0.0) {
        groups.for_each_owner(t as u32, |g, w| {
            sums[g as usize][0] += f64::from(w) * p;
            sums[g as usize][1] += f64::from(w) * q;
        });
    }
    let alone: f64 = rows().skip(n).map(|(p, q)| p.min(q)).sum();
    let accepted = alone + sums.iter().map(|s| s[0].min(s[1])).sum::<f64>();
    let mut shift = 0.0;
    for (t, (p, q)) in rows().enumerate().take(n).filter(|(_, (p, q))| p + q > 0.0) {
        let mut emitted = 0.0;
        groups.for_each_owner(t as u32, |g, w| {
            let [cp, cq] = sums[g as usize];
            let stands = if cq > cp { cp / cq } else { 1.0 };
            let found = if cp > cq { (cp - cq) / cp } else { 0.0 };
            emitted += f64::from(w) * (q * stands + p * found);
        });
        shift += 0.5 * (emitted - p).abs();
    }
    (accepted, shift)
}
