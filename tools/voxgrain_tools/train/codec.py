"""The speech codec (one codebook of 65,536 codes, 50 a second), and stage tokenize; codec_train trains it."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..common import DATA, device_of, load, log, save
from ..corpus.labels import phone_labels

if TYPE_CHECKING:
    from ..corpus.synth import AudioStore

EXAMPLE_TOKENIZE = "python -m voxgrain_tools tokenize --work /tmp/vx"
RATE, HOP, FFT, FRAME = 16000, 160, 640, 320
CONFIG = {
    "sample_rate_hz": RATE,
    "token_hop": FRAME,
    "fft_size": FFT,
    "hop": HOP,
    "max_log_magnitude": 6.0,
    "window": "hann_periodic",
    "overlap_divisor": 1.5,
    "trim_samples": 240,
    "fsq_digits": 8,
    "fsq_levels": 4,
    "gelu": "tanh",
    "layer_norm_eps": 1e-6,
    "mel_bins": 80,
    "mel_scale": "htk",
    "mel_floor": 1e-5,
    "mel_shift": 5.0,
    "mel_divisor": 3.0,
    "encoder_pad_samples": 240,
    "features": "pitch",
    "enc1": [384, 4, 7],
    "enc2": [512, 6, 7],
    "dec1": [384, 4, 9],
    "dec2": [320, 4, 7],
    "expansion": 3,
}
TOY = dict(CONFIG, enc1=[32, 1, 5], enc2=[32, 1, 3], dec1=[64, 1, 7], dec2=[32, 2, 7])
# Checkpoints from before the key existed hear log-mel frames alone.
FEATURES_BEFORE = "mel"
ENCODER = os.path.join(DATA, "codec_encoder.safetensors")


def mel_filters(bins: int, fft: int, rate: int = RATE) -> torch.Tensor:
    """[bins, fft/2+1], triangles on the HTK mel scale, each of unit area in bins' width."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bins + 2) / 2595) - 1)
    hz = np.linspace(0, rate / 2, fft // 2 + 1)
    left, mid, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.maximum(0, np.minimum((hz - left) / (mid - left), (right - hz) / (right - mid)))
    return torch.tensor(weights / np.maximum(weights.sum(1, keepdims=True), 1e-8), dtype=torch.float32)


class LogMel(nn.Module):
    """Log-mel frames, two a token and aligned with the decoder's frames: [B, n] -> [B, n/160, 80]."""

    def __init__(self, config: dict[str, Any] = CONFIG) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)
        self.register_buffer("filters", mel_filters(config["mel_bins"], FFT), persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        pad = self.config["encoder_pad_samples"]
        spectrum = torch.stft(
            F.pad(audio.float(), (pad, pad)), FFT, HOP, window=self.window, center=False, return_complex=True
        ).abs()
        mel = (self.filters @ spectrum).clamp_min(self.config["mel_floor"]).log()
        return ((mel + self.config["mel_shift"]) / self.config["mel_divisor"]).transpose(1, 2)


class WideFeatures(nn.Module):
    """What the encoder hears, [B, n] -> [B, n/160, size], every frame centred as LogMel's.

    "pitch": log-mel frames and the low bins of a long frame. "wide": beside them two short frames (place in time) and
    compressed complex bins (phase). Where in a token the glottal pulses lie is nothing that a text tells: "wide" codes
    sound a little nearer to the original, and cost a language model 1.2 nats a token more."""

    FINE, LONG, LOW, PHASE = (256, 40), 2048, 128, 160

    def __init__(self, config: dict[str, Any] = CONFIG) -> None:
        super().__init__()
        self.mel = LogMel(config)
        self.wide = config["features"] == "wide"
        self.register_buffer("long_window", torch.hann_window(self.LONG), persistent=False)
        self.size = config["mel_bins"] + self.LOW
        if self.wide:
            fft, bins = self.FINE
            self.register_buffer("fine_window", torch.hann_window(fft), persistent=False)
            self.register_buffer("fine_filters", mel_filters(bins, fft), persistent=False)
            self.size += 2 * bins + 2 * self.PHASE

    @staticmethod
    def spectrum(audio: torch.Tensor, window: torch.Tensor, hop: int) -> torch.Tensor:
        pad = (len(window) - hop) // 2
        return torch.stft(F.pad(audio, (pad, pad)), len(window), hop, window=window, center=False, return_complex=True)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        audio = audio.float()
        frames = audio.shape[1] // HOP
        low = self.spectrum(audio, self.long_window, HOP)[:, 1 : self.LOW + 1].abs().clamp_min(1e-4).log()
        low = (low.transpose(1, 2) + 2) / 3
        if not self.wide:
            return torch.cat([self.mel(audio), low], -1)
        fine = (self.fine_filters @ self.spectrum(audio, self.fine_window, HOP // 2).abs()).clamp_min(1e-5).log()
        fine = ((fine + 5) / 3).transpose(1, 2).reshape(audio.shape[0], frames, -1)
        part = torch.view_as_real(self.spectrum(audio, self.mel.window, HOP)[:, 1 : self.PHASE + 1])
        part = part * (part.square().sum(-1, keepdim=True) + 1e-6) ** -0.35
        part = part.permute(0, 2, 1, 3).reshape(audio.shape[0], frames, -1)
        return torch.cat([self.mel(audio), fine, low, part], -1)


def features_of(config: dict[str, Any]) -> nn.Module:
    return (LogMel if config.get("features", FEATURES_BEFORE) == "mel" else WideFeatures)(config)


class Depthwise(nn.Module):
    def __init__(self, channels: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernel, channels) / math.sqrt(kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.left, self.right = (kernel - 1, 0) if causal else ((kernel - 1) // 2, kernel // 2)


def block(
    x: torch.Tensor,
    left: int,
    right: int,
    kernel: torch.Tensor,
    bias: torch.Tensor,
    norm: torch.Tensor,
    norm_bias: torch.Tensor,
    w1: torch.Tensor,
    b1: torch.Tensor,
    w2: torch.Tensor,
    b2: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """One ConvNeXt block on [B, T, C]; a plain function, so that it compiles once for all blocks of a stage."""
    # A sum of shifted copies: fuses when compiled, and needs no transposes.
    size, y = x.shape[1], F.pad(x, (0, 0, left, right))
    total = bias
    for j in range(kernel.shape[0]):
        total = total + y[:, j : j + size] * kernel[j]
    y = F.layer_norm(total, (total.shape[-1],), norm, norm_bias, 1e-6)
    y = F.linear(F.gelu(F.linear(y, w1, b1), approximate="tanh"), w2, b2)
    return x + y * scale


class Block(nn.Module):
    def __init__(self, channels: int, kernel: int, causal: bool, expansion: int = 3, scale: float = 0.2) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels, kernel, causal)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pointwise1 = nn.Linear(channels, expansion * channels)
        self.pointwise2 = nn.Linear(expansion * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), scale))
        self.function = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        d, n, a, b = self.depthwise, self.norm, self.pointwise1, self.pointwise2
        return self.function(
            x, d.left, d.right, d.weight, d.bias, n.weight, n.bias, a.weight, a.bias, b.weight, b.bias, self.layer_scale
        )


def blocks(shape: Sequence[int], causal: bool, expansion: int) -> nn.ModuleList:
    channels, count, kernel = shape
    return nn.ModuleList(Block(channels, kernel, causal, expansion) for _ in range(count))


class Encoder(nn.Module):
    """Frames of features_of(config) [B, 2T, ...] -> [B, T, 8] before the bounding tanh."""

    def __init__(self, config: dict[str, Any] = CONFIG) -> None:
        super().__init__()
        a, b = config["enc1"], config["enc2"]
        features = features_of(config)
        self.inp = nn.Linear(getattr(features, "size", config["mel_bins"]), a[0])
        self.stage1 = blocks(a, False, config["expansion"])
        self.down = nn.Linear(2 * a[0], b[0])
        self.stage2 = blocks(b, False, config["expansion"])
        self.norm = nn.LayerNorm(b[0], eps=1e-6)
        self.out = nn.Linear(b[0], config["fsq_digits"])

    def body(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.inp(mel)
        for step in self.stage1:
            x = step(x)
        x = self.down(x.reshape(x.shape[0], x.shape[1] // 2, -1))
        for step in self.stage2:
            x = step(x)
        return self.norm(x).float()

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(mel))


class Decoder(nn.Module):
    """Digit values [B, T, 8] -> spectrum [B, 2T, 642]; causal."""

    def __init__(self, config: dict[str, Any] = CONFIG) -> None:
        super().__init__()
        a, b = config["dec1"], config["dec2"]
        self.inp = nn.Linear(config["fsq_digits"], a[0])
        self.stage1 = blocks(a, True, config["expansion"])
        self.up = nn.Linear(a[0], 2 * b[0])
        self.stage2 = blocks(b, True, config["expansion"])
        self.norm = nn.LayerNorm(b[0], eps=1e-6)
        self.head = nn.Linear(b[0], FFT + 2)

    def body(self, values: torch.Tensor) -> torch.Tensor:
        x = self.inp(values)
        for step in self.stage1:
            x = step(x)
        x = self.up(x)
        x = x.reshape(x.shape[0], x.shape[1] * 2, -1)
        for step in self.stage2:
            x = step(x)
        return self.norm(x).float()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(values))


def sound(spectrum: torch.Tensor) -> torch.Tensor:
    """Spectrum [B, 2T, 642] -> samples [B, 320T]: inverse FFT, Hann, overlap-add, /1.5, trimmed by 240."""
    magnitude = torch.exp(spectrum[..., :321].clamp(max=6.0))
    phase = spectrum[..., 321:]
    frames = torch.fft.irfft(torch.complex(magnitude * phase.cos(), magnitude * phase.sin()), n=FFT)
    frames = frames * torch.hann_window(FFT, device=spectrum.device)
    # Frames of four hops each: add the four quarters, each shifted by its place.
    batch, count, _ = frames.shape
    quarters = frames.reshape(batch, count, 4, HOP)
    total = sum(F.pad(quarters[:, :, q], (0, 0, q, 3 - q)) for q in range(4))
    return total.reshape(batch, -1)[:, 240:-240] / 1.5


def digits_of(z: torch.Tensor) -> torch.Tensor:
    return torch.floor(1.5 * torch.tanh(z) + 2).clamp(0, 3)


def tokens_of(z: torch.Tensor) -> torch.Tensor:
    shifts = torch.tensor([4**i for i in range(z.shape[-1])], device=z.device)
    return (digits_of(z).long() * shifts).sum(-1)


def values_of(tokens: torch.Tensor, digits: int = 8) -> torch.Tensor:
    shifts = torch.arange(digits, device=tokens.device) * 2
    return (((tokens.unsqueeze(-1) >> shifts) & 3).float() - 1.5) / 1.5


class Codec(nn.Module):
    def __init__(self, config: dict[str, Any] = CONFIG) -> None:
        super().__init__()
        self.config = config
        self.mel, self.encoder, self.decoder = features_of(config), Encoder(config), Decoder(config)

    @torch.no_grad()
    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """[B, n] -> tokens [B, ceil(n/320)]"""
        audio = F.pad(audio, (0, -audio.shape[1] % FRAME))
        return tokens_of(self.encoder(self.mel(audio)))

    @torch.no_grad()
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return sound(self.decoder(values_of(tokens, self.config["fsq_digits"])))

    def save(
        self, folder: str, facts: dict[str, Any] | None = None, parts: Sequence[str] = ("encoder", "decoder")
    ) -> None:
        for name in parts:
            module = getattr(self, name)
            save(f"{folder}/codec_{name}.safetensors", module.state_dict(), dict(self.config, **(facts or {})))


def load_codec(folder: str, device: str = "cpu") -> Codec:
    encoder, config = load(f"{folder}/codec_encoder.safetensors")
    decoder, _ = load(f"{folder}/codec_decoder.safetensors")
    codec = Codec(config)
    codec.encoder.load_state_dict(encoder)
    codec.decoder.load_state_dict(decoder)
    return codec.to(device).eval()


def codec_from_bundle(folder: str, encoder: str = ENCODER, device: str = "cpu") -> Codec:
    """The codec that a bundle ships: the decoder with the weights that the engine computes with, and the encoder's
    file."""
    from ..export.onnx_read import codec_decoder

    tensors, config = load(encoder)
    codec = Codec(dict(CONFIG, features=FEATURES_BEFORE) | {k: v for k, v in config.items() if k in CONFIG})
    codec.encoder.load_state_dict(tensors)
    codec.decoder.load_state_dict({k: torch.tensor(v) for k, v in codec_decoder(f"{folder}/codec.onnx").items()})
    return codec.to(device).eval()


def tokenize(
    codec: Codec,
    store: AudioStore,
    device: torch.device,
    samples: int = 16_000_000,
    phones: bool = True,
    shift_seed: int | None = None,
    speakers: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The whole store, or what these speakers say, as tokens: dict of flat arrays, utterances sorted by id, then by
    speaker.

    With `shift_seed` every utterance begins later by its own part of a token (silence before it): other tokens
    for the same speech, which a language model cannot learn by heart."""
    lengths = store.lengths()
    shifts = np.zeros(len(lengths), np.int64)
    if shift_seed is not None:
        shifts = np.random.default_rng(shift_seed).integers(FRAME // 8, FRAME - FRAME // 8, len(lengths))
        lengths = lengths + shifts
    who = np.array(store.speakers, np.uint8)
    order = np.argsort(lengths, kind="stable")
    if speakers is not None:
        order = order[np.isin(who[order], speakers)]
    counts = -(-lengths // FRAME)
    tokens = [None] * len(lengths)
    i = 0
    while i < len(order):
        j = i
        while j < len(order) and (j - i + 1) * int(lengths[order[j]]) <= samples:
            j += 1
        j = max(j, i + 1)
        audio = store.batch(order[i:j]).to(device)
        if shift_seed is not None:
            later = torch.zeros(j - i, int(lengths[order[i:j]].max()) + FRAME, device=device)
            for k, u in enumerate(order[i:j]):
                n = int(lengths[u] - shifts[u])
                later[k, shifts[u] : lengths[u]] = audio[k, :n]
            audio = later
        out = codec.encode(audio).to(torch.int32).cpu().numpy().astype(np.uint16)
        for k, u in enumerate(order[i:j]):
            tokens[u] = out[k, : counts[u]]
        i = j
    by_id = order[np.lexsort((who[order], np.array(store.ids, np.int64)[order]))]
    result = {
        "ids": np.array(store.ids, np.int32)[by_id],
        "lengths": counts[by_id].astype(np.int32),
        "speakers": who[by_id],
        "tokens": np.concatenate([tokens[u] for u in by_id]) if len(by_id) else np.zeros(0, np.uint16),
        "texts": np.array([store.texts[u] for u in by_id]),
    }
    if phones:
        result["phones"] = phone_labels(
            [store.phones[u] for u in by_id], result["lengths"], shifts[by_id], store.phone_ids, FRAME
        )
    return result


def both(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two token sets as one."""
    return {k: np.concatenate([a[k], b[k]]) for k in a}


def save_tokens(path: str, data: dict[str, Any]) -> None:
    """Texts as one blob: a NumPy text array pads every text to the longest."""
    blob = "\n".join(data["texts"].tolist()).encode()
    arrays = {k: v for k, v in data.items() if k != "texts"}
    np.savez(path + ".part.npz", texts=np.frombuffer(blob, np.uint8), **arrays)
    os.replace(path + ".part.npz", path)


def load_tokens(path: str) -> dict[str, Any]:
    with np.load(path) as f:
        data = {k: f[k] for k in f.files}
    data["texts"] = bytes(data["texts"]).decode().split("\n")
    data.setdefault("speakers", np.zeros(len(data["ids"]), np.uint8))  # Files of one voice do not say so.
    return data


def pack_tokens(data: dict[str, Any], folder: str, limit: int = 15_700_000, files: int = 3) -> tuple[int, int]:
    """As many utterances as fit in `files` files: tokens_N.npz with ids, lengths, speakers and the two byte planes,
    deflated."""
    import zlib

    total, per_token = len(data["tokens"]), 1.9
    bounds = np.concatenate([[0], np.cumsum(data["lengths"].astype(np.int64))])
    u, written = 0, 0
    for part in range(files):
        if u >= len(data["ids"]):
            break
        v = int(np.searchsorted(bounds, bounds[u] + limit / per_token, "right")) - 1
        v = min(max(v, u + 1), len(data["ids"]))
        while True:
            t = data["tokens"][bounds[u] : bounds[v]]
            planes = [
                zlib.compress(np.ascontiguousarray(p).tobytes(), 1)
                for p in ((t & 255).astype(np.uint8), (t >> 8).astype(np.uint8))
            ]
            size = sum(map(len, planes)) + 7 * (v - u) + 2000
            if size <= limit:
                break
            v = u + int((v - u) * limit / size * 0.99)
        np.savez(
            f"{folder}/tokens_{part}.npz",
            ids=data["ids"][u:v],
            lengths=data["lengths"][u:v].astype(np.uint16),
            speakers=data["speakers"][u:v],
            low=np.frombuffer(planes[0], np.uint8),
            high=np.frombuffer(planes[1], np.uint8),
        )
        written += len(t)
        per_token = size / max(1, len(t)) * 1.002
        u = v
    return written, total


def unpack_tokens(paths: Sequence[str]) -> dict[str, Any]:
    import zlib

    ids, lengths, tokens, speakers = [], [], [], []
    for path in paths:
        with np.load(path) as f:
            low, high = (
                np.frombuffer(zlib.decompress(f[k].tobytes()), np.uint8).astype(np.uint16) for k in ("low", "high")
            )
            tokens.append(low | (high << 8))
            ids.append(f["ids"])
            lengths.append(f["lengths"].astype(np.int32))
            speakers.append(f["speakers"] if "speakers" in f.files else np.zeros(len(f["ids"]), np.uint8))
    return {
        "ids": np.concatenate(ids),
        "speakers": np.concatenate(speakers),
        "lengths": np.concatenate(lengths),
        "tokens": np.concatenate(tokens),
    }


def usage(tokens: np.ndarray) -> dict[str, Any]:
    """Codes used, perplexity, and codes that carry 90 % of the speech."""
    counts = np.bincount(tokens.astype(np.int64))
    p = np.sort(counts[counts > 0])[::-1] / counts.sum()
    return {
        "used": int((counts > 0).sum()),
        "perplexity": round(float(np.exp(-(p * np.log(p)).sum())), 1),
        "codes_90": int(np.searchsorted(np.cumsum(p), 0.9) + 1),
    }


def copies_of(given: Sequence[str], voices: Sequence[str]) -> list[int]:
    """Copies of each voice: `--copies 2` for all, `--copies michael=4` for one; one where nothing is said."""
    copies = [1] * len(voices)
    for item in given:
        name, _, number = item.rpartition("=")
        if not number.isdigit() or int(number) < 1 or (name and name not in voices):
            raise SystemExit(f"--copies {item}: a number from 1 on, or VOICE=NUMBER of {', '.join(voices)}")
        copies = [int(number) if name in ("", voice) else n for voice, n in zip(voices, copies)]
    return copies


def add_tokenize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", required=True, help="holds audio/ and codec_*.safetensors; tokens.npz is written here"
    )
    parser.add_argument(
        "--copies",
        action="append",
        default=None,
        metavar="[VOICE=]NUMBER",
        help="times that the corpus (of this voice) is encoded, all but the first shifted in time; may be repeated",
    )
    parser.add_argument("--device", default=None)


def run_tokenize(args: argparse.Namespace) -> None:
    from ..corpus.synth import AudioStore

    device = device_of(args.device)
    codec = load_codec(args.work, device)
    for name, target in (("w", "tokens"), ("heldout", "heldout")):
        store = AudioStore(args.work, name, device, 1e6)
        if not store.refresh():
            continue
        copies = copies_of(args.copies or [], store.voices) if target == "tokens" else [1] * len(store.voices)
        data = tokenize(codec, store, device)
        for speaker, voice in enumerate(store.voices):
            own = data["tokens"][np.repeat(data["speakers"] == speaker, data["lengths"])]
            if len(own):
                log(f"{target}, {voice}: {len(own)} tokens, encoded {copies[speaker]} times,", usage(own))
        for copy in range(1, max(copies)):
            again = [speaker for speaker, n in enumerate(copies) if n > copy]
            data = both(data, tokenize(codec, store, device, shift_seed=copy, speakers=again))
        save_tokens(f"{args.work}/{target}.npz", data)
        log(target, len(data["ids"]), "utterances,", len(data["tokens"]), "tokens")
