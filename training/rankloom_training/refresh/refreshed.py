"""A bundle brought up to date with new rows.

Made anew are what counts rows (item statistics, item means and factors of the user model) and what
is fitted on validation rows (router and probabilities). The collaborative model, the trees, the
base and the projector keep their bytes, so that they say of an item that came later only what its
text and its rows say.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle, replace_file, seal
from rankloom_adapters.derive import with_parts
from rankloom_features.catalogue import Catalogue
from rankloom_features.encoder import Encoder
from rankloom_features.event_store.sqlite import SqliteEventStore, copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.item_columns import NO_COLUMNS, ItemColumns
from rankloom_features.loading import statistics_to_bytes
from rankloom_features.session_columns import SESSION_COLUMNS
from rankloom_ranker.item_groups import NO_GROUP, ItemGroups
from rankloom_ranker.loaded import load_bundle
from rankloom_training.added_items import AddedItems
from rankloom_training.calibrate import Fitted, fit_on_valid
from rankloom_training.data import DataError, Dataset, Split, item_vectors, load_dataset
from rankloom_training.data.negatives import Negatives, NegativeSampling
from rankloom_training.evaluate import like_above_of, sampling_of
from rankloom_training.item_texts.in_prompts import with_item_texts
from rankloom_training.machine import CPU, Machine
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress, StageProgress
from rankloom_training.refresh.experts import ExpertRefresh
from rankloom_training.refresh.joined_log import StoredEvents, joined_log
from rankloom_training.stages.calibrate import ITEM_VECTORS
from rankloom_training.train import OutputError
from rankloom_training.trees import held_out_prior, item_statistics
from rankloom_training.user_events import write_events
from rankloom_training.user_models.fit import fitted_user_model
from rankloom_training.user_models.item_features import ItemFeatures
from rankloom_training.user_models.labels import labels_of
from rankloom_training.visibility import Protocol, scoring_view

REFRESHES = "refreshes"  # in the metadata: how often, since it was trained
Line = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class RefreshedBundle:
    """``new``: the new rows. ``data``: these and the former events, of which there are
    ``num_stored``. Their items are those of the grown catalogue. ``grown``: the parts with a row
    for each item, if some are new.
    """

    bundle: Bundle
    items: AddedItems
    new: Dataset
    data: Dataset
    num_stored: int
    grown: Mapping[str, bytes]

    @classmethod
    def checked(cls, bundle: Bundle, given: Dataset, name: str, seed: int) -> RefreshedBundle:
        """``given``: the new rows. ``name``: of their folder, for refusals. ``seed``: of sampled
        negatives.

        Raises DataError, EventStoreError, and what opening the bundle raises.
        """
        bundle.check()
        _check_kind(bundle, given, name)
        items = AddedItems.of(load_bundle(bundle), given)
        grown = _grown_parts(items) if len(items.rows) else {}
        index = np.array([items.catalogue.index(item.item_id) for item in given.catalogue.items])
        log = dataclasses.replace(given.log, item=index[given.log.item])
        stored = _stored(bundle, items.catalogue)
        likes = stored if given.sampling is None else stored.only(stored.liked)
        columns = _columns(bundle, grown, len(items.catalogue))
        vectors = _vectors(bundle, given, items.catalogue, name)
        new = Dataset(items.catalogue, log, item_columns=columns, item_vectors=vectors)
        data = dataclasses.replace(new, log=joined_log(likes, log, name))
        if given.sampling is not None:
            data = _with_negatives(data, given.sampling, seed)
        return cls(bundle, items, new, data, len(stored), grown)

    def report(self) -> Iterator[Line]:
        """What is made anew, what stays, and what says when to train."""
        train = self.new.log.item[self.new.log.split == Split.TRAIN]
        unknown = ~self.items.loaded.provider.scorer.vectors.any(axis=1)
        unknown = np.append(unknown, np.ones(len(self.items.rows), np.bool_))
        yield "events", f"{self.num_stored:,} stored ones, {len(self.new.log):,} new rows"
        yield "made anew", "item statistics, user model, router's limits, probabilities, events"
        yield (
            "stays",
            "collaborative model, trees, base, projector, and experts unless they are asked for",
        )
        yield (
            "drift",
            f"{100 * unknown[train].mean():.1f} % of the new training rows are about items "
            f"without a vector ({len(self.items.rows)} items are new); train anew when that grows",
        )

    def write_uncalibrated(self, folder: Path) -> str:
        """Writes the bundle with fresh statistics, and router and probabilities as they were.

        ``folder`` must not exist. Returns the digest.
        """
        made = {**self.grown, **self._counted_parts()}
        made[parts.ITEM_INDEX] = self.items.item_index(made)
        encoder = made.get(parts.ENCODER) or self.bundle.read(parts.ENCODER)
        metadata = {
            "feature_version": Encoder(encoder).feature_version,
            "num_users": self.data.log.num_users,
            "num_items": len(self.items.catalogue),
            ITEM_VECTORS: self.data.item_vectors is not None,
            REFRESHES: int(self.bundle.metadata.get(REFRESHES, 0)) + 1,
        }
        return with_parts(self.bundle, made, folder, metadata)

    def run(
        self,
        out: Path,
        options: TrainOptions,
        progress: Progress,
        machine: Machine,
        *,
        with_experts: bool,
    ) -> str:
        """Writes the bundle to ``out``, and the events beside it; returns the digest."""
        begun = out.with_name(f"{out.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        with progress.stage("statistics"):
            self.write_uncalibrated(begun)
        if with_experts:
            self._train_experts(begun, options, progress, machine)
        with progress.stage("calibrate") as shown:
            fitted = self._calibrated(begun, options.protocol, shown, machine)
            shown.note(f"AUC {fitted.auc:.4f} on {fitted.num_rows} new validation rows")
        with progress.stage("events"):
            copy_events(events_beside(self.bundle.folder), events_beside(begun))
            write_events(self.new, begun)
        os.replace(events_beside(begun), events_beside(out))
        os.replace(begun, out)
        return open_bundle(out).digest

    def _train_experts(
        self, folder: Path, options: TrainOptions, progress: Progress, machine: Machine
    ) -> None:
        draft, since = open_bundle(folder), float(self.new.log.time.min())
        trained = ExpertRefresh(self.items.loaded, draft, self.data, since, options, machine)
        trained.run(progress)
        seal(folder, draft.metadata)

    def _counted_parts(self) -> dict[str, bytes]:
        """What counts rows: of the former events and of the new training rows."""
        log = self.data.log
        train = log.split == Split.TRAIN
        statistics = item_statistics(log, self.data.catalogue, train)
        if SESSION_COLUMNS[-1] not in self.items.loaded.provider.columns:  # nor in its trees
            statistics = dataclasses.replace(statistics, co_session=None)
        made = {parts.ITEM_STATISTICS: statistics_to_bytes(statistics)}
        if parts.USER_MODEL in self.bundle.parts:
            labels = labels_of(log, train)
            features = ItemFeatures.of(self.data, statistics, labels)
            model = fitted_user_model(labels, features, held_out_prior(self.data, 0))
            made[parts.USER_MODEL] = model.to_bytes()
        return made

    def _calibrated(
        self, folder: Path, protocol: Protocol, progress: StageProgress, machine: Machine
    ) -> Fitted:
        """Fits router and probabilities on the new validation rows, and seals the bundle."""
        draft = open_bundle(folder)
        view = scoring_view(self.data.log, protocol, Split.VALID)
        fitted = fit_on_valid(draft, self.data, view, progress.step, machine.device)
        # The files may be shared with the former bundle, so they are replaced and not written into.
        replace_file(folder / parts.ROUTER, fitted.router.to_bytes())
        replace_file(folder / parts.CALIBRATION, fitted.calibration.to_bytes())
        seal(folder, {**draft.metadata, "validation": fitted.to_json()})
        return fitted


def refresh(
    bundle: Bundle,
    data: Path,
    out: Path,
    options: TrainOptions,
    progress: Progress,
    machine: Machine = CPU,
    *,
    with_experts: bool = False,
) -> str:
    """Brings a bundle up to date with a folder of new rows; returns the new bundle's digest.

    ``options``: of the item texts, the experts' recipes and the seed; the protocol, the threshold
    of a like and the sampling of negatives are the bundle's. ``with_experts``: train them further,
    too. Raises ValueErrors that say what to do, and
    EventStoreError.
    """
    machine.check()
    for path in (out, events_beside(out)):
        if path.exists():
            raise OutputError(f"{path} exists; remove it or choose another path")
    given = load_dataset(data, like_above_of(bundle), sampling_of(bundle))
    described = with_item_texts(given, data, options.item_texts)
    protocol = Protocol(bundle.metadata.get("protocol", options.protocol))
    found = RefreshedBundle.checked(bundle, described, str(data), options.seed)
    for label, text in found.report():
        progress.tell(label, text)
    chosen = dataclasses.replace(options, protocol=protocol)
    return found.run(out, chosen, progress, machine, with_experts=with_experts)


def _check_kind(bundle: Bundle, given: Dataset, name: str) -> None:
    """Raises DataError where one log has dislikes of its own and the other has none."""
    if (given.sampling is None) != (sampling_of(bundle) is None):
        own, other = ("likes alone", "dislikes too") if given.sampling else ("dislikes", "none")
        raise DataError(
            f"{name}: the new rows have {own}, and the bundle was trained on a log with {other}; "
            f"give rows of the same kind, or train anew"
        )


def _stored(bundle: Bundle, catalogue: Catalogue) -> StoredEvents:
    path = events_beside(bundle.folder)
    if not path.exists():
        raise DataError(
            f"{path}: no such file, and the former events are needed; import them with: "
            f"rankloom events import {path} FILE"
        )
    with closing(SqliteEventStore(path)) as store:
        return StoredEvents.of(store, catalogue)


def _grown_parts(items: AddedItems) -> dict[str, bytes]:
    """The parts with a row for each item. New items are in no group."""
    made, groups = items.bundle_parts(), items.loaded.item_groups
    if groups is not None:
        none = np.full(len(items.rows), NO_GROUP)
        grown = ItemGroups(np.concatenate([groups.group, none]), groups.num_groups)
        made[parts.ITEM_GROUPS] = grown.to_bytes()
    return made


def _columns(bundle: Bundle, grown: Mapping[str, bytes], num_items: int) -> ItemColumns:
    if parts.ITEM_COLUMNS not in bundle.parts:
        return NO_COLUMNS
    data = grown.get(parts.ITEM_COLUMNS) or bundle.read(parts.ITEM_COLUMNS)
    return ItemColumns.from_bytes(data, num_items)


def _vectors(
    bundle: Bundle, given: Dataset, catalogue: Catalogue, name: str
) -> NDArray[np.float32] | None:
    """Of all items: the file may also have those whose rows are not given."""
    file = next((path for path in given.files if path.name == item_vectors.FILE_NAME), None)
    if file is not None:
        return item_vectors.read_item_vectors(file.parent, catalogue)
    if bundle.metadata.get(ITEM_VECTORS):
        raise DataError(
            f"{name}: has no {item_vectors.FILE_NAME}, and the bundle was trained with one; copy "
            f"that file there, and add the new items with `rankloom items embed`"
        )
    return None


def _with_negatives(likes: Dataset, sampling: NegativeSampling, seed: int) -> Dataset:
    negatives = Negatives(likes.log, len(likes.catalogue), sampling, seed)
    return dataclasses.replace(likes, log=negatives.log(), negatives=negatives)
