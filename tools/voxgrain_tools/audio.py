"""Sound as the tools hold it: float32 samples of one channel, and the WAV files they come from."""

from __future__ import annotations

import io
import wave
import zipfile
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

# Left around speech by `trim`, in seconds.
LEAD, TAIL = 0.06, 0.14


def read_wav(path: str | Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Samples in [-1, 1) and their rate in Hz; `rate` refuses files of another one."""
    with wave.open(str(path), "rb") as file:
        found = file.getframerate()
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(f"{path}: not one channel of 16 bits; convert it first")
        if rate is not None and found != rate:
            raise ValueError(f"{path}: {found} Hz where {rate} Hz are wanted; resample it first")
        raw = file.readframes(file.getnframes())
    return np.frombuffer(raw, "<i2").astype(np.float32) / 32768, found


def seconds_of(path: str | Path) -> float:
    """How long a WAV file lasts."""
    with wave.open(str(path), "rb") as file:
        return file.getnframes() / file.getframerate()


def write_wav(path: str | Path, samples: np.ndarray, rate: int = 16000) -> None:
    """16 bits, one channel. The file is there whole or not at all: a stopped run leaves no half one."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with wave.open(str(part), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm16(samples).tobytes())
    part.replace(path)


def zip_wavs(path: str | Path, sounds: dict[str, np.ndarray], others: Iterable[str] = (), rate: int = 16000) -> None:
    """NAME.wav of each sound in one archive, with other files beside them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, samples in sounds.items():
            data = io.BytesIO()
            with wave.open(data, "wb") as file:
                file.setparams((1, 2, rate, 0, "NONE", ""))
                file.writeframes(pcm16(samples).tobytes())
            archive.writestr(name + ".wav", data.getvalue())
        for other in others:
            archive.write(other, Path(other).name)


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Samples as little-endian 16-bit integers, clipped."""
    return np.clip(np.rint(np.asarray(samples, np.float32) * 32768), -32768, 32767).astype("<i2")


@cache
def _low_pass(up: int, down: int) -> np.ndarray:
    from scipy.signal import firwin

    # Passes 92.5 % of the narrower band and is silent from its end: for 24 to 16 kHz 7.4 and 8 kHz.
    most = max(up, down)
    return firwin(80 * most + 1, 0.9625 / most, window=("kaiser", 7.0))


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The same sound at another rate, without delay; ceil(len * wanted / rate) samples."""
    if rate == wanted:
        return np.asarray(samples, np.float32)
    from scipy.signal import resample_poly

    ratio = Fraction(wanted, rate)
    up, down = ratio.numerator, ratio.denominator
    return resample_poly(np.asarray(samples, np.float32), up, down, window=_low_pass(up, down)).astype(np.float32)


def _powers(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Mean squares of frames of 10 ms, and a frame's samples."""
    size = rate // 100
    return np.square(samples[: len(samples) // size * size].astype(np.float64)).reshape(-1, size).mean(1), size


def speech_span(samples: np.ndarray, rate: int) -> tuple[int, int] | None:
    """First and last + 1 sample of what sounds (within 46 dB of the loudest tenth), LEAD and TAIL around it.

    None where less than 50 ms sound."""
    power, size = _powers(samples, rate)
    if len(power) == 0:
        return None
    loud = np.mean(np.sort(power)[-max(1, len(power) // 10) :])
    heard = np.flatnonzero(power > max(loud * 10**-4.6, 1e-12))
    if len(heard) < 5:
        return None
    begin = max(0, int(heard[0]) * size - round(LEAD * rate))
    return begin, min(len(samples), int(heard[-1] + 1) * size + round(TAIL * rate))


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """Without the silence around the speech; unchanged where nothing sounds."""
    span = speech_span(samples, rate)
    return samples if span is None else samples[span[0] : span[1]]


def level(samples: np.ndarray, rate: int, rms: float = 0.075, peak: float = 0.95) -> np.ndarray:
    """At one loudness: `rms` over the frames within 30 dB of the loudest tenth, unless the peak forbids it."""
    power, _ = _powers(samples, rate)
    if len(power) == 0 or power.max() <= 0:
        return samples
    loud = np.mean(np.sort(power)[-max(1, len(power) // 10) :])
    spoken = power[power > loud * 1e-3]
    gain = min(rms / np.sqrt(spoken.mean()), peak / max(np.abs(samples).max(), 1e-9))
    return (samples * gain).astype(np.float32)


def fade(samples: np.ndarray, rate: int) -> np.ndarray:
    """A copy that begins (5 ms) and ends (25 ms) without a click."""
    samples = samples.copy()
    first, last = min(rate // 200, len(samples)), min(rate // 40, len(samples))
    samples[:first] *= np.linspace(0, 1, first, dtype=np.float32)
    samples[len(samples) - last :] *= np.linspace(1, 0, last, dtype=np.float32)
    return samples
