"""No secret of the daemon's is in the database, in the log or in its process' arguments."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator.log import HIDDEN
from tests.daemon.application import SQLITE
from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import Daemon, Scene, as_json, task

pytestmark = pytest.mark.anyio

PLAIN = frozenset({"provider", "app_id", "api_version", "sdk_app_id", "region"})
BY_ENVIRONMENT = "secret-by-environment-6c1f"
BY_FILE = 'secret "by" file\\with/odd-characters-é-9b2d'


def hide_keys(scene: Scene) -> dict[str, str]:
    """Take all keys out of the configuration, into the environment and files; return them."""
    environ: dict[str, str] = {}
    for customer in CUSTOMERS:
        table = scene.account(customer)
        for key in customer.settings.keys() - PLAIN:
            name = f"{customer.name}_{key}".replace("-", "_").upper()
            environ[name] = table[key]
            table[key] = {"env": name}
    (scene.folder / "by-file").write_text(BY_FILE, "utf-8")
    environ["BY_ENVIRONMENT"] = BY_ENVIRONMENT
    scene.settings["secrets"] = {
        "by-environment": {"env": "BY_ENVIRONMENT"},
        "by-file": {"file": "by-file"},
    }
    scene.settings["log"] = {"level": "debug"}
    return environ


SPECS = {
    VOLCENGINE: {
        "Config": {
            **VOLCENGINE.spec["Config"],
            "LLMConfig": {
                "Mode": "CustomLLM",
                "Url": "https://llm.invalid/v1",
                "APIKey": {"$secret": "by-file"},
                "Custom": {"token": {"$secret": "by-environment"}},
            },
        }
    },
    TENCENT: {
        **TENCENT.spec,
        "LLMConfig": {**TENCENT.spec["LLMConfig"], "APIKey": {"$secret": "by-file"}},
        "TTSConfig": {**TENCENT.spec["TTSConfig"], "APIKey": {"$secret": "by-environment"}},
    },
    ZEGO: {
        **ZEGO.spec,
        "LLM": {
            "Url": "https://llm.invalid/v1",
            "Model": "fake",
            "ApiKey": {"$secret": "by-file"},
        },
    },
}


async def test_nothing_shows_a_secret(scene: Scene) -> None:
    environ = hide_keys(scene)
    daemon = await scene.start_daemon(**environ)
    secrets = {*environ.values(), BY_FILE}
    echoes = f"you sent {' and '.join(sorted(secrets))} in {json.dumps(BY_FILE)}"
    for number, (customer, spec) in enumerate(SPECS.items()):
        code: dict[str, Any] = {
            "code": _REFUSED[number],
            "message": echoes,
            "status": 400 if not number else 200,
        }
        await scene.vendors.script(customer.start, "code", **code)
        await scene.app.write(
            task(customer, f"refused-{number}", spec=as_json(spec), room_id=f"'r-{number}'")
        )
        await scene.wait(f"refused-{number}", phase="failed")
        await scene.vendors.script(customer.start, "code", **{**code, "code": "499999999"})
        await scene.app.write(task(customer, f"unknown-{number}", spec=as_json(spec)))
        await scene.wait_for_faults()
    wrong = {**ZEGO.spec, "LLM": {"Url": {"$secret": "by-file"}, "Model": "fake"}}
    await scene.app.write(task(ZEGO, "wrong", spec=as_json(wrong), user_id="'a b'"))
    await scene.wait("wrong", phase="failed", reason="InvalidSpec")
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    for number in range(len(SPECS)):
        await scene.wait(f"unknown-{number}", phase="stopped")
        assert HIDDEN in (await scene.status(f"refused-{number}"))["message"]

    dumped = await dump(scene)
    assert "unknown-2" in dumped  # it is a dump of what there is
    for place, text in (
        ("database", dumped),
        ("log", daemon.log()),
        ("arguments", arguments(daemon)),
    ):
        for secret in secrets:
            for shown in (secret, json.dumps(secret)[1:-1]):
                assert shown not in text, f"the {place} shows {shown}"


_REFUSED = ("InvalidParameter.Fake", "InvalidParameterValue.Fake", "410001010")


def arguments(daemon: Daemon) -> str:
    return Path(f"/proc/{daemon.pid}/cmdline").read_text("utf-8")


async def dump(scene: Scene) -> str:
    """Return the whole database as text."""
    if scene.on_sqlite:
        path = scene.database_url.removeprefix(SQLITE)
        with closing(sqlite3.connect(path)) as connection:
            return "\n".join(connection.iterdump())
    connected = await asyncpg.connect(scene.database_url)
    try:
        tables = await connected.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        )
        texts = [
            await connected.fetch(f'SELECT t::text FROM "{table["tablename"]}" t')  # noqa: S608
            for table in tables
        ]
        return "\n".join(row["t"] for rows in texts for row in rows)
    finally:
        await connected.close()
