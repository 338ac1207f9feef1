"""Which phone each token of a corpus says. Without torch, so that a pool of processes starts at once."""

from __future__ import annotations

import multiprocessing

import numpy as np

from ..common import cpu_count

A_JOB = 2000  # Utterances.
Job = tuple[list[str], np.ndarray, np.ndarray, dict[str, int], int]


def _labels(job: Job) -> np.ndarray:
    flat, (phones, counts, shifts, numbers, frame) = [], job
    for marks, count, shift in zip(phones, counts, shifts, strict=True):
        pairs = [mark.rsplit(":", 1) for mark in marks.split()]
        ends = np.array([int(end) for _, end in pairs], np.int64)
        stops = np.minimum(count, (ends + shift + frame // 2) // frame)
        sizes = np.diff(np.maximum.accumulate(stops), prepend=0)
        own = np.repeat(np.array([numbers.get(name, 0) for name, _ in pairs], np.uint8), sizes)
        flat.append(np.pad(own, (0, count - len(own))))
    return np.concatenate(flat) if flat else np.zeros(0, np.uint8)


def phone_labels(
    phones: list[str], counts: np.ndarray, shifts: np.ndarray, numbers: dict[str, int], frame: int
) -> np.ndarray:
    """The number of the phone at each token of all utterances, 0 after an utterance's last phone.

    `phones` holds "name:end ..." of each utterance, `counts` its tokens of `frame` samples, `shifts` the silence before
    it; ends and shifts are samples. All cores work: one takes half a minute for 250 hours."""
    jobs: list[Job] = [
        (phones[i : i + A_JOB], counts[i : i + A_JOB], shifts[i : i + A_JOB], numbers, frame)
        for i in range(0, len(phones), A_JOB)
    ]
    if len(jobs) < 2:
        return _labels((phones, counts, shifts, numbers, frame))
    # Spawned, as a process that has threads and a GPU must not be forked.
    with multiprocessing.get_context("spawn").Pool(min(cpu_count(), len(jobs))) as pool:
        return np.concatenate(pool.map(_labels, jobs))
