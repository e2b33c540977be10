"""One daemon as the steps it takes between two looks at the database; it can die or freeze at each.

claim (decide, announce, commit) → check the lease → send → await the reply → settle. Between any
two of them other daemons, users and vendors go on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core import (
    announce,
    arrange,
    bucket,
    deadline,
    decide,
    evolve,
    hearing,
    late,
    names,
    orphan,
    steps,
)
from orchestrator.core.action import Call, Flight, Forget, Wait
from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import Account, Agent, Row, Verb, WaitingFor, What, WorkClass
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Settled,
    Throttled,
)
from tests.simulation import orphans
from tests.simulation.orphans import CALL_TIMEOUT, MARK, OWNER, PREFIX
from tests.simulation.process import Process
from tests.simulation.store import LIMIT
from tests.simulation.timekeeping import Agreed, keep
from tests.simulation.vendors import Request

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE = timedelta(seconds=15)
GRACE = timedelta(microseconds=bucket.GRACE_US)
DENIAL = timedelta(seconds=20)
EPOCH_US = 1_000_000


@dataclass(slots=True, kw_only=True)
class Errand:
    """A call as the daemon that makes it remembers it: what a crash forgets."""

    flight: Flight
    account: Account
    lease_until: datetime
    slot: datetime
    request: Request
    asked_at: datetime
    shift: timedelta
    """Of the database's clock when the row was claimed: what is left is measured from there."""
    is_answered: bool = False

    def clock(self, now: datetime) -> datetime:
        """Return the database's time as this daemon tells it, whoever has set its clock since."""
        return now + self.shift


@dataclass(slots=True, kw_only=True)
class Daemon(Process["World"]):
    """The steps that a daemon takes, and what it remembers of them."""

    passes: int = 0
    is_watching: bool = False
    agreed: Agreed | None = None
    """What it knows of the database's clock in this life."""

    @property
    def hears(self) -> bool:
        """Whether it takes what vendors post: it is up, and not frozen."""
        thawed = self.frozen_until is None or self.frozen_until <= self.world.now
        return self.is_up and thawed

    def begin(self) -> None:
        """Begin a life: look at the rows, and watch for what belongs to none."""
        self.is_watching, self.agreed = False, None
        self.wake(timedelta())
        self.watch()

    # --- watch

    def watch(self) -> None:
        """Look for orphans once a second while there may be any."""
        if self.is_watching or not orphans.is_any(self.world.store):
            return
        self.is_watching = True
        self.after(self.world.lots_between(0, 1), self._watch)

    def _watch(self) -> None:
        self.world.strike(self)
        self.after(self.world.lots_between(0.0005, 0.01), self._judge)

    def _judge(self) -> None:
        """Judge what nobody has taken, in one transaction."""
        world, self.agreed = self.world, keep(self.world, self.agreed)
        if orphans.look(world.store, world.clock):
            world.nudge()
        world.strike(self)
        if orphans.is_any(world.store):
            self.after(orphans.LOOK_EVERY, self._watch)
        else:
            self.is_watching = False

    # --- look

    def wake(self, delay: timedelta) -> None:
        """Look at the database after `delay`; an earlier plan to look is dropped."""
        self.passes += 1
        number = self.passes
        self.after(delay, lambda: self._look() if self.passes == number else None)

    def _look(self) -> None:
        """Claim what is due, what must stop first."""
        world, store = self.world, self.world.store
        self.agreed = keep(world, self.agreed)
        due = store.due(world.clock)
        for position, (must_stop, task_id) in enumerate(due):
            stops_left = sum(others for others, _ in due[position + 1 :])
            call = self.claim(task_id)
            if call is not None:
                world.checkers.claimed(call.work_class, stops_left, must_stop=must_stop)
        next_due = store.next_due(world.clock)
        soon = world.lots_between(0.002, 0.03)
        self.wake(max(soon, next_due - world.clock + soon) if next_due else timedelta(seconds=30))

    # --- claim

    def claim(self, task_id: str) -> Call | None:
        """Decide about one row, and announce the call, if there is one to make."""
        store, now = self.world.store, self.world.clock
        absorbed, facts = store.read(task_id, now)
        account = store.accounts[absorbed.row.status.account]
        present = orphan.refence(absorbed.row, account)
        heard = hearing.hear(present, facts, account, now)
        gone = frozenset(agent.vendor_task_id for agent in absorbed.ended)
        of_living = [fact for fact in facts if fact.vendor_task_id not in gone]
        self.world.checkers.heard(present, heard, of_living, account)
        lapsed = deadline.lapse(heard.row, account, now)
        row, ended = lapsed.row, (*absorbed.ended, *heard.ended, *lapsed.ended)
        store.leases.pop(task_id, None)
        action = decide.decide(row, account, now)
        match action:
            case Forget():
                store.forget(arrange.arrange(row, account, now), ended, now)
            case Wait():
                store.commit(arrange.arrange(row, account, now), ended)
            case Call() if self._has_slot(row, action, account):
                self._announce(row, action, account, ended)
                return action
            case Call():
                waiting_for = WaitingFor.RATE_LIMIT
                store.commit(arrange.park(row, action, waiting_for, account, now), ended)
        return None

    def _has_slot(self, row: Row, call: Call, account: Account) -> bool:
        """Draw a slot for the call, or remember when there will be one."""
        store = self.world.store
        key = (account.name, call.verb)
        kept = LIMIT // 2 if call.work_class is WorkClass.OBSERVE else 0
        now = self.world.microseconds(self.world.clock)
        store.buckets[key], drawn = store.buckets[key].draw(now, 1, until=now, kept=kept)
        if not drawn:
            wait = store.buckets[key].next_slot(now, kept) - now
            store.slots[row.status.task_id] = self.world.clock + timedelta(microseconds=wait)
        return bool(drawn)

    def _announce(self, row: Row, call: Call, account: Account, ended: tuple[Agent, ...]) -> None:
        store, now, task_id = self.world.store, self.world.clock, row.status.task_id
        agent = call.agent
        if agent is None:
            assert row.task is not None
            draw = announce.Draw(name=self.world.draw_name(task_id), site="here")
            agent = announce.new_agent(row, row.task, draw, now)
        announced, flight = announce.announce(row, call, agent, account, now)
        until = now + LEASE
        self.world.checkers.announced(flight, row)
        store.leases[task_id] = (self.name, until)
        store.commit(arrange.lease(announced, until, account, now), ended)
        errand = Errand(
            flight=flight,
            account=account,
            lease_until=until,
            slot=now,
            request=_sign(flight, account, row, self.world.shift),
            asked_at=now,
            shift=self.world.shift,
        )
        self.world.tell(f"{self.name} announces {call.verb} of {agent.id} for {task_id}")
        self._go_on(errand, self._check)

    def _go_on(self, errand: Errand, step: Callable[[Errand], None]) -> None:
        """Take the next step of an errand, unless the process dies or freezes right here."""
        self.world.strike(self)
        self.after(self.world.lots_between(0.0005, 0.01), lambda: step(errand))

    # --- call

    def _check(self, errand: Errand) -> None:
        """Send only what can be done within its lease, and within the grace of its slot."""
        now = errand.clock(self.world.now)
        if not may_leave(errand, now):
            self._give_back(errand)
            self._settle_with(errand, NotSent(code="TooLate"))
            return
        self.world.checkers.leaves(errand.lease_until, now, CALL_TIMEOUT)
        errand.asked_at = now
        self._go_on(errand, self._send)

    def _give_back(self, errand: Errand) -> None:
        key = (errand.account.name, errand.flight.verb)
        buckets = self.world.store.buckets
        buckets[key] = buckets[key].give_back([self.world.microseconds(errand.slot)])

    def _send(self, errand: Errand) -> None:
        is_on_time = errand.clock(self.world.now) - errand.slot <= GRACE
        self.world.tell(f"{self.name} sends {errand.flight.verb} of {errand.flight.agent.id}")
        life = self.lives

        def reply(outcome: Outcome) -> None:
            if self.is_up and self.lives == life:
                self.after(timedelta(), lambda: self._hear(errand, outcome))

        self.after(CALL_TIMEOUT, lambda: self._give_up(errand))
        self.world.carry(errand.request, self, reply, is_on_time=is_on_time)
        self.world.strike(self)

    def _hear(self, errand: Errand, outcome: Outcome) -> None:
        if errand.is_answered:
            return
        errand.is_answered = True
        self._settle_with(errand, outcome)

    def _give_up(self, errand: Errand) -> None:
        """Reset the connection: what has not left by now does not leave any more."""
        if errand.is_answered:
            return
        errand.is_answered = True
        self.world.reset(errand.request)
        self._settle_with(errand, Indefinite(code="Timeout", reset_at=errand.clock(self.world.now)))

    # --- settle

    def _settle_with(self, errand: Errand, outcome: Outcome) -> None:
        asked_at, answered_at = errand.asked_at, errand.clock(self.world.now)
        settled = Settled(outcome=outcome, asked_at=asked_at, answered_at=answered_at)
        self._go_on(errand, lambda errand: self._settle(errand, settled))

    def _settle(self, errand: Errand, settled: Settled) -> None:
        """Write the outcome, if nobody has taken the call over; else only what it found."""
        self.agreed = keep(self.world, self.agreed)
        store, flight = self.world.store, errand.flight
        row, lease = store.rows.get(flight.task_id), store.leases.get(flight.task_id)
        holds = lease is not None and lease[0] == self.name
        name = type(settled.outcome).__name__
        self.world.tell(f"{self.name} settles {flight.verb} of {flight.agent.id}: {name}")
        self._tell_account(errand, settled)
        if row is None or not holds or not late.is_awaited(row.status, flight):
            learn_late(self.world, errand, settled)
        else:
            self._evolve(row, errand, settled)
        self._pass_on(errand, settled, row)
        self.world.checkers.settled(flight.agent.id, handle_of(errand, settled), store)
        self.wake(self.world.lots_between(0.001, 0.02))

    def _pass_on(self, errand: Errand, settled: Settled, row: Row | None) -> None:
        """Tell of what an outcome found beside what was asked: early words, names, others."""
        store, account, outcome = self.world.store, errand.account.name, settled.outcome
        if not isinstance(outcome, Done | Gone):
            return
        now, task_id = self.world.clock, errand.flight.task_id
        handle = outcome.handle if isinstance(outcome, Done) else None
        if handle is not None and store.facts.is_parked(account, handle):
            store.note(task_id, What.FACT, now)
        name = outcome.name if isinstance(outcome, Done) else None
        if name is not None and row is not None and row.is_reported:
            orphans.recognise(store, task_id, name, now)
        for one in filter(OWNER.may_have, outcome.seen):
            store.receive(account, seen(one, errand, settled), now)

    def _evolve(self, row: Row, errand: Errand, settled: Settled) -> None:
        store, now, flight = self.world.store, self.world.clock, errand.flight
        row = replace(row, task=store.tasks.get(flight.task_id))
        account, ahead = store.accounts[errand.account.name], self.world.shift - errand.shift
        if ahead > steps.NOTICED:
            # The row was put off where it lies; what the call knows of it was not.
            _, flight, settled = steps.put_off(row, flight, settled, ahead)
        step = evolve.evolve(row, flight, settled, account)
        del store.leases[flight.task_id]
        store.commit(arrange.arrange(step.row, account, now), step.ended)

    def _tell_account(self, errand: Errand, settled: Settled) -> None:
        """Keep what an outcome says about the account: pace, denial, clock, breaker."""
        store, name, at = self.world.store, errand.account.name, settled.answered_at
        account = store.accounts[name]
        breaker = store.breakers[name].record(settled.outcome, at)
        store.breakers[name] = breaker
        account = replace(account, circuit_open_until=breaker.open_until)
        match settled.outcome:
            case Throttled(capacity=False):
                key = (name, errand.flight.verb)
                until = self.world.microseconds(at + timedelta(seconds=1))
                store.buckets[key] = store.buckets[key].throttle(until)
            case Denied():
                account = replace(account, denied_until=at + DENIAL)
            case Expired() if errand.request.backdated:
                account = replace(account, backdated=False)
            case _:
                pass
        store.accounts[name] = account


def may_leave(errand: Errand, now: datetime) -> bool:
    """Whether a call can still be done within its lease, and within the grace of its slot."""
    return errand.lease_until - now >= CALL_TIMEOUT and now - errand.slot <= GRACE


def handle_of(errand: Errand, settled: Settled) -> str | None:
    """The handle that an outcome brought."""
    match settled.outcome:
        case Done(handle=handle) if errand.flight.verb is Verb.START:
            return handle or errand.flight.agent.session_name
        case Done(handle=handle) if errand.flight.verb is Verb.FIND:
            return handle
        case _:
            return None


def learn_late(world: "World", errand: Errand, settled: Settled) -> None:
    """Write what an outcome found that lost its fence: a handle, to its ledger row."""
    handle = handle_of(errand, settled)
    if handle is not None:
        flight = errand.flight
        world.store.learn(flight.agent.id, handle, flight.task_id, world.clock)


def seen(name: str, errand: Errand, settled: Settled) -> Fact:
    """What a look into a room tells of one of those who were in it."""
    return Fact(
        key=f"seen:{name}:{settled.asked_at:%H:%M}",
        event=Event.SEEN,
        event_at=settled.asked_at,
        name=name,
        room_id=errand.flight.agent.room_id,
    )


def draw_name(world: "World", task_id: str) -> str:  # noqa: ARG001 - a wrong core derives it
    """Draw a name that nothing has borne."""
    return names.compose(PREFIX, MARK, world.lots.randbytes(names.RANDOM_LENGTH))


def _sign(flight: Flight, account: Account, row: Row, shift: timedelta) -> Request:
    """Sign a start with the time of its announce; so too a stop that a late one would follow.

    What is signed is the vendor's time: a database's clock that is off by `shift` is made up for.
    """
    caps, task = account.caps, row.task
    fenced = flight.verb is Verb.START or (flight.verb is Verb.STOP and caps.one_per_user)
    backdated = fenced and account.backdated
    life = account.signature_life if backdated else caps.signature_window
    return Request(
        task_id=flight.task_id,
        verb=flight.verb,
        agent=flight.agent,
        spec=task.spec["v"] if task is not None else 0,
        signed_at=flight.announced_at - shift,
        good_until=flight.announced_at - shift + life,
        backdated=backdated,
    )
