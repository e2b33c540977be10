"""What a shell may complete beside commands and options: accounts and tasks.

Rule 1: whatever is wrong, a shell is told nothing: no line, no error, and soon.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio

from orchestrator.config import account_names, open_part
from orchestrator.errors import OrchestratorError

_PATIENCE_S = 2
"""Somebody sits there and has pressed Tab."""


def accounts(option: Path | None, begun: str) -> Sequence[str]:
    """Return the configured accounts that begin like this."""
    with suppress(OrchestratorError):
        return [name for name in account_names(option) if name.startswith(begun)]
    return ()


def tasks(option: Path | None, begun: str) -> Sequence[str]:
    """Return some tasks that begin like this."""
    with suppress(OrchestratorError, TimeoutError):
        return anyio.run(_tasks, option, begun)
    return ()


async def _tasks(option: Path | None, begun: str) -> Sequence[str]:
    # Only here: accounts need none of it.
    from orchestrator.commands.reading import ask, opened  # noqa: PLC0415 - see above
    from orchestrator.store import dossier  # noqa: PLC0415 - see above

    async with opened(open_part(option)) as database:
        with anyio.fail_after(_PATIENCE_S):
            return await ask(database, dossier.beginning, begun)
