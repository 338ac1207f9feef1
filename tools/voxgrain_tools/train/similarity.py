"""How near a coded sound is to the real one: STOI, PESQ, log-mel distance and clicks. Sounds are int16 at 16 kHz."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from .codec import RATE, mel_filters


def judge(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float | None, float | None]:
    """(STOI, PESQ-wb) of (real, coded) int16 sounds; None for what is not installed or fails."""
    real, coded = (np.asarray(x, np.float64) / 32768 for x in pair)
    n, stoi_value, pesq_value = min(len(real), len(coded)), None, None
    try:
        from pystoi import stoi

        stoi_value = float(stoi(real[:n], coded[:n], RATE))
    except Exception:  # noqa: BLE001 - too short, or not installed
        pass
    try:
        from pesq import pesq

        pesq_value = float(pesq(RATE, np.float32(real[:n]), np.float32(coded[:n]), "wb"))
    except Exception:  # noqa: BLE001
        pass
    return stoi_value, pesq_value


def log_mel(sound: np.ndarray) -> np.ndarray:
    """[frames, 80] base-10 logarithms, the same for every evaluation."""
    filters = mel_filters(80, 1024).numpy()
    sound = np.pad(np.asarray(sound, np.float64) / 32768, 512)
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::256] * np.hanning(1025)[:1024]
    return np.log10(np.maximum(np.abs(np.fft.rfft(frames)) @ filters.T, 1e-5))


def clicks(pair: tuple[np.ndarray, np.ndarray]) -> float:
    """Share of samples whose second difference is far beyond any of the real sound's within 10 ms: 0 without clicks."""
    real, coded = (np.abs(np.diff(np.asarray(x, np.float64), 2)) for x in pair)
    n = min(len(real), len(coded)) // 160 * 160
    near = real[:n].reshape(-1, 160).max(1)
    near = np.maximum(np.maximum(near, np.r_[near[1:], 0]), np.r_[0, near[:-1]])
    return float((coded[:n].reshape(-1, 160) > 4 * near[:, None] + 1500).mean())


def measure(pairs: Sequence[tuple[np.ndarray, np.ndarray]], workers: int = 1) -> dict[str, Any]:
    """Means over (real, coded) int16 sounds."""
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            values = list(pool.map(judge, pairs, chunksize=4))
    else:
        values = [judge(p) for p in pairs]
    out = {"utterances": len(pairs)}
    for name, column in (("stoi", 0), ("pesq_wb", 1)):
        known = [v[column] for v in values if v[column] is not None and np.isfinite(v[column])]
        if known:
            out[name] = round(float(np.mean(known)), 4)
            out[name + "_low"] = round(float(np.quantile(known, 0.1)), 4)
    distances = []
    for real, coded in pairs:
        n = min(len(real), len(coded))
        distances.append(float(np.abs(log_mel(real[:n]) - log_mel(coded[:n])).mean()))
    out["mel_distance"] = round(float(np.mean(distances)), 4)
    out["clicks"] = round(float(np.mean([clicks(p) for p in pairs])), 7)
    return out
