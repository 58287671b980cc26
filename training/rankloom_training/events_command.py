"""The command `rankloom events`: files into an event store and out of it, counts, forgetting."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_training.argument_types import existing_file, new_file

if TYPE_CHECKING:
    from rankloom_features.event_store.sqlite import SqliteEventStore

_ENDINGS = (".parquet", ".csv")
_TABLE = "Parquet or CSV with the columns user_id, item_id, liked, time and perhaps event_id"


class EventsCommand:
    name = "events"
    help = "bring events into a store and out of it, forget users"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        actions = parser.add_subparsers(
            title="actions", metavar="ACTION", dest="action", required=True
        )
        load = _add(actions, "import", "store the events of files; a file given twice counts once")
        load.add_argument(
            "files", metavar="FILE", nargs="+", type=existing_file(*_ENDINGS), help=_TABLE
        )
        export = _add(actions, "export", "write all events to a file")
        export.add_argument("file", metavar="FILE", type=new_file(*_ENDINGS), help=_TABLE)
        stats = _add(actions, "stats", "count users and events")
        stats.add_argument("--json", action="store_true", help="print JSON instead of text")
        forget = _add(actions, "forget", "remove users and their events from the disk")
        forget.add_argument("users", metavar="USER", nargs="+", help="id of a user")

    def run(self, args: argparse.Namespace) -> int:
        """Returns 1 where the store fails, 2 for a wrong file, 130 after Ctrl-C."""
        from rankloom_features.event_store.store import EventStoreError

        try:
            return _act(args)
        except EventStoreError as error:
            return _end(1, str(error))
        except ValueError as error:
            return _end(2, str(error))
        except OSError as error:
            return _end(1, f"{error.filename or args.store}: {error.strerror}; mend that, go on")
        except KeyboardInterrupt:
            return _end(130, "interrupted; what is done stays, and the same command goes on")


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    action.add_argument("store", metavar="STORE", type=Path, help="file of the event store")
    return action


def _act(args: argparse.Namespace) -> int:
    from rankloom_features.event_store.sqlite import SqliteEventStore

    actions: dict[str, Callable[[SqliteEventStore, argparse.Namespace], int]] = {
        "import": _import, "export": _export, "stats": _stats, "forget": _forget,
    }  # fmt: skip
    if args.action != "import" and not args.store.is_file():
        return _end(2, f"{args.store}: no such event store; give the file that a server names")
    with closing(SqliteEventStore(args.store)) as store:
        return actions[args.action](store, args)


def _import(store: SqliteEventStore, args: argparse.Namespace) -> int:
    from rankloom_features.event_store.transfer import import_events
    from rankloom_training.progress import Progress

    progress = Progress()
    for file in args.files:
        with progress.stage(file.name):
            counts = import_events(store, file, progress.step)
        known = counts.num_rows - counts.num_new
        sys.stdout.write(f"{file}: {counts.num_new:,} events stored, {known:,} known already\n")
    return 0


def _export(store: SqliteEventStore, args: argparse.Namespace) -> int:
    from rankloom_features.event_store.keys import NUM_PARTITIONS
    from rankloom_features.event_store.transfer import export_events
    from rankloom_training.progress import Progress

    progress = Progress()
    with progress.stage(args.file.name):
        counts = export_events(store, args.file, progress.step)
    sys.stdout.write(f"{args.file}: {counts.num_rows:,} events\n")
    if counts.num_damaged:
        parts = f"{counts.num_damaged} of {NUM_PARTITIONS} parts"
        return _end(1, f"{args.store}: {parts} are damaged and left out")
    return 0


def _stats(store: SqliteEventStore, args: argparse.Namespace) -> int:
    found = store.statistics()
    if args.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        return 0
    users, events, size = found.num_users, found.num_events, found.num_bytes / 2**20
    sys.stdout.write(f"{args.store}: {events:,} events of {users:,} users, {size:,.1f} MiB\n")
    return 0


def _forget(store: SqliteEventStore, args: argparse.Namespace) -> int:
    """Ids are not repeated: what a command prints may be kept."""
    counts = [store.forget(user) for user in args.users]
    known = sum(count > 0 for count in counts)
    sys.stdout.write(f"{args.store}: {known} users and their {sum(counts):,} events are gone\n")
    return 0


def _end(exit_code: int, message: str) -> int:
    sys.stderr.write(f"rankloom events: {' '.join(message.split())}\n")
    return exit_code


events = EventsCommand()
