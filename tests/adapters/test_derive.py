"""A derived bundle has one other expert and is otherwise equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from adapters.adapter_files import AdapterFiles
from rankloom_adapters.bundle import BundleError, expert_part, open_bundle, seal
from rankloom_adapters.derive import DERIVED_FROM, with_expert
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE, ExpertError, parse_expert
from rankloom_adapters.expert_files import ExpertFiles


@pytest.fixture
def folder(adapter: AdapterFiles, tmp_path: Path) -> Path:
    """A bundle of two experts and a router."""
    for name in ("group-0", "group-1"):
        (tmp_path / "base" / "experts" / name).mkdir(parents=True)
        (tmp_path / "base" / expert_part(name, CONFIG_FILE)).write_bytes(adapter.config)
        (tmp_path / "base" / expert_part(name, WEIGHTS_FILE)).write_bytes(adapter.weights)
    (tmp_path / "base" / "router.json").write_text("{}")
    seal(tmp_path / "base", {"protocol": "p0"})
    return tmp_path / "base"


def doubled(name: str, adapter: AdapterFiles) -> ExpertFiles:
    tensors = {key: 2 * array for key, array in adapter.tensors().items()}
    weights = safetensors.numpy.save(tensors)
    return ExpertFiles(adapter.config, weights, parse_expert(name, adapter.config, weights))


def test_one_expert_is_replaced(folder: Path, adapter: AdapterFiles, tmp_path: Path) -> None:
    base = open_bundle(folder)
    files = doubled("group-1", adapter)
    digest = with_expert(base, files, tmp_path / "derived")
    derived = open_bundle(tmp_path / "derived")
    assert derived.digest == digest != base.digest
    assert derived.metadata == {"protocol": "p0", DERIVED_FROM: base.digest}
    changed = [name for name in base.parts if derived.read(name) != base.read(name)]
    assert changed == [expert_part("group-1", WEIGHTS_FILE)]
    found = parse_expert("group-1", files.config, derived.read(changed[0]))
    for name, factors in found.modules.items():
        np.testing.assert_array_equal(factors.a, files.expert.modules[name].a)


def test_an_expert_that_the_bundle_lacks_is_named(
    folder: Path, adapter: AdapterFiles, tmp_path: Path
) -> None:
    with pytest.raises(ExpertError, match="no such expert; it has group-0, group-1"):
        with_expert(open_bundle(folder), doubled("group-7", adapter), tmp_path / "derived")
    assert not (tmp_path / "derived").exists()


def test_a_bundle_that_is_not_whole_derives_none(
    folder: Path, adapter: AdapterFiles, tmp_path: Path
) -> None:
    base = open_bundle(folder)
    (folder / "router.json").write_text("[]")
    with pytest.raises(BundleError, match=r"router\.json"):
        with_expert(base, doubled("group-0", adapter), tmp_path / "derived")
    with pytest.raises(BundleError):
        open_bundle(tmp_path / "derived")
