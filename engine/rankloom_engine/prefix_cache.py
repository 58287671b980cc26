"""Cached prefixes for a user's next request, within a byte budget.

The key of an entry is a digest of everything that its keys and values depend on, never a
name. A changed expert, weight, projector or token gives another key, so a stale entry is
never found; it is evicted in time.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Iterable

from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.packing import Segment


class PrefixCache:
    """An LRU cache of prefixes. Not thread-safe: one event loop owns it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_hits = 0
        self.num_misses = 0
        self._cached: OrderedDict[bytes, PrefixKV] = OrderedDict()
        self._cleared = -math.inf

    def __len__(self) -> int:
        return len(self._cached)

    def get(self, key: bytes) -> PrefixKV | None:
        """The prefix under a key, which becomes the last to be evicted; None if there is none."""
        found = self._cached.get(key)
        if found is None:
            self.num_misses += 1
            return None
        self.num_hits += 1
        self._cached.move_to_end(key)
        return found

    def put(self, key: bytes, prefix: PrefixKV, began: float) -> None:
        """Adds a prefix and evicts the least recently used; one over the budget is not added.

        ``began``: when the call did, on time.monotonic's clock. What it read may have had to be
        forgotten since: then nothing is added.
        """
        if key in self._cached or prefix.num_bytes > self.max_bytes or began <= self._cleared:
            return
        self._cached[key] = prefix
        self.num_bytes += prefix.num_bytes
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._cached.popitem(last=False)[1].num_bytes

    def clear(self) -> None:
        """Drops all prefixes, also those of calls that still run: what they were made of may have
        to be forgotten."""
        self._cleared = time.monotonic()
        self._cached.clear()
        self.num_bytes = 0


def prefix_key(
    model: bytes, experts: Iterable[str], weights: MixtureWeights, prefix: Segment
) -> bytes:
    """SHA-256 of everything that the keys and values of a prefix depend on.

    ``model``: digest of base, projector and number format. ``experts``: key of the expert
    in each slot; experts without weight do not count.
    """
    total = hashlib.sha256(model)
    total.update(weights.fusion.value.encode())
    for expert, weight in zip(experts, weights.values, strict=True):
        if weight:
            total.update(expert.encode() + weight.tobytes())
    for values in (prefix.ids, prefix.latent_at, prefix.tabular_at):
        total.update(len(values).to_bytes(8, "little") + values.tobytes())
    for vector in (*prefix.latent, *prefix.tabular):
        total.update(len(vector).to_bytes(8, "little") + vector.tobytes())
    return total.digest()
