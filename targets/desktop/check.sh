#!/usr/bin/env bash
# The module configuration under a real speech-dispatcher, without a sound card: what reaches the program, and the sound
# that comes out of it.
#
#   targets/desktop/check.sh target/release/voxgrain
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$(realpath "${1:?the program}")
for tool in speech-dispatcher spd-say; do
  command -v $tool >/dev/null || { echo "SKIP speech-dispatcher: no $tool here (Debian: speech-dispatcher)"; exit 0; }
done

work=$(mktemp -d)
trap '[ ! -f "$work/pid" ] || kill "$(cat "$work/pid")"; rm -rf "$work"' EXIT
mkdir -p "$work/conf/modules" "$work/bin" "$work/log"
cp targets/desktop/voxgrain.conf "$work/conf/modules/"
cat > "$work/conf/speechd.conf" <<END
LogDir "$work/log"
AudioOutputMethod "alsa"
DefaultLanguage "en"
AddModule "voxgrain" "sd_generic" "voxgrain.conf"
DefaultModule "voxgrain"
Timeout 0
END
echo 'pcm.!default { type null }' > "$work/alsa.conf"
# The program, its arguments and text written down; and a player that keeps what it hears.
cat > "$work/bin/voxgrain" <<END
#!/bin/sh
text=\$(cat)
echo "\$* <\$text>" >> "$work/calls"
printf %s "\$text" | "$program" "\$@"
END
cat > "$work/bin/aplay" <<END
#!/bin/sh
cat >> "$work/heard"
END
chmod +x "$work"/bin/*
export PATH="$work/bin:$PATH" ALSA_CONFIG_PATH="$work/alsa.conf" SPEECHD_ADDRESS="unix_socket:$work/socket"
speech-dispatcher -s -C "$work/conf" -S "$work/socket" -P "$work/pid" -L "$work/log" > "$work/said" 2>&1 &
for _ in $(seq 100); do
  [ ! -S "$work/socket" ] || break
  sleep 0.1
done
timeout 60 spd-say -w "Dr. Smith's \"dog\" ran. It's \$HOME and \`id\`."
timeout 60 spd-say -w -l en -r 50 -t male1 "Faster."
timeout 60 spd-say -w -r -100 -y michael "Slow."
timeout 60 spd-say -w -r 100 -t female1 "Fast."
diff "$work/calls" - <<'END'
say --quiet --speaker heart --rate 1.00 --output - <Dr. Smith's "dog" ran. It's $HOME and `id`.>
say --quiet --speaker michael --rate 1.35 --output - <Faster.>
say --quiet --speaker michael --rate 0.60 --output - <Slow.>
say --quiet --speaker heart --rate 1.70 --output - <Fast.>
END
"$program" say --quiet --speaker heart --output - "Dr. Smith's \"dog\" ran. It's \$HOME and \`id\`." | cat > "$work/wanted"
cmp -n "$(stat -c %s "$work/wanted")" "$work/wanted" "$work/heard"
echo "speech-dispatcher: text, rate, voice and sound are right"
