"""A trained bundle, and copies of it with an expert that learned shuffled labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.common.bundles import keep_users
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.derive import with_expert
from rankloom_adapters.expert_files import read_expert
from rankloom_adapters.router import GLOBAL
from rankloom_engine.decoder_files import load_decoder_model, read_config
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptFormat
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.experts import ExpertTrainer
from rankloom_training.options import GROUP_RECIPE, Recipe, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.scoring import BundleScorer, requests_of
from rankloom_training.synthetic import write_synthetic
from rankloom_training.train import train_bundle
from rankloom_training.visibility import training_views
from rankloom_training.windows import Inputs, Window, WindowMaker

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
    trainer = ExpertTrainer(_decoder(bundle), seed=1)
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
    scorer, [view] = BundleScorer(bundle), training_views(data.log, OPTIONS.protocol, OPTIONS.seed)
    prepared = [scorer.prepare(one.query(), one.rows) for one in requests_of(data, view)]
    vectors = [np.repeat(each.features.vector[None], len(each.rows), axis=0) for each in prepared]
    inputs = Inputs(
        view,
        np.concatenate(vectors),
        np.concatenate([each.features.tabular for each in prepared]),
        np.concatenate([each.tree_logits for each in prepared]),
    )
    maker = WindowMaker(data.log, data.catalogue, scorer.loaded.prompts)
    router, windows = scorer.loaded.router, maker.windows(inputs)
    return [each for each in windows if router.largest(inputs.vector[each.rows[-1]]) == expert]


def _shuffled(windows: list[Window], random: np.random.Generator) -> list[Window]:
    label = random.permutation(np.concatenate([each.label for each in windows]))
    own = np.split(label, np.cumsum([len(each.label) for each in windows])[:-1])
    return [dataclasses.replace(w, label=each) for w, each in zip(windows, own, strict=True)]


def _decoder(bundle: Bundle) -> Decoder:
    """The bundle's base model and projector, without experts."""
    config = read_config(bundle.read(parts.BASE_CONFIG))
    model = load_decoder_model(config, bundle.pieces(parts.BASE_WEIGHTS))
    hidden = cast("Any", model).get_input_embeddings().embedding_dim
    projector = Projector.from_bytes(bundle.read(parts.PROJECTOR), hidden)
    fmt = PromptFormat.from_bytes(bundle.read(parts.PROMPT))
    return Decoder(model, projector, yes=fmt.liked, no=fmt.disliked)
