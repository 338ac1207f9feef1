use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Writes one JSON value and a newline to stdout.
pub fn json(value: &Value) -> voxgrain::Result<()> {
    line(&value.to_string())
}

/// Writes one line to stdout; a closed pipe is an error, not a panic.
pub fn line(text: &str) -> voxgrain::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| {
        let kind = voxgrain::ErrorKind::Unwritable;
        voxgrain::Error::with_source(kind, "cannot write to standard output", e)
    })
}

/// Status for a person, on stderr; nobody listening is no error.
pub fn status(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown(text));
}

/// With what a terminal would obey made visible: messages quote files.
pub fn shown(text: &str) -> std::borrow::Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(obeyed) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out.into()
}

/// A bar on stderr, hidden where nobody watches.
pub fn progress(length: u64, quiet: bool) -> indicatif::ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {eta} left {msg}")
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(length).with_style(style)
}

/// What ended the program, with its causes.
pub fn error(e: &anyhow::Error) {
    status(&format!("voxgrain: {e:#}"));
}

struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target().starts_with("voxgrain")
    }
    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            status(&format!("{}: {}", record.level().as_str().to_lowercase(), record.args()));
        }
    }
    fn flush(&self) {}
}

pub fn init_log(verbose: u8) {
    static LOG: StderrLog = StderrLog;
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(match verbose {
            0 => log::LevelFilter::Warn,
            1 => log::LevelFilter::Info,
            _ => log::LevelFilter::Debug,
        });
    }
}

/// Largest resident memory of this process so far, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Resident memory of this process now, where the system tells.
pub fn rss_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

fn status_bytes(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb * 1024)
}
