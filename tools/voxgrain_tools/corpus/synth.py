"""Stage synth: the corpus spoken by flite (voices slt and rms) into 16 kHz audio with phone times."""

from __future__ import annotations

import argparse
import glob
import lzma
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common import DATA, PHONEMES, Clock, cpu_count, log

if TYPE_CHECKING:
    import torch

EXAMPLE = (
    "python -m voxgrain_tools synth --texts .dev/corpus.txt.xz --program .dev/flite_synth --work /tmp/vx --budget 500"
)
PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z "
    "zh axr el em en nx dx"
).split()
VOICES = ("slt", "rms")  # A speaker's number is its place here: append only.
PHONE_ID = {name: i + 1 for i, name in enumerate(PHONES)}
# The same for a natural teacher's phonemes; what is not a sound is "pau".
SOUND_ID = {name: i + 1 for i, name in enumerate(["pau", *(c for c in PHONEMES if c.isalpha())])}


def natural_voices(work: str) -> tuple[str, ...]:
    """The speakers of a corpus of natural teachers, in the order of their numbers; empty for one of flite."""
    path = f"{work}/audio/voices"
    if not os.path.exists(path):
        return ()
    with open(path, encoding="utf-8") as f:
        return tuple(f.read().split())


def read_texts(path: str) -> list[str]:
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt") as f:
        return f.read().split("\n")[:-1]


def heldout_texts(data: str = DATA) -> list[str]:
    """The Harvard sentences first, then the held-out corpus sentences."""
    texts = []
    for name in ("harvard", "heldout"):
        with open(f"{data}/{name}.txt") as f:
            texts += f.read().split("\n")[:-1]
    return texts


def hours_on_disk(work: str) -> float:
    """Hours of the training corpus that are spoken so far."""
    return sum(os.path.getsize(p) for p in glob.glob(f"{work}/audio/w[0-9]*.pcm")) / 2 / 16000 / 3600


class Synthesis:
    """Worker processes writing work/audio/*.pcm and *.tsv; stopped by `stop`.

    With several voices each speaks its share of the lines, or every line with `every`."""

    def __init__(
        self,
        work: str,
        texts: list[str],
        program: str,
        workers: int | None = None,
        name: str = "w",
        seed: int = 1,
        limit: int | None = None,
        voices: Sequence[str] = VOICES[:1],
        every: bool = False,
        plain: bool = False,
        options: Sequence[object] = (),
    ) -> None:
        os.makedirs(f"{work}/audio", exist_ok=True)
        self.texts = f"{work}/{name}.texts"
        with open(self.texts, "w") as f:
            f.write("\n".join(texts[:limit]) + "\n")
        workers = workers or max(1, cpu_count() - 1)
        each = max(1, workers // len(voices))
        local = f"{work}/flite_synth.bin"
        if not os.path.exists(local):
            if not os.path.exists(program) and os.path.exists(program + ".xz"):
                program += ".xz"
            opener = lzma.open if program.endswith(".xz") else open
            with opener(program, "rb") as source, open(local + ".part", "wb") as target:
                target.write(source.read())
            os.chmod(local + ".part", 0o755)
            os.replace(local + ".part", local)
        for old in glob.glob(f"{work}/audio/{name}[0-9]*"):
            os.remove(old)
        self.processes = []
        for i in range(each * len(voices)):
            share = [i // len(voices), each] if every else [i, each * len(voices)]
            # Low priority: the trainer's own processes come first.
            self.processes.append(
                subprocess.Popen(
                    [
                        "nice",
                        "-n",
                        "5",
                        local,
                        "--voice",
                        voices[i % len(voices)],
                        *(["--plain"] if plain else []),
                        *map(str, options),
                        self.texts,
                        *map(str, share),
                        f"{work}/audio/{name}{i:02d}",
                        str(seed),
                    ],
                    stdin=subprocess.DEVNULL,
                )
            )

    def running(self) -> bool:
        return any(p.poll() is None for p in self.processes)

    def wait(self, budget: float) -> None:
        clock = Clock(budget)
        while self.running() and clock.left() > 0:
            time.sleep(0.05)
        self.stop()

    def stop(self) -> None:
        for p in self.processes:
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        for p in self.processes:
            p.wait()


class AudioStore:
    """All audio written so far, as int16 in device memory; `refresh` takes what is new."""

    def __init__(
        self,
        work: str,
        name: str = "w",
        device: str = "cpu",
        capacity_hours: float = 1.0,
        one_chunk: bool = False,
        balanced: bool = False,
    ) -> None:
        """`one_chunk`: all audio in one tensor, allocated at once, that never moves. `balanced`: each speaker has an
        even share of the capacity, so that a fast teacher leaves room for what a slow one says later."""
        import torch

        self.work, self.name, self.device = work, name, torch.device(device)
        # Speakers in the order of their numbers, and numbers for the names in the phone times.
        self.voices, self.phone_ids = VOICES, PHONE_ID
        self._who()
        self.chunks, self.chunk_size, self.used = [], 1 << 28, 1 << 28
        self.capacity = int(capacity_hours * 3600 * 16000)
        self.samples, self.balanced = 0, balanced
        self.by_voice: dict[str, int] = {}  # Samples of each speaker.
        self.limit = None
        if one_chunk:
            self.limit = self.chunk_size = self.capacity + (1 << 23)
            self.chunks.append(torch.zeros(self.chunk_size, dtype=torch.int16, device=self.device))
            self.used = 0
        self.ids, self.where, self.phones, self.texts, self.speakers = [], [], [], [], []
        self.read = {}
        self.carry = {}

    def hours(self) -> float:
        return self.samples / 16000 / 3600

    def _who(self) -> None:
        if natural := natural_voices(self.work):
            self.voices, self.phone_ids = natural, SOUND_ID

    def _full(self, row: list[str]) -> bool:
        """No room for this utterance's speaker."""
        if self.balanced:
            return self.by_voice.get(self._voice(row), 0) >= self.capacity // len(self.voices)
        return self.samples >= self.capacity

    def _voice(self, row: list[str]) -> str:
        return row[7] if len(row) > 7 else self.voices[0]

    def _append(self, pcm):
        """Copies a run of samples into device memory; returns (chunk, offset)."""
        import torch

        if self.used + len(pcm) > self.chunk_size:
            self.chunks.append(
                torch.empty(
                    self.chunk_size if self.device.type == "cuda" else max(len(pcm), 1 << 22),
                    dtype=torch.int16,
                    device=self.device,
                )
            )
            self.chunk_size = len(self.chunks[-1])
            self.used = 0
        self.chunks[-1][self.used : self.used + len(pcm)] = torch.from_numpy(pcm).to(self.device)
        self.used += len(pcm)
        return len(self.chunks) - 1, self.used - len(pcm)

    def refresh(self, seconds: float = 1e9) -> int:
        clock = Clock(seconds)
        self._who()
        for path in sorted(glob.glob(f"{self.work}/audio/{self.name}[0-9]*.tsv")):
            if clock.left() < 0 or (self.samples >= self.capacity and not self.balanced):
                break
            done = self.read.get(path, 0)
            with open(path, "rb") as f:
                f.seek(done)
                data = f.read()
            end = data.rfind(b"\n") + 1
            if not end:
                continue
            self.read[path] = done + end
            rows = [line.split("\t") for line in data[:end].decode().split("\n")[:-1]]
            i = 0
            while i < len(rows) and not self._full(rows[i]):  # runs of at most 2^24 samples
                first, last = int(rows[i][1]), int(rows[i][1])
                j = i
                while j < len(rows) and int(rows[j][1]) + int(rows[j][2]) - first <= 1 << 22:
                    last = int(rows[j][1]) + int(rows[j][2])
                    j += 1
                if j == i:  # one utterance longer than a run: not speech
                    i += 1
                    continue
                if self.limit and self.used + last - first > self.limit:
                    break
                pcm = np.fromfile(path[:-4] + ".pcm", np.int16, last - first, offset=first * 2)
                if len(pcm) < last - first:
                    break
                chunk, offset = self._append(pcm)
                for row in rows[i:j]:
                    n = int(row[2])
                    self.ids.append(int(row[0]))
                    self.where.append((chunk, offset + int(row[1]) - first, n))
                    self.phones.append(row[5])
                    self.texts.append(row[6])
                    voice = self._voice(row)
                    self.speakers.append(self.voices.index(voice))
                    self.by_voice[voice] = self.by_voice.get(voice, 0) + n
                    self.samples += n
                i = j
        return len(self.ids)

    def audio(self, i: int, start: int = 0, count: Any = None) -> torch.Tensor:
        chunk, offset, n = self.where[i]
        count = n - start if count is None else min(count, n - start)
        return self.chunks[chunk][offset + start : offset + start + count]

    def lengths(self) -> np.ndarray:
        return np.array([w[2] for w in self.where], np.int64)

    def batch(self, indices: Sequence[int], starts: Sequence[int] | None = None, count: Any = None) -> torch.Tensor:
        """float32 [len(indices), count], zero padded."""
        import torch

        rows = [self.audio(i, 0 if starts is None else starts[k], count) for k, i in enumerate(indices)]
        if count is not None and all(len(r) == count for r in rows):
            out = torch.stack(rows)
        else:
            size = count or max(len(r) for r in rows)
            out = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            out = torch.nn.functional.pad(out, (0, size - out.shape[1]))
        return out.float() / 32768


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--texts", default=".dev/corpus.txt.xz", help="training text (plain or xz)")
    parser.add_argument("--program", default=".dev/flite_synth", help="built by synth/build.sh")
    parser.add_argument("--work", required=True)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--budget", type=float, default=3600, help="seconds")
    parser.add_argument("--limit", type=int, default=None, help="at most this many texts")
    parser.add_argument("--voice", action="append", choices=VOICES, help="may be repeated: the voices share the lines")
    parser.add_argument("--every", action="store_true", help="each voice speaks every line")


def run(args: argparse.Namespace) -> None:
    voices = tuple(args.voice or VOICES[:1])
    held = Synthesis(
        args.work, heldout_texts(), args.program, args.workers, "heldout", limit=args.limit, voices=voices, every=True
    )
    held.wait(args.budget)
    job = Synthesis(
        args.work, read_texts(args.texts), args.program, args.workers, limit=args.limit, voices=voices, every=args.every
    )
    job.wait(args.budget)
    store = AudioStore(args.work, capacity_hours=1e6)
    log(f"{store.refresh()} utterances, {store.hours():.2f} h")
