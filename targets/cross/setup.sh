#!/bin/bash
# Installs what building for the device profiles and testing them under qemu needs.
# Debian and Ubuntu; about 100 MB of packages. Runs again without harm.
#
#   targets/cross/setup.sh             C linkers, qemu, Rust targets
#   targets/cross/setup.sh --unpacked  as above, but the compiler from Debian packages
#
# Rust targets come from rustup. Where rustup is not there or has nothing to give (an
# offline mirror, a distribution's compiler), Debian's rustc-web is unpacked aside under
# $VOXGRAIN_CROSS (170 MB to fetch, 1.1 GB unpacked; the system is not touched). Its library
# for AArch64 is ready made, those for 32-bit ARM and bare metal are built from source.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=env.sh
. targets/cross/env.sh

TARGETS=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf
  thumbv7em-none-eabihf thumbv8m.main-none-eabihf aarch64-unknown-none)
PACKAGES=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross
  gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user)

say() { echo "setup: $*" >&2; }

install_packages() {
  local missing=()
  for p in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok' || missing+=("$p")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

rustup_targets() {
  command -v rustup >/dev/null || { say "no rustup"; return 1; }
  local missing=()
  for t in "${TARGETS[@]}"; do cross_has "$t" || missing+=("$t"); done
  [ ${#missing[@]} -eq 0 ] && return
  say "rustup target add ${missing[*]}"
  rustup target add "${missing[@]}" >&2
}

# apt with a state of its own, in which arm64 is a second architecture; the system's list of
# packages is read for its sources and never written.
apt_aside() {
  local tool=$1 apt=$VOXGRAIN_CROSS/apt
  shift
  "$tool" -qq -o APT::Architecture=amd64 -o APT::Architectures::=amd64 \
    -o APT::Architectures::=arm64 -o Dir::State="$apt/state" \
    -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
    -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root \
    -o Acquire::Languages=none "$@"
}

unpack_compiler() {
  [ "$(dpkg --print-architecture)" = amd64 ] || { say "needs an amd64 machine"; return 1; }
  local apt=$VOXGRAIN_CROSS/apt root=$VOXGRAIN_CROSS/root debs=$VOXGRAIN_CROSS/debs
  mkdir -p "$apt"/{state,lists/partial,cache/archives/partial} "$root" "$debs" "$VOXGRAIN_CROSS/bin"
  : >"$apt/status"
  apt_aside apt-get update
  # Cargo.toml asks for 1.95; the newest candidate must say so.
  local version short
  version=$(apt_aside apt-cache policy rustc-web | sed -n 's/^ *Candidate: //p')
  short=$(echo "$version" | cut -d. -f1,2)
  if [ -z "$short" ] || [ "$(printf '%s\n' 1.95 "$short" | sort -V | head -1)" != 1.95 ]; then
    say "rustc-web is ${version:-missing}; 1.95 or later is needed"
    return 1
  fi
  local llvm
  llvm=$(apt_aside apt-cache depends "libstd-rust-web-$short" | sed -n 's/^ *Depends: \(libllvm[0-9]*\)$/\1/p' | head -1)
  say "unpacking rustc-web $version and $llvm under $VOXGRAIN_CROSS"
  (
    cd "$debs"
    apt_aside apt-get download "rustc-web=$version" "libstd-rust-web-$short:amd64=$version" \
      "$llvm:amd64" "libstd-rust-web-dev:amd64=$version" "libstd-rust-web-dev:arm64=$version" \
      "rust-web-src=$version"
    for deb in *.deb; do dpkg-deb -x "$deb" "$root"; done
  )
  rm -rf "$debs"
  for tool in rustc rustdoc; do
    local path
    path=$(find "$root/usr" -name "$tool" -type f -perm -u+x | head -1)
    [ -n "$path" ] || { say "no $tool in the packages"; return 1; }
    cat >"$VOXGRAIN_CROSS/bin/$tool" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$path" "\$@"
WRAPPER
    chmod +x "$VOXGRAIN_CROSS/bin/$tool"
  done
  "$VOXGRAIN_CROSS/bin/rustc" --version >&2
}

if command -v apt-get >/dev/null; then
  install_packages
else
  say "not Debian or Ubuntu: install the likes of ${PACKAGES[*]} yourself"
fi
if [ "${1:-}" = --unpacked ] || ! rustup_targets; then
  unpack_compiler
  . targets/cross/env.sh
fi
for t in "${TARGETS[@]}"; do
  cross_has "$t" && say "$t: ready" || say "$t: its library will be built from source"
done
