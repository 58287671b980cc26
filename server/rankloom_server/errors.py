"""What the server refuses, and why it does not start.

Exception
├── StartError                 the server cannot start; its text is for the operator
│   ├── ConfigError            wrong configuration, one line per wrong key
│   └── ListenError            the address cannot be listened on
├── MalformedError             the bytes of a request are not a message
├── NotServingError            the server is starting, stalled or draining
├── OverloadedError            as many calls as it admits are in flight
├── UnauthenticatedError       the call carries no token
├── ForbiddenError             the token is not the server's
├── NoStoredExplanationError   a stored explanation was asked for, and there is none
└── FeaturesUnavailableError   no features came in their share of the deadline
"""

from __future__ import annotations

from collections.abc import Sequence


class StartError(Exception):
    """The server cannot start."""


class ConfigError(StartError):
    """The configuration is wrong. ``problems``: one line per wrong key."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class ListenError(StartError):
    """The address cannot be listened on."""


class MalformedError(Exception):
    """The bytes of a request are not a message of its type."""


class NotServingError(Exception):
    """The server is starting, stalled or draining and takes no calls."""


class OverloadedError(Exception):
    """As many calls as the server admits are in flight."""


class UnauthenticatedError(Exception):
    """The call carries no token."""


class ForbiddenError(Exception):
    """The token is not the server's."""


class NoStoredExplanationError(Exception):
    """There is no stored explanation. ``reason``: of what, or where."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; ask for a live one")


class FeaturesUnavailableError(Exception):
    """No usable features came. ``cause``: one word for the log."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"no features: {cause}")
        self.cause = cause
