#!/bin/bash
# Counts the instructions of one kernel call under qemu: what a kernel costs without a
# device, free of noise. (Not time: a fused multiply-add and a move count the same.)
#
#   targets/cross/count.sh aarch64 neon-dotprod qgemm8 1
#   targets/cross/count.sh armv7 scalar attend 4
#
# The functions and their sizes are in tests/targets.rs.
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=${1:?aarch64 or armv7} kernel=${2:?kernel} function=${3:?function} rows=${4:-1}
out=${CARGO_TARGET_DIR:-target}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cc -O2 -shared -fPIC -o "$out/libcount.so" targets/cross/count.c
: "${QEMU_CPU_AARCH64:=max}" "${QEMU_CPU_ARMV7:=cortex-a7}"
# shellcheck source=env.sh
. targets/cross/env.sh
case $arch in
  aarch64) target=aarch64-unknown-linux-gnu runner=CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER ;;
  armv7) target=armv7-unknown-linux-gnueabihf runner=CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER ;;
esac
export "$runner=${!runner} -plugin $out/libcount.so"

once() {
  VOXGRAIN_WORK="$kernel $function $rows $1" cross_cargo "$target" test -q --release \
    --no-default-features --features std --test targets -- \
    --ignored --exact work --test-threads=1 2>&1 | sed -n 's/^instructions //p'
}
# The difference takes the start of the program away.
a=$(once 2) b=$(once 12)
echo "$arch $kernel $function $rows rows: $(((b - a) / 10)) instructions"
