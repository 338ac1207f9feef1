#!/usr/bin/env bash
# Builds flite_synth (voices slt and rms) as one static program that runs on any x86-64 Linux.
# usage: tools/synth/build.sh [OUTPUT]       (default: .dev/flite_synth)
# Takes flite1-dev where it is installed, else unpacks the package beside the output.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=${1:-$here/../../.dev/flite_synth}
mkdir -p "$(dirname "$output")"
output=$(cd "$(dirname "$output")" && pwd)/$(basename "$output")
if [ -e /usr/include/flite/flite.h ]; then
  include=/usr/include
  library=$(dirname "$(find /usr/lib -name libflite_cmu_us_slt.a | head -1)")
else
  tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; chmod 755 "$tmp"
  (cd "$tmp" && apt-get download -q flite1-dev >/dev/null 2>&1 && dpkg -x flite1-dev_*.deb root)
  include=$tmp/root/usr/include
  library=$(dirname "$(find "$tmp/root/usr/lib" -name libflite_cmu_us_slt.a | head -1)")
fi
"${CC:-cc}" -O2 -static -s -w -Wl,--gc-sections -I"$include" "$here/flite_synth.c" -o "$output" -L"$library" \
  -lflite_cmu_us_slt -lflite_cmu_us_rms -lflite_usenglish -lflite_cmulex -lflite -lm -lpthread
# Compressed beside it: half the size to carry; Synthesis takes either.
xz -9ekf "$output"
ls -l "$output" "$output.xz"
