#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::speech::bpe::Bpe;

// A small tokenizer.json with the input in its place, then the input as text for a sound one.
const SOUND: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
"post_processor":null,"decoder":null,"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#;

fuzz_target!(|data: &[u8]| {
    if let Ok(bpe) = Bpe::read(data, "input") {
        let _ = (bpe.before(), bpe.ids(), bpe.encode("abba, <|speech_0|>"));
    }
    let sound = Bpe::read(SOUND.as_bytes(), "sound").expect("a sound tokenizer");
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = sound.encode(text);
    }
});
