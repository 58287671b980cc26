"""Observations as columns, from which each user counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.rollout.evidence import Observation, Pair
from rankloom_adapters.rollout.statistics import Sample

V = TypeVar("V", int, str)
_OF_OBSERVATIONS: Final = (
    "latency_s",
    "failed",
    "non_finite",
    "score",
    "contribution",
    "spread",
    "agreement",
    "probability",
    "tie_rate",
    "reused",
)
_OF_PAIRS: Final = (
    "active_latency_s",
    "shadow_latency_s",
    "active_failed",
    "shadow_failed",
    "non_finite",
    "overlap",
    "kendall",
    "active_score",
    "shadow_score",
    "tie_increase",
    "comparable",
)
_LATENCIES_S = (1e-6, 1e6)  # beyond them, a figure says more of the clock


@dataclass(frozen=True, slots=True, eq=False)
class ObservationTable:
    """(rankings,) each: places in lists of users and of groups, and figures by name.

    A figure is NaN where there is none.
    """

    user: NDArray[np.int64]
    group: NDArray[np.int64]
    group_names: tuple[str, ...]
    columns: Mapping[str, Sample]

    def of(self, group: str) -> ObservationTable:
        """The rankings of a group."""
        rows = self.group == self.group_names.index(group)
        columns = {name: each[rows] for name, each in self.columns.items()}
        return replace(self, user=self.user[rows], group=self.group[rows], columns=columns)

    def groups(self, min_users: int) -> frozenset[str]:
        """Those that have a name and so many users."""
        return frozenset(
            name
            for place, name in enumerate(self.group_names)
            if name and len(np.unique(self.user[self.group == place])) >= min_users
        )

    def with_columns(self, **more: Sample) -> ObservationTable:
        """The same rankings with more of their figures."""
        return replace(self, columns={**self.columns, **more})

    def means(self, column: str) -> Sample:
        """(users,) means of a column, without users that have none."""
        return self.means_of(self.columns[column])

    def means_of(self, values: Sample) -> Sample:
        """The same of any (rankings,) figures."""
        known = ~np.isnan(values)
        counts = np.bincount(self.user[known])
        sums = np.bincount(self.user[known], values[known])
        return np.asarray(sums[counts > 0] / counts[counts > 0])


@dataclass(frozen=True, slots=True, eq=False)
class Arms:
    """Both arms of a canary."""

    canary: ObservationTable
    baseline: ObservationTable

    def of(self, group: str) -> Arms:
        """The rankings of a group."""
        return Arms(self.canary.of(group), self.baseline.of(group))

    def groups(self, min_users: int) -> frozenset[str]:
        """Those that have so many users in both arms."""
        return self.canary.groups(min_users) & self.baseline.groups(min_users)


def arms_of(canary: Sequence[Observation], baseline: Sequence[Observation]) -> Arms:
    """Latencies are compared among answers of one kind, with a kept history or without.

    The revision on trial has nobody's history at first, the other one that of all who return:
    of the two kinds, the one is taken of which the smaller arm has more users.
    """
    tables = [table_of_observations(each) for each in (canary, baseline)]
    kinds = [[_latency_of(table, reused=reused) for table in tables] for reused in (False, True)]
    best = max(kinds, key=lambda kind: min(len(t.means("log_latency")) for t in kind))
    return Arms(*best)


def _latency_of(table: ObservationTable, *, reused: bool) -> ObservationTable:
    is_other = (table.columns["reused"] > 0.0) != reused
    return table.with_columns(log_latency=np.where(is_other, np.nan, table.columns["log_latency"]))


def table_of_observations(observations: Sequence[Observation]) -> ObservationTable:
    """With ``log_latency``, of rankings that did not fail."""
    table = _table(observations, _OF_OBSERVATIONS)
    latency = _log(table.columns["latency_s"])
    failed = table.columns["failed"] > 0.0
    return table.with_columns(log_latency=np.where(failed, np.nan, latency))


def table_of_pairs(pairs: Sequence[Pair]) -> ObservationTable:
    """With what the shadow has more of: ``failure_increase`` and ``log_latency_increase``."""
    table = _table(pairs, _OF_PAIRS)
    columns = table.columns
    failed = (columns["shadow_failed"] > 0.0) | (columns["active_failed"] > 0.0)
    failed |= columns["comparable"] == 0.0
    latency = _log(columns["shadow_latency_s"]) - _log(columns["active_latency_s"])
    return table.with_columns(
        failure_increase=columns["shadow_failed"] - columns["active_failed"],
        log_latency_increase=np.where(failed, np.nan, latency),
    )


def _table(
    records: Sequence[Observation] | Sequence[Pair], names: tuple[str, ...]
) -> ObservationTable:
    """In an order of its own, so that no sum depends on the order of the records."""
    rows = chain.from_iterable(map(attrgetter(*names), records))
    figures = np.fromiter(rows, dtype=np.float64).reshape(-1, len(names))
    user, _ = _places([each.user for each in records])
    group, group_names = _places([each.group for each in records])
    order = np.lexsort((*figures.T, user))
    columns = dict(zip(names, figures[order].T, strict=True))
    return ObservationTable(user[order], group[order], group_names, columns)


def _places(values: Sequence[V]) -> tuple[NDArray[np.int64], tuple[V, ...]]:
    """Each value's place among the different ones, and those in order."""
    different = tuple(sorted(set(values)))
    place_of = {value: place for place, value in enumerate(different)}
    return np.array([place_of[value] for value in values], dtype=np.int64), different


def _log(latency_s: Sample) -> Sample:
    return np.asarray(np.log(np.clip(latency_s, *_LATENCIES_S)))
