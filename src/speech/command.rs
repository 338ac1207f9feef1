//! Phonemes by a program of the user's, such as espeak-ng, which is run and never linked.

use crate::{Error, ErrorKind, Result};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A command that reads lines of text and writes a line of phonemes for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhonemesCommand {
    words: Arc<[String]>,
}

/// Marks that such programs leave out and models were trained with.
const MARKS: [char; 9] = ['.', ',', '?', '!', ';', ':', '\u{2026}', '\u{2014}', '"'];

impl PhonemesCommand {
    /// A program and its arguments, between spaces; quotes hold spaces together. No shell is
    /// involved.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no program or a quote stays open.
    pub fn parse(line: &str) -> Result<Self> {
        let bad = |what: &str| {
            let what = format!("the command {line:?} {what}");
            Error::new(ErrorKind::InvalidArgument, what)
        };
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for c in line.chars() {
            match (c, quote) {
                (c, Some(q)) if c == q => quote = None,
                ('"' | '\'', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (c, None) if c.is_whitespace() => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_some() {
            return Err(bad("has a quote that is not closed"));
        }
        words.extend(word);
        if words.first().is_none_or(String::is_empty) {
            return Err(bad("names no program"));
        }
        Ok(Self { words: words.into() })
    }

    /// The phonemes of `text`, its marks kept: what stands between them goes to the program a
    /// line each, and comes back so.
    ///
    /// # Errors
    /// `Unreadable` if the program cannot be run or fails, `InvalidText` if it says nothing.
    pub fn phonemes(&self, text: &str) -> Result<String> {
        let mut stretches: Vec<(String, String)> = Vec::new();
        let mut open = false;
        for c in text.chars() {
            let mark = MARKS.contains(&c);
            if !mark && !open {
                if c.is_whitespace() {
                    continue;
                }
                stretches.push(Default::default());
            }
            open = !mark;
            match stretches.last_mut() {
                Some((_, marks)) if mark => marks.push(c),
                Some((words, _)) => words.push(if c.is_control() { ' ' } else { c }),
                // A mark before any word.
                None => {}
            }
        }
        let lines: Vec<&str> = stretches.iter().map(|s| s.0.trim()).collect();
        let said = self.run(&(lines.join("\n") + "\n"))?;
        let one_line = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
        let back: Vec<String> = said.lines().map(one_line).filter(|l| !l.is_empty()).collect();
        if back.is_empty() {
            let what = format!("{} wrote no phonemes for {text:?}", self.words[0]);
            return Err(Error::new(ErrorKind::InvalidText, what));
        }
        if back.len() != stretches.len() {
            log::warn!(
                "{} wrote {} lines for {} stretches: the marks between them are lost",
                self.words[0],
                back.len(),
                stretches.len()
            );
            return Ok(back.join(" "));
        }
        let with_marks = back.iter().zip(&stretches).map(|(b, (_, marks))| format!("{b}{marks}"));
        Ok(with_marks.collect::<Vec<_>>().join(" "))
    }

    fn run(&self, input: &str) -> Result<String> {
        let program = &self.words[0];
        let failed = |e: std::io::Error| {
            let what = format!("cannot run {program}: is it installed?");
            Error::with_source(ErrorKind::Unreadable, what, e)
        };
        let mut child = Command::new(program)
            .args(&self.words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // Short enough for a pipe to hold, so nobody waits for the other; a program that does not
        // read is no error by itself.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let done = child.wait_with_output().map_err(failed)?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(Error::new(
                ErrorKind::Unreadable,
                format!("{program} ended with {}: {}", done.status, said.trim()),
            ));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}
