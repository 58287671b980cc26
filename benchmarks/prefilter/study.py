"""Rankings of all items that a user does not know, with prefilters of several sizes, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.common.live_server import LiveServer, live_server
from rankloom_features.wire import MAX_CANDIDATES
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_training.all_items import Unseen, unseen_items
from rankloom_training.data import Dataset
from rankloom_training.metrics import ndcg

TOP: Final = 10
TIMEOUT_S: Final = 60.0
ALL: Final = 0  # no prefilter


@dataclass(frozen=True, slots=True)
class PrefilterFigures:
    """Of rankings with one prefilter, means over users but for the time.

    ``cpu_ms``: median of the process's, caller included; the history is cached. ``same_top``: share
    of the first ten of the whole ranking that are among the first ten.
    """

    scored: float
    cpu_ms: float
    ndcg10: float
    same_top: float


@dataclass(frozen=True, slots=True)
class PrefilterStudy:
    """``candidates``: mean number of a ranking. ``sizes``: by prefilter; 0 for none."""

    num_users: int
    candidates: float
    sizes: Mapping[int, PrefilterFigures]


@dataclass(frozen=True, slots=True)
class _Answer:
    cpu_s: float
    items: Sequence[str]
    scored: int


async def run_prefilter_study(
    bundle: Path, dataset: Dataset, num_users: int, sizes: Sequence[int]
) -> PrefilterStudy:
    """``num_users``: the first who like something new in the test rows. ``sizes``: without ALL."""
    cases = list(_cases(dataset, num_users))
    answers: dict[int, list[_Answer]] = {size: [] for size in (*sizes, ALL)}
    async with live_server(bundle) as server:
        for case in cases:
            await _ranked(server, case, min(sizes))  # caches the history
            for size, found in answers.items():
                found.append(await _ranked(server, case, size))
    return PrefilterStudy(
        num_users=len(cases),
        candidates=float(np.mean([len(case.items) for case in cases])),
        sizes={size: _figures(cases, found, answers[ALL]) for size, found in answers.items()},
    )


def _cases(dataset: Dataset, num_users: int) -> Iterator[Unseen]:
    for case in unseen_items(dataset, np.arange(dataset.log.num_users)):
        if num_users and len(case.items) <= MAX_CANDIDATES:
            num_users -= 1
            yield case


async def _ranked(server: LiveServer, case: Unseen, size: int) -> _Answer:
    request = ranking_pb2.RankRequest(
        history=features_pb2.History(
            events=[
                features_pb2.Event(
                    item_id=event.item_id,
                    liked=event.liked,
                    time=Timestamp(seconds=int(event.time or 0.0)),
                )
                for event in case.history.events
            ]
        ),
        candidates=[features_pb2.Candidate(item_id=item) for item in _ids(case)],
        options=ranking_pb2.RankOptions(prefilter=size, allow_fallback=False),
    )
    started = time.process_time()
    answer = await server.ranking.Rank(request, timeout=TIMEOUT_S)
    return _Answer(
        time.process_time() - started,
        [item.item_id for item in answer.items],
        sum(item.scored for item in answer.items),
    )


def _ids(case: Unseen) -> list[str]:
    items = case.history.dataset.catalogue.items
    return [items[item].item_id for item in case.items]


def _figures(
    cases: Sequence[Unseen], answers: Sequence[_Answer], whole: Sequence[_Answer]
) -> PrefilterFigures:
    same = [
        len({*one.items[:TOP]} & {*other.items[:TOP]}) / TOP
        for one, other in zip(answers, whole, strict=True)
    ]
    return PrefilterFigures(
        scored=float(np.mean([each.scored for each in answers])),
        cpu_ms=1e3 * float(np.median([each.cpu_s for each in answers])),
        ndcg10=float(np.mean([_ndcg(*pair) for pair in zip(cases, answers, strict=True)])),
        same_top=float(np.mean(same)),
    )


def _ndcg(case: Unseen, answer: _Answer) -> float:
    rank = {item: -place for place, item in enumerate(answer.items)}
    return ndcg(case.liked, np.array([rank[item] for item in _ids(case)], np.float64), TOP)
