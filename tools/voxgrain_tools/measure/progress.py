"""How far a long measurement is."""

from __future__ import annotations

import sys
import time


class Progress:
    """One line on stderr that rewrites itself on a terminal, else a line every ten seconds."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._begin = self._shown = time.monotonic()
        self._quiet = 0.1 if sys.stderr.isatty() else 10

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._shown < self._quiet and done < self._total:
            return
        self._shown = now
        left = (now - self._begin) / max(done, 1) * (self._total - done)
        end = "\r" if sys.stderr.isatty() and done < self._total else "\n"
        line = f"{self._title}: {done}/{self._total}, {left:.0f} s left   "
        print(line, end=end, file=sys.stderr, flush=True)
