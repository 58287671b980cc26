"""Addresses of servers: their forms, which of them are this machine, and which proxy is used.

gRPC sends calls through the proxy of an environment variable, also calls to this machine, and
reads an address that it does not understand as the name of a host. Both end in an error that
names another cause, so both are decided here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from rankloom._checks import checked_text
from rankloom.errors import InvalidRequestError

_SOCKETS: Final = ("unix:", "unix-abstract:")
_ADDRESS_LISTS: Final = ("ipv4:", "ipv6:")
_MAX_PORT: Final = 65_535
_SCHEMES: Final = (*_SOCKETS, *_ADDRESS_LISTS, "dns:", "vsock:", "xds:", "google-c2p:")
# The first one that is set counts, even if it is empty: then there is no proxy.
_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_EXEMPTIONS: Final = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class ProxyInForce:
    """The proxy that gRPC uses for an address: the variable that names it, and host and port."""

    variable: str
    address: str

    def __str__(self) -> str:
        return f"the proxy {self.address} of the environment variable {self.variable}"


def checked_target(target: str) -> str:
    """Return the address of a server if gRPC reads it as it is meant. Raise InvalidRequestError."""
    checked_text(target, "target")
    if found := re.match(r"(?:https?|grpcs?|tcp|udp)://", target):
        raise _wrong_target(f"write HOST:PORT without {found[0]}")
    if target == "unix:":
        raise _wrong_target("no path follows; write unix:PATH")
    if target.count(":") > 1 and not target.startswith(("[", *_SCHEMES)):
        raise _wrong_target("put an IPv6 address in brackets, as in [::1]:50051")
    for port in _ports(target):
        if not 1 <= port <= _MAX_PORT:  # gRPC would take the rest of a division
            raise _wrong_target(f"the port is from 1 to {_MAX_PORT}, not {port}")
    return target


def is_loopback(target: str) -> bool:
    """Return whether the address can only be this machine; if in doubt, False."""
    if target.startswith(_SOCKETS):
        return True
    return all(_is_loopback_host(address) for address in _addresses(target))


def proxy_in_force(target: str, environment: Mapping[str, str] = os.environ) -> ProxyInForce | None:
    """Return the proxy that calls to the address go through, by gRPC's rules and our own."""
    if is_loopback(target) or target.startswith("vsock:"):
        return None
    variable = next((name for name in _PROXY_VARIABLES if name in environment), "")
    try:
        proxy = urlsplit(environment.get(variable, ""))
        is_usable = proxy.scheme == "http" and bool(proxy.hostname) and proxy.port != 0
    except ValueError:  # not a URL; gRPC does not use it either
        return None
    if not is_usable or _is_exempt(_host(target), environment):
        return None
    return ProxyInForce(variable, proxy.netloc.rpartition("@")[2])


def _wrong_target(problem: str) -> InvalidRequestError:
    return InvalidRequestError.of_field("target", problem)


def _addresses(target: str) -> list[str]:
    """Each `HOST:PORT` of an address that is no socket."""
    listed = target.startswith(_ADDRESS_LISTS)
    return target.partition(":")[2].split(",") if listed else [_without_dns(target)]


def _ports(target: str) -> list[int]:
    """The ports that are given as numbers."""
    if target.startswith((*_SOCKETS, "vsock:")):
        return []
    found = (re.search(r":(\d+)$", address) for address in _addresses(target))
    return [int(each[1]) for each in found if each]


def _without_dns(target: str) -> str:
    return re.sub(r"^dns:(///)?", "", target)


def _host(target: str) -> str:
    """The host of `HOST:PORT`, without the brackets of an IPv6 address."""
    return _without_dns(target).rpartition(":")[0].strip("[]").lower()


def _is_loopback_host(address: str) -> bool:
    host = _host(address)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_exempt(host: str, environment: Mapping[str, str]) -> bool:
    """Whether gRPC calls the host directly: it compares the ends of names, and networks."""
    variable = next((name for name in _EXEMPTIONS if name in environment), "")
    entries = (entry.strip().lower() for entry in environment.get(variable, "").split(","))
    return any(entry and (host.endswith(entry) or _contains(entry, host)) for entry in entries)


def _contains(network: str, host: str) -> bool:
    try:
        return "/" in network and ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
