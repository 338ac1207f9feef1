//! Chunks of the text front end as a voice of phonemes reads them.

use super::phonemes::{self, Phonemizer, Spoken};
use super::text::{Sentence, TextFrontend, Word};
use crate::Result;
use std::ops::Range;

/// The letter A by name: in a text of phonemes alone, "a" would be the article.
const LETTER_A: &str = "ˈA";

/// The words of a chunk, pronounced. Letters that were written as one word are said as one:
/// "USB" has one stress, "U S B" has three.
///
/// # Errors
/// `InvalidText` if there is no word, or a pronunciation that the markup gives is no IPA.
pub fn pronounced(phonemizer: &Phonemizer, words: &[Word]) -> Result<Vec<Spoken>> {
    Ok(pronounced_by_word(phonemizer, words)?.into_iter().map(|(_, spoken)| spoken).collect())
}

/// The same, each with the words that it says, by their places in `words`: several where they
/// are the letters of one word, or were given one pronunciation.
///
/// # Errors
/// As [`pronounced`].
pub fn pronounced_by_word(
    phonemizer: &Phonemizer,
    words: &[Word],
) -> Result<Vec<(Range<usize>, Spoken)>> {
    let mut texts: Vec<(String, Option<&str>, String)> = Vec::with_capacity(words.len());
    let mut places: Vec<Range<usize>> = Vec::with_capacity(words.len());
    let mut spelling: Option<&Word> = None;
    for (at, word) in words.iter().enumerate() {
        let mark: String = word.mark.into_iter().collect();
        if word.phonemes.as_deref() == Some("") {
            // The word before was given the sound of both.
            if let (Some(last), Some(place)) = (texts.last_mut(), places.last_mut()) {
                last.2.push_str(&mark);
                place.end = at + 1;
            }
            continue;
        }
        let capital = || {
            let mut text = word.text.clone();
            text[..1].make_ascii_uppercase();
            text
        };
        let goes_on = spelling.is_some_and(|s| s.source == word.source && s.mark.is_none());
        match (texts.last_mut(), places.last_mut()) {
            (Some(last), Some(place)) if goes_on && word.letter => {
                last.0.push_str(&capital());
                (last.1, last.2) = (None, mark);
                place.end = at + 1;
            }
            _ => {
                texts.push(if word.letter && word.phonemes.is_none() {
                    (capital(), (word.text == "a").then_some(LETTER_A), mark)
                } else {
                    (word.text.clone(), word.phonemes.as_deref(), mark)
                });
                places.push(at..at + 1);
            }
        }
        spelling = (word.letter && word.phonemes.is_none()).then_some(word);
    }
    let words: Vec<phonemes::Word<'_>> = texts
        .iter()
        .map(|(text, phonemes, after)| phonemes::Word {
            text,
            before: "",
            after,
            phonemes: *phonemes,
        })
        .collect();
    Ok(places.into_iter().zip(phonemizer.phonemize_words(&words)?).collect())
}

/// A sentence and how its words are pronounced.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explained {
    /// What will be said, and why.
    pub sentence: Sentence,
    /// Its words, those together that are said as one, and how; word by word without a
    /// phonemizer.
    pub words: Vec<(Vec<Word>, Option<Spoken>)>,
}

impl Explained {
    /// The pronunciations alone.
    pub fn said(&self) -> Vec<Spoken> {
        self.words.iter().filter_map(|(_, spoken)| spoken.clone()).collect()
    }
}

/// [`TextFrontend::explain`], each sentence pronounced as it will be: by the chunks that a voice
/// speaks in one go.
///
/// # Errors
/// As [`TextFrontend::speak`] and [`pronounced`].
pub fn explain(
    frontend: &TextFrontend,
    phonemizer: Option<&Phonemizer>,
    text: &str,
) -> Result<Vec<Explained>> {
    let mut said = Vec::new();
    if let Some(phonemizer) = phonemizer {
        let mut before = 0;
        for chunk in frontend.speak(text)?.chunks {
            for (place, spoken) in pronounced_by_word(phonemizer, &chunk.words)? {
                said.push((before + place.start..before + place.end, spoken));
            }
            before += chunk.words.len();
        }
    }
    let mut said = said.into_iter().peekable();
    let mut before = 0;
    let mut all = Vec::new();
    for sentence in frontend.explain(text)? {
        let end = before + sentence.words.len();
        let mut words = Vec::new();
        let mut at = before;
        while at < end {
            // Where a pronunciation goes on into this sentence, its words have none of their own.
            let of = said.next_if(|(place, _)| place.start == at);
            let next = of.as_ref().map_or(at + 1, |(place, _)| place.end.min(end));
            let group = sentence.words[at - before..next - before].to_vec();
            words.push((group, of.map(|(_, spoken)| spoken)));
            at = next;
        }
        before = end;
        all.push(Explained { sentence, words });
    }
    Ok(all)
}

/// The words as one string that ends as a sentence does: voices learn from whole sentences,
/// and after a comma they would talk on.
#[cfg(feature = "engine")]
pub(super) fn written(phonemizer: &Phonemizer, words: &[Word]) -> Result<String> {
    let mut said = phonemes::render(&pronounced(phonemizer, words)?);
    if said.ends_with([',', ';', ':']) {
        said.pop();
        said.push('.');
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Map;
    use crate::speech::text::Options;

    #[test]
    fn every_word_is_in_one_pronunciation() {
        let phonemizer =
            Phonemizer::open(&Map::open("models/lexicon/en-us.lexicon").unwrap()).unwrap();
        let text = "<speak>A USB stick, <phoneme alphabet=\"ipa\" ph=\"b\u{26a}\u{261}\">two \
                    words</phoneme>, U S B and 3 km.</speak>";
        let words = &TextFrontend::default().speak(text).unwrap().chunks[0].words;
        let said = pronounced_by_word(&phonemizer, words).unwrap();
        let mut next = 0;
        let mut groups = Vec::new();
        for (place, spoken) in &said {
            assert_eq!(place.start, next);
            next = place.end;
            let of: Vec<&str> = words[place.clone()].iter().map(|w| w.text.as_str()).collect();
            if of.len() > 1 {
                groups.push((of.join(" "), spoken.phonemes.as_str()));
            }
        }
        assert_eq!(next, words.len());
        let groups: Vec<(&str, &str)> = groups.iter().map(|(w, p)| (w.as_str(), *p)).collect();
        assert_eq!(groups, [("u s b", "jˌuˌɛsbˈi"), ("two words", "bɪɡ")]);
        let plain = pronounced(&phonemizer, words).unwrap();
        assert!(plain.iter().eq(said.iter().map(|(_, s)| s)));
    }

    #[test]
    fn a_sentence_is_explained_as_its_chunks_are_said() {
        let phonemizer =
            Phonemizer::open(&Map::open("models/lexicon/en-us.lexicon").unwrap()).unwrap();
        let front = TextFrontend::new(Options { max_chars: 40, ..Options::default() }).unwrap();
        let text = "They read what the live band had read before, and the close wind did wind \
                    down to a close. Fine.";
        let told = explain(&front, Some(&phonemizer), text).unwrap();
        let chunks = front.speak(text).unwrap().chunks;
        assert!(told.len() == 2 && chunks.len() > 2);
        let spoken = chunks.iter().flat_map(|c| pronounced(&phonemizer, &c.words).unwrap());
        assert!(told.iter().flat_map(Explained::said).eq(spoken));
        let bare = explain(&front, None, text).unwrap();
        assert!(
            bare.iter().all(|e| e.said().is_empty() && e.words.len() == e.sentence.words.len())
        );
    }
}
