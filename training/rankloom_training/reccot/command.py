"""The command `rankloom reccot`: rationales, a text encoder and its vectors, two towers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rankloom_training.argument_types import whole_number
from rankloom_training.commands import TrainingCommand
from rankloom_training.option_flags import MAX_ROWS, MAX_SEED
from rankloom_training.teachers.arguments import add_teacher, teacher_options
from rankloom_training.teachers.choosing import EVIDENCE

if TYPE_CHECKING:
    from rankloom_training.data.reviews import Reviews
    from rankloom_training.reccot.tower_parts import TrainedTowers

Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
CONTRASTS = ("triplet", "infonce", "none")


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    _configure_example(actions)
    _configure_generate(actions)
    _configure_encode(actions)
    _configure_towers(actions)
    _configure_attach(actions)


def _configure_example(actions: Actions) -> None:
    example = _action(actions, "example", "write invented films with reviews, to try it with")
    example.add_argument("--out", type=Path, required=True, help="folder to write to")
    example.add_argument(
        "--users", type=whole_number(10, 480), default=480, metavar="N", help="how many (480)"
    )
    example.set_defaults(act=_example)


def _configure_generate(actions: Actions) -> None:
    generate = _action(actions, "generate", "write a rationale for each review")
    _add_data(generate)
    generate.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    add_teacher(generate)
    generate.add_argument(
        "--base",
        metavar="NAME",
        help="train a generator in place of a teacher: embedded for a small one, or a causal LM by "
        "path or hub id",
    )
    generate.add_argument(
        "--folds",
        type=whole_number(2, 20),
        default=2,
        metavar="N",
        help="generators, each of which writes of reviews that it has not seen (default: 2)",
    )
    generate.add_argument(
        "--warm-rows",
        type=whole_number(1, MAX_ROWS),
        default=2000,
        metavar="N",
        help="reviews by which --base is first taught the form of answers (default: 2000)",
    )
    generate.add_argument(
        "--grpo-steps",
        type=whole_number(0, MAX_ROWS),
        default=0,
        metavar="N",
        help="then train --base on the rewards of its own answers (default: 0, not at all)",
    )
    generate.add_argument(
        "--grpo-group",
        type=whole_number(2, 64),
        default=8,
        metavar="N",
        help="answers to each prompt that are compared (default: 8)",
    )
    generate.add_argument(
        "--no-frequency-weight",
        action="store_true",
        help="reward the accuracy of rare and of usual ratings alike (an ablation)",
    )
    generate.set_defaults(act=_generate)


def _configure_encode(actions: Actions) -> None:
    encode = _action(actions, "encode", "train a text encoder, and store the reviews' vectors")
    _add_data(encode)
    encode.add_argument("--rationales", type=Path, metavar="FILE", help="what `generate` wrote")
    encode.add_argument("--out", type=Path, required=True, help="folder of encoder and vectors")
    encode.add_argument(
        "--encoder",
        metavar="NAME",
        help="a sentence-transformers or BERT-like model by path or hub id (default: a small one)",
    )
    _add_number(encode, "--passes", 3, "over the training reviews")
    _add_store_size(encode)
    encode.add_argument("--contrast", choices=CONTRASTS, default="triplet", help="of ratings")
    encode.set_defaults(act=_encode)


def _configure_towers(actions: Actions) -> None:
    towers = _action(actions, "towers", "train the two towers on the reviews' vectors")
    _add_data(towers)
    towers.add_argument("--encoder", type=Path, required=True, help="what `encode` wrote")
    towers.add_argument("--out", type=Path, required=True, help="folder of towers and report")
    _add_number(towers, "--passes", 40, "over the training rows at most")
    _add_store_size(towers)
    towers.add_argument("--match", choices=CONTRASTS, default="triplet", help="of reviews and ids")
    towers.set_defaults(act=_towers)


def _configure_attach(actions: Actions) -> None:
    attach = _action(actions, "attach", "write a bundle with rationales or towers of reviews")
    attach.add_argument("--bundle", type=Path, required=True, help="it stays as it is")
    attach.add_argument(
        "--rationales", type=Path, metavar="FILE", help="what `generate` wrote, to answer with"
    )
    attach.add_argument("--data", type=Path, help="with --towers: the reviews of both")
    attach.add_argument("--encoder", type=Path, help="with --towers: what `encode` wrote")
    attach.add_argument("--towers", type=Path, help="what `towers` wrote, to predict ratings with")
    _add_store_size(attach)
    attach.add_argument("--out", type=Path, required=True, help="folder to write the bundle to")
    attach.set_defaults(act=_attach)


def _action(actions: Actions, name: str, summary: str) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of reviews and items")
    parser.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), default=0, metavar="N", help="random seed (0)"
    )


def _add_number(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    number = whole_number(1, 1_000_000)
    parser.add_argument(name, type=number, default=default, metavar="N", help=f"{what} ({default})")


def _add_store_size(parser: argparse.ArgumentParser) -> None:
    _add_number(parser, "--max-mib", 1024, "size of the store; what was used longest ago goes")


def _run(args: argparse.Namespace) -> int:
    return int(args.act(args))


def _example(args: argparse.Namespace) -> int:
    from rankloom_training.synthetic_reviews import write_reviews

    write_reviews(args.out, args.users)
    print(f"{args.out}: invented films and reviews of {args.users} users")
    return 0


def _generate(args: argparse.Namespace) -> int:
    """Exit code 1 if the teacher could not go on; the same command goes on."""
    teacher = teacher_options(args)
    if args.base is not None and teacher.teacher != EVIDENCE:
        raise ValueError("--base trains a generator and --teacher asks one; pass one of them")
    if args.base is None and (args.grpo_steps or args.no_frequency_weight):
        raise ValueError("GRPO trains a generator; pass --base too, such as --base embedded")
    reviews = _reviews(args)
    from rankloom_training.progress import Progress
    from rankloom_training.reccot.generate import GenerateOptions, generate
    from rankloom_training.reccot.opening import open_generator
    from rankloom_training.teachers.teacher import TeacherError

    options, progress = GenerateOptions(args.folds, args.seed), Progress()
    try:
        with open_generator(args, teacher) as generator, progress.stage("rationales"):
            written = generate(reviews, generator, options, args.out, progress.step)
    except TeacherError as error:
        print(f"rankloom reccot: {error}; the same command goes on", file=sys.stderr)
        return 1
    print(f"{args.out}: {written.sound:,} of {written.total:,} rationales are sound")
    print(f"repaired {written.repaired:,}")
    for problem, number in written.problems.items():
        print(f"{number:,} {'answer' if number == 1 else 'answers'}: {problem}")
    return 0


def _encode(args: argparse.Namespace) -> int:
    reviews = _reviews(args)
    from rankloom_training.progress import Progress
    from rankloom_training.reccot.alignment import AlignmentOptions
    from rankloom_training.reccot.contrast import Contrast
    from rankloom_training.reccot.encode import encode

    options = AlignmentOptions(epochs=args.passes, contrast=Contrast(args.contrast), seed=args.seed)
    made = encode(
        reviews, args.rationales, args.encoder, options, args.out, args.max_mib << 20, Progress()
    )
    print(f"{args.out}: encoder {made.version}, squared error on validation reviews {made.mse:.4f}")
    print(f"vectors {made.num_vectors:,}, of which {made.hit_rate:.1%} were stored already")
    return 0


def _towers(args: argparse.Namespace) -> int:
    reviews = _reviews(args)
    from rankloom_training.progress import Progress
    from rankloom_training.reccot.contrast import Contrast
    from rankloom_training.reccot.rate import rate, report_lines
    from rankloom_training.reccot.tower_training import TowerOptions

    options = TowerOptions(epochs=args.passes, match=Contrast(args.match), seed=args.seed)
    report = rate(reviews, args.encoder, options, args.out, args.max_mib << 20, Progress())
    for line in report_lines(report):
        print(line)
    return 0


def _attach(args: argparse.Namespace) -> int:
    given = (args.data, args.encoder, args.towers)
    if any(given) and not all(given):
        raise ValueError("towers need --data, --encoder and --towers; give all three")
    if not any(given) and args.rationales is None:
        raise ValueError("nothing to attach; give --rationales, or --data, --encoder and --towers")
    from rankloom_training.reccot.attach import attach

    made = attach(args.bundle, args.out, args.rationales, _trained_towers(args))
    print(f"{args.out}: bundle {made.digest[:12]} with {made.num_rationales:,} rationales")
    if made.num_rationales and made.answered is not None:
        print(f"{made.answered:,} of them are about events beside it, and so can be answered")
    if made.was_signed:
        print("sign it with `rankloom bundle sign`: a signature is of one bundle alone")
    return 0


def _trained_towers(args: argparse.Namespace) -> TrainedTowers | None:
    if args.towers is None:
        return None
    from rankloom_training.reccot.tower_parts import TrainedTowers

    return TrainedTowers(_reviews(args), args.encoder, args.towers, args.max_mib << 20)


def _reviews(args: argparse.Namespace) -> Reviews:
    """What is wrong with them is said before the heavy libraries are imported."""
    from rankloom_training.data.reviews import load_reviews

    reviews = load_reviews(args.data)
    for warning in reviews.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return reviews


reccot = TrainingCommand(
    "reccot", "rationales of reviews, and two towers that rank with them", _configure, _run
)
