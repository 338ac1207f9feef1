"""Stage draft-features: a draft of one layer that sees the target's features (EAGLE, arXiv 2401.15077).

At position i the draft reads Embed(token_i) + W f_i, where f_i is the target's hidden state (after its
final norm) at position i - 1, the one that predicted token_i; f_0 = 0. Its own normed output g_i takes
the place of the target's where the target has not been yet. A draft token at depth k is thus made from
k - 1 of the draft's own features, and training goes through the same chain (arXiv 2503.01840):

- step 1 has true features everywhere: outputs g1_i, keys and values K1_i;
With taps f_i is wider: [tap_1 | .. | tap_n | hidden], the target's residual stream after some of its layers before its
final state. Where the draft's own output stands in, the places of the taps are zero.

- step k has f_i = g(k-1)_(i-1). Its query at position i is the k-th token drafted after position
  p = i - k + 1, the last one with a true feature. It sees K1_j for j <= p, and of each step m = 2..k the
  one key of position p + m - 1 = i - k + m.

That is what the engine's cache holds when it drafts, rolls back, and reads the accepted tokens again
with true features; tests/test_features.py compares the two.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..common import START, Clock, Ids, autocast, device_of, load, log, maybe_compile, speed_settings
from ..files import ship
from . import lm
from .loop import Epochs, Loop

EXAMPLE = (
    "python -m voxgrain_tools draft-features --bundle models/voice --tokens out --heldout out/samples_1.zip "
    "--work /tmp/vx --out out --budget 560"
)
CONFIG = {"H": 512, "nl": 1, "nh": 8, "I": 1376, "features": 512}
TOY = {"H": 64, "nl": 1, "nh": 2, "I": 96, "features": 64}
NAME = "draft_features"


def heads_of(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    attn_norm: torch.Tensor,
    qkv: torch.Tensor,
    heads: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotated queries and keys, and values, [n, heads, size] each."""
    n, width = x.shape
    y = F.linear(F.rms_norm(x, (width,), attn_norm, eps), qkv)
    q, k, v = y.reshape(n, 3, heads, width // heads).unbind(1)
    return lm.rotate(q, cos, sin), lm.rotate(k, cos, sin), v.contiguous()


def rest_of(
    x: torch.Tensor,
    y: torch.Tensor,
    attn_out: torch.Tensor,
    mlp_norm: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    n, width = x.shape
    x = x + F.linear(y.reshape(n, width), attn_out)
    gate, up = F.linear(F.rms_norm(x, (width,), mlp_norm, eps), gate_up).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, down)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    own_k: torch.Tensor,
    own_v: torch.Tensor,
    own_ok: torch.Tensor,
    documents: torch.Tensor,
    back: int,
    row: int,
) -> torch.Tensor:
    """Softmax over true keys `back` or more positions before the query, in its document, and the keys drafted for it.

    q, k, v [n, heads, size]; own_k, own_v [n, drafted, heads, size]; own_ok [n, drafted], of which one must hold."""
    n, heads, size = q.shape
    scale = size**-0.5
    rows = lambda t: t.reshape(-1, row, heads, size).transpose(1, 2)  # noqa: E731
    d, spot = documents.reshape(-1, row), torch.arange(row, device=q.device)
    seen = (d[:, :, None] == d[:, None, :]) & (spot[None, :] <= spot[:, None] - back)
    far = (rows(q) @ rows(k).transpose(2, 3)).float() * scale
    far = far.masked_fill(~seen[:, None], float("-inf"))
    near = (q.unsqueeze(1).float() * own_k.float()).sum(-1) * scale
    near = near.masked_fill(~own_ok.unsqueeze(-1), float("-inf"))
    near = near.transpose(1, 2).reshape(-1, row, heads, own_k.shape[1]).transpose(1, 2)
    top = torch.maximum(far.amax(-1, keepdim=True), near.amax(-1, keepdim=True)).detach()
    far, near = torch.exp(far - top), torch.exp(near - top)
    total = far.sum(-1, keepdim=True) + near.sum(-1, keepdim=True)
    y = (far.to(v.dtype) @ rows(v)).float() / total
    near = (near / total).transpose(1, 2).reshape(n, heads, -1).transpose(1, 2)
    y = y.transpose(1, 2).reshape(n, heads, size) + (near.unsqueeze(-1) * own_v.float()).sum(1)
    return y.to(v.dtype)


class Unroll:
    """The draft's chain over packed documents, step by step."""

    def __init__(self, draft: lm.LanguageModel, steps: int, row: int, packed: bool = False) -> None:
        self.draft, self.steps, self.row, self.packed = draft, steps, row, packed
        self.heads_of, self.rest_of, self.attend, self.embed = heads_of, rest_of, attend, draft._embed

    def compile(self, device: torch.device) -> Unroll:
        for name in ("heads_of", "rest_of", "attend", "embed"):
            setattr(self, name, maybe_compile(getattr(self, name), device, dynamic=False))
        return self

    def __call__(
        self,
        tokens: torch.Tensor,
        places: torch.Tensor,
        documents: torch.Tensor,
        bounds: torch.Tensor,
        hidden: torch.Tensor,
    ) -> list[torch.Tensor]:
        """`hidden`: the target's states [n, F], taps before them. A list of [n, H] outputs, one a step."""
        draft, c = self.draft, self.draft.config
        cos, sin = lm.rope_table(places, c["H"] // c["nh"], c["rope_base"])
        first = (places > 0).unsqueeze(1)
        before = lambda states: torch.where(first, states.roll(1, 0), 0.0)  # noqa: E731
        embedding = self.embed(tokens)
        made = [[] for _ in draft.layers]
        outputs, feature = [], before(hidden)
        for step in range(self.steps):
            # Its own outputs are as wide as the last part of the features.
            x = embedding + F.linear(feature, draft.feature.weight[:, -feature.shape[1] :])
            for l, weights in zip(made, draft.layers):
                attn_norm, qkv, attn_out, mlp_norm, gate_up, down = draft.weights(weights)
                q, k, v = self.heads_of(x, cos, sin, attn_norm, qkv, c["nh"], c["rms_eps"])
                l.append((k, v))
                if step:
                    y = self.drafted(q, l, places, documents)
                elif self.packed:
                    y = lm.varlen(q.bfloat16(), k.bfloat16(), v.bfloat16(), bounds)
                else:
                    y = lm.sdpa_rows(q, k, v, documents)
                x = self.rest_of(x, y, attn_out, mlp_norm, gate_up, down, c["rms_eps"])
            outputs.append(F.rms_norm(x, (c["H"],), draft.final_norm.weight, c["rms_eps"]))
            feature = before(outputs[-1])
        return outputs

    def drafted(self, q: torch.Tensor, made: Any, places: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """Attention of the last step, which is number len(made) - 1 counted from 0."""
        step = len(made) - 1
        # Step m's key for the query at i is that of position i - (step - m). Padded to one shape for every step.
        pairs = [tuple(t.roll(step - m, 0) for t in made[m]) for m in range(1, step)] + [made[step]] * (
            self.steps - step
        )
        keys, values = (torch.stack(t, 1) for t in zip(*pairs))
        reaches = (places >= step).unsqueeze(1)
        ok = torch.cat(
            [
                reaches.expand(-1, step - 1),
                torch.ones_like(reaches),
                torch.zeros_like(reaches).expand(-1, self.steps - step - 1),
            ],
            1,
        )
        back = torch.full((), step, device=q.device)
        return self.attend(q, *made[0], keys, values, ok, documents, back, self.row)

    def counts(self, targets: torch.Tensor, places: torch.Tensor) -> list[torch.Tensor]:
        """Which positions of each step are real: predicting speech, the chain begun within the document's speech."""
        speech = targets >= 0
        return [speech & (places >= s) & speech.roll(s, 0) for s in range(self.steps)]


def start_from(target: lm.LanguageModel, config: dict[str, Any]) -> lm.LanguageModel:
    """A draft whose embedding, head and final norm are the target's: its outputs begin in the target's feature
    space."""
    shared = ("nph", "rms_eps", "rope_base", "table", "codes", "characters")
    draft = lm.LanguageModel(dict(config, **{k: target.config[k] for k in shared if k in target.config}))
    if config["H"] == target.config["H"]:
        for part in ("input_embedding", "output_head", "final_norm"):
            getattr(draft, part).load_state_dict(getattr(target, part).state_dict())
    return draft


def widened(path: str, config: dict[str, Any]) -> lm.LanguageModel:
    """A draft to go on from; one without taps gets those of the config, which count for nothing at first."""
    draft = lm.load_any(path)
    if draft.config.get("features") == config["features"] and draft.taps == tuple(config.get("taps", ())):
        return draft
    if draft.taps or draft.config.get("features") != config["H"]:
        raise ValueError(f"{path}: taps can be added to a draft that has none, not changed")
    wide = lm.LanguageModel(dict(draft.config, features=config["features"], taps=config["taps"]))
    state = draft.state_dict()
    state["feature.weight"] = F.pad(state["feature.weight"], (config["features"] - config["H"], 0))
    wide.load_state_dict(state)
    return wide


def teach(
    target: lm.LanguageModel,
    tokens: torch.Tensor,
    places: torch.Tensor,
    numbers: torch.Tensor,
    bounds: torch.Tensor,
    device: torch.device,
    lse_of: Callable[..., torch.Tensor] = lm.total_lse,
    taps: Sequence[int] = (),
) -> Any:
    """The target's states (taps before them), its 481 marginals, and the part of KL that is its own (negative
    entropy)."""
    with torch.no_grad(), autocast(device):
        states = target(tokens, places, numbers, bounds, taps=taps)
        scores = target._head(states[:, -target.config["H"] :])
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        lse = lse_of(scores)
        (marginals,) = torch.autograd.grad(lse.sum(), scores)
    own = lse.detach() - (marginals * scores.detach()).sum(1)
    return states.float(), marginals, own


def overlaps(
    theirs: torch.Tensor, mine: torch.Tensor, sizes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log sum min(p, q) and sum min(p, q) of each row of scores: what rejection sampling accepts.

    `sizes`: of the groups of radius 1, `ball_sizes`; the mean of the two losses, by token and by group, is taken."""
    p, q = lm.full_logits(theirs).softmax(1), lm.full_logits(mine).softmax(1)
    accepted = torch.minimum(p, q).sum(1)
    loss = -accepted.clamp_min(1e-6).log()
    if sizes is not None:
        grouped = torch.minimum(ball_sums(p[:, :-1] / sizes, 1), ball_sums(q[:, :-1] / sizes, 1)).sum(1)
        loss = (loss - (grouped + torch.minimum(p, q)[:, -1]).clamp_min(1e-6).log()) / 2
    return loss, accepted


def chain_overlap(
    unroll: Unroll,
    target: lm.LanguageModel,
    batch: Sequence[torch.Tensor],
    device: torch.device,
    part: Callable[..., Any] = overlaps,
    count: int = 2048,
    sizes: torch.Tensor | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The mean loss of `overlaps` of each step and the mean acceptance, over `count` random starts of speech."""
    tokens, places, numbers, bounds, targets, _ = batch
    draft = unroll.draft
    with torch.no_grad(), autocast(device):
        states = target(tokens, places, numbers, bounds, taps=draft.taps)
        theirs = target._head(states[:, -target.config["H"] :])
    with autocast(device):
        outputs = unroll(tokens, places, numbers, bounds, states.float())
    valid = unroll.counts(targets, places)
    # The same positions for all steps, so that the target's laws are formed once: those that every depth can reach.
    weights = valid[-1].float() + 1e-9
    at = torch.multinomial(weights, min(count, len(weights)))
    sure = valid[-1][at].float()
    losses, accepted = [], []
    for g in outputs:
        loss, share = part(theirs[at], draft.scores(g[at]), sizes)
        losses.append((loss * sure).sum() / sure.sum().clamp_min(1))
        accepted.append((share.detach() * sure).sum() / sure.sum().clamp_min(1))
    return losses, accepted


def chain_kl(
    unroll: Unroll,
    target: lm.LanguageModel,
    batch: Sequence[torch.Tensor],
    device: torch.device,
    kl: Callable[..., torch.Tensor] = lm.kl_part,
    lse_of: Callable[..., torch.Tensor] = lm.total_lse,
    rows_of: Callable[..., torch.Tensor] = lm.kl_rows,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The mean KL to the target of each step, in nats, and of how many positions."""
    tokens, places, numbers, bounds, targets, _ = batch
    draft = unroll.draft
    if target.plain:
        with torch.no_grad(), autocast(device):
            states = target(tokens, places, numbers, bounds, taps=draft.taps)
        hidden = states.float()
        states = states[:, -target.config["H"] :]
    else:
        hidden, marginals, own = teach(target, tokens, places, numbers, bounds, device, lse_of, draft.taps)
    with autocast(device):
        outputs = unroll(tokens, places, numbers, bounds, hidden)
    valid = [v.float() for v in unroll.counts(targets, places)]
    counts = [v.sum() for v in valid]
    if target.plain:
        return list(lm.plain_kl(draft, outputs, target, states, torch.stack(valid, 1), rows_of)), counts
    return [
        kl(draft.scores(g), marginals, v) - (own * v).sum() / n.clamp_min(1) for g, v, n in zip(outputs, valid, counts)
    ], counts


@torch.no_grad()
def evaluate(
    unroll: Unroll, target: lm.LanguageModel, documents: lm.Documents, packed: list[torch.Tensor], device: torch.device
) -> list[float]:
    """Held-out KL of each step, in nats."""
    sums, counts = [0.0] * unroll.steps, [0.0] * unroll.steps
    for i in range(len(packed[0])):
        for s, (value, n) in enumerate(zip(*chain_kl(unroll, target, documents.batch(packed, i), device))):
            sums[s] += float(value) * float(n)
            counts[s] += float(n)
    return [a / max(1.0, b) for a, b in zip(sums, counts)]


class Mixture:
    """Epochs of a share of sampled utterances and corpus ones for the rest."""

    def __init__(self, documents: lm.Documents, sampled: np.ndarray, share: float) -> None:
        count = len(documents.lengths)
        self.documents, self.share = documents, share if sampled else 0.0
        self.corpus, self.sampled = np.arange(count - sampled), np.arange(count - sampled, count)

    def pack(self, positions: int, row: int, seed: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(seed)
        chosen, lengths = self.corpus, self.documents.lengths
        if self.share:
            # As many corpus positions as the share asks for beside all samples.
            wanted = lengths[self.sampled].sum() * (1 - self.share) / self.share
            chosen = rng.permutation(self.corpus)
            chosen = (
                chosen[: int(np.searchsorted(np.cumsum(lengths[chosen]), wanted)) + 1] if self.share < 1 else chosen[:0]
            )
            chosen = np.concatenate([chosen, self.sampled])
        return self.documents.pack(positions, seed, row, chosen)


def train(
    config: dict[str, Any],
    work: str,
    target: lm.LanguageModel,
    mixture: Mixture,
    held: lm.Documents,
    budget: float,
    device: torch.device,
    out: str | None = None,
    steps: int = 5,
    decay: float = 0.8,
    lr: float = 1.5e-3,
    positions: int = 32768,
    row: int = 1024,
    noise: float = 0.05,
    warmup: int = 100,
    weight_decay: float = 0.05,
    validate_every: float = 45.0,
    max_steps: int | None = None,
    seed: int = 1,
    report: Callable[[list[dict[str, Any]]], None] | None = None,
    start: str | None = None,
    overlap_last: float = 0.0,
    overlap_groups: bool = False,
    starts: int = 2048,
) -> tuple[lm.LanguageModel, dict[str, Any]]:
    """Trains a feature draft, saves the best by held-out KL as work/draft_features.safetensors; the model and its
    record. In the last share `overlap_last` of the time the loss is -log of what would be accepted, at `starts` random
    places (with `overlap_groups` half of it by groups of radius 1), and what is kept is the best by acceptance.

    Steps weigh decay^(k - 1): a depth is reached only where all before it were accepted, which by groups
    happens to about four in five."""
    speed_settings(device)
    clock = Clock(budget)
    documents = mixture.documents
    draft = (start_from(target, config) if start is None else widened(start, config)).to(device).train()
    draft.requires_grad_(True)
    target.eval().requires_grad_(False)
    packed_attention = lm.probe_packed(device)
    target.packed = packed_attention
    weights = [decay**s for s in range(steps)]
    weights = [w / sum(weights) for w in weights]
    matrices = [
        p for n, p in draft.named_parameters() if p.ndim == 2 and (n.startswith("layers") or n.startswith("feature"))
    ]
    known = {id(p) for p in matrices}
    others = [p for p in draft.parameters() if id(p) not in known]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr,
        (0.9, 0.95),
        fused=device.type == "cuda",
    )
    parameters = matrices + others
    # Validation stays uncompiled: it would compile everything once more without gradients.
    plain = Unroll(draft, steps, row, packed_attention)

    def losses(unroll, functions, batch):
        if noise:
            batch = (lm.disturb(batch[0], noise, target.ids.digits), *batch[1:])
        if phase:
            each, figures = chain_overlap(unroll, target, batch, device, functions[3], starts, sizes)
        else:
            each, _ = chain_kl(unroll, target, batch, device, *functions[:3])
            figures = each
        return sum(w * e for w, e in zip(weights, each)), torch.stack([e.detach() for e in figures])

    phase: list[str] = []  # Holds "overlap" once the loss is that.
    sizes = ball_sizes((1,), device, target.ids.speech)[1] if overlap_groups else None
    # What is tried in turn: compiled, uncompiled, and then fewer positions a step.
    ways = [(True, positions)] if device.type == "cuda" else []
    ways += [(False, positions), (False, max(row, positions // 2)), (False, max(row, positions // 4))]
    functions = (lm.kl_part, lm.total_lse, lm.kl_rows, overlaps)
    for compiled, positions in ways:
        try:
            if compiled:
                unroll = Unroll(draft, steps, row, packed_attention).compile(device)
                target.compile(device)
                made = [maybe_compile(f, device, dynamic=False) for f in functions]
            else:
                unroll, made = plain, functions
                target.layer, target.embed = lm.layer, target._embed
            epoch_data = mixture.pack(positions, row, seed * 1000)
            packed = documents.to_device(epoch_data)
            losses(unroll, made, documents.batch(packed, 0))[0].backward()
            if overlap_last:  # Both phases must fit.
                phase.append("overlap")
                losses(unroll, made, documents.batch(packed, 0))[0].backward()
                phase.clear()
            if device.type == "cuda":
                torch.cuda.synchronize()
            break
        except Exception as error:  # noqa: BLE001 - out of memory or a failure of the compiler
            log(
                f"{NAME}: {'compiled' if compiled else 'plain'} steps of {positions} positions fail:", repr(error)[:500]
            )
            optimizer.zero_grad(set_to_none=True)
            phase.clear()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    else:
        raise RuntimeError("no way to run a training step worked")
    optimizer.zero_grad(set_to_none=True)
    held_packed = held.to_device(held.pack(positions, row=row))
    if device.type == "cuda":
        log(f"{NAME}: peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    log(
        f"{NAME}: {sum(p.numel() for p in parameters) / 1e6:.2f} M, {len(packed[0])} batches an epoch "
        f"of {positions} positions, "
        f"{'compiled' if compiled else 'uncompiled'}, ready after {clock.elapsed():.1f} s, "
        f"training {clock.left():.0f} s"
    )

    path = f"{work}/{NAME}.safetensors"

    def weigh(each):
        return sum(w * e for w, e in zip(weights, each))

    def validate():
        if phase:
            with torch.no_grad():
                torch.manual_seed(seed)
                found = [
                    torch.stack(chain_overlap(plain, target, held.batch(held_packed, i), device, count=512)[1])
                    for i in range(len(held_packed[0]))
                ]
            each = torch.stack(found).mean(0).tolist()
            return 1 - weigh(each), {"heldout_accepted": [round(e, 4) for e in each]}
        each = evaluate(plain, target, held, held_packed, device)
        return weigh(each), {"heldout_kl": [round(e, 4) for e in each]}

    def advance(packed, batch):
        share = loop.clock.share() if max_steps is None else loop.steps / max_steps
        if overlap_last and not phase and share >= 1 - overlap_last:
            loop.check()
            phase.append("overlap")
            log(f"{NAME}: the loss is what would be accepted, from step {loop.steps} on")
            loop.best, loop.unit = float("inf"), "rejection"
            loop.check()
        return losses(unroll, made, documents.batch(packed, batch))

    def keep(facts):
        draft.save(path, facts)
        if out and not draft.plain:
            draft.save(f"{out}/{NAME}.safetensors", facts)

    loop = Loop(
        NAME,
        "kl",
        Clock(clock.left() - (8 if max_steps is None else 0)),
        Epochs(lambda e: mixture.pack(positions, row, seed * 1000 + e), documents.to_device, seed, first=packed),
        optimizer,
        parameters,
        lr,
        warmup,
        positions,
        step=advance,
        validate=validate,
        save=keep,
        restore=lambda: draft.load_state_dict(load(path)[0]),
        value_of=weigh,
        report=report,
        floor=0.01,
        max_steps=max_steps,
        validate_every=validate_every,
        first_validation=20.0,
        margin=10.0,
    )
    loop.run()
    if out and draft.plain:
        log(f"{NAME}:", [os.path.basename(n) for n in ship(path, out)])
    return lm.load_lm(path, device), {
        "best": loop.best,
        "first": loop.first,
        "last": loop.last,
        "record": loop.record,
        "steps": loop.steps,
        "positions": positions,
        "compiled": compiled,
    }


def ball_sums(x: torch.Tensor, radius: int) -> torch.Tensor:
    """[N, codes] -> sums over all codes within an L1 distance of the digits, one digit at a time."""
    by_distance = [x] + [None] * radius
    digits = Ids(x.shape[1]).digits
    for digit in range(digits):
        shape = (len(x), 4 ** (digits - 1 - digit), 4, 4**digit)
        new = list(by_distance)
        for r in range(1, radius + 1):
            for s in range(1, min(r, 3) + 1):
                if by_distance[r - s] is None:
                    continue
                old = by_distance[r - s].reshape(shape)
                moved = torch.zeros_like(old)
                moved[:, :, s:] += old[:, :, :-s]
                moved[:, :, :-s] += old[:, :, s:]
                moved = moved.reshape(len(x), -1)
                new[r] = moved if new[r] is None else new[r] + moved
        by_distance = new
    return sum(t for t in by_distance if t is not None)


def ball_sizes(radii: Iterable[int], device: torch.device | str, codes: int = 65536) -> dict[int, torch.Tensor]:
    ones = torch.ones(1, codes, device=device)
    return {r: ball_sums(ones, r) for r in radii}


def laws_of(scores: torch.Tensor, sizes: dict[int, torch.Tensor]) -> dict[Any, torch.Tensor]:
    """Laws of the tokens and of the groups of each radius: a token's probability is split equally among its groups."""
    p = lm.full_logits(scores).softmax(1)
    laws = {"token": p}
    for r, size in sizes.items():
        laws[f"fsq_{r}"] = torch.cat([ball_sums(p[:, :-1] / size, r), p[:, -1:]], 1)
    return laws


@torch.no_grad()
def acceptance(
    target: lm.LanguageModel,
    drafts: dict[str, Any],
    documents: lm.Documents,
    packed: list[torch.Tensor],
    device: torch.device,
    row: int,
    steps: int = 5,
    limit: int = 8000,
    chunk: int = 128,
    radii: Sequence[int] = (1, 2),
) -> dict[str, Any]:
    """Teacher-forced acceptance at T = 1 by depth, at the same starts for every depth.

    `drafts`: {name: model}; a feature draft runs on its own features after depth 1, an old-style one is the
    same at every depth. `round_k`: 1 + the sum over depths up to k of the mean product of acceptances, an
    estimate of the tokens that one target pass yields."""
    sizes, sums, count = ball_sizes(radii, device, target.ids.speech), {}, 0
    for i in range(len(packed[0])):
        tokens, places, numbers, bounds, targets, _ = documents.batch(packed, i)
        speech = targets >= 0
        starts = speech.clone()
        for s in range(1, steps):
            ahead = speech.roll(-s, 0) & (places.roll(-s, 0) >= s)
            starts &= ahead
        starts[len(starts) - steps + 1 :] = False
        starts = starts.nonzero()[:, 0]
        starts = starts[: max(0, limit - count)]
        if not len(starts):
            continue
        with autocast(device):
            tapped = {draft.taps: None for draft in drafts.values()}
            for taps in tapped:
                tapped[taps] = target(tokens, places, numbers, bounds, taps=taps).float()
            hidden = next(iter(tapped.values()))[:, -target.config["H"] :]
            mine = {}
            for name, draft in drafts.items():
                if draft.config.get("features"):
                    mine[name] = Unroll(draft, steps, row, target.packed)(
                        tokens, places, numbers, bounds, tapped[draft.taps]
                    )
                else:
                    mine[name] = [draft(tokens, places, numbers, bounds)] * steps
        for j in range(0, len(starts), chunk):
            at = starts[j : j + chunk]
            runs = {}
            for s in range(steps):
                p = laws_of(target.scores(hidden[at + s]), sizes)
                for name, states in mine.items():
                    q = laws_of(drafts[name].scores(states[s][at + s]), sizes)
                    for family in p:
                        overlap = torch.minimum(p[family], q[family]).sum(1)
                        run = runs[name, family] = runs.get((name, family), 1.0) * overlap
                        for key, value in ((("depth", name, family, s), overlap), (("run", name, family, s), run)):
                            sums[key] = sums.get(key, 0.0) + value.double().sum()
            count += len(at)
        if count >= limit:
            break
    result = {"starts": count}
    for name in drafts:
        entry = result[name] = {}
        for family in ["token"] + [f"fsq_{r}" for r in radii]:
            mean = lambda kind: [float(sums[kind, name, family, s]) / count for s in range(steps)]  # noqa: E731
            entry[family] = [round(v, 4) for v in mean("depth")]
            entry[f"{family}_round"] = [round(float(v), 3) for v in 1 + np.cumsum(mean("run"))]
    return result


def read_data(tokens: str, texts: str) -> dict[str, Any]:
    """Token data from tokens_N.npz files (a folder or a file) and the text that they speak, or from a tokens.npz."""
    from ..corpus.synth import read_texts
    from .codec import load_tokens, unpack_tokens

    paths = sorted(glob.glob(f"{tokens}/tokens_*.npz")) if os.path.isdir(tokens) else [tokens]
    with np.load(paths[0]) as f:
        whole = "texts" in f.files
    if whole:
        return load_tokens(paths[0])
    data, lines = unpack_tokens(paths), read_texts(texts)
    data["texts"] = [lines[i] for i in data["ids"]]
    return data


def read_heldout(path: str, work: str) -> dict[str, Any]:
    from .codec import load_tokens

    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as z:
            z.extract("heldout.npz", work)
        path = f"{work}/heldout.npz"
    return load_tokens(path)


def joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {
        "texts": list(a["texts"]) + list(b["texts"]),
        **{k: np.concatenate([a[k], b[k]]) for k in ("lengths", "tokens", "speakers")},
    }


def parts_of(data: dict[str, Any], keep: Sequence[int]) -> dict[str, Any]:
    """The utterances [keep] of token data."""
    bounds = np.concatenate([[0], np.cumsum(data["lengths"].astype(np.int64))])
    tokens = [data["tokens"][bounds[i] : bounds[i + 1]] for i in keep]
    return {
        "texts": [data["texts"][i] for i in keep],
        "lengths": data["lengths"][keep],
        "speakers": data["speakers"][keep],
        "tokens": np.concatenate(tokens) if tokens else np.zeros(0, np.uint16),
    }


def make(
    target: lm.LanguageModel,
    data: dict[str, Any],
    held_data: dict[str, Any],
    work: str,
    out: str,
    clock: Clock,
    device: torch.device,
    config: dict[str, Any] = CONFIG,
    generate: float = 70.0,
    share: float = 0.5,
    old: str | None = None,
    reserve: float = 45.0,
    sample_options: dict[str, Any] | None = None,
    acceptance_options: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Samples, trains, measures; the report, which is also written to OUT after every stage."""
    from .sampler import sample

    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "config": dict(config),
        "options": {k: v for k, v in options.items() if isinstance(v, (int, float))},
    }

    def write(**more):
        report.update(more, seconds=round(clock.elapsed(), 1))
        with open(f"{out}/report_features.json.part", "w") as f:
            json.dump(report, f, indent=1)
        os.replace(f"{out}/report_features.json.part", f"{out}/report_features.json")

    own = {
        "texts": [],
        "lengths": np.zeros(0, np.int32),
        "tokens": np.zeros(0, np.uint16),
        "speakers": np.zeros(0, np.uint8),
    }
    if generate > 0:
        began = time.monotonic()
        speed_settings(device)
        try:
            voices = int(data["speakers"].max()) + 1
            own = sample(target, data["texts"], generate, device, voices=voices, **(sample_options or {}))
        except Exception as error:  # noqa: BLE001 - the corpus alone still trains a draft
            log("sampling fails:", repr(error)[:500])
        if device.type == "cuda":
            torch.cuda.empty_cache()
        write(
            samples={
                "utterances": len(own["lengths"]),
                "tokens": len(own["tokens"]),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
        log("samples:", report["samples"])
    # One in forty stays out of training, to measure on the target's own speech too.
    order = np.random.default_rng(0).permutation(len(own["lengths"]))
    apart = min(400, len(order) // 40) if len(order) >= 80 else 0
    own_held, own = parts_of(own, order[:apart]), parts_of(own, order[apart:])
    # A training of 10^8 positions then hears no sample more than about twelve times.
    share = min(share, (int(own["lengths"].sum()) + 1) / 4e6)
    codes = target.ids.speech
    mixture = Mixture(lm.Documents(joined(data, own), device, codes, target.characters), len(own["lengths"]), share)
    held = lm.Documents(
        {k: held_data[k] for k in ("texts", "lengths", "tokens", "speakers")}, device, codes, target.characters
    )
    log(
        f"{mixture.documents.total} stream positions, "
        f"of which {int(mixture.documents.lengths[mixture.sampled].sum())} sampled; "
        f"share {mixture.share:.2f} in training"
    )
    draft, facts = train(
        config,
        work,
        target,
        mixture,
        held,
        clock.left() - reserve,
        device,
        out,
        report=lambda record: write(record=record),
        **options,
    )
    write(training={k: v for k, v in facts.items() if k != "record"})
    # Compiled layers would compile again for every new shape.
    target.layer, target.embed = lm.layer, target._embed
    target.packed = lm.probe_packed(device)
    draft.packed = target.packed
    drafts = {"features": draft}
    if old:
        try:
            drafts["old"] = (lm.lm_from_onnx if old.endswith(".onnx") else lm.load_lm)(old, device)
            drafts["old"].packed = target.packed
            old_config = drafts["old"].config
            width = target.config["H"] * (1 + len(drafts["old"].taps))
            if old_config.get("features", width) != width or drafts["old"].ids.speech != codes:
                drafts.pop("old")
        except Exception as error:  # noqa: BLE001
            log("the old draft cannot be read:", repr(error)[:300])
    row, positions = options.get("row", 1024), facts["positions"]
    sets = {"heldout": held}
    if apart:
        sets["sampled"] = lm.Documents(own_held, device, codes, target.characters)
    for name, documents in sets.items():
        if clock.left() < 8:
            log("no time to measure", name)
            break
        began = time.monotonic()
        packed = documents.to_device(documents.pack(positions, row=row))
        figures = acceptance(
            target, drafts, documents, packed, device, row, options.get("steps", 5), **(acceptance_options or {})
        )
        write(**{f"acceptance_{name}": figures})
        log(f"acceptance {name} ({time.monotonic() - began:.1f} s):", json.dumps(figures))
    write()
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", required=True, help="folder with the target as it ships (target.onnx, .data); or its file"
    )
    parser.add_argument("--tokens", required=True, help="folder of tokens_N.npz, one such file, or a tokens.npz")
    parser.add_argument("--texts", default=".dev/corpus.txt.xz", help="the text that was spoken")
    parser.add_argument("--heldout", required=True, help="heldout.npz, or an archive that holds it")
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True, help="draft_features.safetensors and report_features.json")
    parser.add_argument("--budget", type=float, default=560, help="seconds, start-up included")
    parser.add_argument(
        "--generate", type=float, default=70, help="seconds of it for sampling from the target; 0: corpus only"
    )
    parser.add_argument("--share", type=float, default=0.5, help="of sampled utterances in training")
    parser.add_argument("--old", help="a draft to compare with (.safetensors or .onnx; default: the bundle's)")
    parser.add_argument("--init", default=None, help="a feature draft to go on from (.safetensors or .onnx)")
    parser.add_argument(
        "--taps",
        type=lambda text: [int(n) for n in text.split(",") if n],
        default=[],
        metavar="4,8",
        help="layers of the target after which the draft reads its residual stream too",
    )
    parser.add_argument(
        "--overlap-last",
        type=float,
        default=0.0,
        help="share of the training, at its end, whose loss is what would be accepted (before: KL)",
    )
    parser.add_argument("--overlap-groups", action="store_true", help="half of that loss by groups fsq_1")
    parser.add_argument("--target-bits", type=int, default=0, help="round a checkpoint's matrices as an export does")
    parser.add_argument("--layers", type=int, default=CONFIG["nl"])
    parser.add_argument("--steps", type=int, default=5, help="depth of the unrolled chain")
    parser.add_argument("--decay", type=float, default=0.8, help="weight of a step against the one before")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument(
        "--noise", type=float, default=0.05, help="share of tokens moved by one digit step, for both models"
    )
    parser.add_argument("--positions", type=int, default=32768, help="positions a step")
    parser.add_argument("--row", type=int, default=1024, help="positions a packed row; longer utterances are left out")
    parser.add_argument("--starts", type=int, default=8000, help="positions that acceptance is measured from")
    parser.add_argument("--device", default=None)


def run(args: argparse.Namespace) -> None:
    device = device_of(args.device)
    clock = Clock(args.budget)
    clock.start = START
    os.makedirs(args.work, exist_ok=True)
    os.makedirs(args.out, exist_ok=True)
    target = lm.load_any(args.bundle, device)
    data, held = read_data(args.tokens, args.texts), read_heldout(args.heldout, args.work)
    log(f"{len(data['lengths'])} utterances, {len(data['tokens'])} tokens; {len(held['lengths'])} held out; {device}")
    old = args.old or next((p for p in [f"{args.bundle}/draft.onnx"] if os.path.exists(p)), None)
    width = target.config["H"]
    if args.target_bits:
        target.round_to(args.target_bits)
    config = dict(CONFIG, H=width, features=width, nl=args.layers, nh=target.config["nh"], I=target.config["I"])
    if args.taps:
        config.update(features=width * (1 + len(args.taps)), taps=args.taps)
    make(
        target,
        data,
        held,
        args.work,
        args.out,
        clock,
        device,
        config,
        args.generate,
        args.share,
        old,
        reserve=min(45.0, 0.2 * args.budget),
        steps=args.steps,
        decay=args.decay,
        lr=args.lr,
        noise=args.noise,
        start=args.init,
        overlap_last=args.overlap_last,
        overlap_groups=args.overlap_groups,
        positions=args.positions,
        row=args.row,
        acceptance_options={"limit": args.starts},
    )
    log(f"ends after {clock.elapsed():.0f} s")
