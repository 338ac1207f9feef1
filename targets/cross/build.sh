#!/bin/bash
# Builds the program and the C library for one device profile.
#
#   targets/cross/build.sh raspberry-pi-4             into target/devices/raspberry-pi-4
#   targets/cross/build.sh raspberry-pi-4 --check     and says a sentence on emulated CPUs
#   targets/cross/build.sh raspberry-pi-4 --small     the profile for size (Cargo.toml)
#   targets/cross/build.sh raspberry-pi-4 --no-audio  the program without playback
#   targets/cross/build.sh raspberry-pi-4 --no-cli    the library alone
#
# The first build for a triple compiles tract, which takes a while; profiles of one triple
# and the same flags share it. --small compiles it again.
#
# --check lets every emulated CPU say a sentence with the tiny voice, and the profile's own one
# with the real voice (half a minute); the sound must be that of this machine's own build,
# byte for byte (VOXGRAIN_HOST names the program; without it, it is built).
set -euo pipefail
cd "$(dirname "$0")/../.."
id=${1:?a profile: $(cd targets && echo *.toml)}
shift
profile=targets/${id%.toml}.toml
[ -f "$profile" ] || { echo "build.sh: there is no $profile" >&2; exit 2; }
id=$(basename "$profile" .toml)
# The program's features are the default ones but `serve`: a device answers nobody.
build=release program=yes features=(--no-default-features --features cli,audio) check=
for option; do
  case $option in
    --small) build=small ;;
    --no-audio) features=(--no-default-features --features cli) ;;
    --no-cli) program= features=(--no-default-features) ;;
    --check) check=yes ;;
    *) echo "build.sh: $option?" >&2; exit 2 ;;
  esac
done
field() { sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$profile"; }
triple=$(field triple)

# shellcheck source=env.sh
. targets/cross/env.sh
case $triple in
  aarch64-*) tools=aarch64-linux-gnu- cpus='cortex-a53 cortex-a72 cortex-a76 max' ;;
  armv7-*) tools=arm-linux-gnueabihf- cpus=cortex-a7 ;;
  *) tools='' cpus='Nehalem Haswell' ;;
esac

target=${CARGO_TARGET_DIR:-target}
built=$(cross_dir "$triple")
out=$target/devices/$id
[ $build = release ] || out+=-$build
rm -rf "$out"
mkdir -p "$out"
(
  extra=$(cross_args "$triple")
  if [ -n "$extra" ]; then
    export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=${extra#*=}
    export CARGO_TARGET_DIR=$built
  fi
  flags=$(field rustflags)
  var=$(echo "$triple" | tr a-z- A-Z_)
  [ -z "$flags" ] || export "CARGO_TARGET_${var}_RUSTFLAGS=$flags"
  export CARGO_BUILD_TARGET=$triple
  if [ -n "$program" ]; then
    cargo build --profile $build "${features[@]}" --bin voxgrain
    "${tools}strip" -o "$out/voxgrain" "$built/$triple/$build/voxgrain"
  fi
  VOXGRAIN_FEATURES=${features[*]} VOXGRAIN_PROFILE=$build DESTDIR=$(cd "$out" && pwd) targets/install-capi.sh /usr
)
"${tools}strip" "$out"/usr/lib/libvoxgrain.so.*.*
# Objects keep their symbols, less what only a debugger reads.
"${tools}strip" --strip-debug "$out/usr/lib/libvoxgrain.a"
cp "$profile" "$out/profile.toml"

glibc=$("${tools}objdump" -T "$out"/usr/lib/libvoxgrain.so.*.* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
echo "$id: $triple, $build, kernel $(field kernel), needs $glibc"
find "$out" -type f -printf '%10s  %P\n' | sort -k2

[ -n "$check" ] && [ -n "$program" ] || exit 0
host=${VOXGRAIN_HOST:-$target/release/voxgrain}
if [ -z "${VOXGRAIN_HOST:-}" ]; then
  env -u RUSTC -u RUSTDOC cargo build --release --bin voxgrain
fi
# `--gamma 4`: drafts of one length, whatever the speed of the machine.
say() {
  local voice=$1 wav=$2
  shift 2
  "$@" say -q --bundle "models/$voice" --seed 1 --gamma 4 -o "$out/$wav" \
    "The birch canoe slid on the smooth planks."
}
for voice in tiny voice; do
  say $voice $voice-host.wav "$host"
  [ $voice = tiny ] || cpus=$(field qemu_cpu)
  for cpu in $cpus; do
    start=$(date +%s)
    # shellcheck disable=SC2046
    say $voice "$voice-$cpu.wav" $(emulate "$triple" "$cpu") "$out/voxgrain"
    cmp "$out/$voice-host.wav" "$out/$voice-$cpu.wav"
    echo "$voice on $cpu: the host's $(wc -c <"$out/$voice-$cpu.wav") bytes ($(($(date +%s) - start)) s)"
  done
done
