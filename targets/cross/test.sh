#!/bin/bash
# Builds the tests and runs them under qemu.
#
#   targets/cross/test.sh aarch64              every CPU below
#   targets/cross/test.sh aarch64 cortex-a76   one CPU
#   targets/cross/test.sh armv7
#   targets/cross/test.sh x86_64               PCs without AVX, and with AVX2 only
#   targets/cross/test.sh aarch64 all --engine also the engine, the sound and the program
#   targets/cross/test.sh aarch64 all --full   also the tests of a million draws (slow)
#
# Kernels run on every CPU, and the run fails if a CPU does not offer the kernels that it
# must; so do the engine and a spoken sentence. The rest (group index, acceptance, text,
# bundles, WAV files, the program's errors) does not depend on the CPU and runs on the first.
# Without --engine tract is not compiled: four minutes instead of a quarter of an hour.
# qemu's speed says nothing about a device.
set -euo pipefail
cd "$(dirname "$0")/../.."

arch=${1:?aarch64, armv7 or x86_64}
only=${2:-all}
shift $(($# < 2 ? $# : 2))
full='' engine=''
for option; do
  case $option in
    --full) full=yes ;;
    --engine) engine=yes ;;
    *) echo "test.sh: $option?" >&2; exit 2 ;;
  esac
done
case $arch in
  aarch64) target=aarch64-unknown-linux-gnu cpus=(cortex-a72 cortex-a53 cortex-a76 max) ;;
  armv7) target=armv7-unknown-linux-gnueabihf cpus=(cortex-a7 cortex-a7+profile) ;;
  x86_64) target=x86_64-unknown-linux-gnu cpus=(Nehalem Haswell) ;;
  *)
    echo "test.sh: $arch is not aarch64, armv7 or x86_64" >&2
    exit 2
    ;;
esac
[ "$only" = all ] || cpus=("$only")

# What kernel::all() must be.
kernels() {
  case $arch/$1 in
    aarch64/cortex-a35 | aarch64/cortex-a5? | aarch64/cortex-a72) echo scalar portable neon ;;
    aarch64/*) echo scalar portable neon neon-dotprod ;;
    x86_64/Nehalem) echo scalar portable ;;
    x86_64/*) echo scalar portable avx2 ;;
    *) echo scalar portable ;;
  esac
}

# Tests that draw a million times or search by brute force: minutes each under qemu.
slow=()
if [ -z "$full" ]; then
  for t in stand_in_gives_the_group_law resampling_gives_the_targets_law \
    the_residual_follows_its_law by_token_the_law_is singleton_groups_repeat \
    an_equal_draft_is_always_accepted one_group_of_all_accepts a_round_accepts_as_many \
    wrong_rules_fail sequences_follow_the_target every_family_and_metric \
    greedy_speculation_on_models; do
    slow+=(--skip "$t")
  done
fi
# A limit in seconds says nothing under an emulator.
slow+=(--skip a_megabyte_takes_less_than_a_second)

rest=(--lib --test asg --test law --test decode --test text --test bundle --test wav)
failed=
tests() {
  cross_cargo "$target" test "${args[@]}" --no-fail-fast "$@" || failed+="$cpu "
}
for i in "${!cpus[@]}"; do
  cpu=${cpus[$i]}
  args=(--release --no-default-features --features std)
  every=(--test kernel --test targets)
  program=()
  # 32-bit ARM has the engine in the build with the profile's flags: build.sh's, too.
  if [ -n "$engine" ] && [ "$cpu" != cortex-a7 ]; then
    args=(--release) # the program's features, so that build.sh's work is shared
    every+=(--test engine --test speech)
    program=(--test cli)
  fi
  if [ "$cpu" != "${cpu%+profile}" ]; then
    # The instructions that the 32-bit profile adds to the baseline.
    CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUSTFLAGS=$(
      sed -n 's/^rustflags = "\(.*\)"$/\1/p' targets/raspberry-pi-3.toml
    )
    export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUSTFLAGS
  fi
  export QEMU_CPU_AARCH64=$cpu QEMU_CPU_ARMV7=${cpu%+profile} QEMU_CPU_X86_64=$cpu
  # shellcheck source=env.sh
  . targets/cross/env.sh
  # The tests of the program start it themselves.
  VOXGRAIN_RUNNER=$(emulate "$target" "${cpu%+profile}")
  export VOXGRAIN_RUNNER
  echo "== $target on $cpu: $(kernels "$cpu")"
  VOXGRAIN_EXPECT_KERNELS=$(kernels "$cpu") tests "${every[@]}" -- "${slow[@]}"
  if [ "$i" = 0 ]; then
    tests "${rest[@]}" "${program[@]}" -- "${slow[@]}"
  elif [ ${#program[@]} -gt 0 ]; then
    tests "${program[@]}" -- a_seed_fixes_the_sound
  fi
done
[ -z "$failed" ] || { echo "test.sh: failures on $failed" >&2; exit 1; }
