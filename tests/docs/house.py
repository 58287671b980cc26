"""A small house for the commands of the pages: a bundle, a log, an expert, and a server of them.

Commands and snippets run in this process, which has imported already what they need.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from adapters.old_bundle import write_old
from docs.blocks import ROOT, Block
from rankloom import Client
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_training.serving import serving_rollouts
from small_data import NUM_USERS

TIMEOUT_S = 60.0
# As the pages write them.
RANKING, ROLLOUT, FEATURES = "127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:50053"
# Users and items of the pages → those of the small log.
IDS = {"42": "u1", "7": "u2", "318": "i3", "50": "i5", "2571": "i7"}
EVENTS = "user_id,item_id,liked,time\n42,i3,1,1700000000\n42,i5,0,1700000060\n"
QUOTED_ID = re.compile(r'(?<=")(?:{})(?=")'.format("|".join(IDS)))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclass
class House:
    """The folder in which commands run, which must be the current one; its server starts late."""

    folder: Path
    exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def features(self) -> str:
        """Where that server answers features."""
        return f"unix:{self.folder}/features.sock"

    @cached_property
    def addresses(self) -> tuple[str, str]:
        """Where the server of ``my-bundle`` takes rankings, and where rollouts."""
        server = serving_rollouts(
            self.folder / "my-bundle",
            self.folder / "server-state",
            *("--features-host", self.features),
        )
        return self.exits.enter_context(server)

    def run(self, words: Sequence[str]) -> str:
        """What a command prints; it must end well."""
        assert words[0] == "rankloom", words
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main_of(PROJECT["scripts"]["rankloom"])(self._here(words[1:]))
        assert code == 0, f"{' '.join(words)}\n{err.getvalue()}"
        return out.getvalue()

    def run_snippet(self, block: Block) -> str:
        """What a snippet prints, with the small log's ids and this server's addresses."""
        ranking, rollout = self.addresses
        text = QUOTED_ID.sub(lambda match: IDS[match[0]], block.text)
        text = text.replace(RANKING, ranking).replace(ROLLOUT, rollout)
        text = text.replace(FEATURES, self.features)
        text = text.replace("timeout_s=2.0", f"timeout_s={TIMEOUT_S}")  # on a busy machine
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, block.page, "exec"), {"__name__": block.page})
        return out.getvalue()

    def rank_for_all_users(self) -> None:
        """Two rankings for each user, so that a canary can be judged."""
        with Client(self.addresses[0], timeout_s=TIMEOUT_S) as client:
            for number in range(NUM_USERS):
                for count in (2, 3):
                    client.rank([f"i{item}" for item in range(count)], user=f"u{number}")

    def _here(self, words: Sequence[str]) -> list[str]:
        """The command's words with this house's server and ids."""
        if words[0] == "rollout":
            return [*words, "--server", self.addresses[1]]
        if words[0] in ("rank", "explain", "recommend", "health"):
            words = [self.addresses[0] if word == RANKING else word for word in words]
            return [",".join(IDS.get(part, part) for part in word.split(",")) for word in words]
        return list(words)


def build(folder: Path, bundle: Path, data: Path) -> House:
    """A house in an empty folder, around copies."""
    shutil.copytree(bundle, folder / "my-bundle")
    copy_events(events_beside(bundle), events_beside(folder / "my-bundle"))
    shutil.copytree(data, folder / "PATH")
    shutil.copytree(bundle / "experts" / "global", folder / "new-expert")
    write_old(folder / "old-bundle")
    (folder / "new-events.csv").write_text(EVENTS, encoding="utf-8")
    return House(folder)


def main_of(target: str) -> Callable[[list[str]], int]:
    """The function behind a script of the project."""
    function: Callable[[list[str]], int] = EntryPoint("", target, "").load()
    return function


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command of the server or of training, parsed and no more."""
    assert words[0] == "rankloom", words
    plugin = next(iter(entry_points(group="rankloom.commands", name=words[1])))
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    plugin.load().configure(parser)
    return parser.parse_args(list(words[2:]))


def check_script(path: Path) -> None:
    """A script that is there, may be run, and is sound shell."""
    assert os.access(path, os.X_OK), path
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=10)
