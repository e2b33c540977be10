"""`orchestrator simulate`: the simulated vendors alone, for an application's own tests."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import assert_never

import anyio
import typer

from orchestrator import settings
from orchestrator.config import open_config
from orchestrator.errors import OrchestratorError
from orchestrator.secret import Secret
from orchestrator.settings import Address
from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.keys import DEMO, Keys, TencentKeys, VolcengineKeys, ZegoKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for."""

    listen: Address
    config: Path | None
    """Whose accounts' keys are accepted. None: demo keys."""
    speed: float
    """Seconds of the vendors' in one of ours."""
    seed: int
    """Of the lots that decide about faults."""


def run(wanted: Wanted) -> None:
    """Serve until SIGTERM or Ctrl-C. Prints where, the demo keys, then a line `ready`.

    Raises:
        ConfigError: the configuration is wrong.
        OrchestratorError: the address is taken.
    """
    anyio.run(_serve, wanted, accepted_keys(wanted.config))


def accepted_keys(config: Path | None) -> Sequence[Keys]:
    """Return the keys of the configured accounts, or the demo keys if there is no file."""
    if config is None:
        return DEMO
    accounts = open_config(config).accounts
    return [keys_of(name, account) for name, account in accounts.items()]


def keys_of(name: str, account: settings.Account) -> Keys:
    """Return what a vendor must know to accept the calls of an account."""
    match account:
        case settings.VolcengineAccount():
            return VolcengineKeys(
                account=name,
                app_id=account.app_id,
                access_key_id=account.access_key_id.reveal(),
                secret_access_key=account.secret_access_key.reveal(),
                session_token=_reveal(account.session_token),
                callback_secret=_reveal(account.callback_secret),
            )
        case settings.TencentAccount():
            return TencentKeys(
                account=name,
                sdk_app_id=account.sdk_app_id,
                secret_id=account.secret_id.reveal(),
                secret_key=account.secret_key.reveal(),
                usersig_key=account.usersig_key.reveal(),
                session_token=_reveal(account.session_token),
                callback_secret=_reveal(account.callback_key),
            )
        case settings.ZegoAccount():
            return ZegoKeys(
                account=name,
                app_id=account.app_id,
                server_secret=account.server_secret.reveal(),
                callback_secret=_reveal(account.callback_secret),
            )
        case _:
            assert_never(account)


async def _serve(wanted: Wanted, keys: Sequence[Keys]) -> None:
    simulator = Simulator(keys, seed=wanted.seed, speed=wanted.speed)
    address = wanted.listen
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with serve(simulator, address.host, address.port) as base_url:
                _announce(base_url, keys if wanted.config is None else ())
                await anext(aiter(signals))
        except OSError as taken:
            raise cannot_listen(address, taken) from taken


def cannot_listen(address: Address, reason: OSError) -> OrchestratorError:
    """Return the error of an address that cannot be listened at."""
    where = f"{address.host}:{address.port}"
    return OrchestratorError(f"cannot listen at {where}: {reason.strerror}; choose another address")


def _announce(base_url: str, keys: Sequence[Keys]) -> None:
    typer.echo(f"simulated vendors at {base_url}")
    typer.echo(f"their agents at {base_url}/_sim/agents, calls at {base_url}/_sim/calls")
    for demo in keys:
        typer.echo(f"demo keys of {demo.account}:")
        for each in fields(demo):
            value = getattr(demo, each.name)
            if each.name != "account" and value is not None:
                typer.echo(f"  {each.name} = {value!r}")
    typer.echo("ready")


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
