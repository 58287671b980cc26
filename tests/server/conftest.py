from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from feature_service.feature_bundle import known_events, write_feature_bundle
from rankloom_ranker.loaded import BundleFeatures
from rankloom_server import logs
from rankloom_server.feature_app import opened_features


@pytest.fixture(autouse=True)
def json_log() -> Iterator[None]:
    """The log as a running server writes it."""
    logs.configure("info")
    yield
    logs.forget()
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def feature_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_bundle(tmp_path_factory.mktemp("feature-bundle"))


@pytest.fixture(scope="session")
def feature_parts(feature_folder: Path) -> BundleFeatures:
    return opened_features(feature_folder, events=known_events())[1]
