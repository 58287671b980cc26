"""What the ranker refuses.

Exception
└── FallbackRefusedError    only a fallback could answer, and the caller refused fallbacks
"""

from __future__ import annotations


class FallbackRefusedError(Exception):
    """A fallback had to answer and was refused. ``reason``: the name of what caused it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"only a fallback could answer: {reason}")
        self.reason = reason
