"""The stage of the router: groups of users, found before anything is trained for them."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom_adapters.router import Router
from rankloom_ranker.item_groups import ItemGroups, router_of_shares
from rankloom_training.data import Split
from rankloom_training.group_counts import AUTO, Clustering, NumGroups
from rankloom_training.grouped_items import check_shares, grouped_items, names_of_groups
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
    group_by: str | None
    seed: int
    makes = RouterFiles
    needs = (CollaborativeFiles, TreesFiles)
    code = (
        "rankloom_adapters.router",
        "rankloom_training.grouping.choice",
        "rankloom_training.group_counts",
        "rankloom_ranker.item_groups",
        "rankloom_training.grouped_items",
        "rankloom_training.groups",
        "rankloom_training.stages.rows",
    )

    def run(self, given: StageInputs) -> None:
        """Groups each training user as at the user's last training row."""
        rows, files = LogRows.of(given.dataset, self.protocol, self.seed), RouterFiles(given.folder)
        if self.group_by is None:
            files.write(self._of_clusters(rows, given), None)
        else:
            files.write(*_of_items(self.group_by, rows, given))

    def _of_clusters(self, rows: LogRows, given: StageInputs) -> Router:
        users = given.of(CollaborativeFiles).vectors(Split.TRAIN)[rows.newest_of_users()]
        if self.num_groups != AUTO:
            return fit_router(users, self.num_groups, self.seed, self.clustering)
        train, valid = (_ranked(given, rows, split) for split in (Split.TRAIN, Split.VALID))
        found = choose_router(users, train, valid, self.seed, self.clustering)
        gains = ", ".join(f"{num}: {gain.value:+.4f}" for num, gain in found.gains.items())
        num = len(found.router.groups)
        given.progress.note(f"{num} groups; heads gain, in nats a row: {gains}")
        return found.router


def _of_items(category: str, rows: LogRows, given: StageInputs) -> tuple[Router, ItemGroups]:
    columns = given.dataset.item_columns
    names, groups = names_of_groups(columns, category), grouped_items(columns, category)
    shares = groups.shares(rows.histories(Split.TRAIN).only(rows.newest_of_users()))
    check_shares(shares, names)
    return router_of_shares(names), groups


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
