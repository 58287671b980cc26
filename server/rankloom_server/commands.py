"""The command `rankloom serve`.

Showing its help must be fast, so it imports the server's modules only when it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rankloom_engine.threads import wait_passively
from rankloom_server.setting_table import BY_NAME, FEATURE_SERVER, LAYERS, SETTINGS, Setting

if TYPE_CHECKING:
    from rankloom_server.config import Settings

wait_passively()

_GIVEN: Final = argparse.SUPPRESS  # only flags that were given override the other sources


class ServeCommand:
    """Runs a ranking server, or a feature server with `features`."""

    name = "serve"
    help = "run a server"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        _add_flags(parser, SETTINGS)
        services = parser.add_subparsers(title="services", metavar="SERVICE", dest="what")
        summary = "serve features only, for ranking servers elsewhere"
        features = services.add_parser(
            "features", help=summary, description=summary, allow_abbrev=False
        )
        _add_flags(features, [each for each in SETTINGS if each.name in FEATURE_SERVER])

    def run(self, args: argparse.Namespace) -> int:
        """Serve until a signal to stop. Return 2 if the server cannot start."""
        from rankloom_server.errors import StartError

        try:
            settings = settings_from(args)
            _report_ignored(settings.server.log_level)
            if args.what == "features":
                from rankloom_server.feature_app import serve_features

                serve_features(settings)
            else:
                from rankloom_server.start import serve_ranking

                serve_ranking(settings)
        except StartError as error:
            for line in str(error).splitlines():
                sys.stderr.write(f"rankloom serve: {line}\n")
            return 2
        return 0


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings of the file, the environment and the flags. Raises ConfigError."""
    from rankloom_server.config import load_settings

    flags = {name: value for name, value in vars(args).items() if name in BY_NAME}
    return load_settings(getattr(args, "config", None), flags)


def _report_ignored(log_level: str) -> None:
    """Log which variables of the environment set nothing, although their names look like it."""
    from rankloom_server import logs
    from rankloom_server.config import ignored_variables

    if names := ignored_variables():
        logs.configure(log_level)
        reason = "Kubernetes sets them for a Service of this name"
        logs.write("variables_ignored", variables=names, reason=reason)


def _add_flags(parser: argparse.ArgumentParser, settings: Iterable[Setting]) -> None:
    """Add --config, and a flag for each setting, in one group per layer."""
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=_GIVEN, help="YAML file with settings"
    )
    for layer, members in groupby(settings, attrgetter("layer")):
        group = parser.add_argument_group(layer, LAYERS[layer]) if layer else parser
        for setting in members:
            group.add_argument(setting.flag, **_options(setting))


def _options(setting: Setting) -> dict[str, Any]:
    """The arguments of add_argument for a setting. Values are checked later, with all sources."""
    default = f" (default: {setting.default})" if setting.default else ""
    options = {"dest": setting.name, "default": _GIVEN, "help": setting.help + default}
    if setting.metavar is None:
        return options | {"action": argparse.BooleanOptionalAction}
    return options | {
        "metavar": setting.metavar,
        "action": "append" if setting.repeated else "store",
    }


serve = ServeCommand()
