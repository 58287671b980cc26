"""Builds prompts from token ids: text is tokenised as plain text, structure is ids only.

A soft token is a position in the sequence, not a token that text could spell. Segments are
kept or dropped whole, so that no cut can separate a soft token from its vector.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankloom_engine.errors import ModelError
from rankloom_engine.packing import Segment
from rankloom_engine.profile import JudgedLabels, profile_text

MAX_TEXT_CHARS = 2_000  # far more than max_item_tokens can hold; bounds the tokeniser's work
MAX_CITED_EVENTS = 3  # whose evidence stands before the words
NUM_MARKS = 4  # two opinions, two sides
_NUMBERS = {"liked", "disliked", "max_item_tokens", "max_events", "max_profile_tokens"}
MAX_LIMIT = 100_000  # of what a format says of events and tokens
_PIECE_CHARS = 256  # are normalised at once: one character can become 18


class Readable(Protocol):
    """An item as text."""

    @property
    def title(self) -> str: ...

    @property
    def year(self) -> int | None: ...

    @property
    def attributes(self) -> tuple[str, ...]: ...

    @property
    def description(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PromptEvent:
    """One event of the user. ``index``: the item's catalogue index, -1 where it has none."""

    item: Readable
    index: int
    liked: bool


@dataclass(frozen=True, slots=True)
class PromptCandidate:
    """One item to be scored. ``index``: its catalogue index, -1 where it has none."""

    item: Readable
    index: int


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """The bundle's prompt: structural token ids, the two verdicts, and the limits.

    ``stop``: the token that ends words; None: any special token. ``marks``: what stands behind a
    cited event, for each opinion (disliked, liked) and side (against a like, for it): disliked and
    against, disliked and for, liked and against, liked and for. ``is_phrased``: words are whole
    sentences about the evidence, since the decoder is too small for words of its own.
    ``max_profile_tokens``: of the profile that stands before the events; 0: there is none.
    """

    begin: tuple[int, ...]
    item: tuple[int, ...]
    ask: tuple[int, ...]
    liked: int
    disliked: int
    marks: tuple[tuple[int, ...], ...]
    max_item_tokens: int = 16
    max_events: int = 20
    stop: int | None = None
    max_profile_tokens: int = 0
    is_phrased: bool = False

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest prompt of one candidate."""
        item = len(self.item) + self.max_item_tokens + len(self.ask)
        event, candidate = item + 2, item + 2  # a vector and a verdict, or two vectors
        start = len(self.begin) + self.max_profile_tokens
        return start + self.max_events * event + candidate

    @property
    def max_evidence_tokens(self) -> int:
        """Tokens of the longest evidence between a verdict and its words."""
        item = len(self.item) + self.max_item_tokens
        return MAX_CITED_EVENTS * (item + max(map(len, self.marks)))

    def mark(self, liked: bool, speaks_for: bool) -> tuple[int, ...]:
        """What stands behind a cited event of this opinion and side."""
        return self.marks[2 * liked + speaks_for]

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> PromptFormat:
        """Reads what ``to_bytes`` wrote. Raises ModelError."""
        try:
            fields: dict[str, Any] = json.loads(data)
            for name in ("begin", "item", "ask"):
                fields[name] = _ids(fields[name])
            fields["marks"] = tuple(map(_ids, fields["marks"]))
            for name in fields.keys() & _NUMBERS:
                fields[name] = int(fields[name])
            if fields.get("stop") is not None:
                fields["stop"] = int(fields["stop"])
            read = cls(**fields)
            read._check_limits()
            if len(read.marks) != NUM_MARKS or not isinstance(read.is_phrased, bool):
                raise ValueError(f"marks must be {NUM_MARKS}, is_phrased true or false")
            return read
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ModelError("prompt: unreadable; train the bundle anew") from error

    def _check_limits(self) -> None:
        """Raises ValueError."""
        limits = (self.max_item_tokens - 1, self.max_events, self.max_profile_tokens)
        if not all(0 <= limit < MAX_LIMIT for limit in limits):
            raise ValueError("a limit is negative, 0 tokens of an item, or far too large")
        stop = () if self.stop is None else (self.stop,)
        ids = chain(self.begin, self.item, self.ask, *self.marks, stop)
        if min(self.liked, self.disliked, *ids) < 0:
            raise ValueError("token ids must be at least 0")


@dataclass(frozen=True, slots=True, eq=False)
class HistoryPrefix:
    """A user's events as tokens: the same for all prompts about the user."""

    prefix: Segment
    num_events: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: the user's events, and the candidates that each follow them.

    ``visible``: (candidates,) tokens of the prefix that each candidate follows; None: all.
    """

    prefix: Segment
    candidates: tuple[Segment, ...]
    num_events: int
    visible: tuple[int, ...] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the prefix and of all candidates."""
        return len(self.prefix) + sum(map(len, self.candidates))

    def of_candidate(self, index: int) -> Prompt:
        """The prompt of one candidate alone, behind the whole prefix."""
        return Prompt(self.prefix, (self.candidates[index],), self.num_events)


def load_tokenizer(data: bytes) -> Tokenizer:
    """A fast tokenizer from the bytes of tokenizer.json. Raises ModelError."""
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare Exception
        raise ModelError("base: tokenizer.json cannot be read") from error


class PromptAssembler:
    """Turns events and candidates into prompts. Safe to call from several threads.

    ``item_vectors``: (items, dim) float32, the collaborative model's vector of each
    catalogue item, zero for an item that it never saw.
    """

    def __init__(
        self, tokenizer: Tokenizer, fmt: PromptFormat, item_vectors: NDArray[np.float32]
    ) -> None:
        self.format = fmt
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = True  # special tokens in text are plain text
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.structural = frozenset(tokenizer.get_added_tokens_decoder())
        self.stops = stop_tokens(tokenizer, fmt)
        self.dim = item_vectors.shape[1]
        self._item_vectors = item_vectors
        self._no_vector = np.zeros(self.dim, dtype=np.float32)
        self._ids: dict[int, tuple[int, ...]] = {}
        self._events: dict[tuple[int, bool], Segment] = {}
        self._frames: dict[int, Segment] = {}

    def history_prefix(self, events: Sequence[PromptEvent]) -> HistoryPrefix:
        """As many of the events as the format has room for, the newest; the rest as a profile."""
        first = max(len(events) - self.format.max_events, 0)
        return HistoryPrefix(self.prefix(events[first:], events[:first]), len(events) - first)

    def prompt(
        self,
        history: HistoryPrefix,
        vector: NDArray[np.float32],
        candidates: Sequence[PromptCandidate],
        tabular: NDArray[np.float32],
    ) -> Prompt:
        """One request's tokens: ``vector`` (dim,), ``tabular`` (candidates, columns)."""
        segments = tuple(
            self.candidate(candidate, vector, row)
            for candidate, row in zip(candidates, tabular, strict=True)
        )
        return Prompt(history.prefix, segments, history.num_events)

    def prefix(self, events: Sequence[PromptEvent], earlier: Sequence[PromptEvent] = ()) -> Segment:
        """The begin tokens, the profile of ``earlier`` events, and the events, oldest first."""
        opinions = [(each.item.attributes, each.liked) for each in earlier]
        return Segment.joined([self.opening(opinions), *map(self.event, events)])

    def opening(self, opinions: Sequence[JudgedLabels]) -> Segment:
        """The begin tokens, and the profile of the opinions from before the prompt's events."""
        return Segment.of_ids(opening_ids(self.tokenizer, self.format, self.structural, opinions))

    def event(self, event: PromptEvent) -> Segment:
        """One event with its verdict; segments of catalogue items are cached."""
        key = (event.index, event.liked)
        if key in self._events:
            return self._events[key]
        verdict = self.format.liked if event.liked else self.format.disliked
        segment = Segment.joined(
            [
                Segment.of_ids((*self.format.item, *self.text_ids(event.item, event.index))),
                Segment.of_latent(self._vector_of(event.index)),
                Segment.of_ids((*self.format.ask, verdict)),
            ]
        )
        if event.index >= 0:
            self._events[key] = segment
        return segment

    def candidate(
        self, candidate: PromptCandidate, vector: NDArray[np.float32], row: NDArray[np.float32]
    ) -> Segment:
        """One item, up to the token where the verdict is read.

        The candidate's own latent vector is left out on purpose: it was fitted to the labels of
        the training rows, and experts that see it memorise those.
        """
        frame = self._frame(candidate)
        return Segment(frame.ids, frame.latent_at, (vector,), frame.tabular_at, (row,))

    def _frame(self, candidate: PromptCandidate) -> Segment:
        """A candidate's tokens without its vectors; cached for catalogue items."""
        if candidate.index in self._frames:
            return self._frames[candidate.index]
        text = self.text_ids(candidate.item, candidate.index)
        frame = Segment.joined(
            [
                Segment.of_ids((*self.format.item, *text)),
                Segment.of_latent(self._no_vector),
                Segment.of_tabular(self._no_vector),
                Segment.of_ids(self.format.ask),
            ]
        )
        if candidate.index >= 0:
            self._frames[candidate.index] = frame
        return frame

    def text_ids(self, item: Readable, index: int) -> tuple[int, ...]:
        """Token ids of the item's text, cut to ``max_item_tokens``; cached for catalogue items."""
        if index not in self._ids:
            ids = item_ids(self.tokenizer, self.format, self.structural, item)
            if index < 0:
                return ids
            self._ids[index] = ids
        return self._ids[index]

    def _vector_of(self, index: int) -> NDArray[np.float32]:
        return self._item_vectors[index] if index >= 0 else self._no_vector


def stop_tokens(tokenizer: Tokenizer, fmt: PromptFormat) -> frozenset[int]:
    """Tokens that end words: all special ones, and the format's own."""
    structural = frozenset(tokenizer.get_added_tokens_decoder())
    return structural if fmt.stop is None else structural | {fmt.stop}


def word_ids(tokenizer: Tokenizer, fmt: PromptFormat, text: str) -> tuple[int, ...]:
    """Token ids of words behind a verdict, and the token that ends them if there is one."""
    stops = stop_tokens(tokenizer, fmt)
    stop = sorted(stops)[:1] if fmt.stop is None else [fmt.stop]
    ids: list[int] = tokenizer.encode(clean(text), add_special_tokens=False).ids
    return (*(token for token in ids if token not in stops), *stop)


def opening_ids(
    tokenizer: Tokenizer, fmt: PromptFormat, structural: Set[int], opinions: Sequence[JudgedLabels]
) -> tuple[int, ...]:
    """Token ids before the events: the begin tokens, and a profile if the format has one."""
    if not fmt.max_profile_tokens:
        return fmt.begin
    ids: list[int] = tokenizer.encode(clean(profile_text(opinions)), add_special_tokens=False).ids
    plain = [token for token in ids if token not in structural]
    return (*fmt.begin, *plain[: fmt.max_profile_tokens])


def item_ids(
    tokenizer: Tokenizer, fmt: PromptFormat, structural: Set[int], item: Readable
) -> tuple[int, ...]:
    """Token ids of an item's text, cut to ``max_item_tokens``.

    They are plain: an added token (``structural``) that the tokeniser finds in it is left out.
    """
    ids: list[int] = tokenizer.encode(render(item), add_special_tokens=False).ids
    return tuple([token for token in ids if token not in structural][: fmt.max_item_tokens])


def evidence_ids(
    fmt: PromptFormat,
    item: Sequence[int],
    liked: bool,
    speaks_for: bool,
) -> tuple[int, ...]:
    """Token ids of evidence that words are to cite, between the verdict and the words.

    ``item``: token ids of an event's item. ``speaks_for``: whether it speaks for a like.
    """
    return (*fmt.item, *item, *fmt.mark(liked, speaks_for))


def _ids(tokens: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(int, tokens))


def render(item: Readable) -> str:
    """The item as one line: title, year, attributes, description."""
    year = f" ({item.year})" if item.year is not None else ""
    parts = [f"{item.title}{year}", ", ".join(item.attributes), item.description]
    return clean(". ".join(part for part in parts if part))


def clean(text: str) -> str:
    """Text as people see it: NFKC, without control, format and unassigned characters.

    At most MAX_TEXT_CHARS characters, and no work on what comes behind them.
    """
    normal = ""
    for start in range(0, min(len(text), MAX_TEXT_CHARS), _PIECE_CHARS):
        normal += unicodedata.normalize("NFKC", text[start : start + _PIECE_CHARS])
        if len(normal) >= MAX_TEXT_CHARS:
            break
    kept = normal[:MAX_TEXT_CHARS]
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in kept)
