"""The server that the operator's machines ask: `/metrics`, `/healthz`, `/readyz`.

`/healthz` 200: the loops turn, or the daemon is about to begin or to end; 503: restart it.
`/readyz` 200: it works; 503: it waits for the database, has not done its first pass, or ends.
Each with one line that says why.

Rule 1: it answers from before the database is there to the very end, and never waits long for it.
Rule 2: it reads by connections of its own: however often it is asked, the work does not notice.
Rule 3: nothing is read or added up while nobody asks.
"""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import anyio
import structlog
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from orchestrator.daemon.listening import BACKLOG, IDLE_S, MUTE_LOG
from orchestrator.daemon.monitoring.cached import Cached, Missing
from orchestrator.daemon.monitoring.figures import FiguresCollector
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.monitoring.vitals import Vitals
from orchestrator.store.engine import Database
from orchestrator.store.version import check_version

KEEP_CHECK_S: Final = 1.0
"""How long it is believed that the database was there."""
ANSWER_WITHIN_S: Final = 1.0
"""How long answers may take that are open when the server closes."""

log = structlog.get_logger(__name__)


class MonitoringServer:
    """Serves what one daemon shows of itself, from before it has begun to its end.

    Args:
        meter: what it counts.
        open_inspected: opens the database for reading, with connections of its own.
    """

    def __init__(self, meter: Meter, open_inspected: Callable[[], Database]) -> None:
        self._meter = meter
        self._open_inspected = open_inspected
        self._vitals: Vitals | None = None

    def attach(self, vitals: Vitals) -> None:
        """Show the parts of the daemon too: it has begun."""
        self._vitals = vitals
        self._meter.registry.register(vitals)

    @asynccontextmanager
    async def serve(self, bound: socket.socket | None) -> AsyncIterator[None]:
        """Answer while the context is open; where nothing is bound, nobody asks. Takes it over."""
        if bound is None:
            yield
            return
        database = self._open_inspected()
        window = _Window(self._meter, database, lambda: self._vitals)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as reading:
                reading.start_soon(self._meter.watch_loop)
                reading.start_soon(window.figures.reading.run)
                reading.start_soon(window.schema.run)
                try:
                    async with _answering(window.application(), bound):
                        yield
                except Exception as error:  # noqa: BLE001 - raised below, as it is and in no group
                    failure = error
                reading.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await database.close()
        if failure is not None:
            raise failure


@asynccontextmanager
async def _answering(app: web.Application, bound: socket.socket) -> AsyncIterator[None]:
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=MUTE_LOG,
        keepalive_timeout=IDLE_S,
        shutdown_timeout=ANSWER_WITHIN_S,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, bound, backlog=BACKLOG).start()
        host, port = bound.getsockname()[:2]
        log.info("showing_metrics", host=host, port=port)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


class _Window:
    """Answers the three questions."""

    def __init__(
        self, meter: Meter, database: Database, find_vitals: Callable[[], Vitals | None]
    ) -> None:
        self._registry = meter.registry
        self._find_vitals = find_vitals
        self.figures = FiguresCollector(database)
        self._registry.register(self.figures)
        self.schema: Cached[None] = Cached(lambda: check_version(database), KEEP_CHECK_S)

    def application(self) -> web.Application:
        """Return what aiohttp serves."""
        app = web.Application()
        app.router.add_get("/metrics", self.show_metrics)
        app.router.add_get("/healthz", self.say_health)
        app.router.add_get("/readyz", self.say_ready)
        return app

    async def show_metrics(self, request: web.Request) -> web.Response:
        """Answer with all there is, in the format that is asked for."""
        await self.figures.look()
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def say_health(self, _: web.Request) -> web.Response:
        """Answer whether the loops turn. That there is an answer says that the event loop does."""
        vitals = self._find_vitals()
        if vitals is None:
            return _say(HTTPStatus.OK, "starting")
        stuck = vitals.find_stuck()
        return _say(HTTPStatus.SERVICE_UNAVAILABLE, stuck) if stuck else _say(HTTPStatus.OK, "ok")

    async def say_ready(self, _: web.Request) -> web.Response:
        """Answer whether the daemon works."""
        why_not = await self._find_obstacle()
        if why_not is not None:
            return _say(HTTPStatus.SERVICE_UNAVAILABLE, why_not)
        return _say(HTTPStatus.OK, "ready")

    async def _find_obstacle(self) -> str | None:
        vitals = self._find_vitals()
        if vitals is not None and vitals.is_draining():
            return "draining"
        missing = await self.schema.get()
        if isinstance(missing, Missing):
            return missing
        if vitals is None:
            return "starting"
        return None if vitals.pulse.ready.is_set() else "the first pass is not done yet"


def _say(status: HTTPStatus, line: str) -> web.Response:
    return web.Response(status=status, text=f"{line}\n")
