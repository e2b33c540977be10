"""Four vendors as state machines, one for each kind of recovery; what they do, not how they say it.

A vendor answers a request at the instant at which it arrives. It knows nothing of rows: the fields
`task_id` and `incarnation` of an instance are for the checkers alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.fact import Event
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import Done, Expired, Gone, Outcome, Throttled

CAPS: dict[Recovery, Caps] = {
    Recovery.SAME_NAME: Caps(
        recovery=Recovery.SAME_NAME,
        names_handle=True,
        poll_proves_absence=False,
        signature_window=timedelta(seconds=900),
    ),
    Recovery.FIND: Caps(
        recovery=Recovery.FIND,
        names_handle=False,
        poll_proves_absence=True,
        signature_window=timedelta(seconds=300),
    ),
    Recovery.EVICT: Caps(
        recovery=Recovery.EVICT,
        names_handle=False,
        poll_proves_absence=True,
        signature_window=timedelta(seconds=600),
        agent_user_scope="account",
    ),
    Recovery.STOP_FIRST: Caps(
        recovery=Recovery.STOP_FIRST,
        names_handle=True,
        poll_proves_absence=False,
        signature_window=timedelta(seconds=900),
        one_per_user=True,
    ),
}

JOIN_MAX = timedelta(seconds=9)
"""How long a vendor may not know an agent that it has taken: less than `settle_in`."""


@dataclass(slots=True, kw_only=True)
class Request:
    """One call on its way to a vendor."""

    task_id: str
    verb: Verb
    agent: Agent
    spec: int
    signed_at: datetime
    """When it was announced."""
    good_until: datetime
    """By the vendor's clock: the end of the signature's life."""
    backdated: bool
    lost_in_reset: bool = False
    """The sender reset the connection before any of it had arrived."""


@dataclass(slots=True, kw_only=True, eq=False)
class Instance:
    """One agent that a vendor runs, and bills, from `taken_at` on."""

    handle: str
    task_id: str
    incarnation: int
    agent_id: str
    session: str
    agent_user: str
    room: str
    user: str
    spec: int
    taken_at: datetime
    joins_at: datetime
    is_foreign: bool = False
    """Somebody else started it."""
    ended_by: str | None = None

    def has_joined(self, now: datetime) -> bool:
        return self.joins_at <= now


@dataclass(slots=True, kw_only=True)
class Vendor:
    """One account at one vendor."""

    recovery: Recovery
    lots: Random
    capacity: int
    skew: timedelta
    """How far the vendor's clock is behind ours, within the clock margin."""
    takes_over: bool
    """FIND: whether a later agent of the same user interrupts the earlier."""
    shows_agents: bool
    """Whether a look into the room shows agents at all."""
    believes_backdated: bool
    down_until: datetime
    is_deadly: bool = False
    """Whether its agents die soon after their birth, whoever starts them."""
    blindness: float = 0.01
    """How often a look into a room misses an agent."""
    tell: Callable[[Instance, Event], None] = lambda _instance, _event: None
    """Called when an agent is taken or has ended: what callbacks are made of."""
    live: list[Instance] = field(default_factory=list)
    ended: list[Instance] = field(default_factory=list)
    made: int = 0

    def answer(self, request: Request, now: datetime) -> Outcome:
        """Carry out a request, and say what came of it."""
        self.pass_time(now)
        if now - self.skew > request.good_until:
            return Expired(code="SignatureExpired")
        if request.backdated and not self.believes_backdated:
            return Expired(code="SignatureExpired")
        match request.verb:
            case Verb.START:
                return self._start(request, now)
            case Verb.STOP:
                return self._end(self._named(request.agent, now), "stop")
            case Verb.KICK:
                return self._end(self._in_room(request.agent, now), "kick")
            case Verb.FIND:
                return self._find(request.agent, now)
            case Verb.POLL:
                return self._poll(request.agent, now)
            case Verb.UPDATE:
                return Done() if any(self._named(request.agent, now)) else Gone(code="NotFound")

    def pass_time(self, now: datetime) -> None:
        """Let those join that are due: at a vendor that evicts, each evicts the earlier ones."""
        if self.recovery is not Recovery.EVICT:
            return
        joined = sorted((i for i in self.live if i.has_joined(now)), key=lambda i: i.joins_at)
        latest = {instance.agent_user: instance for instance in joined}
        for instance in joined:
            if latest[instance.agent_user] is not instance:
                self.end(instance, "evicted")

    def end(self, instance: Instance, why: str) -> None:
        instance.ended_by = why
        self.live.remove(instance)
        self.ended.append(instance)
        self.tell(instance, Event.ENDED)

    def _start(self, request: Request, now: datetime) -> Outcome:
        agent = request.agent
        if self.recovery is Recovery.SAME_NAME:
            for instance in self.live:
                if instance.session == agent.session_name:
                    return Done(handle=instance.handle, message="already started")
        if self.recovery is Recovery.EVICT and len(self.live) >= self.capacity:
            return Throttled(code="410000011", capacity=True)
        if self.recovery is Recovery.FIND and self.takes_over:
            for instance in list(self._in_room(agent, now)):
                self.end(instance, "evicted")
        instance = self._make(request, now)
        return Done(handle=None if self.recovery is Recovery.STOP_FIRST else instance.handle)

    def _make(self, request: Request, now: datetime) -> Instance:
        agent = request.agent
        named = CAPS[self.recovery].names_handle
        lag = JOIN_MAX * self.lots.choice((0, 0, 0, 1, self.lots.random()))
        instance = Instance(
            handle=agent.session_name if named else f"h{self.made + 1}",
            task_id=request.task_id,
            incarnation=agent.incarnation,
            agent_id=agent.id,
            session=agent.session_name,
            agent_user=agent.name,
            room=agent.room_id,
            user=agent.user_id,
            spec=request.spec,
            taken_at=now,
            joins_at=now + lag,
        )
        self.take(instance)
        return instance

    def take(self, instance: Instance) -> None:
        """Let an agent live."""
        self.made += 1
        self.live.append(instance)
        self.tell(instance, Event.STARTED)

    def _named(self, agent: Agent, now: datetime) -> Iterator[Instance]:
        """Yield what a stop of this agent hits."""
        for instance in self.live:
            if instance.has_joined(now) and self._is_named(instance, agent):
                yield instance

    def _is_named(self, instance: Instance, agent: Agent) -> bool:
        match self.recovery:
            case Recovery.STOP_FIRST:
                return (instance.room, instance.user) == (agent.room_id, agent.user_id)
            case Recovery.SAME_NAME:
                return instance.handle == (agent.vendor_task_id or agent.session_name)
            case Recovery.FIND | Recovery.EVICT:
                return instance.handle == agent.vendor_task_id

    def _in_room(self, agent: Agent, now: datetime) -> Iterator[Instance]:
        for instance in self.live:
            place = (instance.room, instance.agent_user)
            if instance.has_joined(now) and place == (agent.room_id, agent.name):
                yield instance

    def _end(self, hit: Iterator[Instance], why: str) -> Outcome:
        ended = list(hit)
        for instance in ended:
            self.end(instance, why)
        return Done() if ended else Gone(code="NotFound")

    def _find(self, agent: Agent, now: datetime) -> Outcome:
        if self.recovery is not Recovery.FIND:
            seen = self._seen(agent.room_id, now)
            there = any(self._in_room(agent, now))
            return Done(seen=seen) if there else Gone(code="NotFound", seen=seen)
        for instance in self.live:
            if instance.session == agent.session_name and instance.has_joined(now):
                return Done(handle=instance.handle, name=instance.session)
        return Gone(code="NotFound")

    def _poll(self, agent: Agent, now: datetime) -> Outcome:
        if CAPS[self.recovery].poll_proves_absence:
            for instance in self._named(agent, now):
                return Done(name=instance.session if self.recovery is Recovery.FIND else None)
            return Gone(code="NotFound")
        if not self.shows_agents or self.lots.random() < self.blindness:
            return Gone()
        seen = self._seen(agent.room_id, now)
        return Done(seen=seen) if any(self._in_room(agent, now)) else Gone(seen=seen)

    def _seen(self, room: str, now: datetime) -> tuple[str, ...]:
        """Return the user ids in a room that are of anybody's choosing."""
        if self.recovery is Recovery.STOP_FIRST:
            return ()
        return tuple(i.agent_user for i in self.live if i.room == room and i.has_joined(now))
