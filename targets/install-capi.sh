#!/bin/sh
# Builds the static and the shared library and installs them with the header and the
# pkg-config file:
#
#   targets/install-capi.sh PREFIX       (DESTDIR is honoured)
#
# CARGO_TARGET_DIR and CARGO_BUILD_TARGET work as with cargo; VOXGRAIN_PROFILE=small builds for
# size. Needs nm and a linker that knows
# --soname (GNU or LLVM).
set -eu
cd "$(dirname "$0")/.."
prefix=${1:?usage: targets/install-capi.sh PREFIX}
to=${DESTDIR:-}$prefix
major=0
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
profile=${VOXGRAIN_PROFILE:-release}
out=${CARGO_TARGET_DIR:-target}/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}$profile

# With the program's features, so that its dependencies are compiled once for both; what the
# library does not call is not linked. VOXGRAIN_FEATURES=--no-default-features leaves them out.
cargo rustc --profile "$profile" --lib ${VOXGRAIN_FEATURES:-} --features capi \
  --crate-type staticlib,cdylib -- -C link-arg=-Wl,-soname,libvoxgrain.so.$major

mkdir -p "$to/lib/pkgconfig" "$to/include"
cp targets/include/voxgrain.h "$to/include/"
cp "$out/libvoxgrain.a" "$to/lib/"
cp "$out/libvoxgrain.so" "$to/lib/libvoxgrain.so.$version"
ln -sf "libvoxgrain.so.$version" "$to/lib/libvoxgrain.so.$major"
ln -sf "libvoxgrain.so.$major" "$to/lib/libvoxgrain.so"
# Some objects of a dependency lack the note that says so: without -z noexecstack a program
# that links the archive would get an executable stack.
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" \
  -e 's|@PRIVATE@|-Wl,-z,noexecstack -Wl,--gc-sections -lpthread -ldl -lm -lgcc_s|' \
  targets/voxgrain.pc.in > "$to/lib/pkgconfig/voxgrain.pc"
