"""Why a trace is refused."""

from __future__ import annotations

from enum import StrEnum

MAX_TEXT_CHARS = 4000  # five times what a language model is let say


class TraceProblem(StrEnum):
    """What is wrong with a trace; the value reads as the end of "the trace …"."""

    NO_ROW = "is of a row that the log does not have"
    OTHER_ITEM = "is of another item than the log's row"
    REPEATED = "repeats a row"
    NO_TEXT = "has no text"
    TOO_LONG = f"has more than {MAX_TEXT_CHARS:,} characters"
    NO_VERDICT = "has no verdict (Yes or No, alone at the start)"
    WRONG_VERDICT = "has a verdict that is not the label"
    INVENTED_TITLE = "names a title that is not in its prompt"
    INVENTED_ATTRIBUTE = "names an attribute that no item of its prompt has"
    INVENTED_YEAR = "names a year that no item of its prompt has"
    OTHER_FORM = "is not in the two parts that were asked for"
    WORDY = "has a part with too many words"
    NO_EVENT = "cites no event of its prompt"
    UNFINISHED = "was cut off by the teacher's limit of tokens"
    NO_EVIDENCE = "has no event that moves the score"
    REFUSED = "was refused by the teacher"
