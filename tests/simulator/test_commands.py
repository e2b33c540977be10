"""Our adapters' commands at the simulated vendors: what the one sends, the other understands."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.core.command import Command, Kind
from orchestrator.core.model import Agent
from orchestrator.core.outcome import Done, Gone, Indefinite, NotSent, Outcome, Refused
from orchestrator.providers.base import Conversation, Provider, Request, Response, Stamp
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.volcengine import Volcengine
from orchestrator.providers.zego import Zego
from orchestrator.simulator.keys import DEMO
from orchestrator.simulator.wire import Call
from orchestrator.simulator.world import Vendor

VOLCENGINE, TENCENT, ZEGO = DEMO
SAYS: dict[Vendor, dict[Kind, dict[str, Any]]] = {
    Vendor.VOLCENGINE: {
        Kind.INTERRUPT: {},
        Kind.SAY: {"Message": "hi", "InterruptMode": 1},
        Kind.PROMPT: {"Message": "hi", "InterruptMode": 2},
        Kind.FUNCTION_RESULT: {"Message": {"ToolCallID": "c", "Content": "sunny"}},
        Kind.UPDATE: {"Parameters": {"Config": {"InterruptMode": 1}}},
    },
    Vendor.TENCENT: {
        Kind.SAY: {"ServerPushText": {"Text": "hi", "MetaInfo": {"a": 1}}},
        Kind.PROMPT: {"Content": "hi"},
        Kind.UPDATE: {"TTSConfig": {"TTSType": "flow"}},
    },
    Vendor.ZEGO: {
        Kind.START_LISTENING: {},
        Kind.STOP_LISTENING: {"CancelFlag": True},
        Kind.INTERRUPT: {},
        Kind.SAY: {"Text": "hi", "Priority": "High"},
        Kind.PROMPT: {"Text": "hi"},
        Kind.UPDATE: {"RTC": {"UserStreamId": "mic"}},
    },
}
SPECS: dict[Vendor, dict[str, Any]] = {
    Vendor.VOLCENGINE: {
        "Config": {
            "LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep", "SystemMessages": ["be kind"]}
        }
    },
    Vendor.TENCENT: {
        "LLMConfig": {
            "LLMType": "openai",
            "Model": "m",
            "APIKey": "fake",
            "APIUrl": "https://llm.example/v1",
        },
        "TTSConfig": {"TTSType": "flow"},
    },
    Vendor.ZEGO: {"AgentId": "template1", "AdvancedConfig": {"CommunicationMode": 2}},
}


@dataclass
class Line:
    """One of our adapters, wired to the simulator, with an agent that runs."""

    world: Any
    vendor: Vendor
    provider: Provider
    agent: Agent
    nonces: Iterator[int] = field(default_factory=itertools.count)

    def lead(self, conversation: Conversation) -> Outcome:
        try:
            request = next(conversation)
            while True:
                request = conversation.send(self.answer(request))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def answer(self, request: Request) -> Response:
        at, url = self.world.clock(), urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        answer = self.world.simulator.serve(
            Call(
                vendor=self.vendor,
                action=request.action,
                version=query.get("Version", "2019-07-22"),
                method=request.method,
                host=url.netloc,
                query=query,
                headers=request.headers,
                body=request.body,
                at=at,
                world_at=self.world.simulator.world_time(at),
            )
        )
        return Response(status=answer.status, headers={}, body=answer.body)

    def stamp(self) -> Stamp:
        return Stamp(signed_at=self.world.clock(), nonce=lambda: f"{next(self.nonces):016x}")

    def ask(self, kind: Kind, sequence: int | None = None, **payload: Any) -> Outcome:
        now = self.world.clock()
        command = Command(
            id="c1",
            position=1,
            task_id="t1",
            kind=kind,
            user_id="user1",
            sequence=sequence,
            payload=payload,
            created_at=now,
            expires_at=now + timedelta(seconds=5),
        )
        assert self.provider.command_action(command) is not None
        assert self.provider.command_problems(command) == ()
        return self.lead(self.provider.command(self.agent, command, self.stamp()))


def provider_of(vendor: Vendor) -> Provider:
    match vendor:
        case Vendor.VOLCENGINE:
            return Volcengine(
                app_id=VOLCENGINE.app_id,
                access_key_id=VOLCENGINE.access_key_id,
                secret_access_key=VOLCENGINE.secret_access_key,
                api_version="2025-06-01",
            )
        case Vendor.TENCENT:
            return Tencent(
                sdk_app_id=TENCENT.sdk_app_id,
                secret_id=TENCENT.secret_id,
                secret_key=TENCENT.secret_key,
                usersig_key=TENCENT.usersig_key,
                region="ap-singapore",
            )
        case Vendor.ZEGO:
            return Zego(app_id=ZEGO.app_id, server_secret=ZEGO.server_secret)


def line(world: Any, vendor: Vendor) -> Line:
    agent = Agent(
        id="a1",
        incarnation=1,
        try_=1,
        account="acc",
        site="{}",
        room_id="room1",
        user_id="user1",
        name="orc-agent",
        session_name="orc-session",
        stream_id="orc-stream",
        announced_at=world.clock(),
    )
    opened = Line(world=world, vendor=vendor, provider=provider_of(vendor), agent=agent)
    started = opened.lead(opened.provider.start(agent, SPECS[vendor], opened.stamp()))
    assert isinstance(started, Done)
    opened.agent = replace(agent, vendor_task_id=started.handle)
    return opened


@pytest.mark.parametrize(("vendor", "kind"), [(v, kind) for v in Vendor for kind in SAYS[v]])
def test_each_command_is_understood(world: Any, vendor: Vendor, kind: Kind) -> None:
    opened = line(world, vendor)
    if kind is Kind.STOP_LISTENING:
        opened.ask(Kind.START_LISTENING, 1)
    outcome = opened.ask(kind, 2 if kind.listens else None, **SAYS[vendor][kind])
    assert isinstance(outcome, Done)
    assert outcome.request_id
    tells_its_round = vendor is Vendor.ZEGO and kind is not Kind.UPDATE
    assert (outcome.result is not None) is tells_its_round


@pytest.mark.parametrize(("vendor", "kind"), [(v, kind) for v in Vendor for kind in SAYS[v]])
def test_an_agent_that_ended_is_told_as_gone(world: Any, vendor: Vendor, kind: Kind) -> None:
    opened = line(world, vendor)
    opened.lead(opened.provider.stop(opened.agent, opened.stamp()))
    outcome = opened.ask(kind, 1 if kind.listens else None, **SAYS[vendor][kind])
    assert isinstance(outcome, Gone)


@pytest.mark.parametrize("vendor", Vendor)
def test_a_running_agent_is_brought_to_its_spec(world: Any, vendor: Vendor) -> None:
    opened = line(world, vendor)
    updated = opened.provider.update(opened.agent, SPECS[vendor], opened.stamp())
    assert isinstance(opened.lead(updated), Done)
    assert world.live() == ["orc-agent"]


def test_a_press_and_its_release_share_a_round(world: Any) -> None:
    opened = line(world, Vendor.ZEGO)
    press, release = opened.ask(Kind.START_LISTENING, 1), opened.ask(Kind.STOP_LISTENING, 2)
    assert isinstance(press, Done)
    assert isinstance(release, Done)
    assert press.result == release.result


def test_a_press_sent_twice_is_stale_the_second_time(world: Any) -> None:
    opened = line(world, Vendor.ZEGO)
    opened.ask(Kind.START_LISTENING, 5)
    outcome = opened.ask(Kind.START_LISTENING, 5)
    assert isinstance(outcome, Refused)
    assert outcome.code in opened.provider.caps.stale_codes


@pytest.mark.parametrize(("present", "publishing"), [(False, False), (True, False)])
def test_a_press_before_the_user_is_heard_is_not_ready(
    world: Any, present: bool, publishing: bool
) -> None:
    opened = line(world, Vendor.ZEGO)
    world.move_user(Vendor.ZEGO, present=present, publishing=publishing)
    outcome = opened.ask(Kind.START_LISTENING, 1)
    assert isinstance(outcome, Refused)
    assert outcome.code in opened.provider.caps.not_ready_codes
    world.move_user(Vendor.ZEGO, present=True, publishing=True)
    assert isinstance(opened.ask(Kind.START_LISTENING, 1), Done)


def test_a_release_without_a_press_is_unknown_until_it_is_stale(world: Any) -> None:
    opened = line(world, Vendor.ZEGO)
    assert isinstance(opened.ask(Kind.STOP_LISTENING, 1), Indefinite)
    again = opened.ask(Kind.STOP_LISTENING, 1)
    assert again.code in opened.provider.caps.stale_codes


def test_a_release_without_a_press_may_be_a_success(world: Any) -> None:
    world.turn(zego_unheard_stop_code=0)
    opened = line(world, Vendor.ZEGO)
    assert isinstance(opened.ask(Kind.STOP_LISTENING, 1), Done)
    assert isinstance(opened.ask(Kind.START_LISTENING, 2), Done)


def test_nothing_is_said_while_the_agent_listens(world: Any) -> None:
    opened = line(world, Vendor.ZEGO)
    opened.ask(Kind.START_LISTENING, 1)
    assert isinstance(opened.ask(Kind.SAY, Text="hi"), NotSent)
    opened.ask(Kind.STOP_LISTENING, 2)
    assert isinstance(opened.ask(Kind.SAY, Text="hi"), Done)
