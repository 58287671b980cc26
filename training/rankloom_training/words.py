"""What is said about rows of the log, as tokens: texts that follow a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from rankloom_engine.explain import MAX_EXPLAIN_TOKENS
from rankloom_engine.prompt import PromptFormat, word_ids


@dataclass(frozen=True, slots=True)
class Said:
    """A text about a row of the log. ``cites``: catalogue indices of the items that it names."""

    row: int
    text: str
    cites: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens of a text, the stop token last, and the items that it names."""

    ids: tuple[int, ...]
    cites: frozenset[int]

    def known(self, items: Iterable[int]) -> bool:
        """Whether all that is named is among these items: nothing else may be learnt."""
        return self.cites <= set(items)


def words_of(said: Iterable[Said], tokenizer: Tokenizer, fmt: PromptFormat) -> dict[int, Words]:
    """Row → words, for texts of at least one token and of no more than are served."""
    tokens = ((each, word_ids(tokenizer, fmt, each.text)) for each in said)
    return {
        each.row: Words(ids, frozenset(each.cites))
        for each, ids in tokens
        if 1 < len(ids) <= MAX_EXPLAIN_TOKENS
    }
