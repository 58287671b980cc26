"""A hub that answers no is quoted, and is not taken for a model without weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

CHECK = """
import sys
from rankloom_training.base import BaseModelError, check_base
for name in sys.argv[1:]:
    try:
        check_base(name, 5)
    except BaseModelError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Has models of one owner, behind an agreement, and no others."""

    def do_HEAD(self) -> None:
        is_gated = self.path.startswith("/gated/")
        self.send_response(403 if is_gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if is_gated else "RepoNotFound")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_unknown_and_a_gated_model(hub: str, tmp_path: Path) -> None:
    own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", CHECK, "unknown/model", "gated/model"]
    said = subprocess.check_output(command, env=os.environ | own, text=True, timeout=120)
    unknown, gated = said.splitlines()
    assert "'unknown/model': no causal LM with safetensors weights" in unknown
    assert "'gated/model': the hub gives it only to those who have asked for it" in gated
    assert gated.endswith("log in with `hf auth login`")
