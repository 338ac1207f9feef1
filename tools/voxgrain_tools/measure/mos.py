"""Predicted opinions of listeners, 1 to 5, both of sound at 16 kHz: DistillMOS, and P808 as a second opinion.

No listener was asked: these are predictors. DistillMOS cares for silence in front and for length, so sounds are
trimmed and
compared sentence by sentence. Of the DNSMOS package only P808 is used; its other scores rank reversed speech above
the original."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..audio import read_wav, resample, trim
from .cache import Verdicts

RATE = 16000
# What the packages import and scoring never calls; torchaudio alone would bring a second torch.
UNCALLED = ("torchaudio", "transformers", "librosa")
WINDOW = int(9.01 * RATE)
MEL_FFT, MEL_HOP, MELS = 321, 160, 120


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Empty modules in the place of UNCALLED ones that are not installed."""
    added = [n for n in UNCALLED if n not in sys.modules and importlib.util.find_spec(n) is None]
    for name in added:
        module = types.ModuleType(name)
        module.__getattr__ = lambda _: None  # type: ignore[method-assign]
        sys.modules[name] = sys.modules[f"{name}.transforms"] = module
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name], sys.modules[f"{name}.transforms"]


def _need(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps -r tools/requirements-judge-nodeps.txt")
    return Path(found.submodule_search_locations[0])


def distill_mos() -> Callable[[np.ndarray], float]:
    """The scorer of DistillMOS 0.9.1: samples of 16 kHz to an opinion."""
    _need("distillmos")
    import torch

    with _stand_ins(), contextlib.redirect_stdout(sys.stderr):
        from distillmos.sqa import ConvTransformerSQAModel

        model = ConvTransformerSQAModel().eval()
    torch.set_num_threads(1)  # Sounds are scored side by side instead.

    def score(samples: np.ndarray) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]).mean())

    return score


def mel_filters(rate: int = RATE, fft: int = MEL_FFT, bands: int = MELS) -> np.ndarray:
    """[bands, fft // 2 + 1] triangles of equal area on Slaney's mel scale, linear below 1 kHz and logarithmic above."""
    step = np.log(6.4) / 27

    def to_mel(hz: float) -> float:
        return hz / (200 / 3) if hz < 1000 else 15 + np.log(hz / 1000) / step

    mels = np.linspace(0, to_mel(rate / 2), bands + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    widths = np.diff(edges)
    away = edges[:, None] - np.fft.rfftfreq(fft, 1 / rate)[None]
    triangles = np.maximum(0, np.minimum(-away[:-2] / widths[:-1, None], away[2:] / widths[1:, None]))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def log_mel(samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """[frames, bands] decibels below the loudest, at least -80, brought to about [-1, 1]: what P808's network reads."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_FFT) / MEL_FFT)
    padded = np.pad(samples, MEL_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, MEL_FFT)[::MEL_HOP] * window
    power = np.square(np.abs(np.fft.rfft(frames, axis=1))) @ filters.T
    decibels = 10 * np.log10(np.maximum(power, 1e-10) / max(power.max(), 1e-10))
    return ((np.maximum(decibels, decibels.max() - 80) + 40) / 40).astype(np.float32)


def p808() -> Callable[[np.ndarray], float]:
    """The scorer of DNSMOS P.808 (speechmos 0.0.1.1): windows of 9.01 s a second apart; shorter sound is repeated."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    path = _need("speechmos") / "dnsmos_models" / "model_v8.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    filters = mel_filters()

    def score(samples: np.ndarray) -> float:
        samples = np.clip(samples, -1, 1)
        if len(samples) == 0:
            raise ValueError("a sound without samples has no score")
        while len(samples) < WINDOW:
            samples = np.append(samples, samples)
        starts = range(0, len(samples) - WINDOW + 1, RATE)
        scores = [
            session.run(None, {"input_1": log_mel(samples[s : s + WINDOW - MEL_HOP], filters)[None]})[0] for s in starts
        ]
        return float(np.mean(scores))

    return score


SCORERS: dict[str, Callable[[], Callable[[np.ndarray], float]]] = {"distillmos": distill_mos, "p808": p808}


def verdicts(name: str, folder: Path, workers: int = 2) -> Verdicts:
    """Scores of trimmed sounds with a memory in `folder`; `name` is one of SCORERS."""
    scorer: list[Callable[[np.ndarray], float]] = []

    def one(path: Path) -> float:
        samples, rate = read_wav(path)
        return scorer[0](trim(resample(samples, rate, RATE), RATE))

    def judge(paths: Iterable[Path]) -> Iterator[float]:
        if not scorer:
            scorer.append(SCORERS[name]())
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(one, paths)

    return Verdicts(f"{name}-trimmed", folder, judge)
