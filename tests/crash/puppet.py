"""The real daemon, which kills or freezes itself at a named step: `python puppet.py CONFIG TRAP`.

Nothing of it is replaced. Two seams are watched: the transactions that the daemon runs, and the
moment in which a request begins to leave. When the file TRAP is there and names the step and the
kind of call that are just happening, the process renames it and sends itself the signal. So a trap
springs once, whoever starts after that, and a test can see that it sprang.

A trap is one line: STEP VERB SIGNAL. The steps:

    drawn      slots were drawn, nothing was claimed
    claimed    inside the claim's transaction: the rows are locked, nothing is committed
    announced  the claim is committed, nothing was sent
    sending    all checks are behind the call, its first byte is not written
    replied    the outcome is known, nothing of it is written
    settling   inside the settle's transaction
    settled    the settle is committed
"""

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple

import aiohttp
import anyio
from aiohttp.client_middlewares import ClientHandlerType
from sqlalchemy import Connection

from orchestrator import log
from orchestrator.app import build
from orchestrator.config import open_config
from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon import supervise, transport
from orchestrator.daemon.claim import Claimed, claim
from orchestrator.daemon.settle import Settlement, settle
from orchestrator.daemon.setup import Setup
from orchestrator.store.engine import Database

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STARTS: Final = frozenset({"StartVoiceChat", "StartAIConversation", "CreateAgentInstance"})


class Trap:
    """A file that may appear at any time, and what happens then."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def spring(self, step: str, verbs: Collection[Verb]) -> None:
        """Kill or freeze this process if the trap is set for this step of one of these calls."""
        try:
            wanted_step, verb, name = self._path.read_text("ascii").split()
        except FileNotFoundError:
            return
        if step == wanted_step and Verb(verb) in verbs:
            self._path.rename(self._path.with_suffix(".sprung"))
            os.kill(os.getpid(), signal.Signals[name])


class WatchedDatabase(Database):
    """The daemon's database, with a trap at each step of its claims and settles."""

    def __init__(self, real: Database, trap: Trap) -> None:
        self._real = real
        self._trap = trap
        self.dialect = real.dialect
        self.path = real.path

    async def read(self, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        return await self._real.read(operation, *args)

    async def write(
        self,
        operation: Callable[[Connection, *Ts], T],
        *args: *Ts,
        durable: bool = True,
        work_class: WorkClass | None = None,
    ) -> T:
        before, inside, after = _STEPS.get(operation, ("", "", ""))
        self._trap.spring(before, _verbs(args))

        def watched(connection: Connection, *args: *Ts) -> T:
            result = operation(connection, *args)
            self._trap.spring(inside, _verbs((result, *args)))
            return result

        result = await self._real.write(watched, *args, durable=durable, work_class=work_class)
        self._trap.spring(after, _verbs((result, *args)))
        return result

    async def close(self) -> None:
        await self._real.close()


_STEPS: Final[Mapping[Any, tuple[str, str, str]]] = {
    claim: ("drawn", "claimed", "announced"),
    settle: ("replied", "settling", "settled"),
}


def _verbs(values: Iterable[object]) -> set[Verb]:
    """Return the calls that a transaction is about, from what it was given and what it returned."""
    found: set[Verb] = set()
    for value in values:
        match value:
            case Claimed(orders=orders):
                # What was announced, and no more what slots were drawn for.
                return {order.flight.verb for order in orders}
            case list() | tuple():
                found |= {one.order.flight.verb for one in value if isinstance(one, Settlement)}
            case dict():
                found |= {
                    key[1] for key, drawn in value.items() if isinstance(key, tuple) and drawn
                }
            case _:
                pass
    return found


def watch_requests(trap: Trap) -> None:
    """Set the trap behind the last check before a request leaves."""

    class WatchedAttempt(transport._Attempt):
        action = ""

        async def __call__(
            self, request: aiohttp.ClientRequest, send: ClientHandlerType
        ) -> aiohttp.ClientResponse:
            named = request.headers.get("X-TC-Action") or request.url.query.get("Action")
            self.action = str(named)
            return await super().__call__(request, send)

        def begin(self, wire: Any) -> None:
            super().begin(wire)
            if self.action in STARTS:
                trap.spring("sending", {Verb.START})

    transport._Attempt = WatchedAttempt  # type: ignore[misc]  # the seam has no other door


async def run(setup: Setup) -> None:
    try:
        await supervise.run(setup)
    finally:
        with anyio.CancelScope(shield=True):
            await setup.database.close()


def main(config_path: Path, trap_path: Path) -> None:
    config = open_config(config_path)
    redactor = log.Redactor(config.secret_values)
    log.configure(config.log, redactor)
    trap = Trap(trap_path)
    watch_requests(trap)
    setup = build(config, redactor)
    anyio.run(run, replace(setup, database=WatchedDatabase(setup.database, trap)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
