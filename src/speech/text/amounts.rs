//! Amounts: numbers with signs, currencies and units; ranges and products of them.

use super::letters::spell;
use super::numbers::{self, Number, cardinal, integer, is_year, ordinal, year, year_number};
use super::read::{ONE, Reader, Said};
use super::tables;
use super::tokens::{Tok, lookup};
use super::units;

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
                Some(':') if core.len() > 8 && number(after.as_str()) => "",
                Some('-') if model(core) || several(core) => "",
                Some('-') if number(after.as_str()) => "to",
                Some(':') if number(after.as_str()) => "to",
                Some('x' | '×' | '*') if after.as_str().starts_with("10^") => "times",
                Some('x' | '×') if number(after.as_str()) && core.contains('=') => "times",
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
                Some('^') if matches!(after.as_str(), "2" | "3") => {
                    self.say(if after.as_str() == "2" { "squared" } else { "cubed" });
                    return Some(said);
                }
                Some('^') if number(after.as_str()) => "to the power of",
                Some('\'') if after.as_str() == "s" => {
                    self.possess();
                    return Some(said);
                }
                Some('/') => {
                    let unit = after.as_str();
                    if let Some(one) = units::per(unit) {
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
                let joined = self.joined(self.at).filter(|_| after.is_empty());
                if let Some(unit) = joined.and_then(|n| units::detached(n.core)) {
                    self.say(&unit.one);
                    return Some((after, 1));
                }
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
        let mut number = Number::take(&mut rest)?;
        self.decimal_comma(&mut number, &mut rest, currency.is_some());
        // "€1.500" is no price with three decimals.
        if number.fraction.len() == 3
            && (currency.is_some_and(|k| k.0 == '€')
                || rest.starts_with('€')
                || (rest.is_empty() && self.joined(self.at).is_some_and(|n| lone(n, '€'))))
        {
            let thousands = std::mem::take(&mut number.fraction);
            number.integer.push_str(&thousands);
        }
        let number = number;
        let next = |this: &Self| {
            if rest.is_empty() { this.joined(this.at) } else { None }
        };

        if let Some(&(_, one, many, part, parts)) = currency {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let mut scale = lookup(tables::AMOUNTS, &rest[..end]).unwrap_or("").to_string();
            let mut took = 0;
            if !scale.is_empty() {
                rest = &rest[end..];
            } else if let Some(word) = rest.strip_prefix('-')
                && let Some(word) = ["hundred", "thousand", "million", "billion", "trillion"]
                    .into_iter()
                    .find(|w| *w == word)
            {
                scale = word.to_string();
                rest = "";
            } else if let Some(n) = next(self)
                && matches!(n.core, "hundred" | "thousand" | "million" | "billion" | "trillion")
            {
                scale = n.core.to_string();
                took = 1;
            }
            // "$20-30": the sign stands for both.
            if let Some(tail) = rest.strip_prefix('-')
                && tail.starts_with(|c: char| c.is_ascii_digit())
            {
                let mut more = tail;
                if let Some(to) = Number::take(&mut more) {
                    let end = more.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(more.len());
                    let mut last = lookup(tables::AMOUNTS, &more[..end]).unwrap_or("").to_string();
                    if last.is_empty()
                        && more.is_empty()
                        && let Some(n) = self.joined(self.at)
                        && matches!(
                            n.core,
                            "hundred" | "thousand" | "million" | "billion" | "trillion"
                        )
                    {
                        last = n.core.to_string();
                        took = 1;
                    } else if !last.is_empty() {
                        more = &more[end..];
                    }
                    self.say(&prefix);
                    self.say(&format!(
                        "{} {scale} to {} {last} {many}",
                        number.words(),
                        to.words()
                    ));
                    return Some((more, took));
                }
            }
            let noun = rest.starts_with("-a-")
                || (rest.is_empty() && self.adjective(self.at + took, false));
            let many = if noun { one } else { many };
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
                let rest = &rest[c.len_utf8()..];
                let joined = self.joined(self.at).filter(|_| rest.is_empty());
                if let Some(unit) = joined.and_then(|n| units::detached(n.core)) {
                    let noun = self.adjective(self.at + 1, false);
                    self.say(if noun { &unit.one } else { &unit.many });
                    return Some((rest, 1));
                }
                return Some((rest, 0));
            }
            if let Some(k) = tables::CURRENCIES.iter().find(|k| k.0 == c) {
                self.money(&number, k);
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
            // "1.5e-3": the sign is part of the value.
            if let Some(power) = rest.strip_prefix(['e', 'E']) {
                let (sign, figures) = match power.strip_prefix(['-', '+']) {
                    Some(f) => (if power.starts_with('-') { "minus" } else { "" }, f),
                    None => ("", power),
                };
                let end = figures.find(|c: char| !c.is_ascii_digit()).unwrap_or(figures.len());
                if end > 0 && !figures[end..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
                    self.say(&format!("{} e {sign} {}", number.words(), integer(&figures[..end])));
                    return Some((&figures[end..], 0));
                }
            }
            // "6-ft", "15-min"
            if let Some(tail) = rest.strip_prefix('-')
                && tail.starts_with(|c: char| c.is_alphabetic() || c == '°' || c == '%')
            {
                let end = tail.find('-').unwrap_or(tail.len());
                let between = tail[end..].strip_prefix('-').is_some_and(number_first);
                if !between
                    && let Some(unit) = units::attached(&tail[..end]).filter(|_| {
                        !matches!(&tail[..end], "B" | "N" | "t" | "J" | "bar" | "C" | "F")
                    })
                {
                    self.say(&format!("{} {}", number.words(), unit.one));
                    return Some((&tail[end..], 0));
                }
            }
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            if let Some(scale) = lookup(tables::AMOUNTS, &rest[..letters]).filter(|_| {
                matches!(&rest[..letters], "k" | "K" | "M" | "B" | "bn" | "mn" | "T")
                    && !number.integer.is_empty()
            }) && (matches!(&rest[letters..], "+") || (rest.len() == letters && self.counts()))
            {
                self.say(&format!("{} {scale}", number.words()));
                return Some((&rest[letters..], 0));
            }
            let whole = rest
                .find(|c: char| !(c.is_alphanumeric() || "%°‰²³^/Ω".contains(c)))
                .unwrap_or(rest.len());
            let seat = matches!(suffix, "C" | "F" | "A" | "B" | "D" | "E")
                && (self.seat()
                    || (suffix == "C" || suffix == "F")
                        && number.integer.len() < 2
                        && number.fraction.is_empty()
                        && !self.degrees(s));
            let found = [rest, &rest[..whole], suffix]
                .into_iter()
                .filter(|key| !seat && !matches!(*key, "B" | "T" | "t" | "N" | "J" | "ac"))
                .find_map(|key| Some((key, units::attached(key)?)));
            if let Some((key, unit)) = found {
                let rest = &rest[key.len()..];
                let noun = rest.is_empty() && self.adjective(self.at, false);
                self.say(&number.words());
                self.say(if one || noun { &unit.one } else { &unit.many });
                return Some((rest, 0));
            }
            // 4-digit years as the start of a range.
            if years || (rest.starts_with('-') && plain && number.year().is_some() && !model(s)) {
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
            if let Some(k) = tables::CURRENCIES.iter().find(|k| lone(n, k.0)) {
                self.money(&number, k);
                return Some((rest, 1));
            }
            // "50 sq ft", "10 fl. oz."
            if matches!(n.core, "sq" | "cu" | "fl")
                && let Some(m) = self
                    .next(self.at + 1)
                    .filter(|m| m.pre.is_empty() && matches!(n.post, "" | "."))
                && let Some(unit) = units::attached(m.core)
            {
                let kind = match n.core {
                    "sq" => "square",
                    "cu" => "cubic",
                    _ => "fluid",
                };
                let noun = self.adjective(self.at + 2, false);
                self.say(&number.words());
                self.say(kind);
                self.say(if one || noun { &unit.one } else { &unit.many });
                return Some((rest, 2));
            }
            // "123 N. Main St."
            let compass = tables::COMPASS.contains(&n.core)
                && self.next(self.at + 1).is_some_and(|t| t.starts_upper() || t.starts_digit());
            let unit = self.letter_unit(n, self.at + 1).or_else(|| units::detached(n.core));
            if let Some(unit) = unit.filter(|_| !compass) {
                let noun = self.adjective(self.at + 1, false);
                self.say(&number.words());
                self.say(if one || noun { &unit.one } else { &unit.many });
                return Some((rest, 1));
            }
            // "1920 x 1080", "10 x 15 cm"
            let by = |t: &Tok<'_>| matches!(t.raw, "x" | "×" | "X");
            if by(n) && self.next(self.at + 1).is_some_and(Tok::starts_digit) {
                self.say(&number.words());
                let equals =
                    (2..6).any(|k| self.toks.get(self.at + k).is_some_and(|t| t.raw == "="));
                let power = self.next(self.at + 1).is_some_and(|t| t.core.starts_with("10^"));
                self.say(if equals || power { "times" } else { "by" });
                return Some((rest, 1));
            }
        }
        if self.prev().is_some_and(|p| matches!(p.raw, "x" | "×" | "X")) && plain {
            self.say(&number.words());
            return Some((rest, 0));
        }
        let summed = self.at.checked_sub(1).is_some_and(|i| {
            matches!(self.toks[i].raw, "=" | "+" | "-" | "*" | "/" | "<" | ">" | "==" | "equals")
        });
        if plain && (summed || self.count_of(&number)) {
            self.say(&number.words());
            return Some((rest, 0));
        }
        match number.year() {
            Some(y) if plain && (leading || years) => self.say(&year(y)),
            _ => self.say(&number.words()),
        }
        Some((rest, 0))
    }

    /// A comma before cents or a measure: "9,99 €", "3,5 km".
    fn decimal_comma(&self, number: &mut Number, rest: &mut &str, priced: bool) {
        let Some(tail) = rest.strip_prefix(',') else { return };
        if !number.fraction.is_empty() && number.fraction.len() != 3 {
            return;
        }
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let behind = &tail[end..];
        let money =
            |c: Option<char>| c.is_some_and(|c| tables::CURRENCIES.iter().any(|k| k.0 == c));
        let next = self.joined(self.at);
        let measured = if behind.is_empty() {
            next.is_some_and(|n| {
                tables::CURRENCIES.iter().any(|k| lone(n, k.0))
                    || lone(n, '%')
                    || units::detached(n.core).is_some()
                    || matches!(n.core, "euro" | "euros" | "million" | "billion" | "percent")
            })
        } else {
            money(behind.chars().next()) || units::attached(behind).is_some()
        };
        if (1..=2).contains(&end) && (measured || (priced && end == 2 && behind.is_empty())) {
            // "1.234,56": the point stood between thousands.
            let thousands = std::mem::take(&mut number.fraction);
            number.integer.push_str(&thousands);
            number.fraction = tail[..end].to_string();
            *rest = behind;
        }
    }

    /// An amount of money whose sign stands behind it.
    pub(super) fn money(&mut self, number: &Number, k: &(char, &str, &str, &str, &str)) {
        let cents: u64 = number.fraction.parse().unwrap_or(0);
        if number.fraction.len() == 2 && !k.3.is_empty() {
            let one = number.integer == "1";
            self.say(&integer(&number.integer));
            self.say(if one { k.1 } else { k.2 });
            if cents > 0 {
                self.say(&format!(
                    "and {} {}",
                    cardinal(cents),
                    if cents == 1 { k.3 } else { k.4 }
                ));
            }
            return;
        }
        self.say(&number.words());
        self.say(if number.is_one() { k.1 } else { k.2 });
    }

    /// Whether what follows is counted in thousands and millions: "10k users", "50k a year".
    fn counts(&self) -> bool {
        let Some(n) = self.joined(self.at) else { return false };
        plural_noun(n.core)
            || matches!(n.core, "a" | "an" | "per" | "of" | "in" | "more" | "to" | "or" | "and")
    }

    /// Whether the letter behind the number names a seat, a room or a grade.
    fn seat(&self) -> bool {
        let before = self.at.checked_sub(1).map(|i| self.toks[i].lower()).unwrap_or_default();
        matches!(
            &*before,
            "seat"
                | "room"
                | "gate"
                | "apt"
                | "apartment"
                | "suite"
                | "unit"
                | "row"
                | "flight"
                | "bldg"
                | "building"
                | "block"
                | "section"
                | "exhibit"
                | "figure"
                | "fig"
                | "table"
                | "grade"
                | "class"
                | "rm"
                | "ste"
                | "line"
                | "iphone"
                | "level"
                | "platform"
                | "track"
                | "locker"
                | "box"
                | "lot"
                | "bus"
                | "route"
                | "step"
                | "part"
                | "appendix"
                | "item"
                | "page"
                | "chapter"
                | "article"
                | "title"
                | "form"
                | "schedule"
                | "rule"
                | "terminal"
        )
    }

    /// Whether one figure with C or F behind it is a temperature.
    fn degrees(&self, s: &str) -> bool {
        s.starts_with('-')
            || self.at.checked_sub(1).is_some_and(|i| {
                matches!(
                    &*self.toks[i].lower(),
                    "is" | "at" | "to" | "was" | "about" | "below" | "above" | "around" | "minus"
                )
            })
    }

    /// Letters that are units by what stands around them: "37 C", "a 2 A fuse", "300 K".
    fn letter_unit(&self, n: &Tok<'a>, last: usize) -> Option<units::Unit> {
        let next = self.next(last).filter(|_| n.post.is_empty());
        let ends = next.is_none_or(|t| t.starts_lower() && t.core.len() > 1);
        let said = |one: &str, many: &str| Some(units::Unit { one: one.into(), many: many.into() });
        match n.core {
            "pts" if next.is_none_or(|t| t.core != "of") => said("point", "points"),
            "pts" => said("pint", "pints"),
            "C" if ends && !self.seat() => said("degree celsius", "degrees celsius"),
            "F" if ends && !self.seat() => said("degree fahrenheit", "degrees fahrenheit"),
            "K" if ends && !next.is_some_and(|t| plural_noun(t.core)) => said("kelvin", "kelvin"),
            "A" if !self.seat()
                && next.is_none_or(|t| {
                    matches!(
                        &*t.lower(),
                        "fuse"
                            | "fuses"
                            | "breaker"
                            | "breakers"
                            | "current"
                            | "circuit"
                            | "supply"
                            | "charger"
                            | "of"
                            | "at"
                            | "max"
                            | "load"
                            | "output"
                            | "input"
                            | "and"
                            | "or"
                            | "socket"
                            | "plug"
                            | "adapter"
                            | "motor"
                    )
                }) =>
            {
                said("amp", "amps")
            }
            _ => None,
        }
    }

    /// Whether a number that could be a year counts things: "1905 people", "1500 dollars".
    fn count_of(&self, number: &Number) -> bool {
        if number.year().is_none() {
            return false;
        }
        let Some(n) = self.joined(self.at) else { return false };
        let prev = self.prev().map(|p| p.lower()).unwrap_or_default();
        if tables::PLURALS.contains(&n.core)
            || matches!(
                n.core,
                "dollars"
                    | "euros"
                    | "pounds"
                    | "miles"
                    | "meters"
                    | "calories"
                    | "words"
                    | "feet"
                    | "years"
                    | "times"
                    | "degrees"
                    | "points"
                    | "votes"
                    | "copies"
            )
        {
            return !matches!(&*prev, "in" | "since");
        }
        plural_noun(n.core) && !tables::YEAR_BEFORE.contains(&prev.as_str())
    }
}

/// Whether a token is one sign and punctuation.
fn lone(t: &Tok<'_>, sign: char) -> bool {
    let mut chars = t.raw.chars();
    chars.next() == Some(sign)
        && !chars.as_str().contains(|c: char| c.is_alphanumeric() || c == sign)
}

/// Whether a word looks like a plural.
fn plural_noun(w: &str) -> bool {
    tables::PLURALS.contains(&w)
        || (w.len() > 3
            && w.bytes().all(|b| b.is_ascii_lowercase())
            && w.ends_with('s')
            && !w.ends_with("ss")
            && !w.ends_with("us")
            && !w.ends_with("is")
            && !matches!(
                w,
                "was"
                    | "has"
                    | "this"
                    | "does"
                    | "goes"
                    | "says"
                    | "always"
                    | "perhaps"
                    | "makes"
                    | "seems"
                    | "comes"
                    | "lets"
                    | "marks"
                    | "begins"
                    | "remains"
            ))
}

fn number_first(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_digit())
}

/// Numbers around more than one hyphen are no range: "1-800-FLOWERS". "20-25-minute" is one.
fn several(s: &str) -> bool {
    let parts: Vec<&str> = s.trim_start_matches('-').split('-').collect();
    let number = |p: &str| p.parse::<u64>().ok();
    let letters = |p: &str| p.bytes().all(|b| b.is_ascii_lowercase());
    match parts.as_slice() {
        [a, b, rest @ ..] if !rest.is_empty() => {
            !(number(a).zip(number(b)).is_some_and(|(a, b)| a < b)
                && rest.iter().all(|p| letters(p)))
        }
        _ => false,
    }
}

/// Two numbers that fall, of three figures and more, are a name and no range: "747-400".
fn model(s: &str) -> bool {
    s.split_once('-').is_some_and(|(a, b)| {
        let big = |p: &str| (3..=5).contains(&p.len()) && p.bytes().all(|c| c.is_ascii_digit());
        let jet = a.len() == 3 && a.starts_with('7') && a.ends_with('7') && b.len() < 4;
        jet || (big(a)
            && big(b)
            && b.ends_with("00")
            && a.parse::<u64>().ok() > b.parse::<u64>().ok())
    })
}
