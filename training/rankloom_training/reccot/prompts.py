"""What a generator is asked about one review."""

from __future__ import annotations

from rankloom_features.catalogue import Item
from rankloom_training.data.reviews import Reviews
from rankloom_training.teachers.chat import Message, system, user

MAX_PROMPT_CHARS = 1500  # of the review; the rest says little that its beginning does not
MAX_DESCRIPTION_CHARS = 200
_INSTRUCTION = (
    "You read one review of an item. Answer with one JSON object and nothing else: "
    '{"think": "...", "answer": N}. think: in at most 40 words, what in the review and the item '
    "speaks for it and what against it, in the review's own words; name nothing that is not given. "
    "answer: the rating from 1 to 5 that the reviewer gave."
)


def source_of(reviews: Reviews, row: int) -> str:
    """The item and the review: all that an answer may speak of."""
    item = item_text(reviews.catalogue.items[reviews.item[row]])
    return f"Item: {item}\nReview: {reviews.texts[row][:MAX_PROMPT_CHARS]}"


def prompt_of(reviews: Reviews, row: int) -> str:
    """For a language model that was taught what comes next."""
    return f"{source_of(reviews, row)}\nAnswer: "


def messages_of(reviews: Reviews, row: int) -> tuple[Message, ...]:
    """For a model that follows instructions."""
    return (system(_INSTRUCTION), user(source_of(reviews, row)))


def item_text(item: Item) -> str:
    labels = f" ({', '.join(item.attributes)})" if item.attributes else ""
    description = f" {item.description[:MAX_DESCRIPTION_CHARS]}." if item.description else ""
    return f"{item.title}{labels}.{description}"
