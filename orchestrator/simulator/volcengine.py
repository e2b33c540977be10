"""Volcengine RTC as a vendor: the VoiceChat actions and the room look-up.

Sources: the vendor's pages 6348/1558163 (StartVoiceChat), 1404671, 1404672, 2123348, 1178322
(envelope), 70426 (codes) and the common error-code page. What they leave open is a switch.
Rule: the checks come in the order of the gateway: signature, action, pace, body, business.
"""

import hmac
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NoReturn

from orchestrator.providers.signing import V4_ALGORITHM, Authorization, Unsigned, v4_signature
from orchestrator.simulator.keys import VolcengineKeys
from orchestrator.simulator.pace import Pace
from orchestrator.simulator.times import parse_basic
from orchestrator.simulator.volcengine_llm import own_llm, require_reachable, updated_llm
from orchestrator.simulator.volcengine_updates import check_update
from orchestrator.simulator.wire import (
    Answer,
    Call,
    Fields,
    Refusal,
    is_text,
    parse_object,
    to_json,
)
from orchestrator.simulator.world import Agent, Idleness, Room, RoomKey, Vendor, Why, World

STARTED_ALREADY = (
    "The task has been started. Please do not call the startup task interface repeatedly."
)
FIRST_VERSION = "2024-06-01"
TASK_VERSIONS = ("2024-12-01", "2025-06-01")
LOOKUP_VERSIONS = ("2023-08-01", "2023-11-01")
WINDOW = timedelta(seconds=900)
IDLE_TIMEOUT_S = 180

_CODE_N = {
    "MissingParameter": 100002,
    "MissingAuthenticationToken": 100003,
    "MissingRequestInfo": 100004,
    "MissingSignature": 100005,
    "InvalidTimestamp": 100006,
    "ServiceNotFound": 100007,
    "InvalidActionOrVersion": 100008,
    "InvalidAccessKey": 100009,
    "SignatureDoesNotMatch": 100010,
}


class Volcengine:
    """All Volcengine accounts of the simulator."""

    def __init__(self, keys: Sequence[VolcengineKeys], world: World, pace: Pace) -> None:
        self._by_key_id = {k.access_key_id: k for k in reversed(keys)}
        self._accounts = {(k.access_key_id, k.app_id): k.account for k in reversed(keys)}
        self._world = world
        self._switches = world.switches
        self._pace = pace
        self._requests = count(random.SystemRandom().getrandbits(60))
        # The first version has no TaskId: there a task is (app, room, user).
        self._tasks: dict[tuple[str, ...], Agent] = {}
        self._actions = {
            ("StartVoiceChat", FIRST_VERSION): self._start_first,
            ("UpdateVoiceChat", FIRST_VERSION): self._update,
            ("StopVoiceChat", FIRST_VERSION): self._stop_first,
        }
        for version in TASK_VERSIONS:
            self._actions["StartVoiceChat", version] = self._start
            self._actions["UpdateVoiceChat", version] = self._update
            self._actions["StopVoiceChat", version] = self._stop

    def serve(self, call: Call) -> Answer:
        """Do what the call asks, as the vendor would."""
        try:
            self._verify(call)
            return self._envelope(call, result=self._perform(call))
        except Refusal as refusal:
            return self.refuse(call, refusal)

    def refuse(self, call: Call, refusal: Refusal) -> Answer:
        """Put a refusal into the vendor's envelope."""
        error: dict[str, Any] = {"Code": refusal.code, "Message": refusal.message}
        if refusal.code in _CODE_N:
            error = {"CodeN": _CODE_N[refusal.code]} | error
        body = {"ResponseMetadata": self._metadata(call) | {"Error": error}}
        return Answer(refusal.status, to_json(body), refusal.code)

    def throttled(self, call: Call) -> Refusal:
        """Return the vendor's words for too many calls."""
        message = f"{call.action}: queries per second exceed the limit"
        return Refusal("FlowLimitExceeded.QPSOverLimit", message, 429)

    def hear(self, agent: Agent, now: datetime) -> int:  # noqa: ARG002 - as the others'
        """Let the agent's user be heard; return the round."""
        require_reachable(agent.llm or {})
        agent.round += 1
        return agent.round

    # --- the gateway ---

    def _perform(self, call: Call) -> object:
        if call.action == "GetRoomOnlineUsers" and call.version in LOOKUP_VERSIONS:
            self._keep_pace(call, self._switches.volcengine_lookup_qps)
            return self._online_users(call)
        action = self._actions.get((call.action, call.version))
        if action is None:
            message = f"Could not find operation {call.action} for version {call.version}"
            raise Refusal("InvalidActionOrVersion", message, 404)
        self._keep_pace(call, self._switches.volcengine_qps)
        return action(call, self._read(call))

    def _verify(self, call: Call) -> None:
        if not call.action or not call.version:
            raise Refusal("MissingParameter", "Action and Version are required", 400)
        given = _authorization(call)
        keys = self._by_key_id.get(given.key_id)
        if keys is None:
            raise Refusal("InvalidAccessKey", "the access key id is unknown", 401)
        call.key_id, call.account = given.key_id, keys.account
        self._verify_date(call, given)
        if (call.headers.get("X-Security-Token") or None) != keys.session_token:
            raise Refusal("InvalidAccessKey", "the security token is wrong", 401)
        if not given.scope.endswith("/rtc/request"):
            raise Refusal("ServiceNotFound", f"no service under {given.scope}", 404)
        expected = v4_signature(
            Unsigned(
                method=call.method,
                host=call.host,
                query=call.query,
                headers=call.headers,
                body=call.body,
            ),
            secret_access_key=keys.secret_access_key,
            scope=given.scope,
            signed_headers=given.signed_headers,
        )
        if not hmac.compare_digest(expected, given.signature):
            raise Refusal("SignatureDoesNotMatch", "the signature does not match", 401)

    def _verify_date(self, call: Call, given: Authorization) -> None:
        x_date = call.headers.get("X-Date", "")
        signed_at = parse_basic(x_date)
        if signed_at is None or not given.scope.startswith(x_date[:8] + "/"):
            raise Refusal("InvalidTimestamp", "X-Date is missing, malformed or of another day", 400)
        if self._switches.enforce_signature_window and abs(call.at - signed_at) > WINDOW:
            raise Refusal("InvalidTimestamp", "X-Date is more than 900 s away", 400)

    def _keep_pace(self, call: Call, limit: int) -> None:
        key = (Vendor.VOLCENGINE, call.account, call.action)
        self._pace.arrive(key, call.at_us)
        if not self._pace.admit(key, limit, call.at_us):
            raise self.throttled(call)

    # --- bodies ---

    def _read(self, call: Call) -> Fields:
        if not call.body:
            raise Refusal("InvalidParameter.BodyIsEmpty", "the body is empty", 400)
        body = parse_object(call.body)
        if body is None:
            raise Refusal("InvalidParameter.Unmarshal", "the body is no JSON object", 400)
        call.ids = {
            name: body[field]
            for name, field in (("task_id", "TaskId"), ("room_id", "RoomId"), ("user_id", "UserId"))
            if field in body
        }
        self._require_app(call, body.get("AppId"))
        return body

    def _require_app(self, call: Call, app_id: object) -> None:
        account = self._accounts.get((call.key_id, str(app_id)))
        if account is None:
            raise Refusal("InvalidParameter.NotExistAppId", "AppId is not of this account", 400)
        call.account = account

    def _start(self, call: Call, body: Fields) -> object:
        task_id, room_id = _id(body, "TaskId"), _id(body, "RoomId")
        config = _require(body, "AgentConfig", dict)
        _require(body, "Config", dict)
        user_id = _target(config)
        if call.version == "2025-06-01":
            _id(config, "UserId", "AgentConfig.")
        default = f"voiceChat_{user_id}_{int(call.world_at.timestamp())}"
        agent_user_id = _id({"UserId": default} | config, "UserId", "AgentConfig.")
        if agent_user_id == user_id:
            _refuse("AgentConfig.UserId must differ from TargetUserId")
        key = (body["AppId"], room_id, task_id)
        return self._begin(call, key, user_id, agent_user_id, body)

    def _start_first(self, call: Call, body: Fields) -> object:
        room_id, user_id = _id(body, "RoomId"), _id(body, "UserId")
        config = _require(body, "Config", dict)
        default = f"voiceChat_{user_id}_{int(call.world_at.timestamp())}"
        agent_user_id = _id({"BotName": default} | config, "BotName", "Config.")
        key = (body["AppId"], room_id, "", user_id)
        return self._begin(call, key, user_id, agent_user_id, body)

    def _begin(
        self, call: Call, key: tuple[str, ...], user_id: str, agent_user_id: str, body: Fields
    ) -> object:
        """Start the task of this key, if it does not run."""
        idle_limit = _idle_limit(body)
        call.ids |= {"user_id": user_id, "agent_user_id": agent_user_id}
        running = self._tasks.get(key)
        if running is not None and running.is_live:
            return self._started_already()
        room = self._world.room(RoomKey(Vendor.VOLCENGINE, key[0], key[1]))
        if room.agents and self._switches.volcengine_second_task == "refuse":
            raise Refusal("InvalidParameter.TaskAlreadyExists", "the room has a task", 400)
        agent = Agent(
            number=self._world.next_number(),
            account=call.account,
            room=room,
            user_id=user_id,
            agent_user_id=agent_user_id,
            handle=key[2],
            version=call.version,
            idleness=Idleness.USER_ABSENT,
            idle_limit=idle_limit,
            started_at=call.world_at,
            llm=own_llm(body["Config"]),
        )
        self._tasks[key] = agent
        self._world.start(agent)
        return self._success()

    def _started_already(self) -> object:
        if self._switches.volcengine_duplicate_start == "error":
            raise Refusal("InvalidParameter.TaskAlreadyExists", STARTED_ALREADY, 400)
        return STARTED_ALREADY

    def _update(self, call: Call, body: Fields) -> object:
        check_update(call.version, body, self._switches)
        agent = self._tasks.get(_task_key(call, body))
        if agent is None or not self._world.knows(agent, call.world_at):
            return self._unknown_task()
        agent.llm = updated_llm(agent.llm, body)
        return self._success()

    def _stop(self, call: Call, body: Fields) -> object:
        return self._end(call, [self._tasks.get(_task_key(call, body))])

    def _stop_first(self, call: Call, body: Fields) -> object:
        if "RoomId" in body:
            return self._stop(call, body)
        # RoomId is marked optional: without it, whatever talks to the user ends.
        app_id, user_id = body["AppId"], _id(body, "UserId")
        return self._end(
            call,
            [
                task
                for key, task in self._tasks.items()
                if key[0] == app_id and key[2:] == ("", user_id)
            ],
        )

    def _end(self, call: Call, agents: Sequence[Agent | None]) -> object:
        known = [a for a in agents if a is not None and self._world.knows(a, call.world_at)]
        if not known:
            return self._unknown_task()
        for agent in known:
            self._world.end(agent, Why.REQUESTED, call.world_at)
        return self._success()

    def _unknown_task(self) -> object:
        if self._switches.volcengine_unknown_task == "ok":
            return self._success()
        status = 200 if self._switches.volcengine_unknown_task == "error_200" else 400
        raise Refusal(
            "InvalidParameter.ErrorActiveTaskNotFound", "no active task was found", status
        )

    def _online_users(self, call: Call) -> object:
        app_id, room_id = call.query_one("AppId"), call.query_one("RoomId")
        call.ids = {"room_id": room_id}
        self._require_app(call, app_id)
        if not room_id:
            raise Refusal("MissingParameter", "RoomId is required", 400)
        room = self._world.rooms.get(RoomKey(Vendor.VOLCENGINE, app_id, room_id))
        visible, invisible = self._present(room)
        if not visible and not invisible:
            return {"RoomExists": False}
        return {
            "RoomExists": True,
            "TotalUser": len(visible),
            "TotalInvisibleUser": len(invisible),
            "VisibleUserList": visible,
            "InvisibleUserList": invisible,
        }

    def _present(self, room: Room | None) -> tuple[list[str], list[str]]:
        if room is None:
            return [], []
        users, agents = (
            list(self._world.present_users(room)),
            list(self._world.present_agents(room)),
        )
        if self._switches.volcengine_agent_visible:
            return users + agents, []
        return users, agents

    # --- the envelope ---

    def _success(self) -> object:
        return "ok" if self._switches.volcengine_success_result == "ok" else {}

    def _envelope(self, call: Call, result: object) -> Answer:
        body = {"ResponseMetadata": self._metadata(call), "Result": result}
        return Answer(200, to_json(body), "")

    def _metadata(self, call: Call) -> dict[str, Any]:
        return {
            "RequestId": f"{call.at:%Y%m%d%H%M%S}{next(self._requests):020X}",
            "Action": call.action,
            "Version": call.version,
            "Service": "rtc",
            "Region": "cn-north-1",
        }


def _authorization(call: Call) -> Authorization:
    header = call.headers.get("Authorization", "")
    if not header:
        raise Refusal("MissingAuthenticationToken", "there is no Authorization", 401)
    if "Signature=" not in header:
        raise Refusal("MissingSignature", "Authorization holds no Signature", 401)
    given = Authorization.from_header(header)
    if given is None or given.algorithm != V4_ALGORITHM:
        message = "Invalid 'Authorization' header, Pls check your authorization header."
        raise Refusal("InvalidAuthorization", message, 400)
    return given


def _task_key(call: Call, body: Fields) -> tuple[str, ...]:
    app_id, room_id = body["AppId"], _id(body, "RoomId")
    if call.version == FIRST_VERSION:
        return (app_id, room_id, "", _id(body, "UserId"))
    return (app_id, room_id, _id(body, "TaskId"))


def _refuse(message: str) -> NoReturn:
    raise Refusal("InvalidParameter", message, 400)


def _require(body: Fields, name: str, kind: type) -> Any:
    value = body.get(name)
    if not isinstance(value, kind) or not value:
        _refuse(f"{name} is required")
    return value


def _id(body: Fields, name: str, where: str = "") -> str:
    value = body.get(name)
    if not is_text(value, longest=128, extra="_-.@"):
        _refuse(f"{where}{name}: expected 1 to 128 letters, digits or _-.@")
    return str(value)


def _target(config: Fields) -> str:
    targets = config.get("TargetUserId")
    if not isinstance(targets, list) or len(targets) != 1:
        _refuse("AgentConfig.TargetUserId: expected a list of exactly one user id")
    return _id({"TargetUserId": targets[0]}, "TargetUserId", "AgentConfig.")


def _idle_limit(body: Fields) -> timedelta:
    config = body.get("AgentConfig")
    value = config.get("IdleTimeout") if isinstance(config, dict) else None
    if value is None:
        return timedelta(seconds=IDLE_TIMEOUT_S)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        _refuse("AgentConfig.IdleTimeout: expected seconds above 0")
    return timedelta(seconds=value)
