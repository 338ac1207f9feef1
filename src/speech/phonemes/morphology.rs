//! Words made from known ones, and stress moved about.

use super::symbols::is_vowel;

/// Sounds after which a `t` before a vowel becomes the American flap.
const BEFORE_FLAP: &str = "AIOWYiuæɑəɛɪɹʊʌ";

/// The ending -s of plural, verb or possessive behind `stem`.
pub(super) fn with_s(stem: &str, british: bool) -> String {
    let mut out = stem.to_string();
    match stem.chars().last() {
        Some(c) if "ptkfθ".contains(c) => out.push('s'),
        Some(c) if "szʃʒʧʤ".contains(c) => {
            out.push_str(if british { "ɪz" } else { "ᵻz" });
        }
        _ => out.push('z'),
    }
    out
}

/// The ending -ed behind `stem`.
pub(super) fn with_ed(stem: &str, british: bool) -> String {
    let mut out = stem.to_string();
    let mut back = stem.chars().rev();
    let (last, before) = (back.next(), back.next());
    match last {
        Some(c) if "pkfθʃsʧ".contains(c) => out.push('t'),
        Some('d') => out.push_str(if british { "ɪd" } else { "ᵻd" }),
        Some('t') if british || before.is_none() => out.push_str("ɪd"),
        Some('t') => {
            if before.is_some_and(|c| BEFORE_FLAP.contains(c)) {
                out.pop();
                out.push('T');
            }
            out.push_str("ᵻd");
        }
        _ => out.push('d'),
    }
    out
}

/// The ending -ing behind `stem`; none where British speech would link an r that is not
/// written in the stem's sounds.
pub(super) fn with_ing(stem: &str, british: bool) -> Option<String> {
    let mut out = stem.to_string();
    if british {
        if stem.ends_with(['ə', 'ː']) {
            return None;
        }
    } else {
        let mut back = stem.chars().rev();
        if back.next() == Some('t') && back.next().is_some_and(|c| BEFORE_FLAP.contains(c)) {
            out.pop();
            out.push('T');
        }
    }
    out.push_str("ɪŋ");
    Some(out)
}

/// How strongly a word is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stress {
    /// As the list has it.
    AsIs,
    /// Primary becomes secondary; none becomes secondary.
    Weak,
    /// Primary becomes secondary; none stays none.
    Lowered,
    /// None becomes secondary.
    AtLeastWeak,
    /// Secondary, or none, becomes primary.
    Strong,
}

/// `phonemes` with their stress changed.
pub(super) fn stressed(phonemes: &str, stress: Stress) -> String {
    let primary = phonemes.contains('ˈ');
    let any = primary || phonemes.contains('ˌ');
    let lowered = || phonemes.replace('ˌ', "").replace('ˈ', "ˌ");
    match stress {
        Stress::Weak | Stress::Lowered if primary => lowered(),
        Stress::Weak | Stress::AtLeastWeak if !any => marked(phonemes, 'ˌ'),
        Stress::Strong if !primary && any => phonemes.replace('ˌ', "ˈ"),
        Stress::Strong if !any => marked(phonemes, 'ˈ'),
        _ => phonemes.to_string(),
    }
}

/// `mark` before the first vowel.
fn marked(phonemes: &str, mark: char) -> String {
    match phonemes.find(is_vowel) {
        Some(at) => format!("{}{mark}{}", &phonemes[..at], &phonemes[at..]),
        None => phonemes.to_string(),
    }
}

/// The last secondary stress becomes the primary one: letters said one by one.
pub(super) fn spelt(letters: &str) -> String {
    let low = stressed(letters, Stress::Weak);
    match low.rfind('ˌ') {
        Some(at) => format!("{}ˈ{}", &low[..at], &low[at + 'ˌ'.len_utf8()..]),
        None => low,
    }
}

/// Long sounds count twice.
fn weight(phonemes: &str) -> usize {
    phonemes.chars().map(|c| if "AIOQWYʤʧ".contains(c) { 2 } else { 1 }).sum()
}

/// Parts of one written word, each with its own primary stress: the lighter half of them
/// takes a secondary one. `single`: the first part is one character long.
pub(super) fn balance(parts: &mut [String], single: bool) {
    let mut order: Vec<(bool, usize, usize)> = parts
        .iter()
        .enumerate()
        .filter(|(_, p)| !p.is_empty())
        .map(|(i, p)| (p.contains('ˈ'), weight(p), i))
        .collect();
    let n = order.len();
    if n == 2 && single {
        let i = order[1].2;
        parts[i] = stressed(&parts[i], Stress::Lowered);
        return;
    }
    if n < 2 || order.iter().filter(|o| o.0).count() <= n.div_ceil(2) {
        return;
    }
    order.sort_unstable();
    for &(_, _, i) in &order[..n / 2] {
        parts[i] = stressed(&parts[i], Stress::Lowered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        assert_eq!(with_s("kˈæt", false), "kˈæts");
        assert_eq!(with_s("dˈɔɡ", false), "dˈɔɡz");
        assert_eq!(with_s("ɹˈOz", false), "ɹˈOzᵻz");
        assert_eq!(with_s("ɹˈQz", true), "ɹˈQzɪz");
        assert_eq!(with_ed("wˈAt", false), "wˈATᵻd");
        assert_eq!(with_ed("wˈɑnt", false), "wˈɑntᵻd");
        assert_eq!(with_ed("wˈɔk", false), "wˈɔkt");
        assert_eq!(with_ing("wˈAt", false).as_deref(), Some("wˈATɪŋ"));
        assert_eq!(with_ing("bˈɛː", true), None);
    }

    #[test]
    fn stresses() {
        assert_eq!(stressed("ænd", Stress::AtLeastWeak), "ˌænd");
        assert_eq!(stressed("hˌɪm", Stress::Strong), "hˈɪm");
        assert_eq!(stressed("wˈʌnɪŋ", Stress::Lowered), "wˌʌnɪŋ");
        assert_eq!(spelt("jˈuˈɛsˈA"), "jˌuˌɛsˈA");
        let mut parts = ["kˈɔkəs".to_string(), "ɹˈAs".to_string()];
        balance(&mut parts, false);
        assert_eq!(parts.concat(), "kˈɔkəsɹˌAs");
    }
}
