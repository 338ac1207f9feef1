//! Units of measure: what is written behind a number and how it is said.

/// Units: (written, one, many). Case matters. Powers and quotients of them are put together by
/// [`unit`].
const UNITS: &[(&str, &str, &str)] = &[
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
    ("kph", "kilometer per hour", "kilometers per hour"),
    ("rpm", "r p m", "r p m"),
    ("fps", "frame per second", "frames per second"),
    ("dB", "decibel", "decibels"),
    ("tbsp", "tablespoon", "tablespoons"),
    ("tsp", "teaspoon", "teaspoons"),
    ("px", "pixel", "pixels"),
    ("ha", "hectare", "hectares"),
    ("pcs", "piece", "pieces"),
    ("dm", "decimeter", "decimeters"),
    ("kms", "kilometer", "kilometers"),
    ("cms", "centimeter", "centimeters"),
    ("pm", "picometer", "picometers"),
    ("miles", "mile", "miles"),
    ("nmi", "nautical mile", "nautical miles"),
    ("kgs", "kilogram", "kilograms"),
    ("t", "ton", "tons"),
    ("kt", "kiloton", "kilotons"),
    ("Mt", "megaton", "megatons"),
    ("ozs", "ounce", "ounces"),
    ("gm", "gram", "grams"),
    ("ng", "nanogram", "nanograms"),
    ("qt", "quart", "quarts"),
    ("qts", "quart", "quarts"),
    ("pt", "pint", "pints"),
    ("gals", "gallon", "gallons"),
    ("dl", "deciliter", "deciliters"),
    ("dL", "deciliter", "deciliters"),
    ("cl", "centiliter", "centiliters"),
    ("cL", "centiliter", "centiliters"),
    ("µL", "microliter", "microliters"),
    ("µl", "microliter", "microliters"),
    ("bbl", "barrel", "barrels"),
    ("doz", "dozen", "dozen"),
    ("wk", "week", "weeks"),
    ("wks", "week", "weeks"),
    ("mo", "month", "months"),
    ("mos", "month", "months"),
    ("THz", "terahertz", "terahertz"),
    ("B", "byte", "bytes"),
    ("EB", "exabyte", "exabytes"),
    ("kiB", "kibibyte", "kibibytes"),
    ("kbit", "kilobit", "kilobits"),
    ("Kbit", "kilobit", "kilobits"),
    ("Mbit", "megabit", "megabits"),
    ("Gbit", "gigabit", "gigabits"),
    ("Tbit", "terabit", "terabits"),
    ("kb", "kilobit", "kilobits"),
    ("Kb", "kilobit", "kilobits"),
    ("Mb", "megabit", "megabits"),
    ("Gb", "gigabit", "gigabits"),
    ("Tb", "terabit", "terabits"),
    ("bps", "bit per second", "bits per second"),
    ("Kbps", "kilobit per second", "kilobits per second"),
    ("Tbps", "terabit per second", "terabits per second"),
    ("kBps", "kilobyte per second", "kilobytes per second"),
    ("MBps", "megabyte per second", "megabytes per second"),
    ("GBps", "gigabyte per second", "gigabytes per second"),
    ("MT", "megatransfer", "megatransfers"),
    ("GT", "gigatransfer", "gigatransfers"),
    ("mW", "milliwatt", "milliwatts"),
    ("TW", "terawatt", "terawatts"),
    ("MWh", "megawatt hour", "megawatt hours"),
    ("GWh", "gigawatt hour", "gigawatt hours"),
    ("TWh", "terawatt hour", "terawatt hours"),
    ("VA", "volt amp", "volt amps"),
    ("kVA", "kilovolt amp", "kilovolt amps"),
    ("A", "amp", "amps"),
    ("kA", "kiloamp", "kiloamps"),
    ("µA", "microamp", "microamps"),
    ("Ah", "amp hour", "amp hours"),
    ("Ω", "ohm", "ohms"),
    ("kΩ", "kilohm", "kilohms"),
    ("MΩ", "megohm", "megohms"),
    ("µF", "microfarad", "microfarads"),
    ("nF", "nanofarad", "nanofarads"),
    ("pF", "picofarad", "picofarads"),
    ("mH", "millihenry", "millihenries"),
    ("J", "joule", "joules"),
    ("MJ", "megajoule", "megajoules"),
    ("eV", "electron volt", "electron volts"),
    ("keV", "kiloelectron volt", "kiloelectron volts"),
    ("MeV", "megaelectron volt", "megaelectron volts"),
    ("GeV", "gigaelectron volt", "gigaelectron volts"),
    ("cals", "calorie", "calories"),
    ("BTU", "b t u", "b t us"),
    ("N", "newton", "newtons"),
    ("kN", "kilonewton", "kilonewtons"),
    ("Nm", "newton meter", "newton meters"),
    ("lbf", "pound force", "pounds force"),
    ("hp", "horsepower", "horsepower"),
    ("MPa", "megapascal", "megapascals"),
    ("GPa", "gigapascal", "gigapascals"),
    ("mbar", "millibar", "millibars"),
    ("bar", "bar", "bars"),
    ("atm", "atmosphere", "atmospheres"),
    ("mmHg", "millimeter of mercury", "millimeters of mercury"),
    ("mpg", "mile per gallon", "miles per gallon"),
    ("MPG", "mile per gallon", "miles per gallon"),
    ("MPH", "mile per hour", "miles per hour"),
    ("kmh", "kilometer per hour", "kilometers per hour"),
    ("kts", "knot", "knots"),
    ("kn", "knot", "knots"),
    ("RPM", "r p m", "r p m"),
    ("bpm", "beat per minute", "beats per minute"),
    ("BPM", "beat per minute", "beats per minute"),
    ("wpm", "word per minute", "words per minute"),
    ("gpm", "gallon per minute", "gallons per minute"),
    ("cfm", "cubic foot per minute", "cubic feet per minute"),
    ("FPS", "frame per second", "frames per second"),
    ("ppm", "part per million", "parts per million"),
    ("ppb", "part per billion", "parts per billion"),
    ("dpi", "dot per inch", "dots per inch"),
    ("ppi", "pixel per inch", "pixels per inch"),
    ("dBm", "decibel milliwatt", "decibel milliwatts"),
    ("dBA", "decibel a", "decibels a"),
    ("cc", "c c", "c c"),
    ("lm", "lumen", "lumens"),
    ("lx", "lux", "lux"),
    ("mol", "mole", "moles"),
    ("mmol", "millimole", "millimoles"),
    ("mM", "millimolar", "millimolar"),
    ("tbsps", "tablespoon", "tablespoons"),
    ("Tbsp", "tablespoon", "tablespoons"),
    ("tsps", "teaspoon", "teaspoons"),
    ("MP", "megapixel", "megapixels"),
    ("ac", "acre", "acres"),
    ("°N", "degree north", "degrees north"),
    ("°S", "degree south", "degrees south"),
    ("°E", "degree east", "degrees east"),
    ("°W", "degree west", "degrees west"),
    ("°K", "degree kelvin", "degrees kelvin"),
    ("ºC", "degree celsius", "degrees celsius"),
    ("degC", "degree celsius", "degrees celsius"),
    ("degF", "degree fahrenheit", "degrees fahrenheit"),
    ("L/100km", "liter per one hundred kilometers", "liters per one hundred kilometers"),
    ("l/100km", "liter per one hundred kilometers", "liters per one hundred kilometers"),
];

/// Written behind a number without a space only; with one they are words of another kind.
const ATTACHED: &[(&str, &str, &str)] = &[
    ("in", "inch", "inches"),
    ("ins", "inch", "inches"),
    ("C", "degree celsius", "degrees celsius"),
    ("F", "degree fahrenheit", "degrees fahrenheit"),
];

/// Written behind a slash only.
const PER: &[(&str, &str)] = &[
    ("d", "day"),
    ("mile", "mile"),
    ("minute", "minute"),
    ("second", "second"),
    ("person", "person"),
    ("user", "user"),
    ("night", "night"),
    ("pound", "pound"),
    ("gallon", "gallon"),
    ("share", "share"),
    ("day", "day"),
    ("y", "year"),
    ("year", "year"),
    ("month", "month"),
    ("week", "week"),
    ("hour", "hour"),
    ("sq", "square"),
    ("ea", "each"),
    ("gal", "gallon"),
    ("in", "inch"),
];

/// Units that are squared and cubed.
const LENGTHS: &[&str] =
    &["m", "km", "cm", "mm", "dm", "µm", "nm", "ft", "in", "mi", "yd", "s", "sec", "px"];

/// Single letters that are units even when a space stands before them.
const DETACHED_LETTERS: &str = "mglLshVWJNtΩ";

/// A unit's two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// After "one", and where the measure stands before a noun: "a five kilometer run".
    pub one: String,
    /// After any other number.
    pub many: String,
}

fn plain(s: &str) -> Option<(&'static str, &'static str)> {
    UNITS.iter().find(|u| u.0 == s).map(|u| (u.1, u.2))
}

/// The power at the end of a unit: "m²", "m2", "m^2".
fn power(s: &str) -> Option<(&str, char)> {
    let last = s.chars().next_back()?;
    let rest = &s[..s.len() - last.len_utf8()];
    let power = match last {
        '2' | '²' => '2',
        '3' | '³' => '3',
        _ => return None,
    };
    let rest = if last.is_ascii_digit() { rest.strip_suffix('^').unwrap_or(rest) } else { rest };
    LENGTHS.contains(&rest).then_some((rest, power))
}

/// A unit as it stands behind a number: "km", "m²", "ft2", "m/s^2", "mg/dL".
pub(super) fn unit(s: &str) -> Option<Unit> {
    if s.is_empty() || s.len() > 16 || s.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Some((one, many)) = plain(s) {
        return Some(Unit { one: one.into(), many: many.into() });
    }
    if let Some((left, right)) = s.split_once('/') {
        let left = unit(left)?;
        let per = match PER.iter().find(|p| p.0 == right) {
            Some(p) => p.1.to_string(),
            None => unit(right)?.one,
        };
        return Some(Unit {
            one: format!("{} per {per}", left.one),
            many: format!("{} per {per}", left.many),
        });
    }
    let (base, power) = power(s)?;
    let (one, many) = if base == "in" { ("inch", "inches") } else { plain(base)? };
    let time = matches!(base, "s" | "sec");
    Some(match power {
        '2' if time => Unit { one: format!("{one} squared"), many: format!("{many} squared") },
        _ if time => return None,
        '2' => Unit { one: format!("square {one}"), many: format!("square {many}") },
        _ => Unit { one: format!("cubic {one}"), many: format!("cubic {many}") },
    })
}

/// What stands behind a slash: "5/hr", "$5/mo".
pub(super) fn per(s: &str) -> Option<String> {
    PER.iter().find(|p| p.0 == s).map(|p| p.1.to_string()).or_else(|| unit(s).map(|u| u.one))
}

/// A unit that is written right behind its number.
pub(super) fn attached(s: &str) -> Option<Unit> {
    ATTACHED
        .iter()
        .find(|u| u.0 == s)
        .map(|u| Unit { one: u.1.into(), many: u.2.into() })
        .or_else(|| unit(s))
}

/// A unit with a space before it.
pub(super) fn detached(s: &str) -> Option<Unit> {
    let mut chars = s.chars();
    if let (Some(c), None) = (chars.next(), chars.next())
        && c.is_ascii_alphabetic()
        && !DETACHED_LETTERS.contains(c)
    {
        return None;
    }
    // Words, months and halves of the day before they are units.
    if matches!(s, "pm" | "bar" | "pt" | "pts" | "ac" | "MP" | "miles") && s != "pt" {
        return None;
    }
    unit(s)
}

/// The singular of a unit that is written out or shortened, for the stop behind it.
pub(super) fn known(s: &str) -> bool {
    plain(s).is_some() || matches!(s, "in" | "sq" | "cu")
}
