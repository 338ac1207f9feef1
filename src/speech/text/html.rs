//! HTML: its elements, and its named characters.

use quick_xml::Reader;
use quick_xml::escape::{resolve_html5_entity, unescape};
use quick_xml::events::{BytesRef, Event};

use super::plain::{Gap, Object, Plain};

/// Elements that stand in a line of text.
const INLINE: &[&str] = &[
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike",
    "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
];

/// Elements that are parts of a page.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "img",
    "legend",
    "li",
    "main",
    "menu",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
    "br",
    "script",
    "style",
];

/// Elements whose content is not for readers.
const SILENT: &[&str] = &["script", "style", "head"];

/// The name in a tag that begins at `<`, and what follows it.
fn name(tag: &str) -> Option<(&str, &str)> {
    let inner = tag.strip_prefix('<')?;
    let inner = inner.strip_prefix('/').unwrap_or(inner);
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inner.len());
    (end > 0).then(|| inner.split_at(end))
}

/// Whether `tag`, which begins at `<`, is a tag beyond doubt, within `whole`.
fn tag(tag: &str, whole: &str) -> bool {
    let Some((name, rest)) = name(tag) else { return false };
    if name.len() > 10 {
        return false;
    }
    let name = name.to_ascii_lowercase();
    let inline = INLINE.contains(&&*name);
    if !inline && !BLOCKS.contains(&&*name) {
        return false;
    }
    let rest = rest.trim_start();
    let bare = rest.starts_with('>') || rest.starts_with("/>");
    let attribute = rest.find('=').is_some_and(|at| {
        at > 0
            && rest[..at]
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':'))
    });
    if !(bare || attribute) {
        return false;
    }
    // "<b>" between formulas has no other half.
    !inline
        || tag.starts_with("</")
        || whole.len() > 100_000
        || whole.to_ascii_lowercase().contains(&format!("</{name}"))
}

/// Whether a text has HTML beyond doubt.
pub(super) fn signs(text: &str) -> bool {
    let tags = || {
        text.match_indices('<').take(1000).any(|(at, _)| {
            let after = text.as_bytes().get(at + 1);
            after.is_some_and(|b| b.is_ascii_alphabetic() || *b == b'/') && tag(&text[at..], text)
        })
    };
    let entities = || {
        text.match_indices('&').take(1000).any(|(at, _)| {
            let rest = &text[at + 1..];
            rest.bytes()
                .take(32)
                .position(|b| b == b';')
                .is_some_and(|end| entity(&rest[..end]).is_some())
        })
    };
    (text.contains('>') && tags()) || (text.contains(';') && entities())
}

/// The characters that `name` stands for in HTML: "amp", "#39".
fn entity(name: &str) -> Option<String> {
    if name.starts_with('#') {
        return BytesRef::new(name).resolve_char_ref().ok().flatten().map(String::from);
    }
    resolve_html5_entity(name).map(String::from)
}

/// Adds a piece of HTML that begins at `at` in `source`. What is no tag beyond doubt stays text,
/// where `auto` asks for doubt.
pub(super) fn html(out: &mut Plain<'_>, piece: &str, at: usize, source: &str, auto: bool) {
    let mut reader = Reader::from_str(piece);
    let config = reader.config_mut();
    config.allow_dangling_amp = true;
    config.allow_unmatched_ends = true;
    config.check_end_names = false;
    let mut silent = 0usize;
    loop {
        let start = reader.buffer_position() as usize;
        let event = reader.read_event();
        let end = reader.buffer_position() as usize;
        let Some(raw) = piece.get(start..end) else { return };
        let place = at + start..at + end;
        let element = name(raw).map(|(n, _)| n.to_ascii_lowercase()).unwrap_or_default();
        match event {
            Ok(Event::Eof) => return,
            Err(_) => {
                // Not HTML after all.
                out.push(&piece[start..], at + start);
                return;
            }
            Ok(Event::Start(_) | Event::Empty(_) | Event::End(_))
                if (auto && !tag(raw, source))
                    || !(INLINE.contains(&&*element) || BLOCKS.contains(&&*element)) =>
            {
                if silent == 0 {
                    out.push(raw, place.start);
                }
            }
            Ok(Event::Start(_)) if SILENT.contains(&&*element) => silent += 1,
            Ok(Event::End(_)) if SILENT.contains(&&*element) => silent = silent.saturating_sub(1),
            _ if silent > 0 => {}
            Ok(Event::Text(_)) => out.push(raw, place.start),
            Ok(Event::CData(t)) => out.push(&t.into_inner(), place.start),
            Ok(Event::GeneralRef(r)) => match entity(&r) {
                Some(text) => out.push(&text, place.start),
                None => out.push(raw, place.start),
            },
            Ok(Event::Start(e) | Event::Empty(e)) => match &*element {
                "img" => {
                    let alt = e.html_attributes().flatten().find(|a| a.key.as_ref() == "alt");
                    if let Some(alt) = alt {
                        let text = unescape(&alt.value).unwrap_or_default().into_owned();
                        out.push(&format!(" {text} "), place.start);
                    }
                }
                "td" | "th" if !out.text.ends_with(['\n', super::plain::OBJECT]) => {
                    out.push(", ", place.start);
                }
                "td" | "th" => {}
                "br" | "li" | "tr" | "dt" | "dd" => {
                    out.object(Object::End(Gap::Item), place);
                }
                block
                    if BLOCKS.contains(&block)
                        && out.text.ends_with(|c: char| !c.is_whitespace()) =>
                {
                    out.object(Object::End(Gap::Paragraph), place);
                }
                _ => {}
            },
            Ok(Event::End(_)) => match &*element {
                "li" | "tr" | "dt" | "dd" | "caption" => out.object(Object::End(Gap::Item), place),
                "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "title" => {
                    out.object(Object::End(Gap::Heading), place);
                }
                "td" | "th" | "thead" | "tbody" | "tfoot" | "img" | "br" => {}
                block if BLOCKS.contains(&block) => {
                    out.object(Object::End(Gap::Paragraph), place);
                }
                _ => {}
            },
            Ok(_) => {}
        }
    }
}
