"""A database whose failures are counted: the one place that all the daemon's operations pass."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from orchestrator.core.model import WorkClass
from orchestrator.store.engine import Connection, Database, DatabaseAway, StatementError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class CountedDatabase(Database):
    """Another database, of which `failed` hears each operation that it did not carry out."""

    def __init__(self, within: Database, failed: Callable[[Exception], None]) -> None:
        self._within = within
        self._failed = failed
        self.dialect = within.dialect
        self.path = within.path

    async def read(self, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        """See `Database.read`."""
        try:
            return await self._within.read(operation, *args)
        except (DatabaseAway, StatementError) as error:
            self._failed(error)
            raise

    async def write(
        self,
        operation: Callable[[Connection, *Ts], T],
        *args: *Ts,
        durable: bool = True,
        work_class: WorkClass | None = None,
    ) -> T:
        """See `Database.write`."""
        try:
            return await self._within.write(
                operation, *args, durable=durable, work_class=work_class
            )
        except (DatabaseAway, StatementError) as error:
            self._failed(error)
            raise

    async def close(self) -> None:
        """See `Database.close`."""
        await self._within.close()
