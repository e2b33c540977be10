"""The stage of a run: database, simulated vendors, daemons with their configuration, one diary."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos.client import Client, open_client
from tests.chaos.daemons import Fleet, open_fleet
from tests.chaos.databases import Base, Kind, PostgresOfOurOwn, open_base
from tests.chaos.diary import Diary
from tests.chaos.limits import PER_SECOND, SWITCHES
from tests.chaos.times import Times
from tests.chaos.vendors import ChaosVendors, simulate
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_FIRST, ZEGO, Customer
from tests.daemon.running import Table, to_toml
from tests.ports import unused_port

ROWS: Final[Mapping[Customer, int]] = {VOLCENGINE: 12, VOLCENGINE_FIRST: 8, TENCENT: 12, ZEGO: 4}
"""Rows of each customer. ZEGO has ten places, for strangers and lost agents too."""
CUSTOMERS: Final = tuple(ROWS)
DAEMONS: Final[Mapping[Kind, tuple[str, ...]]] = {"sqlite": ("one",), "postgresql": ("one", "two")}
CALLBACK_SECRETS: Final[Mapping[str, Mapping[str, str]]] = {
    VOLCENGINE.name: {"callback_secret": "fake-callback-secret-1"},
    VOLCENGINE_FIRST.name: {"callback_secret": "fake-callback-secret-2"},
    TENCENT.name: {"callback_key": "fake-callback-key"},
    ZEGO.name: {"callback_secret": "fake-callback-secret-3"},
}
POOL: Final = 4


@dataclass(frozen=True)
class Stage:
    """Everything that a run is played on."""

    folder: Path
    times: Times
    base: Base
    vendors: ChaosVendors
    fleet: Fleet
    client: Client
    diary: Diary
    callback_urls: Mapping[str, str]

    async def switch_callbacks_on(self) -> None:
        """Let the vendors post to a daemon; an account has one URL, whoever of them lives."""
        for account, url in self.callback_urls.items():
            await self.vendors.post_callbacks(account, url)


@asynccontextmanager
async def open_stage(kind: Kind, folder: Path, times: Times, seed: int) -> AsyncIterator[Stage]:
    """Set the stage: the vendors are served, the database is migrated, no daemon runs."""
    diary = Diary()
    keys_path = folder / "vendors.toml"
    keys_path.write_text(to_toml({"accounts": _accounts(times, "http://127.0.0.1:1")}), "utf-8")
    async with (
        open_base(kind, folder) as base,
        simulate(keys_path, seed) as vendors,
        open_client(base.url) as client,
    ):
        await vendors.turn(**SWITCHES)
        ports = {name: unused_port() for name in DAEMONS[kind]}
        configs = {
            name: _config(name, base, _accounts(times, vendors.url), times, port)
            for name, port in ports.items()
        }
        heard = f"http://127.0.0.1:{next(iter(ports.values()))}/callbacks"
        urls = {customer.name: f"{heard}/{customer.name}" for customer in CUSTOMERS}
        async with open_fleet(folder, configs, diary) as fleet:
            yield Stage(folder, times, base, vendors, fleet, client, diary, urls)


def _accounts(times: Times, vendors_url: str) -> Table:
    """Return the accounts' tables, the same for daemons and vendors."""
    accounts: Table = {
        customer.name: {
            "endpoint": vendors_url,
            **times.account,
            **customer.settings,
            **CALLBACK_SECRETS[customer.name],
            "qps": PER_SECOND[customer.name],
        }
        for customer in CUSTOMERS
    }
    accounts[ZEGO.name]["rtc_endpoint"] = vendors_url
    return accounts


def _config(
    name: str, base: Base, accounts: Table, times: Times, callback_port: int
) -> dict[str, dict[str, Any]]:
    """Return the configuration of one daemon."""
    return {
        "daemon": {"name": name, "shutdown_timeout_s": 10},
        "database": _database(base),
        "accounts": accounts,
        "leases": {"ttl_s": times.lease_s},
        "retry": {"base_ms": times.retry_base_ms, "cap_ms": times.retry_cap_ms},
        "callbacks": {"listen": f"127.0.0.1:{callback_port}"},
    }


def _database(base: Base) -> Table:
    if isinstance(base, PostgresOfOurOwn):
        return {"url": base.url, "listen_url": base.listen_url, "pool_size": POOL}
    return {"url": base.url}
