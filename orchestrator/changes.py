"""What is different between two configurations, in the words of the file: for a reload.

Rule 1: a difference is a TOML path, never a value; of a secret it tells only that it changed.
Rule 2: a table is taken at once or needs a restart, whole; what is in neither list fails a test.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from orchestrator.config import Config
from orchestrator.secret import Secret
from orchestrator.setting_types import Address

TAKEN_AT_ONCE: Final = ("accounts", "llm_upstreams", "orphans", "retry", "secrets", "log")
"""Tables that a reload gives to the running daemon."""
READ_ONCE: Final = (
    "daemon", "database", "leases", "lanes", "callbacks", "llm_gateway", "metrics", "retention",
)  # fmt: skip
"""Tables that only a restart reads."""

Value = str | int | None | Secret | Address
"""What may stand under a key, tables aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """TOML paths, each in the order of the alphabet: `accounts.main`, `secrets.llm_api_key`."""

    added: tuple[str, ...]
    """Accounts, upstreams and secrets that are new."""
    removed: tuple[str, ...]
    """Accounts, upstreams and secrets that are gone."""
    changed: tuple[str, ...]
    """Keys that have another value, that of a secret included: `accounts.main.secret_key`."""
    needs_restart: tuple[str, ...]
    """Keys whose value is another one than that which the daemon runs with."""

    @property
    def is_nothing(self) -> bool:
        """Whether the file says what it said before."""
        return not (self.added or self.removed or self.changed or self.needs_restart)


def compare(running: Config, before: Config, fresh: Config) -> Changes:
    """Return what a reload changes, and what it cannot change.

    Args:
        running: what the daemon was started with; what needs a restart is measured against it.
        before: what was read last; what is taken at once is measured against it.
        fresh: what was read now.
    """
    old, new = _named(before), _named(fresh)
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(
            sorted(
                path
                for name in old.keys() & new.keys()
                for path in _differences(old[name], new[name])
            )
        ),
        needs_restart=tuple(
            sorted(
                path
                for table in READ_ONCE
                for path in _differences(_values_of(running, table), _values_of(fresh, table))
            )
        ),
    )


def _named(config: Config) -> Mapping[str, Mapping[str, Value]]:
    """Return what is taken at once: whatever can come and go by its own name, and the tables."""
    named: dict[str, Mapping[str, Value]] = {}
    for name, account in config.accounts.items():
        named[f"accounts.{name}"] = dict(_values(account, f"accounts.{name}"))
    for name, upstream in config.llm_upstreams.items():
        named[f"llm_upstreams.{name}"] = dict(_values(upstream, f"llm_upstreams.{name}"))
    for name, secret in config.secrets.items():
        named[f"secrets.{name}"] = {f"secrets.{name}": secret}
    for table in TAKEN_AT_ONCE:
        if table not in {"accounts", "llm_upstreams", "secrets"}:
            named[table] = _values_of(config, table)
    return named


def _values_of(config: Config, table: str) -> Mapping[str, Value]:
    return dict(_values(getattr(config, table), table))


def _values(found: object, path: str) -> Iterator[tuple[str, Value]]:
    """Yield every value below `found` with its TOML path."""
    match found:
        case BaseModel():
            for name, field in type(found).model_fields.items():
                yield from _values(getattr(found, name), f"{path}.{field.alias or name}")
        case dict():
            for name, inner in found.items():
                yield from _values(inner, f"{path}.{name}")
        case list():
            yield path, ", ".join(map(str, found))
        case str() | int() | None | Secret() | Address():
            yield path, found
        case _:
            raise TypeError(f"{path}: a configuration holds no {type(found).__name__}")


def _differences(old: Mapping[str, Value], new: Mapping[str, Value]) -> Iterator[str]:
    """Yield the paths whose values differ; one that is missing on a side counts as none."""
    for path in old.keys() | new.keys():
        if old.get(path) != new.get(path):
            yield path
