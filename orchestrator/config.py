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
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from orchestrator.contradictions import find_contradictions
from orchestrator.errors import ConfigError
from orchestrator.mistakes import translate
from orchestrator.providers.base import Problem
from orchestrator.secret import AbsentError, Secret
from orchestrator.setting_types import AccountName, SecretKey, SecretName, UpstreamName
from orchestrator.settings import (
    Account,
    Callbacks,
    Daemon,
    Database,
    Lanes,
    Leases,
    LlmGateway,
    LlmUpstream,
    Log,
    Metrics,
    Orphans,
    Retention,
    Retry,
    Table,
)

DEFAULT_PATH = Path("/etc/orchestrator/config.toml")
PATH_VARIABLE = "ORCHESTRATOR_CONFIG"
DEBUG_VARIABLE = "ORCHESTRATOR_DEBUG"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""systemd sets it, for the service alone."""
_KEPT_APART = ("llm_gateway", "llm_upstreams", "secrets")
"""Tables of the daemon's alone."""
CREDENTIALS_FOLDER = "credentials"
"""Beside the configuration file: where credentials are looked for without that variable."""


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
    llm_gateway: LlmGateway = LlmGateway()
    """Where the vendors ask for what agents say."""
    llm_upstreams: dict[UpstreamName, LlmUpstream] = Field(default_factory=dict)
    """The models behind it, by the name that specs use."""
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
        return tuple(
            f'{path}: a secret in plain text; better {{ file = "…" }} or {{ credential = "…" }}'
            for path, secret in self.found_secrets
            if secret.source == "plain"
        )

    @property
    def found_secrets(self) -> tuple[tuple[str, Secret], ...]:
        """Every secret that hides something, with its TOML path, in the file's order."""
        return tuple((path, found) for path, found in _secrets(self) if _hides(path, found))

    @property
    def secret_values(self) -> frozenset[str]:
        """Every value that must never be seen, for the log's redaction."""
        values: set[str] = set()
        for path, secret in self.found_secrets:
            values.add(secret.reveal())
            if path.startswith("database."):
                values.update(_passwords(secret.reveal()))
        return frozenset(values)


def open_config(option: Path | None) -> Config:
    """Return the configuration of this process.

    Args:
        option: what `-c` said; without it $ORCHESTRATOR_CONFIG, then /etc/orchestrator/config.toml.

    Raises:
        ConfigError: see `load`.
    """
    return load(locate(option, os.environ), os.environ)


def open_part(option: Path | None, *names: str) -> Config:
    """Return the configuration as if of all that has keys it had the accounts of these names only.

    Who looks at the database need not be able to read every vendor's key, or a model's.

    Raises:
        ConfigError: see `load`; what is left out may be wrong.
    """
    path = locate(option, os.environ)
    written = _read(path)
    accounts = written.get("accounts", {})
    if isinstance(accounts, dict):
        kept = {name: accounts[name] for name in names if name in accounts}
        written = {**written, "accounts": kept, **{key: {} for key in _KEPT_APART}}
    return understand(written, path, os.environ)


def account_names(option: Path | None) -> tuple[str, ...]:
    """Return the names of the accounts, whatever else the file says. Raises ConfigError."""
    accounts = _read(locate(option, os.environ)).get("accounts", {})
    return tuple(accounts) if isinstance(accounts, dict) else ()


def locate(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file that `-c`, the environment or the default names, in this order."""
    if option is not None:
        return option
    named = environ.get(PATH_VARIABLE)
    return Path(named) if named else DEFAULT_PATH


def wants_debug() -> bool:
    """Return whether $ORCHESTRATOR_DEBUG asks for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManager:
    """Who started this process and wants to hear from it."""

    socket: str | None
    """Where it listens ($NOTIFY_SOCKET); null: nobody does."""
    watchdog_s: float | None
    """How long it waits for a sign of life ($WATCHDOG_USEC); null: for ever."""


def find_service_manager() -> ServiceManager:
    """Return the service manager of this process."""
    return read_service_manager(os.environ, os.getpid())


def read_service_manager(environ: Mapping[str, str], pid: int) -> ServiceManager:
    """Return the service manager that an environment tells the process `pid` of.

    Its variables are inherited by whatever a service starts, so it says whom it means by the time
    ($WATCHDOG_PID; sd_watchdog_enabled(3)).
    """
    usec = environ.get("WATCHDOG_USEC", "")
    is_meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    return ServiceManager(
        socket=environ.get("NOTIFY_SOCKET") or None,
        watchdog_s=int(usec) / 1e6 if usec.isdecimal() and int(usec) and is_meant else None,
    )


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
    contradictions = find_contradictions(written)
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
        return tomllib.loads(path.read_text("utf-8-sig"))
    except tomllib.TOMLDecodeError as wrong:
        raise ConfigError(f"{path}: expected TOML, found a mistake: {wrong}") from wrong
    except RecursionError:
        raise ConfigError(f"{path}: expected TOML, found it nested too deeply") from None
    except UnicodeDecodeError as wrong:
        raise ConfigError(f"{path}: expected UTF-8 text, found other bytes") from wrong
    except OSError as wrong:
        told = f"{path}: expected a configuration file, found: {_spell(wrong)}"
        raise ConfigError(f"{told}. Name one with -c or ${PATH_VARIABLE}.") from wrong


@dataclass(frozen=True, slots=True)
class _System:
    """Where this process finds its secrets."""

    directory: Path
    environ: Mapping[str, str]

    def variable(self, name: str) -> str:
        if name not in self.environ:
            raise AbsentError("nothing")
        return self.environ[name]

    def file(self, path: str) -> str:
        try:
            # A byte order mark is an editor's and belongs to no key.
            return (self.directory / path).read_text("utf-8-sig")
        except OSError as wrong:
            raise AbsentError(_spell(wrong)) from wrong
        except UnicodeDecodeError as wrong:
            raise AbsentError("bytes that are no UTF-8 text") from wrong
        except ValueError as wrong:
            raise AbsentError("a path that cannot be one") from wrong

    def credential(self, name: str) -> str:
        # A credential is a name in that directory; a path would be read from anywhere.
        if "/" in name or name in {"", ".", ".."}:
            raise AbsentError("a path, where a name should be")
        given = self.environ.get(CREDENTIALS_VARIABLE)
        return self.file(str(Path(given) / name)) if given else self._source(name)

    def _source(self, name: str) -> str:
        """Return a credential from where the unit loads it: a person has no such variable.

        `LoadCredential=zego:…/credentials/zego` calls each file in that folder `zego_<file>`.
        """
        path = self.absolute(f"{CREDENTIALS_FOLDER}/{name.replace('_', '/', 1)}")
        try:
            return self.file(path)
        except AbsentError as absent:
            told = f"no ${CREDENTIALS_VARIABLE}, and at {path}: {absent}"
            raise AbsentError(told) from absent

    def absolute(self, path: str) -> str:
        return str((self.directory / path).absolute())


def _spell(wrong: OSError) -> str:
    """Return why a file cannot be read, as its error says it."""
    return wrong.strerror or type(wrong).__name__


def _with_host_name(config: Config) -> Config:
    if config.daemon.name:
        return config
    daemon = config.daemon.model_copy(update={"name": socket.gethostname()[:64]})
    return config.model_copy(update={"daemon": daemon})


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
    return not path.startswith("database.") or any(_passwords(secret.reveal()))


def _passwords(url: str) -> Iterator[str]:
    """Yield the passwords in a database's URL: in front of the host, or among the parameters."""
    parts = urlsplit(url)
    if parts.password is not None:
        yield unquote(parts.password)
    yield from (value for key, value in parse_qsl(parts.query) if key.endswith("password"))


def _mistakes(path: Path, problems: tuple[Problem, ...]) -> ConfigError:
    count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return ConfigError("\n".join([f"{path}: {count}", *(f"  {problem}" for problem in problems)]))
