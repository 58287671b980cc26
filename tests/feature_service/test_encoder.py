from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from feature_service.small_catalogue import NUM_ITEMS, random_history
from rankloom_features.encoder import MAX_EVENTS, Encoder, EncoderError, pad_events
from rankloom_features.events import History
from rankloom_features.export import TOLERANCE, ExportError, check_equal, export, with_items
from rankloom_features.models import MODEL_NAMES, create_model
from rankloom_features.models.base import CollaborativeModel

DIM = 8
Exported = tuple[CollaborativeModel, bytes]


@pytest.fixture(scope="session", params=MODEL_NAMES)
def exported(request: pytest.FixtureRequest) -> Exported:
    torch.manual_seed(4)
    model = create_model(request.param, NUM_ITEMS, DIM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for table in (model.vectors, model.item_bias):
            table.weight[0].zero_()
    return model, export(model)


def histories() -> list[History]:
    random = np.random.default_rng(2)
    return [random_history(random, length) for length in (0, 1, 2, 7, MAX_EVENTS, MAX_EVENTS + 9)]


def test_events_are_padded_on_the_left_and_cut_at_the_oldest() -> None:
    made = histories()
    items, liked = pad_events(made)
    assert items.shape == liked.shape == (len(made), MAX_EVENTS)
    for row, history in enumerate(made):
        kept = min(len(history), MAX_EVENTS)
        assert not items[row, : MAX_EVENTS - kept].any()
        assert not liked[row, : MAX_EVENTS - kept].any()
        assert (
            items[row, MAX_EVENTS - kept :].tolist() == (history.index + 1)[-kept:].tolist()[:kept]
        )
        assert liked[row, MAX_EVENTS - kept :].tolist() == history.liked[-kept:].tolist()[:kept]


def test_a_history_is_padded_alone_as_among_others() -> None:
    made = histories()
    together = pad_events(made)
    for row, history in enumerate(made):
        for alone, among in zip(pad_events([history]), together, strict=True):
            assert alone.tolist() == among[row : row + 1].tolist()


def test_user_vectors_do_not_depend_on_how_many_are_asked_for(exported: Exported) -> None:
    encoder, random = Encoder(exported[1]), np.random.default_rng(3)
    made = [random_history(random, length % 60) for length in range(1_100)]  # some runs
    vectors = encoder.encode(made)
    assert vectors.shape == (len(made), DIM)
    for row in (0, 1, 511, 512, 1_099):
        np.testing.assert_allclose(encoder.encode([made[row]])[0], vectors[row], atol=TOLERANCE)
    assert encoder.encode([]).shape == (0, DIM)


def test_the_epoch_is_the_digest_of_the_model(exported: Exported) -> None:
    _, data = exported
    assert Encoder(data).feature_version == hashlib.sha256(data).hexdigest()
    assert Encoder(data).dim == DIM


def test_the_export_computes_what_the_trained_model_does(exported: Exported) -> None:
    model, data = exported
    made = histories()
    candidates = np.random.default_rng(0).integers(0, NUM_ITEMS + 1, (len(made), 4))
    items, liked = pad_events(made)
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(array) for array in (items, liked, candidates)))
    found = Encoder(data).encode_and_score(made, candidates)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one.numpy(), abs=TOLERANCE)
        assert np.abs(other).max() > 0.1
    assert not found[1][candidates == 0].any()


def test_the_export_names_no_file_or_folder_of_this_machine(exported: Exported) -> None:
    """Equal models are equal bytes wherever they are trained, and bundles go to others."""
    _, data = exported
    assert export.__module__.encode() not in data
    for name in (b".py", b"site-packages", str(Path(__file__).parents[2]).encode()):
        assert name not in data


def test_an_export_of_other_weights_is_noticed(exported: Exported) -> None:
    model, data = exported
    torch.manual_seed(9)
    other = create_model("mf" if type(model).__name__ != "SASRec" else "sasrec", NUM_ITEMS, DIM)
    with pytest.raises(ExportError, match="differ"):
        check_equal(other.eval(), data)


def test_a_user_without_events_has_a_zero_vector(exported: Exported) -> None:
    vectors = Encoder(exported[1]).encode(histories())
    assert not vectors[0].any()
    assert all(vector.any() for vector in vectors[1:])


def test_a_vector_does_not_depend_on_the_batch(exported: Exported) -> None:
    encoder, made = Encoder(exported[1]), histories()
    together = encoder.encode(made)
    for row, history in enumerate(made):
        assert encoder.encode([history])[0] == pytest.approx(together[row], abs=1e-5)
    assert encoder.encode(made[::-1]) == pytest.approx(together[::-1], abs=1e-5)


def test_only_the_newest_events_count(exported: Exported) -> None:
    encoder, random = Encoder(exported[1]), np.random.default_rng(3)
    long = random_history(random, MAX_EVENTS + 20)
    recent = History.untimed(long.index[-MAX_EVENTS:], long.liked[-MAX_EVENTS:])
    assert encoder.encode([long]).tobytes() == encoder.encode([recent]).tobytes()


def test_labels_and_items_matter(exported: Exported) -> None:
    encoder = Encoder(exported[1])
    base = History.untimed(np.array([1, 2, 3]), np.array([True, False, True]))
    others = [
        History.untimed(np.array([1, 2, 4]), base.liked),
        History.untimed(base.index, np.array([True, True, True])),
    ]
    vectors = encoder.encode([base, *others])
    assert np.abs(vectors[1:] - vectors[0]).max(axis=1).min() > 1e-3


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"\0" * 100, b"PK\x03\x04"], ids=lambda data: repr(data[:8])
)
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(EncoderError):
        Encoder(data)


def test_a_truncated_model_is_refused(exported: Exported) -> None:
    with pytest.raises(EncoderError):
        Encoder(exported[1][: len(exported[1]) // 2])


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'als'.*sasrec, mf"):
        create_model("als", 3, 4)


def test_more_items_change_no_vector_and_no_logit(exported: Exported) -> None:
    before, after = Encoder(exported[1]), Encoder(with_items(exported[1], 3))
    after.check_num_items(NUM_ITEMS + 3)
    assert after.feature_version != before.feature_version
    made, items = histories(), np.tile(np.arange(1, NUM_ITEMS + 1), (len(histories()), 1))
    for one, other in zip(
        before.encode_and_score(made, items), after.encode_and_score(made, items), strict=True
    ):
        assert one.tobytes() == other.tobytes()


def test_an_added_item_says_nothing(exported: Exported) -> None:
    grown = Encoder(with_items(exported[1], 3))
    vector, logits = grown.encode_and_score(
        histories(), np.full((len(histories()), 1), NUM_ITEMS + 2)
    )
    assert vector.any()
    assert not logits.any()


def test_a_model_without_item_tables_cannot_grow() -> None:
    other = helper.make_model(helper.make_graph([], "empty", [], []))
    with pytest.raises(ExportError, match="no table"):
        with_items(other.SerializeToString(), 1)
