"""What a training leaves: a bundle that says how it was made, and nothing where one was."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_adapters.bundle import open_bundle
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.train import OutputError, train_bundle


def test_a_finished_bundle_checks_and_says_how_it_was_made(bundle_folder: Path) -> None:
    bundle = open_bundle(bundle_folder)
    bundle.check()
    assert bundle.metadata["protocol"] == "p1"
    assert bundle.metadata["collaborative"] == "mf"
    assert bundle.experts() == ("global", "group-0", "group-1")


def test_an_existing_output_is_refused(small_data: Path, bundle_folder: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        train_bundle(small_data, bundle_folder, TrainOptions(), Progress())
