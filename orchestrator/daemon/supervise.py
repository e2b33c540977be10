"""The daemon as a whole: what is started in which order, and how it ends.

Start: schema, the one place on an SQLite file, accounts, the daemon's row; then everything at once.
End, at SIGTERM: no new claims; calls in flight may finish; what they came to is settled; the row
goes. What is not finished by the deadline is left announced, as after a crash.
"""

import gc
import os
import secrets as lots
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator import __version__
from orchestrator.core.names import RANDOM_LENGTH, compose
from orchestrator.core.orphan import Owner
from orchestrator.daemon import callbacks, orphans, recorder, settler
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.claim import Desk
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.janitor import Janitor
from orchestrator.daemon.lane_claim import LaneDesk
from orchestrator.daemon.lane_scheduler import LaneParts, LaneScheduler
from orchestrator.daemon.lane_settle import LaneSettling
from orchestrator.daemon.lane_settler import LaneSettler
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.scheduler import Parts, Scheduler
from orchestrator.daemon.settler import Settler
from orchestrator.daemon.setup import Setup
from orchestrator.daemon.tally import Tally
from orchestrator.daemon.timekeeper import Timekeeper
from orchestrator.daemon.transport import Transport
from orchestrator.errors import ConfigError, UsageError
from orchestrator.store import accounts, daemons, version
from orchestrator.store.engine import Connection, DatabaseAway
from orchestrator.store.engine import now as database_now
from orchestrator.store.single import hold_single_daemon
from orchestrator.wake.fan import Fan, Seat

RETRY_FIRST_S: Final = 0.2
RETRY_LAST_S: Final = 5.0
SETTLE_LAST_S: Final = 5.0
"""After the calls' last while: for what they came to. A database that is away ends no sooner."""
SIGN_OFF_S: Final = 5.0
GARBAGE_THRESHOLD: Final = 20_000
"""Objects made and not freed before the collector looks for cycles; Python's own is 700."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def run(setup: Setup) -> None:
    """Serve until SIGTERM, SIGINT or cancellation.

    Raises SchemaError if the schema is not this version's, and UsageError if another daemon holds
    the SQLite file, an account that has agents is not configured any more, or something else
    listens where callbacks should arrive.
    """
    await _until_reachable(lambda: version.check_version(setup.database))
    # Signals are heard before the row is written: whoever sees it may ask the daemon to end.
    with (
        _hold(setup),
        callbacks.bind(setup.callbacks) as listening,
        anyio.open_signal_receiver(*SIGNALS) as signals,
    ):
        begun = await _begin(setup)
        _spare_collector()
        try:
            await _Daemon(setup, begun, listening).serve(signals)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(setup, begun)


def _spare_collector() -> None:
    """Let the garbage collector leave alone what is loaded by now, and look at the rest less often.

    Some 100,000 objects live as long as the process: one walk through them takes 50 ms, in which
    no call leaves, and all walks together a tenth of a busy daemon's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


async def _until_reachable(work: Callable[[], Awaitable[T]]) -> T:
    """Do something that needs the database, as soon as it can be reached. One line says why not."""
    wait_s, told = RETRY_FIRST_S, False
    while True:
        try:
            return await work()
        except DatabaseAway as error:
            if not told:
                log.warning("database_away", error=str(error), message="trying until it is there")
            told = True
            await anyio.sleep(wait_s)
            wait_s = min(RETRY_LAST_S, wait_s * 2)


@contextmanager
def _hold(setup: Setup) -> Iterator[None]:
    """Hold the SQLite file, where there is one, for this daemon alone."""
    if setup.database.path is None:
        yield
        return
    with hold_single_daemon(setup.database.path, setup.name):
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What the first transaction told."""

    daemon_id: str
    mark: str
    book: Book


async def _begin(setup: Setup) -> _Begun:
    """Register this daemon. Raises UsageError."""
    book = Book(setup.keys)
    one = daemons.Daemon(
        id=str(uuid4()),
        name=setup.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        wake="notify" if setup.notified else "poll",
        accounts=sorted(setup.keys.accounts),
    )
    known = frozenset(setup.keys.accounts) | setup.abandoned
    mark = await _until_reachable(
        lambda: setup.database.write(_register, book.timekeeper, one, known)
    )
    for name in sorted(setup.abandoned):
        log.warning("account_abandoned", account=name)
    log.info("started", daemon=setup.name, accounts=list(one.accounts), version=__version__)
    return _Begun(daemon_id=one.id, mark=mark, book=book)


def _register(
    connection: Connection, timekeeper: Timekeeper, one: daemons.Daemon, known: frozenset[str]
) -> str:
    now = timekeeper.look(connection)
    elsewhere = daemons.accounts_of_others(connection, one.id, now)
    lost = sorted(daemons.accounts_with_open_agents(connection) - known - elsewhere)
    if lost:
        raise UsageError(
            f"agents may run in accounts that the configuration does not have: {', '.join(lost)}; "
            f"put them back, or give them up with --abandon {lost[0]}"
        )
    last = daemons.last_heartbeat(connection)
    daemons.register(connection, one, now)
    accounts.ensure(connection, one.accounts, now)
    if daemons.is_gap(last, now):
        daemons.grant_amnesty(connection, now)
    return daemons.read_mark(connection)


def _renew(connection: Connection, renewed: daemons.Renewed) -> None:
    now = database_now(connection)
    daemons.renew(connection, renewed)
    accounts.ensure(connection, renewed.accounts, now)
    accounts.probe_denied(connection, renewed.accounts, now)


async def _end(setup: Setup, begun: _Begun) -> None:
    try:
        with anyio.fail_after(SIGN_OFF_S):
            await setup.database.write(daemons.sign_off, begun.daemon_id)
    except (DatabaseAway, TimeoutError):
        log.warning("database_away", message="the daemon's row stays until it is old")
    log.info("stopped", daemon=setup.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loops:
    """What runs until it drains, and what settles what they began."""

    tasks: Scheduler
    lanes: LaneScheduler
    settling: Settler
    lane_settling: LaneSettler

    def finish(self) -> None:
        """All calls have ended: settle what they came to, and end."""
        self.settling.finish()
        self.lane_settling.finish()


class _Daemon:
    """The parts of a running daemon, wired."""

    def __init__(self, setup: Setup, begun: _Begun, listening: callbacks.Listening | None) -> None:
        self.setup = setup
        self.begun = begun
        self.listening = listening
        self.book = begun.book
        self.tally = Tally()
        self.tasks_seat, self.lanes_seat = Seat(), Seat()
        self.limiter = Limiter(setup.database, _limits(setup.keys))
        self.transport = Transport(now=self.book.timekeeper.now, on_date=self.book.note_offset)
        self.gateway = Gateway(
            transport=self.transport,
            limiter=self.limiter,
            book=self.book,
            redact=setup.redact,
        )
        self.working = anyio.CancelScope()

    async def serve(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Run everything, until it is asked to stop and what was begun is done."""
        async with self.transport, self.setup.open_waker() as waker:
            settling, lane_settling = Settler(self._settler_desk()), self._lane_settler()
            loops = _Loops(
                tasks=Scheduler(self._parts(settling)),
                lanes=LaneScheduler(self._lane_parts(lane_settling)),
                settling=settling,
                lane_settling=lane_settling,
            )
            janitor = self._janitor(loops.tasks)
            async with anyio.create_task_group() as aside:
                aside.start_soon(Fan(waker, (self.tasks_seat, self.lanes_seat)).run)
                aside.start_soon(self._watch, signals, loops)
                for work in (janitor.beat, janitor.sweep, janitor.prune, janitor.free):
                    aside.start_soon(work)
                aside.start_soon(self._orphans().run)
                with self.working:
                    await self._work(loops)
                if self.working.cancelled_caught:
                    log.warning("cut_off", message="what was not settled is left announced")
                aside.cancel_scope.cancel()

    async def _work(self, loops: _Loops) -> None:
        async with anyio.create_task_group() as outcomes:
            outcomes.start_soon(loops.settling.run)
            outcomes.start_soon(loops.lane_settling.run)
            # The last calls may be told of at once, so callbacks are heard until those have ended.
            async with self._receive_callbacks(), anyio.create_task_group() as calls:
                async with anyio.create_task_group() as passes:
                    passes.start_soon(loops.tasks.run, calls)
                    passes.start_soon(loops.lanes.run, calls)
                log.info("draining")
                self._limit(calls)
            loops.finish()

    async def _watch(self, signals: AsyncIterator[signal.Signals], loops: _Loops) -> None:
        async for number in signals:
            log.info("signal", signal=signal.Signals(number).name)
            if number == signal.SIGHUP:
                await self._reload()
            else:
                loops.tasks.drain()
                loops.lanes.drain()
                self._limit_work()

    async def _reload(self) -> None:
        """Read the configuration again; if it is wrong, say so and go on with the old one."""
        try:
            keys = self.setup.reload()
        except ConfigError as error:
            log.error("reload_refused", error=str(error))  # noqa: TRY400 - the sentence says it all
            return
        self.book.renew(keys)
        self.limiter.renew(_limits(keys))
        names = sorted(keys.accounts)
        renewed = daemons.Renewed(daemon_id=self.begun.daemon_id, accounts=names)
        await _until_reachable(lambda: self.setup.database.write(_renew, renewed))
        log.info("reloaded", accounts=names)

    def _limit_work(self) -> None:
        """Bound the time until the end, whatever is away: a second signal changes nothing."""
        most_s = self.setup.shutdown_timeout.total_seconds() + SETTLE_LAST_S
        self.working.deadline = min(self.working.deadline, anyio.current_time() + most_s)

    def _limit(self, calls: TaskGroup) -> None:
        """Give calls in flight a last while; a call that is cut off stays announced."""
        calls.cancel_scope.deadline = (
            anyio.current_time() + self.setup.shutdown_timeout.total_seconds()
        )

    def _nudge(self) -> None:
        self.tasks_seat.nudge()
        self.lanes_seat.nudge()

    def _receive_callbacks(self) -> AbstractAsyncContextManager[None]:
        desk = recorder.Desk(
            database=self.setup.database,
            daemon_name=self.setup.name,
            nudge=self.tasks_seat.nudge,
        )
        return callbacks.receive(self.listening, desk, self.book, self.book.timekeeper.now)

    def _lane_settler(self) -> LaneSettler:
        who = LaneSettling(daemon_id=self.begun.daemon_id, daemon_name=self.setup.name)
        return LaneSettler(self.setup.database, who, self.lanes_seat.nudge)

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

    def _owner(self) -> Owner:
        return Owner(prefix=self.setup.owner_prefix, mark=self.begun.mark)

    def _orphans(self) -> orphans.Watch:
        return orphans.Watch(
            database=self.setup.database,
            book=self.book,
            owner=self._owner(),
            daemon_id=self.begun.daemon_id,
            daemon_name=self.setup.name,
            nudge=self.tasks_seat.nudge,
        )

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
        )

    def _janitor(self, scheduler: Scheduler) -> Janitor:
        return Janitor(
            database=self.setup.database,
            book=self.book,
            tally=self.tally,
            daemon_id=self.begun.daemon_id,
            daemon_name=self.setup.name,
            keep=self.setup.keep,
            is_draining=scheduler.is_draining,
        )

    def _draw_name(self) -> str:
        drawn = lots.token_bytes(RANDOM_LENGTH)
        return compose(self.setup.owner_prefix, self.begun.mark, drawn)


def _limits(keys: Keys) -> dict[Action, int]:
    return {
        Action(account=name, name=action): limit
        for name, runtime in keys.accounts.items()
        for action, limit in runtime.limits.items()
    }
