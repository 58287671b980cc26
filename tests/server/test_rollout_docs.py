"""docs/rollout.md names the settings that there are; `tests/docs` runs its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rankloom_server.setting_table import BY_NAME

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rollout.md").read_text(encoding="utf-8")
SETTING = re.compile(r"^\| (`.+?`)(?:, (`.+?`))? \|", re.MULTILINE)


def test_each_setting_of_the_page_is_one() -> None:
    table = PAGE.partition("## Settings")[2]
    names = {name.strip("`") for row in SETTING.findall(table) for name in row if name}
    assert len(names) >= 8
    assert names <= BY_NAME.keys()


@pytest.mark.parametrize("name", ["state", "rollout_port", "bundle_keys", "expert_slots_mib"])
def test_each_setting_of_rollouts_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE
