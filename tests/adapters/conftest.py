from __future__ import annotations

import pytest

from adapters.adapter_files import AdapterFiles, write_with_peft


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> AdapterFiles:
    """A good adapter as peft itself writes it."""
    return write_with_peft(tmp_path_factory.mktemp("adapter"))
