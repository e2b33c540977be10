"""The only file that reads the environment, the configuration and the files that hold secrets.

Rule 1: every mistake is reported at once, each with its TOML path, what was expected and what was
found; no value of a secret, and no value under an unknown key, is ever part of it.
Rule 2: what is read is complete: no other file looks for a default, a variable or a path later.
"""

import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from orchestrator.errors import ConfigError
from orchestrator.mistakes import translate
from orchestrator.providers.base import Problem
from orchestrator.secret import Secret
from orchestrator.settings import (
    Account,
    AccountName,
    Callbacks,
    Daemon,
    Database,
    Lanes,
    Leases,
    Log,
    Metrics,
    Orphans,
    Retention,
    Retry,
    SecretKey,
    SecretName,
    Table,
)

DEFAULT_PATH = Path("/etc/orchestrator/config.toml")
PATH_VARIABLE = "ORCHESTRATOR_CONFIG"
DEBUG_VARIABLE = "ORCHESTRATOR_DEBUG"

LEASE_MARGIN_MS = 2_000
"""What a lease must be longer than a call: time to announce before it and to settle after it."""


class Config(Table):
    """The whole file."""

    daemon: Daemon = Daemon()
    """This process."""
    database: Database = Database()
    """Where the rows are."""
    accounts: dict[AccountName, Annotated[Account, Field(discriminator="provider")]] = Field(
        default_factory=dict
    )
    """The vendor accounts, by the name that rows use."""
    leases: Leases = Leases()
    """How long a daemon owns a row that it works on."""
    retry: Retry = Retry()
    """Exponential, with jitter."""
    lanes: Lanes = Lanes()
    """Push-to-talk."""
    orphans: Orphans = Orphans()
    """Agents that run and have no row."""
    callbacks: Callbacks = Callbacks()
    """The vendors' posts."""
    metrics: Metrics = Metrics()
    """Prometheus, and whether the daemon is well."""
    retention: Retention = Retention()
    """What is forgotten, and when."""
    log: Log = Log()
    """What goes to standard error."""
    secrets: dict[SecretName, SecretKey] = Field(default_factory=dict)
    """What `{"$secret": "name"}` in a spec resolves to."""

    _path: Path = PrivateAttr(default=DEFAULT_PATH)

    @property
    def path(self) -> Path:
        """The file this was read from, for a reload."""
        return self._path

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works and should not stay so, one sentence each, without values."""
        plain = tuple(
            f'{path}: a secret in plain text; better {{ file = "…" }} or {{ credential = "…" }}'
            for path, secret in _secrets(self)
            if secret.source == "plain" and _hides(path, secret)
        )
        if self.metrics.listen is None:
            return plain
        return (
            *plain,
            "metrics.listen: this version does not serve metrics yet; nothing listens there",
        )

    @property
    def secret_values(self) -> frozenset[str]:
        """Every value that must never be seen, for the log's redaction."""
        values: set[str] = set()
        for path, secret in _secrets(self):
            if not _hides(path, secret):
                continue
            values.add(secret.reveal())
            if path.startswith("database."):
                values.add(unquote(urlsplit(secret.reveal()).password or ""))
        return frozenset(values)


def open_config(option: Path | None) -> Config:
    """Return the configuration of this process.

    Args:
        option: what `-c` said; without it $ORCHESTRATOR_CONFIG, then /etc/orchestrator/config.toml.

    Raises:
        ConfigError: see `load`.
    """
    return load(locate(option, os.environ), os.environ)


def locate(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file that `-c`, the environment or the default names, in this order."""
    if option is not None:
        return option
    named = environ.get(PATH_VARIABLE)
    return Path(named) if named else DEFAULT_PATH


def wants_debug() -> bool:
    """Return whether $ORCHESTRATOR_DEBUG asks for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration in a file, its secrets found, its defaults filled in.

    Raises:
        ConfigError: the file cannot be read or is wrong; the message has one line per mistake.
    """
    return understand(_read(path), path, environ)


def understand(written: Mapping[str, Any], path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration that tables mean, as if they stood in a file at `path`.

    Raises:
        ConfigError: as `load`.
    """
    place = _System(directory=path.parent, environ=environ)
    contradictions = _contradictions(written)
    try:
        config = Config.model_validate(dict(written), context=place)
    except ValidationError as wrong:
        # Without the cause: it shows what was written, and that may be a secret.
        raise _mistakes(path, (*translate(wrong, Config), *contradictions)) from None
    if contradictions:
        raise _mistakes(path, contradictions)
    config._path = path  # noqa: SLF001 - our own class: frozen for everybody else
    return _with_host_name(config)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as wrong:
        raise ConfigError(f"{path}: expected TOML, found a mistake: {wrong}") from wrong
    except UnicodeDecodeError as wrong:
        raise ConfigError(f"{path}: expected UTF-8 text, found other bytes") from wrong
    except OSError as wrong:
        reason = wrong.strerror or type(wrong).__name__
        told = f"{path}: expected a configuration file, found: {reason}"
        raise ConfigError(f"{told}. Name one with -c or ${PATH_VARIABLE}.") from wrong


@dataclass(frozen=True, slots=True)
class _System:
    """Where this process finds its secrets."""

    directory: Path
    environ: Mapping[str, str]

    def variable(self, name: str) -> str | None:
        return self.environ.get(name)

    def file(self, path: str) -> str | None:
        try:
            return (self.directory / path).read_text("utf-8")
        except (OSError, UnicodeDecodeError, ValueError):
            return None

    def credential(self, name: str) -> str | None:
        given = self.environ.get("CREDENTIALS_DIRECTORY")
        # A credential is a name in that directory; a path would be read from anywhere.
        if not given or "/" in name:
            return None
        return self.file(str(Path(given) / name))

    def absolute(self, path: str) -> str:
        return str((self.directory / path).absolute())


def _with_host_name(config: Config) -> Config:
    if config.daemon.name:
        return config
    daemon = config.daemon.model_copy(update={"name": socket.gethostname()[:64]})
    return config.model_copy(update={"daemon": daemon})


def _contradictions(written: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return the mistakes that only two keys together make.

    It looks at the file, not at the values, so that they are reported along with all others.
    """
    lease_ms = _number(written, "leases", "ttl_s", 15) * 1_000
    found: list[Problem] = []
    accounts = written.get("accounts")
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        call_ms = _number({"": account}, "", "call_timeout_ms", 10_000)
        life_ms = _number({"": account}, "", "signature_life_s", 90) * 1_000
        longest = min(lease_ms - LEASE_MARGIN_MS, life_ms)
        if call_ms > longest:
            expected = f"at most {longest} (leases.ttl_s less 2 s, and signature_life_s)"
            found.append(
                Problem(
                    path=f"accounts.{name}.call_timeout_ms", expected=expected, found=str(call_ms)
                )
            )
    base_ms = _number(written, "retry", "base_ms", 500)
    cap_ms = _number(written, "retry", "cap_ms", 60_000)
    if cap_ms < base_ms:
        expected = f"at least retry.base_ms ({base_ms})"
        found.append(Problem(path="retry.cap_ms", expected=expected, found=str(cap_ms)))
    return tuple(found)


def _number(written: Mapping[str, Any], table: str, key: str, default: int) -> int:
    values = written.get(table)
    value = values.get(key, default) if isinstance(values, dict) else default
    # What is no number is reported as such elsewhere.
    return value if type(value) is int else default


def _secrets(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Secret]]:
    """Yield every secret below `model` with its TOML path."""
    for name, field in type(model).model_fields.items():
        yield from _secrets_in(getattr(model, name), f"{prefix}{field.alias or name}")


def _secrets_in(value: object, path: str) -> Iterator[tuple[str, Secret]]:
    match value:
        case Secret():
            yield path, value
        case BaseModel():
            yield from _secrets(value, f"{path}.")
        case dict():
            for key, inner in value.items():
                yield from _secrets_in(inner, f"{path}.{key}")
        case _:
            return


def _hides(path: str, secret: Secret) -> bool:
    """Return whether there is something to hide: a database URL may hold no password."""
    if not path.startswith("database."):
        return True
    return urlsplit(secret.reveal()).password is not None


def _mistakes(path: Path, problems: tuple[Problem, ...]) -> ConfigError:
    count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return ConfigError("\n".join([f"{path}: {count}", *(f"  {problem}" for problem in problems)]))
