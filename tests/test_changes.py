import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.changes import READ_ONCE, TAKEN_AT_ONCE, Changes, compare
from orchestrator.config import Config, understand

ROOT = Path(__file__).parents[1]
ZEGO = {"provider": "zego", "app_id": 1, "server_secret": "fake-server-secret"}
VOLCENGINE = {
    "provider": "volcengine",
    "app_id": "661e00000000000000000000",
    "access_key_id": "fake-access-key-id",
    "secret_access_key": "fake-secret-access-key",
}
UPSTREAM: dict[str, Any] = {
    "url": "https://models.example/v1",
    "api_key": "fake-model-key",
    "headers": {"X-Team": "voice"},
    "pass_fields": ["round_id"],
}
BEFORE: dict[str, Any] = {
    "daemon": {"name": "one"},
    "accounts": {"main": ZEGO, "other": VOLCENGINE},
    "secrets": {"llm": "fake-llm-key", "tts": "fake-tts-key"},
    "llm_upstreams": {"main": UPSTREAM},
}


def configured(written: dict[str, Any]) -> Config:
    return understand(written, Path("/nowhere/config.toml"), {})


def changes(**more: Any) -> Changes:
    """What a reload of `BEFORE` with other tables says."""
    before = configured(BEFORE)
    return compare(before, before, configured({**BEFORE, **more}))


def nothing_but(**paths: tuple[str, ...]) -> Changes:
    none: dict[str, tuple[str, ...]] = {
        "added": (),
        "removed": (),
        "changed": (),
        "needs_restart": (),
    }
    return Changes(**{**none, **paths})


def test_every_table_is_taken_at_once_or_needs_a_restart() -> None:
    assert {*TAKEN_AT_ONCE, *READ_ONCE} == set(Config.model_fields)
    assert set(TAKEN_AT_ONCE).isdisjoint(READ_ONCE)


def test_the_default_configuration_says_of_each_table_what_takes_it() -> None:
    """Of a group in its heading, or of a table in the line above it."""
    told: dict[str, str] = {}
    group, alone = "", ""
    for line in (ROOT / "config.toml").read_text("utf-8").splitlines():
        if line.startswith("# ---"):
            group, alone = "".join(re.findall(r"\((reload|restart)\)", line)), ""
        elif line in {"# Reload.", "# Restart."}:
            alone = line.strip("# .").lower()
        elif table := re.match(r"(?:# )?\[(\w+)", line):
            told[table[1]], alone = alone or group, ""
    assert told == dict.fromkeys(TAKEN_AT_ONCE, "reload") | dict.fromkeys(READ_ONCE, "restart")


def test_the_same_file_again_is_no_change() -> None:
    assert changes() == nothing_but()
    assert changes().is_nothing


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"accounts": {"main": ZEGO}}, {"removed": ("accounts.other",)}),
        (
            {"accounts": {"main": ZEGO, "other": VOLCENGINE, "b": ZEGO, "a": ZEGO}},
            {"added": ("accounts.a", "accounts.b")},
        ),
        (
            {"accounts": {"new": ZEGO, "other": VOLCENGINE}},
            {"added": ("accounts.new",), "removed": ("accounts.main",)},
        ),
        (
            {"accounts": {"main": {**ZEGO, "server_secret": "fake-new"}, "other": VOLCENGINE}},
            {"changed": ("accounts.main.server_secret",)},
        ),
        (
            {"accounts": {"main": {**ZEGO, "callback_secret": "fake"}, "other": VOLCENGINE}},
            {"changed": ("accounts.main.callback_secret",)},
        ),
        (
            {
                "accounts": {
                    "main": {**ZEGO, "qps": {"StartListening": 5}, "poll_s": 5},
                    "other": VOLCENGINE,
                }
            },
            {"changed": ("accounts.main.poll_s", "accounts.main.qps.StartListening")},
        ),
        ({"orphans": {"foreign": "stop"}}, {"changed": ("orphans.foreign",)}),
        (
            {"retry": {"base_ms": 100, "cap_ms": 200}},
            {"changed": ("retry.base_ms", "retry.cap_ms")},
        ),
        ({"log": {"level": "debug"}}, {"changed": ("log.level",)}),
        (
            {"secrets": {"llm": "fake-rotated", "new": "fake-new-key"}},
            {
                "added": ("secrets.new",),
                "removed": ("secrets.tts",),
                "changed": ("secrets.llm",),
            },
        ),
        (
            {"llm_upstreams": {"main": UPSTREAM, "spare": UPSTREAM}},
            {"added": ("llm_upstreams.spare",)},
        ),
        ({"llm_upstreams": {}}, {"removed": ("llm_upstreams.main",)}),
        (
            {"llm_upstreams": {"spare": UPSTREAM}},
            {"added": ("llm_upstreams.spare",), "removed": ("llm_upstreams.main",)},
        ),
        (
            {"llm_upstreams": {"main": {**UPSTREAM, "api_key": "fake-rotated-key"}}},
            {"changed": ("llm_upstreams.main.api_key",)},
        ),
        (
            {
                "llm_upstreams": {
                    "main": {
                        **UPSTREAM,
                        "headers": {"X-Team": "other", "X-New": "1"},
                        "model": "m",
                        "pass_fields": ["round_id", "device_id"],
                        "count_tokens": False,
                    }
                }
            },
            {
                "changed": (
                    "llm_upstreams.main.count_tokens",
                    "llm_upstreams.main.headers.X-New",
                    "llm_upstreams.main.headers.X-Team",
                    "llm_upstreams.main.model",
                    "llm_upstreams.main.pass_fields",
                )
            },
        ),
        (
            {"accounts": {"main": {**ZEGO, "idle_timeout_s": 60}, "other": VOLCENGINE}},
            {"changed": ("accounts.main.idle_timeout_s",)},
        ),
        (
            {"llm_gateway": {"listen": "h:80", "public_url": "https://h", "token_secret": "fake"}},
            {
                "needs_restart": (
                    "llm_gateway.listen",
                    "llm_gateway.public_url",
                    "llm_gateway.token_secret",
                )
            },
        ),
        ({"llm_gateway": {"keep_text": True}}, {"needs_restart": ("llm_gateway.keep_text",)}),
        ({"daemon": {"name": "two"}}, {"needs_restart": ("daemon.name",)}),
        (
            {"database": {"url": "postgresql://h/d", "schema": "other", "pool_size": 5}},
            {"needs_restart": ("database.pool_size", "database.schema", "database.url")},
        ),
        ({"leases": {"ttl_s": 20}}, {"needs_restart": ("leases.ttl_s",)}),
        ({"lanes": {"gap_timeout_ms": 1}}, {"needs_restart": ("lanes.gap_timeout_ms",)}),
        ({"callbacks": {"listen": "[::1]:80"}}, {"needs_restart": ("callbacks.listen",)}),
        ({"metrics": {"listen": "h:80"}}, {"needs_restart": ("metrics.listen",)}),
        ({"retention": {"events_days": 5}}, {"needs_restart": ("retention.events_days",)}),
        ({"retention": {"turns_days": 5}}, {"needs_restart": ("retention.turns_days",)}),
    ],
)
def test_what_a_reload_says(tables: dict[str, Any], said: dict[str, tuple[str, ...]]) -> None:
    assert changes(**tables) == nothing_but(**said)


def test_an_account_that_moves_to_another_vendor_is_changed_and_not_new() -> None:
    moved = changes(accounts={"main": VOLCENGINE, "other": VOLCENGINE})
    assert (moved.added, moved.removed) == ((), ())
    assert {"accounts.main.provider", "accounts.main.server_secret"} <= set(moved.changed)


def test_a_secret_that_only_moves_has_not_changed(tmp_path: Path) -> None:
    (tmp_path / "llm").write_text("fake-llm-key\n", "utf-8")
    before = configured(BEFORE)
    moved = {**BEFORE, "secrets": {"llm": {"file": str(tmp_path / "llm")}, "tts": "fake-tts-key"}}
    assert compare(before, before, configured(moved)).is_nothing


def test_a_restart_is_needed_until_the_file_says_again_what_runs() -> None:
    running = configured(BEFORE)
    other = configured({**BEFORE, "lanes": {"gap_timeout_ms": 1}, "log": {"level": "error"}})
    first = compare(running, running, other)
    again = compare(running, other, other)
    back = compare(running, other, running)
    assert (first.needs_restart, first.changed) == (("lanes.gap_timeout_ms",), ("log.level",))
    assert (again.needs_restart, again.changed) == (("lanes.gap_timeout_ms",), ())
    assert (back.needs_restart, back.changed) == ((), ("log.level",))


VALUES = st.text(alphabet="abcdef0123456789", min_size=8, max_size=12)


@given(old=VALUES, new=VALUES)
def test_no_value_is_ever_said(old: str, new: str) -> None:
    def written(value: str) -> dict[str, Any]:
        account = {**ZEGO, "server_secret": value, "endpoint": f"https://{value}"}
        url = f"postgresql://me:{value}@host/db"
        upstream = {
            "url": f"https://{value}",
            "api_key": value,
            "headers": {"X-Open": value},
            "pass_fields": [value],
        }
        return {
            "database": {"url": url},
            "accounts": {"main": account},
            "llm_gateway": {"token_secret": value, "apology": value},
            "llm_upstreams": {"main": upstream},
            "secrets": {"llm": value},
        }

    before, fresh = configured(written(old)), configured(written(new))
    said = repr(compare(before, before, fresh))
    assert old not in said
    assert new not in said
    assert ("accounts.main.server_secret" in said) is (old != new)
