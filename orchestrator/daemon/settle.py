"""Settle: outcomes become rows, many in one transaction.

Rule 1: the fence decides. A status is written only while it has the version and the owner that the
announce gave it; else another daemon goes on with the row, and only the ledger learns.
Rule 2: no row lock is waited for. What is locked by others comes again with the next batch.
Rule 3: an outcome speaks of the clock that its claim has read. If that was set ahead since, it is
put off by as much, as what the ledger holds was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from orchestrator.core.action import Flight, Forget
from orchestrator.core.arrange import arrange
from orchestrator.core.decide import decide
from orchestrator.core.evolve import evolve
from orchestrator.core.fact import Event, Fact
from orchestrator.core.late import another, is_awaited, learn
from orchestrator.core.model import Account, Agent, Row, Status, Verb, What
from orchestrator.core.orphan import Owner
from orchestrator.core.outcome import Denied, Done, Expired, Gone, Outcome, Settled
from orchestrator.core.steps import put_off
from orchestrator.daemon.book import DENIED_RETRY
from orchestrator.daemon.claim import Order
from orchestrator.daemon.stranger import account_name
from orchestrator.daemon.timekeeper import Timekeeper
from orchestrator.store import accounts, fact_reading, facts, ledger, reported, rows
from orchestrator.store.draft import Draft
from orchestrator.store.engine import Connection
from orchestrator.store.facts import Told
from orchestrator.store.rows import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """An order and what it came to."""

    order: Order
    settled: Settled
    action: str
    """The vendor's name of the call."""
    latency_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Who settles, and with what beside the database."""

    daemon_id: str
    daemon_name: str
    accounts: Mapping[str, Account]
    """How the accounts stand as far as this daemon knows; a claim will look again."""
    denied: frozenset[str]
    """Accounts that the database says are denied."""
    timekeeper: Timekeeper
    owner: Owner
    """Whose names tell which agents are ours."""


def settle(
    connection: Connection, settling: Settling, batch: Sequence[Settlement]
) -> list[Settlement]:
    """Settle what can be settled now; return what others have locked, to be settled later."""
    now = settling.timekeeper.look(connection)
    ids = [one.order.flight.task_id for one in batch]
    locked = rows.lock_leases(connection, ids)
    there = rows.existing(connection, ids) if len(locked) < len(set(ids)) else set(locked)
    draft, held, later = Draft(now=now), [], []
    for one in batch:
        flight = one.order.flight
        if flight.task_id not in locked and flight.task_id in there:
            later.append(one)
        elif _holds(locked.get(flight.task_id), settling, flight):
            _settle_one(draft, settling, one)
            held.append(one)
        else:
            _add_late(connection, settling, one, draft)
    draft.write(connection)
    fact_reading.tell_parked(connection, _learnt(batch), settling.daemon_name)
    _recognise(connection, settling, held)
    _tell_seen(connection, settling, batch)
    _tell_accounts(connection, settling, batch, now)
    return later


def _holds(lease: Lease | None, settling: Settling, flight: Flight) -> bool:
    if lease is None or lease.owner != settling.daemon_id:
        return False
    return is_awaited(lease, flight)


def _settle_one(draft: Draft, settling: Settling, one: Settlement) -> None:
    one = _by_the_clock(settling.timekeeper, one)
    order = one.order
    step = evolve(order.row, order.flight, one.settled, order.account)
    account = settling.accounts.get(account_name(step.row), order.account)
    row = arrange(step.row, account, draft.now)
    draft.ledger(order.row.agents, row, step.ended)
    draft.turn(order.row.status, row.status)
    if isinstance(decide(row, account, draft.now), Forget):
        draft.forget(row)
    else:
        draft.hold(row)
    _tell(draft, settling, one, row)


def _by_the_clock(timekeeper: Timekeeper, one: Settlement) -> Settlement:
    """Return a settlement by the database's clock as it is now, if that was set ahead."""
    order, step = one.order, timekeeper.set_since(one.order.anchor)
    if step <= timedelta(0):
        return one
    row, flight, settled = put_off(order.row, order.flight, one.settled, step)
    return replace(one, order=replace(order, row=row, flight=flight), settled=settled)


def _add_late(connection: Connection, settling: Settling, one: Settlement, draft: Draft) -> None:
    """Keep what a daemon learnt after its lease: a handle may be the only trace of an agent."""
    outcome, flight = one.settled.outcome, one.order.flight
    agent = ledger.lock_one(connection, flight.agent.id)
    if isinstance(outcome, Done) and outcome.handle is not None and agent is not None:
        _learn(connection, one, agent, outcome.handle)
        rows.make_statuses(connection, [_last_status(one.order.row, draft.now)])
        rows.tell(connection, flight.task_id, What.LEDGER, settling.daemon_name)
    _tell(draft, settling, one, one.order.row, event="late")


def _learn(connection: Connection, one: Settlement, agent: Agent, handle: str) -> None:
    """Add a handle to its ledger row, or, where that has another, in a row of its own."""
    caps = one.order.account.caps
    if agent.vendor_task_id in {None, handle} or caps.names_handle:
        ledger.write_agents(connection, [learn(agent, handle, caps)])
        return
    second = another(agent, handle)
    if ledger.lock_one(connection, second.id) is None:
        ledger.add_agents(connection, [(one.order.flight.task_id, second)])


def _learnt(batch: Sequence[Settlement]) -> Iterator[tuple[str, str, str]]:
    """Yield the handles that were told, each with its account and row."""
    for one in batch:
        outcome = one.settled.outcome
        if isinstance(outcome, Done) and outcome.handle is not None:
            yield one.order.account.name, outcome.handle, one.order.flight.task_id


def _recognise(connection: Connection, settling: Settling, held: Sequence[Settlement]) -> None:
    """Find out which of the orphans that were only watched the vendor knows by a name of ours.

    It is the agent of a task whose start was not answered, or of nobody: then it must be stopped.
    """
    for one in held:
        outcome, row = one.settled.outcome, one.order.row
        name = outcome.name if isinstance(outcome, Done) else None
        if name is None or not row.is_reported or not settling.owner.has(name):
            continue
        if reported.dismiss_known(connection, row, name):
            told = Told(account=one.order.account.name, facts=(_known_as(name, one),))
            facts.receive(connection, [told], settling.daemon_name)
        else:
            reported.claim_as_ours(connection, row.status.task_id, settling.daemon_name)


def _known_as(name: str, one: Settlement) -> Fact:
    """Return what a look by a handle tells of the one whose handle it is."""
    handle = one.order.flight.agent.vendor_task_id
    return Fact(
        key=f"known:{handle}",
        event=Event.ALIVE,
        event_at=one.settled.asked_at,
        vendor_task_id=handle,
        name=name,
        room_id=one.order.flight.agent.room_id or None,
    )


def _tell_seen(connection: Connection, settling: Settling, batch: Sequence[Settlement]) -> None:
    """Write down what else of ours was found in the rooms that were looked into."""
    for one in batch:
        outcome = one.settled.outcome
        if not isinstance(outcome, Done | Gone):
            continue
        found = [_seen(name, one) for name in outcome.seen if settling.owner.may_have(name)]
        if found:
            told = Told(account=one.order.account.name, facts=tuple(found))
            facts.receive(connection, [told], settling.daemon_name)


def _seen(name: str, one: Settlement) -> Fact:
    """Return what a look into a room tells of one of those who were in it."""
    asked_at = one.settled.asked_at
    return Fact(
        key=f"seen:{name}:{asked_at:%Y-%m-%dT%H:%M}",
        event=Event.SEEN,
        event_at=asked_at,
        name=name,
        room_id=one.order.flight.agent.room_id,
    )


def _last_status(row: Row, now: datetime) -> Status:
    """Return the status of a task that may have been forgotten: all it ever began must end."""
    status = row.status
    return Status(
        task_id=status.task_id,
        account=status.account,
        room_id=status.room_id,
        user_id=status.user_id,
        phase_since=now,
        incarnation=status.incarnation,
        retired=status.incarnation,
    )


def _tell(draft: Draft, settling: Settling, one: Settlement, row: Row, event: str = "call") -> None:
    outcome = one.settled.outcome
    draft.tell(
        event,
        row,
        actor=settling.daemon_name,
        action=one.action,
        outcome=type(outcome).__name__,
        code=outcome.code or None,
        message=outcome.message or None,
        request_id=outcome.request_id or None,
        latency_ms=one.latency_ms,
        phase_before=one.order.row.status.phase.value,
    )


def _tell_accounts(
    connection: Connection, settling: Settling, batch: Sequence[Settlement], now: datetime
) -> None:
    """Write down what the calls told of their accounts, in the order of the accounts' names.

    Only a start that was taken says that a denied account is well again: a vendor that waits for
    its money takes stops all the time.
    """
    last: dict[str, Outcome] = {}
    for one in batch:
        name, outcome = one.order.account.name, one.settled.outcome
        taken = isinstance(outcome, Done) and one.order.flight.verb is Verb.START
        if isinstance(outcome, Denied | Expired) or (taken and name not in last):
            last[name] = outcome
    for name in sorted(last):
        match last[name]:
            case Denied(code=code):
                accounts.deny(connection, name, code, now, now + DENIED_RETRY)
            case Expired():
                accounts.undate(connection, name, now)
            case _ if name in settling.denied:
                accounts.allow(connection, name, now)
            case _:
                pass
