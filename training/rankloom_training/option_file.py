"""The options of a training in one file, train.yaml: read, overridden, checked and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rankloom_training.options import DEFAULTS, TrainOptions

_OPTIONS: TypeAdapter[TrainOptions] = TypeAdapter(TrainOptions)
_HEAD = "# rankloom train --config train.yaml --data DATA --out BUNDLE\n"
SET = "--set"
_DEFAULTS = TrainOptions()

RECIPE = "recipe"  # the option that decides on the defaults of the others

# Option, with a dot before the part of a recipe → value.
Leaves = dict[str, object]


class OptionError(ValueError):
    """An option is unknown or has a wrong value. The message names where it is given."""


def read_options(
    file: Path | None,
    assignments: Sequence[str],
    flags: Mapping[str, tuple[str, object]],
    defaults: TrainOptions = _DEFAULTS,
) -> TrainOptions:
    """The recipe's defaults, overridden by a file, then by ``key=value`` texts, then by flags.

    ``flags``: option → flag and value. Raises OptionError.
    """
    sources = [
        *((f"{file}: {key}", key, value) for key, value in _leaves(_content(file))),
        *((f"{SET} {key}", key, value) for key, value in map(_assignment, assignments)),
        *((flag, key, value) for key, (flag, value) in flags.items()),
    ]
    given, leaves = dict[str, str](), leaves_of(_defaults(sources, defaults))
    for origin, key, value in sources:
        _refuse_unknown(origin, key, leaves)
        given[key], leaves[key] = origin, value
    try:
        return _OPTIONS.validate_python(_nested(leaves))
    except ValidationError as error:
        raise OptionError(_problem(error.errors()[0], given)) from error


def leaves_of(options: TrainOptions) -> Leaves:
    """Every option and its value; a recipe's parts are named like ``group_recipe.epochs``."""
    return dict(_leaves(_OPTIONS.dump_python(options, mode="json")))


def to_yaml(options: TrainOptions) -> bytes:
    """A file that repeats the training."""
    plain = _OPTIONS.dump_python(options, mode="json")
    return (_HEAD + yaml.safe_dump(plain, sort_keys=False)).encode()


def _defaults(sources: Sequence[tuple[str, str, object]], otherwise: TrainOptions) -> TrainOptions:
    """Those of the recipe that is asked for; a wrong name is refused with the other values.

    ``otherwise``: if none is, or the one that they are of.
    """
    named = {str(value): origin for origin, key, value in sources if key == RECIPE}
    if len(named) > 1:
        raise OptionError(f"{' and '.join(named.values())}: are two recipes; leave one out")
    others = {name: each for name, each in DEFAULTS.items() if name != otherwise.recipe}
    return others.get("".join(named), otherwise)


def _content(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise OptionError(f"{file}: cannot be read: {error.strerror}; check the path") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{file}: is not YAML; write one option a line: seed: 1") from error
    if not isinstance(content or {}, dict):
        raise OptionError(f"{file}: must be options and values; write one a line: seed: 1")
    return {str(key): value for key, value in (content or {}).items()}


def _assignment(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"{SET} {text}: has no value; write {SET} {key}=VALUE")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{SET} {key}: the value is not YAML; put it in quotes") from error


def _leaves(content: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", leaf) for inner, leaf in value.items())
        else:
            yield key, value


def _nested(leaves: Leaves) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in leaves.items():
        recipe, dot, part = key.partition(".")
        if dot:
            nested.setdefault(recipe, {})[part] = value
        else:
            nested[key] = value
    return nested


def _refuse_unknown(origin: str, key: str, known: Leaves) -> None:
    if key in known:
        return
    if parts := [name for name in known if name.startswith(f"{key}.")]:
        raise OptionError(f"{origin}: has parts; set {', '.join(parts)}")
    meant = get_close_matches(key, known, 1)
    hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(known)}"
    raise OptionError(f"{origin}: no such option; {hint}")


def _problem(error: ErrorDetails, given: Mapping[str, str]) -> str:
    """Where the wrong value was given, and what it must be. Defaults are not wrong."""
    location = [str(part) for part in error["loc"]]
    key = next(key for key in (".".join(location[:2]), location[0]) if key in given)
    return f"{given[key]}: {_requirement(error)}, not {_shown(error['input'])}"


def _requirement(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "int_type" | "int_from_float":
            return "must be a whole number"
        case "bool_type":
            return "must be true or false"
        case "string_type":
            return "must be a text"
        case "value_error" if "must be" in error["msg"]:
            return str(context["error"])
        case "float_type" | "finite_number" | "value_error":
            return "must be a number"
        case "enum":
            return f"must be {context['expected']}"
        case _:
            return error["msg"].replace("Input should be", "must be")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
