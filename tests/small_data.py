"""A small log with two tastes: real enough to learn from in seconds.

Run as a program, it trains on a log: ``python small_data.py DATA OUT``.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rankloom_training.options import TrainOptions

NUM_USERS, NUM_ITEMS, NUM_EVENTS = 60, 40, 24
GENRES = ("Comedy", "Drama")
SPREAD = (0.05, 0.01)  # of the noise on experts of groups, and on the global one


def write_small_data(folder: Path, *, seed: int = 3) -> Path:
    """Writes items.csv and interactions.csv; even users like comedies, odd ones dramas."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title", "year", "genres", "description"])
        for item in range(NUM_ITEMS):
            genre = GENRES[item % 2]
            writer.writerow([f"i{item}", f"The {genre} No {item}", 1970 + item, genre, "A story."])
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "label", "timestamp"])
        for user in range(NUM_USERS):
            items = random.permutation(NUM_ITEMS)[:NUM_EVENTS]
            times = np.sort(random.integers(0, 1_000_000, NUM_EVENTS))
            for item, time in zip(items, times, strict=True):
                likes = 0.85 if item % 2 == user % 2 else 0.2
                writer.writerow([f"u{user}", f"i{item}", int(random.random() < likes), time])
    return folder


def small_options() -> TrainOptions:
    """Recipes as short as they can be."""
    from rankloom_training.options import Recipe, TrainOptions

    return TrainOptions(
        num_groups=2,
        base_epochs=1,
        lm_rows=500,
        global_recipe=Recipe(epochs=1, learning_rate=1e-3),
        group_recipe=Recipe(epochs=1, learning_rate=5e-4),
    )


def train_small(data: Path, out: Path, work: Path | None = None) -> str:
    """Trains a bundle on a small log. ``work``: keeps the stages."""
    from rankloom_training.progress import Progress
    from rankloom_training.train import TrainingJob

    return TrainingJob.checked(data, out, small_options(), work).run(Progress())


def with_distinct_experts(trained: Path, out: Path) -> Path:
    """A copy of a bundle whose experts are all moved, each its way, and that finds its own words.

    So short a log teaches little, and mixtures of equal experts would hide errors, as would
    sentences that are offered. The global expert is moved less: tests scale it, and a server
    refuses outliers.
    """
    from safetensors.numpy import load_file, save_file

    from rankloom_adapters.bundle import open_bundle, seal
    from rankloom_features.event_store.sqlite import copy_events
    from rankloom_features.event_store.store import events_beside

    shutil.copytree(trained, out)
    prompt = out / "prompt.json"
    prompt.write_text(json.dumps(json.loads(prompt.read_text()) | {"is_phrased": False}))
    for number, file in enumerate(sorted((out / "experts").glob("*/*.safetensors"))):
        random, spread = np.random.default_rng(number), SPREAD[file.parent.name == "global"]
        moved = {
            name: (value + random.normal(0, spread, value.shape)).astype(np.float32)
            for name, value in load_file(file).items()
        }
        save_file(moved, file, metadata={"format": "pt"})
    seal(out, open_bundle(trained).metadata)
    copy_events(events_beside(trained), events_beside(out))
    return out


if __name__ == "__main__":
    train_small(Path(sys.argv[1]), Path(sys.argv[2]))
