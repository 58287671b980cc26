"""Checks of arguments before they go into a message; each error names the wrong field.

The only limits here are the wire's. How much is too much, the server decides.
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
    """Return (path, element) for each element; a bare string is not a list of strings."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise wrong_type(values, field, "a list or tuple")
    return [(f"{field}[{index}]", value) for index, value in enumerate(values)]


def checked_text(value: object, field: str) -> str:
    """Return the text if UTF-8 can encode it."""
    text = checked_type(value, str, field, "str")
    try:
        text.encode()
    except UnicodeEncodeError:
        # No cause: it would hold the text itself, which may be a user's.
        problem = "has characters that UTF-8 cannot encode; remove lone surrogates"
        raise InvalidRequestError.of_field(field, problem) from None
    return text


def checked_integer(value: object, allowed: range, field: str) -> int:
    """Return the integer if it is in the range."""
    number = checked_type(value, int, field, "int")
    if isinstance(value, bool):
        raise wrong_type(value, field, "int")
    if number not in allowed:
        bounds = f"must be from {allowed.start} to {allowed.stop - 1}"
        raise InvalidRequestError.of_field(field, bounds)
    return number


def optional_integer(value: object, allowed: range, field: str) -> int | None:
    """Like `checked_integer`, but accept None."""
    return None if value is None else checked_integer(value, allowed, field)


def optional_number(value: object, field: str) -> float | None:
    """Return an int or float as a float; accept None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(value, field, "a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequestError.of_field(field, "is too large for a float") from None


def checked_type(value: object, kind: type[_Value], field: str, expected: str) -> _Value:
    """Return the value if it is of that type; `expected` names the type in the message."""
    if not isinstance(value, kind):
        raise wrong_type(value, field, expected)
    return value


def wrong_type(value: object, field: str, expected: str) -> InvalidRequestError:
    """Return the error; it names the type only, since the value may be a user's."""
    description = f"must be {expected}, not {type(value).__name__}"
    return InvalidRequestError.of_field(field, description)
