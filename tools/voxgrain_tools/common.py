"""Clock, logging, checkpoints, and files cut to a size that travels."""

import json
import math
import os
import shutil
import sys
import time

import numpy as np

START = time.monotonic()
CHARACTERS = " ',.?!abcdefghijklmnopqrstuvwxyz"


class Ids:
    """The numbers of the symbols of a codebook: its codes, each of so many digits of 4 levels, then everything else."""

    def __init__(self, codes=65536):
        self.digits = (codes.bit_length() - 1) // 2
        if codes != 4 ** self.digits or not 1 <= self.digits <= 8:
            raise ValueError(f"{codes} codes are not 1 to 8 digits of 4 levels")
        self.speech = self.end = codes
        self.begin, self.start, self.pad, self.first_character = range(codes + 1, codes + 5)
        # The first symbol of a sequence names its voice: one a speaker, in synth.VOICES' order. Nothing is ever padded in a
        # model's input, so the second voice takes the padding's symbol and no other number moves.
        self.begins = (self.begin, self.pad)


IDS = Ids()
SPEECH, END, BEGIN, SOS, PAD, FIRST_CHARACTER = (getattr(IDS, k) for k in (
    "speech", "end", "begin", "start", "pad", "first_character"))
BEGINS = IDS.begins


def log(*words):
    print(f"[{time.monotonic() - START:7.1f}]", *words, flush=True)


def add_table_arguments(parser):
    parser.add_argument("--codes", type=int, default=SPEECH, help="4 to the number of a token's digits")
    parser.add_argument("--table", choices=["factor", "plain"], default=None,
                        help="the language models' embedding and head: sums of factors, or a free row a code "
                             "(default: factor for 65,536 codes)")


class Clock:
    """A wall-clock budget: schedules follow the elapsed share of it, not a step count."""

    def __init__(self, budget):
        self.start, self.budget = time.monotonic(), max(1e-3, budget)

    def elapsed(self):
        return time.monotonic() - self.start

    def share(self):
        return min(1.0, self.elapsed() / self.budget)

    def left(self):
        return self.budget - self.elapsed()

    def cosine(self, low=0.02):
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * self.share()))


def save(path, tensors, config=None, half=True):
    """Writes safetensors with the config as JSON in the metadata; never leaves half a file."""
    import torch
    from safetensors.torch import save_file

    out = {}
    for name, value in tensors.items():
        value = value.detach()
        if half and value.dtype in (torch.float32, torch.bfloat16):
            value = value.to(torch.float16)
        out[name] = value.cpu().contiguous().clone()
    metadata = {"format": "pt"}
    if config is not None:
        metadata["config"] = json.dumps(config)
    save_file(out, path + ".part", metadata=metadata)
    os.replace(path + ".part", path)


def load(path):
    """Tensors (int8 with a scale a row becomes float32) and the config."""
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        config = json.loads((f.metadata() or {}).get("config", "{}"))
        raw = {k: f.get_tensor(k) for k in f.keys()}
    out = {}
    for name, value in raw.items():
        if name.endswith("_scale") and name[:-6] in raw:
            continue
        value = value.to(torch.float32)
        if name + "_scale" in raw:
            value = value * raw[name + "_scale"].to(torch.float32)
        out[name] = value
    return out, config


def split(path, folder, limit=15_700_000):
    """Cuts a file into PATH.000, PATH.001, ... of at most `limit` bytes; `join` puts it together."""
    data = open(path, "rb").read()
    parts = max(1, -(-len(data) // limit))
    size = -(-len(data) // parts)
    names = []
    for i in range(parts):
        name = os.path.join(folder, f"{os.path.basename(path)}.{i:03d}")
        with open(name, "wb") as f:
            f.write(data[i * size:(i + 1) * size])
        names.append(name)
    return names


def join(folder, out):
    """Joins every NAME.000, NAME.001, ... in `folder` into out/NAME; unpacks .packed checkpoints."""
    os.makedirs(out, exist_ok=True)
    names = sorted({n[:-4] for n in os.listdir(folder) if n[-4:] == ".000"})
    made = []
    for name in names:
        path, i = os.path.join(out, name), 0
        with open(path, "wb") as f:
            while os.path.exists(part := os.path.join(folder, f"{name}.{i:03d}")):
                f.write(open(part, "rb").read())
                i += 1
        if name.endswith(".packed"):
            unpack12(path, path[:-7])
            os.remove(path)
            path = path[:-7]
        made.append(path)
    return made


def pack12(path, packed):
    """Matrices as 12-bit integers with a scale a row: 3/4 of float16's size, far finer than int8."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, "np") as f:
        metadata = dict(f.metadata() or {})
        out = {}
        for name in f.keys():
            value = f.get_tensor(name)
            if value.ndim != 2 or value.size < 4096 or value.size % 2:
                out[name] = value
                continue
            value = value.astype(np.float32)
            scale = np.maximum(np.abs(value).max(1, keepdims=True), 1e-8) / 2047
            q = (np.rint(value / scale).astype(np.int32) + 2048).astype(np.uint16).reshape(-1, 2)
            out[name + "_12"] = np.stack([q[:, 0] & 255, (q[:, 0] >> 8) | ((q[:, 1] & 15) << 4), q[:, 1] >> 4], 1).astype(np.uint8)
            out[name + "_12_scale"] = scale.astype(np.float32)
    save_file(out, packed, metadata=metadata)


def unpack12(packed, path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(packed, "np") as f:
        metadata, out = f.metadata(), {}
        for name in f.keys():
            if name.endswith("_12_scale"):
                continue
            value = f.get_tensor(name)
            if name.endswith("_12"):
                b, scale = value.astype(np.uint16), f.get_tensor(name + "_scale")
                q = np.stack([b[:, 0] | ((b[:, 1] & 15) << 8), (b[:, 1] >> 4) | (b[:, 2] << 4)], 1)
                value = ((q.reshape(len(scale), -1).astype(np.float32) - 2048) * scale).astype(np.float16)
                name = name[:-3]
            out[name] = value
    save_file(out, path, metadata=metadata)


def ship(path, out, limit=15_700_000):
    """A checkpoint into `out`: as it is, or in 12 bits and cut, if it is too large to travel whole."""
    if os.path.getsize(path) <= limit:
        return [shutil.copy(path, out)]
    pack12(path, path + ".packed")
    return split(path + ".packed", out, limit)


def device_of(name=None):
    import torch

    if name:
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def speed_settings(device):
    import torch

    torch.manual_seed(1)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        # A graph that does not compile runs uncompiled instead of ending the run.
        import torch._dynamo
        torch._dynamo.config.suppress_errors = True
        torch._dynamo.config.cache_size_limit = 32
        # Every shape is fixed; a changed dropout must not become a symbol.
        torch._dynamo.config.specialize_float = True
        torch._dynamo.config.automatic_dynamic_shapes = False


def maybe_compile(function, device, **options):
    import torch

    return torch.compile(function, **options) if device.type == "cuda" else function


def autocast(device):
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def write_wav(path, samples, rate=16000):
    import wave

    pcm = np.clip(np.asarray(samples, np.float32) * 32768, -32768, 32767).astype(np.int16)
    with wave.open(path, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes(pcm.tobytes())


def read_wav(path):
    import wave

    with wave.open(path, "rb") as f:
        return np.frombuffer(f.readframes(f.getnframes()), np.int16).astype(np.float32) / 32768


def cpu_count():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def fail(message):
    print("error:", message, file=sys.stderr, flush=True)
    sys.exit(1)
