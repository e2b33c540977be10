"""The real daemon, which strikes itself at a named step: `puppet.py CONFIG STEP VERB SIGNAL`.

Nothing of it is replaced: two seams are wrapped, the transactions that the daemon runs and the
moment before a request is written. At the step of a call of that kind the thread that is there
kills or freezes the process, once. The steps, in the order in which a call passes them:

    drawn      slots were drawn, the claim has not begun
    claiming   inside the claim's transaction: all is written, nothing is committed
    claimed    the claim is committed, the call has not begun
    leaving    every check is behind the request, its first byte is not written
    answered   the reply was read, the settle has not begun
    settling   inside the settle's transaction
    settled    the settle is committed
"""

import signal
import sys
import threading
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import aiohttp
import anyio

from orchestrator import log
from orchestrator.app import build
from orchestrator.config import open_config
from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon import supervise
from orchestrator.daemon.claim import Claimed, Order, claim
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.settle import Settlement, settle
from orchestrator.daemon.setup import Setup
from orchestrator.store.engine import Connection, Database

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass
class Trap:
    """Where the signal is sent, and whether it was."""

    step: str
    verb: Verb
    number: signal.Signals
    sprung: bool = False

    def reach(self, step: str, verbs: Collection[Verb]) -> None:
        """Take note that calls of these kinds are at a step."""
        if self.sprung or step != self.step or self.verb not in verbs:
            return
        self.sprung = True
        # Sent to this very thread, so that it does not run on while another one takes the signal.
        signal.pthread_kill(threading.get_ident(), self.number)


class WatchedDatabase(Database):
    """A database whose claims and settles tell the trap how far they are."""

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
        self._trap.reach(before, _asked(operation, args))

        def watched(connection: Connection, *args: *Ts) -> T:
            result = operation(connection, *args)
            self._trap.reach(inside, _done(operation, args, result))
            return result

        result = await self._real.write(watched, *args, durable=durable, work_class=work_class)
        self._trap.reach(after, _done(operation, args, result))
        return result

    async def close(self) -> None:
        await self._real.close()


_STEPS: dict[Any, tuple[str, str, str]] = {
    claim: ("drawn", "claiming", "claimed"),
    settle: ("answered", "settling", "settled"),
}


def _asked(operation: object, args: tuple[Any, ...]) -> set[Verb]:
    """Return the kinds of the calls that a transaction is to be about."""
    if operation is claim:
        return {verb for (_, verb), drawn in args[2].items() if drawn}
    if operation is settle:
        return {one.order.flight.verb for one in args[1]}
    return set()


def _done(operation: object, args: tuple[Any, ...], result: object) -> set[Verb]:
    """Return the kinds of the calls that a transaction was about."""
    if isinstance(result, Claimed):
        return {order.flight.verb for order in result.orders}
    return _asked(operation, args) if operation is settle else set()


_calling: ContextVar[Verb] = ContextVar("_calling")


def watch_requests(trap: Trap) -> None:
    """Let each request tell the trap that it is about to be written."""
    carry_out, send = Gateway.carry_out, aiohttp.ClientRequest.send

    async def watched_call(gateway: Gateway, order: Order) -> Settlement:
        _calling.set(order.flight.verb)
        return await carry_out(gateway, order)

    async def watched_send(request: aiohttp.ClientRequest, connection: Any) -> Any:
        trap.reach("leaving", {_calling.get()})
        return await send(request, connection)

    Gateway.carry_out = watched_call  # type: ignore[assignment, method-assign]  # there is no other door
    aiohttp.ClientRequest.send = watched_send  # type: ignore[assignment, method-assign]  # nor here


async def serve(setup: Setup) -> None:
    """Run the daemon as `orchestrator run` does."""
    try:
        await supervise.run(setup)
    finally:
        with anyio.CancelScope(shield=True):
            await setup.database.close()


def main(config_path: Path, trap: Trap) -> None:
    config = open_config(config_path)
    redactor = log.Redactor(config.secret_values)
    log.configure(config.log, redactor)
    watch_requests(trap)
    setup = build(config, redactor)
    anyio.run(serve, replace(setup, database=WatchedDatabase(setup.database, trap)))


if __name__ == "__main__":
    path, step, verb, name = sys.argv[1:]
    main(Path(path), Trap(step, Verb(verb), signal.Signals[name]))
