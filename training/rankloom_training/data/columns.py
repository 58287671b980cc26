"""One column of a file, read as ids, numbers, texts or lists without a Python object per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankloom_training.data.arrow import compute as pc
from rankloom_training.data.errors import DataError

NO_GENRE = "(no genres listed)"  # MovieLens writes this
MAX_EXACT = 2.0**53  # beyond it, neighbouring whole numbers are one float
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_WHOLE_FLOAT = r"^-?\d+\.0+$"  # as pandas writes whole ids beside a missing one
_ROUNDED_FLOAT = r"^-?\d(\.\d+)?[eE]\+?\d+$"
_FLOAT_REMEDY = "write ids as texts or whole numbers"


@dataclass(frozen=True, slots=True, eq=False)
class IdColumn:
    """``codes``: (rows,) int64 indices into ``names``, the ids in order of first appearance.

    ``drifted``: the file has floats such as 3.0, which are read as 3.
    """

    codes: NDArray[np.int64]
    names: tuple[str, ...]
    drifted: bool


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """``where``: file and column, for refusals. ``values``: one chunk, one entry per row."""

    where: str
    values: pa.Array

    @classmethod
    def of(cls, where: str, values: pa.ChunkedArray) -> Column:
        """Raises DataError if the values cannot be read at all."""
        try:
            return cls(where, _plain(values))
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise DataError(f"{where}: cannot be read; write it as text or numbers") from error

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_text(self) -> bool:
        return bool(pa.types.is_large_string(self.values.type))

    @property
    def is_list(self) -> bool:
        return is_list(self.values.type)

    def refuse_rows(self, wrong: NDArray[np.bool_], fault: str) -> None:
        """Raises DataError that names the first row of the mask; rows count from 1."""
        if wrong.any():
            raise DataError(f"{self.where}: row {int(wrong.argmax()) + 1} {fault}")

    def refuse_missing(self) -> None:
        self.refuse_rows(self.missing(), "is empty; fill it in or drop the row")

    def missing(self) -> NDArray[np.bool_]:
        """(rows,) whether the value is null, NaN or an empty text."""
        mask = _mask(pc.is_null(self.values, nan_is_null=True))
        return mask | _mask(pc.equal(self.values, "")) if self.is_text else mask

    def numbers(self) -> NDArray[np.float64]:
        """(rows,) NaN where a value is missing or not a number; infinities stay."""
        kind = self.values.type
        if self.is_text:
            return _numbers_of(pc.utf8_trim_whitespace(self.values))
        if _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
            values = self.values.cast(pa.int8()) if pa.types.is_boolean(kind) else self.values
            return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        return np.full(len(self), np.nan)

    def finite_numbers(self) -> NDArray[np.float64]:
        """(rows,) finite numbers. Raises DataError, which names the row."""
        self.refuse_missing()
        found = self.numbers()
        self.refuse_rows(~np.isfinite(found), "is not a number; write it with a decimal point")
        return found

    def ids(self) -> IdColumn:
        """Raises DataError for an empty id, or one that a float has rounded; names the row."""
        self.refuse_missing()
        texts, drifted = self._id_texts()
        encoded = pc.dictionary_encode(texts)
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return IdColumn(codes, tuple(encoded.dictionary.to_pylist()), drifted)

    def texts(self) -> list[str]:
        """One text per row, empty where the value is missing; whole floats without ``.0``.

        A list of texts becomes one text.
        """
        if self.is_list:
            return [" ".join(labels) for labels in self.lists()]
        return ["" if value is None else value for value in self._texts().to_pylist()]

    def lists(self) -> list[tuple[str, ...]]:
        """One tuple of labels per row: a list as it is, a text split at ``|``."""
        if self.is_list:
            return [_labels(value or ()) for value in self.values.to_pylist()]
        return [_labels(text.split("|")) for text in self.texts()]

    def only(self, rows: NDArray[np.bool_]) -> Column:
        """The rows of a mask. Their numbers in refusals are no longer the file's."""
        return Column(self.where, self.values.filter(pa.array(rows)))

    def _id_texts(self) -> tuple[pa.Array, bool]:
        """(rows,) the ids as text, and whether floats were read as whole numbers."""
        kind = self.values.type
        if pa.types.is_decimal(kind):
            self._refuse_fractions(self.numbers())
            return Column(self.where, self._cast(pa.decimal128(38, 0)))._texts(), kind.scale > 0
        if pa.types.is_floating(kind):
            return self._whole_texts(self.numbers()), True
        if not self.is_text:
            return self._texts(), False
        if not _all(pc.match_substring_regex(self.values, _WHOLE_FLOAT)):
            rounded = _mask(pc.match_substring_regex(self.values, _ROUNDED_FLOAT))
            if rounded.any() and np.isfinite(self.numbers()).all():
                self.refuse_rows(rounded, f"is a rounded float; {_FLOAT_REMEDY}")
            return self.values, False
        return self._whole_texts(self.numbers()), True

    def _whole_texts(self, numbers: NDArray[np.float64]) -> pa.Array:
        self._refuse_fractions(numbers)
        beyond = np.abs(numbers) > MAX_EXACT
        self.refuse_rows(beyond, f"is beyond 2^53, where floats are rounded; {_FLOAT_REMEDY}")
        return pa.array(numbers.astype(np.int64)).cast(pa.large_string())

    def _refuse_fractions(self, numbers: NDArray[np.float64]) -> None:
        fraction = numbers != np.trunc(numbers)
        self.refuse_rows(fraction, f"is a fraction, which no id is; {_FLOAT_REMEDY}")

    def _texts(self) -> pa.Array:
        """Floats that are all whole are written as whole numbers; NaN becomes null."""
        if not pa.types.is_floating(self.values.type):
            return self._cast(pa.large_string())
        numbers = self.numbers()
        known = np.isfinite(numbers)
        exact = (numbers == np.trunc(numbers)) & (np.abs(numbers) <= MAX_EXACT)
        if exact[known].all():
            numbers = np.where(known, numbers, 0.0).astype(np.int64)
        return pa.array(numbers, mask=~known).cast(pa.large_string())

    def _cast(self, kind: pa.DataType) -> pa.Array:
        try:
            return self.values.cast(kind)
        except pa.ArrowException as error:
            raise DataError(f"{self.where}: cannot be read as text; write it as text") from error


def is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _plain(values: pa.ChunkedArray) -> pa.Array:
    """One chunk, without dictionary codes; every kind of text becomes one kind."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if _is_bytes_or_text(kind):
        values = values.cast(pa.large_string())
    if pa.types.is_null(kind):
        values = values.cast(pa.large_string())
    if values.num_chunks == 1:
        return values.chunk(0)
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def _is_bytes_or_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            *(pa.types.is_string, pa.types.is_string_view),
            *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
        )
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _numbers_of(texts: pa.Array) -> NDArray[np.float64]:
    try:
        return np.asarray(texts.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowException:  # some value is no number: tell which, at leisure
        numbers = pc.if_else(pc.match_substring_regex(texts, _NUMBER), texts, None).to_pylist()
        return np.array([np.nan if text is None else float(text) for text in numbers])


def _labels(parts: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(part) for part in parts if part is not None and part not in ("", NO_GENRE))


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False))


def _all(values: pa.Array) -> bool:
    return bool(len(values)) and bool(pc.all(pc.fill_null(values, False)).as_py())
