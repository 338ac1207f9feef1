"""Engines as child processes that are asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


class Child:
    """One engine with one model loaded."""

    def __init__(self, name: str, command: list) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hello = self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} stopped with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, *words) -> dict:
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._read()

    def step(self, tokens) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/logits"
            made = self.ask("step", path, ",".join(map(str, tokens)))
            return np.fromfile(path, "<f4").reshape(made["rows"], made["columns"])

    def ticks(self) -> int:
        """Clock ticks that it has computed for."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(stat[11]) + int(stat[12])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def voxgrain(program: Path, model: Path, threads: int, positions: int, name="voxgrain") -> Child:
    command = [program, "passes", model, "--serve", "--threads", threads, "--positions", positions]
    return Child(name, command)


def peer(name: str, model: Path, threads: int, positions: int, label=None, **options) -> Child:
    command = [sys.executable, "-m", "voxgrain_compare.child", name, model]
    command += ["--threads", threads, "--positions", positions]
    for key, value in options.items():
        command += [f"--{key.replace('_', '-')}", value]
    return Child(label or name, command)


def bandwidth(program: Path, file: Path, threads: int) -> Child:
    return Child("bandwidth", [program, "passes", "--bandwidth", file, "--serve", "--threads", threads])


def machine() -> dict:
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
    flags = set((fields.get("flags") or fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", "unknown"),
        "family": fields.get("cpu family"),
        "model": fields.get("model"),
        "cores": os.cpu_count(),
        "extensions": [w for w in wanted if w in flags],
        "load_average": list(os.getloadavg()),
    }


class Watch:
    """How much of the machine others had: programs beside the engines, and the host."""

    def __init__(self, children: list[Child]) -> None:
        self._children = children
        self._start = self._ticks()

    def _ticks(self) -> np.ndarray:
        """All, busy, stolen, and those that this run used itself."""
        line = Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, idle, wait, irq, soft, steal = map(int, line.split()[1:9])
        busy = user + nice + system + irq + soft
        own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        own += sum(c.ticks() for c in self._children)
        return np.array([busy + idle + wait + steal, busy, steal, own])

    def shares(self) -> dict:
        total, busy, stolen, own = self._ticks() - self._start
        total = max(total, 1)
        return {"others": max(0.0, float((busy - own) / total)), "host": float(stolen / total)}
