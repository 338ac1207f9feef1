//! Numbers as English words (American: no "and", no hyphens).

use super::tokens::all_digits;

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SCALES: [(u64, &str); 5] = [
    (1_000_000_000_000_000, "quadrillion"),
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1_000, "thousand"),
];
/// Longer digit strings are read digit by digit.
pub(super) const MAX_DIGITS: usize = 18;

fn below_thousand(n: u64, out: &mut Vec<&'static str>) {
    let n = n as usize;
    if n >= 100 {
        out.push(ONES[n / 100]);
        out.push("hundred");
    }
    match n % 100 {
        0 => {}
        r @ 1..=19 => out.push(ONES[r]),
        r => {
            out.push(TENS[r / 10]);
            if r % 10 != 0 {
                out.push(ONES[r % 10]);
            }
        }
    }
}

/// "one hundred twenty three".
pub(super) fn cardinal(mut n: u64) -> String {
    if n == 0 {
        return "zero".into();
    }
    let mut out = Vec::new();
    for (scale, name) in SCALES {
        if n >= scale {
            below_thousand(n / scale, &mut out);
            out.push(name);
            n %= scale;
        }
    }
    below_thousand(n, &mut out);
    out.join(" ")
}

/// "one hundred twenty third".
pub(super) fn ordinal(n: u64) -> String {
    let words = cardinal(n);
    let (head, last) = match words.rfind(' ') {
        Some(at) => words.split_at(at + 1),
        None => ("", words.as_str()),
    };
    let last = match last {
        "one" => "first".into(),
        "two" => "second".into(),
        "three" => "third".into(),
        "five" => "fifth".into(),
        "eight" => "eighth".into(),
        "nine" => "ninth".into(),
        "twelve" => "twelfth".into(),
        other => match other.strip_suffix('y') {
            Some(stem) => format!("{stem}ieth"),
            None => format!("{other}th"),
        },
    };
    format!("{head}{last}")
}

/// "one two three"; anything but a digit is skipped.
pub(super) fn digits(s: &str) -> String {
    let words: Vec<&str> =
        s.bytes().filter(u8::is_ascii_digit).map(|b| ONES[usize::from(b - b'0')]).collect();
    words.join(" ")
}

/// A string of digits: as a number if it is short and has no leading zero, else digit by
/// digit.
pub(super) fn integer(s: &str) -> String {
    if s.len() > MAX_DIGITS || (s.len() > 1 && s.starts_with('0')) {
        return digits(s);
    }
    s.parse().map_or_else(|_| digits(s), cardinal)
}

/// Whether a four-digit number is read as a year.
pub(super) fn is_year(n: u64) -> bool {
    (1010..2100).contains(&n)
}

/// "nineteen eighty four", "two thousand one", "nineteen oh five".
pub(super) fn year(n: u64) -> String {
    let (high, low) = (n / 100, n % 100);
    if !is_year(n) || (2000..2010).contains(&n) {
        return cardinal(n);
    }
    match low {
        0 => format!("{} hundred", cardinal(high)),
        1..=9 => format!("{} oh {}", cardinal(high), cardinal(low)),
        _ => format!("{} {}", cardinal(high), cardinal(low)),
    }
}

/// The plural of a reading: "nineteen ninety" -> "nineteen nineties".
pub(super) fn plural(words: &str) -> String {
    if let Some(stem) = words.strip_suffix('y') {
        format!("{stem}ies")
    } else if words.ends_with('x') {
        format!("{words}es")
    } else {
        format!("{words}s")
    }
}

/// "one half", "three quarters", "five sixteenths", "one one hundredth", "seven over one
/// hundred".
pub(super) fn fraction(numerator: u64, denominator: u64) -> String {
    let one = numerator == 1;
    match denominator {
        2..=20 => parts(numerator, denominator),
        21.. if one && (denominator < 100 || denominator % 100 == 0) => parts(1, denominator),
        _ => format!("{} over {}", cardinal(numerator), cardinal(denominator)),
    }
}

/// A fraction by its parts, whatever its denominator: "seven one hundredths".
pub(super) fn parts(numerator: u64, denominator: u64) -> String {
    let one = numerator == 1;
    let part = match denominator {
        2 => if one { "half" } else { "halves" }.to_string(),
        4 => if one { "quarter" } else { "quarters" }.to_string(),
        _ if one => ordinal(denominator),
        _ => format!("{}s", ordinal(denominator)),
    };
    format!("{} {part}", cardinal(numerator))
}

const ROMAN: [(&str, u64); 13] = [
    ("M", 1000),
    ("CM", 900),
    ("D", 500),
    ("CD", 400),
    ("C", 100),
    ("XC", 90),
    ("L", 50),
    ("XL", 40),
    ("X", 10),
    ("IX", 9),
    ("V", 5),
    ("IV", 4),
    ("I", 1),
];

/// The value of a Roman numeral below 4000 in its canonical spelling, in capitals.
pub(super) fn roman(s: &str) -> Option<u64> {
    if s.is_empty() || s.len() > 15 {
        return None;
    }
    let (mut rest, mut value) = (s, 0);
    for (part, n) in ROMAN {
        while let Some(tail) = rest.strip_prefix(part) {
            value += n;
            rest = tail;
        }
    }
    // Written as it must be, it reads back the same.
    let (mut n, mut back) = (value, String::with_capacity(s.len()));
    for (part, v) in ROMAN {
        while n >= v {
            back.push_str(part);
            n -= v;
        }
    }
    (rest.is_empty() && value < 4000 && back == s).then_some(value)
}

pub(super) struct Number {
    pub integer: String,
    pub fraction: String,
    pub grouped: bool,
}

impl Number {
    /// Takes a number off the start of `rest`: digits, thousands separators, a fraction.
    pub(super) fn take(rest: &mut &str) -> Option<Self> {
        let s = *rest;
        let b = s.as_bytes();
        let run = |from: usize| {
            from + b[from..].iter().position(|c| !c.is_ascii_digit()).unwrap_or(b.len() - from)
        };
        let mut end = run(0);
        let mut integer = s[..end].to_string();
        let mut grouped = false;
        // "1.000.000": two groups and more, or it is a decimal.
        if (1..=3).contains(&end)
            && b[0] != b'0'
            && b[end..].iter().take(2 * 4).filter(|c| **c == b'.').count() == 2
        {
            let mut stop = end;
            while b.get(stop) == Some(&b'.') && run(stop + 1) == stop + 4 {
                stop += 4;
            }
            if stop >= end + 8 && b.get(stop) != Some(&b'.') {
                integer = s[..stop].replace('.', "");
                end = stop;
                grouped = true;
                *rest = &s[end..];
                return Some(Self { integer, fraction: String::new(), grouped });
            }
        }
        while (1..=3).contains(&(if grouped { 3 } else { end }))
            && b.get(end).is_some_and(|c| matches!(c, b',' | b'\'' | b'_'))
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

    pub(super) fn words(&self) -> String {
        let whole = if self.integer.is_empty() { "zero".into() } else { integer(&self.integer) };
        if self.fraction.is_empty() {
            return whole;
        }
        format!("{whole} point {}", digits(&self.fraction))
    }

    pub(super) fn is_one(&self) -> bool {
        self.integer == "1" && self.fraction.is_empty()
    }

    pub(super) fn year(&self) -> Option<u64> {
        if self.grouped || !self.fraction.is_empty() {
            return None;
        }
        year_number(&self.integer).filter(|y| is_year(*y))
    }
}

/// A year of four digits, 1000 to 2999.
pub(super) fn year_number(s: &str) -> Option<u64> {
    if s.len() != 4 || !all_digits(s) {
        return None;
    }
    s.parse().ok().filter(|y| (1000..3000).contains(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(cardinal(0), "zero");
        assert_eq!(cardinal(1_000_000), "one million");
        assert_eq!(
            cardinal(1_234_567),
            "one million two hundred thirty four thousand five hundred sixty seven"
        );
        assert_eq!(cardinal(100_000_000_000_000_000), "one hundred quadrillion");
        assert_eq!(ordinal(20), "twentieth");
        assert_eq!(ordinal(112), "one hundred twelfth");
        assert_eq!(ordinal(1000), "one thousandth");
        assert_eq!(integer("007"), "zero zero seven");
        assert_eq!(integer("9999999999999999999"), ["nine"; 19].join(" "));
        assert_eq!(year(1900), "nineteen hundred");
        assert_eq!(year(2000), "two thousand");
        assert_eq!(year(2026), "twenty twenty six");
        assert_eq!(roman("XXXIX"), Some(39));
        assert_eq!(roman("VIII"), Some(8));
        assert_eq!(roman("IIII"), None);
        assert_eq!(roman("XM"), None);
        for n in 0..3000 {
            assert!(!cardinal(n).contains("  ") && !ordinal(n).is_empty());
        }
    }
}
