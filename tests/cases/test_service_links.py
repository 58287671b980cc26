"""Which variables Kubernetes has set, and which a user has misspelt."""

from __future__ import annotations

import pytest

from rankloom_server.config import ignored_variables, load_settings
from rankloom_server.errors import ConfigError
from rankloom_server.service_links import service_links

LINKS = {
    "RANKLOOM_SERVICE_HOST": "10.0.0.1",
    "RANKLOOM_SERVICE_PORT": "50051",
    "RANKLOOM_SERVICE_PORT_GRPC": "50051",
    "RANKLOOM_PORT": "tcp://10.0.0.1:50051",
    "RANKLOOM_PORT_50051_TCP": "tcp://10.0.0.1:50051",
    "RANKLOOM_PORT_50051_TCP_PROTO": "tcp",
    "RANKLOOM_PORT_50051_TCP_PORT": "50051",
    "RANKLOOM_PORT_50051_TCP_ADDR": "10.0.0.1",
}
METRICS = {name.replace("RANKLOOM", "RANKLOOM_METRICS"): text for name, text in LINKS.items()}
URLS = ("RANKLOOM_PORT", "RANKLOOM_PORT_50051_TCP")
IPV6 = {name: text.replace("10.0.0.1", "fd00::1") for name, text in LINKS.items()}
IPV6 |= dict.fromkeys(URLS, "tcp://[fd00::1]:50051")


@pytest.mark.parametrize("links", [LINKS, METRICS, LINKS | METRICS, IPV6])
def test_what_kubernetes_sets_is_ignored(
    links: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in links.items():
        monkeypatch.setenv(name, text)
    settings = load_settings(None, {"bundle": "b"})
    assert (settings.server.port, settings.server.metrics_port) == (50051, None)
    assert ignored_variables() == tuple(sorted(links))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RANKLOOM_PROT", "tcp://10.0.0.1:50051"),
        ("RANKLOOM_PORT", "tcp:10.0.0.1"),
        ("RANKLOOM_SERVICE_HOTS", "10.0.0.1"),
        ("RANKLOOM_SERVICE_PORT", "many"),
        ("RANKLOOM_METRICS_PORT", "tcp://10.0.0.1:9090"),  # there is no such Service
        ("RANKLOOM_PORT_50051_TCP_PROTO", "ftp"),
    ],
)
def test_a_misspelt_setting_is_still_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each, value in (LINKS | {name: text}).items():
        monkeypatch.setenv(each, value)
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"bundle": "b"})
    assert any(problem.startswith(f"{name}: ") for problem in caught.value.problems)


def test_a_setting_of_the_container_wins_over_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (LINKS | {"RANKLOOM_PORT": "50052"}).items():
        monkeypatch.setenv(name, text)
    assert load_settings(None, {"bundle": "b"}).server.port == 50052
    assert "RANKLOOM_PORT" not in ignored_variables()


def test_links_without_a_service_are_not_kubernetes() -> None:
    assert service_links({"RANKLOOM_PORT": "tcp://10.0.0.1:50051"}, "RANKLOOM") == ()
    without_port = LINKS.keys() - {"RANKLOOM_SERVICE_PORT"}
    assert service_links({name: LINKS[name] for name in without_port}, "RANKLOOM") == ()


def test_services_of_others_are_left_alone() -> None:
    others = {name.replace("RANKLOOM", "POSTGRES"): text for name, text in LINKS.items()}
    assert service_links(others | {"RANKLOOMS_SERVICE_HOST": "10.0.0.1"}, "RANKLOOM") == ()
