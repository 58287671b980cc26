from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankloom_server import logs

SYNTHETIC = "synthetic-secret"


def read_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_a_line_has_what_was_noted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.note(request_id="r", fallback_level="EXACT_MIXTURE")
    logs.write("call", code="OK")
    (line,) = read_lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "call", "level": "info", "request_id": "r",
        "fallback_level": "EXACT_MIXTURE", "code": "OK",
    }  # fmt: skip


def test_fields_that_are_not_on_the_list_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.note(user_id=SYNTHETIC)
    logs.write("call", title=SYNTHETIC, history=[SYNTHETIC])
    assert SYNTHETIC not in json.dumps(read_lines(capsys))


def test_a_fault_tells_its_stack_but_not_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError(SYNTHETIC)
    except KeyError as error:
        error_id = logs.fault("internal_error", error)
    (line,) = read_lines(capsys)
    assert line["error_id"] == error_id
    assert line["exception"] == "KeyError"
    assert "test_a_fault_tells_its_stack" in str(line["stack"])
    assert SYNTHETIC not in json.dumps(line)


def test_a_fault_names_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    failure = RuntimeError()
    failure.__cause__ = MemoryError()
    logs.fault("engine_failed", failure)
    (line,) = read_lines(capsys)
    assert (line["exception"], line["caused_by"]) == ("RuntimeError", "MemoryError")


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("error")
    logs.write("call")
    logs.fault("internal_error", RuntimeError())
    assert [line["event"] for line in read_lines(capsys)] == ["internal_error"]


def written_fields() -> Iterator[str]:
    """Names of the fields that the server's own code writes or notes."""
    for path in Path(logs.__file__).parent.rglob("*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"))
        functions = {n.name: n for n in ast.walk(module) if isinstance(n, ast.FunctionDef)}
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("logs.write", "logs.note"):
                yield from (word.arg for word in call.keywords if word.arg)
                made_by = [ast.unparse(word.value).partition("(")[0] for word in call.keywords]
                for name in filter(functions.__contains__, made_by):
                    yield from keys_of(functions[name])


def keys_of(function: ast.FunctionDef) -> Iterator[str]:
    """Keys of the dictionaries that a function writes down."""
    for found in ast.walk(function):
        if isinstance(found, ast.Dict):
            yield from (str(ast.literal_eval(key)) for key in found.keys if key)


def test_every_field_that_is_written_is_on_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    fields = set(written_fields())
    assert {"verdict", "code", "method", "route", "retrieval_order"} <= fields
    logs.write("all", **dict.fromkeys(fields, 1))
    (line,) = read_lines(capsys)
    assert fields <= line.keys()
