"""Clocks, memory and the machine."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one run: of all cores together, and on the wall."""

    cpu_s: float
    wall_s: float


def timed(work: Callable[[], object]) -> Cost:
    """Runs it once. Earlier garbage is collected first, so that its owner pays for it."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def interleaved(
    works: Mapping[str, Callable[[], object]], rounds: int, title: str
) -> dict[str, list[Cost]]:
    """Every work once per round, in order, so that all see the same load of the machine.

    A first round, which pays for caches, is not counted.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for number in range(rounds + 1):
        of_round = f"round {number} of {rounds}" if number else "warm-up"
        for name, work in works.items():
            progress(f"{title}, {of_round}: {name}")
            cost = timed(work)
            if number:
                costs[name].append(cost)
    return costs


def progress(line: str) -> None:
    """One line to people who wait."""
    print(line, file=sys.stderr, flush=True)


def stolen_s() -> float:
    """Seconds of this machine's cores that its host gave to others, since it was started."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def rss_mib() -> float:
    """Resident memory of this process."""
    gc.collect()
    return float(_field(Path("/proc/self/status"), "VmRSS").split()[0]) / 1024


def machine() -> dict[str, str | int | float]:
    """What the figures depend on besides the code."""
    processor = Path("/proc/cpuinfo")
    return {
        "cpu": _field(processor, "model name"),
        "cores": os.cpu_count() or 0,
        "amx_bf16": "yes" if "amx_bf16" in _field(processor, "flags").split() else "no",
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft")},
    }


def _field(path: Path, name: str) -> str:
    """The first ``name: value`` of a file under /proc; empty where there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
