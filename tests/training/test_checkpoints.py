"""Checkpoints: saved when they are due, and read back with the random numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint


def test_a_state_and_the_random_numbers_are_restored(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "loop.pt")
    assert checkpoint.load() is None
    checkpoint.save(lambda: {"step": 3, "weights": torch.ones(2)})
    drawn = torch.rand(3)
    found = Checkpoint(tmp_path / "loop.pt").load()
    assert found is not None
    assert (found["step"], found["weights"].tolist()) == (3, [1.0, 1.0])
    assert torch.rand(3).tolist() == drawn.tolist()


def test_a_checkpoint_is_saved_when_it_is_due(tmp_path: Path) -> None:
    def unwanted() -> dict[str, int]:
        raise AssertionError

    Checkpoint(tmp_path / "loop.pt").save_if_due(unwanted)
    NO_CHECKPOINT.save(unwanted)
    assert NO_CHECKPOINT.load() is None
    assert list(tmp_path.iterdir()) == []
