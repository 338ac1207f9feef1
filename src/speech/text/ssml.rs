//! SSML: the elements that say how text is read. What they ask for beyond a voice's means
//! (emphasis, pitch, another voice) is left to the text; what is not SSML is an error.

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};

use super::numbers::{self, cardinal, digits, integer, ordinal, year};
use super::plain::{Gap, Markup, Object, Plain};
use super::{Pauses, Replacement, tables};
use crate::{Error, ErrorKind, Result};

/// Elements that only hold text.
const HOLDERS: &[&str] = &["emphasis", "voice", "lang", "w", "token", "audio"];
/// Elements that say nothing.
const SILENT: &[&str] = &["mark", "meta", "metadata", "lexicon", "lookup", "desc"];

/// Whether a text is an SSML document.
pub(super) fn begins(text: &str) -> bool {
    let text = text.trim_start();
    let text = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").map_or("", |(_, t)| t).trim_start(),
        None => text,
    };
    text.strip_prefix("<speak")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || matches!(c, '>' | '/')))
}

/// Where the document at the start of `text` ends, if it is one and has ended.
pub(super) fn document(text: &str, markup: Markup) -> Option<Option<usize>> {
    match markup {
        Markup::Ssml => {}
        Markup::Auto if begins(text) => {}
        _ => return None,
    }
    Some(text.find("</speak>").map(|at| at + "</speak>".len()))
}

/// An element whose text is read in a way of its own.
struct Held {
    element: &'static str,
    /// What it asks for: `interpret-as`, `alias`, `ph`.
    how: String,
    format: String,
    start: usize,
    text: String,
    /// Elements inside it.
    depth: usize,
}

struct Document<'a> {
    source: &'a str,
    out: Plain<'a>,
    open: Vec<String>,
    rates: Vec<f32>,
    held: Option<Held>,
    silent: usize,
    ended: bool,
}

/// Takes SSML off a text.
pub(super) fn plain(source: &str) -> Result<Plain<'_>> {
    let mut document = Document {
        source,
        out: Plain::default(),
        open: Vec::new(),
        rates: vec![1.0],
        held: None,
        silent: 0,
        ended: false,
    };
    let mut reader = Reader::from_str(source);
    loop {
        let start = reader.buffer_position() as usize;
        let event = reader.read_event();
        let end = reader.buffer_position() as usize;
        let place = start..end;
        match event {
            Err(e) => {
                let at = reader.error_position() as usize;
                return Err(wrong(source, at, &e.to_string()));
            }
            Ok(Event::Eof) => break,
            Ok(Event::Start(e)) => document.start(&e, place)?,
            Ok(Event::Empty(e)) => {
                document.start(&e, place.clone())?;
                document.end(place)?;
            }
            Ok(Event::End(_)) => document.end(place)?,
            Ok(Event::Text(t)) => document.text(&t.into_inner(), start)?,
            Ok(Event::CData(t)) => document.text(&t.into_inner(), start)?,
            Ok(Event::GeneralRef(r)) => {
                let text = match r.resolve_char_ref() {
                    Ok(Some(c)) => Some(c.to_string()),
                    _ => resolve_predefined_entity(&r).map(String::from),
                };
                let Some(text) = text else {
                    let what = format!("&{}; is no character of XML: write it as it is", &*r);
                    return Err(wrong(source, start, &what));
                };
                document.text(&text, start)?;
            }
            Ok(Event::DocType(_)) => {
                return Err(wrong(
                    source,
                    start,
                    "a document type is not understood: leave it out",
                ));
            }
            Ok(Event::Decl(_) | Event::Comment(_) | Event::PI(_)) => {}
        }
    }
    if let Some(open) = document.open.last() {
        return Err(wrong(source, source.len(), &format!("<{open}> is not closed")));
    }
    if !document.ended {
        return Err(wrong(source, 0, "SSML begins with <speak> and ends with </speak>"));
    }
    document.out.close(source.len());
    Ok(document.out)
}

/// An error at a byte of the document.
fn wrong(source: &str, at: usize, what: &str) -> Error {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    Error::new(ErrorKind::InvalidText, format!("SSML, line {line}, column {column}: {what}"))
}

impl Document<'_> {
    fn start(&mut self, e: &BytesStart<'_>, place: Range<usize>) -> Result<()> {
        let source = self.source;
        let fail = |what: String| Err(wrong(source, place.start, &what));
        let element = e.local_name().as_ref().to_string();
        let mut attributes: Vec<(String, String)> = Vec::new();
        for a in e.attributes() {
            let a = match a {
                Ok(a) => a,
                Err(e) => return fail(format!("<{element}>: {e}")),
            };
            let value = match unescape(&a.value) {
                Ok(v) => v.into_owned(),
                Err(e) => return fail(format!("<{element}>: {e}")),
            };
            attributes.push((a.key.local_name().as_ref().to_string(), value));
        }
        let attribute =
            |name: &str| attributes.iter().find(|a| a.0 == name).map(|a| a.1.trim().to_string());
        if self.open.is_empty() && (self.ended || element != "speak") {
            return fail(format!("<{element}> stands outside <speak>"));
        }
        self.open.push(element.clone());
        if let Some(held) = &mut self.held {
            held.depth += 1;
            return Ok(());
        }
        if self.silent > 0 || SILENT.contains(&&*element) {
            self.silent += 1;
            return Ok(());
        }
        let mut hold = |element: &'static str, how: String, format: String| {
            self.held = Some(Held {
                element,
                how,
                format,
                start: place.start,
                text: String::new(),
                depth: 0,
            });
        };
        match &*element {
            "speak" if self.open.len() == 1 => {}
            "speak" => return fail("<speak> stands inside <speak>".into()),
            "p" => self.sentence(Gap::Paragraph, place),
            "s" => self.sentence(Gap::None, place),
            "break" => {
                let seconds = match (attribute("time"), attribute("strength").as_deref()) {
                    (Some(time), _) => match seconds(&time) {
                        Some(s) => s,
                        None => {
                            return fail(format!(
                                "a break of {time:?}: give a time like 500ms or 1.5s, {} s at most",
                                Pauses::MAX
                            ));
                        }
                    },
                    (None, Some("none")) => 0.0,
                    (None, Some("x-weak")) => 0.1,
                    (None, Some("weak")) => 0.2,
                    (None, Some("medium") | None) => 0.4,
                    (None, Some("strong")) => 0.7,
                    (None, Some("x-strong")) => 1.0,
                    (None, Some(other)) => {
                        return fail(format!(
                            "a break of strength {other:?}: none, x-weak, weak, medium, strong or x-strong"
                        ));
                    }
                };
                self.out.object(Object::Pause(seconds), place);
            }
            "sub" => match attribute("alias") {
                Some(alias) => hold("sub", alias, String::new()),
                None => return fail("<sub> needs alias=\"what to say\"".into()),
            },
            "say-as" => match attribute("interpret-as") {
                Some(how) => hold("say-as", how, attribute("format").unwrap_or_default()),
                None => return fail("<say-as> needs interpret-as".into()),
            },
            "phoneme" => {
                let alphabet = attribute("alphabet").unwrap_or_else(|| "ipa".into());
                if alphabet != "ipa" {
                    return fail(format!("the alphabet {alphabet:?} is not understood: give ipa"));
                }
                match attribute("ph").filter(|p| !p.is_empty()) {
                    Some(ipa) => hold("phoneme", ipa, String::new()),
                    None => return fail("<phoneme> needs ph=\"the pronunciation in IPA\"".into()),
                }
            }
            "prosody" => {
                let mut now = self.rates.last().copied().unwrap_or(1.0);
                if let Some(value) = attribute("rate") {
                    now = match rate(&value) {
                        Some(Rate::Times(r)) => now * r,
                        Some(Rate::Is(r)) => r,
                        None => {
                            return fail(format!(
                                "a rate of {value:?}: x-slow, slow, medium, fast, x-fast, or percent like 120%"
                            ));
                        }
                    };
                    if !(0.2..=5.0).contains(&now) {
                        return fail(format!("a rate of {now} times is not within 0.2 to 5"));
                    }
                    self.out.object(Object::Rate(now), place);
                }
                self.rates.push(now);
            }
            name if HOLDERS.contains(&name) => {}
            other => {
                return fail(format!(
                    "<{other}> is not understood: speak, p, s, break, sub, say-as, phoneme, prosody, emphasis, voice, lang, w and audio are"
                ));
            }
        }
        Ok(())
    }

    fn end(&mut self, place: Range<usize>) -> Result<()> {
        let Some(element) = self.open.pop() else { return Ok(()) };
        if let Some(held) = &mut self.held {
            if held.depth > 0 {
                held.depth -= 1;
                return Ok(());
            }
            if let Some(held) = self.held.take() {
                self.release(held, place.end);
            }
            return Ok(());
        }
        if self.silent > 0 {
            self.silent -= 1;
            return Ok(());
        }
        match &*element {
            "speak" => self.ended = true,
            "p" => self.sentence(Gap::Paragraph, place),
            "s" => self.sentence(Gap::None, place),
            "prosody" => {
                let inner = self.rates.pop();
                let outer = self.rates.last().copied().unwrap_or(1.0);
                if inner != Some(outer) {
                    self.out.object(Object::Rate(outer), place);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn sentence(&mut self, gap: Gap, place: Range<usize>) {
        if self.out.text.contains(|c: char| !c.is_whitespace()) {
            self.out.object(Object::End(gap), place);
        }
    }

    fn text(&mut self, text: &str, at: usize) -> Result<()> {
        if self.open.is_empty() {
            if text.chars().all(|c| c.is_whitespace() || c == '\u{feff}') {
                return Ok(());
            }
            let white = text.len() - text.trim_start().len();
            return Err(wrong(self.source, at + white, "text stands outside <speak>"));
        }
        if let Some(held) = &mut self.held {
            held.text.push_str(text);
        } else if self.silent == 0 {
            // White space is white space: the lines of the source say nothing.
            self.out.push(&text.replace(['\n', '\r', '\t'], " "), at);
        }
        Ok(())
    }

    fn release(&mut self, held: Held, end: usize) {
        let place = held.start..end;
        let text = held.text.split_whitespace().collect::<Vec<_>>().join(" ");
        match held.element {
            "sub" => {
                self.out.notes.push(Replacement {
                    original: text,
                    spoken: held.how.clone(),
                    source: place.clone(),
                });
                self.out.push(&held.how, place.start);
                self.out.close(place.end);
            }
            "phoneme" => {
                self.out.object(Object::Phonemes { ipa: held.how, text }, place);
            }
            _ => match say_as(&held.how, &held.format, &text) {
                Some(words) => {
                    self.out.notes.push(Replacement {
                        original: text,
                        spoken: words.replace(',', ""),
                        source: place.clone(),
                    });
                    self.out.object(Object::Say(words), place);
                }
                // What cannot be read as asked is read as it is.
                None => {
                    self.out.push(&text, place.start);
                    self.out.close(place.end);
                }
            },
        }
    }
}

/// Seconds of "500ms", "1.5s".
fn seconds(time: &str) -> Option<f32> {
    let (number, scale) = match time.strip_suffix("ms") {
        Some(n) => (n, 0.001),
        None => (time.strip_suffix('s')?, 1.0),
    };
    let number = number.trim().trim_start_matches('+');
    let n: f32 = number
        .parse()
        .ok()
        .filter(|_| number.starts_with(|c: char| c.is_ascii_digit() || c == '.'))?;
    let n = n * scale;
    (0.0..=Pauses::MAX).contains(&n).then_some(n)
}

enum Rate {
    Times(f32),
    Is(f32),
}

fn rate(value: &str) -> Option<Rate> {
    let named = match value {
        "x-slow" => 0.5,
        "slow" => 0.75,
        "medium" | "default" => 1.0,
        "fast" => 1.25,
        "x-fast" => 1.75,
        _ => {
            let (number, percent) = match value.strip_suffix('%') {
                Some(n) => (n, true),
                None => (value, false),
            };
            let n: f32 = number.trim().parse().ok().filter(|n: &f32| n.is_finite())?;
            let signed = number.trim().starts_with(['+', '-']);
            return Some(Rate::Times(match (percent, signed) {
                (true, true) => 1.0 + n / 100.0,
                (true, false) => n / 100.0,
                (false, _) => n,
            }));
        }
    };
    Some(Rate::Is(named))
}

/// The words of a `say-as`; `None` if the text is none of the kind.
fn say_as(how: &str, format: &str, text: &str) -> Option<String> {
    if text.is_empty() || text.len() > 1000 {
        return None;
    }
    match how {
        "characters" | "spell-out" | "verbatim" => {
            let mut words = Vec::new();
            for c in text.chars() {
                match c {
                    'a'..='z' | 'A'..='Z' => words.push(c.to_ascii_lowercase().to_string()),
                    '0'..='9' => words.push(digits(c.encode_utf8(&mut [0; 4]))),
                    _ => words.extend(mark(c).map(String::from)),
                }
            }
            (!words.is_empty()).then(|| words.join(" "))
        }
        "digits" => text.contains(|c: char| c.is_ascii_digit()).then(|| digits(text)),
        "telephone" => {
            let mut words = Vec::new();
            let groups = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '+');
            for group in groups.filter(|g| !g.is_empty()) {
                let mut parts = Vec::new();
                for c in group.chars() {
                    parts.push(match c {
                        '+' => "plus".to_string(),
                        '0'..='9' => digits(c.encode_utf8(&mut [0; 4])),
                        _ => c.to_ascii_lowercase().to_string(),
                    });
                }
                words.push(parts.join(" "));
            }
            (!words.is_empty()).then(|| words.join(", "))
        }
        "cardinal" | "number" => {
            let plain = text.replace([',', ' '], "");
            let (sign, plain) = match plain.strip_prefix(['-', '−']) {
                Some(rest) => ("minus ", rest.to_string()),
                None => ("", plain),
            };
            if let Some(n) = numbers::roman(&plain) {
                return Some(cardinal(n));
            }
            let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
            let figures = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
            if whole.is_empty() || !figures(whole) || !figures(part) {
                return None;
            }
            let point =
                if part.is_empty() { String::new() } else { format!(" point {}", digits(part)) };
            Some(format!("{sign}{}{point}", integer(whole)))
        }
        "ordinal" => {
            let plain = text.replace([',', ' '], "");
            let plain = ["st", "nd", "rd", "th"]
                .iter()
                .find_map(|e| plain.strip_suffix(e))
                .unwrap_or(&plain);
            let n = plain.parse().ok().or_else(|| numbers::roman(plain))?;
            Some(ordinal(n))
        }
        "date" => date(text, format),
        "time" => None,
        _ => None,
    }
}

/// The name of a mark that is spelt out.
fn mark(c: char) -> Option<&'static str> {
    Some(match c {
        '.' => "dot",
        ',' => "comma",
        '-' => "dash",
        ':' => "colon",
        ';' => "semicolon",
        '!' => "exclamation mark",
        '?' => "question mark",
        '\'' => "apostrophe",
        '"' => "quote",
        '(' => "open parenthesis",
        ')' => "close parenthesis",
        '[' => "open bracket",
        ']' => "close bracket",
        '{' => "open brace",
        '}' => "close brace",
        _ => return tables::symbol(c),
    })
}

/// A date in the order that `format` gives: "mdy", "dmy", "ymd", "ym", "y"...
fn date(text: &str, format: &str) -> Option<String> {
    let order: Vec<char> = format.chars().filter(|c| matches!(c, 'y' | 'm' | 'd')).collect();
    let mut parts: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    parts.retain(|p| !p.is_empty());
    // "20240704"
    if parts.len() == 1 && order == ['y', 'm', 'd'] && text.len() == 8 {
        parts = vec![text.get(..4)?, text.get(4..6)?, text.get(6..)?];
    }
    if order.is_empty() || order.len() != parts.len() {
        return None;
    }
    let (mut y, mut m, mut d) = (None, None, None);
    for (kind, part) in order.iter().zip(&parts) {
        match kind {
            'y' => {
                let n: u64 = part.parse().ok()?;
                y = Some(match part.len() {
                    2 if n < 50 => 2000 + n,
                    2 => 1900 + n,
                    _ => n,
                });
            }
            'm' => {
                let lower = part.to_ascii_lowercase();
                let named = tables::MONTHS.iter().find(|e| e.0 == lower).map(|e| e.1);
                m = Some(match named {
                    Some(name) => name,
                    None => {
                        tables::MONTHS
                            .get(part.parse::<usize>().ok()?.checked_sub(1)?)
                            .filter(|_| part.len() < 3)?
                            .1
                    }
                });
            }
            _ => d = Some(part.parse::<u64>().ok().filter(|d| (1..=31).contains(d))?),
        }
    }
    if m.is_some_and(|m| !tables::MONTHS[..12].iter().any(|e| e.1 == m)) {
        return None;
    }
    let mut words = String::from(m.unwrap_or(""));
    if let Some(d) = d {
        words.push(' ');
        words.push_str(&ordinal(d));
    }
    if let Some(y) = y {
        words.push_str(if d.is_some() && m.is_some() { ", " } else { " " });
        words.push_str(&year(y));
    }
    Some(words.trim().to_string())
}
