"""Gives public classes the names of the modules that users import them from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def show_as(module: str, namespace: Mapping[str, object], names: Iterable[str]) -> None:
    """Set `module` as the home of the classes that stand in private modules.

    Tracebacks, `repr` and pickles then name the public module, and private ones can move.
    """
    for name in names:
        home = getattr(namespace[name], "__module__", "")
        if any(part.startswith("_") for part in home.split(".")):
            namespace[name].__module__ = module
