from __future__ import annotations

import types

import rankloom


def test_all_is_what_is_public() -> None:
    public = {
        name
        for name, value in vars(rankloom).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert {*rankloom.__all__} == public | {"__version__"}
    assert rankloom.__all__ == sorted(rankloom.__all__, key=lambda name: (name[0] == "_", name))


def test_every_error_is_in_the_tree() -> None:
    errors = [
        value
        for value in vars(rankloom).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(errors) > 10
    assert all(issubclass(error, rankloom.RankloomError) for error in errors)


def test_no_wire_type_is_public() -> None:
    modules = {getattr(rankloom, name).__module__ for name in rankloom.__all__[:-1]}
    assert all(module.split(".")[0] == "rankloom" for module in modules)
