"""Item texts by a language model, checked; what fails is written from the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.item_texts.from_catalogue import CatalogueWriter
from rankloom_training.item_texts.item_text import (
    MAX_DESCRIPTION_WORDS,
    MAX_KEYWORDS,
    ItemText,
    clean_keywords,
)
from rankloom_training.reasons.grounding import Grounding
from rankloom_training.teachers.chat import (
    ChatModel,
    Message,
    PromptRefusedError,
    assistant,
    digest_of_prompt,
    system,
    user,
)

MAX_REPAIRS = 2
ANSWER_TOKENS = 1024
MAX_SOURCE_WORDS = 100  # of the catalogue's description, as ThinkRec reads it
_SYSTEM = (
    "You summarise items of a catalogue. Answer with exactly two lines. The first: "
    f"'Keywords: ' and up to {MAX_KEYWORDS} keywords, separated by commas. The second: "
    f"'Description: ' and at most {MAX_DESCRIPTION_WORDS} words on strengths and weaknesses. "
    "Use only what is given, and name no other titles."
)
_ANSWER = re.compile(r"Keywords:(?P<keywords>[^\n]+)\n+Description:(?P<description>[^\n]+)\Z")


_CUT = "Your answer is not finished: it is too long. Write it anew."


class ChatWriter:
    """Asks up to 1 + MAX_REPAIRS times. The text says who wrote it."""

    def __init__(self, chat: ChatModel, catalogue: Catalogue) -> None:
        self._chat, self._grounding = chat, Grounding(catalogue)
        self._otherwise = CatalogueWriter(catalogue.items)

    @property
    def name(self) -> str:
        return self._chat.name

    def describe(self, item: Item) -> ItemText:
        """Raises TeacherError."""
        prompt: Sequence[Message] = describe_prompt(item)
        for _ in range(1 + MAX_REPAIRS):
            try:
                completion = self._chat.complete(prompt, ANSWER_TOKENS)
            except PromptRefusedError:
                break
            digest = digest_of_prompt(self.name, prompt, ANSWER_TOKENS)
            keywords, description = parsed(completion.text)
            fault = _CUT if completion.truncated else self._fault(keywords, description, item)
            if not fault:
                written = completion.written
                return ItemText(item.item_id, keywords, description, self.name, digest, written)
            prompt = (*describe_prompt(item), assistant(completion.text), user(fault))
        return self._otherwise.describe(item)

    def _fault(self, keywords: Sequence[str], description: str, item: Item) -> str:
        """What is wrong, as the model is told; empty if nothing is."""
        if not keywords or not description:
            return "Your answer must be the two lines, and nothing else. Write it anew."
        if len(description.split()) > MAX_DESCRIPTION_WORDS:
            return f"The description has more than {MAX_DESCRIPTION_WORDS} words. Write it anew."
        if problem := self._grounding.problem(f"{', '.join(keywords)}. {description}", [item]):
            return f"Your answer {problem}. Write it anew."
        return ""


def describe_prompt(item: Item) -> tuple[Message, ...]:
    """What the catalogue knows of the item."""
    lines = [f"Title: {item.title}"]
    lines += [f"Year: {item.year}"] if item.year is not None else []
    lines += [f"Labels: {', '.join(item.attributes)}"] if item.attributes else []
    words = item.description.split()[:MAX_SOURCE_WORDS]
    lines += [f"About: {' '.join(words)}"] if words else []
    return (system(_SYSTEM), user("\n".join(lines)))


def parsed(answer: str) -> tuple[tuple[str, ...], str]:
    """Keywords and description; empty if the answer has another form."""
    if (found := _ANSWER.match(answer.strip())) is None:
        return (), ""
    return clean_keywords(found["keywords"].split(",")), found["description"].strip()
