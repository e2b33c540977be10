"""Whose account a row belongs to, and rows of an account that no live daemon has.

That is a typing error, or an account that was removed. A row may change its account once in its
life with us: when its id was deleted and inserted again. Then it is handed over first and judged
by whoever has the new account.
"""

from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.arrange import arrange, show
from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.incarnation import fail
from orchestrator.core.model import Account, Row, Step, WaitingFor
from orchestrator.core.replace import replace

LOOK_AGAIN: Final = timedelta(seconds=60)

NOBODY: Final = Account(
    name="",
    caps=Caps(
        recovery=Recovery.FIND,
        names_handle=False,
        poll_proves_absence=False,
        signature_window=timedelta(0),
    ),
)
"""Stands in where nothing can be called: a row without agents needs no more to be arranged."""


def estrange(step: Step, name: str, now: datetime) -> Step:
    """Return a row of an unknown account as it has to rest.

    Where nothing can run at a vendor, the row fails, and says so. Where something can, it waits
    for a daemon that has the account: it is never given up.
    """
    row = step.row
    if row.status.account != name:
        return replace(step, row=_hand_over(row, now))
    if not row.agents:
        if not row.status.retires:
            said = f"account {name!r} is not under [accounts] of any running daemon"
            row = fail(row, "UnknownAccount", said, now).row
        return replace(step, row=arrange(row, NOBODY, now))
    status = replace(
        show(row, NOBODY, now).status,
        waiting_for=WaitingFor.ACCOUNT,
        reason="UnknownAccount",
        message=f"no running daemon has the account {name!r}; its agents cannot be stopped",
        due_at=now + LOOK_AGAIN,
        stop_due_at=None,
        parked_class=None,
        parked_verb=None,
    )
    return replace(step, row=replace(row, status=status))


def _hand_over(row: Row, now: datetime) -> Row:
    """Return the row due under its new account, which another daemon may have."""
    status = replace(
        address(row).status, due_at=now, stop_due_at=None, parked_class=None, parked_verb=None
    )
    return replace(row, status=status)


def address(row: Row) -> Row:
    """Return the row under the account that its next call needs: it is looked for under that."""
    name = account_name(row)
    if row.status.account == name:
        return row
    return replace(row, status=replace(row.status, account=name))


def account_name(row: Row) -> str:
    """Return whose keys the next call about this row needs: that of what must end comes first."""
    if row.unwanted:
        return row.unwanted[0].account
    return row.task.account if row.task is not None else row.status.account
