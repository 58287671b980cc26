"""Reads the header of a safetensors file by hand, before the library sees the file.

The library accepts duplicate keys, NaN, ``..`` in names and headers of 100 MB
(measured on 0.8.0); an expert needs none of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
MAX_DIMENSION = (1 << 31) - 1
DTYPE_BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}


class HeaderError(ValueError):
    """The file is not one that may be parsed; the message says why."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Type and shape of one tensor as the header gives them."""

    dtype: str
    shape: tuple[int, ...]


def read_header(data: bytes) -> dict[str, TensorHeader]:
    """Tensor headers by name. Raises HeaderError."""
    if len(data) < 8:
        raise HeaderError("shorter than the header's length field")
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise HeaderError(f"header of {length} bytes in a file of {len(data)}")
    fields = _parse(data[8 : 8 + length])
    fields.pop("__metadata__", None)
    if not 0 < len(fields) <= MAX_TENSORS:
        raise HeaderError(f"{len(fields)} tensors; 1 to {MAX_TENSORS} are allowed")
    headers = {name: _tensor(name, value) for name, value in fields.items()}
    expected = 8 + length + sum(_num_bytes(header) for header in headers.values())
    if expected != len(data):
        raise HeaderError(f"{len(data)} bytes long, its header says {expected}")
    return headers


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, HeaderError) else HeaderError("not JSON") from error
    if not isinstance(fields, dict):
        raise HeaderError("not a JSON object")
    return fields


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HeaderError("a key stands twice")
    return fields


def _tensor(name: str, value: object) -> TensorHeader:
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    dtype, shape = str(fields.get("dtype")), fields.get("shape")
    if dtype not in DTYPE_BYTES:
        raise HeaderError(f"tensor {name[:80]!r}: dtype must be one of {', '.join(DTYPE_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise HeaderError(f"tensor {name[:80]!r}: its shape is no list of at most {MAX_DIMENSIONS}")
    if not all(type(n) is int and 0 < n <= MAX_DIMENSION for n in shape):
        raise HeaderError(f"tensor {name[:80]!r}: a dimension is not from 1 to {MAX_DIMENSION}")
    return TensorHeader(dtype, tuple(shape))


def _num_bytes(header: TensorHeader) -> int:
    count = DTYPE_BYTES[header.dtype]
    for size in header.shape:
        count *= size
    return count
