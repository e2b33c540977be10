"""What a call to a vendor came to: the taxonomy that everything else rests on.

Each vendor maps its own codes to these eight in one table. A code that no table knows is
`Indefinite`, never a guess. `Outcome` says nothing about what to do next; `evolve` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What the vendor said beside the verdict; empty where it said nothing."""

    code: str = ""
    message: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(_Told):
    """It had its effect. A start or a find returns the stop handle, where the vendor gave one.

    For a find or a poll: the agent is there.
    """

    handle: str | None = None
    name: str | None = None
    """The name of ours under which the vendor knows what was asked about by its handle."""
    seen: tuple[str, ...] = ()
    """The user ids in the room that was looked into."""
    result: Mapping[str, Any] | None = None
    """What the vendor returned for a command (for example `Round`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone(_Told):
    """The target is absent: proof if asked after the horizon, a hint before it."""

    seen: tuple[str, ...] = ()
    """The user ids in the room that was looked into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(_Told):
    """No effect: too many calls. The pace of the account's action changes, not the row's.

    `after` is how long the vendor asks us to wait, if it says so. `capacity` means that not the
    calls but the agents are too many.
    """

    after: timedelta | None = None
    capacity: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent(_Told):
    """No effect, because nothing left us: refused connection, DNS, TLS, breaker, missed slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(_Told):
    """No effect, and the same call never will have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied(_Told):
    """No effect: the account may not (key, rights, quota, arrears)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(_Told):
    """No effect: the vendor found the signature too old.

    Backdated signatures are not believed here, or our clock is wrong: sign undated from now on.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Indefinite(_Told):
    """Nobody knows whether it had an effect: timeout after sending, reset, 5xx, unknown code.

    `reset_at` is when we ourselves reset the connection, so that no byte of it can leave later.
    """

    reset_at: datetime | None = None


Outcome = Done | Gone | Throttled | NotSent | Refused | Denied | Expired | Indefinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An outcome with the times that decide what it proves (database clock, UTC).

    `asked_at` is never later than the true time of sending, `answered_at` never earlier than the
    true time of the reply.
    """

    outcome: Outcome
    asked_at: datetime
    answered_at: datetime
