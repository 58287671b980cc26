"""Which events the words of an explanation cite: for the verdict, and what outweighs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rankloom_engine.grounding import GroundedText
from rankloom_engine.phrased import PhrasedText
from rankloom_engine.prompt import MAX_CITED_EVENTS, evidence_ids
from rankloom_features.catalogue import Item
from rankloom_ranker.answers import EventEvidence
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.phrasing.places import CitedItem, sentence_places

MAX_CITED = MAX_CITED_EVENTS - 1  # for the verdict
WORTH_CITING = 0.3  # share of the strongest event's influence


def to_cite(evidence: Iterable[EventEvidence], *, liked: bool) -> tuple[EventEvidence, ...]:
    """The strongest events for the verdict, then the strongest against it if it weighs more.

    Those for the verdict are of one opinion, so that one sentence can speak of them.
    """
    sign = 1.0 if liked else -1.0
    ranked = sorted(evidence, key=lambda each: -sign * each.influence)
    supporting = [each for each in ranked if sign * each.influence > 0.0]
    cited = tuple(each for each in supporting if _goes_with(each, supporting[0]))[:MAX_CITED]
    for_it = supporting[0].influence if supporting else 0.0
    return (*cited, *(each for each in ranked[-1:] if _outweighs(each, for_it)))


def cited_ids(loaded: LoadedBundle, cited: Sequence[EventEvidence]) -> tuple[int, ...]:
    """Token ids of the evidence that words are to cite, as in training: the strongest last."""
    prompts, catalogue, ids = loaded.prompts, loaded.catalogue, tuple[int, ...]()
    for each in reversed(cited):
        index = catalogue.index(each.item_id)
        item = prompts.text_ids(catalogue.items[index], index)
        speaks_for = each.influence > 0.0
        ids += evidence_ids(prompts.format, item, each.liked, speaks_for)
    return ids


def guide_of(
    loaded: LoadedBundle, cited: Sequence[EventEvidence], items: Sequence[Item], liked: bool
) -> GroundedText | PhrasedText:
    """What keeps words to the truth. ``items``: of the prompt, the candidate's last."""
    if loaded.phraser is None:
        return loaded.grounder.guide(nameable(loaded, cited, items))
    events = (
        CitedItem(item, each.liked, each.influence > 0.0)
        for each in cited
        if (item := loaded.catalogue.get(each.item_id)) is not None
    )
    return loaded.phraser.guide(sentence_places(items[-1], tuple(events), liked=liked))


def nameable(
    loaded: LoadedBundle, cited: Sequence[EventEvidence], items: Sequence[Item]
) -> Sequence[Item]:
    """What the words may name of the prompt's ``items``, the candidate's last.

    With evidence to cite, these are the titles of its events alone, so that a named event is one
    that moved the score; attributes and years also of the candidate.
    """
    if not cited:
        return items
    events = [loaded.catalogue.get(each.item_id) for each in cited]
    return [*(event for event in events if event is not None), replace(items[-1], title="")]


def _goes_with(event: EventEvidence, strongest: EventEvidence) -> bool:
    alike = event.liked == strongest.liked
    return alike and abs(event.influence) >= WORTH_CITING * abs(strongest.influence)


def _outweighs(event: EventEvidence, for_it: float) -> bool:
    opposes = event.influence * for_it <= 0.0
    return opposes and abs(event.influence) > abs(for_it)
