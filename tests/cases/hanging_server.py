"""A ranking server whose model hangs when asked: `hanging_server.py BUNDLE STATE LOADS`.

A ranking of HANGING candidates never ends, and after LOADS decoders the next is never loaded.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankloom_engine.loading import load_decoder
from rankloom_engine.model import ForwardInput
from rankloom_server import logs
from rankloom_server.app import servers
from rankloom_server.config import Settings
from rankloom_server.state import opened_state

HANGING = 7


class HangingDecoder:
    """A decoder that hangs on HANGING candidates, until it is let go.

    ``hangs``: set once it does.
    """

    def __init__(self, decoder: Any) -> None:  # noqa: ANN401
        self._decoder = decoder
        self.go, self.hangs = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._decoder, name)

    def forward(self, inputs: Sequence[ForwardInput]) -> Any:  # noqa: ANN401
        if any(len(one.candidates) == HANGING for one in inputs):
            self.hangs.set()
            self.go.wait()
        return self._decoder.forward(inputs)


def hanging_loader(num_loads: int) -> Callable[..., Any]:
    """Loads so many decoders; the next one never comes."""
    loaded: list[HangingDecoder] = []

    def load(*arguments: Any) -> Any:  # noqa: ANN401
        if len(loaded) == num_loads:
            sys.stderr.write('{"event": "hangs"}\n')
            sys.stderr.flush()
            threading.Event().wait()
        loaded.append(HangingDecoder(load_decoder(*arguments)))
        return loaded[-1]

    return load


async def main(bundle: str, folder: str, num_loads: str) -> None:
    settings = Settings.from_flat(
        {"bundle": bundle, "state": folder, "port": 0, "rollout_port": 0, "drain_s": 1.0}
    )
    load = hanging_loader(int(num_loads))
    with opened_state(Path(folder)) as state:
        async with servers(settings, state, load=load) as (server, admin):
            await server.serve(settings.server, admin)


if __name__ == "__main__":
    logs.configure("info")
    asyncio.run(main(*sys.argv[1:]))
