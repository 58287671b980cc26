"""Properties of the bundle that training writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.router import GLOBAL, Router
from rankloom_ranker.loaded import bundled_experts
from rankloom_training.data import load_dataset
from rankloom_training.user_events import events_of_bundle, user_history


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return open_bundle(bundle_folder)


def test_the_metadata_say_how_it_was_made(bundle: Bundle, small_data: Path) -> None:
    dataset = load_dataset(small_data)
    encoder = bundle.read(parts.ENCODER)
    assert bundle.metadata["protocol"] == "p1"
    assert bundle.metadata["feature_version"] == hashlib.sha256(encoder).hexdigest()
    assert bundle.metadata["num_users"] == dataset.log.num_users
    assert bundle.metadata["num_items"] == len(dataset.catalogue)
    assert bundle.metadata["like_above"] is None  # the log has labels
    assert 0.5 < bundle.metadata["validation"]["auc"] < 1.0


def test_the_router_names_the_experts_of_the_bundle(bundle: Bundle) -> None:
    router = Router.from_bytes(bundle.read(parts.ROUTER))
    assert set(router.experts) == set(bundle.experts()) >= {GLOBAL}


def test_a_group_without_a_clear_gain_keeps_the_global_expert(bundle: Bundle) -> None:
    """A few validation rows cannot show that an expert is better."""
    router = Router.from_bytes(bundle.read(parts.ROUTER))
    assert len({each.load().digest for each in bundled_experts(bundle, router.experts)}) == 1


def test_scores_are_calibrated_on_the_validation_rows(bundle: Bundle) -> None:
    assert Calibration.from_bytes(bundle.read(parts.CALIBRATION)) != Calibration()


def test_the_events_beside_the_bundle_are_the_data(bundle: Bundle, small_data: Path) -> None:
    dataset = load_dataset(small_data)
    log, items = dataset.log, dataset.catalogue.items
    with events_of_bundle(bundle.folder) as store:
        assert store.statistics().num_events == len(log)
        for user, name in enumerate(log.user_ids):
            own, events = log.user == user, store.history(name).events
            assert [event.item_id for event in events] == [
                items[item].item_id for item in log.item[own]
            ]
            assert [event.liked for event in events] == log.liked[own].tolist()
            assert [event.time for event in events] == log.time[own].tolist()
            assert events == user_history(dataset, user)


def test_no_path_of_this_machine_is_in_the_bundle(bundle: Bundle, bundle_folder: Path) -> None:
    for name in bundle.parts:
        assert str(bundle_folder.parent).encode() not in bundle.read(name)
    assert str(bundle_folder.parent) not in json.dumps(dict(bundle.metadata))


def test_each_expert_has_the_digest_of_its_base(bundle: Bundle) -> None:
    digest = bundle.parts[parts.BASE_WEIGHTS].sha256
    assert {each.load().base_digest for each in bundled_experts(bundle, bundle.experts())} == {
        digest
    }
