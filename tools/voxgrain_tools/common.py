"""Clock, logging, checkpoints, and what every stage needs of torch."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import torch

START = time.monotonic()
# tools/data: sentences, and small checkpoints that travel with the source.
DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
CHARACTERS = " ',.?!abcdefghijklmnopqrstuvwxyz"
# The phonemes that the runtime's front end writes (misaki's symbols), and the tempo that stands before them.
PHONEMES = " ;:,.!?—…“”()ˈˌːAIOQTWYabdfhijklmnpstuvwzæðŋɐɑɒɔəɛɜɡɪɹʃʊʌʒʤʧθᵊᵻ"
TEMPOS = {"1": 0.6, "2": 0.7, "3": 0.8, "4": 0.9, "5": 1.0, "6": 1.12, "7": 1.27, "8": 1.45, "9": 1.7}
# What a model reads, by name: letters, or a tempo and phonemes.
ALPHABETS = {"letters": CHARACTERS, "phonemes": PHONEMES + "".join(TEMPOS)}


class Ids:
    """The numbers of the symbols of a codebook: its codes, each of so many digits of 4 levels, then everything else."""

    def __init__(self, codes: int = 65536) -> None:
        self.digits = (codes.bit_length() - 1) // 2
        if codes != 4**self.digits or not 1 <= self.digits <= 8:
            raise ValueError(f"{codes} codes are not 1 to 8 digits of 4 levels")
        self.speech = self.end = codes
        self.begin, self.start, self.pad, self.first_character = range(codes + 1, codes + 5)
        # The first symbol of a sequence names its voice: one a speaker, in synth.VOICES' order. Nothing is ever
        # padded in a
        # model's input, so the second voice takes the padding's symbol and no other number moves.
        self.begins = (self.begin, self.pad)


IDS = Ids()
SPEECH, END, BEGIN, SOS, PAD, FIRST_CHARACTER = (
    getattr(IDS, k) for k in ("speech", "end", "begin", "start", "pad", "first_character")
)
BEGINS = IDS.begins


def log(*words: object) -> None:
    print(f"[{time.monotonic() - START:7.1f}]", *words, flush=True)


def add_alphabet_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--alphabet", choices=list(ALPHABETS), default="letters", help="what the texts of the corpus are written in"
    )


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--codes", type=int, default=SPEECH, help="4 to the number of a token's digits")
    parser.add_argument(
        "--table",
        choices=["factor", "plain"],
        default=None,
        help="the language models' embedding and head: sums of factors, or a free row a code "
        "(default: factor for 65,536 codes)",
    )


class Clock:
    """A wall-clock budget: schedules follow the elapsed share of it, not a step count."""

    def __init__(self, budget: float) -> None:
        self.start, self.budget = time.monotonic(), max(1e-3, budget)

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def share(self) -> float:
        return min(1.0, self.elapsed() / self.budget)

    def left(self) -> float:
        return self.budget - self.elapsed()

    def cosine(self, low: float = 0.02) -> float:
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * self.share()))


def save(
    path: str, tensors: Mapping[str, torch.Tensor], config: dict[str, Any] | None = None, half: bool = True
) -> None:
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


def load(path: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
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


def device_of(name: str | None = None) -> torch.device:
    import torch

    if name:
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def speed_settings(device: torch.device) -> None:
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


def maybe_compile(function: Callable[..., Any], device: torch.device, **options: Any) -> Callable[..., Any]:
    import torch

    return torch.compile(function, **options) if device.type == "cuda" else function


def autocast(device: torch.device) -> Any:
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def fail(message: str) -> NoReturn:
    print("error:", message, file=sys.stderr, flush=True)
    sys.exit(1)
