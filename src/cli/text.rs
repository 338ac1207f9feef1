//! What will be said, before anybody says it.

use super::args::{Reading, is_whole_lexicon, parse_lexicon};
use super::files::read_file;
use super::output::{self, status};
use super::{find, usage};
use clap::Args;
use serde_json::json;
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use voxgrain::bundle::Bundle;
use voxgrain::map::Map;
use voxgrain::speech::phonemes::{Origin, Phonemizer, render};
use voxgrain::speech::text::{self, TextFrontend, Word};
use voxgrain::speech::written::{Explained, explain};
use voxgrain::{Error, ErrorKind};

const EXAMPLES: &str = "\
Examples:
  voxgrain text \"Dr. Ma ran 5 km on Nov 24.\"
  voxgrain text --json -f story.txt | jq -r .text
  voxgrain text --markup ssml -f greeting.ssml
  voxgrain text --lexicon names.tsv \"Nginx runs.\"   names.tsv: nginx<TAB>engine x
  voxgrain text --lines < list.txt

Under each sentence stand its words as they will be spoken, their phonemes, and what else there is
to tell:
  replaced   what is said differently from how it is written
  left out   what cannot be said
  guessed    words that no lexicon has, read by their letters
  listed     words that a list of --lexicon says how to say
  pause      seconds of silence behind it

--json prints one object a sentence: source (bytes of the input), written, text, phonemes, words
(each with its phonemes and their origin), replaced, left_out, pause_after.";

/// Show what would be said: words, phonemes, what is replaced and left out
#[derive(Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct Text {
    /// The text; without it, standard input is read to its end
    text: Vec<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Print one JSON object a sentence
    #[arg(long)]
    json: bool,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
    /// Folder of the voice whose lexicon gives the phonemes [default: as for `say`; for a voice
    /// that reads letters, the lexicon that comes with the program]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Words and how to say them, a line each: the word, a tab, a respelling or /IPA/; may be
    /// repeated, later files win. A whole lexicon (en-us.lexicon) takes the place of the voice's
    #[arg(long, value_name = "FILE")]
    lexicon: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

impl Text {
    pub fn run(self) -> anyhow::Result<()> {
        let frontend = TextFrontend::new(self.reading.options(text::Options::default()))?;
        let phonemizer = self.phonemizer()?;
        let show = |text: &str| -> voxgrain::Result<()> {
            for told in explain(&frontend, phonemizer.as_ref(), text)? {
                if self.json {
                    output::json(&as_json(&told, text))?;
                } else {
                    output::line(&columns(&told, text))?;
                }
            }
            Ok(())
        };
        let bytes = match &self.file {
            Some(path) if path.as_os_str() != "-" => read_file(path)?,
            None if !self.text.is_empty() && self.text != ["-"] => self.text.join(" ").into_bytes(),
            _ => {
                let unreadable =
                    |e| Error::with_source(ErrorKind::Unreadable, "cannot read standard input", e);
                let mut stdin = std::io::stdin().lock();
                if stdin_is_terminal(self.quiet) {
                    for line in stdin.lines() {
                        match show(&line.map_err(unreadable)?) {
                            Err(e) if e.kind() == ErrorKind::InvalidText => {
                                status(&format!("{e:#}"));
                            }
                            shown => shown?,
                        }
                    }
                    return Ok(());
                }
                let mut bytes = Vec::new();
                stdin.read_to_end(&mut bytes).map_err(unreadable)?;
                bytes
            }
        };
        Ok(show(text::utf8(&bytes)?)?)
    }

    /// What the words are pronounced by, if there is anything.
    fn phonemizer(&self) -> voxgrain::Result<Option<Phonemizer>> {
        let (mut whole, mut lists) = (None, Vec::new());
        for path in &self.lexicon {
            let bytes = read_file(path)?;
            if is_whole_lexicon(&bytes) {
                if whole.replace(path.clone()).is_some() {
                    return Err(usage("--lexicon names two whole lexicons: choose one"));
                }
            } else {
                lists.push(parse_lexicon(&bytes, path)?);
            }
        }
        let Some(path) = whole.map_or_else(|| self.lexicon_of_voice(), |path| Ok(Some(path)))?
        else {
            let what = "there is no lexicon here, so no phonemes: name a voice that reads them \
                        with --bundle, or a lexicon with --lexicon";
            if !lists.is_empty() {
                return Err(Error::new(ErrorKind::Unreadable, what));
            }
            self.note(what);
            return Ok(None);
        };
        let mut phonemizer = Phonemizer::open(&Map::open(&path)?)?;
        for list in &lists {
            phonemizer.add(list)?;
        }
        Ok(Some(phonemizer))
    }

    fn lexicon_of_voice(&self) -> voxgrain::Result<Option<PathBuf>> {
        let dir = match find::bundle(self.bundle.as_deref()) {
            Ok(dir) => dir,
            // Only a voice that was named has to be there.
            Err(e) if find::is_chosen(self.bundle.as_deref()) => return Err(e),
            Err(_) => return Ok(find::lexicon()),
        };
        let bundle = Bundle::open(&dir)?;
        if let Some(path) = bundle.lexicon_path() {
            return Ok(Some(path));
        }
        let found = find::lexicon();
        if let Some(path) = &found {
            self.note(&format!(
                "the voice in {} reads letters; the phonemes are those of {}",
                dir.display(),
                path.display()
            ));
        }
        Ok(found)
    }

    fn note(&self, what: &str) {
        if !self.quiet {
            status(what);
        }
    }
}

fn stdin_is_terminal(quiet: bool) -> bool {
    let terminal = std::io::stdin().is_terminal();
    if terminal && !quiet {
        status("type a text, a line at a time; Ctrl-D ends");
    }
    terminal
}

/// Where a pronunciation comes from, in a word.
fn name(origin: Origin) -> &'static str {
    match origin {
        Origin::Given => "given",
        Origin::User => "list",
        Origin::Lexicon => "lexicon",
        Origin::Compound => "compound",
        Origin::Spelt => "spelt",
        Origin::Letters => "guessed",
        _ => "other",
    }
}

/// Words side by side, with the mark behind the last.
fn joined(words: &[Word]) -> String {
    let texts: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
    texts.join(" ")
}

/// For a terminal: in one line, and nothing that steers it.
fn shown(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let words: Vec<String> =
        text.split_whitespace().map(|w| w.chars().map(visible).collect()).collect();
    words.join(" ")
}

/// Columns of a line; wider words stand alone.
const WIDTH: usize = 80;

/// For a machine.
fn as_json(told: &Explained, text: &str) -> serde_json::Value {
    let s = &told.sentence;
    let said = told.said();
    let words: Vec<_> = told
        .words
        .iter()
        .map(|(words, spoken)| {
            let source = words[0].source.start..words[words.len() - 1].source.end;
            json!({
                "text": joined(words),
                "mark": words[words.len() - 1].mark,
                "letters": words.iter().all(|w| w.letter),
                "phonemes": spoken.as_ref().map(|s| &s.phonemes),
                "origin": spoken.as_ref().map(|s| name(s.origin)),
                "source": source,
            })
        })
        .collect();
    json!({
        "source": s.source,
        "written": text.get(s.source.clone()),
        "text": s.text,
        "phonemes": (!said.is_empty()).then(|| render(&said)),
        "words": words,
        "replaced": s.replaced,
        "left_out": s.left_out,
        // Of a number with few digits in binary32.
        "pause_after": (f64::from(s.pause_after) * 1e4).round() / 1e4,
    })
}

/// The sentence, its words over their phonemes, and what else there is to tell.
fn columns(told: &Explained, text: &str) -> String {
    let s = &told.sentence;
    let mut out = format!("{}\n", shown(text.get(s.source.clone()).unwrap_or_default()));
    let (mut above, mut below, mut width) = (String::new(), String::new(), 0);
    let spoken = told.words.iter().any(|(_, spoken)| spoken.is_some());
    let mut flush = |above: &mut String, below: &mut String| {
        for line in [&mut *above, below] {
            if !line.trim().is_empty() {
                out.push_str(&format!("  {}\n", line.trim_end()));
            }
            line.clear();
        }
    };
    for (words, said) in &told.words {
        let mut word = joined(words);
        word.extend(words.last().and_then(|w| w.mark));
        let said = said.as_ref().map_or("", |s| s.phonemes.as_str());
        let wide = word.chars().count().max(said.chars().count()) + 2;
        if width > 0 && width + wide > WIDTH {
            flush(&mut above, &mut below);
            width = 0;
        }
        width += wide;
        // A line of words alone needs no columns.
        let column = if spoken { wide } else { word.len() + 1 };
        above.push_str(&format!("{word:column$}"));
        below.push_str(&format!("{said:wide$}"));
    }
    flush(&mut above, &mut below);
    let mut tell = |what: &str, list: Vec<String>| {
        if !list.is_empty() {
            out.push_str(&format!("  {what:10} {}\n", list.join("; ")));
        }
    };
    let replaced = |r: &text::Replacement| {
        let (from, to) = (shown(&r.original), shown(&r.spoken));
        if to.is_empty() { format!("{from:?} by nothing") } else { format!("{from} → {to}") }
    };
    tell("replaced", s.replaced.iter().map(replaced).collect());
    tell("left out", s.left_out.iter().map(|u| format!("{:?}", u.text)).collect());
    let by = |origin: Origin| {
        let of = told.words.iter().filter(|(_, s)| s.as_ref().is_some_and(|s| s.origin == origin));
        let mut all: Vec<String> = of.map(|(words, _)| joined(words)).collect();
        all.dedup();
        all
    };
    tell("guessed", by(Origin::Letters));
    tell("listed", by(Origin::User));
    tell("pause", vec![format!("{} s", s.pause_after)]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(shown("one\n two\t\u{1b}[31mred"), "one two \u{fffd}[31mred");
    }
}
