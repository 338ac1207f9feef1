"""The weights that all engines get: plain Llamas of quantised matrices.

Every format stores the same integers and the same f16 scale for each block of 32 columns, so the
engines differ in how they compute and in nothing else.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from voxgrain_tools.export.onnx_functions import DIGITS, FACTORS, LEVELS, PAIRS, SPEECH
from voxgrain_tools.export.quantize import BLOCK, Quantised, quantise, unpack

# Rows that can be drawn: speech, then end of speech.
HEAD_ROWS = SPEECH + 1


@dataclass(frozen=True)
class Shape:
    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    head_rows: int = HEAD_ROWS
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of every matrix, in the order of use."""
        h, kv, size = self.heads, self.kv_heads, self.head_dim
        layer = {
            "qkv": ((h + 2 * kv) * size, self.hidden),
            "attn_out": (self.hidden, h * size),
            "gate_up": (2 * self.ffn, self.hidden),
            "down": (self.hidden, self.ffn),
        }
        found = {f"layers.{i}.{n}": s for i in range(self.layers) for n, s in layer.items()}
        return found | {"head": (self.head_rows, self.hidden)}

    @property
    def parameters(self) -> int:
        """Weights read a pass."""
        return sum(n * k for n, k in self.matrices().values())


SHAPES = {
    "toy": Shape("toy", 64, 2, 4, 2, 16, 96, 300, 257),
    # NeuTTS Nano, its head cut to the rows that can be drawn (its positions turn by a table, which costs the same).
    "nano": Shape("nano", 576, 24, 9, 3, 64, 2304, 194256, rope_base=500000.0),
    "250m": Shape("250m", 1024, 16, 16, 4, 64, 2816, 65792),
    "1b": Shape("1b", 2048, 16, 32, 8, 64, 8192, 65792, rope_base=500000.0),
}


class Synthetic:
    """Random weights, made when they are asked for: the same name gives the same numbers."""

    def __init__(self, shape: Shape, bits: int) -> None:
        self.shape, self._bits = shape, bits

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.shape.name}.{self._bits}.{name}".encode()))

    def bits(self, name: str) -> int:
        return self._bits

    def embedding(self) -> np.ndarray:
        size = (self.shape.vocabulary, self.shape.hidden)
        return self._rng("embedding").standard_normal(size, np.float32).astype(np.float16)

    def norm(self, name: str) -> np.ndarray:
        noise = self._rng(name).standard_normal(self.shape.hidden, np.float32)
        return 1 + np.float32(0.1) * noise

    # Parts of one matrix are asked for in a row; the few shapes live as long as the program.
    @functools.lru_cache(maxsize=1)  # noqa: B019
    def matrix(self, name: str) -> Quantised:
        rows, columns = self.shape.matrices()[name]
        rng = self._rng(name)
        # The integers a Gaussian matrix would be rounded to.
        spread, low, high = (32, -127, 127) if self._bits == 8 else (2.5, -8, 7)
        values = np.empty((rows, columns), np.int8)
        for at in range(0, rows, 4096):
            part = values[at : at + 4096]
            drawn = rng.standard_normal(part.shape, np.float32) * np.float32(spread)
            part[:] = np.clip(np.rint(drawn), low, high)
        gain = 1.5 if name == "head" else 1
        scales = rng.uniform(0.8, 1.2, (rows, columns // BLOCK)) * gain / spread / columns**0.5
        return Quantised(values, scales.astype(np.float16), self._bits)


def expand(factors: np.ndarray) -> np.ndarray:
    """[65536, H] from the 480 rows of a factorised table, summed in the engine's order."""
    tokens = np.arange(SPEECH)
    digits = [(tokens >> (2 * i)) & (LEVELS - 1) for i in range(DIGITS)]
    rows = [LEVELS * i + d for i, d in enumerate(digits)]
    base = DIGITS * LEVELS
    rows += [base + 16 * p + LEVELS * digits[a] + digits[b] for p, (a, b) in enumerate(PAIRS)]
    if base + 16 * len(PAIRS) != FACTORS:
        raise ValueError("the digits and their pairs do not make the table's rows")
    total = np.zeros((SPEECH, factors.shape[1]), np.float32)
    for r in rows:
        total += factors[r].astype(np.float32)
    return total


class FromFile:
    """A language model file of voxgrain's, with its factorised tables written out.

    `bits` requantises matrices of other bits than that; without it each keeps its own.
    """

    def __init__(self, path: Path, name: str, bits: int | None = None) -> None:
        model = onnx.load(path, load_external_data=False)
        self._data = np.memmap(f"{path}.data", np.uint8, "r")
        self._tensors = {t.name: t for t in model.graph.initializer}
        self._nodes = {n.name: n for n in model.graph.node}
        self._wanted = bits
        self._made: dict[str, Quantised] = {}
        inputs = [i.name for i in model.graph.input]
        others = [i for i in inputs if i != "tokens" and not i.startswith("past_")]
        if others:
            raise ValueError(f"{path} takes {others} besides tokens: no engine but voxgrain runs it")
        attention = [n for n in model.graph.node if n.op_type == "Attention"]
        first = self._attributes(attention[0])
        norm = next(n for n in model.graph.node if n.op_type == "RmsNorm")
        gate_up = self._attributes(self._nodes["layers.0.gate_up"])
        self.shape = Shape(
            name,
            hidden=gate_up["K"],
            layers=len(attention),
            heads=first["heads"],
            kv_heads=first["kv_heads"],
            head_dim=first["head_dim"],
            ffn=gate_up["N"] // 2,
            vocabulary=len(self.embedding()),
            rope_base=first["rope_base"],
            epsilon=self._attributes(norm)["epsilon"],
        )

    @staticmethod
    def _attributes(node) -> dict:
        return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def _tensor(self, name: str) -> np.ndarray:
        t = self._tensors[name]
        place = {e.key: e.value for e in t.external_data}
        at = int(place["offset"])
        raw = self._data[at : at + int(place["length"])]
        return raw.view(onnx.helper.tensor_dtype_to_np_dtype(t.data_type)).reshape(t.dims)

    def bits(self, name: str) -> int:
        return self._wanted or self._attributes(self._nodes[name])["bits"]

    def uniform_bits(self) -> int | None:
        """The bits of all matrices, if they agree."""
        found = {self.bits(n) for n in self.shape.matrices()}
        return found.pop() if len(found) == 1 else None

    def embedding(self) -> np.ndarray:
        node = self._nodes["embedding"]
        tables = [self._tensor(n) for n in node.input[1:]]
        if node.op_type == "Embed":
            return tables[0]
        return np.concatenate([expand(tables[0]).astype(np.float16), tables[1]])

    def norm(self, name: str) -> np.ndarray:
        return self._tensor(f"{name}.weight")

    def matrix(self, name: str) -> Quantised:
        node = self._nodes[name]
        own = self._attributes(node)
        stored = unpack(*map(self._tensor, node.input[1:3]), own["N"], own["bits"])
        bits = self.bits(name)
        factorised = name == "head" and own["N"] != self.shape.head_rows
        if bits == own["bits"] and not factorised:
            return stored
        if name not in self._made:
            rows = stored.dequantise()
            if factorised:
                rows = np.concatenate([expand(rows[:FACTORS]), rows[FACTORS : FACTORS + 1]])
            self._made[name] = quantise(rows, bits)
        return self._made[name]

    def own_pass_bytes(self) -> int:
        """Bytes of weights and scales that a pass of the file as it is reads."""
        packed = [n for n in self._nodes.values() if n.op_type == "QMatMul"]
        return sum(self._tensor(t).nbytes for n in packed for t in n.input[1:3])


def pass_bytes(weights, scale_bytes: int = 2) -> int:
    """Bytes of weights and scales that one pass reads."""
    sizes = weights.shape.matrices().items()
    return sum(n * k * weights.bits(m) // 8 + n * k // BLOCK * scale_bytes for m, (n, k) in sizes)


def rows_of(matrix: Quantised, start: int, stop: int) -> Quantised:
    return Quantised(matrix.values[start:stop], matrix.scales[start:stop], matrix.bits)


def logits(weights, tokens) -> np.ndarray:
    """Float32 logits [tokens, head rows] of the dequantised weights: the reference."""
    s = weights.shape
    x = weights.embedding()[list(tokens)].astype(np.float32)
    count, size, group = len(x), s.head_dim, s.heads // s.kv_heads
    angle = np.arange(count)[:, None] * s.rope_base ** (-np.arange(size // 2) * 2 / size)
    cos, sin = (f(angle)[:, None].astype(np.float32) for f in (np.cos, np.sin))
    mask = np.triu(np.full((count, count), -np.inf, np.float32), 1)

    def norm(name, v):
        root = np.sqrt((v.astype(np.float64) ** 2).mean(-1, keepdims=True) + s.epsilon)
        return (v / root).astype(np.float32) * weights.norm(name)

    def times(name, v):
        return v @ weights.matrix(name).dequantise().T

    def rotate(v):
        a, b = np.split(v, 2, -1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    for i in range(s.layers):
        at = f"layers.{i}"
        qkv = times(f"{at}.qkv", norm(f"{at}.attn_norm", x)).reshape(count, -1, size)
        q, k, v = np.split(qkv, [s.heads, s.heads + s.kv_heads], 1)
        q, k = rotate(q), np.repeat(rotate(k), group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(size**0.5) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", scores, np.repeat(v, group, 1))
        x = x + times(f"{at}.attn_out", mixed.reshape(count, -1))
        gate, up = np.split(times(f"{at}.gate_up", norm(f"{at}.mlp_norm", x)), 2, -1)
        x = x + times(f"{at}.down", gate / (1 + np.exp(-gate)) * up)
    return times("head", norm("final_norm", x))


def relative(got: np.ndarray, want: np.ndarray) -> float:
    want = want.astype(np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
