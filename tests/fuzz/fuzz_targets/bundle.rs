#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = voxgrain::bundle::Bundle::parse(text, "bundle");
});
