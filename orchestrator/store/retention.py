"""What is forgotten, kind by kind, and what must hold so that nothing goes that is still evidence.

Age alone forgets nothing. A fact goes once it is applied, a command once it is settled, an orphan
once it has ended or nobody has seen it for as long, and a ledger row once its horizon is past and
nobody needs it to count incarnations by. A task goes if it ended that long ago, has nothing open
and nothing unread, and nobody has touched its row since or written a later time into it.

Rule 1: a batch is one short transaction that looks at a bounded number of rows, by an index, and
leaves out what others hold. So daemons that prune at the same time share the work, and wait for
nobody.
Rule 2: a task goes whole, with its status and its lanes, as if a claim had forgotten it. It is
locked first and judged after: what was written meanwhile keeps it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.sql.selectable import FromClause

from orchestrator.core.model import Phase, What
from orchestrator.store import lanes, llm_tasks, rows, status_id
from orchestrator.store.engine import one_of
from orchestrator.store.schema import (
    agent_command,
    agent_event,
    agent_status,
    agent_task,
    call_minute,
    llm_turn,
    orphan_task,
    task_change,
    vendor_agent,
    vendor_fact,
)

Condition = ColumnElement[bool]
Cursor = tuple[datetime, str]
"""How old the last row was that was looked at, and its id: where to go on."""
BEGIN: Final[Cursor] = (datetime(2, 1, 1, tzinfo=UTC), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """Before when things are forgotten; null: never."""

    events: datetime
    commands: datetime
    turns: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which rows to look at: those after a cursor and before a time, the oldest first."""

    before: datetime
    most: int
    after: Cursor = BEGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What became of a page."""

    gone: int = 0
    oldest: datetime | None = None
    """The age of the oldest row that went, or of one that is no younger."""
    last: Cursor | None = None
    """Where to go on; null: there is no more."""


_TIME: Final = agent_event.c.at.type
_BEFORE: Final = bindparam("before", type_=_TIME)
_MOST: Final = bindparam("most", type_=agent_event.c.id.type)


class Kind(ABC):
    """Rows of one table that grow old in the same way."""

    def __init__(
        self, at: "Column[datetime]", cutoff: Callable[[Cutoffs], datetime | None]
    ) -> None:
        """`at` tells their age, and by its table which they are."""
        self.at = at
        self.cutoff = cutoff

    @abstractmethod
    def forget(self, connection: Connection, page: Page) -> Forgotten:
        """Forget what may go of a page."""


class Plain(Kind):
    """Rows that say themselves whether they may go."""

    def __init__(
        self,
        at: "Column[datetime]",
        cutoff: Callable[[Cutoffs], datetime | None],
        *also: Condition,
    ) -> None:
        """`also`: what must hold of the row beside its age."""
        super().__init__(at, cutoff)
        key = tuple(at.table.primary_key.columns)
        aged = (at < _BEFORE, *also)
        self._oldest = select(at).where(*aged).order_by(at).limit(1)
        # Chosen once, before anything is deleted, whatever the planner thinks of it.
        old = (
            select(*key)
            .where(*aged)
            .order_by(at)
            .limit(_MOST)
            .with_for_update(skip_locked=True)
            .cte("old", nesting=True)
        )
        self._forget = delete(at.table).where(tuple_(*key).in_(select(*old.c)))

    def forget(self, connection: Connection, page: Page) -> Forgotten:
        """Forget the oldest. Nothing stands in the way of the next, so it begins anew there."""
        oldest = connection.execute(self._oldest, {"before": page.before}).scalar()
        if oldest is None:
            return Forgotten()
        values = {"before": page.before, "most": page.most}
        gone = connection.execute(self._forget, values).rowcount
        return Forgotten(gone=gone, oldest=oldest, last=BEGIN if gone == page.most else None)


class Judged(Kind):
    """Rows of which other tables say whether they may go: looked at page by page.

    `id_` is the table's key.
    """

    def __init__(
        self,
        at: "Column[datetime]",
        cutoff: Callable[[Cutoffs], datetime | None],
        id_: "Column[str]",
        among: FromClause,
        *may_go: Condition,
    ) -> None:
        """`among`: the table, or what it is joined with; all of that is locked."""
        super().__init__(at, cutoff)
        after = (bindparam("after_at", type_=_TIME), bindparam("after_id", type_=id_.type))
        self._look = (
            select(at, id_)
            .where(at < _BEFORE, at >= after[0], tuple_(at, id_) > tuple_(*after))
            .order_by(at, id_)
            .limit(_MOST)
        )
        self._judge = (
            select(id_).select_from(among).where(one_of(id_, "ids"), at < _BEFORE, *may_go)
        )
        self._lock: Select[Any] = self._judge.with_for_update(skip_locked=True)
        self._delete = delete(at.table).where(one_of(id_, "ids"))

    def forget(self, connection: Connection, page: Page) -> Forgotten:
        """Forget what may go of these, and say where the next begin."""
        asked = {"after_at": page.after[0], "after_id": page.after[1], "most": page.most}
        seen = connection.execute(self._look, {"before": page.before, **asked}).all()
        if not seen:
            return Forgotten()
        values = {"before": page.before, "ids": [id_ for _, id_ in seen]}
        values["ids"] = list(connection.execute(self._lock, values).scalars())
        # Once more: of what was joined with a row, its lock has seen the state before.
        ids = list(connection.execute(self._judge, values).scalars())
        if ids:
            self._drop(connection, ids)
        at, id_ = seen[-1]
        return Forgotten(
            gone=len(ids),
            oldest=seen[0][0] if ids else None,
            last=(at, id_) if len(seen) == page.most else None,
        )

    def _drop(self, connection: Connection, ids: Sequence[str]) -> None:
        connection.execute(self._delete, {"ids": ids})


_DROP_TASKS: Final = delete(agent_task).where(one_of(agent_task.c.id, "ids"))
_DROP_WISHES: Final = delete(task_change).where(
    one_of(task_change.c.task_id, "ids"), task_change.c.what == What.DELETE.value
)


class _Tasks(Judged):
    """Tasks with their statuses and lanes. Whoever writes to them meanwhile finds nothing."""

    def _drop(self, connection: Connection, ids: Sequence[str]) -> None:
        """Delete them. The change that this writes is taken at once: nothing is left to be done."""
        connection.execute(_DROP_TASKS, {"ids": ids})
        connection.execute(_DROP_WISHES, {"ids": ids})
        rows.forget(connection, ids)
        lanes.forget(connection, ids)
        llm_tasks.forget(connection, ids)


# --- what may go ---


def _events(before: Cutoffs) -> datetime:
    return before.events


def _commands(before: Cutoffs) -> datetime:
    return before.commands


def _turns(before: Cutoffs) -> datetime:
    return before.turns


def _ended(before: Cutoffs) -> datetime | None:
    return before.ended


# Words, not parameters: as its index has it.
_is_open = agent_command.c.state.in_([literal_column("'queued'"), literal_column("'sending'")])
_newer = vendor_agent.alias("newer")
_is_past_horizon = or_(vendor_agent.c.horizon_at.is_(None), vendor_agent.c.horizon_at < _BEFORE)
_is_uncounted = or_(
    ~exists().where(agent_status.c.task_id == vendor_agent.c.task_id),
    exists().where(
        _newer.c.task_id == vendor_agent.c.task_id,
        _newer.c.incarnation > vendor_agent.c.incarnation,
    ),
)
"""Its task is gone, or the ledger has a later incarnation of it: who loses its status counts on
from the newest."""
_is_no_orphans = ~exists().where(orphan_task.c.id == vendor_agent.c.orphan_id)
_is_left_alone = and_(
    ~exists().where(
        vendor_agent.c.orphan_id == orphan_task.c.id, vendor_agent.c.ended_at.is_(None)
    ),
    ~exists().where(agent_status.c.task_id == status_id.of_orphan_column(orphan_task.c.id)),
)
"""Without its orphan's row a status is nobody's, and its agent would be looked after no more."""

TASKS: Final = _Tasks(
    agent_status.c.stopped_at,
    _ended,
    agent_status.c.task_id,
    agent_status.join(agent_task, agent_task.c.id == agent_status.c.task_id),
    or_(agent_status.c.phase == Phase.STOPPED.value, agent_status.c.phase == Phase.FAILED.value),
    agent_task.c.updated_at < _BEFORE,
    or_(agent_task.c.start_at.is_(None), agent_task.c.start_at < _BEFORE),
    ~exists().where(task_change.c.task_id == agent_task.c.id),
    ~exists().where(vendor_agent.c.task_id == agent_task.c.id, vendor_agent.c.ended_at.is_(None)),
    ~exists().where(agent_command.c.task_id == agent_task.c.id, _is_open),
)

KINDS: Final[tuple[Kind, ...]] = (
    Plain(agent_event.c.at, _events),
    Plain(call_minute.c.minute, _events),
    Plain(llm_turn.c.at, _turns),
    # What nobody has applied may be all that tells of an end.
    Plain(vendor_fact.c.received_at, _events, vendor_fact.c.taken_at.is_not(None)),
    Plain(agent_command.c.done_at, _commands, ~_is_open),
    TASKS,
    # A task goes with its commands, even if others are kept for longer.
    Judged(
        agent_command.c.done_at,
        _ended,
        agent_command.c.id,
        agent_command,
        ~_is_open,
        ~exists().where(agent_task.c.id == agent_command.c.task_id),
    ),
    Judged(
        orphan_task.c.stopped_at,
        _ended,
        orphan_task.c.id,
        orphan_task,
        orphan_task.c.phase == "stopped",
        _is_left_alone,
    ),
    # These have no end, and are forgotten once they are heard of no more.
    Plain(
        orphan_task.c.last_seen_at,
        _ended,
        orphan_task.c.phase == literal_column("'ignored'"),
        _is_left_alone,
    ),
    Judged(
        vendor_agent.c.ended_at,
        _ended,
        vendor_agent.c.id,
        vendor_agent,
        _is_past_horizon,
        or_(vendor_agent.c.task_id.is_(None), _is_uncounted),
        or_(vendor_agent.c.task_id.is_not(None), _is_no_orphans),
    ),
)
"""All that is forgotten, in this order: what needs another to be gone comes after it."""


def is_any_old(connection: Connection, kind: Kind, before: datetime) -> bool:
    """Return whether any row of a kind is that old, whether it may go or not. Locks nothing."""
    found = select(kind.at).where(kind.at < before).order_by(kind.at).limit(1)
    return connection.execute(found).first() is not None


def forget(connection: Connection, kind: Kind, page: Page) -> Forgotten:
    """Forget what may go of a page of one kind."""
    return kind.forget(connection, page)


def prune(connection: Connection, before: Cutoffs, most: int) -> int:
    """Forget what may go of the first page of every kind, in this transaction; return how many."""
    gone = 0
    for kind in KINDS:
        at = kind.cutoff(before)
        if at is not None:
            gone += kind.forget(connection, Page(before=at, most=most)).gone
    return gone
