"""Results as JSON files: figures with machine, versions, commit, date and settings."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.common.machine import commit, machine, versions

RESULTS: Final = Path(__file__).parents[1] / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known before a run: where it runs, and of which code."""

    date: str
    commit: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @classmethod
    def now(cls) -> RunFacts:
        """Of this process; the load is that before the run begins."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(date=date, commit=commit(), machine=machine(), versions=versions())


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """One run of one room.

    ``dtype``: number format of the model. ``settings``: what the command was asked to do.
    ``transcribed``: copied by hand from ``source``, which may hold fewer figures than a run.
    """

    room: str
    facts: RunFacts
    dtype: str
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]
    transcribed: bool = False
    source: str = ""

    def headline(self) -> str:
        """Where and when it was measured, in one sentence."""
        facts = self.facts
        parts = [f"{self.dtype}; {facts.date[:10]}, commit {facts.commit}", _machine(facts.machine)]
        titles = {"python": "Python", "torch": "torch", "onnxruntime": "onnxruntime"}
        known = [name for name in titles if name in facts.versions]
        if known:
            parts.append(", ".join(f"{titles[name]} {facts.versions[name]}" for name in known))
        source = f" *Copied* from {self.source}." if self.transcribed else ""
        return f"{'; '.join(parts)}.{source}"


def write(result: BenchmarkResult, folder: Path) -> Path:
    """Writes ``folder/<room>/<date>-<commit>-<cpu>.json``; never over another result."""
    facts = result.facts
    cpu = re.sub(r"[^a-z0-9]+", "-", str(facts.machine["cpu"]).lower()).strip("-")
    stem = f"{facts.date[:10]}-{facts.commit}-{cpu}"
    room = folder / result.room
    room.mkdir(exist_ok=True)
    path, number = room / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = room / f"{stem}-{number}.json"
    content = dataclasses.asdict(result)
    content = {"room": result.room, **content.pop("facts"), **content}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> BenchmarkResult:
    """Raises ValueError for a file that is not a result."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [each.name for each in dataclasses.fields(RunFacts)]
        facts = RunFacts(**{name: content.pop(name) for name in names})
        return BenchmarkResult(facts=facts, **content)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a result of a benchmark: {error}") from error


def newest(room: str, folder: Path = RESULTS) -> BenchmarkResult | None:
    """The room's latest result by its date; None if it has none."""
    found = [read(path) for path in sorted((folder / room).glob("*.json"))]
    return max(found, key=lambda each: datetime.fromisoformat(each.facts.date), default=None)


def _machine(machine: Mapping[str, Any]) -> str:
    flags = " ".join(machine["flags"])
    cores = f", {machine['cores']} cores" if machine["cores"] else ""
    return f"{machine['cpu']}{cores}" + (f" ({flags})" if flags else "")
