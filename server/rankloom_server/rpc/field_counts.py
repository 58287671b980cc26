"""Counts the elements of a request's lists before any of them is built.

Two bytes make an element, and protobuf makes an object of it: a message of 1 MiB of empty
candidates takes a tenth of a second and 70 MiB. The limits are those of the parsers, which check
them again; this reads lengths alone, and stops where a list or the whole is too long.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from google.protobuf.descriptor import Descriptor

from rankloom_features.wire import (
    MAX_ATTRIBUTES,
    MAX_CANDIDATES,
    MAX_EVENTS,
    InvalidFieldError,
)

SMALL_BYTES = 64 << 10  # smaller messages hold too few elements to matter
MAX_FIELDS = 32_768  # of the whole; the largest valid request of a ranking has 26,000
_LIMITS: Final = {
    "candidates": MAX_CANDIDATES,
    "events": MAX_EVENTS,
    "attributes": MAX_ATTRIBUTES,
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_field_counts(payload: bytes, message: Descriptor) -> None:
    """Raises InvalidFieldError for a list that is too long, or for too many fields.

    Bytes that are no message are left to the parser.
    """
    if len(payload) > SMALL_BYTES:
        try:
            _check(memoryview(payload), message, "", MAX_FIELDS)
        except (IndexError, RecursionError):
            return


def _check(payload: memoryview, message: Descriptor, prefix: str, left: int) -> int:
    """How many fields the rest of the request may still have."""
    counts: Counter[int] = Counter()
    position = 0
    while position < len(payload):
        tag, position = _varint(payload, position)
        number, kind = tag >> 3, tag & 7
        counts[number] += 1
        field = message.fields_by_number.get(number)
        name, limit = (
            (field.name, _LIMITS.get(field.name, MAX_FIELDS)) if field else ("", MAX_FIELDS)
        )
        if left <= 0:
            raise InvalidFieldError(f"{prefix}{name}", "the request has too many fields")
        if counts[number] > limit:
            raise InvalidFieldError(f"{prefix}{name}", f"must have at most {limit} elements")
        left -= 1
        start, position = _skipped(payload, position, kind)
        inner = field.message_type if field else None
        if inner is not None and kind == _BYTES:
            left = _check(payload[start:position], inner, f"{prefix}{name}.", left)
    return left


def _skipped(payload: memoryview, position: int, kind: int) -> tuple[int, int]:
    """Where a field's content begins and ends. Raises IndexError."""
    if kind == _VARINT:
        return position, _varint(payload, position)[1]
    if kind == _BYTES:
        length, start = _varint(payload, position)
    else:
        length, start = {_FIXED64: 8, _FIXED32: 4}.get(kind, len(payload)), position
    if start + length > len(payload):
        raise IndexError
    return start, start + length


def _varint(payload: memoryview, position: int) -> tuple[int, int]:
    """A number of at most ten bytes, and where it ends. Raises IndexError."""
    value = shift = 0
    while shift < 70:
        byte = payload[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise IndexError
