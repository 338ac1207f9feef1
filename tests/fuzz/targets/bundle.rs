pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = voxgrain::bundle::Bundle::parse(text, "bundle");
}
