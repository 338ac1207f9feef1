#!/usr/bin/env bash
# misaki-rs 0.8.0 (crates.io), US English, without espeak
#
# What happens: "used to" in the sense of "accustomed to" is read as if something were made use of,
# jˈuzd, after any form of "be" or "get". Only the past habit ("They used to live here") gets jˈust.
# One would expect: jˈust in both senses, as dictionaries have it (/juːst/); jˈuzd is for "a pan is
# used to make bread", where a verb follows "to".
# Seen: the table below; the last two lines are right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >input <<'TEXT'
I am used to the cold.
He's used to it.
We got used to the noise.
They used to live here.
A pan is used to make bread.
TEXT
cat >expected <<'TEXT'
ˌI ɐm jˈuzd tə ðə kˈOld.
hˌiz jˈuzd tʊ ɪt.
wˌi ɡɑt jˈuzd tə ðə nˈYz.
ðˌA jˈust tə lˈɪv hˈɪɹ.
ɐ pˈæn ɪz jˈuzd tə mˌAk bɹˈɛd.
TEXT
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"
[dependencies]
misaki-rs = { version = "=0.8.0", default-features = false }
TOML
cat >src/main.rs <<'RUST'
fn main() {
    let g2p = misaki_rs::G2P::new(misaki_rs::Language::EnglishUS);
    for line in std::io::stdin().lines() {
        println!("{}", g2p.g2p(&line.expect("a line")).expect("phonemes").0);
    }
}
RUST
CARGO_TARGET_DIR=$dir/target cargo run --quiet <input >got
echo "text | expected | got"
paste -d'|' input expected got
cmp expected got
