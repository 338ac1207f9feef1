"""The decoder of NeuCodec and X-codec2, as transformers (5.23) names its tensors, in `ai.voxgrain` operators.

The rotation that its attention applies turns queries and keys of a head by the same angle, that of the head's
number, and cancels; so the graph has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto

from .export import Bits, Graph

GROUPS, EPSILON = 32, 1e-6


def folded(tensors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Digits -> quantizer.project_out -> acoustic_decoder.fc as one FsqEmbed. Trained on digits -1, -.5, 0, .5,
    where FsqEmbed has v = -1, -1/3, 1/3, 1: those are .75 v - .25."""
    out, fc = (tensors[f"{n}.weight"].astype(np.float64) for n in ("quantizer.project_out", "acoustic_decoder.fc"))
    weight = fc @ out
    bias = fc @ tensors["quantizer.project_out.bias"].astype(np.float64) + tensors["acoustic_decoder.fc.bias"]
    return 0.75 * weight, bias - 0.25 * weight.sum(axis=1)


def decoder(tensors: Mapping[str, np.ndarray], folder: Path, heads: int, bits: Bits) -> dict[str, int]:
    """Writes `codec.onnx`; returns `fft_size` and `hidden`. Query, key and value have `heads` heads each."""
    prefix = "acoustic_decoder."
    t = {k.removeprefix(prefix): np.asarray(v) for k, v in tensors.items()}
    g = Graph("codec")

    def affine(kind, name, key, x, **attributes):
        inputs = [g.f32(f"{name}.{part}", t[f"{key}.{part}"]) for part in ("weight", "bias") if f"{key}.{part}" in t]
        return g.op(kind, name, x, *inputs, epsilon=EPSILON, **attributes)

    def resnet(name, key, x):
        y = x
        for i in (1, 2):
            y = affine("GroupNorm", f"{name}.norm{i}", f"{key}.norm{i}", y, groups=GROUPS)
            y = g.op("Silu", f"{name}.silu{i}", y)
            conv = f"{key}.conv{i}"
            y = g.conv(f"{name}.conv{i}", y, t[f"{conv}.weight"], t[f"{conv}.bias"], bits, residual=x if i == 2 else "")
        return y

    def count(key):
        return 1 + max(int(k.split(".")[1]) for k in t if k.startswith(f"{key}."))

    weight, bias = folded(tensors)
    h = g.op("FsqEmbed", "inp", "tokens", g.f32("inp.weight", weight), g.f32("inp.bias", bias))
    h = g.conv("embed", h, t["embed.weight"], t["embed.bias"], bits)
    for i in range(count("prior_net")):
        h = resnet(f"prior.{i}", f"prior_net.{i}", h)
    for i in range(count("layers")):
        at, key = f"layers.{i}", f"layers.{i}"
        x = affine("RmsNorm", f"{at}.attn_norm", f"{key}.input_layernorm", h)
        parts = [t[f"{key}.self_attn.{p}_proj.weight"] for p in "qkv"]
        x = g.matmul(f"{at}.qkv", x, np.concatenate(parts), bits)
        size = {"heads": heads, "head_dim": len(parts[0]) // heads}
        x = g.op("SelfAttention", f"{at}.attention", x, **size)
        h = g.matmul(f"{at}.attn_out", x, t[f"{key}.self_attn.o_proj.weight"], bits, residual=h)
        x = affine("RmsNorm", f"{at}.mlp_norm", f"{key}.post_attention_layernorm", h)
        x = g.op("Silu", f"{at}.silu", g.matmul(f"{at}.up", x, t[f"{key}.mlp.fc1.weight"], bits))
        h = g.matmul(f"{at}.down", x, t[f"{key}.mlp.fc2.weight"], bits, residual=h)
    for i in range(count("post_net")):
        h = resnet(f"post.{i}", f"post_net.{i}", h)
    h = affine("LayerNorm", "norm", "norm", h)
    head = t["head.linear.weight"]
    g.matmul("head", h, head, bits, t["head.linear.bias"], outputs=["spectrum"])
    tokens, spectrum = ("tokens", TensorProto.INT64, ["T"]), ("spectrum", TensorProto.FLOAT, ["T", len(head)])
    g.save(folder, [tokens], [spectrum], {"voxgrain.kind": "codec_decoder"})
    return {"fft_size": len(head) - 2, "hidden": head.shape[1]}
