//! Words, initialisms, Roman numerals, addresses and whatever else has letters.

use super::letters::{is_vowel, pronounceable, spell};
use super::numbers::{self, Number, cardinal, digits, integer, is_year, ordinal, year};
use super::read::{Mark, Reader};
use super::tables;
use super::tokens::{LONG, Tok, lookup, sounds};
use super::units;

impl<'a> Reader<'a> {
    /// A Roman numeral, where it is one: after a ruler's name, after a numbered thing, before a
    /// century, or because it can be nothing else.
    pub(super) fn roman(&mut self, tok: Tok<'a>) -> bool {
        let (core, tail) = match tok.core.strip_suffix("'s") {
            Some(stem) => (stem, "'s"),
            None => (tok.core, ""),
        };
        let (core, ordinal_tail) = match core.strip_suffix("th") {
            Some(stem) if stem.len() > 1 => (stem, true),
            _ => (core, false),
        };
        let low = core.len() > 1 && core.bytes().all(|b| matches!(b, b'i' | b'v' | b'x'));
        let upper = core.to_ascii_uppercase();
        if !low && !core.bytes().all(|b| b.is_ascii_uppercase()) {
            return false;
        }
        let Some(n) = numbers::roman(&upper) else { return false };
        // An abbreviation's stop may stand between: "Vol. II".
        let before = self
            .at
            .checked_sub(1)
            .filter(|_| tok.pre.is_empty() && !self.toks[self.at].para)
            .map(|i| self.toks[i]);
        let prev = before.filter(|t| t.post.is_empty());
        let name = before.map(|t| t.lower()).unwrap_or_default();
        let numbered = before.is_some_and(|t| t.post.is_empty() || t.post == ".")
            && tables::NUMBERED.contains(&name.as_str());
        let next = self.next(self.at).filter(|_| tok.post.is_empty());
        let capital = prev.is_some_and(|p| p.starts_upper());
        if low {
            let listed = tok.pre == "(" && tok.post.starts_with(')');
            if listed || numbered {
                self.say(&cardinal(n));
                return true;
            }
            return false;
        }
        let small = core.bytes().all(|b| matches!(b, b'I' | b'V' | b'X'));
        let ordered = next.is_some_and(|t| {
            matches!(
                &*t.lower(),
                "century"
                    | "centuries"
                    | "dynasty"
                    | "olympiad"
                    | "congress"
                    | "amendment"
                    | "legion"
            )
        });
        let words = if ordinal_tail || (ordered && (small || core.len() > 3)) {
            ordinal(n)
        } else if capital && small && self.rules(core, &name) {
            format!("the {}", ordinal(n))
        } else if numbered
            && (core != "I"
                || before.is_some_and(|t| t.post == ".")
                || (capital
                    && (tables::PARTS.contains(&name.as_str())
                        || !next.is_some_and(Tok::starts_lower))))
        {
            cardinal(n)
        } else if small && core.len() > 1 {
            let common = matches!(core, "IV" | "VI" | "XI" | "XX" | "XV");
            let named = capital && !tables::OPENERS.contains(&name.as_str());
            if (common || core == "XXX") && !named {
                return false;
            }
            cardinal(n)
        } else if core.len() > 3 && !matches!(core, "CIVIL" | "MIXX") {
            // Years on buildings and in credits.
            if is_year(n) { year(n) } else { cardinal(n) }
        } else {
            return false;
        };
        self.say(&format!("{words}{tail}"));
        true
    }

    /// Whether the numeral after `name`, the token before, counts rulers.
    fn rules(&self, numeral: &str, name: &str) -> bool {
        let at = |back: usize| {
            let i = self.at.checked_sub(back)?;
            (!self.toks[i + 1].para && (back == 1 || self.toks[i].post.is_empty()))
                .then(|| &self.toks[i])
        };
        let crowned = |t: &Tok<'_>| {
            t.starts_upper()
                && matches!(
                    &*t.lower(),
                    "king"
                        | "queen"
                        | "pope"
                        | "emperor"
                        | "empress"
                        | "tsar"
                        | "czar"
                        | "prince"
                        | "kaiser"
                )
        };
        let regnal = |n: &str| tables::REGNAL.contains(&n) && !(n == "malcolm" && numeral == "X");
        let before = at(2);
        if numeral != "I" {
            // "Pope Linus II", "William Gates III".
            return regnal(name)
                || before.is_some_and(|t| crowned(t) || (t.starts_upper() && regnal(&t.lower())));
        }
        if !regnal(name) && !before.is_some_and(crowned) {
            return false;
        }
        let tok = self.toks[self.at];
        if tok.core.ends_with("'s") {
            return true;
        }
        // "I told Charles I won" has a speaker, "Charles I lost" has not.
        let led = match before {
            None => true,
            Some(t) => {
                crowned(t)
                    || (t.starts_upper() && regnal(&t.lower()))
                    || matches!(
                        &*t.lower(),
                        "of" | "by" | "under" | "and" | "when" | "after" | "before"
                    )
            }
        };
        let verb = self.next(self.at).filter(|_| tok.post.is_empty()).map(Tok::lower);
        led && !verb.is_some_and(|v| {
            matches!(
                &*v,
                "am" | "think"
                    | "know"
                    | "have"
                    | "guess"
                    | "mean"
                    | "believe"
                    | "do"
                    | "don't"
                    | "can"
                    | "can't"
                    | "would"
                    | "want"
                    | "need"
                    | "love"
                    | "like"
                    | "hope"
                    | "suppose"
                    | "say"
                    | "met"
                    | "knew"
                    | "thought"
                    | "saw"
                    | "see"
                    | "will"
            )
        })
    }

    /// Anything, run by run: letters as words, digits as numbers, symbols by name.
    pub(super) fn runs(&mut self, s: &str, address: bool) {
        let mut rest = s;
        let mut prev = ' ';
        while let Some(c) = rest.chars().next() {
            if c.is_ascii_alphabetic() {
                let mut end = 0;
                let bytes = rest.as_bytes();
                while end < bytes.len()
                    && (bytes[end].is_ascii_alphabetic()
                        || (bytes[end] == b'\''
                            && bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic)))
                {
                    end += 1;
                }
                // "SO4", "NO2": no words.
                let figure =
                    prev.is_ascii_digit() || bytes.get(end).is_some_and(u8::is_ascii_digit);
                let run = &rest[..end];
                if figure
                    && (2..4).contains(&end)
                    && run.bytes().all(|b| b.is_ascii_uppercase())
                    && lookup(tables::READ, run).is_none()
                {
                    self.say(&spell(run));
                } else {
                    self.word(run);
                }
                prev = char::from(bytes[end - 1]);
                rest = &rest[end..];
                continue;
            }
            if c.is_ascii_digit() {
                let mut tail = rest;
                let words = if address {
                    let end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
                    tail = &rest[end..];
                    if end > 4 { digits(&rest[..end]) } else { integer(&rest[..end]) }
                } else {
                    Number::take(&mut tail)
                        .map(|n| {
                            match n.year().filter(|_| prev == '-' || prev.is_ascii_alphabetic()) {
                                Some(y) => year(y),
                                None => n.words(),
                            }
                        })
                        .unwrap_or_default()
                };
                if tail.len() == rest.len() {
                    tail = &rest[1..];
                }
                self.say(&words);
                prev = '0';
                rest = tail;
                continue;
            }
            let after = &rest[c.len_utf8()..];
            let run = rest.chars().take_while(|r| *r == c).count();
            if run > 2 {
                // A line of the same symbol is decoration.
                self.comma();
                rest = &rest[run * c.len_utf8()..];
                prev = ' ';
                continue;
            }
            if let Some((pair, name)) =
                tables::PAIRS.iter().find(|(pair, _)| !address && rest.starts_with(pair))
            {
                self.say(name);
                prev = ' ';
                rest = &rest[pair.len()..];
                continue;
            }
            let next = after.chars().next().unwrap_or(' ');
            let right = sounds(next);
            match c {
                '-' if address => self.say("dash"),
                '-' | '—' => {}
                '.' => {
                    let sentence = !address
                        && prev.is_ascii_lowercase()
                        && next.is_ascii_uppercase()
                        && after.chars().nth(1).is_some_and(|n| n.is_ascii_lowercase() || n == ' ');
                    if sentence {
                        self.end(Mark::Stop);
                    } else if prev.is_ascii_digit() && next.is_ascii_digit() {
                        self.say("point");
                    } else if right || address {
                        self.say("dot");
                    } else {
                        self.comma();
                    }
                }
                ':' if address && next.is_ascii_digit() => self.say("colon"),
                '?' if address => self.say("question mark"),
                ',' | ';' | ':' => self.comma(),
                '?' => self.end(Mark::Question),
                '!' => self.end(Mark::Exclamation),
                '\'' if prev.is_ascii_digit()
                    && next == 's'
                    && !after[1..].starts_with(|c: char| c.is_ascii_alphanumeric()) =>
                {
                    self.possess();
                    prev = 's';
                    rest = &after[1..];
                    continue;
                }
                '(' | ')' | '[' | ']' | '{' | '}' | '"' | '\'' => {}
                '*' if prev.is_ascii_digit() && sounds(next) => self.say("times"),
                '#' if next.is_ascii_digit() => self.say("number"),
                '#' if next.is_ascii_alphabetic() => self.say("hashtag"),
                '^' if after == "2" => {
                    self.say("squared");
                    return;
                }
                '^' if after == "3" => {
                    self.say("cubed");
                    return;
                }
                '^' if next.is_ascii_digit() => self.say("to the power of"),
                '^' if next == '-' => {
                    self.say("to the power of minus");
                    prev = '^';
                    rest = &after[1..];
                    continue;
                }
                '$' if next.is_ascii_alphabetic() || next == '{' => self.say("dollar"),
                _ => {
                    if let Some(name) = tables::symbol(c) {
                        self.say(name);
                    }
                }
            }
            prev = c;
            rest = after;
        }
    }

    /// A run of letters, apostrophes inside.
    pub(super) fn word(&mut self, w: &str) {
        let lower = w.to_ascii_lowercase();
        if w.len() == 1 || w.len() > LONG {
            self.say(&lower);
            // The words "a" and "I".
            if matches!(w, "a" | "A" | "I" | "i") {
                let letter = self.lettered(w);
                if let Some(p) = self.out.last_mut() {
                    p.letter = letter;
                }
            }
            return;
        }
        if w.bytes().all(|b| b.is_ascii_lowercase() || b == b'\'') {
            let (stem, tail) = match w.strip_suffix("'s").or(w.strip_suffix('s')) {
                Some(stem) if stem.len() > 1 && !matches!(stem, "ide" | "u") => (stem, "'s"),
                _ => (w, ""),
            };
            if w.len() <= 7 {
                if tables::LOWER_SPELT.contains(&w) {
                    return self.say(&spell(w));
                }
                if !tail.is_empty() && tables::LOWER_SPELT.contains(&stem) {
                    return self.say(&format!("{}{tail}", spell(stem)));
                }
            }
            if w.bytes().any(is_vowel) {
                return self.say(&lower);
            }
        }
        let (stem, tail) = if let Some(stem) = w.strip_suffix("'s").or(w.strip_suffix("'S")) {
            (stem, "'s")
        } else if let Some(stem) = w.strip_suffix('s')
            && stem.len() > 1
            && stem.bytes().all(|b| b.is_ascii_uppercase())
        {
            (stem, "'s")
        } else {
            (w, "")
        };
        if let Some(read) = lookup(tables::READ, stem) {
            let plural = if tail.is_empty() {
                ""
            } else if w.contains('\'') {
                "'s"
            } else {
                "s"
            };
            return self.say(&format!("{read}{plural}"));
        }
        let stem_lower = stem.to_ascii_lowercase();
        let vowels = stem_lower.bytes().any(is_vowel);
        if !vowels {
            if stem.len() < 2
                || stem.contains('\'')
                || (tables::VOWELLESS.contains(&stem_lower.as_str()) && stem != "PST")
            {
                return self.say(&lower);
            }
            return self.say(&format!("{}{tail}", spell(stem)));
        }
        // "Api" at the start of a sentence.
        if tables::LOWER_SPELT.contains(&lower.as_str())
            && w[1..].bytes().all(|b| b.is_ascii_lowercase())
            && !matches!(w, "Io" | "Ai" | "Ide" | "Eta" | "Soc" | "Imo" | "Sla")
        {
            return self.say(&spell(w));
        }
        // "IPv", "NVMe": capitals and one letter more.
        if stem.len() > 2
            && stem[..stem.len() - 1].bytes().all(|b| b.is_ascii_uppercase())
            && stem.ends_with(|c: char| c.is_ascii_lowercase())
        {
            return self.say(&format!("{}{tail}", spell(stem)));
        }
        if stem.len() > 1 && stem.bytes().all(|b| b.is_ascii_uppercase()) {
            if self.spelt(stem, &stem_lower) {
                return self.say(&format!("{}{tail}", spell(stem)));
            }
            let plural = if w.len() > stem.len() && !w.contains('\'') { "s" } else { tail };
            return self.say(&format!("{stem_lower}{plural}"));
        }
        // "OpenAI", "GitHub", but not "McDonald".
        let hump = w
            .as_bytes()
            .windows(2)
            .position(|p| p[0].is_ascii_lowercase() && p[1].is_ascii_uppercase());
        if let Some(at) = hump
            && (!matches!(&lower[..=at], "mc" | "mac" | "o")
                || w[at + 1..].trim_end_matches("'s").bytes().all(|b| b.is_ascii_uppercase()))
        {
            self.word(&w[..=at]);
            return self.word(&w[at + 1..]);
        }
        self.say(&lower);
    }

    /// Adds the possessive to the last word.
    pub(super) fn possess(&mut self) {
        if let Some(p) = self.out.last_mut() {
            p.word.push_str("'s");
        }
    }

    /// Words around slashes that are alternatives: the slash is not said. Paths keep theirs.
    pub(super) fn alternatives(&mut self, core: &str) -> bool {
        const FOLDERS: &[&str] = &[
            "src", "usr", "bin", "etc", "lib", "home", "var", "tmp", "opt", "dev", "docs", "tests",
            "mnt",
        ];
        if !core.contains('/') || core.len() > 60 {
            return false;
        }
        let letters = core.split('/').all(|p| p.len() == 1 && p.as_bytes()[0].is_ascii_uppercase());
        if let Some(unit) = units::unit(core).filter(|_| !letters) {
            self.say(&unit.many);
            return true;
        }
        let fine = |p: &str| {
            p.len() > 1
                && !p.starts_with('-')
                && p.starts_with(|c: char| c.is_ascii_alphabetic())
                && p.bytes().all(|b| {
                    b.is_ascii_alphabetic()
                        || matches!(b, b'\'' | b'-')
                        || (b.is_ascii_digit() && p.len() > 2)
                })
        };
        if !core.split('/').all(fine) || core.split('/').any(|p| FOLDERS.contains(&p)) {
            return false;
        }
        for part in core.split('/') {
            let lower = part.to_ascii_lowercase();
            let upper = part.starts_with(|c: char| c.is_ascii_uppercase());
            let day = tables::DAYS.iter().find(|d| d.0 == lower).map(|d| d.1);
            match day.or_else(|| lookup(tables::MONTHS, &lower)).filter(|_| upper) {
                Some(name) => self.say(name),
                None => self.runs(part, false),
            }
        }
        true
    }

    /// "Ctrl+C", "Cmd-Shift-P": keys that are pressed together.
    pub(super) fn keys(&mut self, core: &str) -> bool {
        let plus = core.contains('+');
        let mut parts = core.split(['+', '-']).filter(|p| !p.is_empty());
        let Some(first) = parts.next().filter(|_| core.len() < 40) else { return false };
        let key = |p: &str| lookup(tables::KEYS, &p.to_ascii_lowercase());
        let Some(name) = key(first) else { return false };
        if core.len() == first.len()
            || !(plus || matches!(&*first.to_ascii_lowercase(), "ctrl" | "cmd" | "alt" | "ctl"))
        {
            return false;
        }
        self.say(name);
        for part in parts {
            match key(part) {
                Some(name) => self.say(name),
                None => self.runs(part, false),
            }
        }
        true
    }

    /// Whether a lone "A" or "I" is the letter: "vitamin A", "A4", "A/B".
    fn lettered(&self, w: &str) -> bool {
        let tok = self.toks[self.at];
        let inside = tok.core.len() > 1 && !tok.core.starts_with("I'");
        let named = w == "A"
            && self.prev().is_some_and(|p| {
                matches!(
                    &*p.lower(),
                    "vitamin"
                        | "plan"
                        | "grade"
                        | "type"
                        | "hepatitis"
                        | "class"
                        | "side"
                        | "level"
                        | "section"
                        | "team"
                        | "group"
                        | "apartment"
                        | "option"
                        | "exhibit"
                        | "appendix"
                        | "point"
                        | "letter"
                        | "an"
                        | "straight"
                )
            });
        inside || named
    }

    /// Whether capitals are spelt.
    pub(super) fn spelt(&self, caps: &str, lower: &str) -> bool {
        let known = tables::SPELT.contains(&caps);
        let common = tables::SHORT_WORDS.contains(&lower);
        let loud = |t: Option<&Tok<'_>>| {
            t.is_some_and(|t| t.is_caps() && !tables::SPELT.contains(&t.core))
        };
        let before = self.at.checked_sub(1).and_then(|i| self.toks.get(i));
        let shouted = loud(before) || loud(self.toks.get(self.at + 1));
        if known {
            let word_too = matches!(caps, "US" | "IT" | "WHO" | "AM" | "ID");
            return !(shouted && word_too);
        }
        if common {
            return false;
        }
        if shouted || caps.len() > 3 {
            return !pronounceable(lower);
        }
        true
    }
}
