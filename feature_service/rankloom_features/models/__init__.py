"""Collaborative models by name; each module is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rankloom_features.models.base import CollaborativeModel

_CREATORS = {
    "gsasrec": "rankloom_features.models.gsasrec:GSASRec",
    "lightgcn": "rankloom_features.models.lightgcn:LightGCN",
    "sasrec": "rankloom_features.models.sasrec:SASRec",
    "mf": "rankloom_features.models.mf:MatrixFactorisation",
}
MODEL_NAMES = tuple(_CREATORS)


def create_model(name: str, num_items: int, dim: int) -> CollaborativeModel:
    """Creates an untrained model. Raises ValueError for an unknown name."""
    if name not in _CREATORS:
        raise ValueError(
            f"unknown collaborative model {name!r}; choose one of {', '.join(MODEL_NAMES)}"
        )
    module, cls = _CREATORS[name].split(":")
    create = cast("Callable[[int, int], CollaborativeModel]", getattr(import_module(module), cls))
    return create(num_items, dim)
