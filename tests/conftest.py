"""Fixtures that several folders of tests share."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from server.served_parts import ServedParts

# A shell starts background jobs with SIGINT ignored, and what they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
gc.disable()  # what is imported stays: collections took a fifth of the time


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small log and its items."""
    from small_data import write_small_data

    return write_small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this test run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def bundle_folder(small_data: Path, finished_stages: Path, shared_folder: Path) -> Path:
    """A real bundle, trained on the small log; tests must not write into it."""
    from small_data import train_small

    out = shared_folder / "bundles" / "small"
    with _locked(shared_folder / "bundles.lock"):  # whoever comes first trains it
        if not out.exists():
            train_small(small_data, out, finished_stages)
    return out


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def finished_stages(shared_folder: Path) -> Path:
    """The folder of the stages of that bundle, filled with it; tests must not write into it."""
    return shared_folder / "stages"


@pytest.fixture(scope="session")
def served_folder(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That bundle with experts that differ; tests must not write into it."""
    from small_data import with_distinct_experts

    return with_distinct_experts(bundle_folder, tmp_path_factory.mktemp("served") / "small")


@pytest.fixture(scope="session")
def parts(served_folder: Path) -> ServedParts:
    """That bundle in memory, for many servers."""
    from server.served_parts import load_parts

    return load_parts(served_folder)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile fails when what it gives is run, as without a C++ compiler."""
    import torch

    def run(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: run)
