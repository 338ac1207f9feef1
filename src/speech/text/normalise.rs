//! From any text to words and pauses.
//!
//! Three passes, each linear: `fold` brings every character to ASCII and a few symbols,
//! `tokens` cuts at white space and peels punctuation off, `Speaker` says one token after
//! the other, looking at the neighbours where the reading depends on them.

use super::numbers::{self, cardinal, digits, fraction, integer, is_year, ordinal, plural, year};
use super::tables::{self, Fold, Stop};
use super::{Replacement, Report, Unspeakable};

/// The punctuation after a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    None,
    Comma,
    Stop,
    Question,
    Exclamation,
}

impl Mark {
    pub(super) fn ends_sentence(self) -> bool {
        !matches!(self, Mark::None | Mark::Comma)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Mark::None => "",
            Mark::Comma => ",",
            Mark::Stop => ".",
            Mark::Question => "?",
            Mark::Exclamation => "!",
        }
    }
}

/// A word over `[a-z']` and the punctuation after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub word: String,
    pub after: Mark,
}

/// Tokens longer than this are not looked at by the rules that read a token as a whole; it
/// keeps every rule linear in the text.
const LONG: usize = 200;

/// Normalises a text; `base` is its position in the whole input, for the report.
pub(super) fn normalise(text: &str, base: usize, report: &mut Report) -> Vec<Piece> {
    let folded = fold(text, base, report);
    let toks = tokens(&folded);
    let mut speaker = Speaker { toks: &toks, out: Vec::new(), at: 0 };
    speaker.run(report);
    speaker.out
}

// ------------------------------------------------------------------------------------ fold

fn fold(text: &str, base: usize, report: &mut Report) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut chars = text.char_indices().peekable();
    let mut unspeakable_end = usize::MAX;
    while let Some((at, c)) = chars.next() {
        let mut refuse = |report: &mut Report, out: &mut String| {
            let here = base + at;
            match report.unspeakable.last_mut() {
                Some(last) if unspeakable_end == here => last.text.push(c),
                _ => report.unspeakable.push(Unspeakable { text: c.to_string(), position: here }),
            }
            unspeakable_end = here + c.len_utf8();
            out.push(' ');
        };
        match c {
            '\n' => out.push('\n'),
            '\r' => {
                if chars.peek().is_none_or(|(_, n)| *n != '\n') {
                    out.push('\n');
                }
            }
            '\t' => out.push(' '),
            '\u{b}' | '\u{c}' => out.push('\n'),
            '`' => out.push('"'),
            '-' => {
                let mut run = 1;
                while chars.next_if(|(_, n)| *n == '-').is_some() {
                    run += 1;
                }
                out.push_str(if run == 1 { "-" } else { " — " });
            }
            ' '..='~' => out.push(c),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' => {
                refuse(report, &mut out);
            }
            '\u{ff01}'..='\u{ff5e}' if matches!(tables::fold(c), Fold::No) => {
                out.push(char::from_u32(c as u32 - 0xff01 + 0x21).unwrap_or(' '));
            }
            '\u{1f1e6}'..='\u{1f1ff}' => {
                let letter = char::from(b'a' + (c as u32 - 0x1f1e6) as u8);
                report
                    .replaced
                    .push(Replacement { original: c.to_string(), spoken: letter.to_string() });
                out.extend([' ', letter, ' ']);
            }
            _ => match tables::fold(c) {
                Fold::As("—") => {
                    let range = c == '–'
                        && out.ends_with(|p: char| p.is_ascii_digit())
                        && chars.peek().is_some_and(|(_, n)| {
                            n.is_ascii_digit() || matches!(n, '$' | '£' | '€')
                        });
                    out.push_str(if range { "-" } else { " — " });
                }
                Fold::As(same) => out.push_str(same),
                Fold::Keep => out.push(c),
                Fold::Say(words) => {
                    report
                        .replaced
                        .push(Replacement { original: c.to_string(), spoken: words.to_string() });
                    out.push(' ');
                    out.push_str(words);
                    out.push(' ');
                }
                Fold::Nothing => {}
                Fold::Removed => report
                    .replaced
                    .push(Replacement { original: c.to_string(), spoken: String::new() }),
                Fold::No => refuse(report, &mut out),
            },
        }
    }
    out
}

// ---------------------------------------------------------------------------------- tokens

#[derive(Debug, Clone, Copy)]
struct Tok<'a> {
    raw: &'a str,
    /// Opening punctuation.
    pre: &'a str,
    /// The part that is said; empty if the token is punctuation or a lone symbol.
    core: &'a str,
    /// Closing punctuation.
    post: &'a str,
    /// A paragraph or list item begins here.
    para: bool,
}

fn tokens(folded: &str) -> Vec<Tok<'_>> {
    let mut out = Vec::new();
    let mut para = true;
    for line in folded.split('\n') {
        let mut words = line.split(' ').filter(|w| !w.is_empty()).peekable();
        if words.peek().is_none() {
            para = true;
            continue;
        }
        let bullet = words.next_if(|w| {
            matches!(*w, "-" | "*" | "+" | "—") || w.bytes().all(|b| matches!(b, b'#' | b'>'))
        });
        // A list item or a heading begins a paragraph of its own, but a line of running text
        // may well begin with a dash.
        if bullet.is_some_and(|b| b != "—") || words.peek().is_some_and(|w| numbered(w)) {
            para = true;
        }
        for raw in words {
            out.push(token(raw, para));
            para = false;
        }
    }
    out
}

/// "1." or "2)" at the start of a line.
fn numbered(w: &str) -> bool {
    w.len() <= 3
        && w.strip_suffix(['.', ')'])
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn sounds(c: char) -> bool {
    c.is_ascii_alphanumeric() || (!c.is_ascii() && c != '—')
}

fn token(raw: &str, para: bool) -> Tok<'_> {
    if !raw.contains(sounds) {
        return Tok { raw, pre: "", core: "", post: raw, para };
    }
    let angled = raw.contains('<') && raw.contains('>');
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let next = after.chars().next();
        let peel = match c {
            '(' | '[' | '{' | '"' | '\'' | ',' | ';' | ':' | '!' | '?' | '—' => true,
            '.' => !next.is_some_and(|n| n.is_ascii_digit()),
            '<' => angled || next.is_some_and(|n| n.is_ascii_alphabetic()),
            '*' | '_' | '~' | '|' => {
                next.is_some_and(|n| n.is_ascii_alphabetic() || n == c || n == '"')
            }
            '-' | '/' | '\\' | '>' => next.is_some_and(|n| n == c),
            _ => false,
        };
        if !peel {
            break;
        }
        rest = after;
    }
    let pre = &raw[..raw.len() - rest.len()];
    let mut core = rest;
    while let Some(c) = core.chars().next_back() {
        let before = &core[..core.len() - c.len_utf8()];
        let prev = before.chars().next_back();
        let peel = match c {
            ')' | ']' | '}' | '"' | '\'' | ',' | ';' | ':' | '.' | '!' | '?' | '—' => true,
            '>' => {
                angled || prev.is_some_and(|p| p.is_ascii_alphabetic() || matches!(p, '.' | '"'))
            }
            '*' | '_' | '~' | '|' => prev.is_some_and(|p| {
                p.is_ascii_alphabetic() || p == c || matches!(p, '.' | '!' | '?' | ',' | '"')
            }),
            '-' => true,
            _ => false,
        };
        if !peel {
            break;
        }
        core = before;
    }
    let post = &rest[core.len()..];
    Tok { raw, pre, core, post, para }
}

impl<'a> Tok<'a> {
    fn starts_upper(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_uppercase())
    }
    fn starts_lower(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_lowercase())
    }
    fn starts_digit(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_digit())
    }
    fn lower(&self) -> String {
        self.core.to_ascii_lowercase()
    }
    fn is_digits(&self) -> bool {
        all_digits(self.core)
    }
    fn is_caps(&self) -> bool {
        self.core.len() > 1
            && self.core.len() < LONG
            && self.core.bytes().all(|b| b.is_ascii_uppercase() || b == b'\'')
    }
}

fn all_digits(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())
}

fn lookup<'t>(table: &[(&str, &'t str)], key: &str) -> Option<&'t str> {
    table.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

// ----------------------------------------------------------------------------------- speak

struct Speaker<'a> {
    toks: &'a [Tok<'a>],
    out: Vec<Piece>,
    /// The token being said.
    at: usize,
}

/// What was done with a token.
struct Said {
    /// Tokens consumed.
    used: usize,
    /// The full stop belongs to an abbreviation.
    stop: Option<Stop>,
}

const ONE: Said = Said { used: 1, stop: None };

fn used(used: usize) -> Said {
    Said { used, stop: None }
}

impl<'a> Speaker<'a> {
    fn run(&mut self, report: &mut Report) {
        while let Some(tok) = self.toks.get(self.at).copied() {
            if tok.para {
                self.end(Mark::Stop);
            }
            for c in tok.pre.chars() {
                match c {
                    '(' | '[' | '{' | ',' | ';' | ':' | '—' => self.comma(),
                    '!' => self.end(Mark::Exclamation),
                    '?' => self.end(Mark::Question),
                    _ => {}
                }
            }
            if tok.pre.contains("..") {
                self.comma();
            }
            let first = self.out.len();
            let said = if tok.core.is_empty() { self.symbols(tok) } else { self.token(tok) };
            let last = self.at + said.used - 1;
            self.note(first, last, report);
            if !tok.core.is_empty() {
                self.close(last, said.stop);
            }
            self.at = last + 1;
        }
        self.end(Mark::Stop);
    }

    /// Adds a line to the report if more was done than to take the letters as they are.
    fn note(&self, first: usize, last: usize, report: &mut Report) {
        let spoken = &self.out[first.min(self.out.len())..];
        let tok = self.toks[self.at];
        if last == self.at && !tok.core.is_empty() {
            let mut trivial =
                tok.core.split('-').filter(|w| !w.is_empty()).map(str::to_ascii_lowercase);
            if spoken.iter().all(|p| trivial.next().is_some_and(|w| w == p.word))
                && trivial.next().is_none()
            {
                return;
            }
        }
        if spoken.is_empty() {
            return;
        }
        let original: Vec<&str> = self.toks[self.at..=last].iter().map(|t| t.raw).collect();
        let spoken: Vec<&str> = spoken.iter().map(|p| p.word.as_str()).collect();
        report
            .replaced
            .push(Replacement { original: original.join(" "), spoken: spoken.join(" ") });
    }

    fn say(&mut self, words: &str) {
        for w in words.split(' ').filter(|w| !w.is_empty()) {
            self.out.push(Piece { word: w.to_string(), after: Mark::None });
        }
    }

    fn comma(&mut self) {
        if let Some(p) = self.out.last_mut()
            && p.after == Mark::None
        {
            p.after = Mark::Comma;
        }
    }

    fn end(&mut self, mark: Mark) {
        if let Some(p) = self.out.last_mut()
            && (!p.after.ends_sentence() || (p.after == Mark::Stop && mark != Mark::Stop))
        {
            p.after = mark;
        }
    }

    fn next(&self, from: usize) -> Option<&'a Tok<'a>> {
        self.toks.get(from + 1).filter(|t| !t.para)
    }

    /// The next token, if nothing stands between it and this one.
    fn joined(&self, from: usize) -> Option<&'a Tok<'a>> {
        self.next(from).filter(|t| self.toks[from].post.is_empty() && t.pre.is_empty())
    }

    fn prev(&self) -> Option<&'a Tok<'a>> {
        let t = self.toks.get(self.at.checked_sub(1)?)?;
        (t.post.is_empty() && !self.toks[self.at].para).then_some(t)
    }

    /// The punctuation after token `last`.
    fn close(&mut self, last: usize, stop: Option<Stop>) {
        let tok = self.toks[last];
        let post = tok.post;
        if post.is_empty() {
            return;
        }
        let next = self.next(last);
        if post.contains('?') {
            return self.end(Mark::Question);
        }
        if post.contains('!') {
            return self.end(Mark::Exclamation);
        }
        let ends = match (post.bytes().filter(|b| *b == b'.').count(), stop) {
            (0, _) => false,
            (1, _) if post.contains(',') => false,
            (1, Some(Stop::Never)) => next.is_none(),
            (1, Some(Stop::Capital)) => next.is_none_or(Tok::starts_upper),
            (1, Some(Stop::Opener)) => next
                .is_none_or(|n| n.starts_upper() && tables::OPENERS.contains(&n.lower().as_str())),
            (1, None) => {
                if tok.para && last == self.at && numbered(&tok.raw[tok.pre.len()..]) {
                    return self.comma();
                }
                true
            }
            (_, _) => {
                if next.is_some_and(Tok::starts_lower) {
                    return self.comma();
                }
                true
            }
        };
        if ends {
            self.end(Mark::Stop);
        } else if post.contains([',', ';', ':', ')', ']', '}', '—', '-']) {
            self.comma();
        }
    }

    /// A token without letters or digits.
    fn symbols(&mut self, tok: Tok<'_>) -> Said {
        let between_numbers =
            self.prev().is_some_and(|t| t.core.ends_with(|c: char| c.is_ascii_digit()))
                && self.next(self.at).is_some_and(Tok::starts_digit);
        let name = match tok.raw {
            "—" => {
                self.comma();
                return ONE;
            }
            "-" => {
                if between_numbers {
                    self.say("minus");
                } else {
                    self.comma();
                }
                return ONE;
            }
            "*" if between_numbers => "times",
            "/" if between_numbers => "divided by",
            pair => lookup(tables::PAIRS, pair).unwrap_or(""),
        };
        if !name.is_empty() {
            self.say(name);
            return ONE;
        }
        // One symbol in punctuation: "90 %."
        let bare = tok
            .raw
            .trim_start_matches(['(', '[', '"', '\''])
            .trim_end_matches(['.', ',', ';', ':', '!', '?', '"', '\'', ')', ']']);
        let mut inner = bare.chars();
        let lone = inner.next().filter(|c| *c != '-' && inner.as_str().is_empty());
        if let Some(name) = lone.and_then(tables::symbol).or(lookup(tables::PAIRS, bare)) {
            self.say(name);
            self.close(self.at, None);
            return ONE;
        }
        let first = tok.raw.chars().next().unwrap_or(' ');
        let decoration = tok.raw.chars().all(|c| c == first) && tok.raw.len() > 2;
        let smiley = tok.raw.chars().any(|c| ":;.,!?()[]{}\"'-—".contains(c));
        if decoration && !smiley {
            self.comma();
        } else if smiley {
            // Punctuation, or a face made of it.
            if tok.raw.chars().all(|c| ".,;:!?\"')]}".contains(c)) {
                self.close(self.at, None);
            } else {
                self.comma();
                for name in
                    tok.raw.chars().filter(|c| "%&@$#+".contains(*c)).filter_map(tables::symbol)
                {
                    self.say(name);
                }
            }
        } else {
            for c in tok.raw.chars() {
                if let Some(name) = tables::symbol(c) {
                    self.say(name);
                }
            }
        }
        ONE
    }

    fn token(&mut self, tok: Tok<'a>) -> Said {
        let core = tok.core;
        if core.len() > LONG {
            self.runs(core, false);
            return ONE;
        }
        let lower = tok.lower();
        let stopped = tok.post.starts_with('.');
        if !stopped && core.bytes().all(|b| b.is_ascii_lowercase()) {
            // Most tokens: nothing below but this table and `word` looks at them.
            match lookup(tables::WITHOUT_STOP, core).filter(|_| core.len() < 4) {
                Some(words) => self.say(words),
                None => self.word(core),
            }
            return ONE;
        }
        let next = self.next(self.at).copied();

        if matches!(lower.as_str(), "st" | "dr") && tok.starts_upper() {
            let title = lower == "dr" || stopped;
            let before = self.prev().is_some_and(|p| p.starts_upper());
            let name = next.is_some_and(|n| n.starts_upper());
            if title && name && !(before && lower == "st") {
                self.say(if lower == "dr" { "doctor" } else { "saint" });
                return Said { used: 1, stop: Some(Stop::Never) };
            }
            if stopped && (before || self.prev().is_some_and(Tok::starts_digit)) {
                self.say(if lower == "dr" { "drive" } else { "street" });
                return Said { used: 1, stop: Some(Stop::Opener) };
            }
            if stopped {
                self.say(if lower == "dr" { "doctor" } else { "saint" });
                return Said { used: 1, stop: Some(Stop::Never) };
            }
        }
        if core != "ms"
            && let Some(words) = lookup(tables::WITHOUT_STOP, &lower)
        {
            self.say(words);
            let stop = match tables::WITH_STOP.iter().find(|(k, _, _)| *k == lower) {
                Some(entry) => Some(entry.2),
                None => tables::DOTTED.contains(&lower.as_str()).then_some(Stop::Opener),
            };
            return Said { used: 1, stop };
        }
        if let Some(said) = self.month_first(tok, &lower) {
            return said;
        }
        if stopped {
            if tok.post == "."
                && next.is_some_and(|n| n.starts_digit())
                && let Some(word) = lookup(tables::BEFORE_NUMBER, &lower)
            {
                self.say(word);
                return Said { used: 1, stop: Some(Stop::Never) };
            }
            if lower == "al" && self.prev().is_some_and(|p| p.core == "et") {
                self.say("al");
                return Said { used: 1, stop: Some(Stop::Opener) };
            }
            if let Some((_, words, stop)) = tables::WITH_STOP.iter().find(|(k, _, _)| *k == lower)
                && (tok.starts_upper() || tables::SMALL.contains(&lower.as_str()))
            {
                self.say(words);
                return Said { used: 1, stop: Some(*stop) };
            }
            if core.len() == 1
                && core != "I"
                && tok.starts_upper()
                && next.is_some_and(|n| n.starts_upper())
            {
                self.say(&lower);
                return Said { used: 1, stop: Some(Stop::Never) };
            }
        }
        if let Some(words) = dotted(core) {
            match lower.as_str() {
                "e.g" => self.say("for example"),
                "i.e" => self.say("that is"),
                _ => self.say(&words),
            }
            let known = tables::DOTTED.contains(&lower.as_str());
            let stop = if known { Stop::Opener } else { Stop::Never };
            return Said { used: 1, stop: stopped.then_some(stop) };
        }
        if let Some(stem) = core.strip_suffix("(s").filter(|_| tok.post.starts_with(')'))
            && stem.bytes().all(|b| b.is_ascii_lowercase())
        {
            self.word(&format!("{stem}s"));
            return ONE;
        }
        if self.roman(tok) {
            return ONE;
        }
        if let Some(rest) = address(core) {
            self.runs(rest, true);
            return ONE;
        }
        if core.contains(|c: char| c.is_ascii_digit() || "½¼¾⅓⅔⅛⅜⅝⅞".contains(c))
            && let Some(mut said) = self.numeric(tok)
        {
            // "5 p.m. today", "2 ft. tall": the stop belongs to the last word taken.
            let last = &self.toks[self.at + said.used - 1];
            if said.used > 1 && said.stop.is_none() && last.post.starts_with('.') {
                if last.core.contains('.') {
                    said.stop = Some(Stop::Opener);
                } else if tables::UNITS.iter().any(|u| u.0 == last.core) {
                    said.stop = Some(Stop::Capital);
                }
            }
            return said;
        }
        self.runs(core, false);
        ONE
    }

    /// "Nov 24, 2026", "November 24th", "Nov. 2026".
    fn month_first(&mut self, tok: Tok<'a>, lower: &str) -> Option<Said> {
        let month = lookup(tables::MONTHS, lower)?;
        if !tok.starts_upper() || !matches!(tok.post, "" | ".") {
            return None;
        }
        let day_tok = self.next(self.at).filter(|t| t.pre.is_empty() && t.starts_digit())?;
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

    /// A Roman numeral after a ruler's name or a numbered thing.
    fn roman(&mut self, tok: Tok<'a>) -> bool {
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

    // ---------------------------------------------------------------------------- numbers

    fn numeric(&mut self, tok: Tok<'a>) -> Option<Said> {
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

    /// "+44 20 7946 0958", "(555) 123-4567", "555-1234"; the number of tokens used.
    fn phone(&mut self, tok: Tok<'a>, groups: &[&str], grouped: bool) -> Option<usize> {
        let local = |s: &str| {
            s.len() == 8 && s.as_bytes()[3] == b'-' && all_digits(&s[..3]) && all_digits(&s[4..])
        };
        if let Some((area, rest)) = tok.core.split_once(')')
            && all_digits(area)
            && local(rest.trim_start_matches('-'))
        {
            self.groups(&[area, &rest[rest.len() - 8..rest.len() - 5], &rest[rest.len() - 4..]]);
            return Some(1);
        }
        if tok.pre.ends_with('(')
            && tok.post == ")"
            && tok.core.len() == 3
            && tok.is_digits()
            && let Some(next) = self.next(self.at).filter(|n| local(n.core))
        {
            self.groups(&[tok.core, &next.core[..3], &next.core[4..]]);
            return Some(2);
        }
        // A trunk code: "020 7946 0958".
        let trunk = Some(tok.core).filter(|c| {
            c.starts_with('0')
                && (3..=5).contains(&c.len())
                && all_digits(c)
                && self.next(self.at).is_some_and(|n| n.core.len() > 2 && n.is_digits())
        });
        if let Some(code) = tok.core.strip_prefix('+').or(trunk) {
            let mut all: Vec<&str> =
                code.split(['-', '.', '(', ')']).filter(|g| !g.is_empty()).collect();
            let mut last = self.at;
            while let Some(next) = self.next(last).filter(|n| {
                matches!(self.toks[last].post, "" | ")")
                    && !n.core.is_empty()
                    && n.core.len() <= 14
                    && n.core.bytes().all(|b| b.is_ascii_digit() || b == b'-')
            }) {
                all.extend(next.core.split('-').filter(|g| !g.is_empty()));
                last += 1;
                if all.len() > 8 {
                    break;
                }
            }
            let total: usize = all.iter().map(|g| g.len()).sum();
            if all.iter().all(|g| all_digits(g)) && (7..=16).contains(&total) {
                self.say(if trunk.is_some() { "" } else { "plus" });
                self.groups(&all);
                return Some(last - self.at + 1);
            }
            return None;
        }
        let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
        let total: usize = lengths.iter().sum();
        let hyphens = grouped && !tok.core.contains('.');
        let telephone = match lengths.as_slice() {
            [3, 3, 4] | [1, 3, 3, 4] => grouped,
            [3, 4] => hyphens,
            [4, 2, 2] | [2, 2, 4] | [1, 2, 4] | [2, 1, 4] => false,
            more => hyphens && more.len() > 2 && (7..=16).contains(&total),
        };
        if telephone {
            self.groups(groups);
            return Some(1);
        }
        None
    }

    fn groups(&mut self, groups: &[&str]) {
        for (i, g) in groups.iter().enumerate() {
            if i > 0 {
                self.comma();
            }
            self.say(&digits(g));
        }
    }

    /// "3:05", "3:05pm", "15:00-16:30", "3:05 p.m."; the number of tokens used.
    fn time(&mut self, core: &str) -> Option<usize> {
        if let Some((from, to)) = core.split_once('-') {
            let (from, to) = (parse_time(from)?, parse_time(to)?);
            let half = self.half_day(from.hour.max(to.hour));
            let later = from.half.is_some() || to.half.is_some() || half.is_some();
            self.say(&speak_time(&from, later));
            self.say("to");
            self.say(&speak_time(&to, later));
            self.say(half.unwrap_or(""));
            return Some(1 + usize::from(half.is_some()));
        }
        let time = parse_time(core)?;
        let half = if time.half.is_none() { self.half_day(time.hour) } else { None };
        self.say(&speak_time(&time, half.is_some()));
        self.say(half.unwrap_or(""));
        Some(1 + usize::from(half.is_some()))
    }

    /// "am" or "p.m." as the next token.
    fn half_day(&self, hour: u64) -> Option<&'static str> {
        let next = self.joined(self.at).filter(|_| (1..=12).contains(&hour))?;
        match next.lower().as_str() {
            "am" | "a.m" => Some("a m"),
            "pm" | "p.m" => Some("p m"),
            _ => None,
        }
    }

    /// "1 000 000"; the number of tokens used. "5 101" may be two numbers, so the first group
    /// of three must be 000 or another must follow.
    fn spaced_thousands(&mut self, tok: Tok<'a>) -> Option<usize> {
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

    /// "24 November 2026", "24th Nov".
    fn day_first(&mut self, tok: Tok<'a>) -> Option<Said> {
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

    /// IP addresses and versions.
    fn dotted_numbers(&mut self, core: &str) -> bool {
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

    /// Numbers with signs, currencies, units; ranges and products of them.
    fn amounts(&mut self, core: &'a str) -> Option<Said> {
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
    fn amount(&mut self, s: &'a str, years: bool, leading: bool) -> Option<(&'a str, usize)> {
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

    // ------------------------------------------------------------------------------ words

    /// Anything, run by run: letters as words, digits as numbers, symbols by name.
    fn runs(&mut self, s: &str, address: bool) {
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
    fn word(&mut self, w: &str) {
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
    fn spelt(&self, caps: &str, lower: &str) -> bool {
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

fn is_vowel(b: u8) -> bool {
    matches!(b, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

fn spell(w: &str) -> String {
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
fn pronounceable(lower: &str) -> bool {
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
fn dotted(core: &str) -> Option<String> {
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
fn address(core: &str) -> Option<&str> {
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

/// The day of a month: "24", "24th".
fn day_number(s: &str) -> Option<u64> {
    let s = ["st", "nd", "rd", "th"].iter().find_map(|e| s.strip_suffix(e)).unwrap_or(s);
    if s.len() > 2 || !all_digits(s) {
        return None;
    }
    s.parse().ok().filter(|d| (1..=31).contains(d))
}

fn year_number(s: &str) -> Option<u64> {
    if s.len() != 4 || !all_digits(s) {
        return None;
    }
    s.parse().ok().filter(|y| (1000..3000).contains(y))
}

/// (year, month, day) of "2026-11-24", "24/11/2026", "11/24/2026", "24.11.2026". Where day
/// and month could be exchanged, the month comes first, as in American English.
fn date(s: &str) -> Option<(u64, u64, u64)> {
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
    } else if separator == '/' && [a, b, c].iter().all(|p| p.len() == 2) {
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
fn decade(s: &str) -> Option<String> {
    let n = s.strip_suffix("'s").or(s.strip_suffix('s'))?;
    if !all_digits(n) || !n.ends_with('0') {
        return None;
    }
    let v: u64 = n.parse().ok()?;
    match n.len() {
        4 if is_year(v) => Some(plural(&year(v))),
        2 if v >= 20 => Some(plural(&cardinal(v))),
        _ => None,
    }
}

struct Time {
    hour: u64,
    minute: u64,
    second: Option<u64>,
    half: Option<&'static str>,
}

fn parse_time(s: &str) -> Option<Time> {
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
        half,
    })
}

fn speak_time(t: &Time, halves: bool) -> String {
    let mut words = cardinal(t.hour);
    match t.minute {
        0 if t.half.is_some() || halves => {}
        0 if (1..=12).contains(&t.hour) => words.push_str(" o'clock"),
        0 => words.push_str(" hundred"),
        m @ 1..=9 => words.push_str(&format!(" oh {}", cardinal(m))),
        m => words.push_str(&format!(" {}", cardinal(m))),
    }
    if let Some(s) = t.second.filter(|s| *s > 0) {
        words.push_str(&format!(" and {} second{}", cardinal(s), if s == 1 { "" } else { "s" }));
    }
    if let Some(half) = t.half {
        words.push(' ');
        words.push_str(half);
    }
    words
}

struct Number {
    integer: String,
    fraction: String,
    grouped: bool,
}

impl Number {
    /// Takes a number off the start of `rest`: digits, thousands separators, a fraction.
    fn take(rest: &mut &str) -> Option<Self> {
        let s = *rest;
        let b = s.as_bytes();
        let run = |from: usize| {
            from + b[from..].iter().position(|c| !c.is_ascii_digit()).unwrap_or(b.len() - from)
        };
        let mut end = run(0);
        let mut integer = s[..end].to_string();
        let mut grouped = false;
        while (1..=3).contains(&(if grouped { 3 } else { end }))
            && b.get(end) == Some(&b',')
            && run(end + 1) == end + 4
        {
            integer.push_str(&s[end + 1..end + 4]);
            end += 4;
            grouped = true;
        }
        let mut fraction = String::new();
        if b.get(end) == Some(&b'.') && b.get(end + 1).is_some_and(u8::is_ascii_digit) {
            let stop = run(end + 1);
            fraction = s[end + 1..stop].to_string();
            end = stop;
        }
        if integer.is_empty() && fraction.is_empty() {
            return None;
        }
        *rest = &s[end..];
        Some(Self { integer, fraction, grouped })
    }

    fn words(&self) -> String {
        let whole = if self.integer.is_empty() { "zero".into() } else { integer(&self.integer) };
        if self.fraction.is_empty() {
            return whole;
        }
        format!("{whole} point {}", digits(&self.fraction))
    }

    fn is_one(&self) -> bool {
        self.integer == "1" && self.fraction.is_empty()
    }

    fn year(&self) -> Option<u64> {
        if self.grouped || !self.fraction.is_empty() {
            return None;
        }
        year_number(&self.integer).filter(|y| is_year(*y))
    }
}
