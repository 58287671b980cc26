"""The configuration: a YAML file, the environment and flags; later ones win.

A key that nothing knows is refused, wherever it stands: it is a setting that somebody
believes to be in force.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from rankloom_server.errors import ConfigError

ENV_PREFIX = "RANKLOOM_"
_LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")

PositiveInt = Annotated[int, Field(ge=1)]


def _separated(value: object) -> object:
    if isinstance(value, str):
        return [path for path in value.split(os.pathsep) if path]
    return value


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_separated)]
"""A list in a file; in the environment as PATH is written."""


class Settings(BaseSettings):
    """What a server can be told. Immutable."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    bundle: Path
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=50051, ge=0, le=65535)
    """0: any free port."""
    features: str | None = Field(default=None, pattern=r"^\S+:\d{1,5}$")
    """HOST:PORT of a feature service; without one, features are computed in the process."""
    feature_share: float = Field(default=0.3, gt=0.0, lt=1.0)
    """The part of a call's time that its features may take."""
    default_deadline_s: float = Field(default=2.0, gt=0.0, le=3600.0)
    """For calls that bring no deadline."""
    state: Path | None = None
    """Where rollouts and their bundles are kept; without it, a bundle is served for good."""
    rollout_port: int | None = Field(default=None, ge=0, le=65535)
    """Where RolloutService listens, on ``rollout_host``; nowhere without one. Needs ``state``."""
    rollout_host: str = Field(default="127.0.0.1", min_length=1)
    rollout_token: Path | None = None
    """A file with the token that callers of RolloutService must bring."""
    bundle_keys: Paths = ()
    """Public keys in PEM; with any, only bundles signed by one of them are served."""
    retire_s: float = Field(default=60.0, gt=0.0, le=3600.0)
    """How long explanations may go on with a revision that was let go."""
    max_bundle_mib: PositiveInt = 65536
    """The largest bundle that may be staged."""
    max_in_flight: PositiveInt = 64
    max_batch_tokens: int = Field(default=2048, ge=2)
    """Tokens of one micro-batch: more is not faster on a CPU, and delays what waits."""
    load_mib_s: PositiveInt = 256
    """How much of a bundle is read in a second while others are served."""
    expert_slots_mib: int = Field(default=64, ge=0)
    """Memory for experts; those of the first bundle have room in any case."""
    expert_cache_mib: int = Field(default=64, ge=0)
    """Memory for experts as they were read: what is staged beside them is compared with them."""
    prefix_cache_mib: int = Field(default=256, ge=0)
    """Memory for users' histories as the model sees them, for their next calls."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The model's number format; bfloat16 is several times faster where the CPU has AMX."""
    compile: bool = False
    """Whether torch.compile makes kernels; on a GPU, small passes become CUDA graphs too."""
    threads: PositiveInt = 1
    """Cores that the model may use."""
    drain_s: float = Field(default=30.0, ge=0.0, le=3600.0)
    """How long calls in flight may take to end after a signal to stop."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where GET /metrics is answered for Prometheus; nowhere without one."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    reflection: bool = False


def load_settings(file: Path | None, flags: Mapping[str, object]) -> Settings:
    """The settings of all sources together. Raises ConfigError with a line per wrong key."""
    _refuse_unknown_variables()
    values = {**_values_of(file), **EnvSettingsSource(Settings)(), **flags}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError([_problem(each) for each in error.errors()]) from error
    _check_rollouts(settings)
    return settings


def _check_rollouts(settings: Settings) -> None:
    """Raises ConfigError where settings do not go together."""
    if settings.rollout_port is None:
        return
    if settings.state is None:
        raise ConfigError(["rollout_port: needs state, a folder where rollouts are kept"])
    if settings.rollout_token is None and settings.rollout_host not in _LOOPBACK:
        raise ConfigError(["rollout_host: other machines can reach it, so rollout_token is needed"])


def _values_of(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{file}: is no YAML"]) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError([f"{file}: must be a mapping from keys to values"])
    return values


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    ours = {name for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    unknown = sorted(name for name in ours if name.upper() not in known)
    if unknown:
        raise ConfigError([f"{name}: no such setting" for name in unknown])


def _problem(error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    told = {"extra_forbidden": "no such setting", "missing": "is not given"}
    return f"{key}: {told.get(error['type'], error['msg'])}"
