from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_adapters.bundle import open_bundle
from rankloom_ranker.loaded import LoadedBundle, load_bundle


@pytest.fixture(scope="session")
def loaded(served_folder: Path) -> LoadedBundle:
    return load_bundle(open_bundle(served_folder))
