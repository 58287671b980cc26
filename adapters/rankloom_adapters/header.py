"""Reads the header of a safetensors file strictly, without the library.

The library accepts duplicate keys, NaN, ``..`` in names and headers of 100 MB, and copies
all tensors to return one (measured on 0.8.0). An expert needs none of these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
MAX_DIMENSION = (1 << 31) - 1
DTYPE_BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}
# A tensor's entry has one object, two lists and four keys: seven of these signs. The limit keeps
# out a header of empty lists: 1 MiB of them takes the parser and the garbage collector 0.5 s.
_SIGNS, _MAX_SIGNS = b"{[:", 8 * MAX_TENSORS
_ENTRY = {"dtype", "shape", "data_offsets"}


class HeaderError(ValueError):
    """The header is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor's type and shape, and the offset of its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def end(self) -> int:
        """Offset of the byte after its last."""
        return self.begin + DTYPE_BYTES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file by name, and its metadata."""

    tensors: Mapping[str, TensorHeader]
    metadata: Mapping[str, str]


def header_length(start: bytes, num_bytes: int) -> int:
    """Length of the header, from the file's first eight bytes and its size. Raises HeaderError."""
    if len(start) < 8:
        raise HeaderError("shorter than the header's length field")
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, num_bytes - 8):
        raise HeaderError(f"header of {length} bytes in a file of {num_bytes}")
    return length


def read_header(data: bytes) -> Header:
    """Parses the header; the tensors must fill the file without gaps. Raises HeaderError."""
    length = header_length(data[:8], len(data))
    fields = json_object(data[8 : 8 + length])
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HeaderError("__metadata__ must map names to texts")
    if not 0 < len(fields) <= MAX_TENSORS:
        raise HeaderError(f"{len(fields)} tensors; 1 to {MAX_TENSORS} are allowed")
    tensors = {name: _tensor(name, value, 8 + length) for name, value in fields.items()}
    _check_offsets(tensors, 8 + length, len(data))
    return Header(tensors, metadata)


def json_object(text: bytes) -> dict[str, Any]:
    """Parses a JSON object in UTF-8 without duplicate keys. Raises HeaderError."""
    if sum(text.count(sign) for sign in _SIGNS) > _MAX_SIGNS:
        raise HeaderError(f"over {_MAX_SIGNS} lists, objects and keys")
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, HeaderError) else HeaderError("not JSON") from error
    if not isinstance(fields, dict):
        raise HeaderError("not a JSON object")
    return fields


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HeaderError("duplicate key")
    return fields


def _tensor(name: str, value: object, payload: int) -> TensorHeader:
    """Parses one entry. ``payload``: offset of the tensors' bytes in the file."""
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    if fields.keys() != _ENTRY:
        raise HeaderError(f"tensor {name[:80]!r}: needs {', '.join(sorted(_ENTRY))}, no more")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise HeaderError(f"tensor {name[:80]!r}: dtype must be one of {', '.join(DTYPE_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise HeaderError(f"tensor {name[:80]!r}: shape must be a list of at most {MAX_DIMENSIONS}")
    if not all(type(n) is int and 0 < n <= MAX_DIMENSION for n in shape):
        empty = "; an empty one is what ZeRO-3 saves: gather the weights before saving"
        raise HeaderError(
            f"tensor {name[:80]!r}: dimensions must be from 1 to {MAX_DIMENSION}"
            f"{empty if 0 in shape else ''}"
        )
    if not isinstance(offsets, list) or [type(n) for n in offsets] != [int, int]:
        raise HeaderError(f"tensor {name[:80]!r}: data_offsets must be two integers")
    header = TensorHeader(dtype, tuple(shape), payload + offsets[0])
    if header.end != payload + offsets[1]:
        raise HeaderError(f"tensor {name[:80]!r}: data_offsets do not match its size")
    return header


def _check_offsets(tensors: Mapping[str, TensorHeader], begin: int, num_bytes: int) -> None:
    """Checks that the tensors fill the file without gaps and overlaps."""
    expected = begin + sum(header.end - header.begin for header in tensors.values())
    if expected != num_bytes:
        raise HeaderError(f"{num_bytes} bytes long, its header says {expected}")
    for name, header in sorted(tensors.items(), key=lambda item: item[1].begin):
        if header.begin != begin:
            raise HeaderError(f"tensor {name[:80]!r}: data_offsets overlap or leave a gap")
        begin = header.end
