"""Train-serve skew: how far served features are from those that a bundle computes now.

A served ranking names the version of its user's history, so the store gives the same events again.
On the bundle that ranked, every difference is 0: one definition of the features serves and trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.event_store.store import EventStore
from rankloom_features.events import Event
from rankloom_features.provider import FeatureProvider, UserQuery
from rankloom_ranker.served import user_digest
from rankloom_training.data import DataError
from rankloom_training.served.read import served_files, served_tables, user_key

_READ: Final = ("time", "user", "history_version", "schema_digest", "items", "features")
TOLERANCE: Final = 1e-6  # below it, two values are equal


@dataclass(frozen=True, slots=True)
class ColumnSkew:
    """``share``: of the values that differ. ``largest``: difference."""

    name: str
    share: float
    largest: float


@dataclass(frozen=True, slots=True)
class SkewReport:
    """Of ``num_rankings`` compared rankings.

    ``num_skipped``: rankings without a user id, of other columns, of items that the bundle does
    not know, or of users who were forgotten since. ``columns``: those that differ, the worst first.
    """

    num_rankings: int
    num_skipped: int
    share: float
    largest: float
    columns: tuple[ColumnSkew, ...]


def skew_of(
    folder: Path, provider: FeatureProvider, store: EventStore, max_rankings: int
) -> SkewReport:
    """Compares the newest rankings. Raises DataError and EventStoreError."""
    files, differences, skipped = served_files(folder), list[NDArray[np.float64]](), 0
    key = user_key(folder)
    users = {user_digest(key, user_id): user_id for user_id in store.users()}
    for ranking in _newest(files):
        if len(differences) == max_rankings:
            break
        served = _served(ranking, provider)
        events = _events(users.get(ranking["user"]), ranking["history_version"], store)
        if served is None or events is None:
            skipped += 1
            continue
        items = tuple(map(Item, ranking["items"]))
        computed = provider.features(UserQuery(None, events, items, at=ranking["time"])).tabular
        differences.append(_difference(served, computed))
    if not differences:
        raise DataError(
            f"{folder}: none of its {skipped} rankings can be compared with this bundle and these "
            "events; give those that served them"
        )
    return _report(np.concatenate(differences), provider.columns, len(differences), skipped)


def _newest(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for table in served_tables(files[::-1], _READ):
        yield from reversed(table.to_pylist())


def _served(ranking: dict[str, Any], provider: FeatureProvider) -> NDArray[np.float32] | None:
    """(items, columns) as served; None if they cannot be computed again."""
    known = _all_known(provider.catalogue, ranking["items"])
    if not known or ranking["schema_digest"] != provider.schema_digest:
        return None
    return np.array(ranking["features"], np.float32).reshape(-1, provider.num_columns)


def _all_known(catalogue: Catalogue, items: list[str]) -> bool:
    return all(catalogue.index(item) >= 0 for item in items)


def _events(user: str | None, version: int | None, store: EventStore) -> tuple[Event, ...] | None:
    """The events that were seen; None if they are not there any more."""
    if user is None or version is None:
        return None
    stored = store.history(user, version)
    return stored.events if stored.version == version else None


def _difference(served: NDArray[np.float32], computed: NDArray[np.float32]) -> NDArray[np.float64]:
    """(items, columns) absolute differences; infinite where one alone is unknown."""
    one, other = served.astype(np.float64), computed.astype(np.float64)
    missing = np.isnan(one) != np.isnan(other)
    return np.where(missing, np.inf, np.nan_to_num(np.abs(one - other)))


def _report(
    differences: NDArray[np.float64], names: tuple[str, ...], num_rankings: int, skipped: int
) -> SkewReport:
    differs = differences > TOLERANCE
    columns = [
        ColumnSkew(name, float(differs[:, n].mean()), float(differences[:, n].max()))
        for n, name in enumerate(names)
        if differs[:, n].any()
    ]
    return SkewReport(
        num_rankings=num_rankings,
        num_skipped=skipped,
        share=float(differs.mean()),
        largest=float(differences.max()),
        columns=tuple(sorted(columns, key=lambda each: (-each.share, -each.largest))),
    )
