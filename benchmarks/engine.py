"""The engine against other ways to score every user with a mixture of experts, and the floor.

    python benchmarks/engine.py [--json FILE] [--full] [--rounds N] [--models S,L4]

Workload: users with a 200-token history and 20 candidates of 12 tokens, 8 experts of rank
8 on the attention projections, all weights non-zero; the score is Yes − No at a
candidate's last token. Random weights, bf16, Qwen2's architecture: S is hidden 256, 6
layers; L is Qwen2.5-0.5B's shape, L4 its first 4 layers.

All methods share one model's weights and one process, and take turns round by round.
Those that read whole prompts score fewer users, so rates are compared, not times. Before
anything is timed, all margins are compared in float32 with merged weights and whole
prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

PEER_USERS = {"S": 4, "L4": 2, "L": 2}


def main() -> None:
    """Prints the tables, and writes the JSON file if one was asked for."""
    parser = arguments()
    args = parser.parse_args()
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {args.json.parent}")
    # Threads that spin while they wait would count as work. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(args))


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--models", type=model_names, default="S,L4", help="default: S,L4")
    parser.add_argument("--full", action="store_true", help="also L, with all its 24 layers")
    parser.add_argument("--rounds", type=count, default=12, help="default: 12, after a warm-up")
    parser.add_argument("--users", type=count, default=16, help="default: 16")
    parser.add_argument(
        "--peer-users", type=count, help="of methods with whole prompts; default: 4, L4 and L 2"
    )
    parser.add_argument("--threads", type=count, default=2, help="default: 2")
    return parser


def run(args: argparse.Namespace) -> str | None:
    """Prints the tables; gives what to say if the methods disagree."""
    import torch
    from measure import machine
    from mixtures import rss_growth_mib
    from report import as_json, ratios, tables
    from study import Settings, WrongScoresError, study
    from workload import SHAPES

    from rankloom_engine.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    facts, studies = machine(), {}
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n", flush=True)
    try:
        with torch.inference_mode():
            growth = rss_growth_mib()
            for name in dict.fromkeys([*args.models, *(["L"] if args.full else [])]):
                some = min(args.users, args.peer_users or PEER_USERS[name])
                studies[name] = study(SHAPES[name], Settings(args.users, some, args.rounds))
    except WrongScoresError as error:
        return str(error)
    found = ratios(studies, growth)
    print(tables(studies, found))
    if args.json is not None:
        models = {name: as_json(one) for name, one in studies.items()}
        report = {"machine": facts, "ratios": found, "models": models}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return None


def model_names(names: str) -> list[str]:
    """Models of the command line, in its order."""
    known = [name for name in names.split(",") if name in PEER_USERS]
    if known != names.split(","):
        raise argparse.ArgumentTypeError(f"models are {', '.join(PEER_USERS)}, with commas")
    return known


def count(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
