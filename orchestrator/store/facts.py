"""What vendors tell by themselves, as rows: each fact once, and whose row it makes due.

Rule 1: stored is what a `Fact` holds, and nothing else of what a vendor posted.
Rule 2: what is known is not written: a repeated fact, and a sign of life of an agent whose handle
is in the ledger. A talking agent gives many a second.
Rule 3: nothing is judged and no status is written here. A row is made due by a change in its inbox;
whoever claims it reads its facts. A fact that fits no open ledger row stays untaken.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, select, union_all

from orchestrator.core.fact import Event, Fact
from orchestrator.store import fact_reading, status_id
from orchestrator.store.engine import Connection, DialectName, Upsert, dialect_of, one_of, upsert
from orchestrator.store.engine import now as database_now
from orchestrator.store.schema import vendor_agent, vendor_fact

OLDEST: Final = timedelta(days=1)
"""No vendor tells again for longer than a minute. Who is told of a longer past is told a lie."""
_SIGNS_OF_LIFE: Final = frozenset({Event.ALIVE, Event.SEEN})
"""What tells nothing of an agent that is known but that it lives. Of one that asks our gateway that
has been judged before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one callback told, judged genuine."""

    account: str
    facts: tuple[Fact, ...]


def select_news(connection: Connection, told: Sequence[Told]) -> list[Told]:
    """Return what is worth a transaction: all but signs of life of agents that are known."""
    return _without_known(told, _read_ledger(connection, told))


def receive(connection: Connection, told: Sequence[Told], actor: str) -> int:
    """Store facts, and make due the rows that the new ones concern; return how many those are.

    A time in the future is cut to the present: nothing told has yet to happen. One of long ago is
    cut to `OLDEST`. `actor` stands in the inbox. Raises StatementError, and whatever else a driver
    raises about a value that the database cannot hold; then nothing is stored.
    """
    now = database_now(connection)
    ledger = _read_ledger(connection, told)
    news = _without_known(told, ledger)
    fresh = _store(connection, news, now)
    concerned = {
        owner
        for one in news
        for fact in one.facts
        if (one.account, fact.key) in fresh
        for owner in ledger.owners(one.account, fact)
    }
    fact_reading.tell(connection, concerned, actor)
    return len(concerned)


# --- whose they are ---


@dataclass(frozen=True, slots=True)
class _Ledger:
    """Open ledger rows, by what a vendor may call them; the values are the inbox's names of them.

    The keys are an account, and a handle or a name of ours.
    """

    by_handle: Mapping[tuple[str, str], set[str]]
    by_name: Mapping[tuple[str, str], set[str]]
    account_of: Mapping[str, str]
    """Whose each name of ours is. Two accounts may be one application at the vendor."""

    def owners(self, account: str, fact: Fact) -> set[str]:
        """Return the rows that may be concerned; which agent it is, a claim decides."""
        handle, name = fact.vendor_task_id or "", fact.name or ""
        found = self.by_handle.get((account, handle), set())
        return {*found, *self.by_name.get((account, name), set())}

    def knows(self, account: str, fact: Fact) -> bool:
        """Return whether the agent is one that nothing could be learnt about but that it lives.

        A handle that fits only by its name is news: that of a start whose answer was lost. What
        another account is told of an agent is none: that account's is the one that looks after it.
        """
        if self.account_of.get(fact.name or "", account) != account:
            return True
        if fact.vendor_task_id is not None:
            return (account, fact.vendor_task_id) in self.by_handle
        return (account, fact.name or "") in self.by_name


def _open_rows(column: ColumnElement[Any], listed: str, *among: ColumnElement[bool]) -> Select[Any]:
    return select(
        vendor_agent.c.account,
        vendor_agent.c.vendor_task_id,
        vendor_agent.c.name,
        vendor_agent.c.id,
        vendor_agent.c.task_id,
        vendor_agent.c.orphan_id,
    ).where(
        one_of(column, listed),
        vendor_agent.c.ended_at.is_(None),
        *among,
    )


_of_account = one_of(vendor_agent.c.account, "accounts")


# One SELECT for each index: with OR between the columns SQLite would read the whole ledger.
_FIND = union_all(
    _open_rows(vendor_agent.c.vendor_task_id, "handles", _of_account),
    _open_rows(vendor_agent.c.name, "names", _of_account),
    # The id of a ledger row is the name of its session, and no two have the same.
    _open_rows(vendor_agent.c.id, "names"),
)


def _read_ledger(connection: Connection, told: Iterable[Told]) -> _Ledger:
    accounts, handles, names = set[str](), set[str](), set[str]()
    for one in told:
        accounts.add(one.account)
        handles.update(fact.vendor_task_id for fact in one.facts if fact.vendor_task_id)
        names.update(fact.name for fact in one.facts if fact.name)
    wanted = {"accounts": list(accounts), "handles": list(handles), "names": list(names)}
    by_handle, by_name = defaultdict[Any, set[str]](set), defaultdict[Any, set[str]](set)
    account_of: dict[str, str] = {}
    for account, handle, name, id_, task_id, orphan_id in connection.execute(_FIND, wanted):
        owner = status_id.of_row(task_id, orphan_id)
        by_handle[account, handle].add(owner)
        by_name[account, name].add(owner)
        by_name[account, id_].add(owner)
        account_of[id_] = account
    return _Ledger(by_handle, by_name, account_of)


def _without_known(told: Iterable[Told], ledger: _Ledger) -> list[Told]:
    kept = (
        Told(
            account=one.account,
            facts=tuple(
                fact
                for fact in one.facts
                if fact.is_asking
                or fact.event not in _SIGNS_OF_LIFE
                or not ledger.knows(one.account, fact)
            ),
        )
        for one in told
    )
    return [one for one in kept if one.facts]


# --- write ---


def _insert_facts(dialect: DialectName) -> Upsert:
    return upsert(vendor_fact, dialect).on_conflict_do_nothing()


_STORE: Final = {
    dialect: _insert_facts(dialect).returning(vendor_fact.c.account, vendor_fact.c.key)
    for dialect in ("sqlite", "postgresql")
}
_FACT_FIELDS: Final = tuple(field.name for field in fields(Fact))


def _store(connection: Connection, told: Iterable[Told], now: datetime) -> set[tuple[str, str]]:
    """Insert what is not there yet; return the keys of that."""
    rows = [_to_row(one.account, fact, now) for one in told for fact in one.facts]
    if not rows:
        return set()
    # In one order, whoever inserts: two daemons that get the same facts would else wait in a ring.
    rows.sort(key=lambda row: (row["account"], row["key"]))
    inserted = connection.execute(_STORE[dialect_of(connection)], rows)
    return {(account, key) for account, key in inserted}


def _to_row(account: str, fact: Fact, now: datetime) -> dict[str, Any]:
    row = {name: getattr(fact, name) for name in _FACT_FIELDS}
    row["event_at"] = max(now - OLDEST, min(fact.event_at, now))
    return {**row, "account": account, "received_at": now}
