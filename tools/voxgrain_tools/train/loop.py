"""The training loop of the language models: epochs packed on a thread, rates by the clock, the best checkpoint kept."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..common import Clock, log


class Epochs:
    """Batches in a random order, epoch after epoch; the next epoch is packed while this one trains.

    `pack(epoch)` makes an epoch's arrays, `to_device` brings them where they are used; their first dimension is the
    batch."""

    def __init__(
        self, pack: Callable[[int], Any], to_device: Callable[[Any], Any], seed: int, first: Any = None
    ) -> None:
        """`first` is epoch 0, where it is on the device already."""
        self._pack, self._to_device = pack, to_device
        self.packed = to_device(pack(0)) if first is None else first
        self.epoch, self._at = 0, 0
        self._order = np.random.default_rng(seed)
        self._sequence = self._order.permutation(len(self.packed[0]))
        self._ready: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    def _prepare(self, epoch: int) -> None:
        def work() -> None:
            self._ready[epoch] = self._pack(epoch)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Begins to pack the epoch after this one."""
        self._prepare(self.epoch + 1)

    def next(self) -> int:
        """The number of the next batch in `packed`."""
        if self._at >= len(self._sequence):
            self.epoch, self._at = self.epoch + 1, 0
            self.close()
            self.packed = self._to_device(self._ready.pop(self.epoch))
            self._prepare(self.epoch + 1)
            self._sequence = self._order.permutation(len(self.packed[0]))
        self._at += 1
        return int(self._sequence[self._at - 1])

    def passed(self) -> float:
        """Epochs so far."""
        return self.epoch + self._at / max(1, len(self._sequence))

    def close(self) -> None:
        """Waits for the thread: a daemon inside NumPy at exit can crash the interpreter."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None


@dataclass
class Loop:
    """Steps until the clock or `max_steps` ends them.

    `step(packed, batch)` gives the loss and a tensor of figures to log, whose mean `value_of` reduces to one number.
    `validate()` gives what is to fall, and facts of it; `save(facts)` is called where it fell, `restore()` where a
    loss is
    not finite any more."""

    name: str
    unit: str
    clock: Clock
    epochs: Epochs
    optimizer: torch.optim.Optimizer
    parameters: Sequence[torch.nn.Parameter]
    lr: float
    warmup: int
    positions: int
    step: Callable[[Any, int], tuple[torch.Tensor, torch.Tensor]]
    validate: Callable[[], tuple[float, dict[str, Any]]]
    save: Callable[[dict[str, Any]], None]
    restore: Callable[[], None]
    value_of: Callable[[list[float]], float] = lambda means: means[0]
    report: Callable[[list[dict[str, Any]]], None] | None = None
    floor: float = 0.02  # Of the learning rate, as a share of its peak.
    max_steps: int | None = None
    validate_every: float = 45.0
    first_validation: float | None = None  # Seconds, where the first is to come sooner.
    margin: float = 15.0  # Seconds before the end without a validation: the last one comes there.
    best: float = field(default=float("inf"), init=False)
    first: float | None = field(default=None, init=False)
    last: float | None = field(default=None, init=False)
    steps: int = field(default=0, init=False)
    record: list[dict[str, Any]] = field(default_factory=list, init=False)

    def check(self) -> None:
        """Validates, and saves what is better than all before."""
        value, facts = self.validate()
        self.record.append({"seconds": round(self.clock.elapsed(), 1), "step": self.steps, **facts})
        better = value < self.best
        if better:
            self.best = value
            self.save({**facts, "steps": self.steps, "train_seconds": round(self.clock.elapsed(), 1)})
        log(
            f"{self.name}: held-out {self.unit} {value:.4f} at step {self.steps}{' (best, saved)' if better else ''}",
            facts,
        )
        if self.report is not None:
            self.report(self.record)

    def run(self) -> None:
        every = 100 if self.max_steps is None else max(1, self.max_steps // 4)
        sums: torch.Tensor | None = None
        since, checked = 0, 0.0
        self.epochs.start()
        while self.clock.left() > 0 and (self.max_steps is None or self.steps < self.max_steps):
            batch = self.epochs.next()
            rate = self.lr * self.clock.cosine(self.floor) * min(1.0, (self.steps + 1) / self.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, figures = self.step(self.epochs.packed, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
            self.optimizer.step()
            sums = figures.clone() if sums is None else sums + figures
            self.steps, since = self.steps + 1, since + 1
            if since >= every:
                self._log(sums / since, rate)
                sums, since = None, 0
            wait = self.validate_every if self.record or self.first_validation is None else self.first_validation
            if self.max_steps is None and self.clock.elapsed() - checked > wait and self.clock.left() > self.margin:
                checked = self.clock.elapsed()
                self.check()
        self.check()
        self.epochs.close()
        log(
            f"{self.name}: best held-out {self.unit} {self.best:.4f}, {self.steps} steps, "
            f"{self.epochs.passed():.2f} epochs"
        )

    def _log(self, means: torch.Tensor, rate: float) -> None:
        each = means.reshape(-1).tolist()
        value = self.value_of(each)
        self.first, self.last = value if self.first is None else self.first, value
        shown = f" {[round(e, 3) for e in each]}" if len(each) > 1 else ""
        log(
            f"{self.name}: step {self.steps} epoch {self.epochs.passed():.2f} {self.unit} {value:.4f}{shown} "
            f"{self.steps * self.positions / max(self.clock.elapsed(), 1e-9) / 1e3:.0f} k positions/s lr {rate:.1e}"
        )
        if not math.isfinite(value) and math.isfinite(self.best):
            log(f"{self.name}: not finite; back to the best checkpoint")
            self.restore()
            self.optimizer.state.clear()
