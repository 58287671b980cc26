"""train.yaml: what it may hold, what goes before what, and what is said about mistakes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from rankloom._cli.main import main
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.group_counts import Clustering
from rankloom_training.option_file import OptionError, leaves_of, read_options, to_yaml
from rankloom_training.option_flags import FLAGS
from rankloom_training.options import (
    DEFAULTS,
    ItemTextKind,
    ObjectiveName,
    Recipe,
    RecipeName,
    TrainOptions,
)
from rankloom_training.reasons.trace import TraceKind
from rankloom_training.visibility import Protocol


def written(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    options = TrainOptions(
        RecipeName.REASONINGREC,
        Protocol.P0,
        "sasrec",
        "a/base",
        "auto",
        Clustering.WARD,
        "domain",
        group_experts=False,
        base_epochs=1,
        global_recipe=Recipe(1, 1e-3),
        group_recipe=Recipe(4, 2.5e-6, 0.0, depth=0.25, objective=ObjectiveName.COMPLETION),
        trace_kind=TraceKind.RATIONALE,
        shots=64,
        item_texts=ItemTextKind.KEYWORDS,
        profiles=True,
        lm_rows=9,
        traces="traces.parquet",
        trace_share=0.5,
        seed=7,
        like_above=3.5,
        implicit=NegativeSampling(4, "popularity"),
    )
    file = tmp_path / "train.yaml"
    file.write_bytes(to_yaml(options))
    assert read_options(file, [], {}) == options
    assert leaves_of(options).keys() == leaves_of(TrainOptions()).keys()
    assert leaves_of(options)["group_recipe.learning_rate"] == 2.5e-6


def test_what_is_not_given_stays(tmp_path: Path) -> None:
    file = written(tmp_path, "group_recipe: {learning_rate: 1e-3}\n")
    recipe = dataclasses.replace(TrainOptions().group_recipe, learning_rate=1e-3)
    assert read_options(file, [], {}) == TrainOptions(group_recipe=recipe)
    assert read_options(written(tmp_path, ""), [], {}) == TrainOptions()


def test_flags_go_before_set_and_set_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "seed: 1\nlm_rows: 10\nnum_groups: 4\n")
    options = read_options(file, ["lm_rows=20", "num_groups=5"], {"num_groups": ("--groups", 6)})
    assert (options.seed, options.lm_rows, options.num_groups) == (1, 20, 6)


def test_a_recipe_sets_the_defaults_of_the_rest(tmp_path: Path) -> None:
    reasoningrec = DEFAULTS[RecipeName.REASONINGREC]
    flag: dict[str, tuple[str, object]] = {"recipe": ("--recipe", "reasoningrec")}
    assert read_options(None, [], flag) == reasoningrec
    file = written(tmp_path, "recipe: reasoningrec\nshots: 64\n")
    assert read_options(file, [], {}) == dataclasses.replace(reasoningrec, shots=64)
    assert read_options(file, ["shots=null"], flag).shots is None


def test_two_recipes_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "recipe: thinkrec\n")
    flag: dict[str, tuple[str, object]] = {"recipe": ("--recipe", "reasoningrec")}
    said = r"train.yaml: recipe and --recipe: are two recipes; leave one out"
    with pytest.raises(OptionError, match=said):
        read_options(file, [], flag)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: think", "recipe: must be 'thinkrec' or 'reasoningrec', not 'think'"),
        ("item_texts: all", "item_texts: must be 'none', 'keywords' or 'description', not 'all'"),
        ("profiles: 1", "profiles: must be true or false, not 1"),
        ("shots: 1", "shots: must be greater than or equal to 2, not 1"),
        ("trace_kind: x", "trace_kind: must be 'think' or 'rationale', not 'x'"),
        ("sed: 1", "sed: no such option; did you mean seed?"),
        ("group_recipe: {learning_rat: 1}", "did you mean group_recipe.learning_rate?"),
        ("zzz: 1", "zzz: no such option; known are recipe, "),
        ("group_recipe: 3", "group_recipe: has parts; set group_recipe.epochs, "),
        ("seed: {a: 1}", "seed.a: no such option"),
        ("seed: true", "seed: must be a whole number, not True"),
        ("seed: 3.5", "seed: must be a whole number, not 3.5"),
        ("seed: '3'", "seed: must be a whole number, not '3'"),
        ("seed: null", "seed: must be a whole number, not None"),
        ("seed: -1", "seed: must be greater than or equal to 0, not -1"),
        ("seed: 4294967296", "seed: must be less than or equal to 4294967295"),
        ("num_groups: 1", "num_groups: must be greater than or equal to 2"),
        ("num_groups: few", "num_groups: must be a whole number, not 'few'"),
        ("clustering: dbscan", "clustering: must be 'kmeans' or 'ward', not 'dbscan'"),
        ("global_recipe: {epochs: 0}", "global_recipe.epochs: must be greater than or equal to 1"),
        ("global_recipe: {learning_rate: 0}", "learning_rate: must be greater than 0, not 0"),
        ("global_recipe: {learning_rate: much}", "learning_rate: must be a number, not 'much'"),
        ("global_recipe: {learning_rate: .nan}", "learning_rate: must be a number, not nan"),
        ("like_above: true", "like_above: must be a number, not True"),
        ("protocol: p2", "protocol: must be 'p0' or 'p1', not 'p2'"),
        (
            "collaborative: svd",
            "must be one of gsasrec, lightgcn, sasrec, mf, not 'svd'",
        ),
        ("implicit: many", "implicit: must be N or N:BY, such as 4 or 4:popularity, not 'many'"),
        ("base: 3", "base: must be a text, not 3"),
        ("[seed]", "must be options and values"),
        ("seed: [", "is not YAML"),
        ("seed: \x00", "is not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(OptionError) as refused:
        read_options(file, [], {})
    assert str(file) in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("sed=1", "--set sed: no such option; did you mean seed?"),
        ("seed", "--set seed: has no value; write --set seed=VALUE"),
        ("seed=[", "--set seed: the value is not YAML"),
        ("seed=x", "--set seed: must be a whole number, not 'x'"),
    ],
)
def test_a_mistake_of_set_is_named(assignment: str, said: str) -> None:
    with pytest.raises(OptionError) as refused:
        read_options(None, [assignment], {})
    assert said in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"train.yaml: cannot be read: No such file"):
        read_options(tmp_path / "train.yaml", [], {})


def test_commands_take_flags_set_and_file(
    tmp_path: Path, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "seed: 3\n")
    plan = ["train", "--data", str(small_data), "--out", str(tmp_path / "out"), "--plan"]
    assert main([*plan, "--config", str(file), "--set", "lm_rows=99", "--groups", "2"]) == 0
    assert "calibrate      made, about " in capfd.readouterr().out
    assert main([*plan, "--set", "lm_row=99"]) == 2
    assert capfd.readouterr().err == (
        "rankloom train: --set lm_row: no such option; did you mean lm_rows?\n"
    )
    assert not (tmp_path / "out.work").exists()


def test_yaml_is_plain() -> None:
    """Whoever opens the file sees no tags of a language."""
    text = to_yaml(TrainOptions()).decode()
    assert yaml.safe_load(text)["protocol"] == "p1"
    assert text.startswith("# rankloom train --config")
    assert "!" not in text


def test_the_page_lists_every_option_with_its_flag_and_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    row = r"^\| `([a-z_.]+)` \| (?:`(.*?)`)? ?\| (\S+) \|"
    found = {option: (flag, text) for option, flag, text in re.findall(row, page, re.MULTILINE)}
    assert found == {
        option: (FLAGS.get(option, ""), "null" if value is None else str(value))
        for option, value in leaves_of(TrainOptions()).items()
    }
