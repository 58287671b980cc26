"""RecCoT's rationales and towers as parts of a bundle, which need no language model there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle, read_signature
from rankloom_adapters.derive import with_parts
from rankloom_features.event_store.sqlite import SqliteEventStore, copy_events
from rankloom_features.event_store.store import EventStore, events_beside
from rankloom_ranker.stored_rationales import (
    StoredRationale,
    UserRationale,
    newest_of_history,
    write_rationale_part,
)
from rankloom_training.data import DataError
from rankloom_training.progress import Progress
from rankloom_training.reccot.rationale_file import ReviewRationale, read_rationales
from rankloom_training.reccot.tower_parts import TrainedTowers
from rankloom_training.train import OutputError


@dataclass(frozen=True, slots=True)
class Attached:
    """``num_rationales``: how many the file gave. ``answered``: those whose review is among the
    events beside the bundle; None where no events are beside it. ``was_signed``: the bundle
    without them; the new one needs a signature of its own.
    """

    digest: str
    num_rationales: int
    answered: int | None
    was_signed: bool


def attach(
    source: Path, out: Path, rationales: Path | None, towers: TrainedTowers | None
) -> Attached:
    """Writes the bundle ``source`` with these parts to ``out``, and its events beside it.

    Rationales with a problem are left out. Raises OutputError, DataError, BundleError,
    EventStoreError or OSError.
    """
    for path in (out, events_beside(out)):
        if path.exists():
            raise OutputError(f"{path} exists; remove it or choose another path")
    bundle = open_bundle(source)
    sound = _sound(rationales) if rationales else []
    given = towers.bundle_parts(Progress()) if towers else {}
    if sound:
        given[parts.RATIONALES] = _part_of(sound)
    begun = out.with_name(f"{out.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    digest = with_parts(bundle, given, begun, {})
    answered = _with_events(source, begun, sound)
    if answered is not None:
        os.replace(events_beside(begun), events_beside(out))
    os.replace(begun, out)
    return Attached(digest, len(sound), answered, read_signature(source) is not None)


def _sound(rationales: Path) -> list[UserRationale]:
    found = [_user_rationale(one) for one in read_rationales(rationales) if one.answer is not None]
    if not found:
        raise DataError(f"{rationales}: none of its rationales is sound; write them anew")
    return found


def _user_rationale(one: ReviewRationale) -> UserRationale:
    assert one.answer is not None
    stored = StoredRationale(one.think, one.answer, one.time, one.written, one.generator)
    return UserRationale(one.user_id, one.item_id, stored)


def _part_of(rationales: Iterable[UserRationale]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rationales.sqlite"
        write_rationale_part(path, rationales)
        return path.read_bytes()


def _with_events(source: Path, out: Path, rationales: Sequence[UserRationale]) -> int | None:
    """Copies the events beside a bundle; returns how many of the rationales they let it answer."""
    if not events_beside(source).exists():
        return None
    copy_events(events_beside(source), events_beside(out))
    with closing(SqliteEventStore(events_beside(out))) as store:
        return _num_answered(store, rationales)


def _num_answered(store: EventStore, rationales: Sequence[UserRationale]) -> int:
    total = 0
    by_user = sorted(rationales, key=lambda each: each.user_id)
    for user_id, own in groupby(by_user, key=lambda each: each.user_id):
        events = store.history(user_id).events
        found = (newest_of_history([one.rationale], one.item_id, events) for one in own)
        total += sum(one is not None for one in found)
    return total
