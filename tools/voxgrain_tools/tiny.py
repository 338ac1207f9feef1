"""A seeded random bundle of a few hundred kilobytes for tests: every operator, 8 and 4 bits,
grouped queries, widths that need padding. It makes noise, not speech."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from . import bundle
from .common import CHARACTERS, FIRST_CHARACTER
from .export import SPECTRUM, SPEECH, Bits, Checkpoint, write
from .export import language_model as export_language_model
from .onnx_functions import FACTORS

EXAMPLE = "python -m voxgrain_tools tiny --out models/tiny"

EXTRA = FIRST_CHARACTER - SPEECH + len(CHARACTERS)

# Two symbols with random embeddings of their own: the same text is another noise.
SPEAKERS = [
    {"name": name, "begin": begin, "description": f"noise, the {name} kind"}
    for name, begin in zip(("first", "second"), bundle.SPEAKER_SYMBOLS, strict=True)
]


def language_model(seed: int, layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, features=0):
    rng = np.random.default_rng(seed)

    def normal(*shape, std):
        return (rng.standard_normal(shape) * std).astype(np.float32)

    size = hidden // heads
    t = {
        # 36 factor rows are summed: 1/6 each gives embeddings of unit variance.
        "input_embedding.factors": normal(FACTORS, hidden, std=1 / 6),
        "input_embedding.extra": normal(EXTRA, hidden, std=1),
        # Logits of standard deviation 1.2; end of speech swings wide, so that samples do end.
        "output_head.factors": normal(FACTORS, hidden, std=1.2 / 6 / hidden**0.5),
        "output_head.extra": normal(EXTRA, hidden, std=7 / hidden**0.5),
        "final_norm.weight": 1 + normal(hidden, std=0.1),
    }
    for i in range(layers):
        at = f"layers.{i}"
        t |= {
            f"{at}.attn_norm.weight": 1 + normal(hidden, std=0.1),
            f"{at}.qkv.weight": normal((heads + 2 * kv_heads) * size, hidden, std=hidden**-0.5),
            f"{at}.attn_out.weight": normal(hidden, hidden, std=hidden**-0.5),
            f"{at}.mlp_norm.weight": 1 + normal(hidden, std=0.1),
            f"{at}.gate_up.weight": normal(2 * ffn, hidden, std=hidden**-0.5),
            f"{at}.down.weight": normal(hidden, ffn, std=2 * ffn**-0.5),
        }
    if features:
        t["feature.weight"] = normal(hidden, features, std=features**-0.5)
    return Checkpoint(t, {"nh": heads, "nkv": kv_heads})


def codec(seed: int, widths=(64, 32), blocks=(1, 2), kernel: int = 7, expansion: int = 3):
    rng = np.random.default_rng(seed)
    t: dict[str, np.ndarray] = {}

    def linear(name, rows, columns, std=1.0):
        t[f"{name}.weight"] = rng.standard_normal((rows, columns)) * std / columns**0.5
        t[f"{name}.bias"] = rng.standard_normal(rows) * 0.1

    def norm(name, width):
        t[f"{name}.weight"] = 1 + rng.standard_normal(width) * 0.1
        t[f"{name}.bias"] = rng.standard_normal(width) * 0.1

    linear("inp", widths[0], 8, std=1.5)
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        for i in range(count):
            at = f"stage{stage}.{i}"
            t[f"{at}.depthwise.weight"] = rng.standard_normal((kernel, width)) / kernel**0.5
            t[f"{at}.depthwise.bias"] = rng.standard_normal(width) * 0.1
            norm(f"{at}.norm", width)
            linear(f"{at}.pointwise1", expansion * width, width)
            linear(f"{at}.pointwise2", width, expansion * width)
            t[f"{at}.layer_scale"] = rng.uniform(0.3, 0.7, width)
    linear("up", 2 * widths[1], widths[0])
    norm("norm", widths[1])
    linear("head", SPECTRUM, widths[1])
    # About -14 dB full scale: log-magnitudes around 1, phases over the whole circle.
    t["head.bias"][: SPECTRUM // 2] += 1
    t["head.weight"][SPECTRUM // 2 :] *= 2
    return Checkpoint({k: v.astype(np.float32) for k, v in t.items()}, {"gelu": "tanh"})


def make(out: Path, seed: int = 2024) -> None:
    out.mkdir(parents=True, exist_ok=True)
    draft_bits = Bits(4, {"head": 8})
    # Beside the bundle's own draft, one of the old style, without the target's features.
    plain = language_model(seed + 1, layers=1, hidden=32, heads=1, kv_heads=1, ffn=64)
    export_language_model("draft_plain", plain, out, draft_bits, 512)
    write(
        out,
        language_model(seed, layers=2, hidden=64, heads=2, kv_heads=1, ffn=88),
        language_model(seed + 3, layers=1, hidden=64, heads=2, kv_heads=2, ffn=64, features=64),
        codec(seed + 2),
        name="tiny",
        bits={"draft": draft_bits},
        max_positions=512,
        groups="../../asg-cache/tiny.asg",
        speakers=SPEAKERS,
        licence=bundle.CODE_LICENCE,
        attribution="",
        training={"note": "random weights, for tests only", "seed": seed},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2024)


def run(args: argparse.Namespace) -> None:
    make(args.out, args.seed)
