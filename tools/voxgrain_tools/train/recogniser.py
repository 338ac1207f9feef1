"""Stage recogniser: a character CTC recogniser of the synthesiser's voice, to judge what is spoken.

It is trained on the synthesiser's own audio with noise, filters and level changes, never on the
codec's output, so that it is blind to the codec.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..common import DATA, Clock, autocast, device_of, load, log, save, speed_settings

if TYPE_CHECKING:
    from ..corpus.synth import AudioStore

EXAMPLE = "python -m voxgrain_tools recogniser --work /tmp/vx --budget 110"
ALPHABET = "_ 'abcdefghijklmnopqrstuvwxyz"  # the first is CTC's blank
CONFIG = {"width": 256, "layers": 7, "heads": 4, "inner": 768, "kernel": 15, "mel_bins": 80, "alphabet": ALPHABET}
TOY = dict(CONFIG, width=64, layers=2, heads=2, inner=128)
DEFAULT = os.path.join(DATA, "recogniser.safetensors")


def letters(text: str) -> str:
    """What the recogniser is asked for: words without punctuation."""
    return re.sub(r" +", " ", re.sub(r"[^a-z' ]", " ", text.lower())).strip()


class Block(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        w = c["width"]
        self.heads = c["heads"]
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(w) for _ in range(3))
        self.qkv, self.attn_out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.gate = nn.Linear(w, 2 * w)
        self.depthwise = nn.Parameter(torch.randn(c["kernel"], w) / c["kernel"] ** 0.5)
        self.conv_out = nn.Linear(w, w)
        self.up, self.down = nn.Linear(w, c["inner"]), nn.Linear(c["inner"], w)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, p: float
    ) -> torch.Tensor:
        from .lm import rotate

        b, t, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, w // self.heads).unbind(2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        x = x + F.dropout(self.attn_out(y.transpose(1, 2).reshape(b, t, w)), p, p > 0)
        y = F.glu(self.gate(self.norm2(x)), -1)
        k = self.depthwise.shape[0]
        y = F.pad(y, (0, 0, k // 2, k // 2))
        total = 0
        for j in range(k):
            total = total + y[:, j : j + t] * self.depthwise[j]
        x = x + F.dropout(self.conv_out(F.silu(total)), p, p > 0)
        return x + F.dropout(self.down(F.silu(self.up(self.norm3(x)))), p, p > 0)


class Recogniser(nn.Module):
    """Sound at 16 kHz -> log-probabilities of characters, 50 a second."""

    def __init__(self, config: dict[str, Any] = CONFIG) -> None:
        super().__init__()
        from .codec import LogMel

        self.config = c = dict(config)
        self.mel = LogMel()
        w = c["width"]
        self.inp = nn.Linear(3 * c["mel_bins"], w)
        self.merge = nn.Linear(2 * w, w)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.LayerNorm(w)
        self.out = nn.Linear(w, len(c["alphabet"]))
        self.p = 0.1

    def features(self, audio: torch.Tensor) -> torch.Tensor:
        return self.mel(audio)

    def forward(self, mel: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """[B, 2T, 80] and the number of valid tokens' frames (of T) -> [B, T, alphabet] log-probabilities."""
        from .lm import rope_table

        p = self.p if self.training else 0.0
        x = F.pad(mel, (0, 0, 1, 1))
        x = F.silu(self.inp(torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], -1)))
        x = self.merge(x.reshape(x.shape[0], x.shape[1] // 2, -1))
        t = x.shape[1]
        spots = torch.arange(t, device=x.device)
        valid = spots[None] < frames[:, None]
        mask = valid[:, None, None, :]
        cos, sin = rope_table(spots, self.config["width"] // self.config["heads"], 10000.0)
        x = x * valid.unsqueeze(-1)
        for block in self.blocks:
            x = block(x, mask, cos, sin, p) * valid.unsqueeze(-1)
        return self.out(self.norm(x)).float().log_softmax(-1)

    def save(self, path: str, facts: dict[str, Any] | None = None) -> None:
        save(path, self.state_dict(), dict(self.config, **(facts or {})))

    @classmethod
    def load(cls, path: str = DEFAULT, device: str = "cpu") -> Recogniser:
        tensors, config = load(str(path))
        model = cls(config)
        model.load_state_dict(tensors)
        return model.to(device).eval()

    @torch.no_grad()
    def log_probabilities(self, sounds: list[np.ndarray]) -> list[np.ndarray]:
        device = self.out.weight.device
        sizes = [max(1, -(-len(s) // 320)) for s in sounds]
        audio = torch.zeros(len(sounds), max(sizes) * 320)
        for i, s in enumerate(sounds):
            audio[i, : len(s)] = torch.as_tensor(np.asarray(s, np.float32))
        audio = level(audio.to(device))
        frames = torch.tensor(sizes, device=device)
        out = self(self.features(audio), frames).cpu()
        return [out[i, :n].numpy() for i, n in enumerate(sizes)]

    def transcribe(self, sounds: list[np.ndarray], words: set[str] | None = None) -> list[str]:
        """Texts of sounds (float arrays at 16 kHz). With a set of words, by a beam search that prefers them."""
        result = []
        order = sorted(range(len(sounds)), key=lambda i: len(sounds[i]))
        for i in range(0, len(order), 16):
            part = order[i : i + 16]
            for k, p in zip(part, self.log_probabilities([sounds[j] for j in part])):
                result.append(
                    (k, beam(p, self.config["alphabet"], words) if words else greedy(p, self.config["alphabet"]))
                )
        return [t for _, t in sorted(result)]

    def confirmed(self, sound: np.ndarray, reference: str, heard: str) -> set[str]:
        """The skips and repeats among the `suspects` of what was heard that the sound bears out: a set of their names.

        A greedy transcript drops words that are there but unclear. Here the words of the text stand against the
        words with the fault, and the likelier of the two (CTC, all alignments) is believed."""
        from .. import scoring

        reference = scoring.words(reference)
        found = scoring.suspects(reference, scoring.words(heard))
        if not found:
            return set()
        p = self.log_probabilities([sound])[0]
        plain = log_likelihood(p, " ".join(reference))
        return {kind for kind, said in found if log_likelihood(p, " ".join(said)) > plain}


def log_likelihood(p: np.ndarray, text: str, alphabet: str = ALPHABET) -> float:
    """The logarithm of a text's probability, in nats, over all its alignments to [T, alphabet] log-probabilities."""
    p = torch.as_tensor(p)
    wanted = torch.tensor([[alphabet.index(c) for c in text]], dtype=torch.long)
    loss = F.ctc_loss(
        p[:, None], wanted, torch.tensor([len(p)]), torch.tensor([wanted.shape[1]]), blank=0, reduction="sum"
    )
    return -float(loss)


def level(audio: torch.Tensor) -> torch.Tensor:
    """Same loudness for all: the recogniser should not hear the gain."""
    loud = audio.square().sum(-1, keepdim=True) / (audio != 0).sum(-1, keepdim=True).clamp_min(1)
    return audio * (0.06 / loud.sqrt().clamp_min(1e-5))


def greedy(p: np.ndarray, alphabet: str = ALPHABET) -> str:
    best = p.argmax(-1)
    kept = [alphabet[c] for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1])]
    return re.sub(r" +", " ", "".join(kept)).strip()


def beam(
    p: np.ndarray, alphabet: str = ALPHABET, words: set[str] | None = None, width: int = 12, unknown: float = -3.0
) -> str:
    """Prefix beam search; a finished word outside `words` costs `unknown` nats."""

    def add(a, b):
        return np.logaddexp(a, b)

    def penalty(prefix):
        return unknown if words is not None and prefix.rsplit(" ", 1)[-1] not in words else 0.0

    none = -np.inf
    beams = {"": (0.0, none, 0.0)}  # prefix -> (ends in blank, ends in its last letter, words' score)
    for row in p:
        following = {}
        letters_here = np.flatnonzero(row > -7)
        for prefix, (blank, letter, bonus) in beams.items():
            total = add(blank, letter)
            a, b, _ = following.get(prefix, (none, none, bonus))
            following[prefix] = (add(a, total + row[0]), b, bonus)
            for c in letters_here:
                if c == 0:
                    continue
                char = alphabet[c]
                if prefix and char == prefix[-1]:
                    a, b, s = following.get(prefix, (none, none, bonus))
                    following[prefix] = (a, add(b, letter + row[c]), s)
                    before = blank
                else:
                    before = total
                longer = prefix + char
                if char == " ":
                    if not prefix or prefix[-1] == " ":
                        longer, extra = prefix + " ", bonus
                    else:
                        extra = bonus + penalty(prefix)
                else:
                    extra = bonus
                a, b, s = following.get(longer, (none, none, extra))
                following[longer] = (a, add(b, before + row[c]), s)
        beams = dict(sorted(following.items(), key=lambda kv: -(add(kv[1][0], kv[1][1]) + kv[1][2]))[:width])
    best = max(beams.items(), key=lambda kv: add(kv[1][0], kv[1][1]) + kv[1][2] + penalty(kv[0].strip()))
    return re.sub(r" +", " ", best[0]).strip()


_loaded = None


def transcribe(sounds: list[np.ndarray], checkpoint: str = DEFAULT) -> list[str]:
    """Texts of sounds at 16 kHz, by the recogniser in `checkpoint`."""
    global _loaded
    if _loaded is None or _loaded[0] != checkpoint:
        _loaded = (checkpoint, Recogniser.load(checkpoint))
    return _loaded[1].transcribe(sounds)


def distance(a: str, b: str) -> int:
    """Edit distance of two sequences."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a):
        new = np.empty_like(row)
        new[0] = i + 1
        match = row[:-1] + np.array([x != y for y in b], np.int64)
        change = np.minimum(match, row[1:] + 1)
        for j in range(len(b)):  # insertions run along the row
            new[j + 1] = min(change[j], new[j] + 1)
        row = new
    return int(row[-1])


def error_rates(wanted: list[str], heard: list[str]) -> tuple[float, float]:
    """(character, word) error rates over all texts."""
    wanted, heard = [letters(t) for t in wanted], [letters(t) for t in heard]
    cer = sum(distance(a, b) for a, b in zip(wanted, heard)) / max(1, sum(map(len, wanted)))
    wer = sum(distance(a.split(), b.split()) for a, b in zip(wanted, heard)) / max(
        1, sum(len(a.split()) for a in wanted)
    )
    return round(cer, 4), round(wer, 4)


def degrade(audio: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Noise of a random colour, a random smooth filter, and a change of level, on the whole batch at once."""
    b, n = audio.shape
    size = 512
    points = torch.randn(b, 9, device=audio.device) * 3.0  # dB at 9 places from 0 to 8 kHz
    points[torch.rand(b, device=audio.device) < 0.3] = 0
    curve = F.interpolate(points[:, None], size=size // 2 + 1, mode="linear", align_corners=True)[:, 0]
    spectrum = torch.fft.rfft(audio)
    shape = F.interpolate(curve[:, None], size=spectrum.shape[1], mode="linear", align_corners=True)[:, 0]
    audio = torch.fft.irfft(spectrum * 10 ** (shape / 20), n=n)
    tilt = (
        torch.linspace(0, 1, spectrum.shape[1], device=audio.device)[None] * torch.randn(b, 1, device=audio.device) * 15
    )
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn_like(audio)) * 10 ** (tilt / 20), n=n)
    power = audio.square().mean(1, keepdim=True).sqrt()
    snr = 12 + 38 * torch.rand(b, 1, device=audio.device)
    noise = noise / noise.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6) * power * 10 ** (-snr / 20)
    return audio + noise * (torch.rand(b, 1, device=audio.device) < 0.8)


def mask_features(mel: torch.Tensor) -> torch.Tensor:
    """SpecAugment: two bands and up to four stretches of time are blanked."""
    b, t, m = mel.shape
    keep = torch.ones(b, t, m, device=mel.device, dtype=torch.bool)
    bands, spots = torch.arange(m, device=mel.device), torch.arange(t, device=mel.device)
    for _ in range(2):
        width = torch.randint(0, 16, (b, 1), device=mel.device)
        at = (torch.rand(b, 1, device=mel.device) * m).long()
        keep &= ~((bands >= at) & (bands < at + width))[:, None]
    for _ in range(4):
        width = torch.randint(0, 12, (b, 1), device=mel.device)
        at = (torch.rand(b, 1, device=mel.device) * t).long()
        keep &= ~((spots >= at) & (spots < at + width))[:, :, None]
    return torch.where(keep, mel, torch.full_like(mel, -1.0))


def train(
    work: str,
    store: AudioStore,
    held: AudioStore,
    budget: float,
    device: torch.device,
    config: dict[str, Any] = CONFIG,
    lr: float = 1e-3,
    seconds_a_batch: float = 400.0,
    out: str | None = None,
    max_steps: int | None = None,
    warmup: int = 300,
    longest: float = 16.0,
) -> tuple[Recogniser, dict[str, Any]]:
    """Trains on the store, saves work/recogniser.safetensors, returns its figures on the held-out store."""
    speed_settings(device)
    clock = Clock(budget)
    model = Recogniser(config).to(device)
    model.train()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}],
        lr,
        (0.9, 0.98),
        fused=device.type == "cuda",
    )
    table = {c: i for i, c in enumerate(ALPHABET)}
    lengths = store.lengths()
    targets = [[table[c] for c in letters(t)] for t in store.texts]
    usable = np.array(
        [
            i
            for i in range(len(targets))
            if targets[i] and lengths[i] <= longest * 16000 and lengths[i] // 320 > 1.3 * len(targets[i]) + 2
        ]
    )
    rng = np.random.default_rng(1)
    log(f"recogniser: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M, {len(usable)} utterances")
    path = f"{work}/recogniser.safetensors"

    def batches():
        while True:
            order = rng.permutation(usable)
            for i in range(0, len(order), 4096):  # sorted within a pool, so that padding is small
                pool = order[i : i + 4096]
                pool = pool[np.argsort(lengths[pool], kind="stable")]
                groups, current = [], []
                for u in pool:
                    current.append(u)
                    if (len(current)) * lengths[u] / 16000 >= seconds_a_batch:
                        groups.append(current)
                        current = []
                if current:
                    groups.append(current)
                for g in rng.permutation(len(groups)):
                    yield np.array(groups[g])

    step, since, first, last, sums = 0, 0, None, None, torch.zeros((), device=device)
    source = batches()
    while clock.left() > 2 and (max_steps is None or step < max_steps):
        picks = next(source)
        audio = store.batch(picks).to(device)
        # Half seconds: their lengths have small factors only, for the FFTs of `degrade`.
        audio = F.pad(audio, (0, -audio.shape[1] % 8000))
        frames = torch.from_numpy(-(-lengths[picks] // 320)).to(device)
        wanted = torch.tensor([c for u in picks for c in targets[u]], device=device)
        sizes = torch.tensor([len(targets[u]) for u in picks], device=device)
        rate = lr * (clock.cosine() if max_steps is None else 1.0) * min(1.0, (step + 1) / warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            mel = mask_features(model.features(level(degrade(audio, rng))))
        with autocast(device):
            p = model(mel, frames)
        loss = F.ctc_loss(p.transpose(0, 1), wanted, frames, sizes, blank=0, zero_infinity=True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0, foreach=True)
        optimizer.step()
        sums += loss.detach()
        step, since = step + 1, since + 1
        every = 100 if max_steps is None else max(1, max_steps // 4)
        if since >= every:
            last = float(sums) / since
            first = first or last
            sums.zero_()
            since = 0
            log(f"recogniser: step {step} ({step / clock.elapsed():.1f}/s) ctc {last:.4f} lr {rate:.1e}")
            if step % (every * 5) == 0:
                model.save(path, {"steps": step})
    model.save(path, {"steps": step, "train_seconds": round(clock.elapsed(), 1)})
    if out:
        model.save(f"{out}/recogniser.safetensors", {"steps": step, "train_seconds": round(clock.elapsed(), 1)})
    model = Recogniser.load(path, device)
    count = min(400, len(held.ids))
    heard = model.transcribe([held.audio(i).cpu().numpy() / np.float32(32768) for i in range(count)]) if count else []
    cer, wer = error_rates(held.texts[:count], heard)
    log(f"recogniser: {step} steps, held-out audio of the synthesiser ({count}): CER {cer} WER {wer}")
    return model, {"first": first, "last": last, "cer": cer, "wer": wer, "steps": step}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", required=True, help="holds audio/; recogniser.safetensors is written here")
    parser.add_argument("--budget", type=float, default=110, help="seconds")
    parser.add_argument("--hours", type=float, default=1e6)
    parser.add_argument("--device", default=None)


def run(args: argparse.Namespace) -> None:
    from ..corpus.synth import AudioStore

    device = device_of(args.device)
    store, held = AudioStore(args.work, "w", device, args.hours), AudioStore(args.work, "heldout", device, 100)
    store.refresh()
    held.refresh()
    train(args.work, store, held, args.budget, device)
