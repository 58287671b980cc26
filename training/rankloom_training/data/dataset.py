"""Reads an interaction log and its item table: checked, sorted and split.

What the end of the pipeline or a server would refuse is refused here, before any work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue
from rankloom_features.item_columns import ItemColumns
from rankloom_training.data.checks import (
    refuse_backwards,
    refuse_empty,
    refuse_one_class,
    refuse_unknown,
)
from rankloom_training.data.columns import Column, IdColumn
from rankloom_training.data.errors import DataError
from rankloom_training.data.files import ITEM_FILES, LOG_FILES, files_of, find_files
from rankloom_training.data.further_columns import read_further_columns
from rankloom_training.data.interactions import (
    Interactions,
    first_of_duplicates,
    sorted_log,
    split_by_time,
)
from rankloom_training.data.item_vectors import FILE_NAME as ITEM_VECTORS_FILE
from rankloom_training.data.item_vectors import read_item_vectors
from rankloom_training.data.items import drift_warnings, read_ids, read_items
from rankloom_training.data.likes import LikeRule, read_likes
from rankloom_training.data.negatives import Negatives, NegativeSampling
from rankloom_training.data.settings import (
    ITEM_COLUMNS,
    LOG_COLUMNS,
    SETTINGS_FILE,
    DataSettings,
    read_settings,
)
from rankloom_training.data.splits import given_split
from rankloom_training.data.tables import SourceTable
from rankloom_training.data.times import read_times

if TYPE_CHECKING:
    from rankloom_training.data.reviews import Reviews


@dataclass(frozen=True, slots=True)
class ReadFile:
    """How a file was read. ``columns``: our name and theirs. ``further``: columns without a name
    of ours, and what became of them.
    """

    name: str
    how: str
    rows: int
    columns: tuple[tuple[str, str], ...]
    further: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DataSource:
    """How a folder was read: for the report, the bundle's metadata and the key of a run.

    ``sampling``: how negatives are sampled, for a log of likes alone.
    """

    log: ReadFile
    items: ReadFile
    files: tuple[Path, ...]
    time_unit: str
    likes: LikeRule
    sampling: NegativeSampling | None
    split_given: bool


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A catalogue, the log of its items, and warnings about what was changed on the way.

    ``item_columns``: further numbers of the items. ``source``: None for a log made in memory.
    ``negatives``: draws the negatives of a log that has sampled ones. ``item_vectors``:
    (items, dim) float32, zero where unknown; None without any. ``reviews``: of the same log, where
    they are asked for.
    """

    catalogue: Catalogue
    log: Interactions
    warnings: tuple[str, ...] = ()
    item_columns: ItemColumns = dataclasses.field(default_factory=ItemColumns)
    source: DataSource | None = None
    negatives: Negatives | None = None
    item_vectors: NDArray[np.float32] | None = None
    reviews: Reviews | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return self.source.files if self.source else ()

    @property
    def like_above(self) -> float | None:
        """The threshold of a like; None if the log has labels."""
        return self.source.likes.like_above if self.source else None

    @property
    def sampling(self) -> NegativeSampling | None:
        """How negatives are sampled; None if the log has dislikes of its own."""
        return self.source.sampling if self.source else None

    def sampling_offset(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) what sampling adds to the log-odds of these rows of the log: see ``Negatives``."""
        if self.negatives is None:
            return np.zeros(len(rows))
        return np.asarray(self.negatives.offset[self.log.item[rows]])

    def with_negatives(self, seed: int) -> Dataset:
        """The data with negatives beside each like, if the log has likes alone.

        Raises DataError if there is nothing to sample.
        """
        if self.sampling is None:
            return self
        negatives = Negatives(self.log, len(self.catalogue), self.sampling, seed)
        return dataclasses.replace(self, log=negatives.log(), negatives=negatives)


def load_dataset(
    folder: Path, like_above: float | None = None, implicit: NegativeSampling | None = None
) -> Dataset:
    """Reads a log and an item table from a folder; docs/data.md says in which forms.

    ``like_above``: a rating above it is a like. ``implicit``: how to sample negatives for a log
    of likes alone; the returned one has none yet (``with_negatives``). Both go before the
    folder's ``columns.json``. Raises DataError.
    """
    settings = read_settings(folder).with_options(like_above, implicit)
    logs, tables = find_files(folder, LOG_FILES), find_files(folder, ITEM_FILES)
    item_table = SourceTable(tables[0], ITEM_COLUMNS, settings.names, with_others=True)
    items, further = read_items(item_table), read_further_columns(item_table, settings)
    log_table = SourceTable(logs[0], LOG_COLUMNS, settings.names)
    read = _read_log(log_table, settings, items.catalogue, item_table.name)
    further_files = (folder / SETTINGS_FILE, folder / ITEM_VECTORS_FILE)
    files = (*files_of(logs[0]), *files_of(tables[0]), *further_files)
    return Dataset(
        items.catalogue,
        read.log,
        (*_hidden(logs), *_hidden(tables), *items.warnings, *read.warnings),
        further.columns,
        DataSource(
            _source_of(log_table),
            _source_of(item_table, further.kinds),
            tuple(path for path in files if path.exists()),
            read.time_unit,
            read.likes,
            read.sampling,
            log_table.has("split"),
        ),
        item_vectors=read_item_vectors(folder, items.catalogue),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _ReadLog:
    log: Interactions
    time_unit: str
    likes: LikeRule
    sampling: NegativeSampling | None
    warnings: tuple[str, ...]


def _read_log(
    table: SourceTable, settings: DataSettings, catalogue: Catalogue, items_name: str
) -> _ReadLog:
    """Everything is checked on the file's rows, so that refusals can number them."""
    users, items = read_ids(table.column("user")), read_ids(table.column("item"))
    times = read_times(table.column("time"))
    if not len(table):
        raise DataError(f"{table.name}: no rows; add some interactions")
    likes = read_likes(table, settings)
    item = np.array([catalogue.index(name) for name in items.names], dtype=np.int64)[items.codes]
    refuse_unknown(table.name, items_name, item)
    order = table.column("position").finite_numbers() if table.has("position") else times.seconds
    given = given_split(table) if table.has("split") else None
    keep = likes.known & first_of_duplicates(users.codes, item, times.seconds, order, likes.liked)
    split = split_by_time(times.seconds[keep]) if given is None else given[keep]
    codes, user_ids = _renumbered(users, keep)
    log = sorted_log(
        codes, user_ids, item[keep], likes.liked[keep], times.seconds[keep], order[keep], split
    )
    refuse_empty(table.name, log)
    sampling = settings.implicit if log.liked.all() else None
    if sampling is None:
        refuse_one_class(table.name, log)
    if given is not None:
        refuse_backwards(f"{table.name}: column {table.theirs('split')}", log)
    warnings = (
        *drift_warnings(table.column("user"), users),
        *drift_warnings(table.column("item"), items),
        *likes.warnings,
        *_not_sampled(table.name, settings, sampling),
        *_early(table.column("time"), times.seconds),
        *_repeated(table.name, likes.known, keep),
    )
    return _ReadLog(log, times.unit, likes.rule, sampling, warnings)


def _renumbered(
    users: IdColumn, keep: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes without gaps, though users may have lost all their rows."""
    codes = users.codes[keep]
    left = np.bincount(codes, minlength=len(users.names)) > 0
    names = tuple(users.names[code] for code in np.flatnonzero(left))
    return (np.cumsum(left) - 1)[codes], names


def _hidden(paths: list[Path]) -> Iterator[str]:
    used, *others = paths
    return (f"{path.name} is not read, since {used.name} is there" for path in others)


def _early(column: Column, seconds: NDArray[np.float64]) -> tuple[str, ...]:
    early = seconds < 0.0
    if not early.any():
        return ()
    first = int(early.argmax()) + 1
    return (f"{column.where}: {int(early.sum()):,} rows are before 1970 (first: row {first})",)


def _not_sampled(
    name: str, settings: DataSettings, sampling: NegativeSampling | None
) -> tuple[str, ...]:
    if settings.implicit is None or sampling is not None:
        return ()
    return (f"{name}: the log has dislikes of its own, so no negatives are sampled",)


def _repeated(name: str, known: NDArray[np.bool_], keep: NDArray[np.bool_]) -> tuple[str, ...]:
    repeats = int(known.sum() - keep.sum())
    return (f"{name}: {repeats:,} duplicate rows are used once",) if repeats else ()


def _source_of(table: SourceTable, further: tuple[tuple[str, str], ...] = ()) -> ReadFile:
    return ReadFile(table.name, table.how, len(table), tuple(table.found.items()), further)
