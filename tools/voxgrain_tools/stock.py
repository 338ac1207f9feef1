"""A seeded random language model whose matrix products are stock `com.microsoft.MatMulNBits`, in
every form that voxgrain reads: 4 and 8 bits, with and without zero points, bias as an input and as
an Add behind, residual Add. With its golden values, for tests; it makes noise, not speech."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from onnx import helper

from . import bundle, golden, tiny
from .export import Bits, Graph, language_model
from .runtime import Voice

EXAMPLE = "python -m voxgrain_tools stock --out tests/data/stock"

COLUMNS = 128


def vary(g: Graph, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = {n.name: n for n in g.nodes}

    def rows(name):
        return next(a.i for a in nodes[name].attribute if a.name == "N")

    def bias(name):
        return g.f32(f"{name}.bias", rng.standard_normal(rows(name)) * 0.3)

    # 32 columns are one block: a byte of zero points a row, of which 4 bits use the low half.
    usual = np.full((rows("layers.0.attn_out"), 1), 0x88, np.uint8)
    nodes["layers.0.attn_out"].input.append(g.weight("layers.0.attn_out.zero_points", usual))
    own = rng.integers(5, 12, (rows("layers.0.gate_up"), 1), dtype=np.uint8)
    nodes["layers.0.gate_up"].input.extend(
        [g.weight("layers.0.gate_up.zero_points", own), "", bias("layers.0.gate_up")]
    )
    own = rng.integers(118, 139, (rows("layers.0.down"), 2), dtype=np.uint8)
    nodes["layers.0.down"].input.append(g.weight("layers.0.down.zero_points", own))
    qkv = nodes["layers.0.qkv"]
    out, qkv.output[0] = qkv.output[0], "layers.0.qkv.product"
    add = helper.make_node("Add", [qkv.output[0], bias("layers.0.qkv")], [out], name="qkv.bias")
    g.nodes.insert(g.nodes.index(qkv) + 1, add)


def make(out: Path, seed: int = 31) -> None:
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = tiny.language_model(seed, layers=1, hidden=32, heads=1, kv_heads=1, ffn=64)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        facts = language_model(
            "stock", checkpoint, folder, Bits(4, {"head": 8, "down": 8}), 512, "stock",
            lambda g: vary(g, seed),
        )
        bundle.write(folder, name="stock", sections={"target": facts}, groups=None)
        header, tensors, difference = golden.language_model(Voice(folder), "stock.onnx", seed, COLUMNS)
        checksum = bundle.sha256(folder / "stock.onnx.data")
        golden.save(out / "stock.bin", {"data_sha256": checksum, **header}, tensors)
        for name in ("stock.onnx", "stock.onnx.data"):
            shutil.copyfile(folder / name, out / name)
    print(f"onnxruntime against torch {difference:.1e}")
    if difference > golden.TOLERANCE:
        raise SystemExit(f"differs by {difference:.1e}, more than {golden.TOLERANCE}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=31)


def run(args: argparse.Namespace) -> None:
    make(args.out, args.seed)
