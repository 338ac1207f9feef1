"""Hugging Face folders of Llama, Qwen2 and Qwen3 as checkpoints that `export` writes.

Tokens are put in the runtime's order: speech first, the end of speech behind it, then every other id in its own order;
the head keeps the rows that can be drawn. The program's own import does this without Python; this one is what its
results and the engine's are compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .export import Checkpoint

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's ids: `speech` codes from `first` on, the token that ends an utterance, and how many in all."""

    first: int
    speech: int
    end: int
    size: int

    def order(self) -> np.ndarray:
        """[size] tokenizer ids in the runtime's order."""
        ids = np.arange(self.size)
        codes = (ids >= self.first) & (ids < self.first + self.speech)
        return np.concatenate([ids[codes], [self.end], ids[~codes & (ids != self.end)]])

    def section(self) -> dict:
        """What bundle.toml says of it."""
        return {
            "speech": self.speech,
            "end_of_speech": self.speech,
            "size": self.size,
            "first_speech_id": self.first,
            "end_id": self.end,
        }


def frequencies(config: dict) -> tuple[np.ndarray | None, float]:
    """What positions turn by, [head_dim / 2]: a table, or None and the base where nothing is scaled. Keys as
    transformers 5 writes them and as the versions before did."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    size = head_dim(config)
    table = (1.0 / base ** (np.arange(0, size, 2, dtype=np.float64) / size)).astype(np.float32)
    if kind == "default":
        return None, base
    if kind == "linear":
        return table / np.float32(rope["factor"]), base
    if kind == "llama3":
        # Long waves are slowed by the factor, short ones kept, those between blended.
        length = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        waves = 2 * np.pi / table.astype(np.float64)
        smooth = np.clip((length / waves - low) / (high - low), 0, 1)
        return (table * ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32), base
    raise ValueError(f"rope_type {kind!r}: default, linear and llama3 are known")


def head_dim(config: dict) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor, of one file or of shards, as float32."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    names = (
        sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    )
    found = {}
    for name in names:
        with safe_open(folder / name, framework="np") as file:
            found |= {key: file.get_tensor(key).astype(np.float32) for key in file.keys()}
    return found


def checkpoint(folder: Path, vocabulary: Vocabulary) -> Checkpoint:
    config = json.loads((folder / "config.json").read_text())
    if config.get("model_type") not in FAMILIES:
        raise ValueError(f"model_type {config.get('model_type')!r}: one of {', '.join(FAMILIES)} is wanted")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act {config['hidden_act']!r}: silu is wanted")
    source = tensors(folder)
    embedding = source["model.embed_tokens.weight"]
    if len(embedding) != vocabulary.size:
        raise ValueError(f"{len(embedding)} embeddings, a vocabulary of {vocabulary.size}")
    order = vocabulary.order()
    head = source.get("lm_head.weight", embedding)
    out = {
        "input_embedding.weight": embedding[order],
        "output_head.weight": head[order[: vocabulary.speech + 1]],
        "final_norm.weight": source["model.norm.weight"],
    }
    for i in range(config["num_hidden_layers"]):
        at, to = f"model.layers.{i}", f"layers.{i}"
        if f"{at}.self_attn.o_proj.bias" in source:
            raise ValueError(f"{at}: a bias behind the attention, which none of these families has")
        for part in ("weight", "bias"):
            rows = [source.get(f"{at}.self_attn.{p}_proj.{part}") for p in "qkv"]
            if rows[0] is not None:
                out[f"{to}.qkv.{part}"] = np.concatenate(rows)
        for part in ("q_norm", "k_norm"):
            if f"{at}.self_attn.{part}.weight" in source:
                out[f"{to}.{part}.weight"] = source[f"{at}.self_attn.{part}.weight"]
        gate_up = [source[f"{at}.mlp.{p}_proj.weight"] for p in ("gate", "up")]
        out |= {
            f"{to}.attn_norm.weight": source[f"{at}.input_layernorm.weight"],
            f"{to}.attn_out.weight": source[f"{at}.self_attn.o_proj.weight"],
            f"{to}.mlp_norm.weight": source[f"{at}.post_attention_layernorm.weight"],
            f"{to}.gate_up.weight": np.concatenate(gate_up),
            f"{to}.down.weight": source[f"{at}.mlp.down_proj.weight"],
        }
    table, base = frequencies(config)
    if table is not None:
        out["rope.frequencies"] = table
    return Checkpoint(
        out,
        {
            "nh": config["num_attention_heads"],
            "nkv": config.get("num_key_value_heads", config["num_attention_heads"]),
            "rms_eps": config["rms_norm_eps"],
            "rope_base": base,
        },
    )
