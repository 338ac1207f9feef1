//! Amounts: numbers with signs, currencies and units; ranges and products of them.

use super::dates::year_number;
use super::numbers::{self, Number, cardinal, integer, is_year, ordinal, year};
use super::read::{ONE, Reader, Said};
use super::tables;
use super::tokens::lookup;
use super::words::spell;

impl<'a> Reader<'a> {
    /// Numbers with signs, currencies, units; ranges and products of them.
    pub(super) fn amounts(&mut self, core: &'a str) -> Option<Said> {
        let mut rest = core;
        let mut first = true;
        let mut said = ONE;
        // In a range that looks like years, both ends are.
        let years = core.split_once(['-', '/']).is_some_and(|(a, b)| {
            year_number(a).is_some_and(is_year) && year_number(b).is_some_and(is_year)
        });
        loop {
            let Some((tail, took)) = self.amount(rest, years, first) else {
                if first {
                    return None;
                }
                self.runs(rest, false);
                return Some(said);
            };
            first = false;
            if tail.is_empty() {
                said.used += took;
                return Some(said);
            }
            let number = |s: &str| {
                s.trim_start_matches(['$', '£', '€', '+', '-'])
                    .starts_with(|c: char| c.is_ascii_digit())
            };
            let mut after = tail.chars();
            let link = match after.next() {
                Some('-') if number(after.as_str()) => "to",
                Some(':') if number(after.as_str()) => "to",
                Some('x' | '×') if number(after.as_str()) => "by",
                Some('*') if number(after.as_str()) => "times",
                Some('+') if number(after.as_str()) => "plus",
                Some('=') if number(after.as_str()) => "equals",
                Some('/') if number(after.as_str()) => {
                    if core.contains('.') {
                        "out of"
                    } else {
                        "slash"
                    }
                }
                Some('^') if number(after.as_str()) => "to the power of",
                Some('/') => {
                    let unit = after.as_str();
                    if let Some((_, one, _)) = tables::UNITS.iter().find(|u| u.0 == unit) {
                        self.say(&format!("per {one}"));
                    } else {
                        self.say("per");
                        self.runs(unit, false);
                    }
                    return Some(said);
                }
                _ => {
                    self.runs(tail, false);
                    return Some(said);
                }
            };
            self.say(link);
            rest = after.as_str();
        }
    }

    /// One amount at the start of `s`: what is left of `s`, and how many of the following
    /// tokens were used.
    pub(super) fn amount(
        &mut self,
        s: &'a str,
        years: bool,
        leading: bool,
    ) -> Option<(&'a str, usize)> {
        let mut rest = s;
        let mut prefix = String::new();
        let mut currency = None;
        let mut plain = true;
        loop {
            let c = rest.chars().next()?;
            let after = &rest[c.len_utf8()..];
            if c.is_ascii_digit() || (c == '.' && after.starts_with(|d: char| d.is_ascii_digit())) {
                break;
            }
            if "½¼¾⅓⅔⅛⅜⅝⅞".contains(c) && leading {
                self.say(&prefix);
                self.say(tables::symbol(c)?);
                return Some((after, 0));
            }
            let word = match c {
                '-' => "minus ",
                '+' => "plus ",
                '~' => "about ",
                '<' => "less than ",
                '>' => "greater than ",
                '#' => "number ",
                '@' => "at ",
                '=' => "equals ",
                '×' => "times ",
                _ => {
                    let sign = tables::CURRENCIES.iter().find(|k| k.0 == c);
                    match sign {
                        Some(k) if currency.is_none() => {
                            currency = Some(k);
                            rest = after;
                            continue;
                        }
                        _ => {}
                    }
                    // "US$5", "A$5".
                    let head = rest.find('$').filter(|n| {
                        (1..=2).contains(n) && rest[..*n].bytes().all(|b| b.is_ascii_uppercase())
                    })?;
                    prefix.push_str(&spell(&rest[..head]));
                    prefix.push(' ');
                    rest = &rest[head..];
                    continue;
                }
            };
            if prefix.len() > 40 {
                return None;
            }
            prefix.push_str(word);
            plain = false;
            rest = after;
        }
        let number = Number::take(&mut rest)?;
        let next = |this: &Self| {
            if rest.is_empty() { this.joined(this.at) } else { None }
        };

        if let Some(&(_, one, many, part, parts)) = currency {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let mut scale = lookup(tables::AMOUNTS, &rest[..end]).unwrap_or("").to_string();
            let mut took = 0;
            if !scale.is_empty() {
                rest = &rest[end..];
            } else if let Some(n) = next(self)
                && matches!(n.core, "hundred" | "thousand" | "million" | "billion" | "trillion")
            {
                scale = n.core.to_string();
                took = 1;
            }
            let cents = number.fraction.len() == 2 && scale.is_empty() && !part.is_empty();
            self.say(&prefix);
            if cents {
                let amount = number.fraction.parse::<u64>().unwrap_or(0);
                let whole = number.integer != "0" && !number.integer.is_empty();
                if whole {
                    self.say(&integer(&number.integer));
                    self.say(if number.integer == "1" { one } else { many });
                }
                if amount > 0 {
                    self.say(if whole { "and" } else { "" });
                    self.say(&cardinal(amount));
                    self.say(if amount == 1 { part } else { parts });
                } else if !whole {
                    self.say(&format!("zero {many}"));
                }
            } else {
                self.say(&number.words());
                self.say(&scale);
                let single = number.is_one() && scale.is_empty();
                self.say(if single { one } else { many });
            }
            return Some((rest, took));
        }

        // What is written right after the number.
        self.say(&prefix);
        let one = number.is_one();
        if let Some(c) = rest.chars().next() {
            if "½¼¾⅓⅔⅛⅜⅝⅞".contains(c) {
                self.say(&number.words());
                self.say("and");
                self.say(tables::symbol(c)?);
                return Some((&rest[c.len_utf8()..], 0));
            }
            if let Some(k) = tables::CURRENCIES.iter().find(|k| k.0 == c) {
                self.say(&number.words());
                self.say(if one { k.1 } else { k.2 });
                return Some((&rest[c.len_utf8()..], 0));
            }
            if c == '¢' {
                self.say(&number.words());
                self.say(if one { "cent" } else { "cents" });
                return Some((&rest[c.len_utf8()..], 0));
            }
            let end = rest
                .find(|c: char| !(c.is_alphabetic() || "%°‰²³".contains(c)))
                .unwrap_or(rest.len());
            let suffix = &rest[..end];
            if matches!(suffix.to_ascii_lowercase().as_str(), "st" | "nd" | "rd" | "th")
                && number.fraction.is_empty()
                && let Ok(n) = number.integer.parse::<u64>()
                && number.integer.len() <= numbers::MAX_DIGITS
            {
                self.say(&ordinal(n));
                return Some((&rest[end..], 0));
            }
            if matches!(suffix.to_ascii_lowercase().as_str(), "am" | "pm")
                && number.integer.len() < 3
            {
                self.say(&number.words());
                self.say(&spell(suffix));
                return Some((&rest[end..], 0));
            }
            let unit = |key: &str| tables::UNITS.iter().find(|u| u.0 == key);
            if let Some(&(key, single, many)) = unit(rest).or_else(|| unit(suffix)) {
                self.say(&number.words());
                self.say(if one { single } else { many });
                return Some((&rest[key.len()..], 0));
            }
            // 4-digit years as the start of a range.
            if years || (rest.starts_with('-') && plain && number.year().is_some()) {
                self.say(&number.year().map_or_else(|| number.words(), year));
            } else {
                self.say(&number.words());
            }
            return Some((rest, 0));
        }

        // Or as the next token.
        if let Some(n) = next(self) {
            if number.fraction.is_empty()
                && let Ok(hour) = number.integer.parse::<u64>()
                && let Some(half) = self.half_day(hour)
            {
                self.say(&number.words());
                self.say(half);
                return Some((rest, 1));
            }
            let detached = n.core.chars().count() > 1
                || n.core
                    .chars()
                    .all(|c| tables::DETACHED_LETTERS.contains(c) || !c.is_ascii_alphabetic());
            if detached
                && let Some(&(_, single, many)) = tables::UNITS.iter().find(|u| u.0 == n.core)
            {
                self.say(&number.words());
                self.say(if one { single } else { many });
                return Some((rest, 1));
            }
            if let Some((a, b)) = n.core.split_once('/')
                && let Some(left) = tables::UNITS.iter().find(|u| u.0 == a)
                && let Some(right) = tables::UNITS.iter().find(|u| u.0 == b)
            {
                self.say(&number.words());
                self.say(&format!("{} per {}", if one { left.1 } else { left.2 }, right.1));
                return Some((rest, 1));
            }
        }
        match number.year() {
            Some(y) if plain => self.say(&year(y)),
            _ => self.say(&number.words()),
        }
        Some((rest, 0))
    }
}
