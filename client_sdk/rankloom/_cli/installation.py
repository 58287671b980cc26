"""What is installed beside the SDK: extras, and versions against the ranges that are supported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import zip_longest
from pathlib import Path
from typing import Final

_LOCK: Final = "requirements.lock"
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])? ?\(?(?P<range>[^;)]*)\)?"
    r"(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?.*"
)
_BOUND: Final = re.compile(r"(>=|<=|==|!=|>|<) ?([\w.+]+)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that an extra needs; `extra`: empty for the base install. `bounds`: as written."""

    name: str
    bounds: str
    extra: str

    @property
    def installed(self) -> str:
        """The version that is installed; empty if none is."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return ""

    @property
    def fits(self) -> bool:
        """Whether the installed version is within the bounds."""
        return all(
            _holds(_numbers(self.installed), sign, _numbers(bound))
            for sign, bound in _BOUND.findall(self.bounds)
        )


def clone() -> Path | None:
    """Return the repository that this package lies in, None if it was installed from a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / _LOCK).is_file() else None


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package."""
    return f"pip install '.[{extra}]'" if clone() else f"pip install 'rankloom[{extra}]'"


def requirements() -> Iterator[Requirement]:
    """Yield what the base install and each extra need."""
    for text in requires("rankloom") or ():
        if found := _REQUIREMENT.fullmatch(text):
            yield Requirement(found["name"], found["range"].strip(), found["extra"] or "")


def tested_versions() -> Mapping[str, str]:
    """Return the versions that the tests ran with, by package; none outside a clone."""
    root = clone()
    lines = (root / _LOCK).read_text(encoding="utf-8").splitlines() if root else ()
    pairs = (line.partition("==") for line in lines)
    return {name.strip(): tested.partition(" ")[0] for name, sign, tested in pairs if sign}


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a release; a local part such as +cpu does not count."""
    return tuple(int(number) for number in re.findall(r"\d+", text.partition("+")[0]))


def _holds(found: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    pairs = [*zip_longest(found, bound, fillvalue=0)]
    left, right = ([pair[side] for pair in pairs] for side in (0, 1))
    return {
        ">=": left >= right,
        "<=": left <= right,
        "==": left == right,
        "!=": left != right,
        ">": left > right,
        "<": left < right,
    }[sign]
