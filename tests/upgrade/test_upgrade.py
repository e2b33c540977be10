"""Two releases on one Postgres: expand, migrate, contract, while agents run and come and go."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import anyio
import asyncpg
import pytest

from orchestrator.store.schema import REVISION
from tests.daemon.application import Application, delete_task, open_application, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO, Customer
from tests.daemon.running import Daemon, Scene, task, until
from tests.daemon.vendors import doubled
from tests.upgrade.releases import CONTRACTED, EXPANDED, Release, this_release

pytestmark = pytest.mark.anyio

CUSTOMERS = (VOLCENGINE, TENCENT, ZEGO)
PATIENCE_S = 60.0


# --- what goes on meanwhile


@dataclass
class Traffic:
    """Calls that come and go, one after the other at each vendor, as an application makes them."""

    scene: Scene
    finished: dict[str, int] = field(default_factory=dict)
    is_over: bool = False

    async def serve(self, customer: Customer) -> None:
        self.finished[customer.name] = 0
        async with open_application(self.scene.database_url) as app:
            while not self.is_over:
                id_ = f"call-{customer.name}-{self.finished[customer.name]}"
                await app.write(task(customer, id_))
                await self._wait(app, id_, "running")
                await app.write(update_task(id_, desired_state="'stopped'"))
                await self._wait(app, id_, "stopped")
                self.finished[customer.name] += 1

    async def go_on(self) -> None:
        """Wait until every vendor's line has begun and ended a call from now on."""
        before = dict(self.finished)

        async def look() -> bool | None:
            # The next to end may have begun before; the one after that has not.
            return all(self.finished[name] >= n + 2 for name, n in before.items()) or None

        async def awaited() -> str:
            return f"calls after {before}, now {self.finished}\n{self.scene.logs()}"

        await until(look, awaited, PATIENCE_S)

    async def _wait(self, app: Application, id_: str, phase: str) -> None:
        async def look() -> bool | None:
            (row,) = await app.read(f"SELECT phase FROM agent_status WHERE task_id = '{id_}'")  # noqa: S608 - a test's own words
            return True if row["phase"] == phase else None

        async def awaited() -> str:
            row = await app.read(f"SELECT * FROM task_explain WHERE task_id = '{id_}'")  # noqa: S608 - as above
            return f"{id_} {phase}: {row}\n{self.scene.logs()}"

        await until(look, awaited, PATIENCE_S)


@asynccontextmanager
async def traffic(scene: Scene) -> AsyncIterator[Traffic]:
    """Let calls come and go until the context ends."""
    one = Traffic(scene)
    async with anyio.create_task_group() as lines:
        for customer in CUSTOMERS:
            lines.start_soon(one.serve, customer)
        await until(lambda: _all_begun(one), scene_logs(scene), PATIENCE_S)
        yield one
        one.is_over = True


async def _all_begun(one: Traffic) -> bool | None:
    return True if len(one.finished) == len(CUSTOMERS) else None


def scene_logs(scene: Scene) -> Callable[[], Awaitable[str]]:
    async def logs() -> str:
        return scene.logs()

    return logs


async def migrate(scene: Scene, release: Release) -> None:
    """Run a release's `migrate` to its end."""
    process = release.begin("migrate", "-c", str(scene.write_config("migrate")))
    assert await _end_of(process) == (0, f"the schema is {release.revision}\n", "")


async def _end_of(process: Popen[str]) -> tuple[int, str, str]:
    out, err = await anyio.to_thread.run_sync(process.communicate)
    return process.returncode, out, err


async def start(scene: Scene, name: str, release: Release) -> Daemon:
    daemon = await scene.start_daemon(name, **release.environ)
    found = await scene.app.read(f"SELECT version FROM daemon WHERE pid = {daemon.pid}")  # noqa: S608 - a test's own words
    assert found[0]["version"] == release.version
    return daemon


# --- the whole way


async def test_a_release_comes_and_what_it_replaced_goes(
    scene: Scene, releases: dict[str, Release]
) -> None:
    """No call is lost or doubled, and no daemon has a statement fail."""
    second, third, fourth = releases.values()
    old = await scene.start_daemon("first")
    stays = [await scene.ask_for(one, f"stays-{one.name}") for one in CUSTOMERS]
    for id_ in stays:
        await scene.wait(id_, within_s=PATIENCE_S, phase="running")
    async with traffic(scene) as calls:
        await calls.go_on()
        await migrate(scene, second)  # expand, under the old one
        await calls.go_on()
        beside = await start(scene, "second", second)
        await calls.go_on()
        assert await old.stop() == 0  # from now on only the new one
        await calls.go_on()
        after = await start(scene, "third", third)  # which uses nothing of it any more
        await beside.kill()  # not every end is orderly
        await calls.go_on()
        await migrate(scene, fourth)  # contract, under the third
        await calls.go_on()
        last = await start(scene, "fourth", fourth)
        assert await after.stop() == 0
        await calls.go_on()
    await is_as_wanted(scene, stays)
    for daemon in (old, beside, after, last):
        assert [line for line in daemon.log().splitlines() if "Traceback" in line] == []
        assert daemon.events("janitor_failed") == []
    assert await last.stop() == 0


async def is_as_wanted(scene: Scene, stays: list[str]) -> None:
    """What was to stay has run all the time, all else has ended, and nobody ran twice."""
    live = await scene.vendors.live()
    assert sorted(agent["room_id"] for agent in live) == sorted(f"room-{id_}" for id_ in stays)
    for id_ in stays:
        assert (await scene.status(id_))["incarnation"] == 1
    assert doubled(await scene.vendors.agents()) == []
    for id_ in stays:
        await scene.app.write(delete_task(id_))
    for id_ in stays:
        await scene.wait_gone(id_)
    assert await scene.vendors.live() == []


# --- what does not fit


async def test_each_release_says_what_to_do_about_a_schema_that_is_not_its_own(
    scene: Scene, releases: dict[str, Release]
) -> None:
    second = releases["2.0"]
    early = scene.launch("early", **second.environ)
    assert await early.ended() == 2
    assert f"is {REVISION}, older than {EXPANDED}: run `orchestrator migrate`" in early.log()
    await migrate(scene, second)
    late = scene.launch("late")
    assert await late.ended() == 2
    assert f"is {EXPANDED}, newer than {REVISION}: upgrade orchestrator" in late.log()
    process = this_release().begin("migrate", "-c", str(scene.write_config("old")))
    code, _, said = await _end_of(process)
    assert code == 2
    assert f"newer than {REVISION}: upgrade orchestrator" in said


WORDS = {
    "reason": "UPDATE agent_status SET end_reason = 'bored' WHERE task_id = 'reason'",
    "phase": "UPDATE agent_status SET phase = 'dancing' WHERE task_id = 'phase'",
    "wish": "INSERT INTO task_change (task_id, what) VALUES ('wish', 'dance')",
}


async def test_a_word_of_a_later_release_is_left_alone(scene: Scene) -> None:
    """A release writes a new word only after the one before could read it. Should it not: nothing
    is destroyed, the log says which row, and all others go on."""
    daemon = await scene.start_daemon()
    for id_ in WORDS:
        await scene.ask_for(VOLCENGINE, id_)
        await scene.wait(id_, within_s=PATIENCE_S, phase="running")
    for table, check in (
        ("agent_status", "agent_status_end_reason_is_known"),
        ("agent_status", "agent_status_phase_is_known"),
        ("task_change", "task_change_what_is_known"),
    ):
        await scene.app.write(f"ALTER TABLE {table} DROP CONSTRAINT {check}")
    await scene.app.write(*WORDS.values())
    await scene.app.write(*(update_task(id_, desired_state="'stopped'") for id_ in WORDS))

    async def are_told() -> bool | None:
        told = {line["task_id"] for line in daemon.events("row_failed")}
        return True if told == WORDS.keys() else None

    await until(are_told, daemon.describe, PATIENCE_S)
    await scene.ask_for(VOLCENGINE, "another")
    await scene.wait("another", within_s=PATIENCE_S, phase="running")
    left = await scene.app.read("SELECT phase, end_reason FROM agent_status ORDER BY task_id")
    assert [tuple(row.values()) for row in left] == [
        ("running", None),
        ("dancing", None),
        ("running", "bored"),
        ("running", None),
    ]
    assert len(await scene.vendors.live()) == 4
    # The release that knows the words takes up what is left.
    await daemon.kill()
    await scene.app.write(
        "DELETE FROM task_change WHERE what = 'dance'",
        "UPDATE agent_status SET phase = 'running', end_reason = NULL",
    )
    await scene.start_daemon("knows")
    for id_ in WORDS:
        await scene.wait(id_, within_s=PATIENCE_S, phase="stopped")


# --- a migration that meets others


async def test_two_migrations_at_once_are_one(scene: Scene, releases: dict[str, Release]) -> None:
    fourth = releases["4.0"]
    config = str(scene.write_config("migrate"))
    processes = [fourth.begin("migrate", "-c", config) for _ in range(2)]
    for process in processes:
        assert await _end_of(process) == (0, f"the schema is {CONTRACTED}\n", "")


async def test_a_migration_that_is_killed_has_changed_nothing(
    database_url: str,
    tmp_path: Path,
    releases: dict[str, Release],
    slow_release: Release,
) -> None:
    config, mark = tmp_path / "config.toml", tmp_path / "mark"
    config.write_text(f'[database]\nurl = "{database_url}"\n', "utf-8")
    slow = slow_release.begin("migrate", "-c", str(config), UPGRADE_MARK=str(mark))
    with ended(slow):
        await until(lambda: _is_there(mark), lambda: _what_it_said(slow), PATIENCE_S)
        slow.send_signal(signal.SIGKILL)
    async with open_application(database_url) as app:
        assert await revision_of(app) == REVISION
        await app.write(task(VOLCENGINE, "kept"))
        (row,) = await app.read("SELECT * FROM agent_status")
        assert "weight" not in row
    again = releases["4.0"].begin("migrate", "-c", str(config))
    assert await _end_of(again) == (0, f"the schema is {CONTRACTED}\n", "")


@contextmanager
def ended(process: Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate()


async def _is_there(mark: Path) -> bool | None:
    return True if await anyio.Path(mark).exists() else None


async def _what_it_said(process: Popen[str]) -> str:
    process.kill()
    return str(process.communicate())


async def revision_of(app: Application) -> str:
    (row,) = await app.read("SELECT version_num FROM orchestrator_version")
    return str(row["version_num"])


WAITS = """
    SELECT 1 FROM pg_stat_activity
    WHERE application_name = 'orchestrator migrate' AND wait_event_type = 'Lock'
"""


async def test_nobody_waits_behind_a_migration_that_waits(
    scene: Scene, releases: dict[str, Release]
) -> None:
    """Somebody reads for long. The migration tries again and again, and lets others pass."""
    await scene.app.write(task(VOLCENGINE, "written"))
    reader = await asyncpg.connect(scene.database_url)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT * FROM agent_status")
    process = releases["2.0"].begin("migrate", "-c", str(scene.write_config("migrate")))
    with ended(process):

        async def waits() -> bool | None:
            return True if await scene.app.read(WAITS) else None

        await until(waits, lambda: _what_it_said(process), PATIENCE_S)
        # It would wait here for as long as the reader reads.
        await scene.app.write("UPDATE agent_status SET message = 'written'")
        await reading.rollback()
        assert await _end_of(process) == (0, f"the schema is {EXPANDED}\n", "")
    await reader.close()
