"""Bundles run by onnxruntime, and sound from spectra in numpy: what export is checked against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import bundle

FFT, HOP, CUT = 640, 160, 240
BINS = FFT // 2 + 1
MAX_LOG_MAGNITUDE = 6.0


def session(path: Path, threads: int | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or min(2, os.cpu_count() or 1)
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class LanguageModel:
    """A model file with its key/value cache, fed a few tokens at a time."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = session(path, threads)
        self._past = {
            i.name: np.zeros((i.shape[0], 0, i.shape[2]), np.float32)
            for i in self._session.get_inputs()
            if i.name not in ("tokens", "features")
        }
        # Width of the target's features that a feature draft reads beside the tokens; 0 for other models.
        self.features = next((i.shape[1] for i in self._session.get_inputs() if i.name == "features"), 0)
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._taps = sorted((n for n in self._outputs if n.startswith("tap_")), key=lambda n: int(n[4:]))
        self.reset()

    @property
    def length(self) -> int:
        return next(iter(self.cache.values())).shape[1]

    def reset(self) -> None:
        self.cache = dict(self._past)
        # The last call's hidden states, of files that put them out, and the same behind the taps, if there are any.
        self.hidden: np.ndarray | None = None
        self.states: np.ndarray | None = None

    def rollback(self, count: int) -> None:
        keep = self.length - count
        self.cache = {name: value[:, :keep] for name, value in self.cache.items()}

    def step(self, tokens: ArrayLike, features: ArrayLike | None = None) -> np.ndarray:
        """Logits of these tokens; a feature draft reads one row of features a token."""
        feed = {"tokens": np.asarray(tokens, dtype=np.int64), **self.cache}
        if self.features:
            feed["features"] = np.asarray(features, np.float32).reshape(-1, self.features)
        results = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        logits, self.hidden = results.pop("logits"), results.pop("hidden", None)
        taps = [results.pop(name) for name in self._taps]
        self.states = np.concatenate([*taps, self.hidden], axis=1) if taps else self.hidden
        self.cache = {name.replace("present", "past"): v for name, v in results.items()}
        return logits


def istft(spectrum: np.ndarray) -> np.ndarray:
    """[frames, 642] log-magnitudes and phases -> float32 samples, 160 a frame."""
    magnitude = np.exp(np.minimum(spectrum[:, :BINS].astype(np.float64), MAX_LOG_MAGNITUDE))
    frames = np.fft.irfft(magnitude * np.exp(1j * spectrum[:, BINS:].astype(np.float64)), n=FFT)
    frames *= 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    sound = np.zeros((len(frames) - 1) * HOP + FFT)
    for i, frame in enumerate(frames):
        sound[i * HOP : i * HOP + FFT] += frame
    return (sound[CUT : len(sound) - CUT] / 1.5).astype(np.float32)


class Codec:
    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = session(path, threads)

    def spectrum(self, tokens: ArrayLike) -> np.ndarray:
        return self._session.run(None, {"tokens": np.asarray(tokens, dtype=np.int64)})[0]

    def decode(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        if len(tokens) == 0:
            return np.zeros(0, np.float32)
        return istft(self.spectrum(tokens))


class Voice:
    """The three models of a bundle folder."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.facts = bundle.read(folder)
        self.folder = folder
        self._threads = threads

    def language_model(self, which: str) -> LanguageModel:
        return LanguageModel(self.folder / self.facts[which]["file"], self._threads)

    def codec(self) -> Codec:
        return Codec(self.folder / self.facts["codec"]["file"], self._threads)

    def prompt(self, text: str, speaker: str | None = None) -> list[int]:
        """Token ids of a text; `speaker` is a name of the bundle's, or None for its default."""
        v = self.facts["vocabulary"]
        ids = [v["first_character"] + v["characters"].index(c) for c in text]
        return [bundle.speaker(self.facts, speaker)["begin"], *ids, v["start_of_speech"]]
