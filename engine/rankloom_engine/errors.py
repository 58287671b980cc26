"""Errors of the engine.

ValueError
├── ModelError          the base model, tokenizer or projector cannot be served
└── NoFreeSlotError     every slot is used by a revision
RuntimeError
├── WorkExpiredError    the deadline comes before the end of the request
├── EngineOverloadedError  so much waits that a request cannot end in time
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
    """The deadline passed before the request ended, or is so near that it was not begun."""


class EngineOverloadedError(RuntimeError):
    """So much waits that a request cannot end before its deadline.

    ``excess_s``: how much later it would end, by what was measured so far.
    """

    def __init__(self, excess_s: float) -> None:
        super().__init__("more work waits for the model than can be done before the deadline")
        self.excess_s = excess_s


class EngineFailedError(RuntimeError):
    """The model raised an error, which is the cause."""


class NonFiniteError(EngineFailedError):
    """The model returned NaN or infinity."""


class EngineClosedError(RuntimeError):
    """The engine takes no requests: it is shutting down, or was not started."""
