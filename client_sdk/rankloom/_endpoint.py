"""Where a client connects to, and how: the same for both transports.

It opens nothing itself: a client may be made before a fork, and outside any event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from rankloom._address import checked_target, is_loopback
from rankloom._policy import CHANNEL_OPTIONS, uses_tls

_WITHOUT_PROXY: Final = ("grpc.enable_http_proxy", 0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server, and whom to trust there. Make it with `checked`."""

    target: str
    encrypted: bool
    root_certificates: bytes | None

    @classmethod
    def checked(cls, target: str, root_certificates: bytes | None, plaintext: bool) -> Endpoint:
        """Raise InvalidRequestError if the arguments are wrong, alone or together."""
        checked_target(target)
        has_roots = root_certificates is not None
        encrypted = uses_tls(target, has_root_certificates=has_roots, plaintext=plaintext)
        return cls(target, encrypted, root_certificates)

    @property
    def options(self) -> tuple[tuple[str, str | int], ...]:
        """The options of a channel. No proxy is used for this machine, whatever the environment."""
        return (*CHANNEL_OPTIONS, _WITHOUT_PROXY) if is_loopback(self.target) else CHANNEL_OPTIONS

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """For an encrypted channel; None for plaintext."""
        return grpc.ssl_channel_credentials(self.root_certificates) if self.encrypted else None
