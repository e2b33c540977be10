"""All that a daemon is given: nothing in `daemon` reads configuration or chooses a class."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.daemon.book import Keys
from orchestrator.daemon.janitor import Keep
from orchestrator.daemon.listening import Listen
from orchestrator.daemon.llm.frame import LlmFrame
from orchestrator.daemon.sd_notify import SILENT, Notifier
from orchestrator.store.engine import Database
from orchestrator.wake.base import Waker


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A daemon that does not run yet."""

    name: str
    owner_prefix: str
    database: Database
    keys: Keys
    reload: Callable[[], Keys]
    """Reads the configuration again (SIGHUP). Raises ConfigError."""
    redact: Callable[[str], str]
    """Takes known secrets out of a text."""
    open_waker: Callable[[], Waker]
    notified: bool
    """Whether triggers wake the daemon only while its row says that it sleeps."""
    lease: timedelta
    shutdown_timeout: timedelta
    keep: Keep
    gap_timeout: timedelta
    """How long a lane waits for a missing number."""
    command_ttl: timedelta
    """How long a command lives that does not say so itself."""
    callbacks: Listen | None
    """Where the vendors post to; null: nowhere."""
    max_body_bytes: int
    """The longest callback that is read."""
    llm: LlmFrame | None
    """The LLM gateway; null: there is none."""
    metrics: Listen | None
    """Where metrics and health are asked for; null: nowhere."""
    open_inspected: Callable[[], Database]
    """Opens the same database once more, with as few connections as can be: who asks for metrics
    must not take those that the work needs."""
    abandoned: frozenset[str] = frozenset()
    """Accounts with agents and without keys that a person gave up."""
    notifier: Notifier = SILENT
    """The way to the service manager, where there is one."""
