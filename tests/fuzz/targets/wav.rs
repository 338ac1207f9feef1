pub fn run(data: &[u8]) {
    let _ = voxgrain::speech::wav::Wav::parse(data);
}
