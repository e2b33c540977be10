"""After `kill -9`: how soon every call that was in flight is asked again, and is proven.

No daemon has ten thousand calls in flight, so the dead one is made of its own parts: claims by the
daemon's own code, committed and never carried out. Half of the starts did reach the vendor, half of
the rows have meanwhile been told to stop; then a daemon is started, and is all there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from benchmarks.application import Application, open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure
from benchmarks.programs import run_daemon
from benchmarks.setting import INSERT, SPEC, Setting
from orchestrator.app import build
from orchestrator.clock import boot_ns
from orchestrator.config import open_config
from orchestrator.core.model import WorkClass
from orchestrator.core.names import RANDOM_LENGTH
from orchestrator.daemon.book import Book
from orchestrator.daemon.claim import Desk, Order, Wanted, claim
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.limiter import Limiter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.setup import Setup
from orchestrator.daemon.transport import Transport
from orchestrator.log import Redactor
from orchestrator.store import accounts
from orchestrator.store.engine import Connection
from orchestrator.store.engine import now as database_now

LEASE_S: Final = 3
SIGNATURE_LIFE_S: Final = 10
CLOCK_MARGIN_S: Final = 1
HORIZON_S: Final = SIGNATURE_LIFE_S + CLOCK_MARGIN_S
AT_ONCE: Final = 64
"""Calls that the dead daemon's share has in flight."""

_STOP_HALF: Final = "UPDATE agent_task SET desired_state = 'stopped' WHERE id LIKE '%1'"
_NOT_ASKED: Final = "SELECT count(*) FROM agent_status WHERE lease_owner = 'dead'"
_OPEN: Final = """
    SELECT count(*) FROM agent_status AS s JOIN agent_task AS t ON t.id = s.task_id
    WHERE s.phase <> t.desired_state
"""
_WANTED: Final = "SELECT count(*) FROM agent_task WHERE desired_state = 'running'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many calls were in flight."""

    intents: int = 10_000


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return seconds from the next daemon's start until all is asked, and until it is proven."""
    url = await setting.databases.make(kind)
    config = setting.configure(
        url,
        lease_s=LEASE_S,
        call_timeout_ms=1000,
        signature_life_s=SIGNATURE_LIFE_S,
        clock_margin_s=CLOCK_MARGIN_S,
    )
    await setting.vendors.begin_anew()
    async with open_application(url) as application:
        ids = [f"t{number // 2}-{number % 2}" for number in range(scale.intents)]
        await application.run_many(INSERT, [(id_, SPEC) for id_ in ids])
        await _announce_and_die(config, ids)
        await application.run(_STOP_HALF)
        return await _watch(setting, config, application, scale)


async def _watch(
    setting: Setting, config: Path, application: Application, scale: Scale
) -> list[Figure]:
    began_ns = boot_ns()
    async with run_daemon(config, application):
        await application.wait_for(0, _NOT_ASKED)
        asked_s = (boot_ns() - began_ns) / 1e9
        await application.wait_for(0, _OPEN)
        proven_s = (boot_ns() - began_ns) / 1e9
        ((wanted,),) = await application.ask(_WANTED)
        live = await setting.vendors.live()
    return [
        Figure(f"{scale.intents} intents, lease {LEASE_S} s: all asked again, s", f"{asked_s:.1f}"),
        Figure(f"horizon {HORIZON_S} s: all proven, s", f"{proven_s:.1f}"),
        Figure("agents wanted / live at the vendor", f"{wanted} / {live}"),
    ]


async def _announce_and_die(config: Path, ids: Sequence[str]) -> None:
    """Announce a start for each row; let half of them reach the vendor, and settle none."""
    setup = build(open_config(config), Redactor())
    book = Book(setup.keys, setup.llm)
    try:
        await setup.database.write(_make_accounts, book.names)
        orders = await _announce(setup, book, ids)
        # Two of four: every other row is told to stop, so all four cases come up equally often.
        await _send(setup, book, [one for number, one in enumerate(orders) if number % 4 < 2])
    finally:
        await setup.database.close()


def _make_accounts(connection: Connection, names: Sequence[str]) -> None:
    accounts.ensure(connection, names, database_now(connection))


async def _announce(setup: Setup, book: Book, ids: Sequence[str]) -> list[Order]:
    numbers = iter(range(len(ids) * 2))
    desk = Desk(
        daemon_id="dead",
        daemon_name="dead",
        lease=setup.lease,
        book=book,
        draw_name=lambda: f"dead{next(numbers):0{RANDOM_LENGTH}}",
        redact=setup.redact,
    )
    orders: list[Order] = []
    left = list(ids)
    while left:
        room = {(name, each): len(left) for name in book.names for each in WorkClass}
        claimed = await setup.database.write(claim, desk, Wanted(ids=left[:100]), {}, room)
        orders += claimed.orders
        announced = {order.flight.task_id for order in claimed.orders}
        left = [id_ for id_ in left if id_ not in announced]
    return orders


async def _send(setup: Setup, book: Book, orders: Sequence[Order]) -> None:
    """Carry orders out; what they come to dies with the daemon."""
    now = orders[0].anchor.not_earlier
    places = anyio.Semaphore(AT_ONCE)
    async with Transport(now=lambda: now(boot_ns()), on_date=book.note_offset) as transport:
        gateway = Gateway(
            transport=transport,
            limiter=Limiter(setup.database, {}),
            book=book,
            meter=Meter(),
            redact=setup.redact,
        )

        async def send(order: Order) -> None:
            async with places:
                await gateway.carry_out(order)

        async with anyio.create_task_group() as tasks:
            for order in orders:
                tasks.start_soon(send, order)
