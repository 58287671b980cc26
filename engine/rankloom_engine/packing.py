"""Packed sequences: one prefix, then candidates that cannot see each other.

A candidate's tokens stand at the positions that they would have right behind the part
of the prefix that they see, so that its score is the score of that prompt alone. When
serving, a candidate sees the whole prefix; when learning from a user's window, each
row sees the events before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
PREFIX = 0  # the block of the prefix; candidates are blocks 1, 2, …


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A run of tokens, some of them soft.

    ``ids``: (n,) int64, 0 at soft places. ``latent_at``: (l,) places that take a latent
    vector, ``latent``: (l, dim). ``tabular_at``: (t,), ``tabular``: (t, columns).
    """

    ids: Ints
    latent_at: Ints
    latent: tuple[Floats, ...]
    tabular_at: Ints
    tabular: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.ids)

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
            np.concatenate([p.latent_at + s for p, s in zip(parts, starts, strict=True)]),
            tuple(vector for part in parts for vector in part.latent),
            np.concatenate([p.tabular_at + s for p, s in zip(parts, starts, strict=True)]),
            tuple(row for part in parts for row in part.tabular),
        )


_NONE: Ints = np.zeros(0, dtype=np.int64)
_ZERO: Ints = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """One packed sequence; arrays of one entry a token.

    ``block``: PREFIX or the candidate's number. ``visible``: how many prefix tokens the
    token may see. ``position``: its logical position. ``verdict_at``: (candidates,) the
    last token of each.
    """

    tokens: Segment
    block: Ints
    visible: Ints
    position: Ints
    verdict_at: Ints

    def __len__(self) -> int:
        return len(self.block)


def pack(
    prefix: Segment, candidates: Sequence[Segment], visible: Sequence[int] | None = None
) -> PackedRow:
    """Packs candidates behind a prefix; ``visible[i]``: prefix tokens that i sees (all)."""
    lengths = [len(segment) for segment in candidates]
    sees = np.array([len(prefix)] * len(candidates) if visible is None else visible, np.int64)
    ends = len(prefix) + np.cumsum(lengths, dtype=np.int64)
    within = [np.arange(length, dtype=np.int64) for length in lengths]
    own = np.arange(len(prefix), dtype=np.int64)
    return PackedRow(
        tokens=Segment.joined([prefix, *candidates]),
        block=np.concatenate([own * 0, np.repeat(np.arange(1, len(lengths) + 1), lengths)]),
        visible=np.concatenate([own + 1, np.repeat(sees, lengths)]),
        position=np.concatenate([own, *(w + s for w, s in zip(within, sees, strict=True))]),
        verdict_at=ends - 1,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Rows of one forward pass, padded on the right; see ``PackedRow``.

    ``ids``, ``block``, ``visible``, ``position``: (rows, length) int64; block -1 is
    padding. Places of soft tokens and verdicts are (n, 2): row and place.
    """

    ids: Ints
    block: Ints
    visible: Ints
    position: Ints
    latent_at: Ints
    latent: Floats
    tabular_at: Ints
    tabular: Floats
    verdict_at: Ints


def collate(rows: Sequence[PackedRow]) -> PackedBatch:
    """Puts rows of any lengths into one batch, in their order."""
    length = max(len(row) for row in rows)
    return PackedBatch(
        ids=_padded([row.tokens.ids for row in rows], length, 0),
        block=_padded([row.block for row in rows], length, -1),
        visible=_padded([row.visible for row in rows], length, 0),
        position=_padded([row.position for row in rows], length, 0),
        latent_at=_places([row.tokens.latent_at for row in rows]),
        latent=_vectors([vector for row in rows for vector in row.tokens.latent]),
        tabular_at=_places([row.tokens.tabular_at for row in rows]),
        tabular=_vectors([vector for row in rows for vector in row.tokens.tabular]),
        verdict_at=_places([row.verdict_at for row in rows]),
    )


def _padded(arrays: Sequence[Ints], length: int, fill: int) -> Ints:
    out = np.full((len(arrays), length), fill, dtype=np.int64)
    for row, values in enumerate(arrays):
        out[row, : len(values)] = values
    return out


def _places(arrays: Sequence[Ints]) -> Ints:
    rows = np.repeat(np.arange(len(arrays)), [len(places) for places in arrays])
    return np.stack([rows, np.concatenate(arrays)], axis=1).astype(np.int64)


def _vectors(vectors: Sequence[Floats]) -> Floats:
    return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), np.float32)
