from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rankloom_server.config import (
    EngineSettings,
    FeatureSettings,
    LearningSettings,
    LoadingSettings,
    RolloutSettings,
    ServerSettings,
    Settings,
    load_settings,
)
from rankloom_server.errors import ConfigError
from rankloom_server.setting_table import BY_NAME, SETTINGS, Setting

WRONG_VALUES: dict[str, object] = {
    "host": "",
    "port": 65536,
    "socket_mode": "rw-rw----",
    "metrics_host": "unix:",
    "rollout_host": "a host",
    "connection_age_s": -1,
    "drain_delay_s": 3601,
    "features": "no port",
    "features_port": -1,
    "features_host": "a host",
    "max_message_mib": 0,
    "feature_share": 1,
    "default_deadline_s": 0,
    "max_in_flight": 0,
    "max_batch_tokens": "many",
    "threads": 0,
    "drain_s": -1,
    "log_level": "loud",
    "reflection": "perhaps",
    "dtype": "int8",
    "rollout_port": -1,
    "bundle_keys": 3,
}
OTHER_VALUES: dict[str, object] = {
    "bundle": "folder",
    "host": "::1",
    "port": 1,
    "socket_mode": "600",
    "max_in_flight": 2,
    "max_message_mib": 20,
    "default_deadline_s": 3.5,
    "connection_age_s": 17.5,
    "drain_delay_s": 18.5,
    "drain_s": 4.5,
    "log_level": "error",
    "reflection": True,
    "metrics_host": "unix:metrics.sock",
    "metrics_port": 5,
    "features": "host:6",
    "feature_share": 0.75,
    "events": "events-file",
    "features_port": 21,
    "features_host": "::1",
    "log_served": "served-folder",
    "log_served_mib": 22,
    "device": "cuda:1",
    "dtype": "bfloat16",
    "compile": True,
    "threads": 8,
    "max_batch_tokens": 9,
    "expert_slots_mib": 10,
    "prefix_cache_mib": 11,
    "stall_s": 19.5,
    "exit_on_stall": True,
    "bundle_keys": ["a.pem", "b.pem"],
    "load_mib_s": 12,
    "expert_cache_mib": 13,
    "max_bundle_mib": 14,
    "state": "state-folder",
    "rollout_port": 15,
    "rollout_host": "localhost",
    "rollout_token": "token-file",
    "retire_s": 16.5,
}
EXPECTED = Settings(
    bundle=Path("folder"),
    server=ServerSettings(
        host="::1",
        port=1,
        socket_mode="600",
        max_in_flight=2,
        max_message_mib=20,
        default_deadline_s=3.5,
        connection_age_s=17.5,
        drain_delay_s=18.5,
        drain_s=4.5,
        log_level="error",
        reflection=True,
        metrics_host="unix:metrics.sock",
        metrics_port=5,
    ),
    features=FeatureSettings(
        address="host:6", share=0.75, events=Path("events-file"), port=21, host="::1"
    ),
    learning=LearningSettings(log_served=Path("served-folder"), log_served_mib=22),
    engine=EngineSettings(
        device="cuda:1",
        dtype="bfloat16",
        compile=True,
        threads=8,
        max_batch_tokens=9,
        expert_slots_mib=10,
        prefix_cache_mib=11,
        stall_s=19.5,
        exit_on_stall=True,
    ),
    loading=LoadingSettings(
        bundle_keys=(Path("a.pem"), Path("b.pem")),
        load_mib_s=12,
        expert_cache_mib=13,
        max_bundle_mib=14,
    ),
    rollout=RolloutSettings(
        state=Path("state-folder"),
        rollout_port=15,
        rollout_host="localhost",
        rollout_token=Path("token-file"),
        retire_s=16.5,
    ),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def problems(file: Path | None, **flags: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, flags)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def problems_in(file: Path, text: str) -> tuple[str, ...]:
    file.write_text(text)
    return problems(file, bundle="b")


def nested(values: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for setting in SETTINGS:
        group = found.setdefault(setting.layer, {}) if setting.layer else found
        assert isinstance(group, dict)
        group[setting.key] = values[setting.name]
    return found


def test_only_the_bundle_is_required() -> None:
    settings = load_settings(None, {"bundle": "b"})
    assert settings == Settings(bundle=Path("b"))
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 50051)
    assert settings.features.address is None


def test_flat_keys_of_a_file_reach_every_setting(file: Path) -> None:
    file.write_text(yaml.safe_dump(OTHER_VALUES))
    assert load_settings(file, {}) == EXPECTED


def test_nested_keys_of_a_file_reach_every_setting(file: Path) -> None:
    file.write_text(yaml.safe_dump(nested(OTHER_VALUES)))
    assert load_settings(file, {}) == EXPECTED


def test_flags_reach_every_setting() -> None:
    assert load_settings(None, OTHER_VALUES) == EXPECTED


def test_variables_reach_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OTHER_VALUES.items():
        text = ":".join(value) if isinstance(value, list) else str(value)
        monkeypatch.setenv(f"RANKLOOM_{name.upper()}", text)
    assert load_settings(None, {}) == EXPECTED


def test_a_dump_of_settings_is_a_file(file: Path) -> None:
    file.write_text(yaml.safe_dump(EXPECTED.model_dump(mode="json", exclude_unset=True)))
    assert load_settings(file, {}) == EXPECTED


def test_a_file_may_mix_flat_and_nested_keys(file: Path) -> None:
    file.write_text("{bundle: b, threads: 2, engine: {dtype: bfloat16}, features: {share: 0.5}}")
    settings = load_settings(file, {"features": "host:1"})
    assert settings.engine == EngineSettings(dtype="bfloat16", threads=2)
    assert settings.features == FeatureSettings(address="host:1", share=0.5)


@pytest.mark.parametrize("text", ["features: host:1", "features: {address: 'host:1'}"])
def test_features_is_an_address_or_a_group(file: Path, text: str) -> None:
    file.write_text(f"bundle: b\n{text}\n")
    assert load_settings(file, {}).features == FeatureSettings(address="host:1")


@pytest.mark.parametrize("text", ["engine:", "features:", "engine: {}"])
def test_a_group_may_be_empty(file: Path, text: str) -> None:
    file.write_text(f"bundle: b\n{text}\n")
    assert load_settings(file, {}) == Settings(bundle=Path("b"))


def test_the_environment_wins_over_the_file_and_flags_over_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("{bundle: of-file, port: 1, engine: {threads: 1}, drain_s: 1}")
    monkeypatch.setenv("RANKLOOM_PORT", "2")
    monkeypatch.setenv("RANKLOOM_THREADS", "2")
    settings = load_settings(file, {"threads": "3"})
    assert (settings.bundle, settings.server.drain_s) == (Path("of-file"), 1.0)
    assert (settings.server.port, settings.engine.threads) == (2, 3)


def test_a_variable_may_be_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("rankloom_port", "2")
    assert load_settings(None, {"bundle": "b"}).server.port == 2


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_is_refused_by_its_key(name: str, file: Path) -> None:
    flag = "--" + name.replace("_", "-")
    (problem,) = problems(None, bundle="b", **{name: WRONG_VALUES[name]})
    assert problem.startswith(f"{flag}: ")
    assert "\n" not in problem
    (problem,) = problems_in(file, yaml.safe_dump({name: WRONG_VALUES[name]}))
    assert problem.startswith(f"{name}: ")


@pytest.mark.parametrize("setting", [BY_NAME[name] for name in WRONG_VALUES], ids=WRONG_VALUES)
def test_a_wrong_value_in_a_group_is_refused_by_its_path(setting: Setting, file: Path) -> None:
    text = yaml.safe_dump({setting.layer: {setting.key: WRONG_VALUES[setting.name]}})
    (problem,) = problems_in(file, text)
    assert problem.startswith(f"{setting.path}: ")


def test_a_wrong_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOM_FEATURE_SHARE", "most")
    (problem,) = problems(None, bundle="b")
    assert problem.startswith("RANKLOOM_FEATURE_SHARE: ")


def test_every_wrong_key_has_its_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("{prot: 1, threads: none, limits: {max_in_flight: 1}}")
    monkeypatch.setenv("RANKLOOM_PROT", "1")
    found = problems(file)
    named = {line.partition(":")[0] for line in found}
    assert named == {"prot", "threads", "limits", "bundle", "RANKLOOM_PROT"}
    assert "prot: no such setting" in found
    assert "bundle: is not given; use --bundle" in found


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("prot: 1", "prot"),
        ("engine: {dtpye: float32}", "engine.dtpye"),
        ("engine: {port: 1}", "engine.port"),
        ("engine: {1: 1}", "engine.1"),
        ("engine: {engine: {dtype: float32}}", "engine.engine"),
        ("features: {feature_share: 0.5}", "features.feature_share"),
        ("engine.dtype: float32", "engine.dtype"),
        ("share: 0.5", "share"),
    ],
)
def test_an_unknown_key_is_refused_by_its_path(file: Path, text: str, key: str) -> None:
    assert problems_in(file, text) == (f"{key}: no such setting",)


def test_a_group_must_be_a_mapping(file: Path) -> None:
    assert problems_in(file, "engine: float32") == ("engine: must be a mapping of settings",)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("{dtype: float32, engine: {dtype: float32}}", "dtype", "engine.dtype"),
        ("{engine: {dtype: float32}, dtype: float32}", "engine.dtype", "dtype"),
        ("{feature_share: 0.5, features: {share: 0.5}}", "feature_share", "features.share"),
    ],
)
def test_a_setting_in_both_forms_is_refused(file: Path, text: str, first: str, second: str) -> None:
    reason = f"{second}: is given as {first} too; remove one of them"
    assert problems_in(file, text) == (reason,)


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOM_PROT", "1")
    assert problems(None, bundle="b") == ("RANKLOOM_PROT: no such setting",)


def test_an_unknown_flag_is_refused() -> None:
    assert problems(None, bundle="b", prot=1) == ("--prot: no such setting",)


@pytest.mark.parametrize(
    "text", ["{", "- a list", "just words", "1: 2", "\0", "bundle: 2024-13-45", "[" * 10_000]
)
def test_a_file_that_is_no_mapping_is_refused(file: Path, text: str) -> None:
    (problem,) = problems_in(file, text)
    assert problem.startswith(str(file))


def test_a_missing_file_is_refused(file: Path) -> None:
    (problem,) = problems(file, bundle="b")
    assert problem == f"{file}: cannot be read: No such file or directory"


def test_an_empty_file_has_no_effect(file: Path) -> None:
    file.write_text("")
    assert load_settings(file, {"bundle": "b"}).bundle == Path("b")


@pytest.mark.parametrize(
    ("text", "keys"), [("", []), ("a.pem", ["a.pem"]), ("a.pem:b.pem", ["a.pem", "b.pem"])]
)
def test_a_list_is_written_in_the_environment_as_path_is(
    monkeypatch: pytest.MonkeyPatch, text: str, keys: list[str]
) -> None:
    monkeypatch.setenv("RANKLOOM_BUNDLE_KEYS", text)
    assert load_settings(None, {"bundle": "b"}).loading.bundle_keys == tuple(map(Path, keys))


def test_a_list_is_a_list_in_the_file(file: Path) -> None:
    file.write_text("{bundle: b, bundle_keys: [a.pem, b.pem]}")
    keys = load_settings(file, {}).loading.bundle_keys
    assert keys == (Path("a.pem"), Path("b.pem"))
    assert problems_in(file, "bundle_keys: 3")[0].startswith("bundle_keys: ")
    assert problems_in(file, "bundle_keys: [a.pem, 3]")[0].startswith("bundle_keys.1: ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("rollout_port: 1", "rollout_port"),
        ("rollout: {rollout_port: 1}", "rollout.rollout_port"),
        ("{state: s, rollout_port: 1, rollout_host: 0.0.0.0}", "rollout_host"),
        ("rollout_host: unix:rollout.sock", "rollout_host"),
    ],
)
def test_rollouts_need_a_state_and_a_token_for_other_machines(
    file: Path, text: str, key: str
) -> None:
    (problem,) = problems_in(file, text)
    assert problem.startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("features", "nowhere", "must be HOST:PORT or unix:PATH"),
        ("host", "unix:", "must be an address, a name, or unix:PATH"),
        ("socket_mode", 660, "must be three octal digits such as 660, in a file with quotes"),
        ("device", "tpu", "must be cpu, cuda or cuda:N"),
        ("dtype", "float16", "must be 'auto', 'float32' or 'bfloat16'"),
        ("threads", "none", "must be a whole number"),
        ("threads", 0, "must be greater than or equal to 1"),
        ("retire_s", "soon", "must be a number"),
    ],
)
def test_a_wrong_value_names_the_right_form(name: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"bundle": "b", name: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"--{name.replace('_', '-')}: {reason}")


def local(**values: object) -> Settings:
    return load_settings(None, {"bundle": "b", **values})


def test_a_socket_needs_no_port() -> None:
    found = local(metrics_host="unix:/m.sock", rollout_host="unix:/r.sock", state="s")
    assert str(found.server.metrics_address) == "unix:/m.sock"
    assert str(found.rollout.address) == "unix:/r.sock"


def test_what_has_no_port_is_not_listened_on() -> None:
    assert local(metrics_host="0.0.0.0").server.metrics_address is None
    assert local(rollout_host="::1").rollout.address is None


def test_metrics_are_where_the_server_is_unless_that_is_a_socket() -> None:
    assert str(local(host="::", metrics_port=1).server.metrics_address) == "[::]:1"
    found = local(host="unix:/r.sock", metrics_port=1).server
    assert (str(found.address), str(found.metrics_address)) == ("unix:/r.sock", "127.0.0.1:1")
