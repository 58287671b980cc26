"""`rankloom completion`: a script that completes commands and options in a shell.

All words are written into the script, so that a press of TAB starts no Python.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rankloom._cli.parser import commands_of

_BASH: Final = """\
_rankloom() {{
    local command="" word words=""
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
        case "$command $word" in
            {commands}) command="$command $word" ;;
        esac
    done
    case "$command" in
{words}
    esac
    case "$command $previous" in
{values}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _rankloom rankloom
"""
_ZSH: Final = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


@dataclass(frozen=True, slots=True)
class CommandWords:
    """What may follow one command.

    `path`: the words that lead to it. `commands`: those below it, or values of an argument.
    `values`: those of each option; empty for a file or free text, None for a switch.
    """

    path: tuple[str, ...]
    help: str
    commands: tuple[str, ...]
    values: Mapping[str, tuple[str, ...] | None]
    option_help: Mapping[str, str]


class CompletionCommand:
    """Prints the script. `whole`: makes the parser with the arguments of all commands."""

    name = "completion"
    help = "print a script that completes commands in a shell"

    def __init__(self, whole: Callable[[], argparse.ArgumentParser]) -> None:
        self._whole = whole

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.epilog = (
            'bash and zsh: eval "$(rankloom completion bash)" in ~/.bashrc, or zsh in ~/.zshrc; '
            "fish: rankloom completion fish > ~/.config/fish/completions/rankloom.fish"
        )
        parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that you use")

    def run(self, args: argparse.Namespace) -> int:
        words = list(command_words(self._whole()))
        scripts = {"bash": _bash, "zsh": lambda each: _ZSH + _bash(each), "fish": _fish}
        sys.stdout.write(scripts[args.shell](words))
        return 0


def command_words(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = (), summary: str = ""
) -> Iterator[CommandWords]:
    """Yield what may follow a command, and then the same for each command below it."""
    commands = commands_of(parser)
    options = [(action, action.option_strings) for action in parser._actions]
    yield CommandWords(
        path,
        summary,
        tuple(commands.choices) if commands else _positional_values(parser),
        {word: _values(action) for action, words in options for word in words},
        {word: _first_line(action) for action, words in options for word in words},
    )
    helps = {each.dest: each.help or "" for each in commands._choices_actions} if commands else {}
    for name, below in commands.choices.items() if commands else ():
        yield from command_words(below, (*path, name), helps.get(name, ""))


def _positional_values(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    positional = (action for action in parser._actions if not action.option_strings)
    return tuple(value for action in positional for value in _values(action) or ())


def _values(action: argparse.Action) -> tuple[str, ...] | None:
    return None if action.nargs == 0 else tuple(map(str, action.choices or ()))


def _first_line(action: argparse.Action) -> str:
    text = action.help or ""
    return "" if text == argparse.SUPPRESS else text.partition(";")[0].partition("(")[0].strip()


def _bash(commands: list[CommandWords]) -> str:
    def case(pattern: str, words: tuple[str, ...]) -> str:
        return f"        {shlex.quote(pattern)}) words={shlex.quote(' '.join(words))} ;;"

    paths = [("".join(f" {word}" for word in each.path), each) for each in commands]
    return _BASH.format(
        commands="|".join(shlex.quote(path) for path, _ in paths if path),
        words="\n".join(
            case(path, (*each.commands, *(w for w in each.values if w.startswith("--"))))
            for path, each in paths
        ),
        values="\n".join(
            case(f"{path} {option}", values)
            for path, each in paths
            for option, values in each.values.items()
            if values is not None
        ),
    )


def _fish(commands: list[CommandWords]) -> str:
    lines = ["complete -c rankloom -f"]
    summaries = {each.path: each.help for each in commands}
    for each in commands:
        seen = [f"__fish_seen_subcommand_from {word}" for word in each.path]
        others = [f"not __fish_seen_subcommand_from {' '.join(each.commands)}"]
        here = "; and ".join(seen + (others if each.commands else []))
        for name in each.commands:
            what = shlex.quote(summaries.get((*each.path, name), ""))
            lines.append(f"complete -c rankloom -n '{here}' -a {name} -d {what}")
        within = f"-n '{here}' " if here else ""
        for option, values in each.values.items():
            if option.startswith("--"):
                what = shlex.quote(each.option_help[option])
                takes = _fish_values(values)
                lines.append(f"complete -c rankloom {within}-l {option[2:]}{takes} -d {what}")
    return "\n".join(lines) + "\n"


def _fish_values(values: tuple[str, ...] | None) -> str:
    """Switches take nothing, other options one of the values, or a file."""
    if values is None:
        return ""
    return f" -x -a {shlex.quote(' '.join(values))}" if values else " -r -F"
