//! Tokens with digits: which rule reads them.

use super::dates::{date, decade, parse_time, short_year, speak_time};
use super::numbers::{
    self, Number, cardinal, digits, fraction, integer, is_year, ordinal, parts, plural, year,
};
use super::read::{ONE, Reader, Said, used};
use super::tables;
use super::tokens::{Tok, all_digits};
use super::units;

impl<'a> Reader<'a> {
    pub(super) fn numeric(&mut self, tok: Tok<'a>) -> Option<Said> {
        let core = tok.core;
        let groups: Vec<&str> = core.split(['-', '.']).collect();
        let grouped = groups.iter().all(|g| all_digits(g));

        if self.digitwise(tok) || self.by_figure(tok) {
            return Some(ONE);
        }
        if let Some(n) = self.phone(tok, &groups, grouped) {
            return Some(used(n));
        }
        if let Some(n) = self.length(tok) {
            return Some(used(n));
        }
        if let Some(n) = self.duration(tok) {
            return Some(used(n));
        }
        if let Some(n) = self.short_date(tok) {
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
        // Else a century.
        if core == "100s" && self.plurals(tok) {
            return Some(ONE);
        }
        if let Some(words) = decade(core) {
            self.say(&words);
            return Some(ONE);
        }
        if let Some(hex) = core.strip_prefix("0x").or(core.strip_prefix("0X"))
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
        {
            self.say("zero x");
            if hex.len() < 3 && hex.bytes().any(|b| b.is_ascii_alphabetic()) || hex.len() > 2 {
                self.say(&figures(hex));
            } else {
                self.runs(hex, false);
            }
            return Some(ONE);
        }
        if self.plurals(tok) {
            return Some(ONE);
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
        if let Some(n) = self.ratio(tok) {
            return Some(used(n));
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
        let measured = self.joined(last).and_then(|n| units::detached(n.core));
        // "1 234,50 €"
        if let Some(tail) = self.joined(last).filter(|n| {
            n.core.split_once(',').is_some_and(|(a, b)| {
                a.len() == 3 && b.len() == 2 && all_digits(a) && all_digits(b)
            })
        }) && let Some(k) = tables::CURRENCIES
            .iter()
            .find(|k| self.toks.get(last + 2).is_some_and(|t| t.raw.starts_with(k.0)))
        {
            let (a, b) = tail.core.split_once(',')?;
            let number =
                Number { integer: format!("{all}{a}"), fraction: b.to_string(), grouped: true };
            self.money(&number, k);
            return Some(groups + 3);
        }
        if groups == 0 || (groups == 1 && !all.ends_with("000") && measured.is_none()) {
            return None;
        }
        self.say(&integer(&all));
        if let Some(unit) = measured {
            self.say(&unit.many);
            return Some(groups + 2);
        }
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
        // "1.000.000" counts; four parts below 256 without "000" are an address.
        let thousands = parts[0] != "0"
            && parts[0].len() < 4
            && parts[1..].iter().all(|p| p.len() == 3)
            && (parts.len() != 4 || parts.contains(&"000"));
        if !named && thousands {
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

    /// The token before the last ones, if nothing but an abbreviation's stop or a colon stands
    /// between.
    fn back(&self, steps: usize) -> Option<&'a Tok<'a>> {
        let i = self.at.checked_sub(steps)?;
        let clear = (i + 1..=self.at).all(|k| !self.toks[k].para)
            && (i..self.at).all(|k| matches!(self.toks[k].post, "" | ":" | "." | "#"));
        clear.then(|| &self.toks[i])
    }

    /// Digits that are a name: ZIP codes, PINs, the numbers of accounts and cards, 911.
    fn digitwise(&mut self, tok: Tok<'a>) -> bool {
        let core = tok.core.strip_prefix('#').unwrap_or(tok.core);
        if core.len() < 3 || !core.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        let groups: Vec<&str> = core.split('-').collect();
        if !groups.iter().all(|g| all_digits(g)) || core.len() > 40 {
            return false;
        }
        let single = groups.len() > 2 && groups.iter().all(|g| g.len() == 1);
        let zip = groups.len() == 2 && groups[0].len() == 5 && groups[1].len() == 4;
        let state = core.len() == 5
            && groups.len() == 1
            && self
                .prev()
                .is_some_and(|p| p.is_caps() && tables::POSTAL.contains(&format!(" {} ", p.core)));
        let caller = |t: Option<&Tok<'_>>| {
            t.is_some_and(|t| {
                matches!(
                    &*t.lower(),
                    "call"
                        | "dial"
                        | "called"
                        | "dialed"
                        | "calling"
                        | "dialing"
                        | "text"
                        | "texted"
                        | "phone"
                        | "phoned"
                )
            })
        };
        let next = self.next(self.at).filter(|_| tok.post.is_empty());
        let counted =
            next.is_some_and(|t| t.core.ends_with('s') || tables::PLURALS.contains(&t.core));
        let emergency = matches!(core, "911" | "411" | "311" | "211" | "999" | "112")
            && (next.is_some_and(|t| {
                matches!(
                    &*t.lower(),
                    "call" | "calls" | "operator" | "operators" | "dispatcher" | "caller"
                )
            }) || self.prev().is_some_and(|p| matches!(p.core, "a" | "the" | "to"))
                && core.ends_with("11"));
        let dialled = groups.len() == 1
            && (emergency
                || ((3..=6).contains(&core.len())
                    && caller(self.prev())
                    && !core.ends_with("00")
                    && !counted
                    && !next.is_some_and(Tok::starts_digit)));
        let named = core.len() >= 3
            && groups.len() == 1
            && (1..5).find_map(|n| {
                let word = self.back(n)?.lower();
                if word == "ending" {
                    // "the card ending in 4242", not "the year ending in 2024"
                    return Some((n + 1..n + 6).any(|k| {
                        self.at.checked_sub(k).is_some_and(|i| {
                            matches!(
                                &*self.toks[i].lower(),
                                "card"
                                    | "cards"
                                    | "account"
                                    | "number"
                                    | "visa"
                                    | "mastercard"
                                    | "phone"
                                    | "one"
                                    | "acct"
                                    | "debit"
                                    | "credit"
                            )
                        })
                    }));
                }
                if tables::DIGITWISE.contains(&word.as_str()) {
                    return Some(
                        !(matches!(&*word, "account")
                            && n > 1
                            && self.back(1)?.lower() != "number"),
                    );
                }
                (!tables::LINKS.contains(&word.as_str())).then_some(false)
            }) == Some(true);
        let carded = core.len() == 4
            && groups.len() == 1
            && self.joined(self.at).is_some_and(|n| n.core.len() == 4 && n.is_digits())
            && self.toks.get(self.at + 2).is_some_and(|n| n.core.len() == 4 && n.is_digits());
        let carded = carded
            || (core.len() == 4
                && self.joined_before(1)
                && self.joined_before(2)
                && tok.is_digits());
        if single {
            self.say(&digits(core));
        } else if zip || state || dialled || named {
            self.groups(&groups);
        } else if carded {
            self.say(&digits(core));
            if self.joined(self.at).is_some_and(|n| n.core.len() == 4 && n.is_digits()) {
                self.comma();
            }
        } else {
            return false;
        }
        true
    }

    /// Whether the token so many steps back is a group of four digits of the same number.
    fn joined_before(&self, steps: usize) -> bool {
        self.back(steps).is_some_and(|t| t.core.len() == 4 && t.is_digits() && t.post.is_empty())
    }

    /// Hashes, MAC addresses and UUIDs, figure by figure.
    fn by_figure(&mut self, tok: Tok<'a>) -> bool {
        let core = tok.core;
        let hex = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit());
        let mixed = |s: &str| {
            s.bytes().any(|b| b.is_ascii_digit()) && s.bytes().any(|b| b.is_ascii_alphabetic())
        };
        if core.len() < 7 {
            return false;
        }
        for separator in [':', '-'] {
            let parts: Vec<&str> = core.split(separator).collect();
            if matches!(parts.len(), 6 | 8) && parts.iter().all(|p| p.len() == 2 && hex(p)) {
                for p in parts {
                    self.say(&figures(p));
                }
                return true;
            }
        }
        let parts: Vec<&str> = core.split('-').collect();
        if parts.len() == 5
            && parts.iter().all(|p| hex(p))
            && parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12])
        {
            for (i, p) in parts.iter().enumerate() {
                if i > 0 {
                    self.comma();
                }
                self.say(&figures(p));
            }
            return true;
        }
        let colour = core.strip_prefix('#').filter(|c| c.len() == 6 && hex(c) && mixed(c));
        let hash = (7..=64).contains(&core.len())
            && hex(core)
            && mixed(core)
            && !core.bytes().any(|b| b.is_ascii_uppercase())
            && !exponent(core);
        if let Some(c) = colour {
            self.say("hash");
            self.say(&figures(c));
        } else if hash {
            self.say(&figures(core));
        } else {
            return false;
        }
        true
    }

    /// "27\"", "12'", "5' 10\"", "6 in."; the number of tokens used.
    fn length(&mut self, tok: Tok<'a>) -> Option<usize> {
        let number = |s: &str| {
            !s.is_empty()
                && s.len() < 9
                && s.starts_with(|c: char| c.is_ascii_digit())
                && s.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b',' | b'/' | b'-'))
        };
        let words = |s: &str| -> String {
            let mut rest = s;
            if let Some((a, b)) = s.split_once('/')
                && let (Ok(a), Ok(b)) = (a.parse(), b.parse())
            {
                return fraction(a, b);
            }
            match Number::take(&mut rest) {
                Some(n) if rest.is_empty() => n.words(),
                _ => String::new(),
            }
        };
        let inch = |t: &Tok<'_>| t.post.starts_with('"') || t.post.starts_with("''");
        // "5'10", "5'10\""
        if let Some((feet, inches)) = tok.core.split_once('\'')
            && all_digits(feet)
            && number(inches)
            && !inches.contains(',')
            && feet.len() < 3
            && inches.split(['.', '/']).next().is_some_and(|i| i.len() < 3)
            && inches.len() < 6
        {
            self.inched = inch(&tok) && !tok.post.starts_with('\'');
            self.say(&format!("{} foot {}", integer(feet), words(inches)));
            return Some(1);
        }
        // "10\"x12\"", "8'x10'"
        let sides: Vec<&str> = tok.core.split(['x', '×']).collect();
        if sides.len() > 1 && tok.core.contains(['"', '\'']) && tok.core.len() < 30 {
            let foot = tok.core.contains('\'');
            let bare: Vec<&str> = sides.iter().map(|s| s.trim_end_matches(['"', '\''])).collect();
            if bare.iter().all(|s| number(s)) {
                self.inched = true;
                let all: Vec<String> = bare.iter().map(|s| words(s)).collect();
                self.say(&all.join(" by "));
                let one = self.adjective(self.at, true);
                self.say(match (foot, one) {
                    (true, true) => "foot",
                    (true, false) => "feet",
                    (false, true) => "inch",
                    (false, false) => "inches",
                });
                return Some(1);
            }
        }
        if !number(tok.core) || tok.pre.ends_with(['\'', '"']) || words(tok.core).is_empty() {
            return None;
        }
        let mixed = tok.core.contains('/')
            && (self.at.checked_sub(1).is_some_and(|i| self.toks[i].is_digits()))
            && self.prev().is_some();
        let words = |s: &str| if mixed { format!("and {}", words(s)) } else { words(s) };
        if tok.post.starts_with('\'') && !tok.post.starts_with("''") {
            if let Some(n) =
                self.next(self.at).filter(|n| tok.post == "'" && number(n.core) && inch(n))
            {
                self.inched = true;
                self.say(&format!("{} foot {}", words(tok.core), words(n.core)));
                return Some(2);
            }
            let one = tok.core == "1" || (tok.post == "'" && self.adjective(self.at, true));
            self.say(&words(tok.core));
            self.say(if one { "foot" } else { "feet" });
            return Some(1);
        }
        if inch(&tok) && !self.quoted {
            self.inched = !tok.post.starts_with("''");
            let one = tok.core == "1" || (tok.post.len() < 3 && self.adjective(self.at, true));
            self.say(&words(tok.core));
            self.say(if one { "inch" } else { "inches" });
            return Some(1);
        }
        // "a 2.5 in nail"
        let measured = tok.core.contains(['.', '/']) && self.adjective(self.at + 1, false);
        // "6 in. of snow", "10 in wide"
        let n = self
            .next(self.at)
            .filter(|n| tok.post.is_empty() && n.pre.is_empty() && n.core == "in")?;
        let after = self.next(self.at + 1);
        let sized = after.is_some_and(|t| {
            matches!(
                &*t.lower(),
                "wide" | "tall" | "long" | "high" | "deep" | "thick" | "x" | "by" | "of"
            )
        }) && (n.post == "." || after.is_some_and(|t| t.core != "of"));
        let feet = self.back(1).is_some_and(|t| matches!(t.core, "ft" | "feet" | "foot"));
        if !(n.post.starts_with('.') || sized || feet || measured)
            || (n.post.starts_with('.') && after.is_some_and(|t| t.starts_digit()))
        {
            return None;
        }
        let one =
            tok.core == "1" || measured || (n.post == "." && self.adjective(self.at + 1, true));
        self.say(&words(tok.core));
        self.say(if one { "inch" } else { "inches" });
        Some(2)
    }

    /// Whether the measure that ends in token `last` stands before a noun: "a 5 km run". Marks
    /// of feet and inches need no article.
    pub(super) fn adjective(&self, last: usize, mark: bool) -> bool {
        let article = self.prev().is_some_and(|p| {
            matches!(
                &*p.lower(),
                "a" | "an"
                    | "the"
                    | "this"
                    | "that"
                    | "each"
                    | "every"
                    | "another"
                    | "his"
                    | "her"
                    | "my"
                    | "our"
                    | "their"
                    | "your"
                    | "any"
                    | "one"
                    | "its"
                    | "new"
            )
        });
        let Some(post) = self.toks.get(last).map(|t| t.post) else { return false };
        (mark || (article && post.is_empty()))
            && self.next(last).is_some_and(|n| {
                n.pre.is_empty()
                    && n.core.len() > 1
                    && n.core.bytes().all(|b| {
                        b.is_ascii_lowercase() || b == b'-' || (mark && b.is_ascii_alphabetic())
                    })
                    && !tables::NOT_NOUNS.contains(&n.core)
            })
    }

    /// "1h 30m", "3m20s", "1d 4h", "2:00:35" as a length of time; the number of tokens used.
    fn duration(&mut self, tok: Tok<'a>) -> Option<usize> {
        let led = self.back(1).map(|t| t.lower()).unwrap_or_default();
        let led = led.as_str();
        if tok.core.matches(':').count() == 2 && !tok.core.contains('-') {
            let lasting = matches!(
                led,
                "in" | "for"
                    | "took"
                    | "of"
                    | "lasted"
                    | "ran"
                    | "time"
                    | "record"
                    | "takes"
                    | "runs"
                    | "about"
                    | "lasts"
                    | "under"
                    | "over"
                    | "within"
                    | "than"
                    | "is"
            );
            let time = parse_time(tok.core).filter(|t| lasting && t.half.is_none())?;
            if tok.core.starts_with('0') && led != "in" {
                return None;
            }
            let count = |n: u64, what: &str| {
                format!("{} {what}{}", cardinal(n), if n == 1 { "" } else { "s" })
            };
            if time.hour > 0 {
                self.say(&count(time.hour, "hour"));
            }
            if time.minute > 0 {
                self.say(&count(time.minute, "minute"));
            }
            if let Some(s) = time.second.filter(|s| *s > 0) {
                self.say(if time.hour + time.minute > 0 { "and" } else { "" });
                self.say(&count(s, "second"));
            }
            return Some(1);
        }
        // "in 45:30"
        if let Some((m, s)) = tok.core.split_once(':')
            && matches!(led, "in" | "took" | "time" | "ran" | "lasted")
            && all_digits(m)
            && all_digits(s)
            && m.len() == 2
            && s.len() == 2
            && let (Ok(m), Ok(s)) = (m.parse::<u64>(), s.parse::<u64>())
            && m > 24
            && s < 60
        {
            self.say(&format!("{} minutes and {} seconds", cardinal(m), cardinal(s)));
            return Some(1);
        }
        let mut all = spans(tok.core)?;
        let mut last = self.at;
        while let Some(next) = self.joined(last).and_then(|n| spans(n.core)) {
            // The parts grow smaller.
            let shrinks = all.last().zip(next.first()).is_some_and(|(a, b)| a.1 < b.1);
            if !shrinks || all.len() > 6 {
                break;
            }
            all.extend(next);
            last += 1;
        }
        let waits = matches!(
            led,
            "for"
                | "after"
                | "within"
                | "every"
                | "wait"
                | "took"
                | "takes"
                | "lasts"
                | "lasted"
                | "least"
                | "than"
        ) || self.joined(self.at).is_some_and(|n| {
            matches!(
                n.core,
                "delay"
                    | "timeout"
                    | "wait"
                    | "interval"
                    | "timer"
                    | "pause"
                    | "clip"
                    | "window"
                    | "limit"
            )
        });
        let seconds = all.len() == 1 && all[0].1 == 5 && waits;
        if all.len() < 2 && !seconds {
            return None;
        }
        for (n, rank) in all {
            let unit = ["year", "week", "day", "hour", "minute", "second", "millisecond"][rank];
            self.say(&n.words());
            self.say(unit);
            if !n.is_one()
                && let Some(p) = self.out.last_mut()
            {
                p.word.push('s');
            }
        }
        Some(last - self.at + 1)
    }

    /// Fractions, marks and parts of a whole; the number of tokens used.
    fn ratio(&mut self, tok: Tok<'a>) -> Option<usize> {
        let core = tok.core;
        // "1-1/2 cups"
        if let Some((whole, part)) = core.split_once('-')
            && all_digits(whole)
            && whole.len() < 4
            && let Some((n, d)) = quotient(part)
            && n < d
        {
            self.say(&format!("{} and {}", integer(whole), fraction(n, d)));
            return Some(1);
        }
        if let Some((a, b)) = core.split_once(['-', ':'])
            && a == b
            && matches!(a, "50" | "25" | "20" | "60")
            && (a == "50" || !core.contains(':'))
        {
            self.say(&format!("{0} {0}", integer(a)));
            return Some(1);
        }
        // "1/2-inch", "2/3rds"
        let (body, tail) = match core.find(|c: char| c.is_ascii_alphabetic() || "-%".contains(c)) {
            Some(at) => core.split_at(at),
            None => (core, ""),
        };
        let (n, d) = quotient(body)?;
        if !matches!(tail, "" | "%" | "rd" | "rds" | "th" | "ths" | "nd" | "nds")
            && !tail.starts_with('-')
        {
            return None;
        }
        let led = self.back(1).map(|t| t.lower()).unwrap_or_default();
        let led = led.as_str();
        let next = self.joined(self.at).map(|t| t.lower()).unwrap_or_default();
        let of = next == "of";
        let unit = units::attached(&next).is_some()
            || matches!(
                &*next,
                "inch" | "mile" | "cup" | "cups" | "teaspoon" | "tablespoon" | "pound" | "hour"
            )
            || !tail.is_empty();
        let dated = matches!(led, "on" | "by" | "since" | "until" | "till" | "due" | "dated")
            && (1..=12).contains(&n)
            && (1..=31).contains(&d)
            && tail.is_empty();
        if is_year(n) && is_year(d) {
            self.say(&format!("{} slash {}", year(n), year(d)));
        } else if is_year(n) && d < 100 && body.len() == 7 && d == (n + 1) % 100 {
            self.say(&format!("{} to {}", year(n), short_year(d)));
        } else if tables::COUNTED.contains(&led) && n <= d {
            self.say(&format!("{} of {}", integer(&n.to_string()), integer(&d.to_string())));
        } else if dated {
            self.say(&format!("{} {}", tables::MONTHS[n as usize - 1].1, ordinal(d)));
        } else if (d == 10
            || (matches!(d, 5 | 20 | 100) && tables::RATED.contains(&led) && d != 100)
            || (d == 100
                && matches!(led, "scored" | "score" | "got" | "rated" | "gets" | "scores")))
            && n <= d
            && !of
            && !unit
        {
            self.say(&format!("{} out of {}", cardinal(n), cardinal(d)));
        } else if tail.is_empty()
            && n >= 10
            && ((n == d && d <= 50) || (n + d == 100 && n % 5 == 0))
        {
            self.say(&format!("{} {}", cardinal(n), cardinal(d)));
        } else {
            if n < d && self.prev().is_some_and(Tok::is_digits) {
                self.say("and");
            }
            let words = if (of || unit) && d > 20 { parts(n, d) } else { fraction(n, d) };
            self.say(&words);
        }
        if let Some(rest) = tail.strip_prefix('-') {
            match units::attached(rest) {
                Some(unit) => self.say(&unit.one),
                None => self.runs(rest, false),
            }
        }
        if tail == "%" {
            self.say("percent");
        }
        if let Some(unit) =
            self.joined(self.at).filter(|_| tail.is_empty()).and_then(|t| units::detached(t.core))
        {
            self.say(if n <= d { &unit.one } else { &unit.many });
            return Some(2);
        }
        Some(1)
    }

    /// "100s of people", "the 1s and 0s".
    fn plurals(&mut self, tok: Tok<'a>) -> bool {
        let Some(n) = tok.core.strip_suffix('s').filter(|n| all_digits(n) && n.len() < 10) else {
            return false;
        };
        let of = self.joined(self.at).is_some_and(|t| t.core == "of");
        let words = match n {
            "10" if of => "tens".into(),
            "100" if of => "hundreds".into(),
            "1000" if of => "thousands".into(),
            "1000000" if of => "millions".into(),
            "0" => "zeros".into(),
            "1" if !of => "ones".into(),
            _ if of => plural(&integer(n)),
            _ => return false,
        };
        self.say(&words);
        true
    }
}

/// Each letter and digit by its name.
fn figures(s: &str) -> String {
    let names: Vec<String> = s
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| {
            if c.is_ascii_digit() {
                digits(c.encode_utf8(&mut [0; 4]))
            } else {
                c.to_ascii_lowercase().to_string()
            }
        })
        .collect();
    names.join(" ")
}

/// "123e4567": a number with an exponent is no hash.
fn exponent(s: &str) -> bool {
    s.split_once('e').is_some_and(|(a, b)| all_digits(a) && all_digits(b))
}

fn quotient(s: &str) -> Option<(u64, u64)> {
    let (n, d) = s.split_once('/')?;
    let fine = |p: &str| all_digits(p) && p.len() <= 4;
    (fine(n) && fine(d)).then(|| Some((n.parse().ok()?, d.parse().ok()?)))?
}

/// "1h30m": numbers with units of time, by rank from years down.
fn spans(s: &str) -> Option<Vec<(Number, usize)>> {
    const NAMES: [(&str, usize); 19] = [
        ("ms", 6),
        ("yrs", 0),
        ("yr", 0),
        ("y", 0),
        ("wks", 1),
        ("wk", 1),
        ("w", 1),
        ("days", 2),
        ("day", 2),
        ("d", 2),
        ("hrs", 3),
        ("hr", 3),
        ("h", 3),
        ("mins", 4),
        ("min", 4),
        ("m", 4),
        ("secs", 5),
        ("sec", 5),
        ("s", 5),
    ];
    if s.len() > 24 {
        return None;
    }
    let mut rest = s;
    let mut out: Vec<(Number, usize)> = Vec::new();
    while !rest.is_empty() {
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let n = Number::take(&mut rest)?;
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let rank = NAMES.iter().find(|u| u.0 == &rest[..end]).map(|u| u.1)?;
        if out.last().is_some_and(|l| l.1 >= rank) {
            return None;
        }
        out.push((n, rank));
        rest = &rest[end..];
    }
    (!out.is_empty()).then_some(out)
}
