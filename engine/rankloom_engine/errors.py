"""What the engine can refuse or fail at.

ValueError
├── ModelError         the base model, tokenizer or projector cannot be served
RuntimeError
├── WorkExpiredError   the deadline passed before the model saw the work
├── EngineFailedError  the model raised, or gave a number that is not finite
└── EngineClosedError  the engine is shutting down
"""

from __future__ import annotations


class ModelError(ValueError):
    """The model cannot be served; the message names the part and the cause."""


class WorkExpiredError(RuntimeError):
    """The deadline passed before the model saw the work."""


class EngineFailedError(RuntimeError):
    """The model raised, or gave a number that is not finite."""


class EngineClosedError(RuntimeError):
    """The engine is shutting down and takes no work."""
