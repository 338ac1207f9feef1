"""How long each symbol of a phoneme string is said, fitted to hibari's own frames; and held-out sentences to try it on.

    python scripts/word_times.py table    # the table of src/speech/timing.rs
    python scripts/word_times.py tests    # tests/data/timings.tsv

A symbol has three numbers, in teacher's frames of 25 ms: its own, what is added in the last syllable before a mark, and
what it adds to the symbol before it. Least squares over 700 of the held-out sentences; the rest are for tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from voxgrain_tools.corpus.teachers import FRAME, Hibari

DATA = Path(__file__).parents[1] / "data" / "heldout.txt"
SYMBOLS = " ;:,.!?—…“”()ˈˌːAIOQTWYabdfhijklmnpstuvwzæðŋɐɑɒɔəɛɜɡɪɹʃʊʌʒʤʧθᵊᵻ"
MARKS = set(";:,.!?—…“”()")
VOWELS = set("AIOQTWYaiuæɑɒɔəɛɜɪʊʌᵊᵻɐ")
FIT = 700


def in_last_syllable(phonemes: str) -> list[bool]:
    """Whether each symbol is at or behind the last vowel of a word before a mark, or of the last word."""
    last = [False] * len(phonemes)
    for word in re.finditer("[^ ]+", phonemes):
        begin, end = word.span()
        if end == len(phonemes) or MARKS & set(word[0]):
            vowels = [i for i in range(begin, end) if phonemes[i] in VOWELS]
            for i in range(vowels[-1] if vowels else begin, end):
                last[i] = True
    return last


def features(phonemes: str) -> np.ndarray:
    count = len(SYMBOLS)
    rows = np.zeros((len(phonemes), 3 * count))
    last = in_last_syllable(phonemes)
    for i, symbol in enumerate(phonemes):
        own, following = SYMBOLS.index(symbol), phonemes[i + 1] if i + 1 < len(phonemes) else " "
        rows[i, own] = 1
        rows[i, count + own] = last[i]
        rows[i, 2 * count + SYMBOLS.index(following)] = 1
    return rows


def sentences() -> list[tuple[str, np.ndarray]]:
    from hibari import Hibari as Whole

    teacher, whole, said = Hibari(), Whole(), []
    for line in DATA.read_text().splitlines():
        for phonemes in whole.phonemize(line):
            phonemes = "".join(c for c in phonemes if c in SYMBOLS)
            if 10 < len(phonemes) <= 300:
                said.append((phonemes, teacher.frames(phonemes)[1:-1]))
    order = np.random.default_rng(0).permutation(len(said))
    return [said[i] for i in order]


def main() -> None:
    said = sentences()
    if sys.argv[1:] == ["tests"]:
        print("# Held-out sentences as hibari-tts 0.2.1 says them: its phonemes, and the ms from the first to each word's")
        print("# begin and end. tools/scripts/word_times.py writes it.")
        for phonemes, frames in said[FIT : FIT + 60]:
            ends = np.concatenate([[0], np.cumsum(frames)]) * FRAME * 1000
            times = []
            for word in re.finditer("[^ ]+", phonemes):
                bare = word.end() - (len(word[0]) - len(word[0].rstrip("".join(MARKS))))
                times.append(f"{ends[word.start()]:.0f}-{ends[bare]:.0f}")
            print(f"{phonemes}\t{ends[-1]:.0f}\t{' '.join(times)}")
        return
    left = right = 0
    for phonemes, frames in said[:FIT]:
        x = features(phonemes)
        left, right = left + x.T @ x, right + x.T @ frames
    weights = np.linalg.solve(left + 3 * np.eye(len(left)), right).reshape(3, -1)
    for i, symbol in enumerate(SYMBOLS):
        own, final, next_ = weights[:, i]
        print(f"    ({symbol!r}, {own:.2f}, {final:.2f}, {next_:.2f}),")


main()
