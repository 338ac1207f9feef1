#!/bin/sh
# Checks the C interface as its users meet it: builds, symbols, header, examples, memory
# errors, a microcontroller. One line a step; stops at the first that fails. Steps whose tool
# is not installed are skipped and say so. CARGO_TARGET_DIR works as with cargo.
#
#   targets/check-capi.sh           about two minutes where the dependencies are built
#   targets/check-capi.sh aarch64   the announcements for AArch64 as well, run by qemu-aarch64
#                                   (one minute after cross/build.sh, ten without)
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target=${CARGO_TARGET_DIR:-target}
inc=targets/include
fw=targets/firmware
cc=${CC:-cc}
cxx=${CXX:-c++}

step() { # NAME COMMAND...
  name=$1
  shift
  if "$@" > "$work/log" 2>&1; then
    echo "PASS $name"
  else
    cat "$work/log"
    echo "FAIL $name"
    exit 1
  fi
}
skip() { echo "SKIP $1 (no $2)"; }
have() { command -v "$1" > /dev/null 2>&1; }

# The archive holds Rust's own symbols too, mangled; of C's names only ours may be global.
listed() { grep -v '^#' $inc/symbols.txt | sort; }
shared_symbols() {
  nm -D --defined-only "$work/usr/lib/libvoxgrain.so" | sed 's/.* //' | sort > "$work/found"
  listed | diff - "$work/found"
}
static_symbols() {
  nm -g --defined-only "$work/usr/lib/libvoxgrain.a" 2> /dev/null |
    sed -n 's/^[0-9a-f]* [A-Z] \(vx_[a-z0-9_]*\)$/\1/p' | sort -u > "$work/found"
  listed | diff - "$work/found"
}
soname() { readelf -d "$work/usr/lib/libvoxgrain.so" | grep -F 'soname: [libvoxgrain.so.0]'; }

step "static and shared library, pkg-config file" targets/install-capi.sh "$work/usr"
step "the shared library exports symbols.txt and nothing else" shared_symbols
step "the static library defines symbols.txt" static_symbols
step "SONAME" soname

header() { # COMPILER STANDARD LANGUAGE
  printf '#include "voxgrain.h"\n' | "$1" -std="$2" -x "$3" -Wall -Wextra -Werror -pedantic \
    -I$inc -fsyntax-only -
}
step "header as C99" header "$cc" c99 c
step "header as C11" header "$cc" c11 c
step "header as C++98" header "$cxx" c++98 c++
step "header as C++17" header "$cxx" c++17 c++

warn="-Wall -Wextra -Werror -pedantic -O2"
export PKG_CONFIG_PATH="$work/usr/lib/pkgconfig"
if have pkg-config; then
  libs() { pkg-config --cflags --libs "$@" voxgrain; }
else
  libs() {
    flags=$(sed -n 's/^Libs.private: //p' "$work/usr/lib/pkgconfig/voxgrain.pc")
    echo "-I$work/usr/include -L$work/usr/lib -lvoxgrain $flags"
  }
fi
dynamic_example() { $cc -std=c11 $warn $fw/announce.c -o "$work/dynamic" $(libs) -lpthread; }
static_example() {
  # The archive by name: -lvoxgrain would prefer the shared library beside it.
  $cc -std=c11 $warn $fw/announce.c -o "$work/static" $(libs --static |
    sed 's| -lvoxgrain| -l:libvoxgrain.a|') &&
    ! readelf -d "$work/static" | grep voxgrain &&
    ! readelf -lW "$work/static" | grep 'GNU_STACK.*RWE'
}
play() { "$@" models/tiny $fw/announce.txt; }
step "example, shared" dynamic_example
step "example, static, no executable stack" static_example
step "announcements through the shared library" \
  env LD_LIBRARY_PATH="$work/usr/lib" "$work/dynamic" -t 2 models/tiny $fw/announce.txt
step "announcements through the static library" play "$work/static" -t 2
refused() { ! play "$work/static" -m 1000000 && grep -q VX_E_MEMORY "$work/log"; }
step "a budget that does not suffice is refused" refused

asan() {
  $cc -std=c11 $warn -g -fsanitize=address,undefined -fno-sanitize-recover=all \
    $fw/announce.c -o "$work/asan" $(libs) -lpthread &&
    LD_LIBRARY_PATH="$work/usr/lib" play "$work/asan" -t 2
}
step "announcements with AddressSanitizer" asan
if have valgrind; then
  step "announcements under valgrind" play valgrind -q --error-exitcode=9 --leak-check=full \
    --errors-for-leak-kinds=definite,indirect "$work/static" -t 2 -x 0.1
else
  skip "announcements under valgrind" valgrind
fi

# The same program on PCs that this machine is not: no second build.
if have qemu-x86_64 && [ "$(uname -m)" = x86_64 ]; then
  emulated() { # CPU KERNEL
    play qemu-x86_64 -cpu "$1" "$work/static" -t 2 -x 0.1 && grep -q "x86_64-linux, $2," "$work/log"
  }
  step "announcements in qemu on a PC without AVX" emulated Nehalem portable
  step "announcements in qemu on a PC with AVX2" emulated Haswell avx2
else
  skip "announcements in qemu" qemu-x86_64
fi

host=$(rustc -vV | sed -n 's/^host: //p')
asg="-DASG=\"asg-cache/tiny.asg\""
# The folder that a crossed build goes to.
crossed_dir() { (. targets/cross/env.sh && cross_dir "$1"); }
core="rustc --release --lib --no-default-features --features capi-core --crate-type staticlib"
# In a shell of its own: cross/env.sh may choose another compiler.
crossed() { # TRIPLE COMMAND...
  (. targets/cross/env.sh && triple=$1 && shift && cross_cargo "$triple" "$@")
}
core_host() {
  cargo $core --target "$host" &&
    $cc -std=c99 $warn -ffp-contract=off -DHOSTED "$asg" -I$inc $fw/core/main.c $fw/core/index.S \
      "$target/$host/release/libvoxgrain.a" -lpthread -ldl -lm -lgcc_s -o "$work/core" &&
    "$work/core" > "$work/core.host"
}
step "core on the host" core_host

mcu=thumbv7em-none-eabihf
armcc=
for c in arm-none-eabi-gcc arm-linux-gnueabihf-gcc; do
  if [ -z "$armcc" ] && have $c; then armcc=$c; fi
done
bare() {
  # No libc and no libgcc: whatever is missing would show here.
  crossed $mcu $core &&
    $armcc -std=gnu99 -Wall -Wextra -Werror -O2 -ffp-contract=off -mcpu=cortex-m4 -mthumb \
      -mfloat-abi=hard -mfpu=fpv4-sp-d16 -ffreestanding -fno-pic -fno-pie -nostdlib -static \
      -Wl,--gc-sections -Wl,--build-id=none -T $fw/core/mps2.ld "$asg" -I$inc $fw/core/main.c \
      $fw/core/board.c $fw/core/index.S "$(crossed_dir $mcu)/$mcu/release/libvoxgrain.a" -o "$work/core.elf"
}
simulate() {
  timeout 120 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial null \
    -semihosting-config enable=on,target=native -kernel "$work/core.elf" > "$work/core.m4" 2>&1 &&
    diff "$work/core.host" "$work/core.m4"
}
# Its library, or the source to build it from.
core_library() {
  . targets/cross/env.sh
  cross_has $mcu || [ -d "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/src/rust/library/core" ]
}
if ! (core_library); then
  skip "core for a Cortex-M4" "Rust target $mcu: targets/cross/setup.sh"
elif [ -z "$armcc" ]; then
  skip "core for a Cortex-M4" "arm-none-eabi-gcc"
else
  step "core for a Cortex-M4 without libc and libgcc" bare
  if have qemu-system-arm; then
    step "core in qemu makes the host's choices" simulate
  else
    skip "core in qemu" qemu-system-arm
  fi
fi

[ "${1:-}" = aarch64 ] || exit 0
arm=aarch64-unknown-linux-gnu
armlinux=aarch64-linux-gnu-gcc
cross() {
  # As install-capi.sh builds it, so that the work is shared.
  crossed $arm rustc --release --lib --features capi --crate-type staticlib,cdylib &&
    $armlinux -std=c11 $warn -I$inc $fw/announce.c "$(crossed_dir $arm)/$arm/release/libvoxgrain.a" \
      -Wl,-z,noexecstack -Wl,--gc-sections -lpthread -ldl -lm -lgcc_s -o "$work/arm"
}
step "example for AArch64" cross
on() { # CPU KERNEL
  play qemu-aarch64 -cpu "$1" -L /usr/aarch64-linux-gnu "$work/arm" -t 2 -x 0.1 &&
    grep -q "aarch64-linux, $2," "$work/log"
}
step "announcements in qemu on a Cortex-A72" on cortex-a72 neon
step "announcements in qemu on a Cortex-A76" on cortex-a76 neon-dotprod
step "announcements in qemu on everything that it knows" on max neon-dotprod
