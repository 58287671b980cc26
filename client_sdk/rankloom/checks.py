"""What an argument must be before it can go into a message; each names the field that is wrong.

None of them has limits of its own but the wire's: how much is too much is the server's word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from rankloom.errors import InvalidRequestError

_Value = TypeVar("_Value")

INT32: Final = range(-(2**31), 2**31)
UINT32: Final = range(2**32)
UINT64: Final = range(2**64)


def checked_elements(values: object, field: str) -> list[tuple[str, object]]:
    """Return each element with its path; a bare string is no list of strings."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise wrong_type(values, field, "a list or tuple")
    return [(f"{field}[{index}]", value) for index, value in enumerate(values)]


def checked_text(value: object, field: str) -> str:
    """Return the text, if UTF-8 can encode it."""
    text = checked_type(value, str, field, "str")
    try:
        text.encode()
    except UnicodeEncodeError:
        # The cause holds the text itself, and that may be a user's.
        raise InvalidRequestError.of_field(field, "has characters UTF-8 cannot encode") from None
    return text


def checked_integer(value: object, allowed: range, field: str) -> int:
    """Return the number, if it is whole and one of those that are allowed."""
    number = checked_type(value, int, field, "int")
    if isinstance(value, bool):
        raise wrong_type(value, field, "int")
    if number not in allowed:
        bounds = f"must be from {allowed.start} to {allowed.stop - 1}"
        raise InvalidRequestError.of_field(field, bounds)
    return number


def optional_integer(value: object, allowed: range, field: str) -> int | None:
    """As `checked_integer`, where None is allowed too."""
    return None if value is None else checked_integer(value, allowed, field)


def optional_number(value: object, field: str) -> float | None:
    """Return the number as a float; None is allowed."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(value, field, "a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequestError.of_field(field, "is too large for a float") from None


def checked_type(value: object, kind: type[_Value], field: str, expected: str) -> _Value:
    """Return the value, if it is of that kind; `expected` says in words which that is."""
    if not isinstance(value, kind):
        raise wrong_type(value, field, expected)
    return value


def wrong_type(value: object, field: str, expected: str) -> InvalidRequestError:
    """Name the type only: the value may be a user's."""
    description = f"must be {expected}, not {type(value).__name__}"
    return InvalidRequestError.of_field(field, description)
