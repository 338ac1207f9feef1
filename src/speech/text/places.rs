//! Streets, towns, titles, days: short forms whose reading hangs on their neighbours.

use super::read::{ONE, Reader, Said, used};
use super::tables::{self, Stop};
use super::tokens::{Tok, all_digits, lookup};

impl<'a> Reader<'a> {
    /// "St. Paul" and "Main St.", "Dr. Smith" and "Oak Dr.", "Ft. Knox".
    pub(super) fn place(
        &mut self,
        tok: Tok<'a>,
        lower: &str,
        next: Option<Tok<'a>>,
    ) -> Option<Said> {
        if !matches!(lower, "st" | "dr" | "ft" | "mt") || !tok.starts_upper() || tok.is_caps() {
            return None;
        }
        let stopped = tok.post.starts_with('.');
        let before = self
            .prev()
            .filter(|p| !matches!(p.core, "Lake" | "Port" | "Mount" | "Sault"))
            .is_some_and(|p| p.starts_upper() && !tables::OPENERS.contains(&p.lower().as_str()));
        let count = self.prev().is_some_and(Tok::starts_digit);
        let compass = next.is_some_and(|n| tables::COMPASS.contains(&n.core));
        let name =
            next.is_some_and(|n| n.starts_upper()) && !compass && matches!(tok.post, "" | ".");
        let never = Some(Said { used: 1, stop: Some(Stop::Never) });
        match lower {
            "ft" | "mt" => {
                if !name || count {
                    return None;
                }
                self.say(if lower == "ft" { "fort" } else { "mount" });
                never
            }
            "st" | "dr" => {
                let (title, road) =
                    if lower == "dr" { ("doctor", "drive") } else { ("saint", "street") };
                let initial = next.is_some_and(|n| n.core.len() == 1);
                if name && !(before && (lower == "st" || (initial && !stopped))) {
                    self.say(title);
                    return never;
                }
                if before || count {
                    self.say(road);
                    let stop = if compass { Stop::Never } else { Stop::Opener };
                    return Some(Said { used: 1, stop: Some(stop) });
                }
                if stopped {
                    self.say(title);
                    return never;
                }
                None
            }
            _ => None,
        }
    }

    /// Titles, days, months, roads and books of the Bible without a stop or with one.
    pub(super) fn shortened(
        &mut self,
        tok: Tok<'a>,
        lower: &str,
        next: Option<Tok<'a>>,
    ) -> Option<Said> {
        let stopped = tok.post.starts_with('.');
        let direct = tok.post.is_empty() || tok.post == ".";
        if let Some(n) = next.filter(|n| direct && n.pre.is_empty())
            && let Some(book) = lookup(tables::BOOKS, lower)
            && tok.starts_upper()
            && let Some(words) = verses(n.core)
        {
            self.say(book);
            self.say(&words);
            return Some(used(2));
        }
        // "1 Cor 13"
        if tok.starts_upper()
            && self.prev().is_some_and(|p| matches!(p.core, "1" | "2" | "3"))
            && next.is_some_and(|n| direct && n.starts_digit())
            && let Some(book) = lookup(tables::BOOKS, lower)
        {
            self.say(book);
            return Some(Said { used: 1, stop: Some(Stop::Never) });
        }
        if !tok.starts_upper() || tok.is_caps() {
            return None;
        }
        if matches!(tok.core, "F" | "C")
            && self.prev().is_some_and(|p| matches!(&*p.lower(), "degrees" | "degree"))
        {
            self.say(if tok.core == "F" { "fahrenheit" } else { "celsius" });
            return Some(ONE);
        }
        let name = next.filter(|n| n.pre.is_empty() && n.starts_upper() && n.core.len() > 1);
        if tok.post.is_empty() {
            if let Some(n) = name
                && tables::TITLES.contains(&lower)
                && !n.is_caps()
                && n.core != "Alpha"
                && let Some(e) = tables::WITH_STOP.iter().find(|e| e.0 == lower)
            {
                self.say(e.1);
                return Some(ONE);
            }
            let before = self.prev().is_some_and(|p| {
                p.starts_upper() && !tables::OPENERS.contains(&p.lower().as_str())
            });
            let road = match lower {
                "ave" | "rd" | "ln" => before,
                "rte" | "apt" | "ste" => next.is_some_and(|n| n.starts_digit()),
                "fig" | "vol" | "sec" | "pg" => next.is_some_and(|n| n.starts_digit()),
                _ => false,
            };
            if road
                && let Some(words) = tables::WITH_STOP
                    .iter()
                    .find(|e| e.0 == lower)
                    .map(|e| e.1)
                    .or_else(|| lookup(tables::BEFORE_NUMBER, lower))
            {
                self.say(words);
                return Some(ONE);
            }
        }
        // "Springfield, Ill."
        if stopped
            && self.at.checked_sub(1).is_some_and(|i| {
                !tok.para && self.toks[i].post.ends_with(',') && self.toks[i].starts_upper()
            })
            && let Some(state) = lookup(tables::STATES, lower)
        {
            self.say(state);
            return Some(Said { used: 1, stop: Some(Stop::Opener) });
        }
        let prev = self.at.checked_sub(1).filter(|_| !tok.para).map(|i| self.toks[i].lower());
        let prev = prev.as_deref().unwrap_or("");
        if let Some((_, day, sure)) = tables::DAYS.iter().find(|d| d.0 == lower)
            && lower != *day
        {
            let date = next.is_some_and(|n| {
                n.starts_digit()
                    || (n.starts_upper() && lookup(tables::MONTHS, &n.lower()).is_some())
            });
            let led = matches!(
                prev,
                "on" | "by"
                    | "next"
                    | "last"
                    | "every"
                    | "until"
                    | "from"
                    | "since"
                    | "this"
                    | "through"
            );
            let hour = next.is_some_and(|n| {
                tok.post.is_empty()
                    && matches!(
                        &*n.lower(),
                        "at" | "morning" | "night" | "afternoon" | "evening" | "noon"
                    )
            });
            let month = |t: Option<&Tok<'_>>| {
                t.is_some_and(|t| t.starts_upper() && lookup(tables::MONTHS, &t.lower()).is_some())
            };
            let whole = month(self.toks.get(self.at + 1)) || month(self.toks.get(self.at + 2));
            let calendar = date && (*sure || tok.post == "," || tok.post == "." || whole);
            if calendar || ((*sure || stopped) && (led || hour)) || (stopped && *sure) {
                self.say(day);
                return if stopped {
                    Some(Said { used: 1, stop: Some(Stop::Capital) })
                } else {
                    Some(ONE)
                };
            }
        }
        if let Some(month) = lookup(tables::MONTHS, lower).filter(|m| *m != lower)
            && matches!(
                prev,
                "in" | "by"
                    | "since"
                    | "until"
                    | "of"
                    | "last"
                    | "next"
                    | "this"
                    | "early"
                    | "late"
                    | "mid"
                    | "every"
                    | "from"
                    | "through"
                    | "to"
            )
            && !next.is_some_and(|n| n.starts_digit() || (n.starts_upper() && tok.post.is_empty()))
        {
            self.say(month);
            return Some(Said { used: 1, stop: stopped.then_some(Stop::Capital) });
        }
        None
    }
}

/// Chapter and verse: "3:16", "1:1-3".
fn verses(core: &str) -> Option<String> {
    use super::numbers::integer;
    let (chapter, verses) = core.split_once(':')?;
    let number = |s: &str| all_digits(s) && s.len() < 4;
    let (first, last) = match verses.split_once('-') {
        Some((a, b)) => (a, Some(b)),
        None => (verses, None),
    };
    if !number(chapter) || !number(first) || !last.is_none_or(number) {
        return None;
    }
    let mut words = format!("{} {}", integer(chapter), integer(first));
    if let Some(last) = last {
        words.push_str(" to ");
        words.push_str(&integer(last));
    }
    Some(words)
}
