from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_server.config import Settings, load_settings
from rankloom_server.errors import ConfigError

WRONG_VALUES = {
    "host": "",
    "port": 65536,
    "features": "no port",
    "feature_share": 1,
    "default_deadline_s": 0,
    "max_in_flight": 0,
    "max_batch_tokens": "many",
    "threads": 0,
    "drain_s": -1,
    "log_level": "loud",
    "reflection": "perhaps",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def problems(file: Path | None, **flags: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, flags)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_the_defaults_need_a_bundle_only() -> None:
    settings = load_settings(None, {"bundle": "b"})
    assert settings == Settings(bundle=Path("b"))
    assert (settings.host, settings.port, settings.features) == ("127.0.0.1", 50051, None)


def test_the_environment_wins_over_the_file_and_flags_over_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("{bundle: of-file, port: 1, threads: 1, drain_s: 1}")
    monkeypatch.setenv("RANKLOOM_PORT", "2")
    monkeypatch.setenv("RANKLOOM_THREADS", "2")
    settings = load_settings(file, {"threads": "3"})
    assert (settings.bundle, settings.drain_s) == (Path("of-file"), 1.0)
    assert (settings.port, settings.threads) == (2, 3)


@pytest.mark.parametrize("key", WRONG_VALUES)
def test_a_wrong_value_is_refused_by_its_key(key: str) -> None:
    (problem,) = problems(None, bundle="b", **{key: WRONG_VALUES[key]})
    assert problem.startswith(f"{key}: ")
    assert "\n" not in problem


def test_every_wrong_key_has_its_line(file: Path) -> None:
    file.write_text("{prot: 1, threads: none, limits: {max_in_flight: 1}}")
    found = problems(file)
    assert {line.partition(":")[0] for line in found} == {"prot", "threads", "limits", "bundle"}
    assert "prot: no such setting" in found
    assert "bundle: is not given" in found


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOM_PROT", "1")
    assert problems(None, bundle="b") == ("RANKLOOM_PROT: no such setting",)


def test_an_unknown_flag_is_refused() -> None:
    assert problems(None, bundle="b", prot=1) == ("prot: no such setting",)


@pytest.mark.parametrize(
    "text", ["{", "- a list", "just words", "1: 2", "\0", "bundle: 2024-13-45", "[" * 10_000]
)
def test_a_file_that_is_no_mapping_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    (problem,) = problems(file, bundle="b")
    assert problem.startswith(str(file))


def test_a_missing_file_is_refused(file: Path) -> None:
    (problem,) = problems(file, bundle="b")
    assert problem == f"{file}: cannot be read: No such file or directory"


def test_an_empty_file_says_nothing(file: Path) -> None:
    file.write_text("")
    assert load_settings(file, {"bundle": "b"}).bundle == Path("b")


@pytest.mark.parametrize(
    ("text", "keys"), [("", []), ("a.pem", ["a.pem"]), ("a.pem:b.pem", ["a.pem", "b.pem"])]
)
def test_a_list_is_written_in_the_environment_as_path_is(
    monkeypatch: pytest.MonkeyPatch, text: str, keys: list[str]
) -> None:
    monkeypatch.setenv("RANKLOOM_BUNDLE_KEYS", text)
    assert load_settings(None, {"bundle": "b"}).bundle_keys == tuple(map(Path, keys))


def test_a_list_is_a_list_in_the_file(file: Path) -> None:
    file.write_text("{bundle: b, bundle_keys: [a.pem, b.pem]}")
    assert load_settings(file, {}).bundle_keys == (Path("a.pem"), Path("b.pem"))
    file.write_text("{bundle: b, bundle_keys: 3}")
    assert problems(file)[0].startswith("bundle_keys: ")
