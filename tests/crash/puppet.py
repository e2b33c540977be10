"""The real daemon, which kills or freezes itself at a named step: `python puppet.py CONFIG TRAP`.

Nothing of it is replaced. Two seams are watched: the transactions that the daemon runs, and the
moment in which a request begins to leave. When the file TRAP is there and names the step and the
kind of call that are just happening, the process renames it and sends itself the signal. So a trap
springs once, whoever starts after that, and a test can see that it sprang.

A trap is one line: STEP CALL SIGNAL, where CALL is a task's verb or a command's kind (an `update`
of either is meant). The steps:

    drawn      slots were drawn, nothing was claimed (not of commands)
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
from orchestrator.core.command import Kind
from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon import supervise, transport
from orchestrator.daemon.claim import Claimed, claim
from orchestrator.daemon.lane_claim import ClaimedLanes, claim_lanes
from orchestrator.daemon.lane_settle import CommandSettlement, settle_lanes
from orchestrator.daemon.settle import Settlement, settle
from orchestrator.daemon.setup import Setup
from orchestrator.store.engine import Database

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SENT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("StartVoiceChat", "StartAIConversation", "CreateAgentInstance"), Verb.START),
    "StartListening": Kind.START_LISTENING,
    "StopListening": Kind.STOP_LISTENING,
}
"""The vendors' actions that are watched as they leave."""


class Trap:
    """A file that may appear at any time, and what happens then."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def spring(self, step: str, calls: Collection[str]) -> None:
        """Kill or freeze this process if the trap is set for this step of one of these calls."""
        try:
            wanted_step, call, name = self._path.read_text("ascii").split()
        except FileNotFoundError:
            return
        if step == wanted_step and call in calls:
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
        self._trap.spring(before, _calls(args))

        def watched(connection: Connection, *args: *Ts) -> T:
            result = operation(connection, *args)
            self._trap.spring(inside, _calls((result, *args)))
            return result

        result = await self._real.write(watched, *args, durable=durable, work_class=work_class)
        self._trap.spring(after, _calls((result, *args)))
        return result

    async def close(self) -> None:
        await self._real.close()


_STEPS: Final[Mapping[Any, tuple[str, str, str]]] = {
    claim: ("drawn", "claimed", "announced"),
    settle: ("replied", "settling", "settled"),
    claim_lanes: ("", "claimed", "announced"),
    settle_lanes: ("replied", "settling", "settled"),
}


def _calls(values: Iterable[object]) -> set[str]:
    """Return the calls that a transaction is about, from what it was given and what it returned."""
    found: set[str] = set()
    for value in values:
        match value:
            case Claimed(orders=orders):
                # What was announced, and no more what slots were drawn for.
                return {order.flight.verb for order in orders}
            case ClaimedLanes(orders=orders):
                return {order.flight.command.kind for order in orders}
            case list() | tuple():
                found.update(_settled(value))
            case dict():
                found.update(_drawn(value))
            case _:
                pass
    return found


def _settled(batch: Iterable[object]) -> Iterator[str]:
    for one in batch:
        match one:
            case Settlement():
                yield one.order.flight.verb
            case CommandSettlement():
                yield one.order.flight.command.kind
            case _:
                pass


def _drawn(tickets: Mapping[object, object]) -> Iterator[str]:
    """Yield what tickets are for. Places are counted by pairs as well, but those are no tickets."""
    for key, drawn in tickets.items():
        match key, drawn:
            case (_, Verb() as verb), [_, *_]:
                yield verb
            case _:
                pass


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
            if self.action in SENT:
                trap.spring("sending", {SENT[self.action]})

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
