"""``columns.json``: how a folder's tables are to be read where they do not say it themselves."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rankloom_training.data.errors import DataError
from rankloom_training.data.negatives import NegativeSampling

SETTINGS_FILE = "columns.json"
# Our name → usual names. Upper and lower case are alike.
LOG_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "user", "uid"),
    "item": ("item_id", "itemId", "movieId", "movie_id", "item", "iid", "parent_asin", "asin"),
    "label": ("label", "liked", "like"),
    "rating": ("rating", "stars", "score"),
    "time": ("timestamp", "time", "datetime"),
    "position": ("position", "order"),
    "split": ("split",),
}
ITEM_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "item": LOG_COLUMNS["item"],
    "title": ("title", "name"),
    "year": ("year",),
    "attributes": ("genres", "attributes", "categories", "genre", "category"),
    "description": ("description", "summary"),
}
# Of the log's file too, where its rows are reviews.
REVIEW_COLUMNS: Mapping[str, tuple[str, ...]] = {
    **{name: LOG_COLUMNS[name] for name in ("user", "item", "rating", "time", "position", "split")},
    "text": ("text", "review", "review_text", "reviewText"),
    "headline": ("headline", "title", "summary"),
}
COLUMN_KINDS = ("number", "category", "date", "ignore")
_NAMES = tuple(dict.fromkeys((*LOG_COLUMNS, *ITEM_COLUMNS, *REVIEW_COLUMNS)))
_OPTIONS = ("like_above", "zero_is_unknown", "implicit", "item_columns")


@dataclass(frozen=True, slots=True)
class DataSettings:
    """``names``: our name of a column → theirs, None to use none. ``like_above``: a rating above
    it is a like. ``zero_is_unknown``: a rating of 0 says nothing. ``implicit``: the log has likes
    alone, and negatives are sampled. ``item_columns``: kinds of the item table's further columns,
    None where the values say it. ``only_those``: columns that it does not name are left out.
    """

    names: Mapping[str, str | None] = field(default_factory=dict)
    like_above: float | None = None
    zero_is_unknown: bool = False
    implicit: NegativeSampling | None = None
    item_columns: Mapping[str, str | None] = field(default_factory=dict)
    only_those: bool = False

    def with_options(
        self, like_above: float | None, implicit: NegativeSampling | None
    ) -> DataSettings:
        """The settings, with the given options of a command in their place."""
        return dataclasses.replace(
            self,
            like_above=self.like_above if like_above is None else like_above,
            implicit=implicit or self.implicit,
        )


def read_settings(folder: Path) -> DataSettings:
    """The folder's settings, or the default ones. Raises DataError, which names the key."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        return DataSettings()
    try:
        given = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{SETTINGS_FILE}: not valid JSON; write it anew") from error
    if not isinstance(given, dict):
        raise DataError(f"{SETTINGS_FILE}: not a JSON object; map our column names to yours")
    unknown = sorted(set(given) - {*_NAMES, *_OPTIONS})
    if unknown:
        known = ", ".join((*_NAMES, *_OPTIONS))
        raise DataError(f"{SETTINGS_FILE}: unknown keys {', '.join(unknown)}; use {known}")
    kinds, only_those = _item_columns(given.get("item_columns", {}))
    return DataSettings(
        names={ours: _name(ours, given[ours]) for ours in _NAMES if ours in given},
        like_above=_threshold(given.get("like_above")),
        zero_is_unknown=_flag(given.get("zero_is_unknown", False)),
        implicit=_sampling(given.get("implicit")),
        item_columns=kinds,
        only_those=only_those,
    )


def _name(ours: str, theirs: object) -> str | None:
    if theirs is None or (isinstance(theirs, str) and theirs):
        return theirs
    raise _wrong(ours, "give it the name of your column, or null to use none")


def _threshold(given: object) -> float | None:
    if given is None:
        return None
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not math.isfinite(float(given)):  # type: ignore[arg-type]
        raise _wrong("like_above", "give it a number; a rating above it is a like")
    return float(given)  # type: ignore[arg-type]


def _flag(given: object) -> bool:
    if not isinstance(given, bool):
        raise _wrong("zero_is_unknown", "give it true or false")
    return given


def _sampling(given: object) -> NegativeSampling | None:
    if given is None:
        return None
    try:
        return NegativeSampling.of_json(given)
    except ValueError as error:
        raise _wrong("implicit", str(error)) from error


def _item_columns(given: object) -> tuple[dict[str, str | None], bool]:
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return dict.fromkeys(given), True
    if isinstance(given, dict) and all(kind in COLUMN_KINDS for kind in given.values()):
        return dict(given), False
    raise _wrong(
        "item_columns",
        f"give it a list of columns, or an object of column → {', '.join(COLUMN_KINDS)}",
    )


def _wrong(key: str, remedy: str) -> DataError:
    return DataError(f"{SETTINGS_FILE}: {key} is not valid; {remedy}")
