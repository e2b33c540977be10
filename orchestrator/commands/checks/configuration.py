"""What is to be said about a configuration that could be read: its secrets and its accounts.

Rule 1: of a secret the place is shown, never the value.
"""

import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, assert_never

from orchestrator import settings
from orchestrator.commands.checks.finding import Finding
from orchestrator.config import Config
from orchestrator.secret import Secret

OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
"""The group may read: it is the service's own."""

_PLAIN_ADVICE: Final = (
    'put the key alone into a file, and { credential = "…" } or { file = "…" } here'
)


def judge_configuration(config: Config) -> Sequence[Finding]:
    """Return what is well about the file, and what works and should not stay so."""
    count = len(config.accounts)
    return [
        Finding("well", f"configuration {config.path}: read; accounts: {count}"),
        *_judge_secrets(config),
        *_judge_accounts(config),
    ]


def _judge_secrets(config: Config) -> Iterator[Finding]:
    for path, secret in config.found_secrets:
        yield _judge_secret(path, secret)
    holds_plain = any(secret.source == "plain" for _, secret in config.found_secrets)
    if holds_plain and _is_open(config.path):
        told = f"{config.path}: holds secrets, and every user of this machine can read it"
        yield Finding("warning", told, f"chmod o= {config.path}")


def _judge_secret(path: str, secret: Secret) -> Finding:
    match secret.source:
        case "plain":
            return Finding("warning", f"secret {path}: in plain text", _PLAIN_ADVICE)
        case "file" if _is_open(Path(secret.place)):
            told = f"secret {path}: every user of this machine can read {secret.place}"
            return Finding("warning", told, f"chmod o= {secret.place}")
        case source:
            return Finding("well", f"secret {path}: found ({source} {secret.place})")


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        # It was read a moment ago; what has become of it is no matter of rights.
        return False


def _judge_accounts(config: Config) -> Iterator[Finding]:
    if not config.accounts:
        advice = "add a table [accounts.<name>]; no row can run"
        yield Finding("warning", "no accounts", advice)
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, account in config.accounts.items():
        alike[account.endpoint, _application(account)].append(name)
    for names in alike.values():
        if len(names) > 1:
            told = f"accounts {', '.join(names)}: the same application at the same vendor"
            advice = "each takes the vendor's whole limit for itself: one account is enough"
            yield Finding("warning", told, advice)


def _application(account: settings.Account) -> str:
    """Return what the vendor counts calls by."""
    match account:
        case settings.VolcengineAccount() | settings.ZegoAccount():
            return f"{account.provider} {account.app_id}"
        case settings.TencentAccount():
            return f"{account.provider} {account.sdk_app_id} {account.region}"
        case _:
            assert_never(account)
