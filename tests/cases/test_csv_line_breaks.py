"""A CSV file may have line breaks inside quotes, however large it is."""

from __future__ import annotations

from pathlib import Path

from rankloom_training.data import load_dataset
from training.small_log import folder_of, good_items

STORY = 'One line,\nanother "line"\r\nand a third. ' * 20


def test_line_breaks_in_quotes_are_read_beyond_a_mebibyte(tmp_path: Path) -> None:
    more = [{"item_id": f"j{n}", "title": f"T{n}"} for n in range(3000)]
    items = [row | {"description": STORY} for row in (*good_items(), *more)]
    folder_of(tmp_path, items=items)
    assert (tmp_path / "items.csv").stat().st_size > 2 << 20
    catalogue = load_dataset(tmp_path).catalogue
    assert len(catalogue) == len(items)
    assert {item.description for item in catalogue.items} == {STORY}
