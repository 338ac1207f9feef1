#!/usr/bin/env bash
# A Debian package of the program, its voice, man pages, completions and a systemd unit, for the machine that builds it.
#
#   targets/desktop/deb.sh            into target/deb
#   targets/desktop/deb.sh --check    and installs and removes it in a root of its own
#
# The unit is not started by the package: `systemctl enable --now voxgrain` does that.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in dpkg-deb dpkg-shlibdeps; do
  command -v $tool >/dev/null || { echo "SKIP the Debian package: no $tool here"; exit 0; }
done
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked --bin voxgrain
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
share=$root/usr/share

install -D "$target/release/voxgrain" "$root/usr/bin/voxgrain"
strip "$root/usr/bin/voxgrain"
"$target/release/voxgrain" manual "$share"
gzip -9n "$share"/man/man1/*.1
mkdir -p "$share/zsh/vendor-completions"
mv "$share/zsh/site-functions/_voxgrain" "$share/zsh/vendor-completions/"
rmdir "$share/zsh/site-functions"
# Beside the program, where it looks; the bundle names its index and lexicon by their places.
for file in models/voice/* models/lexicon/en-us.lexicon asg-cache/voice.asg; do
  install -D -m 644 "$file" "$share/voxgrain/$file"
done
install -D -m 644 targets/desktop/voxgrain.service "$root/usr/lib/systemd/system/voxgrain.service"
doc=$share/doc/voxgrain
install -D -m 644 targets/desktop/voxgrain.conf "$doc/examples/speech-dispatcher.conf"
install -m 644 models/NOTICE "$doc/NOTICE.models"
install -m 644 models/lexicon/NOTICE "$doc/NOTICE.lexicon"
install -m 644 models/LICENSE-APACHE "$doc/LICENSE-APACHE"
cat LICENSE-MIT > "$doc/copyright"
targets/notices.py > "$doc/THIRD-PARTY.txt"
gzip -9nc CHANGELOG.md > "$doc/changelog.gz"

mkdir -p "$work/debian" "$root/DEBIAN"
echo "Source: voxgrain" > "$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/bin/voxgrain 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
cat > "$root/DEBIAN/control" <<END
Package: voxgrain
Version: $version
Architecture: $arch
Maintainer: voxgrain <voxgrain@localhost>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: $depends
Recommends: libasound2 | libasound2t64
Suggests: speech-dispatcher
Section: sound
Priority: optional
Description: speech on a CPU, drawn token by token
 Text to speech in American English without a network, as a program, for
 programs that know OpenAI's speech interface, and for Home Assistant.
END
(cd "$root" && find usr -type f -printf '%P\0' | sed -z 's,^,usr/,' | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
mkdir -p "$target/deb"
package=$target/deb/voxgrain_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
stat -c '%n: %s bytes' "$package"
[ "${1:-}" = --check ] || exit 0

# Installed and removed in a root that has nothing else.
admin=$work/there/var/lib/dpkg
mkdir -p "$admin"/{info,updates,triggers}
touch "$admin/status" "$admin/available"
dpkg=(dpkg --root="$work/there" --force-depends --force-not-root --log=/dev/null)
"${dpkg[@]}" --install "$package" >/dev/null 2>&1
# With the voice of the package: there is no other from here.
(cd "$work/there" && env -u VOXGRAIN_BUNDLE usr/bin/voxgrain say --quiet --output "$work/said.wav" "Installed.")
[ "$(stat -c %s "$work/said.wav")" -gt 10000 ]
(cd "$work/there" && md5sum --quiet -c "$root/DEBIAN/md5sums")
for page in voxgrain voxgrain-say voxgrain-serve; do
  gzip -t "$work/there/usr/share/man/man1/$page.1.gz"
done
bash -n "$work/there/usr/share/bash-completion/completions/voxgrain"
if command -v systemd-analyze >/dev/null; then
  sed "s,/usr/bin/voxgrain,$work/there/usr/bin/voxgrain," targets/desktop/voxgrain.service > "$work/voxgrain.service"
  SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$work/voxgrain.service"
fi
"${dpkg[@]}" --purge voxgrain >/dev/null 2>&1
left=$(find "$work/there" -path "$work/there/var/lib/dpkg" -prune -o -type f -print)
[ -z "$left" ] || { echo "FAIL left behind: $left" >&2; exit 1; }
echo "the package is installed, speaks, and is removed without a trace"
