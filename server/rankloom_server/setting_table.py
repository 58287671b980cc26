"""The table of all settings: names, defaults and one line of help for each.

`config` has their types and limits; a test keeps both equal. The table stands apart because
`rankloom serve --help` shows it, and `config` imports pydantic, which takes longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VARIABLE_PREFIX: Final = "RANKLOOM_"
LAYERS: Final = {
    "server": "calls, ports and logs",
    "features": "where features come from",
    "learning": "what is kept to learn from",
    "engine": "the model: hardware and memory",
    "loading": "how bundles are checked and read",
    "rollout": "changing the bundle while the server runs",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    ``path``: its place in `Settings` and in a nested file. ``metavar``: the flag's value in
    --help; none for a switch. ``default``: as written in a file; empty if there is none.
    ``name``: the flat name, by default the last part of the path.
    """

    path: str
    metavar: str | None
    default: str
    help: str
    name: str = ""
    repeated: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.rpartition(".")[2])

    @property
    def layer(self) -> str:
        """The group that it belongs to; empty at the top."""
        return self.path.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The name within the layer."""
        return self.path.rpartition(".")[2]

    @property
    def flag(self) -> str:
        return flag_of(self.name)


def flag_of(name: str) -> str:
    """The flag of a flat name."""
    return "--" + name.replace("_", "-")


SETTINGS: Final = (
    Setting(
        "bundle",
        "FOLDER",
        "",
        "the bundle to serve; required. A state that has an active one serves that",
    ),
    Setting("server.host", "ADDRESS", "127.0.0.1", "address to listen on, or unix:PATH"),
    Setting("server.port", "PORT", "50051", "port to listen on; 0 takes any free one"),
    Setting("server.socket_mode", "MODE", "660", "permissions of Unix sockets, in octal digits"),
    Setting("server.max_in_flight", "N", "64", "calls at a time; more are refused at once"),
    Setting("server.max_message_mib", "MIB", "1", "size of the largest request"),
    Setting("server.default_deadline_s", "S", "2", "seconds for a call without a deadline"),
    Setting(
        "server.connection_age_s",
        "S",
        "60",
        "seconds after which callers connect anew, and so find other servers of that name; "
        "0: never",
    ),
    Setting(
        "server.drain_delay_s",
        "S",
        "0",
        "seconds after SIGTERM in which calls are still taken, while health says NOT_SERVING",
    ),
    Setting("server.drain_s", "S", "30", "seconds that running calls then get to end"),
    Setting("server.log_level", "LEVEL", "info", "debug, info, warning or error"),
    Setting("server.reflection", None, "false", "let callers list the services"),
    Setting(
        "server.metrics_host",
        "ADDRESS",
        "",
        "address of the metrics, or unix:PATH; by default that of the server",
    ),
    Setting("server.metrics_port", "PORT", "", "serve GET /metrics for Prometheus on this port"),
    Setting(
        "features.address",
        "HOST:PORT",
        "",
        "ask this feature service; without it, features are computed in the process",
        name="features",
    ),
    Setting(
        "features.share",
        "SHARE",
        "0.3",
        "share of a call's time that its features may take",
        name="feature_share",
    ),
    Setting(
        "features.events",
        "FILE",
        "",
        "keep users' events in this file; by default in the state folder, else beside the bundle",
        name="events",
    ),
    Setting(
        "features.port",
        "PORT",
        "",
        "answer FeatureService on this port: any user's events, to whoever reaches it",
        name="features_port",
    ),
    Setting(
        "features.host",
        "ADDRESS",
        "127.0.0.1",
        "address of the features port, or unix:PATH",
        name="features_host",
    ),
    Setting(
        "learning.log_served",
        "FOLDER",
        "",
        "keep each ranking's items, scores and features in Parquet files here, to learn from",
    ),
    Setting(
        "learning.log_served_mib",
        "MIB",
        "1024",
        "size of that folder: the oldest files go first",
    ),
    Setting("engine.device", "DEVICE", "cpu", "cpu, cuda or cuda:N"),
    Setting(
        "engine.dtype",
        "DTYPE",
        "auto",
        "bfloat16, float32, or auto: bfloat16 if the CPU or GPU has units for it",
    ),
    Setting("engine.compile", None, "false", "compile kernels with torch.compile"),
    Setting("engine.threads", "N", "1", "cores for the model"),
    Setting(
        "engine.max_batch_tokens",
        "N",
        "2048",
        "tokens in a micro-batch; more is not faster on a CPU, and waiting calls wait longer",
    ),
    Setting(
        "engine.expert_slots_mib",
        "MIB",
        "64",
        "memory for the experts that serve; those of the first bundle always fit",
    ),
    Setting(
        "engine.prefix_cache_mib",
        "MIB",
        "256",
        "memory for cached prefixes: users' histories, for their next calls; 0 keeps none",
    ),
    Setting(
        "engine.stall_s",
        "S",
        "60",
        "seconds of one pass of the model after which health says NOT_SERVING",
    ),
    Setting("engine.exit_on_stall", None, "false", "end the process then, for its supervisor"),
    Setting(
        "loading.bundle_keys",
        "FILE",
        "",
        "serve only bundles signed with this public key (PEM); may be repeated",
        repeated=True,
    ),
    Setting(
        "loading.load_mib_s",
        "MIB",
        "256",
        "how much of a bundle is read per second while another one serves",
    ),
    Setting(
        "loading.expert_cache_mib",
        "MIB",
        "64",
        "memory for experts as read from disk, so that they need not be read again",
    ),
    Setting("loading.max_bundle_mib", "MIB", "65536", "size of the largest bundle to stage"),
    Setting(
        "rollout.state",
        "FOLDER",
        "",
        "keep rollouts and their bundles here; without it, the bundle cannot change",
    ),
    Setting(
        "rollout.rollout_port", "PORT", "", "accept `rankloom rollout` on this port; needs --state"
    ),
    Setting(
        "rollout.rollout_host", "ADDRESS", "127.0.0.1", "address of the rollout port, or unix:PATH"
    ),
    Setting(
        "rollout.rollout_token",
        "FILE",
        "",
        "file with the token that callers of the rollout port must send",
    ),
    Setting(
        "rollout.retire_s",
        "S",
        "60",
        "seconds that explanations may go on with a retired revision",
    ),
)

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
BY_PATH: Final = {setting.path: setting for setting in SETTINGS}

FEATURE_SERVER: Final = frozenset(
    {"bundle", "bundle_keys", "events"}
    | {setting.name for setting in SETTINGS if setting.layer == "server"} - {"default_deadline_s"}
)
"""The settings that a feature server uses."""
