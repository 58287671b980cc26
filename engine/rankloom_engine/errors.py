"""What the engine can refuse or fail at.

ValueError
├── ModelError         the base model, tokenizer or projector cannot be served
├── NoFreeSlotError        all that could hold another expert is cached
RuntimeError
├── WorkExpiredError   the deadline passed before the model saw the work
├── EngineFailedError  the model raised
│   └── NonFiniteError the model gave a number that is not finite
└── EngineClosedError  the engine is shutting down
"""

from __future__ import annotations


class ModelError(ValueError):
    """The model cannot be served; the message names the part and the cause."""


class NoFreeSlotError(ValueError):
    """All slots for experts are cached by revisions that are being served."""


class WorkExpiredError(RuntimeError):
    """The deadline passed before the model saw the work."""


class EngineFailedError(RuntimeError):
    """The model raised."""


class NonFiniteError(EngineFailedError):
    """The model gave a number that is not finite."""


class EngineClosedError(RuntimeError):
    """The engine is shutting down and takes no work."""
