"""PocketSphinx with the en-us model that its wheel carries, over several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

import numpy as np

_decoder = None


def _start() -> None:
    global _decoder
    import pocketsphinx

    _decoder = pocketsphinx.Decoder(samprate=16000, loglevel="FATAL")


def _one(sound: np.ndarray) -> str:
    raw = (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
    if not raw:
        return ""
    # A fresh noise and mean estimate each time: a text must not depend on what came before it.
    _decoder.reinit_feat()
    _decoder.start_utt()
    _decoder.process_raw(raw, full_utt=True)
    _decoder.end_utt()
    hypothesis = _decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def transcribe_each(sounds: Iterable[np.ndarray], processes: int = 2) -> Iterator[str]:
    """Yields one text a sound (float32, 16 kHz), in order; `sounds` may be an iterator."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_start) as pool:
        yield from pool.imap(_one, sounds, chunksize=4)


def transcribe(sounds: list[np.ndarray], processes: int = 2) -> list[str]:
    return list(transcribe_each(sounds, processes))
