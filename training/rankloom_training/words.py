"""What is said about rows of the log, as tokens: evidence, and the text that cites it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from rankloom_engine.explain import MAX_EXPLAIN_TOKENS
from rankloom_engine.prompt import PromptFormat, evidence_ids, item_ids, word_ids
from rankloom_features.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Cited:
    """An event that a text cites. ``item``: its catalogue index. ``speaks_for``: a like."""

    item: int
    liked: bool
    speaks_for: bool


@dataclass(frozen=True, slots=True)
class TaughtText:
    """A text about a row of the log, and the events that it cites, the strongest first."""

    row: int
    text: str
    cited: tuple[Cited, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """``given``: tokens of the evidence. ``ids``: those of the text to learn, the stop token last.

    ``cites``: catalogue indices of the items of the evidence.
    """

    given: tuple[int, ...]
    ids: tuple[int, ...]
    cites: frozenset[int]

    def known(self, items: Iterable[int]) -> bool:
        """Whether all that is cited is among these items: nothing else may be learnt."""
        return self.cites <= set(items)


def words_of(
    said: Iterable[TaughtText], catalogue: Catalogue, tokenizer: Tokenizer, fmt: PromptFormat
) -> dict[int, Words]:
    """Row → words, for texts of at least one token and of no more than are served."""
    made = {each.row: _words(each, catalogue, tokenizer, fmt) for each in said}
    return {row: words for row, words in made.items() if 1 < len(words.ids) <= MAX_EXPLAIN_TOKENS}


def _words(
    said: TaughtText, catalogue: Catalogue, tokenizer: Tokenizer, fmt: PromptFormat
) -> Words:
    structural = tokenizer.get_added_tokens_decoder().keys()
    given = (
        evidence_ids(
            fmt,
            item_ids(tokenizer, fmt, structural, catalogue.items[each.item]),
            each.liked,
            each.speaks_for,
        )
        for each in reversed(said.cited)  # the strongest stands next to the words
    )
    return Words(
        tuple(token for ids in given for token in ids),
        word_ids(tokenizer, fmt, said.text),
        frozenset(each.item for each in said.cited),
    )
