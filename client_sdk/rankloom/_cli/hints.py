"""Hints: what to do about an error of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rankloom.errors import (
    ConnectionFailedError,
    ErrorReason,
    InvalidRequestError,
    RankloomError,
)

_HINTS: Final[Mapping[ErrorReason, str]] = {
    ErrorReason.REVISION_UNKNOWN: "`rankloom rollout list` shows all revisions",
    ErrorReason.OVERLOADED: "the server is busy; try again in a moment",
    ErrorReason.NOT_SERVING: "the server is starting or stopping; try again in a moment",
    ErrorReason.INTERNAL: "look for this id in the server's log",
    ErrorReason.REVISION_STALE: "somebody else has changed the active revision: look at "
    "`rankloom rollout list`, then try again with its number as --expected",
    ErrorReason.WRONG_STATE: "`rankloom rollout list` shows the state of each revision",
    ErrorReason.KEY_REUSED: "to repeat a change, give the same arguments, also --expected; "
    "for another change, leave out --key",
    ErrorReason.GATES_NOT_PASSED: "let its trial see more users, or give --without-gates "
    "and --reason",
    ErrorReason.BUNDLE_INVALID: "nothing has changed; correct the bundle, then stage it again",
    ErrorReason.SIGNATURE_INVALID: "sign it with `rankloom bundle sign`; the server needs the "
    "public key in bundle_keys",
    ErrorReason.NO_ROOM: "retire revisions that you no longer need, or give the server more memory "
    "(expert_slots_mib) or disk",
    ErrorReason.SOURCE_UNAVAILABLE: "check the URL from the server's machine, or send the files "
    "with --upload",
    ErrorReason.STORE_UNAVAILABLE: "repair the disk that holds the server's state; rankings go on",
    ErrorReason.REGISTRY_UNAVAILABLE: "make room on the disk that holds the server's state, and "
    "try again; if the disk is broken, replace it and restart the server",
    ErrorReason.UNAUTHENTICATED: "give the server's token with --token-file",
    ErrorReason.PERMISSION_DENIED: "the file of --token-file must hold the server's rollout_token",
}


def hint_of_call(error: RankloomError) -> str:
    """Return what to do about an error of a ranking or an explanation, or nothing."""
    if isinstance(error, ConnectionFailedError):
        return "is `rankloom serve` running, and is --server its address?"
    if error.status == "UNIMPLEMENTED":
        return (
            "this port has another service: rankings are on the server's --port, features and "
            "events on its --features-port"
        )
    fields = [v.field for v in error.violations] if isinstance(error, InvalidRequestError) else []
    if error.reason is ErrorReason.NO_STORED_EXPLANATION:
        return "leave out --source to have one written"
    if any(field.startswith("candidates[") for field in fields):
        return (
            "check the ids; --candidates FILE takes ids with a comma, and texts of items that the "
            "catalogue lacks"
        )
    return ""


def hint_of(error: RankloomError) -> str:
    """Return what to do about an error of a rollout, or nothing if the error says it all."""
    if isinstance(error, ConnectionFailedError):
        return (
            "is `rankloom serve` running? Give --server its address, with the port of its "
            "--rollout-port"
        )
    if error.status == "UNIMPLEMENTED":
        return "this port has no RolloutService; give the port of the server's --rollout-port"
    return _HINTS.get(error.reason, "") if error.reason else ""
