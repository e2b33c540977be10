"""Whether the daemon could listen where it should, or does so already.

Rule 1: a port is tried without listening at it, so that a daemon which starts at this moment gets
it all the same.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Final

from orchestrator.commands.checks.finding import Finding
from orchestrator.config import Config
from orchestrator.errors import OrchestratorError
from orchestrator.setting_types import Address
from orchestrator.store import daemons
from orchestrator.store.engine import Database, StatementError

_ELSEWHERE: Final = "give it another port, or end what listens there"


async def judge_ports(config: Config, database: Database) -> Sequence[Finding]:
    """Return a finding for each place at which the daemon should listen."""
    places = (
        ("callbacks.listen", config.callbacks.listen),
        ("llm_gateway.listen", config.llm_gateway.listen),
        ("metrics.listen", config.metrics.listen),
    )
    return [
        await _judge_port(key, address, database) for key, address in places if address is not None
    ]


async def _judge_port(key: str, address: Address, database: Database) -> Finding:
    what = f"{key} {address}"
    wrong = _try(address)
    if wrong is None:
        return Finding("well", f"{what}: free")
    if wrong.errno != errno.EADDRINUSE:
        advice = "is the host this machine's, and may the service have this port?"
        return Finding("trouble", f"{what}: {wrong.strerror or wrong}", advice)
    here = await _daemons_here(database)
    if here is None:
        return Finding("warning", f"{what}: in use; by whom only the database could tell")
    if here:
        return Finding("well", f"{what}: in use, and here runs {', '.join(here)}")
    return Finding("trouble", f"{what}: in use, and no daemon runs here", _ELSEWHERE)


def _try(address: Address) -> OSError | None:
    """Return why nothing can be bound there; null if it can."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: what closed a moment ago is no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as wrong:
            return wrong
    return None


async def _daemons_here(database: Database) -> Sequence[str] | None:
    """Return the daemons that run on this machine; null if that cannot be asked."""
    try:
        return await database.read(daemons.live_on, socket.gethostname())
    except (OrchestratorError, StatementError):
        return None
