"""Many utterances sampled at T = 1 from a language model, in large batches.

With factorised tables a code is drawn in two halves: its high byte from 256 exact sums over the low bytes (and end of
speech), then its low byte given the high one. No 65,536-way softmax is formed. On a GPU one step is
a CUDA graph, captured again each time the visible part of the cache grows by `BUCKET` positions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..common import END, log
from .lm import FACTORED, LanguageModel, byte_scores, cross_scores, rope_table, rotate

BUCKET = 128
# Tokens that a text can need: 1.5 times the synthesiser's usual pace.
TOKENS_A_CHARACTER, TOKENS_MORE = 4.0, 70


def byte_values(device: torch.device) -> torch.Tensor:
    """The byte of each row of `byte_scores(...).reshape(n, 256)`, whose first digit varies slowest there."""
    i = torch.arange(256, device=device)
    return (i >> 6) | ((i >> 4) & 3) << 2 | ((i >> 2) & 3) << 4 | (i & 3) << 6


def half_logits(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[N, 481] -> logits of the 256 high bytes and of end of speech [N, 257]; what the low bytes add [N, 256],
    [N, 256 high, 4 digits, 4 levels]."""
    scores = scores.float()
    n = scores.shape[0]
    high = byte_scores(scores, (4, 5, 6, 7)).reshape(n, 256)
    low = byte_scores(scores, (0, 1, 2, 3)).reshape(n, 256)
    cross = torch.stack([cross_scores(scores, j).reshape(n, 256, 4) for j in range(4)], 2)
    top = low.amax(1, keepdim=True)
    tops = cross.amax(3, keepdim=True)
    e = torch.exp(cross - tops)
    first = (e[:, :, 0, :, None] * e[:, :, 1, None, :]).reshape(n, 256, 16)
    second = (e[:, :, 2, :, None] * e[:, :, 3, None, :]).reshape(n, 256, 16)
    total = (torch.bmm(first, torch.exp(low - top).reshape(n, 16, 16)) * second).sum(2)
    logits = high + top + tops.sum((2, 3)) + torch.log(total.clamp_min(1e-37))
    return torch.cat([logits, scores[:, 480:481]], 1), low, cross


def draw(logits: torch.Tensor) -> torch.Tensor:
    """One index a row with the probabilities of its softmax: the first of exponential races."""
    race = torch.empty_like(logits).exponential_().clamp_min(1e-30)
    return (logits - race.log()).argmax(1)


def low_logits(low: torch.Tensor, cross: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Logits of the 256 low bytes where the high byte is row `high` [N] of `half_logits`."""
    n = len(high)
    c = cross.gather(1, high[:, None, None, None].expand(n, 1, 4, 4))[:, 0]
    total = low.reshape(n, 4, 4, 4, 4)
    for j in range(4):
        shape = [n, 1, 1, 1, 1]
        shape[1 + j] = 4
        total = total + c[:, j].reshape(shape)
    return total.reshape(n, 256)


def sample_codes(scores: torch.Tensor, values: torch.Tensor | None) -> torch.Tensor:
    """Scores -> N tokens at T = 1, end of speech among them."""
    if scores.shape[1] != FACTORED:
        return draw(scores)
    logits, low, cross = half_logits(scores)
    pick = draw(logits)
    high = pick.clamp_max(255)
    lower = draw(low_logits(low, cross, high))
    return ((values[high] << 8) | values[lower]).masked_fill(pick == 256, END)


class Batch:
    """The state of one batch of utterances, which all step in time (prompts padded on the left)."""

    def __init__(
        self,
        model: LanguageModel,
        texts: list[str],
        speakers: Sequence[int],
        longest: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        c = model.config
        self.model, self.config, self.device = model, c, device
        self.dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.heads, self.size = c["nh"], c["H"] // c["nh"]
        self.weights = [
            tuple(w.detach().to(self.dtype if w.ndim == 2 else torch.float32) for w in model.weights(l))
            for l in model.layers
        ]
        self.table = model.input_embedding.rows().detach().to(self.dtype)
        self.values = byte_values(device)
        self.ids = ids = model.ids
        lut = {ch: ids.first_character + i for i, ch in enumerate(model.characters)}
        prompts = [[ids.begins[s]] + [lut[ch] for ch in t] + [ids.start] for t, s in zip(texts, speakers)]
        self.width = max(map(len, prompts))
        n = len(texts)
        self.prompt = torch.tensor([[ids.begin] * (self.width - len(p)) + p for p in prompts], device=device)
        self.pad = torch.tensor([self.width - len(p) for p in prompts], device=device)
        self.total = -(-(self.width + longest) // BUCKET) * BUCKET
        self.keys = [
            torch.zeros(n, self.heads, self.total, self.size, dtype=self.dtype, device=device) for _ in self.weights
        ]
        self.memory = [torch.zeros_like(k) for k in self.keys]
        self.spots = torch.arange(self.total, device=device)
        self.cos, self.sin = (t[:, 0] for t in rope_table(self.spots, self.size, c["rope_base"]))
        self.token = torch.zeros(n, dtype=torch.long, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.out = torch.full((n, self.total), ids.end, dtype=torch.long, device=device)
        self.ended = torch.zeros(n, dtype=torch.bool, device=device)

    def layers(self, tokens: torch.Tensor, places: torch.Tensor, length: int) -> torch.Tensor:
        """Runs [N, S] tokens at cache places [S] over the first `length` places; scores of the last one."""
        n, s = tokens.shape
        x = self.model.look_up(tokens, self.table).float()
        own = (places[None] - self.pad[:, None]).clamp_min(0)
        cos, sin = self.cos[own][:, :, None], self.sin[own][:, :, None]
        spots = self.spots[:length]
        seen = (spots <= places[None, :, None]) & (spots >= self.pad[:, None, None])
        # A padded place sees itself, so that no row of the mask is empty.
        seen = (seen | (spots == places[None, :, None]))[:, None]
        # Added to the scores: a boolean mask would be converted with a copy from the host, which no capture allows.
        seen = torch.zeros(seen.shape, dtype=self.dtype, device=self.device).masked_fill_(~seen, float("-inf"))
        width, eps = self.config["H"], self.config["rms_eps"]
        for l, (attn_norm, qkv, attn_out, mlp_norm, gate_up, down) in enumerate(self.weights):
            y = F.rms_norm(x, (width,), attn_norm, eps).to(self.dtype)
            q, k, v = F.linear(y, qkv).reshape(n, s, 3, self.heads, self.size).unbind(2)
            q, k = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2)
            self.keys[l].index_copy_(2, places, k)
            self.memory[l].index_copy_(2, places, v.transpose(1, 2))
            y = F.scaled_dot_product_attention(
                q, self.keys[l][:, :, :length], self.memory[l][:, :, :length], attn_mask=seen
            )
            x = x + F.linear(y.transpose(1, 2).reshape(n, s, -1), attn_out)
            y = F.rms_norm(x, (width,), mlp_norm, eps).to(self.dtype)
            gate, up = F.linear(y, gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        hidden = F.rms_norm(x[:, -1], (width,), self.model.final_norm.weight, eps)
        return self.model._head(hidden)

    def emit(self, scores: torch.Tensor) -> None:
        token = sample_codes(scores, self.values)
        self.out.index_copy_(1, self.at, token[:, None])
        self.ended.logical_or_(token == self.ids.end)
        self.token.copy_(token.clamp_max(self.ids.speech - 1))

    def start(self) -> None:
        places = torch.arange(self.width, device=self.device)
        scores = self.layers(self.prompt, places, self.width)
        self.at.fill_(self.width)
        self.emit(scores)

    def step(self, length: int) -> None:
        """One token more: it reads and moves its own state only, so that it can be captured."""
        scores = self.layers(self.token[:, None], self.at, length)
        self.at.add_(1)
        self.emit(scores)

    def results(self) -> dict[int, np.ndarray]:
        """The tokens of the utterances that ended: {row: array}."""
        out = self.out[:, self.width :].cpu().numpy()
        first = (out == self.ids.end).argmax(1)
        done = self.ended.cpu().numpy() & (first > 0)
        return {i: out[i, : first[i]].astype(np.uint16) for i in np.flatnonzero(done)}


@torch.no_grad()
def sample_batch(
    model: LanguageModel,
    texts: list[str],
    speakers: Sequence[int],
    longest: int,
    device: torch.device,
    graphs: bool = True,
    deadline: float = float("inf"),
    enough: float = 0.995,
    dtype: torch.dtype | None = None,
) -> dict[int, np.ndarray]:
    """{row: tokens} of the utterances that ended before `longest`, the deadline, or `enough` of the others did."""
    batch = Batch(model, texts, speakers, longest, device, dtype)
    batch.start()
    at, step, graph, bucket = batch.width, 0, None, 0
    # The last place is emitted but never read.
    while at < batch.total - 1:
        length = min(batch.total, -(-(at + 1) // BUCKET) * BUCKET)
        if not graphs:
            batch.step(length)
        elif length != bucket:
            # A real step on a side stream warms up what a capture must not allocate.
            graph, bucket = None, length
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                batch.step(length)
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                batch.step(length)
        else:
            graph.replay()
        at, step = at + 1, step + 1
        if step % 16 == 0 and (float(batch.ended.float().mean()) >= enough or time.monotonic() > deadline):
            break
    return batch.results()


def sample(
    model: LanguageModel,
    texts: list[str],
    budget: float,
    device: torch.device,
    memory: int | None = None,
    largest: int | None = None,
    seed: int = 1,
    limit: int | None = None,
    voices: int = 1,
) -> dict[str, Any]:
    """Utterances of these texts (in a random order) until `budget` seconds are over: token data as `Documents` takes
    it.

    Each text is spoken by one of the first `voices` speakers, drawn at random."""
    began = time.monotonic()
    rng = np.random.default_rng(seed)
    speakers = rng.integers(0, voices, len(texts)).astype(np.uint8)
    c = model.config
    graphs = device.type == "cuda"
    largest = largest or (1536 if graphs else 16)
    memory = memory or (min(24e9, 0.5 * torch.cuda.mem_get_info()[0]) if graphs else 5e8)
    a_position = (4 if graphs else 8) * c["H"] * c["nl"]
    order = rng.permutation(len(texts))[:limit]
    kept, tokens, slowest, failures = [], [], 0.0, 0
    # Each round has every length; its batches hold similar ones.
    for start in range(0, len(order), 16 * largest):
        group = order[start : start + 16 * largest]
        group = group[np.argsort([len(texts[i]) for i in group], kind="stable")]
        batches, at = [], 0
        while at < len(group):
            size = min(largest, len(group) - at)
            for _ in range(3):
                longest = int(TOKENS_A_CHARACTER * len(texts[group[at + size - 1]]) + TOKENS_MORE)
                size = max(1, min(size, int(memory / a_position / (1.5 * longest))))
            batches.append(group[at : at + size])
            at += size
        for j in rng.permutation(len(batches)):
            left = budget - (time.monotonic() - began)
            if left < max(2.0 if budget > 10 else 0.0, 0.7 * slowest):
                return pack(texts, speakers, kept, tokens)
            rows = batches[j]
            chosen = [texts[i] for i in rows]
            longest = int(TOKENS_A_CHARACTER * max(map(len, chosen)) + TOKENS_MORE)
            first = time.monotonic()
            deadline = first + left + 5
            try:
                found = sample_batch(model, chosen, speakers[rows], longest, device, graphs, deadline)
            except Exception as error:  # noqa: BLE001 - a capture that fails, or memory
                if device.type != "cuda":
                    raise
                log("sampling:", repr(error)[:300], "- goes on without graphs" if graphs else "- batch left out")
                failures += not graphs
                if failures > 3:
                    return pack(texts, speakers, kept, tokens)
                graphs = False
                torch.cuda.empty_cache()
                continue
            seconds = time.monotonic() - first
            slowest = max(slowest, seconds)
            kept += [rows[i] for i in found]
            tokens += list(found.values())
            log(
                f"sampled {len(found)} of {len(rows)} utterances, "
                f"{sum(map(len, found.values()))} tokens in {seconds:.1f} s"
            )
    return pack(texts, speakers, kept, tokens)


def pack(
    texts: list[str], speakers: Sequence[int], kept: Sequence[int], tokens: Sequence[np.ndarray]
) -> dict[str, Any]:
    return {
        "ids": np.array(kept, np.int64),
        "texts": [texts[i] for i in kept],
        "speakers": speakers[kept],
        "lengths": np.array([len(t) for t in tokens], np.int32),
        "tokens": np.concatenate(tokens) if tokens else np.zeros(0, np.uint16),
    }
