"""Rankings and explanations as text for a terminal, or as JSON for a program."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta

from rankloom._cli.alignment import aligned, visible
from rankloom._cli.charts import evidence_chart
from rankloom._events import ModelInfo
from rankloom._features import UserFeatures
from rankloom._results import (
    Explanation,
    ItemExplanation,
    RankedItem,
    Ranking,
    Revision,
    Routing,
    Timing,
)
from rankloom._retrievals import Recommendation, Retrieval

_SHOWN_EVENTS = 10


def as_json(ranking: Ranking) -> str:
    """Return one JSON object; its keys are the fields of `Ranking`."""
    return json.dumps({**asdict(ranking), "is_fallback": ranking.is_fallback}, indent=2)


def as_text(ranking: Ranking) -> str:
    """Return how the items were ranked, a table of them, and explanations of the best."""
    head = [(label, value) for label, value in _head(ranking) if value]
    rows = [("rank", "item", "score", "probability"), *map(_row, ranking.items)]
    explained = (line for each in ranking.explanations for line in _explained(each))
    return "\n".join([*aligned(head, "<<"), "", *aligned(rows, "><>>"), *explained])


def _explained(explanation: ItemExplanation) -> Iterable[str]:
    yield ""
    yield f"{explanation.item_id}: {explanation.verdict}"
    if text := explanation.text.strip():
        yield visible(text)
    yield from evidence_chart(explanation.evidence)


def retrieval_as_json(retrieval: Retrieval) -> str:
    """Return one JSON object; its keys are the fields of `Retrieval`."""
    return json.dumps(asdict(retrieval), indent=2)


def recommendation_as_json(recommendation: Recommendation) -> str:
    """Return one JSON object; its keys are the fields of `Recommendation`."""
    return json.dumps(asdict(recommendation), indent=2)


def retrieval_as_text(retrieval: Retrieval) -> str:
    """Return how the items were found, and a table of them."""
    head = [(label, value) for label, value in _retrieval_head(retrieval) if value]
    items = ((str(item.rank), item.item_id, f"{item.score:.4f}") for item in retrieval.items)
    return "\n".join(
        [*aligned(head, "<<"), "", *aligned([("rank", "item", "score"), *items], "><>")]
    )


def _retrieval_head(retrieval: Retrieval) -> Iterable[tuple[str, str]]:
    yield "request", retrieval.request_id
    yield "revision", _revision(retrieval.revision)
    why = retrieval.fallback_reason or ("cold start" if retrieval.cold_start else "")
    yield "order", f"{retrieval.order}{why and f' ({why})'}"
    yield "time", _times(retrieval.timing)


def fields_as_json(value: UserFeatures | ModelInfo | Mapping[str, object]) -> str:
    """Return one JSON object; its keys are the fields of the value, and NaN is null."""
    fields = value if isinstance(value, Mapping) else asdict(value)
    return json.dumps(_without_nan(fields), indent=2, default=datetime.isoformat)


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def as_table(facts: Mapping[str, object]) -> str:
    """Return a line for each fact."""
    rows = [(name.replace("_", " "), visible(str(value))) for name, value in facts.items()]
    return "\n".join(aligned(rows, "<<"))


def user_features_as_text(features: UserFeatures) -> str:
    """Return what was used, the length of the vector, and the newest events."""
    age = features.history_age_s
    facts: dict[str, object] = {
        "feature version": features.feature_version,
        "vector": f"{len(features.vector)} numbers{' (cold start)' * features.cold_start}",
        "events": len(features.events),
        "history version": "-" if features.history_version is None else features.history_version,
        "newest event": "-" if age is None else f"{timedelta(seconds=round(age))} ago",
    }
    if features.tabular is not None:
        rows = features.tabular.rows
        facts["columns"] = f"{len(rows[0]) if rows else 0} of {len(rows)} items; see --json"
    newest = features.events[: -_SHOWN_EVENTS - 1 : -1]
    events = [(visible(each.item_id), "liked" if each.liked else "disliked") for each in newest]
    table = ["", *aligned([("newest", "label"), *events], "<<")] if events else []
    return "\n".join([as_table(facts), *table])


def explanation_as_json(explanation: Explanation) -> str:
    """Return one JSON object; its keys are the fields of `Explanation`."""
    return json.dumps(asdict(explanation), indent=2, default=datetime.isoformat)


def explanation_as_text(explanation: Explanation) -> str:
    """Return the verdict, how it was found and a chart of the evidence, without the text."""
    head = _verdict(explanation) if explanation.stored is None else _stored(explanation)
    rows = [(label, value) for label, value in head if value]
    chart = list(evidence_chart(explanation.evidence))
    return "\n".join([*aligned(rows, "<<"), *(["", *chart] if chart else [])])


def _stored(explanation: Explanation) -> Iterable[tuple[str, str]]:
    assert explanation.stored is not None
    yield "written", explanation.stored.written.isoformat(" ", "seconds")
    yield "generator", visible(explanation.stored.generator)
    yield "rating", f"{explanation.stored.rating:g}"
    yield "rationales", explanation.stored.digest
    yield "request", explanation.request_id
    yield "revision", _revision(explanation.revision)


def _verdict(explanation: Explanation) -> Iterable[tuple[str, str]]:
    yield "verdict", explanation.verdict
    yield "probability", f"{explanation.probability:.4f}"
    yield "score", f"{explanation.score:.4f}"
    yield "request", explanation.request_id
    yield "revision", _revision(explanation.revision)
    yield from _routing(explanation.routing)
    read, written = explanation.prompt_tokens, explanation.generated_tokens
    yield "tokens", f"{read} read  {written} written ({explanation.stop_reason})"


def _head(ranking: Ranking) -> Iterable[tuple[str, str]]:
    yield "request", ranking.request_id
    yield "revision", _revision(ranking.revision)
    yield from _routing(ranking.routing)
    reason = f" ({ranking.fallback_reason})" if ranking.fallback_reason else ""
    yield "fallback level", f"{ranking.fallback_level}{reason}"
    yield "time", _times(ranking.timing)


def _revision(revision: Revision) -> str:
    return f"{revision.number}  {revision.bundle_digest}".rstrip()


def _routing(routing: Routing) -> Iterable[tuple[str, str]]:
    yield "route", f"{routing.route}{', cold start' if routing.cold_start else ''}"
    yield "weights", "  ".join(f"{each.expert} {each.weight:.3f}" for each in routing.weights)
    yield "entropy", f"{routing.entropy:.3f} nats"
    yield "history", f"{routing.history_events} events"


def _times(timing: Timing) -> str:
    """The stages that the call had."""
    stages = asdict(timing).items()
    return "  ".join(
        f"{name.removesuffix('_s')} {value * 1e3:.1f} ms" for name, value in stages if value
    )


def _row(item: RankedItem) -> tuple[str, str, str, str]:
    if not item.scored:
        return str(item.rank), item.item_id, "-", "-"
    return str(item.rank), item.item_id, f"{item.score:.4f}", f"{item.probability:.4f}"
