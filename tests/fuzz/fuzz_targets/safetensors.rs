#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::import::safetensors;
use voxgrain::map::Map;

fuzz_target!(|data: &[u8]| {
    if let Ok(tensors) = safetensors::read(&Map::from_vec(data.to_vec())) {
        // What was let through can be read to its end.
        for tensor in tensors.values().filter(|t| t.len() < 1 << 20) {
            assert_eq!(tensor.to_vec().len(), tensor.len());
        }
    }
});
