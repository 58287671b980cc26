"""Which users a canary takes: always the same ones, and more of them as it grows."""

from __future__ import annotations

import hashlib
from enum import Enum


class Arm(Enum):
    """Whose answers a user's are counted among.

    BASELINE: users of the active revision, as many as the canary has. They are
    compared with the canary's, since both were drawn alike.
    """

    CANARY = "canary"
    BASELINE = "baseline"
    REST = "rest"


def place_of(user: str, salt: str) -> float:
    """A user's place in [0, 1): uniform over users, and another one for another salt."""
    digest = hashlib.sha256(f"{salt}\0{user}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def arm_of(user: str, salt: str, percent: int) -> Arm:
    """The arm of a user in a canary of so many percent; ``salt`` names the canary.

    A canary of more than half of the users has the rest of them as its baseline.
    """
    share, place = percent / 100, place_of(user, salt)
    if place < share:
        return Arm.CANARY
    return Arm.BASELINE if place >= 1.0 - share else Arm.REST
