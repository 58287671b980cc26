"""Asks a server of a bundle to explain test rows, as a client would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import rankloom
from rankloom_training.data import Dataset, Split
from rankloom_training.explained import ExplainedRow
from rankloom_training.scoring import Request, Step, requests_of
from rankloom_training.serving import serving
from rankloom_training.visibility import Protocol, scoring_view

IN_FLIGHT = 4
TIMEOUT_S = 120.0  # an explanation that a deadline cuts says more of this machine than of the model
SEED = 0


def explain_rows(
    bundle: Path, dataset: Dataset, protocol: Protocol, number: int, on_step: Step
) -> list[ExplainedRow]:
    """Explains at most ``number`` test rows with an earlier event, drawn at random.

    Each is ranked too, alone and with the same history. Raises ServerStartError.
    """
    requests = _drawn(dataset, protocol, number)
    with serving(bundle) as address:
        return list(_explained(address, requests, on_step))


def _drawn(dataset: Dataset, protocol: Protocol, number: int) -> list[Request]:
    view = scoring_view(dataset.log, protocol, Split.TEST)
    having = [request for request in requests_of(dataset, view) if len(request.seen)]
    order = np.random.default_rng(SEED).permutation(len(having))
    return [having[index] for index in order[:number]]


def _explained(address: str, requests: Sequence[Request], on_step: Step) -> Iterator[ExplainedRow]:
    with (
        rankloom.Client(address, timeout_s=TIMEOUT_S) as client,
        ThreadPoolExecutor(IN_FLIGHT) as threads,
    ):
        rows = threads.map(lambda request: _row(client, request), requests)
        for done, row in enumerate(rows, 1):
            on_step(done, len(requests))
            yield row


def _row(client: rankloom.Client, request: Request) -> ExplainedRow:
    """The request's first row."""
    item, log = request.items[0], request.dataset.log
    history = [rankloom.Event(each.item_id, each.liked) for each in request.events]
    ranking = client.rank([item.item_id], history=history)
    explanation = client.explain(item.item_id, history=history).result()
    user = log.user_ids[log.user[request.rows[0]]]
    return ExplainedRow(user, item, explanation, ranking.items[0].probability)
