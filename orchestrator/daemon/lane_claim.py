"""Claim lanes, decide, announce: as `claim` does for tasks, for what is said to running agents.

The lane is locked first, and everything else read after. What its command becomes is written
before it leaves: the number is used up, and a crash leaves a command that may have been sent.

Rule 1: a lane without a slot or a place is left untouched, and no other lane waits for it.
Rule 2: nothing here knows the order of commands; `core.lane_decide` does.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, assert_never

from orchestrator.clock import Anchor, boot_ns
from orchestrator.core.command import Command
from orchestrator.core.lane import (
    CommandFlight,
    Lane,
    LaneView,
    Reason,
    Refusal,
    Rest,
    Send,
    Settle,
    situation_of,
)
from orchestrator.core.lane_decide import decide_lane, settle_forgotten
from orchestrator.core.lane_evolve import announce_lane
from orchestrator.core.model import Account
from orchestrator.daemon.book import AccountRuntime, Book
from orchestrator.daemon.claim import Present
from orchestrator.daemon.limiter import Action, Ticket
from orchestrator.daemon.stranger import account_name
from orchestrator.providers.spec import resolve_secrets
from orchestrator.store import accounts, lanes, rows
from orchestrator.store.draft import Draft
from orchestrator.store.engine import Connection
from orchestrator.store.lanes import HeldLane, LaneCandidate
from orchestrator.store.reading import Read, read

LEASE: Final = timedelta(seconds=3)
"""A lane's lease is short: after a crash an open microphone must not wait for a task's lease."""
SETTLES_MAX: Final = 4 * lanes.COMMANDS_MAX
"""More verdicts than one look at a lane can need."""

LaneTickets = Mapping[Action, list[Ticket]]
"""Tickets drawn for actions that are limited. An action that is not there needs none."""
Room = dict[tuple[str, bool], int]
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


@dataclass(slots=True, kw_only=True)
class ClaimedLanes:
    """What a claim of lanes did."""

    orders: list[CommandOrder] = field(default_factory=list)
    lacking: Counter[Action] = field(default_factory=Counter)
    """Actions of commands that would have been sent, had there been a ticket for them."""
    written: int = 0


def claim_lanes(
    connection: Connection,
    desk: LaneDesk,
    candidates: Sequence[LaneCandidate],
    tickets: LaneTickets,
    room: Room,
) -> ClaimedLanes:
    """Claim as many of these lanes as can be acted on."""
    before_ns = boot_ns()
    now, standings = accounts.read_present(connection)
    anchor = Anchor(then=now, before_ns=before_ns, after_ns=boot_ns())
    lanes.ensure(connection, {(one.task_id, one.user_id) for one in candidates})
    ids = sorted({one.task_id for one in candidates})
    locked = [one.lane for one in lanes.lock_free(connection, ids, now)]
    present = Present(anchor=anchor, standings=standings)
    work = _LaneClaim(connection, desk, tickets, room, present)
    work.run(locked)
    return work.claimed


class _LaneClaim:
    """One claim of lanes: what it may use, and all that it will write."""

    def __init__(
        self,
        connection: Connection,
        desk: LaneDesk,
        tickets: LaneTickets,
        room: Room,
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
        self.commands: dict[str, Command] = {}
        self.seen: list[str] = []
        self.cancelled: frozenset[str] = frozenset()

    def run(self, locked: Sequence[Lane]) -> None:
        """Decide about each lane, and write what came of it."""
        ids = sorted({lane.task_id for lane in locked})
        found = read(self.connection, rows.read_statuses(self.connection, ids), self.now)
        tasks = {one.row.status.task_id: one for one in found}
        commands = _by_lane(lanes.read_commands(self.connection, ids, self.desk.command_ttl))
        ours = [(lane.task_id, lane.user_id) for lane in locked]
        known = [command.id for key in ours for command in commands.get(key, ())]
        self.cancelled = lanes.take_cancels(self.connection, known)
        for lane in locked:
            one = tasks.get(lane.task_id)
            name = account_name(one.row) if one is not None else ""
            mine = commands.get((lane.task_id, lane.user_id), ())
            if one is None:
                self._bury(lane, mine)
                continue
            if name not in self.desk.book.runtimes:
                self._leave(lane, mine)
                continue
            account = self.desk.book.account(name, self.standings.get(name), None)
            self._take(lane, mine, one, account)
        self._write()

    def _take(self, lane: Lane, commands: tuple[Command, ...], one: Read, account: Account) -> None:
        runtime = self.desk.book.runtimes[account.name]
        view = LaneView(
            lane=lane,
            commands=commands,
            situation=situation_of(
                one.row, one.row.status.retired_at, is_told_more=bool(one.changes)
            ),
            account=account,
            gap_timeout=self.desk.gap_timeout,
            now=self.now,
            refusals=dict(_refusals(runtime, self.desk.book, commands)),
            cancelled=self.cancelled,
        )
        for _ in range(SETTLES_MAX):
            match decide_lane(view):
                case Settle() as settle:
                    self._settle(one, settle)
                    view = view.after(settle)
                case Rest() as rest:
                    self._rest(view, rest)
                    return
                case Send() as send:
                    self._send(one, view, send, lane)
                    return
                case other:
                    assert_never(other)

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

    def _rest(self, view: LaneView, rest: Rest) -> None:
        self.held.append(HeldLane(lane=rest.lane, due_at=rest.until))
        self.seen += [command.id for command in view.commands]

    def _send(self, one: Read, view: LaneView, send: Send, locked: Lane) -> None:
        runtime = self.desk.book.runtimes[view.account.name]
        place = (view.account.name, view.lane.listens)
        name = runtime.provider.command_action(send.command) or ""
        action = Action(account=view.account.name, name=name)
        drawn = self.tickets.get(action)
        if self.room.get(place, 0) <= 0 or (drawn is not None and not drawn):
            self.claimed.lacking[action] += 1
            self._keep_waiting(view, locked)
            return
        self.room[place] -= 1
        lane, flight = announce_lane(view, send)
        until = self.now + LEASE
        self.held.append(
            HeldLane(lane=lane, due_at=until, lease_owner=self.desk.daemon_id, lease_until=until)
        )
        self.commands[flight.command.id] = flight.command
        self.seen += [command.id for command in view.commands]
        if send.skipped is not None:
            first, last = send.skipped
            said = f"sequence {first} to {last} did not come in time"
            self._tell_gap(one, flight, said)
        self.claimed.orders.append(
            CommandOrder(
                lane=lane,
                flight=flight,
                account=view.account,
                ticket=drawn.pop(0) if drawn else None,
                anchor=self.anchor,
                lease_ends_ns=self.anchor.surely_before_ns(until),
            )
        )

    def _keep_waiting(self, view: LaneView, locked: Lane) -> None:
        """Leave a lane without a slot untouched; only what was settled of it is written."""
        if view.lane is not locked:
            self.held.append(HeldLane(lane=view.lane, due_at=self.now))

    def _bury(self, lane: Lane, commands: tuple[Command, ...]) -> None:
        """Settle what is left of a task that is forgotten. Its history has gone before."""
        end = settle_forgotten(lane, commands, self.now)
        self.commands |= {command.id: command for command in end.commands}
        self.held.append(HeldLane(lane=end.lane, due_at=None))

    def _leave(self, lane: Lane, commands: tuple[Command, ...]) -> None:
        """Leave the lane of a task that nobody here can call about: another daemon may."""
        self.seen += [command.id for command in commands]
        self.held.append(HeldLane(lane=lane, due_at=self.now + timedelta(minutes=1)))

    def _tell_gap(self, one: Read, flight: CommandFlight, said: str) -> None:
        self.draft.tell(
            "gap",
            one.row,
            actor=self.desk.daemon_name,
            command_id=flight.command.id,
            action=flight.command.kind.value,
            message=said,
        )

    def _write(self) -> None:
        lanes.write_commands(self.connection, self.commands.values(), self.now)
        left = [id_ for id_ in self.seen if id_ not in self.commands]
        lanes.see(self.connection, left, self.now)
        lanes.write_lanes(self.connection, self.held)
        self.draft.write(self.connection)
        self.claimed.written = len(self.held) + len(self.commands)


def _by_lane(commands: Iterable[Command]) -> dict[tuple[str, str], tuple[Command, ...]]:
    """Return commands by the lane that they are in."""
    found: dict[tuple[str, str], list[Command]] = defaultdict(list)
    for command in commands:
        found[command.task_id, command.user_id if command.kind.listens else ""].append(command)
    return {key: tuple(some) for key, some in found.items()}


def _refusals(
    runtime: AccountRuntime, book: Book, commands: Sequence[Command]
) -> Iterable[tuple[str, Refusal]]:
    """Find what the vendor has no call for, or would refuse, before a call is spent on it."""
    for command in commands:
        if runtime.provider.command_action(command) is None:
            said = f"the vendor has no {command.kind.value}"
            yield command.id, Refusal(reason=Reason.UNSUPPORTED, message=said)
            continue
        payload, unknown = resolve_secrets(command.payload, book.secrets, "payload")
        wanted = replace(command, payload=payload)
        problems = unknown or runtime.provider.command_problems(wanted)
        if problems:
            said = "; ".join(str(problem) for problem in problems)
            yield command.id, Refusal(reason=Reason.INVALID_PAYLOAD, message=said)
