"""Writes down who asked: what a request proves (`core.asking`) goes the way of callbacks.

A claim applies it to the row, and what has no open row of the ledger becomes an orphan and is
stopped again. Each agent is written about once a second at most.
"""

from collections import OrderedDict
from typing import Final

import structlog

from orchestrator.core.asking import Asker, facts_of
from orchestrator.core.caps import Caps
from orchestrator.core.replace import replace
from orchestrator.daemon.recorder import Recorder, Verdict
from orchestrator.errors import OrchestratorError
from orchestrator.store import llm_tasks
from orchestrator.store.engine import Database, StatementError
from orchestrator.store.facts import Told

KEPT_MAX: Final = 10_000

log = structlog.get_logger(__name__)


class Witness:
    """Tells of agents that ask."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder
        self._told: OrderedDict[str, str] = OrderedDict()
        """What was told last of each agent."""

    async def tell(self, account: str, asker: Asker, caps: Caps) -> None:
        """Write that an agent asked. Raises nothing: it asks again."""
        if self._told.get(asker.agent_id) == asker.second:
            return
        self._told[asker.agent_id] = asker.second
        if len(self._told) > KEPT_MAX:
            self._told.popitem(last=False)
        if await self._has_another_s(account, asker, caps):
            log.warning("llm_handle_of_another", account=account, agent_id=asker.agent_id)
            asker = replace(asker, handle=None)
        told = Told(account=account, facts=facts_of(asker, caps))
        verdict = await self._recorder.record(told)
        if verdict is not Verdict.KEPT:
            self._told.pop(asker.agent_id, None)
            log.warning("llm_caller_not_told", agent_id=asker.agent_id, verdict=verdict.value)

    async def _has_another_s(self, account: str, asker: Asker, caps: Caps) -> bool:
        """Return whether it tells a handle that another agent of ours has, or nobody can say."""
        handle = asker.handle
        if handle is None or handle == asker.known(caps):
            return False
        try:
            return await self._database.read(llm_tasks.has_other, account, handle, asker.agent_id)
        except (OrchestratorError, StatementError):
            return True
