"""kill -9 of feature servers during RecordEvents and ForgetUser: what was answered holds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Timer

import grpc
import pytest

from feature_service.event_store import killed_server
from feature_service.event_store.killed import events_of, user_of
from feature_service.event_store.made import items_of
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_proto.v1.features_pb2 import ForgetUserRequest, RecordEventsRequest, UserEvent
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub

NUM_KILLS = 20
LIMIT_S = 30.0
Call = Callable[[FeatureServiceStub, int], object]
Killed = Callable[[Call, int], int]  # call, first write → last write that was answered


@pytest.fixture
def killed_while(path: Path, feature_folder: Path) -> Iterator[Killed]:
    """Starts a server, calls it again and again, and kills it some milliseconds later."""
    moments = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, killed_server.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as servers:
        assert servers.stdin
        assert servers.stdout

        def kill(call: Call, first: int) -> int:
            assert servers.stdin
            assert servers.stdout
            print(json.dumps([str(feature_folder), str(path)]), file=servers.stdin, flush=True)
            process, port = json.loads(servers.stdout.readline())
            end = Timer(moments.uniform(0.0, 0.02), os.kill, (process, signal.SIGKILL))
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub, write = FeatureServiceStub(channel), first
                try:
                    call(stub, write)  # one is answered, on however busy a machine
                finally:
                    end.start()
                with suppress(grpc.RpcError):
                    while True:
                        call(stub, write + 1)
                        write += 1
            end.join()
            return write

        yield kill
        servers.stdin.close()


def record(stub: FeatureServiceStub, write: int) -> None:
    messages = []
    for each in events_of(write):
        message = UserEvent(event_id=each.event_id, user_id=each.user_id, liked=each.event.liked)
        message.item_id, message.time.seconds = each.event.item_id, int(each.event.time or 0.0)
        messages.append(message)
    stub.RecordEvents(RecordEventsRequest(events=messages), timeout=LIMIT_S)


def forget(stub: FeatureServiceStub, write: int) -> None:
    stub.ForgetUser(ForgetUserRequest(user_id=user_of(write)), timeout=LIMIT_S)


def test_no_answered_event_is_lost_or_doubled(path: Path, killed_while: Killed) -> None:
    first = 0
    for _ in range(NUM_KILLS):
        last = killed_while(record, first)
        with closing(SqliteEventStore(path)) as store:
            shared = Counter(items_of(store, "shared"))
            assert set(shared) - {f"i{last + 1}"} == {f"i{write}" for write in range(last + 1)}
            assert set(shared.values()) == {1}
            for write in range(first, last + 2):
                expected = ["i0", "i1"] if f"i{write}" in shared else []
                assert items_of(store, user_of(write)) == expected
        first = last + 1  # again, as by a caller that got no answer
    assert first >= NUM_KILLS


def test_no_forgotten_user_comes_back(path: Path, killed_while: Killed) -> None:
    users = range(1_000)
    with closing(SqliteEventStore(path)) as store:
        store.append([event for write in users for event in events_of(write)])
    first = 0
    for _ in range(NUM_KILLS):
        last = killed_while(forget, first)
        with closing(SqliteEventStore(path)) as store:
            content = b"".join(file.read_bytes() for file in path.parent.iterdir())
            for write in range(last + 1):
                assert items_of(store, user_of(write)) == []
                assert user_of(write).encode() not in content
            assert items_of(store, user_of(last + 1)) in ([], ["i0", "i1"])
            assert items_of(store, user_of(last + 2)) == ["i0", "i1"]
        first = last + 1
    assert first >= NUM_KILLS
