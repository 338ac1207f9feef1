#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::import::config::Config;
use voxgrain::import::gguf::Gguf;
use voxgrain::import::tokenizer;
use voxgrain::map::Map;

fuzz_target!(|data: &[u8]| {
    if let Ok(gguf) = Gguf::read(&Map::from_vec(data.to_vec())) {
        let _ = Config::from_gguf(&gguf).map(|c| c.frequencies());
        let _ = tokenizer::from_gguf(&gguf);
        for tensor in gguf.tensors.tensors.values().filter(|t| t.len() < 1 << 20) {
            assert_eq!(tensor.to_vec().len(), tensor.len());
        }
    }
});
