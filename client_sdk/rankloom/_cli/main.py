"""The command `rankloom`: those that call a server from here, others from their packages.

The other commands are entry points. They are listed without being imported, since the base
install lacks what they need; only the chosen one is imported, before its arguments are parsed.

Exit codes: 0 success; 1 the server answered with an error or not at all, or refused a bundle;
2 wrong usage, or a package is missing; 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Final, NoReturn

from rankloom._cli.commands import CliCommand
from rankloom._cli.completion_command import CompletionCommand
from rankloom._cli.doctor_command import DoctorCommand
from rankloom._cli.explain_command import ExplainCommand
from rankloom._cli.features_command import FeaturesCommand
from rankloom._cli.health_command import HealthCommand
from rankloom._cli.hints import hint_of_call
from rankloom._cli.installation import install_command
from rankloom._cli.parser import HelpfulParser, parse
from rankloom._cli.rank_command import RankCommand
from rankloom._cli.retrieve_commands import RecommendCommand, RetrieveCommand
from rankloom._cli.rollout_command import RolloutCliCommand
from rankloom._version import __version__
from rankloom.errors import InvalidRequestError, RankloomError

_OWN: Final[dict[str, CliCommand]] = {
    command.name: command
    for command in (
        RankCommand(),
        ExplainCommand(),
        RetrieveCommand(),
        RecommendCommand(),
        FeaturesCommand(),
        RolloutCliCommand(),
        HealthCommand(),
        DoctorCommand(),
        CompletionCommand(lambda: _whole_parser()),
    )
}

# Written down here, so that listing the commands imports none of them.
_HELP: Final = {
    **{name: command.help for name, command in _OWN.items()},
    "serve": "run a server",
    "bundle": "sign bundles, look into experts",
    "data": "check an interaction log before training",
    "items": "write texts and vectors of items",
    "traces": "make, check and show what the language model learns to say",
    "events": "bring events into a store and out of it, forget users",
    "train": "make a bundle from an interaction log",
    "reccot": "rationales of reviews, and two towers that rank with them",
    "groups": "show the user groups of a bundle, and their routes",
    "evaluate": "measure how well a bundle ranks",
    "demo": "train a small bundle, serve it and rank with it",
}
_EXTRAS: Final = {
    "serve": "server",
    "bundle": "server",
    "data": "train",
    "items": "train",
    "traces": "train",
    "events": "train",
    "reccot": "text",
    "train": "train",
    "groups": "train",
    "evaluate": "train",
    "demo": "train",
}
# Of packages that only some actions of a command need.
_EXTRAS_OF_PACKAGES: Final = {
    "sentence_transformers": "text",
    "trl": "rl",
    "datasets": "rl",
    "accelerate": "rl",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; wrong usage raises SystemExit."""
    arguments = sys.argv[1:] if argv is None else argv
    # The options before the command take no value, so the first plain word is the command.
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    try:
        return _run(arguments, chosen)
    except KeyboardInterrupt:
        print("rankloom: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        return _report_missing(chosen, error)
    except RankloomError as error:
        return _report_error(error)


def _run(arguments: Sequence[str], chosen: str) -> int:
    plugins = _plugins()
    parser = _parser(plugins, {chosen})
    args = parse(parser, arguments)
    if chosen not in _OWN:
        return int(args.run(args))  # it handles interrupts itself
    with _quiet_when_interrupted():
        return int(args.run(args))


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="rankloom.commands")}


def _parser(plugins: Mapping[str, EntryPoint], configured: Container[str]) -> HelpfulParser:
    """Return the parser of all commands; only the configured ones are imported."""
    parser = HelpfulParser(
        prog="rankloom",
        description="Rank a user's candidate items with a mixture of experts for that user.",
        epilog="Begin with `rankloom demo`. `rankloom COMMAND --help` shows a command's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rankloom {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in (*_OWN, *plugins):
        summary = _HELP.get(name, "")
        subparser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name in configured:
            command = _OWN[name] if name in _OWN else _loaded(plugins[name])
            command.configure(subparser)
            subparser.set_defaults(run=command.run)
    return parser


def _whole_parser() -> HelpfulParser:
    """Return the parser with the arguments of all commands whose extra is installed."""
    plugins = _plugins()
    ready = {name for name, plugin in plugins.items() if _is_importable(plugin)}
    return _parser(plugins, {*_OWN, *ready})


def _is_importable(plugin: EntryPoint) -> bool:
    try:
        plugin.load()
    except ModuleNotFoundError:
        return False
    return True


@contextmanager
def _quiet_when_interrupted() -> Iterator[None]:
    """Silence the threads of gRPC once the user has interrupted the command.

    An interrupt can leave a call half made. gRPC's own thread then fails on it, and its traceback
    would help nobody.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # never interrupted
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        threading.excepthook = lambda _: None  # for good: the process ends now
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _loaded(plugin: EntryPoint) -> CliCommand:
    command: CliCommand = plugin.load()
    return command


def _report_missing(chosen: str, error: ModuleNotFoundError) -> int:
    """Say what to install. A missing module of our own is a defect: raise it."""
    package = (error.name or "").partition(".")[0]
    if not package or package.startswith("rankloom"):
        raise error
    extra = _EXTRAS_OF_PACKAGES.get(package) or _EXTRAS.get(chosen)
    needs = install_command(extra) if extra else f"the package {package}"
    print(f"rankloom {chosen} needs: {needs}", file=sys.stderr)
    return 2


def _report_error(error: RankloomError) -> int:
    notes = getattr(error, "__notes__", ())
    hint = "" if notes else hint_of_call(error)
    print(f"rankloom: {type(error).__name__}: {error}{hint and '; '}{hint}", file=sys.stderr)
    violations = error.violations if isinstance(error, InvalidRequestError) else ()
    for field, description in violations:
        if field not in error.message:
            print(f"  {field}: {description}", file=sys.stderr)
    if error.request_id:
        print(f"  request id: {error.request_id}", file=sys.stderr)
    for note in notes:
        print(f"  {note}", file=sys.stderr)
    refused_here = isinstance(error, InvalidRequestError) and not error.status
    return 2 if refused_here else 1
