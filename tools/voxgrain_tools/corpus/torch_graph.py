"""An ONNX graph run by torch, on any device: the operators that the teacher Kokoro has, and its int8 graph in float.

onnxruntime's own CUDA package would do as well where it can be had; this needs nothing but torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

Value = torch.Tensor | None
Attributes = dict[str, Any]
INTEGERS = (torch.int64, torch.int32, torch.bool)
TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float32,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
}


def in_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """A dynamically quantised graph with the same weights and products in float: activations are not rounded.

    Weights become whole numbers less their zero point, as the graph multiplies by their scales itself; the scale of an
    activation is 1. A bias that the graph divides by the product of both scales, rounds down and casts keeps its
    fraction, which would weigh much at such a scale."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    graph = made.graph
    constants = {t.name: t for t in graph.initializer}
    added: dict[str, onnx.TensorProto] = {}

    def array(name: str) -> np.ndarray:
        return numpy_helper.to_array(constants[name])

    def constant(name: str, value: np.ndarray) -> str:
        added.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    one = constant("in_float_one", np.array(1, np.float32))
    floats: dict[str, str] = {}  # Quantised activation: what it was quantised from.
    unrounded: set[str] = set()
    nodes = []

    def replace(node: onnx.NodeProto, kind: str, inputs: Sequence[str], outputs: Sequence[str] | None = None) -> None:
        new = helper.make_node(kind, list(inputs), list(node.output if outputs is None else outputs), node.name)
        new.attribute.extend(node.attribute)
        nodes.append(new)

    def product(node: onnx.NodeProto, kind: str) -> None:
        a, b = node.input[:2]
        if b not in constants:
            replace(node, kind, [floats[a], floats[b]])
            return
        weight = array(b).astype(np.float32)
        zero = np.float32(0)
        if len(node.input) > 3 and node.input[3]:
            zero = array(node.input[3]).astype(np.float32)
            if zero.ndim == 1 and zero.size > 1 and kind == "Conv":
                zero = zero.reshape(-1, *[1] * (weight.ndim - 1))
        replace(node, kind, [floats[a], constant(b + "_float", weight - zero)])

    def lstm(node: onnx.NodeProto) -> None:
        inputs = list(node.input)
        scaled = []
        for name, scale_name, zero_name in ((inputs[1], inputs[8], inputs[9]), (inputs[2], inputs[10], inputs[11])):
            weight, scale, zero = (array(n).astype(np.float32) for n in (name, scale_name, zero_name))
            # One a direction, or one a direction and column; the matrices lie the other way round than LSTM's.
            scale, zero = (v.reshape(len(weight), 1, -1) if v.size > 1 else v for v in (scale, zero))
            scaled.append(constant(name + "_float", ((weight - zero) * scale).transpose(0, 2, 1)))
        rest = inputs[3:8]
        while rest and not rest[-1]:
            rest.pop()
        replace(node, "LSTM", [inputs[0], *scaled, *rest])

    for node in graph.node:
        match node.op_type:
            case "DynamicQuantizeLinear":
                floats[node.output[0]] = node.input[0]
                nodes.append(helper.make_node("Identity", [one], [node.output[1]], node.name + "_scale"))
            case "MatMulInteger":
                product(node, "MatMul")
            case "ConvInteger":
                product(node, "Conv")
            case "DynamicQuantizeLSTM":
                lstm(node)
            case "Floor" if "bias" in node.name:
                unrounded.update(node.output)
                nodes.append(helper.make_node("Identity", list(node.input), list(node.output), node.name))
            case "Cast" if node.input[0] in unrounded:
                nodes.append(helper.make_node("Identity", list(node.input), list(node.output), node.name))
            case _:
                nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    used = {name for node in nodes for name in node.input}
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *added.values()])
    return made


def _spread(pads: Sequence[int]) -> list[int]:
    """ONNX's pads (all begins, then all ends) as torch's: pairs, the last axis first."""
    half = len(pads) // 2
    return [p for axis in reversed(range(half)) for p in (int(pads[axis]), int(pads[axis + half]))]


class TorchGraph:
    """`graph({"x": tensor, ...})` gives {output: tensor}.

    Whole numbers steer shapes and stay on the CPU, so that no operator waits for the device to know one; all else is
    float32 on the device. Values are dropped after their last use. A subclass may do an operator NAME otherwise, by its
    own `op_NAME`."""

    def __init__(self, model: onnx.ModelProto, device: torch.device | str = "cpu") -> None:
        graph = model.graph
        self.device = torch.device(device)
        self.outputs = [o.name for o in graph.output]
        self._constants: dict[str, torch.Tensor] = {t.name: self._constant(t) for t in graph.initializer}
        self._lstms: dict[int, torch.nn.LSTM] = {}
        self._steps: list[tuple[Callable[..., Any], Attributes, list[str], list[str]]] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._constants[node.output[0]] = self._constant(attributes["value"])
                continue
            operator = getattr(self, "op_" + node.op_type, None)
            if operator is None:
                raise ValueError(f"the graph has the operator {node.op_type}, which this interpreter has not")
            self._steps.append((operator, attributes, list(node.input), list(node.output)))
        last = {name: i for i, (_, _, inputs, _) in enumerate(self._steps) for name in inputs}
        self._gone: list[list[str]] = [[] for _ in self._steps]
        for name, i in last.items():
            if name and name not in self.outputs:
                self._gone[i].append(name)

    def _constant(self, tensor: onnx.TensorProto) -> torch.Tensor:
        value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        return value if value.dtype in INTEGERS or value.numel() == 0 else value.to(self.device)

    @torch.inference_mode()
    def __call__(self, feed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values: dict[str, Value] = {"": None}
        for name, value in feed.items():
            values[name] = value if value.dtype in INTEGERS else value.to(self.device)
        for (operator, attributes, inputs, outputs), gone in zip(self._steps, self._gone, strict=True):
            made = operator(attributes, *(values[n] if n in values else self._constants[n] for n in inputs))
            values.update(zip(outputs, made if isinstance(made, tuple) else (made,), strict=False))
            for name in gone:
                values.pop(name, None)
        return {name: values[name] for name in self.outputs}

    def _together(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Operands in one place: on the device as soon as one of them is."""
        if len({v.device for v in values}) > 1:
            return tuple(v.to(self.device) for v in values)
        return values

    # Arithmetic

    def op_Identity(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a

    def op_Add(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a + b

    def op_Sub(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a - b

    def op_Mul(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a * b

    def op_Div(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return torch.div(a, b, rounding_mode="trunc") if a.dtype in INTEGERS else a / b

    def op_Pow(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a**b

    def op_Sqrt(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.sqrt()

    def op_Exp(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.exp()

    def op_Sin(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.sin()

    def op_Cos(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.cos()

    def op_Atan(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.atan()

    def op_Tanh(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.tanh()

    def op_Sigmoid(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.sigmoid()

    def op_Floor(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.floor()

    def op_Round(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.round()

    def op_Clip(self, at: Attributes, a: torch.Tensor, low: Value = None, high: Value = None) -> torch.Tensor:
        return a.clamp(None if low is None else float(low), None if high is None else float(high))

    def op_LeakyRelu(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(a, at.get("alpha", 0.01))

    def op_FastGelu(self, at: Attributes, a: torch.Tensor, bias: Value = None) -> torch.Tensor:
        return F.gelu(a if bias is None else a + bias, approximate="tanh")

    def op_Softmax(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.softmax(at.get("axis", -1))

    def op_CumSum(self, at: Attributes, a: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
        # In double: a float sum over a long axis lets phases wander.
        return a.double().cumsum(int(axis)).to(a.dtype) if a.is_floating_point() else a.cumsum(int(axis))

    def op_ReduceMean(self, at: Attributes, a: torch.Tensor, axes: Value = None) -> torch.Tensor:
        over = at.get("axes") if axes is None else axes.tolist()
        return a.mean(over, keepdim=bool(at.get("keepdims", 1)))

    def op_ReduceSum(self, at: Attributes, a: torch.Tensor, axes: Value = None) -> torch.Tensor:
        over = at.get("axes") if axes is None else axes.tolist()
        return a.sum(over, keepdim=bool(at.get("keepdims", 1)))

    # Comparisons

    def op_Equal(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a == b

    def op_Greater(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a > b

    def op_GreaterOrEqual(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a >= b

    def op_Less(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a < b

    def op_And(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a & b

    def op_Where(self, at: Attributes, c: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where(*self._together(c, a, b))

    def op_NonZero(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.nonzero().T

    # Shapes and places

    def op_Cast(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        kind = TYPES[at["to"]]
        # A single number may still be part of a shape's arithmetic.
        return (a.to(self.device) if kind == torch.float32 and a.numel() > 1 else a).to(kind)

    def op_Shape(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return torch.tensor(a.shape, dtype=torch.int64)

    def op_Reshape(self, at: Attributes, a: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        sizes = shape.tolist()
        if not at.get("allowzero"):
            sizes = [a.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return a.reshape(sizes)

    def op_Transpose(self, at: Attributes, a: torch.Tensor) -> torch.Tensor:
        return a.permute(at.get("perm", tuple(reversed(range(a.ndim)))))

    def op_Unsqueeze(self, at: Attributes, a: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
        rank = a.ndim + axes.numel()
        for axis in sorted(x % rank for x in axes.reshape(-1).tolist()):
            a = a.unsqueeze(axis)
        return a

    def op_Squeeze(self, at: Attributes, a: torch.Tensor, axes: Value = None) -> torch.Tensor:
        if axes is None:
            return a.squeeze()
        return a.squeeze(tuple(axes.reshape(-1).tolist()))

    def op_Expand(self, at: Attributes, a: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        return a.expand(torch.broadcast_shapes(a.shape, tuple(shape.tolist())))

    def op_Concat(self, at: Attributes, *values: torch.Tensor) -> torch.Tensor:
        return torch.cat(self._together(*values), at["axis"])

    def op_Split(self, at: Attributes, a: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return a.split(sizes.tolist(), at.get("axis", 0))

    def op_Slice(
        self,
        at: Attributes,
        a: torch.Tensor,
        starts: torch.Tensor,
        ends: torch.Tensor,
        axes: Value = None,
        steps: Value = None,
    ) -> torch.Tensor:
        begin, end = starts.tolist(), ends.tolist()
        over = range(len(begin)) if axes is None else axes.tolist()
        by = [1] * len(begin) if steps is None else steps.tolist()
        for first, stop, axis, step in zip(begin, end, over, by, strict=True):
            size = a.shape[axis]
            # What ONNX writes for "to the very begin" when it goes backwards is beyond any begin.
            places = range(size)[slice(first, None if step < 0 and stop < -size else stop, step)]
            if step == 1:
                a = a.narrow(axis, places.start if len(places) else 0, len(places))
            else:
                a = a.index_select(axis, torch.tensor(places, dtype=torch.int64, device=a.device))
        return a

    def op_Gather(self, at: Attributes, a: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        axis = at.get("axis", 0) % a.ndim
        if indices.ndim == 0 and indices.device.type == "cpu":
            return a.select(axis, int(indices))
        indices = indices.to(a.device, torch.int64)
        indices = torch.where(indices < 0, indices + a.shape[axis], indices)
        picked = a.index_select(axis, indices.reshape(-1))
        return picked.reshape(a.shape[:axis] + indices.shape + a.shape[axis + 1 :])

    def op_ScatterND(
        self, at: Attributes, data: torch.Tensor, where: torch.Tensor, updates: torch.Tensor
    ) -> torch.Tensor:
        data, where, updates = data.clone(), where.to(data.device), updates.to(data.device)
        data[tuple(where.unbind(-1))] = updates
        return data

    def op_ConstantOfShape(self, at: Attributes, shape: torch.Tensor) -> torch.Tensor:
        value = numpy_helper.to_array(at["value"]) if "value" in at else np.zeros(1, np.float32)
        made = torch.from_numpy(np.array(value)).reshape(()).expand(shape.tolist()).clone()
        return made if made.dtype in INTEGERS else made.to(self.device)

    def op_Range(self, at: Attributes, start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)

    def op_Pad(
        self, at: Attributes, a: torch.Tensor, pads: torch.Tensor, value: Value = None, axes: Value = None
    ) -> torch.Tensor:
        if axes is not None:
            raise ValueError("Pad of chosen axes is not among what this interpreter does")
        spread, mode = _spread(pads.tolist()), at.get("mode", b"constant").decode()
        if mode == "constant":
            return F.pad(a, spread, value=0.0 if value is None else float(value))
        while len(spread) > 2 and spread[-2:] == [0, 0]:  # torch reflects the last axes alone.
            spread = spread[:-2]
        return F.pad(a[None], spread, mode=mode)[0] if a.ndim == 1 else F.pad(a, spread, mode=mode)

    def op_Resize(
        self, at: Attributes, a: torch.Tensor, roi: Value, scales: torch.Tensor, sizes: Value = None
    ) -> torch.Tensor:
        *others, scale = scales.tolist()
        mode, nearest = at.get("mode", b"nearest"), scale == int(scale)
        if any(s != 1 for s in others) or mode not in (b"nearest", b"linear") or (mode == b"nearest" and not nearest):
            raise ValueError(
                f"Resize by {scales.tolist()} ({mode.decode()}): this interpreter resizes the last axis alone"
            )
        if mode == b"nearest":
            return a.repeat_interleave(int(scale), -1)
        return F.interpolate(a, scale_factor=scale, mode="linear", align_corners=False, recompute_scale_factor=False)

    # Layers

    def op_MatMul(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        return a @ b

    def op_FusedMatMul(self, at: Attributes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self._together(a, b)
        a = a.transpose(-1, -2) if at.get("transA") else a
        b = b.transpose(-1, -2) if at.get("transB") else b
        return at.get("alpha", 1.0) * (a @ b)

    def op_DequantizeLinear(
        self, at: Attributes, a: torch.Tensor, scale: torch.Tensor, zero: Value = None
    ) -> torch.Tensor:
        if scale.numel() != 1:
            raise ValueError("DequantizeLinear by axes is not among what this interpreter does")
        return (a.float() - (0.0 if zero is None else zero.float())).to(scale.device) * scale

    def op_LayerNormalization(
        self, at: Attributes, a: torch.Tensor, weight: torch.Tensor, bias: Value = None
    ) -> torch.Tensor:
        return F.layer_norm(a, weight.shape, weight, bias, at.get("epsilon", 1e-5))

    def op_SkipLayerNormalization(
        self,
        at: Attributes,
        a: torch.Tensor,
        skip: torch.Tensor,
        weight: torch.Tensor,
        beta: Value = None,
        bias: Value = None,
    ) -> torch.Tensor:
        total = a + skip if bias is None else a + skip + bias
        return F.layer_norm(total, weight.shape, weight, beta, at.get("epsilon", 1e-12))

    def op_Conv(self, at: Attributes, a: torch.Tensor, weight: torch.Tensor, bias: Value = None) -> torch.Tensor:
        axes = weight.ndim - 2
        a = F.pad(a, _spread(at.get("pads", [0] * 2 * axes)))
        convolve = {1: F.conv1d, 2: F.conv2d}[axes]
        strides, dilations = at.get("strides", [1] * axes), at.get("dilations", [1] * axes)
        return convolve(a, weight, bias, strides, 0, dilations, at.get("group", 1))

    def op_ConvTranspose(
        self, at: Attributes, a: torch.Tensor, weight: torch.Tensor, bias: Value = None
    ) -> torch.Tensor:
        pads = at.get("pads", [0, 0])
        if weight.ndim != 3 or pads[0] != pads[1]:
            raise ValueError(
                "ConvTranspose with uneven pads, or not of one axis, is not among what this interpreter does"
            )
        stride, dilation = at.get("strides", [1]), at.get("dilations", [1])
        more = at.get("output_padding", [0])
        return F.conv_transpose1d(a, weight, bias, stride, pads[0], more, at.get("group", 1), dilation)

    def op_STFT(
        self, at: Attributes, a: torch.Tensor, step: torch.Tensor, window: torch.Tensor, length: Value = None
    ) -> torch.Tensor:
        """[batch, frames, bins, 2] of one side."""
        a = a[..., 0] if a.ndim == 3 else a
        size = window.numel() if length is None else int(length)
        spectrum = torch.stft(a, size, int(step), window=window.to(a), center=False, onesided=True, return_complex=True)
        return torch.view_as_real(spectrum.transpose(1, 2))

    def op_LSTM(
        self,
        at: Attributes,
        x: torch.Tensor,
        weight: torch.Tensor,
        recurrent: torch.Tensor,
        bias: torch.Tensor,
        lengths: Value = None,
        hidden: Value = None,
        cell: Value = None,
    ) -> torch.Tensor:
        """Y alone, [time, directions, batch, hidden]; every sequence has the whole length and begins at zero."""
        net = self._lstms.get(id(weight))
        if net is None:
            net = self._lstms[id(weight)] = self._lstm(weight, recurrent, bias)
        made, _ = net(x)
        steps, batch, _ = made.shape
        return made.reshape(steps, batch, len(weight), -1).transpose(1, 2)

    def _lstm(self, weight: torch.Tensor, recurrent: torch.Tensor, bias: torch.Tensor) -> torch.nn.LSTM:
        directions, rows, inputs = weight.shape
        size = rows // 4
        gates = [0, 2, 3, 1]  # ONNX has input, output, forget, cell; torch input, forget, cell, output.

        def ordered(matrix: torch.Tensor) -> torch.Tensor:
            return matrix.reshape(4, size, *matrix.shape[1:])[gates].reshape(matrix.shape)

        net = torch.nn.LSTM(inputs, size, bidirectional=directions == 2).to(self.device).eval()
        for d in range(directions):
            end = "_l0_reverse" if d else "_l0"
            for name, value in (
                ("weight_ih", weight[d]),
                ("weight_hh", recurrent[d]),
                ("bias_ih", bias[d, :rows]),
                ("bias_hh", bias[d, rows:]),
            ):
                getattr(net, name + end).data.copy_(ordered(value))
        net.flatten_parameters()
        return net
