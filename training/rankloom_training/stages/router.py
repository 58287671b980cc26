"""The stage of the router: groups of users, found before anything is trained for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Router
from rankloom_training.data import Split
from rankloom_training.group_counts import AUTO, Clustering, NumGroups
from rankloom_training.grouping.choice import RankedRows, choose_router, standardised
from rankloom_training.groups import fit_router
from rankloom_training.stages.artefacts import CollaborativeFiles, RouterFiles, TreesFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol, sampled_users

MAX_ROWS = 50_000  # of each split, to choose the number of groups on


@dataclass(frozen=True, slots=True)
class RouterStage(Stage):
    """The user groups. There may be too many, which is said before the long stages."""

    protocol: Protocol
    num_groups: NumGroups
    clustering: Clustering
    seed: int
    makes = RouterFiles
    needs = (CollaborativeFiles, TreesFiles)
    code = (
        "rankloom_adapters.router",
        "rankloom_training.grouping.choice",
        "rankloom_training.group_counts",
        "rankloom_training.groups",
        "rankloom_training.stages.rows",
    )

    def run(self, given: StageInputs) -> None:
        """Clusters each training user's vector at the user's last training row."""
        rows = LogRows.of(given.dataset, self.protocol, self.seed)
        users = given.of(CollaborativeFiles).vectors(Split.TRAIN)[rows.newest_of_users()]
        if self.num_groups == AUTO:
            router = self._chosen(users, rows, given)
        else:
            router = fit_router(users, self.num_groups, self.seed, self.clustering)
        RouterFiles(given.folder).write(router)

    def _chosen(self, users: NDArray[np.float32], rows: LogRows, given: StageInputs) -> Router:
        train, valid = (_ranked(given, rows, split) for split in (Split.TRAIN, Split.VALID))
        found = choose_router(users, train, valid, self.seed, self.clustering)
        gains = ", ".join(f"{num}: {gain.value:+.4f}" for num, gain in found.gains.items())
        given.progress.note(
            f"{len(found.router.groups)} groups; nats a row that heads gain: {gains}"
        )
        return found.router


def _ranked(given: StageInputs, rows: LogRows, split: Split) -> RankedRows:
    """Rows of some users as the trees rank them, with each candidate's vector and attributes."""
    files, trees, log = given.of(CollaborativeFiles), given.of(TreesFiles), rows.log
    items = standardised([files.item_vectors(), given.dataset.catalogue.traits.attributes])
    every = rows.indices(split)
    some = sampled_users(log.user[every], log.num_users, MAX_ROWS, rows.seed)[log.user[every]]
    at, logit = every[some], trees.tree_logits(split) + rows.sampling_offset(split)
    return RankedRows(
        user=log.user[at],
        vector=files.vectors(split)[some],
        item=items[log.item[at]],
        logit=logit[some],
        liked=log.liked[at],
    )
