//! Text cut into words and marks, and put together again as phonemes.

use std::borrow::Cow;

use super::Origin;

/// A word with the marks around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// As written, normalised: letters, with hyphens and apostrophes inside. Capitals help:
    /// `USA` is spelt, `Polish` differs from `polish`.
    pub text: &'a str,
    /// `“` and `(` in front.
    pub before: &'a str,
    /// One of `, . ? ! ; : …` or none, then `”` and `)`, or `)` and then the mark; last ` —`
    /// if a dash follows.
    pub after: &'a str,
    /// Its pronunciation in IPA or in the symbols of the set, if it came with one.
    pub phonemes: Option<&'a str>,
}

/// A word as it will be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// As written.
    pub text: String,
    /// Its phonemes; empty if it has no letter or digit.
    pub phonemes: String,
    /// Marks in front.
    pub before: String,
    /// Marks behind.
    pub after: String,
    /// Where the pronunciation comes from.
    pub origin: Origin,
}

/// The words in one string, closed by a mark.
pub fn render(spoken: &[Spoken]) -> String {
    let mut out = String::with_capacity(spoken.iter().map(|s| s.phonemes.len() + 4).sum());
    for s in spoken {
        if s.phonemes.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&s.before);
        out.push_str(&s.phonemes);
        out.push_str(&s.after);
    }
    let tail = out.trim_end_matches([')', '”']).len();
    if tail > 0 && !out[..tail].ends_with(['.', '?', '!', '…', ',', ';', ':', '—']) {
        out.insert(tail, '.');
    }
    out
}

/// Latin letters without their accents, typographic apostrophes and hyphens plain.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let plain = match c {
            '‘' | '’' | 'ʼ' | '′' => "'",
            '‐' | '‑' => "-",
            'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' => "a",
            'À' | 'Á' | 'Â' | 'Ã' | 'Ä' | 'Å' | 'Ā' => "A",
            'æ' => "ae",
            'Æ' => "Ae",
            'ç' | 'ć' | 'č' => "c",
            'Ç' | 'Ć' | 'Č' => "C",
            'ď' | 'đ' | 'ð' => "d",
            'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ę' | 'ě' => "e",
            'È' | 'É' | 'Ê' | 'Ë' | 'Ē' => "E",
            'ğ' => "g",
            'ì' | 'í' | 'î' | 'ï' | 'ī' | 'ı' => "i",
            'Ì' | 'Í' | 'Î' | 'Ï' | 'İ' => "I",
            'ł' => "l",
            'Ł' => "L",
            'ñ' | 'ń' | 'ň' => "n",
            'Ñ' => "N",
            'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ő' => "o",
            'Ò' | 'Ó' | 'Ô' | 'Õ' | 'Ö' | 'Ø' => "O",
            'œ' => "oe",
            'ř' => "r",
            'ś' | 'š' | 'ş' | 'ș' => "s",
            'Ś' | 'Š' | 'Ş' => "S",
            'ß' => "ss",
            'ť' | 'ț' => "t",
            'þ' => "th",
            'Þ' => "Th",
            'ù' | 'ú' | 'û' | 'ü' | 'ū' | 'ů' | 'ű' => "u",
            'Ù' | 'Ú' | 'Û' | 'Ü' => "U",
            'ý' | 'ÿ' => "y",
            'Ý' => "Y",
            'ź' | 'ż' | 'ž' => "z",
            'Ź' | 'Ż' | 'Ž' => "Z",
            _ => {
                out.push(c);
                continue;
            }
        };
        out.push_str(plain);
    }
    Cow::Owned(out)
}

/// Words that begin with an apostrophe of their own.
const ELIDED: &[&str] = &["tis", "twas", "twere", "em", "til", "cause", "bout", "round", "n"];

/// Cuts a folded text into words.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let letter = |i: usize| chars.get(i).is_some_and(|c| c.1.is_alphanumeric());
    let mut out: Vec<Word<'_>> = Vec::new();
    let mut before = Before::default();
    let mut after = After::default();
    let mut i = 0;
    while i < chars.len() {
        let (start, c) = chars[i];
        let elided = c == '\'' && letter(i + 1) && !(i > 0 && letter(i - 1)) && {
            let rest = &text[start + 1..];
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            ELIDED.iter().any(|w| w.eq_ignore_ascii_case(&rest[..end]))
        };
        if c.is_alphanumeric() || elided {
            let mut end = i + 1;
            while end < chars.len() {
                let joint = matches!(chars[end].1, '\'' | '-' | '/' | '.' | '_' | '&');
                // "students'": the apostrophe belongs to the word, a quote's end does no harm.
                let owner = chars[end].1 == '\'' && matches!(chars[end - 1].1, 's' | 'S');
                if letter(end) || joint && letter(end + 1) {
                    end += 1;
                } else if owner {
                    end += 1;
                    break;
                } else {
                    break;
                }
            }
            let stop = chars.get(end).map_or(text.len(), |c| c.0);
            if let Some(last) = out.last_mut() {
                last.after = after.take();
            }
            after = After::default();
            out.push(Word {
                text: &text[start..stop],
                before: before.take(),
                after: "",
                phonemes: None,
            });
            i = end;
            continue;
        }
        let spaced = i == 0 || chars[i - 1].1.is_whitespace();
        let opens = !chars.get(i + 1).is_none_or(|c| c.1.is_whitespace());
        match c {
            '"' | '“' | '”' | '«' | '»' | '„' => {
                let opening = match c {
                    '“' | '«' | '„' => true,
                    '”' | '»' => false,
                    _ => opens && (spaced || !i.checked_sub(1).is_some_and(letter) && before.any()),
                };
                if opening {
                    before.quote = true;
                } else {
                    after.quote = true;
                }
            }
            '(' | '[' => before.bracket = true,
            ')' | ']' => after.bracket = true,
            '—' | '–' | '―' => after.dash = true,
            '-' => {
                let double = i > 0 && chars[i - 1].1 == '-';
                after.dash |= double || spaced && !opens;
            }
            '…' => after.mark('…'),
            '.' if i > 0 && chars[i - 1].1 == '.' => after.mark('…'),
            ',' | '.' | '?' | '!' | ';' | ':' => after.mark(c),
            _ => {}
        }
        i += 1;
    }
    if let Some(last) = out.last_mut() {
        after.dash = false;
        last.after = after.take();
    }
    out
}

/// Marks in front of a word.
#[derive(Default)]
struct Before {
    quote: bool,
    bracket: bool,
}

impl Before {
    fn any(&self) -> bool {
        self.quote || self.bracket
    }

    fn take(&mut self) -> &'static str {
        let taken = std::mem::take(self);
        match (taken.bracket, taken.quote) {
            (false, false) => "",
            (false, true) => "“",
            (true, false) => "(",
            (true, true) => "(“",
        }
    }
}

/// Marks behind a word.
#[derive(Default)]
struct After {
    mark: Option<char>,
    quote: bool,
    bracket: bool,
    dash: bool,
    /// The mark came behind the bracket.
    outside: bool,
}

impl After {
    /// The strongest mark of a run stays.
    fn mark(&mut self, c: char) {
        const STRENGTH: &str = ",:;.…!?";
        let rank = |c: char| STRENGTH.chars().position(|m| m == c);
        if self.mark.is_none_or(|m| rank(c) > rank(m)) {
            self.mark = Some(c);
            self.outside = self.bracket;
        }
    }

    /// One string of a fixed table, so that words need not own their marks.
    fn take(&mut self) -> &'static str {
        /// A quote or bracket without and with a dash; then a bracket with the mark outside.
        macro_rules! row {
            ($m:literal) => {
                [
                    $m,
                    concat!($m, "”"),
                    concat!($m, ")"),
                    concat!($m, "”)"),
                    concat!($m, " —"),
                    concat!($m, "” —"),
                    concat!($m, ") —"),
                    concat!($m, "”) —"),
                    concat!(")", $m),
                    concat!("”)", $m),
                    concat!(")", $m, " —"),
                    concat!("”)", $m, " —"),
                ]
            };
        }
        /// No mark, then the marks in the order of `MARKS`.
        const TABLE: [[&str; 12]; 8] =
            [row!(""), row!(","), row!("."), row!("?"), row!("!"), row!(";"), row!(":"), row!("…")];
        const MARKS: &str = ",.?!;:…";
        let taken = std::mem::take(self);
        let row = taken.mark.and_then(|c| MARKS.chars().position(|m| m == c)).map_or(0, |p| p + 1);
        let (quote, dash) = (usize::from(taken.quote), usize::from(taken.dash));
        if taken.bracket && taken.outside {
            TABLE[row][8 + quote + 2 * dash]
        } else {
            TABLE[row][quote + 2 * usize::from(taken.bracket) + 4 * dash]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_marks() {
        let cut = |t: &str| -> Vec<String> {
            words(t).iter().map(|w| format!("{}|{}|{}", w.before, w.text, w.after)).collect()
        };
        assert_eq!(cut("Hello, world"), ["|Hello|,", "|world|"]);
        assert_eq!(cut("He said \"no!\" - twice."), ["|He|", "|said|", "“|no|!” —", "|twice|."]);
        assert_eq!(cut("well-known, isn't it?!"), ["|well-known|,", "|isn't|", "|it|?"]);
        assert_eq!(cut("(in fact) so... yes"), ["(|in|", "|fact|)", "|so|…", "|yes|"]);
        assert_eq!(cut("(in) b. (c.)"), ["(|in|)", "|b|.", "(|c|.)"]);
        assert_eq!(cut("(in \"fact\"); so"), ["(|in|", "“|fact|”);", "|so|"]);
        assert_eq!(cut("a—b -- c"), ["|a| —", "|b| —", "|c|"]);
        assert_eq!(
            cut("the students' books 'quoted' 'tis"),
            ["|the|", "|students'|", "|books|", "|quoted|", "|'tis|"]
        );
        assert_eq!(cut("... ?"), Vec::<String>::new());
    }

    #[test]
    fn folded() {
        assert_eq!(fold("naïve café’s Zoë"), "naive cafe's Zoe");
        assert_eq!(fold("plain"), "plain");
    }
}
