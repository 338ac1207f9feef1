"""Stages target and draft: language models over speech tokens, with factorised embedding and head, or plain ones.

The softmax over 65,536 codes is never formed in training. Logits are sums of single-digit and
digit-pair scores, so the normaliser factors: with the high byte fixed, the four low digits meet
only in pairs, and the sum over all 65,536 codes is a few small products (`factor_lse`). The same
holds for KL: a factor model's expected scores under a teacher need only the teacher's 480
marginals, which are the gradient of the teacher's own normaliser.

A model with `"table": "plain"` has a free row for every code, of which there may be fewer. Its scores are the
logits, [N, codes + 1], and every function of scores knows them by that width: 481 is not a power of 4 and one more.
"""

from __future__ import annotations

import argparse
import math
import os
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..common import (
    ALPHABETS,
    CHARACTERS,
    END,
    SPEECH,
    Clock,
    Ids,
    add_alphabet_argument,
    add_table_arguments,
    autocast,
    device_of,
    load,
    log,
    maybe_compile,
    save,
    speed_settings,
)
from .loop import Epochs, Loop

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # an older torch: the explicit mask is used
    varlen_attn = None

EXAMPLE_TARGET = "python -m voxgrain_tools target --work /tmp/vx --budget 520"
EXAMPLE_DRAFT = "python -m voxgrain_tools draft --work /tmp/vx --budget 100 --distil-budget 100"
EXAMPLE_ACCEPTANCE = "python -m voxgrain_tools acceptance --work /tmp/vx --limit 20000"
TARGET = {"H": 512, "nl": 12, "nh": 8, "I": 1376}
SMALL = {"H": 384, "nl": 8, "nh": 6, "I": 1024}
DRAFT = {"H": 256, "nl": 3, "nh": 4, "I": 704}
TOY_TARGET = {"H": 64, "nl": 2, "nh": 2, "I": 96}
TOY_DRAFT = {"H": 32, "nl": 1, "nh": 2, "I": 64}
COMMON = {"kind": "pair", "tied": False, "nph": 64, "rms_eps": 1e-5, "rope_base": 10000.0}
PAIRS = [(a, b) for a in range(8) for b in range(a + 1, 8)]
FACTORED = 481
ROW, LONGEST, DOCUMENTS = 2048, 1280, 512
# Logits of a plain table that are held at once: 0.5 GiB of float32.
CHUNK = 2**27


def with_table(config: dict[str, Any], codes: int = 65536, table: str | None = None) -> dict[str, Any]:
    """The configuration for so many codes; fewer than 65,536 have a plain table, and those a factorised one by
    default."""
    table = table or ("factor" if codes == SPEECH else "plain")
    if table == "factor" and codes != SPEECH:
        raise ValueError(f"factorised tables are of {SPEECH} codes, not {codes}")
    Ids(codes)
    return dict(config) if table == "factor" else dict(config, table=table, codes=codes)


def with_alphabet(config: dict[str, Any], alphabet: str = "letters") -> dict[str, Any]:
    """The config of a model that reads another alphabet (`common.ALPHABETS`); letters leave it as it is."""
    if alphabet == "letters":
        return dict(config)
    characters = ALPHABETS[alphabet]
    # Five other symbols (end, begins, start), and places that stay free.
    return dict(config, characters=characters, nph=-(-(len(characters) + 5) // 32) * 32)


def factor_rows(tokens: np.ndarray) -> np.ndarray:
    """numpy: the 36 factor rows of each token, [n, 36]."""
    d = (np.asarray(tokens, np.int64)[:, None] >> (2 * np.arange(8))) & 3
    rows = [4 * i + d[:, i] for i in range(8)]
    rows += [32 + 16 * p + 4 * d[:, a] + d[:, b] for p, (a, b) in enumerate(PAIRS)]
    return np.stack(rows, 1)


class MultiHot(nn.Module):
    """tokens -> 0/1 rows over 480 factors and the extra ids: lookups and sums become one product."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        rows = [(i, l, i, l) for i in range(8) for l in range(4)]
        rows += [(a, x, b, y) for a, b in PAIRS for x in range(4) for y in range(4)]
        rows = torch.tensor(rows)
        for name, column in zip(("sa", "la", "sb", "lb"), rows.T):
            self.register_buffer(name, (column * 2 if name[0] == "s" else column).contiguous(), persistent=False)
        self.register_buffer("extra", torch.arange(extra) + SPEECH, persistent=False)

    def factors(self, t: torch.Tensor) -> torch.Tensor:
        t = t.unsqueeze(-1)
        return (((t >> self.sa) & 3) == self.la) & (((t >> self.sb) & 3) == self.lb) & (t < SPEECH)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.factors(t), t.unsqueeze(-1) == self.extra], -1)


def pair_block(scores: torch.Tensor, a: int, b: int) -> torch.Tensor:
    """[N, 4 levels of a, 4 levels of b]"""
    p = PAIRS.index((a, b))
    return scores[:, 32 + 16 * p : 48 + 16 * p].reshape(-1, 4, 4)


def byte_scores(scores: torch.Tensor, digits: Sequence[int]) -> torch.Tensor:
    """Scores of one byte by its four digits, [N, 4, 4, 4, 4], axis k = digits[k]."""
    n = scores.shape[0]
    total = 0
    for k, i in enumerate(digits):
        shape = [n, 1, 1, 1, 1]
        shape[k + 1] = 4
        total = total + scores[:, 4 * i : 4 * i + 4].reshape(shape)
    for k in range(4):
        for m in range(k + 1, 4):
            shape = [n, 1, 1, 1, 1]
            shape[k + 1] = shape[m + 1] = 4
            total = total + pair_block(scores, digits[k], digits[m]).reshape(shape)
    return total


def cross_scores(scores: torch.Tensor, j: int) -> torch.Tensor:
    """Scores of low digit j with the high byte: [N, 4, 4, 4, 4 (digits 4..7), 4 (level of j)]."""
    n = scores.shape[0]
    total = 0
    for k in range(4):
        shape = [n, 1, 1, 1, 1, 4]
        shape[k + 1] = 4
        total = total + pair_block(scores, j, 4 + k).transpose(1, 2).reshape(shape)
    return total


def factor_lse(scores: torch.Tensor) -> torch.Tensor:
    """log of the sum over all 65,536 codes of exp(logit), exactly, from [N, 480] scores."""
    scores = scores.float()
    n = scores.shape[0]
    high = byte_scores(scores, (4, 5, 6, 7)).reshape(n, 256)
    low = byte_scores(scores, (0, 1, 2, 3)).reshape(n, 256)
    low_top = low.detach().amax(1, keepdim=True)
    low = torch.exp(low - low_top).reshape(n, 16, 16)
    factors, shift = [], low_top
    for j in range(4):
        c = cross_scores(scores, j).reshape(n, 256, 4)
        top = c.detach().amax(2, keepdim=True)
        shift = shift + top[..., 0]
        factors.append(torch.exp(c - top))
    first = (factors[0].unsqueeze(3) * factors[1].unsqueeze(2)).reshape(n, 256, 16)
    second = (factors[2].unsqueeze(3) * factors[3].unsqueeze(2)).reshape(n, 256, 16)
    total = (torch.bmm(first, low) * second).sum(2)
    return torch.logsumexp(high + shift + torch.log(total.clamp_min(1e-37)), 1)


def full_logits(scores: torch.Tensor) -> torch.Tensor:
    """[N, 481] scores -> [N, 65537] logits, for sampling and figures."""
    s = scores.float()
    if s.shape[1] != FACTORED:
        return s
    n = s.shape[0]
    # Axes from the slowest digit (7) to the fastest (0).
    high = byte_scores(s, (4, 5, 6, 7)).permute(0, 4, 3, 2, 1)
    low = byte_scores(s, (0, 1, 2, 3)).permute(0, 4, 3, 2, 1)
    total = high.reshape(n, 256, 1) + low.reshape(n, 1, 256)
    total = total.reshape(n, 256, 4, 4, 4, 4)
    for j in range(4):
        c = cross_scores(s, j).permute(0, 4, 3, 2, 1, 5).reshape(n, 256, 4)
        shape = [n, 256, 1, 1, 1, 1]
        shape[5 - j] = 4
        total = total + c.reshape(shape)
    return torch.cat([total.reshape(n, 65536), s[:, 480:481]], 1)


def sdpa_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """Attention within documents by an explicit mask; rows of ROW positions, as documents never cross them."""
    total, heads, size = q.shape
    row = min(ROW, total)
    q, k, v = (x.reshape(-1, row, heads, size).transpose(1, 2) for x in (q, k, v))
    d = documents.reshape(-1, row)
    mask = (d[:, :, None] == d[:, None, :]) & torch.ones(row, row, dtype=torch.bool, device=q.device).tril()
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    return out.transpose(1, 2).reshape(total, heads, size)


def varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    return varlen_attn(q, k, v, bounds, bounds, LONGEST, LONGEST, window_size=(-1, 0))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def layer(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    documents: torch.Tensor,
    bounds: torch.Tensor,
    attn_norm: torch.Tensor,
    qkv: torch.Tensor,
    attn_out: torch.Tensor,
    mlp_norm: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    heads: int,
    eps: float,
    dropout: float,
    packed: bool,
) -> torch.Tensor:
    """One Llama layer on [positions, H]; a plain function, so that it compiles once for all layers."""
    n, width = x.shape
    y = F.linear(F.rms_norm(x, (width,), attn_norm, eps), qkv)
    q, k, v = y.reshape(n, 3, heads, width // heads).unbind(1)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    if packed:
        y = varlen(q.bfloat16(), k.bfloat16(), v.bfloat16().contiguous(), bounds)
    else:
        y = sdpa_rows(q, k, v, documents)
    y = F.linear(y.reshape(n, width), attn_out)
    x = x + F.dropout(y, dropout, dropout > 0)
    gate, up = F.linear(F.rms_norm(x, (width,), mlp_norm, eps), gate_up).chunk(2, -1)
    y = F.linear(F.silu(gate) * up, down)
    return x + F.dropout(y, dropout, dropout > 0)


def rope_table(positions: torch.Tensor, size: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    rate = base ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size)
    angle = positions.float().unsqueeze(-1) * rate
    return angle.cos().unsqueeze(-2), angle.sin().unsqueeze(-2)


def rounded(weight: torch.Tensor, bits: int = 4, block: int = 32) -> torch.Tensor:
    """The matrix as an export of so many bits stores it, its gradient passed straight through.

    One scale of half precision a block of 32 columns. For 4 bits the best of a few factors of the peak is taken and
    refined by least squares, as `export.quantize` does with a finer search."""
    with torch.no_grad():
        blocks = weight.detach().float().unflatten(1, (-1, block))
        peak = blocks.abs().amax(2)
        best = scale = None
        for factor in (0.74, 0.8, 0.86, 0.93, 1.0) if bits == 4 else (1.0,):
            trial = (peak / (7 if bits == 4 else 127) * factor).unsqueeze(2)
            low, high = (-8, 7) if bits == 4 else (-127, 127)
            q = (blocks / trial.clamp_min(1e-12)).round().clamp(low, high)
            if bits == 4:
                trial = ((q * blocks).sum(2) / q.square().sum(2).clamp_min(1)).clamp_min(0).half().float().unsqueeze(2)
                q = (blocks / trial.clamp_min(1e-12)).round().clamp(low, high)
            made = q * trial
            error = (made - blocks).square().sum(2, keepdim=True)
            best, scale = (
                (made, error)
                if scale is None
                else (torch.where(error < scale, made, best), torch.minimum(error, scale))
            )
        change = best.flatten(1) - weight
    return weight + change


class Weight(nn.Module):
    def __init__(self, *shape: int, std: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape) if std is None else torch.randn(shape) * std)


class Table(nn.Module):
    def __init__(self, width: int, extra: int, std: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.randn(480, width) * std / 6)
        self.extra = nn.Parameter(torch.randn(extra, width) * std)

    def rows(self) -> torch.Tensor:
        return torch.cat([self.factors, self.extra])

    def scored(self) -> torch.Tensor:
        """The head's rows: 480 factors, then end of speech."""
        return torch.cat([self.factors, self.extra[:1]])


class PlainTable(Weight):
    def rows(self) -> torch.Tensor:
        return self.weight

    scored = rows


class LanguageModel(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = dict(COMMON, **config)
        c = self.config
        width, inner, extra = c["H"], c["I"], c["nph"]
        std = width**-0.5
        self.ids, self.plain = Ids(c.get("codes", SPEECH)), c.get("table", "factor") == "plain"
        # What it reads, in the order of the symbols.
        self.characters = c.get("characters", CHARACTERS)
        if self.plain:
            self.input_embedding = PlainTable(self.ids.speech + extra, width, std=0.5)
            self.output_head = PlainTable(self.ids.speech + 1, width, std=0.3 * std)
        else:
            self.input_embedding = Table(width, extra, 0.5)
            self.output_head = Table(width, extra, 0.3 * std)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attn_norm": Weight(width),
                    "qkv": Weight(3 * width, width, std=std),
                    "attn_out": Weight(width, width, std=std / math.sqrt(2 * c["nl"])),
                    "mlp_norm": Weight(width),
                    "gate_up": Weight(2 * inner, width, std=std),
                    "down": Weight(width, inner, std=inner**-0.5 / math.sqrt(2 * c["nl"])),
                }
            )
            for _ in range(c["nl"])
        )
        self.final_norm = Weight(width)
        self.taps = tuple(c.get("taps", ()))
        if c.get("features"):
            # A draft that sees the target's features: they are added to the embedding.
            self.feature = Weight(width, c["features"], std=c["features"] ** -0.5)
        self.hot = None if self.plain else MultiHot(extra)
        # Positions whose scores are held at once in training.
        self.chunk = CHUNK // self.ids.speech if self.plain else 2**31
        self.dropout = 0.0
        self.packed = False
        # Bits that the matrices are rounded to wherever they are used; 0: as they are.
        self.bits = 0
        self.layer, self.embed, self.head = layer, self._embed, self._head

    def compile(self, device: torch.device) -> LanguageModel:
        self.layer = maybe_compile(layer, device, dynamic=False)
        self.embed = maybe_compile(self._embed, device, dynamic=False)
        return self

    def _embed(self, tokens):
        if self.plain:
            return F.embedding(tokens, self.input_embedding.weight)
        return (
            self.hot(tokens).to(torch.bfloat16 if tokens.is_cuda else torch.float32) @ self.input_embedding.rows()
        ).float()

    def look_up(self, tokens: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The embedding by a copy of its rows, in the copy's precision."""
        return F.embedding(tokens, table) if self.plain else self.hot(tokens).to(table.dtype) @ table

    def speech_rows(self) -> torch.Tensor:
        """The input embedding of every code."""
        table = self.input_embedding
        if self.plain:
            return table.weight[: self.ids.speech]
        return self.hot.factors(torch.arange(SPEECH, device=table.factors.device)).float() @ table.factors

    def _head(self, hidden):
        """[N, H] -> scores: [N, 481], 480 factors and end of speech, or [N, codes + 1] logits."""
        head = self.output_head.scored()
        return F.linear(hidden, rounded(head, self.bits) if self.bits else head).float()

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        with autocast(hidden.device):
            return self._head(hidden)

    def weights(self, l: nn.ModuleDict) -> tuple[torch.Tensor, ...]:
        own = (l[n].weight for n in ("attn_norm", "qkv", "attn_out", "mlp_norm", "gate_up", "down"))
        return tuple(rounded(w, self.bits) if self.bits and w.ndim == 2 else w for w in own)

    @torch.no_grad()
    def round_to(self, bits: int) -> None:
        """The matrices for good as an export of so many bits computes with them."""
        for name, p in self.named_parameters():
            if p.ndim == 2 and (name.startswith(("layers", "feature")) or name == "output_head.weight"):
                p.copy_(rounded(p, bits))
        if not self.plain:
            p = self.output_head.factors
            p.copy_(rounded(p, bits))
            self.output_head.extra[:1] = rounded(self.output_head.extra[:1], bits)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        documents: torch.Tensor,
        bounds: torch.Tensor,
        features: torch.Tensor | None = None,
        taps: Sequence[int] = (),
    ) -> torch.Tensor:
        """Flat positions -> hidden states after the final norm; `features` [positions, F] only for a feature draft.

        `taps`: counts of layers after which the residual stream is wanted too; it comes before the hidden states,
        [positions, (taps + 1) H]."""
        c = self.config
        p = self.dropout if self.training else 0.0
        x = F.dropout(self.embed(tokens), p, p > 0)
        if features is not None:
            x = x + F.linear(features, self.feature.weight)
        cos, sin = rope_table(positions, c["H"] // c["nh"], c["rope_base"])
        tapped = []
        for done, l in enumerate(self.layers, 1):
            x = self.layer(x, cos, sin, documents, bounds, *self.weights(l), c["nh"], c["rms_eps"], p, self.packed)
            if done in taps:
                tapped.append(x)
        hidden = F.rms_norm(x, (c["H"],), self.final_norm.weight, c["rms_eps"])
        return torch.cat([*(t.to(hidden.dtype) for t in tapped), hidden], 1) if tapped else hidden

    def save(self, path: str, facts: dict[str, Any] | None = None) -> None:
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("phone")}
        save(path, state, dict(self.config, **(facts or {})))


def load_lm(path: str, device: str = "cpu") -> LanguageModel:
    tensors, config = load(path)
    model = LanguageModel(config)
    model.load_state_dict(tensors)
    return model.to(device).eval()


def lm_from_onnx(path: str, device: str = "cpu") -> LanguageModel:
    """The model of an exported file, with the weights that the engine computes with."""
    from ..export.onnx_read import language_model

    tensors, config, _ = language_model(path)
    if config.pop("nkv") != config["nh"]:
        raise ValueError(f"{path}: shared key heads cannot be trained")
    description = os.path.join(os.path.dirname(path), "bundle.toml")
    if os.path.exists(description):  # The file itself knows numbers only.
        with open(description, "rb") as f:
            characters = tomllib.load(f)["vocabulary"]["characters"]
        if characters != CHARACTERS:
            config["characters"] = characters
    model = LanguageModel(config)
    state = {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}
    if not model.plain:
        # Only end of speech of the head's other rows is exported.
        extra = torch.zeros_like(model.output_head.extra)
        extra[:1] = state["output_head.extra"][:1]
        state["output_head.extra"] = extra
    model.load_state_dict(state)
    return model.to(device).eval()


def lm_from_bundle(folder: str, which: str = "target", device: str = "cpu") -> LanguageModel:
    return lm_from_onnx(f"{folder}/{which}.onnx", device)


def load_any(path: str, device: str = "cpu") -> LanguageModel:
    """A checkpoint, an exported file, or a bundle's target."""
    path = str(path)
    if path.endswith(".safetensors"):
        return load_lm(path, device)
    return lm_from_onnx(path, device) if path.endswith(".onnx") else lm_from_bundle(path, "target", device)


def begin_from(init: LanguageModel | str, config: dict[str, Any], device: torch.device | str) -> LanguageModel:
    """A model to train on from another, or a path of one: its layers, and its tables where they have the shape asked
    for."""
    init = init if isinstance(init, LanguageModel) else load_any(init)
    model = LanguageModel(dict(config, **{k: init.config[k] for k in ("H", "nl", "nh", "I", "rms_eps", "rope_base")}))
    own, given = model.state_dict(), init.state_dict()
    if init.characters != model.characters and not model.plain and not init.plain:
        log("begins from all but the symbols of the alphabet")
        for name in ("input_embedding.extra", "output_head.extra"):
            rows = own[name].clone()
            rows[:4] = given[name][:4]  # End, the voices and the start of speech mean the same.
            given[name] = rows
    tables = [n for n in own if n.startswith(("input_embedding", "output_head"))]
    if any(n not in given or given[n].shape != own[n].shape for n in tables):
        log("begins from layers and norms only; the tables are new")
        given = {n: v for n, v in given.items() if not n.startswith(("input_embedding", "output_head"))}
    model.load_state_dict(dict(own, **given))
    return model.to(device)


def ce_loss(
    scores: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, hot: nn.Module, count: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy over speech and end of speech, mean over the valid positions (`count`, of several calls)."""
    lse = total_lse(scores)
    if scores.shape[1] == FACTORED:
        speech = (hot.factors(targets).to(scores.dtype) * scores[:, :480]).sum(1)
        chosen = torch.where(targets == END, scores[:, 480], speech)
    else:
        chosen = scores.gather(1, targets.unsqueeze(1))[:, 0]
    return ((lse - chosen) * valid).sum() / (valid.sum() if count is None else count).clamp_min(1)


def kl_part(scores: torch.Tensor, marginals: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """KL to the teacher, up to the teacher's entropy: its expected score is linear in its marginals."""
    return ((total_lse(scores) - (marginals * scores).sum(1)) * valid).sum() / valid.sum().clamp_min(1)


def total_lse(scores: torch.Tensor) -> torch.Tensor:
    if scores.shape[1] != FACTORED:
        return scores.logsumexp(1)
    return torch.logaddexp(factor_lse(scores[:, :480]), scores[:, 480])


def kl_rows(scores: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """KL to the teacher at each position, from plain logits."""
    theirs = theirs.log_softmax(1)
    return (theirs.exp() * (theirs - scores.log_softmax(1))).sum(1)


def by_chunks(size: int, function: Callable[..., Any], *rows: torch.Tensor) -> torch.Tensor:
    """The sum of `function` over chunks of positions, made again in the backward pass: all logits at once may not
    fit."""
    if len(rows[0]) <= size:
        return function(*rows)
    # Nothing in it is random.
    options = {"use_reentrant": False, "preserve_rng_state": False}
    return sum(checkpoint(function, *part, **options) for part in zip(*(r.split(size) for r in rows)))


def ce_of(
    model: LanguageModel,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    loss_of: Callable[..., torch.Tensor] = ce_loss,
) -> torch.Tensor:
    """Cross entropy from hidden states."""
    if len(hidden) <= model.chunk:
        return loss_of(model.scores(hidden), targets, valid, model.hot)
    count = valid.sum()
    return by_chunks(
        model.chunk, lambda h, t, v: loss_of(model.scores(h), t, v, model.hot, count), hidden, targets, valid
    )


def plain_kl(
    model: LanguageModel,
    outputs: Sequence[torch.Tensor],
    teacher: LanguageModel,
    hidden: torch.Tensor,
    valid: torch.Tensor,
    rows_of: Callable[..., torch.Tensor] = kl_rows,
) -> torch.Tensor:
    """Mean KL of each of several outputs [N, H] to a teacher with plain tables, over the valid positions [N,
    outputs]."""

    def part(hidden, valid, *outputs):
        with torch.no_grad():
            theirs = teacher.scores(hidden)
        return torch.stack([(rows_of(model.scores(g), theirs) * v).sum() for g, v in zip(outputs, valid.unbind(1))])

    return by_chunks(model.chunk, part, hidden, valid, *outputs) / valid.sum(0).clamp_min(1)


def probe_packed(device: torch.device) -> bool:
    """Whether flash attention over packed documents works here, checked against the explicit mask."""
    if device.type != "cuda":
        return False
    try:
        g = torch.Generator(device="cpu").manual_seed(0)
        q, k, v = (torch.randn(ROW, 4, 64, generator=g).to(device, torch.bfloat16).requires_grad_() for _ in range(3))
        lengths = [100, 700, 1, 247, 1000]
        documents = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths)).to(device)
        bounds = torch.zeros(9, dtype=torch.int32)
        bounds[1:6] = torch.tensor(lengths).cumsum(0)
        bounds[6:] = ROW
        a = varlen(q, k, v, bounds.to(device))
        ga = torch.autograd.grad(a.float().square().sum(), (q, k, v))
        b = sdpa_rows(q, k, v, documents)
        gb = torch.autograd.grad(b.float().square().sum(), (q, k, v))
        worst = max(
            float((x.float() - y.float()).abs().max() / y.float().abs().max()) for x, y in zip((a, *ga), (b, *gb))
        )
        log(f"packed attention differs from the masked one by {worst:.4f} of the largest value")
        return worst < 0.05
    except Exception as error:  # noqa: BLE001
        log("packed attention does not work here:", repr(error)[:300])
        return False


class Documents:
    """All utterances as one stream on the device: the voice's begin symbol, characters, SOS, speech tokens."""

    def __init__(
        self, data: dict[str, Any], device: torch.device, codes: int = SPEECH, characters: str = CHARACTERS
    ) -> None:
        """`characters` is what the texts are made of, in the order of their symbols."""
        ids = Ids(codes)
        if len(data["tokens"]) and data["tokens"].max() >= codes:
            raise ValueError(f"token {data['tokens'].max()} where there are {codes} codes")
        texts = data["texts"]
        used = set().union(*texts)
        if unknown := used - set(characters):
            raise ValueError(
                f"texts have {''.join(sorted(unknown))!r}, which the alphabet has not: another --alphabet?"
            )
        lut = np.zeros(max(map(ord, characters)) + 1, np.int32)
        for i, c in enumerate(characters):
            lut[ord(c)] = ids.first_character + i
        sizes = data["lengths"].astype(np.int64)
        characters = np.array([len(t) for t in texts], np.int64)
        lengths = sizes + characters + 2
        total = int(lengths.sum())
        # One last element stands for padding.
        stream, target = np.full(total + 1, ids.begin, np.int32), np.full(total + 1, -1, np.int32)
        phones = np.zeros(total + 1, np.uint8)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        stream[starts[:-1]] = np.array(ids.begins)[data.get("speakers", np.zeros(len(texts), np.uint8))]
        spoken = np.concatenate([[0], np.cumsum(sizes)])
        blob = lut[np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)]
        written = np.concatenate([[0], np.cumsum(characters)])
        tokens, labels = data["tokens"], data.get("phones")
        for u in range(len(texts)):
            at, n, m = starts[u], sizes[u], characters[u]
            stream[at + 1 : at + 1 + m] = blob[written[u] : written[u + 1]]
            stream[at + 1 + m] = ids.start
            t = tokens[spoken[u] : spoken[u + 1]]
            stream[at + 2 + m : at + 2 + m + n] = t
            target[at + 1 + m : at + 1 + m + n] = t
            target[at + 1 + m + n] = ids.end
            if labels is not None:
                phones[at + 1 + m : at + 1 + m + n] = labels[spoken[u] : spoken[u + 1]]
        self.starts, self.lengths, self.total = starts[:-1], lengths, total
        self.stream = torch.from_numpy(stream).to(device)
        self.target = torch.from_numpy(target).to(device)
        self.phones = torch.from_numpy(phones).to(device)
        self.device, self.has_phones = device, labels is not None

    def pack(
        self, positions: int, seed: int | None = None, row: int = ROW, chosen: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """One epoch (of these documents): arrays [batches, positions] of stream indices, positions, document numbers;
        bounds."""
        rng = np.random.default_rng(seed)
        order = np.arange(len(self.lengths)) if chosen is None else np.asarray(chosen)
        order = order if seed is None else rng.permutation(order)
        row = min(row, positions)
        lengths = self.lengths.tolist()
        open_rows, rows = [], []
        for u in order.tolist():
            n = lengths[u]
            if n > min(LONGEST, row):
                continue
            for r in open_rows:
                if r[0] >= n:
                    break
            else:
                r = [row, []]
                open_rows.append(r)
                rows.append(r)
                if len(open_rows) > 24:
                    # Close the fullest; the newest stays open.
                    open_rows.pop(min(range(len(open_rows) - 1), key=lambda i: open_rows[i][0]))
            r[0] -= n
            r[1].append(u)
        per = positions // row
        if seed is None:
            while len(rows) % per:
                rows.append([row, []])
        else:
            rows = [rows[i] for i in rng.permutation(len(rows))]
            if len(rows) < per:
                rows = (rows * per)[:per]
            rows = rows[: len(rows) // per * per]
        batches = len(rows) // per
        documents, place = [], []
        at = 0
        bounds = np.full((batches, DOCUMENTS + 1), positions, np.int32)
        for b in range(batches):
            marks = []
            for r in rows[b * per : (b + 1) * per]:
                for u in r[1]:
                    documents.append(u)
                    place.append(at)
                    marks.append(at)
                    at += lengths[u]
                left = r[0]
                while left:  # padding counts as documents, which the attention must cover
                    n = min(left, LONGEST)
                    documents.append(-n)
                    place.append(at)
                    marks.append(at)
                    at += n
                    left -= n
            if len(marks) > DOCUMENTS:
                raise ValueError("too many documents in a batch")
            bounds[b, : len(marks)] = np.array(marks, np.int64) - b * positions
        documents = np.array(documents, np.int64)
        sizes = np.where(documents < 0, -documents, self.lengths[np.maximum(documents, 0)])
        place = np.array(place, np.int64)
        offset = np.arange(at) - np.repeat(place, sizes)
        source = np.where(
            np.repeat(documents < 0, sizes),
            self.total,
            np.repeat(self.starts[np.maximum(documents, 0)], sizes) + offset,
        )
        number = np.repeat(np.arange(len(documents)), sizes)
        shape = (batches, positions)
        return (
            source.astype(np.int32).reshape(shape),
            np.minimum(offset, LONGEST).astype(np.int16).reshape(shape),
            number.astype(np.int32).reshape(shape),
            bounds,
        )

    def to_device(self, packed: Sequence[np.ndarray]) -> list[torch.Tensor]:
        return [torch.from_numpy(x).to(self.device) for x in packed]

    def batch(self, packed: list[torch.Tensor], i: int) -> tuple[torch.Tensor, ...]:
        source = packed[0][i]
        return (
            self.stream[source].long(),
            packed[1][i],
            packed[2][i],
            packed[3][i],
            self.target[source].long(),
            self.phones[source].long(),
        )


def disturb(tokens: torch.Tensor, share: float, digits: int = 8) -> torch.Tensor:
    """Moves one digit by a step in a share of the speech tokens: the model must not trust its input to the last
    digit."""
    digit = torch.randint(0, digits, tokens.shape, device=tokens.device) * 2
    level = (tokens >> digit) & 3
    up = torch.randint(0, 2, tokens.shape, device=tokens.device) * 2 - 1
    moved = torch.where((level + up < 0) | (level + up > 3), level - up, level + up)
    changed = tokens + ((moved - level) << digit)
    hit = (torch.rand(tokens.shape, device=tokens.device) < share) & (tokens < 4**digits)
    return torch.where(hit, changed, tokens)


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    loss_of: Callable[..., torch.Tensor],
    documents: Documents,
    packed: list[torch.Tensor],
    device: torch.device,
) -> float:
    was, total, count = model.training, 0.0, 0
    model.eval()
    for i in range(len(packed[0])):
        tokens, positions, numbers, bounds, targets, _ = documents.batch(packed, i)
        with autocast(device):
            hidden = model(tokens, positions, numbers, bounds)
        valid = (targets >= 0).float()
        total += float(ce_of(model, hidden, targets.clamp_min(0), valid, loss_of)) * float(valid.sum())
        count += float(valid.sum())
    model.train(was)
    return total / max(1, count)


def train(
    name: str,
    config: dict[str, Any],
    work: str,
    train_data: Documents | dict[str, Any],
    held_data: Documents | dict[str, Any],
    budget: float,
    device: torch.device,
    lr: float = 1e-3,
    positions: int = 32768,
    dropout: float = 0.1,
    noise: float = 0.12,
    aux: float = 0.2,
    teacher: LanguageModel | None = None,
    start: LanguageModel | None = None,
    out: str | None = None,
    max_steps: int | None = None,
    validate_every: float = 45.0,
    warmup: int = 200,
    seed: int = 1,
    weight_decay: float = 0.05,
    init: LanguageModel | str | None = None,
    round_last: float = 0.0,
    round_bits: int = 4,
) -> tuple[LanguageModel, dict[str, Any]]:
    """Trains a model, saves the best by held-out loss as work/NAME.safetensors, returns it with its record.

    `round_last`: the share of the schedule, at its end, that trains with matrices rounded to `round_bits`.
    `init` is a model or a path to go on from, see `begin_from`."""
    speed_settings(device)
    clock = Clock(budget)
    codes, characters = config.get("codes", SPEECH), config.get("characters", CHARACTERS)
    documents = train_data if isinstance(train_data, Documents) else Documents(train_data, device, codes, characters)
    held = held_data if isinstance(held_data, Documents) else Documents(held_data, device, codes, characters)
    held_packed = held.to_device(held.pack(positions))
    if init is not None:
        start = begin_from(init, config, device)
    model = LanguageModel(config).to(device) if start is None else start
    model.train()
    model.dropout = dropout
    model.packed = probe_packed(device)
    model.compile(device)
    phone = nn.Linear(model.config["H"], 64).to(device) if aux and documents.has_phones else None
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("layers")]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("layers"))]
    if phone:
        others += list(phone.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr,
        (0.9, 0.95),
        fused=device.type == "cuda",
    )
    parameters = matrices + others
    ce = maybe_compile(ce_loss, device, dynamic=False)
    kl = maybe_compile(kl_part, device, dynamic=False)
    teacher_lse = maybe_compile(total_lse, device, dynamic=False)
    rows_of = maybe_compile(kl_rows, device, dynamic=False)
    if teacher is not None:
        teacher.eval().requires_grad_(False)
        teacher.packed = model.packed
        teacher.compile(device)

    def step_loss(tokens, places, numbers, bounds, targets, phones):
        with autocast(device):
            hidden = model(disturb(tokens, noise, model.ids.digits) if noise else tokens, places, numbers, bounds)
        valid = (targets >= 0).float()
        if teacher is None:
            loss = main = ce_of(model, hidden, targets.clamp_min(0), valid, ce)
        elif teacher.plain:
            with torch.no_grad(), autocast(device):
                theirs = teacher(tokens, places, numbers, bounds)
            loss = main = plain_kl(model, [hidden], teacher, theirs, valid.unsqueeze(1), rows_of)[0]
        else:
            with torch.no_grad(), autocast(device):
                theirs = teacher._head(teacher(tokens, places, numbers, bounds))
            theirs = theirs.detach().requires_grad_()
            lse = teacher_lse(theirs)
            (marginals,) = torch.autograd.grad(lse.sum(), theirs)
            # Subtracting the teacher's own part makes the figure a true KL (0 when equal).
            own = ((lse - (marginals * theirs).sum(1)) * valid).sum().detach() / valid.sum().clamp_min(1)
            loss = main = kl(model.scores(hidden), marginals, valid) - own
        if phone is not None:
            with autocast(device):
                guess = phone(hidden)
            loss = loss + aux * F.cross_entropy(guess.float(), torch.where(phones > 0, phones, -100), ignore_index=-100)
        return loss, main.detach()

    epochs = Epochs(lambda e: documents.pack(positions, seed=seed * 1000 + e), documents.to_device, seed)
    packed = epochs.packed
    log(
        f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M, {documents.total} stream positions, "
        f"{len(packed[0])} batches an epoch, packed {documents.total / packed[0].numel():.3f}"
    )
    try:
        step_loss(*documents.batch(packed, 0))[0].backward()
    except Exception as error:  # noqa: BLE001 - out of memory or a failure of the compiler
        log(f"{name}: falls back to uncompiled layers:", repr(error)[:400])
        model.layer, model.embed = layer, model._embed
        ce, kl, teacher_lse, rows_of = ce_loss, kl_part, total_lse, kl_rows
        if teacher is not None:
            teacher.layer, teacher.embed = layer, teacher._embed
        optimizer.zero_grad(set_to_none=True)
        step_loss(*documents.batch(packed, 0))[0].backward()
    optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    log(f"{name}: ready after {clock.elapsed():.1f} s, training {clock.left():.0f} s")
    schedule = Clock(clock.left() - (3 if max_steps is None else 0))
    path = f"{work}/{name}.safetensors"

    def validate():
        value = evaluate(model, ce, held, held_packed, device)
        facts = {"heldout_nats": round(value, 4)}
        return value, dict(facts, bits=model.bits) if model.bits else facts

    def advance(packed, batch):
        share = schedule.share() if max_steps is None else loop.steps / max_steps
        if round_last and not model.bits and share >= 1 - round_last:
            log(f"{name}: matrices of {round_bits} bits from step {loop.steps} on")
            loop.check()
            model.load_state_dict(load(path)[0])  # The best so far, should the loss have risen since.
            model.bits, loop.best = round_bits, float("inf")
        return step_loss(*documents.batch(packed, batch))

    def keep(facts):
        model.save(path, facts)
        if out:
            model.save(f"{out}/{name}.safetensors")

    loop = Loop(
        name,
        "loss" if teacher is None else "kl",
        schedule,
        epochs,
        optimizer,
        parameters,
        lr,
        warmup,
        positions,
        step=advance,
        validate=validate,
        save=keep,
        restore=lambda: model.load_state_dict(load(path)[0]),
        max_steps=max_steps,
        validate_every=validate_every,
    )
    if init is not None:
        # What training on does not improve stays.
        loop.check()
    loop.run()
    return load_lm(path, device), {"best": loop.best, "first": loop.first, "last": loop.last, "record": loop.record}


def cosine_lists(target: LanguageModel, codes: torch.Tensor, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Each code with its `size` nearest input embeddings: lists [codes, size + 1] and which entries count."""
    table = F.normalize(target.speech_rows(), dim=1)
    near = torch.cat(
        [(table[i : i + 4096] @ table.T).topk(size + 1, dim=1).indices for i in range(0, len(codes), 4096)]
    )
    near[:, 0] = codes  # itself first, whatever the rounding says
    keep = torch.cat(
        [torch.ones(len(codes), 1, dtype=torch.bool, device=codes.device), near[:, 1:] != codes[:, None]], 1
    )
    return near, keep


@torch.no_grad()
def acceptance(
    target: LanguageModel,
    draft: LanguageModel,
    documents: Documents,
    packed: list[torch.Tensor],
    device: torch.device,
    limit: int = 20000,
    chunk: int = 64,
    groups: bool = True,
) -> dict[str, Any]:
    """Teacher-forced acceptance at T = 1: mean over positions of the overlap of the two laws, by token and by group."""
    codes = target.ids.speech
    neighbours = torch.arange(codes, device=device)
    one_step = []
    for i in range(target.ids.digits):
        level = (neighbours >> (2 * i)) & 3
        for up in (1, -1):
            ok = (level + up >= 0) & (level + up <= 3)
            one_step.append(torch.where(ok, neighbours + up * (1 << (2 * i)), neighbours))
    step_lists = torch.stack([neighbours] + one_step, 1)
    keep = torch.cat(
        [torch.ones(codes, 1, dtype=torch.bool, device=device), step_lists[:, 1:] != neighbours[:, None]], 1
    )
    families = {"token": None}
    if groups:
        families["fsq_1"] = (step_lists, keep)
        families["input_cosine_32"] = cosine_lists(target, neighbours)
    sums, count = {k: 0.0 for k in families}, 0
    kl = 0.0
    owners = {}
    for name, family in families.items():
        if family is not None:
            members, ok = family
            n = torch.zeros(codes, device=device).index_add_(0, members[ok], torch.ones(int(ok.sum()), device=device))
            owners[name] = (members, ok.float(), 1 / n)
    for i in range(len(packed[0])):
        tokens, positions, numbers, bounds, targets, _ = documents.batch(packed, i)
        picks = (targets >= 0).nonzero()[:, 0]
        with autocast(device):
            a = target(tokens, positions, numbers, bounds)[picks]
            b = draft(tokens, positions, numbers, bounds)[picks]
        for j in range(0, len(picks), chunk):
            p = full_logits(target.scores(a[j : j + chunk])).softmax(1)
            q = full_logits(draft.scores(b[j : j + chunk])).softmax(1)
            kl += float((p * (p.clamp_min(1e-30).log() - q.clamp_min(1e-30).log())).sum())
            overlap = torch.minimum(p, q).sum(1)
            sums["token"] += float(overlap.sum())
            ends = torch.minimum(p[:, codes], q[:, codes])
            for name, (members, ok, share) in owners.items():
                laws = []
                for law in (p, q):
                    w = law[:, :codes] * share
                    total = torch.zeros_like(w)
                    for m in range(members.shape[1]):
                        total += w[:, members[:, m]] * ok[:, m]
                    laws.append(total)
                sums[name] += float((torch.minimum(*laws).sum(1) + ends).sum())
            count += len(p)
            if count >= limit:
                break
        if count >= limit:
            break
    result = {k: round(v / max(1, count), 4) for k, v in sums.items()}
    result.update(positions=count, kl=round(kl / max(1, count), 4))
    return result


@torch.no_grad()
def generate(
    model: LanguageModel,
    texts: list[str],
    device: torch.device,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int = 1,
    longest: int = 1000,
    speaker: int = 0,
) -> tuple[list[np.ndarray], list[int]]:
    """Samples the speech tokens of each text, all texts in one batch: list of numpy arrays."""
    generator = torch.Generator(device=device).manual_seed(seed)
    ids = model.ids
    prompts = [
        [ids.begins[speaker]] + [ids.first_character + model.characters.index(c) for c in t] + [ids.start]
        for t in texts
    ]
    width = max(map(len, prompts))
    batch, c = len(prompts), model.config
    heads, size = c["nh"], c["H"] // c["nh"]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    weights = [tuple(w.detach().to(dtype) for w in model.weights(l)) for l in model.layers]
    table = model.input_embedding.rows().detach()
    # Prompts end together (padded on the left), so that all rows step in time.
    tokens = torch.tensor([[ids.begin] * (width - len(p)) + p for p in prompts], device=device)
    pad = torch.tensor([width - len(p) for p in prompts], device=device)
    total = width + longest
    keys = [torch.zeros(batch, heads, total, size, dtype=dtype, device=device) for _ in weights]
    values = [torch.zeros_like(k) for k in keys]
    spots = torch.arange(total, device=device)
    finished = torch.full((batch,), -1, dtype=torch.long, device=device)
    out = []
    at = 0
    for step in range(longest):
        n = tokens.shape[1]
        places = at + torch.arange(n, device=device)
        x = model.look_up(tokens, table).to(dtype)
        cos, sin = rope_table((places[None] - pad[:, None]).clamp_min(0), size, c["rope_base"])
        seen = (spots[None, None] <= places[None, :, None]) & (spots[None, None] >= pad[:, None, None])
        # A padded position sees itself, so that no row of the mask is empty.
        seen = (seen | (spots[None, None] == places[None, :, None]))[:, None, :, : at + n]
        for l, (attn_norm, qkv, attn_out, mlp_norm, gate_up, down) in enumerate(weights):
            y = F.linear(F.rms_norm(x, (c["H"],), attn_norm, c["rms_eps"]), qkv).reshape(batch, n, 3, heads, size)
            q, k, v = y.unbind(2)
            q, k = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2)
            keys[l][:, :, at : at + n], values[l][:, :, at : at + n] = k, v.transpose(1, 2)
            y = F.scaled_dot_product_attention(q, keys[l][:, :, : at + n], values[l][:, :, : at + n], attn_mask=seen)
            x = x + F.linear(y.transpose(1, 2).reshape(batch, n, -1), attn_out)
            gate, up = F.linear(F.rms_norm(x, (c["H"],), mlp_norm, c["rms_eps"]), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        at += n
        hidden = F.rms_norm(x[:, -1].float(), (c["H"],), model.final_norm.weight, c["rms_eps"])
        logits = full_logits(model._head(hidden)) / temperature
        if top_k:
            kept, chosen = logits.topk(top_k, dim=1)
            token = chosen.gather(1, torch.multinomial(kept.softmax(1), 1, generator=generator))[:, 0]
        else:
            token = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        finished = torch.where((finished < 0) & (token == ids.end), step, finished)
        out.append(token.clamp_max(ids.speech - 1))
        tokens = out[-1][:, None]
        if step % 25 == 24 and bool((finished >= 0).all()):
            break
    ends = torch.where(finished < 0, len(out), finished).tolist()
    stacked = torch.stack(out, 1).cpu().numpy()
    return [stacked[i, :e].astype(np.uint16) for i, e in enumerate(ends)], [int(f) >= 0 for f in finished.tolist()]


# A target's name, which is its checkpoint's: its shape and the positions of a step.
SIZES = {"target": (TARGET, 32768), "small": (SMALL, 32768), "toy": (TOY_TARGET, 2048)}


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", required=True, help="holds tokens.npz and heldout.npz; target.safetensors is written here"
    )
    parser.add_argument(
        "--size", choices=list(SIZES), default="target", help="38 M, 15 M (written as small.safetensors), or for tests"
    )
    parser.add_argument("--budget", type=float, default=520, help="seconds")
    parser.add_argument(
        "--init",
        default=None,
        help="a bundle, an .onnx or a .safetensors to go on from; where its tables have "
        "another shape, from its layers only",
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    add_alphabet_argument(parser)
    add_table_arguments(parser)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--noise", type=float, default=0.12)
    parser.add_argument(
        "--round-last", type=float, default=0.0, help="share of the budget, at its end, with matrices of 4 bits"
    )
    parser.add_argument("--positions", type=int, default=None, help="positions a step (default: 32768; toy: 2048)")
    parser.add_argument("--device", default=None)


def run_target(args: argparse.Namespace) -> None:
    from .codec import load_tokens

    config, positions = SIZES[args.size]
    train(
        "small" if args.size == "small" else "target",
        with_alphabet(with_table(config, args.codes, args.table), args.alphabet),
        args.work,
        load_tokens(f"{args.work}/tokens.npz"),
        load_tokens(f"{args.work}/heldout.npz"),
        args.budget,
        device_of(args.device),
        args.lr,
        args.positions or positions,
        args.dropout,
        args.noise,
        warmup=args.warmup,
        init=args.init,
        round_last=args.round_last,
    )


def add_draft_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", required=True, help="holds tokens.npz, heldout.npz and target.safetensors")
    parser.add_argument("--budget", type=float, default=100, help="seconds of plain training (draft_plain.safetensors)")
    parser.add_argument("--distil-budget", type=float, default=100, help="seconds of distillation (draft.safetensors)")
    add_alphabet_argument(parser)
    add_table_arguments(parser)
    parser.add_argument("--positions", type=int, default=32768)
    parser.add_argument("--device", default=None)


def train_drafts(
    work: str,
    documents: Documents,
    held: Documents,
    plain_budget: float,
    distil_budget: float,
    device: torch.device,
    config: dict[str, Any] = DRAFT,
    positions: int = 32768,
    max_steps: int | None = None,
) -> dict[str, dict[str, Any]]:
    options = {"positions": positions, "max_steps": max_steps}
    plain, a = train(
        "draft_plain", config, work, documents, held, plain_budget, device, 2e-3, dropout=0.0, noise=0.06, **options
    )
    target = load_lm(f"{work}/target.safetensors", device)
    start = load_lm(f"{work}/draft_plain.safetensors", device).requires_grad_(True)
    distilled, b = train(
        "draft",
        config,
        work,
        documents,
        held,
        distil_budget,
        device,
        1e-3,
        dropout=0.0,
        noise=0.0,
        aux=0.0,
        teacher=target,
        start=start,
        **options,
    )
    return {"plain": a, "distilled": b}


def run_draft(args: argparse.Namespace) -> None:
    from .codec import load_tokens

    device = device_of(args.device)
    config = with_alphabet(with_table(DRAFT, args.codes, args.table), args.alphabet)
    alphabet = ALPHABETS[args.alphabet]
    documents = Documents(load_tokens(f"{args.work}/tokens.npz"), device, args.codes, alphabet)
    held = Documents(load_tokens(f"{args.work}/heldout.npz"), device, args.codes, alphabet)
    train_drafts(args.work, documents, held, args.budget, args.distil_budget, device, config, args.positions)


def add_acceptance_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", required=True, help="holds heldout.npz, target.safetensors and the drafts")
    parser.add_argument("--limit", type=int, default=20000, help="positions")
    parser.add_argument("--device", default=None)


def measure_acceptance(
    work: str, device: torch.device, limit: int = 20000, positions: int = 32768, groups: bool = True
) -> dict[str, dict[str, Any]]:
    from .codec import load_tokens

    target = load_lm(f"{work}/target.safetensors", device)
    held = Documents(load_tokens(f"{work}/heldout.npz"), device, target.ids.speech, target.characters)
    packed = held.to_device(held.pack(positions))
    result = {}
    for name in ("draft_plain", "draft"):
        if os.path.exists(f"{work}/{name}.safetensors"):
            draft = load_lm(f"{work}/{name}.safetensors", device)
            draft.packed = target.packed = probe_packed(device)
            result[name] = acceptance(target, draft, held, packed, device, limit, groups=groups)
            log("acceptance", name, result[name])
    return result


def run_acceptance(args: argparse.Namespace) -> None:
    import json

    result = measure_acceptance(args.work, device_of(args.device), args.limit)
    with open(f"{args.work}/acceptance.json", "w") as f:
        json.dump(result, f, indent=1)
