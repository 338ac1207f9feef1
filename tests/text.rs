#![cfg(feature = "std")]
#[test]
fn probe() {
    let f = voxgrain::speech::text::TextFrontend::default();
    if let Ok(p) = std::env::var("PROBE") {
        for line in std::fs::read_to_string(p).unwrap().lines() {
            println!("{line:40} => {}", f.normalise(line));
        }
    }
}
