"""What an operator can do about an error of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rankloom.errors import ConnectionFailedError, ErrorReason, RankloomError

_HINTS: Final[Mapping[ErrorReason, str]] = {
    ErrorReason.REVISION_UNKNOWN: "`rankloom rollout list` shows which revisions there are",
    ErrorReason.OVERLOADED: "many others are calling; ask again in a moment",
    ErrorReason.NOT_SERVING: "the server is starting or stopping; ask again in a moment",
    ErrorReason.INTERNAL: "look up this id in the server's log",
    ErrorReason.REVISION_STALE: "somebody else has changed what is active: look at "
    "`rankloom rollout list`, then ask again with its number as --expected",
    ErrorReason.WRONG_STATE: "`rankloom rollout list` shows where each revision stands",
    ErrorReason.KEY_REUSED: "to ask again for the same, give the same arguments, --expected too; "
    "for anything else, leave out --key",
    ErrorReason.GATES_NOT_PASSED: "let its trial see more users, or give --without-gates "
    "and --reason",
    ErrorReason.BUNDLE_INVALID: "nothing has changed; stage it again once it is made anew",
    ErrorReason.SIGNATURE_INVALID: "`rankloom bundle sign` signs it; the server must have the "
    "public key in bundle_keys",
    ErrorReason.NO_ROOM: "retire revisions that nobody needs, or give the server more memory "
    "(expert_slots_mib) or disk",
    ErrorReason.SOURCE_UNAVAILABLE: "check the URL from the server's machine, or send the files "
    "with --upload",
    ErrorReason.STORE_UNAVAILABLE: "see to the disk that holds the server's state; rankings go on",
    ErrorReason.REGISTRY_UNAVAILABLE: "make room on the disk that holds the server's state, and "
    "ask again; where it is broken, mend it and start the server again",
    ErrorReason.UNAUTHENTICATED: "give the server's token with --token-file",
    ErrorReason.PERMISSION_DENIED: "the file of --token-file must hold the server's rollout_token",
}


def hint_of(error: RankloomError) -> str:
    """Return one line, or nothing where there is no more to say than the error does."""
    if isinstance(error, ConnectionFailedError):
        return "give --server the address that the server listens on by --rollout-port"
    if error.status == "UNIMPLEMENTED":
        return "this port has no RolloutService; --rollout-port of the server says which has"
    return _HINTS.get(error.reason, "") if error.reason else ""
