"""Selections allow what they say, and a misspelt attribute is answered with the likely one."""

from __future__ import annotations

import pytest

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.selection import ItemSelection, ItemSelector, UnknownAttributeError

SELECTOR = ItemSelector(
    Catalogue(
        [
            Item("a", attributes=("Drama",)),
            Item("b", attributes=("Comedy", "Drama")),
            Item("c", attributes=("Comedy",)),
            Item("d"),
        ]
    )
)
SEEN = ("a", "somewhere else")

CASES: dict[str, tuple[ItemSelection, str]] = {
    "seen items are left out": (ItemSelection(), "bcd"),
    "seen items stay": (ItemSelection(exclude_seen=False), "abcd"),
    "ids, known or not": (ItemSelection(exclude_item_ids=("d", "?")), "bc"),
    "one attribute": (ItemSelection(with_attributes=("Drama",)), "b"),
    "one of two": (ItemSelection(exclude_seen=False, with_attributes=("Drama", "Comedy")), "abc"),
    "none of one": (ItemSelection(without_attributes=("Drama",)), "cd"),
    "with and without": (
        ItemSelection(with_attributes=("Comedy",), without_attributes=("Drama",)),
        "c",
    ),
    "nothing": (ItemSelection(with_attributes=("Drama",), without_attributes=("Drama",)), ""),
}


@pytest.mark.parametrize(("selection", "left"), CASES.values(), ids=CASES)
def test_what_is_allowed(selection: ItemSelection, left: str) -> None:
    allowed = SELECTOR.allowed(selection, SEEN)
    assert "".join(item for item, each in zip("abcd", allowed, strict=True) if each) == left


def test_a_misspelt_attribute_is_answered_with_the_likely_one() -> None:
    with pytest.raises(UnknownAttributeError, match="did you mean 'Comedy'") as caught:
        SELECTOR.allowed(ItemSelection(with_attributes=("Drama", "Comdey")), ())
    assert (caught.value.field, caught.value.index) == ("with_attributes", 1)
    assert "Comdey" not in str(caught.value)


def test_an_attribute_like_no_other_is_refused_without_advice() -> None:
    with pytest.raises(UnknownAttributeError) as caught:
        SELECTOR.allowed(ItemSelection(without_attributes=("xyzzy",)), ())
    assert str(caught.value) == "no item of this revision has this attribute"
