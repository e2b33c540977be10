"""Wrong cores, each with one rule left out. A checker that never failed proves nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core import (
    announce,
    arrange,
    bucket,
    decide,
    evolve,
    horizon,
    incarnation,
    late,
    wishes,
)
from orchestrator.core.action import Action, Call, Flight, Wait
from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.model import (
    Account,
    Agent,
    Evidence,
    Row,
    Step,
    Verb,
    WaitingFor,
    What,
)
from orchestrator.core.outcome import Indefinite, NotSent, Settled
from tests.simulation import daemon
from tests.simulation.mutation import Mutant
from tests.simulation.store import Store
from tests.simulation.told_mutants import TOLD_MUTANTS

# --- the horizon

_decide, _next, _keep = decide.decide, decide._next, decide._keep
_announce, _evolve, _learn = announce.announce, evolve.evolve, late.learn
_settle_unknown, _settle_row = decide._settle, arrange._settle
_apply, _retire, _due = wishes._apply, incarnation.retire, Store.due


def _always_past(_agent: Agent, _at: datetime) -> bool:
    return True


def _without_signature_life(account: Account, announced_at: datetime) -> datetime:
    return announced_at + account.settle_in


def _without_clock_margin(account: Account, announced_at: datetime) -> datetime:
    return announced_at + account.send_life + account.settle_in


def _without_settle_in(account: Account, announced_at: datetime) -> datetime:
    return announced_at + account.send_life + account.clock_margin


def _at_once(_account: Account, at: datetime) -> datetime:
    return at


def _newest(*horizons: datetime | None) -> datetime | None:
    """Two sends share one record: the newest moves the horizon, also back."""
    return next((h for h in reversed(horizons) if h is not None), None)


def _always_backdated(account: Account) -> timedelta:
    return account.signature_life


def _forget_earlier(
    row: Row, call: Call, agent: Agent, account: Account, now: datetime
) -> tuple[Row, Flight]:
    """A definite failure of this send will be taken for the failure of all."""
    row, flight = _announce(row, call, agent, account, now)
    return row, replace(flight, horizon_before=None)


def _unfenced_stop(
    row: Row, call: Call, agent: Agent, account: Account, now: datetime
) -> tuple[Row, Flight]:
    """A stop by room and user leaves no trace of when it may still arrive."""
    caps = replace(account.caps, one_per_user=False)
    return _announce(row, call, agent, replace(account, caps=caps), now)


# --- evidence


def _with_caps(**changes: Any) -> Callable[..., Step]:
    def wrong(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
        caps: Caps = replace(account.caps, **changes)
        return _evolve(row, flight, settled, replace(account, caps=caps))

    return wrong


def _timeout_is_evidence(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
    if isinstance(settled.outcome, Indefinite):
        settled = replace(settled, outcome=NotSent(code=settled.outcome.code))
    return _evolve(row, flight, settled, account)


def _failed_stop_is_enough(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
    if flight.verb is Verb.STOP and isinstance(settled.outcome, Indefinite):
        at = settled.answered_at
        row = replace(row, status=replace(row.status, intent=None, intent_agent=None))
        return row.close(flight.agent, Evidence.STOPPED, at)
    return _evolve(row, flight, settled, account)


def _take_for_unsent(row: Row) -> Row:
    """The call of a lost daemon is taken for one that was never made."""
    lost = row.status.intent_agent
    agents = tuple(replace(a, horizon_at=None) if a.id == lost else a for a in row.agents)
    status = replace(row.status, intent=None, intent_agent=None)
    return replace(row, status=status, agents=agents)


def _drop_handle(agent: Agent, _handle: str, _caps: Caps) -> Agent:
    return agent


def _no_news(_row: Row, flight: Flight) -> Flight:
    """What a ledger row has learnt while a call was in flight is written over."""
    return flight


# --- decisions


def _begin_before_evidence(row: Row, account: Account, now: datetime) -> Action:
    action = _next(row, account, now)
    proof = isinstance(action, Wait) and action.waiting_for is WaitingFor.PROOF
    return _keep(row, account, now) if proof and not row.status.retires else action


def _new_session_at_once(row: Row, agent: Agent, caps: Caps, now: datetime) -> Call | Wait:
    if caps.recovery is Recovery.FIND and agent.hinted_at is not None:
        return decide._start(row, None, caps, now)
    return _settle_unknown(row, agent, caps, now)


def _start_without_stop(row: Row, agent: Agent, caps: Caps, now: datetime) -> Call | Wait:
    if caps.recovery is Recovery.STOP_FIRST:
        return decide._start(row, agent, caps, now)
    return _settle_unknown(row, agent, caps, now)


def _gate_stops(call: Call, account: Account, now: datetime) -> Action:
    if account.circuit_open_until is not None and account.circuit_open_until > now:
        until = account.circuit_open_until
        return Wait(until=until, waiting_for=WaitingFor.CIRCUIT_OPEN, parked=call)
    return call


# --- wishes


def _level_only(row: Row, change: Any, now: datetime) -> Step:
    """Only what the row wants now counts: a stop that was followed by a run is lost."""
    return Step(row=row) if change.what is What.STOP else _apply(row, change, now)


def _respec_in_place(row: Row, change: Any, now: datetime) -> Step:
    """A re-send takes the new spec, and whatever runs is said to have it."""
    if change.what is What.SPEC and row.wanted:
        return Step(row=row)
    return _apply(row, change, now)


def _keep_hints(agent: Agent) -> Agent:
    return replace(agent, retry_at=None, attempt=0)


# --- queues, leases, names


def _stop_like_any(row: Row, action: Action, account: Account, now: datetime) -> Row:
    row = _settle_row(row, action, account, now)
    status = row.status
    due_at = min((t for t in (status.due_at, status.stop_due_at) if t), default=None)
    return replace(row, status=replace(status, due_at=due_at, stop_due_at=None))


def _in_order_of_arrival(store: Store, now: datetime) -> list[tuple[bool, str]]:
    return sorted(_due(store, now), key=lambda due: due[1])


def _send_anyway(_errand: daemon.Errand, _now: datetime) -> bool:
    return True


def _derive_name(_world: Any, task_id: str) -> str:
    return f"orc-{task_id}"


_V, _T, _Z, _U = (Recovery.SAME_NAME,), (Recovery.FIND,), (Recovery.EVICT,), (Recovery.STOP_FIRST,)

ROW_MUTANTS = (
    Mutant(name="no horizon at all", owner=Agent, attribute="is_past_horizon", wrong=_always_past),
    Mutant(
        name="horizon without the life of a signature",
        owner=horizon,
        attribute="after_announce",
        wrong=_without_signature_life,
    ),
    Mutant(
        name="horizon without the clock margin",
        owner=horizon,
        attribute="after_announce",
        wrong=_without_clock_margin,
    ),
    Mutant(
        name="horizon of an unread send without settle_in",
        owner=horizon,
        attribute="after_announce",
        wrong=_without_settle_in,
    ),
    Mutant(
        name="horizon of a good reply without settle_in",
        owner=horizon,
        attribute="after_reply",
        wrong=_at_once,
    ),
    Mutant(
        name="horizon of a reset without its margin",
        owner=horizon,
        attribute="after_reset",
        wrong=_at_once,
    ),
    Mutant(
        name="horizon that moves back", owner=horizon, attribute="latest", wrong=_newest, vendors=_V
    ),
    Mutant(
        name="horizon of an undated signature as if backdated",
        owner=Account,
        attribute="send_life",
        wrong=property(_always_backdated),
    ),
    Mutant(
        name="a failed re-send erases the first send",
        owner=announce,
        attribute="announce",
        wrong=_forget_earlier,
        vendors=_V,
    ),
    Mutant(
        name="an unread stop by room and user has no horizon",
        owner=announce,
        attribute="announce",
        wrong=_unfenced_stop,
        vendors=_U,
    ),
    Mutant(
        name="a stop by name counts before the horizon",
        owner=evolve,
        attribute="evolve",
        wrong=_with_caps(names_handle=False),
        vendors=_V,
    ),
    Mutant(
        name="absence in a room is evidence",
        owner=evolve,
        attribute="evolve",
        wrong=_with_caps(poll_proves_absence=True),
        vendors=_V,
    ),
    Mutant(
        name="a timeout is evidence", owner=evolve, attribute="evolve", wrong=_timeout_is_evidence
    ),
    Mutant(
        name="a failed stop is given up",
        owner=evolve,
        attribute="evolve",
        wrong=_failed_stop_is_enough,
    ),
    Mutant(
        name="a lost daemon's call was never made",
        owner=announce,
        attribute="abandon",
        wrong=_take_for_unsent,
    ),
    Mutant(name="a late handle is dropped", owner=late, attribute="learn", wrong=_drop_handle),
    Mutant(
        name="a settle overwrites a handle", owner=evolve, attribute="_catch_up", wrong=_no_news
    ),
    Mutant(
        name="the next incarnation starts before evidence",
        owner=decide,
        attribute="_next",
        wrong=_begin_before_evidence,
    ),
    Mutant(
        name="a new session without the horizon",
        owner=decide,
        attribute="_settle",
        wrong=_new_session_at_once,
        vendors=_T,
    ),
    Mutant(
        name="a nameless start is sent again",
        owner=decide,
        attribute="_settle",
        wrong=_start_without_stop,
        vendors=_U,
    ),
    Mutant(name="the breaker holds stops", owner=decide, attribute="_gate", wrong=_gate_stops),
    Mutant(
        name="a stop that a run follows is lost",
        owner=wishes,
        attribute="_apply",
        wrong=_level_only,
    ),
    Mutant(
        name="a re-send adopts a changed spec",
        owner=wishes,
        attribute="_apply",
        wrong=_respec_in_place,
        vendors=_V,
    ),
    Mutant(
        name="a hint of a former life holds a stop back",
        owner=incarnation,
        attribute="ask_anew",
        wrong=_keep_hints,
        vendors=_T + _Z,
    ),
    Mutant(
        name="stops have no time of their own",
        owner=arrange,
        attribute="_settle",
        wrong=_stop_like_any,
    ),
    Mutant(
        name="stops wait behind starts", owner=Store, attribute="due", wrong=_in_order_of_arrival
    ),
    Mutant(
        name="a call leaves without looking at its lease",
        owner=daemon,
        attribute="may_leave",
        wrong=_send_anyway,
    ),
    Mutant(
        name="names are derived from the row",
        owner=daemon,
        attribute="draw_name",
        wrong=_derive_name,
    ),
    Mutant(
        name="the rate's window is one second sharp",
        owner=bucket,
        attribute="WINDOW_US",
        wrong=bucket.SECOND_US,
    ),
)

MUTANTS = (*ROW_MUTANTS, *TOLD_MUTANTS)
"""All of the world of rows."""
