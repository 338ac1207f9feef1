"""The interpreter of ONNX graphs, operator by operator beside onnxruntime."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper

from voxgrain_tools.corpus import kokoro_graph, torch_graph

RNG = np.random.default_rng(0)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def tensor(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(nodes, inputs, outputs, constants=()):
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, types[str(v.dtype)], [None] * v.ndim) for n, v in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def by_onnxruntime(model, feed):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # What is compared is the graph as written.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def by_torch(graph, feed):
    return [v.cpu().numpy() for v in graph({k: torch.from_numpy(v) for k, v in feed.items()}).values()]


def integers(*values):
    return np.array(values, np.int64)


x3, x2 = tensor(2, 4, 9), tensor(3, 5)
# (operator, inputs that are fed, constants, attributes, number of outputs)
CASES = [
    *((name, {"a": x2}, {}, {}) for name in ("Sin", "Cos", "Tanh", "Exp", "Atan", "Sigmoid", "Floor", "Round")),
    *((name, {"a": x2, "b": tensor(3, 1)}, {}, {}) for name in ("Add", "Sub", "Mul", "Div")),
    *((name, {"a": x2, "b": tensor(3, 1)}, {}, {}) for name in ("Greater", "GreaterOrEqual", "Less")),
    ("Equal", {"a": integers(1, 2, 3)}, {"b": integers(1, 5, 3)}, {}),
    ("Round", {"a": np.float32([0.5, 1.5, 2.5, -0.5])}, {}, {}),
    ("Div", {"a": integers(7, -7, 9)}, {"b": integers(2, 2, 3)}, {}),
    ("Sqrt", {"a": np.abs(x2)}, {}, {}),
    ("Pow", {"a": x2}, {"b": np.float32(2)}, {}),
    ("Clip", {"a": x2}, {"low": np.float32(-0.5), "high": np.float32(0.5)}, {}),
    ("LeakyRelu", {"a": x2}, {}, {"alpha": 0.2}),
    ("Softmax", {"a": x3}, {}, {"axis": 1}),
    ("CumSum", {"a": x3}, {"axis": np.int64(2)}, {}),
    ("ReduceMean", {"a": x3}, {"axes": integers(-1)}, {}),
    ("ReduceSum", {"a": x3}, {"axes": integers(1)}, {"keepdims": 0}),
    ("ReduceSum", {"a": x3}, {}, {}),
    ("Cast", {"a": x2}, {}, {"to": TensorProto.INT64}),
    ("Shape", {"a": x3}, {}, {}),
    ("Reshape", {"a": x3}, {"shape": integers(0, -1)}, {}),
    ("Transpose", {"a": x3}, {}, {"perm": [2, 0, 1]}),
    ("Transpose", {"a": x3}, {}, {}),
    ("Unsqueeze", {"a": x2}, {"axes": integers(-1, 0)}, {}),
    ("Squeeze", {"a": tensor(1, 3, 1)}, {"axes": integers(-1)}, {}),
    ("Expand", {"a": tensor(3, 1)}, {"shape": integers(2, 1, 4)}, {}),
    ("Concat", {"a": x2, "b": tensor(3, 2)}, {}, {"axis": 1}),
    ("Slice", {"a": x3}, {"s": integers(1, 1), "e": integers(2**62, -1), "axes": integers(1, -1)}, {}),
    ("Slice", {"a": x3}, {"s": integers(-1), "e": integers(-(2**63)), "axes": integers(2), "t": integers(-2)}, {}),
    ("Slice", {"a": x3}, {"s": integers(5), "e": integers(3), "axes": integers(2)}, {}),
    ("Gather", {"a": x3, "i": integers(0, -1, 2)}, {}, {"axis": 1}),
    ("Gather", {"a": x3}, {"i": np.int64(-2)}, {"axis": 2}),
    ("ScatterND", {"a": tensor(4, 3), "i": integers([0], [2]), "u": tensor(2, 3)}, {}, {}),
    ("ConstantOfShape", {"s": integers(2, 3)}, {}, {"value": numpy_helper.from_array(np.float32([0.5]))}),
    ("Range", {"a": np.array(1)}, {"b": np.int64(9), "c": np.int64(3)}, {}),
    ("NonZero", {"a": np.float32([[0, 1], [2, 0]])}, {}, {}),
    ("Pad", {"a": x3}, {"p": integers(0, 0, 2, 0, 0, 3)}, {"mode": "reflect"}),
    ("Pad", {"a": tensor(7)}, {"p": integers(2, 1)}, {"mode": "reflect"}),
    ("Pad", {"a": x2}, {"p": integers(1, 0, 0, 2), "v": np.float32(0.25)}, {}),
    ("MatMul", {"a": x3}, {"b": tensor(9, 3)}, {}),
    ("FusedMatMul", {"a": x3, "b": tensor(2, 4, 5)}, {}, {"transA": 1, "alpha": 0.5, "domain": "com.microsoft"}),
    ("DequantizeLinear", {}, {"a": np.uint8([3, 200]), "s": np.float32(0.1), "z": np.uint8(128)}, {}),
    ("LayerNormalization", {"a": x3}, {"w": tensor(9), "b": tensor(9)}, {"epsilon": 1e-4}),
    (
        "SkipLayerNormalization",
        {"a": x3, "s": tensor(2, 4, 9)},
        {"w": tensor(9), "b": tensor(9), "c": tensor(9)},
        {"domain": "com.microsoft", "epsilon": 1e-12},
    ),
    ("FastGelu", {"a": x2}, {"b": tensor(5)}, {"domain": "com.microsoft"}),
    ("Conv", {"a": x3}, {"w": tensor(6, 2, 3), "b": tensor(6)}, {"group": 2, "pads": [2, 2], "dilations": [2]}),
    ("Conv", {"a": x3}, {"w": tensor(3, 4, 3)}, {"pads": [2, 0], "strides": [2]}),
    ("Conv", {"a": tensor(1, 2, 5, 6)}, {"w": tensor(3, 2, 3, 2)}, {"pads": [1, 0, 0, 1]}),
    (
        "ConvTranspose",
        {"a": x3},
        {"w": tensor(4, 1, 4), "b": tensor(4)},
        {"group": 4, "strides": [2], "pads": [1, 1], "output_padding": [1]},
    ),
    (
        "Resize",
        {"a": x3},
        {"r": np.float32([]), "s": np.float32([1, 1, 3])},
        {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
    ),
    ("Resize", {"a": x3}, {"r": np.float32([]), "s": np.float32([1, 1, 2.5])}, {"mode": "linear"}),
    ("STFT", {"a": tensor(1, 90)}, {"t": np.int64(5), "w": np.hanning(20).astype(np.float32), "n": np.int64(20)}, {}),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_an_operator_is_onnxruntimes(case, device):
    kind, feed, constants, attributes = case
    node = helper.make_node(kind, [*feed, *constants], ["y"], **attributes)
    model = model_of([node], feed, ["y"], constants)
    (expected,) = by_onnxruntime(model, feed)
    (got,) = by_torch(torch_graph.TorchGraph(model, device), feed)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


# These read a value of a tensor on the device, which the device "meta" has none of.
WAITING = {"Clip", "Pad", "Resize", "NonZero", "DequantizeLinear"}


@pytest.mark.parametrize("case", [c for c in CASES if c[0] not in WAITING], ids=lambda c: c[0])
def test_no_operator_mixes_places_or_waits_for_the_device(case):
    kind, feed, constants, attributes = case
    node = helper.make_node(kind, [*feed, *constants], ["y"], **attributes)
    model = model_of([node], feed, ["y"], constants)
    got = torch_graph.TorchGraph(model, "meta")({k: torch.from_numpy(v) for k, v in feed.items()})["y"]
    whole = kind in ("Shape", "Range") or all(v.dtype == np.int64 for v in feed.values())
    assert got.device.type == ("cpu" if whole and kind != "ConstantOfShape" else "meta")
    assert got.shape == by_onnxruntime(model, feed)[0].shape


@pytest.mark.parametrize("device", DEVICES)
def test_operators_of_several_inputs_and_outputs(device):
    feed = {"a": x3, "b": tensor(2, 4, 9)}
    nodes = [
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5))),
        helper.make_node("Greater", ["a", "half"], ["big"]),
        helper.make_node("Less", ["b", "half"], ["small"]),
        helper.make_node("And", ["big", "small"], ["both"]),
        helper.make_node("Where", ["both", "a", "b"], ["chosen"]),
        helper.make_node("Identity", ["chosen"], ["same"]),
        helper.make_node("Split", ["same", "sizes"], ["left", "right"], axis=2),
        helper.make_node("ReduceMean", ["left"], ["y"], keepdims=1),
        helper.make_node("Shape", ["right"], ["shape"]),
        helper.make_node("Expand", ["y", "shape"], ["z"]),
    ]
    model = model_of(nodes, feed, ["right", "z"], {"sizes": integers(4, 5)})
    for got, expected in zip(by_torch(torch_graph.TorchGraph(model, device), feed), by_onnxruntime(model, feed)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def lstm(directions, size, inputs):
    constants = {
        "w": tensor(directions, 4 * size, inputs) * 0.4,
        "r": tensor(directions, 4 * size, size) * 0.4,
        "b": tensor(directions, 8 * size) * 0.1,
    }
    direction = "bidirectional" if directions == 2 else "forward"
    return helper.make_node("LSTM", ["a", "w", "r", "b"], ["y"], hidden_size=size, direction=direction), constants


@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_is_onnxruntimes(directions):
    node, constants = lstm(directions, 5, 4)
    feed = {"a": tensor(7, 2, 4)}
    model = model_of([node], feed, ["y"], constants)
    graph = torch_graph.TorchGraph(model)
    for _ in range(2):
        np.testing.assert_allclose(by_torch(graph, feed)[0], by_onnxruntime(model, feed)[0], rtol=1e-4, atol=1e-5)


def test_unknown_operators_are_refused():
    model = model_of([helper.make_node("Erf", ["a"], ["y"])], {"a": x2}, ["y"])
    with pytest.raises(ValueError, match="Erf, which this interpreter has not"):
        torch_graph.TorchGraph(model)


def test_a_quantised_graph_in_float(tmp_path):
    """Convolution, product and LSTM by onnxruntime's dynamic quantiser, back in float: nearer the original."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    node, constants = lstm(2, 6, 8)
    nodes = [
        helper.make_node("Conv", ["x", "cw", "cb"], ["c"], pads=[1, 1]),
        helper.make_node("Tanh", ["c"], ["t"]),
        helper.make_node("Transpose", ["t"], ["p"], perm=[2, 0, 1]),
        helper.make_node("MatMul", ["p", "m"], ["a"]),
        node,
    ]
    constants |= {"cw": tensor(6, 4, 3), "cb": tensor(6), "m": tensor(6, 8)}
    feed = {"x": tensor(1, 4, 50)}
    model = model_of(nodes, feed, ["y"], constants)
    onnx.save(model, tmp_path / "float.onnx")
    quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", ["Conv", "MatMul", "LSTM"], weight_type=QuantType.QUInt8
    )
    int8 = onnx.load(tmp_path / "int8.onnx")
    kinds = {n.op_type for n in int8.graph.node}
    assert {"ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM"} <= kinds
    made = torch_graph.in_float(int8)
    assert not {n.op_type for n in made.graph.node} & {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
    (original,), (rounded,) = by_onnxruntime(model, feed), by_onnxruntime(int8, feed)
    (got,) = by_torch(torch_graph.TorchGraph(made), feed)
    np.testing.assert_allclose(got, by_onnxruntime(made, feed)[0], rtol=1e-4, atol=1e-5)
    far = [np.sqrt(np.square(x - original).mean()) for x in (rounded, got)]
    assert 0 < far[1] < far[0] < 0.05, far


def test_a_bias_in_whole_numbers_keeps_its_fraction():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Div", ["b", "scale"], ["whole"]),
        helper.make_node("Floor", ["whole"], ["down"], name="floor_of_bias"),
        helper.make_node("Cast", ["down"], ["i"], to=TensorProto.INT32),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["p"]),
        helper.make_node("Add", ["p", "i"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["y"]),
    ]
    weight, bias = RNG.integers(0, 255, (5, 3)).astype(np.uint8), tensor(3)
    constants = {"ws": np.float32(0.02), "b": bias, "w": weight, "wz": np.uint8(120)}
    feed = {"x": x2}
    model = model_of(nodes, feed, ["y"], constants)
    expected = x2 @ ((weight.astype(np.float32) - 120) * 0.02) + bias
    (got,) = by_torch(torch_graph.TorchGraph(torch_graph.in_float(model)), feed)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(by_onnxruntime(model, feed)[0], expected, atol=0.2)


def test_empty_bins_are_filled_as_onnxruntime_leaves_them():
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(20) / 20)).astype(np.float32)
    sound = np.concatenate([np.full(60, -0.1), 0.3 * np.sin(np.arange(60) * 0.7)]).astype(np.float32)[None]
    feed = {"a": sound}
    node = helper.make_node("STFT", ["a", "t", "w", "n"], ["y"])
    model = model_of([node], feed, ["y"], {"t": np.int64(5), "w": window, "n": np.int64(20)})
    (expected,) = by_onnxruntime(model, feed)
    (exact,) = by_torch(torch_graph.TorchGraph(model), feed)
    (got,) = by_torch(kokoro_graph.KokoroGraph(model.SerializeToString()), feed)
    np.testing.assert_allclose(exact, expected, atol=2e-5)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    silent = got[0, :5, 2:]
    assert np.hypot(silent[..., 0], silent[..., 1]) == pytest.approx(
        np.tile(np.float32(kokoro_graph.SIZES[2:]), (5, 1)), rel=1e-3
    )
    assert np.arctan2(got[0, :5, 0, 1], got[0, :5, 0, 0]) == pytest.approx(np.pi, abs=1e-5), "pi, not -pi"
    assert np.array_equal(got[0, 16:, 1:], exact[0, 16:, 1:]), "bins that sound stay"
