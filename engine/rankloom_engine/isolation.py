"""What fails in a micro-batch fails alone: callers share a pass, not each other's trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rankloom_engine.errors import EngineFailedError

In = TypeVar("In")
Out = TypeVar("Out")


def isolated(
    run: Callable[[Sequence[In]], Sequence[Out]],
    work: Sequence[In],
    is_sound: Callable[[Out], bool],
) -> list[Out | EngineFailedError]:
    """Results of all the work together; where one of them is none, of each piece by itself.

    A number that is not finite may reach the other rows of a pass, and an error ends it for all.
    """
    try:
        found = run(work)
        if len(work) == 1 or all(map(is_sound, found)):
            return [*found]
    except Exception as error:  # whatever the model raised, its callers must hear of it
        if len(work) == 1:
            failure = EngineFailedError("the model failed on a micro-batch")
            failure.__cause__ = error
            return [failure]
    return [each for piece in work for each in isolated(run, [piece], is_sound)]
