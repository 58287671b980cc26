"""The settings of a server: from a YAML file, the environment and flags. Later ones win.

Each layer of the server has a group of its own. A setting also has one flat name, which is its
environment variable and its flag: `engine.dtype` is `dtype`, `RANKLOOM_DTYPE` and `--dtype`.
A file may use either form. Unknown keys are refused, because somebody believes that they have
an effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from rankloom_server.errors import ConfigError
from rankloom_server.rpc.listening import ListenAddress
from rankloom_server.service_links import service_links
from rankloom_server.setting_table import (
    BY_NAME,
    BY_PATH,
    LAYERS,
    VARIABLE_PREFIX,
    Setting,
    flag_of,
)

_LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")
_UNKNOWN = "no such setting"
_HOST_FORM = "an address, a name, or unix:PATH"
_FORMS = {
    "device": "cpu, cuda or cuda:N",
    "features": "HOST:PORT or unix:PATH",
    "features_host": _HOST_FORM,
    "host": _HOST_FORM,
    "metrics_host": _HOST_FORM,
    "rollout_host": _HOST_FORM,
    "socket_mode": "three octal digits such as 660, in a file with quotes around them",
}

PositiveInt = Annotated[int, Field(ge=1)]
Mebibytes = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
"""0: any free port."""
Host = Annotated[str, Field(pattern=r"^(unix:.+|\[?[0-9a-fA-F:.]+(%\w+)?\]?|[\w.-]+)$")]
Seconds = Annotated[float, Field(gt=0.0, le=3600.0)]


def _separated(value: object) -> object:
    if isinstance(value, str):
        return [path for path in value.split(os.pathsep) if path]
    return value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_separated)]
"""A list in a file, a repeated flag, or one text with separators as in PATH."""


def _if_given(host: str, port: int | None) -> ListenAddress | None:
    """A socket has no port; nothing listens on any other host without one."""
    address = ListenAddress(host, port or 0)
    return None if port is None and address.path is None else address


class _Group(BaseModel):
    """Settings that belong together. Immutable. What each means: see `setting_table`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Group):
    """Calls, ports and logs."""

    host: Host = "127.0.0.1"
    port: Port = 50051
    socket_mode: str = Field(default="660", pattern=r"^[0-7]{3}$")
    max_in_flight: PositiveInt = 64
    max_message_mib: int = Field(default=1, ge=1, le=256)
    default_deadline_s: Seconds = 2.0
    connection_age_s: float = Field(default=60.0, ge=0.0, le=86400.0)
    drain_delay_s: float = Field(default=0.0, ge=0.0, le=3600.0)
    drain_s: float = Field(default=30.0, ge=0.0, le=3600.0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    reflection: bool = False
    metrics_host: Host | None = None
    metrics_port: Port | None = None

    @property
    def address(self) -> ListenAddress:
        return ListenAddress(self.host, self.port)

    @property
    def socket_bits(self) -> int:
        """The permissions of Unix sockets."""
        return int(self.socket_mode, 8)

    @property
    def metrics_address(self) -> ListenAddress | None:
        """None: metrics are not served."""
        default = "127.0.0.1" if self.address.path else self.host
        return _if_given(self.metrics_host or default, self.metrics_port)


class FeatureSettings(_Group):
    """Where features come from, and how long they may take."""

    address: str | None = Field(default=None, pattern=r"^(unix:.+|\S+:\d{1,5})$")
    share: float = Field(default=0.3, gt=0.0, lt=1.0)
    events: Path | None = None
    port: Port | None = None
    host: Host = "127.0.0.1"

    @property
    def served_at(self) -> ListenAddress | None:
        """None: features are not served."""
        return _if_given(self.host, self.port)


class LearningSettings(_Group):
    """What is kept of rankings, to learn from."""

    log_served: Path | None = None
    log_served_mib: Mebibytes = 1024


class EngineSettings(_Group):
    """The model: hardware and memory."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    threads: PositiveInt = 1
    max_batch_tokens: int = Field(default=2048, ge=2)
    expert_slots_mib: Mebibytes = 64
    prefix_cache_mib: Mebibytes = 256
    stall_s: Seconds = 60.0
    exit_on_stall: bool = False


class LoadingSettings(_Group):
    """How bundles are checked and read."""

    bundle_keys: Paths = ()
    load_mib_s: PositiveInt = 256
    expert_cache_mib: Mebibytes = 64
    max_bundle_mib: PositiveInt = 65536


class RolloutSettings(_Group):
    """How the bundle changes while the server runs."""

    state: Path | None = None
    rollout_port: Port | None = None
    rollout_host: Host = "127.0.0.1"
    rollout_token: Path | None = None
    retire_s: Seconds = 60.0

    @property
    def address(self) -> ListenAddress | None:
        """None: rollout commands are not taken."""
        return _if_given(self.rollout_host, self.rollout_port)


class Settings(_Group):
    """All settings of a server, grouped by layer."""

    bundle: Path
    server: ServerSettings = ServerSettings()
    features: FeatureSettings = FeatureSettings()
    learning: LearningSettings = LearningSettings()
    engine: EngineSettings = EngineSettings()
    loading: LoadingSettings = LoadingSettings()
    rollout: RolloutSettings = RolloutSettings()

    @classmethod
    def from_flat(cls, values: Mapping[str, object]) -> Settings:
        """Settings from flat names, such as ``{"bundle": "b", "dtype": "bfloat16"}``.

        Raises ValidationError, and KeyError for an unknown name.
        """
        nested: dict[str, Any] = {}
        for name, value in values.items():
            setting = BY_NAME[name]
            group = nested.setdefault(setting.layer, {}) if setting.layer else nested
            group[setting.key] = value
        return cls.model_validate(nested)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value of one source. ``key``: how the user wrote the setting's name there."""

    key: str
    value: object


@dataclass(frozen=True, slots=True)
class _Source:
    """What one source gives: values by flat name, and a line for each wrong key."""

    values: Mapping[str, _Given]
    problems: tuple[str, ...] = ()


def load_settings(file: Path | None, flags: Mapping[str, object]) -> Settings:
    """The settings of all sources. ``flags``: by flat name.

    Raises ConfigError with one line per wrong key, named as in its source.
    """
    sources = (_from_file(file), _from_environment(), _from_flags(flags))
    given = {name: value for source in sources for name, value in source.values.items()}
    unknown = [problem for source in sources for problem in source.problems]
    try:
        settings = Settings.from_flat({name: each.value for name, each in given.items()})
    except ValidationError as error:
        raise ConfigError([*_problems(error, given), *unknown]) from error
    problems = [*_rollout_problems(settings.rollout, given), *unknown]
    if problems:
        raise ConfigError(problems)
    return settings


def _rollout_problems(settings: RolloutSettings, given: Mapping[str, _Given]) -> Iterator[str]:
    """Settings that are valid one by one but not together."""
    address = settings.address
    if address is None:
        return
    if settings.state is None:
        key = given["rollout_host" if address.path else "rollout_port"].key
        yield f"{key}: needs state, a folder where rollouts are kept"
    elif settings.rollout_token is None and not address.path and address.host not in _LOOPBACK:
        key = given["rollout_host"].key
        yield f"{key}: other machines can reach it, so rollout_token is needed"


def _from_file(file: Path | None) -> _Source:
    """Keys may be flat or nested. A setting in both forms is a problem."""
    values: dict[str, _Given] = {}
    problems: list[str] = []
    for setting, given in _leaves(_content(file)):
        if setting is None:
            reason = "must be a mapping of settings" if given.key in LAYERS else _UNKNOWN
            problems.append(f"{given.key}: {reason}")
        elif setting.name in values:
            other = values[setting.name].key
            problems.append(f"{given.key}: is given as {other} too; remove one of them")
        else:
            values[setting.name] = given
    return _Source(values, tuple(problems))


def _leaves(content: Mapping[str, object]) -> Iterator[tuple[Setting | None, _Given]]:
    """Each value of a file and its setting, if there is one.

    `features` is a group and also the flat name of an address: only a mapping is the group.
    """
    for key, value in content.items():
        if key in LAYERS and (value is None or isinstance(value, dict)):
            for inner, leaf in (value or {}).items():
                path = f"{key}.{inner}"
                yield BY_PATH.get(path), _Given(path, leaf)
        else:
            yield BY_NAME.get(key), _Given(key, value)


def _content(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{file}: is not valid YAML"]) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError([f"{file}: must be a mapping from keys to values"])
    return content


def ignored_variables() -> tuple[str, ...]:
    """Variables with our prefix that Kubernetes sets for a Service, and that set nothing here."""
    return service_links(os.environ, VARIABLE_PREFIX.rstrip("_"))


def _from_environment() -> _Source:
    """All variables with our prefix, in upper or lower case, but those of Kubernetes."""
    ignored = ignored_variables()
    return _known(
        (variable[len(VARIABLE_PREFIX) :].lower(), _Given(variable, os.environ[variable]))
        for variable in sorted(os.environ)
        if variable.upper().startswith(VARIABLE_PREFIX) and variable not in ignored
    )


def _from_flags(flags: Mapping[str, object]) -> _Source:
    return _known((name, _Given(flag_of(name), value)) for name, value in flags.items())


def _known(named: Iterable[tuple[str, _Given]]) -> _Source:
    """A source that uses flat names. Names that no setting has become problems."""
    all_given = dict(named)
    values = {name: given for name, given in all_given.items() if name in BY_NAME}
    unknown = [given.key for name, given in all_given.items() if name not in BY_NAME]
    return _Source(values, tuple(f"{key}: {_UNKNOWN}" for key in unknown))


def _problems(error: ValidationError, given: Mapping[str, _Given]) -> Iterator[str]:
    """A line per invalid value. Only a value inside a list has a location below its setting."""
    for each in error.errors():
        location = [str(part) for part in each["loc"]]
        depth = 2 if location[0] in LAYERS else 1
        setting = BY_PATH[".".join(location[:depth])]
        key = given[setting.name].key if setting.name in given else setting.name
        yield f"{'.'.join([key, *location[depth:]])}: {_reason(each, setting)}"


def _reason(error: ErrorDetails, setting: Setting) -> str:
    """What is wrong, in the words of --help where pydantic has none for a reader."""
    match error["type"]:
        case "missing":
            return f"is not given; use {setting.flag}"
        case "string_pattern_mismatch" | "string_type":
            return f"must be {_FORMS.get(setting.name, setting.metavar)}"
        case "literal_error":
            return f"must be {error.get('ctx', {}).get('expected', setting.metavar)}"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "float_parsing" | "float_type":
            return "must be a number"
        case _:
            return error["msg"].replace("Input should be", "must be")
