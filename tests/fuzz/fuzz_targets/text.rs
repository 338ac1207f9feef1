#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::speech::text::{ALPHABET, TextFrontend};

fuzz_target!(|text: &str| {
    if let Ok(speech) = TextFrontend::default().speak(text) {
        assert!(!speech.chunks.is_empty());
        assert!(speech.chunks.iter().all(|c| c.text.chars().all(|c| ALPHABET.contains(c))));
    }
});
