"""What this daemon knows of its accounts: keys, configuration, breakers, clocks.

Everything here is in memory and may be lost; what must not be is in `account_state`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from statistics import median_low
from typing import Final
from urllib.parse import urlsplit

from orchestrator.clock import Anchor
from orchestrator.core.breaker import Breaker
from orchestrator.core.model import Account, Agent
from orchestrator.core.outcome import Outcome
from orchestrator.core.replace import replace
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.daemon.timekeeper import Timekeeper
from orchestrator.providers.base import Provider
from orchestrator.providers.llm_form import LlmEndpoint
from orchestrator.providers.ticket import Ticket, derive_key, sign
from orchestrator.store.accounts import Standing

OFFSETS_KEPT: Final = 9
"""A vendor's `Date` has whole seconds and its way takes time: the median of a few is enough."""
TOKEN_SECRETS_KEPT: Final = 4
"""Of one account: the present one, and those of the last rotations while this daemon runs."""
ATTEMPTS: Final = 2
"""Upstreams that are asked for one turn at most: the one that a spec names, and its fallback."""
PROBE_WITHIN: Final = timedelta(seconds=15)
"""How long a probe may take before another start is let through."""
DENIED_RETRY: Final = timedelta(seconds=60)
"""How often one start is tried while a vendor denies an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRuntime:
    """One configured account, ready to be used."""

    provider: Provider
    account: Account
    limits: Mapping[str, int]
    """Calls per second for each of the vendor's actions; 0: no limit."""
    call_timeout: timedelta
    max_agents: int | None
    """Agents at a time; null: no limit of ours."""
    token_secret: str = field(repr=False)
    """What its agents' tokens for the LLM gateway are made with, if there is no other secret."""

    @property
    def host(self) -> str:
        """The vendor's host (with its port, if the URL has one)."""
        endpoint: str = json.loads(self.provider.site)["endpoint"]
        return urlsplit(endpoint).netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a reload of the configuration may change."""

    accounts: Mapping[str, AccountRuntime]
    """By the name that rows use."""
    secrets: Mapping[str, str] = field(repr=False)
    """What `{"$secret": "name"}` resolves to, by name."""
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    """The models behind the LLM gateway, by the name that specs use."""
    stops_foreign: bool = False
    """Whether agents are stopped that none of our databases started."""


class Book:
    """The accounts of this daemon, by the name that rows use."""

    def __init__(self, keys: Keys, llm: LlmFrame | None = None) -> None:
        """`llm`: the LLM gateway of this daemon, if it has one."""
        self.runtimes: Mapping[str, AccountRuntime] = keys.accounts
        self.secrets = keys.secrets
        self.upstreams = keys.upstreams
        self.llm = llm
        self._token_secrets: dict[str, tuple[str, ...]] = {}
        self._note_token_secrets()
        self.stops_foreign = keys.stops_foreign
        self.timekeeper = Timekeeper()
        self._former: dict[str, AccountRuntime] = {}
        self._breakers: dict[str, Breaker] = {}
        self._offsets: dict[str, list[timedelta]] = {}
        """By host, as if nobody had set the database's clock since this daemon began."""

    @property
    def names(self) -> list[str]:
        """The names of the accounts."""
        return sorted(self.runtimes)

    def renew(self, keys: Keys) -> None:
        """Take the accounts and secrets of a configuration that was read again."""
        self._former |= self.runtimes
        self.runtimes = keys.accounts
        self.secrets = keys.secrets
        self.upstreams = keys.upstreams
        self.stops_foreign = keys.stops_foreign
        self._note_token_secrets()

    def runtime(self, name: str) -> AccountRuntime:
        """Return an account; one that a reload removed is still there for calls in flight."""
        return self.runtimes.get(name) or self._former[name]

    def endpoint(
        self, account: str, agent: Agent, task_id: str, upstream: str
    ) -> LlmEndpoint | None:
        """Return where an agent shall ask for words; null: there is no gateway, or no such model.

        It is the same at each call, so that a start that is sent again is the same start.
        """
        if self.llm is None or upstream not in self.upstreams:
            return None
        ticket = Ticket(
            upstream=upstream,
            account=account,
            room_id=agent.room_id,
            user_id=agent.user_id,
            task_id=task_id,
            incarnation=agent.incarnation,
            agent_id=agent.id,
        )
        return LlmEndpoint(
            url=self.llm.public_url + ticket.path,
            key=sign(ticket, self.token_keys(account)[0]),
            model=upstream,
            patience_s=ATTEMPTS * ceil(self.llm.first_token_timeout.total_seconds()) + 1,
        )

    def token_keys(self, account: str) -> tuple[bytes, ...]:
        """Return what tokens of this account's agents may be made with; new ones with the first."""
        secrets = self.llm.token_secrets if self.llm is not None else ()
        known = secrets or self._token_secrets.get(account, ())
        return tuple(derive_key(secret, account) for secret in known)

    def _note_token_secrets(self) -> None:
        """Remember the accounts' own secrets: agents of before a reload ask with the older ones."""
        for name, runtime in self.runtimes.items():
            known = self._token_secrets.get(name, ())
            older = tuple(secret for secret in known if secret != runtime.token_secret)
            self._token_secrets[name] = (runtime.token_secret, *older)[:TOKEN_SECRETS_KEPT]

    def account(self, name: str, standing: Standing | None, amnesty_at: datetime | None) -> Account:
        """Return the account as a decision has to see it now; how full it is comes from the claim.

        A denied account whose probe is due, or a breaker whose time is over, holds nothing back
        here: it is the claim that lets one start through and then closes the gate behind it.
        """
        account = replace(
            self.runtimes[name].account,
            circuit_open_until=self.breaker(name).open_until,
            amnesty_at=amnesty_at,
        )
        if standing is None:
            return account
        return replace(
            account,
            paused=standing.paused,
            frozen=standing.frozen,
            denied_until=_denied_until(standing),
            backdated=account.backdated and not standing.undated,
        )

    def max_agents(self, name: str, standing: Standing | None) -> int | None:
        """Return how many agents may live at a time: the operator's word, else the file's."""
        if standing is not None and standing.max_agents is not None:
            return standing.max_agents
        return self.runtimes[name].max_agents

    def breaker(self, name: str) -> Breaker:
        """Return the circuit breaker of an account."""
        return self._breakers.get(name, Breaker())

    def record(self, name: str, outcome: Outcome, at: datetime) -> tuple[Breaker, Breaker]:
        """Tell the breaker how a call went; return it before and after."""
        before = self.breaker(name)
        after = self._breakers[name] = before.record(outcome, at)
        return before, after

    def hold_probe(self, name: str, now: datetime) -> None:
        """Let no other start through while the breaker's probe is on its way."""
        breaker = self.breaker(name)
        if breaker.is_open:
            self._breakers[name] = replace(breaker, open_until=now + PROBE_WITHIN)

    def note_offset(self, host: str, offset: timedelta) -> None:
        """Remember by how much a vendor's clock is ahead of the database's."""
        kept = self._offsets.setdefault(host, [])
        kept.append(offset + self.timekeeper.set_by)
        del kept[:-OFFSETS_KEPT]

    def offset(self, name: str) -> timedelta:
        """Return by how much the vendor's clock is ahead of the database's, as far as is known."""
        kept = self._offsets.get(self.runtime(name).host)
        return median_low(kept) - self.timekeeper.set_by if kept else timedelta(0)

    def offset_at(self, name: str, anchor: Anchor) -> timedelta:
        """Return by how much the vendor's clock is ahead of the database's as it was at a look."""
        return self.offset(name) + self.timekeeper.set_since(anchor)


def _denied_until(standing: Standing) -> datetime | None:
    """Return when one start is tried: at the next probe, or sooner if the operator says so.

    The operator's time counts once: the last probe left `DENIED_RETRY` before the next is due.
    """
    if standing.denied_code is None or standing.probe_at is None:
        return None
    asked_at = standing.retry_at
    if asked_at is not None and asked_at > standing.probe_at - DENIED_RETRY:
        return min(asked_at, standing.probe_at)
    return standing.probe_at
