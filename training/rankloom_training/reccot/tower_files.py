"""The trained towers as files: an ONNX program and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankloom_features.export import TOLERANCE, ExportError, traced_onnx_bytes
from rankloom_training.json_report import json_text
from rankloom_training.reccot.encoder import one_thread
from rankloom_training.reccot.tower_rows import TowerInputs, TowerRows
from rankloom_training.reccot.towers import TwoTowers

PROGRAM, REPORT = "towers.onnx", "towers.json"
NAMES = ("user", "item", "user_vectors", "user_mask", "item_vectors", "item_mask")
_CHECKED_ROWS = 64


def write_towers(
    folder: Path, model: TwoTowers, rows: TowerRows, report: Mapping[str, object]
) -> None:
    """Raises ExportError if the program differs from ``model`` by more than 1e-4."""
    program = towers_program(model, rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_bytes(program)
    (folder / REPORT).write_text(json_text(report))


def towers_program(model: TwoTowers, rows: TowerRows) -> bytes:
    """As ONNX. Raises ExportError if it differs from ``model`` by more than 1e-4."""
    example: dict[str, Tensor] = dict(zip(NAMES, rows.inputs(np.arange(2)).tensors(), strict=True))
    sizes = {name: {0: "rows"} for name in (*NAMES, "rating")}
    program = traced_onnx_bytes(model.eval(), example, ["rating"], sizes)
    _check_equal(model, program, rows)
    return program


class RatingProgram:
    """The exported towers, without torch."""

    def __init__(self, program: bytes) -> None:
        self._session = onnxruntime.InferenceSession(program, one_thread())

    def ratings(self, given: TowerInputs) -> NDArray[np.float32]:
        """(n,)"""
        arrays = (each.numpy() for each in given.tensors())
        return np.asarray(self._session.run(None, dict(zip(NAMES, arrays, strict=True)))[0])


def _check_equal(model: TwoTowers, program: bytes, rows: TowerRows) -> None:
    exported = RatingProgram(program)
    for number in (1, 3, _CHECKED_ROWS):
        given = rows.inputs(np.arange(min(number, len(rows.user))))
        with torch.inference_mode():
            expected = model(*given.tensors()).numpy()
        worst = float(np.abs(expected - exported.ratings(given)).max())
        if not worst <= TOLERANCE:
            raise ExportError(f"exported and trained towers differ by {worst:.2g}")
