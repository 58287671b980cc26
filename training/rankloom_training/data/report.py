"""What was read, in some lines that a person checks before hours of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from rankloom_training.data.dataset import Dataset, DataSource, ReadFile
from rankloom_training.data.further_columns import LEFT_OUT
from rankloom_training.data.interactions import Interactions, Split
from rankloom_training.data.times import year_of

NUM_TITLES, NUM_SAMPLES = 3, 10
MAX_SHOWN = 60  # characters of one text
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Line = tuple[str, str]


def report_lines(dataset: Dataset) -> list[Line]:
    """Label and text of each line. A log made in memory has no lines about files."""
    source, log = dataset.source, dataset.log
    likes = f"{_percent(log.liked.mean())} are likes"
    years = f"{year_of(log.time.min())} to {year_of(log.time.max())}"
    lines = [
        ("log", _of_file(source.log if source else None) + _sizes(dataset)),
        ("items", _of_file(source.items if source else None) + _titles(dataset)),
        ("times", years + (f", in {source.time_unit}" if source else "")),
        ("likes", likes + (f": {source.likes}" if source else "")),
        ("split", _split(log, source)),
    ]
    if dataset.sampling:
        lines.append(("negatives", f"{dataset.sampling}; metrics over them say so"))
    if columns := _item_columns(dataset):
        lines.append(("item columns", columns))
    if (vectors := dataset.item_vectors) is not None:
        known = f"{int(vectors.any(axis=1).sum()):,} of {len(vectors):,} items"
        lines.append(("item vectors", f"{known}, {vectors.shape[1]} numbers each"))
    warnings = dataset.warnings
    if (reviews := dataset.reviews) is not None:
        spoken = f"{int(reviews.has_text.sum()):,} of {len(reviews):,}"
        lines.append(("reviews", f"{spoken} rows have a review"))
        warnings += reviews.warnings
    return [*lines, *(("warning", warning) for warning in warnings)]


def column_lines(dataset: Dataset) -> list[Line]:
    """Our names ← the files', and what became of the other columns."""
    files = (dataset.source.log, dataset.source.items) if dataset.source else ()
    named = [
        (one.name, f"{ours} ← {_printable(theirs)}")
        for one in files
        for ours, theirs in one.columns
    ]
    others = [
        (one.name, f"{_printable(name)}: {kind}") for one in files for name, kind in one.further
    ]
    return [*named, *others]


def sample_rows(dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """User, item, title, liked, time and split of some rows, spread over the log."""
    log = dataset.log
    for row in np.unique(np.linspace(0, len(log) - 1, NUM_SAMPLES).astype(np.int64)):
        item = dataset.catalogue.items[log.item[row]]
        yield (
            _printable(log.user_ids[log.user[row]]),
            _printable(item.item_id),
            _title(item.title, item.year),
            "like" if log.liked[row] else "dislike",
            f"{_EPOCH + timedelta(seconds=float(log.time[row])):%Y-%m-%d %H:%M:%S}",
            Split(log.split[row]).name.lower(),
        )


SAMPLE_COLUMNS = ("user", "item", "title", "liked", "time (UTC)", "split")


def _of_file(table: ReadFile | None) -> str:
    return f"{table.name} ({table.how}): " if table else ""


def _sizes(dataset: Dataset) -> str:
    log = dataset.log
    seen = len(np.unique(log.item))
    return (
        f"{len(log):,} rows, {log.num_users:,} users, {seen:,} of {len(dataset.catalogue):,} items"
    )


def _titles(dataset: Dataset) -> str:
    items = dataset.catalogue.items
    return "; ".join(_title(item.title, item.year) for item in items[:NUM_TITLES])


def _title(title: str, year: int | None) -> str:
    return (_printable(title) or "(no title)") + (f" ({year})" if year is not None else "")


def _printable(text: str) -> str:
    """The data's own text on one line of a terminal, which it cannot command."""
    plain = "".join(char if char.isprintable() else " " for char in text[: MAX_SHOWN + 1])
    return plain if len(plain) <= MAX_SHOWN else f"{plain[: MAX_SHOWN - 1]}…"


def _split(log: Interactions, source: DataSource | None) -> str:
    warm, parts = log.warm(), []
    for split in Split:
        rows = log.split == split
        part = f"{split.name.lower()} {int(rows.sum()):,}"
        parts.append(
            part if split is Split.TRAIN else f"{part} ({_percent(warm[rows].mean())} warm)"
        )
    how = "as the log says" if source and source.split_given else "by time"
    return f"{', '.join(parts)} rows, {how}; warm: user and item have training rows"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _item_columns(dataset: Dataset) -> str:
    further = dataset.source.items.further if dataset.source else ()
    left_out = [name for name, kind in further if kind.startswith(LEFT_OUT)]
    parts = []
    if names := dataset.item_columns.names:
        parts.append(f"{len(names)} for the trees ({_first_of(names)})")
    if left_out:
        parts.append(f"{len(left_out)} left out ({_first_of(left_out)})")
    return ", ".join(parts)


def _first_of(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_printable, names[:most])) + more
