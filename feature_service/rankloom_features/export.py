"""Exports a collaborative model to one ONNX file and checks that both compute the same."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rankloom_features.encoder import MAX_EVENTS, Encoder, pad_events
from rankloom_features.events import History
from rankloom_features.models.base import CollaborativeModel

TOLERANCE = 1e-4
CHECK_BATCHES = (1, 3, 64)
_ITEM_TABLES = ("vectors.weight", "item_bias.weight")


class ExportError(RuntimeError):
    """The exported model differs from the trained one."""


def export(model: CollaborativeModel) -> bytes:
    """Returns ONNX bytes with the weights, checked against torch within TOLERANCE.

    Inputs: ``items`` and ``liked`` (batch, MAX_EVENTS), ``candidates`` (batch, n), all
    int64. Outputs: user vectors (batch, dim) and logits (batch, n).
    """
    model.eval()
    events = torch.ones(2, MAX_EVENTS, dtype=torch.int64)
    candidates = torch.ones(2, 3, dtype=torch.int64)
    data = traced_onnx_bytes(
        model,
        {"items": events, "liked": events.clone(), "candidates": candidates},
        ["vector", "logits"],
        {name: {0: "batch"} for name in ("items", "liked", "vector")}
        | {name: {0: "batch", 1: "candidates"} for name in ("candidates", "logits")},
    )
    check_equal(model, data)
    return data


def traced_onnx_bytes(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: list[str],
    sizes: Mapping[str, Mapping[int, str]],
) -> bytes:
    """One ONNX program of a module that computes the same steps for all inputs.

    ``inputs``: name → an example. ``sizes``: input or output → its dimensions of any size. Tracing
    takes a tenth of the time of ``onnx_bytes``.
    """
    with _quiet(), _traceable(), NamedTemporaryFile(suffix=".onnx") as file:
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            file.name,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: dict(axes) for name, axes in sizes.items()},
            dynamo=False,
        )
        return bytes(_without_notes(onnx.load(file.name)).SerializeToString())


def onnx_bytes(
    model: nn.Module, inputs: Mapping[str, tuple[Tensor, Mapping[int, object]]], outputs: list[str]
) -> bytes:
    """One ONNX program of any module, with its weights and without this machine's folders.

    ``inputs``: name → an example, and its dimensions of any size. Raises ExportError.
    """
    with _quiet():
        program = torch.onnx.export(
            model,
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(dict(shape) for _, shape in inputs.values()),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch returned no ONNX program")
    return bytes(_without_notes(program.model_proto).SerializeToString())


def _without_notes(program: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes on the source of each node, which name this machine's folders.

    Equal models would have different bytes in another folder.
    """
    graph = program.graph
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    nodes = [*graph.node, *(node for each in program.functions for node in each.node)]
    for part in (program, graph, *program.functions, *values, *nodes):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return program


def check_equal(model: CollaborativeModel, exported: bytes) -> None:
    """Compares both on random events of several batch sizes. Raises ExportError."""
    encoder, random = Encoder(exported), np.random.default_rng(0)
    num_items = model.vectors.num_embeddings - 1
    for size in CHECK_BATCHES:
        histories = [_random_history(random, num_items) for _ in range(size)]
        candidates = random.integers(0, num_items + 1, (size, 1 + size % 5))
        worst = _difference(model, encoder, histories, candidates)
        if not worst <= TOLERANCE:
            raise ExportError(f"exported and trained model differ by {worst:.2g} on {size} users")


def _difference(
    model: CollaborativeModel,
    encoder: Encoder,
    histories: list[History],
    candidates: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> float:
    items, liked = pad_events(histories)
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(array) for array in (items, liked, candidates)))
    found = encoder.encode_and_score(histories, candidates)
    return max(
        float(np.abs(one.numpy() - other).max()) for one, other in zip(expected, found, strict=True)
    )


def _random_history(random: np.random.Generator, num_items: int) -> History:
    length = int(random.integers(0, MAX_EVENTS + 10))
    return History.untimed(random.integers(0, num_items, length), random.random(length) < 0.5)


@contextmanager
def _traceable() -> Iterator[None]:
    """Without the fused operation of transformer layers, which ONNX does not have."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which warns about its own internals on every call."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def with_items(exported: bytes, num: int) -> bytes:
    """The exported model for ``num`` more items at the end, as if they had no training row.

    Their vectors and biases are zero (``fit.forget_untrained``). Users without such events keep
    their vectors. Raises ExportError.
    """
    program = onnx.load_from_string(exported)
    tables = [each for each in program.graph.initializer if each.name in _ITEM_TABLES]
    if len(tables) != len(_ITEM_TABLES):
        raise ExportError("the feature model has no table of item vectors that can grow")
    for table in tables:
        rows = numpy_helper.to_array(table)
        grown = np.concatenate([rows, np.zeros((num, rows.shape[1]), rows.dtype)])
        table.CopyFrom(numpy_helper.from_array(grown, table.name))
    return bytes(program.SerializeToString())
