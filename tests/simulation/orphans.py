"""What runs and has no task, as the store keeps it, and the watch that finds it.

The watch is a part of each daemon: it looks once a second while there is anything to be judged, and
dies and freezes with its daemon. Each look is one transaction.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core import orphan
from orchestrator.core.model import Agent, What
from orchestrator.core.orphan import Owner, Sighting, Verdict
from tests.simulation.facts import Kept, speaks_of

if TYPE_CHECKING:
    from tests.simulation.store import Store

MARK = "simul"
PREFIX = "orc"
OWNER = Owner(prefix=PREFIX, mark=MARK)
LOOK_EVERY = timedelta(seconds=1)
CALL_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A row of `orphan_task`."""

    id: str
    account: str
    stop: bool
    phase: str
    handle: str | None
    room: str = ""
    user: str = ""
    name: str = ""

    @property
    def status_id(self) -> str:
        return f"~{self.id}"

    def is_same(self, other: "Found") -> bool:
        """Whether it is the agent that another row is about, by its handle or by its place."""
        if self.handle is not None or self.account != other.account:
            return (self.account, self.handle) == (other.account, other.handle)
        return (self.room, self.name) == (other.room, other.name)


def look(store: "Store", now: datetime) -> bool:
    """Judge what is there to be judged; return whether anything came of it."""
    changed = False
    for kept in _loose(store, now):
        changed = _judge(store, kept, now) or changed
    for found in [one for one in store.orphans.values() if _is_unseen(one)]:
        _admit(store, found, now)
        changed = True
    if store.stops_foreign:
        changed = _stop_reported(store, now) or changed
    return changed


def is_any(store: "Store") -> bool:
    """Return whether a look would find something, now or after a while."""
    return bool(store.facts.untaken) or any(
        _is_unseen(one) or (store.stops_foreign and _is_reported(store, one))
        for one in store.orphans.values()
    )


def _loose(store: "Store", now: datetime) -> Iterator[Kept]:
    waits = [orphan.parked(account, CALL_TIMEOUT) for account in store.accounts.values()]
    return store.facts.loose(now - min(waits))


# --- what vendors told


def _judge(store: "Store", kept: Kept, now: datetime) -> bool:
    owners = [
        one.owner
        for one in store.entries(kept.account, is_open=True)
        if speaks_of(kept.fact, one.agent)
    ]
    if owners:
        announced = any(change.what is What.FACT for change in store.inbox.get(owners[-1], ()))
        if not announced:
            store.note(owners[-1], What.FACT, now)
        return not announced
    verdict = _verdict(store, kept, now)
    if verdict is Verdict.WAIT:
        return False
    if verdict is not Verdict.SKIP:
        _find(store, kept, verdict, now)
    store.facts.take((kept.account, kept.fact.key))
    return True


def _verdict(store: "Store", kept: Kept, now: datetime) -> Verdict:
    ended = [
        one.agent.ended_at
        for one in store.entries(kept.account, is_open=False)
        if speaks_of(kept.fact, one.agent) and one.agent.ended_at is not None
    ]
    is_start_open = any(
        one.agent.room_id == kept.fact.room_id and not one.agent.is_idle and not one.agent.is_known
        for one in store.entries(kept.account, is_open=True)
    )
    sighting = Sighting(
        fact=kept.fact,
        age=now - kept.received_at,
        ended_at=max(ended, default=None),
        is_start_open=is_start_open,
    )
    return orphan.judge(sighting, OWNER, store.accounts[kept.account], CALL_TIMEOUT)


def _find(store: "Store", kept: Kept, verdict: Verdict, now: datetime) -> None:
    """Write down an agent that somebody saw, unless nothing is to be done about it."""
    fact, account = kept.fact, store.accounts[kept.account]
    ours = verdict is Verdict.OURS
    stop = ours or (store.stops_foreign and not orphan.is_to_be_asked(fact, verdict))
    id_ = store.next_orphan_id()
    agent = orphan.describe(fact, account, "here", f"~{id_}", ours=ours, stop=stop)
    if any(
        one.phase == "ignored"
        and (one.account, one.handle) == (kept.account, agent.vendor_task_id)
        and one.handle is not None
        for one in store.orphans.values()
    ):
        return
    found = Found(
        id=id_,
        account=kept.account,
        stop=stop,
        phase="stopping" if stop else "seen",
        handle=agent.vendor_task_id,
        room=agent.room_id,
        user=agent.user_id,
        name=agent.name,
    )
    _take_up(store, found, agent, now)


def _take_up(store: "Store", found: Found, agent: Agent, now: datetime) -> None:
    status = orphan.attend(agent, found.status_id, now, stop=found.stop)
    store.take_up(replace(found, phase="stopping" if found.stop else "seen"), agent, status)


# --- what people inserted


def _is_unseen(found: Found) -> bool:
    return found.phase == "seen" and found.stop


def _admit(store: "Store", found: Found, now: datetime) -> None:
    for one in store.entries(found.account, is_open=True):
        if found.handle != one.agent.vendor_task_id:
            continue
        other = store.orphans.get(one.owner[1:]) if one.owner[0] == "~" else None
        if other is None or other.stop:
            store.orphans[found.id] = replace(found, phase="ignored")
            return
    agent = Agent(
        id=found.status_id,
        incarnation=1,
        try_=1,
        account=found.account,
        site="here",
        room_id=found.room,
        user_id=found.user,
        name=found.name,
        session_name="",
        stream_id="",
        vendor_task_id=found.handle,
        announced_at=now,
    )
    _take_up(store, found, orphan.fence(agent, store.accounts[found.account], now), now)


# --- whose they are, as the vendor says


def recognise(store: "Store", status_id: str, name: str, now: datetime) -> None:
    """Hear under which name the vendor knows an agent that is only watched."""
    found = store.orphans[status_id[1:]]
    ledger = store.ledger.get(name)
    if ledger is not None and ledger.ended_at is None and ledger.account == found.account:
        store.dismiss(found)
    elif OWNER.has(name):
        _stop(store, found, now)


def _is_reported(store: "Store", found: Found) -> bool:
    """Return whether it is known of a reported agent that it is not ours."""
    row = store.rows.get(found.status_id)
    if found.phase != "seen" or found.stop or row is None:
        return False
    is_named = store.accounts[found.account].caps.names_handle
    return any(agent.name or agent.seen_at is not None or is_named for agent in row.agents)


def _stop_reported(store: "Store", now: datetime) -> bool:
    reported = [one for one in store.orphans.values() if _is_reported(store, one)]
    for found in reported:
        _stop(store, found, now)
    return bool(reported)


def _stop(store: "Store", found: Found, now: datetime) -> None:
    store.orphans[found.id] = replace(found, stop=True, phase="stopping")
    store.note(found.status_id, What.STOP, now)
