#!/usr/bin/env bash
# Trains a voice on from a bundle, with codes that a language model can predict: one encoder a strength of the rate's
# penalty side by side while the teachers speak, then decoder, target and draft for the strongest that still sounds well.
#
# usage: train_rates.sh WORK BUNDLE
#
# One GPU does it all; what shares it runs beside each other. A step that is done leaves WORK/done/STEP.
#
# The environment may hold:
#   PYTHON            the interpreter (python3)
#   TEXTS             text of `corpus-text --natural`               (.dev/natural.txt.xz)
#   HEART, MICHAEL    teachers of the speakers heart and michael    (hibari:heart, kokoro:am_michael)
#   KOKORO_VOICES     folder of Kokoro's voices                     (package/voices)
#   RATES             strengths, the first 0                        (0 0.1 0.3)
#   WORSE             how much more mel distance than at 0 is taken (1.03)
#   S_SPEECH S_CODEC S_GAN S_TARGET S_DRAFT S_PLAIN   seconds of each (395 400 420 585 320 150)
#   SPEAKERS, HIBARI  processes of Kokoro and of hibari             (8, 7)
#   TOY=1             toy sizes from nothing, on a CPU
set -euo pipefail
[ $# = 2 ] || { sed -n '2,20s/^# \{0,1\}//p' "$0" >&2; exit 2; }
work=$1 bundle=$(cd "$2" && pwd)
mkdir -p "$work/audio" "$work/done" "$work/log" "$work/gan" "$work/plain"
work=$(cd "$work" && pwd)
tools=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3} texts=${TEXTS:-.dev/natural.txt.xz} toy=${TOY:-}
export PYTHONPATH=$tools${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$work/inductor}
device=$(nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
read -ra rates <<<"${RATES:-0 0.1 0.3}"
began=$(date +%s)

say() { echo "[$(( $(date +%s) - began ))] $*" | tee -a "$work/log/main"; }
stage() { "$python" -m voxgrain_tools "$@"; }
# step NAME COMMAND...: once, with its output in WORK/log/NAME.
step() {
  local name=$1
  shift
  if [ -e "$work/done/$name" ]; then
    say "$name is done already"
    return
  fi
  if "$@" >>"$work/log/$name" 2>&1; then
    touch "$work/done/$name"
    say "$name ends"
  else
    say "$name FAILS, see $work/log/$name"
    return 1
  fi
}

speech() {
  local heart=(--teacher "${HEART:-hibari:heart}" --voice heart --workers "${HIBARI:-7}")
  local michael=(--teacher "${MICHAEL:-kokoro:am_michael}" --voice michael --workers "${SPEAKERS:-8}" --device "$device")
  local corpus=(--work "$work" --texts "$texts") held=(--work "$work" --texts "$work/heldout.texts" --plain)
  local few=(--limit 15) until=$(( $(date +%s) + ${S_SPEECH:-395} ))
  if [ -n "$toy" ]; then corpus+=(--limit 6) held+=(--limit 2) few=(); fi
  # Speakers are numbered in this order, whoever speaks first.
  printf 'heart\nmichael\n' >"$work/audio/voices"
  cat "$tools/data/harvard.txt" "$tools/data/heldout.txt" | head -n 400 >"$work/heldout.texts"
  # Held-out speech first: the codecs are compared on it.
  { stage speak "${heart[@]}" "${held[@]}" --name heldout &&
    stage speak "${heart[@]}" "${corpus[@]}" --budget "$(( until - $(date +%s) ))"; } &
  local first=$! failed=0
  # The other from the end of the text on, so that the two say different lines.
  { stage speak "${michael[@]}" "${held[@]}" --name heldout9 "${few[@]}" &&
    stage speak "${michael[@]}" "${corpus[@]}" --name w9 --backwards --budget "$(( until - $(date +%s) ))"; } || failed=1
  wait "$first" || failed=1
  return "$failed"
}

# codec_of FOLDER SECONDS OPTIONS...: goes on where an earlier call stopped.
codec_of() {
  # 33 hours are 1.9e9 samples: one tensor, whose places stay below 2^31.
  local folder=$1 seconds=$2 resume=() size=(--hours 33 --mode graphs --reserve 20 --heldout 20)
  shift 2
  mkdir -p "$folder"
  ln -sfn ../audio "$folder/audio"
  if [ -e "$folder/codec_state.pt" ]; then resume=(--resume); fi
  if [ -n "$toy" ]; then size=(--hours 0.02 --mode plain --reserve 5 --size toy --heldout 2); fi
  stage codec --work "$folder" --out "$folder/out" --total-budget "$seconds" --call-budget "$seconds" \
    "${size[@]}" "${resume[@]}" "$@"
}

# The strongest rate whose held-out mel distance is at most WORSE times that of the first.
choose() {
  "$python" - "$work" "${WORSE:-1.03}" "${rates[@]}" <<'PY'
import json, os, sys
work, worse, *rates = sys.argv[1:]
mel, pick = {}, rates[0]
for rate in rates:
    path = f"{work}/rate_{rate}/codec_held.json"
    if not os.path.exists(path):
        print("no figures of", rate)
        continue
    found = json.load(open(path))
    mel[rate] = sum(v["mel"] for v in found.values()) / len(found)
    print(rate, f"{mel[rate]:.4f}", json.dumps(found))
    if rates[0] in mel and mel[rate] <= float(worse) * mel[rates[0]]:
        pick = rate
print("chosen:", pick)
for part in ("encoder", "decoder"):
    target = f"{work}/codec_{part}.safetensors"
    if os.path.lexists(target):
        os.remove(target)
    os.symlink(f"rate_{pick}/codec_{part}.safetensors", target)
PY
}

say "$device, rates ${rates[*]}"
codec_init=(--init-bundle "$bundle") target_init=(--init "$bundle" --round-last 0.1)
taps=(--taps 4,8 --overlap-last "${OVERLAP_LAST:-0.4}") draft_init=(--init "$bundle/draft.onnx" --lr 1e-3) plain=$bundle
if [ -n "$toy" ]; then
  codec_init=() target_init=(--size toy --warmup 2 --round-last 0.3) draft_init=(--positions 512 --row 512 --steps 3 --starts 16)
  taps=(--taps 1 --overlap-last 0.4) plain=$work/target.safetensors
fi
step speech speech &
speech_job=$!
codecs=()
for rate in "${rates[@]}"; do
  step "codec_$rate" codec_of "$work/rate_$rate" "${S_CODEC:-400}" --lr "${CODEC_LR:-6e-4}" --gan-from 1 --refresh 300 \
    "${codec_init[@]}" --spread "${SPREAD:-0.03}" --rate "$rate" &
  codecs+=($!)
done
for job in "${codecs[@]}"; do wait "$job" || true; done
step choose choose
tail -n 5 "$work/log/choose"
step gan codec_of "$work/gan" "${S_GAN:-420}" --lr 4e-4 --gan-from 0 --init "$work" --freeze-encoder --refresh 60 &
gan_job=$!
wait "$speech_job"
copies=(--copies "heart=${HEART_COPIES:-2}" --copies "michael=${MICHAEL_COPIES:-4}")
[ -z "$toy" ] || copies=()
step tokens stage tokenize --work "$work" "${copies[@]}"
step target stage target --work "$work" --alphabet phonemes --lr "${TARGET_LR:-8e-4}" --budget "${S_TARGET:-585}" \
  "${target_init[@]}"
draft=(--target-bits 4 "${taps[@]}" "${draft_init[@]}")
step draft stage draft-features --bundle "$work/target.safetensors" --tokens "$work/tokens.npz" --heldout "$work/heldout.npz" \
  --work "$work" --out "$work/draft" --budget "${S_DRAFT:-320}" --generate "${GENERATE:-45}" "${draft[@]}"
wait "$gan_job" || true
# A draft with taps for the bundle's own target, on the tokens of the encoder that it knows.
plain_tokens() {
  ln -sfn ../audio "$work/plain/audio"
  if [ -n "$toy" ]; then cp "$work/codec_encoder.safetensors" "$work/plain/"; else
    cp "$tools/data/codec_encoder.safetensors" "$work/plain/"; fi
  cp "$work/gan/codec_decoder.safetensors" "$work/plain/"
  stage tokenize --work "$work/plain"
}
step plain_tokens plain_tokens
step plain stage draft-features --bundle "$plain" --tokens "$work/plain/tokens.npz" \
  --heldout "$work/plain/heldout.npz" --work "$work/plain" --out "$work/plain/out" --budget "${S_PLAIN:-170}" \
  --generate "${GENERATE:-30}" "${draft[@]}"
say "all ends"
