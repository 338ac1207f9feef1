"""A voice as a Hugging Face folder, and the functions that `voxgrain import` is built with."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from voxgrain_tools.export.onnx_functions import library
from voxgrain_tools.export.onnx_read import language_model
from voxgrain_tools.fixtures.hf_folder import write

ROOT = Path(__file__).resolve().parents[2]


def test_rows_are_sums_of_factors_and_ids_name_them(tmp_path):
    write(ROOT / "models/tiny", tmp_path)
    tensors, _, _ = language_model(ROOT / "models/tiny/target.onnx")
    state = load_file(tmp_path / "model.safetensors")
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    factors = tensors["output_head.factors"]
    for code in (0, 1, 4711, 65535):
        digits = [code >> 2 * i & 3 for i in range(8)]
        rows = [4 * i + d for i, d in enumerate(digits)]
        pairs = [(a, b) for a in range(8) for b in range(a + 1, 8)]
        rows += [32 + 16 * p + 4 * digits[a] + digits[b] for p, (a, b) in enumerate(pairs)]
        row = state["lm_head.weight"][vocab[f"<|speech_{code}|>"]]
        assert np.allclose(row, factors[rows].sum(axis=0), atol=1e-6)
    end = state["lm_head.weight"][vocab["<|end_of_speech|>"]]
    assert np.array_equal(end, tensors["output_head.extra"][0])
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(vocab) == config["vocab_size"] == len(state["model.embed_tokens.weight"])
    assert sorted(vocab.values()) == list(range(len(vocab)))
    # Speech ids are neither first nor last: an import has something to put in order.
    assert 0 < vocab["<|speech_0|>"] < vocab["<|end_of_speech|>"]


def test_the_program_carries_these_functions():
    assert (ROOT / "src/import/functions.onnx").read_bytes() == library(), (
        "python -m voxgrain_tools functions --out src/import/functions.onnx"
    )
