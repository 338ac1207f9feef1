"""Checkpoints (safetensors) -> ONNX files of `ai.voxgrain` operators -> a bundle folder."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from . import bundle
from .onnx_functions import DIGITS, DOMAIN, FACTORS, IR_VERSION, OPSET, SPEECH, functions
from .onnx_read import language_model as read_language_model
from .quantize import BLOCK, Quantised, pack, pack_rows, quantise

EXAMPLE = "python -m voxgrain_tools export --checkpoints /tmp/vx --out models/voice"

ALIGNMENT = 64
LOGITS = SPEECH + 1
SPECTRUM = 642
# How matrix products are written: our interleaved operator, or the one that other tools know.
MATMULS = ("packed", "stock")
STOCK_DOMAIN = "com.microsoft"


class Checkpoint:
    """Tensors as float32; int8 rows with a `<name>_scale` beside them are dequantised."""

    def __init__(
        self, tensors: dict[str, np.ndarray], config: dict | None = None, ready: dict[str, Quantised] | None = None
    ) -> None:
        self.config = config or {}
        self._tensors = tensors
        # Matrices that are quantised already, by node.
        self.ready = ready or {}

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        from safetensors import safe_open
        from safetensors.numpy import load_file

        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        return cls(load_file(path), json.loads(metadata.get("config", "{}")))

    @classmethod
    def of_export(cls, path: Path) -> Checkpoint:
        """An exported language model, whose stored integers and scales stay as they are."""
        return cls(*read_language_model(path))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._tensors[name]
        if value.dtype == np.int8:
            scale = self._tensors[f"{name}_scale"].astype(np.float32)
            return value.astype(np.float32) * scale.reshape(-1, 1)
        return value.astype(np.float32)

    def setting(self, *names: str, default: Any) -> Any:
        """The first of these configuration keys that is present."""
        return next((self.config[n] for n in names if n in self.config), default)

    def count(self, prefix: str) -> int:
        """How many numbered groups `prefix.0.`, `prefix.1.`, ... there are."""
        n = 0
        while any(name.startswith(f"{prefix}.{n}.") for name in self._tensors):
            n += 1
        return n


@dataclass
class Bits:
    """Bits of each matrix: the longest matching node-name suffix wins, e.g. {"head": 8}."""

    default: int = 8
    overrides: dict[str, int] = field(default_factory=dict)

    def of(self, node: str) -> int:
        found = [s for s in self.overrides if node == s or node.endswith("." + s)]
        return self.overrides[max(found, key=len)] if found else self.default

    @classmethod
    def parse(cls, text: str, head: int | None = None) -> Bits:
        """`4` or `4,head=8,down=8`."""
        first, *rest = str(text).split(",")
        overrides = {k: int(v) for k, v in (item.split("=") for item in rest)}
        if head is not None:
            overrides["head"] = head
        return cls(int(first), overrides)


def pad_columns(weight: np.ndarray) -> np.ndarray:
    return np.pad(weight, ((0, 0), (0, -weight.shape[1] % BLOCK)))


def pad_rows(weight: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(weight, ((0, rows - weight.shape[0]),) + ((0, 0),) * (weight.ndim - 1))


class Graph:
    """Nodes and external initialisers of one model file."""

    def __init__(self, name: str, matmul: str = "packed", ready: dict[str, Quantised] | None = None) -> None:
        if matmul not in MATMULS:
            raise ValueError(f"matmul {matmul!r}: one of {', '.join(MATMULS)} is wanted")
        self.name = name
        self.stock = matmul == "stock"
        self.ready = ready or {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.data = bytearray()

    def weight(self, name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value)
        self.data.extend(bytes(-len(self.data) % ALIGNMENT))
        tensor = TensorProto(name=name, dims=value.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor.data_location = TensorProto.EXTERNAL
        raw = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        place = {"location": f"{self.name}.onnx.data", "offset": len(self.data), "length": len(raw)}
        for key, item in place.items():
            tensor.external_data.add(key=key, value=str(item))
        self.data.extend(raw)
        self.initializers.append(tensor)
        return name

    def f32(self, name: str, value: np.ndarray) -> str:
        return self.weight(name, value.astype(np.float32))

    def op(self, kind: str, name: str, *inputs: str, outputs: Sequence[str] | None = None, **attributes: Any) -> str:
        outputs = outputs or [f"{name}.out"]
        node = helper.make_node(kind, list(inputs), outputs, name=name, domain=DOMAIN, **attributes)
        self.nodes.append(node)
        return outputs[0]

    def matmul(
        self,
        name: str,
        x: str,
        weight: Any,
        bits: Bits,
        bias: Any = None,
        residual: str = "",
        outputs: Sequence[str] | None = None,
    ) -> str:
        weight = pad_columns(weight)
        rows, columns = weight.shape
        matrix = self.ready.get(name) or quantise(weight, bits.of(name))
        if self.stock:
            return self.stock_matmul(name, x, matrix, bias, residual, outputs)
        packed, scales = pack(matrix)
        inputs = [x, self.weight(f"{name}.packed", packed), self.weight(f"{name}.scales", scales)]
        inputs += [self.f32(f"{name}.bias", bias) if bias is not None else "", residual]
        while not inputs[-1]:
            inputs.pop()
        return self.op("QMatMul", name, *inputs, outputs=outputs, N=rows, K=columns, bits=matrix.bits)

    def stock_matmul(self, name: str, x: str, matrix: Any, bias: Any, residual: str, outputs: Any) -> str:
        """`com.microsoft.MatMulNBits`, its residual a plain Add."""
        rows, columns = matrix.values.shape
        weights, scales = pack_rows(matrix)
        inputs = [x, self.weight(f"{name}.weights", weights), self.weight(f"{name}.scales", scales)]
        if bias is not None:
            inputs += ["", "", self.f32(f"{name}.bias", bias)]
        own = [f"{name}.product"] if residual else outputs or [f"{name}.out"]
        self.nodes.append(
            helper.make_node(
                "MatMulNBits",
                inputs,
                own,
                name=name,
                domain=STOCK_DOMAIN,
                N=rows,
                K=columns,
                bits=matrix.bits,
                block_size=BLOCK,
            )
        )
        if not residual:
            return own[0]
        outputs = outputs or [f"{name}.out"]
        self.nodes.append(helper.make_node("Add", [own[0], residual], outputs, name=f"{name}.add"))
        return outputs[0]

    def save(self, folder: Path, inputs: Any, outputs: Any, metadata: dict[str, str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
            initializer=self.initializers,
        )
        model = helper.make_model(
            graph,
            # Stock files bring QMatMul along, so that `voxgrain pack` need not write it.
            functions=functions({n.op_type for n in self.nodes} | {"QMatMul"}),
            opset_imports=[
                helper.make_opsetid("", OPSET),
                helper.make_opsetid(DOMAIN, 1),
                *([helper.make_opsetid(STOCK_DOMAIN, 1)] if self.stock else []),
            ],
            producer_name="voxgrain_tools",
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, metadata)
        (folder / f"{self.name}.onnx.data").write_bytes(self.data)
        (folder / f"{self.name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(folder / f"{self.name}.onnx"))
        return model


def language_model(
    name: str,
    checkpoint: Checkpoint,
    folder: Path,
    bits: Bits,
    max_positions: int,
    matmul: str = "packed",
    edit: Callable[..., Any] | None = None,
    taps: Sequence[int] | None = None,
) -> dict:
    """Writes `<name>.onnx` and returns its bundle section. `edit` may change the graph first.

    `taps`: counts of layers after which a target puts its residual stream out, for a draft that was trained so; what
    its checkpoint says if None."""
    g = Graph(name, matmul, checkpoint.ready)
    hidden = checkpoint["final_norm.weight"].shape[0]
    layers = checkpoint.count("layers")
    heads = checkpoint.setting("nh", "heads", default=None)
    if heads is None:
        raise ValueError(f"{name}: the checkpoint's config does not give the number of heads")
    kv_heads = checkpoint.setting("nkv", "kv_heads", default=heads)
    qkv_rows = checkpoint["layers.0.qkv.weight"].shape[0]
    size = qkv_rows // (heads + 2 * kv_heads)
    true_ffn = checkpoint["layers.0.down.weight"].shape[1]
    ffn = true_ffn + -true_ffn % BLOCK
    epsilon = float(checkpoint.setting("eps", "rms_eps", "norm_epsilon", default=1e-5))
    rope_base = float(checkpoint.setting("rope_base", "rope_theta", default=10000.0))

    def table(part):
        return g.weight(f"embedding.{part}", checkpoint[f"input_embedding.{part}"].astype(np.float16))

    # A free row for every code, or sums of factors.
    plain = "output_head.weight" in checkpoint
    if plain:
        h = g.op("Embed", "embedding", "tokens", table("weight"))
        head = checkpoint["output_head.weight"]
        logits = len(head)
    else:
        h = g.op("FactorEmbed", "embedding", "tokens", table("factors"), table("extra"), digits=8, levels=4)
        head = np.concatenate([checkpoint["output_head.factors"], checkpoint["output_head.extra"][: LOGITS - SPEECH]])
        if head.shape[0] != FACTORS + 1:
            raise ValueError(
                f"the head has {head.shape[0]} rows of factors, {FACTORS + 1} are wanted: another codebook?"
            )
        logits = LOGITS
    inputs = [("tokens", TensorProto.INT64, ["S"])]
    outputs = [("logits", TensorProto.FLOAT, ["S", logits]), ("hidden", TensorProto.FLOAT, ["S", hidden])]
    features = 0
    taps = checkpoint.setting("taps", default=()) if taps is None else taps
    if "feature.weight" in checkpoint:
        weight = checkpoint["feature.weight"]
        features = weight.shape[1]
        if features % BLOCK or features % hidden:
            raise ValueError(f"{name}: its own outputs stand in for features: {features}, {hidden}")
        taps = ()
        inputs.append(("features", TensorProto.FLOAT, ["S", features]))
        h = g.matmul("feature", "features", weight, bits, residual=h)
    if list(taps) != sorted(set(taps)) or any(not 0 < t <= layers for t in taps):
        raise ValueError(f"{name}: taps {list(taps)} are not some of its {layers} layers in rising order")
    outputs += [(f"tap_{i}", TensorProto.FLOAT, ["S", hidden]) for i in range(1, len(taps) + 1)]

    def norm(node, x, outputs=None):
        weight = g.f32(f"{node}.weight", checkpoint[f"{node}.weight"])
        return g.op("RmsNorm", node, x, weight, outputs=outputs, epsilon=epsilon)

    for i in range(layers):
        at = f"layers.{i}"
        past = [f"past_key_{i}", f"past_value_{i}"]
        present = [f"present_key_{i}", f"present_value_{i}"]
        inputs += [(p, TensorProto.FLOAT, [kv_heads, "P", size]) for p in past]
        outputs += [(p, TensorProto.FLOAT, [kv_heads, "P + S", size]) for p in present]
        x = norm(f"{at}.attn_norm", h)
        qkv = g.matmul(f"{at}.qkv", x, checkpoint[f"{at}.qkv.weight"], bits)
        x = g.op(
            "Attention",
            f"{at}.attention",
            qkv,
            *past,
            outputs=[f"{at}.attention.out", *present],
            heads=heads,
            kv_heads=kv_heads,
            head_dim=size,
            rope_base=rope_base,
        )
        h = g.matmul(f"{at}.attn_out", x, checkpoint[f"{at}.attn_out.weight"], bits, residual=h)
        x = norm(f"{at}.mlp_norm", h)
        gate, up = np.split(checkpoint[f"{at}.gate_up.weight"], 2)
        both = np.concatenate([pad_rows(gate, ffn), pad_rows(up, ffn)])
        x = g.op("SwiGlu", f"{at}.swiglu", g.matmul(f"{at}.gate_up", x, both, bits))
        put_out = [f"tap_{1 + list(taps).index(i + 1)}"] if i + 1 in taps else None
        h = g.matmul(f"{at}.down", x, checkpoint[f"{at}.down.weight"], bits, residual=h, outputs=put_out)
    x = norm("final_norm", h, ["hidden"])
    if plain:
        g.matmul("head", x, head, bits, outputs=["logits"])
    else:
        scores = g.matmul("head", x, head, bits)
        g.op("FactorLogits", "logits", scores, outputs=["logits"], digits=8, levels=4)
    if edit:
        edit(g)
    g.save(folder, inputs, outputs, {"voxgrain.kind": "language_model"})
    return {
        "file": f"{name}.onnx",
        **({"features": features} if features else {}),
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": size,
        "ffn": ffn,
        "rope_base": rope_base,
        "max_positions": max_positions,
        "bits": bits.default,
    }


def codec_decoder(checkpoint: Checkpoint, folder: Path, bits: Bits, matmul: str = "packed") -> dict:
    """Writes `codec.onnx` and returns its bundle section."""
    g = Graph("codec", matmul)
    epsilon = float(checkpoint.setting("layer_norm_epsilon", default=1e-6))
    approximate = str(checkpoint.setting("gelu", "approximate", default="none"))

    def norm(node, source, x):
        weight = g.f32(f"{node}.weight", checkpoint[f"{source}.weight"])
        bias = g.f32(f"{node}.bias", checkpoint[f"{source}.bias"])
        return g.op("LayerNorm", node, x, weight, bias, epsilon=epsilon)

    def block(at, x):
        y = g.op(
            "CausalConv",
            f"{at}.depthwise",
            x,
            g.f32(f"{at}.depthwise.weight", checkpoint[f"{at}.depthwise.weight"]),
            g.f32(f"{at}.depthwise.bias", checkpoint[f"{at}.depthwise.bias"]),
        )
        y = norm(f"{at}.norm", f"{at}.norm", y)
        y = g.matmul(
            f"{at}.pointwise1", y, checkpoint[f"{at}.pointwise1.weight"], bits, checkpoint[f"{at}.pointwise1.bias"]
        )
        y = g.op("Gelu", f"{at}.gelu", y, approximate=approximate)
        # layer_scale(W y + b) = (scale * W) y + scale * b
        scale = checkpoint[f"{at}.layer_scale"]
        return g.matmul(
            f"{at}.pointwise2",
            y,
            checkpoint[f"{at}.pointwise2.weight"] * scale[:, None],
            bits,
            checkpoint[f"{at}.pointwise2.bias"] * scale,
            residual=x,
        )

    # The operator reads 8 digits; those that a smaller codebook does not have weigh nothing.
    weight = checkpoint["inp.weight"]
    weight = np.pad(weight, ((0, 0), (0, DIGITS - weight.shape[1])))
    x = g.op("FsqEmbed", "inp", "tokens", g.f32("inp.weight", weight), g.f32("inp.bias", checkpoint["inp.bias"]))
    for i in range(checkpoint.count("stage1")):
        x = block(f"stage1.{i}", x)
    x = g.matmul("up", x, checkpoint["up.weight"], bits, checkpoint["up.bias"])
    x = g.op("Upsample", "upsample", x, factor=2)
    for i in range(checkpoint.count("stage2")):
        x = block(f"stage2.{i}", x)
    x = norm("norm", "norm", x)
    g.matmul("head", x, checkpoint["head.weight"], bits, checkpoint["head.bias"], outputs=["spectrum"])
    g.save(
        folder,
        [("tokens", TensorProto.INT64, ["T"])],
        [("spectrum", TensorProto.FLOAT, ["2 * T", SPECTRUM])],
        {"voxgrain.kind": "codec_decoder"},
    )
    return {"file": "codec.onnx", "latency_samples": bundle.LATENCY_SAMPLES, "bits": bits.default}


def codebook(checkpoint: Checkpoint) -> int:
    """How many codes a language model or a codec's decoder has."""
    if "inp.weight" in checkpoint:
        return 4 ** checkpoint["inp.weight"].shape[1]
    return len(checkpoint["output_head.weight"]) - 1 if "output_head.weight" in checkpoint else SPEECH


def write(
    out: Path,
    target: Checkpoint | None,
    draft: Checkpoint | None,
    codec: Checkpoint | None,
    *,
    name: str,
    base: Path | None = None,
    bits: dict[str, Bits] | None = None,
    matmul: str = "packed",
    max_positions: int = 2048,
    groups: str | None = None,
    speakers: list[dict] | None = None,
    sampling: dict | None = None,
    training: dict | None = None,
    licence: str = bundle.LICENCE,
    attribution: str = bundle.ATTRIBUTION,
    lexicon: str | None = None,
) -> None:
    """Exports the models and writes the bundle file beside them; a model that is None is that of `base`."""
    bits = bits or {}
    out.mkdir(parents=True, exist_ok=True)
    kept = bundle.read(base) if base else {}
    models = (("target", target), ("draft", draft), ("codec", codec))
    codes = {which: codebook(c) if c else kept["vocabulary"]["speech"] for which, c in models}
    if len(set(codes.values())) > 1:
        raise ValueError(f"these do not belong together: codes {codes}")
    characters = {
        c.config.get("characters", bundle.CHARACTERS) if c else kept["vocabulary"]["characters"] for _, c in models[:2]
    }
    if len(characters) > 1:
        raise ValueError("target and draft read other alphabets: train the draft on this target's corpus")
    taps = list(draft.setting("taps", default=())) if draft else None
    if taps and target is None:
        raise ValueError(f"the draft reads taps {taps}: write the target again too (--target {base}/target.onnx)")
    sections = {}
    for which, checkpoint in models:
        if checkpoint is None:
            sections[which] = kept[which]
            for path in (kept[which]["file"], f"{kept[which]['file']}.data"):
                if (out / path).resolve() != (base / path).resolve():
                    shutil.copyfile(base / path, out / path)
        elif which == "codec":
            sections[which] = codec_decoder(checkpoint, out, bits.get(which, Bits()), matmul)
        else:
            sections[which] = language_model(
                which, checkpoint, out, bits.get(which, Bits()), max_positions, matmul, taps=taps
            )
    if target is not None or draft is not None:
        features, width = sections["draft"].get("features", 0), sections["target"]["hidden"]
        if draft is not None and taps:
            width *= 1 + len(taps)
        if features and features % width or draft is not None and features not in (0, width):
            raise ValueError(f"the draft takes {features} features, the target gives {width}")
    bundle.write(
        out,
        name=name,
        sections=sections,
        groups=groups,
        speakers=speakers,
        sampling=sampling,
        training=training,
        licence=licence,
        attribution=attribution,
        codes=codes["target"],
        characters=characters.pop(),
        lexicon=lexicon or kept.get("text", {}).get("lexicon"),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, help="folder of safetensors")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument(
        "--base", type=Path, help="a bundle (also OUT itself) that gives the models and facts not named here"
    )
    parser.add_argument("--name", help="bundle name (default: the base's or the folder's)")
    for model, file in (("target", "target"), ("draft", "draft"), ("codec", "codec_decoder")):
        parser.add_argument(
            f"--{model}",
            help=f"a .safetensors file (default: {file}.safetensors in CHECKPOINTS), or with --base an .onnx file,"
            " whose weights stay as they are",
        )
    for model in ("target", "draft", "codec"):
        parser.add_argument(f"--{model}-bits", help="e.g. 8, or 4,down=8 to keep one kind of matrix finer")
    parser.add_argument("--bits", default="8", help="for models without their own setting")
    parser.add_argument("--head-bits", type=int, help="bits of the language models' heads")
    parser.add_argument(
        "--matmul",
        choices=MATMULS,
        default="packed",
        help="packed: ai.voxgrain.QMatMul; stock: com.microsoft.MatMulNBits, which voxgrain reads "
        "in place as well and `voxgrain pack` turns into the former",
    )
    parser.add_argument("--max-positions", type=int, default=2048)
    parser.add_argument("--groups", help="default: the base's, or ../../asg-cache/default.asg")
    parser.add_argument(
        "--speaker",
        action="append",
        metavar="NAME:BEGIN:DESCRIPTION",
        help="who the voice can speak as, the default first, with the symbol that begins its prompts "
        '(again for each), e.g. "slt:65537:female, US English" "rms:65539:male, US English"; '
        "default: the base's, or none: one speaker",
    )
    parser.add_argument("--lexicon", help="for a voice of phonemes: its lexicon, relative to OUT (default: the base's)")
    parser.add_argument("--sampling", default="{}", help="JSON over the default (or the base's) sampling")
    parser.add_argument(
        "--training", type=Path, help="JSON file of facts for [training], over the base's; null drops one"
    )
    parser.add_argument("--licence", help=f"default: the base's, or {bundle.LICENCE!r}")
    parser.add_argument(
        "--attribution", help="whose speech it was trained on (default: the base's, or the default voice's)"
    )


def _checkpoint(args: argparse.Namespace, model: str) -> Checkpoint | None:
    given = getattr(args, model)
    default = {"codec": "codec_decoder"}.get(model, model) + ".safetensors"
    path = Path(given) if given else None
    if args.checkpoints and (given or not args.base):
        path = args.checkpoints / (given or default)
    if path is None:
        if args.base is None:
            raise SystemExit("export: give --checkpoints, or --base for the models that stay")
        return None
    return Checkpoint.of_export(path) if path.suffix == ".onnx" else Checkpoint.open(path)


def run(args: argparse.Namespace) -> None:
    bits = {
        m: Bits.parse(getattr(args, f"{m}_bits") or args.bits, args.head_bits if m != "codec" else None)
        for m in ("target", "draft", "codec")
    }
    kept = bundle.read(args.base) if args.base else {}
    training = json.loads(args.training.read_text()) if args.training else {}
    write(
        args.out,
        *(_checkpoint(args, m) for m in ("target", "draft", "codec")),
        name=args.name or kept.get("name") or args.out.resolve().name,
        base=args.base,
        bits=bits,
        matmul=args.matmul,
        max_positions=args.max_positions,
        groups=args.groups or kept.get("groups", {}).get("file") or "../../asg-cache/default.asg",
        speakers=[bundle.parse_speaker(s) for s in args.speaker or []] or kept.get("speakers"),
        sampling={**kept.get("sampling", {}), **json.loads(args.sampling)},
        training={k: v for k, v in {**kept.get("training", {}), **training}.items() if v is not None},
        licence=args.licence or kept.get("licence") or bundle.LICENCE,
        attribution=args.attribution or kept.get("attribution") or bundle.ATTRIBUTION,
        lexicon=args.lexicon,
    )
    for path in sorted(args.out.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")
