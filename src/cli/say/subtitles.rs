//! What was said when, as subtitles: a cue a stretch, in the words of the text.

use super::{Stretch, Timed};
use std::fmt::Write;

/// Hours, minutes, seconds and thousandths.
fn clock(seconds: f64, point: char) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{h:02}:{m:02}:{s:02}{point}{:03}", ms % 1000)
}

/// A part of the text on one line; `None` if there is no such part, as for text that was not kept.
fn written(text: &[u8], place: std::ops::Range<usize>) -> Option<String> {
    let part = std::str::from_utf8(text.get(place)?).ok()?;
    let mut line = String::new();
    for c in part.chars() {
        match c {
            c if c.is_whitespace() && line.ends_with(' ') => {}
            c if c.is_whitespace() => line.push(' '),
            c => line.push(c),
        }
    }
    Some(line)
}

fn times(s: &Stretch, rate: u32, point: char) -> String {
    let at = |samples: u64| clock(samples as f64 / f64::from(rate), point);
    format!("{} --> {}", at(s.samples.0), at(s.samples.1))
}

/// SubRip.
pub(super) fn srt(cues: &[Stretch], text: &[u8], rate: u32) -> String {
    let mut out = String::new();
    for (i, cue) in cues.iter().enumerate() {
        let words = written(text, cue.source.clone()).filter(|w| !w.trim().is_empty());
        let words = words.as_deref().unwrap_or(&cue.text).trim();
        let _ = write!(out, "{}\n{}\n{words}\n\n", i + 1, times(cue, rate, ','));
    }
    out
}

/// WebVTT: each word but the first of a cue has its time before it.
pub(super) fn vtt(cues: &[Stretch], text: &[u8], rate: u32) -> String {
    let mut out = "WEBVTT\n\n".to_owned();
    for cue in cues {
        let words = with_times(cue, text).unwrap_or_else(|| escaped(&cue.text));
        let _ = write!(out, "{}\n{}\n\n", times(cue, rate, '.'), words.trim());
    }
    out
}

fn with_times(cue: &Stretch, text: &[u8]) -> Option<String> {
    let mut out = String::new();
    let mut at = cue.source.start;
    for (i, Timed { source, seconds, .. }) in cue.words.iter().enumerate() {
        if source.start < at || source.end > cue.source.end {
            continue;
        }
        out += &escaped(&written(text, at..source.start)?);
        if i > 0 {
            let _ = write!(out, "<{}>", clock(seconds.start, '.'));
        }
        out += &escaped(&written(text, source.clone())?);
        at = source.end;
    }
    out += &escaped(&written(text, at..cue.source.end)?);
    (!out.trim().is_empty()).then_some(out)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
