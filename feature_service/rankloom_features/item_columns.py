"""Numbers of each item beyond its text: a public rating, a price, a length, a category's flag.

They come from the item table, a column each, and are input of the trees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

MAX_ITEM_COLUMNS = 256


class ItemColumnsError(ValueError):
    """The item columns are unreadable or belong to another catalogue."""


def _nothing() -> NDArray[np.float32]:
    return np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ItemColumns:
    """Named numbers of each catalogue item; without columns by default.

    ``values``: (items, columns) float32 in catalogue order, read-only, NaN where unknown. Without
    columns it has no rows. Raises ItemColumnsError.
    """

    names: tuple[str, ...] = ()
    values: NDArray[np.float32] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        _check(self.names, self.values)
        self.values.flags.writeable = False

    def __len__(self) -> int:
        return len(self.names)

    def at(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, columns) for catalogue indices (n,); NaN for -1, an unknown item."""
        rows = np.full((len(index), len(self.names)), np.nan, dtype=np.float32)
        if self.names:
            known = index >= 0
            rows[known] = self.values[index[known]]
        return rows

    def to_bytes(self) -> bytes:
        """safetensors: the values, and the names as JSON in UTF-8."""
        names = np.frombuffer(json.dumps(self.names).encode(), dtype=np.uint8)
        values = np.ascontiguousarray(self.values)
        return bytes(safetensors.numpy.save({"names": names, "values": values}))

    @classmethod
    def from_bytes(cls, data: bytes, num_items: int) -> ItemColumns:
        """Reads what ``to_bytes`` wrote, for a catalogue of that size. Raises ItemColumnsError."""
        try:
            found = safetensors.numpy.load(data)
            values, names = found.pop("values"), json.loads(found.pop("names").tobytes())
            read = cls(tuple(names), values)
        except ItemColumnsError:
            raise
        except Exception as error:  # safetensors' own class is not exported
            raise ItemColumnsError("item columns: cannot be read") from error
        if found or (read.names and len(values) != num_items):
            raise ItemColumnsError("item columns: of another catalogue")
        return read


def _check(names: tuple[str, ...], values: NDArray[np.float32]) -> None:
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise ItemColumnsError("item columns: names must be texts, each of them once")
    if len(names) > MAX_ITEM_COLUMNS:
        raise ItemColumnsError(f"item columns: more than {MAX_ITEM_COLUMNS}")
    if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != len(names):
        raise ItemColumnsError("item columns: values must be float32, a column for each name")
    if np.isinf(values).any():
        raise ItemColumnsError("item columns: a value is infinite")


NO_COLUMNS = ItemColumns()
