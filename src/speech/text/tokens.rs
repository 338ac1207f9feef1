//! Text cut at white space, punctuation peeled off.

use super::plain::{Gap, OBJECT};
use super::tables;

#[derive(Debug, Clone, Copy)]
pub(super) struct Tok<'a> {
    pub raw: &'a str,
    /// Opening punctuation.
    pub pre: &'a str,
    /// The part that is said; empty if the token is punctuation or a lone symbol.
    pub core: &'a str,
    /// Closing punctuation.
    pub post: &'a str,
    /// A paragraph or list item begins here.
    pub para: bool,
    /// The pause that this asks for.
    pub gap: Gap,
}

/// Where lines end sentences.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    /// Every line is an utterance.
    pub lines: bool,
    /// The text goes on in a line that has begun.
    pub inside: bool,
}

/// The tokens of a text, and the pause that its end asks for.
pub(super) fn tokens(folded: &str, layout: Layout) -> (Vec<Tok<'_>>, Gap) {
    let mut out = Vec::new();
    let mut gap = Gap::Paragraph;
    let mut para = true;
    let mut begun = layout.inside;
    let mut lines = folded.split('\n').peekable();
    while let Some(line) = lines.next() {
        let mut words = line.split(' ').filter(|w| !w.is_empty()).peekable();
        if words.peek().is_none() {
            // The end of the last line is none of an empty one.
            if lines.peek().is_some() && !begun {
                (para, gap) = (true, Gap::Paragraph);
            }
            begun = false;
            continue;
        }
        let bullet = words.next_if(|w| {
            matches!(*w, "-" | "*" | "+" | "—" | "–") || w.bytes().all(|b| matches!(b, b'#' | b'>'))
        });
        // A list item or a heading begins a paragraph of its own, but a line of running text
        // may well begin with a dash.
        if bullet.is_some_and(|b| !matches!(b, "—" | "–"))
            || words.peek().is_some_and(|w| numbered(w))
        {
            (para, gap) = (true, gap.max(Gap::Item));
        }
        let object = line.trim_matches(' ').chars().eq([OBJECT]);
        para |= object;
        for raw in words {
            match range(raw, out.last()) {
                Some(at) => {
                    let (left, right) = (token(&raw[..at], para), token(&raw[at + 1..], false));
                    let date = left.is_digits() || right.is_digits();
                    let core = if date { left.core } else { full_name(left.core) };
                    out.push(Tok { core, ..left });
                    out.push(Tok {
                        raw: &raw[at..=at],
                        pre: "",
                        core: "to",
                        post: "",
                        para: false,
                        gap: Gap::None,
                    });
                    let core = if date { right.core } else { full_name(right.core) };
                    out.push(Tok { core, ..right });
                }
                None => out.push(token(raw, para)),
            }
            if para && let Some(t) = out.iter_mut().rev().find(|t| t.para) {
                t.gap = gap;
            }
            (para, gap) = (false, Gap::None);
        }
        if object {
            para = true;
        } else if lines.peek().is_some_and(|next| layout.lines || (!begun && short(line, next))) {
            (para, gap) = (true, Gap::Item);
        }
        begun = false;
    }
    (out, if para { gap } else { Gap::None })
}

/// Whether a line is an utterance by itself, like those of a menu or an address: it and the next
/// begin with capitals, it is short, has no mark and does not end in a word that needs another.
fn short(line: &str, next: &str) -> bool {
    let line = line.trim_matches(' ');
    let capital = |s: &str| s.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit());
    let Some(last) = line.rsplit(' ').next() else { return false };
    line.len() < 40
        && line.split(' ').filter(|w| !w.is_empty()).count() < 6
        && capital(line)
        && capital(next.trim_start_matches(' '))
        && last.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, ')' | '"' | '%'))
        && !line.split(' ').any(|w| w.ends_with(['.', '!', '?']))
        && !tables::CONJUNCTIONS.contains(&&*last.to_ascii_lowercase())
        && !tables::PREPOSITIONS.contains(&&*last.to_ascii_lowercase())
        && !matches!(
            &*last.to_ascii_lowercase(),
            "the" | "a" | "an" | "is" | "was" | "are" | "were"
        )
}

/// A day or month without a date beside it, in full.
fn full_name(core: &str) -> &str {
    let lower = core.to_ascii_lowercase();
    let names = tables::DAYS.iter().map(|d| (d.0, d.1)).chain(tables::MONTHS.iter().copied());
    names.into_iter().find(|n| n.0 == lower).map_or(core, |n| n.1)
}

/// Where the hyphen of a range of days, months or hours stands: "Mon-Fri", "Jan-Mar",
/// "9 a.m.-5 p.m.", "noon-1pm", "June 3-July 5", "1990-present".
fn range(raw: &str, before: Option<&Tok<'_>>) -> Option<usize> {
    let at = raw.find('-').filter(|at| *at > 0 && raw.len() < 40)?;
    let left = raw[..at].trim_start_matches(['(', '"', '\'', '[']);
    let right = raw[at + 1..].trim_end_matches(['.', ',', ';', ':', ')', ']', '"', '\'', '?', '!']);
    if left.is_empty() || right.is_empty() || right.contains('-') {
        return None;
    }
    let (l, r) = (left.to_ascii_lowercase(), right.to_ascii_lowercase());
    let capital = |s: &str| s.starts_with(|c: char| c.is_ascii_uppercase());
    let day = |s: &str| tables::DAYS.iter().any(|d| d.0 == s);
    let month = |s: &str| lookup(tables::MONTHS, s).is_some();
    let noon = |s: &str| matches!(s, "noon" | "midnight");
    let digit = |s: &str| s.starts_with(|c: char| c.is_ascii_digit());
    let half = |s: &str| {
        ["am", "pm", "a.m.", "p.m.", "a.m", "p.m"].iter().any(|h| {
            s.strip_suffix(h)
                .is_some_and(|n| n.is_empty() || n.ends_with(|c: char| c.is_ascii_digit()))
        })
    };
    let quarter = |s: &str| s.len() == 2 && s.starts_with('q') && digit(&s[1..]);
    let both = |f: &dyn Fn(&str) -> bool| f(&l) && f(&r);
    let after_month = before.is_some_and(|b| month(&b.lower()));
    let range = (capital(left) && capital(right) && (both(&day) || both(&month)))
        || ((half(&l) || noon(&l)) && (digit(&r) || noon(&r)))
        || (digit(&l) && noon(&r))
        || (after_month && all_digits(left) && capital(right) && month(&r))
        || (all_digits(left) && left.len() == 4 && matches!(&*r, "present" | "now" | "today"))
        || (before.is_some_and(Tok::is_digits)
            && capital(left)
            && month(&l)
            && all_digits(right)
            && right.len() < 3)
        || both(&quarter)
        || (l == "a" && r == "z");
    range.then_some(at)
}

/// "1." or "2)" at the start of a line.
pub(super) fn numbered(w: &str) -> bool {
    w.len() <= 3
        && w.strip_suffix(['.', ')'])
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn sounds(c: char) -> bool {
    c.is_ascii_alphanumeric() || (!c.is_ascii() && c != '—')
}

pub(super) fn token(raw: &str, para: bool) -> Tok<'_> {
    if !raw.contains(sounds) {
        return Tok { raw, pre: "", core: "", post: raw, para, gap: Gap::None };
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
    Tok { raw, pre, core, post, para, gap: Gap::None }
}

impl<'a> Tok<'a> {
    pub(super) fn starts_upper(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_uppercase())
    }
    pub(super) fn starts_lower(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_lowercase())
    }
    pub(super) fn starts_digit(&self) -> bool {
        self.core.starts_with(|c: char| c.is_ascii_digit())
    }
    pub(super) fn lower(&self) -> String {
        self.core.to_ascii_lowercase()
    }
    pub(super) fn is_digits(&self) -> bool {
        all_digits(self.core)
    }
    pub(super) fn is_caps(&self) -> bool {
        self.core.len() > 1
            && self.core.len() < LONG
            && self.core.bytes().all(|b| b.is_ascii_uppercase() || b == b'\'')
    }
}

pub(super) fn all_digits(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn lookup<'t>(table: &[(&str, &'t str)], key: &str) -> Option<&'t str> {
    table.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

/// Tokens longer than this are not looked at by the rules that read a token as a whole; it
/// keeps every rule linear in the text.
pub(super) const LONG: usize = 200;
