"""The split that a log names for each of its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data.errors import DataError
from rankloom_training.data.interactions import Split
from rankloom_training.data.tables import SourceTable


def given_split(table: SourceTable) -> NDArray[np.int8]:
    """(rows,) of the split that the log names."""
    known = {split.name.lower(): int(split) for split in Split}
    names = table.column("split").ids()
    unknown = sorted(set(names.names) - set(known))
    if unknown:
        raise DataError(
            f"{table.name}: column {table.theirs('split')}: unknown values "
            f"{', '.join(name[:20] for name in unknown[:5])}; use {', '.join(known)}"
        )
    return np.array([known[name] for name in names.names], dtype=np.int8)[names.codes]
