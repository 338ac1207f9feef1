use voxgrain::speech::text::{ALPHABET, Markup, Options, Respelling, TextFrontend};

// What is said is in the alphabet and within the limit, whole or fed in two parts, and every
// word knows a place in the text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let respelling = Respelling::Letters;
    let options = Options { markup: Markup::None, respelling, max_chars: 40, ..Options::default() };
    let mut front = TextFrontend::new(options).expect("options within their limits");
    if let Ok(speech) = front.speak(text) {
        assert!(!speech.chunks.is_empty());
        for c in &speech.chunks {
            assert!(c.text.chars().all(|c| ALPHABET.contains(c)) && c.text.len() <= 40);
            assert!(c.words.iter().all(|w| text.get(w.source.clone()).is_some()));
        }
    }
    let mut half = text.len() / 2;
    while !text.is_char_boundary(half) {
        half -= 1;
    }
    let mut fed = front.feed(&text[..half]).expect("plain text has no markup to be wrong");
    fed.extend(front.feed(&text[half..]).expect("plain text has no markup to be wrong"));
    fed.extend(front.flush().expect("plain text has no markup to be wrong"));
    assert!(fed.iter().all(|c| c.text.chars().all(|c| ALPHABET.contains(c))));
}
