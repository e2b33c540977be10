"""`orchestrator simulate`: the simulated vendors alone, for an application's own tests."""

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import assert_never

import anyio
import typer

from orchestrator import settings
from orchestrator.config import open_config
from orchestrator.errors import OrchestratorError
from orchestrator.secret import Secret
from orchestrator.setting_types import Address
from orchestrator.simulator import Simulator, Switches, serve
from orchestrator.simulator.keys import DEMO, Keys, TencentKeys, VolcengineKeys, ZegoKeys

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened at, not here
"""Where to post to whoever listens at all addresses."""


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
    talk_every_s: int
    """Seconds of the vendors' after which each user speaks to its agent again; 0: never."""


class AddressError(OrchestratorError):
    """An address cannot be listened at: it is taken, or not this machine's."""


def run(wanted: Wanted) -> None:
    """Serve until SIGTERM or Ctrl-C. Prints where, the demo keys, then a line `ready`.

    Raises:
        ConfigError: the configuration is wrong.
        AddressError: the address is taken.
    """
    anyio.run(_serve, wanted, accepted_keys(wanted.config))


def accepted_keys(config: Path | None) -> Sequence[Keys]:
    """Return the keys of the configured accounts, or the demo keys if there is no file."""
    if config is None:
        return DEMO
    opened = open_config(config)
    keys = [keys_of(name, account) for name, account in opened.accounts.items()]
    listen = opened.callbacks.listen
    return keys if listen is None else post_to(listen, keys)


def post_to(listen: Address, keys: Sequence[Keys]) -> list[Keys]:
    """Return the keys of accounts whose callbacks go to the daemon that listens there.

    An account without a callback secret gets none: there would be nothing to sign them with.
    """
    host = _LOOPBACK.get(listen.host, listen.host)
    base_url = f"http://{f'[{host}]' if ':' in host else host}:{listen.port}/callbacks"
    return [
        replace(each, callback_url=f"{base_url}/{each.account}" if each.callback_secret else None)
        for each in keys
    ]


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


@asynccontextmanager
async def served(simulator: Simulator, address: Address) -> AsyncIterator[str]:
    """Serve the simulated vendors and yield their URL.

    Raises:
        AddressError: the address cannot be listened at.
    """
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serve(simulator, address.host, address.port))
        except OSError as taken:
            where = f"{address.host}:{address.port}"
            told = f"cannot listen at {where}: {taken.strerror}; choose another with --listen"
            raise AddressError(told) from taken
        yield url


async def _serve(wanted: Wanted, keys: Sequence[Keys]) -> None:
    switches = Switches(talk_every_s=wanted.talk_every_s)
    simulator = Simulator(keys, seed=wanted.seed, speed=wanted.speed, switches=switches)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with served(simulator, wanted.listen) as base_url:
            _announce(base_url, keys if wanted.config is None else ())
            await anext(aiter(signals))


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
