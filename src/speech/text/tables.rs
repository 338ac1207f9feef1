//! What is written and how it is said: abbreviations, units, symbols, letters, emoji.

/// When an abbreviation's full stop also ends the sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Never while something follows: titles, "e.g.".
    Never,
    /// If a capital or nothing follows: "etc.", "Inc.".
    Capital,
    /// If a word that usually opens a sentence follows: "U.S.", "p.m.".
    Opener,
}

/// Abbreviations that need their full stop: (lower case, spoken, when the stop ends).
pub(super) const WITH_STOP: &[(&str, &str, Stop)] = &[
    ("mr", "mister", Stop::Never),
    ("mrs", "missus", Stop::Never),
    ("ms", "miss", Stop::Never),
    ("prof", "professor", Stop::Never),
    ("gen", "general", Stop::Never),
    ("sen", "senator", Stop::Never),
    ("rep", "representative", Stop::Never),
    ("gov", "governor", Stop::Never),
    ("pres", "president", Stop::Never),
    ("capt", "captain", Stop::Never),
    ("cmdr", "commander", Stop::Never),
    ("lt", "lieutenant", Stop::Never),
    ("col", "colonel", Stop::Never),
    ("sgt", "sergeant", Stop::Never),
    ("maj", "major", Stop::Never),
    ("rev", "reverend", Stop::Never),
    ("hon", "honorable", Stop::Never),
    ("mt", "mount", Stop::Never),
    ("vs", "versus", Stop::Never),
    ("e.g", "for example", Stop::Never),
    ("eg", "for example", Stop::Never),
    ("i.e", "that is", Stop::Never),
    ("ie", "that is", Stop::Never),
    ("cf", "compare", Stop::Never),
    ("viz", "namely", Stop::Never),
    ("approx", "approximately", Stop::Never),
    ("incl", "including", Stop::Never),
    ("ca", "circa", Stop::Never),
    ("nos", "numbers", Stop::Never),
    ("vols", "volumes", Stop::Never),
    ("figs", "figures", Stop::Never),
    ("pp", "pages", Stop::Never),
    ("etc", "et cetera", Stop::Capital),
    ("inc", "incorporated", Stop::Capital),
    ("ltd", "limited", Stop::Capital),
    ("co", "company", Stop::Capital),
    ("corp", "corporation", Stop::Capital),
    ("bros", "brothers", Stop::Capital),
    ("jr", "junior", Stop::Capital),
    ("sr", "senior", Stop::Capital),
    ("esq", "esquire", Stop::Capital),
    ("ave", "avenue", Stop::Capital),
    ("blvd", "boulevard", Stop::Capital),
    ("rd", "road", Stop::Capital),
    ("dept", "department", Stop::Capital),
    ("univ", "university", Stop::Capital),
    ("assn", "association", Stop::Capital),
    ("govt", "government", Stop::Capital),
    ("avg", "average", Stop::Capital),
    ("misc", "miscellaneous", Stop::Capital),
    ("tel", "telephone", Stop::Never),
    ("jan", "january", Stop::Capital),
    ("feb", "february", Stop::Capital),
    ("aug", "august", Stop::Capital),
    ("sept", "september", Stop::Capital),
    ("oct", "october", Stop::Capital),
    ("nov", "november", Stop::Capital),
    ("mon", "monday", Stop::Capital),
    ("tue", "tuesday", Stop::Capital),
    ("thu", "thursday", Stop::Capital),
    ("fri", "friday", Stop::Capital),
    ("temp", "temperature", Stop::Capital),
    ("tues", "tuesday", Stop::Capital),
    ("thurs", "thursday", Stop::Capital),
    ("lbs", "pounds", Stop::Capital),
    ("oz", "ounces", Stop::Capital),
    ("ft", "feet", Stop::Capital),
];

/// Abbreviations that need a full stop and a number after it.
pub(super) const BEFORE_NUMBER: &[(&str, &str)] = &[
    ("no", "number"),
    ("p", "page"),
    ("c", "circa"),
    ("vol", "volume"),
    ("ch", "chapter"),
    ("fig", "figure"),
    ("sec", "section"),
    ("eq", "equation"),
    ("ver", "version"),
    ("ext", "extension"),
    ("art", "article"),
    ("pt", "part"),
];

/// Understood without a full stop as well.
pub(super) const WITHOUT_STOP: &[(&str, &str)] = &[
    ("mr", "mister"),
    ("mrs", "missus"),
    ("dr", "doctor"),
    ("vs", "versus"),
    ("etc", "et cetera"),
    ("ok", "okay"),
    ("w/", "with"),
    ("w/o", "without"),
    ("b/c", "because"),
    ("and/or", "and or"),
    ("c/o", "care of"),
    ("n/a", "not applicable"),
    ("24/7", "twenty four seven"),
    ("9/11", "nine eleven"),
    ("at&t", "a t and t"),
    ("c#", "c sharp"),
    ("f#", "f sharp"),
    ("phd", "p h d"),
    ("ph.d", "p h d"),
];

pub(super) const MONTHS: &[(&str, &str)] = &[
    ("january", "january"),
    ("february", "february"),
    ("march", "march"),
    ("april", "april"),
    ("may", "may"),
    ("june", "june"),
    ("july", "july"),
    ("august", "august"),
    ("september", "september"),
    ("october", "october"),
    ("november", "november"),
    ("december", "december"),
    ("jan", "january"),
    ("feb", "february"),
    ("mar", "march"),
    ("apr", "april"),
    ("jun", "june"),
    ("jul", "july"),
    ("aug", "august"),
    ("sep", "september"),
    ("sept", "september"),
    ("oct", "october"),
    ("nov", "november"),
    ("dec", "december"),
];

/// Units: (written, one, many). Case matters.
pub(super) const UNITS: &[(&str, &str, &str)] = &[
    ("%", "percent", "percent"),
    ("‰", "per mille", "per mille"),
    ("°", "degree", "degrees"),
    ("°C", "degree celsius", "degrees celsius"),
    ("°F", "degree fahrenheit", "degrees fahrenheit"),
    ("km", "kilometer", "kilometers"),
    ("m", "meter", "meters"),
    ("cm", "centimeter", "centimeters"),
    ("mm", "millimeter", "millimeters"),
    ("µm", "micrometer", "micrometers"),
    ("nm", "nanometer", "nanometers"),
    ("mi", "mile", "miles"),
    ("ft", "foot", "feet"),
    ("yd", "yard", "yards"),
    ("yds", "yard", "yards"),
    ("kg", "kilogram", "kilograms"),
    ("g", "gram", "grams"),
    ("mg", "milligram", "milligrams"),
    ("µg", "microgram", "micrograms"),
    ("lb", "pound", "pounds"),
    ("lbs", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("l", "liter", "liters"),
    ("L", "liter", "liters"),
    ("ml", "milliliter", "milliliters"),
    ("mL", "milliliter", "milliliters"),
    ("gal", "gallon", "gallons"),
    ("s", "second", "seconds"),
    ("ms", "millisecond", "milliseconds"),
    ("µs", "microsecond", "microseconds"),
    ("ns", "nanosecond", "nanoseconds"),
    ("min", "minute", "minutes"),
    ("mins", "minute", "minutes"),
    ("sec", "second", "seconds"),
    ("secs", "second", "seconds"),
    ("h", "hour", "hours"),
    ("hr", "hour", "hours"),
    ("hrs", "hour", "hours"),
    ("yr", "year", "years"),
    ("yrs", "year", "years"),
    ("Hz", "hertz", "hertz"),
    ("kHz", "kilohertz", "kilohertz"),
    ("MHz", "megahertz", "megahertz"),
    ("GHz", "gigahertz", "gigahertz"),
    ("kB", "kilobyte", "kilobytes"),
    ("KB", "kilobyte", "kilobytes"),
    ("MB", "megabyte", "megabytes"),
    ("GB", "gigabyte", "gigabytes"),
    ("TB", "terabyte", "terabytes"),
    ("PB", "petabyte", "petabytes"),
    ("KiB", "kibibyte", "kibibytes"),
    ("MiB", "mebibyte", "mebibytes"),
    ("GiB", "gibibyte", "gibibytes"),
    ("TiB", "tebibyte", "tebibytes"),
    ("kbps", "kilobit per second", "kilobits per second"),
    ("Mbps", "megabit per second", "megabits per second"),
    ("Gbps", "gigabit per second", "gigabits per second"),
    ("W", "watt", "watts"),
    ("kW", "kilowatt", "kilowatts"),
    ("MW", "megawatt", "megawatts"),
    ("GW", "gigawatt", "gigawatts"),
    ("Wh", "watt hour", "watt hours"),
    ("kWh", "kilowatt hour", "kilowatt hours"),
    ("V", "volt", "volts"),
    ("mV", "millivolt", "millivolts"),
    ("kV", "kilovolt", "kilovolts"),
    ("mA", "milliamp", "milliamps"),
    ("mAh", "milliamp hour", "milliamp hours"),
    ("kJ", "kilojoule", "kilojoules"),
    ("cal", "calorie", "calories"),
    ("kcal", "kilocalorie", "kilocalories"),
    ("Pa", "pascal", "pascals"),
    ("kPa", "kilopascal", "kilopascals"),
    ("hPa", "hectopascal", "hectopascals"),
    ("psi", "p s i", "p s i"),
    ("mph", "mile per hour", "miles per hour"),
    ("km/h", "kilometer per hour", "kilometers per hour"),
    ("kph", "kilometer per hour", "kilometers per hour"),
    ("rpm", "r p m", "r p m"),
    ("fps", "frame per second", "frames per second"),
    ("dB", "decibel", "decibels"),
    ("tbsp", "tablespoon", "tablespoons"),
    ("tsp", "teaspoon", "teaspoons"),
    ("px", "pixel", "pixels"),
    ("ha", "hectare", "hectares"),
    ("m/s²", "meter per second squared", "meters per second squared"),
    ("m²", "square meter", "square meters"),
    ("km²", "square kilometer", "square kilometers"),
    ("cm²", "square centimeter", "square centimeters"),
    ("m³", "cubic meter", "cubic meters"),
    ("cm³", "cubic centimeter", "cubic centimeters"),
];

/// Single letters that are units even when a space stands before them.
pub(super) const DETACHED_LETTERS: &str = "mglLshVW";

/// Multipliers after an amount of money: (written, spoken). Case matters.
pub(super) const AMOUNTS: &[(&str, &str)] = &[
    ("k", "thousand"),
    ("K", "thousand"),
    ("m", "million"),
    ("M", "million"),
    ("mn", "million"),
    ("B", "billion"),
    ("b", "billion"),
    ("bn", "billion"),
    ("T", "trillion"),
    ("tn", "trillion"),
];

/// Currency signs: (sign, one, many, one part, many parts).
pub(super) const CURRENCIES: &[(char, &str, &str, &str, &str)] = &[
    ('$', "dollar", "dollars", "cent", "cents"),
    ('£', "pound", "pounds", "penny", "pence"),
    ('€', "euro", "euros", "cent", "cents"),
    ('¥', "yen", "yen", "sen", "sen"),
    ('₹', "rupee", "rupees", "paisa", "paise"),
    ('₩', "won", "won", "jeon", "jeon"),
    ('₽', "ruble", "rubles", "kopek", "kopeks"),
    ('₿', "bitcoin", "bitcoins", "", ""),
];

/// Capitals that are read as a word: (written, spoken).
pub(super) const READ: &[(&str, &str)] = &[
    ("NASA", "nasa"),
    ("NATO", "nato"),
    ("ASCII", "askey"),
    ("JPEG", "jay peg"),
    ("OK", "okay"),
    ("GIF", "gif"),
    ("RAM", "ram"),
    ("ROM", "rom"),
    ("LAN", "lan"),
    ("WAN", "wan"),
    ("PIN", "pin"),
    ("SIM", "sim"),
    ("ZIP", "zip"),
    ("VAT", "v a t"),
    ("AIDS", "aids"),
    ("FIFA", "fifa"),
    ("UEFA", "u e f a"),
    ("OPEC", "opec"),
    ("SWAT", "swat"),
    ("FEMA", "fema"),
    ("OSHA", "osha"),
    ("BIOS", "bios"),
    ("JSON", "jason"),
    ("YAML", "yamel"),
    ("TOML", "tomel"),
    ("UUID", "u u i d"),
    ("ISO", "i s o"),
    ("IEEE", "i triple e"),
    ("NAACP", "n double a c p"),
    ("ONNX", "onyx"),
];

/// Capitals that are spelt although they look like words.
pub(super) const SPELT: &[&str] = &[
    "USA", "FBI", "CIA", "API", "CPU", "GPU", "NPU", "TPU", "URL", "USB", "ATM", "CEO", "CFO",
    "CTO", "DIY", "EU", "FAQ", "GUI", "IBM", "ID", "IOU", "IP", "IQ", "IRS", "ISP", "IT", "LED",
    "MIT", "OS", "RSA", "SOS", "UI", "UK", "UN", "US", "UFO", "VIP", "AI", "AM", "PM", "AC", "DC",
    "TV", "CV", "PC", "NBA", "NFL", "BBC", "CNN", "DNA", "RNA", "HIV", "EPA", "GPS", "PDF", "ADHD",
    "UCLA", "IDE", "SUV", "UV", "ASAP", "LLM", "TTS", "SDK", "CLI", "HDMI", "NSA", "EUR", "USD",
    "GBP", "UTC", "EST", "IMF", "WHO",
];

/// Short words that are words in capitals too.
pub(super) const SHORT_WORDS: &[&str] = &[
    "a", "i", "an", "as", "at", "be", "by", "do", "go", "he", "if", "in", "is", "me", "my", "no",
    "of", "oh", "on", "or", "so", "to", "up", "we", "all", "and", "any", "are", "ask", "bad",
    "big", "bit", "but", "can", "day", "did", "end", "far", "few", "for", "get", "god", "got",
    "had", "has", "her", "him", "his", "hot", "how", "its", "job", "key", "law", "let", "lot",
    "man", "may", "men", "mom", "dad", "new", "not", "now", "off", "old", "one", "our", "out",
    "own", "put", "run", "say", "see", "set", "she", "sit", "six", "stop", "ten", "the", "too",
    "top", "try", "two", "use", "war", "was", "way", "why", "win", "won", "yes", "yet", "you",
    "red", "box", "boy", "car", "cat", "dog", "eat", "fun", "hey", "wow",
];

/// Without a vowel, and still not spelt.
pub(super) const VOWELLESS: &[&str] = &[
    "hm", "hmm", "hmmm", "mm", "mmm", "mhm", "shh", "shhh", "sh", "psst", "pst", "brr", "brrr",
    "nth", "tsk", "zzz", "grr", "grrr", "pfft", "nd", "rd", "th", "st", "mr", "mrs", "cwm", "ll",
    "ve", "ms",
];

/// Names that a Roman numeral may follow as an ordinal.
pub(super) const REGNAL: &[&str] = &[
    "albert",
    "alexander",
    "alfonso",
    "benedict",
    "boniface",
    "catherine",
    "charles",
    "christian",
    "clement",
    "constantine",
    "darius",
    "edward",
    "elizabeth",
    "ferdinand",
    "francis",
    "frederick",
    "george",
    "gregory",
    "gustav",
    "henry",
    "innocent",
    "ivan",
    "james",
    "john",
    "julius",
    "leo",
    "leopold",
    "louis",
    "margaret",
    "mary",
    "napoleon",
    "nicholas",
    "otto",
    "paul",
    "peter",
    "philip",
    "pius",
    "ptolemy",
    "ramses",
    "ramesses",
    "richard",
    "robert",
    "rudolf",
    "sixtus",
    "thutmose",
    "urban",
    "victor",
    "wilhelm",
    "william",
    "xerxes",
];

/// Words that a Roman numeral may follow as a number.
pub(super) const NUMBERED: &[&str] = &[
    "act", "appendix", "article", "book", "bowl", "chapter", "class", "figure", "grade", "level",
    "mark", "part", "phase", "rocky", "scene", "section", "stage", "table", "title", "type",
    "volume", "war",
];

/// Words before which a clause is best cut.
pub(super) const CONJUNCTIONS: &[&str] = &[
    "and", "but", "or", "nor", "so", "yet", "because", "although", "though", "while", "when",
    "where", "which", "who", "whose", "that", "if", "unless", "until", "since", "after", "before",
    "than", "then", "whereas", "however",
];

/// Words before which a clause may be cut if nothing better is near.
pub(super) const PREPOSITIONS: &[&str] = &[
    "as", "with", "without", "from", "into", "for", "to", "in", "on", "at", "by", "of", "about",
    "over", "under", "between", "through", "against", "during",
];

/// Abbreviations of `WITH_STOP` that are one without a capital too.
pub(super) const SMALL: &[&str] = &[
    "mr", "mrs", "vs", "e.g", "eg", "i.e", "ie", "cf", "viz", "approx", "incl", "ca", "nos",
    "vols", "figs", "pp", "etc", "avg", "misc", "lbs", "oz", "ft", "dept", "govt", "tel", "temp",
];

/// Abbreviations spelt with full stops inside that are not somebody's initials.
pub(super) const DOTTED: &[&str] = &[
    "a.m", "p.m", "u.s", "u.k", "u.n", "e.u", "u.s.a", "d.c", "l.a", "n.y", "b.a", "m.a", "b.c",
    "a.d", "m.d", "ph.d", "b.sc", "m.sc",
];

/// Words that usually open a sentence.
pub(super) const OPENERS: &[&str] = &[
    "the", "a", "an", "i", "he", "she", "it", "we", "you", "they", "this", "that", "these",
    "those", "there", "here", "but", "and", "so", "then", "in", "on", "at", "when", "while", "if",
    "what", "who", "why", "how", "where", "my", "his", "her", "our", "their", "its", "as", "for",
    "after", "before", "however", "no", "yes", "not", "let", "please", "now", "today", "one",
    "some", "many", "most", "all",
];

/// Two symbols that are one.
pub(super) const PAIRS: &[(&str, &str)] = &[
    ("==", "equals"),
    ("!=", "not equal to"),
    ("<=", "less than or equal to"),
    (">=", "greater than or equal to"),
    ("->", "to"),
    ("=>", "to"),
    ("<-", "arrow"),
    ("&&", "and"),
    ("||", "or"),
    ("++", "plus plus"),
    (":=", "is"),
];

/// A symbol inside or between words.
pub(super) fn symbol(c: char) -> Option<&'static str> {
    Some(match c {
        '&' => "and",
        '@' => "at",
        '#' => "hash",
        '+' => "plus",
        '=' => "equals",
        '%' => "percent",
        '‰' => "per mille",
        '*' => "asterisk",
        '/' => "slash",
        '\\' => "backslash",
        '<' => "less than",
        '>' => "greater than",
        '~' => "tilde",
        '^' => "caret",
        '_' => "underscore",
        '|' => "vertical bar",
        '°' => "degrees",
        'µ' => "micro",
        '²' => "squared",
        '³' => "cubed",
        '×' => "times",
        '$' => "dollars",
        '£' => "pounds",
        '€' => "euros",
        '¥' => "yen",
        '₹' => "rupees",
        '₩' => "won",
        '₽' => "rubles",
        '₿' => "bitcoin",
        '¢' => "cents",
        '½' => "one half",
        '¼' => "one quarter",
        '¾' => "three quarters",
        '⅓' => "one third",
        '⅔' => "two thirds",
        '⅛' => "one eighth",
        '⅜' => "three eighths",
        '⅝' => "five eighths",
        '⅞' => "seven eighths",
        _ => return None,
    })
}

/// What a character outside ASCII becomes before anything else looks at it.
pub(super) enum Fold {
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
pub(super) fn fold(c: char) -> Fold {
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
