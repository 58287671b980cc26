"""A failure in a micro-batch fails one request: callers share a pass, not their faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rankloom_engine.errors import EngineFailedError, NonFiniteError


class ModelOutput(Protocol):
    """What a pass computes for one row."""

    def is_finite(self) -> bool:
        """Whether no value is NaN or infinity."""
        ...


In = TypeVar("In")
Out = TypeVar("Out", bound=ModelOutput)


def isolated(
    run: Callable[[Sequence[In]], Sequence[Out]], inputs: Sequence[In]
) -> list[Out | EngineFailedError]:
    """Outputs of all inputs in one pass; if any is bad, of each input in a pass of its own.

    A value that is not finite may reach the other rows of a pass, and an error ends the pass
    for all of them.
    """
    try:
        outputs = run(inputs)
        if all(output.is_finite() for output in outputs):
            return [*outputs]
        if len(inputs) == 1:
            return [NonFiniteError("the model gave a non-finite score")]
    except Exception as error:  # the model may raise anything; its callers get it as the cause
        if len(inputs) == 1:
            failure = EngineFailedError("the model failed on a micro-batch")
            failure.__cause__ = error
            return [failure]
    return [output for one in inputs for output in isolated(run, [one])]
