# Sourced by the other scripts: what cargo needs to build and run for another machine.
#
#   . targets/cross/env.sh
#   cargo test --target aarch64-unknown-linux-gnu $(cross_args aarch64-unknown-linux-gnu)
#
# QEMU_CPU_AARCH64, QEMU_CPU_ARMV7 and QEMU_CPU_X86_64 choose the CPU that tests run on;
# without the last one, x86-64 runs on the machine itself.

: "${VOXGRAIN_CROSS:=${XDG_CACHE_HOME:-$HOME/.cache}/voxgrain-cross}"
: "${QEMU_CPU_AARCH64:=cortex-a72}"
: "${QEMU_CPU_ARMV7:=cortex-a7}"

# emulate TARGET CPU: the command that runs a program of TARGET on an emulated CPU.
emulate() {
  case $1 in
    aarch64-*) echo qemu-aarch64 -cpu "$2" -L /usr/aarch64-linux-gnu ;;
    armv7-*) echo qemu-arm -cpu "$2" -L /usr/arm-linux-gnueabihf ;;
    x86_64-*) echo qemu-x86_64 -cpu "$2" ;;
  esac
}

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$(emulate aarch64- "$QEMU_CPU_AARCH64")
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER

export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
export CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc
export AR_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-ar
CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER=$(emulate armv7- "$QEMU_CPU_ARMV7")
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER

if [ -n "${QEMU_CPU_X86_64:-}" ]; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $QEMU_CPU_X86_64"
fi

# A compiler that setup.sh unpacked, where rustup had no targets to give.
if [ -x "$VOXGRAIN_CROSS/bin/rustc" ]; then
  export RUSTC="$VOXGRAIN_CROSS/bin/rustc" RUSTDOC="$VOXGRAIN_CROSS/bin/rustdoc"
fi

# cross_has TARGET: whether the compiler in use has a standard library for it.
cross_has() {
  [ -d "$("${RUSTC:-rustc}" --print target-libdir --target "$1" 2>/dev/null)" ] &&
    ls "$("${RUSTC:-rustc}" --print target-libdir --target "$1")"/libcore-*.rlib >/dev/null 2>&1
}

# cross_args TARGET: what cargo needs besides --target: nothing where the library is there,
# otherwise to build the library from its source (stable compiler, RUSTC_BOOTSTRAP).
cross_args() {
  cross_has "$1" && return
  case $1 in
    *-none*) echo -Zbuild-std=core ;;
    *) echo -Zbuild-std=std,panic_unwind ;;
  esac
}

# cross_dir TARGET: the target folder for it. What is built with RUSTC_BOOTSTRAP keeps to a folder of
# its own: build scripts ask for that variable, and in one folder each kind of build would have the
# other compiled again, tract included.
cross_dir() {
  if [ -n "$(cross_args "$1")" ]; then
    echo "${CARGO_TARGET_DIR:-target}/build-std"
  else
    echo "${CARGO_TARGET_DIR:-target}"
  fi
}

# cross_cargo TARGET SUBCOMMAND ARGS...: cargo with all that. Arguments for the compiler of
# the last crate go behind `--` as with `cargo rustc`.
cross_cargo() {
  local target=$1 command=$2 extra
  shift 2
  extra=$(cross_args "$target")
  if [ -n "$extra" ]; then
    CARGO_TARGET_DIR=$(cross_dir "$target") RUSTC_BOOTSTRAP=1 cargo "$command" --target "$target" "$extra" "$@"
  else
    cargo "$command" --target "$target" "$@"
  fi
}
