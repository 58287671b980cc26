"""Every command and snippet of the pages runs, in the way that its table entry says.

A block without an entry fails, and so does an entry without a block.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs import house as houses
from docs.blocks import BLOCKS, INDENTED_COMMAND, PAGES, ROOT, RUNNABLE, Block
from docs.house import House, build, check_script
from rankloom_server.config import load_settings
from rankloom_training.data.settings import read_settings

Check = Callable[[House, list[str]], object]


def run(house: House, words: list[str]) -> None:
    """The command as it is written, against the small bundle and its server."""
    house.run(words)


def parse(house: House, words: list[str]) -> None:
    """The arguments alone: the work is long, or a server of that kind runs already."""
    houses.parse(words)


def benchmark(house: House, words: list[str]) -> None:
    """The room is there, and knows the options; it is not run."""
    assert words[:2] == ["python", "-m"]
    shown = subprocess.run(
        [sys.executable, "-m", words[2], "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert all(word in shown for word in words[3:] if word.startswith("--"))


def canary_then_traffic(house: House, words: list[str]) -> None:
    """The canary as it is written, and then rankings for each user."""
    house.run(words)
    house.rank_for_all_users()


def shows_warmed(house: House, words: list[str]) -> None:
    """The staged revision is loaded and gets no requests."""
    assert "warmed" in house.run(words)


def shows_canary(house: House, words: list[str]) -> None:
    """The trial runs, and was not rolled back."""
    assert "canary" in house.run(words)


def shows_retired(house: House, words: list[str]) -> None:
    """The first revision serves again, and the second one is gone."""
    states = [each["state"] for each in json.loads(house.run(words))["rollouts"]]
    assert states == ["active", "retired"]


def script(house: House, words: list[str]) -> None:
    """A script of this repository is there, executable, and sound shell."""
    check_script(ROOT / words[0])


def install(house: House, words: list[str]) -> None:
    """pip is not run; the extras that are named must exist."""
    assert words[:3] == ["pip", "install", "-e"], words
    for name in re.findall(r"\[(\w+)\]", words[3]):
        assert name in houses.PROJECT["optional-dependencies"], name


def clone(house: House, words: list[str]) -> None:
    """Nothing is fetched; the address is the project's."""
    assert words[:3] == ["git", "clone", houses.PROJECT["urls"]["Homepage"]], words


def apply(house: House, words: list[str]) -> None:
    """Tried without a change; ``test_examples`` applies it and uses what it adds."""
    subprocess.run(["git", "apply", "--check", *words[2:]], cwd=ROOT, check=True, timeout=60)


# (page, first line of the block) → one check for each command; None for a snippet in Python.
LIKES = (
    "rankloom train --data LIKES --out BUNDLE --implicit 4 --lm-rows 4000 --groups 2 "
    "--set trace_share=0"
)
RUNS: dict[tuple[str, str], tuple[Check, ...] | None] = {
    ("CONTRIBUTING.md", "git clone"): (clone, script),
    ("CONTRIBUTING.md", "scripts/check"): (script, script, script),
    ("CONTRIBUTING.md", "git apply"): (apply,),
    ("README.md", "scripts/demo"): (script,),
    ("README.md", "pip install -e ."): (
        *(install, install, parse, parse),
        *(run, run, run, run),
    ),
    ("README.md", "import lightgbm"): None,
    ("docs/data.md", "rankloom data check PATH"): (run,),
    ("docs/data.md", "rankloom items describe --data PATH"): (run,),
    ("docs/data.md", "rankloom items embed --data PATH"): (parse,),
    ("docs/data.md", "rankloom train --data PATH --out my-bundle --implicit 4"): (parse,),
    ("docs/operate.md", "rankloom health"): (run,),
    ("docs/events.md", "rankloom events import"): (run, run, run, run),
    ("docs/data.md", "rankloom train --data PATH --out my-bundle --like-above 6"): (parse,),
    ("docs/reasons.md", "rankloom traces make --data PATH --out traces.parquet"): (run,),
    ("docs/reasons.md", "rankloom traces make --data PATH --out traces.parquet --teacher"): (
        parse,
        parse,
    ),
    ("docs/reasons.md", "rankloom traces make --data PATH --out references.parquet"): (
        parse,
        parse,
    ),
    ("docs/reasons.md", "rankloom traces check"): (run,),
    ("docs/reasons.md", "rankloom traces show"): (run,),
    ("docs/reccot.md", "rankloom reccot example"): (run, parse, parse, parse),
    ("docs/reccot.md", "rankloom train --data reviews"): (parse, parse, parse),
    ("docs/reccot.md", "rankloom train --data reviews --out my-reviewed-bundle"): (parse,),
    ("docs/reccot.md", "from rankloom import FeatureClient"): None,
    ("docs/results.md", "rankloom train --data DATA --out BUNDLE --protocol p0"): (parse, parse),
    ("docs/results.md", LIKES): (parse, parse),
    ("docs/results.md", f"{LIKES} --set base_epochs=1"): (parse, parse),
    ("docs/results.md", "python -m benchmarks.collaborative"): (benchmark,),
    ("docs/results.md", "python -m benchmarks.reccot.grpo --data reviews"): (benchmark,),
    ("docs/results.md", "rankloom reccot example --out reviews"): (parse, parse, benchmark),
    ("docs/results.md", "python -m benchmarks.seeds"): (benchmark,),
    ("docs/results.md", "python -m benchmarks.user_model"): (benchmark,),
    ("docs/rollout.md", "rankloom serve --bundle my-bundle --state my-state"): (parse,),
    ("docs/rollout.md", "rankloom rollout stage new-expert --expert global"): (run, shows_warmed),
    ("docs/rollout.md", "rankloom rollout canary 2 --percent 50"): (
        canary_then_traffic,
        shows_canary,
    ),
    ("docs/rollout.md", "rankloom rollout promote 2"): (run,),
    ("docs/rollout.md", "rankloom rollout rollback 2 --reason a walk"): (run, run, shows_retired),
    ("docs/rollout.md", "from rankloom import RolloutClient"): None,
    ("docs/rollout.md", "rankloom bundle keygen"): (run, run, run),
    ("docs/sdk.md", "from rankloom import Client, Event, Item, RankOptions"): None,
    ("docs/sdk.md", "from rankloom import Client"): None,
    ("docs/sdk.md", "from rankloom import Client, DeadlineExceededError"): None,
    ("docs/sdk.md", "from rankloom import Client, RecommendOptions"): None,
    ("docs/sdk.md", "import asyncio"): None,
    ("docs/sdk.md", "from rankloom import FeatureClient"): None,
    ("docs/sdk.md", "from datetime import UTC, datetime"): None,
    ("docs/sdk.md", "from rankloom import EventRecorder, FeatureClient, UserEvent"): None,
    ("docs/sdk.md", "from rankloom import Client, OverloadedError"): None,
    ("docs/serving.md", "rankloom serve --bundle my-bundle"): (parse, parse, parse),
    ("docs/training.md", "rankloom evaluate --bundle my-bundle"): (run,),
    ("docs/training.md", "rankloom groups my-bundle"): (run,),
    ("docs/training.md", "rankloom train --data PATH --out my-bundle"): (parse, run),
    ("docs/training.md", "rankloom train --data PATH --out by-domain"): (parse,),
    ("docs/training.md", "rankloom train --add-group games"): (parse,),
    ("docs/training.md", "rankloom train --from my-bundle"): (parse,),
    ("docs/training.md", "rankloom train --data PATH --out second-bundle"): (parse,),
    ("docs/training.md", "rankloom train --data PATH --out no-profile"): (parse, parse, parse),
    ("docs/training.md", "rankloom train --data PATH --out third-bundle"): (run,),
    ("docs/training.md", "rankloom serve --bundle my-bundle --log-served"): (parse, parse, parse),
    ("docs/serving.md", "rankloom bundle convert"): (run,),
    ("docs/serving.md", "from rankloom import Client"): None,
    ("docs/serving.md", "from rankloom import Client, ExplainOptions"): None,
    ("docs/serving.md", "from rankloom import Client, ItemSelection"): None,
    ("docs/serving.md", "from rankloom import Client, NotFoundError"): None,
    ("docs/serving.md", "from rankloom import Client, ExplainOptions, RankOptions"): None,
}


def entry_of(block: Block) -> tuple[str, str]:
    """The block's entry: the longest one of its page that its first line begins with."""
    first = " ".join(block.commands[0]) if block.commands else block.first_line
    fitting = [key for key in RUNS if key[0] == block.page and first.startswith(key[1])]
    return max(fitting, key=lambda key: len(key[1]), default=(block.page, first))


def test_each_block_has_an_entry_and_each_entry_a_block() -> None:
    entries = [entry_of(block) for block in RUNNABLE]
    assert len(entries) == len(set(entries)), "two blocks of a page begin alike"
    assert set(entries) == set(RUNS)


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.page)
def test_each_command_has_its_check(block: Block) -> None:
    checks = RUNS[entry_of(block)]
    assert len(block.commands) == (0 if checks is None else len(checks))


def test_no_command_hides_outside_a_block() -> None:
    for page in PAGES:
        assert not INDENTED_COMMAND.findall(page.read_text(encoding="utf-8")), page


def test_blocks_have_known_languages() -> None:
    assert {block.language for block in BLOCKS} <= {
        *("console", "python", "text", "diff", "yaml", "json"),
    }


def test_each_settings_file_loads(tmp_path: Path) -> None:
    yaml = [block for block in BLOCKS if block.language == "yaml"]
    files = [block for block in yaml if not block.text.startswith("apiVersion")]  # Kubernetes'
    assert files
    for block in files:
        file = tmp_path / "settings.yaml"
        file.write_text(block.text, encoding="utf-8")
        assert load_settings(file, {}).bundle


def test_each_file_of_columns_is_valid(tmp_path: Path) -> None:
    files = [block for block in BLOCKS if block.language == "json"]
    assert files
    for block in files:
        (tmp_path / "columns.json").write_text(block.text, encoding="utf-8")
        assert read_settings(tmp_path).names


@pytest.mark.parametrize("page", sorted({block.page for block in RUNNABLE}))
def test_the_page_runs(page: str, house: House) -> None:
    for block in RUNNABLE:
        if block.page != page:
            continue
        checks = RUNS[entry_of(block)]
        if checks is None:
            house.run_snippet(block)
        else:
            for check, words in zip(checks, block.commands, strict=True):
                check(house, words)


@pytest.fixture
def house(
    small_data: Path, served_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """A house of its own for each page: commands of a page build on each other."""
    house = build(tmp_path, served_folder, small_data)
    monkeypatch.chdir(tmp_path)
    with house.exits:
        yield house
