"""Collaborative models by name; a model's code is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rankloom_features.models.base import CollaborativeModel

_CREATORS = {
    "sasrec": "rankloom_features.models.sasrec:SASRec",
    "mf": "rankloom_features.models.mf:MatrixFactorisation",
}
MODEL_NAMES = tuple(_CREATORS)


def create_model(name: str, num_items: int, dim: int) -> CollaborativeModel:
    """An untrained model. Raises ValueError for a name that is not in MODEL_NAMES."""
    if name not in _CREATORS:
        raise ValueError(f"collaborative model {name!r}: known are {', '.join(MODEL_NAMES)}")
    module, cls = _CREATORS[name].split(":")
    create = cast("Callable[[int, int], CollaborativeModel]", getattr(import_module(module), cls))
    return create(num_items, dim)
