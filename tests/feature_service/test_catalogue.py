from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloom_features.catalogue import (
    MAX_ATTRIBUTE_COLUMNS,
    Catalogue,
    CatalogueError,
    Item,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
items = st.lists(
    st.builds(
        Item,
        texts,
        texts,
        st.none() | st.integers(0, 9999),
        st.lists(texts, max_size=3).map(tuple),
        texts,
    ),
    max_size=6,
    unique_by=lambda item: item.item_id,
)
TOO_MANY = json.dumps([f"n{number}" for number in range(MAX_ATTRIBUTE_COLUMNS + 1)]).encode()
GOOD = b'{"item_id": "a", "title": "A", "year": null, "attributes": [], "description": ""}'


@settings(deadline=None)
@given(items)
def test_bytes_round_trip(made: list[Item]) -> None:
    catalogue = Catalogue(made)
    assert Catalogue.from_bytes(catalogue.to_bytes()).items == catalogue.items == tuple(made)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b"\xff",
        b'{"item_id": "b"}',
        b'{"attributes": []}',
        b'{"item_id": "b", "attributes": null}',
        b'{"item_id": "b", "attributes": 3}',
        b'{"item_id": "b", "attributes": [], "price": 3}',
        b'{"item_id": null, "attributes": []}',
        b'{"item_id": ["b"], "attributes": []}',
        b'{"item_id": "b", "title": 3, "attributes": []}',
        b'{"item_id": "b", "year": "old", "attributes": []}',
        b'{"item_id": "b", "year": 1990.5, "attributes": []}',
        b'{"item_id": "b", "year": true, "attributes": []}',
        b'{"item_id": "b", "year": 1' + b"0" * 400 + b', "attributes": []}',
        b'{"item_id": "b", "title": "\\ud800", "attributes": []}',
        b'{"item_id": "b", "attributes": [["x"]]}',
        b'{"item_id": "b", "attributes": "Drama"}',
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:50]),
)
def test_a_bad_line_is_named(line: bytes) -> None:
    with pytest.raises(CatalogueError, match="line 2"):
        Catalogue.from_bytes(GOOD + b"\n" + line + b"\n" + GOOD.replace(b'"a"', b'"c"') + b"\n")


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(CatalogueError, match="duplicate item id"):
        Catalogue.from_bytes(GOOD + b"\n" + GOOD + b"\n")


def test_items_are_found_by_id() -> None:
    catalogue = Catalogue([Item("a", "A"), Item("b", "B")])
    assert [catalogue.index(name) for name in ("a", "b", "c")] == [0, 1, -1]
    assert catalogue.get("b") == Item("b", "B")
    assert catalogue.get("c") is None
    assert len(catalogue) == 2


def test_the_catalogues_own_text_wins() -> None:
    catalogue = Catalogue([Item("a", "A", 1990, ("Drama",))])
    given_again, unknown = Item("a", "other", 2000, ("War",)), Item("z", "Z", 2001, ("Drama",))
    assert catalogue.resolve(given_again).title == "A"
    assert catalogue.resolve(unknown) is unknown
    traits = catalogue.traits_of([given_again, unknown, Item("y")])
    assert traits.index.tolist() == [0, -1, -1]
    assert traits.year[:2].tolist() == [1990, 2001]
    assert np.isnan(traits.year[2])
    assert traits.attributes.tolist() == [[1.0], [1.0], [0.0]]


def test_traits_of_known_items_are_the_same_by_place_and_by_item() -> None:
    made = [Item(str(n), year=1990 + n, attributes=("x", "y")[: n % 3]) for n in range(4)]
    catalogue = Catalogue(made)
    by_item = catalogue.traits_of(made[::-1])
    by_place = catalogue.traits_at(np.array([3, 2, 1, 0]))
    assert by_item.index.tolist() == by_place.index.tolist()
    assert by_item.year.tolist() == by_place.year.tolist()
    assert by_item.attributes.tolist() == by_place.attributes.tolist()


def test_no_items_have_traits_of_no_rows() -> None:
    traits = Catalogue([Item("a", attributes=("x",))]).traits_of([])
    assert (traits.index.shape, traits.year.shape, traits.attributes.shape) == ((0,), (0,), (0, 1))


def test_the_commonest_attributes_have_columns() -> None:
    made = [
        Item(str(number), attributes=tuple(f"n{index:02d}" for index in range(number + 1)))
        for number in range(MAX_ATTRIBUTE_COLUMNS + 5)
    ]
    names = Catalogue(made).attribute_names
    assert names == tuple(f"n{index:02d}" for index in range(MAX_ATTRIBUTE_COLUMNS))


def test_the_columns_do_not_depend_on_the_order_of_items() -> None:
    made = [Item("a", attributes=("x", "y")), Item("b", attributes=("z",))]
    assert Catalogue(made).attribute_names == Catalogue(made[::-1]).attribute_names


def test_text_in_any_script_and_with_line_ends_is_kept() -> None:
    item = Item("a", "line\nend\r\u2028\u0085", 1, ("Déjà", "日本"), '"quoted"\\')
    data = Catalogue([item]).to_bytes()
    assert data.count(b"\n") == 1
    assert json.loads(data)["title"] == item.title
    assert Catalogue.from_bytes(data).items == (item,)


def test_given_columns_stay_when_items_with_other_attributes_join() -> None:
    before = Catalogue([Item("a", attributes=("x", "y"))])
    items = (*before.items, Item("b", attributes=("z", "x")), Item("c", attributes=("z",)))
    after = Catalogue.from_bytes(Catalogue(items).to_bytes(), before.columns_to_bytes())
    assert after.attribute_names == before.attribute_names == ("x", "y")
    assert after.traits.attributes.tolist() == [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (b"[", "not valid JSON"),
        (b'{"x": 1}', "not a list"),
        (b'["x", 1]', "not a list"),
        (b'["x", "x"]', "or repeated"),
        (TOO_MANY, "more than"),
    ],
)
def test_damaged_columns_are_refused(columns: bytes, said: str) -> None:
    with pytest.raises(CatalogueError, match=f"attribute columns: .*{said}"):
        Catalogue.from_bytes(b"", columns)
