"""The stage of the router: groups of users, found before anything is trained for them."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom_ranker.item_groups import router_of_shares
from rankloom_training.data import Split
from rankloom_training.grouped_items import check_shares, grouped_items, names_of_groups
from rankloom_training.groups import fit_router
from rankloom_training.stages.artefacts import CollaborativeFiles, RouterFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol


@dataclass(frozen=True, slots=True)
class RouterStage(Stage):
    """The user groups. There may be too many, which is said before the long stages."""

    protocol: Protocol
    num_groups: int
    group_by: str | None
    seed: int
    makes = RouterFiles
    needs = (CollaborativeFiles,)
    code = (
        "rankloom_adapters.router",
        "rankloom_ranker.item_groups",
        "rankloom_training.grouped_items",
        "rankloom_training.groups",
        "rankloom_training.stages.rows",
    )

    def run(self, given: StageInputs) -> None:
        """Groups each training user as at the user's last training row."""
        rows, files = LogRows.of(given.dataset, self.protocol, self.seed), RouterFiles(given.folder)
        newest = rows.newest_of_users()
        if self.group_by is None:
            vectors = given.of(CollaborativeFiles).vectors(Split.TRAIN)[newest]
            files.write(fit_router(vectors, self.num_groups, self.seed), None)
            return
        columns = given.dataset.item_columns
        names = names_of_groups(columns, self.group_by)
        groups = grouped_items(columns, self.group_by)
        check_shares(groups.shares(rows.histories(Split.TRAIN).only(newest)), names)
        files.write(router_of_shares(names), groups)
