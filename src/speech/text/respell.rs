//! The last step before a voice that reads letters: the names of letters, written as words.
//!
//! Such a voice has learnt what "you" sounds like, but hardly a lone "u". A voice that is given
//! phonemes needs none of this: [`Word::letter`](super::Word::letter) says which words are
//! letters.

use super::read::Piece;

/// How the names of letters are written in [`Chunk::text`](super::Chunk::text).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Respelling {
    /// As letters: "u s b".
    #[default]
    None,
    /// As words that sound like their names: "you ess bee".
    Letters,
}

/// The name of a letter as a word that a voice reads right; `None` for anything but `a-z`.
pub fn letter_name(letter: char) -> Option<&'static str> {
    const NAMES: [&str; 26] = [
        "ay",
        "bee",
        "see",
        "dee",
        "ee",
        "eff",
        "jee",
        "aitch",
        "eye",
        "jay",
        "kay",
        "ell",
        "em",
        "en",
        "oh",
        "pee",
        "cue",
        "are",
        "ess",
        "tee",
        "you",
        "vee",
        "double you",
        "ex",
        "why",
        "zee",
    ];
    letter.is_ascii_lowercase().then(|| NAMES[usize::from(letter as u8 - b'a')])
}

/// Writes the letters among the words as `how` says.
pub(super) fn apply(how: Respelling, pieces: &mut Vec<Piece>) {
    if how == Respelling::None || !pieces.iter().any(|p| p.letter) {
        return;
    }
    let mut out = Vec::with_capacity(pieces.len());
    for mut p in pieces.drain(..) {
        let name = p.word.chars().next().and_then(letter_name).filter(|_| p.letter);
        let Some(name) = name else {
            out.push(p);
            continue;
        };
        let tail = match (p.word.len() > 1, name.ends_with(['s', 'x'])) {
            (true, true) => "es",
            (true, false) => "s",
            _ => "",
        };
        if let Some((first, rest)) = name.split_once(' ') {
            let mut head = p.clone();
            head.word = first.to_string();
            (head.after, head.gap) = (super::read::Mark::None, super::plain::Gap::None);
            (head.pause, head.bound) = (None, true);
            out.push(head);
            p.word = format!("{rest}{tail}");
        } else {
            p.word = format!("{name}{tail}");
        }
        out.push(p);
    }
    *pieces = out;
}
