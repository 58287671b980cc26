"""How far a long loop has come, written now and then, so that a killed training goes on there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

EVERY_S = 300.0

State = Mapping[str, Any]


class Checkpoint:
    """The newest state of one loop, in one file, with that of torch's random numbers.

    A state holds tensors, numbers, texts, and lists and mappings of these.
    """

    def __init__(self, path: Path | None) -> None:
        """``path``: None keeps nothing."""
        self._path, self._saved = path, time.monotonic()

    def load(self) -> State | None:
        """What an earlier run saved last; it sets the random numbers. None: nothing was saved."""
        if self._path is None or not self._path.is_file():
            return None
        found: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        torch.set_rng_state(found.pop("random"))
        return found

    def save_if_due(self, state: Callable[[], State]) -> None:
        """Saves what ``state`` returns if the last time was EVERY_S ago."""
        if time.monotonic() - self._saved >= EVERY_S:
            self.save(state)

    def save(self, state: Callable[[], State]) -> None:
        """Replaces the file as a whole, so that a kill leaves the old one or the new one."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".tmp")
        torch.save({**state(), "random": torch.get_rng_state()}, unfinished)
        unfinished.replace(self._path)
        self._saved = time.monotonic()


NO_CHECKPOINT = Checkpoint(None)
