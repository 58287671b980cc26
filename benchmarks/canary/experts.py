"""A trained bundle, and copies of it with an expert that learned shuffled labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.common.bundles import keep_users
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.derive import with_expert
from rankloom_adapters.expert_files import read_expert
from rankloom_adapters.router import GLOBAL
from rankloom_ranker.loaded import load_bundle
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.experts import ExpertTrainer
from rankloom_training.on_bundle import decoder_of, windows_of
from rankloom_training.options import GROUP_RECIPE, Recipe, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.synthetic import write_synthetic
from rankloom_training.train import train_bundle
from rankloom_training.visibility import training_views
from rankloom_training.windows import Window

OPTIONS = TrainOptions()
RECIPE = dataclasses.replace(GROUP_RECIPE, epochs=3)


def train_demo(folder: Path, num_users: int | None) -> tuple[Bundle, Dataset]:
    """The bundle that the demonstration trains, and its data; of the first users alone if given."""
    write_synthetic(folder / "data")
    if num_users is not None:
        keep_users(folder / "data" / "interactions.csv", num_users)
    train_bundle(folder / "data", folder / "bundle", OPTIONS, Progress())
    return open_bundle(folder / "bundle"), load_dataset(folder / "data")


def with_shuffled_labels(bundle: Bundle, data: Dataset, expert: str, folder: Path) -> Path:
    """Writes a copy whose group expert ``expert`` learned its group's rows with shuffled labels."""
    windows = _shuffled(_windows(bundle, data, expert), np.random.default_rng(1))
    trainer = ExpertTrainer(decoder_of(load_bundle(bundle)), seed=1)
    trainer.load_adapter(bundle.folder / "experts" / GLOBAL)
    # Validated on the shuffled labels as well: on true labels, training would keep no step.
    _train(trainer, windows, RECIPE)
    trainer.save(folder / "files", bundle.folder / parts.BASE_WEIGHTS)
    with_expert(bundle, read_expert(expert, folder / "files"), folder / "bundle")
    return folder / "bundle"


def _train(trainer: ExpertTrainer, windows: list[Window], recipe: Recipe) -> None:
    progress = Progress()
    with progress.stage("shuffled") as shown:
        trainer.train(
            windows,
            windows,
            recipe,
            with_projector=False,
            on_step=shown.step,
            on_epoch=lambda epoch, auc: shown.note(f"epoch {epoch}: AUC {auc:.4f}"),
        )


def _windows(bundle: Bundle, data: Dataset, expert: str) -> list[Window]:
    """Training rows of users whose largest weight is that of ``expert``."""
    loaded, [view] = load_bundle(bundle), training_views(data.log, OPTIONS.protocol, OPTIONS.seed)
    windows = windows_of(loaded, data, view)
    newest = [view.history_before(data.log, int(view.rows[each.rows[-1]])) for each in windows]
    vectors = loaded.provider.encoder.encode(newest)
    largest = [loaded.router.largest(vector) for vector in vectors]
    return [each for each, name in zip(windows, largest, strict=True) if name == expert]


def _shuffled(windows: list[Window], random: np.random.Generator) -> list[Window]:
    label = random.permutation(np.concatenate([each.label for each in windows]))
    own = np.split(label, np.cumsum([len(each.label) for each in windows])[:-1])
    return [dataclasses.replace(w, label=each) for w, each in zip(windows, own, strict=True)]
