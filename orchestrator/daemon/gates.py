"""How each account stands during one claim, and how many starts it still lets through.

Places, probes of a denied account and of an open breaker: each start that is announced closes the
gate a little behind it, for the rest of the same claim.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.core.model import Account
from orchestrator.core.replace import replace
from orchestrator.daemon import preflight
from orchestrator.daemon.book import DENIED_RETRY, PROBE_WITHIN, Book
from orchestrator.store import accounts, daemons
from orchestrator.store.accounts import Standing
from orchestrator.store.engine import Connection
from orchestrator.store.reading import UNREAD, Read


class Gates:
    """The accounts of this daemon, as one claim has to see them."""

    def __init__(self, book: Book, standings: Mapping[str, Standing], now: datetime) -> None:
        self._book = book
        self._standings = standings
        self._now = now
        self._free: dict[str, int] = {}
        """Places for agents, where they are limited."""
        self._probes: dict[str, datetime] = {}
        """Denied accounts of which a start was announced, and until when no other may be."""
        self.accounts: dict[str, Account] = {}
        """By the name that rows use; those that this daemon does not have are not there."""

    def open(self, connection: Connection, found: Sequence[Read]) -> None:
        """Read how the accounts stand, and lock those whose places are few."""
        amnesty_at = None
        if any(one.is_watched for one in found):
            amnesty_at = daemons.read_amnesty(connection, self._now)
        self.accounts = {
            name: self._book.account(name, self._standings.get(name), amnesty_at)
            for name in self._book.names
        }
        self._lock(connection, found)

    def note_start(self, account: Account, *, is_new: bool) -> None:
        """Close the gate behind a start: one fewer place, and one probe is enough."""
        name = account.name
        if is_new and name in self._free:
            self._set_free(name, self._free[name] - 1)
        if self._is_denied(name):
            until = self._probes[name] = self._now + DENIED_RETRY
            self.accounts[name] = replace(self.accounts[name], denied_until=until)
        if account.circuit_open_until is not None:
            self._book.hold_probe(name, self._now)
            until = self._now + PROBE_WITHIN
            self.accounts[name] = replace(self.accounts[name], circuit_open_until=until)

    def close(self, connection: Connection) -> None:
        """Write until when no other start of a denied account may be tried."""
        for name, until in sorted(self._probes.items()):
            accounts.move_probe(connection, name, self._now, until)

    def _lock(self, connection: Connection, found: Sequence[Read]) -> None:
        """Let no other claim count or look for the same place at the same time.

        Only accounts whose places are few need it: `max_agents`, one row a user, chosen ids; and
        denied ones, whose next probe is written at the end. All are locked here, in one order, so
        that no two transactions wait for each other.
        """
        names = {name for one in found if (name := self._crowded(one)) is not None}
        accounts.lock_states(connection, sorted(names))
        most = {name: self._max_agents(name) for name in sorted(names)}
        limited = {name: limit for name, limit in most.items() if limit is not None}
        live = accounts.count_live(connection, list(limited))
        for name, limit in limited.items():
            self._set_free(name, limit - live.get(name, 0))

    def _max_agents(self, name: str) -> int | None:
        return self._book.max_agents(name, self._standings.get(name))

    def _crowded(self, one: Read) -> str | None:
        task = one.row.task
        if task is None or one.spec is UNREAD or task.account not in self.accounts:
            return None
        if self._is_denied(task.account) or self._max_agents(task.account) is not None:
            return task.account
        provider = self._book.runtimes[task.account].provider
        return task.account if preflight.needs_account_lock(provider, one.spec) else None

    def _is_denied(self, name: str) -> bool:
        standing = self._standings.get(name)
        return standing is not None and standing.denied_code is not None

    def _set_free(self, name: str, free: int) -> None:
        self._free[name] = free
        self.accounts[name] = replace(self.accounts[name], has_room=free > 0)
