"""The files' syntax trees stay in memory: collections took three quarters of the parsing."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
