"""The same weights written for each engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from voxgrain_tools.export.export import ALIGNMENT, Graph
from voxgrain_tools.export.onnx_functions import DOMAIN, IR_VERSION, OPSET, functions_of
from voxgrain_tools.export.quantize import BLOCK, Quantised, pack

from .model import rows_of

MICROSOFT = "com.microsoft"
# Of the files below: kept ones of another version are written again.
VERSION = "1"


class _Stream(Graph):
    """A graph whose data goes to the file at once, for models as large as the memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self.path = path
        self._file = open(f"{path}.data", "wb")

    def weight(self, name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value)
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        tensor = TensorProto(name=name, dims=value.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": f"{self.path.name}.data", "offset": self._file.tell()}
        for key, item in (place | {"length": value.nbytes}).items():
            tensor.external_data.add(key=key, value=str(item))
        self._file.write(memoryview(value.reshape(-1)).cast("B"))
        self.initializers.append(tensor)
        return name

    def quantised(self, name: str, x: str, matrix: Quantised, residual="", outputs=None) -> str:
        rows, columns = matrix.values.shape
        packed, scales = pack(matrix)
        inputs = [x, self.weight(f"{name}.packed", packed), self.weight(f"{name}.scales", scales)]
        inputs += ["", residual] if residual else []
        return self.op("QMatMul", name, *inputs, outputs=outputs, N=rows, K=columns, bits=matrix.bits)

    def finish(self, inputs, outputs, opsets, **extra) -> None:
        self._file.close()
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
            initializer=self.initializers,
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, **extra)
        self.path.write_bytes(model.SerializeToString(deterministic=True))


def voxgrain(weights, path: Path) -> None:
    s = weights.shape
    g = _Stream(path)
    h = g.op("Embed", "embedding", "tokens", g.weight("embedding.table", weights.embedding()))
    inputs = [("tokens", TensorProto.INT64, ["S"])]
    outputs = [("logits", TensorProto.FLOAT, ["S", s.head_rows])]

    def norm(name, x):
        weight = g.f32(f"{name}.weight", weights.norm(name))
        return g.op("RmsNorm", name, x, weight, epsilon=s.epsilon)

    for i in range(s.layers):
        at = f"layers.{i}"
        past = [f"past_key_{i}", f"past_value_{i}"]
        present = [f"present_key_{i}", f"present_value_{i}"]
        inputs += [(p, TensorProto.FLOAT, [s.kv_heads, "P", s.head_dim]) for p in past]
        outputs += [(p, TensorProto.FLOAT, [s.kv_heads, "P + S", s.head_dim]) for p in present]
        x = norm(f"{at}.attn_norm", h)
        x = g.op(
            "Attention",
            f"{at}.attention",
            g.quantised(f"{at}.qkv", x, weights.matrix(f"{at}.qkv")),
            *past,
            outputs=[f"{at}.attention.out", *present],
            heads=s.heads,
            kv_heads=s.kv_heads,
            head_dim=s.head_dim,
            rope_base=s.rope_base,
        )
        h = g.quantised(f"{at}.attn_out", x, weights.matrix(f"{at}.attn_out"), residual=h)
        x = norm(f"{at}.mlp_norm", h)
        x = g.quantised(f"{at}.gate_up", x, weights.matrix(f"{at}.gate_up"))
        x = g.op("SwiGlu", f"{at}.swiglu", x)
        h = g.quantised(f"{at}.down", x, weights.matrix(f"{at}.down"), residual=h)
    g.quantised("head", norm("final_norm", h), weights.matrix("head"), outputs=["logits"])
    g.finish(inputs, outputs, {"": OPSET, DOMAIN: 1}, functions=functions_of(g.nodes), producer_name="voxgrain_compare")


def n_bits(matrix: Quantised) -> tuple[np.ndarray, np.ndarray]:
    """B [N, K / 32, 4 * bits] and scales [N, K / 32] of com.microsoft::MatMulNBits."""
    n, k = matrix.values.shape
    stored = (matrix.values.astype(np.int16) + (1 << matrix.bits - 1)).astype(np.uint8)
    blocks = stored.reshape(n, k // BLOCK, BLOCK)
    if matrix.bits == 4:
        blocks = blocks[:, :, 0::2] | (blocks[:, :, 1::2] << 4)
    return blocks, matrix.scales.astype(np.float32)


def ort(weights, path: Path, positions: int = 4096) -> None:
    """What onnxruntime's own model builder makes: MatMulNBits with int8 activations,
    GroupQueryAttention with rotation inside and a cache that it writes in place."""
    s = weights.shape
    g = _Stream(path)
    count = 0

    def op(kind, *inputs, domain=MICROSOFT, outputs=None, **attributes):
        nonlocal count
        count += 1
        outputs = outputs or [f"v{count}"]
        node = helper.make_node(kind, inputs, outputs, f"{kind}.{count}", domain=domain, **attributes)
        g.nodes.append(node)
        return outputs[0]

    def times(x, name, matrix, outputs=None):
        b, scales = n_bits(matrix)
        n, k = matrix.values.shape
        return op(
            "MatMulNBits",
            x,
            g.weight(f"{name}.b", b),
            g.weight(f"{name}.scales", scales),
            outputs=outputs,
            K=k,
            N=n,
            bits=matrix.bits,
            block_size=BLOCK,
            accuracy_level=4,
        )

    def skip(x, branch, name):
        """x + branch and its norm."""
        weight = g.f32(f"{name}.weight", weights.norm(name))
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        op("SkipSimplifiedLayerNormalization", x, branch, weight, outputs=outputs, epsilon=s.epsilon)
        return outputs[3], outputs[0]

    angle = np.arange(positions)[:, None] * s.rope_base ** (-np.arange(s.head_dim // 2) * 2 / s.head_dim)
    cos, sin = g.f32("cos", np.cos(angle)), g.f32("sin", np.sin(angle))
    table = g.weight("embedding", weights.embedding())
    h = op("Gather", table, "tokens", domain="", axis=0)
    h = op("Cast", h, domain="", to=TensorProto.FLOAT)
    weight = g.f32("layers.0.attn_norm.weight", weights.norm("layers.0.attn_norm"))
    x = op("SimplifiedLayerNormalization", h, weight, domain="", epsilon=s.epsilon, axis=-1, stash_type=1)
    cache = [1, s.kv_heads, "P", s.head_dim]
    inputs = [
        ("tokens", TensorProto.INT64, [1, "S"]),
        ("last", TensorProto.INT32, [1]),
        ("total", TensorProto.INT32, []),
        ("first", TensorProto.INT64, [1]),
    ]
    outputs = [("logits", TensorProto.FLOAT, [1, "W", s.head_rows])]
    for i in range(s.layers):
        at = f"layers.{i}"
        past = [f"past_key_{i}", f"past_value_{i}"]
        present = [f"present_key_{i}", f"present_value_{i}"]
        inputs += [(p, TensorProto.FLOAT, cache) for p in past]
        outputs += [(p, TensorProto.FLOAT, [*cache[:2], "T", s.head_dim]) for p in present]
        qkv = times(x, f"{at}.qkv", weights.matrix(f"{at}.qkv"))
        x = op(
            "GroupQueryAttention",
            qkv,
            "",
            "",
            *past,
            "last",
            "total",
            cos,
            sin,
            outputs=[f"{at}.attention", *present],
            num_heads=s.heads,
            kv_num_heads=s.kv_heads,
            do_rotary=1,
            scale=s.head_dim**-0.5,
        )
        x = times(x, f"{at}.attn_out", weights.matrix(f"{at}.attn_out"))
        h, x = skip(h, x, f"{at}.mlp_norm")
        both = weights.matrix(f"{at}.gate_up")
        gate = times(x, f"{at}.gate", rows_of(both, 0, s.ffn))
        up = times(x, f"{at}.up", rows_of(both, s.ffn, 2 * s.ffn))
        x = op("Mul", op("QuickGelu", gate, alpha=1.0), up, domain="")
        x = times(x, f"{at}.down", weights.matrix(f"{at}.down"))
        following = f"layers.{i + 1}.attn_norm" if i + 1 < s.layers else "final_norm"
        h, x = skip(h, x, following)
    # Rows from `first` on (counted from the end) have their logits computed, as in voxgrain.
    end, axis = (g.weight(n, np.array([v], np.int64)) for n, v in (("end", 2**31), ("axis", 1)))
    x = op("Slice", x, "first", end, axis, domain="")
    times(x, "head", weights.matrix("head"), outputs=["logits"])
    g.finish(inputs, outputs, {"": OPSET, MICROSOFT: 1})


def ggml_blocks(matrix: Quantised) -> np.ndarray:
    """Rows of Q8_0 or Q4_0 blocks, u8 [N, bytes]."""
    n, k = matrix.values.shape
    blocks = matrix.values.reshape(n, k // BLOCK, BLOCK)
    if matrix.bits == 8:
        quants = blocks.view(np.uint8)
    else:
        nibbles = (blocks + 8).astype(np.uint8)
        quants = nibbles[:, :, :16] | (nibbles[:, :, 16:] << 4)
    scales = matrix.scales.reshape(n, k // BLOCK, 1).view(np.uint8)
    return np.concatenate([scales, quants], 2).reshape(n, -1)


def interleave_heads(matrix: Quantised, heads: int) -> Quantised:
    """Rows of query or key heads in ggml's order, which rotates neighbouring channels."""
    rows = np.arange(len(matrix.values)).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
    return Quantised(matrix.values[rows], matrix.scales[rows], matrix.bits)


def gguf(weights, path: Path, positions: int = 4096) -> None:
    """Q8_0 or Q4_0, matrix by matrix. llama.cpp wants as many head rows as embeddings: the
    missing ones (text tokens, at most 0.4 %) are zeros that are never drawn."""
    import gguf as lib

    s = weights.shape
    types = {8: lib.GGMLQuantizationType.Q8_0, 4: lib.GGMLQuantizationType.Q4_0}
    w = lib.GGUFWriter(path, "llama")
    w.add_name(s.name)
    w.add_context_length(positions)
    w.add_embedding_length(s.hidden)
    w.add_block_count(s.layers)
    w.add_feed_forward_length(s.ffn)
    w.add_head_count(s.heads)
    w.add_head_count_kv(s.kv_heads)
    w.add_key_length(s.head_dim)
    w.add_value_length(s.head_dim)
    w.add_rope_dimension_count(s.head_dim)
    w.add_rope_freq_base(s.rope_base)
    w.add_layer_norm_rms_eps(s.epsilon)
    w.add_vocab_size(s.vocabulary)
    w.add_tokenizer_model("no_vocab")
    bits = weights.bits("layers.0.qkv")
    w.add_file_type(lib.LlamaFileType.MOSTLY_Q8_0 if bits == 8 else lib.LlamaFileType.MOSTLY_Q4_0)

    # Shapes first, then the data in the same order, so that one matrix is in memory at a time.
    tensors = []

    def floats(name, value):
        array = value()
        kind = lib.GGMLQuantizationType.F16 if array.dtype == np.float16 else None
        w.add_tensor_info(name, array.shape, array.dtype, array.nbytes, kind)
        tensors.append(value)

    def blocks(name, rows, columns, bits, value):
        size = columns // BLOCK * (34 if bits == 8 else 18)
        w.add_tensor_info(name, (rows, size), np.dtype(np.uint8), rows * size, types[bits])
        tensors.append(lambda: ggml_blocks(value()))

    def part(name, matrix, start, stop, heads=None):
        columns = s.matrices()[matrix][1]

        def value():
            rows = rows_of(weights.matrix(matrix), start, stop)
            return interleave_heads(rows, heads) if heads else rows

        blocks(name, stop - start, columns, weights.bits(matrix), value)

    def head():
        m = weights.matrix("head")
        missing = ((0, s.vocabulary - s.head_rows), (0, 0))
        return Quantised(np.pad(m.values, missing), np.pad(m.scales, missing), m.bits)

    floats("token_embd.weight", weights.embedding)
    for i in range(s.layers):
        at, to = f"layers.{i}", f"blk.{i}"
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        floats(f"{to}.attn_norm.weight", lambda at=at: weights.norm(f"{at}.attn_norm"))
        part(f"{to}.attn_q.weight", f"{at}.qkv", 0, q, s.heads)
        part(f"{to}.attn_k.weight", f"{at}.qkv", q, q + kv, s.kv_heads)
        part(f"{to}.attn_v.weight", f"{at}.qkv", q + kv, q + 2 * kv)
        part(f"{to}.attn_output.weight", f"{at}.attn_out", 0, s.hidden)
        floats(f"{to}.ffn_norm.weight", lambda at=at: weights.norm(f"{at}.mlp_norm"))
        part(f"{to}.ffn_gate.weight", f"{at}.gate_up", 0, s.ffn)
        part(f"{to}.ffn_up.weight", f"{at}.gate_up", s.ffn, 2 * s.ffn)
        part(f"{to}.ffn_down.weight", f"{at}.down", 0, s.hidden)
    floats("output_norm.weight", lambda: weights.norm("final_norm"))
    blocks("output.weight", s.vocabulary, s.hidden, weights.bits("head"), head)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for value in tensors:
        w.write_tensor_data(np.ascontiguousarray(value()))
    w.close()


WRITERS = {"voxgrain": (voxgrain, "onnx"), "llama.cpp": (gguf, "gguf"), "onnxruntime": (ort, "onnx")}


def export(weights, engine: str, folder: Path, label: str) -> Path:
    """Writes the model for one engine unless it is there already; returns its file."""
    write, suffix = WRITERS[engine]
    folder = folder / f"{label}-{engine}"
    path = folder / f"model.{suffix}"
    done = folder / "complete"
    if not done.exists() or done.read_text() != VERSION:
        folder.mkdir(parents=True, exist_ok=True)
        write(weights, path)
        # A model file that was cut short by an interrupted run is written again.
        done.write_text(VERSION)
    return path


def size_of(path: Path) -> int:
    data = Path(f"{path}.data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)
