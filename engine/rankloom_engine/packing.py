"""Packed rows: one prefix, then candidates that cannot see each other.

A candidate's tokens have the positions right behind the part of the prefix that they see,
so its score is the score of that prompt alone. In serving, a candidate sees the whole
prefix; in training on a user's window, each row sees the events before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
PREFIX = 0  # the block of the prefix; candidates are blocks 1, 2, …


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A run of tokens, some of them soft.

    ``ids``: (n,) int64, 0 for soft tokens. ``latent_at``: (l,) indices of the tokens made of
    latent vectors, ``latent``: l of (dim,). ``tabular_at``: (t,) indices of the tokens made of
    tabular rows, ``tabular``: t of (columns,).
    """

    ids: Ints
    latent_at: Ints
    latent: tuple[Floats, ...]
    tabular_at: Ints
    tabular: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def since(self, start: int) -> Segment:
        """The tokens from ``start`` on."""
        latent, tabular = self.latent_at >= start, self.tabular_at >= start
        return Segment(
            self.ids[start:],
            self.latent_at[latent] - start,
            tuple(compress(self.latent, latent)),
            self.tabular_at[tabular] - start,
            tuple(compress(self.tabular, tabular)),
        )

    @classmethod
    def of_ids(cls, ids: Sequence[int]) -> Segment:
        """Ordinary tokens."""
        return cls(np.array(ids, dtype=np.int64), _NONE, (), _NONE, ())

    @classmethod
    def of_latent(cls, vector: Floats) -> Segment:
        """One soft token made of a (dim,) latent vector."""
        return cls(_ZERO, _ZERO, (vector,), _NONE, ())

    @classmethod
    def of_tabular(cls, row: Floats) -> Segment:
        """One soft token made of a (columns,) row of tabular features."""
        return cls(_ZERO, _NONE, (), _ZERO, (row,))

    @classmethod
    def joined(cls, parts: Sequence[Segment]) -> Segment:
        """The parts one after the other."""
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        return cls(
            np.concatenate([part.ids for part in parts]),
            _shifted([part.latent_at for part in parts], starts),
            tuple(vector for part in parts for vector in part.latent),
            _shifted([part.tabular_at for part in parts], starts),
            tuple(row for part in parts for row in part.tabular),
        )


_NONE: Ints = np.zeros(0, dtype=np.int64)
_ZERO: Ints = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """One prefix and its candidates; each array has one entry per token.

    ``cached``: tokens of the prefix that are not in the row because an earlier pass kept their
    keys and values. ``block``: PREFIX, or 1, 2, … for the candidate. ``visible``: how many
    prefix tokens the token may see. ``position``: its logical position. ``read_at``:
    (reads,) indices of the tokens whose last states are read: of each candidate the last one,
    where it is not said otherwise.
    """

    tokens: Segment
    block: Ints
    visible: Ints
    position: Ints
    read_at: Ints
    cached: int = 0

    def __len__(self) -> int:
        return len(self.block)

    @property
    def num_prefix(self) -> int:
        """Tokens of the prefix that are in the row."""
        return int(np.count_nonzero(self.block == PREFIX))


def pack(
    prefix: Segment, candidates: Sequence[Segment], visible: Sequence[int] | None = None
) -> PackedRow:
    """Packs candidates behind a prefix. ``visible``: prefix tokens that each sees; None: all."""
    sees = [len(prefix)] * len(candidates) if visible is None else visible
    own = np.arange(len(prefix), dtype=np.int64)
    behind = pack_behind(sees, candidates)
    return PackedRow(
        tokens=Segment.joined([prefix, behind.tokens]),
        block=np.concatenate([own * 0, behind.block]),
        visible=np.concatenate([own + 1, behind.visible]),
        position=np.concatenate([own, behind.position]),
        read_at=behind.read_at + len(prefix),
    )


def pack_behind(
    visible: Sequence[int], candidates: Sequence[Segment], cached: int = 0
) -> PackedRow:
    """Packs candidates behind a prefix of ``cached`` tokens in the cache; see ``pack``."""
    lengths = [len(segment) for segment in candidates]
    sees = np.array(visible, dtype=np.int64)
    within = [np.arange(length, dtype=np.int64) for length in lengths]
    return PackedRow(
        tokens=Segment.joined(candidates),
        block=np.repeat(np.arange(1, len(lengths) + 1), lengths),
        visible=np.repeat(sees, lengths),
        position=np.concatenate([w + s for w, s in zip(within, sees, strict=True)]),
        read_at=np.cumsum(lengths, dtype=np.int64) - 1,
        cached=cached,
    )


def pack_more(cached: int, more: Segment) -> PackedRow:
    """More tokens of a text behind its first ``cached`` ones; it is read at the last."""
    order = np.arange(len(more), dtype=np.int64)
    return PackedRow(
        tokens=more,
        block=order * 0,
        visible=order + cached + 1,
        position=order + cached,
        read_at=order[-1:],
        cached=cached,
    )


def padding(num_tokens: int, num_reads: int) -> PackedRow:
    """A row without content that fills a batch up to a size; it may be empty.

    All tokens have the first position: some models have learned few.
    """
    order = np.arange(num_tokens, dtype=np.int64)
    return PackedRow(
        tokens=Segment(order * 0, _NONE, (), _NONE, ()),
        block=order * 0,
        visible=order + 1,
        position=order * 0,
        read_at=np.zeros(num_reads, dtype=np.int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Rows of one pass end to end; indices count over the whole batch.

    ``ids``, ``position``: (tokens,) int64. ``latent_at``, ``tabular_at``: indices of soft
    tokens. ``read_at``: (reads,) indices, in the order of rows and candidates.
    """

    rows: tuple[PackedRow, ...]
    ids: Ints
    position: Ints
    latent_at: Ints
    latent: Floats
    tabular_at: Ints
    tabular: Floats
    read_at: Ints

    @property
    def num_reads(self) -> list[int]:
        """Candidates of each row."""
        return [len(row.read_at) for row in self.rows]


def collate(rows: Sequence[PackedRow]) -> PackedBatch:
    """Puts rows of any lengths into one batch, in their order."""
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    return PackedBatch(
        rows=tuple(rows),
        ids=np.concatenate([row.tokens.ids for row in rows]),
        position=np.concatenate([row.position for row in rows]),
        latent_at=_shifted([row.tokens.latent_at for row in rows], starts),
        latent=_vectors([vector for row in rows for vector in row.tokens.latent]),
        tabular_at=_shifted([row.tokens.tabular_at for row in rows], starts),
        tabular=_vectors([vector for row in rows for vector in row.tokens.tabular]),
        read_at=_shifted([row.read_at for row in rows], starts),
    )


def _shifted(indices: Sequence[Ints], starts: Ints) -> Ints:
    return np.concatenate(indices) + np.repeat(starts, [len(own) for own in indices])


def _vectors(vectors: Sequence[Floats]) -> Floats:
    return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), np.float32)
