"""How many tokens a second the model manages, learnt from its passes. Pure policy."""

from __future__ import annotations

from math import inf

WEIGHT = 0.2  # of a new pass: twice as slow a machine is noticed within some five passes
RESERVE = 1.1  # estimates are medians, and an answer also needs its way to the caller


class Throughput:
    """An exponentially weighted mean of the rates of finished passes.

    Only a full pass shows what the model can do: a small one spends much of its time on what
    every pass costs. It shows that the model can do at least so much, so it may raise the
    estimate, never lower it. One pass that took very long moves the mean of rates by its weight
    alone.
    """

    def __init__(self) -> None:
        self._tokens_per_s = inf  # unknown: nothing takes time, so nothing is refused

    def learn(self, num_tokens: int, seconds: float, *, is_full: bool) -> None:
        """A pass of so many tokens ended, so many seconds after the one before it."""
        if seconds <= 0.0:
            return
        found = num_tokens / seconds
        if self._tokens_per_s == inf:
            if is_full:
                self._tokens_per_s = found
        elif is_full or found > self._tokens_per_s:
            self._tokens_per_s += WEIGHT * (found - self._tokens_per_s)

    def seconds(self, num_tokens: float) -> float:
        """How long so many tokens will take, with a reserve; 0 before the first full pass."""
        return RESERVE * num_tokens / self._tokens_per_s
