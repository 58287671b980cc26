"""A log replayed into a real server that knows no event: each row is asked for at its moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from benchmarks.common.live_server import LiveServer, live_server
from rankloom_features.wire import features_from_wire
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_training.data import Dataset

MAX_RECORDED = 1_000  # events of one call
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class OnlineRows:
    """What a server answered for each row: (n, dim), (n, columns) and (n,)."""

    vector: NDArray[np.float32]
    tabular: NDArray[np.float32]
    score: NDArray[np.float64]


async def replayed(
    bundle: Path, events: Path, dataset: Dataset, rows: NDArray[np.int64]
) -> OnlineRows:
    """Records the log in the order of time, and stops before each of ``rows`` to ask for it.

    ``events``: a new file. Answers are in the order of ``rows``.
    """
    log = dataset.log
    order = np.lexsort((np.arange(len(log)), log.time))
    place = np.empty(len(log), np.int64)
    place[order] = np.arange(len(log))
    done, answers = 0, dict[int, tuple[NDArray[np.float32], NDArray[np.float32], float]]()
    async with live_server(bundle, events) as server:
        for row in rows[np.argsort(place[rows])].tolist():
            for some in _parts(order[done : place[row]]):
                await server.features.RecordEvents(_events(dataset, some), timeout=TIMEOUT_S)
            done = int(place[row])
            answers[row] = await _asked(server, dataset, row)
    vectors, tabular, scores = zip(*(answers[row] for row in rows.tolist()), strict=True)
    return OnlineRows(np.stack(vectors), np.stack(tabular), np.array(scores))


def _parts(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(rows), MAX_RECORDED):
        yield rows[at : at + MAX_RECORDED]


def _events(dataset: Dataset, rows: NDArray[np.int64]) -> features_pb2.RecordEventsRequest:
    log, items, request = dataset.log, dataset.catalogue.items, features_pb2.RecordEventsRequest()
    for row in rows.tolist():
        time = Timestamp()
        time.FromNanoseconds(round(float(log.time[row]) * 1e9))
        request.events.add(
            event_id=str(row),
            user_id=log.user_ids[log.user[row]],
            item_id=items[log.item[row]].item_id,
            liked=bool(log.liked[row]),
            time=time,
        )
    return request


async def _asked(
    server: LiveServer, dataset: Dataset, row: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Vector, columns and score of a row's item for its user."""
    log = dataset.log
    user = log.user_ids[log.user[row]]
    item = features_pb2.Candidate(item_id=dataset.catalogue.items[log.item[row]].item_id)
    query = features_pb2.UserQuery(user_id=user, candidates=[item])
    features, ranking = await asyncio.gather(
        server.features.GetUserFeatures(
            features_pb2.GetUserFeaturesRequest(users=[query]), timeout=TIMEOUT_S
        ),
        server.ranking.Rank(
            ranking_pb2.RankRequest(
                user_id=user,
                candidates=[item],
                options=ranking_pb2.RankOptions(allow_fallback=False),
            ),
            timeout=TIMEOUT_S,
        ),
    )
    found = features_from_wire(features.features[0])
    return found.vector, found.tabular[0], ranking.items[0].score
