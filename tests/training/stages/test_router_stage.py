"""Where groups are a category of the items, no latent vector is needed to find them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_training.data import load_dataset
from rankloom_training.group_counts import GroupError
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages.artefacts import RouterFiles
from rankloom_training.stages.router import RouterStage
from rankloom_training.stages.stage import StageInputs
from rankloom_training.synthetic_domains import BOOKS, COLUMN, FILMS, write_domains


def run(data: Path, folder: Path) -> RouterFiles:
    folder.mkdir()
    stage = RouterStage.configured(TrainOptions(group_by=COLUMN))
    stage.run(StageInputs(load_dataset(data), folder, {}, Progress(), folder / "unfinished"))
    return RouterFiles(folder)


def test_each_domain_is_a_group(tmp_path: Path) -> None:
    write_domains(tmp_path / "data", (FILMS, BOOKS), num_users=6)
    files = run(tmp_path / "data", tmp_path / "router")
    items = load_dataset(tmp_path / "data").catalogue.items
    assert files.router().groups == ("books", "films")
    groups = files.item_groups(len(items))
    assert groups is not None
    names = [files.router().groups[group] for group in groups.group]
    assert names == [item.item_id.partition("-")[0] for item in items]


def test_a_domain_without_users_is_refused(tmp_path: Path) -> None:
    write_domains(tmp_path / "data", (FILMS, BOOKS), num_users=6)
    log = tmp_path / "data" / "interactions.csv"
    rows = log.read_text().splitlines(keepends=True)
    log.write_text("".join(row for row in rows if ",books-" not in row))
    with pytest.raises(GroupError, match="group books has only 0 of"):
        run(tmp_path / "data", tmp_path / "router")
