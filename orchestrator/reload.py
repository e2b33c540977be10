"""SIGHUP: the file read again, what is taken of it, and what is said of the rest.

Rule 1: a file with a mistake is refused whole, and the daemon goes on with what it has.
Rule 2: what is said names keys, never values. What may change without a restart is in `changes`.
"""

from collections.abc import Callable, Sequence

from orchestrator import log
from orchestrator.changes import Changes, compare
from orchestrator.config import Config, open_config
from orchestrator.daemon.book import Keys


class Reload:
    """Reads the file again at each call, and says what is different.

    Args:
        running: the configuration that this process was started with.
        redactor: learns the secrets that are new.
        build_keys: makes of a configuration what a reload may change.
    """

    def __init__(
        self, running: Config, redactor: log.Redactor, build_keys: Callable[[Config], Keys]
    ) -> None:
        self._running = running
        self._last = running
        self._redactor = redactor
        self._build_keys = build_keys

    def __call__(self) -> Keys:
        """Return the accounts, secrets and the rest that a reload may change.

        Raises ConfigError if the file is wrong: then nothing of it is taken.
        """
        fresh = open_config(self._running.path)
        keys = self._build_keys(fresh)
        self._redactor.learn(fresh.secret_values)
        if fresh.log != self._last.log:
            log.configure(fresh.log, self._redactor)
        _say_changes(compare(self._running, self._last, fresh), sorted(fresh.accounts))
        for warning in fresh.warnings:
            if warning not in self._last.warnings:
                log.logger(__name__).warning("configuration", message=warning)
        self._last = fresh
        return keys


def _say_changes(changes: Changes, accounts: Sequence[str]) -> None:
    say = log.logger(__name__)
    say.info(
        "reloaded",
        accounts=accounts,
        added=list(changes.added),
        removed=list(changes.removed),
        changed=list(changes.changed),
        message="nothing has changed" if changes.is_nothing else "taken from now on",
    )
    if changes.needs_restart:
        message = "these have another value than this daemon runs with: restart it to take them"
        say.warning("needs_restart", keys=list(changes.needs_restart), message=message)
