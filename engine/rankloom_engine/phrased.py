"""Phrased decoding: a text of whole sentences, each chosen by the model among some that hold.

A small decoder cannot be trusted to say what its evidence is. Here it chooses the wording alone:
at each place of the text stand sentences that are all true, and a token may come next where one of
them goes on with it. The likeliest would be the same few in every text; so where several are nearly
as likely, one of them is drawn, by a seed made of the places: the same places give the same text.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankloom_engine.token_texts import UNFINISHED, token_texts

NEARLY = log(10.0)  # a token a tenth as likely as the likeliest is as good as it


@dataclass(frozen=True, slots=True)
class SentencePlace:
    """A place in a text for one of some ``sentences``. ``is_optional``: it may stay empty."""

    sentences: tuple[str, ...]
    is_optional: bool = False


class Phraser:
    """Makes the guides of texts with one tokenizer. Safe from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens = defaultdict[str, list[int]](list)
        for token, text in enumerate(token_texts(tokenizer)):
            if text and UNFINISHED not in text:
                self._tokens[text].append(token)
        self._longest = max(map(len, self._tokens), default=0)

    def guide(self, places: Sequence[SentencePlace]) -> PhrasedText:
        """The guide of one text with a sentence at each place, in this order."""
        return PhrasedText(self, places)

    def tokens_of(self, rest: str) -> Iterator[tuple[int, str]]:
        """Tokens with which a text may go on that ends with ``rest``, and what they add."""
        for end in range(1, min(len(rest), self._longest) + 1):
            for token in self._tokens.get(rest[:end], ()):
                yield token, rest[:end]

    def spelt(self, rest: str) -> list[int]:
        """The tokens of ``rest`` as the tokenizer spells it."""
        ids: list[int] = self._tokenizer.encode(rest, add_special_tokens=False).ids
        return ids


class PhrasedText:
    """A text that grows token by token through its places. Not thread-safe."""

    def __init__(self, phraser: Phraser, places: Sequence[SentencePlace]) -> None:
        self._phraser, self._places = phraser, tuple(places)
        self._text = ""  # whole sentences
        self._begun = ""  # of the next one
        self._next = 0  # the first place that is not settled
        self._forced: list[int] = []
        self._num_read = 0  # characters
        told = hashlib.sha256(repr(self._places).encode())
        self._random = np.random.default_rng(int.from_bytes(told.digest()[:8]))

    def choose(self, scores: NDArray[np.floating], stops: Set[int]) -> int | None:
        """A token that may come next, which joins the text.

        ``scores``: (vocabulary,), in nats. A stop token may come where no further sentence must,
        and comes as often as the decoder wants it. None where no token fits.
        """
        if self._forced:
            return self._spell()
        ways = list(self._ways_on(scores))
        if self._may_end() and (not ways or self._ends(scores, stops)):
            return max(stops, key=lambda each: float(scores[each]), default=None)
        if not ways:
            return self._begin_to_spell()
        token, added = self._one_of(ways, scores)
        self._write(added)
        return token

    def add(self, _token_ids: tuple[int, ...]) -> str:
        """The sentences that became whole; ``choose`` has the tokens already."""
        new, self._num_read = self._text[self._num_read :], len(self._text)
        return new

    def end(self) -> str:
        """The rest of the text, without a sentence that is not whole."""
        return self.add(())

    def _left(self) -> tuple[SentencePlace, ...]:
        return self._places[self._next :]

    def _open(self) -> Iterator[tuple[int, str]]:
        """Sentences that may stand next, each with its place's index."""
        for index, place in enumerate(self._left(), self._next):
            yield from ((index, f" {each}" if self._text else each) for each in place.sentences)
            if not place.is_optional:
                return

    def _rests(self) -> list[str]:
        """How the sentences go on that have begun as the text's last one."""
        begun = self._begun
        rests = (each[len(begun) :] for _, each in self._open() if each.startswith(begun))
        return [rest for rest in dict.fromkeys(rests) if rest]

    def _may_end(self) -> bool:
        return not self._begun and all(place.is_optional for place in self._left())

    def _ends(self, scores: NDArray[np.floating], stops: Set[int]) -> bool:
        """Drawn: few of all the sentences that could follow are offered, so a stop is likelier
        than each of them even where the decoder would rather go on.
        """
        with np.errstate(invalid="ignore"):  # of scores that are infinite or NaN it goes on
            likely = np.exp(scores - scores.max())
        return bool(self._random.random() * likely.sum() < likely[list(stops)].sum())

    def _ways_on(self, scores: NDArray[np.floating]) -> Iterator[tuple[int, str]]:
        """The likeliest next token of each sentence that may go on, and what it adds."""
        for rest in self._rests():
            tokens = self._phraser.tokens_of(rest)
            found = max(tokens, key=lambda each: float(scores[each[0]]), default=None)
            if found is not None:
                yield found

    def _one_of(
        self, ways: Sequence[tuple[int, str]], scores: NDArray[np.floating]
    ) -> tuple[int, str]:
        """Drawn from those that are nearly as likely as the likeliest."""
        enough = max(float(scores[token]) for token, _ in ways) - NEARLY
        near = [way for way in ways if not float(scores[way[0]]) < enough]  # all, where NaN
        return near[int(self._random.integers(len(near)))]

    def _write(self, added: str) -> None:
        self._begun += added
        whole = next((index for index, each in self._open() if each == self._begun), None)
        if whole is not None:
            self._text, self._begun, self._next = self._text + self._begun, "", whole + 1

    def _begin_to_spell(self) -> int | None:
        """No token adds whole characters: the sentence goes on as the tokenizer spells it."""
        rest = next(iter(self._rests()), "")
        self._forced = self._phraser.spelt(rest)
        if not self._forced:
            return None
        self._begun += rest
        return self._spell()

    def _spell(self) -> int:
        token = self._forced.pop(0)
        if not self._forced:
            self._write("")
        return token
