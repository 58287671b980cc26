"""Errors of the engine.

ValueError
├── ModelError          the base model, tokenizer or projector cannot be served
└── NoFreeSlotError     every slot is used by a revision
RuntimeError
├── WorkExpiredError    the deadline passed before the request ended
├── EngineFailedError   the model raised an error
│   └── NonFiniteError  the model returned NaN or infinity
└── EngineClosedError   the engine takes no requests
"""

from __future__ import annotations


class ModelError(ValueError):
    """The model cannot be served; the message names the part and the cause."""


class NoFreeSlotError(ValueError):
    """Every slot for experts is used by a revision that is loaded."""


class WorkExpiredError(RuntimeError):
    """The deadline passed before the request ended."""


class EngineFailedError(RuntimeError):
    """The model raised an error, which is the cause."""


class NonFiniteError(EngineFailedError):
    """The model returned NaN or infinity."""


class EngineClosedError(RuntimeError):
    """The engine takes no requests: it is shutting down, or was not started."""
