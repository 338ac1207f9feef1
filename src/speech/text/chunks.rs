//! Words cut into chunks that the voice can say in one breath.

use super::plain::Gap;
use super::read::{Mark, Piece};
use super::tables;
use super::{Chunk, Pauses, Word};

pub(super) fn render(pieces: &[Piece]) -> String {
    let mut out = String::with_capacity(pieces.iter().map(|p| p.word.len() + 2).sum());
    for p in pieces {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&p.word);
        out.extend(p.after.char());
    }
    out
}

/// Cuts words that could never fit into a chunk.
pub(super) fn hard_split(pieces: Vec<Piece>, max_chars: usize) -> Vec<Piece> {
    let most = max_chars - 1;
    if pieces.iter().all(|p| p.word.len() <= most) {
        return pieces;
    }
    let mut out = Vec::with_capacity(pieces.len());
    for mut p in pieces {
        let word = std::mem::take(&mut p.word);
        let mut rest = word.as_str();
        while rest.len() > most {
            // Words are ASCII.
            let cut = rest[..most].to_string();
            let part =
                Piece { word: cut, after: Mark::None, gap: Gap::None, pause: None, ..p.clone() };
            out.push(part);
            rest = &rest[most..];
        }
        p.word = rest.to_string();
        out.push(p);
    }
    out
}

/// Length of `pieces` as a chunk, its closing mark included.
pub(super) fn length(pieces: &[Piece]) -> usize {
    let words: usize =
        pieces.iter().map(|p| p.word.len() + usize::from(p.after != Mark::None) + 1).sum();
    let open = pieces.last().is_some_and(|p| p.after == Mark::None);
    words - 1 + usize::from(open)
}

/// Sentences, cut where they are too long, tiny ones joined to a neighbour.
pub(super) fn split(pieces: Vec<Piece>, max_chars: usize, pauses: &Pauses) -> Vec<Chunk> {
    /// Shorter chunks are joined to a neighbour where both fit.
    const TINY: usize = 16;
    let pieces = hard_split(pieces, max_chars);
    // Ranges of pieces, one a chunk.
    let mut cuts: Vec<std::ops::Range<usize>> = Vec::new();
    let mut start = 0;
    for end in 1..=pieces.len() {
        if end == pieces.len() || pieces[end - 1].after.ends_sentence() || apart(&pieces, end) {
            if length(&pieces[start..end]) <= max_chars {
                cuts.push(start..end);
            } else {
                let clauses = clauses(&pieces[start..end], max_chars);
                cuts.extend(clauses.into_iter().map(|r| r.start + start..r.end + start));
            }
            start = end;
        }
    }
    let mut joined: Vec<std::ops::Range<usize>> = Vec::with_capacity(cuts.len());
    for cut in cuts {
        if let Some(last) = joined.last_mut() {
            let tiny = |r: &std::ops::Range<usize>| length(&pieces[r.clone()]) < TINY;
            if (tiny(last) || tiny(&cut))
                && !apart(&pieces, cut.start)
                && length(&pieces[last.start..cut.end]) <= max_chars
            {
                last.end = cut.end;
                continue;
            }
        }
        joined.push(cut);
    }
    joined
        .into_iter()
        .map(|r| {
            let part = &pieces[r];
            let mut text = render(part);
            let last = part.last();
            let mark = last.map_or(Mark::Stop, |p| p.after);
            if !mark.ends_sentence() {
                // Voices learn from whole sentences: after a comma they would talk on, and on.
                if mark != Mark::None {
                    text.pop();
                }
                text.push('.');
            }
            let pause_after = match last {
                Some(Piece { pause: Some(seconds), .. }) => *seconds,
                Some(Piece { gap: Gap::Heading, .. }) => pauses.heading,
                Some(Piece { gap: Gap::Paragraph, .. }) => pauses.paragraph,
                _ => match mark {
                    Mark::None => 0.0,
                    Mark::Comma => pauses.comma,
                    Mark::Clause => pauses.clause,
                    Mark::Stop | Mark::Question | Mark::Exclamation => pauses.sentence,
                },
            };
            Chunk {
                text,
                ends_sentence: mark.ends_sentence(),
                words: part.iter().map(word).collect(),
                source: source(part),
                pause_after,
                rate: part.first().map_or(1.0, |p| p.rate),
            }
        })
        .collect()
}

/// Whether the markup or the structure asks for a pause of its own before `pieces[at]`.
fn apart(pieces: &[Piece], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|i| &pieces[i]) else { return false };
    before.gap >= Gap::Paragraph
        || before.pause.is_some()
        || pieces.get(at).is_some_and(|p| p.rate != before.rate)
}

pub(super) fn source(pieces: &[Piece]) -> std::ops::Range<usize> {
    let start = pieces.iter().map(|p| p.source.0).min().unwrap_or(0);
    start..pieces.iter().map(|p| p.source.1).max().unwrap_or(start)
}

pub(super) fn word(p: &Piece) -> Word {
    Word {
        text: p.word.clone(),
        mark: p.after.char(),
        letter: p.letter,
        phonemes: p.phonemes.clone(),
        source: p.source.0..p.source.1,
    }
}

/// Cuts one sentence into the cheapest chunks: few, none tiny, at commas before
/// conjunctions, at conjunctions before prepositions, at any word if need be.
pub(super) fn clauses(pieces: &[Piece], max_chars: usize) -> Vec<std::ops::Range<usize>> {
    let n = pieces.len();
    // best[i]: (cost of the first i words, where the last chunk begins)
    let mut best = vec![(u32::MAX, 0usize); n + 1];
    best[0].0 = 0;
    for end in 1..=n {
        let after = pieces[end - 1].after;
        let last = pieces[end - 1].word.as_str();
        let cut = if end == n {
            0
        } else if pieces[end - 1].bound {
            // Inside a number, a date, a name.
            1000
        } else if tables::CONJUNCTIONS.contains(&last)
            || tables::PREPOSITIONS.contains(&last)
            || matches!(last, "the" | "a" | "an")
        {
            400
        } else if after != Mark::None {
            0
        } else {
            let next = pieces[end].word.as_str();
            if tables::CONJUNCTIONS.contains(&next) {
                60
            } else if tables::PREPOSITIONS.contains(&next) {
                100
            } else {
                200
            }
        };
        let mut chars = usize::from(after == Mark::None);
        for start in (0..end).rev() {
            let p = &pieces[start];
            chars += p.word.len() + usize::from(p.after != Mark::None);
            if start + 1 < end {
                chars += 1;
            }
            if chars > max_chars {
                break;
            }
            if best[start].0 == u32::MAX {
                continue;
            }
            // Chunks of a third of the limit and more are as good as any.
            let short = (max_chars / 3).saturating_sub(chars) as u32 * 4;
            let cost = best[start].0.saturating_add(100 + cut + short).min(u32::MAX - 1);
            if cost < best[end].0 {
                best[end] = (cost, start);
            }
        }
    }
    let mut out = Vec::new();
    let mut end = n;
    while end > 0 {
        let start = best[end].1;
        out.push(start..end);
        end = start;
    }
    out.reverse();
    out
}
