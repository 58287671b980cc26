"""Rankings as they were served, as rows of a table: what learning and skew checks read.

No user's id is kept: a row names its user by a digest under a key of the folder. An id that the
event store still has leads to its rows; a forgotten user's rows lead to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankloom_features.provider import UserFeatures
from rankloom_ranker.answers import Ranking
from rankloom_ranker.query import RankQuery

KEY_FILE: Final = "users.key"  # in the folder of the rows
KEY_BYTES: Final = 32
_USER_BYTES: Final = 16


def user_digest(key: bytes, user_id: str) -> bytes:
    """By which rows of a folder with this key name a user."""
    return blake2b(user_id.encode(), key=key, digest_size=_USER_BYTES).digest()


@dataclass(frozen=True, slots=True, eq=False)
class ServedRanking:
    """One ranking, without titles. Arrays are in the order of the request.

    ``time``: that of its features, seconds since 1970. ``user``: of ``user_digest``; None for an
    inline history. ``history_version``: of the user's history in the event store,
    None for an inline one. ``rank``: (n,) from 1; 0 for an item that was not returned. ``score``,
    ``probability``: (n,), NaN where no model scored. ``features``: (n, columns), of the columns
    that ``schema_digest`` names; (n, 0) where there were none.
    """

    time: float
    request_id: str
    user: bytes | None
    history_version: int | None
    revision: int
    bundle_digest: str
    feature_version: str
    schema_digest: str
    fallback_level: str
    items: tuple[str, ...]
    rank: NDArray[np.int32]
    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    features: NDArray[np.float32]


SCHEMA = pa.schema(
    [
        ("time", pa.float64()),
        ("request_id", pa.string()),
        ("user", pa.binary(_USER_BYTES)),
        ("history_version", pa.uint64()),
        ("revision", pa.int64()),
        ("bundle_digest", pa.string()),
        ("feature_version", pa.string()),
        ("schema_digest", pa.string()),
        ("fallback_level", pa.string()),
        ("items", pa.list_(pa.string())),
        ("rank", pa.list_(pa.int32())),
        ("score", pa.list_(pa.float64())),
        ("probability", pa.list_(pa.float64())),
        ("features", pa.list_(pa.float32())),  # row by row
    ]
)


def served_ranking(
    key: bytes,
    query: RankQuery,
    revision: int,
    bundle_digest: str,
    ranking: Ranking,
    features: UserFeatures | None,
) -> ServedRanking:
    """What is kept of an answer.

    ``key``: the folder's. ``features``: None where there were none.
    """
    user_id = query.user.user_id
    items = tuple(item.item_id for item in query.user.candidates)
    returned = {item.item_id: rank for rank, item in enumerate(ranking.items, 1)}
    unscored = np.full(len(items), np.nan)
    scores = ranking.record.scores if ranking.record else None
    return ServedRanking(
        time=features.at if features and features.at is not None else time.time(),
        request_id=query.request_id,
        user=None if user_id is None else user_digest(key, user_id),
        history_version=features.stored_version if features else None,
        revision=revision,
        bundle_digest=bundle_digest,
        feature_version=features.feature_version if features else "",
        schema_digest=features.schema_digest if features else "",
        fallback_level=ranking.fallback.level.name,
        items=items,
        rank=np.array([returned.get(item, 0) for item in items], np.int32),
        score=scores.score if scores else unscored,
        probability=scores.probability if scores else unscored,
        features=features.tabular if features else np.zeros((len(items), 0), np.float32),
    )


def served_table(rankings: Sequence[ServedRanking]) -> pa.Table:
    """One row per ranking, with the columns of SCHEMA."""
    columns = {
        field.name: _column(field, [getattr(each, field.name) for each in rankings])
        for field in SCHEMA
    }
    return pa.table(columns, schema=SCHEMA)


def _column(field: pa.Field, values: Sequence[object]) -> pa.Array:
    if field.name not in ("rank", "score", "probability", "features"):
        return pa.array(values, field.type)
    arrays = [np.asarray(value).ravel() for value in values]
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(arrays)), type=field.type)
