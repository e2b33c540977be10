"""What is true at the simulated vendors: rooms, the users in them, agents, and their bills.

Rule 1: the world does nothing by itself. Every question brings its own `now`, and `advance` first
lets everything happen that was due by then, at the instant at which it was due.
Rule 2: an agent that ended never changes again. All agents ever are kept, so that a test can ask
who paid for what.
Rule 3: a vendor's rules live in the vendor's file. What the world knows of them are values: whose
absence is idleness, and for how long.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from orchestrator.simulator.switches import Switches


class Vendor(StrEnum):
    """Who is simulated."""

    VOLCENGINE = "volcengine"
    TENCENT = "tencent"
    ZEGO = "zego"


class Why(StrEnum):
    """Why an agent ended, the same words for all vendors."""

    REQUESTED = "requested"
    IDLE = "idle"
    KICKED = "kicked"
    EVICTED = "evicted"  # a later agent came with the same user id
    STREAM_CLASH = "stream_clash"  # its stream id was in use
    ROOM_DISMISSED = "room_dismissed"
    FAULT = "fault"


class Idleness(StrEnum):
    """What makes an agent idle, by the vendor's rule."""

    USER_ABSENT = "user_absent"
    NOBODY_PUBLISHES = "nobody_publishes"


class RoomKey(NamedTuple):
    """Which room. `kind` tells Tencent's numeric rooms from its string rooms; else empty."""

    vendor: Vendor
    app_id: str
    room_id: str
    kind: str = ""


@dataclass(slots=True)
class User:
    """A human in a room, or known to be away from it."""

    present: bool
    publishing: bool


@dataclass(slots=True)
class Room:
    """A room, its humans by user id, and its live agents by their number."""

    key: RoomKey
    users: dict[str, User] = field(default_factory=dict)
    agents: dict[int, "Agent"] = field(default_factory=dict)


class Exchange(NamedTuple):
    """What the user said, and as much of the answer as came."""

    said: str
    answered: str


@dataclass(slots=True, kw_only=True, eq=False)
class Agent:
    """One agent at a vendor, from its start to its end and ever after."""

    number: int
    account: str
    room: Room
    user_id: str
    agent_user_id: str
    handle: str
    """What a stop goes by: TaskId (Volcengine, Tencent) or AgentInstanceId."""
    session_id: str = ""
    """Tencent's SessionId."""
    stream_id: str = ""
    """ZEGO's AgentStreamId."""
    region: str = ""
    version: str = ""
    idleness: Idleness
    idle_limit: timedelta
    started_at: datetime
    joined_at: datetime | None = None
    in_room: bool = False
    idle_since: datetime | None = None
    ended_at: datetime | None = None
    why: Why | None = None
    llm: Mapping[str, Any] | None = field(default=None, repr=False)
    """How the customer's own LLM is asked, in the vendor's fields; null: there is none."""
    round: int = 0
    """The newest round of the conversation."""
    exchanges: tuple[Exchange, ...] = ()
    """The newest of them, oldest first."""

    @property
    def id(self) -> str:
        """Its name in this simulator, the same for every vendor."""
        return f"a{self.number}"

    @property
    def vendor(self) -> Vendor:
        """Whose it is."""
        return self.room.key.vendor

    @property
    def app_id(self) -> str:
        """The vendor's application it belongs to."""
        return self.room.key.app_id

    @property
    def is_live(self) -> bool:
        """Whether it runs, and bills."""
        return self.ended_at is None

    def billed_s(self, now: datetime) -> float:
        """Return the seconds from its start to its end, or to now."""
        return ((self.ended_at or now) - self.started_at).total_seconds()


class Happened(StrEnum):
    """What the world tells of an agent."""

    JOINED = "joined"
    ENDED = "ended"


Listener = Callable[[Happened, Agent, datetime], None]


class World:
    """All rooms and agents of all vendors."""

    def __init__(self, switches: Switches) -> None:
        self.switches = switches
        self.agents: list[Agent] = []
        self.rooms: dict[RoomKey, Room] = {}
        self._listeners: list[Listener] = []
        self._due: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._turns = count()

    def advance(self, now: datetime) -> None:
        """Let everything happen that is due, in its order."""
        while self._due and self._due[0][0] <= now:
            at, _, event = heapq.heappop(self._due)
            event(at)

    def next_due(self) -> datetime | None:
        """Return when something will next happen by itself."""
        return self._due[0][0] if self._due else None

    def schedule(self, at: datetime, event: Callable[[datetime], None]) -> None:
        """Let `event(at)` happen when the time comes."""
        heapq.heappush(self._due, (at, next(self._turns), event))

    def listen(self, listener: Listener) -> None:
        """Be told of every agent that joined or ended."""
        self._listeners.append(listener)

    def room(self, key: RoomKey) -> Room:
        """Return the room, opened if nobody spoke of it before."""
        room = self.rooms.get(key)
        if room is None:
            room = self.rooms[key] = Room(key)
        return room

    def next_number(self) -> int:
        """Return the number of the agent that starts next."""
        return len(self.agents)

    def start(self, agent: Agent) -> None:
        """Take the agent in. It joins its room after the join delay."""
        now = agent.started_at
        self.agents.append(agent)
        agent.room.agents[agent.number] = agent
        self.user(agent.room, agent.user_id)
        delay = self.switches.join_delay_ms
        if delay:
            self.schedule(now + timedelta(milliseconds=delay), partial(self._join, agent))
        else:
            self._join(agent, now)
        self._review_agent(agent, now)

    def knows(self, agent: Agent, now: datetime) -> bool:
        """Return whether the agent runs and the vendor has noticed."""
        if agent.ended_at is not None:
            return False
        lag = self.switches.visibility_lag_ms
        return not lag or now >= agent.started_at + timedelta(milliseconds=lag)

    def end(self, agent: Agent, why: Why, now: datetime) -> None:
        """End the agent, once; its bill stops."""
        if not agent.is_live:
            return
        agent.ended_at = now
        agent.why = why
        agent.in_room = False
        del agent.room.agents[agent.number]
        self._tell(Happened.ENDED, agent, now)
        self._review_company(agent.room, now)

    def user(self, room: Room, user_id: str) -> User:
        """Return the user, who is where the switches say if nobody said otherwise."""
        user = room.users.get(user_id)
        if user is None:
            present = self.switches.users_present
            user = User(present=present, publishing=present and self.switches.users_publish)
            room.users[user_id] = user
        return user

    def place_user(self, room: Room, user_id: str, user: User, now: datetime) -> None:
        """Say where a user is from now on."""
        room.users[user_id] = user
        self._review(room, now)

    def present_users(self, room: Room) -> Iterator[str]:
        """Return the user ids of the humans in the room."""
        return (user_id for user_id, user in room.users.items() if user.present)

    def present_agents(self, room: Room) -> Iterator[str]:
        """Return the user ids of the agents in the room."""
        return (agent.agent_user_id for agent in room.agents.values() if agent.in_room)

    def kick(self, room: Room, user_ids: Iterable[str], now: datetime, *, ends: bool) -> None:
        """Remove these users from the room. `ends`: an agent that is removed has ended."""
        for user_id in user_ids:
            user = room.users.get(user_id)
            if user is not None:
                user.present = user.publishing = False
            for agent in [a for a in room.agents.values() if a.agent_user_id == user_id]:
                # One that has not joined yet is not there to be kicked, and joins later.
                if agent.in_room:
                    self._remove(agent, now, ends=ends)
        self._review(room, now)

    def dismiss(self, room: Room, now: datetime) -> None:
        """Close the room: everybody is out, and its agents have ended."""
        for user in room.users.values():
            user.present = user.publishing = False
        for agent in list(room.agents.values()):
            self.end(agent, Why.ROOM_DISMISSED, now)

    def _remove(self, agent: Agent, now: datetime, *, ends: bool) -> None:
        agent.in_room = False
        if ends:
            self.end(agent, Why.KICKED, now)

    def _join(self, agent: Agent, now: datetime) -> None:
        if not agent.is_live:
            return
        agent.joined_at = now
        agent.in_room = True
        self._tell(Happened.JOINED, agent, now)
        self._review_company(agent.room, now)

    def _tell(self, happened: Happened, agent: Agent, now: datetime) -> None:
        for listener in self._listeners:
            listener(happened, agent, now)

    def _review_company(self, room: Room, now: datetime) -> None:
        """Look at the others when an agent comes or goes, where that matters to them."""
        if self.switches.tencent_agents_publish:
            self._review(room, now)

    def _review(self, room: Room, now: datetime) -> None:
        for agent in room.agents.values():
            self._review_agent(agent, now)

    def _review_agent(self, agent: Agent, now: datetime) -> None:
        """Start or stop the agent's idle clock."""
        if not agent.is_live or not self._is_idle(agent):
            agent.idle_since = None
        elif agent.idle_since is None:
            agent.idle_since = now
            self.schedule(now + agent.idle_limit, partial(self._end_if_idle, agent))

    def _end_if_idle(self, agent: Agent, now: datetime) -> None:
        # The clock may have been stopped and started again since this was scheduled.
        if agent.idle_since is not None and agent.idle_since + agent.idle_limit <= now:
            self.end(agent, Why.IDLE, now)

    def _is_idle(self, agent: Agent) -> bool:
        match agent.idleness:
            case Idleness.USER_ABSENT:
                return not agent.room.users[agent.user_id].present
            case Idleness.NOBODY_PUBLISHES:
                if any(user.publishing for user in agent.room.users.values()):
                    return False
                return not (self.switches.tencent_agents_publish and self._has_company(agent))

    def _has_company(self, agent: Agent) -> bool:
        return any(other.in_room and other is not agent for other in agent.room.agents.values())
