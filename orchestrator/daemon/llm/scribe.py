"""Writes turns that have ended, and when tasks were last talked to, many together.

Rule 1: no turn waits for it. What the database does not take for a while is kept, up to a bound;
beyond that the oldest go, and the log says how many.
Rule 2: a turn that cannot be written keeps no other back.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import anyio
import structlog

from orchestrator.core.model import WorkClass
from orchestrator.store import llm_tasks, llm_turns
from orchestrator.store.engine import Connection, Database, is_passing
from orchestrator.store.llm_turns import Turn

MOST: Final = 64
"""Turns of one transaction."""
KEPT_MAX: Final = 10_000
GATHER_S: Final = 0.05
AGAIN_S: Final = 1.0
LAST_WITHIN_S: Final = 3.0
"""At the end: for what is left."""

log = structlog.get_logger(__name__)


class Scribe:
    """Takes turns and writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns: deque[Turn] = deque()
        self._talked: dict[str, datetime] = {}
        self._lost = 0
        self._is_away = False
        self._something = anyio.Event()
        self._finished = anyio.Event()

    def write(self, turn: Turn) -> None:
        """Take a turn that has ended."""
        if len(self._turns) >= KEPT_MAX:
            self._turns.popleft()
            self._lost += 1
        self._turns.append(turn)
        self._something.set()

    def talked(self, task_id: str, at: datetime) -> None:
        """Take when somebody last talked to a task's agent."""
        if task_id in self._talked or len(self._talked) < KEPT_MAX:
            self._talked[task_id] = at
        self._something.set()

    def finish(self) -> None:
        """Take nothing more: `run` ends when all is written, or cannot be soon."""
        self._finished.set()
        self._something.set()

    async def run(self) -> None:
        """Write until `finish`, and then what is left."""
        while not self._finished.is_set():
            await self._something.wait()
            self._something = anyio.Event()
            await self._write()
            with anyio.move_on_after(AGAIN_S if self._is_away else GATHER_S):
                await self._finished.wait()
            if self._turns or self._talked:
                self._something.set()
        with anyio.move_on_after(LAST_WITHIN_S):
            while (self._turns or self._talked) and not self._is_away:
                await self._write()
                await anyio.sleep(GATHER_S)
        self._tell_lost(len(self._turns))

    async def _write(self) -> None:
        """Write one batch. What passes is tried again; what cannot be written goes alone."""
        turns = [self._turns[number] for number in range(min(MOST, len(self._turns)))]
        talked, self._talked = self._talked, {}
        try:
            held = await self._database.write(
                _write, turns, talked, durable=False, work_class=WorkClass.OBSERVE
            )
        except Exception as error:  # noqa: BLE001 - what a driver says of a value; told one by one
            self._talked = talked | self._talked
            if is_passing(error):
                self._tell_away(error)
                return
            self._drop(turns[: await self._write_each(turns)])
            await self._write_talk()
        else:
            self._is_away = False
            # Held by a claim for a moment.
            self._talked = {id_: talked[id_] for id_ in held} | self._talked
            self._drop(turns)
        self._tell_lost(0)

    def _drop(self, written: Sequence[Turn]) -> None:
        """Take away what was written; of a queue that overflowed meanwhile some is gone already."""
        for turn in written:
            if self._turns and self._turns[0] is turn:
                self._turns.popleft()

    async def _write_each(self, turns: Sequence[Turn]) -> int:
        """Write each alone; return with how many of them this is done with."""
        for number, turn in enumerate(turns):
            try:
                await self._database.write(
                    _write, [turn], {}, durable=False, work_class=WorkClass.OBSERVE
                )
            except Exception as error:
                if is_passing(error):
                    self._tell_away(error)
                    return number
                log.exception("llm_turn_unwritten", task_id=turn.task_id)
        return len(turns)

    async def _write_talk(self) -> None:
        """Write when tasks were talked to, apart from turns that cannot be written."""
        talked, self._talked = self._talked, {}
        try:
            await self._database.write(llm_tasks.note_talk, talked, durable=False)
        except Exception as error:  # noqa: BLE001 - as above: it is said with the next talk
            self._tell_away(error)

    def _tell_away(self, error: Exception) -> None:
        """Say on the edge that turns are kept until the database takes them."""
        if not self._is_away:
            log.warning("llm_turns_put_off", error=str(error))
        self._is_away = True

    def _tell_lost(self, more: int) -> None:
        """Say how many turns will never be written."""
        if self._lost + more:
            log.warning("llm_turns_lost", count=self._lost + more)
        self._lost = 0


def _write(connection: Connection, turns: Sequence[Turn], talked: dict[str, datetime]) -> set[str]:
    """Write both; return the tasks that others hold."""
    llm_turns.add(connection, turns)
    return llm_tasks.note_talk(connection, talked) if talked else set()
