"""Opens ONNX models from bytes, to run on one thread."""

from __future__ import annotations

import onnxruntime


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Opens a session on the CPU; raises one of onnxruntime's exceptions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # torch uses the cores; these models are small
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
