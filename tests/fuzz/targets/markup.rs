use voxgrain::ErrorKind;
use voxgrain::speech::text::{ALPHABET, Markup, Options, TextFrontend, explain};

// Every markup on any text: an error or words, never a panic; pauses and rates stay within
// their limits.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for markup in [Markup::Auto, Markup::Markdown, Markup::Ssml] {
        let options = Options { markup, ..Options::default() };
        let mut front = TextFrontend::new(options).expect("options within their limits");
        match front.speak(text) {
            Err(e) => assert_eq!(e.kind(), ErrorKind::InvalidText),
            Ok(speech) => {
                for c in &speech.chunks {
                    assert!(c.text.chars().all(|c| ALPHABET.contains(c)));
                    assert!(c.pause_after >= 0.0 && c.pause_after.is_finite());
                    assert!((0.1..=10.0).contains(&c.rate));
                    assert!(text.get(c.source.clone()).is_some());
                }
                let sentences = explain(text, options).expect("it can be spoken");
                assert!(sentences.iter().all(|s| s.source.end <= text.len()));
            }
        }
        let _ = front.feed(text);
        let _ = front.flush();
    }
}
