"""How many tokens a second the model manages, learnt from its passes. Pure policy."""

from __future__ import annotations

from math import inf

WEIGHT = 0.2  # of a new pass: twice as slow a machine is noticed within some five passes
LEAST_RESERVE, MOST_RESERVE = 0.1, 1.0  # an answer also needs its way to the caller
DEVIATIONS = 2.0  # a pass that ends late was in vain, so they are kept as a reserve


class Throughput:
    """An exponentially weighted mean of the rates of finished passes, and their deviation.

    Only a full pass shows what the model can do: a small one spends much of its time on what
    every pass costs. It shows that the model can do at least so much, so it may raise the
    estimate, never lower it. One pass that took very long moves the mean of rates by its weight
    alone.
    """

    def __init__(self) -> None:
        self._tokens_per_s = inf  # unknown: nothing takes time, so nothing is refused
        self._deviation = 0.0  # mean, as a share of the rate

    def learn(self, num_tokens: int, seconds: float, *, is_full: bool) -> None:
        """A pass of so many tokens ended, so many seconds after the one before it."""
        if seconds <= 0.0:
            return
        found = num_tokens / seconds
        if self._tokens_per_s == inf:
            self._tokens_per_s = found if is_full else inf
        elif is_full or found > self._tokens_per_s:
            change = found - self._tokens_per_s
            if is_full:
                share = min(abs(change) / self._tokens_per_s, 1.0)
                self._deviation += WEIGHT * (share - self._deviation)
            self._tokens_per_s += WEIGHT * change

    def seconds(self, num_tokens: float) -> float:
        """How long so many tokens will take, with a reserve; 0 before the first full pass."""
        reserve = min(max(LEAST_RESERVE, DEVIATIONS * self._deviation), MOST_RESERVE)
        return (1.0 + reserve) * num_tokens / self._tokens_per_s
