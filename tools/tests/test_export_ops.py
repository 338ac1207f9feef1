"""Every operator's function body, run by onnxruntime, against plain numpy."""

import math

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from voxgrain_tools.export import quantize
from voxgrain_tools.export.onnx_functions import (
    ALL,
    ATTENTION_OPTIONS,
    DOMAIN,
    IR_VERSION,
    OPSET,
    attention_form,
    functions_of,
)

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
TYPES |= {"int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


def run(op, inputs, outputs=1, **attributes):
    """`inputs` in order; None is an absent optional input."""
    named = {f"i{n}": v for n, v in enumerate(inputs) if v is not None}
    names = [f"i{n}" if v is not None else "" for n, v in enumerate(inputs)]
    results = [f"o{n}" for n in range(outputs)]
    node = helper.make_node(op, names, results, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(k, TYPES[v.dtype.name], [None] * v.ndim) for k, v in named.items()],
        [helper.make_tensor_value_info(r, TensorProto.FLOAT, None) for r in results],
    )
    model = helper.make_model(
        graph,
        functions=functions_of([node]),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, named)


def close(got, expected, tolerance=2e-6):
    expected = np.asarray(expected, dtype=np.float64)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * max(1, np.abs(expected).max())


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def factor_rows(token):
    d = [token // 4**i % 4 for i in range(8)]
    rows, pair = [4 * i + d[i] for i in range(8)], 0
    for a in range(8):
        for b in range(a + 1, 8):
            rows.append(32 + 16 * pair + 4 * d[a] + d[b])
            pair += 1
    return rows


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_there_is_a_case_for_every_operator():
    covered = {name.removeprefix("test_op_").replace("_", "") for name in globals()}
    assert {name.lower() for name in ALL} <= covered


def test_op_embed(rng):
    table = normal(rng, 9, 6).astype(np.float16)
    tokens = np.array([8, 0, 3, 3])
    got = run("Embed", [tokens, table])
    assert got[0].dtype == np.float32 and (got[0] == table[tokens]).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_op_q_embed(rng, bits):
    matrix = quantize.quantise(normal(rng, 9, 64), bits)
    values, scales = quantize.pack_table(matrix)
    back = quantize.unpack_table(values, scales, bits)
    assert (back.values == matrix.values).all() and (back.scales == matrix.scales).all()
    if bits == 4:
        assert values[2, 1, 3] == (matrix.values[2, 35] + 8) | (matrix.values[2, 51] + 8) << 4
    tokens = np.array([8, 0, 3, 3])
    got = run("QEmbed", [tokens, values, scales], K=64, bits=bits)
    assert got[0].dtype == np.float32 and (got[0] == matrix.dequantise()[tokens]).all()


def test_op_factor_embed(rng):
    factors = normal(rng, 480, 6).astype(np.float16)
    extra = normal(rng, 36, 6).astype(np.float16)
    tokens = np.array([0, 65535, 65536, 65571, 1, 4, 27 * 256 + 3, 40000])
    expected = [factors[factor_rows(t)].astype(np.float64).sum(0) if t < 65536 else extra[t - 65536] for t in tokens]
    close(run("FactorEmbed", [tokens, factors, extra], digits=8, levels=4)[0], expected)


def test_op_rms_norm(rng):
    x, weight = normal(rng, 3, 32), normal(rng, 32)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5) * weight
    close(run("RmsNorm", [x, weight], epsilon=1e-5)[0], expected)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [16, 21])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_op_q_mat_mul(rng, bits, rows, with_bias, with_residual):
    matrix = quantize.quantise(normal(rng, rows, 96), bits)
    packed, scales = quantize.pack(matrix)
    x = normal(rng, 5, 96)
    bias = normal(rng, rows) if with_bias else None
    residual = normal(rng, 5, rows) if with_residual else None
    inputs = [x, packed, scales, bias, residual]
    while inputs[-1] is None:
        inputs.pop()
    expected = x.astype(np.float64) @ matrix.dequantise().T
    expected = expected + (0 if bias is None else bias) + (0 if residual is None else residual)
    close(run("QMatMul", inputs, N=rows, K=96, bits=bits)[0], expected)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("past", [0, 7])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("form", [(), ("frequencies",), ("q_norm", "k_norm"), ("k_norm",), ATTENTION_OPTIONS])
def test_op_attention(rng, kv_heads, past, steps, form):
    heads, size, base, epsilon = 4, 8, 10000.0, 0.1
    options = {"frequencies": np.abs(normal(rng, size // 2)), "q_norm": normal(rng, size), "k_norm": normal(rng, size)}
    options = {name: value for name, value in options.items() if name in form}
    table = options.get("frequencies", base ** (-2 * np.arange(size // 2) / size))
    qkv = normal(rng, steps, (heads + 2 * kv_heads) * size)
    past_key, past_value = normal(rng, kv_heads, past, size), normal(rng, kv_heads, past, size)

    def rope(vector, position):
        out = np.zeros(size)
        for d in range(size // 2):
            angle = position * table[d]
            a, b = vector[d], vector[d + size // 2]
            out[d] = a * math.cos(angle) - b * math.sin(angle)
            out[d + size // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def norm(vectors, weight):
        root = np.sqrt((vectors**2).mean(-1, keepdims=True) + epsilon)
        return vectors / root * options[weight] if weight in form else vectors

    rows = qkv.astype(np.float64).reshape(steps, -1, size)
    rows[:, :heads] = norm(rows[:, :heads], "q_norm")
    rows[:, heads : heads + kv_heads] = norm(rows[:, heads : heads + kv_heads], "k_norm")
    key = np.zeros((kv_heads, past + steps, size))
    value = np.zeros_like(key)
    key[:, :past], value[:, :past] = past_key, past_value
    for s in range(steps):
        for h in range(kv_heads):
            key[h, past + s] = rope(rows[s, heads + h], past + s)
            value[h, past + s] = rows[s, heads + kv_heads + h]
    out = np.zeros((steps, heads, size))
    for s in range(steps):
        for h in range(heads):
            shared = h // (heads // kv_heads)
            seen = past + s + 1
            score = key[shared, :seen] @ rope(rows[s, h], past + s) / math.sqrt(size)
            weight = np.exp(score - score.max())
            out[s, h] = weight / weight.sum() @ value[shared, :seen]
    last = max((ATTENTION_OPTIONS.index(o) for o in form), default=-1)
    got = run(
        "Attention",
        [qkv, past_key, past_value, *(options.get(o) for o in ATTENTION_OPTIONS[: 1 + last])],
        outputs=3,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        **({} if "frequencies" in form else {"rope_base": base}),
        **({"epsilon": epsilon} if "k_norm" in form else {}),
    )
    close(got[0], out.reshape(steps, -1))
    close(got[1], key)
    close(got[2], value)


def test_layers_of_one_file_have_attention_of_one_form():
    def node(*options):
        return helper.make_node("Attention", ["qkv", "k", "v", *options], ["y"], domain=DOMAIN)

    assert attention_form(node()) == () and attention_form(node("", "q")) == ("q_norm",)
    assert len(functions_of([node("f"), node("g")])) == 1
    with pytest.raises(ValueError, match="differ"):
        functions_of([node("f"), node()])


def test_op_swi_glu(rng):
    x = normal(rng, 3, 20)
    gate, up = np.split(x.astype(np.float64), 2, axis=1)
    close(run("SwiGlu", [x])[0], gate / (1 + np.exp(-gate)) * up)


@pytest.mark.parametrize("extra", [1, 3])
def test_op_factor_logits(rng, extra):
    scores = normal(rng, 2, 480 + extra)
    rows = np.array([factor_rows(t) for t in range(65536)])
    speech = scores.astype(np.float64)[:, rows].sum(2)
    expected = np.concatenate([speech, scores[:, 480:]], axis=1)
    close(run("FactorLogits", [scores], digits=8, levels=4)[0], expected)


def test_op_fsq_embed(rng):
    weight, bias = normal(rng, 6, 8), normal(rng, 6)
    tokens = np.array([0, 65535, 1, 4 * 3 + 2, 51234])
    digits = np.array([[t // 4**i % 4 for i in range(8)] for t in tokens])
    close(run("FsqEmbed", [tokens, weight, bias])[0], (digits - 1.5) / 1.5 @ weight.T + bias)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_op_causal_conv(rng, steps):
    x, weight, bias = normal(rng, steps, 4), normal(rng, 7, 4), normal(rng, 4)
    expected = np.zeros((steps, 4)) + bias
    for t in range(steps):
        for j in range(7):
            if t - 6 + j >= 0:
                expected[t] += weight[j] * x[t - 6 + j]
    close(run("CausalConv", [x, weight, bias])[0], expected)


def test_op_layer_norm(rng):
    x, weight, bias = normal(rng, 3, 32) + 2, normal(rng, 32), normal(rng, 32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * weight + bias
    close(run("LayerNorm", [x, weight, bias], epsilon=1e-6)[0], expected, 1e-5)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_op_gelu(rng, approximate):
    x = normal(rng, 3, 20) * 2
    if approximate == "none":
        expected = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    else:
        expected = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    close(run("Gelu", [x], approximate=approximate)[0], expected)


def test_op_upsample(rng):
    x = normal(rng, 3, 8)
    got = run("Upsample", [x], factor=2)[0]
    assert (got == np.concatenate([[row[:4], row[4:]] for row in x])).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("taps", [1, 3, 7])
@pytest.mark.parametrize("steps", [1, 5])
def test_op_conv(rng, bits, taps, steps):
    channels, rows = 32, 20
    weight = normal(rng, rows, channels, taps)
    # Column by column of the packed matrix: the channels of one tap behind those of another.
    matrix = quantize.quantise(weight.transpose(0, 2, 1).reshape(rows, -1), bits)
    packed, scales = quantize.pack(matrix)
    x, bias, residual = normal(rng, steps, channels), normal(rng, rows), normal(rng, steps, rows)
    stored = matrix.dequantise().reshape(rows, taps, channels)
    padding = taps // 2
    expected = (bias + residual).astype(np.float64)
    for t in range(steps):
        for j in range(taps):
            if 0 <= t + j - padding < steps:
                expected[t] += stored[:, j] @ x[t + j - padding].astype(np.float64)
    shape = {"N": rows, "K": taps * channels, "bits": bits, "kernel": taps, "padding": padding}
    close(run("Conv", [x, packed, scales, bias, residual], **shape)[0], expected)
    close(run("Conv", [x, packed, scales], **shape)[0], expected - bias - residual, 1e-5)


def test_op_group_norm(rng):
    x, weight, bias = normal(rng, 7, 24) + 2, normal(rng, 24), normal(rng, 24)
    wide = x.astype(np.float64).reshape(7, 4, 6)
    centred = wide - wide.mean((0, 2), keepdims=True)
    normed = centred / np.sqrt((centred**2).mean((0, 2), keepdims=True) + 1e-6)
    close(run("GroupNorm", [x, weight, bias], groups=4, epsilon=1e-6)[0], normed.reshape(7, 24) * weight + bias, 1e-5)


def test_op_self_attention(rng):
    heads, size, steps = 3, 8, 6
    qkv = normal(rng, steps, 3 * heads * size)
    q, k, v = qkv.astype(np.float64).reshape(steps, 3, heads, size).transpose(1, 2, 0, 3)
    scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(size))
    expected = scores / scores.sum(-1, keepdims=True) @ v
    got = run("SelfAttention", [qkv], heads=heads, head_dim=size)[0]
    close(got, expected.transpose(1, 0, 2).reshape(steps, -1))


def test_op_silu(rng):
    x = normal(rng, 3, 20)
    close(run("Silu", [x])[0], x / (1 + np.exp(-x.astype(np.float64))))
