#!/usr/bin/env bash
# misaki-rs 0.8.0 (crates.io), US English, without espeak
#
# What happens: between two words without a space, one comma stays, but two commas or two hyphens
# vanish and the words become ONE word: "one,,two" wˈʌntˌu, "red,,green,,blue" ɹˌɛdɡɹˈinblˈu, and in
# "name,,street,city" the end of "name" goes into "street". Their stresses are lowered as in a
# compound. So a line of CSV with an empty field is read without a pause.
# One would expect: two words and the pause, as for "one,two"; with a space behind, both commas stay.
# hibari-tts 0.2.1, another port, gives the same strings, so it may well be the original's.
# Seen: the table below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >input <<'TEXT'
one,two
one,, two
one,,two
one--two
red,,green,,blue
name,,street,city
TEXT
cat >expected <<'TEXT'
wˈʌn,tˈu
wˈʌn,, tˈu
wˈʌntˌu
wˈʌntˈu
ɹˌɛdɡɹˈinblˈu
nˌAmstɹˈit,sˈɪTi
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
