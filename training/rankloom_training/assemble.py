"""Copies the parts that the stages wrote into one bundle folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from rankloom_adapters import bundle as parts
from rankloom_adapters.calibration import Calibration
from rankloom_features.events import Event, EventLog
from rankloom_training.data import Dataset


def assemble(folder: Path, made: Iterable[Mapping[str, Path]], dataset: Dataset) -> None:
    """Fills ``folder`` with the parts that were made, and the default calibration.

    ``made``: part → file, of each stage.
    """
    for part, source in (pair for stage in made for pair in stage.items()):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / part)
    if len(dataset.item_columns):
        (folder / parts.ITEM_COLUMNS).write_bytes(dataset.item_columns.to_bytes())
    (folder / parts.CATALOGUE).write_bytes(dataset.catalogue.to_bytes())
    (folder / parts.EVENTS).write_bytes(event_log(dataset).to_bytes())
    (folder / parts.CALIBRATION).write_bytes(Calibration().to_bytes())


def event_log(dataset: Dataset) -> EventLog:
    """All events of the log. A server starts with them as its users' histories."""
    log, items = dataset.log, dataset.catalogue.items
    events: dict[str, list[Event]] = {user: [] for user in log.user_ids}
    columns = (column[log.happened] for column in (log.user, log.item, log.liked, log.time))
    for user, item, liked, time in zip(*columns, strict=True):
        event = Event(items[item].item_id, bool(liked), float(time))
        events[log.user_ids[user]].append(event)
    return EventLog(events)
