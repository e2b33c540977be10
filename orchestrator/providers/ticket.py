"""The address of one agent at our LLM gateway, and the token that opens it.

The token is an HMAC of the address: nothing is stored, and it opens no other agent's address. That
an agent has ended is not the token's business: whoever serves the address looks it up.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from orchestrator.providers.callbacks import id_at, is_same

_SEGMENTS: Final = (
    "upstream", "account", "room_id", "user_id", "task_id", "incarnation", "agent_id",
)  # fmt: skip
"""What stands between the slashes, in this order."""

ROUTE: Final = f"/llm/{'/'.join(f'{{{name}:[^/]+}}' for name in _SEGMENTS)}/chat/completions"
"""Every address, as aiohttp spells a route. What it takes a segment for by itself has no braces,
which rooms may be named with."""

_TOKEN_PURPOSE: Final = b"orchestrator llm gateway 1\n"
_KEY_PURPOSE: Final = b"orchestrator llm gateway key 1\n"
"""What one secret signs for different purposes can never be the same bytes."""

_INCARNATION = re.compile(r"0|[1-9][0-9]{0,9}")
_ONLY_DOTS = re.compile(r"\.{1,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Who asks at an address, and which upstream is to answer."""

    upstream: str
    account: str
    room_id: str
    user_id: str
    task_id: str
    incarnation: int
    agent_id: str
    """The ledger row's id."""

    @property
    def path(self) -> str:
        """Return the address below the gateway's public URL, each segment percent-encoded."""
        segments = (
            self.upstream,
            self.account,
            self.room_id,
            self.user_id,
            self.task_id,
            str(self.incarnation),
            self.agent_id,
        )
        return f"/llm/{'/'.join(map(_encode, segments))}/chat/completions"


def read_ticket(segments: Mapping[str, str]) -> Ticket | None:
    """Return the ticket of an address, its segments decoded, as aiohttp's match_info has them.

    Null where no agent can have such an address: a segment is missing, empty, too long or not
    printable, or the incarnation is no number as `Ticket.path` writes it.
    """
    upstream, account = id_at(segments, "upstream"), id_at(segments, "account")
    room_id, user_id = id_at(segments, "room_id"), id_at(segments, "user_id")
    task_id, agent_id = id_at(segments, "task_id"), id_at(segments, "agent_id")
    number = segments.get("incarnation", "")
    if not (upstream and account and room_id and user_id and task_id and agent_id):
        return None
    if _INCARNATION.fullmatch(number) is None:
        return None
    return Ticket(
        upstream=upstream,
        account=account,
        room_id=room_id,
        user_id=user_id,
        task_id=task_id,
        incarnation=int(number),
        agent_id=agent_id,
    )


def sign(ticket: Ticket, key: bytes) -> str:
    """Return the token of a ticket: `llm-` and 43 characters of base64url, 47 in all."""
    digest = hmac.digest(key, _TOKEN_PURPOSE + ticket.path.encode(), sha256)
    return f"llm-{urlsafe_b64encode(digest).decode().rstrip('=')}"


def is_signed(ticket: Ticket, token: str, keys: Iterable[bytes]) -> bool:
    """Return whether `token` is the ticket's with any of the keys. Never raises.

    How long it takes does not tell how much of a wrong token is right.
    """
    return any(is_same(token, sign(ticket, key)) for key in keys)


def derive_key(secret: str, account: str) -> bytes:
    """Return the key that signs one account's tickets: 32 bytes out of a configured secret."""
    return hmac.digest(secret.encode(), _KEY_PURPOSE + account.encode(), sha256)


def _encode(segment: str) -> str:
    """Return a segment that no client takes for another one, or for a step up or down."""
    if _ONLY_DOTS.fullmatch(segment):
        return segment.replace(".", "%2E")
    return quote(segment, safe="")
