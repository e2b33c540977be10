"""Tencent Cloud TRTC as a vendor: the AI conversation actions and the room actions.

Sources: API 2019-07-22, the field lists and error lists of the vendor's SDKs, and the pages 34262,
34266, 34270 (requests, answers, codes) and 68331 (leave codes). What they leave open is a switch.
Rule: every answer is HTTP 200 and exactly `application/json`; the code says what happened.
"""

import hmac
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from orchestrator.providers.signing import TC3_ALGORITHM, Authorization, Unsigned, tc3_signature
from orchestrator.providers.tokens import verify_user_sig
from orchestrator.simulator.keys import TencentKeys
from orchestrator.simulator.pace import Pace
from orchestrator.simulator.tencent_bodies import BODIES, read_body
from orchestrator.simulator.tencent_llm import own_llm
from orchestrator.simulator.times import from_unix
from orchestrator.simulator.wire import Answer, Call, Fields, Refusal, parse_object, to_json
from orchestrator.simulator.world import Agent, Idleness, Room, RoomKey, Vendor, Why, World

VERSION = "2019-07-22"
WINDOW = timedelta(seconds=300)
IDLE_TIME_S = 60
REGIONS = frozenset(
    {
        "ap-beijing",
        "ap-guangzhou",
        "ap-shanghai",
        "ap-singapore",
        "ap-tokyo",
        "na-ashburn",
        "na-siliconvalley",
    }
)
NUMERIC, STRING = "numeric", "string"
"""The kinds of a room: 10000 as a number and "10000" as a string are two rooms."""


class Tencent:
    """All Tencent accounts of the simulator."""

    def __init__(self, keys: Sequence[TencentKeys], world: World, pace: Pace) -> None:
        self._by_secret_id = {k.secret_id: k for k in reversed(keys)}
        self._apps = {(k.secret_id, k.sdk_app_id): k for k in reversed(keys)}
        self._world = world
        self._switches = world.switches
        self._pace = pace
        self._lots = random.SystemRandom()
        self._tasks: dict[str, Agent] = {}
        self._sessions: dict[tuple[str, str], Agent] = {}
        self._actions = {
            "StartAIConversation": self._start,
            "DescribeAIConversation": self._describe,
            "StopAIConversation": self._stop,
            "UpdateAIConversation": self._update,
            "ControlAIConversation": self._control,
            "RemoveUser": self._remove_user,
            "RemoveUserByStrRoomId": self._remove_user,
            "DismissRoom": self._dismiss_room,
            "DismissRoomByStrRoomId": self._dismiss_room,
        }

    def serve(self, call: Call) -> Answer:
        """Do what the call asks, as the vendor would."""
        try:
            self._verify(call)
            _verify_common(call)
            self._keep_pace(call)
            fields = self._actions[call.action](call, self._read(call))
        except Refusal as refusal:
            return self.refuse(call, refusal)
        return Answer(200, to_json({"Response": {**fields, "RequestId": self._request_id()}}), "")

    def refuse(self, call: Call, refusal: Refusal) -> Answer:  # noqa: ARG002 - as the others'
        """Put a refusal into the vendor's envelope."""
        error = {"Code": refusal.code, "Message": refusal.message}
        body = {"Response": {"Error": error, "RequestId": self._request_id()}}
        return Answer(refusal.status, to_json(body), refusal.code)

    def throttled(self, call: Call) -> Refusal:
        """Return the vendor's words for too many calls."""
        return Refusal("RequestLimitExceeded", f"{call.action}: too many requests per second")

    def hear(self, agent: Agent, now: datetime) -> int:  # noqa: ARG002 - as the others'
        """Let the agent's user be heard; return the round."""
        agent.round += 1
        return agent.round

    # --- the gateway ---

    def _verify(self, call: Call) -> None:
        given = Authorization.from_header(call.headers.get("Authorization", ""))
        if given is None or given.algorithm != TC3_ALGORITHM:
            raise Refusal("AuthFailure.InvalidAuthorization", "Authorization is malformed")
        if not {"content-type", "host"} <= set(given.signed_headers):
            message = "SignedHeaders must contain content-type and host"
            raise Refusal("AuthFailure.InvalidAuthorization", message)
        keys = self._by_secret_id.get(given.key_id)
        if keys is None:
            raise Refusal("AuthFailure.SecretIdNotFound", "the SecretId is unknown")
        call.key_id, call.account = given.key_id, keys.account
        signed_at = from_unix(call.headers.get("X-TC-Timestamp", ""))
        if signed_at is None:
            raise Refusal("MissingParameter", "X-TC-Timestamp is missing or malformed")
        if self._switches.enforce_signature_window and abs(call.at - signed_at) > WINDOW:
            raise Refusal("AuthFailure.SignatureExpire", "X-TC-Timestamp is more than 300 s away")
        if given.scope != f"{signed_at:%Y-%m-%d}/trtc/tc3_request":
            raise Refusal("AuthFailure.SignatureFailure", "the scope is not of this day or service")
        expected = tc3_signature(
            Unsigned(
                method=call.method,
                host=call.host,
                query=call.query,
                headers=call.headers,
                body=call.body,
            ),
            secret_key=keys.secret_key,
            scope=given.scope,
            signed_headers=given.signed_headers,
        )
        if not hmac.compare_digest(expected, given.signature):
            raise Refusal("AuthFailure.SignatureFailure", "the signature does not match")
        if (call.headers.get("X-TC-Token") or None) != keys.session_token:
            raise Refusal("AuthFailure.TokenFailure", "the token is wrong")

    def _keep_pace(self, call: Call) -> None:
        key = (Vendor.TENCENT, call.account, call.action)
        self._pace.arrive(key, call.at_us)
        if not self._pace.admit(key, self._switches.tencent_qps, call.at_us):
            raise self.throttled(call)

    def _read(self, call: Call) -> Fields:
        fields = read_body(BODIES[call.action], parse_object(call.body))
        call.ids = {
            name: fields[field]
            for name, field in (
                ("task_id", "TaskId"),
                ("session_id", "SessionId"),
                ("room_id", "RoomId"),
            )
            if field in fields
        }
        if "SdkAppId" in fields:
            call.account = self._app(call, fields).account
        return fields

    def _app(self, call: Call, fields: Fields) -> TencentKeys:
        keys = self._apps.get((call.key_id, fields.get("SdkAppId", 0)))
        if keys is None:
            raise Refusal("UnauthorizedOperation.SdkAppId", "SdkAppId is not of this account")
        return keys

    # --- AI conversations ---

    def _start(self, call: Call, fields: Fields) -> Fields:
        keys = self._app(call, fields)
        config = fields["AgentConfig"]
        user_id, agent_user_id = config["TargetUserId"], config["UserId"]
        call.ids |= {"user_id": user_id, "agent_user_id": agent_user_id}
        if agent_user_id == user_id:
            _refuse("InvalidParameter", "AgentConfig.UserId must differ from TargetUserId")
        _require_user_sig(config["UserSig"], agent_user_id, keys, call.at)
        kind = STRING if fields.get("RoomIdType", 0) == 1 else NUMERIC
        room = self._world.room(
            RoomKey(Vendor.TENCENT, str(keys.sdk_app_id), fields["RoomId"], kind)
        )
        session_id = fields.get("SessionId", "")
        self._settle_duplicates(call, room, session_id, agent_user_id)
        agent = Agent(
            number=self._world.next_number(),
            account=keys.account,
            room=room,
            user_id=user_id,
            agent_user_id=agent_user_id,
            handle=self._task_id(call),
            session_id=session_id,
            region=call.headers.get("X-TC-Region", ""),
            idleness=Idleness.NOBODY_PUBLISHES,
            idle_limit=timedelta(seconds=config.get("MaxIdleTime", IDLE_TIME_S)),
            started_at=call.world_at,
            llm=own_llm(fields.get("LLMConfig", "{}")),
        )
        self._tasks[agent.handle] = agent
        self._sessions[agent.app_id, session_id] = agent
        call.ids["task_id"] = agent.handle
        self._world.start(agent)
        return {"TaskId": agent.handle}

    def _settle_duplicates(
        self, call: Call, room: Room, session_id: str, agent_user_id: str
    ) -> None:
        """Apply the two duplicate policies; nothing is taken over before nothing is rejected."""
        earlier = self._sessions.get((room.key.app_id, session_id)) if session_id else None
        same_session = [earlier] if earlier is not None and earlier.is_live else []
        same_agent = [a for a in room.agents.values() if a.agent_user_id == agent_user_id]
        duplicates = (
            (self._switches.tencent_duplicate_session, same_session),
            (self._switches.tencent_duplicate_agent, same_agent),
        )
        if any(policy == "reject" and agents for policy, agents in duplicates):
            _refuse("FailedOperation.TaskExist", "the task exists")
        for policy, agents in duplicates:
            for agent in agents if policy == "takeover" else ():
                self._world.end(agent, Why.EVICTED, call.world_at)

    def _describe(self, call: Call, fields: Fields) -> Fields:
        agent = self._described(call, fields)
        if agent is None or not self._is_shown(agent, call.world_at):
            _refuse("FailedOperation.TaskNotExist", "the task does not exist")
        shown: dict[str, Any] = {
            "StartTime": _beijing(agent.started_at),
            "Status": _status(agent),
            "TaskId": agent.handle,
        }
        if agent.session_id:
            shown["SessionId"] = agent.session_id
        if "TaskId" not in fields and self._switches.tencent_describe_without_task_id:
            del shown["TaskId"]
        return shown

    def _described(self, call: Call, fields: Fields) -> Agent | None:
        if fields.get("TaskId"):
            return self._find(call, fields["TaskId"])
        if "SdkAppId" not in fields or not fields.get("SessionId"):
            _refuse("InvalidParameter.TaskId", "TaskId, or SdkAppId and SessionId, are required")
        agent = self._sessions.get((str(fields["SdkAppId"]), fields["SessionId"]))
        return agent if agent is not None and self._is_here(call, agent) else None

    def _is_shown(self, agent: Agent, now: datetime) -> bool:
        if agent.ended_at is None:
            return self._world.knows(agent, now)
        return now < agent.ended_at + timedelta(milliseconds=self._switches.tencent_stopped_ms)

    def _stop(self, call: Call, fields: Fields) -> Fields:
        self._world.end(self._running(call, fields), Why.REQUESTED, call.world_at)
        return {}

    def _update(self, call: Call, fields: Fields) -> Fields:
        agent = self._running(call, fields)
        if "LLMConfig" in fields:
            agent.llm = own_llm(fields["LLMConfig"])
        return {}

    def _control(self, call: Call, fields: Fields) -> Fields:
        agent = self._running(call, fields)
        command = fields["Command"]
        if command not in {"ServerPushText", "InvokeLLM", "TransparentData"}:
            _refuse("InvalidParameter", f"Command {command!r} is unknown")
        payload = fields.get(command)
        if payload is None:
            _refuse("MissingParameter", f"{command} is required")
        if command == "ServerPushText" and not (payload.get("Text") or payload.get("Audio")):
            _refuse("InvalidParameter", "ServerPushText: expected a Text or an Audio")
        if command == "InvokeLLM" and not payload.get("Content"):
            _refuse("InvalidParameter", "InvokeLLM: expected a Content")
        if command == "ServerPushText" and payload.get("StopAfterPlay"):
            self._world.end(agent, Why.REQUESTED, call.world_at)
        return {}

    def _running(self, call: Call, fields: Fields) -> Agent:
        agent = self._find(call, fields["TaskId"])
        if agent is None or not self._world.knows(agent, call.world_at):
            _refuse("FailedOperation.TaskNotExist", "the task does not exist or has stopped")
        return agent

    def _find(self, call: Call, task_id: str) -> Agent | None:
        agent = self._tasks.get(task_id)
        return agent if agent is not None and self._is_here(call, agent) else None

    def _is_here(self, call: Call, agent: Agent) -> bool:
        """Return whether the caller may see the agent, from the region it asked."""
        if (call.key_id, int(agent.app_id)) not in self._apps:
            return False
        call.account = agent.account
        region = call.headers.get("X-TC-Region", "")
        return not self._switches.tencent_region_bound or agent.region == region

    # --- rooms ---

    def _remove_user(self, call: Call, fields: Fields) -> Fields:
        user_ids = fields["UserIds"]
        if not 0 < len(user_ids) <= 10:
            _refuse("InvalidParameter.UserIds", "1 to 10 UserIds are expected")
        call.ids["agent_user_id"] = user_ids[0]
        self._world.kick(
            self._room(call, fields), user_ids, call.world_at, ends=self._switches.tencent_kick_ends
        )
        return {}

    def _dismiss_room(self, call: Call, fields: Fields) -> Fields:
        self._world.dismiss(self._room(call, fields), call.world_at)
        return {}

    def _room(self, call: Call, fields: Fields) -> Room:
        kind = STRING if call.action.endswith("ByStrRoomId") else NUMERIC
        app_id = str(self._app(call, fields).sdk_app_id)
        room = self._world.rooms.get(RoomKey(Vendor.TENCENT, app_id, str(fields["RoomId"]), kind))
        if room is None or not (
            any(self._world.present_users(room)) or any(self._world.present_agents(room))
        ):
            _refuse("FailedOperation.RoomNotExist", "the room does not exist")
        return room

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._lots.getrandbits(128), version=4))

    def _task_id(self, call: Call) -> str:
        return f"v2_{call.world_at:%Y%m%d}_{self._lots.getrandbits(320):080x}"


def _verify_common(call: Call) -> None:
    """Check what every action needs, in the gateway's order."""
    if call.action not in BODIES:
        raise Refusal("InvalidAction", f"no action {call.action!r}")
    if call.version != VERSION:
        raise Refusal("NoSuchVersion", f"no version {call.version!r}")
    region = call.headers.get("X-TC-Region", "")
    if not region:
        raise Refusal("MissingParameter", "X-TC-Region is required")
    if region not in REGIONS:
        raise Refusal("UnsupportedRegion", f"no region {region!r}")


def _require_user_sig(token: str, user_id: str, keys: TencentKeys, now: datetime) -> None:
    user_sig = verify_user_sig(token, key=keys.usersig_key)
    if user_sig is None:
        _refuse("InvalidParameter.UserSig", "UserSig is malformed or signed with another key")
    if (user_sig.sdk_app_id, user_sig.user_id) != (keys.sdk_app_id, user_id):
        _refuse("InvalidParameter.UserSig", "UserSig is of another SdkAppId or user")
    # One made by a clock that is a little ahead is not valid yet, and let in all the same.
    if not (user_sig.is_valid_at(now) or user_sig.is_valid_at(now + WINDOW)):
        _refuse("InvalidParameter.UserSig", "UserSig has expired or is not valid yet")


def _refuse(code: str, message: str) -> NoReturn:
    raise Refusal(code, message)


def _status(agent: Agent) -> str:
    if not agent.is_live:
        return "Stopped"
    return "Preparing" if agent.joined_at is None else "InProgress"


def _beijing(at: datetime) -> str:
    """Return the time as the vendor shows it: microseconds and no zone, in its own."""
    return (at.astimezone(UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S.%f")
