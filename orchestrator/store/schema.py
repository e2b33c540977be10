"""The schema as SQLAlchemy knows it: every table, and the revision of the migrations it equals.

Statements are built on these tables; the databases get theirs from `migrations`, whose text is
frozen. A test holds the two against each other on both databases.
"""

from typing import Final

from orchestrator.store.columns import Json, TextList, Timestamp, metadata
from orchestrator.store.records import (
    LATENCY_BOUNDS_MS,
    account_state,
    agent_event,
    agent_status,
    call_minute,
    daemon,
    installation,
    lane,
    rate_limit,
    vendor_agent,
    vendor_fact,
)
from orchestrator.store.talk import llm_task, llm_turn
from orchestrator.store.wishes import (
    COMMAND_KINDS,
    COMMAND_STATES,
    ORPHAN_PHASES,
    ORPHAN_SOURCES,
    account_control,
    agent_command,
    agent_task,
    orphan_task,
    task_change,
    task_owner,
)

REVISION: Final = "0004"
"""The newest migration that this version knows; revisions are numbers and only count up."""

__all__ = [
    "COMMAND_KINDS",
    "COMMAND_STATES",
    "LATENCY_BOUNDS_MS",
    "ORPHAN_PHASES",
    "ORPHAN_SOURCES",
    "REVISION",
    "Json",
    "TextList",
    "Timestamp",
    "account_control",
    "account_state",
    "agent_command",
    "agent_event",
    "agent_status",
    "agent_task",
    "call_minute",
    "daemon",
    "installation",
    "lane",
    "llm_task",
    "llm_turn",
    "metadata",
    "orphan_task",
    "rate_limit",
    "task_change",
    "task_owner",
    "vendor_agent",
    "vendor_fact",
]
