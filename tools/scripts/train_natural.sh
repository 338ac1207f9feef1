#!/usr/bin/env bash
# Trains a voice on two natural teachers, from a text to checkpoints: speech beside the codec, tokens, target, small, draft.
#
# usage: train_natural.sh WORK OUT
#
# With two GPUs the first trains the codec, encodes, then trains the target and its draft; the second speaks for Kokoro,
# then trains the decoder with discriminators and the small target. With one, speech and codec share it and the others
# take turns; then lengthen the budgets below. A step that is done leaves WORK/done/STEP; started again, the script goes on
# with the first that is not, the codec at its last state, a language model from its begin.
#
# The environment may hold:
#   PYTHON            the interpreter (python3)
#   TEXTS             text of `corpus-text --natural`               (.dev/natural.txt.xz)
#   HEART, MICHAEL    teachers of the speakers heart and michael    (hibari:heart, kokoro:am_michael)
#   KOKORO_VOICES     folder of Kokoro's voices                     (package/voices)
#   CODEC_INIT        folder of a codec to go on from               (none: from its begin, which wants more seconds)
#   TARGET_INIT       bundle or checkpoint that the target goes on from (none)
#   S_SPEECH S_CODEC S_GAN S_TARGET S_SMALL S_DRAFT   seconds of each (330 300 550 525 560 430)
#   SPEAKERS          processes of Kokoro on its GPU                (10)
#   TOY=1             toy sizes, on a CPU
set -euo pipefail
[ $# = 2 ] || { sed -n '2,22s/^# \{0,1\}//p' "$0" >&2; exit 2; }
work=$1 out=$2
mkdir -p "$work/audio" "$work/done" "$work/log" "$work/gan" "$out"
work=$(cd "$work" && pwd) out=$(cd "$out" && pwd)
tools=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3} texts=${TEXTS:-.dev/natural.txt.xz} toy=${TOY:-}
export PYTHONPATH=$tools${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$work/inductor}
gpus=$( { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
second=$(( gpus > 1 ? 1 : 0 ))
cores=$(nproc) speakers=${SPEAKERS:-$(( ${toy:-0} ? 1 : 10 ))}
device=$([ "$gpus" -gt 0 ] && echo cuda || echo cpu)
hibari=$(( cores - 4 - speakers > 1 ? cores - 4 - speakers : 1 ))
began=$(date +%s)

say() { echo "[$(( $(date +%s) - began ))] $*" | tee -a "$work/log/main"; }
stage() { "$python" -m voxgrain_tools "$@"; }
# step NAME GPU COMMAND...: once, with its output in WORK/log/NAME.
step() {
  local name=$1 gpu=$2
  shift 2
  if [ -e "$work/done/$name" ]; then
    say "$name is done already"
    return
  fi
  if CUDA_VISIBLE_DEVICES=$gpu "$@" >>"$work/log/$name" 2>&1; then
    touch "$work/done/$name"
    say "$name ends"
  else
    say "$name FAILS, see $work/log/$name"
    return 1
  fi
}

speech() {
  local heart=(--teacher "${HEART:-hibari:heart}" --voice heart --workers "$hibari")
  local michael=(--teacher "${MICHAEL:-kokoro:am_michael}" --voice michael --workers "$speakers" --device "$device")
  local corpus=(--work "$work" --texts "$texts") held=(--work "$work" --texts "$work/heldout.texts" --plain)
  local few=(--limit 12) seconds=${S_SPEECH:-330}
  if [ -n "$toy" ]; then corpus+=(--limit 6) held+=(--limit 2) few=(); fi
  # Speakers are numbered in this order, whoever speaks first.
  printf 'heart\nmichael\n' >"$work/audio/voices"
  cat "$tools/data/harvard.txt" "$tools/data/heldout.txt" | head -n 400 >"$work/heldout.texts"
  { stage speak "${heart[@]}" "${held[@]}" --name heldout && stage speak "${heart[@]}" "${corpus[@]}" --budget "$seconds"; } &
  local first=$! failed=0
  # The other from the end of the text on, so that the two say different lines.
  { stage speak "${michael[@]}" "${corpus[@]}" --name w9 --backwards --budget "$(( seconds - 12 ))" &&
    stage speak "${michael[@]}" "${held[@]}" --name heldout9 "${few[@]}"; } || failed=1
  wait "$first" || failed=1
  return "$failed"
}

# codec_of FOLDER SECONDS OPTIONS...: goes on where an earlier call stopped.
codec_of() {
  # 33 hours are 1.9e9 samples: one tensor, whose places stay below 2^31.
  local folder=$1 seconds=$2 resume=() size=(--hours 33 --mode graphs --reserve 20)
  shift 2
  if [ -e "$folder/codec_state.pt" ]; then resume=(--resume); fi
  if [ "$device" = cpu ]; then size=(--hours 33 --mode plain --reserve 20); fi
  if [ -n "$toy" ]; then size=(--hours 0.02 --mode plain --reserve 5 --size toy --heldout 2); fi
  stage codec --work "$folder" --out "$folder/out" --total-budget "$seconds" --call-budget "$seconds" \
    "${size[@]}" "${resume[@]}" "$@"
}

# The second GPU: its own branch of the chain.
judged() {
  ln -sfn ../audio "$work/gan/audio"
  step gan "$second" codec_of "$work/gan" "${S_GAN:-550}" --lr 4e-4 --gan-from 0 --init "$work" --freeze-encoder --refresh 40
}
small() {
  step small "$second" stage target --work "$work" --alphabet phonemes --size small --lr 1.5e-3 --budget "${S_SMALL:-560}"
}

say "$gpus GPUs, $cores cores: $hibari processes of hibari, $speakers of Kokoro"
step speech "$second" speech &
speech_job=$!
step codec 0 codec_of "$work" "${S_CODEC:-300}" --lr 8e-4 --gan-from 1 --refresh 230 ${CODEC_INIT:+--init "$CODEC_INIT"}
if [ "$second" = 1 ]; then
  # The second GPU's branch; it ends with this script, if that fails.
  ( judged
    until [ -e "$work/done/tokens" ]; do kill -0 $$; sleep 1; done
    small ) &
  second_job=$!
fi
wait "$speech_job"
# On the GPU that waits for the tokens: the other is busy with the discriminators.
step tokens 0 stage tokenize --work "$work" --copies heart=2 --copies michael=4
target=(--work "$work" --alphabet phonemes --lr 1e-3 --budget "${S_TARGET:-525}" ${TARGET_INIT:+--init "$TARGET_INIT"})
[ -z "$toy" ] || target+=(--size toy --warmup 2)
step target 0 stage target "${target[@]}"
draft=(--bundle "$work/target.safetensors" --tokens "$work/tokens.npz" --heldout "$work/heldout.npz"
  --work "$work" --out "$work/draft" --budget "${S_DRAFT:-430}" --generate 60)
[ -z "$toy" ] || draft+=(--positions 512 --row 512 --steps 3 --starts 16 --generate 2)
step draft 0 stage draft-features "${draft[@]}"
if [ "$second" = 1 ]; then
  wait "$second_job"
else
  judged
  [ -n "$toy" ] || small
fi

cp "$work/codec_encoder.safetensors" "$work/gan/codec_decoder.safetensors" "$work/target.safetensors" \
  "$work/draft/draft_features.safetensors" "$out/"
if [ -e "$work/small.safetensors" ]; then cp "$work/small.safetensors" "$out/"; fi
say "checkpoints are in $out"
