"""Arrays of rows are files that memory need not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rankloom_training.data import Split
from rankloom_training.stages.artefacts import CollaborativeFiles, TreesFiles


def test_features_are_in_their_file_while_they_are_made(tmp_path: Path) -> None:
    files = TreesFiles(tmp_path)
    made = files.new_tabular(Split.TRAIN, (3, 2))
    for part in np.split(made, [1]):  # of several views
        part[:] = len(part)
    found = files.tabular(Split.TRAIN)
    assert found.tolist() == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
    found[0] = 9.0
    assert files.tabular(Split.TRAIN)[0].tolist() == [1.0, 1.0]


def test_a_split_without_rows(tmp_path: Path) -> None:
    trees, model = TreesFiles(tmp_path), CollaborativeFiles(tmp_path)
    trees.new_tabular(Split.VALID, (0, 2))
    model.write_rows(Split.VALID, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert trees.tabular(Split.VALID).shape == (0, 2)
    assert model.vectors(Split.VALID).shape == (0, 4)


def test_arrays_are_mapped(tmp_path: Path) -> None:
    files = CollaborativeFiles(tmp_path)
    files.write_rows(Split.TRAIN, np.ones((5, 4), np.float32), np.arange(5, dtype=np.float32))
    assert isinstance(files.vectors(Split.TRAIN), np.memmap)
    assert files.logits(Split.TRAIN).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
