"""`rankloom doctor`: what is wrong with this machine and installation, and what to do."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rankloom._cli.checkup import (
    Diagnosis,
    State,
    check_bundle,
    check_disk,
    check_machine,
    check_packages,
    check_ports,
    check_threads,
)

_PORTS: Final = (50051, 50052)  # of `rankloom serve`, and of rollouts in the documentation


class DoctorCommand:
    """Looks at everything that a server or a training needs from outside."""

    name = "doctor"
    help = "check this machine and installation, and say what to do"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--bundle", metavar="FOLDER", type=Path, help="check this bundle's files too"
        )
        parser.add_argument(
            "--port",
            metavar="PORT",
            type=int,
            action="append",
            help="a port that a server shall use; can be repeated "
            f"(default: {' and '.join(map(str, _PORTS))})",
        )
        parser.add_argument("--json", action="store_true", help="print JSON instead of text")

    def run(self, args: argparse.Namespace) -> int:
        """Return 1 if something is wrong."""
        findings = [
            *check_machine(),
            *check_threads(),
            *check_packages(),
            *check_ports(args.port or list(_PORTS)),
            *(check_bundle(args.bundle) if args.bundle else ()),
            *check_disk(Path()),
        ]
        wrong = sum(finding.state is State.WRONG for finding in findings)
        if args.json:
            shown = {"ok": not wrong, "findings": [asdict(finding) for finding in findings]}
            sys.stdout.write(json.dumps(shown, indent=2) + "\n")
        else:
            sys.stdout.write("".join(map(_line, findings)))
            sys.stdout.write(f"{wrong} wrong\n" if wrong else "nothing is wrong\n")
        return 1 if wrong else 0


def _line(finding: Diagnosis) -> str:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return f"{finding.state:<5}  {finding.area:<8}  {finding.text}{remedy}\n"
