"""A bundle of the parts that features need: real files, a real ONNX model, eight items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

from feature_service.user_models import random_user_model
from rankloom_adapters import bundle
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.store import UserEvent
from rankloom_features.events import Event
from rankloom_features.export import export
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.loading import statistics_to_bytes
from rankloom_features.models.base import CollaborativeModel
from rankloom_features.models.mf import MatrixFactorisation

DIM = 4
ITEMS = tuple(
    Item(f"item-{index}", f"Title {index}", 1980 + index, ("Drama", "Comedy")[index % 2 :])
    for index in range(8)
)
KNOWN_USER = "known-user"
EVENTS = tuple(Event(f"item-{index}", index % 2 == 0, 1_000_000.25 + index) for index in (0, 3, 5))


def write_feature_bundle(folder: Path) -> Path:
    random = np.random.default_rng(0)
    model = collaborative_model()
    parts = {
        bundle.CATALOGUE: Catalogue(ITEMS).to_bytes(),
        bundle.ENCODER: export(model),
        bundle.ITEM_VECTORS: vectors_of(model),
        bundle.ITEM_STATISTICS: statistics_to_bytes(
            ItemStatistics(
                rows=np.arange(len(ITEMS), dtype=np.float32),
                likes=np.arange(len(ITEMS), dtype=np.float32) / np.float32(2),
                co_liking=random.standard_normal((len(ITEMS), 3)).astype(np.float32),
                co_rating=random.standard_normal((len(ITEMS), 3)).astype(np.float32),
            )
        ),
        bundle.USER_MODEL: random_user_model(len(ITEMS)).to_bytes(),
    }
    for name, data in parts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    bundle.seal(folder, {})
    return folder


def known_events() -> MemoryEventStore:
    """A store with the events of KNOWN_USER."""
    return MemoryEventStore(
        UserEvent(f"event-{n}", KNOWN_USER, event) for n, event in enumerate(EVENTS)
    )


def collaborative_model(seed: int = 0) -> CollaborativeModel:
    torch.manual_seed(seed)
    model = MatrixFactorisation(len(ITEMS), DIM)
    with torch.no_grad():
        model.item_bias.weight[1:] = torch.randn(len(ITEMS), 1)
    return model


def vectors_of(model: CollaborativeModel) -> bytes:
    vectors = model.vectors.weight.detach().numpy()[1:].copy()
    return bytes(safetensors.numpy.save({"vectors": vectors}))
