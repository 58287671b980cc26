"""The last stage: assembles the bundle, fits router and probabilities, and seals it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import rankloom
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_features.encoder import Encoder
from rankloom_features.item_index import IndexedVectors, ItemIndex
from rankloom_features.loading import statistics_from_bytes
from rankloom_features.scorer import scorer_from_bytes
from rankloom_features.vector_space import CollaborativeSpace
from rankloom_training.assemble import assemble
from rankloom_training.calibrate import fit_on_valid
from rankloom_training.data import Dataset, Split
from rankloom_training.option_file import to_yaml
from rankloom_training.options import TrainOptions
from rankloom_training.stages.artefacts import (
    BaseFiles,
    BundleFiles,
    CollaborativeFiles,
    GlobalFiles,
    GroupsFiles,
    ReviewsFiles,
    TreesFiles,
)
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import BundleArtefact, Stage, StageInputs

ITEM_VECTORS = "item_vectors"  # in the metadata: whether the user model knows some
_INDEX_USERS = 200  # whom an approximate item index is fitted to
_IN_BUNDLE: tuple[type[BundleArtefact], ...] = (
    CollaborativeFiles,
    TreesFiles,
    BaseFiles,
    GlobalFiles,
    GroupsFiles,
)


@dataclass(frozen=True, slots=True)
class CalibrateStage(Stage):
    """The bundle, calibrated on the valid split as it is served, and sealed."""

    whole: TrainOptions
    makes = BundleFiles
    needs = _IN_BUNDLE
    may_need = (ReviewsFiles,)
    code = (
        "rankloom_adapters.calibration",
        "rankloom_adapters.router",
        "rankloom_engine",
        "rankloom_features",
        "rankloom_ranker",
        "rankloom_training.assemble",
        "rankloom_training.calibrate",
        "rankloom_training.grouping.routing",
        "rankloom_training.metrics",
        "rankloom_training.option_file",
        "rankloom_training.scoring",
        "rankloom_training.side_by_side",
        "rankloom_training.stages.rows",
    )

    @property
    def options(self) -> dict[str, object]:
        """All, since the bundle says how it was made."""
        return dataclasses.asdict(self.whole)

    def run(self, given: StageInputs) -> None:
        """Scores with the assembled bundle, then writes what was fitted into it."""
        data, files = given.dataset, BundleFiles(given.folder)
        made = [given.of(kind).bundle_parts() for kind in _IN_BUNDLE]
        if reviews := given.maybe(ReviewsFiles):
            made.append(reviews.bundle_parts())
        assemble(given.folder, made, data)
        files.write({parts.RECIPE: to_yaml(self.whole), parts.ITEM_INDEX: self._item_index(given)})
        metadata = self._metadata(given.folder, data)
        seal(given.folder, metadata)
        view = LogRows.of(data, self.whole.protocol, self.whole.seed).valid
        fitted = fit_on_valid(
            open_bundle(given.folder), data, view, given.progress.step, given.machine.device
        )
        router, calibration = fitted.router.to_bytes(), fitted.calibration.to_bytes()
        files.write({parts.ROUTER: router, parts.CALIBRATION: calibration})
        given.progress.note(fitted.text())
        seal(given.folder, metadata | {"validation": fitted.to_json()})

    def _item_index(self, given: StageInputs) -> bytes:
        """Of the collaborative model's vectors; an approximate one is fitted to users of valid."""
        files = given.of(CollaborativeFiles)
        encoder, vectors = files.model()
        ids = given.dataset.catalogue.item_ids
        scorer = scorer_from_bytes(Encoder(encoder), vectors, len(ids))
        _, statistics, _ = given.of(TreesFiles).ranker()
        rows = statistics_from_bytes(statistics, len(ids)).rows
        space = CollaborativeSpace(scorer, rows, sampled=given.dataset.sampling is not None)
        users = space.users(files.vectors(Split.VALID)[:_INDEX_USERS])
        index = ItemIndex.built(space.items, users, self.whole.max_exact_items)
        return index.to_bytes(IndexedVectors.of(space, ids))

    def _metadata(self, folder: Path, data: Dataset) -> dict[str, object]:
        return {
            "version": rankloom.__version__,
            "recipe": str(self.whole.recipe),
            "protocol": str(self.whole.protocol),
            "collaborative": self.whole.collaborative,
            "base": self.whole.base or "embedded",
            "feature_version": Encoder((folder / parts.ENCODER).read_bytes()).feature_version,
            "lm_rows": self.whole.lm_rows,
            "num_users": data.log.num_users,
            "num_items": len(data.catalogue),
            ITEM_VECTORS: data.item_vectors is not None,
            "like_above": data.like_above,
            "implicit": data.sampling.to_json() if data.sampling else None,
        }
