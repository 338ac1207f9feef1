//! Every character becomes ASCII or one of a few symbols that later rules know.

use unicode_normalization::UnicodeNormalization;

use super::plain::{Map, OBJECT, Object, Plain};
use super::{Replacement, Report, Unspeakable};

/// A text over ASCII and the symbols that later rules know.
pub(super) struct Folded {
    pub text: String,
    /// To places in the plain text.
    pub map: Map,
    /// Where [`OBJECT`] stands, and which of the plain text's objects it is.
    pub objects: Vec<(usize, usize)>,
}

/// Folds a plain text; `place` says where a byte of it stands in the whole input.
pub(super) fn fold(
    plain: &Plain<'_>,
    place: &dyn Fn(usize) -> usize,
    report: &mut Report,
) -> Folded {
    let text = &*plain.text;
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut map = Map::default();
    let mut objects: Vec<(usize, usize)> = Vec::new();
    let mut chars = text.char_indices().peekable();
    let mut unspeakable_end = usize::MAX;
    while let Some((at, c)) = chars.next() {
        map.push(out.len(), at);
        if c == OBJECT
            && let Some((_, object)) = plain.objects.get(objects.len()).filter(|o| o.0 == at)
        {
            let apart = matches!(object, Object::End(_));
            if apart {
                out.push('\n');
            } else if matches!(object, Object::Pause(_) | Object::Rate(_)) {
                out.push(' ');
            }
            objects.push((out.len(), objects.len()));
            out.push(OBJECT);
            let letter = chars.peek().is_some_and(|(_, n)| n.is_alphanumeric());
            if apart {
                out.push('\n');
            } else if letter || matches!(object, Object::Pause(_) | Object::Rate(_)) {
                out.push(' ');
            }
            continue;
        }
        let span = || place(at)..place(at + c.len_utf8());
        let mut refuse = |report: &mut Report, out: &mut String| {
            let here = place(at);
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
            '⁰'..='⁹' | '⁻' | '¹' | '²' | '³'
                if out.ends_with(|p: char| p.is_ascii_alphanumeric() || p == ')') =>
            {
                let mut power = String::from(superscript(c));
                while let Some((_, n)) =
                    chars.next_if(|(_, n)| matches!(n, '⁰'..='⁹' | '⁻' | '¹' | '²' | '³'))
                {
                    power.push(superscript(n));
                }
                let word = out.ends_with(|p: char| p.is_ascii_alphabetic())
                    && out.trim_end_matches(|p: char| p.is_ascii_alphabetic()).len() + 2
                        < out.len();
                match power.as_str() {
                    "2" => out.push('²'),
                    "3" => out.push('³'),
                    // The number of a footnote.
                    _ if word => out.extend([" ", &power]),
                    _ => out.extend(["^", &power]),
                }
            }
            '⅐'..='⅒' | '⅕'..='⅚' => {
                if out.ends_with(|p: char| p.is_ascii_digit()) {
                    out.push(' ');
                }
                out.extend(c.nfkd().map(|c| if c == '⁄' { '/' } else { c }));
            }
            'Ω' | '\u{2126}'
                if out
                    .strip_suffix(['k', 'M'])
                    .unwrap_or(&out)
                    .trim_end_matches(' ')
                    .ends_with(|p: char| p.is_ascii_digit()) =>
            {
                out.push('Ω');
            }
            '\0'..='\u{1f}' | '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' => {
                refuse(report, &mut out);
            }
            '\u{ff01}'..='\u{ff5e}' if matches!(of(c), Fold::No) => {
                out.push(char::from_u32(c as u32 - 0xff01 + 0x21).unwrap_or(' '));
            }
            '\u{1f1e6}'..='\u{1f1ff}' => {
                let letter = char::from(b'a' + (c as u32 - 0x1f1e6) as u8);
                report.replaced.push(Replacement {
                    original: c.to_string(),
                    spoken: letter.to_string(),
                    source: span(),
                });
                out.extend([' ', letter, ' ']);
            }
            _ => match of(c) {
                Fold::As("—") => {
                    let next = chars.peek().map(|(_, n)| *n);
                    let tight = |c: char| c.is_alphanumeric() || "$£€.%°\"'′″".contains(c);
                    let spaced = out.ends_with(' ') && next == Some(' ');
                    let range = c == '–'
                        && out.ends_with(tight)
                        && next.is_some_and(|n| n.is_alphanumeric() || "$£€".contains(n));
                    out.push_str(match () {
                        _ if range => "-",
                        _ if c == '–' && spaced => "–",
                        _ => " — ",
                    });
                }
                Fold::As(" ") if thousands(&out, &mut chars) => out.push(','),
                // A bullet at the start of a line makes it an item of a list.
                Fold::As(" — ")
                    if out.trim_end_matches(' ').ends_with('\n') || out.trim().is_empty() =>
                {
                    out.push_str("* ");
                }
                Fold::As(same) => out.push_str(same),
                Fold::Keep => out.push(c),
                Fold::Say(words) => {
                    report.replaced.push(Replacement {
                        original: c.to_string(),
                        spoken: words.to_string(),
                        source: span(),
                    });
                    out.push(' ');
                    out.push_str(words);
                    out.push(' ');
                }
                Fold::Nothing => {}
                Fold::Removed => report.replaced.push(Replacement {
                    original: c.to_string(),
                    spoken: String::new(),
                    source: span(),
                }),
                Fold::No => {
                    // Marks are dropped, what is a form of plain letters becomes them.
                    let plain: String =
                        c.nfkd().filter(|c| c.is_ascii_graphic()).take(16).collect();
                    if plain.is_empty() || !c.is_alphanumeric() {
                        refuse(report, &mut out);
                    } else {
                        out.push_str(&plain);
                    }
                }
            },
        }
    }
    map.push(out.len(), text.len());
    Folded { text: out, map, objects }
}

/// Whether a special space stands inside a number: "1 000" with a space that does not break.
fn thousands(out: &str, chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>) -> bool {
    let mut ahead = chars.clone().map(|(_, c)| c);
    let digits = ahead.by_ref().take_while(char::is_ascii_digit).count();
    let tail = out.trim_end_matches(|c: char| c.is_ascii_digit());
    digits == 3 && (1..=3).contains(&(out.len() - tail.len())) && !tail.ends_with('.')
}

fn superscript(c: char) -> char {
    match c {
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        '⁻' => '-',
        _ => c.nfkd().next().unwrap_or('0'),
    }
}

/// What a character outside ASCII becomes before anything else looks at it.
enum Fold {
    /// The same characters as far as reading goes; not worth a line in the report.
    As(&'static str),
    /// A symbol that later rules know.
    Keep,
    /// Words, to be reported.
    Say(&'static str),
    /// Nothing to hear: joiners, marks, variation selectors.
    Nothing,
    /// Nothing to hear, but to be reported as removed.
    Removed,
    /// Cannot be spoken.
    No,
}

/// Folds one character outside ASCII.
fn of(c: char) -> Fold {
    use Fold::{As, Keep, No, Nothing, Removed, Say};
    match c {
        '’' | '‘' | '‚' | '‛' | '′' | 'ʼ' | '´' => As("'"),
        '“' | '”' | '„' | '‟' | '«' | '»' | '″' | '「' | '」' | '『' | '』' => {
            As("\"")
        }
        '‹' | '›' => As("'"),
        '‐' | '‑' | '−' | '﹣' => As("-"),
        '–' | '—' | '―' | '‒' => As("—"),
        '…' => As("..."),
        '⁄' | '∕' => As("/"),
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            As(" ")
        }
        '\u{85}' | '\u{2028}' => As("\n"),
        '\u{2029}' => As("\n\n"),
        '。' | '．' => As(". "),
        '、' | '，' => As(", "),
        '！' => As("! "),
        '？' => As("? "),
        '：' | '；' => As("; "),
        '¿' | '¡' => As(""),
        '•' | '·' | '‣' | '◦' | '▪' | '●' | '○' | '■' | '□' | '►' | '†' | '‡' => {
            As(" — ")
        }
        '\u{ad}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => Removed,
        '\u{300}'..='\u{36f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{1f3fb}'..='\u{1f3ff}' => Nothing,

        '£' | '€' | '¥' | '₹' | '₩' | '₽' | '₿' | '¢' | '°' | 'µ' | '‰' | '²' | '³' | '×' | '½'
        | '¼' | '¾' | '⅓' | '⅔' | '⅛' | '⅜' | '⅝' | '⅞' => Keep,
        'º' => As("°"),
        'ª' => As("a"),
        '℃' => As("°C"),
        '℉' => As("°F"),
        '÷' => Say("divided by"),
        '±' => Say("plus or minus"),
        '≤' => Say("less than or equal to"),
        '≥' => Say("greater than or equal to"),
        '≠' => Say("not equal to"),
        '≈' => Say("approximately"),
        '∞' => Say("infinity"),
        '√' => Say("square root of"),
        '∑' => Say("sum of"),
        '∫' => Say("integral of"),
        '∂' => Say("partial"),
        '∈' => Say("in"),
        '→' | '⇒' | '➡' => Say("to"),
        '←' | '↑' | '↓' | '⇐' | '↔' => Say("arrow"),
        '§' => Say("section"),
        '¶' => Say("paragraph"),
        '©' => Say("copyright"),
        '®' => Say("registered"),
        '™' => Say("trademark"),
        '№' => Say("number"),
        '¹' | '₁' => As("1"),
        '⁰' | '₀' => As("0"),
        '₂' => As("2"),
        '₃' => As("3"),
        '⁴' | '₄' => As("4"),
        '⁵' | '₅' => As("5"),
        '⁶' | '₆' => As("6"),
        '⁷' | '₇' => As("7"),
        '⁸' | '₈' => As("8"),
        '⁹' | '₉' => As("9"),

        // Letters that Unicode does not take apart; the others lose their marks by its tables.
        'Æ' => As("Ae"),
        'æ' => As("ae"),
        'Ǽ' => As("Ae"),
        'ǽ' => As("ae"),
        'Ð' | 'Đ' => As("D"),
        'ð' | 'đ' => As("d"),
        'ə' => As("e"),
        'Ħ' => As("H"),
        'ħ' => As("h"),
        'ı' => As("i"),
        'Ł' => As("L"),
        'ł' => As("l"),
        'Ŋ' => As("N"),
        'ŋ' => As("n"),
        'Ø' | 'Ǿ' => As("O"),
        'ø' | 'ǿ' => As("o"),
        'Œ' => As("Oe"),
        'œ' => As("oe"),
        'ß' | 'ẞ' => As("ss"),
        'Ŧ' => As("T"),
        'ŧ' => As("t"),
        'Þ' => As("Th"),
        'þ' => As("th"),

        'Α' | 'α' | 'Ά' | 'ά' => Say("alpha"),
        'Β' | 'β' => Say("beta"),
        'Γ' | 'γ' => Say("gamma"),
        'Δ' | 'δ' | '∆' => Say("delta"),
        'Ε' | 'ε' | 'Έ' | 'έ' | 'ϵ' => Say("epsilon"),
        'Ζ' | 'ζ' => Say("zeta"),
        'Η' | 'η' | 'Ή' | 'ή' => Say("eta"),
        'Θ' | 'θ' | 'ϑ' => Say("theta"),
        'Ι' | 'ι' | 'Ί' | 'ί' | 'ϊ' | 'ΐ' => Say("iota"),
        'Κ' | 'κ' => Say("kappa"),
        'Λ' | 'λ' => Say("lambda"),
        'Μ' => Say("mu"),
        'μ' => As("µ"),
        'Ν' | 'ν' => Say("nu"),
        'Ξ' | 'ξ' => Say("xi"),
        'Ο' | 'ο' | 'Ό' | 'ό' => Say("omicron"),
        'Π' | 'π' => Say("pi"),
        'Ρ' | 'ρ' => Say("rho"),
        'Σ' | 'σ' | 'ς' => Say("sigma"),
        'Τ' | 'τ' => Say("tau"),
        'Υ' | 'υ' | 'Ύ' | 'ύ' | 'ϋ' => Say("upsilon"),
        'Φ' | 'φ' | 'ϕ' => Say("phi"),
        'Χ' | 'χ' => Say("chi"),
        'Ψ' | 'ψ' => Say("psi"),
        'Ω' | 'ω' | 'Ώ' | 'ώ' => Say("omega"),
        '\u{2126}' => Say("ohms"),

        '😀' | '😃' | '😄' | '😁' | '🙂' | '😊' | '☺' => Say("smiling face"),
        '😂' | '🤣' => Say("laughing face"),
        '😉' => Say("winking face"),
        '😍' | '🥰' => Say("loving face"),
        '😎' => Say("cool face"),
        '🤔' => Say("thinking face"),
        '😢' | '😭' => Say("crying face"),
        '😞' | '😔' | '☹' | '🙁' => Say("sad face"),
        '😡' | '😠' => Say("angry face"),
        '😱' => Say("screaming face"),
        '😴' => Say("sleeping face"),
        '👍' => Say("thumbs up"),
        '👎' => Say("thumbs down"),
        '👏' => Say("clapping hands"),
        '🙏' => Say("folded hands"),
        '👋' => Say("waving hand"),
        '💪' => Say("strong arm"),
        '❤' | '♥' | '💙' | '💚' | '💛' | '💜' | '🖤' => Say("heart"),
        '💔' => Say("broken heart"),
        '🔥' => Say("fire"),
        '🎉' | '🥳' => Say("party"),
        '🚀' => Say("rocket"),
        '✨' => Say("sparkles"),
        '⭐' | '★' | '☆' | '🌟' => Say("star"),
        '☀' | '🌞' => Say("sun"),
        '🌙' => Say("moon"),
        '✅' | '✓' | '✔' => Say("check mark"),
        '❌' | '✗' | '✘' => Say("cross mark"),
        '⚠' => Say("warning"),
        '💡' => Say("light bulb"),
        '🎵' | '🎶' | '♪' | '♫' => Say("music"),
        '☕' => Say("coffee"),
        '🐶' => Say("dog"),
        '🐱' => Say("cat"),
        '📞' | '☎' => Say("telephone"),
        '💯' => Say("one hundred points"),
        '♯' => Say("sharp"),
        '♭' => Say("flat"),
        _ => No,
    }
}
