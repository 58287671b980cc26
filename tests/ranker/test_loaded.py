"""A loaded bundle shares what it has in common with others, and refuses parts that do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_service.boosters import booster
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import BundleError, open_bundle, seal
from rankloom_adapters.router import Router
from rankloom_engine.errors import ModelError
from rankloom_engine.loading import load_decoder
from rankloom_engine.projector import Projector
from rankloom_features.item_index import IndexedVectors, ItemIndexError
from rankloom_features.tree_export import export_trees
from rankloom_ranker.loaded import LoadedBundle, bundled_experts, load_bundle, load_features


def changed(folder: Path, out: Path, part: str, data: bytes) -> Path:
    shutil.copytree(folder, out)
    (out / part).write_bytes(data)
    seal(out, open_bundle(folder).metadata)
    return out


def test_another_bundle_shares_the_parts_that_are_equal(
    loaded: LoadedBundle, served_folder: Path, tmp_path: Path
) -> None:
    router = replace(loaded.router, temperature=0.7).to_bytes()
    other = open_bundle(changed(served_folder, tmp_path / "other", parts.ROUTER, router))
    second = load_bundle(other, like=[loaded])
    assert (second.features, second.trees, second.prompts) == (
        loaded.features,
        loaded.trees,
        loaded.prompts,
    )
    assert second.router.temperature == 0.7 != loaded.router.temperature
    assert second.engine_parts().decoder_key == loaded.engine_parts().decoder_key
    assert load_bundle(other).trees is not loaded.trees


def test_the_experts_come_in_the_routers_order(loaded: LoadedBundle) -> None:
    experts = loaded.engine_parts().experts
    assert [each.name for each in experts] == list(loaded.router.experts)
    assert tuple(each.weights.sha256 for each in experts) == loaded.expert_digests


def test_a_router_of_another_space_is_refused(served_folder: Path, tmp_path: Path) -> None:
    router = Router.from_bytes(open_bundle(served_folder).read(parts.ROUTER))
    other = Router(router.groups, np.zeros(3), np.ones((len(router.groups), 3)))
    folder = changed(served_folder, tmp_path / "other", parts.ROUTER, other.to_bytes())
    with pytest.raises(BundleError, match=r"router\.json: .*latent space"):
        load_bundle(open_bundle(folder))


def test_trees_of_other_columns_are_refused(served_folder: Path, tmp_path: Path) -> None:
    trees = export_trees([booster(0)])
    folder = changed(served_folder, tmp_path / "other", parts.TREES, trees)
    with pytest.raises(BundleError, match=r"trees\.onnx: .*columns"):
        load_bundle(open_bundle(folder))


@pytest.mark.parametrize(
    ("more", "told"), [((1, 0), "latent vectors of"), ((0, 2), "tabular features of")]
)
def test_a_projector_of_other_features_is_refused(
    more: tuple[int, int], told: str, loaded: LoadedBundle, served_folder: Path, tmp_path: Path
) -> None:
    hidden = json.loads(loaded.bundle.read(parts.BASE_CONFIG))["hidden_size"]
    space = loaded.space
    projector = Projector(space.dim + more[0], space.num_columns + more[1], hidden)
    folder = changed(served_folder, tmp_path / "other", parts.PROJECTOR, projector.to_bytes())
    with pytest.raises(ModelError, match=rf"projector: made for {told}.*from one training"):
        load_decoder(load_bundle(open_bundle(folder)).engine_parts())


def test_a_bundle_with_events_is_refused(served_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "features").mkdir(parents=True)
    shutil.copytree(served_folder, tmp_path / "other", dirs_exist_ok=True)
    (tmp_path / "other" / parts.FORMER_EVENTS).write_bytes(b"")
    seal(tmp_path / "other", {})
    with pytest.raises(BundleError, match="convert it with: rankloom bundle convert OLD NEW"):
        load_features(open_bundle(tmp_path / "other"))


def test_a_catalogue_without_items_is_refused(served_folder: Path, tmp_path: Path) -> None:
    folder = changed(served_folder, tmp_path / "other", parts.CATALOGUE, b"")
    with pytest.raises(ValueError, match="catalogue"):
        load_features(open_bundle(folder))


def test_an_expert_that_is_not_there_is_named(loaded: LoadedBundle) -> None:
    with pytest.raises(BundleError, match=r"experts/nobody/.*not in the manifest"):
        bundled_experts(loaded.bundle, ["nobody"])


def test_an_index_of_other_vectors_is_refused(
    loaded: LoadedBundle, served_folder: Path, tmp_path: Path
) -> None:
    """As where the vectors were replaced, and the index was not."""
    index = loaded.retriever.index
    ids = [item.item_id for item in loaded.catalogue.items]
    made_for = replace(IndexedVectors.of(loaded.retriever.space, ids), vectors="0" * 64)
    data = index.to_bytes(made_for)
    folder = changed(served_folder, tmp_path / "other", parts.ITEM_INDEX, data)
    with pytest.raises(ItemIndexError, match="its digest is not that of the item vectors"):
        load_bundle(open_bundle(folder))


def test_an_index_is_shared_by_bundles_with_the_same_one(
    loaded: LoadedBundle, served_folder: Path, tmp_path: Path
) -> None:
    router = replace(loaded.router, temperature=0.7).to_bytes()
    folder = changed(served_folder, tmp_path / "router", parts.ROUTER, router)
    assert load_bundle(open_bundle(folder), like=[loaded]).retriever is loaded.retriever
