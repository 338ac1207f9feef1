//! Words, initialisms, Roman numerals, addresses and whatever else has letters.

use super::numbers::{self, Number, cardinal, digits, integer, ordinal, year};
use super::read::{Mark, Reader};
use super::tables;
use super::tokens::{LONG, Tok, lookup, sounds};

impl<'a> Reader<'a> {
    /// A Roman numeral after a ruler's name or a numbered thing.
    pub(super) fn roman(&mut self, tok: Tok<'a>) -> bool {
        let (core, tail) = match tok.core.strip_suffix("'s") {
            Some(stem) => (stem, "'s"),
            None => (tok.core, ""),
        };
        let Some(n) = numbers::roman(core) else { return false };
        let Some(prev) = self.prev().filter(|p| p.starts_upper()) else { return false };
        let name = prev.lower();
        let words = if tables::REGNAL.contains(&name.as_str()) && core != "I" {
            format!("the {}", ordinal(n))
        } else if tables::NUMBERED.contains(&name.as_str()) {
            cardinal(n)
        } else {
            return false;
        };
        self.say(&format!("{words}{tail}"));
        true
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
                self.word(&rest[..end]);
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
                        .map(|n| match n.year().filter(|_| prev == '-') {
                            Some(y) => year(y),
                            None => n.words(),
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
                '-' if prev.is_ascii_digit() && next.is_ascii_digit() => self.say("to"),
                '-' | '—' => {}
                '.' => {
                    let sentence = !address
                        && prev.is_ascii_lowercase()
                        && next.is_ascii_uppercase()
                        && after.chars().nth(1).is_some_and(|n| n.is_ascii_lowercase() || n == ' ');
                    if sentence {
                        self.end(Mark::Stop);
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
                '(' | ')' | '[' | ']' | '{' | '}' | '"' | '\'' => {}
                '*' if prev.is_ascii_digit() && sounds(next) => self.say("times"),
                '#' if next.is_ascii_digit() => self.say("number"),
                '#' if next.is_ascii_alphabetic() => self.say("hashtag"),
                '^' if next.is_ascii_digit() => self.say("to the power of"),
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
        if w.len() == 1
            || w.len() > LONG
            || (w.bytes().any(is_vowel) && w.bytes().all(|b| b.is_ascii_lowercase()))
        {
            return self.say(&lower);
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
                || tables::VOWELLESS.contains(&stem_lower.as_str())
            {
                return self.say(&lower);
            }
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
            && !matches!(&lower[..=at], "mc" | "mac" | "o")
        {
            self.word(&w[..=at]);
            return self.word(&w[at + 1..]);
        }
        self.say(&lower);
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

pub(super) fn is_vowel(b: u8) -> bool {
    matches!(b, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

pub(super) fn spell(w: &str) -> String {
    let mut out = String::with_capacity(2 * w.len());
    for c in w.chars().filter(char::is_ascii_alphabetic) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Whether capitals can be read as a word at all.
pub(super) fn pronounceable(lower: &str) -> bool {
    const ONSETS: &str = " bl br ch cl cr dr dw fl fr gl gr kn ph pl pr sc sh sk sl sm sn sp sq st sw th tr tw wh wr sch scr shr spl spr str thr chr ";
    const CODAS: &str = " ck ct ft ld lf lk ll lm lp ls lt mb mp ms nc nd ng nk ns nt ph ps pt rb rc rd rf rg rk rl rm rn rp rs rt sh sk sm sp ss st th ts ch ff gh zz tch nch rst rth nds nts cks rld ght nth ngs rts wn wl ws wk ";
    let b = lower.as_bytes();
    let Some(first) = b.iter().position(|c| is_vowel(*c)) else { return false };
    let last = b.iter().rposition(|c| is_vowel(*c)).unwrap_or(first);
    let within = |list: &str, part: &str| part.len() < 2 || list.contains(&format!(" {part} "));
    let (mut run, mut vowels) = (0, 0);
    for c in &b[first..=last] {
        if is_vowel(*c) {
            run = 0;
            vowels += 1;
        } else {
            run += 1;
            vowels = 0;
        }
        if run > 3 || vowels > 3 {
            return false;
        }
    }
    let coda = &lower[last + 1..];
    within(ONSETS, &lower[..first])
        && (within(CODAS, coda) || coda.strip_suffix('s').is_some_and(|c| within(CODAS, c)))
}

/// "U.S.A", "e.g", "Ph.D": letters between full stops.
pub(super) fn dotted(core: &str) -> Option<String> {
    let mut parts = core.split('.');
    let fine = |p: &str| {
        (1..=2).contains(&p.len())
            && p.bytes().all(|b| b.is_ascii_alphabetic())
            && (p.len() == 1 || p.as_bytes()[1].is_ascii_lowercase())
    };
    (core.contains('.') && parts.all(fine) && core.split('.').any(|p| p.len() == 1))
        .then(|| spell(core))
}

/// Web and mail addresses, without the scheme.
pub(super) fn address(core: &str) -> Option<&str> {
    if let Some((scheme, rest)) = core.split_once("://")
        && !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
        && rest.contains(sounds)
    {
        return Some(rest.strip_suffix('/').unwrap_or(rest));
    }
    let start = core.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("www."));
    let mail = core
        .split_once('@')
        .is_some_and(|(who, at)| !who.is_empty() && at.contains('.') && !at.starts_with('.'));
    (start || mail).then_some(core.strip_suffix('/').unwrap_or(core))
}
