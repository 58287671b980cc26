"""Splits users between a canary and its baseline: stable per user, and growing with the share."""

from __future__ import annotations

import hashlib
from enum import Enum


class Arm(Enum):
    """The part of a canary that a user belongs to.

    BASELINE: as many users of the active revision as the canary has. Both are drawn the same
    way, so that they can be compared.
    """

    CANARY = "canary"
    BASELINE = "baseline"
    REST = "rest"


def position_of(user: str, salt: str) -> float:
    """A number in [0, 1) per user: uniform over users, and independent for another salt."""
    digest = hashlib.sha256(f"{salt}\0{user}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def arm_of(user: str, salt: str, percent: int) -> Arm:
    """The arm of a user in a canary with ``percent`` of the users; ``salt`` names the canary.

    A canary of more than half of the users has all others as its baseline.
    """
    share, position = percent / 100, position_of(user, salt)
    if position < share:
        return Arm.CANARY
    return Arm.BASELINE if position >= 1.0 - share else Arm.REST
