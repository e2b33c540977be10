"""`orchestrator dev`: database, simulated vendors, a model, daemon and examples in one process.

Rule 1: it is the real daemon on a real database; only the vendors are simulated.
Rule 2: it may be stopped and started again on the same file: the examples begin anew.
"""

import os
import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never
from uuid import uuid4

import anyio
import typer

from orchestrator import examples, log
from orchestrator.app import build
from orchestrator.clock import boot_ns
from orchestrator.commands.dev_hints import Hints
from orchestrator.commands.simulate import AddressError, post_to, served
from orchestrator.commands.task_board import Board, open_board
from orchestrator.config import Config, understand
from orchestrator.daemon import supervise
from orchestrator.daemon.setup import Setup
from orchestrator.setting_types import Address
from orchestrator.settings import Log
from orchestrator.simulator import Simulator, echo_model
from orchestrator.simulator.keys import DEMO, Keys
from orchestrator.simulator.questions import Unheard
from orchestrator.simulator.visitor import Visitor, visiting
from orchestrator.store import demo, migrate, snapshot
from orchestrator.store.views import View

FOLDER = Path("var")
DATABASE_URL = "sqlite:///var/orchestrator.db"
USUAL = tuple(Address("127.0.0.1", port) for port in range(8790, 8800))
"""The first that is free, so that it is the same at every start: an agent that was left running
is looked for where it was started."""

REFRESH_S = 0.25
SPEECH_S = 1.0
"""How long one step of the talk may be looked at."""
PATIENCE_NS = 30_000_000_000
"""After this long `ready` is printed although an example does not run: the table says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the daemon listens to the vendors. They have to know before it does."""

    callbacks: Address
    llm_gateway: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for."""

    database: str | None
    """None: an SQLite file."""
    listen: Address | None
    """None: the first of the usual ones that is free."""
    examples: bool


def run(wanted: Wanted) -> None:
    """Run until Ctrl-C. Prints URLs, lines to try, then a line `ready`.

    Raises:
        OrchestratorError: the address is taken, or the database cannot be used.
    """
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "dev.log").open("a", encoding="utf-8") as stream:
        redactor = log.Redactor(examples.SECRETS.values())
        log.configure(Log(), redactor, stream)
        try:
            anyio.run(_serve, wanted, redactor, stream.name)
        except KeyboardInterrupt:
            typer.echo("stopped")


async def _serve(wanted: Wanted, redactor: log.Redactor, log_path: str) -> None:
    ports = _free_ports()
    async with _vendors(wanted.listen, post_to(ports.callbacks, DEMO)) as vendors_url:
        config = configure(wanted.database or DATABASE_URL, vendors_url, ports)
        redactor.learn(config.secret_values)
        database_url = config.database.url.reveal()
        await migrate.upgrade(database_url, schema=config.database.schema_)
        hints = Hints(database_url=database_url, vendors_url=vendors_url, log_path=log_path)
        setup = build(config, redactor)
        try:
            await _run_beside(setup, hints, examples.EXAMPLES if wanted.examples else ())
        finally:
            with anyio.CancelScope(shield=True):
                await setup.database.close()


def _free_ports() -> Ports:
    """Return two that are free now."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        return Ports(callbacks=Address(*one.getsockname()), llm_gateway=Address(*two.getsockname()))


@asynccontextmanager
async def _vendors(listen: Address | None, keys: Sequence[Keys]) -> AsyncIterator[str]:
    """Serve the simulated vendors and yield their URL."""
    addresses = USUAL if listen is None else (listen,)
    async with AsyncExitStack() as stack:
        yield await _serve_at_first_free(stack, addresses, keys)


async def _serve_at_first_free(
    stack: AsyncExitStack, addresses: Sequence[Address], keys: Sequence[Keys]
) -> str:
    *others, last = addresses
    for address in others:
        with suppress(AddressError):
            return await stack.enter_async_context(served(Simulator(keys), address))
    return await stack.enter_async_context(served(Simulator(keys), last))


async def _run_beside(setup: Setup, hints: Hints, wanted: Sequence[examples.Example]) -> None:
    """Run the daemon, and beside it the table that shows what it does."""
    async with anyio.create_task_group() as tasks:

        async def run_daemon() -> None:
            await supervise.run(setup)
            tasks.cancel_scope.cancel()

        tasks.start_soon(run_daemon)
        await setup.database.write(demo.ask_for, wanted, str(uuid4()))
        with open_board() as board:
            await _until_running(setup, board, {example.id for example in wanted})
            if wanted:
                async with visiting(hints.vendors_url) as visitor:
                    await _talk(setup, visitor, board)
            board.say(hints.text())
            board.say("ready")
            await _follow(setup, board)


async def _until_running(setup: Setup, board: Board, ids: Collection[str]) -> None:
    """Show the tasks until all of `ids` run; not longer than anybody would watch."""
    enough_ns = boot_ns() + PATIENCE_NS
    while boot_ns() < enough_ns:
        board.show(await _tasks(setup))
        if await setup.database.read(demo.are_running, ids, os.getpid()):
            return
        await anyio.sleep(REFRESH_S)


async def _talk(setup: Setup, visitor: Visitor, board: Board) -> None:
    """Speak, press, release: rows that the viewer sees become done, and answers."""
    for step in examples.TALK:
        match step:
            case examples.Command():
                board.say(await _command(setup, step))
            case examples.Sentence():
                board.say(await _say(visitor, step))
            case _:
                assert_never(step)
        await anyio.sleep(SPEECH_S)


async def _command(setup: Setup, command: examples.Command) -> str:
    """Insert a command, and return what became of it."""
    id_ = str(uuid4())
    await setup.database.write(demo.tell, command, id_)
    state = await _settled(setup, id_)
    return f"{command.task_id}  {command.kind}: {state}; {command.says}"


async def _say(visitor: Visitor, sentence: examples.Sentence) -> str:
    """Let an example's user say something, and return what its agent answers."""
    example = sentence.example
    said = f"{example.id}  user: {sentence.text}"
    try:
        turn = await visitor.say(await visitor.live_agent(example.room_id), sentence.text)
    except Unheard as unheard:
        return f"{said}  nobody hears it: {unheard}"
    if turn["fault"] is not None:
        return f"{said}  no good answer: {turn['fault']}"
    first = turn["first_token_ms"]
    after = "no words" if first is None else f"first words after {first:.0f} ms"
    return f"{said}  agent: {turn['answered']}  ({after})"


async def _settled(setup: Setup, id_: str) -> str:
    """Wait for the end of a command: it expires by itself, if nothing else becomes of it."""
    state = None
    while state is None:
        await anyio.sleep(0.01)
        state = await setup.database.read(demo.settled_state, id_)
    return state


async def _follow(setup: Setup, board: Board) -> None:
    while True:
        board.show(await _tasks(setup))
        await anyio.sleep(REFRESH_S)


async def _tasks(setup: Setup) -> Sequence[View]:
    return (await setup.database.read(snapshot.take, snapshot.Wanted())).tasks


def configure(database_url: str, vendors_url: str, ports: Ports) -> Config:
    """Return the configuration of `dev`: the simulated vendors' demo accounts, and short times.

    Raises:
        ConfigError: the database's URL is none.
    """
    volcengine, tencent, zego = DEMO
    # What was in flight when the last `dev` was killed is settled within 12 seconds.
    quick = {"signature_life_s": 10, "settle_in_s": 1, "clock_margin_s": 1, "poll_s": 10}
    shared: Mapping[str, Any] = {**quick, "endpoint": vendors_url}
    accounts = {
        volcengine.account: {
            **shared,
            "provider": "volcengine",
            "app_id": volcengine.app_id,
            "access_key_id": volcengine.access_key_id,
            "secret_access_key": volcengine.secret_access_key,
            "callback_secret": volcengine.callback_secret,
        },
        tencent.account: {
            **shared,
            "provider": "tencent",
            "sdk_app_id": tencent.sdk_app_id,
            "secret_id": tencent.secret_id,
            "secret_key": tencent.secret_key,
            "region": "ap-singapore",
            "usersig_key": tencent.usersig_key,
            "callback_key": tencent.callback_secret,
        },
        zego.account: {
            **shared,
            "provider": "zego",
            "app_id": zego.app_id,
            "server_secret": zego.server_secret,
            "rtc_endpoint": vendors_url,
            "callback_secret": zego.callback_secret,
        },
    }
    written = {
        "database": {"url": database_url},
        "accounts": accounts,
        "callbacks": {"listen": _written(ports.callbacks)},
        "llm_gateway": {
            "listen": _written(ports.llm_gateway),
            "public_url": f"http://{_written(ports.llm_gateway)}",
        },
        "llm_upstreams": {
            examples.UPSTREAM: {
                "url": f"{vendors_url}{echo_model.PATH}",
                "api_key": echo_model.API_KEY,
                "model": echo_model.MODEL,
            }
        },
        "secrets": dict(examples.SECRETS),
    }
    return understand(written, Path.cwd() / "dev", {})


def _written(address: Address) -> str:
    return f"{address.host}:{address.port}"
