"""Environment variables that Kubernetes sets in every container for each Service.

A Service called `rankloom` gives `RANKLOOM_PORT=tcp://10.0.0.1:50051` and more, and one called
`rankloom-metrics` gives `RANKLOOM_METRICS_PORT`: names of settings, or names that look like a
misspelt one. Only what has exactly the form that Kubernetes writes is taken for its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final

_HOST: Final = "_SERVICE_HOST"
_URL: Final = re.compile(r"(?:tcp|udp|sctp)://(?:\[[0-9a-f:.]+\]|[0-9.]+):\d{1,5}")
_NUMBER: Final = re.compile(r"\d{1,5}")
_PROTOCOL: Final = re.compile(r"tcp|udp|sctp")
_ADDRESS: Final = re.compile(r"[0-9a-f:.]+")
# What follows the name of the Service, and the form of its value.
_FORMS: Final = (
    (re.compile(r"_SERVICE_HOST"), _ADDRESS),
    (re.compile(r"_SERVICE_PORT(_[A-Z0-9_]+)?"), _NUMBER),
    (re.compile(r"_PORT(_\d{1,5}_(TCP|UDP|SCTP))?"), _URL),
    (re.compile(r"_PORT_\d{1,5}_(TCP|UDP|SCTP)_PROTO"), _PROTOCOL),
    (re.compile(r"_PORT_\d{1,5}_(TCP|UDP|SCTP)_PORT"), _NUMBER),
    (re.compile(r"_PORT_\d{1,5}_(TCP|UDP|SCTP)_ADDR"), _ADDRESS),
)


def service_links(environment: Mapping[str, str], prefix: str) -> tuple[str, ...]:
    """The variables of Services whose names begin with ``prefix``, such as ``RANKLOOM``, in order.

    A setting with such a name is not among them if its value is not one of Kubernetes': a
    container's own ``RANKLOOM_PORT=50052`` wins over the Service's.
    """
    services = list(_services(environment, prefix))
    return tuple(
        variable
        for variable, value in sorted(environment.items())
        if any(_is_link(variable, value, service) for service in services)
    )


def _services(environment: Mapping[str, str], prefix: str) -> Iterator[str]:
    """Each Service has an address and a port; without both, there is no Service."""
    for variable, value in environment.items():
        service = variable.removesuffix(_HOST)
        if (
            service != variable
            and (service == prefix or service.startswith(f"{prefix}_"))
            and _is_address(value)
            and _NUMBER.fullmatch(environment.get(f"{service}_SERVICE_PORT", ""))
        ):
            yield service


def _is_link(variable: str, value: str, service: str) -> bool:
    rest = variable.removeprefix(service)
    return rest != variable and any(
        name.fullmatch(rest) and form.fullmatch(value) for name, form in _FORMS
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
