"""Expected values for the engine's tests, from onnxruntime on the shipped files themselves and
from a separate PyTorch implementation in float64. tests/data/README.md describes the files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx

from . import bundle
from .quantize import dequantise_rows, unpack
from .runtime import Codec, LanguageModel, Voice, istft

EXAMPLE = "python -m voxgrain_tools golden --bundle models/tiny --out tests/data/golden"

TEXT = "the cat sat."
COLUMNS = 512
TOLERANCE = 1e-4
STEPS, PASS, ROLLBACK, AGAIN, CODEC_TOKENS = 3, 5, 3, 4, 40


class Weights:
    """Initialisers and node attributes of an exported file; packed matrices come dequantised."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(path)
        self.nodes = {n.name: n for n in model.graph.node}
        self._raw = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}

    def attribute(self, node: str, name: str):
        return next(
            onnx.helper.get_attribute_value(a)
            for a in self.nodes[node].attribute
            if a.name == name
        )

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def __getitem__(self, name: str):
        import torch

        if name in self._raw:
            value = self._raw[name].astype(np.float64)
        else:
            node = name.removesuffix(".weight")
            if self.nodes[node].op_type == "MatMulNBits":
                return torch.from_numpy(self._stock(node))
            matrix = unpack(
                self._raw[f"{node}.packed"],
                self._raw[f"{node}.scales"],
                self.attribute(node, "N"),
                self.attribute(node, "bits"),
            )
            value = matrix.dequantise().astype(np.float64)
        return torch.from_numpy(value)

    def linear(self, name: str, x):
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def _stock(self, name: str) -> np.ndarray:
        tensors = [self._raw.get(i) for i in self.nodes[name].input]
        zero_points = tensors[3] if len(tensors) > 3 else None
        weights = dequantise_rows(tensors[1], tensors[2], self.attribute(name, "bits"), zero_points)
        return weights.astype(np.float64)


def torch_language_model(
    path: Path, tokens: list[int], features: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and hidden states of every position, in one pass over the whole sequence without a cache."""
    import torch
    import torch.nn.functional as F

    w = Weights(path)
    layers = sum(n.op_type == "Attention" for n in w.nodes.values())
    heads, kv_heads, size, rope_base = (
        w.attribute("layers.0.attention", n) for n in ("heads", "kv_heads", "head_dim", "rope_base")
    )
    plain = "embedding.weight" in w
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8)]

    def rows(token):
        d = [token // 4**i % 4 for i in range(8)]
        return [4 * i + d[i] for i in range(8)] + [
            32 + 16 * p + 4 * d[a] + d[b] for p, (a, b) in enumerate(pairs)
        ]

    def norm(name, x):
        return F.rms_norm(x, x.shape[-1:], w[f"{name}.weight"], w.attribute(name, "epsilon"))

    def rope(x):
        angle = torch.outer(
            torch.arange(len(tokens), dtype=torch.float64),
            rope_base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size),
        )
        turned = torch.complex(x[..., : size // 2], x[..., size // 2 :])
        turned = turned * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], dim=-1)

    if plain:
        h = w["embedding.weight"][tokens]
    else:
        factors, extra = w["embedding.factors"], w["embedding.extra"]
        h = torch.stack([factors[rows(t)].sum(0) if t < 65536 else extra[t - 65536] for t in tokens])
    if features is not None:
        h = h + w.linear("feature", torch.from_numpy(features).double())
    for i in range(layers):
        at = f"layers.{i}"
        qkv = w.linear(f"{at}.qkv", norm(f"{at}.attn_norm", h))
        q, k, v = (
            part.unflatten(-1, (-1, size)).transpose(0, 1)
            for part in qkv.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
        )
        share = heads // kv_heads
        k, v = rope(k).repeat_interleave(share, 0), v.repeat_interleave(share, 0)
        a = F.scaled_dot_product_attention(rope(q), k, v, is_causal=True)
        h = h + w.linear(f"{at}.attn_out", a.transpose(0, 1).flatten(1))
        gate, up = w.linear(f"{at}.gate_up", norm(f"{at}.mlp_norm", h)).chunk(2, dim=-1)
        h = h + w.linear(f"{at}.down", F.silu(gate) * up)
    h = norm("final_norm", h)
    scores = w.linear("head", h)
    if plain:
        return scores.numpy(), h.numpy()
    chosen = torch.tensor([rows(t) for t in range(65536)])
    # Factor by factor: gathering all 36 at once would take 36 times the memory.
    speech = sum(scores[:, chosen[:, i]] for i in range(36))
    return torch.cat([speech, scores[:, 480:]], dim=1).numpy(), h.numpy()


def torch_spectrum(path: Path, tokens: list[int]) -> np.ndarray:
    import torch
    import torch.nn.functional as F

    w = Weights(path)

    def norm(name, x):
        return F.layer_norm(
            x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], w.attribute(name, "epsilon")
        )

    def linear(name, x):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def block(at, x):
        taps = w[f"{at}.depthwise.weight"]
        padded = F.pad(x.T[None], (len(taps) - 1, 0))
        y = F.conv1d(padded, taps.T[:, None], w[f"{at}.depthwise.bias"], groups=taps.shape[1])
        y = linear(f"{at}.pointwise1", norm(f"{at}.norm", y[0].T))
        y = F.gelu(y, approximate=w.attribute(f"{at}.gelu", "approximate").decode())
        return x + linear(f"{at}.pointwise2", y)

    def stage(name, x):
        i = 0
        while f"{name}.{i}.depthwise.weight" in w:
            x = block(f"{name}.{i}", x)
            i += 1
        return x

    digits = torch.tensor([[t // 4**i % 4 for i in range(8)] for t in tokens])
    x = stage("stage1", linear("inp", (digits.double() - 1.5) / 1.5))
    x = linear("up", x)
    x = stage("stage2", x.reshape(2 * len(tokens), -1))
    return linear("head", norm("norm", x)).numpy()


def torch_sound(spectrum: np.ndarray) -> np.ndarray:
    import torch
    import torch.nn.functional as F

    magnitude, phase = torch.from_numpy(spectrum).split(321, dim=-1)
    frames = torch.fft.irfft(torch.polar(magnitude.clamp(max=6).exp(), phase), n=640)
    frames = frames * torch.hann_window(640, dtype=torch.float64)
    length = (len(frames) - 1) * 160 + 640
    sound = F.fold(frames.T[None], (1, length), (1, 640), stride=(1, 160)).flatten()
    return (sound[240:-240] / 1.5).numpy()


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected magnitude."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def save(path: Path, header: dict, tensors: dict[str, np.ndarray]) -> None:
    """One line of JSON, then the tensors one after another as little-endian float32."""
    header = {**header, "tensors": []}
    offset = 0
    for name, value in tensors.items():
        header["tensors"].append({"name": name, "shape": list(value.shape), "offset": offset})
        offset += 4 * value.size
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        for value in tensors.values():
            file.write(np.ascontiguousarray(value, dtype="<f4").tobytes())


def load(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    with path.open("rb") as file:
        header = json.loads(file.readline())
        raw = file.read()
    return header, {
        t["name"]: np.frombuffer(
            raw, "<f4", count=int(np.prod(t["shape"])), offset=t["offset"]
        ).reshape(t["shape"])
        for t in header["tensors"]
    }


def _sample(logits: np.ndarray, rng) -> int:
    """A speech token."""
    p = np.exp(logits[:-1].astype(np.float64) - logits.max())
    return int(rng.choice(len(p), p=p / p.sum()))


def language_model(
    voice: Voice, file: str, seed: int, kept_columns: int = COLUMNS
) -> tuple[dict, dict, float]:
    """A scripted session: prompt, single steps, a verification pass, rollback, another pass.

    A feature draft reads the target's hidden states one position back, as the engine gives them; in the
    single steps it drafts, on its own."""
    rng = np.random.default_rng(seed)
    path = voice.folder / file
    model, codes = LanguageModel(path), voice.facts["vocabulary"]["speech"]
    target = voice.language_model("target") if model.features else None
    calls: list[dict] = []
    logit_rows, hidden_rows, feature_rows = [], [], []
    seen: list[int] = []

    def call(tokens, kind):
        tokens = [int(t) for t in tokens]
        features = None
        if target:
            # The whole sequence anew: its state before each token, zeros before the first.
            target.reset()
            target.step(seen + tokens)
            before = np.concatenate([np.zeros((1, model.features), np.float32), target.hidden[:-1]])
            features = hidden_rows[-1][-1:] if kind == "step" else before[len(seen) :]
            feature_rows.append(features)
        logits = model.step(tokens, features)
        seen.extend(tokens)
        calls.append({"kind": kind, "tokens": tokens})
        logit_rows.append(logits)
        hidden_rows.append(model.hidden)
        return logits

    logits = call(voice.prompt(TEXT), "prefill")
    for _ in range(STEPS):
        logits = call([_sample(logits[-1], rng)], "step")
    kept = PASS - ROLLBACK
    likely = [_sample(logits[-1], rng)]
    call(likely + [int(t) for t in rng.integers(0, codes, PASS - 1)], "verify")
    model.rollback(ROLLBACK)
    del seen[-ROLLBACK:]
    calls.append({"kind": "rollback", "count": ROLLBACK})
    call([int(t) for t in rng.integers(0, codes, AGAIN)], "verify")

    got, hidden = np.concatenate(logit_rows), np.concatenate(hidden_rows)
    features = np.concatenate(feature_rows) if target else None
    # What each row has seen: the rolled back tokens never were, for the last rows.
    done = sum((c["tokens"] for c in calls[:-2]), [])
    rows = len(done)
    after = list(range(rows - ROLLBACK)) + list(range(rows, rows + AGAIN))
    tokens = done + calls[-1]["tokens"]

    def whole(rows):
        chosen = features[rows] if target else None
        return torch_language_model(path, [tokens[i] for i in rows], chosen)

    pairs = zip(whole(list(range(rows))), whole(after), strict=True)
    expected, expected_hidden = (np.concatenate([a, b[-AGAIN:]]) for a, b in pairs)
    assert kept > 0 and got.shape == expected.shape and hidden.shape == expected_hidden.shape
    difference = max(relative(got, expected), relative(hidden, expected_hidden))

    columns = np.sort(rng.choice(codes, kept_columns - 1, replace=False))
    columns = np.append(columns, codes)
    top = got.max(axis=1, keepdims=True)
    tensors = {
        "logits": got[:, columns],
        "logits_torch": expected[:, columns],
        # Over all columns of each row, so that no column can go wrong unseen.
        "log_sum_exp": top[:, 0] + np.log(np.exp(got - top).astype(np.float64).sum(axis=1)),
        "mean": got.mean(axis=1, dtype=np.float64),
        "max": top[:, 0],
        "hidden": hidden,
        "hidden_torch": expected_hidden,
    }
    if target:
        tensors["features"] = features
    header = {
        "model": file,
        "calls": calls,
        "rows": len(got),
        "columns": columns.tolist(),
        "argmax": got.argmax(axis=1).tolist(),
        "onnxruntime_against_torch": difference,
    }
    return header, tensors, difference


def codec(voice: Voice, seed: int) -> tuple[dict, dict, float]:
    rng = np.random.default_rng(seed)
    path = voice.folder / voice.facts["codec"]["file"]
    codes = voice.facts["vocabulary"]["speech"]
    tokens = [int(t) for t in rng.integers(0, codes, CODEC_TOKENS)]
    if "training" in voice.facts:
        # A trained decoder is held to speech: what it makes of noise turns on rounding.
        target = voice.language_model("target")
        logits, tokens = target.step(voice.prompt(TEXT)), []
        while len(tokens) < CODEC_TOKENS:
            tokens.append(_sample(logits[-1], rng))
            logits = target.step([tokens[-1]])
    spectrum = Codec(path).spectrum(tokens)
    expected = torch_spectrum(path, tokens)
    sound, expected_sound = istft(spectrum), torch_sound(expected)
    difference = max(relative(spectrum, expected), relative(sound, expected_sound))
    header = {
        "model": voice.facts["codec"]["file"],
        "tokens": tokens,
        "onnxruntime_against_torch": difference,
    }
    tensors = {"spectrum": spectrum, "pcm": sound, "pcm_torch": expected_sound}
    return header, tensors, difference


def make(folder: Path, out: Path, seed: int = 7) -> None:
    problems = bundle.check(folder)
    if problems:
        raise SystemExit("\n".join(problems))
    voice = Voice(folder)
    out.mkdir(parents=True, exist_ok=True)
    name = voice.facts["name"]
    cases = {
        "target": lambda: language_model(voice, voice.facts["target"]["file"], seed),
        "draft": lambda: language_model(voice, voice.facts["draft"]["file"], seed + 1),
        "codec": lambda: codec(voice, seed + 2),
    }
    # The random bundle also has a draft without features.
    plain = "draft_plain.onnx"
    if (folder / plain).exists():
        cases["draft_plain"] = lambda: language_model(voice, plain, seed + 1)
    for which, case in cases.items():
        header, tensors, difference = case()
        checksums = {e["path"]: e["sha256"] for e in voice.facts["files"]}
        data = f"{header['model']}.data"
        header = {"bundle": name, "data_sha256": checksums[data], **header}
        path = out / f"{name}-{which}.bin"
        save(path, header, tensors)
        print(
            f"{path.name}: {path.stat().st_size:,} bytes, onnxruntime against torch "
            f"{difference:.1e}"
        )
        if difference > TOLERANCE:
            raise SystemExit(f"{path.name}: differs by {difference:.1e}, more than {TOLERANCE}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)


def run(args: argparse.Namespace) -> None:
    make(args.bundle, args.out, args.seed)
