"""Bundles with stored rationales, and calls for stored explanations."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc

from rankloom_adapters.bundle import RATIONALES, open_bundle
from rankloom_adapters.derive import with_parts
from rankloom_features.event_store.sqlite import SqliteEventStore, copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Candidate
from rankloom_proto.v1.ranking_pb2 import ExplainRequest
from rankloom_ranker.loaded import load_bundle
from rankloom_ranker.stored_rationales import (
    StoredRationale,
    UserRationale,
    write_rationale_part,
)
from server.explanations import Told, explain
from server.rankings import known_user
from server.served_parts import ServedParts

WRITTEN = datetime(2026, 5, 4, 3, 2, 1, 987_654, tzinfo=UTC)


def about(user: str, event: Event, text: str = "It is warm and slow.") -> UserRationale:
    """A rationale of the user's review at the time of the event."""
    assert event.time is not None
    written = StoredRationale(text, 4.5, event.time, WRITTEN, "evidence")
    return UserRationale(user, event.item_id, written)


def events_of(parts: ServedParts) -> tuple[Event, ...]:
    """Of the known user."""
    return parts.loaded.provider.events.history(known_user(parts)).events


def with_rationales(
    parts: ServedParts, rationales: Sequence[UserRationale], folder: Path
) -> ServedParts:
    """The parts as a new bundle that has these rationales, with a copy of the events beside it."""
    copy_events(events_beside(parts.loaded.bundle.folder), events_beside(folder))
    with_parts(parts.loaded.bundle, {RATIONALES: part_of(rationales)}, folder, {})
    events = SqliteEventStore(events_beside(folder))
    return ServedParts(load_bundle(open_bundle(folder), (), events), parts.decoder)


def part_of(rationales: Sequence[UserRationale]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rationales.sqlite"
        write_rationale_part(path, rationales)
        return path.read_bytes()


def stored_request(user: str, item: str, **fields: object) -> ExplainRequest:
    return ExplainRequest(
        user_id=user,
        candidate=Candidate(item_id=item),
        source=ranking_pb2.EXPLANATION_SOURCE_STORED,
        **fields,  # type: ignore[arg-type]
    )


async def explain_stored(channel: grpc.aio.Channel, user: str, item: str, **fields: object) -> Told:
    return await explain(channel, stored_request(user, item, **fields))
