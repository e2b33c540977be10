"""`orchestrator explain ID`: one sentence, then what waits, what happened, and the ledger."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from rich.console import RenderableType
from rich.text import Text

from orchestrator.commands.json_text import to_json
from orchestrator.commands.reading import read
from orchestrator.commands.terminal import (
    Column,
    Rows,
    console,
    hanging,
    is_roomy,
    phase_cell,
    plain,
    spell,
    spell_age,
    table,
    width_of,
)
from orchestrator.errors import OrchestratorError
from orchestrator.store import dossier
from orchestrator.store.dossier import Dossier
from orchestrator.store.engine import Connection
from orchestrator.store.views import View

_OUTCOMES = {"Done": "green", "Gone": "green", "Throttled": "yellow", "NotSent": "yellow"}
"""Colours; what is not here is red."""


def show(option: Path | None, name: str) -> None:
    """Print what there is to say about a task, a command or an orphan.

    `name`: its id, or a vendor's TaskId, the name of an agent, or a RequestId.

    Raises:
        OrchestratorError: nobody has this name.
        ConfigError, SchemaError, DatabaseAway: as their names say.
    """
    found = _found(option, name)
    out = console()
    for line in report(found, name, width_of(out)):
        out.print(line)


def print_json(option: Path | None, name: str) -> None:
    """Print the same as one JSON object; see `as_json`. Raises as `show`."""
    typer.echo(as_json(_found(option, name)))


def as_json(found: Dossier) -> str:
    """Return a dossier as one JSON object; times are ISO 8601, UTC.

    `kind` (`task`, `command`, `orphan`, or `past`: a task that is forgotten), `id`, `found_by`
    (null, `TaskId`, `name` or `RequestId`), `explanation`, `row` (of `task_explain`,
    `command_explain` or `orphan_overview`; null for what is past), `waiting` (rows of
    `command_explain`), `events` (of `agent_event`) and `agents` (of `vendor_agent`), oldest first.
    """
    return to_json(
        {
            "kind": found.kind,
            "id": found.id,
            "found_by": found.leads or None,
            "explanation": sentence(found),
            "row": found.row or None,
            "waiting": found.waiting,
            "events": found.events,
            "agents": found.agents,
        }
    )


def _found(option: Path | None, name: str) -> Dossier:
    def look(connection: Connection) -> tuple[Dossier | None, Sequence[str]]:
        found = dossier.find(connection, name)
        return found, () if found else dossier.alike(connection, name)

    found, alike = read(option, look)
    if found is None:
        raise OrchestratorError(_nobody(name, alike))
    return found


def _nobody(name: str, alike: Sequence[str]) -> str:
    told = f'no task, command, orphan, TaskId or RequestId is called "{name}"'
    if not alike:
        return f"{told}; `orchestrator status` shows the tasks"
    return f"{told}; did you mean {' or '.join(alike)}?"


def sentence(found: Dossier) -> str:
    """Return what a dossier is about, in a sentence."""
    match found.kind:
        case "task" | "command":
            return found.sentence
        case "orphan":
            return orphan_sentence(found.row)
        case "past":
            return "a task that is deleted and forgotten; this is what is left of it"


def orphan_sentence(row: View) -> str:
    """Return what an orphan is and what is done about it, from its row of `orphan_overview`."""
    whose = "ours" if row["ours"] else "not ours"
    parts = [f"an agent without a task, {whose}, told of by: {row['source']}"]
    match row["phase"]:
        case "stopped":
            parts.append(f"it has ended at {spell(row['stopped_at'])}")
        case "ignored":
            parts.append("nothing is done about it")
        case _ if row["action"] == "report":
            parts.append("it is only reported: nobody stops it unless it is inserted to be stopped")
        case "seen":
            parts.append("it is to be stopped, and no daemon has taken it up yet")
        case _:
            parts.append("it is being stopped, until there is evidence of its end")
    parts.append(f"first seen at {spell(row['first_seen_at'])}")
    if row["leaked_s"] is not None:
        parts.append(f"leaked {spell_age(row['leaked_s'])} so far")
    if row["reason"]:
        parts.append(row["reason"])
    return "; ".join(parts)


def report(found: Dossier, name: str, width: int | None) -> Iterator[RenderableType]:
    """Yield what is printed, line by line."""
    account = found.row.get("account")
    of_account = f" of account {account}" if account else ""
    yield Text.assemble(plain(found.id, "bold"), f": {found.kind}", of_account)
    if found.leads:
        yield plain(f"found by its {found.leads} {name}", "dim")
    yield plain(sentence(found))
    for command in found.waiting:
        told = Text.assemble("    ", plain(command["command_id"], "bold"), ": ")
        yield hanging(told.append_text(plain(command["explanation"])), width)
    if found.events:
        yield from (Text(), *table(history(found.events, width), width))
    if found.agents:
        yield from (Text(), *table(ledger(found.agents, width), width))


def history(events: Sequence[View], width: int | None) -> Rows:
    """Return what happened, as a table."""
    columns = [
        Column("at", [plain(event["at"], "dim") for event in events]),
        Column("what", [_what(event) for event in events]),
        Column("outcome", [_outcome(event) for event in events]),
        Column("ms", [plain(event["latency_ms"]) for event in events]),
    ]
    if is_roomy(width):
        columns.insert(3, Column("phase", [_phases(event) for event in events]))
        return Rows(
            title="History",
            columns=columns,
            prose=Column("and", [_rest(event) for event in events]),
        )
    told = [_joined(_phases(event), _rest(event)) for event in events]
    return Rows(title="History", columns=columns, prose=Column("and", told))


def ledger(agents: Sequence[View], width: int | None) -> Rows:
    """Return what was, or may be, at the vendor, as a table."""
    columns = [
        Column("no.", [plain(f"{row['incarnation']}.{row['try']}") for row in agents]),
        Column("announced", [plain(row["announced_at"], "dim") for row in agents]),
        Column("ended", [_end(row) for row in agents]),
    ]
    if is_roomy(width):
        columns += [
            Column("evidence", [plain(row["evidence"]) for row in agents]),
            Column("name", [plain(row["name"]) for row in agents]),
            Column("room", [plain(row["room_id"]) for row in agents]),
        ]
    prose = Column("TaskId", [plain(row["vendor_task_id"]) for row in agents])
    return Rows(title="Ledger: what was, or may be, at the vendor", columns=columns, prose=prose)


def _what(event: View) -> Text:
    told = plain(event["event"], "bold")
    return told.append(plain(f" {event['action']}")) if event["action"] else told


def _outcome(event: View) -> Text:
    style = _OUTCOMES.get(event["outcome"], "red")
    parts = (plain(event["outcome"], style), plain(event["code"], style))
    return Text(" ").join(part for part in parts if part)


def _phases(event: View) -> Text:
    before, after = event["phase_before"], event["phase_after"]
    if not before or before == after:
        return Text()
    return Text(" → ").join([phase_cell(before), phase_cell(after)])


def _rest(event: View) -> Text:
    told = (
        ("command", event["command_id"]),
        ("RequestId", event["request_id"]),
        ("by", event["actor"]),
    )
    parts = (plain(f"{word} {value}", "dim") for word, value in told if value)
    return _joined(plain(event["message"]), *parts)


def _joined(*parts: Text) -> Text:
    return Text("  ").join(part for part in parts if part)


def _end(row: View) -> Text:
    if row["ended_at"] is not None:
        return plain(row["ended_at"], "dim")
    return plain("may run", "yellow")
