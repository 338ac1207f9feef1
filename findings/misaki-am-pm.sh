#!/usr/bin/env bash
# misaki-rs 0.8.0 (crates.io), US English, without espeak
#
# What happens: behind a number, "am" (and "AM" when it touches the number) is read as the verb in
# "I am", while "pm" is spelled. In "11am to 3pm" it even loses its stress, like the verb.
# One would expect: both spelled, "ay em" and "pee em", however they are written; "9 AM" and "9 a.m."
# are, and hibari-tts 0.2.1, another port with the same lexicons, spells "9am" as well.
# Seen: the table below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >input <<'TEXT'
9am
9AM
9 am
9 AM
9 a.m.
3pm
11am to 3pm
TEXT
cat >expected <<'TEXT'
nˈIn æm
nˈIn æm
nˈIn æm
nˈIn ˌAˈɛm
nˈIn ˌAˈɛm
θɹˈi pˌiˈɛm
əlˈɛvᵊn ɐm tə θɹˈi pˌiˈɛm
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
