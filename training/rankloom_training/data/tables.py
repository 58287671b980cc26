"""One table of a folder: its file, and its columns under our names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rankloom_training.data.columns import Column
from rankloom_training.data.errors import DataError
from rankloom_training.data.files import FileContent, read_file


class SourceTable:
    """One file's columns, by our names. Only columns that are asked for are read."""

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, tuple[str, ...]],
        given: Mapping[str, str | None],
        *,
        with_others: bool = False,
    ) -> None:
        """``columns``: our name → usual names. ``given``: our name → the only name to look for,
        or None for a column that the file is not to have.

        ``with_others``: also read the columns that have none of these names.
        """
        self.name = path.name
        self._given = {ours: name for ours in columns if (name := given.get(ours)) is not None}
        unused = {ours for ours, name in given.items() if name is None}
        self._usual = {
            ours: (self._given[ours],) if ours in self._given else usual
            for ours, usual in columns.items()
            if ours not in unused
        }
        self._theirs: dict[str, str] = {}
        self.others: tuple[str, ...] = ()
        self._with_others = with_others
        self._content: FileContent = read_file(path, self._choose)

    def __len__(self) -> int:
        return int(self._content.table.num_rows)

    @property
    def how(self) -> str:
        """How the file is written: its encoding, or its format."""
        return self._content.how

    @property
    def found(self) -> Mapping[str, str]:
        """Our name → theirs, of the columns that the file has."""
        return self._theirs

    def has(self, column: str) -> bool:
        """Whether the file has the column under one of its usual names."""
        return column in self._theirs

    def theirs(self, column: str) -> str:
        """The file's own name of the column. Raises DataError if the column is missing."""
        if column not in self._theirs:
            usual = ", ".join(self._usual.get(column, ()))
            raise DataError(
                f"{self.name}: no column for {column} (looked for {usual} in the header); "
                f"add it, or put its name into columns.json"
            )
        return self._theirs[column]

    def column(self, column: str) -> Column:
        """A column by our name. Raises DataError if the file has none."""
        return self.other(self.theirs(column))

    def other(self, theirs: str) -> Column:
        """A column by the file's own name."""
        where = f"{self.name}: column {theirs}"
        if fault := self._content.faults.get(theirs):
            raise DataError(f"{where}: {fault}")
        return Column.of(where, self._content.table.column(theirs))

    def texts(self, column: str) -> list[str]:
        """One text per row; empty if the file has none."""
        return self.column(column).texts() if self.has(column) else [""] * len(self)

    def lists(self, column: str) -> list[tuple[str, ...]]:
        """One tuple of labels per row; empty if the file has none."""
        return self.column(column).lists() if self.has(column) else [()] * len(self)

    def _choose(self, header: Sequence[str]) -> list[str]:
        """Which columns to read. Raises DataError for one that is missing or stands twice."""
        for ours, usual in self._usual.items():
            if (theirs := _first(usual, header, exact=ours in self._given)) is not None:
                if header.count(theirs) > 1:
                    raise DataError(
                        f"{self.name}: column {theirs} occurs twice; rename or drop one"
                    )
                self._theirs[ours] = theirs
            elif ours in self._given:
                raise DataError(
                    f"{self.name}: no column {self._given[ours]}, which columns.json names for "
                    f"{ours}; correct columns.json"
                )
        named = set(self._theirs.values())
        if self._with_others:
            self.others = tuple(
                name for name in header if name and name not in named and header.count(name) == 1
            )
        if not self._theirs:
            self.theirs(next(iter(self._usual)))  # refuses
        return [*dict.fromkeys(self._theirs.values()), *self.others]


def _first(usual: Sequence[str], header: Sequence[str], *, exact: bool) -> str | None:
    """The first usual name that the header has; upper and lower case are alike if need be."""
    found = next((name for name in usual if name in header), None)
    if found is not None or exact:
        return found
    lower = {name.lower(): name for name in reversed(header)}
    return next((lower[name.lower()] for name in usual if name.lower() in lower), None)
