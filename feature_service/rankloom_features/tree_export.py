"""Exports LightGBM boosters to one ONNX file and checks that both compute the same.

So a server does not import LightGBM, and a damaged model cannot crash it. onnxmltools 1.16 is
not enough: it exports the probabilities of one booster and rounds splits to float32, so that a
value at a split may go the wrong way. Here splits stay doubles, and boosters are averaged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from rankloom_features.export import ExportError
from rankloom_features.ranker import TreeRanker

TOLERANCE = 1e-5
CHECK_ROWS = 256
_IR_VERSION: Final = 9  # supported by onnxruntime 1.24, the oldest version that we allow
_OPSETS: Final = {"ai.onnx.ml": 3, "": 18}
_ZERO: Final = np.float32(1e-35)
_DOUBLES: Final = ("nodes_values", "target_weights")


@dataclass(frozen=True, slots=True)
class Start:
    """What the trees' scores are added to: the value of a ``column``, less ``shift``."""

    column: int
    shift: float

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) of rows (n, columns)."""
        return np.asarray(rows[:, self.column].astype(np.float64) - self.shift)


def export_trees(boosters: Sequence[lightgbm.Booster], start: Start | None = None) -> bytes:
    """Returns the mean of the boosters' raw scores as ONNX bytes, checked within TOLERANCE.

    ``start``: added to it, if there is one. Input: ``features`` (n, columns) float64. Output:
    ``logits`` (n, 1) float32. Raises ExportError for splits on categories, and if the results
    differ.
    """
    forest, trees = _Forest(), 0
    for booster in boosters:
        for tree in booster.dump_model()["tree_info"]:
            forest.add(trees, 0, tree["tree_structure"], 1.0 / len(boosters))
            trees += 1
    num_columns = boosters[0].num_feature()
    data = _model(forest.attributes, num_columns)
    _check_equal(boosters, data, forest.attributes["nodes_values"])
    return data if start is None else _model(forest.attributes, num_columns, start)


class _Forest:
    """Attributes of ONNX's TreeEnsembleRegressor: one list per property of a node or leaf."""

    def __init__(self) -> None:
        self.attributes: dict[str, list[Any]] = defaultdict(list)

    def add(self, tree: int, node: int, found: dict[str, Any], scale: float) -> int:
        """Adds LightGBM's ``found`` and its subtree from id ``node`` on; returns the next id."""
        if "leaf_value" in found:
            self._put("nodes", treeids=tree, nodeids=node, featureids=0, values=0.0, modes="LEAF")
            self._put("nodes", truenodeids=0, falsenodeids=0, missing_value_tracks_true=0)
            weight = scale * found["leaf_value"]
            self._put("target", treeids=tree, nodeids=node, ids=0, weights=weight)
            return node + 1
        column, value = found["split_feature"], found["threshold"]
        self._put("nodes", treeids=tree, nodeids=node, featureids=column, values=value)
        self._put("nodes", modes="BRANCH_LEQ", missing_value_tracks_true=_unknown_goes_left(found))
        index = len(self.attributes["nodes_falsenodeids"])
        self._put("nodes", truenodeids=node + 1, falsenodeids=0)
        right = self.add(tree, node + 1, found["left_child"], scale)
        self.attributes["nodes_falsenodeids"][index] = right
        return self.add(tree, right, found["right_child"], scale)

    def _put(self, group: str, **values: float | str) -> None:
        for name, value in values.items():
            self.attributes[f"{group}_{name}"].append(value)


def _unknown_goes_left(found: dict[str, Any]) -> int:
    """1 if NaN goes left: by the split's default, or like 0 if training saw no NaN there."""
    if found["decision_type"] != "<=" or found["missing_type"] not in {"NaN", "None"}:
        raise ExportError("the trees have a split on categories; train with numbers only")
    if found["missing_type"] == "NaN":
        return int(found["default_left"])
    return int(found["threshold"] >= 0.0)


def _model(attributes: dict[str, list[Any]], num_columns: int, start: Start | None = None) -> bytes:
    given: dict[str, Any] = {**attributes}
    for name in _DOUBLES:
        doubles = np.array(given.pop(name), np.float64)
        given[f"{name}_as_tensor"] = numpy_helper.from_array(doubles, name)
    made = "logits" if start is None else "trees"
    node = helper.make_node(
        "TreeEnsembleRegressor", ["features"], [made], domain="ai.onnx.ml", n_targets=1, **given
    )
    nodes, constants = ([], []) if start is None else _added_start(start)
    features = helper.make_tensor_value_info(
        "features", onnx.TensorProto.DOUBLE, ["n", num_columns]
    )
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph([node, *nodes], "trees", [features], [logits], constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _added_start(start: Start) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """logits = trees + (features[:, column] − shift), in float64; and the constants of it."""
    make, double, single = helper.make_node, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    nodes = [
        make("Gather", ["features", "column"], ["value"], axis=1),
        make("Sub", ["value", "shift"], ["start"]),
        make("Cast", ["trees"], ["trees_double"], to=double),
        make("Add", ["trees_double", "start"], ["sum"]),
        make("Cast", ["sum"], ["logits"], to=single),
    ]
    column = numpy_helper.from_array(np.array([start.column]), "column")
    return nodes, [column, numpy_helper.from_array(np.array(start.shift), "shift")]


def _check_equal(
    boosters: Sequence[lightgbm.Booster], exported: bytes, thresholds: Sequence[float]
) -> None:
    """Compares both on rows at the splits, beside them, and with NaN."""
    shape = CHECK_ROWS, boosters[0].num_feature()
    largest = float(np.finfo(np.float32).max)
    # A split between known values and NaN has the largest double as its threshold.
    finite = np.clip(thresholds, -largest, largest)
    values = np.array([*finite, 0.0, np.nan, np.nan], np.float32)
    values[np.abs(values) <= _ZERO] = 0.0  # LightGBM reads these as zero
    rows = np.random.default_rng(0).choice(values, shape)
    worst = float(np.abs(TreeRanker(exported).logits(rows) - raw_scores(boosters, rows)).max())
    if not worst <= TOLERANCE:
        raise ExportError(f"exported and trained trees differ by {worst:.2g}")


def raw_scores(
    boosters: Sequence[lightgbm.Booster], rows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(n,) mean of the boosters' raw scores of rows (n, columns), by LightGBM itself."""
    found = [
        np.asarray(booster.predict(rows, raw_score=True, num_threads=1)) for booster in boosters
    ]
    return np.asarray(np.mean(found, axis=0), np.float64)
