//! Tokens with digits: which rule reads them.

use super::dates::{date, decade, parse_time, speak_time};
use super::numbers::{self, digits, fraction, integer, is_year, ordinal, year};
use super::read::{ONE, Reader, Said, used};
use super::tables;
use super::tokens::{Tok, all_digits};

impl<'a> Reader<'a> {
    pub(super) fn numeric(&mut self, tok: Tok<'a>) -> Option<Said> {
        let core = tok.core;
        let groups: Vec<&str> = core.split(['-', '.']).collect();
        let grouped = groups.iter().all(|g| all_digits(g));

        if let Some(n) = self.phone(tok, &groups, grouped) {
            return Some(used(n));
        }
        if let Some((y, m, d)) = date(core) {
            self.say(tables::MONTHS[m as usize - 1].1);
            self.say(&ordinal(d));
            self.comma();
            self.say(&year(y));
            return Some(ONE);
        }
        if let Some((day, clock)) = core.split_once('T')
            && let Some((y, m, d)) = date(day)
            && let Some(time) = parse_time(clock.trim_end_matches('Z'))
        {
            self.say(&format!("{} {}", tables::MONTHS[m as usize - 1].1, ordinal(d)));
            self.comma();
            self.say(&year(y));
            self.comma();
            self.say(&speak_time(&time, false));
            return Some(ONE);
        }
        if let Some(n) = self.time(core) {
            return Some(used(n));
        }
        if let Some(said) = self.day_first(tok) {
            return Some(said);
        }
        if self.dotted_numbers(core) {
            return Some(ONE);
        }
        if let Some(words) = decade(core) {
            self.say(&words);
            return Some(ONE);
        }
        if core.starts_with("0x") {
            return None;
        }
        // "mid-1990s", "60s-70s"
        if core.contains('-') && core.split('-').any(|p| decade(p).is_some()) {
            let mut number = false;
            for part in core.split('-').filter(|p| !p.is_empty()) {
                let digits = part.starts_with(|c: char| c.is_ascii_digit());
                self.say(if number && digits { "to" } else { "" });
                match decade(part) {
                    Some(words) => self.say(&words),
                    None => self.runs(part, false),
                }
                number = digits;
            }
            return Some(ONE);
        }
        if let Some((n, d)) = core.split_once('/')
            && all_digits(n)
            && all_digits(d)
            && n.len() <= 4
            && d.len() <= 4
            && let (Ok(n), Ok(d)) = (n.parse::<u64>(), d.parse::<u64>())
        {
            if n == 50 && d == 50 {
                self.say("fifty fifty");
            } else if is_year(n) && is_year(d) {
                self.say(&format!("{} slash {}", year(n), year(d)));
            } else {
                if n < d && self.prev().is_some_and(Tok::is_digits) {
                    self.say("and");
                }
                self.say(&fraction(n, d));
            }
            return Some(ONE);
        }
        if let Some((feet, inches)) = core.split_once('\'')
            && all_digits(feet)
            && all_digits(inches)
            && feet.len() < 3
            && inches.len() < 3
        {
            self.say(&format!("{} foot {}", integer(feet), integer(inches)));
            return Some(ONE);
        }
        if let Some(n) = self.spaced_thousands(tok) {
            return Some(used(n));
        }
        if core == "<3" {
            self.say("heart");
            return Some(ONE);
        }
        self.amounts(core)
    }

    /// "1 000 000"; the number of tokens used. "5 101" may be two numbers, so the first group
    /// of three must be 000 or another must follow.
    pub(super) fn spaced_thousands(&mut self, tok: Tok<'a>) -> Option<usize> {
        if tok.core.len() > 3 || !tok.is_digits() || tok.core.starts_with('0') {
            return None;
        }
        let mut all = tok.core.to_string();
        let mut last = self.at;
        while let Some(next) = self.joined(last).filter(|n| n.core.len() == 3 && n.is_digits()) {
            all.push_str(next.core);
            last += 1;
            if all.len() > numbers::MAX_DIGITS {
                return None;
            }
        }
        let groups = last - self.at;
        if groups == 0 || (groups == 1 && !all.ends_with("000")) {
            return None;
        }
        self.say(&integer(&all));
        Some(groups + 1)
    }

    /// IP addresses and versions.
    pub(super) fn dotted_numbers(&mut self, core: &str) -> bool {
        let (named, body) = match core.strip_prefix(['v', 'V']) {
            Some(body) if body.starts_with(|c: char| c.is_ascii_digit()) => (true, body),
            _ => (false, core),
        };
        let end =
            body.bytes().position(|b| !(b.is_ascii_digit() || b == b'.')).unwrap_or(body.len());
        let (head, rest) = body.split_at(end);
        let head = head.trim_end_matches('.');
        let parts: Vec<&str> = head.split('.').collect();
        if !parts.iter().all(|p| all_digits(p)) || !(named || parts.len() > 2) {
            return false;
        }
        if named {
            self.say("version");
        }
        let octets = parts.len() == 4
            && parts.iter().all(|p| p.len() <= 3 && p.parse::<u64>().is_ok_and(|n| n < 256));
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                self.say(if octets && !named { "dot" } else { "point" });
            }
            self.say(&if octets && !named { digits(part) } else { integer(part) });
        }
        self.runs(rest, !rest.starts_with('-'));
        true
    }
}
