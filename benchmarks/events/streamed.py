"""A process that computes features of all users of a store; its memory is that of nothing else.

    python -m benchmarks.events.streamed STORE BUNDLE

It prints JSON: of vectors and of columns the users, their events, seconds of CPU and on the wall;
MiB when the bundle was loaded, and at most.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from benchmarks.common.children import run_case
from benchmarks.common.results import BenchmarkResult
from benchmarks.common.timing import progress, rss_mib
from benchmarks.events.generated import generate
from benchmarks.events.study import forget_pages
from rankloom_adapters.bundle import open_bundle
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.provider import FeatureProvider, UserQuery
from rankloom_ranker.loaded import load_features

AT_ONCE: Final = 256  # users of a call
NUM_CANDIDATES: Final = 20
EVERY: Final = 10  # users, of whom one has columns computed too


def run_streaming(folder: Path, bundle: Path, num_users: int, num_events: int) -> dict[str, Any]:
    """Raises CaseError if the process fails."""
    path = folder / "events.sqlite"
    items = load_features(open_bundle(bundle)).provider.catalogue.item_ids
    generate(path, num_users, num_events, items)
    forget_pages(path)
    found: dict[str, Any] = run_case("benchmarks.events.streamed", [str(path), str(bundle)])
    return found


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    found = result.figures
    lines = [f"{'':32} {'users':>10} {'events':>12} {'users/s':>8}  of CPU"]
    for name in ("vectors", "columns"):
        each = found[name]
        rates = f"{each['users'] / each['wall_s']:8,.0f} {each['users'] / each['cpu_s']:7,.0f}"
        lines.append(f"{name:32} {each['users']:10,} {each['events']:12,} {rates}")
    memory = f"{found['before_mib']:.0f} MiB when the bundle was loaded"
    return "\n".join([*lines, f"memory of the process: {memory}, {found['most_mib']:.0f} at most"])


def main() -> None:
    store = SqliteEventStore(Path(sys.argv[1]))
    provider = load_features(open_bundle(Path(sys.argv[2])), store).provider
    before = rss_mib()
    vectors, most = _streamed(provider, store.users(), 0)
    some = itertools.islice(store.users(), 0, None, EVERY)
    columns, more = _streamed(provider, some, NUM_CANDIDATES)
    found = {"vectors": vectors, "columns": columns}
    print(json.dumps({**found, "before_mib": before, "most_mib": max(most, more)}))


def _streamed(
    provider: FeatureProvider, users: Iterable[str], num_candidates: int
) -> tuple[dict[str, float], float]:
    """What it took, and the most memory."""
    stream, most = iter(users), 0.0
    candidates = provider.catalogue.items[:num_candidates]
    wall, cpu, num_users, num_events = time.perf_counter(), time.process_time(), 0, 0
    while part := list(itertools.islice(stream, AT_ONCE)):
        queries = [UserQuery(user, None, candidates) for user in part]
        found = provider.features_of_many(queries)
        num_users += len(found)
        num_events += sum(len(each.events) for each in found)
        if num_users % (100 * AT_ONCE) < AT_ONCE:
            most = max(most, rss_mib())
            progress(f"{num_users:,} users")
    taken = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return {"users": num_users, "events": num_events, **taken}, max(most, rss_mib())


if __name__ == "__main__":
    main()
