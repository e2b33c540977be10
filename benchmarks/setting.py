"""What all measurements have in common: one account at the simulated vendors, without limits.

The account is Volcengine's, the vendor whose limits are the widest in real life. A stop's answer
counts as evidence at once (`settle_in_s = 0`): with the default, every stop within ten seconds of
its start is asked once more, which says nothing about speed.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import aiohttp

from benchmarks.databases import Databases, open_databases
from benchmarks.programs import run_vendors
from orchestrator.examples import SECRETS, UPSTREAM, VOLCENGINE
from orchestrator.simulator.keys import DEMO

ACCOUNT: Final = "volcengine"
SPEC: Final = json.dumps(VOLCENGINE)
INSERT: Final = (
    "INSERT INTO agent_task (id, account, room_id, user_id, spec) "
    "VALUES ($1, 'volcengine', $1, 'user', $2)"
)
"""A row whose room bears its name; parameters: id, spec."""
_UNLIMITED: Final = {"StartVoiceChat": 0, "StopVoiceChat": 0, "GetRoomOnlineUsers": 0}
Tables = Mapping[str, Mapping[str, Any]]
"""Of a configuration: keys and values by the table's name."""

_NO_LIMITS: Final = {"volcengine_qps": 0, "volcengine_lookup_qps": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The databases and the vendors of one run."""

    databases: Databases
    vendors: "Vendors"

    def configure(self, url: str, tables: Tables = MappingProxyType({}), **options: Any) -> Path:
        """Write a configuration for a daemon on this database and return its path.

        `tables` are further ones. `options` are keys of `[accounts.volcengine]`, or `wake` and
        `lease_s`.
        """
        wake, lease_s = options.pop("wake", "notify"), options.pop("lease_s", 15)
        keys = DEMO[0]
        account: Mapping[str, Any] = {
            "provider": "volcengine",
            "app_id": keys.app_id,
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "endpoint": self.vendors.url,
            "settle_in_s": 0,
            "poll_s": 86_400,
            **options,
        }
        return self.write(
            {
                "database": {"url": url, "wake": wake},
                "leases": {"ttl_s": lease_s},
                f"accounts.{ACCOUNT}": account,
                f"accounts.{ACCOUNT}.qps": _UNLIMITED,
                **tables,
            }
        )

    def write(self, tables: Tables) -> Path:
        """Write a configuration of these tables, and what all have in common; return its path."""
        path = self.databases.folder / f"{len(list(self.databases.folder.glob('*.toml')))}.toml"
        tables = {
            "daemon": {"name": "bench"},
            "log": {"level": "error"},
            "secrets": SECRETS,
            # What the examples name. Nobody speaks to their agents here, so nobody is asked.
            "llm_gateway": {"listen": "127.0.0.1:0", "public_url": "http://127.0.0.1:1"},
            f"llm_upstreams.{UPSTREAM}": {"url": "http://127.0.0.1:1"},
            **tables,
        }
        path.write_text("\n".join(_table(*table) for table in tables.items()), encoding="utf-8")
        return path


def _table(name: str, keys: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(keys[key])}" for key in keys), ""])


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendors:
    """The simulated vendors, from the side of whoever steers and watches them."""

    url: str
    client: aiohttp.ClientSession = field(repr=False)

    async def begin_anew(self) -> None:
        """Forget everything; no limits."""
        await self._post("reset", {})
        await self.turn(_NO_LIMITS)

    async def turn(self, switches: Mapping[str, Any]) -> None:
        """Turn some of the simulator's switches."""
        await self._post("switches", switches)

    async def _post(self, path: str, body: Mapping[str, Any]) -> None:
        async with self.client.post(f"{self.url}/_sim/{path}", json=body) as answer:
            answer.raise_for_status()

    async def last_call(self) -> int:
        """Return the number of the newest call."""
        async with self.client.get(f"{self.url}/_sim/calls?since={10**12}") as answer:
            last: int = (await answer.json())["last"]
            return last

    async def calls(self, since: int) -> list[dict[str, Any]]:
        """Return the calls after the one with this number, oldest first."""
        async with self.client.get(f"{self.url}/_sim/calls?since={since}") as answer:
            calls: list[dict[str, Any]] = (await answer.json())["calls"]
            return calls

    async def live(self) -> int:
        """Return how many agents run."""
        async with self.client.get(f"{self.url}/_sim/agents?live=true") as answer:
            return len((await answer.json())["agents"])


@asynccontextmanager
async def open_setting() -> AsyncIterator[Setting]:
    """Run a database server and the simulated vendors."""
    async with open_databases() as databases, run_vendors() as url, aiohttp.ClientSession() as http:
        vendors = Vendors(url=url, client=http)
        await vendors.begin_anew()
        yield Setting(databases=databases, vendors=vendors)
