"""When a send of a start can no longer take effect: the one fence that a vendor enforces.

A vendor refuses a request whose signature has run out. So a send is signed once, with the time of
its announce, and after that life nothing of it can start an agent any more, whoever froze, died or
lost the reply. A negative answer is evidence only if it was asked for after the horizon of every
send of that name; before it, it is a hint.

    reply, positive             reply + settle_in   (a vendor may not know its own task yet)
    reply, without effect       none
    no reply, we reset it       reset + reset_margin + settle_in
    no reply, nobody knows      announce + signature life + clock_margin + settle_in
"""

from datetime import datetime

from orchestrator.core.model import Account


def after_announce(account: Account, announced_at: datetime) -> datetime:
    """Return the horizon of a send of which nothing is known but that it was announced."""
    return announced_at + account.send_life + account.clock_margin + account.settle_in


def after_reply(account: Account, answered_at: datetime) -> datetime:
    """Return the horizon of a send that the vendor took."""
    return answered_at + account.settle_in


def after_reset(account: Account, reset_at: datetime) -> datetime:
    """Return the horizon of a send whose connection the sender itself reset."""
    return reset_at + account.reset_margin + account.settle_in


def latest(*horizons: datetime | None) -> datetime | None:
    """Return the horizon of several sends together: the latest; null if there is none."""
    return max((h for h in horizons if h is not None), default=None)
