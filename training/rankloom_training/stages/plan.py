"""What a training would do: which stages are reused, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rankloom_training.stages.fingerprint import Fingerprint, fingerprint_of
from rankloom_training.stages.stage import Stage
from rankloom_training.stages.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """``reasons``: why the stage is made; none if it is reused.

    ``after``: stages that it needs and that are made. If they come out as they were, and there
    are no reasons, the stage is reused.
    """

    name: str
    reasons: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def is_reused(self) -> bool:
        return not self.reasons and not self.after

    @property
    def why(self) -> str:
        """In one line; empty if the stage is reused."""
        after = f"follows {', '.join(self.after)}" if self.after else ""
        return "; ".join(self.reasons) or after


def planned(stages: Sequence[Stage], data: str, work: Workspace) -> list[PlannedStage]:
    """What becomes of each stage. ``data``: of ``data_digest``. Changes nothing."""
    kept, plan = dict[str, str](), list[PlannedStage]()
    every = {stage.name for stage in stages}
    for stage in stages:
        needs = [kind.stage for kind in stage.needed_of(every)]
        after = tuple(name for name in needs if name not in kept)
        one = PlannedStage(stage.name, tuple(_reasons(stage, needs, data, kept, work)), after)
        if one.is_reused:
            kept[stage.name] = work.digest(stage.name) or ""
        plan.append(one)
    return plan


def _reasons(
    stage: Stage, needs: Sequence[str], data: str, kept: Mapping[str, str], work: Workspace
) -> Iterator[str]:
    """``needs``: names of stages. ``kept``: digests of the stages that are reused."""
    before = work.made_from(stage.name)
    if before is None:
        yield "not made yet"
        return
    used = _mapping(before, "needs")
    assumed = {name: str(used.get(name)) for name in needs} | dict(kept)
    now = fingerprint_of(stage, data, assumed)
    yield from differences(before, now)
    if work.digest(stage.name) is None:
        yield "its files were changed"


def differences(before: Mapping[str, object], now: Fingerprint) -> Iterator[str]:
    """What a stage was made from beside what it would be made from, in words.

    ``before``: of ``Fingerprint.to_json``.
    """
    after = now.to_json()
    if before.get("version") != now.version:
        yield f"made by version {before.get('version')}"
    if before.get("data") != now.data:
        yield "other data"
    was, options = _leaves(_mapping(before, "options")), _leaves(_mapping(after, "options"))
    for key in sorted(was.keys() | options.keys()):
        if was.get(key) != options.get(key):
            yield f"{key}: {was.get(key)} → {options.get(key)}"
    if edited := _changed(_mapping(before, "code"), now.code):
        yield f"code changed: {', '.join(edited)}"
    if others := _changed(_mapping(before, "needs"), now.needs):
        yield f"other files of {', '.join(others)}"


def _mapping(record: Mapping[str, object], key: str) -> dict[str, object]:
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def _changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _leaves(options: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Each option, those of a recipe with a dot before their names."""
    leaves: dict[str, object] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
