#!/bin/bash
# Builds the program and the C library for one device profile.
#
#   targets/cross/build.sh raspberry-pi-4          into target/devices/raspberry-pi-4
#   targets/cross/build.sh raspberry-pi-4 --check  and lets the emulated device say a sentence
#
# The first build for a triple compiles tract, which takes a while; profiles of one triple
# and the same flags share it.
set -euo pipefail
cd "$(dirname "$0")/../.."
id=${1:?a profile: $(cd targets && echo *.toml)}
profile=targets/${id%.toml}.toml
[ -f "$profile" ] || { echo "build.sh: there is no $profile" >&2; exit 2; }
id=$(basename "$profile" .toml)
field() { sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$profile"; }
triple=$(field triple)
qemu_cpu=$(field qemu_cpu)

# shellcheck source=env.sh
. targets/cross/env.sh
extra=$(cross_args "$triple")
if [ -n "$extra" ]; then
  export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=${extra#*=}
fi
var=$(echo "$triple" | tr a-z- A-Z_)
flags=$(field rustflags)
[ -z "$flags" ] || export "CARGO_TARGET_${var}_RUSTFLAGS=$flags"
export CARGO_BUILD_TARGET=$triple
case $triple in
  aarch64-*) tools=aarch64-linux-gnu- qemu=qemu-aarch64 root=/usr/aarch64-linux-gnu ;;
  armv7-*) tools=arm-linux-gnueabihf- qemu=qemu-arm root=/usr/arm-linux-gnueabihf ;;
  *) tools='' qemu=qemu-x86_64 root=/ ;;
esac

target=${CARGO_TARGET_DIR:-target}
out=$target/devices/$id
rm -rf "$out"
mkdir -p "$out"
cargo build --release --bin voxgrain
"${tools}strip" -o "$out/voxgrain" "$target/$triple/release/voxgrain"
DESTDIR=$(cd "$out" && pwd) targets/install-capi.sh /usr
"${tools}strip" "$out"/usr/lib/libvoxgrain.so.*.*
# Objects keep their symbols, less what only a debugger reads.
"${tools}strip" --strip-debug "$out/usr/lib/libvoxgrain.a"
cp "$profile" "$out/profile.toml"

glibc=$("${tools}objdump" -T "$out/voxgrain" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
echo "$id: $triple, $(field kernel) expected, needs $glibc"
find "$out" -type f -printf '%10s  %P\n' | sort -k2

if [ "${2:-}" = --check ]; then
  wav=$out/check.wav
  echo "on $qemu -cpu ${qemu_cpu:-max}:"
  time "$qemu" -cpu "${qemu_cpu:-max}" -L "$root" "$out/voxgrain" \
    say --bundle models/tiny -o "$wav" "One, two, three."
  [ "$(head -c 4 "$wav")" = RIFF ] && [ "$(wc -c <"$wav")" -gt 1000 ]
  ls -l "$wav"
fi
