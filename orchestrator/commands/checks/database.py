"""Whether the database is there, has our schema, lets us work, keeps what it took, and wakes us.

Rule 1: it changes no row. What it writes is a transaction without a statement that does, and one
notification that nobody else hears.
Rule 2: a question that fails is a finding like any other, and the next one is asked all the same.
"""

import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from orchestrator.app import POLL_EVERY
from orchestrator.clock import utc_now
from orchestrator.commands.checks.finding import Finding, judge_clock
from orchestrator.config import Config
from orchestrator.errors import OrchestratorError, SchemaError
from orchestrator.store import daemons, examine, version
from orchestrator.store.engine import Connection, Database, StatementError, now
from orchestrator.wake.probe import time_notification

_RIGHTS_ADVICE: Final = (
    "run as the user of the service; on Postgres run migrations/roles.sql and grant the role "
    "orchestrator_daemon"
)


async def judge_database(config: Config, database: Database) -> Sequence[Finding]:
    """Return what is to be said about the database: that it cannot be used, or all the rest."""
    away = await _judge_schema(config, database)
    if away is not None:
        return [away]
    found = [
        Finding("well", f"database ({database.dialect}): reachable, schema known"),
        *[await _ask(what, ask, config, database) for what, ask in _QUESTIONS],
    ]
    return [finding for finding in found if finding is not None]


async def _judge_schema(config: Config, database: Database) -> Finding | None:
    """Return why the database cannot be used; null if it can."""
    what = f"database ({database.dialect})"
    try:
        await version.check_version(database)
    except SchemaError as unfit:
        return await _judge_unfit(what, unfit, config, database)
    except (OrchestratorError, StatementError) as away:
        advice = "is it there, is database.url right, and may this user use it?"
        return Finding("trouble", f"{what}: {_spell(away)}", advice)
    return None


async def _judge_unfit(
    what: str, unfit: SchemaError, config: Config, database: Database
) -> Finding:
    """Return why the schema is not ours: a schema that one may not use looks empty."""
    name = config.database.schema_
    usable = None
    if database.dialect == "postgresql":
        with suppress(OrchestratorError):
            usable = await database.read(examine.may_use_schema, name)
    if usable is False:
        told = f"{what}: this user may not use the schema {name}"
        return Finding("trouble", told, _RIGHTS_ADVICE)
    return Finding("trouble", f"{what}: {unfit}", "the service migrates by itself when it starts")


async def _ask(what: str, ask: "_Question", config: Config, database: Database) -> Finding | None:
    """Return what a question found; if it cannot even be asked, that."""
    try:
        return await ask(config, database)
    except (OrchestratorError, StatementError) as refused:
        return Finding("trouble", f"{what}: {_spell(refused)}", _RIGHTS_ADVICE)


async def _judge_rights(_config: Config, database: Database) -> Finding:
    missing = list(await database.write(examine.missing_rights))
    if database.path is not None:
        missing.extend(_unwritable(database.path))
    if missing:
        return Finding("trouble", f"rights: no {', '.join(missing)}", _RIGHTS_ADVICE)
    return Finding("well", "rights: this user can write what the daemon writes")


def _unwritable(path: Path) -> Iterator[str]:
    """Yield what cannot be written of all that lies beside an SQLite file."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        yield f"writing in the folder {path.parent} (the log of SQLite lies there)"
    lock = path.with_name(f"{path.name}.lock")
    if lock.exists() and not os.access(lock, os.W_OK):
        yield f"writing to {lock}"


async def _judge_owner(_config: Config, database: Database) -> Finding | None:
    """Return whether an SQLite file is somebody else's than its folder is.

    `migrate` run as root leaves such a file. Root may write it, and the service may not.
    """
    if database.path is None:
        return None
    try:
        file, folder = database.path.stat(), database.path.parent.stat()
    except OSError as wrong:
        return Finding("trouble", f"owner: {wrong}", _RIGHTS_ADVICE)
    shared = file.st_gid == folder.st_gid and file.st_mode & stat.S_IWGRP
    if file.st_uid == folder.st_uid or shared:
        return None
    told = f"owner: {database.path} belongs to another user than its folder, who may not write it"
    return Finding("warning", told, f"chown --reference={database.path.parent} {database.path}*")


async def _judge_durability(_config: Config, database: Database) -> Finding:
    weak = await database.write(examine.lost_by_power_cut)
    if not weak:
        return Finding("well", "durability: what is announced outlives a power cut")
    advice = "a start may be forgotten in a power cut and run on unpaid for: turn it on"
    return Finding("trouble", f"durability: {', '.join(weak)}", advice)


async def _judge_clock(_config: Config, database: Database) -> Finding | None:
    if database.dialect == "sqlite":
        return None  # It has the clock of this machine.
    before = utc_now()
    told = await database.read(now)
    after = utc_now()
    # Leases and deadlines go by the database's alone, so that it is off harms nothing by itself.
    offset = told - (before + (after - before) / 2)
    return judge_clock("clock of the database:", offset, timedelta.max)


async def _judge_wake(config: Config, database: Database) -> Finding | None:
    if database.path is not None:
        return None  # The file is watched; there is nothing between it and us.
    if config.database.wake == "poll":
        every_ms = POLL_EVERY // timedelta(milliseconds=1)
        return Finding("well", f"wake: the daemon looks every {every_ms} ms (database.wake)")
    url = config.database.listen_url or config.database.url

    async def tell(channel: str, payload: str) -> None:
        await database.write(examine.notify, channel, payload)

    took = await time_notification(url.reveal(), tell)
    if took is None:
        advice = "is it a transaction pooler, or another database? Set database.listen_url"
        return Finding("trouble", "wake: LISTEN hears nothing", advice)
    ms = took / timedelta(milliseconds=1)
    return Finding("well", f"wake: a notification arrives after {ms:.1f} ms")


async def _judge_specs(_config: Config, database: Database) -> Finding:
    count = await database.read(examine.count_plain_secrets)
    if not count:
        return Finding("well", "specs: no row holds a key in plain text")
    advice = 'write {"$secret": "name"} there, and the key under [secrets]'
    return Finding("warning", f"specs: {count} rows hold what looks like a plain key", advice)


async def _judge_accounts(config: Config, database: Database) -> Finding:
    """Return whether each account in which agents may run is configured, here or elsewhere."""
    ours = sorted(config.accounts)
    missing = await database.read(_accounts_not_here, ours)
    if not missing:
        return Finding("well", "accounts: every account with agents is configured")
    lost = await database.read(_accounts_nowhere, ours)
    names = ", ".join(lost or missing)
    if lost:
        advice = "put them back; `run` refuses to start without, unless told to --abandon them"
        told = f"accounts: agents may run in accounts that nobody has: {names}"
        return Finding("trouble", told, advice)
    told = f"accounts: agents may run in accounts that only running daemons have: {names}"
    advice = "when this file is theirs, put them back before you restart or reload"
    return Finding("warning", told, advice)


def _accounts_not_here(connection: Connection, ours: Sequence[str]) -> list[str]:
    return sorted(daemons.accounts_with_open_agents(connection).difference(ours))


def _accounts_nowhere(connection: Connection, ours: Sequence[str]) -> list[str]:
    nobody = daemons.Renewed(daemon_id="", accounts=ours)
    return daemons.accounts_without_keys(connection, nobody, now(connection))


async def _judge_prefix(config: Config, database: Database) -> Finding | None:
    prefix = config.daemon.owner_prefix
    count = await database.read(examine.count_namesakes, prefix)
    if not count:
        return None
    told = f"owner_prefix: {count} agents seen are named {prefix}…, and another database's"
    advice = "give each database that shares a vendor account an owner_prefix of its own"
    return Finding("warning", told, advice)


_Question = Callable[[Config, Database], Awaitable[Finding | None]]
_QUESTIONS: Final[Sequence[tuple[str, _Question]]] = (
    ("rights", _judge_rights),
    ("owner", _judge_owner),
    ("durability", _judge_durability),
    ("clock", _judge_clock),
    ("wake", _judge_wake),
    ("specs", _judge_specs),
    ("accounts", _judge_accounts),
    ("owner_prefix", _judge_prefix),
)
"""What is asked once the schema is known, in this order; null: there is nothing to say."""


def _spell(error: OrchestratorError | StatementError) -> str:
    """Return what is wrong in one line: of a statement that failed, what the database said."""
    told = str(getattr(error, "orig", None) or error)
    return told.splitlines()[0] if told else type(error).__name__
