"""The evidence teacher: says in plain words only what the data proves about a score."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from rankloom_ranker.phrasing.places import CANDIDATE
from rankloom_ranker.phrasing.statements import TAUGHT, Statement
from rankloom_ranker.phrasing.wording import (
    Phrasing,
    listed,
    num_words,
    quoted,
    shared_attributes,
)
from rankloom_training.reasons.case import GENEROUS, PICKY, SHIFT, EventInfluence, TraceCase
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.trace import Trace

MIN_WORDS, MAX_WORDS = 15, 45  # as long as the titles allow it
MAX_CITED = 3
MAX_SERVED = 2  # a server gives the language model as many events to cite
WORTH_CITING = 0.3  # share of the strongest event's influence
MIN_TASTE_EVENTS, CLEAR_TASTE = 3, 0.7


@dataclass(frozen=True, slots=True)
class EvidenceText:
    """``cited``: events that the text cites for its verdict, the strongest first. ``against``:
    those that it names as counter-evidence.
    """

    text: str
    cited: tuple[EventInfluence, ...]
    against: tuple[EventInfluence, ...]


def write_evidence(
    case: TraceCase, verdict: bool, seed: int, *, cited_only: bool = False
) -> EvidenceText | None:
    """Explains the verdict from the case's influences; None if no event moves the score.

    The same case, verdict and seed give the same text.
    """
    return _Writer(case, verdict, seed, cited_only=cited_only).write()


class EvidenceTeacher:
    """Writes from measured influences alone; needs no model and no network.

    Its verdict without the label is the side of the score. Where the label is the other one,
    it writes for the label from the events that speak for it, and names the stronger ones.
    ``cited_only``: it says nothing that the cited events and the candidate do not prove, and
    quotes only the titles of these events.
    """

    name = "evidence"

    def __init__(self, seed: int = 0, *, cited_only: bool = False) -> None:
        self._seed, self._cited_only = seed, cited_only

    def trace(self, case: TraceCase) -> Trace:
        blind = case.score > 0.0
        blind_written = self._written(case, blind)
        written = self._written(case, case.liked)
        return Trace(
            row=case.row,
            item_id=case.candidate.item_id,
            verdict=case.liked,
            text=written.text if written else "",
            teacher=self.name,
            prompt_digest=hashlib.sha256(repr((self._seed, case)).encode()).hexdigest(),
            written=datetime.now(UTC),
            events=case.trace_events,
            attempts=1 if blind == case.liked else 2,
            blind_verdict=blind,
            blind_text=blind_written.text if blind_written else "",
            problem=None if written else TraceProblem.NO_EVIDENCE,
        )

    def _written(self, case: TraceCase, verdict: bool) -> EvidenceText | None:
        return write_evidence(case, verdict, self._seed, cited_only=self._cited_only)


class _Writer:
    """Writes one text."""

    def __init__(self, case: TraceCase, verdict: bool, seed: int, *, cited_only: bool) -> None:
        self._case, self._verdict, self._cited_only = case, verdict, cited_only
        self._random = np.random.default_rng((seed, case.row, int(verdict)))
        self._phrasing = Phrasing(self._random, TAUGHT)
        self._side = "YES" if verdict else "NO"
        self._candidate_named = False

    def write(self) -> EvidenceText | None:
        case, verdict = self._case, self._verdict
        supporting, opposing = case.speaking_for(verdict), case.speaking_for(not verdict)
        if not supporting and not opposing:
            return None
        if not supporting:
            against = opposing[:1]
            return EvidenceText(self._joined([self._say("THIN", against)]), (), against)
        cited = self._chosen(supporting)
        said = [self._say(f"FOR_{_opinion(cited[0])}", cited)]
        against = self._counter(cited, opposing)
        after = [self._say(f"AGAINST_{_opinion(each)}", [each]) for each in against]
        facts = [self._say(name, cited) for name in self._facts(cited)]
        return EvidenceText(self._arranged(said, facts, after), cited, against)

    def _chosen(self, supporting: tuple[EventInfluence, ...]) -> tuple[EventInfluence, ...]:
        """The strongest events, of one opinion, so that one sentence can speak of them."""
        strongest = supporting[0]
        alike = [
            each
            for each in supporting
            if each.liked == strongest.liked
            and abs(each.influence) >= WORTH_CITING * abs(strongest.influence)
        ]
        most = MAX_SERVED if self._cited_only else MAX_CITED
        return tuple(alike[: int(self._random.integers(1, most + 1))])

    def _counter(
        self, cited: tuple[EventInfluence, ...], opposing: tuple[EventInfluence, ...]
    ) -> tuple[EventInfluence, ...]:
        """The strongest event of the other side: always if it weighs more, else now and then."""
        if not opposing:
            return ()
        weight = abs(opposing[0].influence) / abs(cited[0].influence)
        told = weight >= 1.0 or (weight >= WORTH_CITING and self._random.random() < 0.5)
        return opposing[:1] if told else ()

    def _facts(self, cited: Sequence[EventInfluence]) -> list[str]:
        """What else is true of the user and supports or tempers the verdict, in random order."""
        case, facts = self._case, list[str]()
        if self._shared(cited):
            facts.append("SHARED")
        if self._cited_only:
            return facts
        if self._taste():
            facts.append("TASTE")
        if case.level is not None and (case.level >= GENEROUS or case.level <= PICKY):
            facts.append("GENEROUS" if case.level >= GENEROUS else "PICKY")
        if abs(case.shift) >= SHIFT:
            facts.append("RISING" if case.shift > 0 else "FALLING")
        return [facts[at] for at in self._random.permutation(len(facts))]

    def _shared(self, cited: Sequence[EventInfluence]) -> list[str]:
        """Attributes of the candidate that all cited events have, if they were judged alike."""
        if cited[0].liked != self._verdict:
            return []
        return shared_attributes(self._case.candidate, [each.item for each in cited])

    def _taste(self) -> str:
        """An attribute of the candidate on which the user's opinion is clear and as the verdict."""
        for name in self._case.candidate.attributes:
            share, num_events = self._case.share_liked(name)
            agreeing = share if self._verdict else 1.0 - share
            if num_events >= MIN_TASTE_EVENTS and agreeing >= CLEAR_TASTE:
                return name
        return ""

    def _say(self, statement: str, events: Sequence[EventInfluence]) -> str:
        """A sentence of this verdict's side."""
        wanted = Statement[f"{self._side}_{statement}"]
        return self._phrasing.say(wanted, lambda blank: self._filled(blank, events))

    def _filled(self, blank: str, events: Sequence[EventInfluence]) -> str:
        if blank == "titles":
            return listed([quoted(each.item.title) for each in events])
        if blank == "shared":
            return listed(self._shared(events))
        return self._taste() if blank == "taste" else self._this()

    def _this(self) -> str:
        """The candidate: by its title at most once."""
        title = self._case.candidate.title
        may_name = title and not self._cited_only and not self._candidate_named
        if may_name and self._random.random() < 0.5:
            self._candidate_named = True
            return quoted(title)
        return self._phrasing.pick(CANDIDATE)

    def _arranged(self, said: list[str], facts: list[str], after: list[str]) -> str:
        """As many facts as there is room for, between the evidence and its counterpart."""
        room = int(self._random.integers(MIN_WORDS + 5, MAX_WORDS + 1)) - num_words([*said, *after])
        kept = list(_fitting(facts, room))
        end = self._say("END", ())
        parts = [*said, *kept, *after]
        short = num_words(parts) < MIN_WORDS
        if short or (num_words([*parts, end]) <= MAX_WORDS and self._random.random() < 0.6):
            parts.append(end)
        return self._joined(parts)

    def _joined(self, parts: list[str]) -> str:
        while num_words(parts) < MIN_WORDS:
            parts = [*parts, self._say("END", ())]
        return " ".join(parts)


def _fitting(sentences: Sequence[str], room: int) -> Iterator[str]:
    for sentence in sentences:
        if (room := room - num_words([sentence])) >= 0:
            yield sentence


def _opinion(event: EventInfluence) -> str:
    return "LIKED" if event.liked else "DISLIKED"
