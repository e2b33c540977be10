"""The daemon as a whole: what is started in which order, and how it ends.

Start: schema, the one place on an SQLite file, accounts, the daemon's row; then everything at once.
End, at SIGTERM: no new claims; calls in flight may finish; what they came to is settled; the row
goes. What is not finished by the deadline is left announced, as after a crash.
"""

import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator import __version__
from orchestrator.daemon import listening
from orchestrator.daemon.book import Book
from orchestrator.daemon.monitoring.counted_database import CountedDatabase
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.monitoring.server import MonitoringServer
from orchestrator.daemon.reach import reach_again, reach_at_start
from orchestrator.daemon.setup import Setup
from orchestrator.daemon.timekeeper import Timekeeper
from orchestrator.daemon.wiring import Begun, Loops, Wiring
from orchestrator.errors import ConfigError, UsageError
from orchestrator.store import accounts, daemons, version
from orchestrator.store.engine import Connection, DatabaseAway
from orchestrator.store.engine import now as database_now
from orchestrator.store.single import hold_single_daemon
from orchestrator.wake.fan import Fan

SETTLE_LAST_S: Final = 5.0
"""After the calls' last while: for what they came to. A database that is away ends no sooner."""
SIGN_OFF_S: Final = 5.0
GARBAGE_THRESHOLD: Final = 20_000
"""Objects made and not freed before the collector looks for cycles; Python's own is 700."""
MISSING: Final = (
    "agents may run there and no running daemon has its keys: their rows wait, and nobody can stop "
    "them; put the account back and reload"
)
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = structlog.get_logger(__name__)


async def run(setup: Setup) -> None:
    """Serve until SIGTERM, SIGINT or cancellation.

    Raises SchemaError if the schema is not this version's, and UsageError if another daemon holds
    the SQLite file, an account that has agents is not configured any more, or something else
    listens where callbacks should arrive or metrics be asked for.
    """
    meter = Meter()
    monitoring = MonitoringServer(meter, setup.open_inspected)
    counted = replace(setup, database=CountedDatabase(setup.database, meter.count_error))
    # Asked from here on: that the database is awaited is the first thing one wants to know.
    with listening.bind(setup.metrics) as window:
        async with monitoring.serve(window):
            await _run(counted, meter, monitoring)


async def _run(setup: Setup, meter: Meter, monitoring: MonitoringServer) -> None:
    await reach_at_start(lambda: version.check_version(setup.database), setup.notifier)
    # Signals are heard before the row is written: whoever sees it may ask the daemon to end.
    with (
        _hold(setup),
        listening.bind(setup.callbacks) as callbacks,
        listening.bind(setup.llm.listen if setup.llm is not None else None) as llm,
        anyio.open_signal_receiver(*SIGNALS) as signals,
    ):
        begun = await _begin_unless_asked_to_end(setup, signals)
        if begun is None:
            return
        _spare_collector()
        try:
            ports = _Ports(callbacks=callbacks, llm=llm)
            await _Daemon(Wiring(setup, begun, meter), ports, monitoring).serve(signals)
        finally:
            await _sign_off(setup, begun)


def _spare_collector() -> None:
    """Let the garbage collector leave alone what is loaded by now, and look at the rest less often.

    Some 100,000 objects live as long as the process: one walk through them takes 50 ms, in which
    no call leaves, and all walks together a tenth of a busy daemon's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


@contextmanager
def _hold(setup: Setup) -> Iterator[None]:
    """Hold the SQLite file, where there is one, for this daemon alone."""
    if setup.database.path is None:
        yield
        return
    with hold_single_daemon(setup.database.path, setup.name):
        yield


async def _begin_unless_asked_to_end(
    setup: Setup, signals: AsyncIterator[signal.Signals]
) -> Begun | None:
    """Register this daemon, or return null: the database may be awaited for longer than anybody."""
    begun: list[Begun] = []
    async with anyio.create_task_group() as either:

        async def begin() -> None:
            begun.append(await _begin(setup))
            either.cancel_scope.cancel()

        either.start_soon(begin)
        async for number in signals:
            log.info("signal", signal=signal.Signals(number).name)
            if number == signal.SIGHUP:
                continue  # what there is to read has just been read
            either.cancel_scope.cancel()
            for one in begun:  # both came at the same moment
                await _sign_off(setup, one)
            return None
    return begun[0]


async def _begin(setup: Setup) -> Begun:
    """Register this daemon. Raises UsageError."""
    book = Book(setup.keys, setup.llm)
    one = daemons.Daemon(
        id=str(uuid4()),
        name=setup.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        wake="notify" if setup.notified else "poll",
        accounts=sorted(setup.keys.accounts),
    )
    mark = await reach_at_start(
        lambda: setup.database.write(_register, book.timekeeper, one, setup.abandoned),
        setup.notifier,
    )
    for name in sorted(setup.abandoned):
        log.warning("account_abandoned", account=name)
    log.info("started", daemon=setup.name, accounts=list(one.accounts), version=__version__)
    return Begun(daemon_id=one.id, mark=mark, book=book)


def _register(
    connection: Connection, timekeeper: Timekeeper, one: daemons.Daemon, abandoned: frozenset[str]
) -> str:
    now = timekeeper.look(connection)
    known = daemons.Renewed(daemon_id=one.id, accounts=[*one.accounts, *abandoned])
    lost = daemons.accounts_without_keys(connection, known, now)
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


def _renew(connection: Connection, renewed: daemons.Renewed) -> list[str]:
    """Write which accounts this daemon has now; return those that have agents and nobody's keys."""
    now = database_now(connection)
    daemons.renew(connection, renewed)
    accounts.ensure(connection, renewed.accounts, now)
    accounts.probe_denied(connection, renewed.accounts, now)
    return daemons.accounts_without_keys(connection, renewed, now)


async def _sign_off(setup: Setup, begun: Begun) -> None:
    """Remove the daemon's row, whoever has been cancelled."""
    try:
        with anyio.fail_after(SIGN_OFF_S, shield=True):
            await setup.database.write(daemons.sign_off, begun.daemon_id)
    except (DatabaseAway, TimeoutError):
        log.warning("database_away", message="the daemon's row stays until it is old")
    log.info("stopped", daemon=setup.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    """Where this daemon listens; null: nowhere."""

    callbacks: socket.socket | None
    llm: socket.socket | None


class _Daemon:
    """A daemon that runs, from its first pass to the last outcome."""

    def __init__(self, wiring: Wiring, ports: _Ports, monitoring: MonitoringServer) -> None:
        self.wiring = wiring
        self.setup = wiring.setup
        self.ports = ports
        self.monitoring = monitoring
        self.working = anyio.CancelScope()
        self.missing = self.setup.abandoned
        """Accounts whose agents nobody can stop, as far as that was told."""
        self.telling = anyio.Lock()
        """Held while one reload writes and tells of them."""

    async def serve(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Run everything, until it is asked to stop and what was begun is done."""
        wiring = self.wiring
        async with wiring.transport, self.setup.open_waker() as waker:
            loops = wiring.loops()
            janitor = wiring.janitor(loops.tasks)
            self.monitoring.attach(wiring.vitals(loops.tasks, waker))
            async with anyio.create_task_group() as aside:
                aside.start_soon(Fan(waker, (wiring.tasks_seat, wiring.lanes_seat)).run)
                aside.start_soon(self._watch, signals, loops)
                for work in (janitor.beat, janitor.sweep, janitor.prune, janitor.free):
                    aside.start_soon(work)
                aside.start_soon(wiring.orphans().run)
                aside.start_soon(wiring.service(loops.tasks).describe)
                with self.working:
                    await self._work(loops)
                if self.working.cancelled_caught:
                    log.warning("cut_off", message="what was not settled is left announced")
                aside.cancel_scope.cancel()

    async def _work(self, loops: Loops) -> None:
        async with anyio.create_task_group() as outcomes:
            outcomes.start_soon(loops.settling.run)
            outcomes.start_soon(loops.lane_settling.run)
            # The last calls may be told of at once, so callbacks are heard until those have ended.
            hearing = self.wiring.receive_callbacks(self.ports.callbacks)
            # Turns have their last while beside the calls', and a shorter one.
            talking = self.wiring.serve_llm(self.ports.llm)
            async with hearing, anyio.create_task_group() as calls, talking:
                async with anyio.create_task_group() as passes:
                    passes.start_soon(loops.tasks.run, calls)
                    passes.start_soon(loops.lanes.run, calls)
                log.info("draining")
                self._limit(calls)
            loops.finish()

    async def _watch(self, signals: AsyncIterator[signal.Signals], loops: Loops) -> None:
        # Beside it, because a signal to end must be heard while the database is awaited.
        async with anyio.create_task_group() as writing:
            async for number in signals:
                log.info("signal", signal=signal.Signals(number).name)
                if number == signal.SIGHUP:
                    self.setup.notifier.reloading()
                    self._reload(writing)
                    self.setup.notifier.ready()
                else:
                    self.setup.notifier.stopping(self._longest_end_s())
                    loops.drain()
                    self._limit_work()

    def _reload(self, writing: TaskGroup) -> None:
        """Read the configuration again; if it is wrong, say so and go on with the old one."""
        try:
            keys = self.setup.reload()
        except ConfigError as error:
            log.error("reload_refused", error=str(error))  # noqa: TRY400 - the sentence says it all
            return
        self.wiring.renew(keys)
        writing.start_soon(self._tell_accounts)

    async def _tell_accounts(self) -> None:
        """Write which accounts this daemon has; say once whose agents nobody can stop now."""
        # Of two reloads the later one writes last: each writes what was read when its turn comes.
        async with self.telling:
            missing = frozenset(await reach_again(self._write_accounts))
            for name in sorted(missing - self.missing):
                log.error("account_missing", account=name, message=MISSING)
            self.missing = missing

    async def _write_accounts(self) -> list[str]:
        names = self.wiring.book.names
        renewed = daemons.Renewed(daemon_id=self.wiring.begun.daemon_id, accounts=names)
        return await self.setup.database.write(_renew, renewed)

    def _limit_work(self) -> None:
        """Bound the time until the end, whatever is away: a second signal changes nothing."""
        most_s = self._longest_end_s() - SIGN_OFF_S
        self.working.deadline = min(self.working.deadline, anyio.current_time() + most_s)

    def _longest_end_s(self) -> float:
        return self.setup.shutdown_timeout.total_seconds() + SETTLE_LAST_S + SIGN_OFF_S

    def _limit(self, calls: TaskGroup) -> None:
        """Give calls in flight a last while; a call that is cut off stays announced."""
        calls.cancel_scope.deadline = (
            anyio.current_time() + self.setup.shutdown_timeout.total_seconds()
        )
