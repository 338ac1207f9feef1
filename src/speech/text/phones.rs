//! Telephone numbers and the like, digit by digit.

use super::numbers::digits;
use super::read::Reader;
use super::tokens::{Tok, all_digits};

impl<'a> Reader<'a> {
    /// "+44 20 7946 0958", "(555) 123-4567", "555-1234"; the number of tokens used.
    pub(super) fn phone(&mut self, tok: Tok<'a>, groups: &[&str], grouped: bool) -> Option<usize> {
        let local = |s: &str| {
            s.len() == 8
                && matches!(s.as_bytes()[3], b'-' | b'.')
                && all_digits(&s[..3])
                && all_digits(&s[4..])
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
        // "6314467123", "1 631 446 7123", "631 446 7123"
        if tok.is_digits() && !tok.core.ends_with("000") {
            let n = tok.core;
            let b = n.as_bytes();
            let national = match n.len() {
                10 => b[0] > b'1' && b[3] > b'1',
                11 => b[0] == b'1' && b[1] > b'1' && b[4] > b'1',
                _ => false,
            };
            if national {
                let at = n.len() - 10;
                let all = [&n[..at], &n[at..at + 3], &n[at + 3..at + 6], &n[at + 6..]];
                self.groups(if at == 0 { &all[1..] } else { &all });
                return Some(1);
            }
            if n.len() == 7
                && self.prev().is_some_and(|p| {
                    matches!(
                        &*p.lower(),
                        "call" | "dial" | "phone" | "at" | "tel" | "text" | "number"
                    )
                })
            {
                self.groups(&[&n[..3], &n[3..]]);
                return Some(1);
            }
            let mut last = self.at;
            let mut all = vec![n];
            while let Some(next) = self.joined(last).filter(|t| t.is_digits() && all.len() < 4) {
                all.push(next.core);
                last += 1;
            }
            let shape: Vec<usize> = all.iter().map(|g| g.len()).collect();
            if matches!(shape.as_slice(), [3, 3, 4] | [1, 3, 3, 4])
                || (shape == [3, 4]
                    && (n == "555"
                        || self.prev().is_some_and(|p| {
                            matches!(&*p.lower(), "call" | "dial" | "phone" | "tel")
                        })))
            {
                self.groups(&all);
                return Some(last - self.at + 1);
            }
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

    pub(super) fn groups(&mut self, groups: &[&str]) {
        for (i, g) in groups.iter().enumerate() {
            if i > 0 {
                self.comma();
            }
            self.say(&digits(g));
        }
    }
}
