"""Trains a bundle's experts further on new rows; the former one stays unless the new is better."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.data import Dataset, Split
from rankloom_training.experts import ExpertTrainer
from rankloom_training.groups import gain_of, have_both_classes, window_groups
from rankloom_training.machine import Machine
from rankloom_training.metrics import Estimate
from rankloom_training.on_bundle import ServedRows, decoder_of, windows_over
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress, StageProgress
from rankloom_training.visibility import (
    VALID_SHARE,
    View,
    sampled_users,
    scoring_view,
    training_views,
)
from rankloom_training.windows import Window


@dataclass(frozen=True, slots=True, eq=False)
class GroupedWindows:
    """Windows of new rows. ``user``: of each row, (rows,). ``group``: of each window."""

    windows: list[Window]
    user: list[NDArray[np.int64]]
    group: NDArray[np.int64]

    def of_group(self, index: int) -> GroupedWindows:
        """The windows of one group, or all if its own are of one class."""
        chosen = np.flatnonzero(self.group == index).tolist()
        if not have_both_classes([self.windows[at] for at in chosen]):
            return self
        return GroupedWindows(
            [self.windows[at] for at in chosen],
            [self.user[at] for at in chosen],
            self.group[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class ExpertRefresh:
    """``former``: the bundle before; its statistics have not counted the rows to train on, as
    those of a later day have not. ``draft``: the bundle that will be served, whose files change.
    ``data``: of its items. ``since``: when the new rows begin, in seconds.
    """

    former: LoadedBundle
    draft: Bundle
    data: Dataset
    since: float
    options: TrainOptions
    machine: Machine

    def run(self, progress: Progress) -> None:
        """Trains each expert from its former weights, on the verdicts of its group's rows.

        Without experts for groups, all have the global one.
        """
        loaded = load_bundle(self.draft)
        trainer = ExpertTrainer(
            decoder_of(loaded, self.machine), self.options.seed, recompute=self.machine.recompute
        )
        train = self._windows(loaded, self.former, Split.TRAIN)
        valid = self._windows(loaded, loaded, Split.VALID)
        groups = [(GLOBAL, train, valid)]
        names = loaded.router.groups
        if self.options.group_experts:
            groups += [
                (name, train.of_group(index), valid.of_group(index))
                for index, name in enumerate(names)
            ]
        for name, own, judged in groups:
            with progress.stage(name) as shown:
                gain = self._trained(trainer, name, own, judged, shown)
                kept = "new" if gain.low > 0.0 else "former one stays"
                shown.note(f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]: {kept}")
        if not self.options.group_experts:
            for name in names:
                self._copy_global(self.draft.folder / "experts" / name)

    def _copy_global(self, folder: Path) -> None:
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            (folder / file).unlink()  # the former bundle may share it
            shutil.copyfile(self.draft.folder / "experts" / GLOBAL / file, folder / file)

    def _trained(
        self,
        trainer: ExpertTrainer,
        name: str,
        train: GroupedWindows,
        valid: GroupedWindows,
        progress: StageProgress,
    ) -> Estimate:
        """Writes the expert if it is clearly better than before; returns the gain in AUC."""
        folder = self.draft.folder / "experts" / name
        recipe = self.options.global_recipe if name == GLOBAL else self.options.group_recipe
        trainer.load_adapter(folder)
        found = trainer.train(
            train.windows,
            valid.windows,
            recipe,
            with_projector=False,
            on_step=progress.step,
            on_epoch=lambda epoch, auc: progress.note(f"epoch {epoch}: AUC {auc:.4f}"),
        )
        gain = gain_of(np.concatenate(valid.user), valid.windows, found)
        if gain.low > 0.0:
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                (folder / file).unlink()  # the former bundle may share it
            trainer.save(folder, self.draft.folder / parts.BASE_WEIGHTS)
        return gain

    def _windows(
        self, loaded: LoadedBundle, features: LoadedBundle, split: Split
    ) -> GroupedWindows:
        made = [self._of_view(loaded, features, view) for view in self._views(split)]
        return GroupedWindows(
            [window for each in made for window in each.windows],
            [user for each in made for user in each.user],
            np.concatenate([each.group for each in made]),
        )

    def _of_view(self, loaded: LoadedBundle, features: LoadedBundle, view: View) -> GroupedWindows:
        rows = ServedRows.of(features, self.data, view)
        windows = windows_over(loaded, self.data, rows.inputs)
        user = self.data.log.user[view.rows]
        return GroupedWindows(
            windows,
            [user[window.rows] for window in windows],
            window_groups(windows, rows.routing, loaded.router),
        )

    def _views(self, split: Split) -> list[View]:
        """The new rows of a split, of as many users as the language model may see."""
        log, options = self.data.log, self.options
        if split is Split.TRAIN:
            views, most = training_views(log, options.protocol, options.seed), options.lm_rows
        else:
            views = (scoring_view(log, options.protocol, split),)
            most = options.lm_rows // VALID_SHARE
        rows = np.concatenate([view.rows[log.time[view.rows] >= self.since] for view in views])
        chosen = sampled_users(log.user[rows], log.num_users, most, options.seed)
        return [
            view.only((log.time[view.rows] >= self.since) & chosen[log.user[view.rows]])
            for view in views
        ]
