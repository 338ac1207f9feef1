//! Dates, times of day and decades.

use super::numbers::{cardinal, digits, is_year, ordinal, plural, year, year_number};
use super::read::{Reader, Said, used};
use super::tables::{self, Stop};
use super::tokens::{Tok, all_digits, lookup};

impl<'a> Reader<'a> {
    /// "Nov 24, 2026", "November 24th", "Nov. 2026".
    pub(super) fn month_first(&mut self, tok: Tok<'a>, lower: &str) -> Option<Said> {
        let month = lookup(tables::MONTHS, lower)?;
        if !tok.starts_upper() || !matches!(tok.post, "" | ".") {
            return None;
        }
        let day_tok = self.next(self.at).filter(|t| t.pre.is_empty() && t.starts_digit())?;
        // "June 3-5"
        if let Some((first, last)) = day_tok.core.split_once('-')
            && let (Some(first), Some(last)) = (day_number(first), day_number(last))
            && first < last
        {
            self.say(&format!("{month} {} to {}", ordinal(first), ordinal(last)));
            let year_tok = self
                .next(self.at + 1)
                .filter(|t| matches!(day_tok.post, "" | ",") && t.pre.is_empty());
            if let Some(y) = year_tok.and_then(|t| year_number(t.core)) {
                self.comma();
                self.say(&year(y));
                return Some(used(3));
            }
            return Some(used(2));
        }
        let Some(day) = day_number(day_tok.core) else {
            // A month and a year.
            if day_tok.is_digits() && day_tok.core.len() == 4 {
                self.say(month);
                return Some(Said { used: 1, stop: Some(Stop::Never) });
            }
            return None;
        };
        self.say(month);
        self.say(&ordinal(day));
        let year_tok =
            self.next(self.at + 1).filter(|t| matches!(day_tok.post, "" | ",") && t.pre.is_empty());
        if let Some(y) = year_tok.and_then(|t| year_number(t.core)) {
            self.comma();
            self.say(&year(y));
            return Some(used(3));
        }
        Some(used(2))
    }

    /// "4-Jul-2024", "2020-21", "2024-05", "'05", "FY23"; the number of tokens used.
    pub(super) fn short_date(&mut self, tok: Tok<'a>) -> Option<usize> {
        let core = tok.core;
        // "the class of '05"
        if tok.pre.ends_with('\'')
            && !tok.post.contains('\'')
            && core.len() == 2
            && tok.is_digits()
            && core.starts_with('0')
        {
            let n = core.parse().unwrap_or(0);
            self.say(&if n == 0 { "two thousand".to_string() } else { short_year(n) });
            return Some(1);
        }
        // "1500 hours"
        if core.len() == 4
            && tok.is_digits()
            && self.joined(self.at).is_some_and(|n| matches!(n.core, "hours" | "hrs"))
            && let (Ok(h), Ok(m)) = (core[..2].parse::<u64>(), core[2..].parse::<u64>())
            && h < 25
            && m < 60
            && (core.starts_with('0') || m == 0)
        {
            let hour = if h < 10 { format!("oh {}", cardinal(h)) } else { cardinal(h) };
            let minute = if m == 0 { "hundred".to_string() } else { cardinal(m) };
            self.say(&format!("{hour} {minute} hours"));
            return Some(2);
        }
        let parts: Vec<&str> = core.split('-').collect();
        let month = |s: &str| {
            s.starts_with(|c: char| c.is_ascii_alphabetic())
                .then(|| lookup(tables::MONTHS, &s.to_ascii_lowercase()))?
        };
        let any_year = |s: &str| match s.len() {
            2 if all_digits(s) => {
                s.parse().ok().map(|y: u64| if y < 50 { 2000 + y } else { 1900 + y })
            }
            _ => year_number(s),
        };
        match parts.as_slice() {
            [d, m, y] => {
                let (day, name) = match (day_number(d), month(m), month(d), day_number(m)) {
                    (Some(day), Some(name), _, _) | (_, _, Some(name), Some(day)) => (day, name),
                    _ => return None,
                };
                let y = any_year(y)?;
                self.say(&format!("{name} {}", ordinal(day)));
                self.comma();
                self.say(&year(y));
                Some(1)
            }
            [a, b] => {
                if let (Some(day), Some(name)) = (day_number(a), month(b)) {
                    self.say(&format!("{name} {}", ordinal(day)));
                    return Some(1);
                }
                if let (Some(name), Some(y)) = (month(a), any_year(b)) {
                    self.say(&format!("{name} {}", year(y)));
                    return Some(1);
                }
                // "3-5 June"
                if let (Some(first), Some(last)) = (day_number(a), day_number(b))
                    && first < last
                    && let Some(name) = self.joined(self.at).filter(|t| t.starts_upper())
                    && let Some(name) = lookup(tables::MONTHS, &name.lower())
                {
                    let the = self.prev().is_some_and(|p| matches!(p.core, "the" | "The"));
                    self.say(if the { "" } else { "the" });
                    self.say(&format!("{} to the {} of {name}", ordinal(first), ordinal(last)));
                    return Some(2);
                }
                let from = year_number(a).filter(|y| is_year(*y))?;
                if b.len() != 2 || !all_digits(b) {
                    return None;
                }
                let to: u64 = b.parse().ok()?;
                if to > from % 100 || (from % 100 == 99 && to == 0) {
                    self.say(&format!("{} to {}", year(from), short_year(to)));
                } else if (1..=12).contains(&to) {
                    self.say(&format!("{} {}", tables::MONTHS[to as usize - 1].1, year(from)));
                } else {
                    return None;
                }
                Some(1)
            }
            _ => None,
        }
    }

    /// "3:05", "3:05pm", "15:00-16:30", "3:05 p.m."; the number of tokens used.
    pub(super) fn time(&mut self, core: &str) -> Option<usize> {
        if let Some((from, to)) = core.split_once('-') {
            let hours = |s: &str| {
                parse_time(s).or_else(|| {
                    (s.len() < 3 && all_digits(s)).then(|| parse_time(&format!("{s}:00")))?
                })
            };
            if !core.contains(':') {
                return None;
            }
            let from = hours(from)?;
            let Some(to) = hours(to) else {
                // "10:30am-ish"
                if !to.bytes().all(|b| b.is_ascii_alphabetic()) {
                    return None;
                }
                self.say(&speak_time(&from, false));
                self.runs(to, false);
                return Some(1);
            };
            let half = self.half_day(from.hour.max(to.hour));
            let later = from.half.is_some() || to.half.is_some() || half.is_some();
            self.say(&speak_time(&from, later));
            self.say("to");
            self.say(&speak_time(&to, later));
            self.say(half.unwrap_or(""));
            return Some(1 + usize::from(half.is_some()));
        }
        let compared = |t: Option<&Tok<'_>>| {
            t.is_some_and(|t| {
                matches!(&*t.lower(), "ratio" | "ratios" | "odds" | "scale" | "aspect" | "score")
            })
        };
        if core.len() < 6
            && (compared(self.next(self.at))
                || (1..4).any(|n| compared(self.at.checked_sub(n).map(|i| &self.toks[i]))))
        {
            return None;
        }
        let dotted = core.contains('.') && !core.contains(':');
        let colon = if dotted { core.replacen('.', ":", 1) } else { String::new() };
        let time = parse_time(if dotted { &colon } else { core })?;
        if time.minute == 0
            && time.hour == 12
            && self.joined(self.at).is_some_and(|n| matches!(n.core, "noon" | "midnight"))
        {
            self.say("twelve");
            return Some(1);
        }
        if dotted && time.half.is_none() && self.half_day(time.hour).is_none() {
            return None;
        }
        let half = if time.half.is_none() { self.half_day(time.hour) } else { None };
        self.say(&speak_time(&time, half.is_some()));
        self.say(half.unwrap_or(""));
        Some(1 + usize::from(half.is_some()))
    }

    /// "am" or "p.m." as the next token.
    pub(super) fn half_day(&self, hour: u64) -> Option<&'static str> {
        let next = self.joined(self.at).filter(|_| (1..=12).contains(&hour))?;
        match next.lower().as_str() {
            "am" | "a.m" => Some("a m"),
            "pm" | "p.m" => Some("p m"),
            _ => None,
        }
    }

    /// "24 November 2026", "24th Nov".
    pub(super) fn day_first(&mut self, tok: Tok<'a>) -> Option<Said> {
        let day = day_number(tok.core)?;
        let month_tok = self.joined(self.at).filter(|t| t.starts_upper())?;
        let lower = month_tok.lower();
        let month = lookup(tables::MONTHS, &lower)?;
        let the = self.prev().is_some_and(|p| matches!(p.core, "the" | "The"));
        self.say(if the { "" } else { "the" });
        self.say(&format!("{} of {month}", ordinal(day)));
        let year_tok = self
            .next(self.at + 1)
            .filter(|t| matches!(month_tok.post, "" | "." | ",") && t.pre.is_empty());
        if let Some(y) = year_tok.and_then(|t| year_number(t.core)) {
            self.comma();
            self.say(&year(y));
            return Some(used(3));
        }
        let short = lower.len() <= 4 && lower != month;
        Some(Said { used: 2, stop: short.then_some(Stop::Capital) })
    }
}

/// The day of a month: "24", "24th".
pub(super) fn day_number(s: &str) -> Option<u64> {
    let s = ["st", "nd", "rd", "th"].iter().find_map(|e| s.strip_suffix(e)).unwrap_or(s);
    if s.len() > 2 || !all_digits(s) {
        return None;
    }
    s.parse().ok().filter(|d| (1..=31).contains(d))
}

/// The two last figures of a year: "oh five", "twenty one".
pub(super) fn short_year(n: u64) -> String {
    match n {
        0 => "oh oh".into(),
        1..=9 => format!("oh {}", cardinal(n)),
        _ => cardinal(n),
    }
}

/// (year, month, day) of "2026-11-24", "24/11/2026", "11/24/2026", "24.11.2026". Where day
/// and month could be exchanged, the month comes first, as in American English.
pub(super) fn date(s: &str) -> Option<(u64, u64, u64)> {
    let separator = ['-', '/', '.'].into_iter().find(|c| s.contains(*c))?;
    let mut parts = s.split(separator);
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || ![a, b, c].iter().all(|p| all_digits(p)) {
        return None;
    }
    let number = |p: &str| p.parse::<u64>().ok();
    let (y, m, d) = if a.len() == 4 && b.len() <= 2 && c.len() <= 2 && separator != '.' {
        (year_number(a)?, number(b)?, number(c)?)
    } else if c.len() == 4 && a.len() <= 2 && b.len() <= 2 {
        let (first, second, y) = (number(a)?, number(b)?, year_number(c)?);
        if first > 12 || (separator == '.' && second <= 12) {
            (y, second, first)
        } else {
            (y, first, second)
        }
    } else if separator == '/' && a.len() <= 2 && b.len() <= 2 && c.len() == 2 {
        // Two digits of a year: 1950 to 2049.
        let (first, second, y) = (number(a)?, number(b)?, number(c)?);
        let y = if y < 50 { 2000 + y } else { 1900 + y };
        if first > 12 { (y, second, first) } else { (y, first, second) }
    } else {
        return None;
    };
    ((1..=12).contains(&m) && (1..=31).contains(&d)).then_some((y, m, d))
}

/// "1990s", "90s", "1990's".
pub(super) fn decade(s: &str) -> Option<String> {
    let n = s.strip_suffix("'s").or(s.strip_suffix('s'))?;
    if !all_digits(n) || !n.ends_with('0') {
        return None;
    }
    let v: u64 = n.parse().ok()?;
    match n.len() {
        3 if n.ends_with("00") && v > 0 => Some(plural(&cardinal(v))),
        4 if is_year(v) => Some(plural(&year(v))),
        2 if v >= 20 => Some(plural(&cardinal(v))),
        _ => None,
    }
}

pub(super) struct Time {
    pub hour: u64,
    pub minute: u64,
    pub second: Option<u64>,
    /// Digits behind the seconds' point.
    pub part: String,
    pub half: Option<&'static str>,
}

pub(super) fn parse_time(s: &str) -> Option<Time> {
    let lower = s.to_ascii_lowercase();
    let mut clock = lower.as_str();
    let mut half = None;
    for (written, spoken) in [("am", "a m"), ("pm", "p m"), ("a.m", "a m"), ("p.m", "p m")] {
        if let Some(stem) = clock.strip_suffix(written) {
            clock = stem;
            half = Some(spoken);
            break;
        }
    }
    let mut parts = clock.split(':');
    let (h, m, sec) = (parts.next()?, parts.next()?, parts.next());
    let (sec, part) = match sec.map(|s| s.split_once(['.', ','])) {
        Some(Some((s, part))) if !part.is_empty() && part.len() < 10 && all_digits(part) => {
            (Some(s), part)
        }
        Some(Some(_)) => return None,
        _ => (sec, ""),
    };
    let two = |p: &str| p.len() == 2 && all_digits(p);
    if parts.next().is_some() || h.len() > 2 || !all_digits(h) || !two(m) || !sec.is_none_or(two) {
        return None;
    }
    let hour: u64 = h.parse().ok()?;
    let minute: u64 = m.parse().ok()?;
    let second = sec.and_then(|p| p.parse().ok());
    (hour < 25 && minute < 60 && second.is_none_or(|n| n < 60)).then_some(Time {
        hour,
        minute,
        second,
        part: part.to_string(),
        half,
    })
}

pub(super) fn speak_time(t: &Time, halves: bool) -> String {
    let mut words = cardinal(t.hour);
    match t.minute {
        0 if t.half.is_some() || halves => {}
        0 if (1..=12).contains(&t.hour) => words.push_str(" o'clock"),
        0 => words.push_str(" hundred"),
        m @ 1..=9 => words.push_str(&format!(" oh {}", cardinal(m))),
        m => words.push_str(&format!(" {}", cardinal(m))),
    }
    if let Some(s) = t.second.filter(|_| !t.part.is_empty()) {
        words.push_str(&format!(" and {} point {} seconds", cardinal(s), digits(&t.part)));
    } else if let Some(s) = t.second.filter(|s| *s > 0) {
        words.push_str(&format!(" and {} second{}", cardinal(s), if s == 1 { "" } else { "s" }));
    }
    if let Some(half) = t.half {
        words.push(' ');
        words.push_str(half);
    }
    words
}
