"""After a start, loads the revisions that were loaded before it."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from rankloom_adapters.revision import Traffic
from rankloom_adapters.rollout.loaded import UNFIT, LoadedRevisions, NoRoomError
from rankloom_adapters.rollout.states import LOADED, RolloutState, Verb
from rankloom_adapters.rollout.traffic import unloaded
from rankloom_adapters.rollout.writer import LedgerWriter

T = TypeVar("T")


class Recovery(Generic[T]):
    """Loads what serves first and the rest later; commands can wait for what they need.

    A revision that cannot be loaded any more is rolled back.
    """

    def __init__(self, writer: LedgerWriter, loaded: LoadedRevisions[T]) -> None:
        self._writer, self._loaded = writer, loaded
        self._pending: dict[int, asyncio.Event] = {}  # set once the revision's turn is over

    async def load_serving(self) -> None:
        """Loads the active revision and the canary.

        Raises NotServableError or BundleError for the active one.
        """
        if number := self._writer.ledger.active:
            self._loaded.add(number, await self._loaded.load(self._writer.ledger.rollout(number)))
            self._loaded.direct(Traffic(number))
        trial = self._writer.ledger.rollouts.get(self._writer.ledger.on_trial)
        if trial and trial.state is RolloutState.CANARY:
            await self._load(trial.revision)

    def expect_rest(self) -> None:
        """From now on, `wait_for` waits for what `load_rest` is going to load."""
        missing = unloaded(self._writer.ledger, self._loaded.serving)
        self._pending = {number: asyncio.Event() for number in missing}

    async def load_rest(self) -> None:
        """Raises RegistryError; what was not loaded then cannot be promoted."""
        try:
            for number, is_over in self._pending.items():
                await self._load(number)
                is_over.set()
        finally:
            for is_over in self._pending.values():
                is_over.set()

    async def wait_for(self, number: int) -> None:
        """Returns once the revision is loaded, or known not to be."""
        if number in self._pending:
            await self._pending[number].wait()

    async def wait_for_all(self) -> None:
        """Returns once all is loaded that can be."""
        for is_over in self._pending.values():
            await is_over.wait()

    async def _load(self, number: int) -> None:
        """Loads a revision, unless a command has ended it meanwhile."""
        if not self._is_to_be_loaded(number):
            return
        try:
            value = await self._loaded.load(self._writer.ledger.rollout(number))
        except (*UNFIT, NoRoomError) as error:
            async with self._writer.lock:
                if self._is_to_be_loaded(number):
                    await self._writer.carry_out_own(Verb.ROLL_BACK, number, str(error))
            return
        async with self._writer.lock:
            if self._is_to_be_loaded(number):
                self._loaded.add(number, value)
            else:
                self._loaded.discard(value)

    def _is_to_be_loaded(self, number: int) -> bool:
        return self._writer.ledger.rollout(number).state in LOADED
