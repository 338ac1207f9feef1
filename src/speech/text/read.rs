//! From any text to words and pauses.
//!
//! Three passes, each linear: `fold` brings every character to ASCII and a few symbols,
//! `tokens` cuts at white space and peels punctuation off, `Reader` says one token after
//! the other, looking at the neighbours where the reading depends on them. Its rules stand by
//! subject in the files beside this one.

use super::Replacement;
use super::fold::{Folded, fold};
use super::letters::{address, dotted};
use super::numbers;
use super::plain::{Gap, OBJECT, Object, Plain};
use super::tables::{self, Stop};
use super::tokens::{LONG, Layout, Tok, all_digits, lookup, numbered, tokens};
use super::units;
use super::{Pauses, Report};

/// The punctuation after a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    None,
    Comma,
    /// A semicolon, colon or dash: said as a comma, and a longer one.
    Clause,
    Stop,
    Question,
    Exclamation,
}

impl Mark {
    pub(super) fn ends_sentence(self) -> bool {
        !matches!(self, Mark::None | Mark::Comma | Mark::Clause)
    }

    pub(super) fn char(self) -> Option<char> {
        match self {
            Mark::None => None,
            Mark::Comma | Mark::Clause => Some(','),
            Mark::Stop => Some('.'),
            Mark::Question => Some('?'),
            Mark::Exclamation => Some('!'),
        }
    }
}

/// A word over `[a-z']` and what stands after it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub word: String,
    pub after: Mark,
    pub gap: Gap,
    /// Silence that the markup asks for, in seconds.
    pub pause: Option<f32>,
    /// The name of a letter.
    pub letter: bool,
    /// The next word belongs to the same number, date or name: no cut between them.
    pub bound: bool,
    pub rate: f32,
    pub phonemes: Option<String>,
    /// Where the word comes from, in bytes of the whole input.
    pub source: (usize, usize),
}

impl Piece {
    fn new(word: String, letter: bool, rate: f32) -> Self {
        Self {
            word,
            after: Mark::None,
            gap: Gap::None,
            pause: None,
            letter,
            bound: false,
            rate,
            phonemes: None,
            source: (0, 0),
        }
    }
}

/// Normalises a text; `base` is its position in the whole input, for places.
pub(super) fn normalise(
    plain: &Plain<'_>,
    base: usize,
    layout: Layout,
    report: &mut Report,
) -> Vec<Piece> {
    let place = |at: usize| base + plain.map.at(at);
    report.replaced.extend(plain.notes.iter().cloned().map(|mut n| {
        n.source = n.source.start + base..n.source.end + base;
        n
    }));
    let folded = fold(plain, &place, report);
    let (toks, end) = tokens(&folded.text, layout);
    let mut reader = Reader {
        toks: &toks,
        out: Vec::new(),
        at: 0,
        quoted: false,
        inched: false,
        plain,
        folded: &folded,
        base,
        rate: 1.0,
    };
    reader.run(report);
    if let Some(last) = reader.out.last_mut() {
        last.gap = last.gap.max(end);
    }
    reader.out
}

pub(super) struct Reader<'a> {
    pub toks: &'a [Tok<'a>],
    pub out: Vec<Piece>,
    /// The token being said.
    pub at: usize,
    /// Within double quotes, so that the mark after a number is no inch.
    pub quoted: bool,
    /// The double quote behind the token was an inch.
    pub inched: bool,
    plain: &'a Plain<'a>,
    folded: &'a Folded,
    base: usize,
    rate: f32,
}

/// What was done with a token.
pub(super) struct Said {
    /// Tokens consumed.
    pub used: usize,
    /// The full stop belongs to an abbreviation.
    pub stop: Option<Stop>,
}

pub(super) const ONE: Said = Said { used: 1, stop: None };

pub(super) fn used(used: usize) -> Said {
    Said { used, stop: None }
}

impl<'a> Reader<'a> {
    pub(super) fn run(&mut self, report: &mut Report) {
        while let Some(tok) = self.toks.get(self.at).copied() {
            if tok.para {
                self.end(Mark::Stop);
                if let Some(p) = self.out.last_mut() {
                    p.gap = p.gap.max(tok.gap);
                }
            }
            for c in tok.pre.chars() {
                match c {
                    ';' | ':' | '—' => self.clause(),
                    '(' | '[' | '{' | ',' => self.comma(),
                    '!' => self.end(Mark::Exclamation),
                    '?' => self.end(Mark::Question),
                    _ => {}
                }
            }
            if tok.pre.contains("..") {
                self.comma();
            }
            let first = self.out.len();
            if tok.para {
                self.quoted = false;
            }
            if tok.pre.contains('"') {
                self.quoted = !self.quoted;
            }
            // ".NET", ".txt"
            if tok.pre.ends_with('.')
                && !tok.pre.ends_with("..")
                && tok.core.starts_with(|c: char| c.is_ascii_alphabetic())
            {
                self.say("dot");
            }
            let object = if self.folded.objects.is_empty() { None } else { self.object(tok) };
            let said = if let Some(object) = object {
                self.place_object(object, report)
            } else if tok.core.is_empty() {
                self.symbols(tok)
            } else {
                self.token(tok)
            };
            let last = self.at + said.used - 1;
            self.note(first, last, report);
            if !tok.core.is_empty() {
                self.close(last, said.stop);
            }
            let behind = self.toks[self.at..=last].iter().enumerate();
            let marks: usize = behind
                .map(|(i, t)| {
                    let inside = if i == 0 { t.core } else { t.raw };
                    let post = if i == 0 { t.post } else { "" };
                    inside.matches('"').count() + post.matches('"').count()
                })
                .sum();
            self.quoted ^= marks % 2 == 1 && !self.inched;
            self.inched = false;
            self.at = last + 1;
        }
        self.end(Mark::Stop);
    }

    /// Where the tokens from `first` to `last` stand in the input.
    fn span(&self, first: usize, last: usize) -> std::ops::Range<usize> {
        let offset = |t: &Tok<'_>| t.raw.as_ptr() as usize - self.folded.text.as_ptr() as usize;
        let place = |at: usize| self.base + self.plain.map.at(self.folded.map.at(at));
        let (a, b) = (&self.toks[first], &self.toks[last]);
        let start = place(offset(a));
        start..place(offset(b) + b.raw.len()).max(start)
    }

    /// The object that a token stands for.
    fn object(&self, tok: Tok<'_>) -> Option<usize> {
        let at = tok.raw.as_ptr() as usize - self.folded.text.as_ptr() as usize;
        let found = self.folded.objects.partition_point(|o| o.0 < at);
        self.folded.objects.get(found).filter(|o| o.0 < at + tok.raw.len()).map(|o| o.1)
    }

    /// Says or does what stands between the words.
    fn place_object(&mut self, object: usize, report: &mut Report) -> Said {
        let plain = self.plain;
        let written = &plain.written[object];
        match &plain.objects[object].1 {
            Object::End(gap) => {
                self.end(Mark::Stop);
                if let Some(p) = self.out.last_mut() {
                    p.gap = p.gap.max(*gap);
                }
            }
            Object::Pause(seconds) => {
                self.comma();
                if let Some(p) = self.out.last_mut() {
                    p.pause = Some((p.pause.unwrap_or(0.0) + seconds).min(Pauses::MAX));
                }
            }
            Object::Rate(rate) => self.rate = *rate,
            Object::Say(words) => {
                for w in words.split(' ').filter(|w| !w.is_empty()) {
                    match w.strip_suffix(',') {
                        Some(w) => {
                            self.say(w);
                            self.comma();
                        }
                        None => self.say(w),
                    }
                }
            }
            Object::Phonemes { ipa, text } => {
                let mut inner =
                    normalise(&Plain::bare(text), 0, Layout::default(), &mut Report::default());
                // A sound without a word is one all the same.
                if inner.is_empty() {
                    inner.push(Piece::new("a".into(), false, self.rate));
                }
                let last = inner.len() - 1;
                for (i, mut p) in inner.into_iter().enumerate() {
                    p.after = Mark::None;
                    p.gap = Gap::None;
                    p.bound = i < last;
                    p.rate = self.rate;
                    p.phonemes = Some(if i == 0 { ipa.clone() } else { String::new() });
                    self.out.push(p);
                }
                report.replaced.push(Replacement {
                    original: text.clone(),
                    spoken: ipa.clone(),
                    source: self.base + written.start..self.base + written.end,
                });
            }
        }
        ONE
    }

    /// Gives the new pieces their place, and adds a line to the report if more was done than to
    /// take the letters as they are.
    fn note(&mut self, first: usize, last: usize, report: &mut Report) {
        let first = first.min(self.out.len());
        let source = self.span(self.at, last);
        let tok = self.toks[self.at];
        let count = self.out.len() - first;
        let one = last > self.at || tok.core.contains(|c: char| c.is_ascii_digit());
        for (i, p) in self.out[first..].iter_mut().enumerate() {
            p.source = (source.start, source.end);
            p.bound |= i + 1 < count && (one || p.letter);
        }
        let spoken = &self.out[first..];
        if spoken.is_empty() || spoken[0].phonemes.is_some() {
            return;
        }
        if last == self.at && !tok.core.is_empty() {
            let mut trivial =
                tok.core.split('-').filter(|w| !w.is_empty()).map(str::to_ascii_lowercase);
            if spoken.iter().all(|p| trivial.next().is_some_and(|w| w == p.word))
                && trivial.next().is_none()
            {
                return;
            }
        }
        let original: Vec<&str> = self.toks[self.at..=last].iter().map(|t| t.raw).collect();
        let mut original = original.join(" ");
        if original.contains(OBJECT) {
            original = match self.object(tok).map(|o| self.plain.written[o].clone()) {
                Some(_) => "markup".to_string(),
                None => original,
            };
        }
        let spoken: Vec<&str> = spoken.iter().map(|p| p.word.as_str()).collect();
        report.replaced.push(Replacement { original, spoken: spoken.join(" "), source });
    }

    pub(super) fn say(&mut self, words: &str) {
        for w in words.split(' ').filter(|w| !w.is_empty()) {
            // One letter that the rules say is its name; the words "a" and "I" are taken as
            // they stand in the text.
            let bytes = w.as_bytes();
            let letter = bytes[0].is_ascii_lowercase()
                && (bytes.len() == 1 || (bytes.len() == 3 && bytes[1..] == *b"'s"));
            self.out.push(Piece::new(w.to_string(), letter, self.rate));
        }
    }

    pub(super) fn comma(&mut self) {
        if let Some(p) = self.out.last_mut()
            && p.after == Mark::None
        {
            p.after = Mark::Comma;
        }
    }

    /// A pause between clauses.
    pub(super) fn clause(&mut self) {
        if let Some(p) = self.out.last_mut()
            && matches!(p.after, Mark::None | Mark::Comma)
        {
            p.after = Mark::Clause;
        }
    }

    pub(super) fn end(&mut self, mark: Mark) {
        if let Some(p) = self.out.last_mut()
            && (!p.after.ends_sentence() || (p.after == Mark::Stop && mark != Mark::Stop))
        {
            p.after = mark;
        }
    }

    pub(super) fn next(&self, from: usize) -> Option<&'a Tok<'a>> {
        self.toks.get(from + 1).filter(|t| !t.para)
    }

    /// The next token, if nothing stands between it and this one.
    pub(super) fn joined(&self, from: usize) -> Option<&'a Tok<'a>> {
        self.next(from).filter(|t| self.toks[from].post.is_empty() && t.pre.is_empty())
    }

    pub(super) fn prev(&self) -> Option<&'a Tok<'a>> {
        let t = self.toks.get(self.at.checked_sub(1)?)?;
        (t.post.is_empty() && !self.toks[self.at].para).then_some(t)
    }

    /// The punctuation after token `last`.
    pub(super) fn close(&mut self, last: usize, stop: Option<Stop>) {
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
        } else if post.contains([';', ':', '—']) {
            self.clause();
        } else if post.contains([',', ')', ']', '}', '-']) {
            self.comma();
        }
    }

    /// A token without letters or digits.
    pub(super) fn symbols(&mut self, tok: Tok<'_>) -> Said {
        let between_numbers =
            self.prev().is_some_and(|t| t.core.ends_with(|c: char| c.is_ascii_digit()))
                && self.next(self.at).is_some_and(Tok::starts_digit);
        let operand =
            |t: &Tok<'_>| t.core.len() == 1 || t.starts_digit() || t.core.contains(['[', '(']);
        let behind = self.at.checked_sub(1).map(|i| self.toks[i]).filter(|_| !tok.para);
        let operands = behind.is_some_and(|t| operand(&t) && matches!(t.post, "" | "]" | ")"))
            && self.next(self.at).is_some_and(operand);
        let dated = |t: &Tok<'_>| t.starts_digit() || lookup(tables::MONTHS, &t.lower()).is_some();
        let name = match tok.raw {
            "–" if self.prev().is_some_and(dated)
                && self
                    .next(self.at)
                    .is_some_and(|t| t.starts_digit() || (t.starts_upper() && dated(t))) =>
            {
                "to"
            }
            "–" | "—" => {
                self.clause();
                return ONE;
            }
            "-" => {
                let clock = |t: &Tok<'_>| {
                    let l = t.lower();
                    ["am", "pm", "a.m", "p.m", "noon", "midnight"].iter().any(|h| l.ends_with(h))
                };
                let named = |t: &Tok<'_>| {
                    let l = t.lower();
                    t.starts_upper()
                        && (tables::DAYS.iter().any(|d| d.0 == l)
                            || lookup(tables::MONTHS, &l).is_some())
                };
                let to = self.toks.get(self.at + 1).filter(|t| !t.para).is_some_and(|n| {
                    behind.is_some_and(|b| {
                        matches!(b.post, "" | ".")
                            && ((clock(&b) && (n.starts_digit() || clock(n)))
                                || (named(&b) && named(n)))
                    })
                });
                if to {
                    self.say("to");
                } else if between_numbers || operands {
                    self.say("minus");
                } else {
                    self.comma();
                }
                return ONE;
            }
            "*" if between_numbers || operands => "times",
            "**" if between_numbers || operands => "to the power of",
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

    pub(super) fn token(&mut self, tok: Tok<'a>) -> Said {
        let core = tok.core;
        if core.len() > LONG {
            self.runs(core, false);
            return ONE;
        }
        let lower = tok.lower();
        let stopped = tok.post.starts_with('.');
        let numeral = core.len() > 1 && core.bytes().all(|b| matches!(b, b'i' | b'v' | b'x'));
        if !stopped && !numeral && core != "x" && core.bytes().all(|b| b.is_ascii_lowercase()) {
            // Most tokens: nothing below but this table and `word` looks at them.
            match lookup(tables::WITHOUT_STOP, core) {
                Some(words) => self.say(words),
                None => self.word(core),
            }
            return ONE;
        }
        let next = self.next(self.at).copied();

        if let Some(said) = self.place(tok, &lower, next) {
            return said;
        }
        if let Some(said) = self.shortened(tok, &lower, next) {
            return said;
        }
        let (stem, possessive) = match lower.strip_suffix("'s") {
            Some(stem) if stem.contains('&') => (stem, true),
            _ => (lower.as_str(), false),
        };
        if core != "ms"
            && let Some(words) = lookup(tables::WITHOUT_STOP, stem)
        {
            self.say(words);
            if possessive {
                self.possess();
            }
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
                && next.is_some_and(|n| {
                    n.starts_digit()
                        || (n.core == "of" && matches!(core, "No" | "Nos" | "no"))
                        || (lower != "no"
                            && n.core.len() < 8
                            && numbers::roman(&n.core.to_ascii_uppercase()).is_some())
                        || (n.core.len() == 1
                            && matches!(&*lower, "apt" | "ste" | "rm" | "bldg" | "app" | "fig"))
                })
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
                && !(core == "Max" || core == "Min")
            {
                self.say(words);
                // "Acme Co. Ltd.", "Pennsylvania Ave. NW".
                let goes_on = next.is_some_and(|n| {
                    tables::COMPASS.contains(&n.core)
                        || (matches!(&*lower, "co" | "inc" | "corp" | "bros")
                            && matches!(
                                &*n.lower(),
                                "ltd" | "inc" | "llc" | "corp" | "plc" | "co" | "lp"
                            ))
                });
                return Said { used: 1, stop: Some(if goes_on { Stop::Never } else { *stop }) };
            }
            if core.len() == 1
                && core != "I"
                && tok.starts_upper()
                && let Some(n) = next
            {
                let way = match core {
                    "N" => "north",
                    "S" => "south",
                    "E" => "east",
                    "W" => "west",
                    _ => "",
                };
                let street = self
                    .toks
                    .get(self.at + 2)
                    .is_some_and(|t| tables::STREETS.contains(&t.lower().as_str()));
                self.say(if street && !way.is_empty() { way } else { &lower });
                let initial = n.starts_lower() || n.core.len() == 1;
                return Said {
                    used: 1,
                    stop: Some(if initial { Stop::Never } else { Stop::Opener }),
                };
            }
            if core == "v"
                && self.prev().is_some_and(Tok::starts_upper)
                && next.is_some_and(|n| n.starts_upper())
            {
                self.say("versus");
                return Said { used: 1, stop: Some(Stop::Never) };
            }
        }
        if let Some(stem) = core.strip_suffix("'s").map(|s| s.trim_end_matches('.'))
            && let Some(words) = dotted(stem)
        {
            self.say(&words);
            self.possess();
            return ONE;
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
        if core.len() == 1 && "ABCDF".contains(core) && tok.post.starts_with('-') {
            self.say(&format!("{lower} minus"));
            return ONE;
        }
        // "5 ft × 7 ft"
        if matches!(core, "×" | "x")
            && next.is_some_and(|n| n.starts_digit())
            && self.at.checked_sub(1).map(|i| &self.toks[i]).is_some_and(|p| {
                matches!(p.post, "" | "." | "'" | "\"")
                    && (units::known(p.core)
                        || p.core.ends_with(|c: char| !c.is_ascii_alphabetic()))
            })
        {
            let equals = (2..6).any(|k| self.toks.get(self.at + k).is_some_and(|t| t.raw == "="));
            self.say(if equals { "times" } else { "by" });
            return ONE;
        }
        if self.keys(core) {
            return ONE;
        }
        if let Some(rest) = address(core) {
            self.runs(rest, true);
            return ONE;
        }
        // "No.1", "p.5"
        if let Some((short, number)) = lower.split_once('.')
            && all_digits(number)
            && number.len() < 6
            && let Some(word) = lookup(tables::BEFORE_NUMBER, short)
        {
            self.say(&format!("{word} {}", numbers::integer(number)));
            return ONE;
        }
        if core.ends_with(['²', '³'])
            && core.len() > 2
            && let Some(unit) = units::unit(core)
        {
            self.say(&unit.many);
            return ONE;
        }
        if self.alternatives(core) {
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
                } else if units::known(last.core) {
                    said.stop = Some(Stop::Capital);
                }
            }
            return said;
        }
        self.runs(core, false);
        ONE
    }
}
