"""A daemon on duty whose hands are moved one by one: real claims, real settles, chosen answers.

The vendor says what a scenario lets it say; everything that is then in the database was written by
the daemon's own code. People's and applications' statements go in as they would send them.
"""

from collections.abc import Mapping
from itertools import count
from typing import Final

from orchestrator.core.fact import Fact
from orchestrator.core.model import Verb
from orchestrator.core.outcome import Done, Outcome
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.claim import Claimed, Order, Tickets
from orchestrator.daemon.orphans import Watch
from orchestrator.providers.base import Provider
from orchestrator.store import daemons, facts
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from tests.store.claiming import OWNER, Daemon, full_room, make_desk, providers, runtime, settled
from tests.store.night_clock import Clock
from tests.store.rows import query
from tests.store.sql_client import APP, OPERATOR, make_roles, run_as, statements_of
from tests.store.test_lanes import Speaker

NAME: Final = "orc-1"
ROUNDS_MAX: Final = 20
"""More claims than any row of these scenarios needs until it rests."""
LATENCY_MS: Final = 83
FIRST_INSTANCE: Final = 1_912_124_734_317_838_336
"""An AgentInstanceId of ZEGO's."""


def _accounts() -> Mapping[str, Provider]:
    known = providers()
    return {"volcengine": known["volc"], "tencent": known["tencent"], "zego": known["zego"]}


class Duty:
    """One daemon on one database."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.url = url
        self.clock = Clock(database)
        runtimes = {name: runtime(name, provider) for name, provider in _accounts().items()}
        book = Book(Keys(accounts=runtimes, secrets={"llm_key": "fake-llm-key"}))
        self._numbers = count(1)
        self.daemon = Daemon(database, make_desk(book, NAME, draw_name=self._draw_name))
        self.speaker = Speaker(database, NAME)
        self.speaker.book = book
        self._watch = Watch(
            database=database,
            book=book,
            owner=OWNER,
            daemon_id=NAME,
            daemon_name=NAME,
            nudge=lambda: None,
        )

    def _draw_name(self) -> str:
        return f"{OWNER.prefix}{OWNER.mark}{next(self._numbers):016d}"

    # --- people and applications

    async def app(self, sql: str) -> None:
        """Let the application run statements."""
        await run_as(APP, self.url, statements_of(self.clock.real(sql)))

    async def operator(self, sql: str) -> None:
        """Let a person run statements."""
        await run_as(OPERATOR, self.url, statements_of(self.clock.real(sql)))

    # --- the daemon

    async def sign_on(self, name: str, host: str, pid: int) -> None:
        """Let a daemon say that it runs."""
        one = daemons.Daemon(
            id=name,
            name=name,
            host=host,
            pid=pid,
            version="0.1.0",
            wake="notify",
            accounts=self.daemon.desk.book.names,
        )
        await self.database.write(_register, one)

    async def beat(self, name: str = NAME) -> None:
        """Let a daemon say that it still runs."""
        await self.database.write(_beat, daemons.Beat(daemon_id=name, draining=False))

    async def claim(self, id_: str, tickets: Tickets | None = None) -> list[Order]:
        """Claim a row; return the call that is to be made, if any is."""
        return (await self._claim(id_, tickets=tickets)).orders

    async def answer(self, id_: str, *outcomes: Outcome) -> None:
        """Let the vendor answer the next calls about a row."""
        for outcome in outcomes:
            (order,) = await self.claim(id_)
            await self.daemon.settle(settled(order, outcome, ms=LATENCY_MS))

    async def carry_out(self) -> None:
        """Do all there is to do about tasks and commands; the vendor takes everything."""
        for _ in range(ROUNDS_MAX):
            if not (await self._carry_out_tasks() or await self._carry_out_commands()):
                return
        message = "there is always something to do"
        raise AssertionError(message)

    async def look_for_orphans(self) -> None:
        """Take up what people inserted and judge what vendors told."""
        await self._watch._look()

    async def hear(self, account: str, fact: Fact) -> None:
        """Receive a callback."""
        told = facts.Told(account=account, facts=(fact,))
        await self.database.write(facts.receive, [told], NAME)

    async def press(self, outcome: Outcome) -> None:
        """Let the vendor answer the next command."""
        await self.speaker.settle(await self.speaker.claim_one(), outcome)

    async def _claim(self, *ids: str, tickets: Tickets | None = None) -> Claimed:
        room = full_room(*self.daemon.desk.book.names)
        return await self.daemon.claim(*ids, tickets=tickets, room=room)

    async def _carry_out_tasks(self) -> bool:
        """Return whether there may be more: calls were made, or not all rows came to their turn."""
        rows = await query(self.database, "SELECT task_id FROM agent_status ORDER BY task_id")
        claimed = await self._claim(*(row[0] for row in rows))
        answers = [settled(order, self._taken(order), ms=LATENCY_MS) for order in claimed.orders]
        await self.daemon.settle(*answers)
        return answers != [] or claimed.fitted is not None

    async def _carry_out_commands(self) -> bool:
        orders = (await self.speaker.claim()).orders
        for order in orders:
            await self.speaker.settle(order, Done(request_id=self._request_id()))
        return orders != []

    def _taken(self, order: Order) -> Done:
        """Return the vendor's word that it did as it was told."""
        agent = order.flight.agent
        if order.flight.verb is not Verb.START:
            return Done(request_id=self._request_id())
        number = next(self._numbers)
        handles = {"zego": str(FIRST_INSTANCE + number), "tencent": f"tx-{number:08}"}
        handle = handles.get(agent.account, agent.name)
        return Done(handle=handle, request_id=self._request_id())

    def _request_id(self) -> str:
        """Return a RequestId that no answer had before."""
        return f"req-{next(self._numbers):04}"


def _register(connection: Connection, one: daemons.Daemon) -> None:
    daemons.register(connection, one, database_now(connection))


def _beat(connection: Connection, said: daemons.Beat) -> None:
    daemons.beat(connection, said, database_now(connection))


async def begin_duty(database: Database, url: str) -> Duty:
    """Return a daemon that has just signed on, in the first half hour of the night."""
    await make_roles(url)
    duty = Duty(database, url)
    await duty.daemon.ready()
    await duty.clock.set("00:30")
    await duty.sign_on(NAME, "app-1", 812)
    return duty
