"""What is wrong with the data, where, and what to do."""

from __future__ import annotations


class DataError(ValueError):
    """The data cannot be used for training. The message names the file and the column."""
