"""What is public: four modules, and the names in them."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import types
import typing

import pytest

import rankloom

PUBLIC_MODULES = ("rankloom", "rankloom.aio", "rankloom.errors", "rankloom.testing")


def public_names(module: str) -> dict[str, object]:
    namespace = vars(importlib.import_module(module))
    return {name: namespace[name] for name in namespace["__all__"] if name != "__version__"}


PUBLIC_CLASSES = {
    f"{module}.{name}": value
    for module in PUBLIC_MODULES
    for name, value in public_names(module).items()
    if isinstance(value, type)
}


def test_all_other_modules_are_private_by_name() -> None:
    modules = {each.name for each in pkgutil.walk_packages(rankloom.__path__, "rankloom.")}
    public = {name for name in modules if "._" not in name}
    assert public | {"rankloom"} == set(PUBLIC_MODULES)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_all_is_what_is_public(module: str) -> None:
    imported = importlib.import_module(module)
    defined = {
        name
        for name, value in vars(imported).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    foreign = {"StrEnum", "NamedTuple", "Self", "dataclass", "annotations"}
    assert {*imported.__all__} - {"__version__"} == defined - foreign
    assert imported.__all__ == sorted(imported.__all__, key=lambda name: (name[0] == "_", name))


@pytest.mark.parametrize("path", PUBLIC_CLASSES)
def test_a_public_class_says_where_it_is_imported_from(path: str) -> None:
    kind = PUBLIC_CLASSES[path]
    assert isinstance(kind, type)
    assert kind.__module__ in PUBLIC_MODULES
    assert getattr(importlib.import_module(kind.__module__), kind.__name__) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind
    typing.get_type_hints(kind)  # annotations need no private name either


def test_every_error_is_in_the_tree() -> None:
    errors = [
        value
        for value in vars(rankloom).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(errors) > 10
    assert all(issubclass(error, rankloom.RankloomError) for error in errors)
    assert {error.__name__ for error in errors} <= {*rankloom.errors.__all__}
