"""Times features with and without predicted ratings, in turns with empty calls."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from grpc_health.v1 import health_pb2

from benchmarks.common.live_server import LiveServer, live_server
from benchmarks.common.results import BenchmarkResult
from benchmarks.stored.report import percentiles
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import BundleError, open_bundle
from rankloom_features.event_store.store import events_beside
from rankloom_features.service import SERVICE_NAME
from rankloom_proto.v1 import features_pb2
from rankloom_ranker.loaded import load_features
from rankloom_training.user_events import opened_events

TIMEOUT_S: Final = 60.0
WARM_UP: Final = 50  # turns that do not count
EMPTY, FEATURES, RATINGS = "an empty call", "features", "features with predicted ratings"


async def run_ratings_study(bundle: Path, turns: int, num_items: int) -> dict[str, list[float]]:
    """Seconds of each turn, by kind of call. Raises BundleError for a bundle without towers."""
    opened = open_bundle(bundle)
    if parts.TOWERS not in opened.parts:
        raise BundleError(parts.TOWERS, "is not there; add it with `rankloom reccot attach`")
    with opened_events(events_beside(bundle)) as store:
        users = list(store.users())
    items = load_features(opened).provider.catalogue.item_ids[:num_items]
    candidates = [features_pb2.Candidate(item_id=item) for item in items]
    async with live_server(bundle) as stubs:
        timed = [
            await _turn(stubs, users[turn % len(users)], candidates)
            for turn in range(WARM_UP + turns)
        ]
    return {name: [each[name] for each in timed[WARM_UP:]] for name in (EMPTY, FEATURES, RATINGS)}


def figures(found: Mapping[str, list[float]]) -> dict[str, Any]:
    """Percentiles in milliseconds."""
    return {name: percentiles(seconds) for name, seconds in found.items()}


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    lines = [f"{result.settings['items']} items; over loopback, ms:  p50   p90   p99"]
    for name, each in result.figures.items():
        lines.append(f"{name:32} {each['p50']:.2f}  {each['p90']:.2f}  {each['p99']:.2f}")
    return "\n".join(lines)


async def _turn(
    stubs: LiveServer, user: str, candidates: list[features_pb2.Candidate]
) -> dict[str, float]:
    return {
        EMPTY: await _seconds(_empty(stubs)),
        FEATURES: await _seconds(_asked(stubs, user, candidates, ratings=False)),
        RATINGS: await _seconds(_asked(stubs, user, candidates, ratings=True)),
    }


async def _empty(stubs: LiveServer) -> None:
    await stubs.health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=TIMEOUT_S)


async def _asked(
    stubs: LiveServer, user: str, candidates: list[features_pb2.Candidate], *, ratings: bool
) -> None:
    query = features_pb2.UserQuery(user_id=user, candidates=candidates, predict_ratings=ratings)
    request = features_pb2.GetUserFeaturesRequest(users=[query])
    answer = await stubs.features.GetUserFeatures(request, timeout=TIMEOUT_S)
    if ratings != bool(answer.features[0].predicted_ratings):
        raise RuntimeError("ratings came that were not asked for, or none came")


async def _seconds(call: Coroutine[Any, Any, object]) -> float:
    started = perf_counter()
    await call
    return perf_counter() - started
