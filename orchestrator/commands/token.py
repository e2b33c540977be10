"""`orchestrator token`: lets a client into a room, with the keys that the configuration has.

Rule 1: standard output has the token and nothing else, so that a shell can take it.
Rule 2: it needs no database, no network, and the keys of its one account only.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

import typer

from orchestrator import settings
from orchestrator.clock import utc_now
from orchestrator.config import account_names, open_part
from orchestrator.errors import ConfigError, UsageError
from orchestrator.providers.fields import IdRule
from orchestrator.providers.tokens import (
    PUBLISH_STREAM,
    RTC_APP_ID_LENGTH,
    RTC_ID,
    SUBSCRIBE_STREAM,
    USER_SIG_USER,
    RtcToken,
    make_user_sig,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for."""

    account: str
    user_id: str
    room_id: str | None
    """Volcengine: the only room that the token opens. Tencent: none, a UserSig opens all."""
    life: timedelta
    """Whole seconds."""
    listen_only: bool
    """Volcengine: the client may hear and not speak."""


def run(option: Path | None, wanted: Wanted) -> None:
    """Print the token.

    Raises:
        ConfigError: the configuration is wrong, or has not the key that signs.
        UsageError: there is no such account, or its vendor's tokens are not like that.
    """
    config = open_part(option, wanted.account)
    account = config.accounts.get(wanted.account)
    if account is None:
        known = ", ".join(account_names(option)) or "none, the file has no [accounts]"
        raise UsageError(f'no account "{wanted.account}" in {config.path}; there are: {known}')
    try:
        typer.echo(make(account, wanted, utc_now(), secrets.randbits(32)))
    except ConfigError as lacking:
        raise ConfigError(f"{config.path}: accounts.{wanted.account}.{lacking}") from None


def make(account: settings.Account, wanted: Wanted, now: datetime, nonce: int) -> str:
    """Return the token of an account's vendor. `nonce`: 32 bits, drawn anew for each.

    Raises:
        ConfigError: a key is missing or wrong; the message begins with its name.
        UsageError: this vendor makes no such token.
    """
    match account:
        case settings.VolcengineAccount():
            return _rtc_token(account, wanted, now, nonce)
        case settings.TencentAccount():
            return _user_sig(account, wanted, now)
        case settings.ZegoAccount():
            raise UsageError(
                "ZEGO's client tokens (token04) are not made here: make them in your own server "
                "with ZEGO's library, from the same server_secret"
            )
        case _:
            assert_never(account)


def _rtc_token(
    account: settings.VolcengineAccount, wanted: Wanted, now: datetime, nonce: int
) -> str:
    """Return Volcengine's RTC token 001: one user, one room (docs/6348/70121)."""
    if account.app_key is None:
        raise ConfigError("app_key: expected the application's AppKey, found nothing")
    if len(account.app_id) != RTC_APP_ID_LENGTH:
        raise ConfigError(
            f"app_id: expected {RTC_APP_ID_LENGTH} characters, found {len(account.app_id)}"
        )
    if wanted.room_id is None:
        raise UsageError("--room: Volcengine's tokens open one room: say which")
    # A privilege that never expires ends with the token.
    granted = [SUBSCRIBE_STREAM] if wanted.listen_only else [PUBLISH_STREAM, SUBSCRIBE_STREAM]
    token = RtcToken(
        app_id=account.app_id,
        room_id=_checked("--room", wanted.room_id, RTC_ID),
        user_id=_checked("--user", wanted.user_id, RTC_ID),
        nonce=nonce,
        issued_at=int(now.timestamp()),
        expire_at=int((now + wanted.life).timestamp()),
        privileges=dict.fromkeys(granted, 0),
    )
    return token.sign(app_key=account.app_key.reveal())


def _user_sig(account: settings.TencentAccount, wanted: Wanted, now: datetime) -> str:
    """Return Tencent's UserSig: one user, every room of the application."""
    if wanted.room_id is not None:
        raise UsageError("--room: a UserSig of Tencent's opens every room: leave it out")
    if wanted.listen_only:
        raise UsageError("--listen-only: a UserSig of Tencent's knows no such limit: leave it out")
    return make_user_sig(
        sdk_app_id=account.sdk_app_id,
        key=account.usersig_key.reveal(),
        user_id=_checked("--user", wanted.user_id, USER_SIG_USER),
        at=now,
        life=wanted.life,
    )


def _checked(option: str, id_: str, rule: IdRule) -> str:
    if not rule.allows(id_):
        raise UsageError(f'{option}: expected {rule.expected}, found "{id_}"')
    return id_
