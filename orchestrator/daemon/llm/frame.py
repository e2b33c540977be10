"""What the gateway is given: where it listens, how long it waits, and the models behind it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.daemon.listening import Listen


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmFrame:
    """What only a restart changes."""

    listen: Listen
    public_url: str
    """What the vendors call, without a slash at its end."""
    token_secrets: tuple[str, ...] = field(repr=False)
    """What agents' tokens are made with, the present one first; none: the accounts' own keys."""
    max_body_bytes: int
    first_token_timeout: timedelta
    total_timeout: timedelta
    apology: str
    """What is said when nobody has answered; may be empty."""
    keep_text: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A model that speaks OpenAI's chat completions."""

    name: str
    url: str
    """Of its chat completions, whole."""
    headers: Mapping[str, str] = field(repr=False)
    """Authorization among them."""
    model: str | None
    fallback: str | None
    pass_fields: Collection[str]
    pass_headers: Collection[str]
    """In lower case."""
    counts_tokens: bool
