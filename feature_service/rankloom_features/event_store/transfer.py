"""Events between a store and files, in bounded memory.

An import goes twice over the events. First they are spread over the store's partitions, in files
without names that vanish with the process. Then each partition is stored in one transaction,
sorted, so that its pages are written once however the file was ordered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from rankloom_features.event_store.bulk import EventColumns
from rankloom_features.event_store.event_tables import EVENT_ID, SCHEMA, Step, read_events, writing
from rankloom_features.event_store.keys import NUM_PARTITIONS, key_of, partition_of
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import EventStoreDamagedError

_READING: Final = 0.2  # share of an import's time
pc: Any = pyarrow.compute


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """``num_new``: rows that the store did not have."""

    num_rows: int
    num_new: int


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """``num_damaged``: partitions that cannot be read and were left out."""

    num_rows: int
    num_damaged: int


@dataclass(slots=True, eq=False)
class _Spread:
    """Rows of a file by partition; a file without a name for each that has rows."""

    folder: Path
    exits: ExitStack
    num_rows: int = 0
    _files: dict[int, IO[bytes]] = field(default_factory=dict)
    _writers: dict[int, Any] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        of_row = _partitions(batch.column("user_id"))
        order = np.argsort(of_row, kind="stable")
        bounds = np.searchsorted(of_row[order], np.arange(NUM_PARTITIONS + 1))
        rows = batch.take(pa.array(order))
        for partition in np.unique(of_row).tolist():
            start, end = bounds[partition : partition + 2].tolist()
            self._writer(partition, batch.schema).write_batch(rows.slice(start, end - start))
        self.num_rows += len(batch)

    def partitions(self) -> Iterator[tuple[int, pa.Table]]:
        """Each partition that has rows, with them in the order of the file."""
        for partition, file in sorted(self._files.items()):
            self._writers[partition].close()
            file.seek(0)
            yield partition, pa.ipc.open_stream(file).read_all()

    def _writer(self, partition: int, schema: pa.Schema) -> Any:  # noqa: ANN401
        if partition not in self._files:
            file = TemporaryFile(dir=self.folder)  # noqa: SIM115
            self._files[partition] = self.exits.enter_context(file)
            self._writers[partition] = pa.ipc.new_stream(file, schema)
        return self._writers[partition]


def import_events(store: SqliteEventStore, file: Path, step: Step) -> ImportCounts:
    """Stores the events of a file. What is there already stays; the same file twice is one.

    Raises EventTableError, before anything is stored, or EventStoreError.
    """
    batches = read_events(file, _part(step, 0.0, _READING))
    return import_batches(store, batches, _part(step, _READING, 1.0))


def import_batches(
    store: SqliteEventStore, batches: Iterable[pa.RecordBatch], step: Step
) -> ImportCounts:
    """Stores the events of batches with the columns of SCHEMA, event ids aside if need be.

    ``step``: counts partitions, once all batches were taken. Raises EventStoreError, and what the
    batches raise, before anything is stored.
    """
    num_new, items = 0, dict[str, int]()
    with ExitStack() as exits:
        spread = _Spread(store.path.absolute().parent, exits)
        for batch in batches:
            spread.add(batch)
        for partition, rows in spread.partitions():
            num_new += store.store_columns(partition, _columns(rows), items)
            step(partition + 1, NUM_PARTITIONS)
        return ImportCounts(spread.num_rows, num_new)


def _part(step: Step, start: float, end: float) -> Step:
    """Steps of a part of the work, as thousandths of the whole."""

    def part(done: int, total: int) -> None:
        step(round(1_000 * (start + (end - start) * done / max(total, 1))), 1_000)

    return part


def export_events(store: SqliteEventStore, file: Path, step: Step) -> ExportCounts:
    """Writes all events, each user's oldest first. Event ids are the keys that the store keeps.

    A file of this name is replaced once all is written. Raises EventStoreError or OSError.
    """
    part, num_rows, num_damaged = file.with_name(f".{file.stem}.part{file.suffix}"), 0, 0
    try:
        with writing(part) as writer:
            for partition in range(NUM_PARTITIONS):
                try:
                    columns = store.read_columns(partition)
                except EventStoreDamagedError:
                    num_damaged += 1
                    continue
                writer.write_table(pa.table(list(columns), schema=SCHEMA))
                num_rows += len(columns[0])
                step(partition + 1, NUM_PARTITIONS)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return ExportCounts(num_rows, num_damaged)


def _partitions(users: pa.Array) -> NDArray[np.int64]:
    """(n,) the partition of each row's user."""
    encoded = pc.dictionary_encode(users)
    of_user = [partition_of(user) for user in encoded.dictionary.to_pylist()]
    return np.array(of_user, dtype=np.int64)[_codes(encoded)]


def _columns(rows: pa.Table) -> EventColumns:
    rows = rows.combine_chunks()
    users, items = (_encoded(rows, name) for name in ("user_id", "item_id"))
    keys = None
    if EVENT_ID in rows.schema.names:
        keys = [key_of(event_id) for event_id in rows.column(EVENT_ID).to_pylist()]
    liked = rows.column("liked").to_numpy().astype(np.bool_)
    return EventColumns(*users, *items, liked, rows.column("time").to_numpy(), keys)


def _encoded(rows: pa.Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    encoded = pc.dictionary_encode(rows.column(name).chunk(0))
    return encoded.dictionary.to_pylist(), _codes(encoded)


def _codes(encoded: Any) -> NDArray[np.int64]:  # noqa: ANN401
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int64)
