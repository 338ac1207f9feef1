"""Stage codec: the speech codec (one codebook of 65,536 codes, 50 a second), trained with a GAN."""

import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .common import Clock, autocast, device_of, load, log, maybe_compile, save, speed_settings

EXAMPLE = "python -m voxgrain_tools codec --work /tmp/vx --budget 430"
EXAMPLE_TOKENIZE = "python -m voxgrain_tools tokenize --work /tmp/vx"
RATE, HOP, FFT, FRAME = 16000, 160, 640, 320
CONFIG = {
    "sample_rate_hz": RATE, "token_hop": FRAME, "fft_size": FFT, "hop": HOP, "max_log_magnitude": 6.0,
    "window": "hann_periodic", "overlap_divisor": 1.5, "trim_samples": 240, "fsq_digits": 8, "fsq_levels": 4,
    "gelu": "tanh", "layer_norm_eps": 1e-6, "mel_bins": 80, "mel_scale": "htk", "mel_floor": 1e-5,
    "mel_shift": 5.0, "mel_divisor": 3.0, "encoder_pad_samples": 240,
    "enc1": [256, 3, 5], "enc2": [384, 3, 3], "dec1": [384, 3, 7], "dec2": [320, 5, 7], "expansion": 3,
}
TOY = dict(CONFIG, enc1=[32, 1, 5], enc2=[32, 1, 3], dec1=[64, 1, 7], dec2=[32, 2, 7])


def mel_filters(bins, fft, rate=RATE):
    """[bins, fft/2+1], triangles on the HTK mel scale, each of unit area in bins' width."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bins + 2) / 2595) - 1)
    hz = np.linspace(0, rate / 2, fft // 2 + 1)
    left, mid, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.maximum(0, np.minimum((hz - left) / (mid - left), (right - hz) / (right - mid)))
    return torch.tensor(weights / np.maximum(weights.sum(1, keepdims=True), 1e-8), dtype=torch.float32)


class LogMel(nn.Module):
    """Log-mel frames, two a token and aligned with the decoder's frames: [B, n] -> [B, n/160, 80]."""

    def __init__(self, config=CONFIG):
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)
        self.register_buffer("filters", mel_filters(config["mel_bins"], FFT), persistent=False)

    def forward(self, audio):
        pad = self.config["encoder_pad_samples"]
        spectrum = torch.stft(F.pad(audio.float(), (pad, pad)), FFT, HOP, window=self.window, center=False,
                              return_complex=True).abs()
        mel = (self.filters @ spectrum).clamp_min(self.config["mel_floor"]).log()
        return ((mel + self.config["mel_shift"]) / self.config["mel_divisor"]).transpose(1, 2)


class Depthwise(nn.Module):
    def __init__(self, channels, kernel, causal):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernel, channels) / math.sqrt(kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.left, self.right = (kernel - 1, 0) if causal else ((kernel - 1) // 2, kernel // 2)


def block(x, left, right, kernel, bias, norm, norm_bias, w1, b1, w2, b2, scale):
    """One ConvNeXt block on [B, T, C]; a plain function, so that it compiles once for all blocks of a stage."""
    # A sum of shifted copies: fuses when compiled, and needs no transposes.
    size, y = x.shape[1], F.pad(x, (0, 0, left, right))
    total = bias
    for j in range(kernel.shape[0]):
        total = total + y[:, j:j + size] * kernel[j]
    y = F.layer_norm(total, (total.shape[-1],), norm, norm_bias, 1e-6)
    y = F.linear(F.gelu(F.linear(y, w1, b1), approximate="tanh"), w2, b2)
    return x + y * scale


class Block(nn.Module):
    def __init__(self, channels, kernel, causal, expansion=3, scale=0.2):
        super().__init__()
        self.depthwise = Depthwise(channels, kernel, causal)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pointwise1 = nn.Linear(channels, expansion * channels)
        self.pointwise2 = nn.Linear(expansion * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), scale))
        self.function = block

    def forward(self, x):
        d, n, a, b = self.depthwise, self.norm, self.pointwise1, self.pointwise2
        return self.function(x, d.left, d.right, d.weight, d.bias, n.weight, n.bias, a.weight, a.bias, b.weight, b.bias,
                             self.layer_scale)


def blocks(shape, causal, expansion):
    channels, count, kernel = shape
    return nn.ModuleList(Block(channels, kernel, causal, expansion) for _ in range(count))


class Encoder(nn.Module):
    """Mel frames [B, 2T, 80] -> [B, T, 8] before the bounding tanh."""

    def __init__(self, config=CONFIG):
        super().__init__()
        a, b = config["enc1"], config["enc2"]
        self.inp = nn.Linear(config["mel_bins"], a[0])
        self.stage1 = blocks(a, False, config["expansion"])
        self.down = nn.Linear(2 * a[0], b[0])
        self.stage2 = blocks(b, False, config["expansion"])
        self.norm = nn.LayerNorm(b[0], eps=1e-6)
        self.out = nn.Linear(b[0], config["fsq_digits"])

    def body(self, mel):
        x = self.inp(mel)
        for step in self.stage1:
            x = step(x)
        x = self.down(x.reshape(x.shape[0], x.shape[1] // 2, -1))
        for step in self.stage2:
            x = step(x)
        return self.norm(x).float()

    def forward(self, mel):
        return self.out(self.body(mel))


class Decoder(nn.Module):
    """Digit values [B, T, 8] -> spectrum [B, 2T, 642]; causal."""

    def __init__(self, config=CONFIG):
        super().__init__()
        a, b = config["dec1"], config["dec2"]
        self.inp = nn.Linear(config["fsq_digits"], a[0])
        self.stage1 = blocks(a, True, config["expansion"])
        self.up = nn.Linear(a[0], 2 * b[0])
        self.stage2 = blocks(b, True, config["expansion"])
        self.norm = nn.LayerNorm(b[0], eps=1e-6)
        self.head = nn.Linear(b[0], FFT + 2)

    def body(self, values):
        x = self.inp(values)
        for step in self.stage1:
            x = step(x)
        x = self.up(x)
        x = x.reshape(x.shape[0], x.shape[1] * 2, -1)
        for step in self.stage2:
            x = step(x)
        return self.norm(x).float()

    def forward(self, values):
        return self.head(self.body(values))


def sound(spectrum):
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


def digits_of(z):
    return torch.floor(1.5 * torch.tanh(z) + 2).clamp(0, 3)


def tokens_of(z):
    shifts = torch.tensor([4 ** i for i in range(z.shape[-1])], device=z.device)
    return (digits_of(z).long() * shifts).sum(-1)


def values_of(tokens, digits=8):
    shifts = torch.arange(digits, device=tokens.device) * 2
    return (((tokens.unsqueeze(-1) >> shifts) & 3).float() - 1.5) / 1.5


def quantize(z, noisy=None):
    """Digit values with a straight-through gradient; rows marked noisy get one digit moved by a step."""
    soft = torch.tanh(z)
    hard = (digits_of(z) - 1.5) / 1.5
    if noisy is not None:
        which = torch.randint(0, z.shape[-1], z.shape[:-1], device=z.device)
        step = (torch.randint(0, 2, z.shape[:-1], device=z.device) * 2 - 1) * (2 / 3)
        moved = hard + F.one_hot(which, z.shape[-1]) * step.unsqueeze(-1)
        hard = torch.where(noisy[:, None, None], moved.clamp(-1, 1), hard)
    return soft + (hard - soft).detach()


class MelLoss(nn.Module):
    SCALES = ((2048, 128), (1024, 80), (512, 64), (256, 32), (128, 16), (64, 8))

    def __init__(self):
        super().__init__()
        for fft, bins in self.SCALES:
            self.register_buffer(f"w{fft}", torch.hann_window(fft), persistent=False)
            self.register_buffer(f"m{fft}", mel_filters(bins, fft), persistent=False)

    def forward(self, real, fake):
        both, loss = torch.cat([real, fake]), 0.0
        for fft, _ in self.SCALES:
            s = torch.stft(both, fft, fft // 4, window=getattr(self, f"w{fft}"), center=True, pad_mode="constant",
                           return_complex=True)
            s = torch.sqrt(s.real.square() + s.imag.square() + 1e-9)
            mel = (getattr(self, f"m{fft}") @ s).clamp_min(1e-5).log10()
            a, b = mel.chunk(2)
            loss = loss + (a - b).abs().mean()
        return loss


class Conv(nn.Module):
    """A weight-normalised 2-D convolution."""

    def __init__(self, a, b, kernel, stride=(1, 1), padding=(0, 0)):
        super().__init__()
        w = torch.empty(b, a, *kernel)
        nn.init.kaiming_uniform_(w, a=math.sqrt(5))
        self.v = nn.Parameter(w)
        self.g = nn.Parameter(w.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(b))
        self.stride, self.padding = stride, padding

    def forward(self, x):
        w = self.v * (self.g / self.v.flatten(1).norm(dim=1).clamp_min(1e-8).reshape(-1, 1, 1, 1))
        return F.conv2d(x, w.to(memory_format=torch.channels_last), self.bias, self.stride, self.padding)


class Stack(nn.Module):
    def __init__(self, convs, last):
        super().__init__()
        self.convs, self.last = nn.ModuleList(convs), last

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        return self.last(x), features


class Discriminators(nn.Module):
    PERIODS = (2, 3, 5, 7, 11)
    FFTS = (1024, 512, 256)

    def __init__(self, width=32):
        super().__init__()
        w = width
        sizes = [1, w, 2 * w, 4 * w, 8 * w]
        self.period = nn.ModuleList(
            Stack([Conv(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(sizes, sizes[1:])]
                  + [Conv(8 * w, 8 * w, (5, 1), (1, 1), (2, 0))], Conv(8 * w, 1, (3, 1), (1, 1), (1, 0)))
            for _ in self.PERIODS)
        self.spectral = nn.ModuleList(
            Stack([Conv(2, w, (3, 9), (1, 2), (1, 4)), Conv(w, w, (3, 9), (1, 2), (1, 4)),
                   Conv(w, w, (3, 9), (1, 2), (1, 4)), Conv(w, w, (3, 3), (1, 1), (1, 1))],
                  Conv(w, 1, (3, 3), (1, 1), (1, 1)))
            for _ in self.FFTS)
        for fft in self.FFTS:
            self.register_buffer(f"w{fft}", torch.hann_window(fft), persistent=False)

    def forward(self, audio):
        out = []
        for period, stack in zip(self.PERIODS, self.period):
            x = F.pad(audio, (0, -audio.shape[1] % period))
            x = x.reshape(x.shape[0], 1, -1, period).to(memory_format=torch.channels_last)
            out.append(stack(x))
        for fft, stack in zip(self.FFTS, self.spectral):
            s = torch.stft(audio.float(), fft, fft // 4, window=getattr(self, f"w{fft}"), return_complex=True)
            s = torch.stack([s.real, s.imag], 1).transpose(2, 3) * (2 / math.sqrt(fft))
            out.append(stack(s.contiguous(memory_format=torch.channels_last)))
        return out


def parameters_of(*modules):
    return [p for m in modules for p in m.parameters()]


class Codec(nn.Module):
    def __init__(self, config=CONFIG):
        super().__init__()
        self.config = config
        self.mel, self.encoder, self.decoder = LogMel(config), Encoder(config), Decoder(config)

    @torch.no_grad()
    def encode(self, audio):
        """[B, n] -> tokens [B, ceil(n/320)]"""
        audio = F.pad(audio, (0, -audio.shape[1] % FRAME))
        return tokens_of(self.encoder(self.mel(audio)))

    @torch.no_grad()
    def decode(self, tokens):
        return sound(self.decoder(values_of(tokens, self.config["fsq_digits"])))

    def save(self, folder, facts=None):
        for name in ("encoder", "decoder"):
            module = getattr(self, name)
            save(f"{folder}/codec_{name}.safetensors", module.state_dict(), dict(self.config, **(facts or {})))


def load_codec(folder, device="cpu"):
    encoder, config = load(f"{folder}/codec_encoder.safetensors")
    decoder, _ = load(f"{folder}/codec_decoder.safetensors")
    codec = Codec(config)
    codec.encoder.load_state_dict(encoder)
    codec.decoder.load_state_dict(decoder)
    return codec.to(device).eval()


def train(work, store, budget, device, config=CONFIG, batch=40, seconds=1.28, gan_from=0.22, lr=1e-3, width=32,
          refresh_every=20.0, out=None, max_steps=None):
    """Trains on what the store holds (it may still be growing); saves and returns the averaged codec."""
    speed_settings(device)
    rng = np.random.default_rng(1)
    count = int(seconds * RATE) // FRAME * FRAME
    codec = Codec(config).to(device)
    ema = Codec(config).to(device).eval()
    ema.load_state_dict(codec.state_dict())
    discriminators = Discriminators(width).to(device)
    mel_loss = MelLoss().to(device)
    generator_parameters = parameters_of(codec.encoder, codec.decoder)
    ema.requires_grad_(False)
    ema_parameters = parameters_of(ema.encoder, ema.decoder)
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(generator_parameters, lr, (0.8, 0.95), weight_decay=0.01, fused=fused)
    critic = torch.optim.AdamW(discriminators.parameters(), lr, (0.8, 0.95), weight_decay=0.01, fused=fused)
    compiled = maybe_compile(block, device, dynamic=False)
    for m in codec.modules():
        if isinstance(m, Block):
            m.function = compiled

    def generate(real, noisy):
        # Spectra and the last layers stay in full precision: phases suffer from bfloat16.
        mel = codec.mel(real)
        with autocast(device):
            x = codec.encoder.body(mel)
        values = quantize(codec.encoder.out(x.float()), noisy)
        with autocast(device):
            x = codec.decoder.body(values)
        return sound(codec.decoder.head(x.float()))

    # Compiling comes before the schedule starts, and inside the budget.
    clock = Clock(budget)
    probe = torch.randn(batch, count, device=device) * 0.1
    try:
        generate(probe, torch.zeros(batch, dtype=torch.bool, device=device)).square().mean().backward()
    except Exception as error:  # noqa: BLE001 - any failure of the compiler
        log("codec: not compiled:", repr(error)[:300])
        for m in codec.modules():
            if isinstance(m, Block):
                m.function = block
        generate(probe, torch.zeros(batch, dtype=torch.bool, device=device)).square().mean().backward()
    optimizer.zero_grad(set_to_none=True)
    log(f"codec: compiled in {clock.elapsed():.1f} s, {sum(p.numel() for p in codec.encoder.parameters()) / 1e6:.2f} M "
        f"+ {sum(p.numel() for p in codec.decoder.parameters()) / 1e6:.2f} M, training {clock.left():.0f} s")
    clock = Clock(clock.left())

    def facts(step):
        return {"steps": step, "train_seconds": round(clock.elapsed(), 1), "hours_seen": round(store.hours(), 2)}

    lengths, known, refreshed, gan_steps, step, first, last_save = store.lengths(), len(store.ids), 0.0, 0, 0, None, 0.0
    sums = torch.zeros(4, device=device)
    while clock.left() > 0 and (max_steps is None or step < max_steps):
        gan = clock.share() >= gan_from or (max_steps is not None and step >= gan_from * max_steps)
        if clock.elapsed() - refreshed > refresh_every:
            store.refresh(2.0)
            lengths, known, refreshed = store.lengths(), len(store.ids), clock.elapsed()
        rate = lr * (clock.cosine() if max_steps is None else 1.0) * min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        picks = rng.integers(0, known, batch)
        room = np.maximum(lengths[picks] - count, 0)
        # One crop in eight starts where the utterance does, as every decoded sentence will.
        starts = np.where(rng.random(batch) < 0.125, 0, (rng.random(batch) * (room + 1)).astype(np.int64))
        real = store.batch(picks, starts, count).to(device)
        noisy = torch.rand(batch, device=device) < 0.125
        fake = generate(real, noisy)

        if gan:
            warm = min(1.0, (gan_steps + 1) / 200)
            for group in critic.param_groups:
                group["lr"] = rate * warm
            for p in discriminators.parameters():
                p.requires_grad_(True)
            with autocast(device):
                judged = discriminators(torch.cat([real, fake.detach()]))
            loss_d = 0.0
            for score, _ in judged:
                a, b = score.float().chunk(2)
                loss_d = loss_d + F.relu(1 - a).mean() + F.relu(1 + b).mean()
            critic.zero_grad(set_to_none=True)
            loss_d.backward()
            torch.nn.utils.clip_grad_norm_(discriminators.parameters(), 10.0, foreach=True)
            critic.step()
            for p in discriminators.parameters():
                p.requires_grad_(False)

        loss_mel = mel_loss(real, fake)
        loss = 15 * loss_mel
        if gan:
            with autocast(device):
                judged = discriminators(torch.cat([real, fake]))
            loss_adversarial, loss_feature = 0.0, 0.0
            for score, features in judged:
                loss_adversarial = loss_adversarial - score.float().chunk(2)[1].mean()
                for f in features:
                    a, b = f.float().chunk(2)
                    loss_feature = loss_feature + (a.detach() - b).abs().mean()
            ramp = min(1.0, (gan_steps + 1) / 500)
            loss = loss + ramp * (loss_adversarial + 2 * loss_feature)
            gan_steps += 1
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator_parameters, 10.0, foreach=True)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        torch._foreach_lerp_(ema_parameters, generator_parameters, 1 - decay)
        sums += torch.stack([loss_mel.detach(), *(torch.as_tensor(x, device=device).detach().float() for x in (
            (loss_d, loss_adversarial, loss_feature) if gan else (0.0, 0.0, 0.0)))])
        step += 1
        every = 200 if max_steps is None else max(1, max_steps // 4)
        if step % every == 0 or step == 10:
            mean = (sums / (every if step % every == 0 else 10)).tolist()
            if step % every == 0:
                sums.zero_()
            if not math.isfinite(mean[0]):
                # Start again from the average, which one bad step cannot ruin.
                log("codec: not finite; back to the averaged weights")
                state = ema.state_dict()
                if all(bool(torch.isfinite(v).all()) for v in state.values()):
                    codec.load_state_dict(state)
                optimizer.state.clear()
                critic.state.clear()
            first = first or mean[0]
            log(f"codec: step {step} ({step / clock.elapsed():.1f}/s) mel {mean[0]:.4f} d {mean[1]:.3f} adv {mean[2]:.3f} "
                f"fm {mean[3]:.4f} {store.hours():.1f} h lr {rate:.1e}")
            if clock.elapsed() - last_save > 60:
                last_save = clock.elapsed()
                ema.save(work, facts(step))
    ema.save(work, facts(step))
    if out:
        ema.save(out, facts(step))
    log(f"codec: {step} steps, {gan_steps} with the discriminators, saved")
    return ema, {"first": first, "last": (mean[0] if step else None), "steps": step}


def tokenize(codec, store, device, samples=16_000_000, phones=True):
    """The whole store as tokens: dict of flat arrays, utterances sorted by id."""
    from .synth import PHONE_ID

    lengths = store.lengths()
    order = np.argsort(lengths, kind="stable")
    counts = -(-lengths // FRAME)
    tokens = [None] * len(order)
    i = 0
    while i < len(order):
        j = i
        while j < len(order) and (j - i + 1) * int(lengths[order[j]]) <= samples:
            j += 1
        j = max(j, i + 1)
        out = codec.encode(store.batch(order[i:j]).to(device)).to(torch.int32).cpu().numpy().astype(np.uint16)
        for k, u in enumerate(order[i:j]):
            tokens[u] = out[k, :counts[u]]
        i = j
    by_id = np.argsort(np.array(store.ids, np.int64), kind="stable")
    result = {
        "ids": np.array(store.ids, np.int32)[by_id], "lengths": counts[by_id].astype(np.int32),
        "tokens": np.concatenate([tokens[u] for u in by_id]),
        "texts": np.array([store.texts[u] for u in by_id]),
    }
    if phones:
        flat = np.zeros(len(result["tokens"]), np.uint8)
        at = 0
        for u in by_id:
            n, begin = int(counts[u]), 0
            for item in store.phones[u].split():
                name, end = item.rsplit(":", 1)
                stop = min(n, (int(end) + FRAME // 2) // FRAME)
                flat[at + begin:at + stop] = PHONE_ID.get(name, 0)
                begin = max(begin, stop)
            at += n
        result["phones"] = flat
    return result


def save_tokens(path, data):
    """Texts as one blob: a NumPy text array pads every text to the longest."""
    blob = "\n".join(data["texts"].tolist()).encode()
    arrays = {k: v for k, v in data.items() if k != "texts"}
    np.savez(path + ".part.npz", texts=np.frombuffer(blob, np.uint8), **arrays)
    os.replace(path + ".part.npz", path)


def load_tokens(path):
    with np.load(path) as f:
        data = {k: f[k] for k in f.files}
    data["texts"] = bytes(data["texts"]).decode().split("\n")
    return data


def pack_tokens(data, folder, limit=15_700_000, files=3):
    """As many utterances as fit in `files` files: tokens_N.npz with ids, lengths and the two byte planes, deflated."""
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
            t = data["tokens"][bounds[u]:bounds[v]]
            planes = [zlib.compress(np.ascontiguousarray(p).tobytes(), 1) for p in ((t & 255).astype(np.uint8), (t >> 8).astype(np.uint8))]
            size = sum(map(len, planes)) + 6 * (v - u) + 2000
            if size <= limit:
                break
            v = u + int((v - u) * limit / size * 0.99)
        np.savez(f"{folder}/tokens_{part}.npz", ids=data["ids"][u:v], lengths=data["lengths"][u:v].astype(np.uint16),
                 low=np.frombuffer(planes[0], np.uint8), high=np.frombuffer(planes[1], np.uint8))
        written += len(t)
        per_token = size / max(1, len(t)) * 1.002
        u = v
    return written, total


def unpack_tokens(paths):
    import zlib

    ids, lengths, tokens = [], [], []
    for path in paths:
        with np.load(path) as f:
            low, high = (np.frombuffer(zlib.decompress(f[k].tobytes()), np.uint8).astype(np.uint16) for k in ("low", "high"))
            tokens.append(low | (high << 8))
            ids.append(f["ids"])
            lengths.append(f["lengths"].astype(np.int32))
    return {"ids": np.concatenate(ids), "lengths": np.concatenate(lengths), "tokens": np.concatenate(tokens)}


def usage(tokens):
    """Codes used, perplexity, and codes that carry 90 % of the speech."""
    counts = np.bincount(tokens.astype(np.int64), minlength=65536)
    p = np.sort(counts[counts > 0])[::-1] / counts.sum()
    return {"used": int((counts > 0).sum()), "perplexity": round(float(np.exp(-(p * np.log(p)).sum())), 1),
            "codes_90": int(np.searchsorted(np.cumsum(p), 0.9) + 1)}


def add_arguments(parser):
    parser.add_argument("--work", required=True, help="holds audio/ (of synth); codec_*.safetensors is written here")
    parser.add_argument("--budget", type=float, default=430, help="seconds")
    parser.add_argument("--hours", type=float, default=1e6, help="use at most so much audio")
    parser.add_argument("--device", default=None)


def run(args):
    from .synth import AudioStore

    device = device_of(args.device)
    store = AudioStore(args.work, device=device, capacity_hours=args.hours)
    store.refresh()
    train(args.work, store, args.budget, device)


def add_tokenize_arguments(parser):
    parser.add_argument("--work", required=True, help="holds audio/ and codec_*.safetensors; tokens.npz is written here")
    parser.add_argument("--device", default=None)


def run_tokenize(args):
    from .synth import AudioStore

    device = device_of(args.device)
    codec = load_codec(args.work, device)
    for name, target in (("w", "tokens"), ("heldout", "heldout")):
        store = AudioStore(args.work, name, device, 1e6)
        if store.refresh():
            data = tokenize(codec, store, device)
            save_tokens(f"{args.work}/{target}.npz", data)
            log(target, len(data["ids"]), "utterances,", len(data["tokens"]), "tokens,", usage(data["tokens"]))
