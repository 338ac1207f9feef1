"""Verdicts on sounds, kept on disk by the hash of what was judged, so that nothing is judged twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .progress import Progress


class Verdicts:
    """A judge with a memory in FOLDER/verdicts-NAME.jsonl; NAME has to change with whatever changes its verdicts."""

    def __init__(self, name: str, folder: Path, judge: Callable[[Iterable[Path]], Iterator[Any]]) -> None:
        self.name = name
        self._path = folder / f"verdicts-{name}.jsonl"
        self._judge = judge
        self._known: dict[str, Any] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    item = json.loads(line)
                except json.JSONDecodeError:
                    continue  # The line that was being written when a run was stopped.
                self._known[item["sound"]] = item["verdict"]

    def __call__(self, paths: list[Path]) -> list[Any]:
        """A verdict a file, in order; `judge` gets the new ones and yields theirs in the same order."""
        keys = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
        todo = {k: p for k, p in zip(keys, paths, strict=True) if k not in self._known}
        if todo:
            progress = Progress(f"{self.name}, {paths[0].parent.name}", len(todo))
            with self._path.open("a") as file:
                for n, (key, verdict) in enumerate(zip(todo, self._judge(todo.values()), strict=True), start=1):
                    self._known[key] = verdict
                    file.write(json.dumps({"sound": key, "verdict": verdict}) + "\n")
                    file.flush()
                    progress(n)
        return [self._known[k] for k in keys]
