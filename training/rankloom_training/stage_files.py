"""Arrays that one stage writes and a later one reads, with one entry a row of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_rows(folder: Path, name: str, **arrays: NDArray[np.floating]) -> None:
    """Writes arrays of the rows ``name``: train or valid."""
    np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)


def load_inputs(work: Path, name: str) -> tuple[NDArray[Any], ...]:
    """Vectors, tabular features and tree logits of the rows, in the order of ``Inputs``."""
    from_trees = np.load(work / "trees" / f"{name}.npz")
    vector = np.load(work / "collaborative" / f"{name}.npz")["vector"]
    return vector, from_trees["tabular"], from_trees["tree_logits"]
