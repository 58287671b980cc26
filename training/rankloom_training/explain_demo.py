"""The explanations of the demonstration: why each typical user is shown the best item."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

import rankloom
from rankloom_features.catalogue import Catalogue

NUM_EVENTS = 3  # of the evidence, the most influential


def explain(
    client: rankloom.Client,
    catalogue: Catalogue,
    best: Sequence[tuple[str, str]],
    console: Console,
) -> None:
    """``best``: user and item, for each explanation."""
    console.rule("why?")
    for user, item_id in best:
        found = client.explain(item_id, user=user).result()
        console.print(f"[bold]{_title(catalogue, item_id)}[/] for {user}: {found.probability:.0%}")
        console.print(found.text, style="italic", highlight=False)
        for each in _strongest(found.evidence):
            word = "liked" if each.liked else "disliked"
            title = _title(catalogue, each.item_id)
            console.print(f"  {each.influence:+.3f}  {word} {title}", highlight=False)
    console.print("each number: the score less what it would be without that event")


def _strongest(evidence: Sequence[rankloom.Evidence]) -> list[rankloom.Evidence]:
    return sorted(evidence, key=lambda each: -abs(each.influence))[:NUM_EVENTS]


def _title(catalogue: Catalogue, item_id: str) -> str:
    item = catalogue.get(item_id)
    return f'"{item.title}"' if item else item_id
