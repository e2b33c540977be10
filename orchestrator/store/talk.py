"""The tables of the LLM gateway: which tasks ask it, and what became of each request.

Rule 1: of what was said there is nothing, unless the configuration says that it be kept.
"""

from typing import Final

from sqlalchemy import Boolean, Index, Integer, Table, Text, false, text

from orchestrator.core.turn import TurnOutcome
from orchestrator.store.columns import (
    BigInt,
    Timestamp,
    check_member,
    key,
    metadata,
    numbered,
    optional,
    required,
)

llm_task: Final = Table(
    "llm_task",
    metadata,
    key("task_id", Text(), "the task"),
    required("account", Text(), "its account"),
    required("upstream", Text(), "a name under [llm_upstreams] in the configuration"),
    optional("talked_at", Timestamp(), "when an agent of it last asked; null: never"),
    comment="Tasks whose agents ask the LLM gateway for words",
)

llm_turn: Final = Table(
    "llm_turn",
    metadata,
    numbered("id", "order of writing"),
    required("at", Timestamp(), "when it was asked"),
    required("task_id", Text(), "the task"),
    required("account", Text(), "its account"),
    required("incarnation", Integer(), "of the task"),
    required("agent_id", Text(), "who asked: a row of vendor_agent"),
    optional("round", Text(), "the vendor's id of the turn; null: it gave none"),
    required(
        "try",
        Integer(),
        "how often this round was asked for so far, as this daemon saw it",
        text("1"),
    ),
    required("upstream", Text(), "who was asked in the end; a name under [llm_upstreams]"),
    required("is_fallback", Boolean(), "that is not the first one that was asked", false()),
    required(
        "outcome",
        Text(),
        "answered, interrupted (the vendor hung up), cut, failed, refused, ended (a task that is "
        "not wanted)",
    ),
    optional(
        "reason",
        Text(),
        "why it is none of the first two; of an answer, why the first upstream gave none",
    ),
    optional("first_token_ms", Integer(), "until the first word left, milliseconds"),
    required("total_ms", Integer(), "until the end, milliseconds"),
    optional("prompt_tokens", BigInt, "as the upstream counts them"),
    optional("completion_tokens", BigInt, "as the upstream counts them"),
    optional("finish_reason", Text(), "as the upstream says it"),
    optional("user_text", Text(), "what the user said last; null unless llm_gateway.keep_text"),
    optional("agent_text", Text(), "what was answered; null unless llm_gateway.keep_text"),
    check_member("llm_turn", "outcome", TurnOutcome),
    Index("ix_llm_turn_at", "at"),
    Index("ix_llm_turn_task_id_at", "task_id", "at"),
    comment="What agents asked the LLM gateway, one row for each request, written at its end; "
    "pruned by age",
)
