"""A server is killed at random while an operator rolls out, and started again.

    python benchmarks/kills.py [--kills N] [--json FILE] [--bundle FOLDER]

A real `rankloom serve` with a state and a tiny bundle. An operator stages experts, promotes,
rolls back and retires without a pause; after a time drawn at random the process gets SIGKILL,
and another one is started on the same state. Timed is from its start to its first answer to a
ranking. Checked is that one revision is active, that it answers, and that it is where the
acknowledged commands had led, or the one command further that was under way.

200 kills take about 25 minutes on two cores, a minute of which trains the bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from swap import arguments


def main() -> None:
    """Prints the table, and writes the JSON file if one was asked for."""
    args = arguments(__doc__, "--kills", 200)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends what it began
    try:
        sys.exit(run(args))
    except KeyboardInterrupt:
        sys.exit(130)


def run(args: argparse.Namespace) -> str | None:
    """Gives what to say where something was lost, or a server did not come back."""
    from kills_study import figures, study, table
    from measure import machine
    from swap_bundle import make_bundle
    from swap_operator import OperatorError
    from swap_server import ServerError

    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n", flush=True)
    with TemporaryDirectory() as folder:
        bundle = args.bundle or make_bundle(Path(folder))
        try:
            found = study(bundle, Path(folder), args.kills)
        except (ServerError, OperatorError) as error:
            return str(error)
    print(table(found))
    if args.json is not None:
        report = {"machine": facts, **figures(found)}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return "\n".join(found.lost) or None


if __name__ == "__main__":
    main()
