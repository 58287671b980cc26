"""Which class names stand more than once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping


def classes_in(tree: ast.Module) -> Iterable[str]:
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def repeated_classes(
    files: Mapping[str, ast.Module], mirrors: Collection[str], mirrored_in: str
) -> dict[str, list[str]]:
    """Class name → the files that define it, for names that are defined more than once.

    A class in a file below ``mirrored_in`` is not counted if its name is one of ``mirrors``:
    the SDK's public values may have the name of the domain type that they show.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file, tree in files.items():
        for name in classes_in(tree):
            if not (name in mirrors and file.startswith(mirrored_in)):
                found[name].append(file)
    return {name: where for name, where in sorted(found.items()) if len(where) > 1}
