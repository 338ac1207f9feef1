"""Models of other families, exported: against transformers where it is installed, and the engine's own files."""

import json
from pathlib import Path

import numpy as np
import pytest

from voxgrain_tools.export import huggingface
from voxgrain_tools.export.export import Bits, Checkpoint, language_model
from voxgrain_tools.export.huggingface import Vocabulary
from voxgrain_tools.export.onnx_read import OnnxFile
from voxgrain_tools.fixtures import foreign

FILES = Path(__file__).resolve().parents[2] / "tests/data/foreign"
TOYS = ["toy-llama", "toy-qwen2", "toy-qwen3"]


@pytest.mark.parametrize("name", TOYS)
def test_the_engines_files_give_what_transformers_gave(name):
    """In onnxruntime, which computes with floats; tests/engine.rs runs the same files."""
    logits, hidden = foreign.compare(FILES / name)
    assert logits < 1e-4 and hidden < 1e-4


@pytest.mark.parametrize("name", TOYS)
def test_folders_of_transformers_are_read(name, tmp_path):
    pytest.importorskip("transformers")
    foreign.make(name, tmp_path / "hf", prompt=20, shards="60KB" if name == "toy-llama" else None, seed=9)
    assert (tmp_path / "hf/model.safetensors.index.json").exists() == (name == "toy-llama")
    facts = foreign.export(tmp_path / "hf", tmp_path / "vx")
    logits, hidden = foreign.compare(tmp_path / "vx")
    assert logits < 1e-4 and hidden < 1e-4
    f = foreign.FAMILIES[name]
    assert (facts["heads"], facts["kv_heads"], facts["head_dim"]) == (f.heads, f.kv_heads, f.head_dim)
    assert facts.get("qk_norm", False) == (f.kind == "qwen3")
    assert ("rope_base" in facts) == (f.rope["rope_type"] == "default")


@pytest.mark.parametrize("name", TOYS)
def test_a_file_is_written_again_as_it_was(name, tmp_path):
    again = Checkpoint.of_export(FILES / name / "target.onnx")
    language_model("target", again, tmp_path, Bits(8), 512)
    for file in ("target.onnx", "target.onnx.data"):
        assert (tmp_path / file).read_bytes() == (FILES / name / file).read_bytes()


def test_ids_are_speech_then_the_end_then_the_rest():
    assert Vocabulary(3, 4, 1, 9).order().tolist() == [3, 4, 5, 6, 1, 0, 2, 7, 8]
    assert Vocabulary(0, 2, 4, 5).order().tolist() == [0, 1, 4, 2, 3]


def test_frequencies_of_old_and_new_keys():
    shape = {"hidden_size": 64, "num_attention_heads": 4}
    assert huggingface.frequencies({**shape, "rope_theta": 5e5}) == (None, 5e5)
    old = {**shape, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 32.0}}
    new = {**shape, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 32.0}}
    want = 1e4 ** (-np.arange(0, 16, 2) / 16) / 32
    for config in (old, new):
        assert np.allclose(huggingface.frequencies(config)[0], want, rtol=1e-6)
    with pytest.raises(ValueError, match="yarn"):
        huggingface.frequencies({**shape, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}})


@pytest.mark.parametrize("name", ["toy-llama", "toy-qwen3", "neutts-nano", "llasa-1b"])
def test_frequencies_are_those_of_transformers(name):
    pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = foreign.config_of(foreign.FAMILIES[name], 1)
    got, _ = huggingface.frequencies(json.loads(config.to_json_string(use_diff=False)))
    assert np.allclose(got, LlamaRotaryEmbedding(config).inv_freq.numpy(), rtol=1e-6)


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="gpt2"):
        huggingface.checkpoint(tmp_path, Vocabulary(0, 2, 4, 5))


def test_the_embedding_is_read_by_row():
    node = OnnxFile(FILES / "toy-qwen3/target.onnx").nodes["embedding"]
    assert node["op"] == "QEmbed" and node["attributes"] == {"K": 64, "bits": 4}
