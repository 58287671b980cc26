"""The demonstration: data, bundles, server, rankings and a rollout, in one command."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import rankloom
from rankloom_adapters.bundle import open_bundle
from rankloom_adapters.router import directions
from rankloom_features.catalogue import Catalogue
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training import reporting
from rankloom_training.data import DataError
from rankloom_training.evaluate import evaluate
from rankloom_training.explain_demo import explain
from rankloom_training.option_file import OptionError, to_yaml
from rankloom_training.options import DEMO_OPTIONS, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.rollout_demo import roll_back, roll_out, served
from rankloom_training.synthetic import read_truth, write_synthetic
from rankloom_training.train import TrainingJob
from rankloom_training.user_events import events_of_bundle
from rankloom_training.visibility import Protocol

NUM_CANDIDATES, TOP_K, SHOWN_EVENTS = 40, 8, 8
MIN_EVENTS = 10  # a user with fewer says little about a taste
TIMEOUT_S = 10.0
MAX_TEST_ROWS = 1200  # someone waits for it


def run_demo(data: Path | None, folder: Path, options: TrainOptions, console: Console) -> None:
    """Builds or reuses bundles under ``folder``, serves, ranks, rolls experts out, and judges.

    ``data``: an interaction log of one's own; None: the embedded one. Raises ValueErrors
    that say what to do.
    """
    if not options.group_experts:
        raise OptionError("group_experts: the demonstration ranks without them first; leave it out")
    data = _embedded(folder) if data is None else data
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; pass the folder that holds the log")
    bundle = folder / _bundle_name(data, options)
    work, started = bundle.with_name(f"{bundle.name}.work"), time.monotonic()
    first = bundle.with_name(f"{bundle.name}-first")
    if not first.exists():
        console.print(f"Training a bundle on {data.name} (kept for the next run) …")
        _train(data, first, dataclasses.replace(options, group_experts=False), work, console)

    def train_experts() -> None:
        console.print(f"first rankings {time.monotonic() - started:.0f} s after the start")
        if not bundle.exists():
            console.print("The server goes on; experts are trained for each group of users …")
            _train(data, bundle, options, work, console)
        shutil.rmtree(work, ignore_errors=True)

    _serve(first, bundle, train_experts, console)
    _judge(bundle, data, options.protocol, console)


def _serve(first: Path, bundle: Path, train_experts: Callable[[], None], console: Console) -> None:
    """Ranks with the first bundle, then with the other one, which is rolled out over it."""
    with ExitStack() as running:
        loaded = _loaded(first, running)
        with console.status("Starting the server …"):
            server = running.enter_context(served(first))
        client = running.enter_context(rankloom.Client(server.address, timeout_s=TIMEOUT_S))
        _rank_for_tastes(client, loaded, console)
        train_experts()
        revision = roll_out(server, bundle, console)
        best = _rank_for_tastes(client, _loaded(bundle, running), console)
        explain(client, loaded.catalogue, best, console)
        if revision is not None:
            roll_back(server, revision, console)


def _train(data: Path, out: Path, options: TrainOptions, work: Path, console: Console) -> None:
    digest = TrainingJob.checked(data, out, options, work).run(Progress())
    console.print(f"bundle {digest[:12]}")


def _loaded(bundle: Path, running: ExitStack) -> LoadedBundle:
    events = running.enter_context(events_of_bundle(bundle))
    return load_bundle(open_bundle(bundle), events=events)


def _bundle_name(data: Path, options: TrainOptions) -> str:
    """Each choice of options has its own bundle beside the default one."""
    name = f"bundle-{data.resolve().name}"
    chosen = hashlib.sha256(to_yaml(options)).hexdigest()[:8]
    return name if options == DEMO_OPTIONS else f"{name}-{chosen}"


def _embedded(folder: Path) -> Path:
    """The embedded data, written once; an interrupted write leaves nothing behind."""
    data, begun = folder / "synthetic", folder / "synthetic.begun"
    if not data.exists():
        write_synthetic(begun)
        begun.rename(data)
    return data


def _rank_for_tastes(
    client: rankloom.Client, loaded: LoadedBundle, console: Console
) -> list[tuple[str, str]]:
    """Returns each user and the best item."""
    catalogue, best = loaded.catalogue, list[tuple[str, str]]()
    for user in typical_users(loaded):
        events = loaded.provider.features(UserQuery(user, None)).events
        items = _candidates(catalogue, events)
        ranking = client.rank(items, user=user, options=rankloom.RankOptions(top_k=TOP_K))
        _show(console, catalogue, user, events, ranking, len(items))
        best.append((user, ranking.items[0].item_id))
    return best


def typical_users(loaded: LoadedBundle) -> list[str]:
    """One user per group: the nearest to its centroid among users with enough events."""
    provider, router = loaded.provider, loaded.router
    every, events = list(provider.events.users()), provider.events
    users = [user for user in every if len(events.history(user).events) >= MIN_EVENTS]
    queries = [UserQuery(user, None) for user in users or every]
    vectors = np.stack([loaded.routing_vector(each) for each in provider.features_of_many(queries)])
    towards = directions(router.centroids, router.centre)
    nearest = (directions(vectors, router.centre) @ towards.T).argmax(axis=0)
    return [queries[int(index)].user_id or "" for index in nearest]


def _candidates(catalogue: Catalogue, events: tuple[Event, ...]) -> list[str]:
    """Catalogue items that the user has no event of, spread over the catalogue."""
    seen = {event.item_id for event in events}
    fresh = [item.item_id for item in catalogue.items if item.item_id not in seen]
    return fresh[:: max(1, len(fresh) // NUM_CANDIDATES)][:NUM_CANDIDATES]


def _show(
    console: Console,
    catalogue: Catalogue,
    user: str,
    events: tuple[Event, ...],
    ranking: rankloom.Ranking,
    num_candidates: int,
) -> None:
    console.rule(f"user {user}")
    for liked, word in ((True, "liked"), (False, "disliked")):
        titles = [_title(catalogue, e.item_id) for e in events if e.liked is liked]
        console.print(f"[bold]{word}[/] {'; '.join(titles[-SHOWN_EVENTS:]) or 'nothing'}")
    routing = ranking.routing
    weights = ", ".join(f"{w.expert} {w.weight:.2f}" for w in routing.weights)
    console.print(f"[bold]route[/] {routing.route}   [bold]weights[/] {weights}")
    table = Table("rank", "item", "P(like)", "score")
    for item in ranking.items:
        title = _title(catalogue, item.item_id)
        table.add_row(str(item.rank), title, f"{item.probability:.3f}", f"{item.score:+.3f}")
    console.print(table)
    times = dataclasses.asdict(ranking.timing).items()
    spans = ", ".join(f"{name[:-2]} {1000 * value:.1f} ms" for name, value in times if value)
    console.print(f"{num_candidates} candidates: {spans}", highlight=False)


def _title(catalogue: Catalogue, item_id: str) -> str:
    item = catalogue.get(item_id)
    if item is None:
        return item_id
    return f"{item.title} ({', '.join(item.attributes)})"


def _judge(bundle: Path, data: Path, protocol: Protocol, console: Console) -> None:
    """Evaluates on the test rows; what was found is kept beside the bundle."""
    console.rule("how good is it?")
    kept = bundle.with_name(f"{bundle.name}-{open_bundle(bundle).digest[:12]}")
    page = kept.with_suffix(".txt")
    if not page.exists():
        _write_whole(page, _evaluation(bundle, data, protocol, kept.with_suffix(".json")))
    console.print(page.read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True)


def _evaluation(bundle: Path, data: Path, protocol: Protocol, json_path: Path) -> str:
    page = Console(record=True, file=io.StringIO(), width=110)
    report, scored, dataset = evaluate(
        bundle,
        data,
        protocol,
        through_grpc=False,
        progress=Progress(),
        max_rows=MAX_TEST_ROWS,
    )
    synthetic = reporting.synthetic_aucs(scored, dataset, read_truth(data))
    reporting.write_json(report, synthetic, json_path)
    reporting.show(page, report, synthetic)
    return page.export_text()


def _write_whole(path: Path, text: str) -> None:
    begun = path.with_suffix(".begun")
    begun.write_text(text, encoding="utf-8")
    begun.rename(path)
