"""A simulator whose clock the test moves, and one caller per vendor that signs as a client does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.providers.signing import (
    TC3Call,
    TC3Keys,
    Unsigned,
    V4Keys,
    sign_tc3,
    sign_v4,
    zego_query,
)
from orchestrator.providers.tokens import make_user_sig
from orchestrator.simulator import Simulator
from orchestrator.simulator.keys import DEMO
from orchestrator.simulator.wire import Answer, Call
from orchestrator.simulator.world import Vendor

VOLCENGINE, TENCENT, ZEGO = DEMO
HOST = "vendor.test"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class World:
    """The simulator with its clock, and the three callers.

    Each caller returns what the vendor said: HTTP status, code ("" for success), and the body.
    """

    clock: Clock = field(default_factory=Clock)
    simulator: Simulator = field(init=False)

    def __post_init__(self) -> None:
        self.simulator = Simulator(DEMO, clock=self.clock)
        for name in ("volcengine_qps", "tencent_qps", "zego_qps", "zego_list_room_qps"):
            self.turn(**{name: 0})

    def turn(self, **switches: Any) -> None:
        assert self.simulator.switches.turn(switches) == []

    def live(self) -> list[str]:
        self.simulator.world_now()
        return [a.agent_user_id for a in self.simulator.world.agents if a.is_live]

    def ended(self) -> dict[str, str | None]:
        self.simulator.world_now()
        return {a.agent_user_id: a.why for a in self.simulator.world.agents if not a.is_live}

    def ask(self, call: Call) -> tuple[int, str, dict[str, Any]]:
        answer: Answer = self.simulator.serve(call)
        return answer.status, answer.code, json.loads(answer.body)

    def volcengine(
        self, action: str, body: Any, version: str = "2024-12-01", **changes: Any
    ) -> tuple[int, str, dict[str, Any]]:
        return self.ask(self.volcengine_call(action, body, version, **changes))

    def volcengine_call(
        self,
        action: str,
        body: Any,
        version: str = "2024-12-01",
        *,
        secret: str = VOLCENGINE.secret_access_key,
        key_id: str = VOLCENGINE.access_key_id,
        signed_ago_s: float = 0,
    ) -> Call:
        get = action == "GetRoomOnlineUsers"
        query = {"Action": action, "Version": version}
        query |= {k: str(v) for k, v in body.items()} if get else {}
        content = b"" if get else as_bytes(body)
        headers = sign_v4(
            Unsigned(
                method="GET" if get else "POST",
                host=HOST,
                query=query,
                headers={"Content-Type": "application/json"},
                body=content,
            ),
            keys=V4Keys(access_key_id=key_id, secret_access_key=secret),
            at=self.clock() - timedelta(seconds=signed_ago_s),
        )
        method = "GET" if get else "POST"
        return self._call(Vendor.VOLCENGINE, action, version, method, query, headers, content)

    def tencent(self, action: str, body: Any, **changes: Any) -> tuple[int, str, dict[str, Any]]:
        status, code, answer = self.ask(self.tencent_call(action, body, **changes))
        return status, code, answer["Response"]

    def tencent_call(
        self,
        action: str,
        body: Any,
        *,
        secret: str = TENCENT.secret_key,
        key_id: str = TENCENT.secret_id,
        region: str = "ap-guangzhou",
        signed_ago_s: float = 0,
    ) -> Call:
        content = as_bytes(body)
        headers = sign_tc3(
            TC3Call(host=HOST, action=action, version="2019-07-22", region=region, body=content),
            keys=TC3Keys(secret_id=key_id, secret_key=secret),
            at=self.clock() - timedelta(seconds=signed_ago_s),
        )
        return self._call(Vendor.TENCENT, action, "2019-07-22", "POST", {}, headers, content)

    def zego(self, action: str, body: Any, **changes: Any) -> tuple[int, str, dict[str, Any]]:
        return self.ask(self.zego_call(action, body, **changes))

    def zego_call(
        self,
        action: str,
        body: Any,
        *,
        secret: str = ZEGO.server_secret,
        app_id: int = ZEGO.app_id,
        signed_ago_s: float = 0,
        without: str = "",
    ) -> Call:
        rooms = action in {"DescribeUserList", "KickoutUser"}
        text = zego_query(
            app_id=app_id,
            server_secret=secret,
            nonce="00112233445566aa",
            at=self.clock() - timedelta(seconds=signed_ago_s),
            action=action,
        )
        query: dict[str, Any] = dict(pair.split("=") for pair in text.split("&"))
        query.pop(without, None)
        query |= body if rooms else {}
        content = b"" if rooms else as_bytes(body)
        method = "GET" if rooms else "POST"
        return self._call(Vendor.ZEGO, query.get("Action", ""), "2.0", method, query, {}, content)

    def _call(
        self,
        vendor: Vendor,
        action: str,
        version: str,
        method: str,
        query: Mapping[str, Any],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Call:
        at = self.clock()
        return Call(
            vendor=vendor,
            action=action,
            version=version,
            method=method,
            host=HOST,
            query=query,
            headers=headers,
            body=body,
            at=at,
            world_at=self.simulator.world_time(at),
        )

    # --- example bodies ---

    def volcengine_start(self, task_id: str = "t1", **config: Any) -> dict[str, Any]:
        agent = {"TargetUserId": ["user1"], "UserId": f"agent-{task_id}", "IdleTimeout": 30}
        return {
            "AppId": VOLCENGINE.app_id,
            "RoomId": "room1",
            "TaskId": task_id,
            "Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep"}},
            "AgentConfig": agent | config,
        }

    def volcengine_task(self, task_id: str = "t1") -> dict[str, Any]:
        return {"AppId": VOLCENGINE.app_id, "RoomId": "room1", "TaskId": task_id}

    def tencent_start(
        self, session_id: str = "s1", agent: str = "agent1", **config: Any
    ) -> dict[str, Any]:
        usersig = make_user_sig(
            sdk_app_id=TENCENT.sdk_app_id,
            key=TENCENT.usersig_key,
            user_id=agent,
            at=self.clock(),
            life=timedelta(hours=1),
        )
        return {
            "SdkAppId": TENCENT.sdk_app_id,
            "RoomId": "room1",
            "RoomIdType": 1,
            "SessionId": session_id,
            "AgentConfig": {
                "UserId": agent,
                "UserSig": usersig,
                "TargetUserId": "user1",
                "MaxIdleTime": 30,
            }
            | config,
            "LLMConfig": "{}",
            "TTSConfig": "{}",
        }

    def zego_create(
        self, agent: str = "agent1", stream: str = "stream1", **advanced: Any
    ) -> dict[str, Any]:
        return {
            "AgentId": "template1",
            "UserId": "user1",
            "RTC": {
                "RoomId": "room1",
                "AgentStreamId": stream,
                "AgentUserId": agent,
                "UserStreamId": "user1",
            },
            "AdvancedConfig": {"MaxIdleTime": 30} | advanced,
        }

    def move_user(self, vendor: Vendor, *, present: bool, publishing: bool) -> None:
        """Say where user1 is, in the room of the newest agent."""
        world, now = self.simulator.world, self.simulator.world_now()
        room = next(a.room for a in reversed(world.agents) if a.vendor is vendor)
        user = world.user(room, "user1")
        world.place_user(room, "user1", type(user)(present=present, publishing=publishing), now)


def as_bytes(body: Mapping[str, Any] | str) -> bytes:
    """A mapping becomes JSON; a string is sent as it is."""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@pytest.fixture
def world() -> World:
    return World()
