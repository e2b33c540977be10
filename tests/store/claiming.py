"""A daemon's side of claim and settle, on a real database: accounts, a desk, and what it sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from orchestrator.clock import boot_ns
from orchestrator.core.model import Account, Verb, WorkClass
from orchestrator.core.orphan import Owner
from orchestrator.core.outcome import Done, Outcome, Settled
from orchestrator.daemon.book import AccountRuntime, Book, Keys
from orchestrator.daemon.claim import Claimed, Desk, Order, Room, Tickets, Wanted, claim
from orchestrator.daemon.limiter import Action, Ticket
from orchestrator.daemon.settle import Settlement, Settling, settle
from orchestrator.providers.base import Provider
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.volcengine import Volcengine
from orchestrator.providers.zego import Zego
from orchestrator.store import accounts
from orchestrator.store.columns import write_json
from orchestrator.store.engine import Database
from orchestrator.store.engine import now as database_now
from tests.store.rows import Rows, insert, query, quoted, run

OWNER = Owner(prefix="orc", mark="aaaaa")

NOWHERE = "http://127.0.0.1:1"
SPEC: Mapping[str, Any] = {"Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep"}}}
"""A body that Volcengine takes."""
LEASE = timedelta(seconds=15)


def providers(endpoint: str = NOWHERE) -> dict[str, Provider]:
    """Return one account of each kind, with keys that are plainly fake."""
    return {
        **{name: volcengine(version, endpoint) for name, version in VERSIONS.items()},
        "tencent": Tencent(
            sdk_app_id=1400000001,
            secret_id="fake-secret-id",
            secret_key="fake-secret-key",
            session_token=None,
            region="ap-guangzhou",
            usersig_key="fake-usersig-key",
            endpoint=endpoint,
        ),
        "zego": Zego(
            app_id=1234567890,
            server_secret="fake-server-secret-fake-server-s",
            endpoint=endpoint,
            rtc_endpoint=endpoint,
        ),
    }


VERSIONS = {"volc": "2024-12-01", "other": "2024-12-01", "first": "2024-06-01"}
"""Volcengine's accounts. `first` stops by room and user."""


def volcengine(version: str, endpoint: str) -> Provider:
    return Volcengine(
        app_id="0123456789abcdef01234567",
        access_key_id="fake-key-id",
        secret_access_key="fake-secret-key",
        api_version=version,
        endpoint=endpoint,
    )


def runtime(name: str, provider: Provider, **changes: Any) -> AccountRuntime:
    """Return a configured account. `changes` are fields of the runtime, else of its account."""
    values: dict[str, Any] = {
        "limits": {},
        "call_timeout": timedelta(seconds=5),
        "max_agents": None,
        "token_secret": "fake-token-secret",
    }
    for key in values.keys() & changes.keys():
        values[key] = changes.pop(key)
    # The vendor knows its own tasks at once, so that a stop is evidence without a wait.
    account = Account(name=name, caps=provider.caps, **({"settle_in": timedelta(0)} | changes))
    return AccountRuntime(provider=provider, account=account, **values)


def make_book(*names: str, secrets: Mapping[str, str] | None = None, **changes: Any) -> Book:
    """Return a book of these accounts (all, if none is named), each with the same changes."""
    known = providers()
    chosen = names or tuple(known)
    runtimes = {name: runtime(name, known[name], **changes) for name in chosen}
    return Book(Keys(accounts=runtimes, secrets=secrets or {}))


_drawn = count(1)


def draw_name() -> str:
    """Return a name that was never drawn before."""
    return f"orcmarkx{next(_drawn):016d}"


def make_desk(book: Book, name: str = "d1", **changes: Any) -> Desk:
    values: dict[str, Any] = {
        "daemon_id": name,
        "daemon_name": name,
        "lease": LEASE,
        "book": book,
        "draw_name": draw_name,
        "redact": lambda text: text,
    }
    return Desk(**(values | changes))


def full_room(*names: str) -> Room:
    """Return room for 64 calls of each class of these accounts (all, if none is named)."""
    return {(name, each): 64 for name in names or providers() for each in WorkClass}


def ticket(account: str = "volc", action: str = "StartVoiceChat") -> Ticket:
    """Return a ticket that is open now."""
    now = boot_ns()
    return Ticket(
        action=Action(account=account, name=action),
        slot=now // 1000,
        drawn_ns=now,
        opens_ns=now,
        closes_ns=now,
    )


def wanting(*ids: str, without_status: Sequence[str] = ()) -> Wanted:
    return Wanted(ids=ids, without_status=without_status)


@dataclass
class Daemon:
    """One daemon's hands, without the loop that moves them."""

    database: Database
    desk: Desk = field(default_factory=lambda: make_desk(make_book()))

    async def ready(self) -> "Daemon":
        """Add the rows of its accounts, as a daemon does when it starts."""
        now = await self.database.read(database_now)
        await self.database.write(accounts.ensure, self.desk.book.names, now)
        return self

    async def claim(
        self,
        *ids: str,
        tickets: Tickets | None = None,
        room: Room | None = None,
        without_status: Sequence[str] = (),
    ) -> Claimed:
        wanted = wanting(*ids, without_status=without_status)
        own_room = full_room() if room is None else room
        return await self.database.write(claim, self.desk, wanted, tickets or {}, own_room)

    async def claim_one(self, id_: str) -> Order:
        """Claim one row that is to be called about."""
        (order,) = (await self.claim(id_)).orders
        return order

    async def settle(
        self, *settlements: Settlement, denied: Sequence[str] = ()
    ) -> list[Settlement]:
        """Settle; return what others had locked."""
        settling = Settling(
            daemon_id=self.desk.daemon_id,
            daemon_name=self.desk.daemon_name,
            accounts={
                name: self.desk.book.account(name, None, None) for name in self.desk.book.names
            },
            denied=frozenset(denied),
            timekeeper=self.desk.book.timekeeper,
            owner=OWNER,
        )
        return await self.database.write(settle, settling, settlements)

    async def run_to_end(self, id_: str, *outcomes: Outcome) -> list[Verb]:
        """Claim and settle one row with these outcomes; return the calls that were made."""
        verbs = []
        for outcome in outcomes:
            order = await self.claim_one(id_)
            verbs.append(order.flight.verb)
            await self.settle(settled(order, outcome))
        return verbs

    async def start(self, id_: str, handle: str | None = None) -> None:
        """Let the vendor take the start of this row."""
        await self.run_to_end(id_, Done(handle=handle or f"handle-{id_}"))


def settled(order: Order, outcome: Outcome, at: datetime | None = None, ms: int = 7) -> Settlement:
    """Return what an order came to, asked and answered at one moment (default: its announce)."""
    moment = at or order.flight.announced_at
    return Settlement(
        order=order,
        settled=Settled(outcome=outcome, asked_at=moment, answered_at=moment),
        action=order.flight.verb.value,
        latency_ms=ms,
    )


async def want(database: Database, *ids: str, account: str = "volc", **literals: str) -> None:
    """Insert tasks. `literals` are SQL."""
    for id_ in ids:
        values = {
            "id": quoted(id_),
            "account": quoted(account),
            "room_id": quoted(f"room-{id_}"),
            "user_id": "'human'",
            "spec": quoted(write_json(SPEC)),
        }
        await run(database, insert("agent_task", **(values | literals)))


async def status(database: Database, id_: str, *columns: str) -> tuple[Any, ...]:
    """Return columns of one status."""
    (row,) = await query(
        database,
        f"SELECT {', '.join(columns)} FROM agent_status WHERE task_id = {quoted(id_)}",  # noqa: S608 - a test's own words
    )
    return row


async def ledger(database: Database, id_: str, *columns: str) -> Rows:
    """Return columns of a task's ledger rows, oldest first."""
    return await query(
        database,
        f"SELECT {', '.join(columns)} FROM vendor_agent WHERE task_id = {quoted(id_)} "  # noqa: S608 - a test's own words
        "ORDER BY announced_at, id",
    )


async def wait_out_lease(database: Database, id_: str) -> None:
    """Let the lease of a row have ended."""
    past = "'2020-01-01 00:00:00'"
    await run(
        database,
        f"UPDATE agent_status SET lease_until = {past} WHERE task_id = {quoted(id_)}",  # noqa: S608 - a test's own words
    )


async def inbox(database: Database) -> list[str]:
    """Return the tasks whose changes nobody has taken yet, in their order."""
    return [row[0] for row in await query(database, "SELECT task_id FROM task_change ORDER BY seq")]
