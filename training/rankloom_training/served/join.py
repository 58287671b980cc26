"""Joins served rankings with the events that followed into a training log with impressions.

The log has every event of the store. A returned item that its user had no event of within the
window is a dislike at the time of the ranking: an impression without a click. Rankings of users
whom the store does not know, because they have no events or were forgotten, are left out; so are
those from before a user was forgotten who came back under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankloom_features.event_store.store import EventStore
from rankloom_features.events import Event
from rankloom_ranker.served import user_digest
from rankloom_training.data import DataError
from rankloom_training.served.read import served_files, served_tables, user_key

LOG: Final = "interactions.parquet"
_READ: Final = ("time", "user", "history_version", "items", "rank")
_SCHEMA: Final = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.float64()),
        ("label", pa.int8()),
    ]
)
_USERS_AT_ONCE: Final = 1_000
Step = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class JoinedLog:
    """What was written. ``num_clicked``: impressions whose user had an event of the item.

    ``num_unknown``: impressions of users whom the store does not know (any more); left out.
    """

    num_rankings: int
    num_impressions: int
    num_clicked: int
    num_events: int
    num_rows: int
    num_unknown: int


class _Impression(NamedTuple):
    """``version``: of the history that the ranking saw; 0 where it saw none."""

    item: str
    time: float
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class _Impressions:
    """Returned items of all rankings, by user: user u has the rows from ``start[u]`` on.

    ``users``: their digests. ``time``: (n,) seconds. ``item``: (n,) index into ``items``.
    ``version``: (n,).
    """

    num_rankings: int
    users: tuple[bytes, ...]
    items: tuple[str, ...]
    start: NDArray[np.int64]
    time: NDArray[np.float64]
    item: NDArray[np.int64]
    version: NDArray[np.int64]

    def of(self, user: int) -> list[_Impression]:
        """The user's impressions, in the order of time."""
        rows = slice(self.start[user], self.start[user + 1])
        columns = self.item[rows], self.time[rows], self.version[rows]
        found = zip(*(column.tolist() for column in columns), strict=True)
        return [_Impression(self.items[item], time, version) for item, time, version in found]


def join_served(
    folder: Path, store: EventStore, out: Path, within_s: float, step: Step
) -> JoinedLog:
    """Writes ``out / LOG``. ``step``: called with users done and all users.

    Raises DataError, also where a log is there already, EventStoreError and OSError.
    """
    if (out / LOG).exists():
        raise DataError(f"{out / LOG}: exists; remove it or choose another folder")
    shown, key = _impressions(served_tables(served_files(folder), _READ)), user_key(folder)
    numbers = {user: number for number, user in enumerate(shown.users)}
    users = list(store.users())
    counts = np.zeros(3, np.int64)
    out.mkdir(parents=True, exist_ok=True)
    begun = out / f"{LOG}.begun"
    with pq.ParquetWriter(begun, _SCHEMA) as writer:
        for at in range(0, len(users), _USERS_AT_ONCE):
            rows = _Rows()
            for user in users[at : at + _USERS_AT_ONCE]:
                events, of_user = store.history(user).events, numbers.get(user_digest(key, user))
                impressions = [] if of_user is None else shown.of(of_user)
                impressions = _since_forgotten(impressions, user, store)
                counts += _join_user(rows, user, events, impressions, within_s)
            writer.write_table(rows.table())
            step(min(at + _USERS_AT_ONCE, len(users)), len(users))
    begun.replace(out / LOG)
    num_impressions, num_clicked, num_events = counts.tolist()
    unclicked = num_impressions - num_clicked
    return JoinedLog(
        shown.num_rankings,
        num_impressions,
        num_clicked,
        num_events,
        num_events + unclicked,
        len(shown.item) - num_impressions,
    )


def _since_forgotten(
    impressions: list[_Impression], user: str, store: EventStore
) -> list[_Impression]:
    """Those after the last one whose history the store does not have any more."""
    first, gone = 0, 0
    for at, each in enumerate(impressions):
        if not each.version:
            continue
        if each.version != gone and store.history(user, each.version).version == each.version:
            break  # later ones are of later histories
        first, gone = at + 1, each.version
    return impressions[first:]


class _Rows:
    """Rows of the log, by column."""

    def __init__(self) -> None:
        self._columns: Mapping[str, list[object]] = {name: [] for name in _SCHEMA.names}

    def add(self, *values: object) -> None:
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def table(self) -> pa.Table:
        return pa.table(dict(self._columns), schema=_SCHEMA)


def _join_user(
    rows: _Rows,
    user: str,
    events: Sequence[Event],
    impressions: Sequence[_Impression],
    within_s: float,
) -> tuple[int, int, int]:
    """Adds the user's rows; returns the numbers of impressions, of clicked ones, and of events."""
    times: dict[str, list[float]] = {}
    for event in events:
        times.setdefault(event.item_id, []).append(event.time or 0.0)
        rows.add(user, event.item_id, event.time, int(event.liked))
    clicked = 0
    for item, shown_at, _ in impressions:
        if any(shown_at <= time <= shown_at + within_s for time in times.get(item, ())):
            clicked += 1
        else:
            rows.add(user, item, shown_at, 0)
    return len(impressions), clicked, len(events)


def _impressions(tables: Iterator[pa.Table]) -> _Impressions:
    """Of rankings for a user id; inline histories belong to nobody."""
    parts = [_flat(table.filter(table["user"].is_valid())) for table in tables]
    user, item, time, version = (pa.concat_arrays([part[n] for part in parts]) for n in range(4))
    users, items = user.dictionary_encode(), item.dictionary_encode()
    times = time.to_numpy(zero_copy_only=False)
    codes = users.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    by = np.lexsort((times, codes))
    return _Impressions(
        num_rankings=sum(part[4] for part in parts),
        users=tuple(users.dictionary.to_pylist()),
        items=tuple(items.dictionary.to_pylist()),
        start=np.searchsorted(codes[by], np.arange(len(users.dictionary) + 1)),
        time=times[by],
        item=items.indices.to_numpy(zero_copy_only=False).astype(np.int64)[by],
        version=pc.fill_null(version, 0).to_numpy(zero_copy_only=False).astype(np.int64)[by],
    )


def _flat(table: pa.Table) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array, int]:
    """User, item, time and version of each returned item, and the number of rankings."""
    joined = table.combine_chunks()
    lists = joined["items"].combine_chunks()
    ranks = joined["rank"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    returned = np.flatnonzero(ranks > 0)
    row = pa.array(lists.value_parent_indices().to_numpy(zero_copy_only=False)[returned])
    users, times, versions = (
        joined[name].combine_chunks().take(row) for name in ("user", "time", "history_version")
    )
    return users, lists.flatten().take(pa.array(returned)), times, versions, len(table)
