"""Times searches beside bare faiss, and calls beside empty ones, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from benchmarks.common.timing import progress
from benchmarks.retrieve.generated import grown, serving_grown
from rankloom_adapters.bundle import open_bundle
from rankloom_features.item_index import ItemIndex, best_items, recall
from rankloom_features.provider import UserQuery
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_ranker.query import RetrieveQuery
from rankloom_server.app import servers
from rankloom_server.config import Settings
from rankloom_server.ranking import SERVICE_NAME
from rankloom_training.user_events import events_of_bundle

K: Final = 100
RECOMMENDED: Final = 20
TIMEOUT_S: Final = 60.0
FITTED, TESTED = 50, 50  # users whom an approximate index is fitted to, and others
faiss: Any = import_module("faiss")


@dataclass(frozen=True, slots=True)
class SizeStudy:
    """Seconds of each turn. ``bare``: CPU time of faiss on the same index; ``search``: the same
    for all that is between features and answer.

    ``call``: CPU time of Retrieve over loopback, of server and caller; ``empty``: of a call that
    does nothing. ``waited``: for Retrieve, on the wall.
    """

    num_items: int
    bare: list[float] = field(default_factory=list[float])
    search: list[float] = field(default_factory=list[float])
    call: list[float] = field(default_factory=list[float])
    empty: list[float] = field(default_factory=list[float])
    waited: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class CellStudy:
    """An approximate index of the same items. ``recall``: of users whom it was not fitted to.

    ``bare``, ``search``: as in SizeStudy.
    """

    num_items: int
    num_cells: int
    num_probes: int
    recall: float
    build_s: float
    bare: list[float]
    search: list[float]


@dataclass(frozen=True, slots=True)
class RecommendStudy:
    """Seconds of each turn: of a ranking of K candidates, and of a recommendation among items."""

    num_items: int
    rank: list[float] = field(default_factory=list[float])
    recommend: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class RetrieveStudy:
    """All findings."""

    sizes: list[SizeStudy]
    cells: CellStudy
    recommend: RecommendStudy


def run_retrieve_study(bundle: Path, sizes: list[int], turns: int) -> RetrieveStudy:
    """The recommendation is from the middle one of the sizes."""
    progress(f"{turns} turns of {', '.join(map(str, sizes))} items")
    by_size = [asyncio.run(run_size_study(bundle, size, turns)) for size in sizes]
    progress("cells")
    cells = run_cell_study(bundle, sizes[-1], turns)
    progress("recommendations")
    middle = sorted(sizes)[len(sizes) // 2]
    recommend = asyncio.run(run_recommend_study(bundle, middle, turns))
    return RetrieveStudy(by_size, cells, recommend)


async def run_size_study(bundle: Path, num_items: int, turns: int) -> SizeStudy:
    """Each turn asks for another user."""
    found = SizeStudy(num_items)
    with events_of_bundle(bundle) as store:
        users = list(store.users())[:turns]
        loaded = grown(load_bundle(open_bundle(bundle), events=store), num_items)
        async with _serving(bundle, num_items) as channel:
            ranking, health = RankingServiceStub(channel), health_pb2_grpc.HealthStub(channel)
            for turn in range(-1, turns):  # the first is a warm-up
                user = users[turn % len(users)]
                check = health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
                asked = ranking_pb2.RetrieveRequest(user_id=user, k=K)
                empty, _ = await _cpu_and_wall(check)
                call, waited = await _cpu_and_wall(ranking.Retrieve(asked, timeout=TIMEOUT_S))
                bare, search = _searches(loaded, user)
                if turn >= 0:
                    found.empty.append(empty)
                    found.call.append(call)
                    found.waited.append(waited)
                    found.bare.append(bare)
                    found.search.append(search)
    return found


async def run_recommend_study(bundle: Path, num_items: int, turns: int) -> RecommendStudy:
    """A ranking of what is retrieved for a user, and the recommendation of both, in turns."""
    found = RecommendStudy(num_items)
    with events_of_bundle(bundle) as store:
        users = list(store.users())[:turns]
    async with _serving(bundle, num_items) as channel:
        stub = RankingServiceStub(channel)
        for turn in range(-1, turns):
            user = users[turn % len(users)]
            near = await stub.Retrieve(
                ranking_pb2.RetrieveRequest(user_id=user, k=K), timeout=TIMEOUT_S
            )
            candidates = [features_pb2.Candidate(item_id=each.item_id) for each in near.items]
            options = ranking_pb2.RankOptions(top_k=RECOMMENDED)
            rank = ranking_pb2.RankRequest(user_id=user, candidates=candidates, options=options)
            recommend = ranking_pb2.RecommendRequest(user_id=user, k=RECOMMENDED)
            await stub.Rank(rank, timeout=TIMEOUT_S)  # now the user's prefix is cached
            calls: dict[str, Callable[[], Any]] = {
                "rank": partial(stub.Rank, rank, timeout=TIMEOUT_S),
                "recommend": partial(stub.Recommend, recommend, timeout=TIMEOUT_S),
            }
            order = sorted(calls, reverse=bool(turn % 2))  # neither always comes first
            seconds = {name: await _seconds(calls[name]()) for name in order}
            if turn >= 0:
                found.rank.append(seconds["rank"])
                found.recommend.append(seconds["recommend"])
    return found


def run_cell_study(bundle: Path, num_items: int, turns: int) -> CellStudy:
    """Cells of as many items, fitted to some users and tested on others."""
    with events_of_bundle(bundle) as store:
        loaded = grown(load_bundle(open_bundle(bundle), events=store), num_items)
        vectors, users = loaded.retriever.index.vectors, _user_vectors(loaded)
    started = time.perf_counter()
    index = ItemIndex.built(vectors, users[:FITTED], max_exact=0)
    build_s = time.perf_counter() - started
    if index.cells is None:
        raise RuntimeError("no number of cells saves anything for these vectors")
    tested = users[FITTED : FITTED + TESTED]
    asked = [tested[turn % len(tested)] for turn in range(turns)]
    return CellStudy(
        num_items=num_items,
        num_cells=len(index.cells.centroids),
        num_probes=index.cells.num_probes,
        recall=recall(index, tested, best_items(loaded.retriever.index, tested)),
        build_s=build_s,
        bare=[_timed(partial(_bare, index, user)) for user in asked],
        search=[_timed(partial(index.search, user, K)) for user in asked],
    )


def _searches(loaded: LoadedBundle, user_id: str) -> tuple[float, float]:
    """Seconds of bare faiss, and of a retrieval without what the user has seen."""
    user = UserQuery(user_id, None)
    features = loaded.provider.features(user)
    vector, query = loaded.retriever.space.user(features), RetrieveQuery("", user, K)
    bare = _timed(lambda: _bare(loaded.retriever.index, vector))
    return bare, _timed(lambda: loaded.retriever.retrieve(query, features))


def _bare(index: ItemIndex, user: NDArray[np.float32]) -> None:
    """The floor: nothing around faiss."""
    if index.cells is None:
        index._index.search(user[None], K)
    else:
        probes = faiss.SearchParametersIVF(nprobe=index.cells.num_probes)
        index._index.search(user[None], K, params=probes)


def _user_vectors(loaded: LoadedBundle) -> NDArray[np.float32]:
    asked = [UserQuery(user, None) for user in loaded.provider.events.users()]
    features = loaded.provider.features_of_many(asked[: FITTED + TESTED])
    return np.stack([loaded.retriever.space.user(each) for each in features])


@asynccontextmanager
async def _serving(bundle: Path, num_items: int) -> AsyncIterator[grpc.aio.Channel]:
    given = {"bundle": bundle, "dtype": "float32", "port": 0}
    with serving_grown(num_items):
        async with servers(Settings.from_flat(given)) as (server, _):
            port = await server.start("127.0.0.1", 0)
            await server.open()
            try:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    yield channel
            finally:
                await server.grpc.stop(None)


async def _seconds(call: Any) -> float:  # noqa: ANN401
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


async def _cpu_and_wall(call: Any) -> tuple[float, float]:  # noqa: ANN401
    """Seconds of this process, which has both the server and its caller."""
    cpu, wall = time.process_time(), time.perf_counter()
    await call
    return time.process_time() - cpu, time.perf_counter() - wall


def _timed(work: Callable[[], object]) -> float:
    """CPU seconds of this thread, the only one that works: other load does not count."""
    started = time.thread_time()
    work()
    return time.thread_time() - started
