import io
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from orchestrator.commands.status_page import daemons_line, notes, page, screen, summary
from orchestrator.commands.task_board import Lines
from orchestrator.commands.terminal import (
    count,
    phase_text,
    plain,
    screen_of_tasks,
    spell,
    spell_age,
    tasks_table,
    why,
)
from orchestrator.store.snapshot import Snapshot

AT = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LONG = "0123456789abcdef" * 2
WIDTHS = (80, 100, 119, 120, 200)


def task(**columns: Any) -> dict[str, Any]:
    return {
        "task_id": "call-1",
        "account": "main",
        "desired_state": "running",
        "phase": "running",
        "age_s": 1,
        "waiting_for": None,
        "reason": None,
        "message": None,
        "end_reason": None,
        "vendor_task_id": None,
        "room_id": "r",
        "user_id": "u",
        **columns,
    }


def orphan(**columns: Any) -> dict[str, Any]:
    return {
        "id": "lost-1",
        "account": "main",
        "room_id": "r",
        "vendor_task_id": "T1",
        "ours": True,
        "action": "stop",
        "phase": "stopping",
        "leaked_s": 75,
        "reason": None,
        **columns,
    }


def account(**columns: Any) -> dict[str, Any]:
    return {
        "account": "main",
        "paused": False,
        "frozen": False,
        "denied_code": None,
        "denied_since": None,
        "probe_at": None,
        "breaker": None,
        "clock_offset_ms": None,
        **columns,
    }


def daemon(**columns: Any) -> dict[str, Any]:
    return {
        "name": "main-1",
        "host": "server",
        "pid": 7,
        "version": "1.0",
        "draining": False,
        "heartbeat_at": AT,
        "is_alive": True,
        **columns,
    }


def snapshot(**parts: Any) -> Snapshot:
    empty: dict[str, Any] = {
        "at": AT,
        "totals": {},
        "tasks": [],
        "convergence": [],
        "health": [],
        "accounts": [],
        "orphans": [],
        "daemons": [daemon()],
    }
    return Snapshot(**(empty | parts))


def everything() -> Snapshot:
    return snapshot(
        totals={"running": 2, "failed": 1},
        tasks=[
            task(task_id=LONG, phase="failed", reason="InvalidSpec", message="no such mode " * 9),
            task(vendor_task_id="v2_" + "f" * 90, account="other"),
            task(task_id="call-3", waiting_for="capacity"),
        ],
        convergence=[
            {"account": "main", "labels": {}, "age": "2: under 10 s", "tasks": 2, "oldest_s": 4},
            {
                "account": "main",
                "labels": {"a": 1},
                "age": "2: under 10 s",
                "tasks": 1,
                "oldest_s": 9,
            },
        ],
        health=[
            {
                "account": "main",
                "action": "Start",
                "calls": 9,
                "failures": 1,
                "p50_ms": 4,
                "p95_ms": 8,
            }
        ],
        accounts=[account(paused=True)],
        orphans=[orphan(reason="InternalError"), orphan(id="old-1", phase="stopped")],
    )


def shown(lines: Iterable[RenderableType], width: int = 200) -> str:
    out = Console(file=io.StringIO(), width=width, force_terminal=False)
    for line in lines:
        out.print(line)
    text = out.file.getvalue()  # type: ignore[attr-defined] # the file is the StringIO above
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (AT, "2030-01-02 03:04:05Z"), (1.6, "2"), (7, "7"), ("[bold]", "[bold]")],
)
def test_how_values_are_spelt(value: Any, text: str) -> None:
    assert spell(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-1, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m 00s"),
        (3_599, "59m 59s"),
        (3_600, "1h 00m"),
        (86_399, "23h 59m"),
        (86_400, "1d 00h"),
        (90_000_000, "1041d 16h"),
    ],
)
def test_how_durations_are_spelt(seconds: float | None, text: str) -> None:
    assert spell_age(seconds) == text


def test_one_is_no_plural() -> None:
    assert [count(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]


def test_nobody_s_text_moves_the_cursor_or_makes_a_line() -> None:
    assert plain("a\x1b[31mb\x9b1mc\x07\nd\te").plain == "a[31mb1mc de"


@pytest.mark.parametrize(
    "mark", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
def test_nobody_s_text_turns_the_direction_of_what_stands_behind_it(mark: str) -> None:
    assert plain(f"gpj{mark}.exe").plain == "gpj.exe"


@pytest.mark.parametrize(
    ("phase", "desired", "end_reason", "text"),
    [
        ("running", "running", None, "running"),
        ("pending", "running", "vendor_fault", "pending"),
        ("running", "stopped", None, "running → stopped"),
        ("stopping", "deleted", "deleted", "stopping → deleted"),
        ("stopped", "stopped", "requested", "stopped (requested)"),
        ("failed", "running", None, "failed"),
    ],
)
def test_a_phase_tells_where_it_leads_or_why_it_ended(
    phase: str, desired: str, end_reason: str | None, text: str
) -> None:
    row = task(phase=phase, desired_state=desired, end_reason=end_reason)
    assert phase_text(row) == text


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({}, ""),
        ({"desired_state": "stopped"}, "to be stopped"),
        ({"desired_state": "deleted", "phase": "stopping"}, "deleted"),
        ({"desired_state": "stopped", "phase": "stopped", "end_reason": "idle"}, "idle"),
        ({"phase": "pending", "end_reason": "idle"}, ""),
        ({"phase": "pending", "waiting_for": "capacity"}, "waits for another agent to end"),
        ({"waiting_for": "something_new"}, "waits: something_new"),
        ({"reason": "Code", "message": "words"}, "Code: words"),
        ({"waiting_for": "retry", "reason": "Code"}, "waits to be tried again; Code"),
    ],
)
def test_why_a_task_is_as_it_is(columns: dict[str, Any], text: str) -> None:
    assert why(task(**columns)).plain == text


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_longer_than_the_terminal_and_no_id_is_cut(width: int) -> None:
    lines = shown(page(everything(), width), width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(LONG in line for line in lines)
    words = " ".join(" ".join(lines).split())
    assert "InvalidSpec: " + " ".join(["no such mode"] * 9) in words


def test_in_a_file_a_task_is_one_line_with_nothing_behind_it() -> None:
    lines = shown(tasks_table(everything().tasks, None), 1_000).splitlines()
    assert len(lines) == 4
    assert [line for line in lines if line != line.rstrip()] == []
    assert lines[1].endswith("InvalidSpec: " + " ".join(["no such mode"] * 9))


def test_what_is_not_shown_to_the_narrow_is_shown_to_the_wide() -> None:
    tasks = everything().tasks
    assert "TaskId" not in shown(tasks_table(tasks, 119), 119)
    wide = shown(tasks_table(tasks, 120), 120)
    assert "TaskId" in wide
    assert "v2_" + "f" * 21 + "…" in wide


@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_screen_is_never_left(width: int, height: int) -> None:
    full = everything()
    many = snapshot(
        totals=full.totals,
        tasks=[task(task_id=f"call-{n}", reason="x" * 300) for n in range(100)],
        convergence=full.convergence,
        health=full.health,
        orphans=[orphan(id=f"lost-{n}") for n in range(100)],
    )
    lines = list(screen(many, width, height))
    assert len(lines) <= height
    text = shown(lines, width)
    assert "100 orphans may run" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width


def test_a_screen_shows_as_many_tasks_as_it_has_lines_and_counts_the_rest() -> None:
    tasks = [task(task_id=f"call-{n}") for n in range(5)]
    text = shown(screen_of_tasks(tasks, 80, 4))
    assert "call-1" in text
    assert "call-2" not in text
    assert "and 3 more" in text
    whole = shown(screen_of_tasks(tasks, 80, 7))
    assert "call-4" in whole
    assert "more" not in whole


def test_what_an_application_wrote_is_text_and_no_markup() -> None:
    row = task(reason="[red]InvalidSpec[/] [/nope]", phase="failed")
    assert "[red]InvalidSpec[/] [/nope]" in shown(tasks_table([row], 200))


def test_an_empty_database_has_a_page() -> None:
    text = shown(page(snapshot(daemons=[]), 80))
    assert text.startswith("0 tasks · all as desired · no orphans\nno daemon runs")


def test_the_summary_counts() -> None:
    assert summary(everything()).plain == (
        "3 tasks: running 2, failed 1 · 3 not as desired, the oldest for 9s · 1 orphan may run"
    )


def test_ages_of_one_account_are_summed_over_labels() -> None:
    lines = shown(page(everything(), 80), 80).splitlines()
    assert ["main", "under", "10", "s", "3", "9s"] in [line.split() for line in lines]


@pytest.mark.parametrize(
    ("daemons", "text"),
    [
        ([daemon()], "1 daemon: main-1 on server (pid 7, 1.0)"),
        (
            [daemon(), daemon(name="server", draining=True)],
            "2 daemons: main-1 on server (pid 7, 1.0), server (pid 7, 1.0, shutting down)",
        ),
        ([daemon(is_alive=False), daemon()], "1 daemon: main-1 on server (pid 7, 1.0)"),
        (
            [daemon(is_alive=False, heartbeat_at=AT - timedelta(minutes=2))],
            "no daemon has said that it runs since 2030-01-02 03:02:05Z, 2m 00s ago",
        ),
        ([], "no daemon runs: nothing is started, stopped or looked after"),
    ],
)
def test_who_works_or_since_when_nobody_does(daemons: list[Any], text: str) -> None:
    assert daemons_line(snapshot(daemons=daemons)).plain == text


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, []),
        ({"paused": True}, ["is paused by an operator"]),
        ({"frozen": True, "paused": True}, ["is frozen by an operator", "is paused"]),
        (
            {"denied_code": "Overdue", "denied_since": AT, "probe_at": AT},
            ["is denied by the vendor since 2030-01-02 03:04:05Z (Overdue): starts wait, one is"],
        ),
        ({"denied_code": "Overdue", "denied_since": AT}, ["(Overdue): starts wait"]),
        ({"breaker": "open"}, ["gets no answers"]),
        ({"clock_offset_ms": 5_000}, []),
        ({"clock_offset_ms": -5_100}, ["clock is -5.1 s from"]),
    ],
)
def test_an_account_that_keeps_its_tasks_waiting_has_a_line(
    columns: dict[str, Any], told: list[str]
) -> None:
    lines = [line.plain for line in notes(snapshot(accounts=[account(**columns)]))]
    assert len(lines) == len(told)
    assert [part for part, line in zip(told, lines, strict=True) if part not in line] == []
    assert [line for line in lines if not line.startswith("! account main ")] == []


def test_orphans_are_shown_as_long_as_they_may_run() -> None:
    orphans = [
        orphan(),
        orphan(id="reported-1", phase="seen", action="report", ours=False),
        orphan(id="gone-1", phase="stopped"),
        orphan(id="strange-1", phase="ignored"),
    ]
    text = shown(page(snapshot(orphans=orphans), 200))
    assert "2 orphans may run" in text
    assert [
        name for name in ("lost-1", "reported-1", "not ours", "1m 15s") if name not in text
    ] == []
    assert [name for name in ("gone-1", "strange-1") if name in text] == []


def test_lines_tell_of_each_task_only_what_is_new() -> None:
    out = Console(file=io.StringIO(), width=20, soft_wrap=True)
    lines = Lines(out)
    lines.show([task(phase="starting"), task(task_id="call-2", phase="pending")])
    lines.show([task(phase="starting"), task(task_id="call-2", phase="failed", reason="[x] no")])
    lines.show([task(), task(task_id="call-2", phase="failed", reason="[x] no")])
    text = out.file.getvalue()  # type: ignore[attr-defined] # the file is the StringIO above
    assert text.splitlines() == [
        "call-1  starting",
        "call-2  pending",
        "call-2  failed  [x] no",
        "call-1  running",
    ]


def test_a_line_of_prose_is_no_part_of_the_table_it_stands_in() -> None:
    """Colours of one row do not run into the next."""
    lines = list(tasks_table([task(reason="x"), task()], 80))
    assert isinstance(lines[1], Text)
    assert {str(span.style) for span in lines[1].spans} == {"green", "red"}
