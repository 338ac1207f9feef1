"""Word and character errors, what kind they are, and confidence intervals over utterances."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

EQUAL, SUBSTITUTE, DELETE, INSERT = "=sdi"


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def align(reference: Sequence, hypothesis: Sequence) -> list[tuple[str, int, int]]:
    """A cheapest alignment as (operation, reference index, hypothesis index) from the start.

    A deletion's hypothesis index and an insertion's reference index are where they would stand.
    """
    rows, columns = len(reference) + 1, len(hypothesis) + 1
    cost = [list(range(columns))]
    for i in range(1, rows):
        above, line = cost[-1], [i]
        for j in range(1, columns):
            swap = above[j - 1] + (reference[i - 1] != hypothesis[j - 1])
            line.append(min(swap, above[j] + 1, line[-1] + 1))
        cost.append(line)
    path, i, j = [], rows - 1, columns - 1
    while i or j:
        here = cost[i][j]
        same = i and j and reference[i - 1] == hypothesis[j - 1]
        if i and j and here == cost[i - 1][j - 1] + (not same):
            i, j = i - 1, j - 1
            path.append((EQUAL if same else SUBSTITUTE, i, j))
        elif i and here == cost[i - 1][j] + 1:
            i -= 1
            path.append((DELETE, i, j))
        else:
            j -= 1
            path.append((INSERT, i, j))
    return path[::-1]


def distance(reference: Sequence, hypothesis: Sequence) -> int:
    above = list(range(len(hypothesis) + 1))
    for i, a in enumerate(reference, start=1):
        line = [i]
        for j, b in enumerate(hypothesis, start=1):
            line.append(min(above[j - 1] + (a != b), above[j] + 1, line[-1] + 1))
        above = line
    return above[-1]


def _runs(path, kind: str):
    """Maximal runs [start, end) of one operation in the alignment."""
    start = None
    for at, (operation, _, _) in enumerate([*path, ("", 0, 0)]):
        if operation == kind and start is None:
            start = at
        elif operation != kind and start is not None:
            yield start, at
            start = None


def suspects(reference: list[str], hypothesis: list[str]) -> list[tuple[str, list[str]]]:
    """Skips and repeats that a hypothesis shows, each with the words that were said if it is true.

    skip: two or more neighbouring words deleted, other than at the end.
    repeat: an inserted run equal to the words heard just before or just after it.
    """
    return _suspects(align(reference, hypothesis), reference, hypothesis)


def _suspects(path, reference: list[str], hypothesis: list[str]) -> list[tuple[str, list[str]]]:
    found = []
    for start, end in _runs(path, DELETE):
        first, last = path[start][1], path[end - 1][1]
        if end - start >= 2 and last != len(reference) - 1:
            found.append(("skip", reference[:first] + reference[last + 1 :]))
    for start, end in _runs(path, INSERT):
        _, at, first = path[start]
        length = end - start
        run = hypothesis[first : first + length]
        before = hypothesis[max(0, first - length) : first]
        after = hypothesis[first + length : first + 2 * length]
        if run in (before, after):
            found.append(("repeat", reference[:at] + run + reference[at:]))
    return found


def faults(reference: list[str], hypothesis: list[str]) -> dict[str, bool]:
    """Whether an utterance seems to skip, to repeat (`suspects`) or to lose its end.

    missing_end: the last two words (or the only one) deleted.
    """
    path = align(reference, hypothesis)
    tail = min(2, len(reference))
    missing_end = tail > 0 and [p[0] for p in path if p[0] != INSERT][-tail:] == [DELETE] * tail
    kinds = {kind for kind, _ in _suspects(path, reference, hypothesis)}
    return {"skip": "skip" in kinds, "repeat": "repeat" in kinds, "missing_end": missing_end}


def score(reference: str, hypothesis: str) -> dict:
    ref, hyp = words(reference), words(hypothesis)
    ref_text, hyp_text = " ".join(ref), " ".join(hyp)
    return {
        "words": len(ref),
        "word_errors": distance(ref, hyp),
        "characters": len(ref_text),
        "character_errors": distance(ref_text, hyp_text),
        **faults(ref, hyp),
    }


def bootstrap(
    errors: ArrayLike,
    totals: ArrayLike,
    base: tuple[ArrayLike, ArrayLike] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(rate, low, high): errors / totals with its 95 % interval, utterances drawn anew each time.

    With `base` = (errors, totals) of the same utterances, the paired difference of the rates.
    """
    columns = [np.asarray(c, dtype=np.float64) for c in (errors, totals, *(base or ()))]

    def rate(sums):
        value = sums[0] / np.maximum(sums[1], 1e-9)
        return value - sums[2] / np.maximum(sums[3], 1e-9) if base else value

    count = len(columns[0])
    rng = np.random.default_rng(seed)
    # How often each utterance is drawn, 100 resamples at a time to bound memory.
    drawn = []
    for start in range(0, samples, 100):
        weights = rng.multinomial(count, np.full(count, 1 / count), size=min(100, samples - start))
        drawn.append(rate([weights @ c for c in columns]))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return float(rate([c.sum() for c in columns])), float(low), float(high)
