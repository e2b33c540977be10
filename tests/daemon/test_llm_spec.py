"""A spec that asks our LLM gateway: what each vendor is told of it, and what nobody else is."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.log import HIDDEN
from orchestrator.providers.ticket import Ticket, derive_key, is_signed
from tests.daemon.application import update_task
from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE, ZEGO, Customer
from tests.daemon.llm import TOKEN_SECRET, asking
from tests.daemon.running import USER, Scene, as_json
from tests.daemon.test_secrets_stay_out import dump
from tests.daemon.wiretap import Wiretap, tap
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

PUBLIC_URL = "https://bots.example"
MARK = "llm-" + "F" * 43
"""What looks like a token."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a vendor was told of the model, under our names."""

    url: str
    key: str
    model: str
    how: str
    """The vendor's word for OpenAI's way to ask."""


def told(customer: Customer, body: Mapping[str, Any]) -> Told:
    """Return what a body of a start or an update says of the model."""
    match customer.name.partition("-")[0]:
        case "volcengine":
            block = body["Config"]["LLMConfig"]
            names = ("Url", "APIKey", "ModelName", "Mode")
        case "tencent":
            block = json.loads(body["LLMConfig"])
            names = ("APIUrl", "APIKey", "Model", "LLMType")
        case _:
            block = body["LLM"]
            names = ("Url", "ApiKey", "Model", "Vendor")
    url, key, model, how = (block[name] for name in names)
    return Told(url=url, key=key, model=model, how=how)


HOW = {"volcengine": "CustomLLM", "tencent": "openai", "zego": "OpenAIChat"}


@pytest.fixture
async def wiretap(scene: Scene) -> AsyncIterator[Wiretap]:
    """A listener before the vendors, and a gateway in the configuration."""
    async with tap(scene.vendors.url) as opened:
        for customer in CUSTOMERS:
            scene.account(customer)["endpoint"] = opened.url
        scene.settings["llm_gateway"] = {
            "listen": f"127.0.0.1:{unused_port()}",
            "public_url": PUBLIC_URL,
            "token_secret": TOKEN_SECRET,
        }
        scene.settings["llm_upstreams"] = {"main": {"url": "https://models.invalid/v1"}}
        scene.settings["log"] = {"level": "debug"}
        yield opened


async def ticket_of(scene: Scene, customer: Customer, id_: str) -> Ticket:
    """Return what the newest agent of a task asks with."""
    agent = (await scene.ledger(id_))[-1]
    return Ticket(
        upstream="main",
        account=customer.name,
        room_id=f"room-{id_}",
        user_id=USER,
        task_id=id_,
        incarnation=agent["incarnation"],
        agent_id=agent["id"],
    )


async def test_each_vendor_is_told_where_its_agent_asks(scene: Scene, wiretap: Wiretap) -> None:
    daemon = await scene.start_daemon()
    tokens = []
    for customer in CUSTOMERS:
        id_ = await scene.ask_for(customer, customer.name, spec=as_json(asking(customer)))
        await scene.wait(id_, phase="running")
        (one,) = [told(customer, body) for body in wiretap.of(customer.start)[-1:]]
        ticket = await ticket_of(scene, customer, id_)
        assert one.url == PUBLIC_URL + ticket.path
        assert is_signed(ticket, one.key, [derive_key(TOKEN_SECRET, customer.name)])
        assert (one.model, one.how) == ("main", HOW[customer.name.partition("-")[0]])
        tokens.append(one.key)
    # What a vendor repeats of a key is nobody's to read.
    await scene.vendors.script(ZEGO.start, "code", code="410001010", message=f"no {MARK}")
    await scene.ask_for(ZEGO, "refused", spec=as_json(asking(ZEGO)))
    refused = await scene.wait("refused", phase="failed")
    assert HIDDEN in refused["message"]
    dumped, log = await dump(scene), daemon.log()
    assert "refused" in dumped
    for token in (*tokens, MARK):
        assert token not in dumped
        assert token not in log


async def test_what_stands_for_nothing_fails_its_row_alone(scene: Scene, wiretap: Wiretap) -> None:
    await scene.start_daemon()
    wrong = {
        "unknown": (asking(TENCENT, "dear"), "UnknownUpstream", "spec.LLMConfig.$llm_gateway"),
        "number": (asking(TENCENT, 7), "InvalidSpec", "spec.LLMConfig.$llm_gateway"),
        "beside": (asking(TENCENT, APIUrl="https://x.invalid"), "InvalidSpec", "APIUrl"),
        "elsewhere": (
            {**TENCENT.spec, "AgentConfig": {"$llm_gateway": "main"}},
            "InvalidSpec",
            "spec.AgentConfig.$llm_gateway",
        ),
    }
    for id_, (spec, _, _) in wrong.items():
        await scene.ask_for(TENCENT, id_, spec=as_json(spec))
    await scene.ask_for(TENCENT, "right", spec=as_json(asking(TENCENT)))
    await scene.wait("right", phase="running")
    for id_, (_, reason, path) in wrong.items():
        row = await scene.wait(id_, phase="failed", reason=reason)
        assert path in row["message"]
        assert await scene.ledger(id_) == []
    assert len(wiretap.of(TENCENT.start)) == 1


async def test_without_a_gateway_nothing_is_started_that_could_not_speak(
    scene: Scene, wiretap: Wiretap
) -> None:
    del scene.settings["llm_gateway"], scene.settings["llm_upstreams"]
    await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "mute", spec=as_json(asking(VOLCENGINE)))
    row = await scene.wait("mute", phase="failed", reason="UnknownUpstream")
    assert "[llm_gateway]" in row["message"]
    assert wiretap.of(VOLCENGINE.start) == []


@pytest.mark.parametrize(
    ("customer", "update"),
    [(ZEGO, "UpdateAgentInstance"), (TENCENT, "UpdateAIConversation")],
    ids=["zego", "tencent"],
)
async def test_a_spec_that_changes_in_place_keeps_the_address(
    scene: Scene, wiretap: Wiretap, customer: Customer, update: str
) -> None:
    await scene.start_daemon()
    before, after = (asking(customer, SystemPrompt=words) for words in ("be kind", "be brief"))
    await scene.ask_for(customer, "call", spec=as_json(before))
    await scene.wait("call", phase="running")
    await scene.app.write(update_task("call", spec=as_json(after)))
    await scene.wait(
        "call", phase="running", observed_generation=2, incarnation=1, update_due=False
    )
    (started,), (updated,) = wiretap.of(customer.start), wiretap.of(update)
    assert told(customer, updated) == told(customer, started)
    assert "be brief" in json.dumps(updated)
    assert len(await scene.vendors.agents()) == 1


async def test_another_start_has_another_address(scene: Scene, wiretap: Wiretap) -> None:
    await scene.start_daemon()
    await scene.ask_for(ZEGO, "call", spec=as_json(asking(ZEGO)))
    await scene.wait("call", phase="running")
    await scene.app.write(update_task("call", spec=as_json({**asking(ZEGO), "AgentId": "other"})))
    await scene.wait("call", phase="running", incarnation=2)
    first, second = (told(ZEGO, body) for body in wiretap.of(ZEGO.start))
    assert second.url == PUBLIC_URL + (await ticket_of(scene, ZEGO, "call")).path
    assert first.url != second.url
    assert first.key != second.key
