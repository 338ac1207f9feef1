//! Markdown: links say their text, images what they show, tables row by row, code as it is.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::html::html;
use super::plain::{Gap, Object, Plain};

/// Whether a text is Markdown beyond doubt. Stars around one word, dashes and numbers at the
/// start of a line are in many texts that are none, and are read well without.
pub(super) fn signs(text: &str) -> bool {
    link(text) || bold(text) || lines(text)
}

/// "[text](address)"
fn link(text: &str) -> bool {
    text.match_indices("](").take(1000).any(|(at, _)| {
        text[..at].rfind(['[', '\n']).is_some_and(|open| text[open..].starts_with('['))
            && text[at..].bytes().take(2000).any(|b| b == b')')
    })
}

/// "**very**"
fn bold(text: &str) -> bool {
    ["**", "__"].iter().any(|marks| {
        let mut open = false;
        text.match_indices(marks).take(1000).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + 2..].chars().next();
            let space = |c: Option<char>| c.is_none_or(char::is_whitespace);
            let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            if open && !space(before) && !word(after) {
                return true;
            }
            open |= !space(after) && !word(before);
            false
        })
    })
}

/// Headings, tables, tasks, code.
fn lines(text: &str) -> bool {
    let mut before = "";
    text.lines().any(|line| {
        let line = line.trim();
        let heading = {
            let rest = line.trim_start_matches('#');
            (1..=6).contains(&(line.len() - rest.len()))
                && rest.starts_with(' ')
                && rest.contains(char::is_alphanumeric)
        };
        let under = line.len() > 2
            && line.bytes().all(|b| b == b'=')
            && before.contains(char::is_alphanumeric);
        let under = under
            || (line.len() > 2
                && line.bytes().all(|b| b == b'-')
                && before.len() < 60
                && before.ends_with(char::is_alphanumeric));
        let table = before.contains('|')
            && line.contains('|')
            && line.contains("--")
            && line.bytes().all(|b| matches!(b, b'|' | b'-' | b':' | b' '));
        let task =
            ["- [ ] ", "- [x] ", "- [X] ", "* [ ] ", "* [x] "].iter().any(|t| line.starts_with(t));
        let fence = line.starts_with("```") || line.starts_with("~~~");
        before = line;
        heading || under || table || task || fence
    })
}

/// Takes Markdown off a text; `auto` leaves alone what could be something else.
pub(super) fn plain(text: &str, auto: bool) -> Plain<'_> {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut out = Plain::default();
    // Numbers of ordered lists; `None` for lists with bullets.
    let mut lists: Vec<Option<u64>> = Vec::new();
    // Whether the stars of an emphasis are said: "2*3*4".
    let mut stars: Vec<bool> = Vec::new();
    let (mut code, mut first_cell) = (false, true);
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Text(t) if code => {
                for line in t.split_inclusive('\n') {
                    let at = line.as_ptr() as usize - t.as_ptr() as usize;
                    out.push(line.trim_end_matches('\n'), range.start + at);
                    if line.ends_with('\n') {
                        let end = (range.start + at + line.len()).min(range.end);
                        out.object(Object::End(Gap::Item), end..end);
                    }
                }
            }
            Event::Text(t) => out.push(&t, range.start),
            Event::Code(t) => {
                let ticks = (range.len().saturating_sub(t.len())) / 2;
                out.push(&t, range.start + ticks);
            }
            Event::Html(t) | Event::InlineHtml(t) => html(&mut out, &t, range.start, text, auto),
            Event::SoftBreak | Event::HardBreak => out.push("\n", range.start),
            Event::Rule => out.push("\n\n", range.start),
            Event::TaskListMarker(done) => {
                out.push(if done { "done, " } else { "" }, range.start);
            }
            Event::Start(tag) => match tag {
                Tag::Heading { .. } if !out.text.is_empty() => out.push("\n\n", range.start),
                Tag::CodeBlock(_) => {
                    code = true;
                    if !out.text.is_empty() {
                        out.push("\n\n", range.start);
                    }
                }
                Tag::List(first) => {
                    lists.push(first);
                    if !out.text.is_empty() && !out.text.ends_with('\n') {
                        out.push("\n", range.start);
                    }
                }
                Tag::Item => {
                    let bullet = match lists.last_mut() {
                        Some(Some(n)) => {
                            let number = format!("{n}. ");
                            *n += 1;
                            number
                        }
                        _ => "- ".to_string(),
                    };
                    out.push(&bullet, range.start);
                }
                Tag::TableHead | Tag::TableRow => first_cell = true,
                Tag::TableCell => {
                    if !first_cell {
                        out.push(", ", range.start);
                    }
                    first_cell = false;
                }
                Tag::Emphasis => {
                    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                    let inside = word(text[..range.start].chars().next_back())
                        || word(text[range.end..].chars().next());
                    stars.push(auto && inside);
                    if auto && inside {
                        out.push(&text[range.start..range.start + 1], range.start);
                    }
                }
                _ => {}
            },
            Event::End(tag) => match tag {
                TagEnd::Paragraph => {
                    let rest = &text[range.end..];
                    let white = &rest[..rest.len() - rest.trim_start().len()];
                    let ended = text[..range.end].ends_with('\n');
                    let blank = white.matches('\n').count() + usize::from(ended) > 1;
                    out.push(
                        if blank || white.len() == rest.len() { "\n\n" } else { "\n" },
                        range.end,
                    );
                }
                TagEnd::Heading(_) => out.object(Object::End(Gap::Heading), range.end..range.end),
                TagEnd::CodeBlock => {
                    code = false;
                    out.push("\n\n", range.end);
                }
                TagEnd::Item if !out.text.ends_with('\n') => out.push("\n", range.end),
                TagEnd::List(_) => {
                    lists.pop();
                    if lists.is_empty() {
                        out.push("\n\n", range.end);
                    }
                }
                TagEnd::TableHead | TagEnd::TableRow => {
                    out.object(Object::End(Gap::Item), range.end..range.end);
                }
                TagEnd::Table => out.push("\n\n", range.end),
                TagEnd::Emphasis if stars.pop() == Some(true) => {
                    out.push(&text[range.end - 1..range.end], range.end - 1);
                }
                _ => {}
            },
            _ => {}
        }
    }
    out.close(text.len());
    out
}
