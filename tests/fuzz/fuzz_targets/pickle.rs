#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::import::pickle;
use voxgrain::map::Map;

// The input is the archive, or the pickle alone, for which one is made around it.
fuzz_target!(|data: &[u8]| {
    let _ = pickle::read(&Map::from_vec(data.to_vec()));
    let _ = pickle::read(&Map::from_vec(stored("a/data.pkl", data)));
});

/// A zip of one stored entry.
fn stored(name: &str, bytes: &[u8]) -> Vec<u8> {
    let crc = bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| c >> 1 ^ if c & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    let length = (bytes.len() as u32).to_le_bytes();
    let mut about = vec![20, 0, 0, 0, 0, 0, 0, 0, 33, 0];
    about.extend((!crc).to_le_bytes());
    about.extend(length);
    about.extend(length);
    about.extend((name.len() as u16).to_le_bytes());
    let mut out = b"PK\x03\x04".to_vec();
    out.extend(&about);
    out.extend([0, 0]);
    out.extend(name.bytes());
    out.extend(bytes);
    let directory = out.len() as u32;
    out.extend(b"PK\x01\x02\x14\x00");
    out.extend(&about);
    out.extend([0; 16]);
    out.extend(name.bytes());
    let size = out.len() as u32 - directory;
    out.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    out.extend(size.to_le_bytes());
    out.extend(directory.to_le_bytes());
    out.extend([0, 0]);
    out
}
