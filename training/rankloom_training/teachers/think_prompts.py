"""ThinkRec's conversation: a first question without the label, then hints that hold it.

ThinkRec (arXiv 2505.15091) gives its teacher the label and asks until the label's letters turn
up. Here the first answer is kept apart, a hint says what was wrong, and there are few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rankloom_features.catalogue import Item
from rankloom_training.item_texts.item_text import MAX_KEYWORDS, ItemText
from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.verdicts import word_of
from rankloom_training.teachers.chat import Message, assistant, system, user

Texts = Mapping[str, ItemText]  # by item id
NO_TEXTS: Texts = MappingProxyType({})
_SYSTEM = (
    "You judge whether a person will like an item, from what the person liked and disliked "
    "before. Begin with the single word Yes or No and a full stop. Then explain it to the person, "
    "as 'you', in 20 to 60 words. Cite one to three of the items below that decide the matter, "
    "each by its exact title between double quotes. Name no other titles, and no facts that are "
    "not given here."
)
_REFLECT = (
    "Reflect on what you overlooked, and write the whole answer anew.",
    "Say to yourself why the first reading went wrong; then write the whole answer anew.",
    "Weigh the items again from the start, and write the whole answer anew.",
)


def think_prompt(case: TraceCase, texts: Texts = NO_TEXTS) -> tuple[Message, ...]:
    """The first question: history and candidate, without the label."""
    candidate = item_line(case.candidate, texts)
    return (system(_SYSTEM), user(f"{history_text(case, texts)}\n\nThe item: {candidate}"))


def hinted_prompt(
    first: Sequence[Message], liked: bool, answer: str, problem: TraceProblem, attempt: int
) -> tuple[Message, ...]:
    """The first question, the answer that failed, and what is wrong with it.

    Only the last answer stands there, so that the prompt does not grow.
    """
    hint = (
        f"The correct answer is {word_of(liked)}: the person did "
        f"{'like' if liked else 'not like'} the item."
        if problem in (TraceProblem.WRONG_VERDICT, TraceProblem.NO_VERDICT)
        else f"The verdict {word_of(liked)} is right, but your answer {problem}."
    )
    reflect = _REFLECT[(attempt - 1) % len(_REFLECT)]
    return (*first, assistant(answer), user(f"{hint} {reflect}"))


def history_text(case: TraceCase, texts: Texts = NO_TEXTS) -> str:
    """The events, oldest first, each with the opinion."""
    events = [(each.item, each.liked) for each in case.events]
    return f"So far, oldest first:\n{events_text(events, texts)}"


def events_text(events: Sequence[tuple[Item, bool]], texts: Texts = NO_TEXTS) -> str:
    """A numbered line for each item and opinion."""
    return "\n".join(
        f"{number}. {'liked' if liked else 'disliked'}: {item_line(item, texts)}"
        for number, (item, liked) in enumerate(events, 1)
    )


def item_line(item: Item, texts: Texts = NO_TEXTS) -> str:
    """Quoted title, and year with keywords or attributes as far as they are known."""
    text = texts.get(item.item_id)
    facts = [str(item.year)] if item.year is not None else []
    facts += text.keywords if text else item.attributes[:MAX_KEYWORDS]
    return f'"{item.title}"' + (f" ({', '.join(facts)})" if facts else "")
