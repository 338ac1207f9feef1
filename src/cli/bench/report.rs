//! A run as Markdown and as a table.

use super::run::{ArmReport, Report, Split, VoiceFacts};
use crate::cli::stats::Spread;
use crate::cli::table::{self, field};
use std::fmt::Write;

pub fn maybe<T>(value: &Option<T>, f: impl Fn(&T) -> String) -> String {
    value.as_ref().map_or_else(|| "-".into(), f)
}

/// Value and interval; the value alone where one utterance was all that there was to draw from,
/// which is when the interval has no width.
pub fn interval(v: &[f64; 3]) -> String {
    if v[1] == v[2] {
        return format!("{:.2}", v[0]);
    }
    format!("{:.2} [{:.2}, {:.2}]", v[0], v[1], v[2])
}

/// The bundle, and who of it spoke where that is not the same.
pub fn voice_name(v: &VoiceFacts) -> String {
    match &v.speaker {
        Some(speaker) if *speaker != v.name => format!("{} ({speaker})", v.name),
        _ => v.name.clone(),
    }
}

/// The baseline is 1, which needs no interval.
fn speed_up(arm: &str, v: &Option<[f64; 3]>) -> String {
    if arm == "ar" { "1".into() } else { maybe(v, interval) }
}

fn three(s: &Option<Spread>, digits: usize) -> String {
    maybe(s, |s| format!("{:.digits$} / {:.digits$} / {:.digits$}", s.p50, s.p95, s.p99))
}

fn mb(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// One fact a line: what it is and what it says.
pub fn facts(r: &Report) -> Vec<(&'static str, String)> {
    let m = &r.machine;
    let c = &r.conditions;
    let s = &r.settings;
    let sets: Vec<String> = s.sets.iter().map(|(k, n)| format!("{n} {k}")).collect();
    let mut facts = vec![
        (
            "machine",
            format!(
                "{}{}, {} cores, {}",
                m.board.as_ref().map(|b| format!("{b}: ")).unwrap_or_default(),
                m.cpu.as_deref().unwrap_or("unnamed CPU"),
                m.cores,
                m.memory_bytes.map_or("memory unknown".into(), mb),
            ),
        ),
        ("system", format!("{}, {}", m.os.as_deref().unwrap_or("unknown"), m.arch)),
        ("kernel", format!("{} of {}", m.kernel, m.kernels.join(", "))),
        ("threads", m.threads.to_string()),
        ("governor", m.governor.clone().unwrap_or("not shown by the system".into())),
        (
            "frequency",
            match (c.mhz_min, c.mhz_max) {
                (Some(a), Some(b)) if (b - a).abs() < 1.0 => format!("{a:.0} MHz"),
                (Some(a), Some(b)) => format!("{a:.0} to {b:.0} MHz"),
                _ => "not shown by the system".into(),
            },
        ),
        (
            "temperature",
            match (c.celsius_start, c.celsius_max) {
                (Some(a), Some(b)) => format!("{a:.0} °C at the start, at most {b:.0} °C"),
                _ => "not shown by the system".into(),
            },
        ),
        (
            "others",
            match (c.others_share, c.stolen_share) {
                (Some(o), Some(s)) => format!(
                    "{:.0} % of the machine went to other programs, {:.0} % to other virtual machines",
                    100.0 * o,
                    100.0 * s
                ),
                _ => "not shown by the system".into(),
            },
        ),
        (
            "program",
            format!("voxgrain {}, commit {}, {}", r.build.version, r.build.commit, r.build.target),
        ),
        (
            "voice",
            format!(
                "{}, int{}, {} mapped, bundle sha256 {}…",
                voice_name(&r.voice),
                r.voice.target_bits,
                mb(r.voice.mapped_bytes),
                &r.voice.sha256[..r.voice.sha256.len().min(16)]
            ),
        ),
        (
            "run",
            format!(
                "{} utterances an arm ({}), arms in turn, {:.0} s; gamma {}, seed {}, temperature {}, top-k {}, top-p {}, min-p {}",
                s.utterances,
                sets.join(", "),
                c.seconds,
                s.gamma,
                s.seed,
                s.temperature,
                s.top_k,
                s.top_p,
                s.min_p
            ),
        ),
    ];
    if let Some(costs) = &s.costs {
        let whose = match costs.calibrated {
            true => "calibrated on this machine",
            false => "the voice's, made safe for this kernel; `voxgrain calibrate` measures them",
        };
        facts.push((
            "costs",
            format!(
                "a draft step {:.3}, a further row {:.3} passes of one row ({whose}): what gamma \
                 `auto` chooses by",
                costs.draft, costs.row
            ),
        ));
    }
    if let Some(bits) = &c.throttled {
        facts.push(("throttled", bits.clone()));
    }
    if r.build.debug_assertions {
        facts.push(("warning", "built without optimisation: these figures mean nothing".into()));
    }
    facts
}

/// Start and memory: rows of name and value.
fn start_facts(r: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![("load (bundle opened, in this run)", format!("{:.1} ms", r.load_ms))];
    if let Some(c) = &r.cold_start {
        let one = |s: &super::cold::Starts| {
            format!(
                "{:.0} ms (median of {}, at most {:.0}); of that load {:.1}, engine {:.1}",
                s.first_audio_ms.p50,
                s.first_audio_ms.n,
                s.first_audio_ms.max,
                s.load_ms.p50,
                s.engine_ms.p50
            )
        };
        rows.push(("fresh process to first audio, files cached", one(&c.warm)));
        rows.push((
            "the same, files not cached",
            match (&c.cold, &c.cold_note) {
                (Some(s), _) => one(s),
                (None, Some(note)) => note.clone(),
                (None, None) => "not measured".into(),
            },
        ));
        let rss = |r: &Option<super::machine::Rss>| {
            maybe(r, |r| match r.anonymous {
                Some(a) => format!("{}, of which {} its own, not files", mb(r.total), mb(a)),
                None => mb(r.total),
            })
        };
        rows.push(("resident, voice loaded (one engine)", rss(&c.memory.loaded)));
        rows.push(("resident, steady after three sentences", rss(&c.memory.steady)));
        rows.push(("resident, peak, load included", maybe(&c.memory.peak_rss_bytes, |b| mb(*b))));
    } else {
        rows.push(("cold start", "not measured (--no-cold-start)".into()));
    }
    let engines = r.arms.len();
    rows.push((
        "resident, peak of this run",
        maybe(&r.peak_rss_bytes, |b| format!("{}, with {engines} engines", mb(*b))),
    ));
    rows
}

pub fn accepted_at(a: &ArmReport) -> Vec<f64> {
    a.proposed_at.iter().zip(&a.accepted_at).map(|(p, k)| *k as f64 / (*p).max(1) as f64).collect()
}

/// A table of the run with what is said around it.
pub struct Section {
    pub title: String,
    /// Before the table; what the figures are.
    pub about: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

fn section(title: &str, about: &str, head: &[&str], rows: Vec<Vec<String>>) -> Section {
    let head = head.iter().map(|h| (*h).to_owned()).collect();
    Section { title: title.to_owned(), about: about.to_owned(), head, rows }
}

/// All tables of a run, for whatever shows them.
pub fn sections(r: &Report) -> Vec<Section> {
    let each = |f: &dyn Fn(&ArmReport) -> Vec<String>| -> Vec<Vec<String>> {
        let row = |a: &ArmReport| std::iter::once(a.arm.clone()).chain(f(a)).collect();
        r.arms.iter().map(row).collect()
    };
    let mut all = vec![
        section(
            "Arms",
            "rtf is compute over audio seconds, codec included: lower is better.",
            &["arm", "tokens/s", "rtf", "speed-up [95 %]", "accepted", "tokens a round"],
            each(&|a| {
                vec![
                    format!("{:.0}", a.tokens_per_second),
                    format!("{:.3}", a.rtf),
                    speed_up(&a.arm, &a.speed_up),
                    maybe(&a.acceptance_rate, |x| format!("{:.0} %", 100.0 * x)),
                    format!("{:.2}", a.tokens_per_round),
                ]
            }),
        ),
        section(
            "Latency, ms, p50 / p95 / p99",
            "",
            &["arm", "first token", "first audio", "a token", "a round", "codec, a token"],
            each(&|a| {
                vec![
                    three(&a.first_token_ms, 1),
                    three(&a.first_audio_ms, 1),
                    three(&a.token_ms, 2),
                    three(&a.round_ms, 2),
                    three(&a.codec_token_ms, 2),
                ]
            }),
        ),
    ];
    let mut rows = Vec::new();
    for set in ["short", "medium", "long", "file"] {
        for a in &r.arms {
            let Some(b) = a.by_set.get(set) else { continue };
            rows.push(vec![
                set.to_owned(),
                a.arm.clone(),
                b.utterances.to_string(),
                format!("{:.0}", b.tokens_per_second),
                format!("{:.3}", b.rtf),
                speed_up(&a.arm, &b.speed_up),
                three(&b.first_audio_ms, 1),
            ]);
        }
    }
    let head = ["set", "arm", "utterances", "tokens/s", "rtf", "speed-up [95 %]", "first audio ms"];
    all.push(section("By length", "", &head, rows));
    let head: Vec<&str> = std::iter::once("arm").chain(Split::NAMES).collect();
    let rows = each(&|a| a.share.parts().iter().map(|p| format!("{:.1}", 100.0 * p)).collect());
    all.push(section("Where the time goes, % of compute", "", &head, rows));
    let gamma = r.arms.iter().map(|a| a.gamma).max().unwrap_or(0);
    if gamma > 0 {
        let rows = r.arms.iter().filter(|a| a.gamma > 0).map(|a| {
            let mut cells = vec![a.arm.clone()];
            cells.extend(accepted_at(a).iter().map(|x| format!("{:.0}", 100.0 * x)));
            cells.resize(gamma + 1, String::new());
            cells
        });
        let costs = r.arms.iter().filter_map(|a| {
            let c = a.costs?;
            let cells = [f64::from(c.draft), f64::from(c.row), a.mean_gamma];
            let cells = cells.map(|x| format!("{x:.3}"));
            Some(std::iter::once(a.arm.clone()).chain(cells).collect())
        });
        let costs: Vec<Vec<String>> = costs.collect();
        if !costs.is_empty() {
            all.push(section(
                "Costs in this run, in rounds of one row",
                "",
                &["arm", "draft step", "further row", "drafts a round"],
                costs,
            ));
        }
        let mut s = section(
            "Acceptance by position, % of the drafts at that position",
            "",
            &["arm"],
            rows.collect(),
        );
        s.head.extend((1..=gamma).map(|i| i.to_string()));
        all.push(s);
    }
    all.push(section(
        "Playback, simulated",
        &format!(
            "The measured times of the chunks against the clock of a player that begins when its \
             {} ms are full, behind a ring of {} ms; no sound device was used.",
            r.settings.device_ms, r.settings.ring_ms
        ),
        &[
            "arm",
            "sound begins ms",
            "underruns",
            "utterances with one",
            "silence s",
            "least queued ms, p5",
        ],
        each(&|a| {
            let p = &a.playback;
            vec![
                three(&p.start_ms, 1),
                p.underruns.to_string(),
                p.utterances_with_underruns.to_string(),
                format!("{:.2}", p.silence_seconds),
                maybe(&p.lowest_fill_ms_p05, |f| format!("{f:.0}")),
            ]
        }),
    ));
    let rows = start_facts(r).into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect();
    all.push(section("Start and memory", "", &["what", ""], rows));
    all
}

pub fn markdown(r: &Report) -> String {
    let mut out = String::from("# voxgrain bench\n\n");
    for (k, v) in facts(r) {
        let _ = writeln!(out, "- {k}: {v}");
    }
    for s in sections(r) {
        let _ = write!(out, "\n## {}\n\n", s.title);
        if !s.about.is_empty() {
            let _ = write!(out, "{}\n\n", s.about);
        }
        out.push_str(&table::markdown(&s.head, &s.rows));
    }
    out
}

pub fn csv(r: &Report) -> String {
    let mut out = String::from(
        "utterance,set,arm,turn,characters,tokens,rounds,proposed,accepted,audio_seconds,\
         compute_seconds,rtf,first_token_ms,first_audio_ms,token_ms,prefill_seconds,draft_seconds,\
         verify_seconds,sampling_seconds,codec_seconds,other_seconds,start_ms,underruns,\
         silence_seconds,lowest_fill_ms,celsius,mhz,kernel,threads,text\n",
    );
    let opt = |v: Option<f64>| v.map(|v| v.to_string()).unwrap_or_default();
    for u in &r.utterances {
        let mut cells: Vec<String> = vec![
            u.utterance.to_string(),
            u.set.clone(),
            u.arm.clone(),
            u.turn.to_string(),
            u.text.chars().count().to_string(),
            u.tokens.to_string(),
            u.rounds.to_string(),
            u.proposed.to_string(),
            u.accepted.to_string(),
            u.audio_seconds.to_string(),
            u.compute_seconds.to_string(),
            opt(u.rtf),
            u.first_token_ms.to_string(),
            u.first_audio_ms.to_string(),
            u.token_ms.to_string(),
        ];
        cells.extend(u.split_seconds.parts().iter().map(|p| p.to_string()));
        cells.extend([
            u.start_ms.to_string(),
            u.underruns.to_string(),
            u.silence_seconds.to_string(),
            opt(u.lowest_fill_ms),
            opt(u.celsius),
            opt(u.mhz),
            r.machine.kernel.clone(),
            r.machine.threads.to_string(),
            field(&u.text),
        ]);
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stats::median_interval;

    #[test]
    fn one_utterance_has_no_interval() {
        let shown = |values: &[f64]| interval(&median_interval(values.iter().copied()).unwrap());
        assert_eq!(shown(&[1.237]), "1.24");
        assert_eq!(shown(&[1.0, 2.0, 3.0, 4.0, 5.0]), "3.00 [1.00, 5.00]");
    }
}
