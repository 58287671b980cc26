"""Copies the parts that the stages wrote into one bundle folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import expert_part
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL, Router
from rankloom_features.events import Event, EventLog
from rankloom_training.data import Dataset


def assemble(folder: Path, work: Path, dataset: Dataset) -> None:
    """Fills ``folder`` from the stages' folders under ``work``, with the default calibration."""
    for part, source in (_parts(work) | _experts(work)).items():
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


def _parts(work: Path) -> dict[str, Path]:
    """Part → the file that a stage wrote, for all parts but the experts."""
    trees = (parts.ITEM_STATISTICS, parts.TREES)
    made = {part: work / "trees" / Path(part).name for part in trees}
    for part in (parts.BASE_CONFIG, parts.BASE_WEIGHTS, parts.BASE_TOKENIZER, parts.PROMPT):
        made[part] = work / "base" / part
    for part in (parts.ENCODER, parts.ITEM_VECTORS):
        made[part] = work / "collaborative" / Path(part).name
    made[parts.PROJECTOR] = work / "global" / parts.PROJECTOR
    made[parts.ROUTER] = work / "groups" / parts.ROUTER
    return made


def _experts(work: Path) -> dict[str, Path]:
    router = Router.from_bytes((work / "groups" / parts.ROUTER).read_bytes())
    stage = {name: work / ("global" if name == GLOBAL else "groups") for name in router.experts}
    return {
        expert_part(name, file): stage[name] / name / file
        for name in router.experts
        for file in (CONFIG_FILE, WEIGHTS_FILE)
    }
