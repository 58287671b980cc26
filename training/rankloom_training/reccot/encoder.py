"""The trained text encoder as files: an ONNX program, its tokenizer, and what names its version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankloom_features.export import TOLERANCE, ExportError, onnx_bytes, traced_onnx_bytes
from rankloom_training.data import DataError
from rankloom_training.reccot.text_model import TextModel
from rankloom_training.reccot.windows import WindowTokenizer, mean_of_windows

PROGRAM, TOKENIZER, SETTINGS = "encoder.onnx", "tokenizer.json", "encoder.json"
BATCH_WINDOWS = 32
_EXAMPLE = torch.ones(2, 5, dtype=torch.int64)  # windows, tokens
_CHECKED = ("Good.", "", "Quite long " * 700, "naïve 👍 — film")


class TextEncoder:
    """Texts to vectors, without torch. Immutable."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError if ``folder`` has no such encoder."""
        try:
            program, tokenizer, settings = (
                (folder / name).read_bytes() for name in (PROGRAM, TOKENIZER, SETTINGS)
            )
            given = json.loads(settings)
            self.dim = int(given["dim"])
            self.windows = WindowTokenizer(
                Tokenizer.from_buffer(tokenizer), int(given["max_tokens"]), int(given["padding"])
            )
            self._session = onnxruntime.InferenceSession(program, one_thread())
        except Exception as error:  # the libraries raise many kinds; all of them mean this
            raise DataError(
                f"{folder}: is not a text encoder; make one with `rankloom reccot encode`"
            ) from error
        self.version = hashlib.sha256(program + tokenizer + settings).hexdigest()[:16]
        self._check_dim(folder)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dim)"""
        windows = self.windows.windows(texts)
        order = np.argsort(windows.mask.sum(axis=1), kind="stable")
        found = np.zeros((len(order), self.dim), dtype=np.float32)
        for start in range(0, len(order), BATCH_WINDOWS):
            rows = order[start : start + BATCH_WINDOWS]
            length = int(windows.mask[rows].sum(axis=1).max())
            given = {"ids": windows.ids[rows, :length], "mask": windows.mask[rows, :length]}
            found[rows] = np.asarray(self._session.run(None, given)[0])
        return mean_of_windows(found, windows.owner, len(texts))

    def _check_dim(self, folder: Path) -> None:
        found = self._session.get_outputs()[0].shape[-1]
        if found != self.dim:
            raise DataError(
                f"{folder}: its vectors have {found} numbers, and {SETTINGS} says {self.dim}; make "
                f"the encoder anew with `rankloom reccot encode`"
            )


def write_encoder(folder: Path, model: TextModel) -> None:
    """Writes the encoder. Raises ExportError if it differs from ``model`` by more than 1e-4."""
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"dim": model.dim, "max_tokens": model.max_tokens, "padding": model.padding}
    (folder / TOKENIZER).write_text(model.tokenizer.to_str(), encoding="utf-8")
    (folder / SETTINGS).write_text(json.dumps(settings))
    # A small BERT takes the same steps for all inputs; what a pretrained model does is not known.
    program = _exported(model) if model.is_pretrained else _traced(model)
    (folder / PROGRAM).write_bytes(program)
    _check_equal(model, TextEncoder(folder))


def _traced(model: TextModel) -> bytes:
    sizes = {0: "windows", 1: "tokens"}
    return traced_onnx_bytes(
        model,
        {"ids": _EXAMPLE, "mask": _EXAMPLE.clone()},
        ["vector"],
        {"ids": sizes, "mask": sizes, "vector": {0: "windows"}},
    )


def _exported(model: TextModel) -> bytes:
    shape = {0: torch.export.Dim("windows"), 1: torch.export.Dim("tokens")}
    return onnx_bytes(
        model, {"ids": (_EXAMPLE, shape), "mask": (_EXAMPLE.clone(), shape)}, ["vector"]
    )


def _check_equal(model: TextModel, encoder: TextEncoder) -> None:
    with torch.inference_mode():
        expected = model.vectors(model.windows.windows(_CHECKED), len(_CHECKED)).numpy()
    worst = float(np.abs(expected - encoder.encode(_CHECKED)).max())
    if not worst <= TOLERANCE:
        raise ExportError(f"exported and trained text encoder differ by {worst:.2g}")


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options
