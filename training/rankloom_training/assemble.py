"""Copies the parts that the stages wrote into one bundle folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from rankloom_adapters import bundle as parts
from rankloom_adapters.calibration import Calibration
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
    (folder / parts.CALIBRATION).write_bytes(Calibration().to_bytes())
