"""Observations as columns, aggregated so that each user counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.rollout.evidence import Observation, Pair, RetrievalPair
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
_LATENCIES_S = (1e-6, 1e6)  # a value outside says more about the clock


@dataclass(frozen=True, slots=True, eq=False)
class ObservationTable:
    """Arrays (rankings,): indices of users and groups, and statistics by name.

    A statistic is NaN where there is none.
    """

    user: NDArray[np.int64]
    group: NDArray[np.int64]
    group_names: tuple[str, ...]
    columns: Mapping[str, Sample]

    def of(self, group: str) -> ObservationTable:
        """The rankings of one group."""
        rows = self.group == self.group_names.index(group)
        columns = {name: each[rows] for name, each in self.columns.items()}
        return replace(self, user=self.user[rows], group=self.group[rows], columns=columns)

    def groups(self, min_users: int) -> frozenset[str]:
        """Named groups with at least ``min_users`` users."""
        return frozenset(
            name
            for index, name in enumerate(self.group_names)
            if name and len(np.unique(self.user[self.group == index])) >= min_users
        )

    def with_columns(self, **more: Sample) -> ObservationTable:
        return replace(self, columns={**self.columns, **more})

    def means(self, column: str) -> Sample:
        """(users,) mean of a column per user; users without a value are left out."""
        return self.means_of(self.columns[column])

    def means_of(self, values: Sample) -> Sample:
        """The same for any (rankings,) values."""
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
        """The rankings of one group."""
        return Arms(self.canary.of(group), self.baseline.of(group))

    def groups(self, min_users: int) -> frozenset[str]:
        """Groups with at least ``min_users`` users in both arms."""
        return self.canary.groups(min_users) & self.baseline.groups(min_users)


def arms_of(canary: Sequence[Observation], baseline: Sequence[Observation]) -> Arms:
    """Builds both arms; latencies only of rankings with a cached history, or only without.

    At first the revision on trial has no history cached, and the active one has many. Of the two
    kinds, the one with more users in its smaller arm is taken.
    """
    tables = [table_of_observations(each) for each in (canary, baseline)]
    kinds = [[_latency_of(table, reused=reused) for table in tables] for reused in (False, True)]
    best = max(kinds, key=lambda kind: min(len(t.means("log_latency")) for t in kind))
    return Arms(*best)


def _latency_of(table: ObservationTable, *, reused: bool) -> ObservationTable:
    is_other = (table.columns["reused"] > 0.0) != reused
    return table.with_columns(log_latency=np.where(is_other, np.nan, table.columns["log_latency"]))


def table_of_observations(observations: Sequence[Observation]) -> ObservationTable:
    """Adds ``log_latency``, NaN for failed rankings."""
    table = _table(observations, _OF_OBSERVATIONS)
    latency = _log(table.columns["latency_s"])
    failed = table.columns["failed"] > 0.0
    return table.with_columns(log_latency=np.where(failed, np.nan, latency))


def table_of_pairs(pairs: Sequence[Pair]) -> ObservationTable:
    """Adds the shadow's ``failure_increase`` and ``log_latency_increase``."""
    table = _table(pairs, _OF_PAIRS)
    columns = table.columns
    failed = (columns["shadow_failed"] > 0.0) | (columns["active_failed"] > 0.0)
    failed |= columns["comparable"] == 0.0
    latency = _log(columns["shadow_latency_s"]) - _log(columns["active_latency_s"])
    return table.with_columns(
        failure_increase=columns["shadow_failed"] - columns["active_failed"],
        log_latency_increase=np.where(failed, np.nan, latency),
    )


def table_of_retrievals(pairs: Sequence[RetrievalPair]) -> ObservationTable:
    """The column ``overlap``."""
    return _table(pairs, ("overlap",))


def _table(
    records: Sequence[Observation] | Sequence[Pair] | Sequence[RetrievalPair],
    names: tuple[str, ...],
) -> ObservationTable:
    """Sorts the rows, so that no sum depends on the order of the records."""
    rows = list(map(attrgetter(*names), records))
    values = np.array(rows, np.float64).reshape(-1, len(names))
    user, _ = _indices([each.user for each in records])
    group, group_names = _indices([each.group for each in records])
    order = np.lexsort((*values.T, user))
    columns = dict(zip(names, values[order].T, strict=True))
    return ObservationTable(user[order], group[order], group_names, columns)


def _indices(values: Sequence[V]) -> tuple[NDArray[np.int64], tuple[V, ...]]:
    """The index of each value among the distinct ones, and those, sorted."""
    distinct = tuple(sorted(set(values)))
    index_of = {value: index for index, value in enumerate(distinct)}
    return np.array([index_of[value] for value in values], dtype=np.int64), distinct


def _log(latency_s: Sample) -> Sample:
    return np.asarray(np.log(np.clip(latency_s, *_LATENCIES_S)))
