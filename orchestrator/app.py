"""The composition root: the only file that turns configuration into the parts that run.

Rule 1: the only file that names the concrete classes: the vendors' adapters, the wakers.
Rule 2: it builds and wires; it does no I/O. Opening a connection is left to its first use.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Final, assert_never

from orchestrator import settings
from orchestrator.config import Config
from orchestrator.core.model import Account
from orchestrator.daemon.book import AccountRuntime, Keys
from orchestrator.daemon.janitor import Keep
from orchestrator.daemon.listening import Listen
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.daemon.setup import Setup
from orchestrator.errors import UsageError
from orchestrator.log import Redactor
from orchestrator.providers.base import Provider
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.volcengine import Volcengine
from orchestrator.providers.zego import Zego
from orchestrator.reload import Reload
from orchestrator.secret import Secret
from orchestrator.setting_types import Address
from orchestrator.store.engine import Database, open_database
from orchestrator.wake.base import Waker
from orchestrator.wake.poll import PollWaker
from orchestrator.wake.postgres import PostgresWaker
from orchestrator.wake.sqlite import SqliteWaker

POLL_EVERY: Final = timedelta(milliseconds=10)
"""With `wake = "poll"`: how often the daemon looks. It costs about a hundredth of a core."""
COMPLETIONS: Final = "/chat/completions"
"""What OpenAI's clients add to a base URL."""
INSPECTED_POOL: Final = 3
"""The least that a database can be opened with. Of these one is used, while metrics are asked."""


def build(config: Config, redactor: Redactor, abandoned: Iterable[str] = ()) -> Setup:
    """Return the daemon that a configuration describes. The caller closes its database.

    Args:
        config: the whole file.
        redactor: takes known secrets out of a text; learns those of a reload.
        abandoned: accounts that a person gave up (`run --abandon`).

    Raises:
        UsageError: an account is to be abandoned that is still configured.
    """
    given_up = frozenset(abandoned)
    kept = sorted(given_up & config.accounts.keys())
    if kept:
        names = ", ".join(kept)
        raise UsageError(f"--abandon {names}: still configured; remove it from the file first")
    database = build_database(config)
    return Setup(
        name=config.daemon.name,
        owner_prefix=config.daemon.owner_prefix,
        database=database,
        keys=build_keys(config),
        reload=Reload(config, redactor, build_keys),
        redact=redactor.clean,
        open_waker=_choose_waker(config.database, database),
        notified=database.dialect == "postgresql" and config.database.wake == "notify",
        lease=timedelta(seconds=config.leases.ttl_s),
        shutdown_timeout=timedelta(seconds=config.daemon.shutdown_timeout_s),
        keep=_keep(config.retention),
        gap_timeout=timedelta(milliseconds=config.lanes.gap_timeout_ms),
        command_ttl=timedelta(milliseconds=config.lanes.command_ttl_ms),
        callbacks=_listen("callbacks.listen", config.callbacks.listen),
        max_body_bytes=config.callbacks.max_body_bytes,
        llm=_llm_frame(config.llm_gateway),
        metrics=_listen("metrics.listen", config.metrics.listen),
        open_inspected=partial(_open, config.database, INSPECTED_POOL),
        abandoned=given_up,
    )


def build_keys(config: Config) -> Keys:
    """Return what a reload may change."""
    return Keys(
        accounts=build_accounts(config),
        secrets=reveal_secrets(config),
        upstreams=build_upstreams(config),
        stops_foreign=config.orphans.foreign == "stop",
    )


def build_database(config: Config) -> Database:
    """Return the configured database. Nothing is connected yet."""
    return _open(config.database, config.database.pool_size)


def _open(configured: settings.Database, pool_size: int) -> Database:
    return open_database(configured.url.reveal(), schema=configured.schema_, pool_size=pool_size)


def build_accounts(config: Config) -> Mapping[str, AccountRuntime]:
    """Return every configured account by name; after a reload, the accounts with their new keys."""
    return {name: _runtime(name, found, config) for name, found in config.accounts.items()}


def reveal_secrets(config: Config) -> Mapping[str, str]:
    """Return what `{"$secret": "name"}` resolves to."""
    return {name: secret.reveal() for name, secret in config.secrets.items()}


def build_upstreams(config: Config) -> Mapping[str, Upstream]:
    """Return the models behind the LLM gateway, by the name that specs use, with keys."""
    return {name: _upstream(name, upstream) for name, upstream in config.llm_upstreams.items()}


def build_provider(configured: settings.Account) -> Provider:
    """Return the vendor's adapter for an account. It holds the keys; nobody else does."""
    match configured:
        case settings.VolcengineAccount():
            return _volcengine(configured)
        case settings.TencentAccount():
            return _tencent(configured)
        case settings.ZegoAccount():
            return _zego(configured)
        case _:
            assert_never(configured)


def _choose_waker(configured: settings.Database, database: Database) -> Callable[[], Waker]:
    """Return what opens the way in which the daemon hears of commits."""
    if database.path is not None:
        return partial(SqliteWaker, database.path)
    if configured.wake == "poll":
        return partial(PollWaker, POLL_EVERY)
    # LISTEN needs a connection that stays ours, and a transaction pooler gives none.
    url = configured.listen_url or configured.url
    return partial(PostgresWaker, url.reveal())


def _listen(key: str, address: Address | None) -> Listen | None:
    """Return a place to listen at; null: there is none."""
    return None if address is None else Listen(key=key, host=address.host, port=address.port)


def _keep(retention: settings.Retention) -> Keep:
    ended = timedelta(days=retention.stopped_days) if retention.stopped_days else None
    return Keep(
        events=timedelta(days=retention.events_days),
        commands=timedelta(days=retention.commands_days),
        turns=timedelta(days=retention.turns_days),
        ended=ended,
    )


def _runtime(name: str, configured: settings.Account, config: Config) -> AccountRuntime:
    provider = build_provider(configured)
    wanted = {str(action): limit for action, limit in configured.qps.items()}
    return AccountRuntime(
        provider=provider,
        account=_account(name, configured, config.retry, provider),
        limits={**provider.limits, **wanted},
        call_timeout=timedelta(milliseconds=configured.call_timeout_ms),
        max_agents=configured.max_agents,
        token_secret=_vendor_key(configured),
    )


def _account(
    name: str, configured: settings.Account, retry: settings.Retry, provider: Provider
) -> Account:
    longest, idle_s = configured.max_duration_s, configured.idle_timeout_s
    return Account(
        name=name,
        caps=provider.caps,
        signature_life=timedelta(seconds=configured.signature_life_s),
        clock_margin=timedelta(seconds=configured.clock_margin_s),
        settle_in=timedelta(seconds=configured.settle_in_s),
        poll=timedelta(seconds=configured.poll_s),
        start_within=timedelta(seconds=configured.start_within_s),
        max_duration=None if longest is None else timedelta(seconds=longest),
        idle_timeout=None if idle_s is None else timedelta(seconds=idle_s),
        retry_base=timedelta(milliseconds=retry.base_ms),
        retry_cap=timedelta(milliseconds=retry.cap_ms),
    )


def _llm_frame(configured: settings.LlmGateway) -> LlmFrame | None:
    """Return what the gateway is given; null: there is none."""
    listen = _listen("llm_gateway.listen", configured.listen)
    if listen is None or configured.public_url is None:
        return None
    secrets = (configured.token_secret, configured.former_token_secret)
    return LlmFrame(
        listen=listen,
        public_url=configured.public_url,
        token_secrets=tuple(secret.reveal() for secret in secrets if secret is not None),
        max_body_bytes=configured.max_body_bytes,
        first_token_timeout=timedelta(milliseconds=configured.first_token_timeout_ms),
        total_timeout=timedelta(milliseconds=configured.total_timeout_ms),
        apology=configured.apology,
        keep_text=configured.keep_text,
    )


def _upstream(name: str, configured: settings.LlmUpstream) -> Upstream:
    headers = {key: _text(value) for key, value in configured.headers.items()}
    if configured.api_key is not None:
        headers["Authorization"] = f"Bearer {configured.api_key.reveal()}"
    is_whole = configured.url.endswith(COMPLETIONS)
    return Upstream(
        name=name,
        url=configured.url if is_whole else configured.url + COMPLETIONS,
        headers=headers,
        model=configured.model or None,
        fallback=configured.fallback,
        pass_fields=frozenset(configured.pass_fields),
        pass_headers=frozenset(name.lower() for name in configured.pass_headers),
        counts_tokens=configured.count_tokens,
    )


def _text(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _vendor_key(configured: settings.Account) -> str:
    """Return the key that every account has and only its daemons and its vendor know."""
    match configured:
        case settings.VolcengineAccount():
            return configured.secret_access_key.reveal()
        case settings.TencentAccount():
            return configured.secret_key.reveal()
        case settings.ZegoAccount():
            return configured.server_secret.reveal()
        case _:
            assert_never(configured)


def _volcengine(configured: settings.VolcengineAccount) -> Provider:
    return Volcengine(
        app_id=configured.app_id,
        access_key_id=configured.access_key_id.reveal(),
        secret_access_key=configured.secret_access_key.reveal(),
        session_token=_reveal(configured.session_token),
        region=configured.region,
        api_version=configured.api_version,
        endpoint=configured.endpoint,
        callback_secret=_reveal(configured.callback_secret),
    )


def _tencent(configured: settings.TencentAccount) -> Provider:
    return Tencent(
        sdk_app_id=configured.sdk_app_id,
        secret_id=configured.secret_id.reveal(),
        secret_key=configured.secret_key.reveal(),
        session_token=_reveal(configured.session_token),
        region=configured.region,
        usersig_key=configured.usersig_key.reveal(),
        endpoint=configured.endpoint,
        callback_key=_reveal(configured.callback_key),
    )


def _zego(configured: settings.ZegoAccount) -> Provider:
    return Zego(
        app_id=configured.app_id,
        server_secret=configured.server_secret.reveal(),
        endpoint=configured.endpoint,
        rtc_endpoint=configured.rtc_endpoint,
        callback_secret=_reveal(configured.callback_secret),
    )


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
