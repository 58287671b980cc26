"""Calls that retrieve and recommend, and what they must find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.provider import UserQuery
from rankloom_proto.v1.ranking_pb2 import (
    RecommendRequest,
    RecommendResponse,
    RetrieveRequest,
    RetrieveResponse,
)
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.added_items import AddedItems

if TYPE_CHECKING:
    from rankloom_training.data import Dataset

ADDED: Final = Item("added-later", "Added Later", 2001)


async def retrieve(channel: grpc.aio.Channel, **fields: object) -> RetrieveResponse:
    message = RetrieveRequest(**fields)  # type: ignore[arg-type]
    answer: RetrieveResponse = await RankingServiceStub(channel).Retrieve(message, timeout=30)
    return answer


async def recommend(channel: grpc.aio.Channel, **fields: object) -> RecommendResponse:
    message = RecommendRequest(**fields)  # type: ignore[arg-type]
    answer: RecommendResponse = await RankingServiceStub(channel).Recommend(message, timeout=30)
    return answer


def with_added_item(bundle: Path, folder: Path) -> Path:
    """The bundle with ADDED in its catalogue."""
    loaded = load_bundle(open_bundle(bundle))
    catalogue = Catalogue((*loaded.catalogue.items, ADDED), loaded.catalogue.attribute_names)
    no_data = cast("Dataset", None)  # read for columns of the item table alone
    added = AddedItems(loaded, no_data, catalogue, np.zeros(1, np.int64))
    shutil.copytree(bundle, folder)
    for part, data in added.bundle_parts().items():
        (folder / part).write_bytes(data)
    seal(folder, loaded.bundle.metadata)
    return folder


def retrieving_otherwise(bundle: Path, folder: Path) -> Path:
    """The bundle with items counted as often as others were: it retrieves other items."""
    shutil.copytree(bundle, folder)
    opened = open_bundle(bundle)
    loaded = safetensors.numpy.load(opened.read(parts.ITEM_STATISTICS))
    rare = np.argsort(np.argsort(loaded["rows"])) < len(loaded["rows"]) // 2
    loaded["rows"] = np.where(rare, 1e6, 1.0).astype(np.float32)
    (folder / parts.ITEM_STATISTICS).write_bytes(safetensors.numpy.save(loaded))
    (folder / parts.ITEM_INDEX).unlink()  # it is of the former counts
    seal(folder, {**opened.metadata, "copy": folder.name})
    return folder


def ids(answer: RetrieveResponse) -> list[str]:
    return [item.item_id for item in answer.items]


def nearest(
    loaded: LoadedBundle, user: str, allows: Callable[[int], bool] = lambda _: True
) -> list[str]:
    """All items that the user has not seen, by ``scores``."""
    events = loaded.provider.features(UserQuery(user, None)).events
    seen, found = {event.item_id for event in events}, scores(loaded, user)
    return _ranked(loaded, found, lambda n: allows(n) and item_id(loaded, n) not in seen)


def scores(loaded: LoadedBundle, user: str) -> NDArray[np.float32]:
    """(items,) the collaborative logit, plus the log of how often each item was chosen."""
    vector = loaded.provider.features(UserQuery(user, None)).vector
    logits = loaded.provider.scorer.logits(vector, np.arange(len(loaded.catalogue)))
    return np.asarray(logits + np.log1p(loaded.features.popularity))


def most_popular(loaded: LoadedBundle) -> list[str]:
    return _ranked(loaded, loaded.features.popularity, lambda _: True)


def item_id(loaded: LoadedBundle, index: int) -> str:
    return loaded.catalogue.items[index].item_id


def _ranked(
    loaded: LoadedBundle, scores: NDArray[np.float32], allows: Callable[[int], bool]
) -> list[str]:
    order = np.argsort(-scores, kind="stable").tolist()
    return [item_id(loaded, index) for index in order if allows(index)]
