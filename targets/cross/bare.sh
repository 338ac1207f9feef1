#!/bin/bash
# Builds what needs neither an operating system nor an allocator: acceptance and the group
# index reader.
#
#   targets/cross/bare.sh [target...]
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=env.sh
. targets/cross/env.sh
[ $# -gt 0 ] || set -- thumbv7em-none-eabihf thumbv8m.main-none-eabihf aarch64-unknown-none
for target; do
  echo "== $target"
  cross_cargo "$target" build --release --lib --no-default-features
done
