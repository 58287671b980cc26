"""The bundle that the server's benchmark serves: real features and trees, a random decoder.

Catalogue, events, collaborative model, trees, tokenizer and the router's centroids come
from a training on the embedded data. Decoder, experts and projector are random, of the
wanted sizes, and the router's temperature is wide: how good the scores are does not matter
here, only what they cost.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from serve_load import Call
from workload import ALPHA, NUM_EXPERTS, RANK, TARGETS, Shape, random_experts, random_model

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, expert_part, open_bundle, seal
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE, Expert
from rankloom_adapters.router import Router
from rankloom_engine.loading import load_tokenizer
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptFormat
from rankloom_features.catalogue import Catalogue
from rankloom_features.events import EventLog
from rankloom_training.base import write_base
from rankloom_training.experts import Recipe
from rankloom_training.pipeline import TrainOptions, train_bundle
from rankloom_training.progress import Progress
from rankloom_training.synthetic import write_synthetic

# An event is these text tokens and 4 more, as a candidate is; one token begins the prefix.
ITEM_TOKENS, EVENTS = 8, 17
NUM_CANDIDATES = 20
TEMPERATURE = 1.0  # so wide that nearly every mixture is of all groups' experts
NO_TRAINING = Recipe(epochs=0, learning_rate=1e-3)
OPTIONS = TrainOptions(
    num_groups=NUM_EXPERTS - 1,  # and the expert of everybody
    base_epochs=1,
    global_recipe=NO_TRAINING,
    group_recipe=NO_TRAINING,
)


def make_bundle(folder: Path, shape: Shape) -> Path:
    """Trains what is real under ``folder``, and puts a decoder of ``shape`` to it."""
    write_synthetic(folder / "data")
    train_bundle(folder / "data", folder / "trained", OPTIONS, Progress())
    with_random_decoder(folder / "trained", folder / "bundle", shape)
    return folder / "bundle"


def with_random_decoder(trained: Path, out: Path, shape: Shape) -> None:
    """A sealed copy of a bundle whose decoder is random and of ``shape``, with random experts."""
    shutil.copytree(trained, out)
    bundle = open_bundle(trained)
    router = Router.from_bytes(bundle.read(parts.ROUTER))
    model = random_model(shape, torch.float32)
    write_base(out / "base", model, load_tokenizer(bundle.read(parts.BASE_TOKENIZER)))
    for name, expert in zip(
        router.experts, random_experts(model, len(router.experts)), strict=True
    ):
        _write_expert(out, name, expert)
    (out / parts.PROJECTOR).write_bytes(_random_projector(bundle, router.dim, shape).to_bytes())
    fmt = PromptFormat.from_bytes(bundle.read(parts.PROMPT))
    fmt = replace(fmt, max_item_tokens=ITEM_TOKENS, max_events=EVENTS)
    (out / parts.PROMPT).write_bytes(fmt.to_bytes())
    (out / parts.ROUTER).write_bytes(replace(router, temperature=TEMPERATURE).to_bytes())
    seal(out, bundle.metadata)


def calls_of(folder: Path) -> tuple[Call, ...]:
    """One call for every user of a bundle's log, with random items of its catalogue."""
    bundle, random = open_bundle(folder), np.random.default_rng(0)
    users = EventLog.from_bytes(bundle.read(parts.EVENTS)).users
    items = [item.item_id for item in Catalogue.from_bytes(bundle.read(parts.CATALOGUE)).items]
    return tuple(
        Call(user, tuple(random.choice(items, NUM_CANDIDATES, replace=False).tolist()))
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


def _random_projector(bundle: Bundle, dim: int, shape: Shape) -> Projector:
    """Random but for the scale of the tabular features."""
    trained = safetensors.torch.load(bundle.read(parts.PROJECTOR))
    projector = Projector(dim, len(trained["mean"]), shape.hidden)
    scale = {name: trained[name] for name in ("mean", "deviation")}
    projector.load_state_dict({**projector.state_dict(), **scale})
    return projector
