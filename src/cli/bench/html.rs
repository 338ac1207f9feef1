//! A run as one page: tables and plots in inline SVG, no script, nothing fetched, legible in
//! light and dark.

use super::report::{accepted_at, facts, interval, maybe, sections};
use super::run::{ArmReport, Report, Split};
use crate::cli::stats;
use crate::cli::table::{self, escape};
use std::fmt::Write;

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1c1d21;--soft:#5d626c;--line:#d9d9d4;
--ar:#70757f;--sd:#1f6fd0;--tolerance:#b86e00;--pcg:#c22a48;--transport:#0b8177;
--prefill:#8d99a6;--draft:#d99a1c;--verify:#5a56c8;--sampling:#c0559a;--codec:#2f9270;--other:#c4c4be}
@media (prefers-color-scheme:dark){:root{--bg:#131417;--card:#1c1e23;--ink:#e9e9ec;--soft:#a3a8b3;--line:#34373f;
--ar:#a2a8b4;--sd:#62a8f5;--tolerance:#eba53f;--pcg:#ff7388;--transport:#37c6b8;
--prefill:#8593a3;--draft:#e0ab3f;--verify:#8d89f0;--sampling:#dd7cba;--codec:#4fbd97;--other:#5a5d66}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:24px;margin:0}
h2{font-size:17px;margin:34px 0 10px}
p{margin:6px 0;color:var(--soft);max-width:75ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin:18px 0 0}
.tile{background:var(--card);border:1px solid var(--line);border-top:4px solid var(--c);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:26px;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px;display:block}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px 8px;min-width:0}
figcaption{font-weight:600}
figcaption small{display:block;font-weight:400;color:var(--soft);font-size:13px}
svg{display:block;width:100%;height:auto;margin-top:6px}
svg text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:var(--soft)}
svg text.k{fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.axis{stroke:var(--soft);stroke-width:1;fill:none}
.mark{stroke:var(--soft);stroke-width:1;stroke-dasharray:4 4;fill:none}
.curve{stroke:var(--c);stroke-width:2;fill:none;stroke-linejoin:round}
.dot{fill:var(--c);stroke:var(--card);stroke-width:1.5}
.bar{fill:var(--c);stroke:var(--card);stroke-width:1}
.wrap{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{color:var(--soft);font-weight:600}
tr:last-child td{border-bottom:0}
.facts td{white-space:normal;text-align:left}
.facts td:first-child{color:var(--soft);white-space:nowrap;vertical-align:top}
.ar{--c:var(--ar)}.sd{--c:var(--sd)}.tolerance{--c:var(--tolerance)}.pcg{--c:var(--pcg)}.transport{--c:var(--transport)}
.prefill{--c:var(--prefill)}.draft{--c:var(--draft)}.verify{--c:var(--verify)}
.sampling{--c:var(--sampling)}.codec{--c:var(--codec)}.other{--c:var(--other)}
";

/// Round numbers from 0 to at least `max`, about `wanted` of them.
fn ticks(max: f64, wanted: usize) -> Vec<f64> {
    let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
    let raw = max / wanted as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * power);
    let step = step.into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
    (0..=(max / step).ceil() as usize).map(|i| i as f64 * step).collect()
}

fn number(v: f64) -> String {
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const W: f64 = 600.0;
const H: f64 = 300.0;

/// A plot with two axes from zero.
struct Plot {
    body: String,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x_max: f64,
    y_max: f64,
}

impl Plot {
    fn new(x: (&str, f64), y: (&str, f64), legend: &[&str], percent: bool) -> Self {
        let (xs, ys) = (ticks(x.1, 6), ticks(y.1, 5));
        let mut p = Self {
            body: String::new(),
            left: 52.0,
            right: W - 14.0,
            top: 34.0,
            bottom: H - 42.0,
            x_max: *xs.last().unwrap_or(&1.0),
            y_max: *ys.last().unwrap_or(&1.0),
        };
        p.legend(legend);
        for t in &ys {
            let at = p.y(*t);
            let _ = write!(
                p.body,
                "<path class=\"{}\" d=\"M{:.1} {at:.1}H{:.1}\"/>",
                if *t == 0.0 { "axis" } else { "grid" },
                p.left,
                p.right
            );
            let label = if percent { format!("{}%", number(*t)) } else { number(*t) };
            p.text(p.left - 7.0, at + 4.0, "end", "", &label);
        }
        for t in &xs {
            let at = p.x(*t);
            p.text(at, p.bottom + 17.0, "middle", "", &number(*t));
        }
        p.text((p.left + p.right) / 2.0, H - 6.0, "middle", "", x.0);
        // The unit above the axis: turned text is hard to read.
        p.text(2.0, 14.0, "start", "", y.0);
        p
    }

    fn legend(&mut self, names: &[&str]) {
        let mut at = self.right;
        for name in names.iter().rev() {
            at -= 7.0 * name.len() as f64;
            let text = at;
            at -= 18.0;
            let _ = write!(
                self.body,
                "<g class=\"{name}\"><rect class=\"bar\" x=\"{at:.1}\" y=\"5\" width=\"12\" height=\"10\" rx=\"2\"/></g>"
            );
            self.text(text, 14.0, "start", "k", name);
            at -= 14.0;
        }
    }

    fn x(&self, v: f64) -> f64 {
        self.left + (self.right - self.left) * (v / self.x_max).clamp(0.0, 1.0)
    }
    fn y(&self, v: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (v / self.y_max).clamp(0.0, 1.0)
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let _ = write!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            escape(text)
        );
    }

    fn curve(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut d = String::new();
        for (i, (x, y)) in points.into_iter().enumerate() {
            let c = if i == 0 { 'M' } else { 'L' };
            let _ = write!(d, "{c}{:.1} {:.1}", self.x(x), self.y(y));
        }
        if !d.is_empty() {
            let _ = write!(self.body, "<g class=\"{class}\"><path class=\"curve\" d=\"{d}\"/></g>");
        }
    }

    fn dot(&mut self, class: &str, x: f64, y: f64) {
        let _ = write!(
            self.body,
            "<g class=\"{class}\"><circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"/></g>",
            self.x(x),
            self.y(y)
        );
    }

    fn level(&mut self, y: f64, name: &str) {
        let at = self.y(y);
        let _ = write!(
            self.body,
            "<path class=\"mark\" d=\"M{:.1} {at:.1}H{:.1}\"/>",
            self.left, self.right
        );
        self.text(self.left + 5.0, at - 5.0, "start", "", name);
    }

    fn figure(self, title: &str, about: &str) -> String {
        figure(title, about, H, &self.body)
    }
}

fn figure(title: &str, about: &str, height: f64, body: &str) -> String {
    format!(
        "<figure><figcaption>{}<small>{}</small></figcaption>\
         <svg viewBox=\"0 0 {W} {height:.0}\" role=\"img\" aria-label=\"{}\">{body}</svg></figure>\n",
        escape(title),
        escape(about),
        escape(title)
    )
}

/// Share of values below x, as steps through the percentiles.
fn distribution(
    arms: &[&str],
    curves: &[(String, Vec<f64>)],
    unit: &str,
    title: &str,
    about: &str,
) -> String {
    // The slowest hundredth would press all the rest to the left.
    let last = curves.iter().filter(|c| c.1.len() > 99).map(|c| c.1[99]).fold(0.0, f64::max);
    let mut plot = Plot::new((unit, last * 1.02), ("share", 100.0), arms, true);
    for (arm, values) in curves {
        plot.curve(arm, values.iter().take(100).enumerate().map(|(p, v)| (*v, p as f64)));
    }
    plot.level(50.0, "median");
    plot.level(95.0, "p95");
    plot.figure(title, about)
}

/// Bars of parts, one an arm, twice: a round and a token.
fn split(arms: &[ArmReport]) -> String {
    let rows: Vec<(String, String, Split, f64)> = ["round", "token"]
        .iter()
        .flat_map(|what| {
            arms.iter().map(move |a| {
                let by = if *what == "round" { 1.0 } else { a.tokens_per_round.max(1.0) };
                (a.arm.clone(), format!("a {what}"), a.round_split_ms, by)
            })
        })
        .collect();
    let max = rows.iter().map(|r| r.2.total() / r.3).fold(0.0, f64::max);
    let names = &Split::NAMES[1..];
    let height = 92.0 + 25.0 * rows.len() as f64 + 26.0;
    let mut p = Plot {
        body: String::new(),
        left: 84.0,
        right: W - 60.0,
        top: 0.0,
        bottom: 0.0,
        x_max: *ticks(max, 6).last().unwrap_or(&1.0),
        y_max: 1.0,
    };
    p.legend(names);
    let foot = height - 42.0;
    for t in ticks(max, 6) {
        let at = p.x(t);
        let _ = write!(p.body, "<path class=\"grid\" d=\"M{at:.1} 26V{foot:.1}\"/>");
        p.text(at, foot + 17.0, "middle", "", &number(t));
    }
    p.text((p.left + p.right) / 2.0, height - 6.0, "middle", "", "milliseconds");
    let mut y = 46.0;
    for (i, (arm, what, split, by)) in rows.iter().enumerate() {
        if i % arms.len() == 0 {
            y += if i == 0 { 0.0 } else { 26.0 };
            p.text(2.0, y - 5.0, "start", "", what);
        }
        p.text(p.left - 7.0, y + 13.0, "end", "k", arm);
        let mut at = 0.0;
        for (name, part) in names.iter().zip(&split.parts()[1..]) {
            let (a, b) = (p.x(at), p.x(at + part / by));
            at += part / by;
            let _ = write!(
                p.body,
                "<g class=\"{name}\"><rect class=\"bar\" x=\"{a:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\"><title>{arm} {what}: {name} {:.2} ms</title></rect></g>",
                (b - a).max(0.0),
                part / by
            );
        }
        p.text(p.x(at) + 6.0, y + 13.0, "start", "k", &format!("{at:.2}"));
        y += 25.0;
    }
    figure(
        "Where the time of a round goes",
        "mean of all rounds, without the prompt; below, the same divided by its tokens",
        height,
        &p.body,
    )
}

fn acceptance(arms: &[ArmReport]) -> Option<String> {
    let drafted: Vec<&ArmReport> = arms.iter().filter(|a| a.gamma > 0).collect();
    let gamma = drafted.iter().map(|a| a.gamma).max()?;
    let names: Vec<&str> = drafted.iter().map(|a| a.arm.as_str()).collect();
    let mut p = Plot {
        body: String::new(),
        left: 52.0,
        right: W - 14.0,
        top: 34.0,
        bottom: H - 42.0,
        x_max: gamma as f64,
        y_max: 100.0,
    };
    p.legend(&names);
    for t in ticks(100.0, 5) {
        let at = p.y(t);
        let class = if t == 0.0 { "axis" } else { "grid" };
        let _ =
            write!(p.body, "<path class=\"{class}\" d=\"M{:.1} {at:.1}H{:.1}\"/>", p.left, p.right);
        p.text(p.left - 7.0, at + 4.0, "end", "", &format!("{}%", number(t)));
    }
    for i in 1..=gamma {
        let at = p.x(i as f64 - 0.5);
        p.text(at, p.bottom + 17.0, "middle", "", &i.to_string());
    }
    p.text((p.left + p.right) / 2.0, H - 6.0, "middle", "", "position of the draft in its round");
    for a in &drafted {
        let shares = accepted_at(a);
        p.curve(&a.arm, shares.iter().enumerate().map(|(i, s)| (i as f64 + 0.5, 100.0 * s)));
        for (i, s) in shares.iter().enumerate() {
            p.dot(&a.arm, i as f64 + 0.5, 100.0 * s);
        }
        if let Some(last) = shares.last() {
            let (x, y) = (p.x(gamma as f64 - 0.5) + 9.0, p.y(100.0 * last) + 4.0);
            p.text(x, y, "start", "k", &format!("{:.0}%", 100.0 * last));
        }
    }
    Some(p.figure(
        "Acceptance by position",
        "accepted drafts at a position over drafts at that position",
    ))
}

/// A strip an arm: the curves are dense and would hide one another.
fn buffer(r: &Report) -> String {
    let traces = || r.arms.iter().map(|a| &a.playback.trace);
    let end = traces().flatten().map(|p| p[0]).fold(0.0, f64::max);
    let capacity = f64::from(r.settings.device_ms + r.settings.ring_ms);
    let device = f64::from(r.settings.device_ms);
    let (strip, gap) = (48.0, 14.0);
    let foot = 26.0 + r.arms.len() as f64 * (strip + gap);
    let height = foot + 36.0;
    let mut p = Plot {
        body: String::new(),
        left: 112.0,
        right: W - 14.0,
        top: 0.0,
        bottom: 0.0,
        x_max: *ticks(end, 6).last().unwrap_or(&1.0),
        y_max: capacity,
    };
    p.text(2.0, 14.0, "start", "", "ms queued");
    for t in ticks(end, 6) {
        let at = p.x(t);
        let _ = write!(p.body, "<path class=\"grid\" d=\"M{at:.1} 26V{foot:.1}\"/>");
        p.text(at, foot + 14.0, "middle", "", &number(t));
    }
    p.text((p.left + p.right) / 2.0, height - 4.0, "middle", "", "seconds since the text");
    for (i, a) in r.arms.iter().enumerate() {
        p.top = 26.0 + i as f64 * (strip + gap);
        p.bottom = p.top + strip;
        for (ms, class) in [(0.0, "axis"), (device, "mark"), (capacity, "grid")] {
            let at = p.y(ms);
            let _ = write!(
                p.body,
                "<path class=\"{class}\" d=\"M{:.1} {at:.1}H{:.1}\"/>",
                p.left, p.right
            );
            p.text(p.left - 7.0, at + 4.0, "end", "", &number(ms));
        }
        p.text(2.0, (p.top + p.bottom) / 2.0 + 4.0, "start", "k", &a.arm);
        p.curve(&a.arm, a.playback.trace.iter().map(|t| (t[0], t[1])));
    }
    let underruns: u64 = r.arms.iter().map(|a| a.playback.underruns).sum();
    figure(
        "Sound queued over time, simulated",
        &format!(
            "longest utterance of each arm; the sound begins at the dashed {device} ms, at most {capacity} ms fit, 0 before the end is an underrun: {underruns} in the whole run"
        ),
        height,
        &p.body,
    )
}

/// Medians with their intervals, one row a set and arm.
fn speed_ups(r: &Report) -> Option<String> {
    type Rows<'a> = Vec<(&'a str, [f64; 3])>;
    let mut groups: Vec<(&str, Rows)> = Vec::new();
    for set in ["all", "short", "medium", "long"] {
        let rows: Vec<_> = r
            .arms
            .iter()
            .filter(|a| a.arm != "ar")
            .filter_map(|a| {
                let s = if set == "all" { a.speed_up } else { a.by_set.get(set)?.speed_up };
                Some((a.arm.as_str(), s?))
            })
            .collect();
        if !rows.is_empty() && (set != "medium" || r.settings.sets.len() > 1) {
            groups.push((set, rows));
        }
    }
    let rows: usize = groups.iter().map(|g| g.1.len()).sum();
    if rows == 0 {
        return None;
    }
    let most = groups.iter().flat_map(|g| &g.1).map(|x| x.1[2]).fold(1.0, f64::max);
    let height = 60.0 + 21.0 * rows as f64 + 12.0 * groups.len() as f64;
    let mut p = Plot {
        body: String::new(),
        left: 132.0,
        right: W - 132.0,
        top: 0.0,
        bottom: 0.0,
        x_max: *ticks(most, 5).last().unwrap_or(&1.0),
        y_max: 1.0,
    };
    let foot = height - 42.0;
    for t in ticks(most, 5) {
        let at = p.x(t);
        let _ = write!(p.body, "<path class=\"grid\" d=\"M{at:.1} 8V{foot:.1}\"/>");
        p.text(at, foot + 17.0, "middle", "", &number(t));
    }
    let one = p.x(1.0);
    let _ = write!(p.body, "<path class=\"axis\" d=\"M{one:.1} 8V{foot:.1}\"/>");
    p.text((p.left + p.right) / 2.0, height - 6.0, "middle", "", "times as fast as ar");
    let mut y = 20.0;
    for (set, rows) in groups {
        p.text(2.0, y + 4.0, "start", "", set);
        for (arm, v) in rows {
            p.text(p.left - 8.0, y + 4.0, "end", "k", arm);
            let (a, b, c) = (p.x(v[1]), p.x(v[2]), p.x(v[0]));
            let _ = write!(
                p.body,
                "<g class=\"{arm}\"><path class=\"curve\" d=\"M{a:.1} {y:.1}H{b:.1}\"/><circle class=\"dot\" cx=\"{c:.1}\" cy=\"{y:.1}\" r=\"5\"/></g>"
            );
            p.text(p.right + 10.0, y + 4.0, "start", "k", &interval(&v));
            y += 21.0;
        }
        y += 12.0;
    }
    Some(figure(
        "Speed-up over plain decoding",
        "median of the per-utterance ratios of rtf, with its 95 % bootstrap interval; right is better",
        height,
        &p.body,
    ))
}

/// The machine over the run, where it shows anything that changes.
fn conditions(r: &Report) -> String {
    let mut out = String::new();
    type Get = fn(&super::run::Utterance) -> Option<f64>;
    let series: [(&str, &str, Get); 2] =
        [("Temperature", "°C", |u| u.celsius), ("Clock", "MHz", |u| u.mhz)];
    for (title, unit, get) in series {
        let values: Vec<(f64, f64)> = r
            .utterances
            .iter()
            .enumerate()
            .filter_map(|(i, u)| Some((i as f64, get(u)?)))
            .collect();
        let all = stats::sorted(values.iter().map(|v| v.1));
        let (Some(low), Some(high)) = (all.first(), all.last()) else { continue };
        if high - low < 1.0 {
            continue;
        }
        let mut p =
            Plot::new(("utterances of all arms", values.len() as f64), (unit, *high), &[], false);
        p.curve("codec", values.iter().copied());
        out.push_str(&p.figure(title, "after each utterance, as the system shows it"));
    }
    out
}

pub fn page(r: &Report) -> String {
    let names: Vec<&str> = r.arms.iter().map(|a| a.arm.as_str()).collect();
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>voxgrain bench: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>voxgrain bench</h1>\n<p>{}; {} threads, {}; bundle {}, {} utterances an arm, arms in turn. \
         rtf is compute seconds over audio seconds: lower is better.</p>\n<div class=\"tiles\">\n",
        escape(r.machine.cpu.as_deref().unwrap_or("unnamed CPU")),
        escape(r.machine.cpu.as_deref().unwrap_or("unnamed CPU")),
        r.machine.threads,
        escape(&r.machine.kernel),
        escape(&super::report::voice_name(&r.voice)),
        r.settings.utterances
    );
    for a in &r.arms {
        let _ = writeln!(
            out,
            "<div class=\"tile {}\"><span>{}</span><b>{:.3}</b><span>rtf; {:.0} tokens a second</span>\
             <span>{}</span><span>first audio {} ms (median)</span></div>",
            a.arm,
            a.arm,
            a.rtf,
            a.tokens_per_second,
            match &a.speed_up {
                Some(s) if a.arm != "ar" => format!("{} times ar", interval(s)),
                _ => "the baseline".into(),
            },
            maybe(&a.first_audio_ms, |s| format!("{:.0}", s.p50))
        );
    }
    out.push_str("</div>\n<h2>Plots</h2>\n<div class=\"plots\">\n");
    let first: Vec<(String, Vec<f64>)> = r
        .arms
        .iter()
        .map(|a| {
            let own = r.utterances.iter().filter(|u| u.arm == a.arm);
            (a.arm.clone(), stats::percentiles(own.map(|u| u.first_audio_ms)))
        })
        .collect();
    let token: Vec<(String, Vec<f64>)> =
        r.arms.iter().map(|a| (a.arm.clone(), a.token_ms_percentiles.clone())).collect();
    out.push_str(&distribution(
        &names,
        &token,
        "milliseconds a token",
        "Time per token",
        "share of tokens at or below; a round's time over its tokens, without codec; left is better",
    ));
    out.push_str(&distribution(
        &names,
        &first,
        "milliseconds",
        "First audio",
        "share of utterances heard by then, from the text to the first samples; left is better",
    ));
    out.push_str(&split(&r.arms));
    out.push_str(&speed_ups(r).unwrap_or_default());
    out.push_str(&acceptance(&r.arms).unwrap_or_default());
    out.push_str(&buffer(r));
    out.push_str(&conditions(r));
    out.push_str("</div>\n");
    for s in sections(r) {
        let _ = writeln!(out, "<h2>{}</h2>", escape(&s.title));
        if !s.about.is_empty() {
            let _ = writeln!(out, "<p>{}</p>", escape(&s.about));
        }
        let class = if s.head.len() == 2 { "facts" } else { "" };
        out.push_str(&table::html(class, &s.head, &s.rows));
    }
    out.push_str("<h2>Measured on</h2>\n");
    let rows: Vec<Vec<String>> = facts(r).into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect();
    out.push_str(&table::html::<&str>("facts", &[], &rows));
    out.push_str("</main>\n</body>\n</html>\n");
    out
}
