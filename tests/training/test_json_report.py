from __future__ import annotations

import json

import pytest

from rankloom_training.json_report import json_text


def test_what_is_not_known_is_null() -> None:
    report = {"a": float("nan"), "b": [1, (float("inf"), 0.5)], "c": {"d": -float("inf"), "e": "x"}}
    found = json.loads(json_text(report), parse_constant=pytest.fail)
    assert found == {"a": None, "b": [1, [None, 0.5]], "c": {"d": None, "e": "x"}}
