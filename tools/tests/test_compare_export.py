"""tools/compare: the same toy weights in every format against the float reference."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from voxgrain_tools.export import quantize
from voxgrain_tools.export.export import Bits, language_model
from voxgrain_tools.export.onnx_functions import FACTORS, SPEECH
from voxgrain_tools.export.runtime import LanguageModel
from voxgrain_tools.fixtures import tiny

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compare"))

from voxgrain_compare import child, formats, model  # noqa: E402

TOKENS = [int(t) for t in np.random.default_rng(1).integers(0, 256, 20)]
PLAIN = Path(__file__).resolve().parents[2] / "tests/data/plain"


def write_plain(folder):
    weights = model.Synthetic(model.SHAPES["toy"], 4)
    formats.voxgrain(weights, folder / "plain.onnx")
    (folder / "plain.logits").write_bytes(model.logits(weights, range(20)).astype("<f4").tobytes())


@pytest.mark.parametrize("bits", [8, 4])
def test_own_format_agrees_with_the_reference(bits, tmp_path):
    weights = model.Synthetic(model.SHAPES["toy"], bits)
    lm = LanguageModel(formats.export(weights, "voxgrain", tmp_path, "toy"))
    rows = [lm.step(TOKENS[:9])]
    lm.step([1, 2, 3])
    lm.rollback(3)
    rows += [lm.step(TOKENS[9:10]), lm.step(TOKENS[10:])]
    assert model.relative(np.concatenate(rows), model.logits(weights, TOKENS)) < 1e-4


def test_the_engine_is_tested_on_these_files(tmp_path):
    """tests/engine.rs runs them; `python tools/tests/test_compare_export.py` writes them anew."""
    write_plain(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        kept = (PLAIN / path.name).read_bytes()
        if path.suffix == ".logits":
            got, want = (np.frombuffer(b, "<f4") for b in (path.read_bytes(), kept))
            assert model.relative(got, want) < 1e-4
        else:
            assert path.read_bytes() == kept


@pytest.mark.parametrize("bits", [8, 4])
def test_onnxruntime_format_agrees_with_the_reference(bits, tmp_path):
    weights = model.Synthetic(model.SHAPES["toy"], bits)
    path = formats.export(weights, "onnxruntime", tmp_path, "toy")
    options = type("Options", (), {"model": path, "threads": 1, "positions": 64})
    engine = child.OnnxRuntime(options)
    want = model.logits(weights, TOKENS)
    rows = []
    for at, to in ((0, 9), (9, 10), (10, 20)):
        engine.step([1, 2, 3])
        engine.rollback(at)
        engine.step(TOKENS[at:to])
        rows.append(engine.logits().copy())
    # Activations are quantised to 8 bits.
    assert model.relative(np.concatenate(rows), want) < 0.03
    engine.rollback(10)
    engine.step(TOKENS[10:], 2)
    assert model.relative(engine.logits(), want[-2:]) < 0.03


@pytest.mark.parametrize("bits", [8, 4])
def test_ggml_blocks_hold_the_same_numbers(bits):
    matrix = quantize.quantise(np.random.default_rng(2).normal(size=(6, 96)).astype(np.float32), bits)
    blocks = formats.ggml_blocks(matrix).reshape(6, 3, -1)
    scales = blocks[:, :, :2].copy().view(np.float16)[:, :, 0]
    quants = blocks[:, :, 2:]
    if bits == 8:
        values = quants.view(np.int8)
    else:
        values = np.concatenate([quants & 15, quants >> 4], 2).astype(np.int8) - 8
    assert (scales == matrix.scales).all() and (values.reshape(6, 96) == matrix.values).all()


def test_ggml_rotates_neighbours():
    rows = np.arange(16, dtype=np.int8)[:, None].repeat(32, 1)
    matrix = quantize.Quantised(rows, np.ones((16, 1), np.float16), 8)
    order = formats.interleave_heads(matrix, 2).values[:, 0].tolist()
    assert order == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_gguf_can_be_read_again(tmp_path):
    gguf = pytest.importorskip("gguf")
    weights = model.Synthetic(model.SHAPES["toy"], 4)
    tensors = gguf.GGUFReader(formats.export(weights, "llama.cpp", tmp_path, "toy")).tensors
    found = {t.name: t for t in tensors}
    want = weights.matrix("layers.1.down").dequantise()
    down = found["blk.1.ffn_down.weight"]
    assert (gguf.quants.dequantize(down.data, down.tensor_type) == want).all()


def test_a_factorised_model_is_written_out(tmp_path):
    checkpoint = tiny.language_model(seed=1, layers=1, hidden=32, heads=2, kv_heads=1, ffn=64)
    language_model("lm", checkpoint, tmp_path, Bits(8), 64)
    weights = model.FromFile(tmp_path / "lm.onnx", "lm")
    assert weights.uniform_bits() == 8
    assert model.pass_bytes(weights) > weights.own_pass_bytes()
    tokens = [SPEECH + 1, 5, 65535, 1234]
    plain = model.logits(weights, tokens)
    assert plain.shape == (4, SPEECH + 1)
    assert model.relative(plain, LanguageModel(tmp_path / "lm.onnx").step(tokens)) < 0.02
    rows = checkpoint["input_embedding.factors"].astype(np.float16)
    assert len(rows) == FACTORS and (weights.embedding()[:SPEECH] == model.expand(rows).astype(np.float16)).all()
    # What was written out can be read as a plain model, at other bits too.
    path = formats.export(weights, "voxgrain", tmp_path, "plain")
    again = model.FromFile(path, "lm")
    assert dataclasses.asdict(again.shape) == dataclasses.asdict(weights.shape)
    assert (again.matrix("head").values == weights.matrix("head").values).all()
    assert model.FromFile(path, "lm", 4).matrix("layers.0.down").bits == 4


if __name__ == "__main__":
    PLAIN.mkdir(exist_ok=True)
    write_plain(PLAIN)
