//! Letters without a reader: spelling, and what can only be spelt.

use super::tokens::sounds;

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
