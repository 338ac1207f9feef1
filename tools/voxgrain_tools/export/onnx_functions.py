"""The `ai.voxgrain` operators as ONNX model-local functions with bodies of standard operators.

They make every exported file run in any ONNX runtime that inlines functions; voxgrain's own engine
recognises the operator names and never looks at the bodies. models/README.md describes each one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "ai.voxgrain"
OPSET = 20
IR_VERSION = 10
DIGITS, LEVELS = 8, 4
ROWS = 16
SPEECH = LEVELS**DIGITS
PAIRS = [(a, b) for a in range(DIGITS) for b in range(a + 1, DIGITS)]
FACTORS = DIGITS * LEVELS + len(PAIRS) * LEVELS * LEVELS


class _Body:
    """Collects the nodes of one function body; every method returns a value's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def op(self, kind: str, *inputs: str, out=None, outputs: int = 1, refs=None, **attributes):
        names = out if isinstance(out, list) else [out] if out else None
        if names is None:
            names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, **attributes)
        for name, (reference, kind_of) in (refs or {}).items():
            attribute = node.attribute.add()
            attribute.name, attribute.ref_attr_name, attribute.type = name, reference, kind_of
        self.nodes.append(node)
        return names[0] if len(names) == 1 else names

    def const(self, value, dtype=np.int64) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value, dtype=dtype)))

    def int_attr(self, name: str) -> str:
        """A scalar i64 with the value of the function's attribute."""
        return self.op("Constant", refs={"value_int": (name, onnx.AttributeProto.INT)})

    def float_attr(self, name: str) -> str:
        return self.op("Constant", refs={"value_float": (name, onnx.AttributeProto.FLOAT)})

    def shape(self, *dims: str) -> str:
        """A 1-D shape of scalars, from names of scalar values or of one-element vectors."""
        one = self.const([1])
        return self.op("Concat", *[self.op("Reshape", d, one) for d in dims], axis=0)

    def dim(self, value: str, axis: int) -> str:
        """The size of one axis as a scalar."""
        return self.op("Squeeze", self.op("Shape", value, start=axis, end=axis + 1))

    def arange(self, start: str, stop: str) -> str:
        return self.op("Range", start, stop, self.const(1))

    def digits(self, tokens: str, first: int, count: int) -> str:
        """[..., count] base-4 digits `first..first+count` of i64 tokens."""
        column = self.op("Unsqueeze", tokens, self.const([-1]))
        powers = self.const([LEVELS**i for i in range(first, first + count)])
        return self.op("Mod", self.op("Div", column, powers), self.const(LEVELS))

    def factor_rows(self, digits: str, first: int, count: int) -> str:
        """Row numbers, digits first and then pairs, of the factors among these digits only."""
        single = self.op("Add", digits, self.const([LEVELS * (first + i) for i in range(count)]))
        pairs = [(a, b) for a, b in PAIRS if first <= a and b < first + count]
        high = self.op("Gather", digits, self.const([a - first for a, _ in pairs]), axis=-1)
        low = self.op("Gather", digits, self.const([b - first for _, b in pairs]), axis=-1)
        base = self.const([DIGITS * LEVELS + 16 * PAIRS.index(p) for p in pairs])
        pair = self.op("Add", base, self.op("Add", self.op("Mul", high, self.const(LEVELS)), low))
        return self.op("Concat", single, pair, axis=-1)

    def f32(self, value: str) -> str:
        return self.op("Cast", value, to=TensorProto.FLOAT)


def _function(name, inputs, outputs, body, attributes=(), defaults=None):
    return helper.make_function(
        DOMAIN,
        name,
        list(inputs),
        list(outputs),
        body.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=list(attributes),
        attribute_protos=[helper.make_attribute(k, v) for k, v in (defaults or {}).items()],
    )


def factor_embed() -> onnx.FunctionProto:
    b = _Body()
    speech = b.op("Min", "tokens", b.const(SPEECH - 1))
    rows = b.factor_rows(b.digits(speech, 0, DIGITS), 0, DIGITS)
    summed = b.op("ReduceSum", b.f32(b.op("Gather", "factors", rows, axis=0)), b.const([1]), keepdims=0)
    beyond = b.op("Sub", "tokens", b.const(SPEECH))
    other = b.f32(b.op("Gather", "extra", b.op("Max", beyond, b.const(0)), axis=0))
    is_speech = b.op("Unsqueeze", b.op("Less", "tokens", b.const(SPEECH)), b.const([-1]))
    b.op("Where", is_speech, summed, other, out="embedding")
    return _function(
        "FactorEmbed", ["tokens", "factors", "extra"], ["embedding"], b, defaults={"digits": DIGITS, "levels": LEVELS}
    )


def embed() -> onnx.FunctionProto:
    b = _Body()
    b.op("Cast", b.op("Gather", "table", "tokens", axis=0), to=TensorProto.FLOAT, out="embedding")
    return _function("Embed", ["tokens", "table"], ["embedding"], b)


def q_embed() -> onnx.FunctionProto:
    b = _Body()
    bits = b.int_attr("bits")
    rows = b.op("Gather", "q", "tokens", axis=0)
    # Nibble by nibble, the low ones first: [planes, S, K/32, bytes] -> [S, K/32, planes, bytes].
    shifts = b.op("Reshape", b.op("Range", b.const(0), b.const(8), bits), b.const([-1, 1, 1, 1]))
    planes = b.op("Unsqueeze", rows, b.const([0]))
    planes = b.op("BitShift", planes, b.op("Cast", shifts, to=TensorProto.UINT8), direction="RIGHT")
    two = b.op("Pow", b.const(2), bits)
    mask = b.op("Cast", b.op("Sub", two, b.const(1)), to=TensorProto.UINT8)
    planes = b.f32(b.op("BitwiseAnd", planes, mask))
    planes = b.op("Sub", planes, b.f32(b.op("Div", two, b.const(2))))
    blocks = b.op("Reshape", b.op("Transpose", planes, perm=[1, 2, 0, 3]), b.const([0, 0, 32]))
    scales = b.f32(b.op("Gather", "scales", "tokens", axis=0))
    values = b.op("Mul", blocks, b.op("Unsqueeze", scales, b.const([-1])))
    b.op("Reshape", values, b.shape(b.const(-1), b.int_attr("K")), out="embedding")
    return _function("QEmbed", ["tokens", "q", "scales"], ["embedding"], b, ["K", "bits"])


def rms_norm() -> onnx.FunctionProto:
    b = _Body()
    mean = b.op("ReduceMean", b.op("Mul", "x", "x"), b.const([-1]), keepdims=1)
    root = b.op("Sqrt", b.op("Add", mean, b.float_attr("epsilon")))
    b.op("Mul", b.op("Div", "x", root), "weight", out="y")
    return _function("RmsNorm", ["x", "weight"], ["y"], b, ["epsilon"])


def unpacked(b: _Body) -> str:
    """The matrix [N, K] of the inputs `packed` and `scales`, in float32."""
    bits = b.int_attr("bits")
    # One plane a nibble (4 bits) or a single plane (8 bits), least significant first.
    shifts = b.op("Range", b.const(0), b.const(8), bits)
    shifts = b.op("Reshape", shifts, b.const([-1, 1, 1, 1, 1, 1]))
    planes = b.op("Unsqueeze", "packed", b.const([0]))
    planes = b.op("BitShift", planes, b.op("Cast", shifts, to=TensorProto.UINT8), direction="RIGHT")
    two = b.op("Pow", b.const(2), bits)
    mask = b.op("Cast", b.op("Sub", two, b.const(1)), to=TensorProto.UINT8)
    planes = b.f32(b.op("BitwiseAnd", planes, mask))
    zero_point = b.f32(b.op("Div", two, b.const(2)))
    planes = b.op("Sub", planes, zero_point)
    # [plane, N16, KB, J, 16, 4] -> [N16, 16, KB, plane * J, 4] -> [rows, K]
    tiles = b.op("Transpose", planes, perm=[1, 4, 2, 0, 3, 5])
    tiles = b.op("Reshape", tiles, b.const([0, ROWS, 0, 32]))
    scales = b.f32(b.op("Transpose", "scales", perm=[0, 2, 1]))
    tiles = b.op("Mul", tiles, b.op("Unsqueeze", scales, b.const([-1])))
    matrix = b.op("Reshape", tiles, b.shape(b.const(-1), b.int_attr("K")))
    rows = b.int_attr("N")
    return b.op("Slice", matrix, b.const([0]), b.shape(rows), b.const([0]))


def product(b: _Body, x: str) -> None:
    """y = x W^T + bias + residual, the addends optional."""
    product = b.op("Gemm", x, unpacked(b), "bias", transB=1)
    # Gemm is the one standard operator whose addend may be absent: 0 * 0 + residual.
    zeros = b.op("ConstantOfShape", b.shape(b.dim("x", 0), b.const(1)))
    zero_rows = b.op("ConstantOfShape", b.shape(b.int_attr("N"), b.const(1)))
    b.op("Add", product, b.op("Gemm", zeros, zero_rows, "residual", transB=1), out="y")


def q_matmul() -> onnx.FunctionProto:
    b = _Body()
    product(b, "x")
    return _function("QMatMul", ["x", "packed", "scales", "bias", "residual"], ["y"], b, ["N", "K", "bits"])


# Inputs of Attention behind those that it always has.
ATTENTION_OPTIONS = ("frequencies", "q_norm", "k_norm")


def attention_form(node: onnx.NodeProto) -> tuple[str, ...]:
    """The optional inputs that a node has."""
    return tuple(o for o, i in zip(ATTENTION_OPTIONS, node.input[3:]) if i)


def attention(form: tuple[str, ...] = ()) -> onnx.FunctionProto:
    """For nodes with these optional inputs: a function cannot ask whether an input is there, so a file has the one
    that all of its nodes need."""
    b = _Body()
    heads, kv_heads, size = (b.int_attr(n) for n in ("heads", "kv_heads", "head_dim"))
    steps, past = b.dim("qkv", 0), b.dim("past_key", 1)
    total = b.op("Add", past, steps)
    q_width, kv_width = b.op("Mul", heads, size), b.op("Mul", kv_heads, size)
    q, k, v = b.op("Split", "qkv", b.shape(q_width, kv_width, kv_width), axis=1, outputs=3)

    def by_head(value, count):
        split = b.op("Reshape", value, b.shape(steps, count, size))
        return b.op("Transpose", split, perm=[1, 0, 2])

    def normed(value, weight):
        if weight not in form:
            return value
        mean = b.op("ReduceMean", b.op("Mul", value, value), b.const([-1]), keepdims=1)
        root = b.op("Sqrt", b.op("Add", mean, b.float_attr("epsilon")))
        return b.op("Mul", b.op("Div", value, root), weight)

    if "frequencies" in form:
        frequency = "frequencies"
    else:
        half = b.op("Div", size, b.const(2))
        ramp = b.op("Div", b.f32(b.arange(b.const(0), half)), b.f32(half))
        frequency = b.op("Pow", b.float_attr("rope_base"), b.op("Neg", ramp))
    position = b.op("Unsqueeze", b.f32(b.arange(past, total)), b.const([-1]))
    angle = b.op("Mul", position, frequency)
    cos, sin = b.op("Cos", angle), b.op("Sin", angle)

    def rotate(value):
        a, c = b.op("Split", value, axis=-1, num_outputs=2, outputs=2)
        first = b.op("Sub", b.op("Mul", a, cos), b.op("Mul", c, sin))
        second = b.op("Add", b.op("Mul", c, cos), b.op("Mul", a, sin))
        return b.op("Concat", first, second, axis=-1)

    q = rotate(normed(by_head(q, heads), "q_norm"))
    k = rotate(normed(by_head(k, kv_heads), "k_norm"))
    k = b.op("Concat", "past_key", k, axis=1, out="present_key")
    v = b.op("Concat", "past_value", by_head(v, kv_heads), axis=1, out="present_value")
    # Query heads that share a key head become extra rows of that key head's product.
    minus = b.const(-1)
    q = b.op("Reshape", q, b.shape(kv_heads, minus, size))
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    scores = b.op("Div", scores, b.op("Sqrt", b.f32(size)))
    scores = b.op("Reshape", scores, b.shape(kv_heads, minus, steps, total))
    row = b.op("Unsqueeze", b.arange(past, total), b.const([-1]))
    future = b.op("Greater", b.arange(b.const(0), total), row)
    scores = b.op("Where", future, b.const(-np.inf, np.float32), scores)
    weights = b.op("Softmax", scores, axis=-1)
    weights = b.op("Reshape", weights, b.shape(kv_heads, minus, total))
    mixed = b.op("Reshape", b.op("MatMul", weights, v), b.shape(heads, steps, size))
    b.op("Reshape", b.op("Transpose", mixed, perm=[1, 0, 2]), b.shape(steps, q_width), out="y")
    # Absent ones at the end are left out, others have a name that nothing reads.
    last = max((ATTENTION_OPTIONS.index(o) + 1 for o in form), default=0)
    return _function(
        "Attention",
        ["qkv", "past_key", "past_value", *ATTENTION_OPTIONS[:last]],
        ["y", "present_key", "present_value"],
        b,
        [
            "heads",
            "kv_heads",
            "head_dim",
            *([] if "frequencies" in form else ["rope_base"]),
            *(["epsilon"] if {"q_norm", "k_norm"} & set(form) else []),
        ],
    )


def swi_glu() -> onnx.FunctionProto:
    b = _Body()
    gate, up = b.op("Split", "gate_up", axis=-1, num_outputs=2, outputs=2)
    b.op("Mul", b.op("Mul", gate, b.op("Sigmoid", gate)), up, out="y")
    return _function("SwiGlu", ["gate_up"], ["y"], b)


def factor_logits() -> onnx.FunctionProto:
    """logits[hi, lo] = A[hi] + B[lo] + sum over the four low digits j of C_j[hi, digit_j]."""
    b = _Body()
    half = DIGITS // 2
    count = LEVELS**half
    digits = b.digits(b.arange(b.const(0), b.const(count)), 0, half)

    def within(first, axis):
        rows = b.factor_rows(digits, first, half)
        total = b.op("ReduceSum", b.op("Gather", "scores", rows, axis=1), b.const([2]), keepdims=0)
        return b.op("Unsqueeze", total, b.const([axis]))

    logits = b.op("Add", within(half, 2), within(0, 1))
    by_digit = [0, count] + [LEVELS] * half
    logits = b.op("Reshape", logits, b.const(by_digit))
    for j in range(half):
        base = [DIGITS * LEVELS + 16 * PAIRS.index((j, h)) for h in range(half, DIGITS)]
        own = (np.arange(LEVELS) * LEVELS)[:, None]
        rows = b.op("Add", b.op("Unsqueeze", digits, b.const([1])), b.const(np.array(base) + own))
        cross = b.op("ReduceSum", b.op("Gather", "scores", rows, axis=1), b.const([3]), keepdims=0)
        shape = [0, count] + [1] * half
        shape[2 + half - 1 - j] = LEVELS
        logits = b.op("Add", logits, b.op("Reshape", cross, b.const(shape)))
    logits = b.op("Reshape", logits, b.const([0, SPEECH]))
    tail = b.op("Slice", "scores", b.const([FACTORS]), b.const([2**31]), b.const([1]))
    b.op("Concat", logits, tail, axis=1, out="logits")
    return _function("FactorLogits", ["scores"], ["logits"], b, defaults={"digits": DIGITS, "levels": LEVELS})


def fsq_embed() -> onnx.FunctionProto:
    b = _Body()
    digits = b.f32(b.digits("tokens", 0, DIGITS))
    centre = (LEVELS - 1) / 2
    values = b.op("Div", b.op("Sub", digits, b.const(centre, np.float32)), b.const(centre, np.float32))
    b.op("Gemm", values, "weight", "bias", transB=1, out="y")
    return _function("FsqEmbed", ["tokens", "weight", "bias"], ["y"], b)


def causal_conv() -> onnx.FunctionProto:
    b = _Body()
    steps, width = b.dim("x", 0), b.dim("weight", 0)
    before = b.op("Sub", width, b.const(1))
    pads = b.shape(before, b.const(0), b.const(0), b.const(0))
    padded = b.op("Pad", "x", pads)
    start = b.op("Unsqueeze", b.arange(b.const(0), steps), b.const([-1]))
    taps = b.op("Add", start, b.arange(b.const(0), width))
    windows = b.op("Gather", padded, taps, axis=0)
    summed = b.op("ReduceSum", b.op("Mul", windows, "weight"), b.const([1]), keepdims=0)
    b.op("Add", summed, "bias", out="y")
    return _function("CausalConv", ["x", "weight", "bias"], ["y"], b)


def conv() -> onnx.FunctionProto:
    b = _Body()
    steps, width, padding = b.dim("x", 0), b.int_attr("kernel"), b.int_attr("padding")
    zero = b.const(0)
    padded = b.op("Pad", "x", b.shape(padding, zero, padding, zero))
    start = b.op("Unsqueeze", b.arange(zero, steps), b.const([-1]))
    taps = b.op("Add", start, b.arange(zero, width))
    windows = b.op("Gather", padded, taps, axis=0)
    product(b, b.op("Reshape", windows, b.shape(steps, b.int_attr("K"))))
    inputs = ["x", "packed", "scales", "bias", "residual"]
    return _function("Conv", inputs, ["y"], b, ["N", "K", "bits", "kernel", "padding"])


def group_norm() -> onnx.FunctionProto:
    b = _Body()
    minus = b.const(-1)
    x = b.op("Reshape", "x", b.shape(b.dim("x", 0), b.int_attr("groups"), minus))
    axes = b.const([0, 2])
    centred = b.op("Sub", x, b.op("ReduceMean", x, axes, keepdims=1))
    variance = b.op("ReduceMean", b.op("Mul", centred, centred), axes, keepdims=1)
    x = b.op("Div", centred, b.op("Sqrt", b.op("Add", variance, b.float_attr("epsilon"))))
    x = b.op("Reshape", x, b.op("Shape", "x"))
    b.op("Add", b.op("Mul", x, "weight"), "bias", out="y")
    return _function("GroupNorm", ["x", "weight", "bias"], ["y"], b, ["groups", "epsilon"])


def self_attention() -> onnx.FunctionProto:
    b = _Body()
    heads, size = b.int_attr("heads"), b.int_attr("head_dim")
    split = b.op("Reshape", "qkv", b.shape(b.dim("qkv", 0), b.const(3), heads, size))
    q, k, v = b.op("Split", b.op("Transpose", split, perm=[1, 2, 0, 3]), axis=0, num_outputs=3, outputs=3)
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    weights = b.op("Softmax", b.op("Div", scores, b.op("Sqrt", b.f32(size))), axis=-1)
    mixed = b.op("Transpose", b.op("Squeeze", b.op("MatMul", weights, v), b.const([0])), perm=[1, 0, 2])
    b.op("Reshape", mixed, b.shape(b.dim("qkv", 0), b.op("Mul", heads, size)), out="y")
    return _function("SelfAttention", ["qkv"], ["y"], b, ["heads", "head_dim"])


def silu() -> onnx.FunctionProto:
    b = _Body()
    b.op("Mul", "x", b.op("Sigmoid", "x"), out="y")
    return _function("Silu", ["x"], ["y"], b)


def layer_norm() -> onnx.FunctionProto:
    b = _Body()
    epsilon = {"epsilon": ("epsilon", onnx.AttributeProto.FLOAT)}
    b.op("LayerNormalization", "x", "weight", "bias", axis=-1, refs=epsilon, out="y")
    return _function("LayerNorm", ["x", "weight", "bias"], ["y"], b, ["epsilon"])


def gelu() -> onnx.FunctionProto:
    b = _Body()
    b.op("Gelu", "x", refs={"approximate": ("approximate", onnx.AttributeProto.STRING)}, out="y")
    return _function("Gelu", ["x"], ["y"], b, ["approximate"])


def upsample() -> onnx.FunctionProto:
    b = _Body()
    width = b.op("Div", b.dim("x", 1), b.int_attr("factor"))
    b.op("Reshape", "x", b.shape(b.const(-1), width), out="y")
    return _function("Upsample", ["x"], ["y"], b, ["factor"])


ALL = {
    "FactorEmbed": factor_embed,
    "Embed": embed,
    "QEmbed": q_embed,
    "RmsNorm": rms_norm,
    "QMatMul": q_matmul,
    "Attention": attention,
    "SwiGlu": swi_glu,
    "FactorLogits": factor_logits,
    "FsqEmbed": fsq_embed,
    "CausalConv": causal_conv,
    "LayerNorm": layer_norm,
    "Gelu": gelu,
    "Upsample": upsample,
    "Conv": conv,
    "GroupNorm": group_norm,
    "SelfAttention": self_attention,
    "Silu": silu,
}


def functions(names: Iterable[str], form: tuple[str, ...] = ()) -> list[onnx.FunctionProto]:
    """The function definitions of these operators, each once, in a fixed order; `form` is that of the Attention."""
    wanted = set(names)
    return [attention(form) if name == "Attention" else make() for name, make in ALL.items() if name in wanted]


def functions_of(nodes: Iterable[onnx.NodeProto], *more: str) -> list[onnx.FunctionProto]:
    """What a graph of these nodes carries along."""
    nodes = list(nodes)
    forms = {attention_form(n) for n in nodes if n.op_type == "Attention"}
    if len(forms) > 1:
        raise ValueError(f"the layers differ in the optional inputs of their attention: {sorted(forms)}")
    return functions({n.op_type for n in nodes} | set(more), *forms)


EXAMPLE = "python -m voxgrain_tools functions --out src/import/functions.onnx"


def library() -> bytes:
    """A model without a graph that carries every function: what `voxgrain import` copies from. Each form of the
    Attention is there, its optional inputs in the text that describes it."""
    all_of_them = [f for f in functions(ALL) if f.name != "Attention"]
    for norms in ((), ("q_norm", "k_norm")):
        for form in (norms, ("frequencies", *norms)):
            function = attention(form)
            function.doc_string = ",".join(form)
            all_of_them.append(function)
    return onnx.ModelProto(functions=all_of_them).SerializeToString(deterministic=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the file that the program is built with")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")


def run(args: argparse.Namespace) -> int:
    if args.check:
        same = args.out.read_bytes() == library()
        print(f"{args.out} is {'up to date' if same else 'old: write it again'}")
        return 0 if same else 1
    args.out.write_bytes(library())
    return 0
