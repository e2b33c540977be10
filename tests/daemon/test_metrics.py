"""What a real daemon shows of its work, to Prometheus and to whoever watches its health."""

import json
import socket
from collections.abc import Mapping
from contextlib import closing

import pytest

from orchestrator import __version__
from orchestrator.core.model import Phase
from tests.daemon.application import Row, insert, quoted
from tests.daemon.customers import CUSTOMERS, TENCENT, ZEGO
from tests.daemon.posts import open_mailbox
from tests.daemon.running import Scene, task, until
from tests.daemon.scraping import (
    BREAKS,
    ECHO,
    NAMED,
    NONE,
    TASKS,
    Samples,
    Window,
    converse,
    open_gateway,
    open_window,
    poll_seldom,
    sample,
    show_metrics,
    work,
)
from tests.daemon.talk import WALKIE, press, settled

pytestmark = pytest.mark.anyio

NAMES = {
    "orchestrator_calls_total": {"account", "action", "outcome"},
    "orchestrator_call_seconds_bucket": {"account", "action", "le"},
    "orchestrator_commit_to_wire_seconds_bucket": {"class", "le"},
    "orchestrator_callbacks_total": {"account", "result"},
    "orchestrator_clock_offset_seconds": {"account"},
    "orchestrator_build_info": {"version"},
    "orchestrator_tasks": {"account", "phase"},
    "orchestrator_orphans": {"account", "ours"},
    "orchestrator_orphan_seconds_total": {"account"},
    "orchestrator_unconverged": {"account"},
    "orchestrator_oldest_unconverged_seconds": {"account"},
    "orchestrator_account_denied": {"account"},
}
"""The contract: names, and the labels of each."""
BEYOND = {
    "orchestrator_rate_limit_wait_seconds_bucket": {"account", "action", "le"},
    "orchestrator_parked": {"account", "waiting_for"},
    "orchestrator_oldest_parked_seconds": {"account", "waiting_for"},
    "orchestrator_presses": {"account"},
    "orchestrator_oldest_press_seconds": {"account"},
    "orchestrator_account_paused": {"account"},
    "orchestrator_account_frozen": {"account"},
    "orchestrator_circuit_open": {"account"},
    "orchestrator_calls_in_flight": {"class"},
    "orchestrator_database_errors_total": {"kind"},
    "orchestrator_database_figures_up": set(),
    "orchestrator_event_loop_lag_seconds_bucket": {"le"},
    "orchestrator_loop_age_seconds": {"loop"},
    "orchestrator_draining": set(),
}
GATEWAY = {
    "orchestrator_llm_turns_total": {"account", "upstream", "outcome"},
    "orchestrator_llm_refused_total": {"account", "why"},
    "orchestrator_llm_first_token_seconds_bucket": {"upstream", "le"},
    "orchestrator_llm_fallbacks_total": {"upstream"},
    "orchestrator_llm_tokens_total": {"account", "upstream", "kind"},
    "orchestrator_llm_turns_open": set(),
}
"""Of the LLM gateway, where there is one."""
CALLS = """
    SELECT account, action, outcome, count(*) AS calls FROM agent_event
    WHERE latency_ms IS NOT NULL GROUP BY account, action, outcome
"""
CLASSES = {"start": len(CUSTOMERS), "stop": 1, "listening": 2, "observe": 0}
"""How many calls of each class came straight from a change of the application's."""


async def counted_calls(scene: Scene) -> dict[tuple[str, str, str], int]:
    """Return the calls that the database tells of."""
    rows: list[Row] = await scene.app.read(CALLS)
    return {(row["account"], row["action"], row["outcome"]): row["calls"] for row in rows}


def shown_calls(samples: Samples) -> dict[tuple[str, str, str], int]:
    """Return the calls that the metrics tell of."""
    return {
        (labels["account"], labels["action"], labels["outcome"]): int(value)
        for (name, pairs), value in samples.items()
        if name == "orchestrator_calls_total"
        for labels in [dict(pairs)]
    }


async def wait_for_quiet(scene: Scene, window: Window) -> Samples:
    """Wait until no task is under way, and the metrics tell of all calls that the rows tell of."""
    await window.wait_for("orchestrator_unconverged", 0, account=ZEGO.name)

    async def look() -> Samples | None:
        samples = await window.samples()
        return samples if shown_calls(samples) == await counted_calls(scene) else None

    async def awaited() -> str:
        shown = shown_calls(await window.samples())
        return f"as many calls as the rows tell of: {shown}, {await counted_calls(scene)}"

    return await until(look, awaited)


async def test_a_daemon_that_worked_shows_it(scene: Scene) -> None:
    show_metrics(scene)
    poll_seldom(scene)
    async with open_mailbox(scene) as mailbox, open_window(mailbox.daemon) as window:
        await work(scene, mailbox)
        await window.wait_for("orchestrator_tasks", 1, account=TENCENT.name, phase="stopped")
        samples = await wait_for_quiet(scene, window)
        assert await window.ask("/healthz") == (200, "ok\n")
        assert await window.ask("/readyz") == (200, "ready\n")
        status, text = await window.ask("/metrics", Accept="application/openmetrics-text")
        assert (status, text.splitlines()[-1]) == (200, "# EOF")
    assert_whole(samples)
    assert_right(samples)


def assert_whole(samples: Samples) -> None:
    """Every name is there with its labels, and no label names a task, a room or a user."""
    assert_named(samples, NAMES | BEYOND)
    assert {text for _, pairs in samples for key, text in pairs if key == "account"} == {
        "",
        *(customer.name for customer in CUSTOMERS),
    }


def assert_named(samples: Samples, names: Mapping[str, set[str]]) -> None:
    """These names are there with their labels, and no label of any names who only a row may."""
    for name, wanted in names.items():
        labels = {frozenset(dict(pairs)) for shown, pairs in samples if shown == name}
        assert labels == {frozenset(wanted)}, name
    texts = {text for _, pairs in samples for _, text in pairs}
    assert [text for text in texts if NAMED.search(text)] == []


def assert_right(samples: Samples) -> None:
    """What was done is what is shown."""
    assert sample(samples, "orchestrator_build_info", version=__version__) == 1
    for each, count in CLASSES.items():
        name = "orchestrator_commit_to_wire_seconds_count"
        assert (each, sample(samples, name, class_=each)) == (each, count)
    calls = sum(shown_calls(samples).values())
    counts = [v for (name, _), v in samples.items() if name == "orchestrator_call_seconds_count"]
    assert sum(counts) == calls
    forged = {"account": TENCENT.name, "result": "forged"}
    assert sample(samples, "orchestrator_callbacks_total", **forged) == 1
    strangers = {"account": "", "result": "stranger"}
    assert sample(samples, "orchestrator_callbacks_total", **strangers) == 2
    for customer in CUSTOMERS:
        shown = {
            phase: sample(samples, "orchestrator_tasks", account=customer.name, phase=phase)
            for phase in Phase
        }
        ended = Phase.STOPPED if customer is TENCENT else Phase.RUNNING
        assert shown == {phase: phase is ended for phase in Phase}
        assert sample(samples, "orchestrator_account_denied", account=customer.name) == 0
        assert abs(sample(samples, "orchestrator_clock_offset_seconds", account=customer.name)) < 9
    assert sample(samples, "orchestrator_calls_in_flight", class_="start") == 0


async def test_turns_at_the_gateway_are_shown_as_the_rows_tell_of_them(scene: Scene) -> None:
    show_metrics(scene)
    poll_seldom(scene)
    open_gateway(scene)
    daemon = await scene.start_daemon()
    async with open_window(daemon) as window:
        await converse(scene, window)
        samples = await window.wait_for("orchestrator_llm_turns_open", 0)
        assert await window.ask("/readyz") == (200, "ready\n")
    assert_named(samples, GATEWAY)
    assert shown_turns(samples) == {
        (ECHO, "answered"): 2,  # one of them for another
        (BREAKS, "cut"): 1,
        (NONE, "failed"): 1,
        (ECHO, "ended"): 1,
    }
    assert await turns_written(scene, sum(shown_turns(samples).values())) == shown_turns(samples)
    firsts = "orchestrator_llm_first_token_seconds_count"
    assert (sample(samples, firsts, upstream=ECHO), sample(samples, firsts, upstream=BREAKS)) == (
        2,
        1,
    )
    assert sample(samples, "orchestrator_llm_fallbacks_total", upstream=ECHO) == 1
    forged = {"account": ZEGO.name, "why": "forged"}
    assert sample(samples, "orchestrator_llm_refused_total", **forged) == 1
    tokens: list[Row] = await scene.app.read(TOKENS)
    for kind in ("prompt", "completion"):
        labels = {"account": ZEGO.name, "upstream": ECHO, "kind": kind}
        count = sample(samples, "orchestrator_llm_tokens_total", **labels)
        assert (kind, count) == (kind, tokens[0][kind])
        assert count > 0


TURNS = "SELECT upstream, outcome, count(*) AS turns FROM llm_turn GROUP BY upstream, outcome"
TOKENS = """
    SELECT CAST(sum(prompt_tokens) AS integer) AS prompt,
        CAST(sum(completion_tokens) AS integer) AS completion
    FROM llm_turn WHERE upstream = 'echo'
"""


def shown_turns(samples: Samples) -> dict[tuple[str, str], int]:
    """Return the turns that the metrics tell of, by upstream and outcome."""
    return {
        (labels["upstream"], labels["outcome"]): int(value)
        for (name, pairs), value in samples.items()
        if name == "orchestrator_llm_turns_total"
        for labels in [dict(pairs)]
    }


async def turns_written(scene: Scene, count: int) -> dict[tuple[str, str], int]:
    """Wait until so many turns are written; return how many of each upstream and outcome."""

    async def look() -> dict[tuple[str, str], int] | None:
        rows: list[Row] = await scene.app.read(TURNS)
        found = {(row["upstream"], row["outcome"]): row["turns"] for row in rows}
        return found if sum(found.values()) >= count else None

    async def awaited() -> str:
        return f"{count} turns, found {await scene.app.read(TURNS)}\n{scene.logs()}"

    return await until(look, awaited)


async def test_where_a_token_is_forged_nobody_chooses_a_label(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    show_metrics(scene)
    open_gateway(scene)
    daemon = await scene.start_daemon()
    url = scene.settings["llm_gateway"]["public_url"]
    async with open_window(daemon) as window:
        for account in ("secret-task-1", 'a"b', ZEGO.name):
            path = f"/llm/secret-task-2/{account}/room-1/human/secret-task-3/1/a/chat/completions"
            async with window.session.post(f"{url}{path}", data=b"{}") as answer:
                assert answer.status == (401 if account == ZEGO.name else 404)
        strangers = {"account": "", "why": "stranger"}
        samples = await window.wait_for("orchestrator_llm_refused_total", 2, **strangers)
    forged = {"account": ZEGO.name, "why": "forged"}
    assert sample(samples, "orchestrator_llm_refused_total", **forged) == 1
    texts = {text for _, pairs in samples for _, text in pairs}
    assert [text for text in texts if NAMED.search(text)] == []
    assert shown_turns(samples) == {}


async def test_what_the_application_writes_chooses_no_label(scene: Scene) -> None:
    show_metrics(scene)
    daemon = await scene.start_daemon()
    names = [f"account-{number}" for number in range(20)] + ['a"b', "a\nb", "a\\b", "}{"]
    rows = [
        insert(
            "agent_task",
            id=quoted(f"lost-{number}"),
            account=quoted(name),
            room_id="'room'",
            user_id="'human'",
        )
        for number, name in enumerate(names)
    ]
    await scene.app.write(*rows)
    async with open_window(daemon) as window:
        lost = len(names)
        samples = await window.wait_for("orchestrator_tasks", lost, account="", phase="pending")
        assert sample(samples, "orchestrator_unconverged", account="") == lost
        accounts = {text for _, pairs in samples for key, text in pairs if key == "account"}
        assert accounts == {"", *(customer.name for customer in CUSTOMERS)}


async def test_a_denied_account_and_one_on_hold_are_shown(scene: Scene) -> None:
    show_metrics(scene)
    scene.account(TENCENT)["secret_key"] = "fake-wrong-key"
    daemon = await scene.start_daemon()
    control = f"UPDATE account_control SET paused = true WHERE account = {quoted(ZEGO.name)}"  # noqa: S608 - our own words
    await scene.app.write(control)
    for customer in (TENCENT, ZEGO):
        await scene.ask_for(customer, TASKS[customer])
    async with open_window(daemon) as window:
        zego = {"account": ZEGO.name}
        await window.wait_for("orchestrator_parked", 1, waiting_for="paused", **zego)
        await window.wait_for("orchestrator_account_paused", 1, **zego)
        await window.wait_for("orchestrator_account_denied", 1, account=TENCENT.name)


async def test_a_call_that_is_repeated_is_measured_once(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    show_metrics(scene)
    poll_seldom(scene)
    await scene.vendors.script(TENCENT.start, "throttle", n=2)
    daemon = await scene.start_daemon()
    await scene.ask_for(TENCENT, "again")
    await scene.wait("again", phase="running")
    async with open_window(daemon) as window:
        samples = await wait_for_quiet(scene, window)
    starts = {key[2]: count for key, count in shown_calls(samples).items()}
    assert starts == {"Throttled": 2, "Done": 1}
    assert sample(samples, "orchestrator_commit_to_wire_seconds_count", class_="start") == 1
    slots = {"account": TENCENT.name, "action": TENCENT.start}
    assert sample(samples, "orchestrator_rate_limit_wait_seconds_count", **slots) == 3


async def test_a_press_that_waited_for_its_agent_is_not_measured(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    show_metrics(scene)
    daemon = await scene.start_daemon()
    later = scene.app.in_seconds(600)
    await scene.app.write(task(WALKIE, "t"), press("t", "early", 1, expires_at=later))
    await settled(scene, "early")
    await scene.app.write(press("t", "late", 2, expires_at=later))
    await settled(scene, "late")
    async with open_window(daemon) as window:
        name = "orchestrator_commit_to_wire_seconds_count"
        assert sample(await window.samples(), name, class_="listening") == 1


async def test_a_wake_up_that_is_heard_is_shown(postgres_scene: Scene) -> None:
    show_metrics(postgres_scene)
    daemon = await postgres_scene.start_daemon()
    async with open_window(daemon) as window:
        samples = await window.wait_for("orchestrator_listen_up", 1)
        assert sample(samples, "orchestrator_listen_round_trip_seconds") > 0


async def test_where_nothing_is_listened_for_nothing_is_said_of_it(sqlite_scene: Scene) -> None:
    show_metrics(sqlite_scene)
    daemon = await sqlite_scene.start_daemon()
    async with open_window(daemon) as window:
        assert not [name for name, _ in await window.samples() if "_listen_" in name]


async def test_a_daemon_that_waits_for_its_database_is_alive_and_not_ready(
    postgres_scene: Scene,
) -> None:
    scene = postgres_scene
    show_metrics(scene)
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        port = nobody.getsockname()[1]
        scene.settings["database"]["url"] = f"postgresql://nobody:guess@127.0.0.1:{port}/none"
        daemon = scene.launch()
        async with open_window(daemon) as window:
            assert await window.ask("/healthz") == (200, "starting\n")
            status, why = await window.ask("/readyz")
            assert (status, f"127.0.0.1:{port}/none" in why) == (503, True)
            assert "guess" not in why
            samples = await window.samples()
            assert sample(samples, "orchestrator_database_figures_up") == 0
            assert sample(samples, "orchestrator_build_info", version=__version__) == 1
            assert not [name for name, _ in samples if name == "orchestrator_tasks"]
        await daemon.kill()


async def test_a_daemon_that_drains_is_alive_and_not_ready(scene: Scene) -> None:
    show_metrics(scene)
    await scene.vendors.script(ZEGO.start, "delay", ms=4_000)
    scene.account(ZEGO)["call_timeout_ms"] = 4_500
    scene.settings["leases"] = {"ttl_s": 8}
    daemon = await scene.start_daemon()
    await scene.ask_for(ZEGO, "slow")
    async with open_window(daemon) as window:
        await window.wait_for("orchestrator_calls_in_flight", 1, class_="start")
        daemon.process.terminate()
        assert await window.wait_for_answer("/readyz", 503) == "draining\n"
        assert await window.ask("/healthz") == (200, "ok\n")
        assert sample(await window.samples(), "orchestrator_draining") == 1
        assert await daemon.ended() == 0


async def test_a_port_that_is_taken_is_one_line_and_no_restart(sqlite_scene: Scene) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        sqlite_scene.settings["metrics"] = {"listen": f"127.0.0.1:{port}"}
        daemon = sqlite_scene.launch()
        assert await daemon.ended() == 2
    said = f"metrics.listen: cannot listen at 127.0.0.1:{port}"
    assert len([line for line in daemon.log().splitlines() if said in line]) == 1


async def test_no_schema_is_one_line_though_metrics_are_shown(sqlite_scene: Scene) -> None:
    show_metrics(sqlite_scene)
    sqlite_scene.settings["database"] = {"url": f"sqlite:///{sqlite_scene.folder}/none.db"}
    daemon = sqlite_scene.launch()
    assert await daemon.ended() == 2
    assert "Traceback" not in daemon.log()
    assert "orchestrator migrate" in daemon.log()


async def test_what_is_no_question_of_ours_is_answered(sqlite_scene: Scene) -> None:
    show_metrics(sqlite_scene)
    daemon = await sqlite_scene.start_daemon()
    async with open_window(daemon) as window:
        assert (await window.ask("/"))[0] == 404
        for accept in ("text/plain;version=x", "application/openmetrics-text;version=x", "*/*"):
            assert (await window.ask("/metrics", Accept=accept))[0] == 200
        async with window.session.post(f"{window.base_url}/metrics", data=b"x") as answer:
            assert answer.status == 405
    lines = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("level") == "error"] == []
