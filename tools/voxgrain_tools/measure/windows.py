"""How a decoder of NeuCodec's form is best streamed, measured on a small one that is trained here: no weights of the
released ones are needed, and random ones would not say what attention and norms do to speech.

`--train` takes WAV files of our voice, encodes them with the codec's encoder and trains a decoder of that form (96
wide, 4 layers, 16 kHz) on them, half an hour of one core. Without it the streams of a trained one are compared with decoding
at once: windows that begin anew, and windows whose past is kept, as the runtime does it. docs/codec.md has the tables.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..train.codec import ENCODER, mel_filters
from ..train.encoder import Encoder

EXAMPLE = "python -m voxgrain_tools windows --work /tmp/windows --train heart.wav michael.wav"

WIDTH, LAYERS, HEADS, FFN, FFT, HOP = 96, 4, 3, 384, 1280, 320
GROUPS, EPSILON = 32, 1e-6
HELD_OUT = 1000


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(GROUPS, WIDTH, eps=EPSILON) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv1d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = (nn.RMSNorm(WIDTH, eps=EPSILON) for _ in range(2))
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.fc1, self.fc2 = nn.Linear(WIDTH, FFN, bias=False), nn.Linear(FFN, WIDTH, bias=False)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.embed = nn.Linear(8, WIDTH), nn.Conv1d(WIDTH, WIDTH, 7, padding=3)
        self.prior, self.post = (nn.ModuleList([ResNet(), ResNet()]) for _ in range(2))
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=EPSILON), nn.Linear(WIDTH, FFT + 2)
        self.register_buffer("window", torch.hann_window(FFT))

    def digits(self, codes: torch.Tensor) -> torch.Tensor:
        return self.inp(((codes[..., None] >> (2 * torch.arange(8)) & 3).float() - 2) / 2)

    def spectrum(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.embed(self.digits(codes).transpose(1, 2))
        for r in self.prior:
            x = x + r.conv2(F.silu(r.norm2(r.conv1(F.silu(r.norm1(x))))))
        x = x.transpose(1, 2)
        for layer in self.layers:
            q, k, v = layer.qkv(layer.n1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            x = x + layer.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + layer.fc2(F.silu(layer.fc1(layer.n2(x))))
        x = x.transpose(1, 2)
        for r in self.post:
            x = x + r.conv2(F.silu(r.norm2(r.conv1(F.silu(r.norm1(x))))))
        return self.head(self.norm(x.transpose(1, 2)))

    def sound(self, spectrum: torch.Tensor) -> torch.Tensor:
        """[B, T, FFT + 2] -> [B, T * HOP]."""
        magnitude, phase = spectrum.chunk(2, -1)
        frames = torch.fft.irfft(torch.polar(magnitude.exp().clamp(max=100), phase), FFT).transpose(1, 2)
        count = spectrum.shape[1]
        size, trim = (1, (count - 1) * HOP + FFT), (FFT - HOP) // 2

        def fold(x):
            return F.fold(x, size, (1, FFT), stride=(1, HOP))[:, 0, 0, trim:-trim]

        energy = fold(self.window.square().expand(1, count, -1).transpose(1, 2))
        return fold(frames * self.window[None, :, None]) / energy.clamp(min=1e-11)


class Stream:
    """A stream whose past is kept; norms take the sums of all that was kept (`running`), those of the first window for
    good (`frozen`) or of each window alone (`window`)."""

    def __init__(self, model: Decoder, back: int, norms: str) -> None:
        self.model, self.back, self.norms, self.held, self.rows = model, back, norms, 0, 0
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self.edges: dict[str, torch.Tensor] = {}
        self.sums: dict[str, tuple] = {}

    def conv(self, key: str, conv: nn.Conv1d, x: torch.Tensor, keep: int) -> torch.Tensor:
        zeros = torch.zeros(WIDTH, conv.padding[0])
        x = torch.cat([self.edges.get(key, zeros), x, zeros], 1)
        self.edges[key] = x[:, keep : keep + conv.padding[0]]
        return F.conv1d(x[None], conv.weight, conv.bias)[0]

    def norm(self, key: str, norm: nn.GroupNorm, x: torch.Tensor, keep: int) -> torch.Tensor:
        grouped = x.unflatten(0, (GROUPS, -1)).double()

        def sums(x):
            return x[0].numel(), x.sum((1, 2)), x.square().sum((1, 2))

        if self.norms == "frozen" and key in self.sums:
            count, total, square = self.sums[key]
        else:
            old = self.sums.get(key, (0, 0, 0)) if self.norms == "running" else (0, 0, 0)
            count, total, square = (a + b for a, b in zip(old, sums(grouped), strict=True))
            kept = tuple(a + b for a, b in zip(old, sums(grouped[:, :, :keep]), strict=True))
            self.sums[key] = kept if self.norms == "running" else (count, total, square)
        mean = total / count
        scale = (square / count - mean.square() + EPSILON).rsqrt()
        x = ((grouped - mean[:, None, None]) * scale[:, None, None]).flatten(0, 1).float()
        return x * norm.weight[:, None] + norm.bias[:, None]

    def resnets(self, name: str, nets: nn.ModuleList, x: torch.Tensor, keep: int) -> torch.Tensor:
        for i, r in enumerate(nets):
            y = self.conv(f"{name}{i}a", r.conv1, F.silu(self.norm(f"{name}{i}a", r.norm1, x, keep)), keep)
            x = x + self.conv(f"{name}{i}b", r.conv2, F.silu(self.norm(f"{name}{i}b", r.norm2, y, keep)), keep)
        return x

    @torch.no_grad()
    def __call__(self, codes: torch.Tensor, keep: int) -> torch.Tensor:
        m = self.model
        self.rows += len(codes)
        x = self.resnets("prior", m.prior, self.conv("embed", m.embed, m.digits(codes).T, keep), keep).T
        for i, layer in enumerate(m.layers):
            q, k, v = layer.qkv(layer.n1(x)).unflatten(-1, (3, HEADS, -1)).permute(1, 2, 0, 3)
            before = self.keys[i].shape[1] if i in self.keys else 0
            if before:
                k, v = torch.cat([self.keys[i], k], 1), torch.cat([self.values[i], v], 1)
            a = F.scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1).flatten(1)
            end = before + keep
            first = max(self.held, end - self.back)
            self.keys[i], self.values[i] = (torch.cat([c[:, : self.held], c[:, first:end]], 1) for c in (k, v))
            x = x + layer.o(a)
            x = x + layer.fc2(F.silu(layer.fc1(layer.n2(x))))
        return m.head(m.norm(self.resnets("post", m.post, x.T, keep).T))


def schedule(first: int, new: int, ahead: int) -> Iterator[int]:
    keep = first - ahead
    while True:
        yield keep
        keep = min(new, keep + -(-keep // 2))


def kept(model, reference, codes, first=10, new=25, ahead=5, back=100, norms="running"):
    """Spectra, borders of windows, rows decoded."""
    stream = Stream(model, back, norms)
    if len(reference):
        stream(reference[-back:], len(reference[-back:]))
        stream.held, stream.rows = len(reference[-back:]), 0
    out, borders, at = [], [], 0
    for keep in schedule(first, new, ahead):
        if at + keep + ahead >= len(codes):
            out.append(stream(codes[at:], len(codes) - at))
            return torch.cat(out), borders, stream.rows
        out.append(stream(codes[at : at + keep + ahead], keep)[:keep])
        at += keep
        borders.append(at)


def anew(model, reference, codes, new=25, back=50, ahead=5):
    whole, first = torch.cat([reference, codes]), len(reference)
    out, rows = [], 0
    for at in range(first, len(whole), new):
        start, end = max(0, at - back), min(len(whole), at + new + ahead)
        spectra = Stream(model, 0, "window")(whole[start:end], 0)
        rows += end - start
        out.append(spectra[at - start : at - start + new])
    return torch.cat(out), list(range(new, len(codes), new)), rows


class Mel:
    def __init__(self, fft: int = 1024, hop: int = 160) -> None:
        self.fft, self.hop, self.filters = fft, hop, mel_filters(80, fft)

    def __call__(self, sound: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(self.fft)
        magnitude = torch.stft(sound, self.fft, self.hop, window=window, return_complex=True).abs()
        return 20 * torch.log10((self.filters @ magnitude).clamp(min=1e-3))


def train(model: Decoder, sounds: list[tuple[torch.Tensor, torch.Tensor]], steps: int, seconds: float) -> None:
    def loss(y, t):
        total = 0
        for n in (512, 1024, 2048):
            window = torch.hann_window(n)
            a, b = (torch.stft(x, n, n // 4, window=window, return_complex=True).abs() for x in (y, t))
            total = total + (a - b).norm() / b.norm() + F.l1_loss((a + 1e-3).log(), (b + 1e-3).log())
        return total / 3

    rng, frames = np.random.default_rng(0), int(seconds * 50)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.8, 0.98))
    model.head.bias.data[: FFT // 2 + 1] = -1
    start = time.time()
    for i in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, i / 100) * 0.5 * (1 + math.cos(math.pi * i / steps)) + 1e-6
        batch = []
        for _ in range(4):
            codes, sound = sounds[rng.integers(len(sounds))]
            at = int(rng.integers(len(codes) - HELD_OUT - frames))
            batch.append((codes[at : at + frames], sound[at * HOP : (at + frames) * HOP]))
        codes, target = (torch.stack(x) for x in zip(*batch, strict=True))
        value = loss(model.sound(model.spectrum(codes)), target)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if i % 100 == 0:
            print(f"step {i}: loss {value.item():.3f}, {time.time() - start:.0f} s", flush=True)


def encode(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from scipy.io import wavfile

    rate, sound = wavfile.read(path)
    if rate != 50 * HOP:
        raise SystemExit(f"{path}: {rate} Hz, {50 * HOP} are wanted")
    sound, encoder, piece = sound.astype(np.float32) / 32768, Encoder(Path(ENCODER)), 10 * rate
    codes = np.concatenate([encoder(sound[i : i + piece]) for i in range(0, len(sound) - piece, piece)])
    return torch.from_numpy(codes.astype(np.int64)), torch.from_numpy(sound[: len(codes) * HOP])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, required=True, help="holds decoder.pt and the codes")
    parser.add_argument("--train", type=Path, nargs="+", metavar="WAV", help="train on these first")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a training example")
    parser.add_argument("--reference", type=int, default=150, help="codes before the speech")
    parser.add_argument("--frames", type=int, default=300)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    model, path = Decoder(), args.work / "decoder.pt"
    if args.train:
        sounds = [encode(p) for p in args.train]
        train(model, sounds, args.steps, args.seconds)
        torch.save({"model": model.state_dict(), "codes": [c for c, _ in sounds]}, path)
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    model.eval()
    clips = []
    for codes in saved["codes"]:
        held_out = codes[-HELD_OUT:]
        size = args.reference + args.frames
        for at in range(0, len(held_out) - size + 1, max(1, (len(held_out) - size) // 2)):
            clips.append((held_out[at : at + args.reference], held_out[at + args.reference : at + size]))
    mel = Mel()

    def row(name: str, decode: Callable[..., Any], **how: Any) -> None:
        far, near, early, work = [], [], [], []
        for reference, codes in clips:
            both = torch.cat([reference, codes])
            whole = Stream(model, 0, "window")(both, 0)[len(reference) :]
            spectra, borders, rows = decode(model, reference, codes, **how)
            a, b = (mel(model.sound(s[None])[0]) for s in (whole, spectra))
            frame = (a - b).square().mean(0).sqrt()
            at = torch.tensor(borders)[:, None] * (HOP // mel.hop) + torch.arange(-4, 5)
            far.append((a - b).abs().mean().item())
            near.append(frame[at.clamp(0, len(frame) - 1).unique()].mean().item())
            early.append(frame[:100].mean().item())
            work.append(rows / len(codes))
        figures = [f"{np.mean(x):.2f}" for x in (far, near, early, work)]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)

    print(f"{len(clips)} clips of {args.frames} codes behind {args.reference} of a reference")
    print("| way | log-mel, dB | at borders | first second | rows a code |\n|---|---|---|---|---|")
    for new, back, ahead in [(25, 0, 5), (25, 50, 5), (50, 50, 5), (25, 100, 5)]:
        row(f"anew, {new} new, {back} back, {ahead} ahead", anew, new=new, back=back, ahead=ahead)
    for norms in ("window", "frozen", "running"):
        row(f"kept, 100 back, 5 ahead, norms {norms}", kept, norms=norms)
    for back in (25, 50, 200, 100_000):
        row(f"kept, {back} back, 5 ahead", kept, back=back)
    for ahead in (0, 2, 3, 8):
        row(f"kept, 100 back, {ahead} ahead", kept, ahead=ahead)
