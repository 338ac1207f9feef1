"""Stage codec: trains encoder and decoder for both voices; a GAN joins for the later part.

`codec` starts the training as a process of its own and watches it. Should CUDA graphs, the compiler or a shape fail
on a
machine, training goes on from its last state in a plainer mode. A schedule may span several calls: --total-budget
covers
them all, --call-budget one, and --resume goes on where the last call stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..common import Clock, cpu_count, device_of, load, log, maybe_compile, save, speed_settings
from ..files import split
from .codec import (
    CONFIG,
    ENCODER,
    FRAME,
    RATE,
    TOY,
    Codec,
    blocks,
    codec_from_bundle,
    digits_of,
    load_codec,
    mel_filters,
    sound,
    usage,
    values_of,
)
from .perceptual import PerceptualLoss

if TYPE_CHECKING:
    from ..corpus.synth import AudioStore, Synthesis

EXAMPLE = "python -m voxgrain_tools codec --work /tmp/vx --out out --total-budget 1120 --call-budget 560"
MODES = ("graphs", "compiled", "plain")


def quantize(z: torch.Tensor, noise: torch.Tensor | None = None, dither: float = 0.0) -> torch.Tensor:
    """Digit values with a straight-through gradient.

    `noise` [B] in 0..1 picks what a row trains for: below 1/8 one digit of every token is moved by a step (tolerance of
    neighbouring codes); the next `dither` get uniform noise of a step's width instead of rounding (a true gradient)."""
    soft = torch.tanh(z)
    hard = (digits_of(z) - 1.5) / 1.5
    if noise is not None:
        noise = noise[:, None, None]
        which = torch.randint(0, z.shape[-1], z.shape[:-1], device=z.device)
        step = (torch.randint(0, 2, z.shape[:-1], device=z.device) * 2 - 1) * (2 / 3)
        places = torch.arange(z.shape[-1], device=z.device)
        moved = (hard + (places == which.unsqueeze(-1)) * step.unsqueeze(-1)).clamp(-1, 1)
        blurred = (soft.detach() + (torch.rand_like(soft) - 0.5) * (2 / 3)).clamp(-1, 1)
        hard = torch.where(noise < 0.125, moved, torch.where(noise < 0.125 + dither, blurred, hard))
    return soft + (hard - soft).detach()


def spread_loss(z: torch.Tensor) -> torch.Tensor:
    """Digits of mean 0, of a uniform digit's variance and without correlation use more of the codes."""
    u = torch.tanh(z).reshape(-1, z.shape[-1])
    mean = u.mean(0)
    centred = u - mean
    c = centred.T @ centred / len(u)
    diagonal = c.diagonal()
    crossed = c / (diagonal[:, None] * diagonal[None] + 1e-4).sqrt()
    off = crossed.square().sum() - crossed.diagonal().square().sum()
    return mean.square().sum() + (diagonal - 5 / 9).square().sum() + off / z.shape[-1]


class Prior(nn.Module):
    """What the next token will be, from the tokens before it and nothing else: how much a language model must pay.

    Each digit is a mixture of logistic laws over the dithered value; a later digit's laws also move with the token's
    earlier digits. The nats of a value y are those of the interval of one digit step around it, so that at the digits'
    own values they are the cross entropy of the digit."""

    PARTS, WIDTH, WEIGHT = 3, 1 / 3, 0.1

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        digits, (width, _, kernel) = config["fsq_digits"], config["dec1"]
        self.digits = digits
        self.inp = nn.Linear(digits, width)
        # Of the decoder's first stage's shape: compiled once for both.
        self.stage = blocks([width, 3, kernel], True, config["expansion"])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, digits * self.PARTS * 3)
        self.within = nn.Parameter(torch.zeros(digits, digits))
        nn.init.normal_(self.out.weight, std=0.01)
        with torch.no_grad():  # Parts spread over the range, each as wide as a digit step.
            centres = torch.linspace(-0.8, 0.8, self.PARTS).repeat(digits, 1)
            zeros = torch.zeros(digits, self.PARTS)
            self.out.bias.copy_(torch.stack([zeros, centres, zeros - 1.2], 1).flatten())

    def nats(self, states: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """[B, T, ...] after the last norm and [B, T, digits] values -> nats of every token, [B, T]."""
        logits, centre, scale = self.out(states).unflatten(-1, (self.digits, 3, self.PARTS)).unbind(-2)
        centre = centre + (values @ self.within.tril(-1).T).unsqueeze(-1)
        rate = torch.exp(-scale.clamp(-5.0, 2.0))
        y = values.unsqueeze(-1)
        # Beyond the outermost digits lies nothing: their intervals are open.
        high = torch.where(y > 1 - self.WIDTH / 2, 1.0, torch.sigmoid((y + self.WIDTH - centre) * rate))
        low = torch.where(y < -1 + self.WIDTH / 2, 0.0, torch.sigmoid((y - self.WIDTH - centre) * rate))
        mass = (logits.softmax(-1) * (high - low)).sum(-1)
        return -(mass + 1e-5).log().sum(-1)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        x = self.inp(F.pad(values, (0, 0, 1, 0))[:, :-1])
        for step in self.stage:
            x = step(x)
        return self.norm(x).float()

    def forward(self, past: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self.nats(self.body(past), values)


def third_octaves(fft: int, rate: int = RATE) -> torch.Tensor:
    """[15, fft/2+1]: the bands of STOI, from 150 Hz."""
    centre = 150 * 2 ** (np.arange(15) / 3)
    hz = np.linspace(0, rate / 2, fft // 2 + 1)
    low, high = centre * 2 ** (-1 / 6), centre * 2 ** (1 / 6)
    return torch.tensor((hz >= low[:, None]) & (hz < high[:, None]), dtype=torch.float32)


class SpectralLoss(nn.Module):
    """Distances of spectra at several resolutions: `mel`, `ratio`, `loudness`, `envelope`.

    Windows shorter than 16 ms would see single glottal pulses, whose place no token should spend digits on.
    mel: L1 of log-mel bands. ratio: error over the size of the spectrum. loudness: L1 of band powers after Zwicker's
    exponent. envelope: one minus the correlation of third-octave envelopes over 0.4 s."""

    SCALES = ((2048, 128), (1024, 80), (512, 64), (256, 32))
    WEIGHTS = {"mel": 15.0, "ratio": 1.5, "loudness": 12.0, "envelope": 20.0}

    def __init__(self) -> None:
        super().__init__()
        for fft, bins in self.SCALES:
            self.register_buffer(f"w{fft}", torch.hann_window(fft), persistent=False)
            self.register_buffer(f"m{fft}", mel_filters(bins, fft), persistent=False)
        self.register_buffer("loud", mel_filters(42, 512), persistent=False)
        self.register_buffer("w410", torch.hann_window(410), persistent=False)
        self.register_buffer("octaves", third_octaves(512), persistent=False)

    def power(self, audio: torch.Tensor, fft: int) -> torch.Tensor:
        s = torch.stft(
            audio, fft, fft // 4, window=getattr(self, f"w{fft}"), center=True, pad_mode="constant", return_complex=True
        )
        return s.real.square() + s.imag.square()

    def envelopes(self, audio: torch.Tensor) -> torch.Tensor:
        s = torch.stft(
            audio, 512, 205, window=self.w410, win_length=410, center=True, pad_mode="constant", return_complex=True
        )
        x = (self.octaves @ (s.real.square() + s.imag.square()) + 1e-6).sqrt()
        return x.unfold(2, 30, 4)  # [B, 15, segments, 30]

    def views(self, audio: torch.Tensor) -> Any:
        """What the distances compare, for one side."""
        out = {}
        for fft, _ in self.SCALES:
            p = self.power(audio, fft)
            s = torch.sqrt(p + 1e-9)
            out[f"mel{fft}"] = (getattr(self, f"m{fft}") @ s).clamp_min(1e-5).log10()
            if fft in (1024, 512):
                out[f"ratio{fft}"] = s
            if fft == 512:
                out["loudness"] = (self.loud @ p + 1e-3) ** 0.23
        if audio.shape[1] >= 7000:
            out["envelope"] = self.envelopes(audio)
        return out

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            a = self.views(real)
        b = self.views(fake)
        out = {"mel": 0.0, "ratio": 0.0, "loudness": (a["loudness"] - b["loudness"]).abs().mean()}
        for fft, _ in self.SCALES:
            out["mel"] = out["mel"] + (a[f"mel{fft}"] - b[f"mel{fft}"]).abs().mean()
            if f"ratio{fft}" in a:
                x, y = a[f"ratio{fft}"], b[f"ratio{fft}"]
                wrong, size = (x - y).square().sum((1, 2)), x.square().sum((1, 2))
                out["ratio"] = out["ratio"] + ((wrong + 1e-3) / (size + 1.0)).sqrt().mean()
        if "envelope" in a:
            x, y = a["envelope"], b["envelope"]
            energy = x.square().sum((1, 3))
            spoken = (energy > 1e-3 * energy.amax(1, keepdim=True)).float()[:, None]
            floor = 1e-4 * x.square().sum(3).amax(2, keepdim=True) + 1e-6
            x, y = x - x.mean(3, keepdim=True), y - y.mean(3, keepdim=True)
            c = (x * y).sum(3) / ((x.square().sum(3) + floor) * (y.square().sum(3) + floor)).sqrt()
            out["envelope"] = ((1 - c) * spoken).sum() / (spoken.sum() * 15).clamp_min(1)
        return out

    def total(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(self.WEIGHTS[k] * v for k, v in parts.items())


class Conv(nn.Module):
    """A weight-normalised 2-D convolution."""

    def __init__(
        self,
        a: int,
        b: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        w = torch.empty(b, a, *kernel)
        nn.init.kaiming_uniform_(w, a=math.sqrt(5))
        self.v = nn.Parameter(w)
        self.g = nn.Parameter(w.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(b))
        self.stride, self.padding = stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.v * (self.g / self.v.flatten(1).norm(dim=1).clamp_min(1e-8).reshape(-1, 1, 1, 1))
        return F.conv2d(x, w.to(memory_format=torch.channels_last), self.bias, self.stride, self.padding)


class Stack(nn.Module):
    def __init__(self, convs: Iterable[nn.Module], last: nn.Module) -> None:
        super().__init__()
        self.convs, self.last = nn.ModuleList(convs), last

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        return self.last(x), features


class Discriminators(nn.Module):
    PERIODS = (2, 3, 5, 7, 11)
    FFTS = (1024, 512, 256)

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        sizes = [1, w, 2 * w, 4 * w, 8 * w]
        self.period = nn.ModuleList(
            Stack(
                [Conv(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(sizes, sizes[1:])]
                + [Conv(8 * w, 8 * w, (5, 1), (1, 1), (2, 0))],
                Conv(8 * w, 1, (3, 1), (1, 1), (1, 0)),
            )
            for _ in self.PERIODS
        )
        self.spectral = nn.ModuleList(
            Stack(
                [
                    Conv(2, w, (3, 9), (1, 2), (1, 4)),
                    Conv(w, w, (3, 9), (1, 2), (1, 4)),
                    Conv(w, w, (3, 9), (1, 2), (1, 4)),
                    Conv(w, w, (3, 3), (1, 1), (1, 1)),
                ],
                Conv(w, 1, (3, 3), (1, 1), (1, 1)),
            )
            for _ in self.FFTS
        )
        for fft in self.FFTS:
            self.register_buffer(f"w{fft}", torch.hann_window(fft), persistent=False)

    def forward(self, audio: torch.Tensor) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        out = []
        for period, stack in zip(self.PERIODS, self.period):
            x = F.pad(audio, (0, -audio.shape[1] % period))
            x = x.reshape(x.shape[0], 1, -1, period).to(memory_format=torch.channels_last)
            out.append(stack(x))
        for fft, stack in zip(self.FFTS, self.spectral):
            s = torch.stft(
                audio.float(),
                fft,
                fft // 4,
                window=getattr(self, f"w{fft}"),
                center=True,
                pad_mode="constant",
                return_complex=True,
            )
            s = torch.stack([s.real, s.imag], 1).transpose(2, 3) * (2 / math.sqrt(fft))
            out.append(stack(s.contiguous(memory_format=torch.channels_last)))
        return out


def adam(
    w: torch.Tensor,
    g: torch.Tensor,
    m: torch.Tensor,
    v: torch.Tensor,
    average: torch.Tensor,
    step: torch.Tensor,
    facts: torch.Tensor,
    b1: float,
    b2: float,
    decay: float,
    limit: float,
) -> None:
    """AdamW with clipping on flat vectors, in place; facts = [learning rate, weight of the average's past].

    A gradient that is not finite counts as none."""
    norm = g.norm()
    good = torch.isfinite(norm)
    scale = torch.where(good, (limit / (norm + 1e-6)).clamp(max=1.0), torch.zeros_like(norm))
    g = torch.where(good, g * scale, torch.zeros_like(g))
    step.add_(good.float())
    m.lerp_(g, 1 - b1)
    v.mul_(b2).add_(g * g * (1 - b2))
    t = step.clamp_min(1.0)
    update = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)
    w.copy_(w * (1 - facts[0] * decay) - facts[0] * update)
    average.copy_(w + (average - w) * facts[1])


class Flat:
    """The parameters of modules as views of one vector, and AdamW with an average on it: few kernels, one state."""

    NAMES = ("weights", "m", "v", "average", "step")

    def __init__(
        self,
        modules: Iterable[nn.Module],
        device: torch.device,
        betas: tuple[float, float],
        decay: float = 0.01,
        limit: float = 10.0,
    ) -> None:
        self.parameters = [p for m in modules for p in m.parameters()]
        self.spots, size = [], 0
        for p in self.parameters:
            self.spots.append((size, p.numel()))
            size += -(-p.numel() // 64) * 64  # Aligned, as kernels expect.
        self.weights = torch.zeros(size, device=device)
        self.grad, self.m, self.v, self.average = (torch.zeros_like(self.weights) for _ in range(4))
        self.step = torch.zeros((), device=device)
        self.facts = torch.zeros(2, device=device)  # learning rate, weight of the average's past
        self.options = (*betas, decay, limit)
        self.function = adam
        for p, (a, n) in zip(self.parameters, self.spots):
            self.weights[a : a + n].copy_(p.data.flatten())
            p.data = self.weights[a : a + n].view(p.shape)
            p.grad = self.grad[a : a + n].view(p.shape)
        self.average.copy_(self.weights)

    def update(self) -> None:
        with torch.no_grad():
            self.function(self.weights, self.grad, self.m, self.v, self.average, self.step, self.facts, *self.options)

    def averaged(self) -> list[torch.Tensor]:
        return [self.average[a : a + n].view(p.shape) for p, (a, n) in zip(self.parameters, self.spots)]

    def state(self) -> dict[str, torch.Tensor]:
        return {k: getattr(self, k) for k in self.NAMES}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        for k in self.NAMES:
            getattr(self, k).copy_(state[k])

    def restart(self) -> None:
        """The average as weights, and no memory of gradients."""
        self.weights.copy_(self.average)
        for t in (self.m, self.v, self.step, self.grad):
            t.zero_()


class Trainer:
    """One codec in training. `store` is an AudioStore of one chunk that may still grow.

    `frozen`: the decoder learns the tokens of an encoder that stays as it is. It hears `CONTEXT` tokens on both sides
    of a
    crop, in full precision, so that a crop's tokens are those that the whole utterance has there."""

    CONTEXT = 24

    def __init__(
        self,
        store: AudioStore,
        device: torch.device,
        mode: str = "plain",
        config: dict[str, Any] = CONFIG,
        batch: int = 48,
        seconds: float = 1.92,
        judged: float = 0.96,
        width: int = 32,
        lr: float = 1.2e-3,
        critic_lr: float = 6e-4,
        dither: float = 0.3,
        gan_from: float = 0.4,
        warmup: int = 200,
        frozen: bool = False,
        pesq_weight: float = 0.0,
        spread_weight: float = 0.3,
        rate: float | None = None,
    ) -> None:
        self.store, self.device, self.mode, self.config = store, device, mode, config
        self.batch, self.lr, self.critic_lr, self.dither, self.gan_from = batch, lr, critic_lr, dither, gan_from
        self.warmup, self.frozen, self.pesq_weight = warmup, frozen, pesq_weight
        self.spread_weight, self.rate = spread_weight, None if frozen else rate
        if frozen:
            self.dither = 0.0
        self.count = int(seconds * RATE) // FRAME * FRAME
        self.judged = min(self.count, int(judged * RATE) // FRAME * FRAME)
        self.codec = Codec(config).to(device)
        self.critics = Discriminators(width).to(device)
        self.spectral = SpectralLoss().to(device)
        self.perceptual = PerceptualLoss().to(device) if pesq_weight else None
        if frozen:
            self.codec.encoder.requires_grad_(False).eval()
        self.learning = (self.codec.decoder,) if frozen else (self.codec.encoder, self.codec.decoder)
        self.prior = None
        if self.rate is not None:
            self.prior = Prior(config).to(device)
            self.learning = (*self.learning, self.prior)  # Last: an average of the codec's parts comes first.
        self.generator = Flat(self.learning, device, (0.8, 0.97))
        self.critic = Flat((self.critics,), device, (0.8, 0.95))
        # What a step reads, at fixed places: each crop's first sample, its utterance's end and begin, and the numbers
        # that
        # follow the schedule.
        self.spots = torch.zeros(3, batch, dtype=torch.int64, device=device)
        self.numbers = torch.zeros(3, 16, device=device)
        self.facts = self.numbers[0]  # share of dithered rows, weight of the GAN, start of what it judges
        self.generator.facts, self.critic.facts = self.numbers[1], self.numbers[2]
        self.sums = torch.zeros(11, device=device)
        self.rng = np.random.default_rng(1)
        self.step = self.gan_steps = 0
        self.run = {}
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        if mode in ("graphs", "compiled"):
            compiled = maybe_compile(self.codec.decoder.stage1[0].function, device, dynamic=False)
            for m in (*self.codec.modules(), *(self.prior.modules() if self.prior else ())):
                if hasattr(m, "function"):
                    m.function = compiled
            self.generator.function = self.critic.function = maybe_compile(adam, device, dynamic=False)

    # One step ---------------------------------------------------------------------------------------------------------

    def autocast(self) -> Any:
        # No cache of casts: a captured graph must cast anew whenever it runs.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False)

    def crops(self, around: int = 0) -> torch.Tensor:
        spots = self.spots[0, :, None] + torch.arange(-around, self.count + around, device=self.device)
        audio = self.store.chunks[0][spots.clamp(0, self.store.chunk_size - 1)]
        inside = (spots >= self.spots[2, :, None]) & (spots < self.spots[1, :, None])
        return torch.where(inside, audio.float() / 32768, 0.0)

    def values(self, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Digit values of the crops, and how far the digits are from being well used."""
        noise = torch.rand(len(real), device=self.device)
        if self.frozen:
            with torch.no_grad():
                z = self.codec.encoder(self.codec.mel(self.crops(self.CONTEXT * FRAME)))
                return quantize(z[:, self.CONTEXT : -self.CONTEXT], noise), torch.zeros((), device=self.device)
        # Spectra and the last layers stay in full precision: phases suffer from bfloat16.
        with torch.no_grad():
            heard = self.codec.mel(real)
        with self.autocast():
            x = self.codec.encoder.body(heard)
        z = self.codec.encoder.out(x.float())
        if self.prior is not None:
            self.paid = self.price(z)
        return quantize(z, noise, self.facts[0]), spread_loss(z)

    def price(self, z: torch.Tensor) -> torch.Tensor:
        """Nats a token of the prior, whose gradient reaches the encoder `rate` times while the prior learns as ever."""
        share = self.rate / Prior.WEIGHT
        z = z.detach() + share * (z - z.detach())
        soft = torch.tanh(z)
        blurred = (soft + (torch.rand_like(soft) - 0.5) * (2 * Prior.WIDTH)).clamp(-1, 1)
        with self.autocast():
            states = self.prior.body(quantize(z))
        return self.prior.nats(states, blurred).mean()

    def generate(self, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, spread = self.values(real)
        with self.autocast():
            x = self.codec.decoder.body(values)
        return sound(self.codec.decoder.head(x.float())), spread

    def distance(
        self, real: torch.Tensor, fake: torch.Tensor, spread: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = self.spectral(real, fake)
        loss = self.spectral.total(parts) + self.spread_weight * spread
        if self.prior is not None:
            parts["rate"] = self.paid
            loss = loss + Prior.WEIGHT * self.paid
        if self.perceptual is not None:
            parts["pesq"] = self.perceptual(real, fake).mean()
            loss = loss + self.pesq_weight * parts["pesq"]
        return loss, parts

    def plain_step(self) -> None:
        self.generator.grad.zero_()
        real = self.crops()
        fake, spread = self.generate(real)
        loss, parts = self.distance(real, fake, spread)
        loss.backward()
        self.generator.update()
        self.note(parts, spread)

    def gan_step(self) -> None:
        self.generator.grad.zero_()
        self.critic.grad.zero_()
        real = self.crops()
        fake, spread = self.generate(real)
        window = self.facts[2].long() + torch.arange(self.judged, device=self.device)
        leaf = fake.detach().index_select(1, window).requires_grad_()
        # One pass of the critics serves both sides; their step comes after both gradients.
        with self.autocast():
            judged = self.critics(torch.cat([real.index_select(1, window), leaf]))
        loss_d = loss_adversarial = loss_feature = 0.0
        for score, features in judged:
            a, b = score.float().chunk(2)
            loss_d = loss_d + F.relu(1 - a).mean() + F.relu(1 + b).mean()
            loss_adversarial = loss_adversarial - b.mean()
            for f in features:
                a, b = f.chunk(2)
                loss_feature = loss_feature + (a.detach() - b).abs().mean(dtype=torch.float32)
        torch.autograd.backward(loss_d, inputs=self.critic.parameters, retain_graph=True)
        (taste,) = torch.autograd.grad(loss_adversarial + 2 * loss_feature, leaf)
        taste = torch.where(torch.isfinite(taste), taste, 0.0)
        loss, parts = self.distance(real, fake, spread)
        loss = loss + self.facts[1] * (fake.index_select(1, window) * taste).sum()
        loss.backward()
        self.generator.update()
        self.critic.update()
        self.note(parts, spread, loss_d, loss_adversarial, loss_feature)

    def note(self, parts: dict[str, torch.Tensor], spread: torch.Tensor, *others: torch.Tensor) -> None:
        zero = torch.zeros((), device=self.device)
        values = [parts.get(k, zero) for k in ("mel", "ratio", "loudness", "envelope", "pesq")] + [spread, *others]
        values = [v.detach().float() for v in values] + [zero] * (9 - len(values))
        values += [parts.get("rate", zero).detach().float(), zero + 1]
        self.sums.add_(torch.stack(values))

    # Its inputs -------------------------------------------------------------------------------------------------------

    def refresh(self, seconds: float = 5.0) -> None:
        self.store.refresh(seconds)
        where = np.array([(o, n) for _, o, n in self.store.where], np.int64).reshape(-1, 2)
        self.offsets, self.lengths = where[:, 0], where[:, 1]
        speakers = np.array(self.store.speakers)
        self.by_speaker = [np.flatnonzero(speakers == s) for s in np.unique(speakers)]

    def prepare(self, share: float) -> float:
        """Fills the buffers that a step reads."""
        picks = np.concatenate(
            [  # The speakers take turns.
                own[self.rng.integers(0, len(own), -(-self.batch // len(self.by_speaker)))] for own in self.by_speaker
            ]
        )[: self.batch]
        room = np.maximum(self.lengths[picks] - self.count, 0)
        # One crop in eight starts where the utterance does, as every decoded sentence will.
        chance = self.rng.random(self.batch)
        starts = np.where(chance < 0.125, 0, (self.rng.random(self.batch) * (room + 1)).astype(np.int64))
        begin = self.offsets[picks] + starts
        spots = np.stack([begin, self.offsets[picks] + self.lengths[picks], self.offsets[picks]])
        self.spots.copy_(torch.from_numpy(spots), non_blocking=True)
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
        settled = max(0.0, 1 - share / max(self.gan_from, 1e-6))
        rate = self.lr * cosine * min(1.0, (self.step + 1) / self.warmup)
        numbers = np.zeros((3, 16), np.float32)
        numbers[0, 0] = self.dither * min(1.0, 2 * settled)
        numbers[0, 1] = min(1.0, (self.gan_steps + 1) / 1000)
        numbers[0, 2] = int(self.rng.integers(0, (self.count - self.judged) // FRAME + 1)) * FRAME
        numbers[1, :2] = rate, min(0.999, (self.step + 1) / (self.step + 10))
        numbers[2, 0] = self.critic_lr * cosine * min(1.0, (self.gan_steps + 1) / self.warmup)
        self.numbers.copy_(torch.from_numpy(numbers), non_blocking=True)
        return rate

    def advance(self, share: float, gan: bool) -> float:
        rate = self.prepare(share)
        name = "gan" if gan else "plain"
        if name not in self.run:
            self.run[name] = self.make(self.gan_step if gan else self.plain_step, share)
            self.prepare(share)
        self.run[name]()
        self.step += 1
        self.gan_steps += gan
        return rate

    def make(self, function: Callable[..., Any], share: float) -> Callable[[], Any]:
        if self.mode != "graphs" or self.stream is None:
            return function
        began = time.monotonic()
        for _ in range(3):  # Compiles, and lets libraries choose their kernels, outside the capture.
            function()
            self.prepare(share)
        torch.cuda.synchronize()
        self.graph = None  # The other phase's graph and its memory.
        self.run.clear()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            function()
        torch.cuda.synchronize()
        self.graph = graph
        log(
            f"codec: captured {function.__name__} in {time.monotonic() - began:.1f} s, "
            f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB reserved"
        )
        return graph.replay

    # What is kept -----------------------------------------------------------------------------------------------------

    def averaged(self) -> Codec:
        codec = Codec(self.config)
        codec.encoder.load_state_dict(self.codec.encoder.state_dict())
        own = [p for m in ((codec.decoder,) if self.frozen else (codec.encoder, codec.decoder)) for p in m.parameters()]
        with torch.no_grad():
            for p, q in zip(own, self.generator.averaged()):
                p.copy_(q)
        return codec.eval()

    def state(self, elapsed: float) -> dict[str, Any]:
        return {
            "generator": self.generator.state(),
            "critic": self.critic.state(),
            "step": self.step,
            "gan_steps": self.gan_steps,
            "elapsed": elapsed,
            "rng": self.rng.bit_generator.state,
            "config": self.config,
            "frozen": self.frozen,
        }

    def load(self, state: dict[str, Any]) -> None:
        if state["config"] != self.config:
            raise ValueError(
                "codec_state.pt is of a codec of another shape: "
                "give the same --digits and --size, or start without --resume"
            )
        if state.get("frozen", False) != self.frozen:
            raise ValueError(
                "codec_state.pt is of a run with, and this one without --freeze-encoder (or the other way round)"
            )
        self.generator.load(state["generator"])
        self.critic.load(state["critic"])
        self.step, self.gan_steps = state["step"], state["gan_steps"]
        self.rng.bit_generator.state = state["rng"]

    def start_from(self, codec: Codec) -> None:
        """The weights of another codec. With another number of digits, the layers at the digits start afresh."""
        for mine, theirs in ((self.codec.encoder, codec.encoder), (self.codec.decoder, codec.decoder)):
            for (name, p), q in zip(mine.named_parameters(), theirs.parameters()):
                if p.shape == q.shape:
                    p.data.copy_(q)
                else:
                    if self.frozen or name.split(".")[0] not in ("out", "inp"):
                        raise ValueError(
                            f"{name} of the codec to start from is of another shape: its sizes differ from this one's"
                        )
        self.generator.average.copy_(self.generator.weights)


def averaged_prior(trainer: Trainer) -> Prior:
    prior = Prior(trainer.config).to(trainer.device)
    own = list(prior.parameters())
    with torch.no_grad():
        for p, q in zip(own, trainer.generator.averaged()[-len(own) :]):
            p.copy_(q)
    return prior.eval()


@torch.no_grad()
def held_figures(args: argparse.Namespace, device: torch.device, folder: str, limit: int = 60) -> dict[str, Any]:
    """Of held-out speech, by speaker: the distance of log-mel, the codes used, and what the prior pays for them."""
    from ..corpus.synth import AudioStore

    held = AudioStore(args.work, "heldout", device, 10)
    held.refresh()
    codec, spectral, prior = load_codec(folder, device), SpectralLoss().to(device), None
    if os.path.exists(f"{folder}/codec_prior.safetensors"):
        prior = Prior(codec.config).to(device).eval()
        prior.load_state_dict(load(f"{folder}/codec_prior.safetensors")[0])
    result = {}
    for speaker, name in enumerate(held.voices):
        rows, mel, nats, codes = np.flatnonzero(np.array(held.speakers) == speaker)[:limit], 0.0, 0.0, []
        for i in rows:
            audio = held.batch([i]).to(device)
            audio = F.pad(audio, (0, -audio.shape[1] % FRAME))
            tokens = codec.encode(audio)
            mel += float(spectral(audio, codec.decode(tokens))["mel"]) / len(rows)
            values = values_of(tokens, codec.config["fsq_digits"])
            if prior is not None:
                nats += float(prior(values, values).sum())
            codes.append(tokens[0].cpu().numpy())
        if len(rows):
            codes = np.concatenate(codes)
            result[name] = {"mel": round(mel, 4), "tokens": len(codes), "usage": usage(codes)}
            if prior is not None:
                result[name]["prior_nats"] = round(nats / len(codes), 4)
    return result


def ship(work: str, out: str) -> None:
    for name in ("encoder", "decoder"):
        path = f"{work}/codec_{name}.safetensors"
        if os.path.getsize(path) < 15_700_000:
            shutil.copy(path, out)
        else:
            split(path, out)


def train(
    work: str,
    store: AudioStore,
    budget: float,
    device: torch.device,
    mode: str = "plain",
    config: dict[str, Any] = CONFIG,
    out: str | None = None,
    max_steps: int | None = None,
    total: float | None = None,
    resume: bool = False,
    init: str | None = None,
    init_bundle: str | None = None,
    refresh_until: float = 0.0,
    save_every: float = 110.0,
    used: float | None = None,
    **options: Any,
) -> tuple[Codec, dict[str, Any]]:
    """Trains for `budget` seconds of a schedule of `total`; saves and returns the averaged codec and figures.

    `used`: seconds of the schedule before now (default: what the resumed state or codec says). `init`: a folder of
    checkpoints to start from; `init_bundle`: a bundle, with the encoder that this package ships."""
    speed_settings(device)
    clock, total = Clock(budget), total or budget
    trainer = Trainer(store, device, mode, config, **options)
    path, before, encoder = f"{work}/codec_state.pt", 0.0, f"{work}/codec_encoder.safetensors"
    if resume and os.path.exists(path):
        state = torch.load(path, map_location=device, weights_only=False)
        trainer.load(state)
        if trainer.frozen:
            trainer.codec.encoder.load_state_dict(load(encoder)[0])
        before = state["elapsed"] if used is None else used
        log(f"codec: resumed at step {trainer.step}, {before:.0f} s of {total:.0f}")
        del state
    elif init or init_bundle:
        facts = load(f"{init}/codec_decoder.safetensors")[1] if init else {}
        trainer.start_from(load_codec(init) if init else codec_from_bundle(init_bundle))
        before = facts.get("elapsed", 0.0) if used is None else used
        if used is None or resume:  # Else a schedule of its own: it warms up, and the average forgets.
            trainer.step = facts.get("steps", 0)
        if trainer.frozen:  # The very file: rounded once more, some tokens would be others.
            source = f"{init}/codec_encoder.safetensors" if init else ENCODER
            if os.path.realpath(source) != os.path.realpath(encoder):
                shutil.copy(source, encoder)
        log(f"codec: starts from {init or init_bundle}, {before:.0f} s of {total:.0f}")
    else:
        if trainer.frozen:
            raise ValueError("--freeze-encoder needs an encoder: give --init FOLDER or --init-bundle FOLDER")
        before = used or 0.0
    trainer.refresh()
    log(
        f"codec: {mode}, {sum(p.numel() for p in trainer.codec.encoder.parameters()) / 1e6:.2f} M + "
        f"{sum(p.numel() for p in trainer.codec.decoder.parameters()) / 1e6:.2f} M + critics "
        f"{sum(p.numel() for p in trainer.critics.parameters()) / 1e6:.2f} M, {store.hours():.2f} h of "
        f"{len(trainer.by_speaker)} speakers, {clock.left():.0f} s"
    )

    def write(codec, folder, facts):
        codec.save(folder, facts, ("decoder",) if trainer.frozen else ("encoder", "decoder"))
        if trainer.frozen and folder != work:
            shutil.copy(encoder, folder)

    def keep():
        elapsed = before + clock.elapsed()
        began = time.monotonic()
        codec = trainer.averaged()
        if not all(bool(torch.isfinite(p).all()) for p in codec.parameters()):
            log("codec: the average is not finite; not saved")
            return None
        facts = {
            "steps": trainer.step,
            "gan_steps": trainer.gan_steps,
            "elapsed": round(elapsed, 1),
            "hours": round(store.hours(), 2),
        }
        write(codec, work, facts)
        torch.save(trainer.state(elapsed), path + ".part")
        os.replace(path + ".part", path)
        if out:
            ship(work, out)
        log(f"codec: saved at step {trainer.step} in {time.monotonic() - began:.1f} s")
        return codec

    def loop():
        first = last = None
        mark, mark_step, saved, refreshed, rate = clock.elapsed(), trainer.step, clock.elapsed(), clock.elapsed(), 0.0
        begin_step, every = trainer.step, 500 if max_steps is None else max(1, max_steps // 4)
        while clock.left() > 0 and (max_steps is None or trainer.step < max_steps):
            share = min(1.0, (before + clock.elapsed()) / total) if max_steps is None else trainer.step / max_steps
            gan = share >= trainer.gan_from and trainer.gan_from < 1
            if gan and not trainer.gan_steps and trainer.step > begin_step:
                # Beside the final one: did the discriminators help?
                codec = keep()
                if codec:
                    os.makedirs(f"{work}/before_gan", exist_ok=True)
                    write(codec, f"{work}/before_gan", {"steps": trainer.step})
                saved = mark = clock.elapsed()
                mark_step = trainer.step
            rate = trainer.advance(share, gan)
            done = trainer.step - begin_step
            if device.type == "cuda" and done % 16 == 0:
                torch.cuda.current_stream().synchronize()  # Else the clock runs behind the queue.
            if clock.elapsed() - refreshed > 10 and clock.elapsed() < refresh_until:
                trainer.refresh(3.0)
                refreshed = clock.elapsed()
            if trainer.step % every == 0 or done == 20:
                s = trainer.sums.tolist()
                trainer.sums.zero_()
                mean = [x / max(1.0, s[10]) for x in s]
                seconds = clock.elapsed() - mark
                if not math.isfinite(sum(mean)):
                    log("codec: not finite; back to the averaged weights")
                    trainer.generator.restart()
                    trainer.critic.restart()
                elif not first:
                    first = mean[0]
                last = mean[0]
                log(
                    f"codec: step {trainer.step} ({(trainer.step - mark_step) / max(seconds, 1e-6):.1f}/s) "
                    f"mel {mean[0]:.4f} "
                    f"ratio {mean[1]:.4f} loud {mean[2]:.4f} env {mean[3]:.4f} pesq {mean[4]:.4f} spread {mean[5]:.3f} "
                    f"d {mean[6]:.3f} adv {mean[7]:.3f} fm {mean[8]:.4f} nats {mean[9]:.3f} {store.hours():.1f} h "
                    f"lr {rate:.1e} at {share:.3f}"
                )
                mark, mark_step = clock.elapsed(), trainer.step
                if clock.elapsed() - saved > save_every:
                    saved = clock.elapsed()
                    keep()
                    mark = clock.elapsed()
        return first, last

    if trainer.stream is not None:
        torch.cuda.synchronize()
        with torch.cuda.stream(trainer.stream):
            first, last = loop()
        torch.cuda.synchronize()
    else:
        first, last = loop()
    codec = keep() or load_codec(work)
    if trainer.prior is not None:
        save(f"{work}/codec_prior.safetensors", averaged_prior(trainer).state_dict(), dict(trainer.config))
    log(f"codec: {trainer.step} steps, {trainer.gan_steps} with the discriminators")
    return codec.to(device), {"first": first, "last": last, "steps": trainer.step, "gan_steps": trainer.gan_steps}


# The stage: synthesis, a watched training process, figures
# -------------------------------------------------------------


def worker(args: argparse.Namespace) -> int | None:
    from ..corpus.synth import AudioStore, natural_voices

    device = device_of(args.device)
    size = {"batch": 4, "seconds": 0.48, "judged": 0.32, "width": 4} if args.size == "toy" else {"batch": args.batch}
    size["config"] = dict(TOY if args.size == "toy" and not args.init_bundle else CONFIG, fsq_digits=args.digits)
    # A natural teacher may take a minute to its first words, and the encoder should hear every speaker from the begin.
    store = AudioStore(args.work, "w", device, args.hours, one_chunk=True, balanced=bool(natural_voices(args.work)))
    deadline = time.monotonic() + 60

    def enough() -> bool:
        everyone = not natural_voices(args.work) or len(store.by_voice) == len(store.voices)
        return store.hours() >= min(0.5, args.hours / 4) and everyone

    while not enough() and time.monotonic() < deadline:
        store.refresh()
        time.sleep(0.2)
    if args.fail_in and args.mode in args.fail_in.split(","):
        os._exit(9)  # For tests of the watcher.
    now = time.time()
    train(
        args.work,
        store,
        args.until - now,
        device,
        args.mode,
        out=args.out,
        total=args.total_budget,
        resume=args.resume,
        init=args.init,
        init_bundle=args.init_bundle,
        refresh_until=args.refresh,
        used=now - args.origin,
        lr=args.lr,
        gan_from=args.gan_from,
        frozen=args.freeze_encoder,
        pesq_weight=args.pesq_weight,
        spread_weight=args.spread,
        rate=args.rate,
        **size,
    )
    try:
        facts = held_figures(args, device, args.work)
        with open(f"{args.work}/codec_held.json", "w") as f:
            json.dump(facts, f, indent=1)
        log("codec: held out:", json.dumps(facts))
        device_sounds(args, device, args.work, args.heldout)
        if os.path.exists(f"{args.work}/before_gan/codec_decoder.safetensors") and args.until - time.time() > -15:
            device_sounds(args, device, f"{args.work}/before_gan", 30)
    except Exception as error:  # noqa: BLE001 - the checkpoints are saved
        log("codec: held-out sentences:", repr(error)[:500])


def device_sounds(args: argparse.Namespace, device: torch.device, folder: str, limit: int) -> None:
    """The held-out sentences and their codec versions, for the figures."""
    from ..corpus.synth import AudioStore

    held = AudioStore(args.work, "heldout", device, 10)
    held.refresh()
    codec, sides, tokens = load_codec(folder, device), {}, []
    for i in np.flatnonzero(np.array(held.ids) < limit):
        audio = held.batch([i]).to(device)
        code = codec.encode(audio)
        tokens.append(code[0].cpu().numpy())
        coded = codec.decode(code)[0, : audio.shape[1]]
        key = f"{held.speakers[i]}_{held.ids[i]:04d}"
        for side, x in (("real", audio[0]), ("coded", coded)):
            sides[f"{side}_{key}"] = (x.clamp(-1, 1) * 32767).to(torch.int16).cpu().numpy()
    np.savez(f"{folder}/heldout_sounds.npz", tokens=np.concatenate(tokens).astype(np.uint16), **sides)
    log(f"codec: {len(tokens)} held-out sentences decoded")


def synthesise(args: argparse.Namespace) -> Synthesis:
    from ..corpus.synth import VOICES, Synthesis, heldout_texts, read_texts

    voices = tuple(args.voice or VOICES)
    held = Synthesis(
        args.work,
        heldout_texts(),
        args.program,
        args.workers,
        "heldout",
        limit=args.heldout,
        voices=voices,
        every=True,
        plain=True,
    )
    held.wait(60)
    return Synthesis(args.work, read_texts(args.texts), args.program, args.workers, voices=voices)


def supervise(args: argparse.Namespace) -> int:
    from ..corpus.synth import hours_on_disk, natural_voices

    os.makedirs(args.work, exist_ok=True)
    os.makedirs(args.out, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.abspath(f"{args.work}/inductor"))
    clock, report = Clock(args.call_budget), {"modes": []}
    reserve = min(args.reserve, 0.25 * args.call_budget)
    total = args.total_budget - reserve * math.ceil(args.total_budget / args.call_budget - 1e-6)
    before = 0.0
    for folder in (args.work, args.init):
        if args.resume and folder and os.path.exists(f"{folder}/codec_decoder.safetensors"):
            before = load(f"{folder}/codec_decoder.safetensors")[1].get("elapsed", 0.0)
            break
    origin = time.time() - before
    log(f"codec: {before:.0f} s of {total:.0f} behind, {cpu_count()} cores")
    job = None
    if not (args.resume and hours_on_disk(args.work) > 0.5 * min(args.hours, 1.0)):
        job = None if natural_voices(args.work) else synthesise(args)
    resume, modes = args.resume, MODES[MODES.index(args.mode) :]
    attempt = 0
    command = [sys.executable, "-u", "-m", "voxgrain_tools", "codec"]
    try:
        while clock.left() > reserve + 1:
            mode = modes[min(attempt, len(modes) - 1)]
            options = [
                "--worker",
                "--mode",
                mode,
                "--work",
                args.work,
                "--out",
                args.out,
                "--size",
                args.size,
                "--until",
                time.time() + clock.left() - reserve,
                "--total-budget",
                total,
                "--origin",
                origin,
                "--hours",
                args.hours,
            ]
            options += [
                "--lr",
                args.lr,
                "--gan-from",
                args.gan_from,
                "--batch",
                args.batch,
                "--heldout",
                args.heldout,
                "--pesq-weight",
                args.pesq_weight,
                "--digits",
                args.digits,
                "--refresh",
                args.refresh,
                "--spread",
                args.spread,
            ]
            options += ["--rate", args.rate] if args.rate is not None else []
            options += ["--resume"] if resume else []
            options += ["--freeze-encoder"] if args.freeze_encoder else []
            options += ["--init", args.init] if args.init else []
            options += ["--init-bundle", args.init_bundle] if args.init_bundle else []
            options += ["--device", args.device] if args.device else []
            options += ["--fail-in", args.fail_in] if args.fail_in else []
            began, heard = time.monotonic(), f"{args.work}/worker.log"
            log(f"codec: worker starts, {mode}")
            report["modes"].append(mode)
            with open(heard, "ab") as sink:
                at = sink.tell()
                process = subprocess.Popen(
                    [*command, *map(str, options)],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                )
            quiet = time.monotonic()
            while True:
                code = process.poll()
                with open(heard, "rb") as f:
                    f.seek(at)
                    text = f.read()
                if text:
                    at, quiet = at + len(text), time.monotonic()
                    sys.stdout.write(text.decode(errors="replace"))
                    sys.stdout.flush()
                if job and (hours_on_disk(args.work) >= args.hours or not job.running()):
                    job.stop()
                    job = None
                    log(f"codec: synthesis done, {hours_on_disk(args.work):.2f} h after {clock.elapsed():.0f} s")
                if code is not None:
                    break
                # Silent for minutes, or far beyond its time: hung.
                if time.monotonic() - quiet > args.silence or clock.left() < reserve - 25:
                    log("codec: the worker hangs; ended")
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    code = -9
                    break
                time.sleep(0.2)
            if code == 0:
                report["finished"] = mode
                break
            log(f"codec: worker ended with {code} after {time.monotonic() - began:.0f} s")
            attempt, resume = attempt + 1, True
    finally:
        if job:
            job.stop()
    report["seconds"] = round(clock.elapsed(), 1)
    try:
        report.update(figures(args))
    except Exception as error:  # noqa: BLE001 - the checkpoints are out already
        report["error"] = repr(error)
        log("codec: no figures:", repr(error)[:500])
    with open(f"{args.out}/codec_report.json", "w") as f:
        json.dump(report, f, indent=1)
    log("codec: ends after", f"{clock.elapsed():.0f} s", json.dumps(report))
    return 0 if "finished" in report else 1


def figures(args: argparse.Namespace) -> dict[str, Any]:
    from ..audio import zip_wavs
    from ..corpus.synth import VOICES, natural_voices
    from .similarity import measure

    voices = natural_voices(args.work) or VOICES

    with np.load(f"{args.work}/heldout_sounds.npz") as f:
        sounds = {k: f[k] for k in f.files}
    result = {"usage": usage(sounds.pop("tokens")), "checkpoint": load(f"{args.work}/codec_decoder.safetensors")[1]}
    keys = sorted(k[5:] for k in sounds if k.startswith("real_"))
    chosen = [k for s in range(len(voices)) for k in [k for k in keys if k.startswith(f"{s}_")][:60:10]]
    zip_wavs(
        f"{args.out}/codec_samples.zip",
        {
            f"{voices[int(k[0])]}_{k[2:]}_{side}": sounds[f"{side}_{k}"] / 32768
            for k in chosen
            for side in ("real", "coded")
        },
    )
    for number, voice in enumerate(voices):
        own = [k for k in keys if k.startswith(f"{number}_")]
        if own:
            result[voice] = measure(
                [(sounds[f"real_{k}"], sounds[f"coded_{k}"]) for k in own], args.workers or cpu_count()
            )
            log(voice, result[voice])
    path = f"{args.work}/before_gan/heldout_sounds.npz"
    if os.path.exists(path):
        with np.load(path) as f:
            early = {k: f[k] for k in f.files}
        for number, voice in enumerate(voices):
            own = [k[5:] for k in early if k.startswith(f"real_{number}_")]
            if own:
                pairs = {"before_gan": early, "same_sentences": sounds}
                result[f"{voice}_gan"] = {
                    n: measure([(s[f"real_{k}"], s[f"coded_{k}"]) for k in own], args.workers or cpu_count())
                    for n, s in pairs.items()
                }
                log(voice, result[f"{voice}_gan"])
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", required=True, help="folder kept between calls: audio/, codec_*.safetensors, codec_state.pt"
    )
    parser.add_argument("--out", default="out", help="results, in files below 16 MiB")
    parser.add_argument(
        "--total-budget", type=float, default=1120, help="seconds of the whole schedule, over all calls"
    )
    parser.add_argument("--call-budget", type=float, default=560, help="seconds of this call, all included")
    parser.add_argument(
        "--gan-from", type=float, default=0.4, help="share of the schedule at which the discriminators join"
    )
    parser.add_argument("--lr", type=float, default=1.2e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=48, help="crops of 1.92 s a step")
    parser.add_argument("--reserve", type=float, default=45, help="seconds kept for the figures at the end of a call")
    parser.add_argument("--resume", action="store_true", help="go on from --work, or from --init where that is gone")
    parser.add_argument("--init", default=None, help="folder of a codec whose weights and elapsed time to start from")
    parser.add_argument(
        "--init-bundle", default=None, help="bundle whose decoder to start from, with tools/data's encoder"
    )
    parser.add_argument(
        "--freeze-encoder",
        action="store_true",
        help="the tokens stay: only the decoder learns (needs --init or --init-bundle)",
    )
    parser.add_argument(
        "--pesq-weight",
        type=float,
        default=0.0,
        help="of the PESQ-wb distance in the loss; at 0.4 its gradient is as large as mel's",
    )
    parser.add_argument(
        "--spread", type=float, default=0.3, help="weight of the loss that makes all codes equally frequent"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=None,
        help="weight of the nats a token that a small causal network needs for the next token from those before it; "
        "0: it learns and is reported, and the encoder does not hear of it",
    )
    parser.add_argument("--digits", type=int, default=CONFIG["fsq_digits"], help="of a code; 5 make 1,024 codes")
    parser.add_argument(
        "--hours",
        type=float,
        default=12.0,
        help="audio of all voices together, of natural ones in even shares; 37 at most",
    )
    parser.add_argument(
        "--refresh", type=float, default=120, help="seconds for which audio that is spoken meanwhile is taken up"
    )
    parser.add_argument("--voice", action="append", default=None, help="may be repeated (default: all)")
    parser.add_argument("--heldout", type=int, default=100, help="held-out sentences a voice for the figures")
    parser.add_argument("--texts", default=".dev/corpus.txt.xz", help="spoken by flite, unless `speak` has filled WORK")
    parser.add_argument("--program", default=".dev/flite_synth", help="or its .xz")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--mode", choices=MODES, default="graphs", help="plainer modes follow where one fails")
    parser.add_argument("--silence", type=float, default=180, help="seconds after which a silent worker is ended")
    parser.add_argument("--size", choices=["full", "toy"], default="full")
    parser.add_argument("--device", default=None)
    parser.add_argument("--worker", action="store_true", help="internal: train in this process")
    parser.add_argument("--origin", type=float, default=0.0, help="internal")
    parser.add_argument("--until", type=float, default=0.0, help="internal")
    parser.add_argument("--fail-in", default=None, help="for tests: modes in which the worker dies")


def run(args: argparse.Namespace) -> int | None:
    if args.worker:
        return worker(args)
    args.total_budget = max(args.total_budget, args.call_budget)
    return supervise(args)
