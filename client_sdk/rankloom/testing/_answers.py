"""What a fake server answers: values made from little, delays, and one script for each method."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, NoReturn, TypeVar

import grpc

from rankloom._events import ModelInfo
from rankloom._features import FeatureQuery, TabularFeatures, UserFeatures
from rankloom._results import (
    Event,
    Evidence,
    Explanation,
    ExplanationSource,
    FallbackLevel,
    ItemExplanation,
    RankedItem,
    Ranking,
    Revision,
    Route,
    Routing,
    StopReason,
    StoredRationale,
    Timing,
    Verdict,
)
from rankloom._retrievals import Recommendation, Retrieval, RetrievalOrder, RetrievedItem
from rankloom.errors import RankloomError, ServerError
from rankloom.testing._refusals import fail, send

_Answer = TypeVar("_Answer")

REVISION: Final = Revision(1, "fake")
_ROUTING: Final = Routing(Route.GLOBAL, (), entropy=0.0, cold_start=False, history_events=0)
_WRITTEN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NUM_FEATURES: Final = 8
_NUM_COLUMNS: Final = 3
MODEL_INFO: Final = ModelInfo(
    kind="fake",
    dim=_NUM_FEATURES,
    feature_version="fake",
    num_items=0,
    columns=tuple(f"column_{index}" for index in range(_NUM_COLUMNS)),
    schema_digest="fake",
    like_above=3.0,
)


def make_ranking(scores: Mapping[str, float | None]) -> Ranking:
    """Return a ranking of items by their scores, best first; ties keep the mapping's order.

    Items with the score None come last and are unscored. Everything else has a plain value, and
    `dataclasses.replace` changes it:

        dataclasses.replace(make_ranking({"318": 1.5}), fallback_level=FallbackLevel.TREES)
    """
    best_first = sorted(scores.items(), key=lambda each: (each[1] is None, -(each[1] or 0.0)))
    items = (_ranked(rank, *each) for rank, each in enumerate(best_first, 1))
    return Ranking(
        request_id="",
        revision=REVISION,
        routing=_ROUTING,
        fallback_level=FallbackLevel.EXACT_MIXTURE,
        fallback_reason=None,
        items=tuple(items),
        timing=Timing(0.0, 0.0, 0.0, 0.0, 0.0),
    )


def make_retrieval(scores: Mapping[str, float]) -> Retrieval:
    """Return a retrieval of items by their scores, best first, by the user's vector."""
    best_first = sorted(scores.items(), key=lambda each: -each[1])
    items = (RetrievedItem(item_id, rank, s) for rank, (item_id, s) in enumerate(best_first, 1))
    return Retrieval(
        request_id="",
        revision=REVISION,
        items=tuple(items),
        order=RetrievalOrder.VECTOR,
        fallback_reason=None,
        cold_start=False,
        history_version=None,
        timing=Timing(0.0, 0.0, 0.0, 0.0, 0.0),
    )


def make_recommendation(scores: Mapping[str, float | None]) -> Recommendation:
    """Return a recommendation of these items, ranked as by `make_ranking`."""
    return Recommendation(make_ranking(scores), len(scores), RetrievalOrder.VECTOR, None)


def make_explanation(
    text: str, *, score: float = 1.0, evidence: Sequence[Evidence] = ()
) -> Explanation:
    """Return an explanation with this text and evidence, and the verdict that fits the score."""
    return Explanation(
        request_id="",
        text=text,
        verdict=Verdict.LIKED if score >= 0 else Verdict.DISLIKED,
        score=score,
        probability=_probability(score),
        revision=REVISION,
        routing=_ROUTING,
        prompt_tokens=0,
        generated_tokens=len(text.split()),
        stop_reason=StopReason.STOP_TOKEN,
        evidence=tuple(evidence),
    )


def make_stored_explanation(text: str, *, rating: float = 4.0) -> Explanation:
    """Return an explanation as a server stores it: with this text, and without a verdict."""
    return Explanation(
        request_id="",
        text=text,
        verdict=Verdict.UNKNOWN,
        score=0.0,
        probability=0.0,
        revision=REVISION,
        routing=Routing(Route.UNKNOWN, (), entropy=0.0, cold_start=False, history_events=0),
        prompt_tokens=0,
        generated_tokens=0,
        stop_reason=StopReason.UNKNOWN,
        source=ExplanationSource.STORED,
        stored=StoredRationale(_WRITTEN, "fake", "fake", rating),
    )


def make_item_explanation(
    item_id: str, text: str, *, score: float = 1.0, evidence: Sequence[Evidence] = ()
) -> ItemExplanation:
    """Return an explanation for `Ranking.explanations`, made as by `make_explanation`."""
    whole = make_explanation(text, score=score, evidence=evidence)
    return ItemExplanation(
        item_id,
        whole.verdict,
        whole.text,
        whole.generated_tokens,
        whole.stop_reason,
        whole.evidence,
    )


def make_features(query: FeatureQuery) -> UserFeatures:
    """Return numbers that are always the same for the same user and items."""
    events = tuple(query.history or ())
    user = query.user if query.user is not None else repr([(e.item_id, e.liked) for e in events])
    ids = [item if isinstance(item, str) else item.item_id for item in query.items]
    rows = tuple(_numbers(f"{user}/{item_id}", _NUM_COLUMNS) for item_id in ids)
    return UserFeatures(
        vector=_numbers(user, _NUM_FEATURES),
        feature_version="fake",
        cold_start=query.user is None and not events,
        events=_newest(events, query.max_events),
        history_version=None if query.user is None else 0,
        history_age_s=None,
        tabular=TabularFeatures(rows, "fake") if ids else None,
        predicted_ratings=_ratings(user, ids) if query.predict_ratings and ids else None,
    )


def _newest(events: tuple[Event, ...], most: int | None) -> tuple[Event, ...]:
    return events if most is None else events[max(0, len(events) - most) :]


def _ratings(user: str, item_ids: Sequence[str]) -> tuple[float, ...]:
    return tuple(3.0 + 2.0 * _numbers(f"{user} {item_id}", 1)[0] for item_id in item_ids)


def default_score(item_id: str) -> float:
    """Return a number that is always the same for the same item."""
    return 3.0 * _numbers(item_id, 1)[0]


def _ranked(rank: int, item_id: str, score: float | None) -> RankedItem:
    if score is None:
        return RankedItem(item_id, rank, score=0.0, probability=0.0, scored=False)
    return RankedItem(item_id, rank, float(score), _probability(score), scored=True)


def _probability(score: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * score))


def _numbers(seed: str, num: int) -> tuple[float, ...]:
    """Return numbers from -1 to 1 in steps that float32 holds exactly."""
    generator = random.Random(seed)
    return tuple(generator.randint(-1024, 1024) / 1024 for _ in range(num))


@dataclass(frozen=True, slots=True)
class Delayed(Generic[_Answer]):
    """An answer that comes later; see `after`."""

    delay_s: float
    answer: _Answer


def after(delay_s: float, answer: _Answer) -> Delayed[_Answer]:
    """Return an answer that comes after a delay, or never if the call ends first.

    server.on_rank(after(0.5, {"318": 1.5}))
    """
    return Delayed(delay_s, answer)


class Script(Generic[_Answer]):
    """Answers call n with answer n, and every later call with the last one."""

    def __init__(self, default: _Answer) -> None:
        self._default = default
        self._lock = threading.Lock()
        self.set()

    def set(self, *answers: _Answer) -> None:
        """Start over with these answers; with none, every call gets the default."""
        with self._lock:
            self._answers, self._num_taken = answers or (self._default,), 0

    def take(self) -> _Answer:
        """Return the answer to the next call."""
        with self._lock:
            answer = self._answers[min(self._num_taken, len(self._answers) - 1)]
            self._num_taken += 1
        return answer


def play(answer: Any, call: object, context: grpc.ServicerContext) -> object:  # noqa: ANN401
    """Wait for a delayed answer, call a function, send an error; return what is left to send."""
    while isinstance(answer, Delayed) or callable(answer):
        if isinstance(answer, Delayed):
            wait(answer.delay_s, context)
            answer = answer.answer
        elif isinstance(answer, type) and issubclass(answer, RankloomError):
            answer = fail(answer)
        else:
            try:
                answer = answer(call)
            except RankloomError as error:
                answer = error
            except Exception as error:
                fault(f"the test's function raised {type(error).__name__}: {error}", context)
    if isinstance(answer, RankloomError):
        send(answer, context)
    return answer


def fault(problem: str, context: grpc.ServicerContext) -> NoReturn:
    """Tell the caller that the test's script is wrong."""
    send(ServerError(f"{problem}; correct the script of the fake server"), context)


def wait(delay_s: float, context: grpc.ServicerContext) -> None:
    """Return after the delay, or as soon as the call has ended."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(delay_s)
