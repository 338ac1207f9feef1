//! Chunks of the text front end as a voice of phonemes reads them.

use super::phonemes::{self, Phonemizer, Spoken};
use super::text::Word;
use crate::Result;

/// The letter A by name: in a text of phonemes alone, "a" would be the article.
const LETTER_A: &str = "ˈA";

/// The words of a chunk, pronounced. Letters that were written as one word are said as one:
/// "USB" has one stress, "U S B" has three.
///
/// # Errors
/// `InvalidText` if there is no word, or a pronunciation that the markup gives is no IPA.
pub fn pronounced(phonemizer: &Phonemizer, words: &[Word]) -> Result<Vec<Spoken>> {
    let mut texts: Vec<(String, Option<&str>, String)> = Vec::with_capacity(words.len());
    let mut spelling: Option<&Word> = None;
    for word in words {
        let mark: String = word.mark.into_iter().collect();
        if word.phonemes.as_deref() == Some("") {
            // The word before was given the sound of both.
            if let Some(last) = texts.last_mut() {
                last.2.push_str(&mark);
            }
            continue;
        }
        let capital = || {
            let mut text = word.text.clone();
            text[..1].make_ascii_uppercase();
            text
        };
        let goes_on = spelling.is_some_and(|s| s.source == word.source && s.mark.is_none());
        match texts.last_mut() {
            Some(last) if goes_on && word.letter => {
                last.0.push_str(&capital());
                (last.1, last.2) = (None, mark);
            }
            _ if word.letter && word.phonemes.is_none() => {
                let a = (word.text == "a").then_some(LETTER_A);
                texts.push((capital(), a, mark));
            }
            _ => texts.push((word.text.clone(), word.phonemes.as_deref(), mark)),
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
    phonemizer.phonemize_words(&words)
}

/// The words as one string that ends as a sentence does: voices learn from whole sentences,
/// and after a comma they would talk on.
pub(super) fn written(phonemizer: &Phonemizer, words: &[Word]) -> Result<String> {
    let mut said = phonemes::render(&pronounced(phonemizer, words)?);
    if said.ends_with([',', ';', ':']) {
        said.pop();
        said.push('.');
    }
    Ok(said)
}
