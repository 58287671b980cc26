"""The stage of the traces: what the language model is taught to say, and about which rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue
from rankloom_features.event_store.memory import NO_EVENTS
from rankloom_features.loading import provider_from_bytes
from rankloom_features.ranker import TreeRanker
from rankloom_training.data import Dataset, Split
from rankloom_training.reasons.grounding import named_items
from rankloom_training.reasons.influences import TreeInfluences
from rankloom_training.reasons.trace import Trace, TraceKind
from rankloom_training.stages.artefacts import (
    CollaborativeFiles,
    ReviewsFiles,
    TracesFiles,
    TreesFiles,
)
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.teachers.evidence_rationale import EvidenceRationales
from rankloom_training.teachers.teacher import Teacher
from rankloom_training.traces.cases import CaseMaker, CaseOptions
from rankloom_training.traces.trace_file import sound, traces_of
from rankloom_training.visibility import Protocol
from rankloom_training.words import Cited, TaughtText

IN_EVERY_WINDOW = 10  # events that the prompt of every training row has, if there are as many


@dataclass(frozen=True, slots=True)
class TracesStage(Stage):
    """Texts from a file of traces, or written by the evidence teacher for a share of the rows."""

    protocol: Protocol
    lm_rows: int
    traces: str | None
    trace_share: float
    trace_kind: TraceKind
    seed: int
    makes = TracesFiles
    needs = (CollaborativeFiles, TreesFiles)
    may_need = (ReviewsFiles,)
    code = (
        "rankloom_features",
        "rankloom_ranker.phrasing",
        "rankloom_training.reasons",
        "rankloom_training.stages.rows",
        "rankloom_training.teachers",
        "rankloom_training.traces",
        "rankloom_training.words",
    )

    @property
    def options(self) -> dict[str, object]:
        """A file of traces counts by what is in it."""
        digest = sha256(Path(self.traces).read_bytes()).hexdigest() if self.traces else None
        return {**super(TracesStage, self).options, "traces": digest}

    def run(self, given: StageInputs) -> None:
        """Keeps the traces that may be learned from, and what they cite."""
        rows = self._rows(given.dataset)
        if self.traces:
            own = set(rows.tolist())
            found = [
                each for each in traces_of(Path(self.traces), given.dataset) if each.row in own
            ]
        else:
            found = sound(list(self._written(given, rows)))
        given.progress.note(f"{len(found)} texts")
        said = _said(found, given.dataset.catalogue)
        TracesFiles(given.folder).write(said, are_phrased=bool(said) and not self.traces)

    def _rows(self, data: Dataset) -> NDArray[np.int64]:
        """Rows that the language model is trained on and that have an earlier event."""
        rows = LogRows.of(data, self.protocol, self.seed)
        chosen = rows.for_language_model(Split.TRAIN, self.lm_rows)
        own = np.unique(rows.indices(Split.TRAIN))
        own = own[chosen[data.log.user[own]] & (own > data.log.start[data.log.user[own]])]
        return np.asarray(own)

    def _written(self, given: StageInputs, rows: NDArray[np.int64]) -> Iterator[Trace]:
        number = round(self.trace_share * len(rows))
        drawn = np.random.default_rng(self.seed).permutation(rows)[:number]
        options = CaseOptions(protocol=self.protocol, seed=self.seed, newest=IN_EVERY_WINDOW)
        maker = CaseMaker(given.dataset, _influences(given), options)
        teacher = self._teacher()
        for done, row in enumerate(sorted(drawn.tolist()), 1):
            yield teacher.trace(maker.case(row))
            given.progress.step(done, number)

    def _teacher(self) -> Teacher:
        if self.trace_kind is TraceKind.RATIONALE:
            return EvidenceRationales(self.seed, cited_only=True)
        return EvidenceTeacher(self.seed, cited_only=True)


def _influences(given: StageInputs) -> TreeInfluences:
    """Measured on the models that are served."""
    data = given.dataset
    encoder, item_vectors = given.of(CollaborativeFiles).model()
    trees, item_statistics, user_model = given.of(TreesFiles).ranker()
    reviews = given.maybe(ReviewsFiles)
    provider = provider_from_bytes(
        catalogue=data.catalogue.to_bytes(),
        events=NO_EVENTS,
        encoder=encoder,
        item_vectors=item_vectors,
        item_statistics=item_statistics,
        user_model=user_model,
        item_columns=data.item_columns.to_bytes() if len(data.item_columns) else None,
        rater=reviews.rater() if reviews else None,
    )
    return TreeInfluences(provider, TreeRanker(trees))


def _said(traces: Sequence[Trace], catalogue: Catalogue) -> list[TaughtText]:
    return [TaughtText(trace.row, trace.text, _cited(trace, catalogue)) for trace in traces]


def _cited(trace: Trace, catalogue: Catalogue) -> tuple[Cited, ...]:
    """The events that the text names: those for its verdict first, the strongest first."""
    sign = 1.0 if trace.verdict else -1.0
    events = sorted(trace.events, key=lambda event: -sign * event.influence)
    items = [item for event in events if (item := catalogue.get(event.item_id)) is not None]
    named = {item.item_id for item in named_items(trace.text, items)}
    return tuple(
        Cited(catalogue.index(event.item_id), event.liked, event.influence > 0.0)
        for event in events
        if event.item_id in named
    )
