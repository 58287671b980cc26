"""Flags of the commands that train, and the options that they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_training.argument_types import finite_number, whole_number
from rankloom_training.group_counts import AUTO, MAX_GROUPS, MIN_GROUPS, NumGroups

if TYPE_CHECKING:
    from rankloom_training.data.negatives import NegativeSampling
    from rankloom_training.options import TrainOptions

MAX_SEED = 2**32 - 1  # the largest seed that NumPy takes
MAX_ROWS = 10**12
# Option → its flag.
FLAGS = {
    "recipe": "--recipe",
    "protocol": "--protocol",
    "collaborative": "--cf",
    "base": "--base",
    "num_groups": "--groups",
    "group_by": "--group-by",
    "lm_rows": "--lm-rows",
    "seed": "--seed",
    "like_above": "--like-above",
    "implicit": "--implicit",
    "review_encoder": "--review-encoder",
}


def add_option_flags(parser: argparse.ArgumentParser) -> None:
    """A flag that is not given leaves its option to the file, and then to the default."""
    from rankloom_features.models import MODEL_NAMES

    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="options in a file, as train.yaml in a bundle")
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="set any option, such as seed=1 or group_recipe.learning_rate=1e-3")  # fmt: skip
    add("--recipe", choices=("thinkrec", "reasoningrec"),
        help="paper to follow, which sets the other defaults (default: thinkrec)")  # fmt: skip
    add_protocol(parser, default=None)
    add_data_options(parser)
    add("--cf", choices=MODEL_NAMES, help="collaborative model (default: mf)")
    add("--base", help="causal LM, by path or hub id (default: a small one is trained)")
    add("--groups", type=_group_count, metavar="N",
        help="number of user groups, or auto: chosen on validation rows (default: 3)")  # fmt: skip
    add("--group-by", metavar="COLUMN",
        help="one group for each value of a category of the item table, such as a domain or a "
        "language, in place of clusters of users")  # fmt: skip
    add("--review-encoder", metavar="FOLDER",
        help="what `rankloom reccot encode` wrote of the log's reviews: ratings that towers "
        "predict from them become a feature (default: reviews are not read)")  # fmt: skip
    add("--lm-rows", type=whole_number(1, MAX_ROWS), metavar="N",
        help="training rows that the language model sees at most, all rows of some users; "
        "the other models see every row (default: 20000)")  # fmt: skip
    add("--seed", type=whole_number(0, MAX_SEED), metavar="N", help="random seed (default: 0)")


def add_protocol(parser: argparse.ArgumentParser, default: str | None = "p1") -> None:
    parser.add_argument(
        "--protocol",
        choices=("p0", "p1"),
        default=default,
        help="which earlier events the model sees; p1 (default): all, as in production; "
        "p0: likes, and dislikes of training rows only, as in the published tables",
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """How a log is read where its columns.json does not say it."""
    parser.add_argument(
        "--like-above",
        type=finite_number,
        metavar="X",
        help="a rating above X is a like (default: 3 of 5 stars; needed on other scales)",
    )
    parser.add_argument(
        "--implicit",
        type=_sampling,
        metavar="N[:BY]",
        help="the log has likes alone, such as clicks or purchases: sample N other items for each "
        "as negatives, BY uniform (default) or popularity",
    )


def _group_count(text: str) -> NumGroups:
    """An argparse type."""
    return AUTO if text == AUTO else whole_number(MIN_GROUPS, MAX_GROUPS)(text)


def _sampling(text: str) -> NegativeSampling:
    """An argparse type."""
    from rankloom_training.data.negatives import NegativeSampling

    try:
        return NegativeSampling.of_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def options_of(args: argparse.Namespace, defaults: TrainOptions | None = None) -> TrainOptions:
    """The options that the flags stand for; None: the defaults of train. Raises OptionError."""
    from rankloom_training.option_file import read_options
    from rankloom_training.options import TrainOptions

    given = {
        option: (flag, getattr(args, flag.strip("-").replace("-", "_")))
        for option, flag in FLAGS.items()
    }
    flags = {option: (flag, value) for option, (flag, value) in given.items() if value is not None}
    return read_options(args.config, args.set, flags, defaults or TrainOptions())
