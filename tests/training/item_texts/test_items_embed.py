"""`rankloom items embed`: a vector for each item's text, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankloom._cli.main import main
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.data import DataError, load_dataset
from rankloom_training.data.item_vectors import FILE_NAME, read_item_vectors
from rankloom_training.item_texts import embed as module
from rankloom_training.item_texts.embed import embed_items, item_text
from rankloom_training.reccot.text_model import SmallShape, TextModel, small_text_model
from training.small_log import folder_of

ITEMS = tuple(Item(f"i{at}", f"Film {at}", None, ("War",), "Long. " * at) for at in range(150))
Embed = Callable[[Catalogue, str], int]


@pytest.fixture(scope="module")
def encoder() -> TextModel:
    texts = [item_text(item) for item in ITEMS]
    return small_text_model(texts, seed=0, shape=SmallShape(hidden=16, layers=1, heads=2))


@pytest.fixture
def embed(encoder: TextModel, tmp_path: Path) -> Embed:
    def run(catalogue: Catalogue, name: str = "tiny") -> int:
        return embed_items(catalogue, encoder, name, tmp_path / FILE_NAME, lambda *_: None)

    return run


def vectors(
    folder: Path, catalogue: Catalogue
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    found = read_item_vectors(folder, catalogue)
    assert found is not None
    return found


def test_the_text_is_title_labels_and_description() -> None:
    assert item_text(Item("a", "Glass Comet", 1994, ("Heist", "Sci-Fi"), "A crew.")) == (
        "Glass Comet. Heist, Sci-Fi. A crew."
    )
    assert item_text(Item("a", "Glass Comet", None, (), "")) == "Glass Comet"


def test_each_vector_is_that_of_its_own_text(
    embed: Embed, encoder: TextModel, tmp_path: Path
) -> None:
    catalogue = Catalogue(ITEMS)
    assert embed(catalogue, "tiny") == len(ITEMS)
    found = vectors(tmp_path, catalogue)
    for at in (0, 70, 149):
        windows = encoder.windows.windows([item_text(ITEMS[at])])
        expected = encoder.vectors(windows, 1).detach().numpy()[0]
        np.testing.assert_allclose(found[at], expected, atol=1e-5)


def test_only_new_and_changed_texts_are_read_again(embed: Embed, tmp_path: Path) -> None:
    catalogue = Catalogue(ITEMS)
    embed(catalogue, "tiny")
    before = vectors(tmp_path, catalogue)
    assert embed(catalogue, "tiny") == 0
    changed = (Item("i0", "Another", None, (), ""), *ITEMS[1:100], Item("new", "New", None, (), ""))
    assert embed(Catalogue(changed), "tiny") == 2
    after = vectors(tmp_path, catalogue)
    assert not np.array_equal(after[0], before[0])
    assert np.array_equal(after[1:], before[1:]), "also of items that this table lacks"
    assert embed(Catalogue(changed), "other") == 101
    assert not vectors(tmp_path, catalogue)[100:].any(), "made by another encoder"


def test_a_killed_run_keeps_what_it_wrote(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, calls = module._made, list[int]()

    def dies(items: list[Item], encoder: TextModel) -> object:
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return made(items, encoder)

    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "_made", dies)
    with pytest.raises(KeyboardInterrupt):
        embed(Catalogue(ITEMS), "tiny")
    monkeypatch.setattr(module, "_made", made)
    assert embed(Catalogue(ITEMS), "tiny") == len(ITEMS) - 2 * module.AT_ONCE


def test_a_file_of_other_origin_stays(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"mine")
    with pytest.raises(DataError, match="move it away"):
        embed(Catalogue(ITEMS), "tiny")
    assert (tmp_path / FILE_NAME).read_bytes() == b"mine"


def test_the_command_reads_an_encoder_by_path(
    encoder: TextModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, base = folder_of(tmp_path), tmp_path / "encoder"
    encoder.model.save_pretrained(str(base))  # type: ignore[operator]
    command = ["items", "embed", "--data", str(data), "--encoder", str(base)]
    assert main(command) == 0
    num = len(load_dataset(data).catalogue)
    assert capsys.readouterr().out == (
        f"{data / FILE_NAME}: {num} of {num} items are new, 16 numbers each\n"
    )
    assert vectors(data, load_dataset(data).catalogue).any(axis=1).all()


def test_an_unknown_encoder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of(tmp_path)
    command = ["items", "embed", "--data", str(data), "--encoder", str(tmp_path / "none")]
    assert main(command) == 2
    assert "check the name" in capsys.readouterr().err
    assert not (data / FILE_NAME).exists()
