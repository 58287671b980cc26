"""One more expert for a finished bundle: a group of items that came later, such as a new domain.

As in ThinkRec's incremental experiment (arXiv 2505.15091), nothing else is trained again: base,
projector, trees and all other experts keep their bytes. The new expert begins as the global one and
learns from the rows about the new items; it stays only if it is better on their validation rows.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, expert_part, open_bundle, seal
from rankloom_adapters.derive import with_parts
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL, Router, RouteThresholds
from rankloom_features.encoder import Encoder
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_ranker.item_groups import NO_GROUP, ItemGroups
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.added_items import AddedItems
from rankloom_training.data import Dataset, Interactions, Split, load_dataset
from rankloom_training.evaluate import like_above_of
from rankloom_training.experts import ExpertTrainer
from rankloom_training.group_counts import MAX_GROUPS, GroupError
from rankloom_training.grouped_items import check_group_name
from rankloom_training.groups import gain_of
from rankloom_training.item_texts.in_prompts import with_item_texts
from rankloom_training.machine import CPU, Machine
from rankloom_training.metrics import Estimate
from rankloom_training.on_bundle import decoder_of, windows_of
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress, StageProgress
from rankloom_training.train import OutputError
from rankloom_training.user_events import write_events
from rankloom_training.visibility import (
    Protocol,
    View,
    sampled_users,
    scoring_view,
    training_views,
)
from rankloom_training.windows import Window

ADDED = "added_groups"  # in the metadata: names, in the order in which they came


@dataclass(frozen=True, slots=True, eq=False)
class AddedGroup:
    """A group that joins a bundle. ``data``: its items are those of the grown catalogue."""

    bundle: Bundle
    name: str
    items: AddedItems
    data: Dataset

    @classmethod
    def checked(cls, bundle: Bundle, name: str, given: Dataset) -> AddedGroup:
        """``given``: a log with rows about items that the bundle does not know.

        Raises GroupError, and what opening the bundle raises.
        """
        bundle.check()
        loaded = load_bundle(bundle)
        _check(loaded, name, given)
        items = AddedItems.of(loaded, given)
        if not len(items.rows):
            raise GroupError(
                "the bundle knows all items of the item table; add the items of the new group"
            )
        place = np.array([items.catalogue.index(i.item_id) for i in given.catalogue.items])
        log = dataclasses.replace(given.log, item=place[given.log.item])
        _check_rows(name, log, items.is_new[log.item])
        return cls(bundle, name, items, Dataset(items.catalogue, log))

    def write_untrained(self, folder: Path) -> str:
        """Writes the bundle with the new items, and a copy of the global expert for their group.

        ``folder`` must not exist. Returns the digest.
        """
        files = {
            expert_part(self.name, file): self.bundle.read(expert_part(GLOBAL, file))
            for file in (CONFIG_FILE, WEIGHTS_FILE)
        }
        made = self.items.bundle_parts() | files | self._routing()
        metadata = {
            "feature_version": Encoder(made[parts.ENCODER]).feature_version,
            "num_items": len(self.items.catalogue),
            ADDED: [*self.bundle.metadata.get(ADDED, ()), self.name],
        }
        return with_parts(self.bundle, made, folder, metadata)

    def train(self, out: Path, options: TrainOptions, progress: Progress, machine: Machine) -> str:
        """Trains the expert and writes the bundle to ``out``; returns its digest."""
        begun = out.with_name(f"{out.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        self.write_untrained(begun)
        draft = open_bundle(begun)
        with progress.stage(self.name) as shown:
            gain = self._train(draft, options, shown, machine)
            shown.note(f"{self.name}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
        digest = seal(begun, draft.metadata)
        self.write_events(out)
        os.replace(begun, out)
        return digest

    def write_events(self, out: Path) -> None:
        """Stores the events beside the old bundle, and those of the log, beside the new one."""
        if events_beside(self.bundle.folder).exists():
            copy_events(events_beside(self.bundle.folder), events_beside(out))
        write_events(self.data, out)

    def _train(
        self, draft: Bundle, options: TrainOptions, progress: StageProgress, machine: Machine
    ) -> Estimate:
        """Replaces the draft's expert if the trained one is better; returns the gain in AUC."""
        loaded, log = load_bundle(draft), self.data.log
        view = self._about_new(scoring_view(log, options.protocol, Split.VALID), options)
        valid = windows_of(loaded, self.data, view)
        trainer = ExpertTrainer(
            decoder_of(loaded, machine), options.seed, recompute=machine.recompute
        )
        trainer.load_adapter(draft.folder / "experts" / GLOBAL)
        found = trainer.train(
            self._training_windows(loaded, options),
            valid,
            options.group_recipe,
            with_projector=False,
            on_step=progress.step,
            on_epoch=lambda epoch, auc: progress.note(f"epoch {epoch}: AUC {auc:.4f}"),
        )
        users = log.user[view.rows[np.concatenate([window.rows for window in valid])]]
        gain = gain_of(users, valid, found)
        if gain.low > 0.0:
            trainer.save(draft.folder / "experts" / self.name, draft.folder / parts.BASE_WEIGHTS)
        return gain

    def _training_windows(self, loaded: LoadedBundle, options: TrainOptions) -> list[Window]:
        views = training_views(self.data.log, options.protocol, options.seed)
        return [
            window
            for view in views
            for window in windows_of(loaded, self.data, self._about_new(view, options))
        ]

    def _about_new(self, view: View, options: TrainOptions) -> View:
        """The rows about the new items, of as many users as the language model may see."""
        about_new = view.only(self.items.is_new[self.data.log.item[view.rows]])
        user = self.data.log.user[about_new.rows]
        chosen = sampled_users(user, self.data.log.num_users, options.lm_rows, options.seed)
        return about_new.only(chosen[user])

    def _routing(self) -> dict[str, bytes]:
        """The router and the items' groups, with the new group as the last one."""
        router = self.items.loaded.router
        groups = _groups_of(self.items.loaded)
        num = len(router.groups)
        new = np.where(self.items.is_new[len(groups.group) :], num, NO_GROUP)
        grown = ItemGroups(np.concatenate([groups.group, new]), num + 1)
        return {
            parts.ROUTER: _with_group(router, self.name).to_bytes(),
            parts.ITEM_GROUPS: grown.to_bytes(),
        }


def recipe_of(bundle: Bundle) -> Path | None:
    """The file of the options that the bundle was trained with, if it has one."""
    return bundle.folder / parts.RECIPE if parts.RECIPE in bundle.parts else None


def add_group(
    bundle: Bundle,
    name: str,
    data: Path,
    out: Path,
    options: TrainOptions,
    progress: Progress,
    machine: Machine = CPU,
) -> str:
    """Adds a group to a bundle, trained on a log about its items; returns the new bundle's digest.

    ``options``: of the group's recipe, the rows that the language model sees, and the seed; the
    protocol and the threshold of a like are the bundle's. Raises ValueErrors that say what to do.
    """
    if out.exists():
        raise OutputError(f"{out} exists; remove it or choose another path")
    machine.check()
    given = with_item_texts(load_dataset(data, like_above_of(bundle)), data, options.item_texts)
    protocol = Protocol(bundle.metadata.get("protocol", options.protocol))
    chosen = dataclasses.replace(options, protocol=protocol)
    return AddedGroup.checked(bundle, name, given).train(out, chosen, progress, machine)


def _with_group(router: Router, name: str) -> Router:
    """One more group: the users who have no events of the others, who keep their routes."""
    num, before = len(router.groups) + 1, router.thresholds
    # Of a number of groups that grows, ThinkRec's thresholds and the largest entropy change.
    global_from = before.global_from * math.log(num - 1) / math.log(num)
    return dataclasses.replace(
        router,
        groups=(*router.groups, name),
        centre=np.zeros(num),
        centroids=np.eye(num),
        fitted_thresholds=RouteThresholds(before.single_above, global_from),
    )


def _groups_of(loaded: LoadedBundle) -> ItemGroups:
    if loaded.item_groups is None:
        raise GroupError(
            "the bundle's groups are clusters of its users, which new items cannot join; "
            "train it with --group-by"
        )
    return loaded.item_groups


def _check(loaded: LoadedBundle, name: str, given: Dataset) -> None:
    check_group_name(name)
    _groups_of(loaded)
    if name in loaded.router.groups:
        raise GroupError(f"the bundle has a group {name}; choose another name")
    if len(loaded.router.groups) == MAX_GROUPS:
        raise GroupError(f"the bundle has {MAX_GROUPS} groups, which is the most; train it anew")
    if given.sampling is not None:
        raise GroupError("the log has likes alone; a group is added from likes and dislikes")


def _check_rows(name: str, log: Interactions, about_new: NDArray[np.bool_]) -> None:
    """``about_new``: (rows,) whether a row is about a new item."""
    for split in (Split.TRAIN, Split.VALID):
        liked = log.liked[about_new & (log.split == split)]
        if not len(liked) or liked.all() or not liked.any():
            raise GroupError(
                f"group {name} needs likes and dislikes of its items among the "
                f"{split.name.lower()} rows; give a longer log"
            )
