"""Claim lanes, decide, announce: as `claim` does for tasks, for what is said to running agents.

The lane is locked first, and everything else read after. What its command becomes is written
before it leaves: the number is used up, and a crash leaves a command that may have been sent.

Rule 1: a lane without a slot or a place is parked, and no other lane waits for it. Slots go to who
has waited longest, and to fresh commands before those that were refused for the moment.
Rule 2: nothing here knows the order of commands; `core.lane_decide` does.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from orchestrator.clock import Anchor, boot_ns
from orchestrator.core.command import Command, Kind
from orchestrator.core.lane import (
    CommandFlight,
    Lane,
    LaneView,
    Rest,
    Send,
    Settle,
    situation_of,
)
from orchestrator.core.lane_decide import decide_lane, settle_forgotten
from orchestrator.core.lane_evolve import announce_lane
from orchestrator.core.model import Account
from orchestrator.daemon.book import Book
from orchestrator.daemon.claim import Present
from orchestrator.daemon.limiter import Action, Ticket
from orchestrator.daemon.refusals import find_refusals
from orchestrator.daemon.stranger import NOBODY, account_name
from orchestrator.store import accounts, lanes, rows
from orchestrator.store.draft import Draft
from orchestrator.store.engine import Connection
from orchestrator.store.lane_queue import LaneCandidate
from orchestrator.store.lanes import HeldLane
from orchestrator.store.reading import Read, read

LEASE: Final = timedelta(seconds=3)
"""A lane's lease is short: after a crash an open microphone must not wait for a task's lease."""
LOOK_AGAIN: Final = timedelta(seconds=1)
"""When a lane is looked at again whose task has no status yet."""
TURN: Final = timedelta(microseconds=1)
"""What lanes that are parked together are apart: the databases keep no less."""
SETTLES_MAX: Final = 4 * lanes.COMMANDS_MAX
"""More verdicts than one look at a lane can need."""

LaneTickets = Mapping[Action, list[Ticket]]
"""Tickets drawn for actions that are limited. An action that is not there needs none."""
LaneRoom = dict[tuple[str, bool], int]
"""Calls that may still begin, by account and whether they listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneDesk:
    """What a claim of lanes works with besides the database."""

    daemon_id: str
    daemon_name: str
    book: Book
    gap_timeout: timedelta
    command_ttl: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOrder:
    """An announced command, to be sent after the commit."""

    lane: Lane
    flight: CommandFlight
    account: Account
    ticket: Ticket | None
    anchor: Anchor
    lease_ends_ns: int
    changed_at: datetime | None
    """When the application asked for it, if nothing but us was waited for since."""


@dataclass(slots=True, kw_only=True)
class ClaimedLanes:
    """What a claim of lanes did."""

    orders: list[CommandOrder] = field(default_factory=list)
    lacking: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    """By account: commands that would have been sent, had there been a slot and a place."""
    written: int = 0


def claim_lanes(
    connection: Connection,
    desk: LaneDesk,
    candidates: Sequence[LaneCandidate],
    tickets: LaneTickets,
    room: LaneRoom,
) -> ClaimedLanes:
    """Claim as many of these lanes as can be acted on. They come by whose turn it is."""
    before_ns = boot_ns()
    now, standings = accounts.read_present(connection)
    anchor = Anchor(then=now, before_ns=before_ns, after_ns=boot_ns())
    desk.book.timekeeper.keep(connection, anchor)
    lanes.ensure(connection, {one.key for one in candidates if not one.is_there})
    ids = sorted({one.task_id for one in candidates})
    locked = {held.key: held for held in lanes.lock(connection, ids)}
    in_order = [locked[one.key] for one in candidates if one.key in locked]
    present = Present(anchor=anchor, standings=standings)
    work = _LaneClaim(connection, desk, tickets, room, present)
    work.run(in_order, takes_back=any(one.is_taken_back for one in candidates))
    return work.claimed


class _LaneClaim:
    """One claim of lanes: what it may use, and all that it will write."""

    def __init__(
        self,
        connection: Connection,
        desk: LaneDesk,
        tickets: LaneTickets,
        room: LaneRoom,
        present: Present,
    ) -> None:
        self.connection = connection
        self.desk = desk
        self.tickets = tickets
        self.room = room
        self.anchor = present.anchor
        self.standings = present.standings
        self.now = present.anchor.then
        self.claimed = ClaimedLanes()
        self.draft = Draft(now=self.now)
        self.held: list[HeldLane] = []
        self.buried: list[tuple[str, str]] = []
        self.commands: dict[str, Command] = {}
        self.cancelled: frozenset[str] = frozenset()
        self.told_more: Collection[str] = ()

    def run(self, locked: Sequence[HeldLane], *, takes_back: bool) -> None:
        """Decide about each lane that is free; what is new of all of them is known from now on.

        `takes_back`: whether the application takes commands of some of them back.

        One that is in flight has a time already: the end of its lease, or of its call.
        """
        free = [held for held in locked if held.is_free(self.now)]
        free.sort(key=_is_put_off)
        commands = self._read_commands(free, takes_back=takes_back)
        tasks = self._read_tasks(free)
        anew = self._inserted_anew({held.lane.task_id for held in free} - tasks.keys())
        for held in free:
            mine = commands.get(held.key, ())
            one = tasks.get(held.lane.task_id)
            if one is not None:
                self._take(held, mine, one)
            elif held.lane.task_id in anew:
                self.held.append(HeldLane(lane=held.lane, due_at=self.now + LOOK_AGAIN))
            else:
                self._bury(held.lane, mine)
        self._see(locked, commands)
        self._write()

    def _read_commands(
        self, free: Sequence[HeldLane], *, takes_back: bool
    ) -> dict[tuple[str, str], tuple[Command, ...]]:
        """Return the open commands of lanes.

        Before the tasks: those of a task that is inserted anew are not buried with the old one's.
        """
        keys, ttl = {held.key for held in free}, self.desk.command_ttl
        ids = sorted({task_id for task_id, _ in keys})
        commands = lanes.read_commands(self.connection, ids, ttl)
        if takes_back:
            commands += self._take_back(keys)
        found = _by_lane(commands)
        return {key: some for key, some in found.items() if key in keys}

    def _take_back(self, keys: set[tuple[str, str]]) -> list[Command]:
        """Take the words that take commands of these lanes back; return the commands."""
        ids = sorted({task_id for task_id, _ in keys})
        words = [
            (seq, command)
            for seq, command in lanes.read_taken_back(self.connection, ids, self.desk.command_ttl)
            if (command.task_id, command.lane_user) in keys
        ]
        lanes.take_words(self.connection, [seq for seq, _ in words])
        self.cancelled = frozenset(command.id for _, command in words)
        return [command for _, command in words]

    def _read_tasks(self, free: Sequence[HeldLane]) -> dict[str, Read]:
        """Return how the tasks of lanes stand. Their rows are not locked.

        So changes come first: one that is absorbed while we read is seen, or what it became.
        """
        ids = sorted({held.lane.task_id for held in free})
        self.told_more = rows.read_changes(self.connection, ids).keys()
        found = read(self.connection, rows.read_statuses(self.connection, ids), self.now)
        return {one.row.status.task_id: one for one in found}

    def _inserted_anew(self, ids: set[str]) -> Collection[str]:
        """Return which of these have a task, and no status yet: its insert is about to be seen."""
        return rows.read_tasks(self.connection, sorted(ids), ()) if ids else ()

    def _take(self, held: HeldLane, commands: tuple[Command, ...], one: Read) -> None:
        view = self._view(held.lane, commands, one)
        for _ in range(SETTLES_MAX):
            match decide_lane(view):
                case Settle() as settle:
                    self._settle(one, settle)
                    view = view.after(settle)
                case Rest() as rest:
                    self.held.append(HeldLane(lane=rest.lane, due_at=rest.until))
                    return
                case Send() as send:
                    self._send(one, view, send, held)
                    return
                case other:
                    assert_never(other)

    def _view(self, lane: Lane, commands: tuple[Command, ...], one: Read) -> LaneView:
        name = account_name(one.row)
        runtime = self.desk.book.runtimes.get(name)
        # Of an account that no daemon has nothing is sent, and its commands expire all the same.
        account, refusals = replace(NOBODY, frozen=True), {}
        if runtime is not None:
            account = self.desk.book.account(name, self.standings.get(name), None)
            refusals = dict(find_refusals(runtime, self.desk.book, commands))
        status = one.row.status
        is_told_more = status.task_id in self.told_more or bool(one.changes)
        situation = situation_of(one.row, status.retired_at, is_told_more=is_told_more)
        return LaneView(
            lane=lane,
            commands=commands,
            is_cut=_is_cut(commands),
            situation=situation,
            account=account,
            gap_timeout=self.desk.gap_timeout,
            now=self.now,
            refusals=refusals,
            cancelled=self.cancelled,
        )

    def _settle(self, one: Read, settle: Settle) -> None:
        for command in settle.commands:
            self.commands[command.id] = command
            self.draft.tell(
                "command",
                one.row,
                actor=self.desk.daemon_name,
                command_id=command.id,
                action=command.kind.value,
                outcome=command.state.value,
                code=command.reason,
                message=command.message,
            )

    def _send(self, one: Read, view: LaneView, send: Send, held: HeldLane) -> None:
        name, kind = view.account.name, send.command.kind
        place = (name, view.lane.listens)
        action = self.desk.book.runtimes[name].provider.command_action(send.command) or ""
        drawn = self.tickets.get(Action(account=name, name=action))
        if self.room.get(place, 0) <= 0 or (drawn is not None and not drawn):
            self.claimed.lacking[name, kind] += 1
            self._park(view, kind, held)
            return
        self.room[place] -= 1
        lane, flight = announce_lane(view, send)
        until = self.now + LEASE
        self.held.append(
            HeldLane(lane=lane, due_at=until, lease_owner=self.desk.daemon_id, lease_until=until)
        )
        self.commands[flight.command.id] = flight.command
        if send.skipped is not None:
            self._tell_gap(one, flight, send.skipped)
        self.claimed.orders.append(
            CommandOrder(
                lane=lane,
                flight=flight,
                account=view.account,
                ticket=drawn.pop(0) if drawn else None,
                anchor=self.anchor,
                lease_ends_ns=self.anchor.surely_before_ns(until),
                changed_at=_changed_at(held, flight, one),
            )
        )

    def _park(self, view: LaneView, kind: Kind, held: HeldLane) -> None:
        """Let a lane wait for a slot, and keep since when. Parked once, it is left untouched."""
        if view.lane is held.lane and held.parked_kind is kind:
            return
        # Who is parked at one and the same time keeps the order in which they came.
        parked = self.now + TURN * self.claimed.lacking.total()
        since = held.due_at if held.due_at is not None and held.due_at < self.now else parked
        self.held.append(HeldLane(lane=view.lane, due_at=since, parked_kind=kind))

    def _bury(self, lane: Lane, commands: tuple[Command, ...]) -> None:
        """Settle what is left of a task that is forgotten. Its history has gone before."""
        end = settle_forgotten(lane, commands, self.now)
        self.commands |= {command.id: command for command in end.commands}
        if _is_cut(commands):
            self.held.append(HeldLane(lane=end.lane, due_at=self.now))
        else:
            self.buried.append((lane.task_id, lane.user_id))

    def _tell_gap(self, one: Read, flight: CommandFlight, skipped: tuple[int, int]) -> None:
        first, last = skipped
        self.draft.tell(
            "gap",
            one.row,
            actor=self.desk.daemon_name,
            command_id=flight.command.id,
            action=flight.command.kind.value,
            message=f"sequence {first} to {last} did not come in time",
        )

    def _see(
        self,
        locked: Sequence[HeldLane],
        commands: Mapping[tuple[str, str], tuple[Command, ...]],
    ) -> None:
        """Write down which commands are known by now: their lane has a time, or is parked."""
        whole = [
            held.key
            for held in locked
            if not held.is_free(self.now) or _is_cut(commands.get(held.key, ()))
        ]
        known = {command.id for some in commands.values() for command in some}
        lanes.see(self.connection, sorted(known - self.commands.keys()), self.now)
        lanes.see_all(self.connection, whole, self.now)

    def _write(self) -> None:
        lanes.write_commands(self.connection, self.commands.values(), self.now)
        lanes.write_lanes(self.connection, self.held)
        lanes.remove(self.connection, self.buried)
        self.draft.write(self.connection)
        self.claimed.written = len(self.held) + len(self.buried) + len(self.commands)


def _changed_at(held: HeldLane, flight: CommandFlight, one: Read) -> datetime | None:
    """Return when a command was asked for, if neither slot, number, agent nor retry was waited for.

    Behind an earlier command of its lane it may have waited.
    """
    has_waited = (
        flight.sent_before is not None
        or held.parked_kind is not None
        or held.lane.gap_since is not None
        or held.lane.retry_at is not None
    )
    asked_at, started_at = flight.command.created_at, one.row.status.started_at
    if has_waited or started_at is None or asked_at < started_at:
        return None
    return asked_at


def _is_put_off(held: HeldLane) -> bool:
    """Return whether its command was refused for the moment: others come before it."""
    return held.lane.retry_at is not None


def _is_cut(commands: Sequence[Command]) -> bool:
    """Return whether a lane may have more commands than these."""
    return len(commands) >= lanes.COMMANDS_MAX


def _by_lane(commands: Iterable[Command]) -> dict[tuple[str, str], tuple[Command, ...]]:
    """Return commands by the lane that they are in, each once."""
    found: dict[tuple[str, str], dict[str, Command]] = defaultdict(dict)
    for command in commands:
        found[command.task_id, command.lane_user][command.id] = command
    return {key: tuple(some.values()) for key, some in found.items()}
