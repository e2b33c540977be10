"""What a vendor can do, as values: all that differs between vendors and reaches the core."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Recovery(StrEnum):
    """How a vendor lets us settle a start whose outcome is unknown while it is still wanted."""

    SAME_NAME = "same_name"  # send it again under its name: "already started" is success
    FIND = "find"  # ask for it by its name and adopt the handle
    EVICT = "evict"  # start another under the same agent user: the vendor evicts the earlier
    STOP_FIRST = "stop_first"  # it has no name: stop it after the horizon, then start anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a vendor can do, as far as a decision depends on it."""

    recovery: Recovery
    names_handle: bool
    """The stop handle is a name of ours, known before the start; its stop may repeat and match a
    later send of the same name, so a success before the horizon is only a hint."""
    poll_proves_absence: bool
    """A poll goes by the vendor's own handle. Where false, it only looks into the room, and an
    absence means something only after a presence was seen, and then only: send a stop."""
    signature_window: timedelta
    """How long the vendor honours a signature."""
    one_per_user: bool = False
    """A stop goes by room and user, so only one row at a time may use the pair."""
    agent_user_scope: str = "room"
    """Where an agent's user id must be unique: `room` or `account`."""
    stale_codes: frozenset[str] = frozenset()
    """Codes that say: a listening command's Sequence is behind the newest seen, and was ignored."""
    not_ready_codes: frozenset[str] = frozenset()
    """Codes that say: a command had no effect yet, and may have one in a moment."""
