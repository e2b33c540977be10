"""ZEGO's AI Agent actions: templates, instances, and what can be asked of a running one.

Source: core_products/aiagent/en/server (create-agent-instance, delete-agent-instance and their
neighbours, return-codes). What they leave open is a switch.
"""

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn

from orchestrator.simulator.wire import Call, Fields, Refusal, is_text
from orchestrator.simulator.world import (
    Agent,
    Happened,
    Idleness,
    RoomKey,
    Vendor,
    Why,
    World,
)
from orchestrator.simulator.zego_llm import own_llm
from orchestrator.simulator.zego_turns import Talk, Turns, begin_talk

ACTIONS = (
    "RegisterAgent",
    "UpdateAgent",
    "UnregisterAgent",
    "QueryAgents",
    "ListAgents",
    "CreateAgentInstance",
    "UpdateAgentInstance",
    "DeleteAgentInstance",
    "QueryAgentInstanceStatus",
    "InterruptAgentInstance",
    "SendAgentInstanceLLM",
    "SendAgentInstanceTTS",
    "StartListening",
    "StopListening",
)
MAX_IDLE_TIME_S = 120
SHOWN_AT_ONCE = 10
SHOWN_BY_DEFAULT = 5

_BLOCKS = ("LLM", "TTS", "ASR")
_ID = "-_."

Handler = Callable[[Call, Fields], object]


class ZegoAgents:
    """The templates and instances of all apps."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._switches = world.switches
        self._turns = Turns(world.switches)
        self._lots = random.SystemRandom()
        self._templates: dict[str, dict[str, dict[str, Any]]] = {}
        # Live instances only: what has ended answers 410001002 to everything.
        self._talks: dict[tuple[str, str], Talk] = {}
        self._live: dict[str, set[Agent]] = {}
        # Who is in a room under a user id or publishes a stream, by app: both are unique.
        self._users: dict[tuple[str, str], Agent] = {}
        self._streams: dict[tuple[str, str], Agent] = {}
        world.listen(self._follow)
        self.actions: Mapping[str, Handler] = dict(
            zip(
                ACTIONS,
                (
                    self._register,
                    self._update_template,
                    self._unregister,
                    self._query_templates,
                    self._list_templates,
                    self._create,
                    self._update,
                    self._delete,
                    self._query,
                    self._interrupt,
                    self._prompt,
                    self._say,
                    self._start_listening,
                    self._stop_listening,
                ),
                strict=True,
            )
        )

    # --- templates ---

    def _register(self, call: Call, body: Fields) -> None:
        agent_id = _agent_id(body)
        templates = self._templates.setdefault(call.key_id, {})
        if agent_id in templates:
            raise Refusal("410001008", "the agent exists already")
        templates[agent_id] = {"AgentId": agent_id, **_blocks(body)}

    def _update_template(self, call: Call, body: Fields) -> None:
        agent_id = _agent_id(body)
        templates = self._templates.setdefault(call.key_id, {})
        if agent_id not in templates and not self._switches.zego_agents_registered:
            raise Refusal("410001009", "the agent was not found")
        templates.setdefault(agent_id, {"AgentId": agent_id}).update(_blocks(body))

    def _unregister(self, call: Call, body: Fields) -> None:
        agent_id = _agent_id(body)
        known = self._templates.get(call.key_id, {}).pop(agent_id, None)
        if known is None and not self._switches.zego_agents_registered:
            raise Refusal("410001009", "the agent was not found")

    def _query_templates(self, call: Call, body: Fields) -> Fields:
        agent_ids = body.get("AgentIds")
        if not isinstance(agent_ids, list) or not 0 < len(agent_ids) <= SHOWN_AT_ONCE:
            _invalid("AgentIds: expected 1 to 10 AgentIds")
        templates = self._templates.get(call.key_id, {})
        return {"Agents": [templates[i] for i in map(str, agent_ids) if i in templates] or None}

    def _list_templates(self, call: Call, body: Fields) -> Fields:
        limit, cursor = body.get("Limit", 0), body.get("Cursor", "")
        if type(limit) is not int or not 0 <= limit <= SHOWN_AT_ONCE:
            _invalid("Limit: expected 0 to 10")
        if not isinstance(cursor, str) or (cursor and not cursor.isdecimal()):
            _invalid("Cursor: expected one of an earlier answer")
        agents, begin = list(self._templates.get(call.key_id, {}).values()), int(cursor or 0)
        end = begin + (limit or SHOWN_BY_DEFAULT)
        return {
            "Total": len(agents),
            "Agents": agents[begin:end] or None,
            "Cursor": str(end) if end < len(agents) else "",
        }

    # --- instances ---

    def hear(self, agent: Agent, now: datetime) -> int:
        """Let the instance's user be heard; return the round. See `Turns.hear`."""
        talk = self._talks.get((agent.app_id, agent.handle))
        if talk is not None:
            return self._turns.hear(talk, now)
        # It has ended, and goes on all the same.
        agent.round += 1
        return agent.round

    def _create(self, call: Call, body: Fields) -> Fields:
        agent_id, user_id = _agent_id(body), _id(body, "UserId", 32)
        rtc, advanced = _object(body, "RTC"), _object(body, "AdvancedConfig")
        room_id, stream_id = _id(rtc, "RoomId", 128), _id(rtc, "AgentStreamId", 128)
        agent_user_id = _id(rtc, "AgentUserId", 32)
        _id(rtc, "UserStreamId", 128)
        idle_s = _number(advanced, "MaxIdleTime", range(10, 1801), MAX_IDLE_TIME_S)
        mode = _number(advanced, "CommunicationMode", range(3), 0)
        call.ids = {"room_id": room_id, "user_id": user_id, "agent_user_id": agent_user_id}
        call.ids["stream_id"] = stream_id
        if agent_user_id == user_id:
            _invalid("RTC.AgentUserId must differ from UserId")
        self._require_template(call, agent_id)
        live = self._live.setdefault(call.key_id, set())
        if self._switches.zego_capacity and len(live) >= self._switches.zego_capacity:
            raise Refusal(
                "410000011", "the number of concurrent instances of the APP is at its limit"
            )
        agent = Agent(
            number=self._world.next_number(),
            account=call.account,
            room=self._world.room(RoomKey(Vendor.ZEGO, call.key_id, room_id)),
            user_id=user_id,
            agent_user_id=agent_user_id,
            handle=str(self._lots.randrange(10**18, 10**19)),
            stream_id=stream_id,
            idleness=Idleness.USER_ABSENT,
            idle_limit=timedelta(seconds=idle_s),
            started_at=call.world_at,
            llm=own_llm({**self._template(call, agent_id), **_blocks(body)}, body),
        )
        self._talks[agent.app_id, agent.handle] = begin_talk(agent, mode)
        live.add(agent)
        call.ids["task_id"] = agent.handle
        self._world.start(agent)
        return {"AgentInstanceId": agent.handle}

    def _template(self, call: Call, agent_id: str) -> Fields:
        return self._templates.get(call.key_id, {}).get(agent_id, {})

    def _require_template(self, call: Call, agent_id: str) -> None:
        known = agent_id in self._templates.get(call.key_id, {})
        if not known and not self._switches.zego_agents_registered:
            raise Refusal("410001009", "the agent was not found")

    def _update(self, call: Call, body: Fields) -> None:
        talk = self._talk(call, body)
        if "LLM" in _blocks(body):
            talk.agent.llm = own_llm(body, talk.agent.llm or body)
        rtc, advanced = _object(body, "RTC"), _object(body, "AdvancedConfig")
        if "UserStreamId" in rtc:
            _id(rtc, "UserStreamId", 128)
        if "CommunicationMode" in advanced:
            mode = _number(advanced, "CommunicationMode", range(2), 0)
            if talk.mode == 2:  # walkie-talkie mode can be neither entered nor left
                _invalid("AdvancedConfig.CommunicationMode: mode 2 cannot be left")
            talk.mode = mode

    def _delete(self, call: Call, body: Fields) -> None:
        talk = self._talk(call, body)
        if not body.get("GracefulShutdown"):
            self._world.end(talk.agent, Why.REQUESTED, call.world_at)
            return
        timeout_s = _number(body, "GracefulShutdownTimeout", range(1, 121), 30)
        self._drain(talk, call.world_at, timedelta(seconds=timeout_s))

    def _drain(self, talk: Talk, now: datetime, timeout: timedelta) -> None:
        """End the instance when it has fallen silent, at the latest after `timeout`."""
        status = talk.status(now)
        if status == "IDLE":
            self._world.end(talk.agent, Why.REQUESTED, now)
            return
        talk.drains_until = now + timeout
        if status == "SPEAKING" and talk.speaks_until is not None:
            talk.drains_until = min(talk.drains_until, talk.speaks_until)
        self._world.schedule(talk.drains_until, partial(self._world.end, talk.agent, Why.REQUESTED))

    def _query(self, call: Call, body: Fields) -> Fields:
        return {"Status": self._talk(call, body).status(call.world_at)}

    def _interrupt(self, call: Call, body: Fields) -> Fields:
        return {"Round": self._turns.interrupt(self._talk(call, body), call.world_at)}

    def _say(self, call: Call, body: Fields) -> Fields:
        return {"Round": self._turns.say(self._talk(call, body), body, call.world_at)}

    def _prompt(self, call: Call, body: Fields) -> Fields:
        return {"Round": self._turns.prompt(self._talk(call, body), body, call.world_at)}

    def _start_listening(self, call: Call, body: Fields) -> Fields:
        return {"Round": self._press(call, body, self._turns.start_listening)}

    def _stop_listening(self, call: Call, body: Fields) -> Fields:
        return {"Round": self._press(call, body, self._turns.stop_listening)}

    def _press(self, call: Call, body: Fields, action: Callable[..., int]) -> int:
        call.ids["sequence"] = body.get("Sequence")
        talk = self._talk(call, body)
        user_id = body.get("UserId") or talk.agent.user_id
        call.ids["user_id"] = user_id
        user = self._world.user(talk.agent.room, str(user_id))
        return action(talk, body, user, call.world_at)

    def _talk(self, call: Call, body: Fields) -> Talk:
        """Return the instance that the body names, if it may be spoken to."""
        handle = body.get("AgentInstanceId")
        if not isinstance(handle, str) or not handle:
            _invalid("AgentInstanceId is invalid")
        call.ids["task_id"] = handle
        talk = self._talks.get((call.key_id, handle))
        if talk is None or not self._world.knows(talk.agent, call.world_at):
            raise Refusal("410001002", "agent instance not found")
        if talk.drains_until is not None:
            raise Refusal("410001041", "the agent instance is draining")
        return talk

    def _follow(self, happened: Happened, agent: Agent, now: datetime) -> None:
        """Evict whom an agent that joins displaces, and forget one that ended."""
        if agent.vendor is not Vendor.ZEGO:
            return
        if happened is Happened.ENDED:
            self._forget(agent)
            return
        user, stream = (agent.app_id, agent.agent_user_id), (agent.app_id, agent.stream_id)
        if user in self._users:
            self._world.end(self._users[user], Why.EVICTED, now)
        self._users[user] = agent
        if stream in self._streams:
            self._world.end(agent, Why.STREAM_CLASH, now)
        else:
            self._streams[stream] = agent

    def _forget(self, agent: Agent) -> None:
        self._live[agent.app_id].discard(agent)
        del self._talks[agent.app_id, agent.handle]
        user, stream = (agent.app_id, agent.agent_user_id), (agent.app_id, agent.stream_id)
        if self._users.get(user) is agent:
            del self._users[user]
        if self._streams.get(stream) is agent:
            del self._streams[stream]


def _invalid(message: str) -> NoReturn:
    raise Refusal("410000003", message)


def _agent_id(body: Fields) -> str:
    agent_id = body.get("AgentId")
    if not isinstance(agent_id, str) or not 0 < len(agent_id.encode()) <= 128:
        _invalid("AgentId: expected 1 to 128 bytes")
    return agent_id


def _id(block: Fields, name: str, longest: int) -> str:
    value = block.get(name)
    if not is_text(value, longest=longest, extra=_ID):
        _invalid(f"{name}: expected 1 to {longest} letters, digits or {_ID}")
    return str(value)


def _object(body: Fields, name: str) -> Fields:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _invalid(f"{name}: expected an object")
    return value


def _blocks(body: Fields) -> Fields:
    """Return the blocks of a template that the body has; they replace what was there, whole."""
    given = {name: _object(body, name) for name in _BLOCKS if name in body}
    return given | ({"Name": body["Name"]} if "Name" in body else {})


def _number(block: Fields, name: str, allowed: range, default: int) -> int:
    value = block.get(name)
    if value is None:
        return default
    if type(value) is not int or value not in allowed:
        _invalid(f"{name}: expected {allowed.start} to {allowed.stop - 1}")
    return value
