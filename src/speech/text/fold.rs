//! Every character becomes ASCII or one of a few symbols that later rules know.

use super::{Replacement, Report, Unspeakable};

pub(super) fn fold(text: &str, base: usize, report: &mut Report) -> String {
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
            '\u{ff01}'..='\u{ff5e}' if matches!(of(c), Fold::No) => {
                out.push(char::from_u32(c as u32 - 0xff01 + 0x21).unwrap_or(' '));
            }
            '\u{1f1e6}'..='\u{1f1ff}' => {
                let letter = char::from(b'a' + (c as u32 - 0x1f1e6) as u8);
                report
                    .replaced
                    .push(Replacement { original: c.to_string(), spoken: letter.to_string() });
                out.extend([' ', letter, ' ']);
            }
            _ => match of(c) {
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

        'À' | 'Á' | 'Â' | 'Ã' | 'Ä' | 'Å' | 'Ā' | 'Ă' | 'Ą' | 'Ǎ' | 'Ạ' | 'Ả' | 'Ấ' | 'Ầ' | 'Ẩ'
        | 'Ẫ' | 'Ậ' | 'Ắ' | 'Ằ' | 'Ẳ' | 'Ẵ' | 'Ặ' => As("A"),
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' | 'ǎ' | 'ạ' | 'ả' | 'ấ' | 'ầ' | 'ẩ'
        | 'ẫ' | 'ậ' | 'ắ' | 'ằ' | 'ẳ' | 'ẵ' | 'ặ' => As("a"),
        'Æ' | 'Ǽ' => As("Ae"),
        'æ' | 'ǽ' => As("ae"),
        'Ç' | 'Ć' | 'Ĉ' | 'Ċ' | 'Č' => As("C"),
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => As("c"),
        'Ð' | 'Ď' | 'Đ' => As("D"),
        'ð' | 'ď' | 'đ' => As("d"),
        'È' | 'É' | 'Ê' | 'Ë' | 'Ē' | 'Ĕ' | 'Ė' | 'Ę' | 'Ě' | 'Ẹ' | 'Ẻ' | 'Ẽ' | 'Ế' | 'Ề' | 'Ể'
        | 'Ễ' | 'Ệ' => As("E"),
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' | 'ẹ' | 'ẻ' | 'ẽ' | 'ế' | 'ề' | 'ể'
        | 'ễ' | 'ệ' | 'ə' => As("e"),
        'Ĝ' | 'Ğ' | 'Ġ' | 'Ģ' | 'Ǧ' => As("G"),
        'ĝ' | 'ğ' | 'ġ' | 'ģ' | 'ǧ' => As("g"),
        'Ĥ' | 'Ħ' => As("H"),
        'ĥ' | 'ħ' => As("h"),
        'Ì' | 'Í' | 'Î' | 'Ï' | 'Ĩ' | 'Ī' | 'Ĭ' | 'Į' | 'İ' | 'Ǐ' | 'Ỉ' | 'Ị' => {
            As("I")
        }
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' | 'ǐ' | 'ỉ' | 'ị' => {
            As("i")
        }
        'Ĵ' => As("J"),
        'ĵ' => As("j"),
        'Ķ' | 'Ǩ' => As("K"),
        'ķ' | 'ǩ' => As("k"),
        'Ĺ' | 'Ļ' | 'Ľ' | 'Ŀ' | 'Ł' => As("L"),
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => As("l"),
        'Ñ' | 'Ń' | 'Ņ' | 'Ň' | 'Ŋ' | 'Ǹ' => As("N"),
        'ñ' | 'ń' | 'ņ' | 'ň' | 'ŋ' | 'ǹ' | 'ŉ' => As("n"),
        'Ò' | 'Ó' | 'Ô' | 'Õ' | 'Ö' | 'Ø' | 'Ō' | 'Ŏ' | 'Ő' | 'Ǒ' | 'Ơ' | 'Ọ' | 'Ỏ' | 'Ố' | 'Ồ'
        | 'Ổ' | 'Ỗ' | 'Ộ' | 'Ớ' | 'Ờ' | 'Ở' | 'Ỡ' | 'Ợ' => As("O"),
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'ǒ' | 'ơ' | 'ọ' | 'ỏ' | 'ố' | 'ồ'
        | 'ổ' | 'ỗ' | 'ộ' | 'ớ' | 'ờ' | 'ở' | 'ỡ' | 'ợ' => As("o"),
        'Œ' => As("Oe"),
        'œ' => As("oe"),
        'Ŕ' | 'Ŗ' | 'Ř' => As("R"),
        'ŕ' | 'ŗ' | 'ř' => As("r"),
        'Ś' | 'Ŝ' | 'Ş' | 'Š' | 'Ș' => As("S"),
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' | 'ſ' => As("s"),
        'ß' | 'ẞ' => As("ss"),
        'Ţ' | 'Ť' | 'Ŧ' | 'Ț' => As("T"),
        'ţ' | 'ť' | 'ŧ' | 'ț' => As("t"),
        'Þ' => As("Th"),
        'þ' => As("th"),
        'Ù' | 'Ú' | 'Û' | 'Ü' | 'Ũ' | 'Ū' | 'Ŭ' | 'Ů' | 'Ű' | 'Ų' | 'Ǔ' | 'Ư' | 'Ụ' | 'Ủ' | 'Ứ'
        | 'Ừ' | 'Ử' | 'Ữ' | 'Ự' => As("U"),
        'ù' | 'ú' | 'û' | 'ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' | 'ǔ' | 'ư' | 'ụ' | 'ủ' | 'ứ'
        | 'ừ' | 'ử' | 'ữ' | 'ự' => As("u"),
        'Ŵ' => As("W"),
        'ŵ' => As("w"),
        'Ý' | 'Ŷ' | 'Ÿ' | 'Ỳ' | 'Ỵ' | 'Ỷ' | 'Ỹ' => As("Y"),
        'ý' | 'ŷ' | 'ÿ' | 'ỳ' | 'ỵ' | 'ỷ' | 'ỹ' => As("y"),
        'Ź' | 'Ż' | 'Ž' => As("Z"),
        'ź' | 'ż' | 'ž' => As("z"),
        'ﬀ' => As("ff"),
        'ﬁ' => As("fi"),
        'ﬂ' => As("fl"),
        'ﬃ' => As("ffi"),
        'ﬄ' => As("ffl"),

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
