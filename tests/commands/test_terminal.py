import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from orchestrator.commands.live import Lines
from orchestrator.commands.status import as_json
from orchestrator.commands.terminal import (
    event_line,
    overview_tables,
    phase_text,
    spell,
    tasks_table,
)
from orchestrator.store.views import Overview

AT = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def task(**columns: Any) -> dict[str, Any]:
    return {
        "task_id": "call-1",
        "account": "main",
        "desired_state": "running",
        "phase": "running",
        "waiting_for": None,
        "reason": None,
        "vendor_task_id": None,
        **columns,
    }


def shown(what: Any, width: int = 200) -> str:
    out = Console(file=io.StringIO(), width=width, force_terminal=False)
    out.print(what)
    text = out.file.getvalue()  # type: ignore[attr-defined] # the file is the StringIO above
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (AT, "2030-01-02 03:04:05Z"), (1.6, "2"), (7, "7"), ("[bold]", "[bold]")],
)
def test_how_values_are_spelt(value: Any, text: str) -> None:
    assert spell(value) == text


def test_a_table_shows_rows_up_to_its_height_and_counts_the_rest() -> None:
    text = shown(tasks_table([task(task_id=f"call-{n}") for n in range(5)], rows=2))
    assert "call-1" in text
    assert "call-2" not in text
    assert "and 3 more" in text


def test_what_an_application_wrote_is_text_and_no_markup() -> None:
    text = shown(tasks_table([task(reason="[red]InvalidSpec[/] [/nope]", phase="failed")]))
    assert "[red]InvalidSpec[/] [/nope]" in text


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


def test_on_a_narrow_terminal_ids_and_phases_stay_whole() -> None:
    row = task(task_id="0123456789abcdef" * 2, reason="x" * 100, vendor_task_id="y" * 100)
    text = shown(tasks_table([row]), width=80)
    assert "0123456789abcdef" * 2 in text
    assert "running" in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_overview_without_rows_can_be_shown() -> None:
    assert "task_id" in shown(overview_tables(Overview([], [], [])))


def test_an_event_says_what_when_and_what_came_of_it() -> None:
    event = {
        "at": AT,
        "event": "settled",
        "action": "StartVoiceChat",
        "outcome": "Done",
        "code": None,
        "phase_before": "starting",
        "phase_after": "running",
        "latency_ms": 12,
        "actor": None,
        "request_id": "r-1",
        "message": None,
    }
    assert event_line(event) == (
        "2030-01-02 03:04:05Z  settled  StartVoiceChat  Done  starting → running  12 ms"
        "  RequestId r-1"
    )
    resting = {"at": AT, "event": "wish", "phase_after": "starting", "actor": "app"}
    assert event_line(resting) == "2030-01-02 03:04:05Z  wish  by app"


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


def test_json_has_every_column_and_times_with_their_zone() -> None:
    overview = Overview([task(updated_at=AT, labels={"a": 1})], [{"n": 1}], [])
    assert json.loads(as_json(overview)) == {
        "tasks": [{**task(), "updated_at": "2030-01-02T03:04:05.000678+00:00", "labels": {"a": 1}}],
        "convergence": [{"n": 1}],
        "accounts": [],
    }
