"""The parts of a running daemon, and who is given what: the one picture of how they hang together.

Rule 1: it builds and wires, and starts nothing; the order of things is `supervise`'s.
Rule 2: what several parts share is made once, here: the book, the limiter, the tallies, the pulse.
"""

import secrets as lots
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from socket import socket

from orchestrator.core.names import RANDOM_LENGTH, compose
from orchestrator.core.orphan import Owner
from orchestrator.daemon import callbacks, orphans, recorder, settler
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.callback_tally import CallbackTally
from orchestrator.daemon.claim import Desk
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.janitor import Janitor
from orchestrator.daemon.lane_claim import LaneDesk
from orchestrator.daemon.lane_scheduler import LaneParts, LaneScheduler
from orchestrator.daemon.lane_settle import LaneSettling
from orchestrator.daemon.lane_settler import LaneSettler
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.llm.serving import serve_llm
from orchestrator.daemon.monitoring.llm_meter import LlmMeter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.monitoring.vitals import Vitals
from orchestrator.daemon.pulse import Pulse
from orchestrator.daemon.scheduler import Parts, Scheduler
from orchestrator.daemon.service import Service
from orchestrator.daemon.settler import Settler
from orchestrator.daemon.setup import Setup
from orchestrator.daemon.transport import Transport
from orchestrator.wake.base import Waker
from orchestrator.wake.fan import Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the first transaction told."""

    daemon_id: str
    mark: str
    book: Book


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """What runs until it drains, and what settles what they began."""

    tasks: Scheduler
    lanes: LaneScheduler
    settling: Settler
    lane_settling: LaneSettler

    def drain(self) -> None:
        """Claim nothing more."""
        self.tasks.drain()
        self.lanes.drain()

    def finish(self) -> None:
        """All calls have ended: settle what they came to, and end."""
        self.settling.finish()
        self.lane_settling.finish()


class Wiring:
    """Makes the parts of one daemon."""

    def __init__(self, setup: Setup, begun: Begun, meter: Meter) -> None:
        self.setup = setup
        self.begun = begun
        self.book = begun.book
        self.meter = meter
        self.tally = CallTally()
        self.callback_tally = CallbackTally()
        self.pulse = Pulse()
        self.tasks_seat, self.lanes_seat = Seat(), Seat()
        self.limiter = Limiter(setup.database, _limits(setup.keys))
        self.transport = Transport(now=self.book.timekeeper.now, on_date=self.book.note_offset)
        self.gateway = Gateway(
            transport=self.transport,
            limiter=self.limiter,
            book=self.book,
            meter=meter,
            redact=setup.redact,
        )

    def loops(self) -> Loops:
        """Return the two loops, and what settles for them."""
        settling, lane_settling = Settler(self._settler_desk()), self._lane_settler()
        return Loops(
            tasks=Scheduler(self._parts(settling)),
            lanes=LaneScheduler(self._lane_parts(lane_settling)),
            settling=settling,
            lane_settling=lane_settling,
        )

    def renew(self, keys: Keys) -> None:
        """Let every part go by new accounts, limits and secrets from now on."""
        self.book.renew(keys)
        self.limiter.renew(_limits(keys))

    def receive_callbacks(self, bound: socket | None) -> AbstractAsyncContextManager[None]:
        """Receive callbacks while the context is open."""
        mailbox = callbacks.Mailbox(
            book=self.book,
            tally=self.callback_tally,
            now=self.book.timekeeper.now,
            max_body_bytes=self.setup.max_body_bytes,
        )
        return callbacks.receive(bound, self._recorder_desk(), mailbox)

    def serve_llm(self, bound: socket | None) -> AbstractAsyncContextManager[None]:
        """Serve what agents ask for while the context is open."""
        if bound is None or self.setup.llm is None:
            return nullcontext()
        meter = LlmMeter(self.meter.registry)
        return serve_llm(bound, self.setup.llm, self.book, meter, self._recorder_desk())

    def orphans(self) -> orphans.Watch:
        """Return the watch for what runs at the vendors and has no row."""
        return orphans.Watch(
            database=self.setup.database,
            book=self.book,
            owner=self._owner(),
            daemon_id=self.begun.daemon_id,
            daemon_name=self.setup.name,
            nudge=self.tasks_seat.nudge,
        )

    def janitor(self, scheduler: Scheduler) -> Janitor:
        """Return what is done beside the work."""
        return Janitor(
            database=self.setup.database,
            book=self.book,
            tally=self.tally,
            daemon_id=self.begun.daemon_id,
            daemon_name=self.setup.name,
            keep=self.setup.keep,
            is_draining=scheduler.is_draining,
        )

    def service(self, scheduler: Scheduler) -> Service:
        """Return what the service manager hears of this daemon."""
        return Service(self.setup.notifier, self.pulse, self.setup.database, scheduler.is_draining)

    def vitals(self, scheduler: Scheduler, waker: Waker) -> Vitals:
        """Return the parts as they are seen from outside."""
        return Vitals(
            book=self.book,
            callbacks=self.callback_tally,
            pulse=self.pulse,
            waker=waker,
            is_draining=scheduler.is_draining,
        )

    def _recorder_desk(self) -> recorder.Desk:
        return recorder.Desk(
            database=self.setup.database,
            daemon_name=self.setup.name,
            nudge=self.tasks_seat.nudge,
        )

    def _settler_desk(self) -> settler.Desk:
        return settler.Desk(
            database=self.setup.database,
            limiter=self.limiter,
            book=self.book,
            tally=self.tally,
            daemon_id=self.begun.daemon_id,
            daemon_name=self.setup.name,
            owner=self._owner(),
            nudge=self._nudge,
        )

    def _lane_settler(self) -> LaneSettler:
        who = LaneSettling(daemon_id=self.begun.daemon_id, daemon_name=self.setup.name)
        return LaneSettler(self.setup.database, who, self.lanes_seat.nudge)

    def _parts(self, settling: Settler) -> Parts:
        desk = Desk(
            daemon_id=self.begun.daemon_id,
            daemon_name=self.setup.name,
            lease=self.setup.lease,
            book=self.book,
            draw_name=self._draw_name,
            redact=self.setup.redact,
        )
        return Parts(
            database=self.setup.database,
            limiter=self.limiter,
            gateway=self.gateway,
            settler=settling,
            seat=self.tasks_seat,
            on_pass=self.lanes_seat.nudge,
            desk=desk,
            notified=self.setup.notified,
            pulse=self.pulse,
        )

    def _lane_parts(self, lane_settling: LaneSettler) -> LaneParts:
        return LaneParts(
            database=self.setup.database,
            limiter=self.limiter,
            gateway=self.gateway,
            settler=lane_settling,
            tally=self.tally,
            seat=self.lanes_seat,
            desk=LaneDesk(
                daemon_id=self.begun.daemon_id,
                daemon_name=self.setup.name,
                book=self.book,
                gap_timeout=self.setup.gap_timeout,
                command_ttl=self.setup.command_ttl,
            ),
            pulse=self.pulse,
        )

    def _owner(self) -> Owner:
        return Owner(prefix=self.setup.owner_prefix, mark=self.begun.mark)

    def _nudge(self) -> None:
        self.tasks_seat.nudge()
        self.lanes_seat.nudge()

    def _draw_name(self) -> str:
        drawn = lots.token_bytes(RANDOM_LENGTH)
        return compose(self.setup.owner_prefix, self.begun.mark, drawn)


def _limits(keys: Keys) -> dict[Action, int]:
    return {
        Action(account=name, name=action): limit
        for name, runtime in keys.accounts.items()
        for action, limit in runtime.limits.items()
    }
