"""`rankloom serve` as a process: what it says, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from feature_service.feature_bundle import EVENTS, KNOWN_USER
from rankloom_adapters import bundle
from rankloom_adapters.signing import generate_keys
from rankloom_engine.number_format import cpu_flags, dtype_for
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import UserEvent
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import GetUserFeaturesRequest, UserQuery
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_ranker.loaded import BundleFeatures
from rankloom_server.commands import serve, settings_from
from rankloom_server.config import EngineSettings, Settings
from rankloom_server.feature_app import feature_server
from server.rankings import rank, request
from server.served_parts import ServedParts
from server.servers import failure_of, opened, settings

SYNTHETIC = "synthetic-secret"
SERVE = [sys.executable, "-m", "rankloom", "serve"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVE, *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def assert_refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"rankloom serve: {start}")


@pytest.mark.parametrize("service", [(), ("features",)])
def test_a_folder_that_is_no_bundle_is_refused(service: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*service, "--bundle", str(tmp_path))
    assert_refused(done, f"{tmp_path}: bundle: manifest.json: cannot be read")


def test_each_wrong_setting_has_a_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("{prot: 1}")
    done = run("--config", str(file), "--threads", "none")
    assert_refused(done, "bundle: is not given", "--threads: ", "prot: no such setting")


def test_wrong_folders_and_taken_ports_are_refused_before_torch_is_imported(
    tmp_path: Path, feature_folder: Path
) -> None:
    code = (
        "import sys\n"
        "from rankloom._cli.main import main\n"
        "assert main(['serve', *sys.argv[1:]]) == 2\n"
        "print(*sys.modules)"
    )
    state = ("--bundle", "b", "--rollout-port", "0", "--state", "/dev/null/x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        rollouts = ("--state", str(tmp_path / "state"), "--rollout-port", port)
        ports = [("--port", port), ("--metrics-port", port), rollouts, ("--features-port", port)]
        folder = ("--bundle", str(feature_folder))
        for arguments in (("--bundle", str(tmp_path)), state, *((*folder, *one) for one in ports)):
            command = [sys.executable, "-c", code, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            assert not set(done.stdout.split()) & {"torch", "transformers", "onnxruntime"}
            if port in arguments:
                assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr


@pytest.mark.parametrize("service", [(), ("features",)])
def test_an_address_for_two_services_is_refused(
    service: tuple[str, ...], feature_folder: Path
) -> None:
    arguments = (*service, "--bundle", str(feature_folder))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    done = run(*arguments, "--port", port, "--metrics-port", port)
    assert_refused(done, f"cannot listen on 127.0.0.1:{port}: two services have this address")
    hosts = {f"RANKLOOM_{name}HOST": "unix:one.sock" for name in ("", "METRICS_")}
    done = run(*arguments, **hosts)
    where = f"unix:{Path('one.sock').absolute()}"
    assert_refused(done, f"cannot listen on {where}: two services have this address; give one")


def test_an_unknown_variable_is_refused() -> None:
    done = run("--bundle", "b", RANKLOOM_PROT="1")
    assert_refused(done, "RANKLOOM_PROT: no such setting")


async def test_variables_of_kubernetes_are_ignored_and_named(feature_folder: Path) -> None:
    link = "tcp://10.0.0.1:50051"
    environment = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "50051", "PORT": link}
    variables = {f"RANKLOOM_{name}": text for name, text in environment.items()}
    process = await asyncio.create_subprocess_exec(
        *SERVE, "features", "--bundle", str(feature_folder), "--port", "0",
        env=os.environ | variables, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    ignored, serving = [json.loads(await process.stderr.readline()) for _ in range(2)]
    process.terminate()
    await process.communicate()
    assert ignored["event"] == "variables_ignored"
    assert set(ignored["variables"]) == variables.keys()
    assert serving["event"] == "serving"


def settings_of(*arguments: str) -> Settings:
    """The settings that `rankloom serve` would start with."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    serve.configure(parser)
    return settings_from(parser.parse_args(arguments))


def test_a_flag_sets_what_its_name_says() -> None:
    found = settings_of(
        "--bundle", "b", "--dtype", "bfloat16", "--device", "cuda", "--prefix-cache-mib", "0"
    )  # fmt: skip
    engine = EngineSettings(dtype="bfloat16", device="cuda", prefix_cache_mib=0)
    assert found == Settings(bundle=Path("b"), engine=engine)


def test_a_switch_has_two_flags(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("{bundle: b, engine: {compile: true}}")
    found = settings_of("--config", str(file), "--no-compile", "--reflection")
    assert not found.engine.compile
    assert found.server.reflection


def test_keys_may_be_repeated() -> None:
    found = settings_of("--bundle", "b", "--bundle-keys", "a.pem", "--bundle-keys", "b.pem")
    assert found.loading.bundle_keys == (Path("a.pem"), Path("b.pem"))


def test_flags_may_stand_before_and_after_the_service() -> None:
    found = settings_of("--bundle", "b", "features", "--port", "1", "--bundle-keys", "a.pem")
    assert (found.bundle, found.server.port) == (Path("b"), 1)
    assert found.loading.bundle_keys == (Path("a.pem"),)


def test_a_feature_server_has_no_flags_of_the_model() -> None:
    done = run("features", "--dtype", "float32")
    assert done.returncode == 2
    assert "unrecognized arguments: --dtype" in done.stderr


def test_an_altered_part_is_refused(feature_folder: Path, tmp_path: Path) -> None:
    for path in feature_folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(feature_folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    catalogue = tmp_path / bundle.CATALOGUE
    catalogue.write_bytes(catalogue.read_bytes().replace(b"Title 1", b"Title X"))
    done = run("features", "--bundle", str(tmp_path))
    assert_refused(done, f"{tmp_path}: bundle: {bundle.CATALOGUE}: altered")


@pytest.mark.parametrize("service", [(), ("features",)])
def test_a_bundle_without_a_signature_is_refused_where_keys_are_known(
    service: tuple[str, ...], served_folder: Path, tmp_path: Path
) -> None:
    public = tmp_path / "public.pem"
    generate_keys(tmp_path / "private.pem", public)
    done = run(*service, "--bundle", str(served_folder), RANKLOOM_BUNDLE_KEYS=str(public))
    assert_refused(done, "")
    assert "manifest.sig" in done.stderr


async def test_a_port_in_use_is_refused(
    feature_folder: Path, feature_parts: BundleFeatures
) -> None:
    async with opened(feature_server(settings().server, feature_parts, "digest")) as target:
        port = target.rpartition(":")[2]
        arguments = ("features", "--bundle", str(feature_folder), "--port", port)
        done = await asyncio.to_thread(run, *arguments)
    assert_refused(done, f"cannot listen on {target}: address already in use; stop what")


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its address."""
    process = await asyncio.create_subprocess_exec(
        *SERVE, *arguments, "--port", "0", stderr=asyncio.subprocess.PIPE
    )
    try:
        if process.stderr is None:
            raise ValueError("stderr is not piped")
        line = json.loads(await asyncio.wait_for(process.stderr.readline(), 60))
        assert (line["event"], line["level"]) == ("serving", "info")
        if "features" not in arguments:  # with no flag, the format is what the CPU is fast in
            assert (line["device"], line["dtype"]) == ("cpu", dtype_for(cpu_flags()))
        yield process, line["address"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_serves_features_until_a_signal(feature_folder: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.sqlite"
    with closing(SqliteEventStore(events)) as store:
        store.append([UserEvent("1", KNOWN_USER, EVENTS[0])])
    given = ("features", "--bundle", str(feature_folder), "--events", str(events))
    request = GetUserFeaturesRequest(users=[UserQuery(user_id=KNOWN_USER)])
    async with serving(*given) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await FeatureServiceStub(channel).GetUserFeatures(request, timeout=10)
            assert not answer.features[0].cold_start
            health = health_pb2_grpc.HealthStub(channel)
            service = health_pb2.HealthCheckRequest(service="rankloom.v1.RankingService")
            failure = await failure_of(health.Check(service, timeout=10))
            assert failure.code is grpc.StatusCode.NOT_FOUND
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["call", "stopped"]
    assert KNOWN_USER.encode() not in log


async def test_it_serves_rankings_until_a_signal_and_ends_the_call_in_flight(
    served_folder: Path, parts: ServedParts
) -> None:
    size = min(300, len(parts.loaded.provider.catalogue))
    async with serving("--bundle", str(served_folder)) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            first = await rank(channel, request(parts, user_id=SYNTHETIC))
            assert first.revision.bundle_digest == parts.loaded.bundle.digest
            in_flight = [asyncio.create_task(rank(channel, request(parts, size))) for _ in range(3)]
            await asyncio.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*in_flight)
            assert [len(answer.items) for answer in answers] == [size] * 3
        _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines] == ["call"] * 4 + ["stopped"]
    assert lines[-1]["all_ended"]
    assert SYNTHETIC.encode() not in log


async def test_a_ranking_server_on_ipv6_asks_a_feature_server_on_a_socket(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    bundle, path = ("--bundle", str(served_folder)), tmp_path / "features.sock"
    async with (
        serving("features", *bundle, "--host", f"unix:{path}", "--socket-mode", "600") as (_, at),
        serving(*bundle, "--features", at, "--host", "::") as (_, address),
        grpc.aio.insecure_channel(address.replace("[::]", "[::1]")) as channel,
    ):
        assert at == f"unix:{path}"
        assert stat.filemode(path.stat().st_mode) == "srw-------"
        answer = await rank(channel, request(parts))
        assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE
        assert answer.routing.history_events > 0


def test_the_feature_server_loads_no_language_model() -> None:
    code = "import sys, rankloom_server.feature_app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "rankloom_server.feature_app" in loaded
    assert not loaded & {"torch", "transformers", "lightgbm"}


def test_serving_loads_nothing_that_its_extra_does_not_bring(tmp_path: Path) -> None:
    bundle.seal(tmp_path, {})  # it can be opened, and not loaded
    code = (
        "import sys\n"
        "from rankloom._cli.main import main\n"
        "main(['serve', '--bundle', sys.argv[1]])\n"
        "print(*sys.modules)\n"
        "import accelerate, scipy, sklearn"  # what follows in the process may need them
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"rankloom_server.app", "transformers.modeling_utils"} <= loaded
    assert not loaded & {"accelerate", "scipy", "sklearn"}
    assert not loaded & {"lightgbm", "onnx"}  # pipelines of training alone need those


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import contextlib, sys\n"
        "from rankloom._cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['serve', '--help'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--bundle" in done.stdout
    assert not set(done.stdout.split()) & {"torch", "pydantic", "structlog", "onnxruntime"}


def test_a_taken_port_for_metrics_is_refused(served_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("--bundle", str(served_folder), "--port", "0")
        assert_refused(
            run(*arguments, RANKLOOM_METRICS_PORT=port), f"cannot listen on 127.0.0.1:{port}"
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to serve on")
def test_a_device_that_is_not_there_is_refused(served_folder: Path) -> None:
    done = run("--bundle", str(served_folder), "--port", "0", RANKLOOM_DEVICE="cuda")
    assert_refused(done, f"{served_folder}: device cuda: not to be had here")
