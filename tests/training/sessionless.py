"""Bundles of likes as versions left them that knew no sessions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from feature_service.boosters import booster
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.derive import with_parts
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.loading import statistics_from_bytes, statistics_to_bytes
from rankloom_features.session_columns import SESSION_COLUMNS
from rankloom_features.tree_export import export_trees
from rankloom_ranker.loaded import load_bundle


def without_session_columns(trained: Path, folder: Path) -> Path:
    """The bundle without factors of sessions, and what reads columns with fewer of them."""
    bundle = open_bundle(trained)
    statistics = dataclasses.replace(statistics_of(bundle), co_session=None)
    kept = ~np.isin(load_bundle(bundle).provider.columns, SESSION_COLUMNS)
    made = {
        parts.ITEM_STATISTICS: statistics_to_bytes(statistics),
        parts.TREES: export_trees([booster(0, int(kept.sum()))]),
        parts.PROJECTOR: projector_of(bundle, kept),
    }
    with_parts(bundle, made, folder, {})
    copy_events(events_beside(trained), events_beside(folder))
    return folder


def statistics_of(bundle: Bundle) -> ItemStatistics:
    num_items = len(load_bundle(bundle).catalogue)
    return statistics_from_bytes(bundle.read(parts.ITEM_STATISTICS), num_items)


def projector_of(bundle: Bundle, kept: NDArray[np.bool_]) -> bytes:
    """The bundle's projector, which reads some of the columns alone."""
    tensors = safetensors.numpy.load(bundle.read(parts.PROJECTOR))
    for name in ("mean", "deviation", "tabular.0.weight"):
        tensors[name] = np.ascontiguousarray(tensors[name][..., kept])
    return bytes(safetensors.numpy.save(tensors))
