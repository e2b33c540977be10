"""Collects outcomes and settles them together; what they tell of the account takes effect here.

Batches form by themselves: while one is written, the next one gathers.

Rule 1: nothing ends it but `finish`. A database that is away, or a table that others hold, is
waited for, without limit.
Rule 2: an outcome that cannot be written for any other reason keeps no other back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import anyio
import structlog

from orchestrator.core.model import Verb, WorkClass
from orchestrator.core.orphan import Owner
from orchestrator.core.outcome import Denied, Done, NotSent, Outcome, Throttled
from orchestrator.daemon.batches import gather
from orchestrator.daemon.book import Book
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.settle import Settlement, Settling, settle
from orchestrator.store.engine import Database, is_passing

if TYPE_CHECKING:
    from orchestrator.store.accounts import Standing

BATCH_MAX: Final[Mapping[str, int]] = {"postgresql": 256, "sqlite": 48}
"""Outcomes in one transaction. SQLite's one lock is held for about 2 ms."""
LOCKED_WAIT_S: Final = 0.02
"""How soon what others had locked is tried again."""
AWAY_WAIT_S: Final = 0.2
QUEUE_MAX: Final = 1024
"""Outcomes that wait to be settled. A call whose outcome finds no place keeps its own."""
_OURS: Final = frozenset({"LeaseTooShort", "RateLimited"})
"""Reasons of our own for not sending: they say nothing about the vendor."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the settler works with."""

    database: Database
    limiter: Limiter
    book: Book
    tally: CallTally
    daemon_id: str
    daemon_name: str
    owner: Owner
    nudge: Callable[[], None]


class Settler:
    """Takes settlements from calls and writes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._send, self._receive = anyio.create_memory_object_stream[Settlement](QUEUE_MAX)
        self._most = BATCH_MAX[desk.database.dialect]
        self.standings: Mapping[str, Standing] = MappingProxyType({})
        """How the accounts stood at the last look."""
        self._is_away = False
        """Whether it has been told that the database is away."""
        self._denied: set[str] = set()
        """Accounts whose denial has been told; the last look may be older than that."""

    async def put(self, settlement: Settlement) -> None:
        """Hand over what a call came to."""
        await self._send.send(settlement)

    def finish(self) -> None:
        """Take nothing more: `run` ends when all is settled."""
        self._send.close()

    async def run(self) -> None:
        """Settle until `finish`, and then what is left."""
        with self._receive:
            async for batch in gather(self._receive, self._most):
                await self._settle(batch)

    async def _settle(self, batch: list[Settlement]) -> None:
        for one in batch:
            await self._take_effect(one)
        left = batch
        while left:
            try:
                left = await self._write(left)
            except Exception as error:
                if is_passing(error):
                    await self._put_off(left, error)
                    continue
                log.exception("settle_failed", outcomes=len(left))
                left = await self._settle_each(left)
            self._is_away = False
            if left:
                await anyio.sleep(LOCKED_WAIT_S)
        self._desk.nudge()

    async def _put_off(self, left: list[Settlement], error: Exception) -> None:
        """Wait a moment; say so once."""
        if not self._is_away:
            log.warning("settle_failed", outcomes=len(left), error=str(error))
        self._is_away = True
        await anyio.sleep(AWAY_WAIT_S)

    async def _settle_each(self, batch: list[Settlement]) -> list[Settlement]:
        """Settle each outcome alone, so that one that cannot be written keeps no other back.

        That one is left to its lease: whoever claims its row next takes the call for unknown.
        Returns what is to be settled later.
        """
        later: list[Settlement] = []
        for number, one in enumerate(batch):
            try:
                later += await self._write([one])
            except Exception as error:
                if is_passing(error):
                    return [*later, *batch[number:]]
                log.exception("outcome_lost", task_id=one.order.flight.task_id)
        return later

    async def _write(self, batch: list[Settlement]) -> list[Settlement]:
        """Settle in one transaction; return what others have locked."""
        return await self._desk.database.write(
            settle, self._settling(), batch, durable=False, work_class=WorkClass.STOP
        )

    def _settling(self) -> Settling:
        book = self._desk.book
        return Settling(
            daemon_id=self._desk.daemon_id,
            daemon_name=self._desk.daemon_name,
            accounts={
                name: book.account(name, self.standings.get(name), None) for name in book.names
            },
            timekeeper=book.timekeeper,
            owner=self._desk.owner,
            denied=frozenset(
                name for name, standing in self.standings.items() if standing.denied_code
            ),
        )

    async def _take_effect(self, one: Settlement) -> None:
        """Change the account's pace: its action's, its breaker's. Tell it once, on the edge."""
        name, outcome = one.order.account.name, one.settled.outcome
        self._desk.tally.count(name, one.action, one.settled, one.latency_ms)
        if isinstance(outcome, Throttled) and not outcome.capacity:
            action = Action(account=name, name=one.action)
            await self._desk.limiter.throttle(action, outcome.after)
        self._tell_denial(name, one.order.flight.verb, outcome)
        if isinstance(outcome, NotSent) and outcome.code in _OURS:
            return
        before, after = self._desk.book.record(name, outcome, one.settled.answered_at)
        if before.is_open and not after.is_open:
            log.info("circuit_closed", account=name)
        elif after.is_open and not before.is_open:
            log.warning("circuit_open", account=name, code=outcome.code)

    def _tell_denial(self, name: str, verb: Verb, outcome: Outcome) -> None:
        """Tell a denial once, however many calls were in flight when it began.

        Only a start that is taken ends it: without money or quota a vendor still stops and looks.
        """
        if verb is Verb.START and isinstance(outcome, Done):
            self._denied.discard(name)
        if not isinstance(outcome, Denied) or name in self._denied:
            return
        self._denied.add(name)
        standing = self.standings.get(name)
        if standing is None or standing.denied_code is None:
            log.error("account_denied", account=name, code=outcome.code)
