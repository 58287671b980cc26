"""Rules between rows: what the last stages need is asked for before the first one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data.errors import DataError
from rankloom_training.data.interactions import Interactions, Split

CALIBRATION_ROWS = 1500  # about so many validation rows are scored to fit the probabilities
MIN_CALIBRATION_ROWS = 3  # of each class among them


def refuse_unknown(log_name: str, items_name: str, index: NDArray[np.int64]) -> None:
    """Refuses rows whose item has no catalogue index, -1."""
    unknown = np.flatnonzero(index < 0)
    if len(unknown):
        raise DataError(
            f"{log_name}: {len(unknown)} rows name items that are not in {items_name} "
            f"(first: row {unknown[0] + 1}); add the items or drop the rows"
        )


def refuse_empty(name: str, log: Interactions) -> None:
    """Refuses a split without rows."""
    for split in Split:
        if not (log.split == split).any():
            raise DataError(
                f"{name}: the {split.name.lower()} split has no rows; use a larger log, or another "
                f"split"
            )


def refuse_one_class(name: str, log: Interactions) -> None:
    """Refuses a split without likes or without dislikes, or with hardly any of them."""
    implicit = "; or sample dislikes with --implicit N" if log.liked.all() else ""
    for split in Split:
        liked = log.liked[log.split == split]
        if liked.all() or not liked.any():
            raise DataError(
                f"{name}: the {split.name.lower()} split has one class only; give it both likes "
                f"and dislikes{implicit}"
            )
    _refuse_rare(name, log.liked[log.split == Split.VALID])


def _refuse_rare(name: str, liked: NDArray[np.bool_]) -> None:
    """A sample of the validation rows must have both classes."""
    likes = int(liked.sum())
    rare, word = min((likes, "likes"), (len(liked) - likes, "dislikes"))
    if rare * CALIBRATION_ROWS < MIN_CALIBRATION_ROWS * (len(liked) - CALIBRATION_ROWS):
        raise DataError(
            f"{name}: the valid split has {rare} {word} in {len(liked):,} rows, too few to fit "
            f"probabilities to; leave out some of the other rows, or name another split"
        )


def refuse_backwards(where: str, log: Interactions) -> None:
    """A row sees its user's earlier rows, so none of these may belong to a later split."""
    back = (np.diff(log.split) < 0) & (np.diff(log.user) == 0)
    if back.any():
        num_users = len(np.unique(log.user[1:][back]))
        raise DataError(
            f"{where}: contradicts the time order of {num_users} users; "
            f"order each user's rows as train, then valid, then test"
        )
