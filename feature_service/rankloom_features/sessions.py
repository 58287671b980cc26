"""How ONNX models are run: on one thread, from bytes."""

from __future__ import annotations

import onnxruntime


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU; raises one of onnxruntime's own classes where it cannot be made."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # torch owns the cores; what runs here is small
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
