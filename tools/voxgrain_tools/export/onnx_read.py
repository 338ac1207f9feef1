"""Models read back from exported files, with NumPy alone: training machines need no onnx package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .quantize import Quantised, unpack, unpack_rows

TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2"}
FACTORS = 480
MATMULS = ("QMatMul", "MatMulNBits")
LAYER_SCALE = 0.2


def fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a protobuf message: ints of varints, bytes of everything else."""
    data, at = memoryview(data), 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError(f"protobuf wire type {kind}")
            size = varint()
        if at + size > len(data):
            raise ValueError("protobuf field beyond the end")
        yield key >> 3, data[at : at + size]
        at += size


def _integers(value) -> list[int]:
    """A repeated integer field's part: one varint, or a packed run of them."""
    if isinstance(value, int):
        return [value]
    out, number, shift = [], 0, 0
    for byte in value:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            out.append(number)
            number = shift = 0
    return out


def _text(value) -> str:
    return bytes(value).decode()


class OnnxFile:
    """Nodes by name, as {op, inputs, outputs, attributes}, and external tensors as arrays."""

    def __init__(self, path: Path) -> None:
        path = Path(path)
        graph = next(v for n, v in fields(path.read_bytes()) if n == 7)
        self.nodes: dict[str, dict] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.inputs: list[str] = []
        maps: dict[str, np.ndarray] = {}
        for number, value in fields(graph):
            if number == 1:
                node = self._node(value)
                self.nodes[node["name"]] = node
            elif number == 11:
                self.inputs.append(_text(next(v for n, v in fields(value) if n == 1)))
            elif number == 5:
                dims, kind, name, place = [], 0, "", {}
                for n, v in fields(value):
                    if n == 1:
                        dims += _integers(v)
                    elif n == 2:
                        kind = v
                    elif n == 8:
                        name = _text(v)
                    elif n == 13:
                        pair = {i: _text(s) for i, s in fields(v)}
                        place[pair[1]] = pair[2]
                file = place["location"]
                if file not in maps:
                    maps[file] = np.memmap(path.parent / file, np.uint8, "r")
                start = int(place.get("offset", 0))
                raw = maps[file][start : start + int(place["length"])]
                self.tensors[name] = raw.view(TYPES[kind]).reshape(dims)

    @staticmethod
    def _node(data) -> dict:
        node = {"name": "", "op": "", "inputs": [], "outputs": [], "attributes": {}}
        for n, v in fields(data):
            if n in (1, 2):
                node["inputs" if n == 1 else "outputs"].append(_text(v))
            elif n in (3, 4):
                node["name" if n == 3 else "op"] = _text(v)
            elif n == 5:
                name, value = "", None
                for i, a in fields(v):
                    if i == 1:
                        name = _text(a)
                    elif i == 2:
                        value = struct.unpack("<f", a)[0]
                    elif i == 3:
                        value = a
                    elif i == 4:
                        value = _text(a)
                node["attributes"][name] = value
        return node

    def matrix(self, node: str) -> Quantised:
        """The integers and scales of one QMatMul or MatMulNBits."""
        facts, inputs = self.nodes[node]["attributes"], self.nodes[node]["inputs"]
        if self.nodes[node]["op"] == "MatMulNBits":
            if any(inputs[3:]):
                raise ValueError(f"{node}: zero points, groups and bias are not read back")
            weights, scales = (np.asarray(self.tensors[i]) for i in inputs[1:3])
            return unpack_rows(weights, scales, facts["bits"])
        packed, scales = self.tensors[f"{node}.packed"], self.tensors[f"{node}.scales"]
        return unpack(np.asarray(packed), np.asarray(scales), facts["N"], facts["bits"])


def language_model(path: Path) -> tuple[dict[str, np.ndarray], dict, dict[str, Quantised]]:
    """A model file's tensors under the checkpoint's names (float32), its config, and its matrices as they are
    stored."""
    file = OnnxFile(path)
    matrices = {n: file.matrix(n) for n, node in file.nodes.items() if node["op"] in MATMULS}
    plain = {f"{n}.weight": m.dequantise() for n, m in matrices.items() if n != "head"}
    for name, value in file.tensors.items():
        if name.endswith("norm.weight"):
            plain[name] = np.asarray(value, np.float32)
    head, tables = matrices["head"].dequantise(), {}
    if file.nodes["embedding"]["op"] == "Embed":
        plain["input_embedding.weight"] = file.tensors["embedding.weight"].astype(np.float32)
        plain["output_head.weight"] = head
        codes = len(head) - 1
        extra, tables = len(plain["input_embedding.weight"]) - codes, {"table": "plain", "codes": codes}
    else:
        for part in ("factors", "extra"):
            plain[f"input_embedding.{part}"] = file.tensors[f"embedding.{part}"].astype(np.float32)
        plain["output_head.factors"], plain["output_head.extra"] = head[:FACTORS], head[FACTORS:]
        extra = len(plain["input_embedding.extra"])
    attention = file.nodes["layers.0.attention"]["attributes"]
    layers = sum(node["op"] == "Attention" for node in file.nodes.values())
    config = {
        "H": len(plain["final_norm.weight"]),
        "nl": layers,
        "nh": attention["heads"],
        "nkv": attention["kv_heads"],
        "I": plain["layers.0.down.weight"].shape[1],
        "nph": extra,
        "rms_eps": file.nodes["final_norm"]["attributes"]["epsilon"],
        "rope_base": attention["rope_base"],
        **tables,
    }
    if "feature.weight" in plain:
        config["features"] = plain["feature.weight"].shape[1]
    taps = [n for n in file.nodes.values() if n["outputs"][0].startswith("tap_")]
    if taps:
        taps.sort(key=lambda n: int(n["outputs"][0].removeprefix("tap_")))
        config["taps"] = [1 + int(n["name"].split(".")[1]) for n in taps]
    return plain, config, matrices


def codec_decoder(path: Path) -> dict[str, np.ndarray]:
    """A codec file's tensors under the checkpoint's names (float32), as the engine computes with them."""
    file = OnnxFile(path)
    plain = {f"{n}.weight": file.matrix(n).dequantise() for n, node in file.nodes.items() if node["op"] in MATMULS}
    for name, value in file.tensors.items():
        if name.endswith((".weight", ".bias")):
            plain.setdefault(name, np.asarray(value, np.float32))
    # The export multiplied the blocks' scale into the last matrix. One scale for all, of a new block's size, comes out
    # again, so that training moves these rows as gently as it moved the original's.
    for name in [n for n in plain if n.endswith(".pointwise2.weight")]:
        block = name.removesuffix(".pointwise2.weight")
        scale = np.float32(LAYER_SCALE)
        plain[f"{block}.layer_scale"] = np.full(len(plain[name]), scale)
        for part in ("weight", "bias"):
            plain[f"{block}.pointwise2.{part}"] = plain[f"{block}.pointwise2.{part}"] / scale
    return plain
