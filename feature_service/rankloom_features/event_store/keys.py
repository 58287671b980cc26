"""Digests: of event ids, to find an event again, and of user ids, to spread users."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

NUM_PARTITIONS: Final = 256
KEY_BYTES: Final = 16
_DIGEST_PREFIX: Final = "digest:"


def partition_of(user_id: str) -> int:
    """The partition, from 0 to NUM_PARTITIONS − 1, in which a user's events are kept."""
    return blake2b(user_id.encode(), digest_size=1).digest()[0]


def key_of(event_id: str) -> bytes:
    """The KEY_BYTES bytes that stand for an event id. An id that `id_of` made gives its key back.

    Two ids of one user share a key with a probability of 2^−128.
    """
    if event_id.startswith(_DIGEST_PREFIX) and (key := _key_in(event_id)):
        return key
    return blake2b(event_id.encode(), digest_size=KEY_BYTES).digest()


def id_of(key: bytes) -> str:
    """An event id with this key, so that an exported event is the same event elsewhere."""
    return _DIGEST_PREFIX + key.hex()


def _key_in(event_id: str) -> bytes | None:
    digits = event_id.removeprefix(_DIGEST_PREFIX)
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES and key.hex() == digits else None
