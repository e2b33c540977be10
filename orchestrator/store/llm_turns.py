"""Statements about turns at the LLM gateway, which are written when they have ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert

from orchestrator.core.turn import TurnOutcome
from orchestrator.store import rows
from orchestrator.store.schema import llm_turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A row of `llm_turn`."""

    at: datetime
    task_id: str
    account: str
    incarnation: int
    agent_id: str
    round: str | None
    try_: int
    upstream: str
    is_fallback: bool
    outcome: TurnOutcome
    reason: str | None
    first_token_ms: int | None
    total_ms: int
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    user_text: str | None
    agent_text: str | None


_COLUMNS: Final = tuple(column.name for column in llm_turn.columns if column.name != "id")


def add(connection: Connection, turns: Sequence[Turn]) -> None:
    """Write turns, and one event for each that did not go well."""
    if turns:
        connection.execute(insert(llm_turn), [_to_row(turn) for turn in turns])
    rows.write_events(connection, [_event(turn) for turn in turns if turn.outcome.is_trouble])


def _to_row(turn: Turn) -> dict[str, Any]:
    # `try` is a word of Python's: its field is `try_`.
    return {name: getattr(turn, "try_" if name == "try" else name) for name in _COLUMNS}


def _event(turn: Turn) -> dict[str, Any]:
    return {
        "at": turn.at,
        "task_id": turn.task_id,
        "account": turn.account,
        "incarnation": turn.incarnation,
        "event": "llm_turn",
        "action": turn.upstream,
        "outcome": turn.outcome.value,
        "code": turn.reason,
        "latency_ms": turn.total_ms,
    }
