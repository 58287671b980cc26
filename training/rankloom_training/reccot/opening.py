"""Which generator the command's options name."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from rankloom_training.data import DataError
from rankloom_training.reccot.generators import ChatGenerator, EvidenceGenerator, Generator
from rankloom_training.teachers.choosing import EVIDENCE, TeacherOptions, open_chat


@contextmanager
def open_generator(args: argparse.Namespace, teacher: TeacherOptions) -> Iterator[Generator]:
    """Raises BaseModelError or TeacherError."""
    if args.base is not None:
        yield _trained(args)
    elif teacher.teacher == EVIDENCE:
        yield EvidenceGenerator()
    else:
        with open_chat(teacher, args.out) as chat:
            yield ChatGenerator(chat, teacher.concurrency)


def _trained(args: argparse.Namespace) -> Generator:
    """Raises DataError if GRPO is wanted and TRL is missing."""
    if args.grpo_steps and importlib.util.find_spec("trl") is None:
        raise DataError("--grpo-steps needs TRL; install rankloom[rl], or leave it out")
    from rankloom_training.reccot.decoder import WarmStart
    from rankloom_training.reccot.grpo import GrpoOptions
    from rankloom_training.reccot.language_model import LanguageModelGenerator

    grpo = GrpoOptions(
        steps=args.grpo_steps, group=args.grpo_group, weighted=not args.no_frequency_weight
    )
    return LanguageModelGenerator(args.base, WarmStart(args.warm_rows), grpo, args.seed)
