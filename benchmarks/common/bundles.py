"""Bundles to serve: trained features and trees, with a random decoder of any size.

Catalogue, events, collaborative model, trees, tokenizer and the router's centroids come from
training on the embedded data. Decoder, experts and projector are random, and the router's
temperature is high: only the cost of the scores matters here, not their quality.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

from benchmarks.common.rank_calls import NUM_CANDIDATES, BenchmarkCall
from benchmarks.common.workload import (
    ALPHA,
    NUM_EXPERTS,
    RANK,
    TARGETS,
    ModelShape,
    random_experts,
    random_model,
)
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, expert_part, open_bundle, seal
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE, Expert
from rankloom_adapters.router import Router
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptFormat, load_tokenizer
from rankloom_features.catalogue import Catalogue
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_training.base import write_base
from rankloom_training.options import Recipe, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.synthetic import write_synthetic
from rankloom_training.train import TrainingJob, train_bundle
from rankloom_training.user_events import events_of_bundle

# An event or candidate is these text tokens and 4 more; one token begins the prefix.
ITEM_TOKENS, EVENTS = 8, 17
TEMPERATURE = 1.0  # so high that nearly every mixture uses the experts of all groups
NO_TRAINING = Recipe(epochs=0, learning_rate=1e-3)
OPTIONS = TrainOptions(
    num_groups=NUM_EXPERTS - 1,  # the global expert is one more
    base_epochs=1,
    global_recipe=NO_TRAINING,
    group_recipe=NO_TRAINING,
)

# A short training of everything; the groups keep the global expert.
SHORT = TrainOptions(
    num_groups=2,
    base_epochs=1,
    global_recipe=Recipe(epochs=1, learning_rate=2e-3),
    group_recipe=NO_TRAINING,
    lm_rows=4_000,
    trace_share=0.0,
)


@dataclass(frozen=True, slots=True)
class TrainedLog:
    """A log, the bundle that was trained on it, and the stages of that training."""

    data: Path
    bundle: Path
    stages: Path


def train_short(folder: Path, num_users: int | None, stages: Path | None) -> TrainedLog:
    """Trains on the embedded data under ``folder``, by SHORT. ``stages``: kept from earlier."""
    log = TrainedLog(embedded_data(folder, num_users), folder / "short", stages or folder / "work")
    TrainingJob.checked(log.data, log.bundle, SHORT, log.stages).run(Progress())
    return log


def make_bundle(folder: Path, shape: ModelShape, num_users: int | None = None) -> Path:
    """Trains on the embedded data under ``folder``; the bundle has a decoder of ``shape``.

    ``num_users``: train on the first users alone.
    """
    with_random_decoder(train_embedded(folder, num_users), folder / "bundle", shape)
    return folder / "bundle"


def train_embedded(folder: Path, num_users: int | None = None) -> Path:
    """Trains features and trees on the embedded data under ``folder``; see ``make_bundle``."""
    train_bundle(embedded_data(folder, num_users), folder / "trained", OPTIONS, Progress())
    return folder / "trained"


def embedded_data(folder: Path, num_users: int | None = None) -> Path:
    """Writes the embedded data under ``folder``. ``num_users``: of the first users alone."""
    write_synthetic(folder / "data")
    if num_users is not None:
        keep_users(folder / "data" / "interactions.csv", num_users)
    return folder / "data"


def with_random_decoder(trained: Path, out: Path, shape: ModelShape) -> None:
    """Writes a sealed copy of a bundle with a random decoder of ``shape`` and random experts."""
    shutil.copytree(trained, out)
    bundle = open_bundle(trained)
    router = Router.from_bytes(bundle.read(parts.ROUTER))
    model = random_model(shape, torch.float32)
    write_base(out / "base", model, load_tokenizer(bundle.read(parts.BASE_TOKENIZER)))
    experts = random_experts(model, len(router.experts))
    for name, expert in zip(router.experts, experts, strict=True):
        _write_expert(out, name, expert)
    (out / parts.PROJECTOR).write_bytes(_random_projector(bundle, router.dim, shape).to_bytes())
    fmt = PromptFormat.from_bytes(bundle.read(parts.PROMPT))
    fmt = replace(fmt, max_item_tokens=ITEM_TOKENS, max_events=EVENTS)
    (out / parts.PROMPT).write_bytes(fmt.to_bytes())
    (out / parts.ROUTER).write_bytes(replace(router, temperature=TEMPERATURE).to_bytes())
    seal(out, bundle.metadata)
    copy_events(events_beside(trained), events_beside(out))


def keep_users(file: Path, num: int) -> None:
    """Keeps the rows of the first users; the file is sorted by user."""
    header, *rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
    users = list(dict.fromkeys(row.partition(",")[0] for row in rows))[:num]
    kept = [row for row in rows if row.partition(",")[0] in users]
    file.write_text(header + "".join(kept), encoding="utf-8")


def calls_of(folder: Path) -> tuple[BenchmarkCall, ...]:
    """A call for every user of a bundle's log, with random items of its catalogue."""
    bundle, random = open_bundle(folder), np.random.default_rng(0)
    with events_of_bundle(folder) as store:
        users = sorted(store.users(), key=lambda user: (len(user), user))
    items = [item.item_id for item in Catalogue.from_bytes(bundle.read(parts.CATALOGUE)).items]
    return tuple(
        BenchmarkCall(user, tuple(random.choice(items, NUM_CANDIDATES, replace=False).tolist()))
        for user in users
    )


def _write_expert(folder: Path, name: str, expert: Expert) -> None:
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS}
    tensors: dict[str, NDArray[np.float32]] = {}
    for module, factors in expert.modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = factors.a
        tensors[f"base_model.model.{module}.lora_B.weight"] = factors.b
    (folder / expert_part(name, CONFIG_FILE)).write_text(json.dumps(config), encoding="utf-8")
    (folder / expert_part(name, WEIGHTS_FILE)).write_bytes(safetensors.numpy.save(tensors))


def _random_projector(bundle: Bundle, dim: int, shape: ModelShape) -> Projector:
    """Random, except for the scale of the tabular features."""
    trained = safetensors.torch.load(bundle.read(parts.PROJECTOR))
    projector = Projector(dim, len(trained["mean"]), shape.hidden)
    scale = {name: trained[name] for name in ("mean", "deviation")}
    projector.load_state_dict({**projector.state_dict(), **scale})
    return projector
