"""The command `rankloom serve`. What it needs is imported when it runs, not to show its help."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rankloom_engine.threads import wait_passively

wait_passively()

_GIVEN: Final = argparse.SUPPRESS  # only flags that were given override the other sources
_OF_RUN: Final = ("config", "what", "run")
_OF_TRAINING: Final = ("accelerate", "scipy", "sklearn")


class ServeCommand:
    """Runs a ranking server, or with `features` a feature server."""

    name = "serve"
    help = "run a server"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        _add_common(parser)
        parser.add_argument(
            "--features",
            metavar="HOST:PORT",
            default=_GIVEN,
            help="a feature service to ask (default: features are computed in the process)",
        )
        parser.add_argument(
            "--threads", metavar="N", default=_GIVEN, help="cores for the model (default: 1)"
        )
        parser.add_argument(
            "--state",
            metavar="FOLDER",
            default=_GIVEN,
            help="where rollouts are kept (default: the bundle is served for good)",
        )
        parser.add_argument(
            "--rollout-port",
            metavar="N",
            default=_GIVEN,
            help="where `rankloom rollout` reaches the server, on this machine only by default",
        )
        services = parser.add_subparsers(title="services", metavar="SERVICE", dest="what")
        summary = "serve features only, for ranking servers elsewhere"
        features = services.add_parser(
            "features", help=summary, description=summary, allow_abbrev=False
        )
        _add_common(features)

    def run(self, args: argparse.Namespace) -> int:
        """Serve until a signal to stop; 2 where that cannot begin."""
        from rankloom_server.config import load_settings
        from rankloom_server.errors import StartError

        flags = {name: value for name, value in vars(args).items() if name not in _OF_RUN}
        try:
            settings = load_settings(getattr(args, "config", None), flags)
            if args.what == "features":
                from rankloom_server.feature_app import serve_features

                serve_features(settings)
            else:
                with _no_collections(), _without(*_OF_TRAINING):
                    from rankloom_server.app import serve_ranking

                serve_ranking(settings)
        except StartError as error:
            for line in str(error).splitlines():
                sys.stderr.write(f"rankloom serve: {line}\n")
            return 2
        return 0


@contextmanager
def _no_collections() -> Iterator[None]:
    """For imports: what they make stays, and looking it through took a fifth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor is it looked through while the bundle is loaded
        gc.enable()


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """For imports: what the server extra does not bring is not there, be it installed or not.

    transformers would import it all for parts of its own that serving never calls.
    """
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))  # a module that is None cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="FOLDER", default=_GIVEN, help="what to serve")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=_GIVEN, help="settings as YAML"
    )
    parser.add_argument("--host", default=_GIVEN, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", metavar="N", default=_GIVEN, help="0 for any free one (default: 50051)"
    )
    parser.add_argument(
        "--log-level", metavar="LEVEL", default=_GIVEN, help="debug, info, warning or error"
    )
    parser.add_argument(
        "--reflection", action="store_true", default=_GIVEN, help="let callers list the services"
    )


serve = ServeCommand()
