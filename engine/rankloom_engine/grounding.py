"""Grounded decoding: the likeliest token with which a text still keeps to its prompt.

Most tokens may come next nearly everywhere, so they are tried in the order of their scores, and
the first that the rules allow is taken: a draw with noise on the scores is a draw from the allowed
tokens alone. Where few may come (in a quoted title, a number, a word that must go on), only those
are tried. It works on the text that the tokenizer makes of the tokens, so with any tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankloom_engine.lexicon import Lexicon, Named, plain
from rankloom_engine.text_rules import QUOTE, TextRules, TextState
from rankloom_engine.token_texts import UNFINISHED, token_texts

MAX_TRIES = 256  # tokens at one step; then the text ends
Ids = NDArray[np.int64]


class Grounder:
    """Makes the guides of texts about one catalogue's items. Safe from several threads."""

    def __init__(self, tokenizer: Tokenizer, items: Iterable[Named]) -> None:
        self._tokenizer = tokenizer
        self._lexicon = Lexicon(items)
        texts = token_texts(tokenizer)
        first = [plain(text[:1]) for text in texts]
        self._word_ids = np.flatnonzero([each.isalnum() for each in first])
        self._digit_ids = np.flatnonzero([each.isdecimal() for each in first])

    def guide(self, items: Sequence[Named]) -> GroundedText:
        """The guide of one text about these items: those of its prompt."""
        rules = TextRules(self._lexicon, items)
        return GroundedText(self._tokenizer, rules, self._word_ids, self._digit_ids)


class GroundedText:
    """A text that grows token by token and keeps to its rules. Not thread-safe."""

    def __init__(
        self, tokenizer: Tokenizer, rules: TextRules, word_ids: Ids, digit_ids: Ids
    ) -> None:
        self._tokenizer, self._rules = tokenizer, rules
        self._word_ids, self._digit_ids = word_ids, digit_ids
        self._ids: list[int] = []
        self._decoded = self._text = ""  # what the tokens give; and without an unfinished character
        self._state = TextState()
        self._titles: dict[str, list[int]] = {}  # that may follow an opening quote; rest of ids
        self._quoted: set[str] = set()  # titles that stand in the text: each once, between quotes
        self._num_settled = self._num_read = 0  # characters

    def choose(self, scores: NDArray[np.floating], stops: Set[int]) -> int | None:
        """The token of the highest score that may come next, which becomes part of the text.

        ``scores``: (vocabulary,). A stop token may come where the text may end. None where no
        token was found.
        """
        for token in _best_first(scores, self._candidates()):
            if token in stops:
                if self._rules.end(self._state) is not None:
                    return token
            elif self._take(token):
                return token
        return None

    def add(self, _token_ids: tuple[int, ...]) -> str:
        """The new text that later tokens cannot forbid; ``choose`` has the tokens already."""
        return self._read_to(self._num_settled)

    def end(self) -> str:
        """The rest of the text, without a word or title that is not whole."""
        if self._rules.end(self._state) is not None:
            self._num_settled = len(self._text)
        return self._read_to(self._num_settled)

    def _read_to(self, end: int) -> str:
        new, self._num_read = self._text[self._num_read : end], end
        return new

    def _candidates(self) -> Ids | None:
        """The only tokens that may come next; None where nearly all may."""
        if self._state.is_quoted:
            return np.array(sorted({ids[0] for ids in self._titles.values()}), dtype=np.int64)
        if self._rules.needs_digit(self._state):
            return self._digit_ids
        if self._rules.end(self._state) is None:
            return self._word_ids
        return None

    def _take(self, token: int) -> bool:
        """Adds a token unless the rules forbid it."""
        decoded = self._tokenizer.decode([*self._ids, token])
        text = decoded.rstrip(UNFINISHED)
        says_nothing = decoded == self._decoded and decoded == text
        if says_nothing or not text.startswith(self._text):
            return False
        if not (self._quote(token, text) if self._state.is_quoted else self._write(text)):
            return False
        self._ids.append(token)
        self._decoded = decoded
        return True

    def _write(self, text: str) -> bool:
        """Goes on outside of quotes, perhaps up to an opening one."""
        state = self._rules.read(self._state, text[len(self._text) :])
        if state is None:
            return False
        if state.is_quoted:
            self._titles = self._titles_behind(state)
            if not self._titles:
                return False
        self._text, self._state = text, state
        self._settle()
        return True

    def _titles_behind(self, state: TextState) -> dict[str, list[int]]:
        found = {
            title: _title_ids(self._tokenizer, title)
            for title in self._rules.titles
            if title not in self._quoted and self._rules.behind_title(state, title) is not None
        }
        return {title: ids for title, ids in found.items() if ids}

    def _quote(self, token: int, text: str) -> bool:
        """Adds a token of a title, or of the quote behind it."""
        written = text[len(self._text) :]
        left = {
            title: ids[1:]
            for title, ids in self._titles.items()
            if ids[0] == token and (title + QUOTE).startswith(written)
        }
        if not left:
            return False
        whole = next((title for title, ids in left.items() if not ids), None)
        if whole is None:
            self._titles = left
            return True
        state = self._rules.behind_title(self._state, whole)
        if state is None or written != whole + QUOTE:
            return False
        self._text, self._state, self._titles = text, state, {}
        self._quoted.add(whole)
        self._settle()
        return True

    def _settle(self) -> None:
        """Settles all but an unfinished word, or an opening quote."""
        end = len(self._text)
        if self._state.is_quoted:
            end -= len(QUOTE)
        elif self._state.word:
            while end and (not plain(self._text[end - 1]) or plain(self._text[end - 1]).isalnum()):
                end -= 1
        self._num_settled = max(self._num_settled, end)


def _best_first(scores: NDArray[np.floating], candidates: Ids | None) -> Iterator[int]:
    """Tokens by score, the highest first, at most MAX_TRIES."""
    if candidates is None:
        best = int(scores.argmax())
        yield best
        candidates = np.delete(np.arange(len(scores)), best)
    own = scores[candidates]
    if len(own) > MAX_TRIES:
        top = np.argpartition(-own, MAX_TRIES)[:MAX_TRIES]
        candidates, own = candidates[top], own[top]
    yield from candidates[np.argsort(-own, kind="stable")].tolist()


def _title_ids(tokenizer: Tokenizer, title: str) -> list[int]:
    """A title and its closing quote as tokens behind an opening one; empty if there are none."""
    opening = tokenizer.encode(f"a {QUOTE}", add_special_tokens=False).ids
    whole = tokenizer.encode(f"a {QUOTE}{title}{QUOTE}", add_special_tokens=False).ids
    if whole[: len(opening)] != opening:
        whole = opening + tokenizer.encode(f"{title}{QUOTE}", add_special_tokens=False).ids
    expected = tokenizer.decode(opening) + title + QUOTE
    ids: list[int] = whole[len(opening) :]
    return ids if tokenizer.decode(whole) == expected else []
