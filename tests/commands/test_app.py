from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from orchestrator import settings
from orchestrator.app import build, build_accounts, reveal_secrets
from orchestrator.config import Config, load, understand
from orchestrator.core.model import Agent
from orchestrator.daemon.setup import Setup
from orchestrator.errors import ConfigError
from orchestrator.examples import EXAMPLES, SECRETS, UPSTREAM
from orchestrator.log import Redactor
from orchestrator.providers.base import Forged, Garbled, Post
from orchestrator.providers.callbacks import NO_SECRET
from orchestrator.providers.llm import fill_in
from orchestrator.providers.llm_form import LlmEndpoint
from orchestrator.providers.spec import resolve_secrets

KEYS: dict[str, dict[str, Any]] = {
    "volcengine": {
        "app_id": "661e00000000000000000000",
        "access_key_id": "fake-access-key-id",
        "secret_access_key": "fake-secret-access-key",
    },
    "tencent": {
        "sdk_app_id": 1400000000,
        "secret_id": "fake-secret-id",
        "secret_key": "fake-secret-key",
        "region": "ap-singapore",
        "usersig_key": "fake-usersig-key",
    },
    "zego": {"app_id": 1234567890, "server_secret": "fake-server-secret"},
}
ACTIONS = {
    "volcengine": get_args(settings.VolcengineAction),
    "tencent": get_args(settings.TencentAction),
    "zego": get_args(settings.ZegoAction),
}


def configured(**written: Any) -> Config:
    return understand(written, Path("/nowhere/config.toml"), {})


def accounts(**more: Any) -> Config:
    every = {name: {"provider": name, **keys, **more} for name, keys in KEYS.items()}
    return configured(accounts=every, secrets=dict(SECRETS))


@pytest.mark.parametrize("vendor", KEYS)
def test_every_limit_of_a_vendor_can_be_configured(vendor: str) -> None:
    limits = build_accounts(accounts())[vendor].limits
    assert limits
    assert set(limits) <= set(ACTIONS[vendor])


@pytest.mark.parametrize("vendor", KEYS)
def test_configured_limits_win_and_the_vendor_s_hold_for_the_rest(vendor: str) -> None:
    documented = build_accounts(accounts())[vendor].limits
    slower, off = tuple(documented)[:2]
    written = {"provider": vendor, **KEYS[vendor], "qps": {slower: 1, off: 0}}
    limits = build_accounts(configured(accounts={vendor: written}))[vendor].limits
    assert limits == {**documented, slower: 1, off: 0}


@pytest.mark.parametrize("vendor", KEYS)
def test_units_arrive_as_they_were_meant(vendor: str) -> None:
    config = accounts(
        max_duration_s=7, start_within_s=8, call_timeout_ms=900, poll_s=10, signature_life_s=11,
        settle_in_s=12, clock_margin_s=13, max_agents=14,
    )  # fmt: skip
    runtime = build_accounts(config)[vendor]
    account = runtime.account
    assert account.name == vendor
    assert account.caps == runtime.provider.caps
    assert account.max_duration == timedelta(seconds=7)
    assert account.start_within == timedelta(seconds=8)
    assert runtime.call_timeout == timedelta(milliseconds=900)
    assert account.poll == timedelta(seconds=10)
    assert account.signature_life == timedelta(seconds=11)
    assert account.settle_in == timedelta(seconds=12)
    assert account.clock_margin == timedelta(seconds=13)
    assert runtime.max_agents == 14
    assert account.retry_base == timedelta(milliseconds=500)
    assert account.retry_cap == timedelta(seconds=60)


SECRETS_OF_CALLBACKS = {
    "volcengine": "callback_secret",
    "tencent": "callback_key",
    "zego": "callback_secret",
}


@pytest.mark.parametrize(("vendor", "key"), SECRETS_OF_CALLBACKS.items())
def test_an_account_with_a_callback_secret_judges_callbacks(vendor: str, key: str) -> None:
    post = Post(headers={}, body=b"{}", received_at=datetime(2030, 1, 1, tzinfo=UTC))
    written = {"provider": vendor, **KEYS[vendor]}
    without = build_accounts(configured(accounts={vendor: written}))[vendor]
    assert without.provider.hear(post) == NO_SECRET
    written[key] = "fake-callback-secret"
    heard = build_accounts(configured(accounts={vendor: written}))[vendor].provider.hear(post)
    assert isinstance(heard, Forged | Garbled)
    assert heard != NO_SECRET


def test_nothing_that_is_built_shows_a_key() -> None:
    built = build_accounts(accounts())
    assert "fake-" not in repr(built)
    assert "fake-" not in "".join(runtime.provider.site for runtime in built.values())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
def test_the_examples_are_bodies_that_the_vendors_would_take(example: Any) -> None:
    config = accounts()
    spec, unknown = resolve_secrets(example.spec, reveal_secrets(config))
    assert unknown == ()
    agent = Agent(
        id="a", incarnation=1, try_=1, account=example.account, site="", room_id=example.room_id,
        user_id=example.user_id, name="orcabcde1", session_name="orcabcde2",
        stream_id="orcabcde3", announced_at=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    provider = build_accounts(config)[example.account].provider
    endpoint = LlmEndpoint(url="https://llm.example", key="fake", model=UPSTREAM, patience_s=4)
    spec, wrong = fill_in(provider.llm, spec, {UPSTREAM: endpoint}.get)
    assert wrong == ()
    assert provider.problems(agent, spec) == ()
    assert provider.body(agent, spec)


# --- a reload

WRITTEN = """
[accounts.main]
provider = "zego"
app_id = 1
server_secret = {{ file = "key" }}
poll_s = {poll_s}
"""


def built(folder: Path, redactor: Redactor) -> Setup:
    (folder / "key").write_text("fake-first-key", "utf-8")
    file = folder / "config.toml"
    file.write_text(WRITTEN.format(poll_s=5), "utf-8")
    return build(load(file, {}), redactor)


def test_a_reload_takes_new_keys_and_the_log_hides_old_and_new(tmp_path: Path) -> None:
    redactor = Redactor(["fake-first-key"])
    setup = built(tmp_path, redactor)
    (tmp_path / "key").write_text("fake-second-key", "utf-8")
    (tmp_path / "config.toml").write_text(
        WRITTEN.format(poll_s=6) + "[orphans]\nforeign = 'stop'", "utf-8"
    )
    keys = setup.reload()
    assert keys.accounts["main"].account.poll == timedelta(seconds=6)
    assert keys.stops_foreign
    assert redactor.clean("fake-first-key fake-second-key") == "<hidden> <hidden>"


def test_a_reload_with_a_mistake_gives_nothing_and_the_next_one_counts_from_before(
    tmp_path: Path,
) -> None:
    setup = built(tmp_path, Redactor())
    file = tmp_path / "config.toml"
    file.write_text(WRITTEN.format(poll_s=0), "utf-8")
    with pytest.raises(ConfigError, match=r"accounts\.main\.poll_s: expected at least 1, found 0"):
        setup.reload()
    file.write_text(WRITTEN.format(poll_s=6), "utf-8")
    with capture_logs() as said:
        setup.reload()
    (reloaded,) = said
    assert reloaded["changed"] == ["accounts.main.poll_s"]
