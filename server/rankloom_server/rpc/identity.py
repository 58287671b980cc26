"""Who may call: a bearer token, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from rankloom_server.errors import (
    ConfigError,
    ForbiddenError,
    UnauthenticatedError,
)

MIN_TOKEN_CHARS = 16
_SCHEME = "Bearer "


class Token:
    """The token that callers must bring in the metadata `authorization: Bearer TOKEN`."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raises UnauthenticatedError or ForbiddenError."""
        given = next((value for key, value in metadata if key == "authorization"), None)
        if not isinstance(given, str) or not given.startswith(_SCHEME):
            raise UnauthenticatedError("no token came with the call: authorization: Bearer TOKEN")
        if not hmac.compare_digest(given.removeprefix(_SCHEME).encode(), self._token):
            raise ForbiddenError("the token is not the one that this server was given")


def read_token(path: Path) -> Token:
    """The token in a file. Raises ConfigError, which never quotes it."""
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigError([f"rollout_token: {path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"rollout_token: {path}: not a text file"]) from error
    if len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise ConfigError(
            [f"rollout_token: {path}: must hold at least {MIN_TOKEN_CHARS} plain characters"]
        )
    return Token(token)
