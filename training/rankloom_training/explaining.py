"""Asks a server of a bundle to explain test rows, as a client would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

import rankloom
from rankloom_training.data import DataError, Dataset, Split
from rankloom_training.explained import ExplainedRow
from rankloom_training.scoring import Request, Step, requests_of
from rankloom_training.serving import serving
from rankloom_training.traces.trace_file import traces_of
from rankloom_training.visibility import Protocol, scoring_view

IN_FLIGHT = 4
TIMEOUT_S = 120.0  # an explanation that a deadline cuts says more of this machine than of the model
SEED = 0


def read_references(path: Path, dataset: Dataset) -> dict[int, str]:
    """Row of the log → what a teacher wrote about it, of test rows with an earlier event.

    Raises DataError if the file is not of traces of this log, or has none of such a row.
    """
    texts = {each.row: each.text for each in traces_of(path, dataset)}
    found = {row: text for row, text in texts.items() if dataset.log.split[row] == Split.TEST}
    if not found:
        raise DataError(
            f"{path}: no trace is of a test row; make some with `rankloom traces make --split test`"
        )
    return found


def explain_rows(
    bundle: Path,
    dataset: Dataset,
    protocol: Protocol,
    number: int,
    on_step: Step,
    references: Mapping[int, str] | None = None,
) -> list[ExplainedRow]:
    """Explains at most ``number`` test rows with an earlier event, drawn at random.

    Each is ranked too, alone and with the same history. ``references``: row → what a teacher
    wrote about it; only such rows are explained. Raises ServerStartError.
    """
    requests = _drawn(dataset, protocol, number, references)
    with serving(bundle) as address:
        rows = list(_explained(address, requests, on_step))
    if references is None:
        return rows
    texts = (references[int(request.rows[0])] for request in requests)
    return [replace(row, reference=text) for row, text in zip(rows, texts, strict=True)]


def _drawn(
    dataset: Dataset, protocol: Protocol, number: int, references: Mapping[int, str] | None
) -> list[Request]:
    view = scoring_view(dataset.log, protocol, Split.TEST)
    if references is not None:
        view = view.only(np.isin(view.rows, list(references)))
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
    ranking = client.rank([item.item_id], history=request.history)
    explanation = client.explain(item.item_id, history=request.history).result()
    user = log.user_ids[log.user[request.rows[0]]]
    return ExplainedRow(user, item, explanation, ranking.items[0].probability)
