"""The table of settings, the settings, the flags of `rankloom serve` and the docs are equal."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rankloom_server.commands import ServeCommand
from rankloom_server.config import Settings
from rankloom_server.setting_table import BY_NAME, FEATURE_SERVER, LAYERS, SETTINGS, Setting

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
NO_DEFAULT = "\N{EN DASH}"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<default>.*?) \| (?P<help>.*) \|$", re.MULTILINE)
TITLE = re.compile(r"^### (?P<layer>.+)$", re.MULTILINE)


def leaves() -> Iterator[tuple[str, FieldInfo]]:
    for layer, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            for key, leaf in group.model_fields.items():
                yield f"{layer}.{key}", leaf
        else:
            yield layer, field


def written(value: object) -> str:
    """A default as it stands in the table."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def flags_of(service: tuple[str, ...]) -> dict[str, argparse.Action]:
    """The actions of `rankloom serve` or `rankloom serve features` by setting."""
    parser = argparse.ArgumentParser()
    ServeCommand().configure(parser)
    for name in service:
        (services,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = services.choices[name]
    general = {"help", "config", "what"}
    return {each.dest: each for each in parser._actions if each.dest not in general}


def test_the_table_has_every_setting_in_order() -> None:
    assert [setting.path for setting in SETTINGS] == [path for path, _ in leaves()]
    assert len(BY_NAME) == len(SETTINGS)
    assert [layer for layer in Settings.model_fields if layer != "bundle"] == list(LAYERS)


@pytest.mark.parametrize(("setting", "leaf"), list(zip(SETTINGS, leaves(), strict=True)))
def test_the_table_has_the_default_and_kind(setting: Setting, leaf: tuple[str, FieldInfo]) -> None:
    _, field = leaf
    assert setting.default == ("" if field.is_required() else written(field.default))
    assert (setting.metavar is None) == (field.annotation is bool)
    assert setting.repeated == (get_origin(field.annotation) is tuple)


def test_every_setting_has_a_flag() -> None:
    found = flags_of(())
    assert list(found) == [setting.name for setting in SETTINGS]
    for setting in SETTINGS:
        assert setting.flag in found[setting.name].option_strings
        assert setting.default in str(found[setting.name].help)


def test_a_feature_server_has_the_flags_that_it_uses() -> None:
    assert set(flags_of(("features",))) == FEATURE_SERVER


def test_the_page_lists_every_setting_with_its_default() -> None:
    section = PAGE.read_text("utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    top, *parts = TITLE.split(section)
    layers = {"": top, **dict(zip(parts[::2], parts[1::2], strict=True))}
    found = {
        layer: [(row["name"], row["default"]) for row in ROW.finditer(text)]
        for layer, text in layers.items()
    }
    expected: dict[str, list[tuple[str, str]]] = {}
    for setting in SETTINGS:
        default = "required" if setting.name == "bundle" else setting.default or NO_DEFAULT
        expected.setdefault(setting.layer, []).append((setting.name, default))
    assert found == expected
