#!/usr/bin/env bash
# misaki-rs 0.8.0 (crates.io), US English, without espeak
#
# What happens: "bass" is the fish wherever it is music: "bass guitar", "bass clef", "double bass" and
# "He sings bass" all get bˈæs, as in "sea bass". Its lexicon has bˈAs (/beɪs/) too, but for adjectives
# only, and the tagger sees a noun in every one of these.
# One would expect: bˈAs in all but the fish, as every dictionary has it; a noun that stands before
# "guitar" or "clef" is the instrument.
# Seen: the table below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >input <<'TEXT'
He plays bass guitar.
This is a bass clef.
She bought a double bass.
He sings bass.
We caught a sea bass.
TEXT
cat >expected <<'TEXT'
hˌi plˈAz bˈæs ɡətˈɑɹ.
ðˌɪs ɪz ɐ bˈæs klˈɛf.
ʃˌi bˈɔt ɐ dˈʌbᵊl bˈæs.
hˌi sˈɪŋz bˈæs.
wˌi kˈɔt ɐ sˈi bˈæs.
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
