"""ZEGO's gateway, as its two server APIs share it: AI Agent, and RTC (rooms).

Source: core_products/aiagent/en/server/api-reference (accessing-server-apis, return-codes), and
the pages DescribeUserList and KickoutUser of the RTC server API.
Rule: HTTP 200 always; `Code` is the verdict.
"""

import hmac
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from orchestrator.providers.signing import zego_signature
from orchestrator.simulator.keys import ZegoKeys
from orchestrator.simulator.pace import Pace
from orchestrator.simulator.times import from_unix
from orchestrator.simulator.wire import Answer, Call, Fields, Refusal, parse_object, to_json
from orchestrator.simulator.world import Agent, RoomKey, Vendor, World
from orchestrator.simulator.zego_agents import ZegoAgents

WINDOW = timedelta(seconds=600)
LARGEST_APP_ID = 2**32 - 1
ROOM_ACTIONS = ("DescribeUserList", "KickoutUser")
PAGE = 200
KICKED_AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class _Signed:
    """The public parameters of a call, none of them empty."""

    app_id: str
    timestamp: str
    nonce: str
    signature: str

    @classmethod
    def of(cls, call: Call) -> Self:
        """Return the parameters; refuse what is missing or malformed, first come first."""
        app_id = call.query_one("AppId")
        if not app_id.isdecimal() or int(app_id) > LARGEST_APP_ID:
            raise Refusal("100000001", "the format of AppId is wrong")
        timestamp = _given(call, "Timestamp", "100000002")
        if not timestamp.isdecimal():
            raise Refusal("100000003", "the format of Timestamp is wrong")
        nonce = _given(call, "SignatureNonce", "100000008")
        signature = _given(call, "Signature", "100000009")
        version = _given(call, "SignatureVersion", "100000013")
        if version != "2.0":
            raise Refusal("100000014", f"SignatureVersion {version} is not supported")
        return cls(app_id, timestamp, nonce, signature)

    @property
    def at(self) -> datetime | None:
        """When it was signed; null for a number that is no time, such as milliseconds."""
        return from_unix(self.timestamp)


class Zego:
    """All ZEGO apps of the simulator."""

    def __init__(self, keys: Sequence[ZegoKeys], world: World, pace: Pace) -> None:
        self._by_app = {str(k.app_id): k for k in reversed(keys)}
        self._world = world
        self._switches = world.switches
        self._pace = pace
        self._lots = random.SystemRandom()
        self._agents = ZegoAgents(world)

    def serve(self, call: Call) -> Answer:
        """Do what the call asks, as the vendor would."""
        try:
            self._verify(call)
            self._keep_pace(call)
            data = self._perform(call)
        except Refusal as refusal:
            return self.refuse(call, refusal)
        body: dict[str, object] = {"Code": 0, "Message": "Succeed", "RequestId": self._request_id()}
        if data is not None:
            body["Data"] = data
        return Answer(200, to_json(body), "")

    def refuse(self, call: Call, refusal: Refusal) -> Answer:  # noqa: ARG002 - as the others'
        """Put a refusal into the vendor's envelope. Its code is decimal."""
        code = int(refusal.code) if refusal.code.isdecimal() else refusal.code
        body = {"Code": code, "Message": refusal.message, "RequestId": self._request_id()}
        return Answer(refusal.status, to_json(body), refusal.code)

    def throttled(self, call: Call) -> Refusal:
        """Return the vendor's words for too many calls."""
        rooms = call.action in ROOM_ACTIONS
        code = self._switches.zego_rtc_rate_code if rooms else self._switches.zego_rate_code
        return Refusal(str(code), "QPS exceeds the limit")

    def hear(self, agent: Agent, now: datetime) -> int:
        """Let the agent's user be heard; return the round."""
        return self._agents.hear(agent, now)

    # --- the gateway ---

    def _verify(self, call: Call) -> None:
        """Check the public parameters in the gateway's order."""
        if not call.action:
            raise Refusal("100000006", "Action is empty")
        if call.action not in ROOM_ACTIONS and call.action not in self._agents.actions:
            raise Refusal("100000007", f"Action {call.action} is not supported")
        signed = _Signed.of(call)
        keys = self._by_app.get(signed.app_id)
        if keys is None:
            raise Refusal("100000010", "no ServerSecret was found")
        call.key_id, call.account = signed.app_id, keys.account
        in_time = signed.at is not None and abs(call.at - signed.at) <= WINDOW
        if self._switches.enforce_signature_window and not in_time:
            raise Refusal("100000004", "the signature has expired")
        expected = zego_signature(
            app_id=keys.app_id,
            server_secret=keys.server_secret,
            nonce=signed.nonce,
            timestamp=int(signed.timestamp),
        )
        if not hmac.compare_digest(expected.encode(), signed.signature.encode()):
            raise Refusal("100000005", "the signature is wrong")

    def _keep_pace(self, call: Call) -> None:
        key = (Vendor.ZEGO, call.account, call.action)
        self._pace.arrive(key, call.at_us)
        match call.action:
            case "DescribeUserList":
                limit = self._switches.zego_list_qps
            case "KickoutUser":
                limit = self._switches.zego_kick_qps
            case _:
                limit = self._switches.zego_qps
        if not self._pace.admit(key, limit, call.at_us):
            raise self.throttled(call)
        if call.action == "DescribeUserList":
            room = (*key, call.query_one("RoomId"))
            if not self._pace.admit(room, self._switches.zego_list_room_qps, call.at_us):
                raise self.throttled(call)

    def _perform(self, call: Call) -> object:
        match call.action:
            case "DescribeUserList":
                return self._list_users(call)
            case "KickoutUser":
                self._kick(call)
                return None
            case _:
                return self._agents.actions[call.action](call, _read(call))

    # --- rooms ---

    def _list_users(self, call: Call) -> Fields:
        users = self._present(_room_id(call), call)
        if call.query_one("Mode") == "1":
            users.reverse()
        limit, begin = _number(call, "Limit", PAGE) or PAGE, _number(call, "Marker", 0)
        if limit > PAGE:
            raise Refusal("2", "Limit: expected 0 to 200")
        page = users[begin : begin + limit]
        return {
            "Marker": str(begin + limit) if begin + limit < len(users) else "",
            "UserList": [{"UserId": u, "UserName": u, "UserRole": 1} for u in page],
        }

    def _present(self, room_id: str, call: Call) -> list[str]:
        room = self._world.rooms.get(RoomKey(Vendor.ZEGO, call.key_id, room_id))
        if room is None:
            return []
        return [*self._world.present_users(room), *self._world.present_agents(room)]

    def _kick(self, call: Call) -> None:
        room_id, given = _room_id(call), call.query.get("UserId[]", [])
        user_ids = [given] if isinstance(given, str) else given
        if not 0 < len(user_ids) <= KICKED_AT_ONCE:
            raise Refusal("2", "UserId[]: expected 1 to 5 user ids")
        call.ids["agent_user_id"] = user_ids[0]
        room = self._world.room(RoomKey(Vendor.ZEGO, call.key_id, room_id))
        code = self._switches.zego_kick_unknown_room_code
        if code and not self._present(room_id, call):
            raise Refusal(str(code), "the room does not exist")
        self._world.kick(room, user_ids, call.world_at, ends=self._switches.zego_kick_ends)

    def _request_id(self) -> str:
        return str(self._lots.randrange(10**18, 10**19))


def _given(call: Call, name: str, code_if_empty: str) -> str:
    value = call.query_one(name)
    if not value:
        raise Refusal(code_if_empty, f"{name} is empty")
    return value


def _read(call: Call) -> Fields:
    body = parse_object(call.body)
    if body is None:
        raise Refusal("410000004", "the body is no JSON object")
    return {name: value for name, value in body.items() if value is not None}


def _room_id(call: Call) -> str:
    room_id = call.query_one("RoomId")
    if not room_id:
        raise Refusal("2", "RoomId is required")
    call.ids["room_id"] = room_id
    return room_id


def _number(call: Call, name: str, default: int) -> int:
    text = call.query_one(name)
    if not text:
        return default
    if not text.isdecimal():
        raise Refusal("2", f"{name}: expected a number")
    return int(text)
