"""What a generator answers: a JSON object of think and answer, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankloom_training.data.reviews import HIGHEST, LOWEST

MAX_THINK_CHARS = 2000
_OBJECT = re.compile(r"\{.*", re.DOTALL)
_ENDINGS = ("", "}", '"}')  # what an answer that was cut at its end may lack


class ReviewAnswer(BaseModel):
    """``think``: why. ``answer``: the rating that the review seems to give, from 1 to 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    think: str = Field(min_length=1, max_length=MAX_THINK_CHARS)
    answer: float = Field(ge=LOWEST, le=HIGHEST)

    def to_json(self) -> str:
        """As a generator is to write it."""
        answer = int(self.answer) if self.answer.is_integer() else self.answer
        return json.dumps({"think": self.think, "answer": answer}, ensure_ascii=False)


class AnswerProblem(StrEnum):
    """Why an answer cannot be used."""

    NO_OBJECT = "has no JSON object"
    OTHER_FORM = "is not an object of think and answer from 1 to 5"
    REFUSED = "was refused"
    NO_TEXT = "is about a review without words"


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """``repaired``: it was not JSON as it came. Either ``answer`` or ``problem`` is None."""

    answer: ReviewAnswer | None
    repaired: bool = False
    problem: AnswerProblem | None = None


def read_answer(raw: str) -> ReadAnswer:
    """Reads what a generator wrote.

    Text around the object, and a missing end, are repaired. Anything else is a problem: a wrong
    rating is never guessed at.
    """
    if (answer := _validated(raw, strict=True)) is not None:
        return ReadAnswer(answer)
    if (found := _OBJECT.search(raw)) is None:
        return ReadAnswer(None, problem=AnswerProblem.NO_OBJECT)
    text = found[0]
    inner = text[: text.rfind("}") + 1]
    for candidate in (inner, *(text.rstrip() + ending for ending in _ENDINGS)):
        if (answer := _validated(candidate, strict=False)) is not None:
            return ReadAnswer(answer, repaired=True)
    return ReadAnswer(None, problem=AnswerProblem.OTHER_FORM)


def _validated(text: str, *, strict: bool) -> ReviewAnswer | None:
    try:
        return ReviewAnswer.model_validate_json(text, strict=strict)
    except ValidationError:
        return None
