"""What is forgotten and what never is: tables on both databases, and writers that come between."""

from collections.abc import Mapping
from datetime import timedelta

import anyio
import pytest
from sqlalchemy import event

from orchestrator.store import retention
from orchestrator.store.engine import Connection, Database, open_database
from orchestrator.store.engine import now as database_now
from orchestrator.store.retention import KINDS, TASKS, Cutoffs, Forgotten, Judged, Kind, Page
from tests.store.claiming import Daemon, inbox, want
from tests.store.rows import insert, query, quoted, run, update, value
from tests.store.test_plans import NOW, RESTING, fill, plans, tidy, walks

pytestmark = pytest.mark.anyio

KEPT = timedelta(days=1)
MOST = 1_000
OLD, YOUNG = "'2020-01-01 00:00:00.000000'", "'2099-01-01 00:00:00.000000'"


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


async def cutoffs(database: Database, *, ended: bool = True) -> Cutoffs:
    now = await database.read(database_now)
    return Cutoffs(
        events=now - KEPT,
        commands=now - KEPT,
        turns=now - KEPT,
        ended=now - KEPT if ended else None,
    )


async def prune(database: Database, *, ended: bool = True, most: int = MOST) -> int:
    before = await cutoffs(database, ended=ended)
    return await database.write(retention.prune, before, most)


async def end(daemon: Daemon, id_: str, at: str = OLD) -> None:
    """Start and end a task, as if it had been then and nobody had touched it since."""
    await daemon.start(id_)
    await end_again(daemon.database, id_, at)


async def end_again(database: Database, id_: str, at: str = OLD) -> None:
    await run(
        database,
        f"UPDATE vendor_agent SET ended_at = {at}, horizon_at = {at}, evidence = 'absent' "  # noqa: S608 - a test's own words
        f"WHERE task_id = {quoted(id_)} AND ended_at IS NULL",
        f"UPDATE agent_status SET phase = 'stopped', retired = incarnation, stopped_at = {at}, "  # noqa: S608 - as above
        f"due_at = NULL, stop_due_at = NULL WHERE task_id = {quoted(id_)}",
    )
    await age(database, id_, at)


async def age(database: Database, id_: str, at: str = OLD) -> None:
    """Let a task's row have been written for the last time then."""
    await untriggered(
        database,
        "agent_task",
        f"UPDATE agent_task SET updated_at = {at} WHERE id = {quoted(id_)}",  # noqa: S608 - a test's own words
    )


async def untriggered(database: Database, table: str, *statements: str) -> None:
    """Run statements that an application could not run, or not without being noticed."""
    if database.dialect == "sqlite":
        # A list of columns that ends with the one to be written fires no trigger for others.
        await run(database, *statements)
        return
    await run(
        database,
        f"ALTER TABLE {table} DISABLE TRIGGER USER",
        *statements,
        f"ALTER TABLE {table} ENABLE TRIGGER USER",
    )


async def tasks_left(database: Database) -> list[str]:
    return [row[0] for row in await query(database, "SELECT id FROM agent_task ORDER BY id")]


async def statuses_left(database: Database) -> list[str]:
    found = await query(database, "SELECT task_id FROM agent_status ORDER BY task_id")
    return [row[0] for row in found]


# --- events, sums, facts

EVENT = "INSERT INTO agent_event (at, event) VALUES ({}, 'call')"
FACT = (
    "INSERT INTO vendor_fact (account, key, event, event_at, received_at, taken_at) "
    "VALUES ('{}', 'k', 'ended', {at}, {at}, {taken})"
)
MINUTE = (
    "INSERT INTO call_minute (account, action, minute, bucket, calls) "
    "VALUES ('acc', 'Start', {}, 1, 1)"
)


async def test_events_and_sums_go_when_they_are_old(database: Database) -> None:
    for at in (OLD, YOUNG):
        await run(database, EVENT.format(at), MINUTE.format(at))
    assert await prune(database) == 2
    assert await value(database, "SELECT count(*) FROM agent_event") == 1
    assert await value(database, "SELECT count(*) FROM call_minute") == 1
    assert await prune(database) == 0


async def test_a_fact_goes_when_it_is_old_and_applied(database: Database) -> None:
    facts = {"gone": (OLD, OLD), "young": (YOUNG, YOUNG), "untaken": (OLD, "NULL")}
    for account, (at, taken) in facts.items():
        await run(database, FACT.format(account, at=at, taken=taken))
    assert await prune(database) == 1
    # The vendor's key is unique in its account alone.
    left = await query(database, "SELECT account FROM vendor_fact ORDER BY account")
    assert left == [("untaken",), ("young",)]


# --- commands


async def settle_commands(database: Database, **ended: tuple[str, str]) -> None:
    """Write how commands ended, and when."""
    for id_, (state, at) in ended.items():
        await run(
            database,
            f"UPDATE agent_command SET state = '{state}', done_at = {at} WHERE id = '{id_}'",  # noqa: S608 - a test's own words
        )


async def add_commands(database: Database, task_id: str, *ids: str) -> None:
    for id_ in ids:
        columns = {"id": quoted(id_), "task_id": quoted(task_id), "kind": "'interrupt'"}
        await run(database, insert("agent_command", **columns))


async def test_commands_go_when_they_are_settled_and_old(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await add_commands(daemon.database, "a", "old", "failed", "young", "queued", "sending")
    await settle_commands(
        daemon.database,
        old=("done", OLD),
        failed=("failed", OLD),
        young=("done", YOUNG),
        # Neither has ended, whatever else the row says.
        queued=("queued", OLD),
        sending=("sending", OLD),
    )
    await prune(daemon.database)
    left = await query(daemon.database, "SELECT id FROM agent_command ORDER BY id")
    assert left == [("queued",), ("sending",), ("young",)]


async def test_a_task_goes_with_its_commands_that_would_be_kept_for_longer(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await add_commands(daemon.database, "a", "of-the-ended")
    await add_commands(daemon.database, "b", "of-the-live")
    done = ("done", "'2021-01-01 00:00:00.000000'")
    await settle_commands(daemon.database, **{"of-the-ended": done, "of-the-live": done})
    await end(daemon, "a")
    before = await cutoffs(daemon.database)
    long_ago = before.events - timedelta(days=3650)
    patient = Cutoffs(events=long_ago, commands=long_ago, turns=long_ago, ended=before.ended)
    await daemon.database.write(retention.prune, patient, MOST)
    assert await tasks_left(daemon.database) == ["b"]
    left = await query(daemon.database, "SELECT id FROM agent_command")
    assert left == [("of-the-live",)]


# --- tasks


async def test_an_ended_task_goes_whole(daemon: Daemon) -> None:
    await want(daemon.database, "old", "young", "live")
    await end(daemon, "old")
    await end(daemon, "young", YOUNG)
    await daemon.start("live")
    await run(daemon.database, insert("lane", task_id="'old'", user_id="'human'"))
    assert await prune(daemon.database) == 2
    assert await tasks_left(daemon.database) == ["live", "young"]
    assert await statuses_left(daemon.database) == ["live", "young"]
    left = await query(daemon.database, "SELECT task_id FROM vendor_agent ORDER BY task_id")
    assert left == [("live",), ("young",)]
    assert await query(daemon.database, "SELECT * FROM lane") == []
    # Nobody has to be told: it is not in front of a stop that somebody waits for.
    assert await inbox(daemon.database) == []


async def test_an_ended_task_of_an_account_that_nobody_has_goes_as_well(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "a")
    await end(daemon, "a")
    await run(database, update("agent_status", "account = 'removed'"))
    await prune(database)
    assert await statuses_left(database) == []


NOTHING_ENDED: Mapping[str, str] = {
    "runs": "UPDATE agent_status SET phase = 'running', due_at = {old}",
    "stops": "UPDATE agent_status SET phase = 'stopping', stop_due_at = {old}",
    "quarantined": "UPDATE agent_status SET phase = 'quarantined', due_at = {old}",
    "waits to begin anew": "UPDATE agent_status SET phase = 'pending', incarnation = 2",
    "ended just now": "UPDATE agent_status SET stopped_at = {young}",
    "has an unread wish": "INSERT INTO task_change (task_id, what) VALUES ('a', 'run')",
    "has a late handle": "UPDATE vendor_agent SET ended_at = NULL",
    "waits for a command": (
        "INSERT INTO agent_command (id, task_id, kind) VALUES ('c', 'a', 'interrupt')"
    ),
}


@pytest.mark.parametrize("why", NOTHING_ENDED)
async def test_a_task_stays_that(daemon: Daemon, why: str) -> None:
    await want(daemon.database, "a")
    await end(daemon, "a")
    await run(daemon.database, NOTHING_ENDED[why].format(old=OLD, young=YOUNG))
    await prune(daemon.database)
    assert await tasks_left(daemon.database) == ["a"]
    assert await statuses_left(daemon.database) == ["a"]
    assert await value(daemon.database, "SELECT count(*) FROM vendor_agent") == 1


WRITTEN: Mapping[str, str] = {
    "wants to run again": "desired_state = 'stopped'",
    "was touched": "labels = '{}'",
    "is about the future": f"start_at = {YOUNG}",
}


@pytest.mark.parametrize("why", WRITTEN)
async def test_a_row_that_is_not_of_the_past_stays(daemon: Daemon, why: str) -> None:
    """Whatever became of its last incarnation: somebody still has plans with it."""
    await want(daemon.database, "a")
    await end(daemon, "a")
    await run(daemon.database, update("agent_task", WRITTEN[why]))
    if why == "is about the future":
        await run(daemon.database, "DELETE FROM task_change")
        await age(daemon.database, "a")
    await prune(daemon.database)
    assert await tasks_left(daemon.database) == ["a"]


async def test_nothing_ended_goes_if_it_is_to_be_kept_for_ever(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await end(daemon, "a")
    assert await prune(daemon.database, ended=False) == 0
    assert await statuses_left(daemon.database) == ["a"]


async def test_a_wish_that_comes_between_the_look_and_the_lock_is_kept(daemon: Daemon) -> None:
    """The look's snapshot is older than the wish: what was locked is judged once more."""
    database = daemon.database
    await want(database, "a", "b")
    await end(daemon, "a")
    await end(daemon, "b")
    before = await cutoffs(database)
    assert before.ended is not None
    page = Page(before=before.ended, most=MOST)

    def interrupted(connection: Connection) -> Forgotten:
        """Write the wish right after the lock, as a transaction that commits just then would."""

        def wish(_conn: object, _cursor: object, statement: str, *_: object) -> None:
            if "FROM agent_status JOIN agent_task" in statement and not wished:
                wished.append(statement)
                connection.exec_driver_sql(WISH)

        event.listen(connection, "after_cursor_execute", wish)
        try:
            return TASKS.forget(connection, page)
        finally:
            event.remove(connection, "after_cursor_execute", wish)

    wished: list[str] = []
    assert (await database.write(interrupted)).gone == 1
    assert await tasks_left(database) == ["a"]


WISH = "INSERT INTO task_change (task_id, what) VALUES ('a', 'run')"


async def test_a_row_that_an_application_holds_is_left_out(postgres_url: str) -> None:
    """It decides at its commit; and the update that comes too late finds nothing, and says so."""
    database = open_database(postgres_url)
    daemon = await Daemon(database).ready()
    await want(database, "held", "free")
    await end(daemon, "held")
    await end(daemon, "free")
    is_held, is_pruned = anyio.Event(), anyio.Event()

    async def restart() -> None:
        application = open_database(postgres_url)
        engine = application._rest  # type: ignore[attr-defined]  # a transaction that stays open
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'held'"
            )
            is_held.set()
            await is_pruned.wait()
        await application.close()

    async with anyio.create_task_group() as group:
        group.start_soon(restart)
        await is_held.wait()
        await prune(database)
        assert await tasks_left(database) == ["held"]
        is_pruned.set()
    await prune(database)
    assert await tasks_left(database) == ["held"]
    await database.close()


# --- the ledger


async def test_the_newest_of_a_task_that_lives_stays_and_its_past_goes(daemon: Daemon) -> None:
    """A task that waits to begin anew has nothing open, and counts on from what is there."""
    await want(daemon.database, "a")
    await end(daemon, "a")
    await run(
        daemon.database,
        insert(
            "vendor_agent",
            id="'newer'",
            task_id="'a'",
            incarnation="2",
            account="'volc'",
            site="''",
            ended_at=OLD,
        ),
        "UPDATE agent_status SET phase = 'pending', incarnation = 3, retired = 2",
    )
    await prune(daemon.database)
    left = await query(daemon.database, "SELECT incarnation FROM vendor_agent")
    assert left == [(2,)]


LEDGER: Mapping[str, tuple[dict[str, str], bool]] = {
    "ended long ago": ({}, False),
    "never sent": ({"horizon_at": "NULL"}, False),
    "open": ({"ended_at": "NULL"}, True),
    "ended just now": ({"ended_at": YOUNG}, True),
    "assumed gone, with a horizon to come": ({"horizon_at": YOUNG}, True),
    "of an orphan that is gone": ({"task_id": "NULL", "orphan_id": "'gone'"}, False),
    "of an orphan that is there": ({"task_id": "NULL", "orphan_id": "'there'"}, True),
}


@pytest.mark.parametrize("what", LEDGER)
async def test_a_ledger_row(database: Database, what: str) -> None:
    changed, stays = LEDGER[what]
    ended = {"ended_at": OLD, "horizon_at": OLD, "task_id": "'t'"}
    await run(
        database,
        insert("orphan_task", id="'there'", account="'volc'", phase="'stopping'"),
        insert("vendor_agent", id="'x'", account="'volc'", site="''", **(ended | changed)),
    )
    await prune(database)
    assert await value(database, "SELECT count(*) FROM vendor_agent") == int(stays)


# --- orphans

ENDED_ORPHAN = {"phase": "'stopped'", "stopped_at": OLD, "last_seen_at": OLD}
IGNORED_ORPHAN = {"phase": "'ignored'", "last_seen_at": OLD}
ORPHANS: Mapping[str, tuple[dict[str, str], str, bool]] = {
    "ended long ago": (ENDED_ORPHAN, "", False),
    "ended just now": ({**ENDED_ORPHAN, "stopped_at": YOUNG}, "", True),
    "a report that ended and is to be stopped after all": (
        {**ENDED_ORPHAN, "phase": "'stopping'"},
        "",
        True,
    ),
    "still seen": ({"phase": "'seen'", "source": "'callback'", "last_seen_at": OLD}, "", True),
    "ignored for long": (IGNORED_ORPHAN, "", False),
    "ignored, and heard of": ({**IGNORED_ORPHAN, "last_seen_at": YOUNG}, "", True),
    "ended, with a late handle": (
        ENDED_ORPHAN,
        "INSERT INTO vendor_agent (id, orphan_id, account, site) VALUES ('x', 'o', 'volc', '')",
        True,
    ),
    "ended, and looked after": (
        ENDED_ORPHAN,
        insert("agent_status", task_id="'~o'", account="'volc'", room_id="''", user_id="''"),
        True,
    ),
    "ended, with a word that comes too late": (
        ENDED_ORPHAN,
        "INSERT INTO task_change (task_id, what) VALUES ('~o', 'assume_gone')",
        False,
    ),
}


@pytest.mark.parametrize("what", ORPHANS)
async def test_an_orphan(database: Database, what: str) -> None:
    columns, beside, stays = ORPHANS[what]
    await run(
        database,
        insert("orphan_task", id="'o'", account="'volc'", **columns),
        "DELETE FROM task_change",
    )
    if beside:
        await run(database, beside)
    await prune(database)
    assert await value(database, "SELECT count(*) FROM orphan_task") == int(stays)


# --- batches

NUMBERS = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 25)",
    "postgresql": "WITH s(n) AS (SELECT generate_series(1, 25))",
}


async def fill_events(database: Database) -> None:
    old = OLD if database.dialect == "sqlite" else f"timestamptz {OLD}"
    await run(
        database,
        f"INSERT INTO agent_event (at, event) {NUMBERS[database.dialect]} SELECT {old}, 'call' FROM s",  # noqa: E501, S608 - a test's own words
    )


async def test_one_batch_forgets_a_bounded_number_of_rows(database: Database) -> None:
    await fill_events(database)
    assert [await prune(database, most=10) for _ in range(3)] == [10, 10, 5]


async def test_a_batch_takes_the_oldest_first(database: Database) -> None:
    for day in (3, 1, 2):
        await run(database, EVENT.format(f"'2020-01-0{day} 00:00:00.000000'"))
    assert await prune(database, most=1) == 1
    days = await query(database, "SELECT at FROM agent_event ORDER BY at")
    assert [str(at)[:10] for (at,) in days] == ["2020-01-02", "2020-01-03"]


async def test_what_stays_does_not_stand_before_what_may_go(daemon: Daemon) -> None:
    """Page by page, each no more rows than it may look at."""
    database = daemon.database
    ids = [f"t{n}" for n in range(6)]
    await want(database, *ids)
    for id_ in ids:
        await end(daemon, id_)
    await run(database, "INSERT INTO task_change (task_id, what) VALUES ('t0', 'run')")
    await run(database, "INSERT INTO task_change (task_id, what) VALUES ('t1', 'run')")
    before = await cutoffs(database)
    assert before.ended is not None
    page, gone = Page(before=before.ended, most=2), []
    while True:
        done = await database.write(retention.forget, TASKS, page)
        gone.append(done.gone)
        if done.last is None:
            break
        page = Page(before=before.ended, most=2, after=done.last)
    assert gone == [0, 2, 2, 0]
    assert await tasks_left(database) == ["t0", "t1"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.at))
async def test_of_what_is_not_there_nothing_goes(database: Database, kind: Kind) -> None:
    before = (await cutoffs(database)).events
    assert not await database.read(retention.is_any_old, kind, before)
    nothing = await database.write(retention.forget, kind, Page(before=before, most=MOST))
    assert nothing == Forgotten()


async def test_daemons_that_prune_at_once_wait_for_nobody(postgres_url: str) -> None:
    """One holds what it has chosen, and the other takes the rest at the same time."""
    one, other = open_database(postgres_url), open_database(postgres_url)
    daemon = await Daemon(one).ready()
    ids = [f"t{n}" for n in range(4)]
    await want(one, *ids)
    for id_ in ids:
        await end(daemon, id_)
    await fill_events(one)
    before = await cutoffs(one)
    assert before.ended is not None
    engine = one._rest  # type: ignore[attr-defined]  # a transaction that stays open
    gone = []
    async with engine.begin() as held:
        for kind, most, at in ((KINDS[0], 10, before.events), (TASKS, 3, before.ended)):
            some, rest = Page(before=at, most=most), Page(before=at, most=MOST)
            gone.append((await held.run_sync(retention.forget, kind, some)).gone)
            gone.append((await other.write(retention.forget, kind, rest)).gone)
    # The starts of four tasks are events, too, and young.
    assert gone == [10, 15, 3, 1]
    assert await tasks_left(one) == []
    await one.close()
    await other.close()


# --- plans


def fill_old(connection: Connection) -> None:
    """Make tasks that ended, each with a ledger row, and a command that has been settled."""
    fill(connection, 0, RESTING)
    connection.exec_driver_sql("DELETE FROM task_change")
    connection.exec_driver_sql("INSERT INTO task_change (task_id, what) " + CHANGES_OF_OTHERS)
    connection.exec_driver_sql("INSERT INTO agent_command (id, task_id, kind) " + SOME_COMMANDS)
    connection.exec_driver_sql(f"UPDATE agent_command SET state = 'done', done_at = {OLD}")  # noqa: S608 - a test's own words


CHANGES_OF_OTHERS = "SELECT 'other-' || id, 'timing' FROM agent_task"
SOME_COMMANDS = "SELECT id, id, 'interrupt' FROM agent_task"


@pytest.mark.parametrize(
    "kind", [one for one in KINDS if isinstance(one, Judged)], ids=lambda kind: str(kind.at)
)
async def test_what_other_tables_say_is_found_by_an_index(database: Database, kind: Judged) -> None:
    await database.write(fill_old)
    await untriggered(database, "agent_task", update("agent_task", f"updated_at = {OLD}"))
    await database.read(tidy)

    def explain(connection: Connection) -> list[str]:
        return plans(connection, lambda c: kind.forget(c, Page(before=NOW, most=20)))

    steps = await database.write(explain)
    assert steps != [] or kind.at.table.name == "orphan_task"
    walked = [step for step in steps if step.startswith(("SCAN agent_", "SCAN vendor_"))]
    assert [*walks(steps), *walked] == []
