"""Which files import each other in a circle."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Mapping

Graph = Mapping[str, set[str]]  # module → the modules that it imports


def import_graph(modules: Mapping[str, ast.Module], packages: set[str]) -> dict[str, set[str]]:
    """Imports anywhere in a file count: at the top, in functions, under TYPE_CHECKING.

    ``packages``: the modules that are an ``__init__.py``.
    """
    return {
        module: {
            target
            for name, member in _imports(tree, module, module in packages)
            if (target := _target(name, member, modules)) and target != module
        }
        for module, tree in modules.items()
    }


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """(module, member or "") of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + is_package]
                base = ".".join([*kept, *filter(None, [base])])
            yield from ((base, alias.name) for alias in node.names)


def _target(name: str, member: str, modules: Mapping[str, object]) -> str | None:
    """`from a import b` reads the module a.b if there is one, otherwise a."""
    return next((each for each in (f"{name}.{member}", name) if each in modules), None)


def cycles(graph: Graph) -> list[list[str]]:
    """A shortest circle of each group of modules that all reach each other."""
    reach = {module: _reachable(graph, module) for module in graph}
    found, seen = [], set[str]()
    for module in sorted(graph):
        if module in reach[module] and module not in seen:
            group = {each for each in reach[module] if module in reach[each]}
            seen |= group
            found.append(min((_circle(graph, each) for each in sorted(group)), key=len))
    return found


def _reachable(graph: Graph, start: str) -> set[str]:
    """What ``start`` imports, directly or not; itself only if it is in a circle."""
    found, waiting = set[str](), [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _circle(graph: Graph, start: str) -> list[str]:
    """The shortest way from a module of a circle back to itself, both ends named."""
    waiting = deque([[start]])
    seen = set[str]()
    while True:
        path = waiting.popleft()
        for target in sorted(graph[path[-1]]):
            if target == start:
                return [*path, start]
            if target not in seen:
                seen.add(target)
                waiting.append([*path, target])
