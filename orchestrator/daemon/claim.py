"""Claim, decide, announce: one short transaction for many rows, and nothing is sent in it.

Rows are locked first and read after. Changes are absorbed, deadlines applied, decisions made; what
is decided is written as an intent with its ledger row, under a lease and a new fence. After the
commit the orders may be carried out; before it nothing has left this process.

Rule 1: nothing here waits but for the database.
Rule 2: a row that cannot be read, or whose spec is wrong, fails alone; its batch goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, assert_never

from orchestrator.clock import Anchor, boot_ns
from orchestrator.core.action import Call, Flight, Forget, Wait
from orchestrator.core.announce import abandon, announce
from orchestrator.core.arrange import arrange, lease, park
from orchestrator.core.deadline import lapse
from orchestrator.core.decide import decide
from orchestrator.core.hearing import hear
from orchestrator.core.incarnation import fail, supersede
from orchestrator.core.model import (
    Account,
    Agent,
    EndReason,
    Row,
    Step,
    Verb,
    WaitingFor,
    What,
    WorkClass,
)
from orchestrator.core.orphan import refence
from orchestrator.core.replace import replace
from orchestrator.core.wishes import absorb
from orchestrator.daemon import preflight
from orchestrator.daemon.book import Book
from orchestrator.daemon.gates import Gates
from orchestrator.daemon.limiter import Ticket
from orchestrator.daemon.preflight import Changed, Unfit
from orchestrator.daemon.stranger import account_name, address, estrange
from orchestrator.daemon.telling import tell
from orchestrator.providers.llm import asked_upstream
from orchestrator.store import accounts, rows
from orchestrator.store.accounts import Standing
from orchestrator.store.draft import Draft
from orchestrator.store.engine import Connection
from orchestrator.store.queue import Queue
from orchestrator.store.reading import UNREAD, Read, read

DECIDE_NS_MAX: Final = 5_000_000
"""Deciding holds the rows' locks, so it ends after 5 ms; what is left stays untouched."""

_WITH_SPEC: Final = frozenset({Verb.START, Verb.UPDATE})
"""Calls that carry the spec, which is judged before one is spent on it."""

_ASKED_FOR: Final = frozenset({Verb.START, Verb.STOP, Verb.UPDATE})
_WISHES: Final = frozenset(
    {What.INSERT, What.DELETE, What.STOP, What.RUN, What.SPEC, What.RESTART, What.START_BY}
)
"""Changes of an application's that are carried out by a call."""

Tickets = Mapping[tuple[str, Verb], list[Ticket]]
"""Tickets drawn for the calls of an account. A pair that is not there needs none."""
Place = tuple[str, WorkClass]
"""Where calls of one account and class are in flight."""
Room = dict[Place, int]
"""How many calls more each place takes. One that is not there takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What a claim works with besides the database."""

    daemon_id: str
    daemon_name: str
    lease: timedelta
    book: Book
    draw_name: Callable[[], str]
    redact: Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The rows that a pass wants to claim."""

    ids: Sequence[str]
    without_status: Sequence[str] = ()
    """Tasks with changes whose status is not there (any more)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An announced call, to be carried out after the commit."""

    row: Row
    flight: Flight
    account: Account
    spec: Any
    """Of a start, as the application wrote it; else null."""
    ticket: Ticket | None
    anchor: Anchor
    lease_ends_ns: int
    changed_at: datetime | None
    """When the application asked for this call, if nothing but us was waited for since."""


@dataclass(slots=True, kw_only=True)
class Claimed:
    """What a claim did."""

    orders: list[Order] = field(default_factory=list)
    written: int = 0
    """Rows that are not as they were. While there are any, there may be more to do."""
    fitted: int | None = None
    """How many rows could be decided about in time; null: all."""
    queues: set[Queue] = field(default_factory=set)
    """Queues in which rows were parked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What a claim reads first: when it is, and how the accounts stand."""

    anchor: Anchor
    standings: Mapping[str, Standing]


def claim(
    connection: Connection,
    desk: Desk,
    wanted: Wanted,
    tickets: Tickets,
    room: Room,
) -> Claimed:
    """Claim as many of these rows as can be acted on.

    Takes what it uses out of `tickets` and `room`.
    """
    before_ns = boot_ns()
    now, standings = accounts.read_present(connection)
    anchor = Anchor(then=now, before_ns=before_ns, after_ns=boot_ns())
    desk.book.timekeeper.keep(connection, anchor)
    rows.restore(connection, wanted.without_status, now)
    found = sorted(
        read(connection, rows.lock(connection, wanted.ids, now), now), key=attrgetter("turn")
    )
    present = Present(anchor=anchor, standings=standings)
    work = _Claim(connection, desk, tickets, room, present)
    work.claimed.written = len(wanted.without_status)
    if found:
        work.run(found)
    return work.claimed


class _Claim:
    """One claim: what it may use, and all that it will write."""

    def __init__(
        self,
        connection: Connection,
        desk: Desk,
        tickets: Tickets,
        room: Room,
        present: Present,
    ) -> None:
        self.connection = connection
        self.desk = desk
        self.tickets = tickets
        self.room = room
        self.anchor = present.anchor
        self.now = present.anchor.then
        self.draft = Draft(now=self.now)
        self.claimed = Claimed()
        self.gates = Gates(desk.book, present.standings, self.now)

    def run(self, found: Sequence[Read]) -> None:
        """Decide about each row, as many as time allows, and write what came of it."""
        self.gates.open(self.connection, found)
        until_ns = boot_ns() + DECIDE_NS_MAX
        for number, one in enumerate(found, start=1):
            self._take(one)
            if boot_ns() > until_ns and number < len(found):
                self.claimed.fitted = number
                break
        self.draft.write(self.connection)
        self.gates.close(self.connection)
        self.claimed.written += len(self.draft.held) + len(self.draft.forgotten)

    # --- one row ---

    def _take(self, one: Read) -> None:
        """Bring one row up to date, and do the next thing for it."""
        if one.is_disowned:
            self.draft.dismiss(one.row, "")
            return
        step = absorb(abandon(preflight.measure(one, self.desk.book)), one.changes, self.now)
        if one.unreadable:
            step = _then(step, fail(step.row, "Unreadable", one.unreadable, self.now))
        name = account_name(step.row)
        account = self.gates.accounts.get(name)
        if account is None:
            # What the vendor told waits for a daemon that has the account.
            self._hold(replace(one, facts=(), told=()), estrange(step, name, self.now))
            return
        step = replace(step, row=refence(step.row, account))
        step = _then(step, hear(step.row, one.facts, account, self.now))
        step = _then(step, lapse(step.row, account, self.now))
        if self._is_unfit(one, step):
            return
        match decide(step.row, account, self.now):
            case Forget():
                self._forget(one, step)
            case Wait():
                self._rest(one, step)
            case Call() as call:
                self._call(one, step, call, account)
            case other:
                assert_never(other)

    def _is_unfit(self, one: Read, step: Step) -> bool:
        """Dismiss an orphan of which too little is known to stop it, and say what is missing."""
        if one.row.orphan is None or not step.row.unwanted:
            return False
        provider = self.desk.book.runtimes[account_name(step.row)].provider
        lacking = provider.missing(step.row.unwanted[0])
        if not lacking:
            return False
        said = f"Incomplete: to stop it, {' and '.join(lacking)} must be given"
        self.draft.dismiss(step.row, said)
        return True

    def _call(self, one: Read, step: Step, call: Call, account: Account) -> None:
        if self.room.get((account.name, call.work_class), 0) <= 0:
            return  # untouched: it stays due, and a place will be free soon
        ticket: Ticket | None = None
        drawn = self.tickets.get((account.name, call.verb))
        if drawn is not None:
            if not drawn:
                self._park(one, step, call, account)
                return
            ticket = drawn[0]
        agent = call.agent
        if call.verb in _WITH_SPEC:
            checked = self._check_start(one, step, call)
            if not isinstance(checked, Agent):
                self._rest(one, checked)
                return
            agent = checked
        assert agent is not None  # noqa: S101 - only a start may come without a ledger row
        if drawn:
            drawn.pop(0)
        self._announce(one, step, replace(call, agent=agent), agent, account, ticket)

    def _check_start(self, one: Read, step: Step, call: Call) -> Agent | Step:
        """Return the ledger row to announce, or the row as it is without a start."""
        task = step.row.task
        if task is None or one.spec is UNREAD:
            return step  # due at once: the next pass reads the spec
        start = preflight.Start(
            row=step.row,
            task=task,
            agent=call.agent,
            spec=one.spec,
            provider=self.desk.book.runtimes[task.account].provider,
            name=self.desk.draw_name(),
            neighbours=[agent for _, agent in self.draft.new_agents],
        )
        match preflight.check(self.connection, start, self.desk.book, self.now):
            case Agent() as agent:
                return agent
            case Unfit(reason=reason, message=message):
                said = self.desk.redact(message)
                return _then(step, fail(step.row, reason, said, self.now))
            case Changed():
                asked_at = step.row.status.asked_at or self.now
                renewed = supersede(
                    step.row,
                    EndReason.SUPERSEDED,
                    self.now,
                    asked_at=asked_at,
                    start_by_holds=step.row.status.start_by_holds,
                )
                return _then(step, renewed)

    def _announce(
        self,
        one: Read,
        step: Step,
        call: Call,
        agent: Agent,
        account: Account,
        ticket: Ticket | None,
    ) -> None:
        row, flight = announce(step.row, call, agent, account, self.now)
        until = self.now + self.desk.lease
        row = lease(row, until, account, self.now)
        self._record(one, replace(step, row=row), lease_until=until)
        self.room[account.name, call.work_class] -= 1
        if call.verb in _WITH_SPEC and row.task is not None:
            provider = self.desk.book.runtimes[row.task.account].provider
            self.draft.note_upstream(row.task, asked_upstream(provider.llm, one.spec))
        if call.verb is Verb.START:
            self.gates.note_start(account, is_new=call.agent is None or agent.is_idle)
        self.claimed.orders.append(
            Order(
                row=row,
                flight=flight,
                account=account,
                spec=one.spec if call.verb in _WITH_SPEC else None,
                ticket=ticket,
                anchor=self.anchor,
                lease_ends_ns=self.anchor.surely_before_ns(until),
                changed_at=_changed_at(one, call),
            )
        )

    # --- what becomes of a row that is not called about ---

    def _rest(self, one: Read, step: Step) -> None:
        name = account_name(step.row)
        account = self.gates.accounts.get(name)
        if account is None:
            self._hold(one, estrange(step, name, self.now))
            return
        self._hold(one, replace(step, row=arrange(step.row, account, self.now)))

    def _park(self, one: Read, step: Step, call: Call, account: Account) -> None:
        row = park(step.row, call, WaitingFor.RATE_LIMIT, account, self.now)
        self._hold(one, replace(step, row=row))

    def _hold(self, one: Read, step: Step) -> None:
        step = replace(step, row=address(step.row))
        status = step.row.status
        if status.parked_class is not None and status.parked_verb is not None:
            queue = Queue(status.account, status.parked_class, status.parked_verb)
            self.claimed.queues.add(queue)
        self._record(one, step)

    def _record(self, one: Read, step: Step, lease_until: datetime | None = None) -> None:
        self.draft.taken.extend(one.changes)
        self.draft.told.extend(one.told)
        self.draft.ledger(one.row.agents, step.row, step.ended)
        owner = None if lease_until is None else self.desk.daemon_id
        self.draft.hold(step.row, owner, lease_until)
        self.draft.turn(one.row.status, step.row.status)
        tell(self.draft, one, step, self.desk.daemon_name)

    def _forget(self, one: Read, step: Step) -> None:
        self.draft.taken.extend(one.changes)
        self.draft.ledger(one.row.agents, step.row, step.ended)
        self.draft.told.extend(one.told)
        self.draft.forget(step.row)
        tell(self.draft, one, step, self.desk.daemon_name)


def _changed_at(one: Read, call: Call) -> datetime | None:
    """Return when the application asked for a call, if this is the first look at its change.

    A start that was not wanted at once counts from when it was.
    """
    if call.verb not in _ASKED_FOR:
        return None
    asked = [change.at for change in one.changes if change.what in _WISHES]
    if not asked:
        return None
    task = one.row.task
    start_at = task.start_at if task is not None and call.verb is Verb.START else None
    return min(asked) if start_at is None else max(min(asked), start_at)


def _then(step: Step, after: Step) -> Step:
    """Return two steps as one."""
    return Step(row=after.row, ended=(*step.ended, *after.ended))
